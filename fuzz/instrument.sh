#!/usr/bin/env bash
# Stands in front of rustc for this workspace's own crates (RUSTC_WORKSPACE_WRAPPER): adds what libFuzzer sees by.
# Dependencies stay as they are, so nothing but our crates is built again.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on
