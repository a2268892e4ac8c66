#!/usr/bin/env bash
# The systemd units as systemd-analyze sees them: nothing unknown or contradictory in them, and exposed no further than 1.5 of 10.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v systemd-analyze >/dev/null 2>&1; then
  echo 'SKIPPED systemd units: no systemd-analyze (apt-get install systemd)'
  exit 0
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp deploy/systemd/*.service deploy/systemd/*.socket "$copy/"
# The program need not be installed for this.
sed -i 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$copy"/*.service
systemd-analyze verify "$copy"/*.service "$copy"/*.socket >"$copy/said" 2>&1 || { cat "$copy/said" >&2; exit 1; }
# Warnings end with 0 as well.
if grep -F "$copy" "$copy/said" >&2; then exit 1; fi
systemd-analyze security --offline=yes --threshold=15 "$copy/mosaic-federation.service" >"$copy/said" 2>&1 || { cat "$copy/said" >&2; exit 1; }
grep '^→' "$copy/said"
