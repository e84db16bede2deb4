"""Runs transformers' own LLaVA model on an exported case and dumps every node that it shows.

    llavaref case export --case photo-1x3 --out case
    python adapter.py --model case/model --case case --out dump
    llavaref check --engine dir:dump --model tiny-1.6 --case photo-1x3

A conversation of an end-to-end set is answered instead, with the processor, the tokenizer and generate of transformers from 5.0 on: older
versions have no Pillow processor by that name, and exit with 77. That needs Pillow, and jinja2 for the chat template.

One file, for any transformers from 4.42 on: for nodes numpy, torch and transformers are all it imports. The nodes have the names of the
running version's own modules, and the manifest says whose names they are, so that nothing is renamed here.

Modules give their values through forward hooks. The steps that are no module come from the input of the module behind
them (context, the residual after attention, the gate, the selected features, the merged embeddings) or from the function that
computes them, which is wrapped where transformers looks it up (rotary embedding, softmax, packing). With --attn sdpa
scores and probs are inside of one kernel and are left out.

DUMP appears when it is complete. To adapt another engine, keep Dump and write what calls put.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers.models.llama import modeling_llama

VERSION = tuple(int(x) for x in transformers.__version__.split(".")[:2])
CLASSES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
NOTHING = 77  # the exit code that says that the engine has nothing for a case (docs/protocol.md)
MODELS = {"llava_next": "LlavaNextForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}


class Dump:
    """A folder of .npy files and a manifest (docs/dump-format.md)."""

    def __init__(self, out: Path, manifest: dict):
        self._out, self._tmp = out, out.with_name(f".{out.name}.{os.getpid()}.tmp")
        self._manifest = manifest | {"nodes": []}
        if out.is_dir() and any(out.iterdir()) or out.exists() and not out.is_dir():
            raise SystemExit(f"{out} is there already, want a folder to be made")
        self._tmp.mkdir(parents=True)

    def write(self, name: str, content: object) -> None:
        (self._tmp / name).write_text(json.dumps(content) + "\n")

    def put(self, name: str, x: torch.Tensor, node: bool = True) -> None:
        x = x.detach().contiguous()
        if x.dtype == torch.bfloat16:
            x = x.view(torch.int16)  # numpy has no bfloat16: its bits, read as uint16
            array = x.numpy().view(np.uint16)
        else:
            array = x.numpy()
        path = self._tmp / f"{name}.npy"
        if path.exists():
            raise ValueError(f"{name}: computed twice in one pass")
        np.save(path, array)
        if node:
            self._manifest["nodes"].append({"name": name, "shape": list(array.shape)})

    def close(self) -> None:
        (self._tmp / "manifest.json").write_text(json.dumps(self._manifest, indent=1) + "\n")
        if self._out.is_dir():
            self._out.rmdir()
        self._tmp.rename(self._out)

    def abort(self) -> None:
        shutil.rmtree(self._tmp, ignore_errors=True)


class Names:
    """Where the parts of the model are in this version, and which naming that is."""

    def __init__(self, model: torch.nn.Module):
        modules = {name for name, _ in model.named_modules()}
        if "language_model.model.layers.0" in modules:
            self.naming, base = "hf", ""
            self.text, self.head = "language_model.model", "language_model.lm_head"
        elif "model.language_model.layers.0" in modules:
            self.naming, base = "hf-4.52", "model."
            self.text, self.head = "model.language_model", "lm_head"
        else:
            raise SystemExit(f"transformers {transformers.__version__}: no decoder where any version so far had it")
        self.vision, self.projector = base + "vision_tower.vision_model", base + "multi_modal_projector"
        if self.vision not in modules:
            self.naming, self.vision = "hf-5.6", base + "vision_tower"


class Capture:
    """Dumps every node of one forward pass: `with Capture(...): model(...)`."""

    def __init__(self, model: torch.nn.Module, dump: Dump, case: "Case"):
        self._model, self._dump, self._case = model, dump, case
        self._names = Names(model)
        self._modules = dict(model.named_modules())
        self._attention = ""  # the attention module that is running
        self._rotary = False  # whether cos and sin are dumped
        self._undo = contextlib.ExitStack()
        self._images = case.pixel_values is not None

    def __enter__(self) -> "Capture":
        with self._undo:  # if anything fails here, everything is taken back
            self._text()
            if self._images:
                self._tower()
            self._wrap(F, "softmax", self._softmax)
            self._undo = self._undo.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._undo.close()

    def _tower(self) -> None:
        v, p = self._names.vision, self._names.projector
        for name in ("embeddings.patch_embedding", "embeddings", "pre_layrnorm", "post_layernorm"):
            self._output(f"{v}.{name}")
        for layer in self._layers(f"{v}.encoder.layers"):
            for leaf in ("layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.activation_fn", "mlp.fc2"):
                self._output(f"{layer}.{leaf}")
            self._output(layer)
            self._input(f"{layer}.self_attn.out_proj", f"{layer}.self_attn.context")
            self._input(f"{layer}.layer_norm2", f"{layer}.residual_attn")
            self._running(f"{layer}.self_attn")
        self._input(f"{v}.post_layernorm", f"{v}.pooled")
        self._input(p, "select_features")
        for leaf in ("linear_1", "act", "linear_2"):
            self._output(f"{p}.{leaf}")
        # from 4.52 on the top model only forwards to the one that packs; LLaVA-1.5 has nothing to pack
        owner = next((m for m in (getattr(self._model, "model", None), self._model) if hasattr(m, "pack_image_features")), None)
        if owner is not None and self._model.config.model_type == "llava_next":
            self._wrap(owner, "pack_image_features", self._pack)

    def _text(self) -> None:
        t = self._names.text
        if not self._case.collapsed:  # else it sees one token an image, and its output is no node
            self._output(f"{t}.embed_tokens", batch=True)
        self._input(f"{t}.layers.0.input_layernorm", "merge_embeddings", batch=True)
        for layer in self._layers(f"{t}.layers"):
            for leaf in ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.act_fn", "mlp.down_proj"):
                self._output(f"{layer}.{leaf}", batch=True)
            self._output(layer, batch=True)
            self._input(f"{layer}.self_attn.o_proj", f"{layer}.self_attn.context", batch=True)
            self._input(f"{layer}.post_attention_layernorm", f"{layer}.residual_attn", batch=True)
            self._input(f"{layer}.mlp.down_proj", f"{layer}.mlp.gated", batch=True)
            self._running(f"{layer}.self_attn")
        self._output(f"{t}.norm", batch=True)
        self._output(self._names.head, batch=True)
        self._wrap(modeling_llama, "apply_rotary_pos_emb", self._rotate)

    def _layers(self, prefix: str):
        i = 0
        while f"{prefix}.{i}" in self._modules:
            yield f"{prefix}.{i}"
            i += 1

    def _put(self, name: str, x: torch.Tensor, batch: bool) -> None:
        if batch:  # [1, T, ...]
            if x.shape[0] != 1:
                raise ValueError(f"{name}: shape {tuple(x.shape)}, want a batch of one")
            x = x[0]
        self._dump.put(name, x)

    def _output(self, name: str, batch: bool = False) -> None:
        def hook(module, args, output):
            self._put(name, output[0] if isinstance(output, tuple) else output, batch)  # layers return a tuple up to 4.x

        self._undo.callback(self._modules[name].register_forward_hook(hook).remove)

    def _input(self, module: str, node: str, batch: bool = False) -> None:
        def hook(module, args, kwargs):
            self._put(node, args[0] if args else next(iter(kwargs.values())), batch)

        self._undo.callback(self._modules[module].register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _running(self, attention: str) -> None:
        def mark(value: str) -> None:
            self._attention = value

        module = self._modules[attention]
        self._undo.callback(module.register_forward_pre_hook(lambda m, args: mark(attention)).remove)
        self._undo.callback(module.register_forward_hook(lambda m, args, out: mark("")).remove)

    def _wrap(self, owner, name: str, wrapper) -> None:
        original = getattr(owner, name)
        own = name in vars(owner)  # a bound method is found on the class; putting it back would leave a copy behind
        setattr(owner, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))
        self._undo.callback(lambda: setattr(owner, name, original) if own else delattr(owner, name))

    def _softmax(self, softmax, x, *args, **kwargs):
        y = softmax(x, *args, **kwargs)
        if self._attention:
            heads = self._modules[self._attention].config.num_attention_heads
            square = (heads, *x.shape[-2:])
            if self._attention.startswith(self._names.vision):
                square = (-1, *square)  # older versions have tiles and heads on one axis
            elif x.shape[0] != 1:
                raise ValueError(f"{self._attention}: scores {tuple(x.shape)}, want a batch of one")
            # the mask is the dtype's lowest number, added: what it hides is minus infinity
            scores = torch.where(x <= torch.finfo(x.dtype).min / 2, -torch.inf, x)
            self._dump.put(f"{self._attention}.scores", scores.reshape(square))
            self._dump.put(f"{self._attention}.probs", y.to(x.dtype).reshape(square))  # the cast that the caller makes next
        return y

    def _rotate(self, rotate, q, k, cos, sin, *args, **kwargs):
        if not self._rotary:  # the same for every layer
            self._rotary = True
            self._dump.put(f"{self._names.text}.rotary_emb.cos", cos.reshape(cos.shape[-2:]))
            self._dump.put(f"{self._names.text}.rotary_emb.sin", sin.reshape(sin.shape[-2:]))
        out = rotate(q, k, cos, sin, *args, **kwargs)
        for leaf, x in zip(("rope_q", "rope_k"), out):
            self._dump.put(f"{self._attention}.{leaf}", x[0].transpose(0, 1))  # [1, heads, T, Dh] -> [T, heads, Dh]
        return out

    def _pack(self, pack, *args, **kwargs):
        packed, lengths = pack(*args, **kwargs)
        # up to 4.x the images one behind the other, from 5.0 on one by one
        self._dump.put("pack_image_features", packed if isinstance(packed, torch.Tensor) else torch.cat(list(packed)))
        return packed, lengths


class Case:
    """The prompt in a case folder, as the running version wants it."""

    def __init__(self, folder: Path, config):
        self.input_ids = torch.from_numpy(np.load(folder / "input_ids.npy"))
        self.position_ids = torch.from_numpy(np.load(folder / "position_ids.npy"))
        self.image_sizes = json.loads((folder / "image_sizes.json").read_text())
        pixels = folder / "pixel_values.npy"
        self.pixel_values = torch.from_numpy(np.load(pixels)) if pixels.is_file() else None
        about = folder / "case.json"
        self.about = json.loads(about.read_text()) if about.is_file() else {}
        self.collapsed = VERSION < (4, 45) and self.pixel_values is not None
        self._config = config

    def arguments(self, dtype: torch.dtype) -> dict:
        ids = self._collapse() if self.collapsed else self.input_ids
        args = {
            "input_ids": ids[None],
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),  # without one, 5.x takes a gap in the positions for packed sequences
            "use_cache": False,
        }
        if not self.collapsed:  # which computes them itself
            args["position_ids"] = self.position_ids[None]
        if self.pixel_values is None:
            return args
        pixels = self.pixel_values.to(dtype)
        if self._config.model_type != "llava_next":
            return args | {"pixel_values": pixels}
        # as the processor hands a batch over: the tiles of an image on an axis of their own, filled up with zeros
        images = torch.split(pixels, self._tile_counts())
        padded = pixels.new_zeros(len(images), max(map(len, images)), *pixels.shape[1:])
        for i, image in enumerate(images):
            padded[i, : len(image)] = image
        return args | {"pixel_values": padded, "image_sizes": torch.tensor(self.image_sizes)}

    def _tile_counts(self) -> list[int]:
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        c = self._config
        counts = [image_size_to_num_patches(size, c.image_grid_pinpoints, c.vision_config.image_size) for size in self.image_sizes]
        if sum(counts) != len(self.pixel_values):
            raise SystemExit(f"{len(self.pixel_values)} tiles in pixel_values, want {counts} for images of {self.image_sizes}")
        return counts

    def _collapse(self) -> torch.Tensor:
        """Up to 4.44 the model itself repeats the image token: a run of them becomes one."""
        image = self._config.image_token_index
        first = torch.ones(len(self.input_ids), dtype=torch.bool)
        first[1:] = (self.input_ids[1:] != image) | (self.input_ids[:-1] != image)
        ids = self.input_ids[first]
        if (runs := int((ids == image).sum())) != len(self.image_sizes):
            print(f"{runs} runs of image tokens for {len(self.image_sizes)} images: transformers {transformers.__version__} cannot be given this case", file=sys.stderr)
            raise SystemExit(NOTHING)
        return ids


def load(folder: Path, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    """from_pretrained, with everything that it would only warn of made an error."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if model_type not in MODELS:
        raise SystemExit(f"{folder}: model_type {model_type!r}, want {' or '.join(MODELS)}")
    model, report = getattr(transformers, MODELS[model_type]).from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True, **{"dtype" if VERSION >= (5, 0) else "torch_dtype": dtype}
    )
    if complaints := {key: sorted(map(str, value))[:3] for key, value in report.items() if value}:
        raise SystemExit(f"{folder}: transformers {transformers.__version__} did not load every tensor: {complaints}")
    return model.eval()


