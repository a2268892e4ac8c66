#!/usr/bin/env python3
"""Checks the compose files: every network, volume, service and file they name is there, every setting they give a sidecar is one of
docs/reference/configuration.md, every sidecar is confined, and the tool for such files accepts them where it is installed.
"""
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

root = pathlib.Path(__file__).resolve().parent.parent
problems: list[str] = []
settings = set(re.findall(r"Variable `(MOSAIC_FEDERATION_\w+)`", (root / "docs/reference/configuration.md").read_text()))
SIDECARS = ("work", "home")


def merged(base: dict, over: dict) -> dict:
    """As compose lays one file over another: tables by name, lists one behind the other."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif isinstance(value, list) and isinstance(result.get(key), list):
            result[key] = result[key] + value
        else:
            result[key] = value
    return result


def check(name: str, files: list[str]) -> None:
    whole: dict = {}
    for file in files:
        whole = merged(whole, yaml.safe_load((root / "compose" / file).read_text()))
    services, networks, volumes = whole["services"], whole.get("networks", {}), whole.get("volumes", {})
    for service, body in services.items():
        where = f"{name}: {service}"
        if not body.get("image"):
            problems.append(f"{where}: no image")
        elif re.search(r":latest$|^[^:$]+/[^:]+$", body["image"]):
            problems.append(f"{where}: {body['image']} is of no fixed version")
        for network in body.get("networks", {}):
            if network not in networks:
                problems.append(f"{where}: there is no network {network}")
        for other, how in body.get("depends_on", {}).items():
            if other not in services:
                problems.append(f"{where}: waits for {other}, which is not there")
            elif how["condition"] == "service_healthy" and other not in SIDECARS and "healthcheck" not in services[other]:
                problems.append(f"{where}: waits for the health of {other}, which has no check")
        for mount in body.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                if not (root / "compose" / source).exists():
                    problems.append(f"{where}: there is no {source}")
                if not mount.endswith(":ro"):
                    problems.append(f"{where}: {source} can be written")
            elif source not in volumes:
                problems.append(f"{where}: there is no volume {source}")
        for variable in body.get("environment", {}):
            if variable.startswith("MOSAIC_FEDERATION_") and variable not in settings:
                problems.append(f"{where}: there is no setting {variable}")
        for port in body.get("ports", []):
            if not port.startswith("127.0.0.1:") and port.split(":")[-1] not in ("8443", "8444"):
                problems.append(f"{where}: {port} can be reached from everywhere")
    for sidecar in SIDECARS:
        body = services[sidecar]
        if body.get("read_only") is not True or body.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in body.get("security_opt", []):
            problems.append(f"{name}: {sidecar} is not confined")
        if services[f"{sidecar}-gateway"]["networks"] != [sidecar]:
            problems.append(f"{name}: the gateway of {sidecar} is on other networks than its own")
    tool = ["docker", "compose"] if plugin else ["docker-compose"] if shutil.which("docker-compose") else None
    if tool is None:
        print(f"SKIPPED {name}: neither docker compose nor docker-compose is installed; it was only read")
        return
    arguments = [part for file in files for part in ("-f", f"compose/{file}")]
    ran = subprocess.run([*tool, *arguments, "config", "--quiet"], cwd=root, capture_output=True, text=True)
    if ran.returncode != 0:
        problems.append(f"{name}: {ran.stderr}")


plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
overrides = sorted(path.name for path in (root / "compose").glob("*.yml") if path.name != "docker-compose.yml")
check("docker-compose.yml", ["docker-compose.yml"])
for override in overrides:
    check(override, ["docker-compose.yml", override])

for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
print(f"{1 + len(overrides)} compose files, {len(problems)} problems")
sys.exit(1 if problems or not settings else 0)
