#!/usr/bin/env python3
"""Checks the alarm rules, their tests and the dashboard: every metric, label and label value they name is one of docs/metrics.md
(which tests/suite/docs.rs compares with the code), every alarm has its section in docs/alerts.md and is tested both ways, and
promtool, where it is installed, accepts all of it and runs the tests.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

root = pathlib.Path(__file__).resolve().parent.parent
PREFIX = "mosaic_federation_"
# What Prometheus adds to every series, and what histograms have.
ADDED = {"instance", "job", "le"}
RULES = ["deploy/prometheus/mosaic-federation.rules.yml", "deploy/prometheus/internal-v1.rules.yml"]
TESTS = "deploy/prometheus/mosaic-federation.rules.test.yml"
DASHBOARD = "deploy/grafana/mosaic-federation.json"
problems: list[str] = []


def known_metrics() -> dict[str, tuple[str, set[str], str]]:
    """Of docs/metrics.md: name -> type, labels, the words in backticks of its row."""
    found = {}
    for line in (root / "docs/metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            labels = set(re.findall(r"`(\w+)`", cells[3]))
            values = set(re.findall(r"`(\w+)`", cells[4]))
            found[cells[0].strip("`")] = (cells[1], labels, values)
    return found


metrics = known_metrics()


def check_expression(where: str, expression: str) -> int:
    """Adds what is wrong with the names in a PromQL expression; returns how many metrics it names."""
    count = 0
    labels_in_use = set(ADDED)
    for match in re.finditer(r"\b" + PREFIX + r"(\w+)\b(?:\{([^}]*)\})?", expression):
        count += 1
        name, matchers = match.group(1), match.group(2) or ""
        base = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.endswith(suffix) and metrics.get(name.removesuffix(suffix), ("",))[0] == "histogram":
                base = name.removesuffix(suffix)
        if base not in metrics:
            problems.append(f"{where}: there is no metric {PREFIX}{name}")
            continue
        kind, labels, values = metrics[base]
        if kind == "histogram" and base == name:
            problems.append(f"{where}: {name} is a histogram: name its _bucket, _sum or _count")
        labels_in_use |= labels
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            if label not in labels | ADDED:
                problems.append(f"{where}: {name} has no label {label}")
            elif label not in ADDED | {"peer", "place", "code", "stage", "verb", "direction"}:
                for one in value.split("|"):
                    if one not in values:
                        problems.append(f"{where}: {name} has no {label} {one}, by docs/metrics.md")
        is_counter = kind == "counter" or base != name
        before = expression[: match.start()]
        if is_counter and not re.search(r"\b(rate|increase)\($", before) and "series" not in where:
            problems.append(f"{where}: {name} is a counter and is not below rate() or increase()")
    for clause in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression):
        for label in filter(None, (part.strip() for part in clause.split(","))):
            if label not in labels_in_use:
                problems.append(f"{where}: no metric there has the label {label}")
    return count


def alarms() -> dict[str, dict]:
    found = {}
    for path in RULES:
        for group in yaml.safe_load((root / path).read_text())["groups"]:
            for rule in group["rules"]:
                name = rule["alert"]
                if name in found:
                    problems.append(f"{path}: {name} is there twice")
                found[name] = rule
                if check_expression(f"{path}: {name}", rule["expr"]) == 0 and "up{" not in rule["expr"]:
                    problems.append(f"{path}: {name} names no metric")
                if rule["labels"].get("severity") not in ("critical", "warning"):
                    problems.append(f"{path}: {name} has no severity")
    return found


def check_sections(rules: dict[str, dict]) -> None:
    page = (root / "docs/alerts.md").read_text()
    sections = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    for name, rule in rules.items():
        if sections.count(name) != 1:
            problems.append(f"docs/alerts.md: {name} has {sections.count(name)} sections")
        wanted = f"docs/alerts.md#{name.lower()}"
        if rule["annotations"].get("runbook_url") != wanted:
            problems.append(f"{name}: runbook_url is not {wanted}")
    for name in sections:
        if name not in rules:
            problems.append(f"docs/alerts.md: there is no alarm {name}")


def check_tests(rules: dict[str, dict]) -> None:
    rings, silent = set(), set()
    for test in yaml.safe_load((root / TESTS).read_text())["tests"]:
        for series in test["input_series"]:
            check_expression(f"{TESTS}: series of {test['name']}", series["series"])
        for case in test["alert_rule_test"]:
            (rings if case["exp_alerts"] else silent).add(case["alertname"])
    for name in rules:
        if name not in rings or name not in silent:
            problems.append(f"{TESTS}: {name} is not tested to ring and not to ring")


def dashboard_expressions() -> list[tuple[str, str]]:
    board = json.loads((root / DASHBOARD).read_text())
    found, places, ids = [], [], set()
    for panel in board["panels"]:
        if panel["id"] in ids:
            problems.append(f"{DASHBOARD}: two panels have the id {panel['id']}")
        ids.add(panel["id"])
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            problems.append(f"{DASHBOARD}: {panel['title']} is beyond the right edge")
        places.append((panel["title"], at))
        for target in panel.get("targets", []):
            found.append((panel["title"], target["expr"]))
    for index, (title, a) in enumerate(places):
        for other, b in places[:index]:
            if a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]:
                problems.append(f"{DASHBOARD}: {title} lies over {other}")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", variable["query"]["query"]))
    return found


def check_dashboard() -> list[str]:
    expressions = dashboard_expressions()
    named = 0
    for title, expression in expressions:
        named += check_expression(f"{DASHBOARD}: {title}", expression)
    if named < 40:
        problems.append(f"{DASHBOARD}: only {named} metrics were found")
    return [text for title, text in expressions if not title.startswith("variable")]


def run_promtool(expressions: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        print("SKIPPED promtool: not installed (apt-get install prometheus); rules, their tests and panels were only read")
        return
    panels = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, text in enumerate(expressions)
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "panels.yml")
        with open(path, "w") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}, file)
        for arguments in (["check", "rules", *RULES, path], ["test", "rules", TESTS]):
            ran = subprocess.run([promtool, *arguments], cwd=root, capture_output=True, text=True)
            if ran.returncode != 0 or "FAILED" in ran.stdout + ran.stderr:
                problems.append(f"promtool {' '.join(arguments[:2])}:\n{ran.stdout}{ran.stderr}")


rules = alarms()
check_sections(rules)
check_tests(rules)
run_promtool(check_dashboard())
for problem in problems:
    print(f"error: {problem}", file=sys.stderr)
print(f"{len(rules)} alarms, {len(metrics)} metrics, {len(problems)} problems")
sys.exit(1 if problems or not rules or not metrics else 0)
