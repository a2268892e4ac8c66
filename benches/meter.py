"""Figures of processes, read from /proc: CPU time, memory, and what else the machine was doing.

CPU time is user plus system time of a process over all its threads, and of its children that still run: on a
machine where load, server and gateway share two cores it is the steadiest figure there is.
"""
import os
import time

TICK = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    with open("/proc/%d/stat" % pid) as file:
        return file.read().rsplit(")", 1)[1].split()


def family(pid):
    """The process and its descendants (nginx works in a child)."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
            except OSError:
                pass  # it has ended meanwhile
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_seconds(pids):
    """User and system time of all threads, in seconds. A process that is gone is an error: its time is lost."""
    total = 0
    for pid in pids:
        fields = _stat(pid)
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def thread_nanos(pids):
    """Nanoseconds on a core of each thread that runs now, with its name."""
    found = {}
    for pid in pids:
        for thread in os.listdir("/proc/%d/task" % pid):
            at = "/proc/%d/task/%s/" % (pid, thread)
            try:
                with open(at + "comm") as name, open(at + "schedstat") as spent:
                    found[thread] = (name.read().strip(), int(spent.read().split()[0]))
            except OSError:
                pass  # it has ended meanwhile
    return found


def pss_kib(pids):
    """Proportional set size, KiB: shared pages are divided among those who share them."""
    total = 0
    for pid in pids:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def _machine():
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return {"idle": fields[3] + fields[4], "steal": fields[7], "all": sum(fields)}


class Meter:
    """CPU of one target between two moments, and of everything that is no part of the measurement.

    A target is one or several parts, each with its processes; its figure is the sum of theirs."""

    def __init__(self, parts, others):
        self.parts, self.others = parts, others
        target = self.target = [pid for part in parts for pid in part]
        self.cpu, self.cpu_others = [cpu_seconds(part) for part in parts], cpu_seconds(others)
        self.threads = thread_nanos(target)
        self.machine, self.wall = _machine(), time.monotonic()

    def end(self, requests):
        """The figures since the beginning; `requests` is what the CPU time is divided by."""
        wall, now = time.monotonic() - self.wall, _machine()
        each = [cpu_seconds(part) - before for part, before in zip(self.parts, self.cpu)]
        cpu = sum(each)
        known = (cpu + cpu_seconds(self.others) - self.cpu_others) / wall
        threads = {}
        for thread, (name, spent) in thread_nanos(self.target).items():
            spent -= self.threads.get(thread, (name, 0))[1]
            threads[name] = threads.get(name, 0) + spent / 1000 / max(1, requests)
        total = max(1, now["all"] - self.machine["all"])
        busy = os.cpu_count() * (total - (now["idle"] - self.machine["idle"])) / total
        return {
            "cpu_us": cpu * 1e6 / requests if requests else None,
            "cpu_us_of_parts": [one * 1e6 / requests for one in each] if requests else [],
            "threads_us": threads,
            "cores": cpu / wall,
            "foreign_cores": max(0.0, busy - known),
            "steal_pct": 100.0 * (now["steal"] - self.machine["steal"]) / total,
        }
