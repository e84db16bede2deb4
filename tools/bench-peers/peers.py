"""Measures products y = x Wᵀ of llavaref's kernels and of its peers, and prints one table.

Every peer is a process of its own. They take turns, one sample each, in another order every round, with the machine's limits measured before
and after every sample by llavaref's process. What is compared is the percent of the limit. A peer that cannot multiply in a type is left out there.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import sys

import turns

HERE = pathlib.Path(__file__).parent

# rows of x; [N, K] of W; the type of the weights. The square matrix of the decoder in full, the wide ones and the tower's where they run.
ROWS = (1, 8, 64, 577, 1176, 2340, 2928)
SHAPES = [(m, 4096, 4096, t) for t in ("f32", "bf16") for m in ROWS]
SHAPES += [(1, 4096, 4096, "f16")]
SHAPES += [(m, 14336, 4096, t) for t in ("f32", "bf16") for m in (1, 577)]
SHAPES += [(m, 4096, 1024, t) for t in ("f32", "bf16") for m in (577, 2885)]
CLASS = {"f32": "float32", "f16": "float32", "bf16": "bf16"}
LIMIT = {"f32": "fma", "f16": "fma", "bf16": "dot"}
SEED = 1

# What a peer may be given to be faster than it is by itself. --ways measures these beside each other; BEST is taken.
FREE = {"OMP_PROC_BIND": "false"}
CORE = FREE | ({"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512f" in turns.processor_fields().get("flags", "").split() else {})
HUGE = CORE | {
    "THP_MEM_ALLOC_ENABLE": "1",  # torch's own memory
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296",
}
WAYS = {
    "by itself": FREE,
    "OpenBLAS told of AVX-512": CORE,
    "and huge pages": HUGE,
    "and threads that sleep": HUGE | {"OMP_WAIT_POLICY": "passive"},
    "and threads that spin longer": HUGE | {"GOMP_SPINCOUNT": "10000000"},
}
BEST = "and huge pages"


def measure(ours, peers, shape, rounds, order):
    """Samples of everybody, in turns: name -> [sample]."""
    m, n, k, t = shape
    limit = "read" if m == 1 else LIMIT[t]
    samples = {}
    for round_ in range(rounds + 1):
        turn = list(peers)
        order.shuffle(turn)
        for p in turn:
            first = round_ == 0  # it makes the weights, and shows who cannot multiply them
            if not first and p.name not in samples:
                continue

            def work():
                answer = p.ask(m=m, n=n, k=k, type=t, **{"class": CLASS[t]}, time=0 if first else turns.TIME, warm=0 if first else turns.WARM)
                p.rest()
                return answer["seconds"]

            if first:
                if work():
                    samples[p.name] = []
            else:
                samples[p.name].append(turns.limited(ours, limit, work))
    return samples


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--llavaref", required=True, help="the program")
    a.add_argument("--gonum", help="the gonum peer's program")
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--rounds", type=int, default=7)
    a.add_argument("--only", help="rows of x to measure, separated by commas")
    a.add_argument("--types", default="f32,bf16,f16", help="types of the weights to measure, separated by commas")
    a.add_argument("--ways", metavar="PEER", help="compare this peer with itself, in the ways of WAYS")
    a.add_argument("--json", help="where the samples go")
    f = a.parse_args()
    rows = {int(m) for m in f.only.split(",")} if f.only else {s[0] for s in SHAPES}
    shapes = [s for s in SHAPES if s[0] in rows and s[3] in f.types.split(",")]
    ours = turns.Process("llavaref", [f.llavaref, "bench", "worker", "--threads", str(f.threads)])
    peers = [] if f.ways else [ours]
    for kind in [f.ways] if f.ways else ("onednn", "torch", "openblas"):
        for way in WAYS if f.ways else [BEST]:
            peers.append(turns.Process(way if f.ways else kind, [sys.executable, str(HERE / "worker.py"), kind, str(f.threads)], WAYS[way]))
    if f.gonum and not f.ways:
        peers.append(turns.Process("gonum", [f.gonum, str(f.threads)]))
    names = [p.name for p in peers]
    print(f"{turns.processor()}, {f.threads} threads; GFLOP/s, for one row of x GB/s of weights; in brackets the percent of the limit ± half the interquartile range, of {f.rounds} samples\n")
    print(*(f"- {p.name}: {p.version}" for p in peers), sep="\n")
    print("\n| W | M | weights | limit | " + " | ".join(names) + " | ahead |\n|---|---|---|---|---|" + "---|" * len(names), flush=True)
    order, everything, verdicts = random.Random(SEED), [], {}
    for shape in shapes:
        m, n, k, t = shape
        # gonum's product has no blocking for these sizes; where it would take minutes it is left out
        turn = [p for p in peers if p.name != "gonum" or m * n * k <= 577 * 4096 * 1024]
        samples = measure(ours, turn, shape, f.rounds, order)
        amount = (n * k * {"f32": 4}.get(t, 2) if m == 1 else 2 * m * n * k) / 1e9
        best = turns.ahead({name: turns.percents(s, amount) for name, s in samples.items()})
        cells = [turns.cell(samples[name], amount) if name in samples else "-" for name in names]
        top = statistics.median(x for s in samples.values() for one in s for x in (one["before"], one["after"]))
        print(f"| {n}x{k} | {m} | {t} | {top:.0f} {'read' if m == 1 else LIMIT[t]} | " + " | ".join(cells) + f" | {turns.verdict(best)} |", flush=True)
        verdicts[f"{n}x{k}, M = {m}, {t}"] = best
        everything.append({"m": m, "n": n, "k": k, "type": t, "ahead": best, "samples": samples})
    for p in {*peers, ours}:
        p.close()
    if not f.ways:
        print("\n" + turns.summary(verdicts))
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps({"processor": turns.processor(), "versions": {p.name: p.version for p in peers}, "shapes": everything}, indent=1) + "\n")


if __name__ == "__main__":
    main()
