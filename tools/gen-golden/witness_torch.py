"""The first two witnesses: transformers' own model, in the environment that this runs in.

With --dtype float64 the internal casts are lifted (capture.lifted) and the values are the truth. In the other dtypes
the model is the unmodified one, and its error against the truth is the class's noise floor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers

import capture
import config as configs
import dump
import inputs
from checkpoint import Checkpoint

CLASSES = {"llava_next": "LlavaNextForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}
V5 = int(transformers.__version__.split(".")[0]) >= 5


def load(folder: Path, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    """from_pretrained with everything that it would only warn of made an error."""
    model_type = configs.read(folder).model_type
    model, report = getattr(transformers, CLASSES[model_type]).from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True, **{"dtype" if V5 else "torch_dtype": dtype}
    )
    if complaints := {key: sorted(map(str, value))[:3] for key, value in report.items() if value}:
        raise ValueError(f"{folder}: transformers {transformers.__version__} did not load every tensor: {complaints}")
    check_values(model, Checkpoint(folder), dtype)
    return model.eval()


def check_values(model: torch.nn.Module, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """The model's parameters are the inventory, in its order, and hold the checkpoint's values."""
    have = [(configs.on_disk(name), tuple(p.shape)) for name, p in model.named_parameters()]
    if have != configs.parameters(checkpoint.config):
        raise ValueError(f"{checkpoint.folder}: the model's parameters are not the inventory")
    for name, parameter in model.named_parameters():
        values = torch.from_numpy(np.array(checkpoint[configs.on_disk(name)])).to(dtype)
        if parameter.dtype != dtype or not torch.equal(parameter.detach(), values):
            raise ValueError(f"{checkpoint.folder}: {name} does not hold the checkpoint's values in {dtype}")
    for name, buffer in model.named_buffers():
        # .half() and .bfloat16() would round this one too, and give a floor that no engine has
        if name.endswith("inv_freq") and buffer.dtype != torch.float32:
            raise ValueError(f"{checkpoint.folder}: {name} is {buffer.dtype}, want float32")


def arguments(case: inputs.Case, config: configs.Config, dtype: torch.dtype) -> dict:
    args = {
        "input_ids": torch.from_numpy(case.input_ids)[None],
        "position_ids": torch.from_numpy(case.position_ids)[None],
        # without a mask 5.x takes a gap in the positions for the border of a packed sequence
        "attention_mask": torch.ones(1, len(case.input_ids), dtype=torch.int64),
        "use_cache": False,
    }
    if case.pixel_values is None:
        return args
    pixels = torch.from_numpy(case.pixel_values)
    if dtype == torch.float64:  # so that nothing at all in the log of narrow floats is left to excuse
        pixels = pixels.double()
    if not config.packs_tiles:
        return args | {"pixel_values": pixels}
    # as the processor hands a batch over: the tiles of an image on an axis of their own, filled up with zeros
    images = torch.split(pixels, case.tile_counts(config))
    padded = pixels.new_zeros(len(images), max(map(len, images)), *pixels.shape[1:])
    for i, image in enumerate(images):
        padded[i, : len(image)] = image
    return args | {"pixel_values": padded, "image_sizes": torch.tensor(case.image_sizes)}


def run(model: torch.nn.Module, case: inputs.Case, config: configs.Config, writer: dump.Writer, dtype: torch.dtype) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        log = capture.NarrowLog()
        if dtype == torch.float64:
            stack.enter_context(capture.lifted(log))
        stack.enter_context(capture.Capture(model, case.nodes(config), writer.put))
        args = arguments(case, config, dtype)
        if dtype == torch.float64:
            stack.enter_context(log)
        model(**args)
    if log.operators:
        raise ValueError(f"{case.name}: a float64 run rounded to a narrower float in {sorted(set(log.operators))}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float64", "float32", "float16", "bfloat16"), required=True)
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="eager")
    parser.add_argument("--threads", type=int, default=1, help="more are faster and round float32 sums in another order")
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    config = configs.read(args.checkpoint)
    model = load(args.checkpoint, dtype, args.attention)
    fused = (".scores", ".probs") if args.attention == "sdpa" else ()
    for folder in inputs.folders(args.inputs):
        case = inputs.read(folder, config)
        writer = dump.Writer(args.out / case.name, case.nodes(config), "<f8" if dtype == torch.float64 else "<f4")
        run(model, case, config, writer, dtype)
        writer.close(absent=fused)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    (args.out / "witness.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
