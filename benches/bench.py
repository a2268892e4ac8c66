#!/usr/bin/env python3
"""Measures the sidecar beside bare Pingora, nginx, and nginx + Lua doing the same work, in one run.

usage: bench.py [--phases small,large,hs,mem,calls,...] [--runs 3] [--seconds 8] [--json results.json]   (see README.md)

Everything listens on free loopback ports and lives in a temporary directory. Runs are interleaved: a phase is
run on every target before the next phase begins, and all phases before the next run, so that what the machine
does meanwhile falls on all alike. A ratio is made of two figures of the same run; one that had an error, a
missing row or a resumed handshake gives no ratio.
"""
import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import bodies
import report
import scale
import sidecar
from meter import Meter, family, pss_kib
from sidecar import run
from targets import Bench

HERE = os.path.dirname(os.path.abspath(__file__))
SERVING = ["sidecar", "bare", "nginx", "lua", "upstream", "sidecar-service-token"]
ALL = SERVING + ["door", "echo", "pair", "nginx-pair"]
# Which targets a phase makes sense for: only the Rust servers know the hybrid key exchange; without TLS there is
# no handshake; and the Lua script changes nothing about handshakes and idle connections. `hit` and `hop` are about the
# asking side: an answer from memory, and one that comes from another sidecar. `scan` and `search` are compared with each other.
PHASES = {
    "mem": ["sidecar", "bare", "nginx"],
    "small": SERVING,
    "large": SERVING,
    "hs": ["sidecar", "bare", "nginx"],
    "hs-hybrid": ["sidecar", "bare"],
    "hit": ["door", "echo"],
    "hit-one": ["door", "echo"],
    "hop": ["pair", "nginx-pair"],
    "hop-one": ["pair", "nginx-pair"],
    "scan": ["sidecar"],
    "search": ["sidecar"],
    "filter": [],
    "calls": ["sidecar", "bare", "nginx", "lua"],
    "scale": [],
}
# Not unless asked for: the tracer slows its target down, and the figures are counts that no other load changes; filling
# stores takes as long as all the rest.
USUAL = [phase for phase in PHASES if phase not in ("calls", "scale")]
WARM_UP = 50
TRACED = 4000


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--phases", default=",".join(USUAL), help="default: %(default)s; also calls, scale")
    parser.add_argument("--targets", default=",".join(ALL), help="default: all of %(default)s")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one load")
    parser.add_argument("--connections", type=int, default=32, help="of small, large, hit and hop")
    parser.add_argument("--handshakes", type=int, default=8, help="connections at once of hs")
    parser.add_argument("--idle", type=int, default=1000, help="connections of mem")
    parser.add_argument("--grants", type=int, default=100_000, help="of scale")
    parser.add_argument("--peers", type=int, default=10_000, help="of scale")
    parser.add_argument("--json", default="bench-results.json", help="where everything measured is written")
    parser.add_argument("--binaries", required=True, help="directory with the release binaries")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory, for its logs")
    asked = parser.parse_args()
    for word, known in ((asked.phases, PHASES), (asked.targets, ALL)):
        for name in word.split(","):
            if name not in known:
                parser.error("`%s` is not one of: %s" % (name, ", ".join(known)))
    if asked.runs < 1:
        parser.error("--runs must be at least 1")
    return asked


class Load:
    """The load generator, stopped at its gate until the meter has been read."""

    def __init__(self, bench, mode, question, rows, connections, *more):
        words = [os.path.join(bench.binaries, "load"), mode, *question, "--gate"]
        words += ["--connections", str(connections), *more]
        self.rows = rows
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            self.process.wait()
            sys.exit("error: the load generator did not begin: %s" % " ".join(words))

    def go(self):
        """Opens the gate."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self):
        """What it reports. The process is left unreaped, so that its CPU time can still be read."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"first_failure": "the load generator died", "errors": 1, "requests": 0}

    def close(self):
        """Waits for its end."""
        self.process.stdin.close()
        self.process.wait()


