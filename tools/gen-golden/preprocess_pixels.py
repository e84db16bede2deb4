# /// script
# requires-python = ">=3.11"
# dependencies = ["transformers==5.23.0", "pillow==12.1.1", "numpy==2.4.6"]
# ///
"""What transformers' image processors make of test images: the vectors pixels.tsv, resize.tsv, normal.tsv and whole/.

    uv run tools/gen-golden/preprocess_pixels.py --out golden/vectors/preprocess

is the oracle: transformers 5.23.0 with the backend "pil" and Pillow 12.1.1. It writes the rows of the variant "pillow".
Other environments write the rows of theirs, each replacing its own only:

    uv run --with pillow==12.2.0 tools/gen-golden/preprocess_pixels.py --variant pillow-12.2 --out golden/vectors/preprocess
    uv run --with pillow==13.0.0 tools/gen-golden/preprocess_pixels.py --variant pillow-13 --out golden/vectors/preprocess
    uv run --with torch==2.15.0 --with torchvision==0.29.2 tools/gen-golden/preprocess_pixels.py --variant torchvision --out golden/vectors/preprocess

With --verify instead of --out nothing is written; the rows of the variant are compared. The second witness of "pillow":

    uv run --with transformers==4.57.6 --with pillow==11.3.0 tools/gen-golden/preprocess_pixels.py --verify golden/vectors/preprocess

transformers up to 4.51 loses the odd pixel of padding. older.tsv has some rows of that, to hold the known bug P11b against:

    uv run --with transformers==4.51.3 --with 'numpy<2' tools/gen-golden/preprocess_pixels.py --older --out golden/vectors/preprocess

Every stage of a processor is observed by wrapping the methods that it calls; nothing is reimplemented here.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image

import preprocess_images

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ("pillow", "pillow-12.2", "pillow-13", "torchvision")

# name -> class of the processor, side of a tile, further parameters
MODELS = {
    "llava-1.6": ("LlavaNextImageProcessor", 336, {}),
    "llava-1.5": ("CLIPImageProcessor", 336, {}),
    "llava-1.5-square": ("LlavaImageProcessor", 336, {"do_pad": True}),
    "tiny-1.6": ("LlavaNextImageProcessor", 56, {}),
    "tiny-1.5": ("CLIPImageProcessor", 56, {}),
}

BIG = """
photo-336x336 photo-640x480 photo-480x640 photo-1000x300 photo-300x1000 photo-672x672 photo-500x333 photo-333x500
photo-1344x336 photo-336x1344 photo-1024x899 photo-1920x1080 photo-1080x1920 photo-100x400 photo-672x336 photo-99x88
photo-72x27 photo-27x72 photo-150x50 photo-606x1211 photo-1211x606 photo-224x224 photo-337x337 photo-336x337 photo-2016x672
photo-4000x3000 photo-1200x1600 photo-64x8192 photo-8192x64
checker1-640x480 checker1-99x88 checker1-336x1000 checker1-672x672 checker3-500x333 checker3-30x150 checker3-700x1500
checker8-1000x300 checker8-480x640 checker8-1211x606
gradient-640x480 gradient-57x133 gradient-1200x800 gradient-2x3
noise-336x336 noise-640x480 noise-333x500 noise-37x148 noise-1009x337
binary-640x480 binary-333x500 binary-99x88 binary-1500x1500
dots-640x480 dots-300x1000 dots-200x100
flat-640x480 flat-333x500 flat-7x9
photo-1x1 noise-1x2 noise-2x1 noise-2x3 noise-1x6000 noise-6000x1 noise-1x336 noise-336x1 noise-3x168 noise-168x3
noise-3x3 noise-1x100 noise-100x1 noise-48x1 noise-1x49 noise-5x800 noise-800x5 noise-6x700 noise-7x701 noise-2x2002
""".split()

SMALL = """
photo-56x56 photo-100x75 photo-75x100 photo-168x50 photo-50x168 photo-112x112 photo-83x56 photo-56x83 photo-224x56
photo-640x480 photo-16x16 photo-12x5 checker1-100x75 checker3-70x110 binary-61x90 noise-37x148 noise-168x3 noise-1x1
noise-1x200 gradient-112x56 gradient-57x133
""".split()

FILES = ["photo-100x75", "photo-40x52", "photo-300x15", "checker-30x150"]  # golden/data/images/*.png

WHOLE = ["tiny-1.6 photo-83x56", "tiny-1.6 checker1-100x75", "tiny-1.6 binary-61x90", "tiny-1.6 noise-1x1", "tiny-1.5 photo-75x100", "tiny-1.5 noise-1x200"]


def cases(variant: str) -> list[tuple[str, str]]:
    """Model and image. Pillow 12.2 is another one for very tall images only, so of the others the small ones are enough."""
    found = [(model, image) for model in MODELS for image in (SMALL if model.startswith("tiny") else BIG)]
    found = [(m, i) for m, i in found if m != "llava-1.5-square" or not any(side >= 2000 for side in sides(i))]
    if variant == "pillow-12.2":
        found = [(m, i) for m, i in found if m.startswith("tiny") or sides(i)[1] > 100 * sides(i)[0]]
    return found + [(model, f"golden/data/images/{name}.png") for model in ("llava-1.6", "llava-1.5", "tiny-1.6") for name in FILES]


def sides(image: str) -> list[int]:
    return [int(s) for s in image.split("-")[1].split("x")]


def load(image: str) -> Image.Image:
    if image.endswith(".png"):
        return Image.open(ROOT / image).convert("RGB")
    return Image.fromarray(preprocess_images.make(image))


def processor(model: str, variant: str):
    name, px, more = MODELS[model]
    backend = "" if variant == "torchvision" else "Pil"
    if transformers.__version__.startswith("4."):
        backend = "Fast" if variant == "torchvision" else ""
    cls = getattr(transformers, name + backend)
    options = {"size": {"shortest_edge": px}, "crop_size": {"height": px, "width": px}} | more
    if name == "LlavaNextImageProcessor":
        options["image_grid_pinpoints"] = [[h * px, w * px] for h, w in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
    return cls(**options)


def as_rgb(array) -> np.ndarray:
    """uint8 [H, W, 3] of what a stage returned."""
    array = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    array = array[0] if array.ndim == 4 else array
    array = array if array.shape[-1] == 3 and array.shape[0] != 3 else np.moveaxis(array, 0, -1)
    if array.dtype != np.uint8:
        raise TypeError(f"{array.dtype}, want uint8")
    return np.ascontiguousarray(array)


def observe(p, names: list[str], seen: list) -> None:
    """Makes each method of those names note what it returns."""

    def wrap(name, method):
        def observed(*args, **kwargs):
            result = method(*args, **kwargs)
            seen.append((name, result))
            return result

        return observed

    for name in names:
        if hasattr(p, name):
            setattr(p, name, wrap(name, getattr(p, name)))


def run(model: str, image: Image.Image, variant: str) -> dict[str, np.ndarray]:
    """resized: the image as it goes onto the canvas, LLaVA-1.5's after the crop; canvas: with its padding."""
    p = processor(model, variant)
    seen: list = []
    observe(p, ["_resize_for_patching", "_pad_for_patching", "center_crop"], seen)
    layout = {"input_data_format": "channels_last"} if transformers.__version__.startswith("4.") else {}  # 4.x takes 3 rows for 3 channels
    out = p(images=image, return_tensors="np" if variant != "torchvision" else "pt", **layout)
    values = out["pixel_values"]
    values = np.ascontiguousarray((values if isinstance(values, np.ndarray) else values.cpu().numpy()), dtype=np.float32)
    stages = dict(reversed([(name, result) for name, result in seen]))  # the first of each name
    if "1.6" in model:
        if [list(map(int, s)) for s in out["image_sizes"]] != [[image.height, image.width]]:
            raise ValueError(f"image_sizes {out['image_sizes']}")
        resized, canvas, values = as_rgb(stages["_resize_for_patching"]), as_rgb(stages["_pad_for_patching"]), values[0]
    else:
        resized = canvas = as_rgb(stages["center_crop"])
    return {"resized": resized, "canvas": canvas, "pixel_values": values}


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def pixels(variant: str, whole: Path | None) -> list[str]:
    lines = []
    for model, image in cases(variant):
        got = run(model, load(image), variant)
        shape = "x".join(map(str, got["pixel_values"].shape))
        lines.append("\t".join((variant, model, image, shape, *(digest(got[k]) for k in ("resized", "canvas", "pixel_values")))))
        if whole and variant == "pillow" and f"{model} {image}" in WHOLE:
            np.save(whole / f"{model}.{image}.npy", got["canvas"])
    return lines


