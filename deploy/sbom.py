#!/usr/bin/env python3
"""sbom.py [--binary FILE] [--target TRIPLE] [--out FILE]: the bill of materials of the shipped binary, CycloneDX 1.6 as JSON.

It has every crate that is linked in, and no other: no tests, no build scripts, no procedural macros. What a crate is comes from
`cargo metadata` and its checksum from Cargo.lock; which ones there are, from `cargo tree` with the features the binary is built
with. The same commit gives the same bytes.
"""
import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import tomllib
import uuid

root = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = "mosaic-federation"
PACKAGE = "proxy"


def run(*command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def linked(target: str) -> set[tuple[str, str]]:
    """Name and version of what is linked into the binary."""
    text = run("cargo", "tree", "--locked", "-p", PACKAGE, "-e", "normal,no-proc-macro", "--target", target, "--prefix", "none", "--format", "{p}")
    found = set()
    for line in text.splitlines():
        name, version = line.split()[:2]
        found.add((name, version.removeprefix("v")))
    return found


def licence(package: dict) -> list[dict]:
    if package["license"]:
        return [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    return [{"license": {"name": f"see {package['license_file']} of the crate"}}]


def reference(package: dict) -> str:
    name, version = package["name"], package["version"]
    # Ours are in no registry, where others have the same names.
    return f"pkg:cargo/{name}@{version}" if package["source"] else f"pkg:generic/{PROGRAM}/{name}@{version}"


def component(package: dict, checksums: dict) -> dict:
    made = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required",
        "licenses": licence(package),
        "purl": reference(package),
    }
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if package["source"]:
        made["hashes"] = [{"alg": "SHA-256", "content": checksums[package["name"], package["version"]]}]
    links = [("vcs", package["repository"]), ("website", package["homepage"])]
    links = [{"type": kind, "url": url.strip()} for kind, url in links if url and re.match(r"https?://\S+$", url.strip())]
    if links:
        made["externalReferences"] = links
    return made


def bill(target: str, binary: str | None) -> dict:
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    lock = tomllib.loads((root / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    wanted = linked(target)
    packages = {package["id"]: package for package in metadata["packages"] if (package["name"], package["version"]) in wanted}
    missing = wanted - {(package["name"], package["version"]) for package in packages.values()}
    if missing:
        raise SystemExit(f"error: cargo metadata does not know {sorted(missing)}")
    top = next(package for package in packages.values() if package["name"] == PACKAGE and not package["source"])
    components = [component(package, checksums) for package in packages.values() if package is not top]
    rust = tomllib.loads((root / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    std = {
        "type": "library",
        "bom-ref": f"pkg:generic/rust-std@{rust}",
        "name": "rust-std",
        "version": rust,
        "scope": "required",
        "description": "The standard library of Rust, linked statically",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": f"pkg:generic/rust-std@{rust}",
    }
    components.append(std)
    edges = []
    for node in metadata["resolve"]["nodes"]:
        if node["id"] not in packages:
            continue
        below = {
            reference(packages[dependency["pkg"]])
            for dependency in node["deps"]
            if dependency["pkg"] in packages and any(kind["kind"] is None for kind in dependency["dep_kinds"])
        }
        if node["id"] == top["id"]:
            below.add(std["bom-ref"])
        edges.append({"ref": reference(packages[node["id"]]), "dependsOn": sorted(below)})
    edges.append({"ref": std["bom-ref"], "dependsOn": []})
    when = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct").strip()
    program = {
        "type": "application",
        "bom-ref": reference(top),
        "name": PROGRAM,
        "version": top["version"],
        "description": "Federation between gateways: what peers may see of ours, and what we see of theirs",
        "licenses": [{"expression": top["license"]}],
        "purl": reference(top),
    }
    if binary:
        digest = hashlib.sha256(pathlib.Path(binary).read_bytes()).hexdigest()
        program["hashes"] = [{"alg": "SHA-256", "content": digest}]
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(int(when), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "deploy/sbom.py", "version": top["version"]}]},
            "component": program,
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": sorted(components, key=lambda one: one["bom-ref"]),
        "dependencies": sorted(edges, key=lambda one: one["ref"]),
    }
    content = json.dumps(made, sort_keys=True)
    made["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return made


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.split(":")[0])
    arguments.add_argument("--binary", help="the binary, for its hash")
    arguments.add_argument("--target", default="x86_64-unknown-linux-gnu")
    arguments.add_argument("--out", default="-")
    given = arguments.parse_args()
    text = json.dumps(bill(given.target, given.binary), indent=1) + "\n"
    if given.out == "-":
        print(text, end="")
    else:
        pathlib.Path(given.out).write_text(text)