def fault(found, rows):
    """Why a run does not count; None when it does."""
    for key in ("errors", "non_2xx", "wrong_rows"):
        if found.get(key):
            return "%s=%s: %s" % (key, found[key], found.get("first_failure"))
    if not found["requests"]:
        return "nothing was answered"
    if found.get("rows") != rows:
        return "rows were not checked"
    return None


def measure_load(bench, target, mode, rows, connections, asked, *more, question=None):
    """One keep-alive or handshake load: CPU of the target first, then what the load generator saw."""
    question = question or target.question(rows)
    load = Load(bench, mode, question, rows, connections, "--seconds", str(asked.seconds), *more)
    others = [pid for helper in bench.helpers_of(target) for pid in family(helper.process.pid)]
    meter = Meter([family(part.process.pid) for part in target.parts], others + [load.process.pid, os.getpid()])
    load.go()
    found = load.finish()
    figures = meter.end(found["requests"])
    load.close()
    if len(figures["cpu_us_of_parts"]) == 2:
        figures["cpu_us_near"], figures["cpu_us_far"] = figures["cpu_us_of_parts"]
    wrong = fault(found, rows)
    if mode == "handshake" and not wrong and found["full_handshakes"] != found["requests"]:
        wrong = "%d requests over %d full handshakes" % (found["requests"], found["full_handshakes"])
    return {**figures, **found, "fault": wrong}


def measure_asking(bench, phase, target, asked):
    """A load on a door, or on what it is compared with; the door must say itself where its answers came from."""
    before = sidecar.hits(target)
    connections = 1 if phase.endswith("-one") else asked.connections
    found = measure_load(bench, target, "keep-alive", 20, connections, asked)
    if before is not None and not found["fault"]:
        hits = sidecar.hits(target) - before
        # Those of the load generator's start are among them.
        if hits if phase.startswith("hop") else hits < found["requests"] * 0.99:
            found["fault"] = "%d of %d answers were from memory" % (hits, found["requests"])
    return found


def answered(target, question):
    """What a target that speaks the wire protocol answers to what the load generator would ask it."""
    url, *words = question
    files, body = target.files, words[words.index("--body") + 1]
    return json.loads(run(["curl", "-sS", "--fail-with-body", "--cacert", files.ca, "--cert", files.cert, "--key", files.key,
                           "-H", "Content-Type: application/json", "--data", body, url]))


def measure_search(bench, target, asked):
    """A word looked for in the 1,000 rows that `scan` lists; first, that it is found."""
    question = target.asking("search", {"query": bodies.RARE, "resources": ["tasks"], "limit": 100})
    hits = len(answered(target, question)["items"])
    found = measure_load(bench, target, "keep-alive", None, asked.connections, asked, question=question)
    if hits != bodies.HITS:
        found["fault"] = "%d hits instead of %d" % (hits, bodies.HITS)
    return found


def measure_calls(bench, target, asked):
    """System calls of one request, counted by strace."""
    counts = os.path.join(bench.directory, target.name + ".calls")
    load = Load(bench, "keep-alive", target.question(20), 20, asked.connections, "--requests", str(TRACED))
    words = ["strace", "-f", "-c", "-U", "calls,name", "-o", counts]
    for pid in family(target.process.pid):
        words += ["-p", str(pid)]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    # It says so when it has attached.
    tracer.stderr.readline()
    load.go()
    found = load.finish()
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    load.close()
    with open(counts) as file:
        lines = [line.split() for line in file]
    calls = {words[1]: int(words[0]) / max(1, found["requests"]) for words in lines
             if len(words) == 2 and words[0].isdigit() and words[1] != "total"}
    return {"calls": calls, **found, "fault": fault(found, 20)}


