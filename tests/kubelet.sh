#!/usr/bin/env bash
# kubelet.sh BINARY_DIR: renders the Helm chart and runs its container as the kubelet would have it: volumes written the way the kubelet
# writes them (a `..data` link that is exchanged), owners and modes by `fsGroup`, the user of the pod, no capabilities, a root that
# cannot be written. Shows that it becomes ready, reads the secret, follows a changed ConfigMap, and ends clean. Exit status 77: not
# possible here.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
skip() { echo "SKIPPED the pod of the chart: $*"; exit 77; }

if [ -z "${KUBELET:-}" ]; then
  binaries=$(cd "$1" && pwd)
  python=$top/target/venv/bin/python
  [ "$(id -u)" = 0 ] || skip "only root can give files to others"
  for program in helm unshare setpriv curl; do command -v $program >/dev/null 2>&1 || skip "no $program"; done
  "$python" -c 'import yaml' 2>/dev/null || skip "no Python with PyYAML"
  unshare --net --mount --pid --fork --kill-child --mount-proc true 2>/dev/null || skip "no namespaces"
  state=$(mktemp -d)
  trap 'rm -rf "$state"' EXIT
  chmod 0755 "$state"
  helm template pod "$top/deploy/helm/mosaic-federation" --set sealingSecret.existingSecret=seal \
    --set settings.federation.public_url=https://work.example.com:8443 --set settings.enrollment.public_url=https://work.example.com:8444 \
    --set settings.gateway.url=http://gateway.default.svc:14242 >"$state/rendered.yaml" 2>"$state/helm" || { cat "$state/helm" >&2; exit 1; }
  # Each volume as a directory, with a script that mounts it where the pod has it; then the container itself.
  "$python" - "$state" <<'RENDERED'
import os
import pathlib
import shlex
import sys

import yaml

state = pathlib.Path(sys.argv[1])
objects = [one for one in yaml.safe_load_all((state / "rendered.yaml").read_text()) if one]
maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
pod = next(one for one in objects if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]
group = pod["securityContext"]["fsGroup"]


def atomic(directory: pathlib.Path, files: dict[str, str], mode: int) -> None:
    """As the kubelet's writer: the files in a directory of their own, a link to it, links to the files through that."""
    data = directory / "..2026_01_01"
    data.mkdir(parents=True)
    for name, text in files.items():
        (data / name).write_text(text)
        os.chown(data / name, 0, group)
        (data / name).chmod(mode)
        (directory / name).symlink_to(f"..data/{name}")
    (directory / "..data").symlink_to(data.name)
    for path in (directory, data):
        os.chown(path, 0, group)
        path.chmod(0o2755 if path is data else 0o3777)


for volume in pod["volumes"] + [{"name": "data"}]:
    place = state / "volumes" / volume["name"]
    if "configMap" in volume:
        atomic(place, maps[volume["configMap"]["name"]], 0o644)
    elif "secret" in volume:
        items = {item["path"]: "5a" * 32 for item in volume["secret"]["items"]}
        atomic(place, items, volume["secret"]["defaultMode"])
    else:
        place.mkdir(parents=True)
        os.chown(place, 0, group)
        place.chmod(0o2775 if volume["name"] == "data" else 0o2777)
[container] = pod["containers"]
lines = []
for mount in container["volumeMounts"]:
    if mount["mountPath"] == "/tmp":
        # This is in there.
        continue
    path = shlex.quote(mount["mountPath"])
    lines.append(f"mkdir -p {path} && mount --bind {state}/volumes/{mount['name']} {path}")
    if mount.get("readOnly"):
        lines.append(f"mount -o remount,bind,ro {path}")
lines += [f"export {shlex.quote(one['name'])}={shlex.quote(one['value'])}" for one in container["env"]]
(state / "mounts").write_text("\n".join(lines) + "\n")
user = pod["securityContext"]
(state / "command").write_text(
    f"exec setpriv --reuid={user['runAsUser']} --regid={user['runAsGroup']} --groups={group} --no-new-privs --bounding-set=-all --inh-caps=-all"
    f" {shlex.quote(sys.argv[1])}/bin/mosaic-federation {shlex.join(container['args'])}\n"
)
RENDERED
  install -D -m 0755 "$binaries/mosaic-federation" "$state/bin/mosaic-federation"
  KUBELET=$state timeout --kill-after=5 60 unshare --net --mount --pid --fork --kill-child --mount-proc "$0"
  exit
fi

state=$KUBELET
fail() {
  printf 'error: %s\n' "$*" >&2
  tail -n 20 "$state/log" >&2
  exit 1
}
ip link set lo up
# What the pod mounts below /etc and /var must not be made on this machine.
mount -t tmpfs tmpfs /var/lib
mkdir "$state/layer"
mount -t tmpfs tmpfs "$state/layer"
mkdir "$state/layer/up" "$state/layer/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$state/layer/up,workdir=$state/layer/work" /etc
# shellcheck disable=SC1091
source "$state/mounts"
mount -o remount,bind,ro /etc
bash "$state/command" >"$state/log" 2>&1 &
pod=$!
for attempt in $(seq 200); do
  curl -sf http://127.0.0.1:9464/readyz >/dev/null && break
  kill -0 "$pod" 2>/dev/null || fail "it has ended"
  [ "$attempt" -lt 200 ] || fail "it is not ready"
  sleep 0.1
done
echo "== ready"
[ "$(awk '/^Uid:/ { print $2 }' "/proc/$pod/status") $(awk '/^CapEff:/ { print $2 }' "/proc/$pod/status")" = "65532 0000000000000000" ] || fail "it is somebody else"
[ $((0$(stat -c %a /var/lib/mosaic-federation/data) & 077)) = 0 ] || fail "its data is not its own"
said() { setpriv --reuid=65532 --regid=65532 --clear-groups "$state/bin/mosaic-federation" "$@"; }
said keys reseal status --json | grep -q '"key_id"' || fail "no sealing secret"

# A changed ConfigMap: the kubelet writes beside what is there and exchanges the link.
policy=$state/volumes/policy
cp -a "$policy/..2026_01_01" "$policy/..2026_01_02"
printf 'schema = 1\n\n[ceiling]\nresources = ["notes"]\n' >"$policy/..2026_01_02/10-base.toml"
ln -s ..2026_01_02 "$policy/..data_tmp"
mv -T "$policy/..data_tmp" "$policy/..data"
rm -r "$policy/..2026_01_01"
for attempt in $(seq 100); do
  grep -q 'the policy files changed and are in force' "$state/log" && break
  [ "$attempt" -lt 100 ] || fail "the changed ConfigMap is not in force"
  sleep 0.1
done
echo "== a changed ConfigMap is in force"
kill -TERM "$pod"
wait "$pod" || fail "it ended with $?"
echo "== ended with 0"
