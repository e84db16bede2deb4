# /// script
# requires-python = ">=3.11"
# dependencies = ["transformers==5.23.0", "torch==2.15.0", "pillow==12.1.1", "numpy==2.4.6"]
# ///
"""What transformers' own functions make of image sizes: the vectors geometry.tsv and sizes.tsv.

    uv run tools/gen-golden/preprocess_geometry.py --out golden/vectors/preprocess

geometry.tsv has a SHA-256 for each 50 widths and all heights 1 to 2000, 4 000 000 sizes in all; sizes.tsv has the sizes at
which implementations go wrong, in numbers. Both are also held against an implementation in exact rational arithmetic where
one is possible; the differences are counted and printed.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (the model's module needs it; nothing here is a tensor)
import transformers
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

LIMIT = 2000  # px
BLOCK = 50  # widths
COLUMNS = "canvas_h canvas_w resized_h resized_w pad_top pad_bottom pad_left pad_right tiles cell_top cell_left unpad_h unpad_w tokens".split()
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # of the canvases, in tiles
MODELS = {"llava-1.6": (336, 14, GRIDS), "llava-1.6-reversed": (336, 14, GRIDS[::-1]), "tiny-1.6": (56, 14, GRIDS)}  # side of a tile, of a patch, canvases


class Shape:
    """As much of an array as get_image_size looks at."""

    def __init__(self, height: int, width: int):
        self.shape = (3, height, width)


class Model:
    def __init__(self, name: str):
        self.px, patch, grids = MODELS[name]
        self.side = self.px // patch
        self.pinpoints = [[h * self.px, w * self.px] for h, w in grids]
        self.images = LlavaNextImageProcessorPil(image_grid_pinpoints=self.pinpoints, size={"shortest_edge": self.px}, crop_size={"height": self.px, "width": self.px})
        self.processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
        self.processor.image_processor, self.processor.patch_size = self.images, patch
        self.processor.num_additional_image_tokens, self.processor.vision_feature_select_strategy = 1, "default"
        self.grids = {}  # canvas -> cells that hold their own position

    def cells(self, canvas: tuple[int, int]) -> np.ndarray:
        if canvas not in self.grids:
            height, width = canvas[0] // self.px * self.side, canvas[1] // self.px * self.side
            self.grids[canvas] = np.arange(height * width).reshape(1, height, width)
        return self.grids[canvas]

    def row(self, width: int, height: int) -> tuple[int, ...]:
        canvas = select_best_resolution((height, width), self.pinpoints)
        resized = get_patch_output_size(Shape(height, width), canvas, ChannelDimension.FIRST)
        (top, bottom), (left, right) = self.images._get_padding_size(resized, canvas)
        cells = self.cells(canvas)
        kept = unpad_image(cells, (height, width))
        first = divmod(int(kept[0, 0, 0]), cells.shape[2]) if kept.size else cut(cells.shape[1:], kept.shape[1:])
        tokens = self.processor._get_number_of_features(height, width, self.px, self.px) - 1
        tiles = 1 + canvas[0] * canvas[1] // self.px**2
        return (*canvas, *resized, top, bottom, left, right, tiles, *first, *kept.shape[1:], tokens)


def cut(cells: tuple[int, int], kept: tuple[int, int]) -> tuple[int, int]:
    """Where the kept part would begin, if nothing is left of it."""
    return (cells[0] - kept[0]) // 2, (cells[1] - kept[1]) // 2


def crop_row(width: int, height: int) -> tuple[int, ...]:
    """LLaVA-1.5: the resized size and the corner of the crop."""
    resized = get_resize_output_image_size(Shape(height, width), 336, default_to_square=False, input_data_format=ChannelDimension.FIRST)
    return (*resized, (resized[0] - 336) // 2, (resized[1] - 336) // 2)


def exact(model: Model, width: int, height: int, row: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether size and count are the same in rational arithmetic, without any rounding."""
    ch, cw = row[:2]
    sw, sh = Fraction(cw, width), Fraction(ch, height)
    size = (min(math.ceil(height * sw), ch), cw) if sw < sh else (ch, min(math.ceil(width * sh), cw))
    gh, gw = ch // model.px * model.side, cw // model.px * model.side
    if width * gh > gw * height:
        gh -= (gh - height * gw // width) // 2 * 2
    else:
        gw -= (gw - width * gh // height) // 2 * 2
    return size == row[2:4], (gh, gw) == row[11:13]


def block(first: int) -> tuple[int, str, str, int, int]:
    model = Model("llava-1.6")
    tiles, crops = hashlib.sha256(), hashlib.sha256()
    size_differs = count_differs = 0
    for width in range(first, first + BLOCK):
        rows = [model.row(width, height) for height in range(1, LIMIT + 1)]
        tiles.update(np.array(rows, dtype="<u2").tobytes())
        crops.update(np.array([crop_row(width, height) for height in range(1, LIMIT + 1)], dtype="<u4").tobytes())
        for height, row in enumerate(rows, 1):
            same_size, same_count = exact(model, width, height, row)
            size_differs += not same_size
            count_differs += not same_count
    return first, tiles.hexdigest(), crops.hexdigest(), size_differs, count_differs


# width, height: why
SIZES = """
336 336  the smallest that fills a tile; the count of 1175 or 1176
640 480  a landscape photograph
480 640  a portrait: (height, width) swapped gives 2340
1000 300  odd padding, 21 of 24 rows of cells, of which 22 are kept
300 1000  the same upright
672 672  the most tokens that there can be
500 333  rounded up to 505, not 504; odd padding
333 500  the same upright
1344 336  wider than the widest canvas
336 1344  taller than the tallest canvas
1024 899  the example in transformers' documentation
1920 1080  a large photograph, scaled down
1080 1920  the same upright
100 400  upscaled, 2x1 tiles
672 336  fills its canvas
99 88  99 * (24 / 88) = 26.999999999999996, rounded to 27 before it is truncated
198 176  the same, doubled
748 352  the same on another canvas
352 836  the same upright
423 752  the same on 2x2 tiles
55 88  the same on a small image
205 984  the same on a narrow one
606 1211  another canvas in float32
95 152  24 columns of cells in float64, 14 in float32
656 369  float32 keeps another number of rows
296 777  float32 keeps another number of columns
121 968  float32 keeps another number of columns
304 342  float32 keeps another number of columns
304 798  float32 keeps another number of columns
72 27  253 high, where exact arithmetic gives 252
27 72  the same upright, and another number in float32
150 50  225 high, where exact arithmetic gives 224
100 100  upscaled: the smaller of the areas is the image's own
224 224  waste decides between canvases of the same effect
335 335  just below a tile
337 337  just above a tile
336 337  one pixel over
337 336  one pixel over
1 1  the smallest image
1 2  two pixels
2 1  two pixels
2 3  six pixels
1000 1  a strip of which no cell is kept: 576 tokens
1 1000  a strip of which no column is kept: 576 and 72 newlines
6000 1  a strip of which nothing is effective on any canvas
1 6000  the same upright
3 168  a strip of a few columns
168 3  a strip of a few rows
1 336  a strip as tall as a tile
336 1  a strip as wide as a tile
48 1  the thinnest strip with a row of cells
49 1  and a thinner one
1 48  the thinnest strip with a column of cells
1 49  and a thinner one
1008 336  fills the widest canvas
336 1008  fills the tallest canvas
1009 337  one pixel more than the widest canvas
673 337  one pixel more than a canvas
2016 672  twice the widest canvas
4000 3000  a camera's photograph
3000 4000  the same upright
8192 64  a panorama
64 8192  the same upright
13377 13377  the largest square that Pillow opens
178956970 1  the longest strip that Pillow opens
1 178956970  the same upright
""".strip().splitlines()


def table() -> list[str]:
    lines = ["model\twidth\theight\t" + "\t".join(COLUMNS) + "\twhy"]
    for name in MODELS:
        model = Model(name)
        for line in SIZES:
            size, why = line.split("  ", 1)
            width, height = map(int, size.split())
            lines.append("\t".join(map(str, (name, width, height, *model.row(width, height), why))))
    for line in SIZES:
        width, height = map(int, line.split("  ", 1)[0].split())
        h, w, top, left = crop_row(width, height)
        row = (336, 336, h, w, -top, 336 - h + top, -left, 336 - w + left, 1, 0, 0, 24, 24, 576)
        lines.append("\t".join(map(str, ("llava-1.5", width, height, *row, line.split("  ", 1)[1]))))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes-only", action="store_true", help="write sizes.tsv only")
    args = parser.parse_args()
    (args.out / "sizes.tsv").write_text("\n".join(table()) + "\n")
    if args.sizes_only:
        return
    lines, size_differs, count_differs = ["first_width\tlast_width\tllava-1.6\tllava-1.5"], 0, 0
    with ProcessPoolExecutor(args.workers) as pool:
        for first, tiles, crops, size, count in pool.map(block, range(1, LIMIT + 1, BLOCK)):
            lines.append(f"{first}\t{first + BLOCK - 1}\t{tiles}\t{crops}")
            size_differs, count_differs = size_differs + size, count_differs + count
            print(lines[-1], flush=True)
    (args.out / "geometry.tsv").write_text("\n".join(lines) + "\n")
    print(f"transformers {transformers.__version__}: {LIMIT * LIMIT} sizes; in exact arithmetic {size_differs} have another size, {count_differs} another number of cells")


if __name__ == "__main__":
    main()
