"""Safetensors in and out, without torch: what the numpy witness reads and what the synthetic models are written to.

Reads one file or a sharded set, in float32, float16, bfloat16 or float64, under any of transformers' naming schemes.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

import config as configs
import synthetic

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Checkpoint:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.config = configs.read(self.folder)
        self._where: dict[str, tuple[Path, str, tuple[int, ...], int]] = {}
        for file in self._files():
            with open(file, "rb") as f:
                (length,) = struct.unpack("<Q", f.read(8))
                header = json.loads(f.read(length))
            for name, entry in header.items():
                if name == "__metadata__" or name.endswith((".inv_freq", ".position_ids")):
                    continue  # buffers of old files, recomputed by every reader
                key = configs.on_disk(name)
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

    def __getitem__(self, name: str) -> np.ndarray:
        """The tensor in the width it has on disk, bfloat16 widened to float32."""
        file, dtype, shape, offset = self._where[name]
        raw = np.memmap(file, DTYPES[dtype], "r", offset, (math.prod(shape),)).reshape(shape)
        if dtype == "BF16":  # bfloat16 is the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw

    def digest(self) -> str:
        digest = synthetic.Digest()
        for name, _ in configs.parameters(self.config):
            digest.add(name, self[name].astype(np.float32))
        return digest.hex()


def write_synthetic(model: str, seed: int, folder: Path) -> None:
    """A float32 checkpoint of a model in shapes/models, as transformers would have saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(configs.path(model).read_bytes())
    config = configs.read(model)
    header: dict = {"__metadata__": {"format": "pt"}}  # transformers 4 refuses a file that does not say this
    offset = 0
    for name, shape in configs.parameters(config):
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, values in synthetic.tensors(config, seed):
            values.astype("<f4").tofile(f)
