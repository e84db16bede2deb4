"""A witness's complete values of one case: values.bin, one node after another, and index.json.

float64 runs are dumped in float64; the lower classes in float32, which holds them exactly.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from nodes import Node


class Writer:
    """Takes every node once, in any order, and refuses an unknown one, a second one and a wrong number of values."""

    def __init__(self, folder: Path, nodes: list[Node], dtype: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._dtype = folder, np.dtype(dtype)
        self._want = {node.name: node.shape for node in nodes}
        self._index: dict[str, int] = {}
        self._file = open(folder / "values.bin", "wb")

    def put(self, name: str, values: np.ndarray) -> None:
        if name not in self._want:
            raise KeyError(f"{self._folder}: {name} is not a node of this model")
        if name in self._index:
            raise KeyError(f"{self._folder}: {name} was computed twice")
        if values.size != math.prod(self._want[name]):
            raise ValueError(f"{self._folder}: {name}: shape {values.shape}, want {self._want[name]}")
        self._index[name] = self._file.tell()
        np.ascontiguousarray(values, dtype=self._dtype).tofile(self._file)

    def close(self, absent: tuple[str, ...] = ()) -> None:
        """absent: endings of nodes that this witness does not compute."""
        self._file.close()
        missing = [n for n in self._want if n not in self._index and not n.endswith(absent or "\0")]
        if missing:
            raise KeyError(f"{self._folder}: {len(missing)} nodes were not computed: {missing[:3]}")
        nodes = {n: {"offset": at, "shape": self._want[n]} for n, at in self._index.items()}
        (self._folder / "index.json").write_text(json.dumps({"dtype": self._dtype.str, "nodes": nodes}))


class Reader:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text())
        self._dtype, self._nodes = np.dtype(index["dtype"]), index["nodes"]

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def __getitem__(self, name: str) -> np.ndarray:
        node = self._nodes[name]
        return np.memmap(self.folder / "values.bin", self._dtype, "r", node["offset"], tuple(node["shape"]))
