"""Measures products y = x Wᵀ of llavaref's kernels and of its peers, and prints one table.

Every peer is a process of its own. They take turns, one sample each, with the machine's limits measured before and after
every sample by llavaref's process, and what is printed is the median of the ratios. A peer that cannot multiply in a type is left out there.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent

# rows of x; [N, K] of W; the type of the weights. The square matrix of the decoder in full, the wide ones and the tower's where they run.
ROWS = (1, 8, 64, 577, 1176, 2340, 2928)
SHAPES = [(m, 4096, 4096, t) for t in ("f32", "bf16") for m in ROWS]
SHAPES += [(1, 4096, 4096, "f16")]
SHAPES += [(m, 14336, 4096, t) for t in ("f32", "bf16") for m in (1, 577)]
SHAPES += [(m, 4096, 1024, t) for t in ("f32", "bf16") for m in (577, 2885)]
CLASS = {"f32": "float32", "f16": "float32", "bf16": "bf16"}
LIMIT = {"f32": "fma", "f16": "fma", "bf16": "dot"}

SETTLE = 0.3  # seconds: OpenMP's threads go on spinning for some time after a product, and would halve the limit that is measured then


class Peer:
    def __init__(self, name, command):
        self.name = name
        environment = {**os.environ, "OMP_PROC_BIND": "false"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
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

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(ours, peers, shape, rounds, seconds):
    """Samples of everybody, in turns: name -> [(rate, percent)]."""
    m, n, k, t = shape
    limit = "read" if m == 1 else LIMIT[t]
    amount = (n * k * {"f32": 4}.get(t, 2) if m == 1 else 2 * m * n * k) / 1e9
    samples = {}
    for round_ in range(rounds + 1):
        for p in peers:
            before = ours.ask(limit=limit)["rate"]
            took = p.ask(m=m, n=n, k=k, type=t, **({"class": CLASS[t]} if p is ours else {}), time=seconds, warm=1)["seconds"]
            time.sleep(SETTLE)
            after = ours.ask(limit=limit)["rate"]
            if took and round_:  # the first round warms up, also the machine
                rate = amount / took
                top = max(before, after)
                samples.setdefault(p.name, []).append((rate, 100 * rate / top if top else float("nan")))
                samples.setdefault("limit", []).append((top, 100.0))
    return samples


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--llavaref", required=True, help="the program")
    a.add_argument("--gonum", help="the gonum peer's program")
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--time", type=float, default=0.05, help="seconds of one sample, at least")
    a.add_argument("--only", help="rows of x to measure, separated by commas")
    a.add_argument("--json", help="where the samples go")
    f = a.parse_args()
    shapes = SHAPES
    if f.only:
        wanted = {int(m) for m in f.only.split(",")}
        shapes = [s for s in SHAPES if s[0] in wanted]
    ours = Peer("llavaref", [f.llavaref, "bench", "worker", "--threads", str(f.threads)])
    peers = [ours]
    for name in ("onednn", "torch", "openblas"):
        peers.append(Peer(name, [sys.executable, str(HERE / "worker.py"), name, str(f.threads)]))
    if f.gonum:
        peers.append(Peer("gonum", [f.gonum, str(f.threads)]))
    names = [p.name for p in peers]
    print(f"{platform.processor() or platform.machine()}, {f.threads} threads; GFLOP/s, for one row of x GB/s of weights; in brackets the percent of the limit\n")
    print(*(f"- {p.name}: {p.version}" for p in peers), sep="\n")
    print("\n| W | M | weights | limit | " + " | ".join(names) + " |\n|---|---|---|---|" + "---|" * len(names), flush=True)
    everything = []
    for shape in shapes:
        # gonum's product has no blocking for these sizes; where it would take minutes it is left out
        turn = [p for p in peers if p.name != "gonum" or shape[0] <= 577 and shape[3] == "f32"]
        samples = measure(ours, turn, shape, f.rounds, f.time)
        m, n, k, t = shape
        cells = []
        for name in names:
            s = samples.get(name)
            cells.append(f"{statistics.median(r for r, _ in s):.1f} ({statistics.median(p for _, p in s):.0f} %)" if s else "-")
        top = statistics.median(r for r, _ in samples["limit"])
        print(f"| {n}x{k} | {m} | {t} | {top:.0f} | " + " | ".join(cells) + " |", flush=True)
        everything.append({"m": m, "n": n, "k": k, "type": t, "samples": samples})
    for p in peers:
        p.close()
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps({"versions": {p.name: p.version for p in peers}, "shapes": everything}, indent=1) + "\n")


if __name__ == "__main__":
    main()
