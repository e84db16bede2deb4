"""How far unmodified models lie from the floors of a committed set, in runs that the floors were not made from.

The limit of the accumulated verdict is three floors. This is what it rests on: fused attention in 4.51.3, and eager
attention with its sums split over two threads, against floors from 4.51.3 eager, 5.23.0 eager and 5.23.0 fused.

    scatter.py tiny-1.6
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np

import cases
import checkpoint
import config as configs
import dump
import gen_golden
import inputs
import sample
import write

DATA = gen_golden.HERE.parents[1] / "golden" / "data"
ROUNDOFF = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
CRITERIA = ("whole", "worst_row", "massive")
LIMIT = 3


def ratios(set_: Path, truth: Path, run: Path, column: int, prompts: list[inputs.Case], config: configs.Config, budget: int) -> list[tuple[str, float, str]]:
    """(criterion, error over floor, case and node); floors no smaller than one rounding of the class, as the verdict has them."""
    u = list(ROUNDOFF.values())[column]
    least = {"whole": u / math.sqrt(3), "worst_row": u, "massive": u / math.sqrt(3)}
    out = []
    for prompt in prompts:
        floors = np.load(set_ / prompt.name / "floors.npy")[:, column].astype(np.float64)
        exact, have = dump.Reader(truth / prompt.name), dump.Reader(run / prompt.name)
        for node, floor in zip(prompt.nodes(config), floors):
            if node.name not in have:
                continue
            error = sample.Measure(np.asarray(exact[node.name]), node, budget).error(np.asarray(have[node.name]))
            for criterion, value in zip(CRITERIA, floor):
                out.append((criterion, getattr(error, criterion) / max(value, least[criterion]), f"{prompt.name}: {node.name}"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(cases.PLANS))
    parser.add_argument("--venvs", type=Path, default=os.environ.get("LLAVAREF_VENV", Path.home() / ".cache" / "llavaref"))
    args = parser.parse_args()

    set_ = DATA / args.model
    budget = json.loads((set_ / "manifest.json").read_text())["sample"]
    config = configs.read(set_)
    with tempfile.TemporaryDirectory(prefix="gen-golden-") as work:
        weights, given = Path(work) / "checkpoint", Path(work) / "inputs"
        checkpoint.write_synthetic(args.model, 0, weights)
        cases.write(args.model, given)
        prompts = [inputs.read(folder, config) for folder in inputs.folders(given)]
        one, two = (gen_golden.Workshop(Path(args.venvs), Path(work) / str(threads), threads) for threads in (1, 2))
        truth = one.witness("4.51", "float64", "eager", weights, given)
        lines = []
        for column, (name, dtype) in enumerate(write.CLASSES.items()):
            found = []
            for shop, attention in ((one, "sdpa"), (two, "eager")):
                run = shop.witness("4.51", dtype, attention, weights, given)
                found += ratios(set_, truth, run, column, prompts, config, budget)
            for criterion in CRITERIA:
                mine = [(ratio, where) for c, ratio, where in found if c == criterion]
                worst, where = max(mine)
                above = sum(ratio > LIMIT for ratio, _ in mine)
                lines.append(f"| {name} | {criterion.replace('_', ' ')} | {len(mine)} | {worst:.2f} | {above} | {where} |")
    print("| class | criterion | compared | largest | above 3 | where |\n|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
