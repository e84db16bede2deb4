"""Asserts that the inventory of config.parameters is transformers' own, for the real models and the small ones.

Builds every model of shapes/models on the meta device, where parameters have names and shapes but no memory, and
compares named_parameters() with it in order; and the inventory with the printed listing of the real model, and with
`llavaref params` where Go is at hand.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import torch
import transformers

import config as configs
from witness_torch import CLASSES

ROOT = Path(__file__).resolve().parents[2]
TOTALS = {"llava-1.6-llama3-8b": (687, 8_355_276_800), "llava-1.5-7b": (686, 7_063_427_072)}

Parameters = list[tuple[str, tuple[int, ...]]]


def of_transformers(model: str) -> Parameters:
    path = configs.path(model)
    model_class = getattr(transformers, CLASSES[configs.read(model).model_type])
    with torch.device("meta"):
        built = model_class(model_class.config_class.from_dict(json.loads(path.read_text())))
    return [(configs.on_disk(name), tuple(p.shape)) for name, p in built.named_parameters()]


def of_listing(path: Path) -> Parameters:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [(name, tuple(json.loads(shape))) for name, shape in rows]


def of_go(model: str) -> Parameters | None:
    """None, with the reason printed, where the command cannot be run."""
    command = ["go", "run", "./cmd/llavaref", "params", "--config", str(configs.path(model)), "--format", "tsv"]
    if not shutil.which("go"):
        print("  inventory: not compared with `llavaref params`: no Go on PATH")
        return None
    if not list((ROOT / "cmd" / "llavaref").glob("*.go")):
        print("  inventory: not compared with `llavaref params`: this checkout does not have the command")
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(name, tuple(json.loads(shape.replace(" ", "").replace("][", ",")))) for name, shape in rows]


def must_be(have: Parameters | None, want: Parameters, what: str) -> None:
    if have is None or have == want:
        return
    differ = next((pair for pair in zip(have, want) if pair[0] != pair[1]), None)
    raise SystemExit(f"{what}: {len(have)} parameters, want {len(want)}; first difference {differ}")


def main() -> None:
    for path in sorted((ROOT / "shapes" / "models").glob("*.json")):
        model = path.stem
        want = configs.parameters(configs.read(model))
        must_be(of_transformers(model), want, f"{model}: transformers {transformers.__version__}")
        must_be(of_go(model), want, f"{model}: llavaref params")
        if model in TOTALS:
            have = len(want), sum(torch.Size(shape).numel() for _, shape in want)
            if have != TOTALS[model]:
                raise SystemExit(f"{model}: {have} tensors and parameters, want {TOTALS[model]}")
    listing = of_listing(ROOT / "shapes" / "testdata" / "llava-1.6-llama3-8b.tsv")
    want = configs.parameters(configs.read("llava-1.6-llama3-8b"))
    # the listing was printed from the modules, and image_newline is a parameter of no module
    must_be([("image_newline", (4096,)), *listing], want, "shapes/testdata/llava-1.6-llama3-8b.tsv")
    print(f"  inventory: transformers {transformers.__version__} agrees on {len(TOTALS)} real and 3 small models")


if __name__ == "__main__":
    main()
