"""Many grants: how long a start takes, what each costs in memory, how soon a change of one is applied, and whether lookups stay
as they are.

A sidecar with a few grants is measured, its store is filled in bulk while it is down, and it is measured again: the same binary,
settings and questions. Each grant has a scope of its own (a team that no other names) and one certificate in force.
"""
import http.client
import json
import os
import re
import socket
import sqlite3
import statistics
import sys
import time
import urllib.request
import uuid

import bodies
import sidecar

FEW = 10
STARTS, EDITS = 3, 9
START_SECONDS = 60
# For so long it is left alone before its memory is looked at again.
IDLE_SECONDS = 3
# A start frees much of what it took; that goes back to the system with what is done next, not at once.
MEMORY = {"memory_ready_kib": "at the moment it is ready", "memory_kib": "three seconds later",
          "memory_after_kib": "after the changes"}
MEMORY_BARS = {"memory_kib": "1024", "memory_after_kib": "1024"}


class Admin(http.client.HTTPConnection):
    """The admin socket of a sidecar."""

    def __init__(self, path):
        super().__init__("admin", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def ask(self, method, target, body=None):
        """One call; what it answered and how long that took, in milliseconds."""
        text = None if body is None else json.dumps(body)
        began = time.perf_counter()
        self.request(method, "/admin/v1" + target, text, {"Content-Type": "application/json"})
        answer = self.getresponse()
        said = json.loads(answer.read())
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            sys.exit("error: %s %s: %d %s" % (method, target, answer.status, said))
        return said, took


def _start(target, bench):
    """Starts it; seconds until it is ready."""
    began = time.perf_counter()
    import subprocess
    target.process = subprocess.Popen(target.command, stdin=subprocess.DEVNULL, stdout=bench.log, stderr=bench.log)
    while True:
        try:
            urllib.request.urlopen(target.ready, timeout=1).close()
            return time.perf_counter() - began
        except OSError:
            if target.process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                sys.exit("error: it did not start: see %s" % bench.log.name)
            time.sleep(0.005)


def _memory(target):
    """Resident anonymous memory, KiB: what it allocated, without its program and its database's pages."""
    with open("/proc/%d/status" % target.process.pid) as file:
        return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))


def _cpu(target):
    """Processor seconds it has used, of all its threads: what a start takes, whoever else wants the cores."""
    with open("/proc/%d/stat" % target.process.pid) as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _series(target):
    with urllib.request.urlopen(target.ready.replace("/readyz", "/metrics"), timeout=30) as answer:
        return sum(1 for line in answer.read().decode().splitlines() if line and not line.startswith("#"))


def _scope(team, rows=100):
    filters = {"tasks": {"include_teams": [team], "include_personal": True}}
    return {"resources": ["tasks", "notes", "memory"], "excluded_resources": [], "filters": filters,
            "max_rows_per_query": rows}


def _subject(user):
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "mosaic.federation.subject"), user))


