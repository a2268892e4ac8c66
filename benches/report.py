"""What was measured, as tables: CPU per request first, medians with the range, ratios within one run, the bars.

A ratio is printed only when none of its runs had a fault; otherwise the table says why there is none.
"""
import re
import statistics

import scale

TITLES = {
    "upstream": "upstream alone", "bare": "bare Pingora", "nginx": "nginx", "lua": "nginx + Lua, same work",
    "sidecar": "sidecar", "sidecar-service-token": "sidecar, service_token",
    "echo": "plain HTTP echo", "door": "session door, from memory",
    "nginx-pair": "nginx to nginx, mTLS", "pair": "sidecar to sidecar",
}
LOAD = [
    ("CPU us/request", "cpu_us", "%.1f"), ("requests/s", "rps", "%.0f"), ("p50 ms", "p50_ms", "%.2f"),
    ("p99 ms", "p99_ms", "%.2f"), ("cores", "cores", "%.2f"),
]
PAIR = [LOAD[0], ("of it the near end", "cpu_us_near", "%.1f"), ("the far end", "cpu_us_far", "%.1f"), *LOAD[1:]]
HANDSHAKE = [("CPU us/handshake", "cpu_us", "%.0f"), ("handshakes/s", "rps", "%.0f"),
             ("handshake p50 ms", "handshake_p50_ms", "%.2f"), ("handshake p99 ms", "handshake_p99_ms", "%.2f")]
MEMORY = [("KiB/connection", "kib_per_connection", "%.1f"), ("idle PSS KiB", "pss_idle_kib", "%.0f"),
          ("PSS KiB with connections", "pss_kib", "%.0f")]
# Of the specification, section 13: title, phase, figure, against whom (None: as it is), first bar, goal.
BARS = [
    ("20 rows, whole job, CPU against bare Pingora", "small", "cpu_us", "bare", 1.25, 1.10),
    ("20 rows, CPU against nginx + Lua", "small", "cpu_us", "lua", 1.0, 0.70),
    ("1,000 rows, CPU against nginx + Lua", "large", "cpu_us", "lua", 0.25, 0.15),
    ("1,000 rows, CPU against nginx unfiltered", "large", "cpu_us", "nginx", None, 1.0),
    ("full handshake, CPU against nginx", "hs", "cpu_us", "nginx", 0.75, 0.5),
    ("memory per idle connection, KiB", "mem", "kib_per_connection", None, 64, 32),
]
QUIET_CORES = 0.25