def resizes(variant: str) -> list[str]:
    """Random sizes with both, one or none of the sides changed; strips; sizes at which Pillow's pass order changes."""
    rng = np.random.default_rng(2026)
    sizes = []
    while len(sizes) < 150:
        h, w, nh, nw = (int(v) for v in np.exp(rng.uniform(0, np.log(1200), 4)))
        kind = len(sizes) % 10
        nw = w if kind == 3 else nw
        nh = h if kind == 4 else nh
        if kind == 5:
            w = int(rng.integers(1, 8))
            h = 100 * w + int(rng.integers(-2, 4))  # the border of Pillow 12.2
        if kind in (6, 7):
            nh = max(1, h - int(rng.integers(0, h)))
            nw = max(1, w - (h - nh) // 2 + int(rng.integers(-2, 3)))  # the border of Pillow 13
        if min(h, w, nh, nw) >= 1 and h * w < 400_000 and nh * nw < 400_000:
            sizes.append((h, w, nh, nw))
    lines = []
    for i, (h, w, nh, nw) in enumerate(sizes):
        name = f"{('noise', 'binary', 'checker1', 'photo')[i % 4]}-{w}x{h}"
        array = preprocess_images.make(name)
        if variant == "torchvision":
            import torch
            from torchvision.transforms.v2 import functional as F

            tensor = torch.from_numpy(array).permute(2, 0, 1)
            tensor = tensor if i % 2 else tensor.contiguous()
            got = F.resize(tensor, [nh, nw], interpolation=F.InterpolationMode.BICUBIC, antialias=True).permute(1, 2, 0).numpy()
        else:
            got = np.array(Image.fromarray(array).resize((nw, nh), Image.Resampling.BICUBIC))
        lines.append("\t".join((variant, name, str(nw), str(nh), digest(np.ascontiguousarray(got)))))
    return lines


def normal(variant: str) -> list[str]:
    """Every value of every channel, normalised: a tile that holds all of them, through the processor of LLaVA-1.5."""
    tile = np.zeros((336, 336, 3), np.uint8)
    tile[:16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    values = run("llava-1.5", Image.fromarray(tile), variant)["pixel_values"][0, :, :16, :16].reshape(3, 256)
    rows = values.astype(">f4").view(">u4").astype(np.uint32)
    return ["\t".join((variant, str(v), *(f"{rows[c, v]:08x}" for c in range(3)))) for v in range(256)]


def older() -> list[str]:
    images = ["photo-83x56", "photo-100x75", "photo-75x100", "noise-37x148", "gradient-57x133", "photo-56x56"]
    lines = []
    for image in images:
        got = run("tiny-1.6", load(image), "pillow")
        lines.append("\t".join((f"transformers {transformers.__version__}", "tiny-1.6", image, digest(got["pixel_values"]))))
    return lines


HEADS = {
    "pixels.tsv": "variant\tmodel\timage\tshape\tresized\tcanvas\tpixel_values",
    "resize.tsv": "variant\timage\twidth\theight\tsha256",
    "normal.tsv": "variant\tvalue\tred\tgreen\tblue",
}


def merge(path: Path, variant: str, lines: list[str]) -> None:
    """Replaces the rows of a variant."""
    old = path.read_text().splitlines()[1:] if path.exists() else []
    rows = {v: [line for line in old if line.split("\t")[0] == v] for v in VARIANTS} | {variant: lines}
    path.write_text("\n".join([HEADS[path.name], *(line for v in VARIANTS for line in rows[v])]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, default="pillow")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--verify", type=Path)
    parser.add_argument("--older", action="store_true", help="write older.tsv only")
    args = parser.parse_args()
    if args.older:
        (args.out / "older.tsv").write_text("\n".join(["made_by\tmodel\timage\tpixel_values", *older()]) + "\n")
        return
    whole = args.out / "whole" if args.out and args.variant == "pillow" else None
    if whole:
        whole.mkdir(exist_ok=True)
    made = {"pixels.tsv": pixels(args.variant, whole), "resize.tsv": resizes(args.variant), "normal.tsv": normal(args.variant)}
    versions = f"transformers {transformers.__version__}, Pillow {PIL.__version__}, numpy {np.__version__}"
    for name, lines in made.items():
        if args.out:
            merge(args.out / name, args.variant, lines)
            print(f"{versions}: {name}: {len(lines)} rows of {args.variant}")
        if args.verify:
            want = [line for line in (args.verify / name).read_text().splitlines() if line.split("\t")[0] == args.variant]
            wrong = [(a, b) for a, b in zip(lines, want, strict=True) if a != b]
            print(f"{versions}: {name}: {len(want)} rows of {args.variant}, {len(wrong)} different")
            for a, b in wrong[:10]:
                print(f"  {a}\n  {b}")


if __name__ == "__main__":
    main()
