"""From the witnesses' dumps to a golden set: agreement, truth, noise floors, files. docs/golden-format.md is the contract."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

import dump
import inputs
import sample
from config import Config
from nodes import Node

CLASSES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
AGREEMENT = 1e-11  # the witnesses' float64 sums differ by their order, which 32 layers make 1e-12 of; a cast shows at 1e-7


def largest_difference(first: dump.Reader, other: dump.Reader, nodes: list[Node]) -> float:
    """The largest difference anywhere over the rms of its node; refuses what is not the same model."""
    worst = 0.0
    for node in nodes:
        a, b = np.asarray(first[node.name]), np.asarray(other[node.name])
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or np.isnan(a).any() or np.isnan(b).any():
            raise ValueError(f"{other.folder}: {node.name}: other entries are finite than in {first.folder}")
        rms = np.sqrt((a[finite] ** 2).mean())
        difference = np.abs(a[finite] - b[finite]).max()
        ratio = difference / rms if rms else difference
        if ratio > AGREEMENT:
            raise ValueError(f"{other.folder}: {node.name}: differs from {first.folder} by {ratio:.2e} of its rms, limit {AGREEMENT:.0e}")
        worst = max(worst, float(ratio))
    return worst


def floor(truth: dump.Reader, runs: list[dump.Reader], nodes: list[Node], budget: int) -> list[sample.Floor]:
    """One class's noise, node by node: the largest of several runs of the unmodified model, since one can be lucky."""
    floors = []
    for node in nodes:
        measure, worst = sample.Measure(np.asarray(truth[node.name]), node, budget), sample.Floor()
        for run in runs:
            if node.name in run:  # a fused attention has no scores to show
                worst |= measure.floor(np.asarray(run[node.name]))
        floors.append(worst)
    return floors


def case(folder: Path, given: inputs.Case, config: Config, truth: dump.Reader, budget: int) -> list[Node]:
    """Everything of a case but its floors."""
    folder.mkdir(parents=True)
    nodes = given.nodes(config)
    values, rows, entries = [], [], []
    for node in nodes:
        value = np.asarray(truth[node.name])
        keep = sample.kept(node, budget)
        kept = sample.entries(value, node, keep)
        values.append(kept.astype("<f4").ravel())
        rows.append(sample.row_rms(value, node, keep).astype("<f4"))
        massive = sample.massive_columns(value, node)
        entries.append({"name": node.name, "shape": node.shape, "entries": kept.size, "rows": len(keep.rows), "massive": massive})

    save(folder / "values.npy", np.concatenate(values))
    save(folder / "row_rms.npy", np.concatenate(rows))
    save(folder / "logits.npy", np.asarray(truth["language_model.lm_head"]).astype("<f4"))
    save(folder / "input_ids.npy", given.input_ids.astype("<i8"))
    save(folder / "position_ids.npy", given.position_ids.astype("<i8"))
    if given.pixel_values is not None:
        save(folder / "pixel_values.npy", given.pixel_values.astype("<f4"))
    about = {"name": given.name, "why": given.about.get("why") or f"The inputs of {given.name}.", "catches": given.about.get("catches", [])}
    about |= {"image_sizes": given.image_sizes, "images": given.about.get("images") or ["unknown"] * len(given.image_sizes)}
    (folder / "case.json").write_text(lines(about, "nodes", entries))
    return nodes


def floors(folder: Path, classes: list[list[sample.Floor]]) -> None:
    """classes: one list over the nodes for each of CLASSES."""
    table = [[(f.whole, f.worst_row, f.massive) for f in floors] for floors in classes]
    save(folder / "floors.npy", np.array(table, dtype="<f4").transpose(1, 0, 2))  # [nodes, classes, 3]


def manifest(folder: Path, **about) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, **about, "files": files}, indent=1) + "\n")


def lines(head: dict, key: str, items: list) -> str:
    """JSON with one line an item: a thousand nodes stay readable, and a change shows as a line."""
    text = json.dumps(head, indent=1)[:-2]
    rows = ",\n".join("  " + json.dumps(item, separators=(",", ":")) for item in items)
    return f'{text},\n "{key}": [\n{rows}\n ]\n}}\n'


def save(path: Path, values: np.ndarray) -> None:
    with open(path, "wb") as f:
        np.lib.format.write_array(f, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