def answer(model: torch.nn.Module, checkpoint: Path, folder: Path, dump: Dump) -> None:
    """Answers a conversation from its files alone: nothing that lies in the folder for engines without a processor is read."""
    from PIL import Image

    about = json.loads((folder / "case.json").read_text())
    messages = json.loads((folder / about["messages"]).read_text())
    pictures = [Image.open(folder / name) for name in about["images"]]
    processor = transformers.AutoProcessor.from_pretrained(checkpoint, backend="pil")
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # the template writes begin-of-text itself or leaves it to the tokenizer
    bos = processor.tokenizer.bos_token
    given = processor(text=prompt, images=pictures or None, add_special_tokens=not (bos and prompt.startswith(bos)), return_tensors="pt")
    ids = given["input_ids"][0].tolist()
    said = {"prompt": prompt, "input_ids": ids}
    if pictures:
        image = model.config.image_token_id
        runs = [len(list(run)) for is_image, run in itertools.groupby(ids, lambda i: i == image) if is_image]
        said["image_sizes"] = [[p.height, p.width] for p in pictures]
        if len(runs) == len(pictures):  # else two stand side by side, and their counts cannot be told from the ids
            said["image_tokens"] = runs
        dump.put("pixel_values", given["pixel_values"], node=False)
    given = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in given.items()}
    out = model.generate(**given, do_sample=False, max_new_tokens=about["max_new_tokens"])
    said["new_ids"] = out[0, len(ids):].tolist()
    said["text"] = processor.tokenizer.decode(said["new_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    dump.write("answer.json", said)


def inventory(model: torch.nn.Module) -> dict:
    return {name: {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for name, x in model.named_parameters()}


def run(model: torch.nn.Module, checkpoint: Path, folder: Path, out: Path, dtype_name: str, attention: str, lanes: int) -> None:
    dtype = getattr(torch, dtype_name)
    conversation = (folder / "messages.json").is_file()
    if conversation and VERSION < (5, 0):
        print(f"transformers {transformers.__version__} is asked for nodes only", file=sys.stderr)
        raise SystemExit(NOTHING)
    case = Case(folder, model.config)
    manifest = {
        "format": 1, "engine": "transformers", "version": transformers.__version__, "class": CLASSES[dtype_name], "lanes": lanes, "naming": Names(model).naming,
        "about": {"torch": torch.__version__, "attention": attention, "dtype": dtype_name, "threads": str(torch.get_num_threads()), "image tokens": "collapsed" if case.collapsed else "as given"},
    }
    manifest |= {key: case.about[key] for key in ("set", "case") if key in case.about}
    dump = Dump(out, manifest)
    try:
        dump.write("inventory.json", inventory(model))
        with torch.no_grad():
            if conversation:
                answer(model, checkpoint, folder, dump)
            else:
                with Capture(model, dump, case):
                    model(**case.arguments(dtype))
        dump.close()
    except BaseException:
        dump.abort()
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder with config.json and the checkpoint")
    parser.add_argument("--case", type=Path, required=True, action="append", help="folder with input_ids.npy and the rest; may be given several times")
    parser.add_argument("--out", type=Path, required=True, help="the dump, a folder to be made; with several cases a folder of dumps, named after the cases")
    parser.add_argument("--dtype", choices=CLASSES, default="float32")
    parser.add_argument("--attn", choices=("eager", "sdpa"), default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=1, help="partial sums that a kernel keeps side by side; the matrix kernels of torch keep one an output")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    model = load(args.model, getattr(torch, args.dtype), args.attn)
    for folder in args.case:
        run(model, args.model, folder, args.out if len(args.case) == 1 else args.out / folder.name, args.dtype, args.attn, args.lanes)


if __name__ == "__main__":
    sys.exit(main())
