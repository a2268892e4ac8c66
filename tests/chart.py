#!/usr/bin/env python3
"""chart.py [BINARY]: checks the Helm chart and the Kubernetes examples. Rendered with several values, every object is valid by the schema of
Kubernetes, every container is confined, the settings file says what the values say, and wrong values are refused; with a binary, that
accepts the settings and the policy. `chart.py --update` writes the part of values.schema.json that follows from the settings.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

import yaml

root = pathlib.Path(__file__).resolve().parent.parent
chart = root / "deploy/helm/mosaic-federation"
# What the chart decides itself.
OWN = {(None, "data_dir"), ("ops", "listen"), ("policy", "dir"), ("seal", "secret_file"), ("seal", "secret_env"), ("seal", "secret_credential"), ("federation", "listen"), ("enrollment", "listen")}
VERSION = "1.36"
problems: list[str] = []


def settings_schema() -> dict:
    """The schema of `settings`, from docs/reference/configuration.md, which the settings' own tests compare with the code."""
    sections: dict = {None: {"properties": {}}}
    section = None
    text = (root / "docs/reference/configuration.md").read_text()
    for block in re.split(r"\n(?=## |- \*\*)", text):
        if heading := re.match(r"## \[(\w+)\]", block):
            section = heading.group(1)
            sections[section] = {"type": "object", "additionalProperties": False, "properties": {}}
            continue
        key = re.match(r"- \*\*`(\w+)`\*\*: (.*?)\n  (.*)", block, re.DOTALL)
        if key is None or (section, key.group(1)) in OWN:
            continue
        form = key.group(3)
        if bounds := re.match(r"A whole number from (\d+) to (\d+)", form):
            schema = {"type": "integer", "minimum": int(bounds.group(1)), "maximum": int(bounds.group(2))}
        elif form.startswith("True or false"):
            schema = {"type": "boolean"}
        elif form.startswith("One of"):
            schema = {"enum": re.findall(r'"([^"]*)"', form.split(";")[0])}
        elif form.startswith("A list of texts"):
            schema = {"type": "array", "items": {"type": "string"}}
        elif form.startswith("A table of texts"):
            schema = {"type": "object", "additionalProperties": {"type": "string"}}
        elif form.startswith("A text"):
            schema = {"type": "string"}
        else:
            raise SystemExit(f"error: configuration.md says of {section or 'the top'}.{key.group(1)} what this does not know: {form}")
        sections[section]["properties"][key.group(1)] = schema
    top = sections.pop(None)["properties"]
    return top | {name: body for name, body in sections.items() if body["properties"]}


def with_settings(schema: dict) -> dict:
    made = settings_schema()
    made["federation"]["required"] = made["enrollment"]["required"] = ["public_url"]
    for name in ("federation", "enrollment"):
        made[name]["properties"]["public_url"] = {"type": "string", "pattern": "^https://[^/]+$"}
    made["gateway"]["required"] = ["url"]
    made["gateway"]["properties"]["url"] = {"type": "string", "pattern": "^(https?://[^/]+|unix:/.+)$"}
    schema["properties"]["settings"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["federation", "enrollment", "gateway"],
        "properties": made,
    }
    return schema


def helm(*arguments: str, values: dict | None = None) -> subprocess.CompletedProcess:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        return subprocess.run(["helm", *arguments, "-f", file.name], cwd=root, capture_output=True, text=True)


def valid(where: str, body: dict) -> None:
    if body["apiVersion"].startswith("monitoring.coreos.com/"):
        return
    try:
        kubernetes_validate.validate(body, VERSION, strict=True)
    except Exception as error:  # noqa: BLE001 - whatever it says is the problem
        problems.append(f"{where}: {body['kind']} {body['metadata']['name']}: {error}")


