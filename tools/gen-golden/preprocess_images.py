# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6"]
# ///
"""Test images that every language can make: each pixel is a function of the image's name and of its position alone.

docs/preprocessing.md is the definition; ref/preprocess/pattern is the other implementation. A name is KIND-WIDTHxHEIGHT.

    uv run tools/gen-golden/preprocess_images.py photo-640x480 checker3-99x88     prints the SHA-256 of the pixels
"""

from __future__ import annotations

import hashlib
import re
import sys

import numpy as np

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
OCTAVES = ((64, 16), (32, 8), (16, 4), (8, 2), (4, 1))  # size of a cell, weight


def fnv1a64(text: str) -> np.uint64:
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return np.uint64(h)


def mix(key: np.uint64, j: np.ndarray) -> np.ndarray:
    """Output number j of splitmix64 started at key."""
    with np.errstate(over="ignore"):
        z = key + (j.astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def gradient(y, x, height, width):
    red = x * 255 // max(width - 1, 1) + 0 * y
    green = y * 255 // max(height - 1, 1) + 0 * x
    blue = (x + height - 1 - y) * 255 // max(width + height - 2, 1)
    return np.stack((red, green, blue), axis=-1)


def checker(y, x, n):
    cy, cx = y // n, x // n
    white = (cx + cy) % 2
    green = np.where((cx + 2 * cy) % 3 == 0, 1 - white, white)
    return 255 * np.stack((white, green, white), axis=-1)


def dots(y, x):
    lit = (y % 5 == 2) & (x % 7 == 3)
    return np.stack([np.where(lit & ((y // 5 + x // 7) % 3 == c), 255, 0) for c in range(3)], axis=-1)


def noise(key, height, width):
    count = height * width * 3
    words = mix(key, np.arange((count + 3) // 4)).astype("<u8").view("<u2")[:count]
    return (words >> 8).reshape(height, width, 3)


def lattice(key, octave, cell, height, width):
    """64 times the bilinear interpolation of random bytes at the corners of the cells."""
    gy, gx = np.arange(height // cell + 2, dtype=np.uint64), np.arange(width // cell + 2, dtype=np.uint64)
    planes = []
    for c in range(3):
        j = np.uint64((octave * 3 + c) << 40) + (gy[:, None] << np.uint64(20)) + gx[None, :]
        corner = (mix(key, j) >> np.uint64(56)).astype(np.int64)
        y, x = np.arange(height), np.arange(width)
        iy, fy = y // cell, (y % cell)[:, None]
        ix, fx = x // cell, (x % cell)[None, :]
        columns = corner[iy] * (cell - fy) + corner[iy + 1] * fy
        planes.append((columns[:, ix] * (cell - fx) + columns[:, ix + 1] * fx) * 64 // (cell * cell))
    return np.stack(planes, axis=-1)


def photo(key, height, width):
    sums, coarse = 0, None
    for octave, (cell, weight) in enumerate(OCTAVES):
        values = lattice(key, octave, cell, height, width)
        coarse = values[..., :1] if octave == 0 else coarse
        sums = sums + weight * values
    v = np.clip(2 * sums // (31 * 64) - 128, 0, 255)
    return np.where(coarse > 150 * 64, 255 - v // 2, v)


def make(name: str) -> np.ndarray:
    """The image of a name: uint8 [H, W, 3]."""
    found = re.fullmatch(r"([a-z0-9]+)-([1-9][0-9]*)x([1-9][0-9]*)", name)
    if not found:
        raise ValueError(f"{name}: want KIND-WIDTHxHEIGHT")
    kind, width, height = found[1], int(found[2]), int(found[3])
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    key = fnv1a64(name)
    values = {
        "photo": lambda: photo(key, height, width),
        "noise": lambda: noise(key, height, width),
        "binary": lambda: (noise(key, height, width) >> 7) * 255,
        "gradient": lambda: gradient(y, x, height, width),
        "checker1": lambda: checker(y, x, 1),
        "checker3": lambda: checker(y, x, 3),
        "checker8": lambda: checker(y, x, 8),
        "dots": lambda: dots(y, x),
        "flat": lambda: np.broadcast_to((200, 30, 123), (height, width, 3)),
    }[kind]()
    return np.ascontiguousarray(values.astype(np.uint8))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(hashlib.sha256(make(name).tobytes()).hexdigest(), name)
