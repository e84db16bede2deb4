"""The pictures of the golden cases: crops of a public-domain photograph, and patterns that have no mercy on a resampler.

Run once; the PNGs are committed, because a PNG's bytes depend on the zlib that wrote them. The photograph is
skimage/data/astronaut.png of the scikit-image 0.26.0 wheel (NASA, public domain).
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

import synthetic

PHOTOGRAPH_SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"

# name -> box (left, top, right, bottom) in the photograph, and the size (width, height) that it is scaled to
CROPS = {
    "photo-40x52": ((130, 20, 330, 280), (40, 52)),
    "photo-100x75": ((56, 0, 456, 300), (100, 75)),
    "photo-188x47": ((0, 60, 512, 188), (188, 47)),
    "photo-100x25": ((0, 330, 512, 458), (100, 25)),
    "photo-90x61": ((100, 20, 400, 223), (90, 61)),
    "photo-300x15": ((0, 100, 500, 125), (300, 15)),
}


def gradient(width: int, height: int) -> np.ndarray:
    """Red runs right, green runs down, blue runs up the diagonal: every transposition and flip changes it."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 255 // (width - 1), y * 255 // (height - 1), (x + height - 1 - y) * 255 // (width + height - 2)), axis=-1)


def checkerboard(width: int, height: int) -> np.ndarray:
    """Cells of 3 px, black and white with one saturated colour in each third cell: overshoot at every edge."""
    y, x = np.mgrid[0:height, 0:width] // 3
    white = ((x + y) % 2 * 255)[..., None].repeat(3, axis=-1)
    white[..., 1] = np.where((x + 2 * y) % 3 == 0, 255 - white[..., 1], white[..., 1])
    return white


def noise(width: int, height: int) -> np.ndarray:
    words = synthetic.uniform16(synthetic.fnv1a64(f"noise-{width}x{height}"), width * height * 3)
    return (words >> 8).reshape(height, width, 3)


PATTERNS = {
    "gradient-112x56": gradient(112, 56),
    "checker-70x110": checkerboard(70, 110),
    "noise-37x148": noise(37, 148),
    "checker-30x150": checkerboard(30, 150),
    "noise-168x3": noise(168, 3),
    "gradient-57x133": gradient(57, 133),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photograph", type=Path, required=True, help="astronaut.png")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if hashlib.sha256(args.photograph.read_bytes()).hexdigest() != PHOTOGRAPH_SHA256:
        raise SystemExit(f"{args.photograph}: not the photograph of scikit-image 0.26.0")

    args.out.mkdir(parents=True, exist_ok=True)
    photograph = Image.open(args.photograph).convert("RGB")
    for name, (box, size) in CROPS.items():
        photograph.resize(size, Image.Resampling.LANCZOS, box=box).save(args.out / f"{name}.png", optimize=True)
    for name, pixels in PATTERNS.items():
        Image.fromarray(pixels.astype(np.uint8)).save(args.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
