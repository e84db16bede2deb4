"""Synthetic weights: every value is k * 2^-s, a pure function of (tensor name, index, seed).

No generator state and no library's random numbers, so any language can make the same bytes; and every value is
exact in bfloat16, float16 and float32, so that loading in any of the three adds no error. docs/synthetic-weights.md
is the definition; this file and shapes/checkpoint are its two implementations.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

import config as configs

GOLDEN_RATIO = 0x9E3779B97F4A7C15
MASK = 0xFFFFFFFFFFFFFFFF


def fnv1a64(text: str) -> int:
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def uniform16(key: int, count: int) -> np.ndarray:
    """u(0) ... u(count-1): the 16-bit words, low first, of splitmix64's successive outputs."""
    j = np.arange((count + 3) // 4, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (j + np.uint64(1)) * np.uint64(GOLDEN_RATIO)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z.astype("<u8").view("<u2")[:count]


@dataclass(frozen=True)
class Rule:
    """How one kind of tensor is drawn: offset + k * 2^-s, then the rows residue (mod modulus) times factor."""

    limit: int  # K
    shift: int  # s
    offset: float = 0.0
    residue: int = 0
    modulus: int = 0  # 0: no row is scaled
    factor: float = 1.0


def drawn(half_width: float, residue: int = 0, modulus: int = 0, factor: float = 1.0) -> Rule:
    """s is the smallest with half_width * 2^s >= 128, so that K has 8 bits; K = floor(half_width * 2^s) <= 255."""
    shift = 0
    while half_width * 2.0**shift < 128:
        shift += 1
    return Rule(math.floor(half_width * 2.0**shift), shift, residue=residue, modulus=modulus, factor=factor)


def rule(name: str, shape: tuple[int, ...]) -> Rule:
    fan_in = math.prod(shape[1:])

    def gain(g: float, **rows) -> Rule:
        # uniform in [-a, a] has variance a^2/3, so this keeps the variance of the input times g^2
        return drawn(g * math.sqrt(3 / fan_in), **rows)

    outlier_rows = {"residue": 5, "modulus": 128, "factor": 4.0}
    leaf = name.removeprefix("language_model.").removeprefix("vision_tower.vision_model.")
    module, _, kind = leaf.rpartition(".")
    last = module.rpartition(".")[2]
    vision = name.startswith("vision_tower.")

    if name == "image_newline":
        return drawn(1.0)
    if last in ("embeddings", "position_embedding"):  # class_embedding, position_embedding.weight
        return drawn(0.05)
    if "norm" in last:
        return drawn(0.2) if kind == "bias" else Rule(limit=64, shift=7, offset=1.0)
    if kind == "bias":
        return drawn(0.8) if vision and last in ("q_proj", "k_proj") else drawn(0.1)
    match last:
        case "patch_embedding":
            return gain(0.03)
        case "q_proj" | "k_proj":
            return gain(1.6)
        case "v_proj" | "up_proj" | "linear_2":
            return gain(1.0)
        case "fc1" | "gate_proj":
            return gain(1.5)
        case "out_proj" | "fc2" | "o_proj" | "down_proj":
            return gain(0.2, **outlier_rows)
        case "linear_1":
            return gain(0.5)
        case "embed_tokens":
            return drawn(0.25, residue=3, modulus=8, factor=1 / 16)
        case "lm_head":
            return gain(3.0)
    raise ValueError(f"synthetic: no rule for tensor {name}")


def tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The tensor's values in float32, which holds them exactly."""
    r = rule(name, shape)
    key = fnv1a64(name) ^ ((seed * GOLDEN_RATIO) & MASK)
    u = uniform16(key, math.prod(shape)).astype(np.uint32)
    k = ((u * np.uint32(2 * r.limit + 1)) >> np.uint32(16)).astype(np.int32) - r.limit
    values = (np.float32(r.offset) + k.astype(np.float32) * np.float32(2.0**-r.shift)).reshape(shape)
    if r.modulus:
        values[r.residue :: r.modulus] *= np.float32(r.factor)
    return values


def tensors(config: configs.Config, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, shape in configs.parameters(config):
        yield name, tensor(name, shape, seed)


class Digest:
    """The digest of a whole model that docs/golden-format.md defines: independent of dtype, shards and naming scheme."""

    def __init__(self):
        self._hash = hashlib.sha256()

    def add(self, name: str, values: np.ndarray) -> None:
        self._hash.update(name.encode() + b"\0")
        self._hash.update(np.ascontiguousarray(values, dtype="<f4").data)

    def hex(self) -> str:
        return self._hash.hexdigest()


def checksums(config: configs.Config, seed: int) -> Iterator[tuple[str, str]]:
    """(name, sha256 of the float32 little-endian bytes) a tensor, then ("*", digest of the whole model)."""
    digest = Digest()
    for name, values in tensors(config, seed):
        digest.add(name, values)
        yield name, hashlib.sha256(values.astype("<f4").data).hexdigest()
    yield "*", digest.hex()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a name in shapes/models, or a folder with a config.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checksums", action="store_true", required=True, help="print name<TAB>sha256 lines; the last, *, is the whole model's")
    args = parser.parse_args()
    for name, sha256 in checksums(configs.read(args.model), args.seed):
        sys.stdout.write(f"{name}\t{sha256}\n")


if __name__ == "__main__":
    main()
