"""Safetensors in and out, without torch: what the numpy witness reads and what the synthetic models are written to.

Reads one file or a sharded set, in float32, float16, bfloat16 or float64, under any of transformers' naming schemes.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Iterable

import numpy as np

import config as configs
import synthetic

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Checkpoint:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.config = configs.read(self.folder)
        self._where: dict[str, tuple[Path, str, tuple[int, ...], int]] = {}
        self._renamed = False
        for file in self._files():
            with open(file, "rb") as f:
                (length,) = struct.unpack("<Q", f.read(8))
                header = json.loads(f.read(length))
            for name, entry in header.items():
                if name == "__metadata__" or name.endswith((".inv_freq", ".position_ids")):
                    continue  # buffers of old files, recomputed by every reader
                key = configs.on_disk(name)
                self._renamed |= key != name
                if key in self._where:
                    raise ValueError(f"{file}: two tensors are called {key}")
                self._where[key] = (file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        self._check()

    def _files(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            return [self.folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        return [self.folder / "model.safetensors"]

    def _check(self) -> None:
        want = dict(configs.parameters(self.config))
        if missing := sorted(set(want) - set(self._where)):
            raise ValueError(f"{self.folder}: {len(missing)} tensors are missing: {missing[:3]}")
        if unexpected := sorted(set(self._where) - set(want)):
            raise ValueError(f"{self.folder}: {len(unexpected)} tensors are unexpected: {unexpected[:3]}")
        for name, shape in want.items():
            if self._where[name][2] != shape:
                raise ValueError(f"{self.folder}: {name}: shape {self._where[name][2]}, want {shape}")

    def _raw(self, name: str) -> np.ndarray:
        file, dtype, shape, offset = self._where[name]
        return np.memmap(file, DTYPES[dtype], "r", offset, (math.prod(shape),)).reshape(shape)

    def __getitem__(self, name: str) -> np.ndarray:
        """The tensor in the width it has on disk, bfloat16 widened to float32."""
        raw = self._raw(name)
        if self._where[name][1] == "BF16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw

    def for_every_witness(self, folder: Path) -> Path:
        """This checkpoint's folder, or a copy of it under the names and keys that both versions of transformers know."""
        raw = json.loads((self.folder / "config.json").read_text())
        if not self._renamed and not configs.needs_spelling_out(raw):
            return self.folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(configs.spelled_out(self.config), indent=1))
        names = [name for name, _ in configs.parameters(self.config)]
        write(folder / "model.safetensors", [(n, *self._where[n][1:3]) for n in names], (self._raw(n) for n in names))
        return folder

    def digest(self) -> str:
        digest = synthetic.Digest()
        for name, _ in configs.parameters(self.config):
            digest.add(name, self[name].astype(np.float32))
        return digest.hex()


def write(path: Path, tensors: list[tuple[str, str, tuple[int, ...]]], values: Iterable[np.ndarray]) -> None:
    """tensors: name, dtype, shape; values: their arrays in the same order."""
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers 4 refuses a file that does not say this
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for array in values:
            array.tofile(f)


def write_synthetic(model: str | Path, seed: int, folder: Path) -> None:
    """A float32 checkpoint of a model in shapes/models, as transformers would have saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(configs.path(model).read_bytes())
    config = configs.read(model)
    tensors = [(name, "F32", shape) for name, shape in configs.parameters(config)]
    write(folder / "model.safetensors", tensors, (values.astype("<f4") for _, values in synthetic.tensors(config, seed)))