def cpu_name():
    """The processor's name as the kernel tells it."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown"


def progress(number, phase, name, found):
    """One line per measurement, while it goes on."""
    if found["fault"]:
        return "run %d %-10s %-22s does not count: %s" % (number, phase, name, found["fault"])
    keys = ("cpu_us", "rps", "p50_ms", "p99_ms", "kib_per_connection", "foreign_cores")
    shown = ["%s=%.4g" % (key, found[key]) for key in keys if found.get(key) is not None]
    return "run %d %-10s %-22s %s" % (number, phase, name, " ".join(shown))


def faults(results):
    """Every measurement that does not count."""
    return [(phase, name, found["fault"]) for phase, targets in results.items()
            for name, runs in targets.items() for found in runs if found["fault"]]


def spread(values, shape):
    """Median, and the range when there is more than one."""
    if not values:
        return "-"
    text = shape % statistics.median(values)
    if len(values) > 1:
        text += " [%s-%s]" % (shape % min(values), shape % max(values))
    return text


def ratios(results, phase, key, name, against):
    """The ratio in each run; or, as text, why there is none."""
    runs = results.get(phase, {})
    if name not in runs or against not in runs:
        return "not measured"
    found = []
    for one, other in zip(runs[name], runs[against]):
        wrong = one["fault"] or other["fault"]
        if wrong:
            return "no ratio: " + wrong
        if not one[key] or not other[key]:
            return "no ratio: too short to tell"
        found.append(one[key] / other[key])
    return found


def table(results, phase, title, columns, against, own="sidecar"):
    """One phase: every target with its figures and the ratio of `own` to it."""
    targets = results.get(phase, {})
    if not targets:
        return []
    headings = ["target", *(heading for heading, _, _ in columns), TITLES[own].split(",")[0] + " / target"]
    lines = ["", "### " + title, "", "| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for name in TITLES:
        if name not in targets:
            continue
        wrong = [run["fault"] for run in targets[name] if run["fault"]]
        cells = [spread([run[key] for run in targets[name] if run.get(key) is not None], shape) for _, key, shape in columns]
        ratio = ratios(results, phase, columns[0][1], own, name) if name in against else "-"
        ratio = ratio if isinstance(ratio, str) else spread(ratio, "%.2f")
        if wrong:
            cells = ["does not count" for _ in columns]
            ratio = wrong[0]
        lines.append("| " + " | ".join([TITLES[name], *cells, ratio]) + " |")
    return lines


def verdict(value, bar, goal):
    """Which of the two is met."""
    if goal is not None and value <= goal:
        return "goal met"
    if bar is None:
        return "goal not met"
    return "first bar met" if value < bar else "NOT met"


def bars(results):
    """The bars of the specification beside what was measured."""
    lines = ["", "### Bars", "", "| figure | measured | first bar | goal | |", "|---|---|---|---|---|"]
    for title, phase, key, against, bar, goal in BARS:
        if against:
            values = ratios(results, phase, key, "sidecar", against)
        else:
            runs = results.get(phase, {}).get("sidecar", [])
            wrong = [run["fault"] for run in runs if run["fault"]]
            values = wrong[0] if wrong else [run[key] for run in runs] or "not measured"
        if isinstance(values, str):
            measured, met = values, ""
        else:
            measured, met = spread(values, "%.2f"), verdict(statistics.median(values), bar, goal)
        lines.append("| %s | %s | %s | %s | %s |" % (title, measured, "-" if bar is None else bar, goal, met))
    lines += search_bar(results) + filter_bars(results)
    return lines


def search_bar(results):
    """Searching rows beside listing the same rows."""
    runs = [results.get(phase, {}).get("sidecar", []) for phase in ("search", "scan")]
    pairs = list(zip(*runs))
    if not pairs:
        return []
    wrong = [found["fault"] for pair in pairs for found in pair if found["fault"]]
    values = [search["cpu_us"] / scan["cpu_us"] for search, scan in pairs] if not wrong else []
    met = verdict(statistics.median(values), 1.5, None) if values else wrong[0]
    return ["| search in 1,000 rows of 1 KiB, CPU against listing them | %s | 1.5 | - | %s |" % (spread(values, "%.2f"), met)]


def filter_bars(results):
    """The row filter's own measurement: one line for each body it was given whole."""
    lines = []
    for run in results.get("filter", {}).get("policy", []):
        found = re.findall(r"^(\S.*?)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+[\d.]+$", run["text"], re.MULTILINE)
        whole = [(name, rows, float(speed)) for name, rows, size, chunk, speed in found if chunk == size]
        if run["fault"] or not whole:
            lines.append("| row filter, one core, GB/s | %s | 1 | 2.5 | |" % (run["fault"] or "not told"))
        for name, rows, speed in whole:
            met = "goal met" if speed >= 2.5 else "first bar met" if speed >= 1.0 else "NOT met"
            lines.append("| row filter, one core, GB/s: %s, %s rows | %.2f | 1 | 2.5 | %s |" % (name, rows, speed, met))
    return lines


def threads(results):
    """Where in the sidecar the time of a short answer goes, by the names of its threads."""
    runs = [run["threads_us"] for run in results.get("small", {}).get("sidecar", []) if not run["fault"]]
    names = sorted({name for run in runs for name in run})
    medians = [(statistics.median(run.get(name, 0) for run in runs), name) for name in names]
    shown = ["%s %.1f us" % (name, median) for median, name in sorted(medians, reverse=True) if median >= 0.1]
    return ["", "Of a request for 20 rows, by thread of the sidecar: %s." % ", ".join(shown)] if shown else []


