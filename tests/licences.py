#!/usr/bin/env python3
"""Checks the licence and the source of every crate that Cargo.lock names, against deny.toml.

The same rules serve `cargo deny check licenses sources bans`, where that tool is installed; this needs nothing
but Python and cargo, so it runs everywhere.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

root = pathlib.Path(__file__).resolve().parent.parent
rules = tomllib.loads((root / "deny.toml").read_text())
allowed = set(rules["licenses"]["allow"])
exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules["licenses"].get("exceptions", [])}
# A crate with `wrappers` is tolerated below those crates; ours may not name it themselves.
denied = {entry["crate"]: entry for entry in rules["bans"]["deny"]}
metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"], cwd=root, check=True, capture_output=True
    ).stdout
)


def permitted(expression: str, allowed: set[str]) -> bool:
    """True when an SPDX expression can be satisfied by allowed licences."""
    text = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+", text)

    def parse_or() -> bool:
        value = parse_and()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            value = parse_and() or value
        return value

    def parse_and() -> bool:
        value = parse_one()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            value = parse_one() and value
        return value

    def parse_one() -> bool:
        token = tokens.pop(0)
        if token == "(":
            value = parse_or()
            tokens.pop(0)
            return value
        name = token
        if tokens and tokens[0].upper() == "WITH":
            tokens.pop(0)
            name = f"{token} WITH {tokens.pop(0)}"
        return name in allowed or (" WITH " in name and token in allowed)

    return parse_or()


problems = []
for package in metadata["packages"]:
    label = f"{package['name']} {package['version']}"
    ban = denied.get(package["name"])
    if ban and not ban.get("wrappers"):
        problems.append(f"{label}: banned ({ban['reason']})")
    for dependency in package["dependencies"]:
        ban = denied.get(dependency["name"])
        if ban and package["name"] not in ban.get("wrappers", []) and not dependency["optional"] and dependency["kind"] is None:
            problems.append(f"{label}: depends on {dependency['name']} ({ban['reason']})")
    source = package["source"]
    if source is not None and not source.startswith("registry+"):
        problems.append(f"{label}: does not come from the registry ({source})")
    licence = package["license"]
    if licence is None or not permitted(licence, allowed | exceptions.get(package["name"], set())):
        problems.append(f"{label}: licence {licence!r} is not in deny.toml")
for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
print(f"{len(metadata['packages'])} crates checked, {len(problems)} problems")
sys.exit(1 if problems else 0)
