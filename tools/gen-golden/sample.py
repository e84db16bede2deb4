"""Which entries of a node a golden set keeps, and how an error is measured. docs/golden-format.md is the contract."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nodes import Node
from synthetic import fnv1a64

MASSIVE = 6  # a column is massive if its rms is more than this many times the median column's
SMALL_ROW = 64  # a row smaller than the whole's rms over this is judged as if it had that size
FEW = 8  # a row of fewer entries does not show its own noise


@dataclass(frozen=True)
class Kept:
    rows: np.ndarray  # [r], indices into the R rows
    columns: np.ndarray  # [r, e], indices into the C columns
    exists: np.ndarray  # [r, e], false above the diagonal of a causal node that is kept whole


def dimensions(node: Node) -> tuple[int, int]:
    return math.prod(node.shape[:-1]), node.shape[-1]


def kept(node: Node, budget: int) -> Kept:
    r, c = dimensions(node)
    if budget == 0 or r * c <= budget:
        return everything(node)
    if r >= budget:
        rows, each = np.arange(budget) * r // budget, 1
    else:
        rows, each = np.arange(r), budget // r
    j = np.arange(len(rows) * each).reshape(len(rows), each)
    columns = (j * stride(c) + fnv1a64(node.name) % c) % visible(node, rows)[:, None]
    return Kept(rows, columns, np.ones(columns.shape, dtype=bool))


def everything(node: Node) -> Kept:
    r, c = dimensions(node)
    rows = np.arange(r)
    return Kept(rows, np.broadcast_to(np.arange(c), (r, c)), np.arange(c) < visible(node, rows)[:, None])


def stride(c: int) -> int:
    """About the golden ratio of the columns, and without a common divisor with them, so that all columns are reached."""
    step = (618 * c + 999) // 1000
    while math.gcd(step, c) != 1:
        step += 1
    return step


def visible(node: Node, rows: np.ndarray) -> np.ndarray:
    """How many columns of each row exist."""
    t = node.shape[-1]
    return 1 + rows % t if node.causal else np.full(len(rows), t)


def entries(values: np.ndarray, node: Node, keep: Kept) -> np.ndarray:
    r, c = dimensions(node)
    return np.asarray(values.reshape(r, c)[keep.rows[:, None], keep.columns])


def row_rms(values: np.ndarray, node: Node, keep: Kept) -> np.ndarray:
    """The rms of each kept row over all the columns that it has, kept or not."""
    r, c = dimensions(node)
    there = np.arange(c) < visible(node, keep.rows)[:, None]
    squares = np.where(there, values.reshape(r, c)[keep.rows], 0.0) ** 2
    return np.sqrt(squares.sum(axis=1) / there.sum(axis=1))


def massive_columns(values: np.ndarray, node: Node) -> list[int]:
    if not node.channels:
        return []
    r, c = dimensions(node)
    rms = np.sqrt((values.reshape(r, c) ** 2).mean(axis=0))
    return np.flatnonzero(rms > MASSIVE * np.median(rms)).tolist()


def allowance(n: np.ndarray | int) -> np.ndarray:
    """What the rms of n normal draws of variance 1 exceeds once in a million (Wilson and Hilferty's approximation).

    Noise that is seen through n entries only can look this much larger than it is.
    """
    v = 2 / (9 * np.asarray(n, dtype=np.float64))
    return (1 - v + 4.75 * np.sqrt(v)) ** 1.5


@dataclass(frozen=True)
class Floor:
    """The three numbers that floors.npy holds a node and class."""

    whole: float = 0.0
    worst_row: float = 0.0
    massive: float = 0.0

    def __or__(self, other: "Floor") -> "Floor":
        return Floor(max(self.whole, other.whole), max(self.worst_row, other.worst_row), max(self.massive, other.massive))


class Measure:
    """Errors of one node, in units of the truth: an engine's through the kept entries, a noise floor through all."""

    def __init__(self, truth: np.ndarray, node: Node, budget: int):
        self.node, self.keep, self.all = node, kept(node, budget), everything(node)
        self.massive = massive_columns(truth, node)
        self.truth = truth.astype(np.float32)  # all that a reader has
        self.rows = row_rms(truth, node, self.all).astype(np.float32).astype(np.float64)

    def _split(self, keep: Kept) -> tuple[np.ndarray, np.ndarray]:
        """Masks [r, e] of the entries outside the massive columns, and in them."""
        loud = np.isin(keep.columns, self.massive) & keep.exists
        return keep.exists & ~loud, loud

    def _squares(self, values: np.ndarray, keep: Kept) -> np.ndarray:
        return np.where(keep.exists, entries(values, self.node, keep).astype(np.float64), 0.0) ** 2

    def _errors(self, have: np.ndarray, keep: Kept) -> np.ndarray:
        a, b = (entries(x, self.node, keep).astype(np.float64) for x in (have, self.truth))
        return np.subtract(a, b, out=np.zeros_like(a), where=keep.exists) ** 2

    def _scales(self) -> tuple[float, float, float]:
        """rms of the kept entries: outside the massive columns, in them, of all."""
        squares = self._squares(self.truth, self.keep)
        return tuple(root_mean(squares, mask) for mask in (*self._split(self.keep), self.keep.exists))

    def error(self, have: np.ndarray) -> Floor:
        """An engine's, as docs/golden-format.md defines it: over the kept entries alone."""
        quiet, loud = self._split(self.keep)
        squares, (rms, massive_rms, whole) = self._errors(have, self.keep), self._scales()
        counts = quiet.sum(axis=1)
        rows = np.sqrt(np.where(quiet, squares, 0.0).sum(axis=1) / np.maximum(counts, 1))
        size = np.maximum(self.rows[self.keep.rows], whole / SMALL_ROW)
        return Floor(over(root_mean(squares, quiet), rms), over(rows, size), over(root_mean(squares, loud), massive_rms))

    def floor(self, have: np.ndarray) -> Floor:
        """The noise of an unmodified run: measured over all entries, and allowed for being seen through the kept ones."""
        quiet, loud = self._split(self.all)
        squares, (rms, massive_rms, whole) = self._errors(have, self.all), self._scales()
        noise = root_mean(squares, quiet)

        counts = quiet.sum(axis=1)
        rows = np.sqrt(np.where(quiet, squares, 0.0).sum(axis=1) / np.maximum(counts, 1))
        rows = np.where(counts < FEW, np.maximum(rows, noise), rows)  # a few entries can all be right by luck
        seen = np.minimum(counts, self.keep.columns.shape[1])
        size = np.maximum(self.rows, whole / SMALL_ROW)
        n, m = (int(mask.sum()) for mask in self._split(self.keep))
        return Floor(
            over(noise, rms) * float(allowance(n)) if n else 0.0,
            over(rows * allowance(np.maximum(seen, 1)), size),
            over(root_mean(squares, loud), massive_rms) * float(allowance(m)) if m else 0.0,
        )


def root_mean(squares: np.ndarray, mask: np.ndarray) -> float:
    return float(np.sqrt(squares[mask].mean())) if mask.any() else 0.0


def over(error: np.ndarray | float, size: np.ndarray | float) -> float:
    """The largest quotient; no error in a tensor of zeros is no error."""
    error, size = np.atleast_1d(error), np.atleast_1d(size)
    return float(np.divide(error, size, out=np.zeros_like(error), where=size > 0).max())