def calls(results):
    """System calls of one request, of those that are made at least once in a hundred."""
    targets = {name: [run["calls"] for run in runs if not run["fault"]] for name, runs in results.get("calls", {}).items()}
    names = [name for name in TITLES if targets.get(name)]
    if not names:
        return []
    medians = {name: {call: statistics.median(run.get(call, 0) for run in targets[name])
                      for run in targets[name] for call in run} for name in names}
    every = sorted({call for counts in medians.values() for call, count in counts.items() if count >= 0.01})
    lines = ["", "### System calls of a request for 20 rows", "",
             "| call | " + " | ".join(TITLES[name] for name in names) + " |", "|---|" + "---|" * len(names)]
    for call in every:
        lines.append("| %s | " % call + " | ".join("%.2f" % medians[name].get(call, 0) for name in names) + " |")
    lines.append("| all | " + " | ".join("%.2f" % sum(medians[name].values()) for name in names) + " |")
    return lines


def quiet(results):
    """What else the machine was doing meanwhile."""
    runs = [(run["foreign_cores"], run["steal_pct"], phase, name) for phase, targets in results.items()
            for name, found in targets.items() for run in found if "foreign_cores" in run]
    if not runs:
        return []
    worst = max(runs)
    lines = ["", "CPU of other processes: median %.2f cores, worst %.2f (%s, %s); steal: worst %.1f %%."
             % (statistics.median(run[0] for run in runs), worst[0], worst[3], worst[2], max(run[1] for run in runs))]
    if worst[0] >= QUIET_CORES:
        lines.append("**The machine was not quiet**: do not quote these figures; run again.")
    return lines


def text(results, asked, machine):
    """The whole report, Markdown."""
    lines = ["## Benchmark", "", "%(cpu)s, %(cores)d cores, kernel %(kernel)s." % machine
             + " Medians of %d run(s) with the range; one worker thread each." % asked.runs]
    load = "%d connections, %g s" % (asked.connections, asked.seconds)
    peers = ("bare", "nginx", "lua", "sidecar-service-token")
    lines += table(results, "small", "20 rows (4 KiB), kept-alive, " + load, LOAD, peers)
    lines += table(results, "large", "1,000 rows (200 KiB), kept-alive, " + load, LOAD, peers)
    lines += table(results, "scan", "1,000 rows of 1 KiB listed, kept-alive, " + load, LOAD, ())
    lines += table(results, "search", "a word looked for in 1,000 rows of 1 KiB, kept-alive, " + load, LOAD, ())
    hands = "a full handshake for each request, %d at once, " % asked.handshakes
    lines += table(results, "hs", hands + "X25519", HANDSHAKE, peers)
    lines += table(results, "hs-hybrid", hands + "X25519MLKEM768", HANDSHAKE, peers)
    lines += table(results, "mem", "%d idle connections that asked once" % asked.idle, MEMORY, peers)
    for suffix, load in (("", load), ("-one", "one connection, %g s" % asked.seconds)):
        memory, hop = "20 rows from the session door's memory, ", "20 rows end to end over mTLS, "
        lines += table(results, "hit" + suffix, memory + load, LOAD, ("echo",), "door")
        lines += table(results, "hop" + suffix, hop + load, PAIR, ("nginx-pair",), "pair")
    lines += threads(results) + calls(results)
    lines += [scale.text(found) for found in results.get("scale", {}).get("sidecar", [])]
    lines += bars(results) + quiet(results)
    wrong = faults(results)
    if wrong:
        lines += ["", "%d measurement(s) do not count:" % len(wrong)]
        lines += ["- %s, %s: %s" % one for one in wrong]
    return "\n".join(lines)
