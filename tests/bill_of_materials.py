#!/usr/bin/env python3
"""bill_of_materials.py [BINARY]: checks what deploy/sbom.py writes: whole, from Cargo.lock, without what only tests use, valid by the
schema of CycloneDX where its Python library is installed; and, with a binary, that every crate the binary names is in it.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

root = pathlib.Path(__file__).resolve().parent.parent
problems: list[str] = []


def written() -> str:
    return subprocess.run([sys.executable, root / "deploy/sbom.py"], check=True, capture_output=True, text=True).stdout


text = written()
if written() != text:
    problems.append("the same commit gives two different bills")
bill = json.loads(text)
components = {one["bom-ref"]: one for one in bill["components"]}
lock = {(one["name"], one["version"]): one for one in tomllib.loads((root / "Cargo.lock").read_text())["package"]}
named = {(one["name"], one["version"]) for one in components.values()}

if len(components) != len(bill["components"]):
    problems.append("two components have one bom-ref")
for one in components.values():
    label = f"{one['name']} {one['version']}"
    locked = lock.get((one["name"], one["version"]))
    if not one.get("licenses"):
        problems.append(f"{label}: no licence")
    if one["purl"].startswith("pkg:cargo/"):
        if locked is None or one["hashes"] != [{"alg": "SHA-256", "content": locked["checksum"]}]:
            problems.append(f"{label}: not what Cargo.lock says")
    elif locked is None and one["name"] != "rust-std":
        problems.append(f"{label}: of unknown origin")
for name in ("pingora-core", "rustls", "aws-lc-sys", "sqlx-core", "tokio", "policy", "certs", "rust-std"):
    if name not in {one for one, _ in named}:
        problems.append(f"{name} is missing")
# Of tests, of the build, or run by the compiler.
for name in ("proptest", "stateright", "openssl", "tests", "reference-gateway", "cc", "cmake", "serde_derive", "syn"):
    if name in {one for one, _ in named}:
        problems.append(f"{name} is not linked in")

top = bill["metadata"]["component"]["bom-ref"]
edges = {edge["ref"]: edge["dependsOn"] for edge in bill["dependencies"]}
if set(edges) != set(components) | {top}:
    problems.append("the graph and the components differ")
reached, open_ = set(), [top]
while open_:
    ref = open_.pop()
    if ref not in reached:
        reached.add(ref)
        open_ += edges.get(ref, [])
if reached != set(edges):
    problems.append(f"nothing leads to {sorted(set(edges) - reached)[:5]}, or leads to nothing")

if len(sys.argv) > 1:
    # Places of panics name the crate they are in.
    found = re.findall(rb"registry/src/[^/]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[^/]*)/", pathlib.Path(sys.argv[1]).read_bytes())
    seen = {(name.decode(), version.decode()) for name, version in found}
    if len(seen) < 50:
        problems.append(f"only {len(seen)} crates can be seen in {sys.argv[1]}")
    for name, version in sorted(seen - named):
        problems.append(f"{name} {version} is in the binary and not in the bill")

try:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        problems.append(f"not CycloneDX 1.6: {error}")
except ImportError as error:
    print(f"SKIPPED the schema of CycloneDX: {error} (pip install 'cyclonedx-python-lib[json-validation]')")

for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
print(f"{len(components)} components, {len(problems)} problems")
sys.exit(1 if problems else 0)
