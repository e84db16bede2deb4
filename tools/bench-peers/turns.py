"""Processes that take turns, the limits measured beside them, and what samples say: for peers.py and llama.py."""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

WARM = 0.15  # seconds of the same work, once at least, before anything counts: threads wake, the clock rises, caches fill
TIME = 0.25  # seconds that count, once at least
LIMIT_WARM, LIMIT_TIME = 0.03, 0.05  # the same of a limit, whose work takes some milliseconds
REST = 0.02  # seconds without work between two processes
LEVEL = 1  # point of percent of the limit: less is not told apart from the limit's own noise
DISTURBED = 1.03  # limits before and after a sample that differ by more say that somebody else had the machine


class Process:
    """A program that reads one request a line, as JSON, and answers it with one."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-peers: {self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def rest(self):
        """Returns when no thread of the process runs any more: OpenMP's go on spinning for a while, and would take from who comes next."""
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            time.sleep(REST)
            if not any(state(task) == "R" for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()):
                return
        print(f"bench-peers: {self.name} does not come to rest", file=sys.stderr)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def state(task):
    """The state of a thread as the system has it: R runs, S sleeps."""
    try:
        return (task / "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""  # it ended


def limited(ours, limit, work):
    """A sample of some work, which returns its seconds or 0, between two measurements of a limit by our process."""
    before = ours.ask(limit=limit, warm=LIMIT_WARM, time=LIMIT_TIME)["rate"]
    ours.rest()
    seconds = work()
    after = ours.ask(limit=limit, warm=LIMIT_WARM, time=LIMIT_TIME)["rate"]
    ours.rest()
    return {"seconds": seconds, "before": before, "after": after} if seconds else None


def counted(samples):
    """The samples that count: those with the same limit on either side, if there are three of them."""
    quiet = [s for s in samples if max(s["before"], s["after"]) <= DISTURBED * min(s["before"], s["after"])]
    return quiet if len(quiet) >= 3 else samples


def percents(samples, amount):
    """What samples of so much work, in 1e9, are of the limit, in percent."""
    return [100 * amount / s["seconds"] / ((s["before"] + s["after"]) / 2 or float("nan")) for s in counted(samples)]


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def cell(samples, amount):
    """The median rate, and the median percent of the limit with half its interquartile range."""
    low, middle, high = quartiles(percents(samples, amount))
    rate = statistics.median(amount / s["seconds"] for s in counted(samples))
    return f"{rate:.1f} ({middle:.1f} ± {(high - low) / 2:.1f} %)"


def ahead(scores):
    """Who has the highest median of name -> values, and who is level with him: whose interquartile range meets his, or whose median is a point away or less."""
    spans = {name: quartiles(v) for name, v in scores.items()}
    best = max(spans, key=lambda name: spans[name][1])
    level = [name for name in spans if name != best and (spans[name][2] >= spans[best][0] or spans[name][1] >= spans[best][1] - LEVEL)]
    return [best, *sorted(level, key=lambda name: -spans[name][1])]


def verdict(names):
    return "**" + names[0] + "**" if len(names) == 1 else "level: " + ", ".join(names)


def summary(verdicts):
    """A sentence about the rows: row -> names, as ahead gives them."""
    first = [row for row, names in verdicts.items() if names == ["llavaref"]]
    level = [row for row, names in verdicts.items() if "llavaref" in names and len(names) > 1]
    behind = [f"{row} ({names[0]})" for row, names in verdicts.items() if "llavaref" not in names]
    text = f"Of {len(verdicts)} rows llavaref is ahead in {len(first)}, level with the best peer in {len(level)}"
    text += f" ({'; '.join(level)})" if level else ""
    text += f", behind in {len(behind)}" + (f": {'; '.join(behind)}" if behind else "")
    return text + f". Level means that the interquartile ranges of the percentages meet, or that the medians differ by {LEVEL} point or less."


def processor_fields():
    """What the system says of the first processor."""
    fields = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return fields


def processor():
    f = processor_fields()
    return f"{f['model name']} (family {f['cpu family']}, model {f['model']})" if "cpu family" in f else platform.processor() or platform.machine()
