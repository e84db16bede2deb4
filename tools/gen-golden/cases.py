"""The cases of the sets that are committed: what each is there for, and its inputs.

Pixels come from transformers' own Pillow processor, run once here and fed to every witness. Needs the environment of
transformers 5.23 (backend "pil") and Pillow 12.1.1: later Pillow versions resample in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import config as configs
import geometry
import inputs
import synthetic

IMAGES = Path(__file__).resolve().parents[2] / "golden" / "data" / "images"
BOS = 1


@dataclass(frozen=True)
class Spec:
    name: str
    why: str
    catches: list[str]
    prompt: list[int | str]  # a number of text tokens, or an image by its file name; a BOS token comes before it all
    gap: tuple[int, int] | None = None  # (row, position): the positions go on at this one from this row on
    small_norms: bool = False  # every second text token has an embedding row that is 16 times smaller


@dataclass(frozen=True)
class Plan:
    sample: int
    cases: list[Spec] = field(default_factory=list)


# Bugs that any prompt shows, and bugs that any image shows: listed where the case has nothing more specific to look for.
ANY_TEXT = ["C01", "C07", "C13", "C14", "C15", "C19", "L01", "L02", "L03", "L04", "L06", "L14", "L15", "L20", "L21", "L23", "L25", "L26", "L29"]
ANY_IMAGE = ["C04", "C05", "C06", "V01", "V03", "V04", "V06", "V07", "V08", "V09", "V10", "V11", "V12", "V13", "V15", "V17", "J01", "J02", "J04"]

PLANS = {
    "tiny-1.6": Plan(256, [
        Spec("checker-2x2-columns", "A 2x2 canvas with padding at the left and right: 8 columns of cells, 5 of them image, 6 kept, since the odd one stays.",
             ["K08", "K10", "K13", "K15", "K16", "K20", "P02"], [5, "checker-70x110", 9]),
        Spec("gradient-1x2-full", "The canvas is filled exactly, so nothing is unpadded and every row of cells gets its newline.",
             ["C09", "K01", "K03", "K05", "K07", "K08"], [6, "gradient-112x56", 11]),
        Spec("noise-3x1", "A column of three tiles; 12 cells to 148 px make float32 lose one column of cells.",
             ["K09", "K12", "K13", "K15", "K20", "P02"], [4, "noise-37x148", 8]),
        Spec("photo-1x2-portrait", "A portrait smaller than one tile: the tie of the first two canvases goes to the landscape one, and cells are cut off left and right.",
             ["P01", "P03", "P04", "K10", *ANY_IMAGE], [6, "photo-40x52", 15]),
        Spec("photo-1x3", "A row of three tiles; 47/188 of 12 cells is 3 only after rounding to seven decimals, and 4 rows are kept of 4.",
             ["K08", "K09", "K11", "K13", "K20", "P02"], [3, "photo-188x47", 9]),
        Spec("photo-2x2-rows", "A photograph on a 2x2 canvas with padding above and below: cells are cut off by rows.",
             ["K08", "K10", "K15", "K16", "P02"], [7, "photo-100x75", 10]),
        Spec("strip-no-rows", "A strip so thin that unpadding keeps no cell at all: the whole view is all that goes into the prompt.",
             ["K10", "K15", "K20"], [12, "noise-168x3", 20]),
        Spec("text-far-positions", "Positions 0 to 31, then 3000 on: float64 angles of the rotary embedding show only there.",
             ["C01", "L06", "L07", "L09", "L10"], [63], gap=(32, 3000)),
        Spec("text-small-norms", "A prompt without an image; every second row is so small that the epsilon of RMSNorm matters.",
             ["C02", *ANY_TEXT, "L11"], [63], small_norms=True),
        Spec("two-images", "Text before, between and after two images of three and four tiles.",
             ["K09", "M02", "M03"], [5, "photo-100x25", 6, "checker-30x150", 7]),
    ]),
    "tiny-1.5": Plan(256, [
        Spec("photo", "One photograph, resized on its short side and cropped in the middle: 16 rows, no newline.",
             ["C04", "C05", "C06", "V08", "V09", "J01"], [6, "photo-90x61", 17]),
        Spec("text", "A prompt without an image: eight key heads for eight query heads, theta 10000.",
             ["C01", "C02"], [47], small_norms=True),
        Spec("two-images", "Text before, between and after two images: their rows are taken in order.",
             ["M02", "M03"], [4, "checker-70x110", 5, "gradient-57x133", 8]),
    ]),
    "wide": Plan(4096, [
        Spec("photo-strip", "The real widths with an image: a thin strip, of which unpadding keeps two rows of 48 cells.",
             ["A01", "J01", "K10", "V12"], [6, "photo-300x15", 15]),
        Spec("text", "The real widths without an image: heads of 128, an MLP of 14336.",
             ["C01", "L06", "L11"], [23], small_norms=True),
    ]),
}


def image_path(name: str) -> Path:
    return IMAGES / f"{name}.png"


def processor(config: configs.Config):
    """transformers' own Pillow processor, with the model's sizes in place of 336."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    px = config.vision.image_size
    sizes = {"size": {"shortest_edge": px}, "crop_size": {"height": px, "width": px}}
    if not config.packs_tiles:
        return CLIPImageProcessorPil(**sizes)
    return LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=[list(p) for p in config.pinpoints])


