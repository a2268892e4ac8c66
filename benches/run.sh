#!/usr/bin/env bash
# Figures of the sidecar beside bare Pingora, nginx, and nginx + Lua (README.md). Installs what is missing, builds
# in release, measures on loopback, cleans up. Arguments go to bench.py, as in: benches/run.sh --phases small --runs 5
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

note() { printf '== %s\n' "$*" >&2; }

missing=()
for pair in nginx:nginx gcc:gcc python3:python3 openssl:openssl curl:curl strace:strace; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair##*:}")
done
ls /usr/lib/nginx/modules/ngx_http_lua_module.so >/dev/null 2>&1 || missing+=(libnginx-mod-http-lua)
ls /usr/lib/*/lua/5.1/cjson.so >/dev/null 2>&1 || missing+=(lua-cjson)
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  note "installing: ${missing[*]}"
  # Debian's nginx package starts a server on port 80: it is told not to.
  if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
    printf 'error: missing on this machine: %s\n  why: they are what the sidecar is compared with, or needed to build\n  do: apt-get install %s\n' \
      "${missing[*]}" "${missing[*]}" >&2
    exit 1
  fi
fi

note "building (release)"
cargo build --locked --release -p proxy -p benches
exec python3 -B benches/bench.py --binaries "$target/release" --json "$target/bench-results.json" "$@"
