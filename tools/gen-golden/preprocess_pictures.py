# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow==12.1.1", "numpy==2.4.6"]
# ///
"""How far the variants of the resize are from each other: the table and the pictures of docs/preprocessing.md.

    go build -o /tmp/llavaref ./cmd/llavaref
    uv run tools/gen-golden/preprocess_pictures.py --llavaref /tmp/llavaref --out docs/preprocessing

Everything comes from the folders that `llavaref preprocess --variant` writes.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
IMAGES = """
pattern:photo-640x480 pattern:photo-480x640 pattern:photo-1920x1080 pattern:photo-1080x1920 pattern:checker3-500x333
pattern:checker3-333x500 pattern:binary-640x480 pattern:binary-480x640 pattern:noise-606x1211 pattern:noise-6x700
golden/data/images/photo-40x52.png golden/data/images/photo-90x61.png
""".split()
VARIANTS = ("pillow-12.2", "pillow-13", "torchvision")

# name, image, stage, variant, corner (row, column) of the part that is shown, its side, gain of the difference
PICTURES = (
    ("pillow-13-photo", "pattern:photo-480x640", "whole", "pillow-13", (150, 20), 48, 32),
    ("pillow-13-checker", "pattern:checker3-333x500", "whole", "pillow-13", (150, 20), 48, 8),
    ("torchvision-photo", "pattern:photo-640x480", "whole", "torchvision", (150, 20), 48, 96),
    ("torchvision-checker", "pattern:checker3-500x333", "whole", "torchvision", (150, 20), 48, 96),
)
ZOOM = 4


class Runner:
    def __init__(self, program: str, folder: Path):
        self.program, self.folder, self.done = program, folder, {}

    def stages(self, image: str, variant: str) -> dict[str, np.ndarray]:
        if (image, variant) not in self.done:
            out = self.folder / f"{len(self.done)}"
            subprocess.run([self.program, "preprocess", "--image", image, "--variant", variant, "--out", str(out)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            pixels = {name: np.array(Image.open(out / f"{name}.png").convert("RGB")).astype(int) for name in ("whole", "resized")}
            self.done[image, variant] = pixels | {"values": np.load(out / "pixel_values.npy")}
        return self.done[image, variant]


def table(run: Runner) -> list[str]:
    lines = ["| image | variant | whole image: bytes that differ, largest | on the canvas: bytes that differ, largest | pixel_values: largest |", "|---|---|---|---|---|"]
    for image in IMAGES:
        want = run.stages(image, "pillow")
        for variant in VARIANTS:
            got = run.stages(image, variant)
            cells = []
            for stage in ("whole", "resized"):
                d = np.abs(got[stage] - want[stage])
                cells.append(f"{100 * np.mean(d > 0):.2f} %, {d.max()}" if d.any() else "–")
            values = np.abs(got["values"].astype(float) - want["values"].astype(float)).max()
            if any(c != "–" for c in cells) or values:
                name = Path(image.split(":")[-1]).stem
                lines.append(f"| {name} | {variant} | {cells[0]} | {cells[1]} | {values:.2g} |")
    return lines


def picture(run: Runner, image: str, stage: str, variant: str, corner: tuple[int, int], side: int, gain: int) -> Image.Image:
    """Pillow up to 12.1.1, the variant, and the difference, grey where there is none."""
    part = tuple(slice(c, c + side) for c in corner)
    want, got = (run.stages(image, v)[stage][part] for v in ("pillow", variant))
    panels = [want, got, np.clip(128 + gain * (got - want), 0, 255)]
    gap = np.full((side, 2, 3), 255)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1).astype(np.uint8)
    return Image.fromarray(row.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llavaref", required=True, help="the program")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Runner(args.llavaref, Path(folder))
        print("\n".join(table(run)))
        for name, *what in PICTURES:
            picture(run, *what).save(args.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