def pixels(config: configs.Config, names: list[str]) -> tuple[np.ndarray | None, list[tuple[int, int]]]:
    """The tiles of all images in order, and the images' sizes."""
    from PIL import Image

    if not names:
        return None, []
    tiles, sizes = [], []
    for name in names:
        image = Image.open(image_path(name))
        out = processor(config)(image, return_tensors="np")
        tiles.append(out["pixel_values"].reshape(-1, *out["pixel_values"].shape[-3:]))
        sizes.append((image.height, image.width))
        if config.packs_tiles and [tuple(size) for size in out["image_sizes"]] != sizes[-1:]:
            raise ValueError(f"{name}: the processor took {sizes[-1]} (height, width) for {out['image_sizes']}")
    return np.concatenate(tiles).astype(np.float32), sizes


def text_tokens(spec: Spec, model: str, count: int, start: int, config: configs.Config) -> list[int]:
    """Ids below the image token, from the same counter as the weights; start is the number of tokens drawn before."""
    words = synthetic.uniform16(synthetic.fnv1a64(f"{model}/{spec.name}"), start + count)[start:].astype(int)
    ids = 2 + (words * (config.image_token - 2) >> 16)
    if spec.small_norms:  # embed_tokens rows 3 mod 8
        ids[::2] = ids[::2] // 8 * 8 + 3
    return ids.tolist()


def make(model: str, spec: Spec, config: configs.Config) -> inputs.Case:
    names = [part for part in spec.prompt if isinstance(part, str)]
    pixel_values, sizes = pixels(config, names)
    ids, drawn, image = [BOS], 0, 0
    for part in spec.prompt:
        if isinstance(part, str):
            ids += [config.image_token] * geometry.feature_rows(config, sizes[image])
            image += 1
        else:
            ids += text_tokens(spec, model, part, drawn, config)
            drawn += part
    position_ids = np.arange(len(ids))
    if spec.gap:
        row, position = spec.gap
        position_ids[row:] += position - row
    about = {"why": spec.why, "catches": spec.catches, "images": [f"images/{name}.png" for name in names]}
    return inputs.Case(spec.name, pixel_values, sizes, np.array(ids), position_ids, about)


def write(model: str, folder: Path) -> None:
    config = configs.read(model)
    for spec in PLANS[model].cases:
        inputs.write(folder / spec.name, make(model, spec, config))


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, choices=sorted(PLANS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.model, arguments.out)