def measure_memory(bench, target, asked):
    """PSS of a fresh process before and with idle connections that asked once each."""
    target.stop()
    target.start(bench.log)
    warm = [os.path.join(bench.binaries, "load"), "keep-alive", *target.question(20)]
    run(warm + ["--connections", "1", "--requests", str(WARM_UP)])
    before = pss_kib(family(target.process.pid))
    load = Load(bench, "idle", target.question(20), 20, asked.idle)
    during = pss_kib(family(target.process.pid))
    load.go()
    found = load.finish()
    load.close()
    wrong = fault(found, 20)
    if not wrong and found["alive"] != asked.idle:
        wrong = "%s of %d connections stayed open" % (found["alive"], asked.idle)
    per = (during - before) / found["alive"] if found.get("alive") else None
    return {"pss_idle_kib": before, "pss_kib": during, "kib_per_connection": per, **found, "fault": wrong}


def measure(bench, phase, target, asked):
    """One phase on one target."""
    if phase == "mem":
        return measure_memory(bench, target, asked)
    if phase == "calls":
        return measure_calls(bench, target, asked)
    if phase.startswith(("hit", "hop")):
        return measure_asking(bench, phase, target, asked)
    if phase == "scan":
        # One less than what `large` asks for, which tells the two apart at the upstream.
        question = target.asking("list/tasks", {"limit": 999}) + ["--tagged", "--rows", "999"]
        return measure_load(bench, target, "keep-alive", 999, asked.connections, asked, question=question)
    if phase == "search":
        return measure_search(bench, target, asked)
    if phase in ("small", "large"):
        rows = 20 if phase == "small" else 1000
        return measure_load(bench, target, "keep-alive", rows, asked.connections, asked)
    exchange = "hybrid" if phase == "hs-hybrid" else "x25519"
    return measure_load(bench, target, "handshake", 20, asked.handshakes, asked, "--key-exchange", exchange)


def same_work(bench, targets):
    """Ends the run unless the sidecar and the script leave the same of the rows made for it."""
    for target in targets:
        if not target.wire:
            continue
        answer = answered(target, target.question(10))
        if answer.get("items") != bodies.EXPECTED:
            sys.exit("error: %s does not do the work that is measured\n  expected: %s\n  answered: %s"
                     % (target.name, json.dumps(bodies.EXPECTED), json.dumps(answer)))


def row_filter():
    """The row filter alone, without network or process: what the policy crate's own measurement prints."""
    root = os.path.dirname(HERE)
    done = subprocess.run(["cargo", "run", "--locked", "--release", "--quiet", "-p", "policy", "--example", "rowbench"],
                          cwd=root, capture_output=True, text=True)
    wrong = "rowbench failed: " + done.stderr.strip()[-400:] if done.returncode else None
    return {"text": done.stdout.strip(), "fault": wrong}


def measure_all(bench, asked):
    """All phases on all targets, interleaved."""
    phases, names = asked.phases.split(","), asked.targets.split(",")
    needed = {name for phase in phases for name in PHASES[phase]}
    targets = [bench.target(name) for name in ALL if name in names and name in needed]
    same_work(bench, targets)
    results = {}
    for number in range(asked.runs):
        for phase in phases:
            for target in targets:
                if target.name not in PHASES[phase]:
                    continue
                found = measure(bench, phase, target, asked)
                results.setdefault(phase, {}).setdefault(target.name, []).append(found)
                print(report.progress(number + 1, phase, target.name, found), file=sys.stderr, flush=True)
    if "filter" in phases:
        results["filter"] = {"policy": [row_filter()]}
    if "scale" in phases:
        results["scale"] = {"sidecar": [scale.measure(bench, asked, measure_load)]}
    return results


def main():
    """Measures, prints, and cleans up whatever happens."""
    asked = arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix="federation-bench-")
    bench = None
    try:
        bench = Bench(directory, os.path.abspath(asked.binaries))
        results = measure_all(bench, asked)
        machine = {"kernel": platform.release(), "cores": os.cpu_count(), "cpu": report.cpu_name()}
        with open(asked.json, "w") as file:
            json.dump({"arguments": vars(asked), "machine": machine, "sizes": bench.sizes, "results": results}, file, indent=1)
        print(report.text(results, asked, machine))
    finally:
        if bench:
            bench.stop()
        if asked.keep:
            print("kept: " + directory, file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if report.faults(results) else 0


if __name__ == "__main__":
    sys.exit(main())
