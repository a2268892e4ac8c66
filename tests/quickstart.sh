#!/usr/bin/env bash
# quickstart.sh BINARY_DIR: runs docs/quickstart.md as it is written, on two hosts with an address and files of their own in network
# namespaces. A block below `<!-- run: SIDE -->` is typed there; `<!-- check: SIDE` holds what must succeed. Exit status 77: not possible here.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

if [ -z "${QUICKSTART:-}" ]; then
  binaries=$(cd "$1" && pwd)
  for program in ip unshare nsenter curl python3; do
    command -v $program >/dev/null 2>&1 || { echo "SKIPPED the quick start: no $program"; exit 77; }
  done
  own=(unshare --net --mount --pid --fork --kill-child --mount-proc)
  [ "$(id -u)" = 0 ] || own+=(--user --map-root-user)
  "${own[@]}" true 2>/dev/null || { echo 'SKIPPED the quick start: this user may not make namespaces'; exit 77; }
  state=$(mktemp -d)
  trap 'rm -rf "$state"' EXIT
  began=$(date +%s)
  QUICKSTART=$state BINARIES=$binaries timeout --kill-after=5 120 "${own[@]}" "$0"
  echo "the quick start took $(($(date +%s) - began)) s without building"
  exit
fi

state=$QUICKSTART
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link add between type bridge
ip link set between up
number=2
for side in work home; do
  ip netns add $side
  ip link add veth-$side type veth peer name eth0 netns $side
  ip link set veth-$side master between up
  ip -n $side link set lo up
  ip -n $side address add 192.0.2.$number/24 dev eth0
  ip -n $side link set eth0 up
  number=$((number + 1))
  mkdir "$state/$side"
done
printf '127.0.0.1 localhost\n192.0.2.2 work.example.com\n' >"$state/hosts"
mount --bind "$state/hosts" /etc/hosts

# The page as a script: each block in its side's directory, whose programs run in its side's network.
python3 - "$top/docs/quickstart.md" >"$state/script" <<'PAGE'
import re
import sys

text = open(sys.argv[1]).read()
steps = re.findall(r"<!-- (run): (work|home) -->\n```sh\n(.*?)```|<!-- (check): (work|home)\n(.*?)-->", text, re.DOTALL)
if sum(step[0] == "run" for step in steps) < 5 or not any(step[3] for step in steps):
    sys.exit("error: the page has lost its steps")
for kind, side, body, check, checked, commands in steps:
    print(f"side {side or checked}\necho '-- {kind or check} on {side or checked}'\n{body or commands}\ndirectory[$SIDE]=$PWD")
PAGE
cat >"$state/prelude" <<'PRELUDE'
set -euo pipefail
declare -A directory=([work]=$QUICKSTART/work [home]=$QUICKSTART/home)
side() {
  SIDE=$1
  cd "${directory[$1]}"
}
mosaic-federation() { exec_on "$BINARIES/mosaic-federation" "$@"; }
reference-gateway() { exec_on "$BINARIES/reference-gateway" "$@"; }
curl() { exec_on "$(type -P curl)" "$@"; }
exec_on() { nsenter --net=/run/netns/"$SIDE" -- "$@"; }
unset "${!MOSAIC_@}" 2>/dev/null || true
PRELUDE
cat "$state/prelude" "$state/script" >"$state/all"
if ! bash "$state/all" </dev/null; then
  tail -n 5 "$state"/*/federation/*.log >&2 || true
  echo "error: the quick start does not work as it is written" >&2
  exit 1
fi