def fill(database, grants, peers):
    """Puts so many grants of so many peers into a store that nobody uses; the ids of some of them."""
    now, store = int(time.time() * 1000), sqlite3.connect(database)
    ends = now + 30 * 86400 * 1000
    ids = [str(uuid.uuid4()) for _ in range(grants)]
    of = [str(uuid.uuid4()) for _ in range(peers)]
    with store:
        store.executemany(
            "INSERT INTO peers (id, name, direction, state, created_at) VALUES (?, ?, 'inbound', 'active', ?)",
            ((peer, "filled-%d" % number, now) for number, peer in enumerate(of)))
        store.executemany(
            "INSERT INTO grants (id, peer_id, user_id, subject_id, scope, status, edit, created_at, activated_at)"
            " VALUES (?, ?, ?, ?, ?, 'active', 0, ?, ?)",
            ((grant, of[number % peers], "user-%d" % number, _subject("user-%d" % number),
              json.dumps(_scope("team-%d" % number), separators=(",", ":")), now, now)
             for number, grant in enumerate(ids)))
        # What is loaded of a certificate are its columns; its bytes are read when it is shown.
        store.executemany(
            "INSERT INTO certificates (fingerprint, grant_id, serial, not_before, not_after, state, issued_at, der, confirmed_at)"
            " VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?)",
            ((os.urandom(32), grant, "5a" + os.urandom(15).hex(), now, ends, now, b"\x30\x00", now) for grant in ids))
    store.close()
    return ids[:: max(1, grants // EDITS)][:EDITS]


def _measured(bench, target, asked, load, ids):
    """Everything about a sidecar that is down."""
    starts, cpu = [], []
    for number in range(STARTS):
        starts.append(_start(target, bench))
        cpu.append(_cpu(target))
        if number + 1 < STARTS:
            target.stop()
    ready = _memory(target)
    time.sleep(IDLE_SECONDS)
    memory, series = _memory(target), _series(target)
    answered = load(bench, target, "keep-alive", 20, 1, asked)
    admin = Admin(os.path.join(os.path.dirname(target.command[2]), "data", "admin.sock"))
    # Leases of the process before are waited for, once.
    admin.ask("PUT", "/grants/" + ids[0], {"scope": _scope("first")})
    edits, revoked = [], []
    for number, grant in enumerate(ids):
        said, took = admin.ask("PUT", "/grants/" + grant, {"scope": _scope("other-%d" % number)})
        edits.append(took - said["applied"]["waited_ms"] if "applied" in said else took - said.get("waited_ms", 0))
    for grant in ids[:3]:
        said, took = admin.ask("POST", "/grants/%s/revoke" % grant, {})
        revoked.append(took - said.get("waited_ms", 0))
    after = load(bench, target, "keep-alive", 20, 1, asked)
    return {
        "start_s": statistics.median(starts), "start_cpu_s": statistics.median(cpu),
        "memory_ready_kib": ready, "memory_kib": memory, "memory_after_kib": _memory(target), "series": series,
        "series_after": _series(target), "edit_ms": statistics.median(edits), "edit_ms_worst": max(edits),
        "revoke_ms": statistics.median(revoked), "p50_ms": answered.get("p50_ms"), "cpu_us": answered["cpu_us"],
        "fault": answered["fault"] or after["fault"],
    }


def measure(bench, asked, load):
    """A sidecar with a few grants and one with many."""
    target = sidecar.onboarded(bench, "scale", "subject_token")
    cli = target.command[:-1]
    few = [sidecar.pending(cli, "few-%d" % number) for number in range(FEW)]
    target.stop()
    found = {"few": _measured(bench, target, asked, load, few)}
    target.stop()
    database = os.path.join(os.path.dirname(cli[2]), "data", "federation.db")
    some = fill(database, asked.grants, asked.peers)
    found["many"] = _measured(bench, target, asked, load, some)
    few, many = found["few"], found["many"]
    a_grant = {key: (many[key] - few[key]) * 1024 / asked.grants for key in MEMORY}
    found.update({"grants": asked.grants, "peers": asked.peers, "bytes_a_grant": a_grant,
                  "fault": few["fault"] or many["fault"]})
    if many["series"] > few["series"]:
        found["fault"] = "%d series of metrics with many grants, %d with few" % (many["series"], few["series"])
    return found


def text(found):
    """Its table, in Markdown."""
    few, many = found["few"], found["many"]
    rows = [
        ("start to ready, s", "start_s", "%.2f", "3"),
        ("the same, processor time, s", "start_cpu_s", "%.2f", ""),
        *(("memory %s, KiB" % when, key, "%d", "") for key, when in MEMORY.items()),
        ("an edit of one grant applied, ms", "edit_ms", "%.1f", "10"),
        ("the same, the worst", "edit_ms_worst", "%.1f", ""),
        ("a revocation of one, ms", "revoke_ms", "%.1f", ""),
        ("20 rows, one connection, p50 ms", "p50_ms", "%.3f", "flat"),
        ("20 rows, CPU us", "cpu_us", "%.1f", "flat"),
        ("series of metrics", "series", "%d", "as few"),
    ]
    lines = ["", "| %d grants of %d peers | %d grants | many | bar |" % (found["grants"], found["peers"], FEW + 1),
             "|---|---|---|---|"]
    for title, key, form, bar in rows:
        shown = [form % one[key] if one[key] is not None else "-" for one in (few, many)]
        lines.append("| %s | %s | %s | %s |" % (title, *shown, bar))
    lines += ["| the same a grant, bytes, %s | - | %d | %s |" % (when, found["bytes_a_grant"][key], MEMORY_BARS.get(key, ""))
              for key, when in MEMORY.items()]
    if found["fault"]:
        lines.append("\n**does not count**: " + found["fault"])
    return "\n".join(lines)