def confined(where: str, pod: dict, whose: list[str]) -> None:
    if pod.get("automountServiceAccountToken") is not False:
        problems.append(f"{where}: the token of the service account is mounted")
    level = pod.get("securityContext", {})
    if not level.get("runAsNonRoot") or level.get("runAsUser") != 65532 or level.get("seccompProfile") != {"type": "RuntimeDefault"}:
        problems.append(f"{where}: the pod is not confined")
    mounts = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
    for container in pod.get("initContainers", []) + pod["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in mounts:
                problems.append(f"{where}: {container['name']} mounts {mount['name']}, which is not there")
        if container["name"] in whose:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or not own.get("readOnlyRootFilesystem") or own.get("capabilities") != {"drop": ["ALL"]}:
                problems.append(f"{where}: {container['name']} is not confined")
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/readyz")):
                asked = container.get(probe, {}).get("httpGet", {})
                if asked.get("path") != path or ports.get(asked.get("port")) != 9464:
                    problems.append(f"{where}: {container['name']} has no {probe} on {path}")


def accepted(where: str, settings: str, policy: dict[str, str], binary: str | None) -> None:
    """That the binary takes these settings and this policy."""
    if binary is None:
        return
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        (path / "policy.d").mkdir()
        for name, text in policy.items():
            (path / "policy.d" / name).write_text(text)
        (path / "federation.toml").write_text(settings)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOSAIC_")}
        checked = subprocess.run(
            [binary, "--config", path / "federation.toml", "doctor", "--json", "--set", f"policy.dir={path}/policy.d", "--set", f"data_dir={path}/data"],
            capture_output=True, text=True, env=environment,
        )
        try:
            checks = {check["name"]: check for check in json.loads(checked.stdout)["checks"]}
        except (ValueError, KeyError):
            problems.append(f"{where}: doctor says {checked.stdout}{checked.stderr}")
            return
        for name in ("settings", "policy files"):
            if checks.get(name, {}).get("outcome") != "ok":
                problems.append(f"{where}: {name}: {checks.get(name)}")


LEAST = {
    "settings": {
        "federation": {"public_url": "https://work.example.com:8443"},
        "enrollment": {"public_url": "https://work.example.com:8444"},
        "gateway": {"url": "http://gateway.default.svc:14242"},
    },
    "sealingSecret": {"existingSecret": "seal"},
}
FULL = {
    "sealingSecret": LEAST["sealingSecret"],
    "image": {"repository": "registry.example.com/mosaic-federation", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "settings": {
        **LEAST["settings"],
        "federation": {"public_url": "https://work.example.com:8443", "drain_s": 45, "max_connections": 1000000},
        "audit": {"journal_bytes": 4294967296, "on_exhausted": "drop"},
        "tls": {"server_names": ["work.internal", "10.0.0.1"]},
        "session": {"users": {"1000": "alice"}},
        "roles": {"ask": True},
        "revocation_canary": {"every_s": 900},
    },
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "persistence": {"storageClass": "fast"},
    "networkPolicy": {
        "peers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": {"gateway": [{"podSelector": {"matchLabels": {"app": "gateway"}}}], "extra": [{"ports": [{"port": 9000, "protocol": "TCP"}]}]},
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbookBase": "https://wiki.example.com/"},
    "extraVolumes": [{"name": "tokens", "secret": {"secretName": "tokens"}}],
    "extraVolumeMounts": [{"name": "tokens", "mountPath": "/etc/mosaic-federation/tokens", "readOnly": True}],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "podAnnotations": {"c": "d"},
    "podLabels": {"team": "platform"},
    "priorityClassName": "high",
}
OTHER = {
    **LEAST,
    "policy": {"existingConfigMap": "ours"},
    "persistence": {"existingClaim": "ours"},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False, "name": "ours"},
    "preStopSleepSeconds": 0,
}


def changed(**over) -> dict:
    made = json.loads(json.dumps(LEAST))
    for section, keys in over.items():
        made.setdefault(section, {}).update(keys) if isinstance(keys, dict) else made.update({section: keys})
    return made


REFUSED = {
    "nothing": {},
    "no sealing secret": {"settings": LEAST["settings"]},
    "no public_url": changed(settings={"federation": {}}),
    "a public_url without https": changed(settings={"federation": {"public_url": "http://work:8443"}}),
    "a misspelt setting": changed(settings={"federation": {"public_url": "https://a:1", "drain": 3}}),
    "a misspelt section": changed(settings={"federations": {}}),
    "a setting of the chart's own": changed(settings={"ops": {"listen": "0.0.0.0:1"}}),
    "a text for a number": changed(settings={"federation": {"public_url": "https://a:1", "drain_s": "thirty"}}),
    "a number too large": changed(settings={"lease": {"duration_ms": 999999}}),
    "a word that is none of the choices": changed(settings={"log": {"format": "xml"}}),
    "a misspelt value": changed(networkPolicies={"enabled": False}),
    "more replicas": changed(replicas=3),
}


def render(name: str, values: dict, binary: str | None) -> None:
    ran = helm("template", "trial", str(chart), "--namespace", "federation", values=values)
    if ran.returncode != 0:
        problems.append(f"{name}: {ran.stderr}")
        return
    objects = [body for body in yaml.safe_load_all(ran.stdout) if body]
    named = {(body["kind"], body["metadata"]["name"]): body for body in objects}
    if len(named) != len(objects):
        problems.append(f"{name}: two objects have one name")
    for body in objects:
        valid(name, body)
    pod = next(body for body in objects if body["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    confined(name, pod, ["sidecar"])
    maps = {body["metadata"]["name"]: body["data"] for body in objects if body["kind"] == "ConfigMap"}
    settings = next(data["federation.toml"] for data in maps.values() if "federation.toml" in data)
    parsed = tomllib.loads(settings)
    for section, keys in values["settings"].items():
        if not isinstance(keys, dict):
            if parsed.get(section) != keys:
                problems.append(f"{name}: {section} is {parsed.get(section)!r} and not {keys!r}")
            continue
        for key, value in keys.items():
            if parsed[section].get(key) != value or type(parsed[section].get(key)) is not type(value):
                problems.append(f"{name}: {section}.{key} is {parsed[section].get(key)!r} and not {value!r}")
    policy = next((data for label, data in maps.items() if label.endswith("-policy")), None)
    wanted = not values.get("policy", {}).get("existingConfigMap")
    if (policy is not None) != wanted:
        problems.append(f"{name}: the policy is not where it should be")
    accepted(name, settings, policy or {"10-base.toml": "schema = 1\n[ceiling]\nresources = [\"tasks\"]\n"}, binary)
    kinds = {body["kind"] for body in objects}
    for kind, key in (("NetworkPolicy", "networkPolicy"), ("PodDisruptionBudget", "podDisruptionBudget")):
        if (kind in kinds) != values.get(key, {}).get("enabled", True):
            problems.append(f"{name}: {kind} is not as `{key}.enabled` says")
    for kind, key in (("ServiceMonitor", "serviceMonitor"), ("PrometheusRule", "prometheusRule")):
        if (kind in kinds) != values.get(key, {}).get("enabled", False):
            problems.append(f"{name}: {kind} is not as `{key}.enabled` says")
    if values.get("prometheusRule", {}).get("enabled"):
        rules = next(body for body in objects if body["kind"] == "PrometheusRule")["spec"]["groups"]
        urls = {rule["annotations"]["runbook_url"] for group in rules for rule in group["rules"]}
        if len(urls) < 20 or not all(url.startswith("https://wiki.example.com/docs/alerts.md#") for url in urls):
            problems.append(f"{name}: the alarms are not those of deploy/prometheus")


def example(path: pathlib.Path, binary: str | None) -> None:
    objects = [body for body in yaml.safe_load_all(path.read_text()) if body]
    for body in objects:
        valid(path.name, body)
        if body["kind"] in ("StatefulSet", "Deployment"):
            pod = body["spec"]["template"]["spec"]
            confined(path.name, pod, ["federation"])
            sidecar = next((one for one in pod.get("initContainers", []) if one["name"] == "federation"), None)
            if sidecar is None or sidecar.get("restartPolicy") != "Always":
                problems.append(f"{path.name}: the sidecar is not a native one")
    maps = {body["metadata"]["name"]: body["data"] for body in objects if body["kind"] == "ConfigMap"}
    settings = next(data["federation.toml"] for data in maps.values() if "federation.toml" in data)
    policy = next(data for data in maps.values() if "federation.toml" not in data)
    tomllib.loads(settings)
    accepted(path.name, settings, policy, binary)


schema_path = chart / "values.schema.json"
written = json.loads(schema_path.read_text())
if sys.argv[1:] == ["--update"]:
    before = schema_path.read_text()
    after = json.dumps(with_settings(written), indent=2) + "\n"
    if after != before:
        schema_path.write_text(after)
        print("values.schema.json follows the settings again: commit it")
    sys.exit(0)
if with_settings(json.loads(schema_path.read_text())) != written:
    problems.append("values.schema.json does not have the settings there are: run tests/chart.py --update")

binary = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
try:
    import kubernetes_validate
except ImportError:
    print("SKIPPED Kubernetes objects: no kubernetes-validate (pip install kubernetes-validate)")
    sys.exit(1 if problems else 0)
for path in sorted((root / "deploy/kubernetes").glob("*.yaml")):
    example(path, binary)
rendered = 0
if shutil.which("helm") is None:
    print("SKIPPED the Helm chart: no helm; only its schema was read")
else:
    linted = helm("lint", "--strict", str(chart), values=LEAST)
    if linted.returncode != 0:
        problems.append(linted.stdout + linted.stderr)
    for name, values in (("least", LEAST), ("full", FULL), ("other", OTHER)):
        render(name, values, binary)
        rendered += 1
    for name, values in REFUSED.items():
        if helm("template", "trial", str(chart), values=values).returncode == 0:
            problems.append(f"the chart takes {name}")
for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
print(f"{rendered} renderings, {len(REFUSED) if rendered else 0} refusals, {len(problems)} problems")
sys.exit(1 if problems else 0)
