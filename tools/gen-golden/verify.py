"""Compares a golden set with one made anew.

Inputs, configuration and structure must be the same bytes. The truth is float64 rounded to float32, and two machines'
float64 sums differ by about 1e-13, so that one value in a million lands on the other side of a rounding border: such
values may differ by one float32 step, and they are counted. The floors are noise, measured anew on every kind of CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ONE_STEP = 1e-4  # share of the values that may be one float32 step apart
# The largest ratio between two runs of the unmodified model, eager and fused, over all nodes and all entries of the
# tiny cases, is 1.3, 3.6 and 1.7; the recorded floors are the largest of three runs.
FLOORS = {"whole": 1.5, "worst row": 4.0, "massive": 2.0}


def report(have: Path, want: Path) -> int:
    """Prints what differs; 0 if the sets are the same in the sense above."""
    failures, values, apart = [], 0, 0
    a, b = (json.loads((folder / "manifest.json").read_text()) for folder in (have, want))
    for key in ("format", "model", "weights", "sample", "classes", "cases"):
        if a[key] != b[key]:
            failures.append(f"manifest.json: {key}: {a[key]}, made anew {b[key]}")
    if sorted(a["files"]) != sorted(b["files"]):
        failures.append(f"other files: {sorted(set(a['files']) ^ set(b['files']))}")

    for name in sorted(set(a["files"]) & set(b["files"])):
        if (have / name).read_bytes() == (want / name).read_bytes():
            continue
        leaf = Path(name).name
        if leaf in ("values.npy", "row_rms.npy", "logits.npy"):
            x, y = np.load(have / name), np.load(want / name)
            if x.shape != y.shape:
                failures.append(f"{name}: shape {x.shape}, made anew {y.shape}")
                continue
            values += x.size
            apart += int((x != y).sum())
            if not np.all((x == y) | (np.nextafter(x, y) == y)):
                failures.append(f"{name}: a value is more than one float32 step away")
        elif leaf == "floors.npy":
            failures += floors(name, np.load(have / name), np.load(want / name))
        else:
            failures.append(f"{name}: other bytes")

    if values and apart > ONE_STEP * values:
        failures.append(f"{apart} of {values} values are one float32 step apart, at most {ONE_STEP:.0e} of them may be")
    for line in failures:
        print(f"  {line}")
    print(f"{have}: {'differs' if failures else 'verified'}; {apart} values one float32 step apart")
    return 1 if failures else 0


def floors(name: str, have: np.ndarray, want: np.ndarray) -> list[str]:
    if have.shape != want.shape:
        return [f"{name}: shape {have.shape}, made anew {want.shape}"]
    out = []
    for i, (what, limit) in enumerate(FLOORS.items()):
        x, y = have[..., i], want[..., i]
        bad = (x > limit * y) | (y > limit * x)
        if bad.any():
            out.append(f"{name}: {what}: {int(bad.sum())} of {bad.size} floors differ by more than {limit}x")
    return out

