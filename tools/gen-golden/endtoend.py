"""Makes golden/vectors/endtoend: two tiny checkpoints as transformers saves them, and what transformers answers.

    endtoend.py make OUT [MODEL...]      both checkpoints, or these, and their answers, in OUT
    endtoend.py verify OUT               make them in a temporary folder and compare with OUT

Run it with the environment of transformers 5.23 (run.sh makes both environments). A step that needs the other version
is a process in the other environment. LLaVA-1.6 is saved by 5.23 and LLaVA-1.5 by 4.51, both from a model that was
built from its configuration and never loaded, in float16 and in shards, with the processor and the tokenizer.

Who may say what a case answers:

* the version that saved the folder makes prompt, ids and pixels with the folder's own processor;
* both versions generate from them, in float32 as a user would, with the cache and without it, and with the stopping
  rules of the folder's generation_config.json; 4.51 cannot read the folder that 5.23 wrote (it would leave the tower
  at random and take another rope_theta), so it reads the same weights from a folder in its own spelling;
* both take the logits in float64 with the internal casts lifted (capture.lifted), which are the truth.

All of them must choose the same tokens, and each choice must be clear of the noise, but for the one tie that is meant.
"""

from __future__ import annotations

import argparse
import dataclasses
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOKENIZERS = ROOT / "golden" / "vectors" / "tokenizer"
IMAGES = (ROOT / "golden" / "vectors" / "endtoend" / "images", ROOT / "golden" / "data" / "images")
ENVIRONMENTS = ("4.51", "5.23")
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
SAMPLE = 16  # of a decode step's logits every 16th is kept, a later one each step
CLEAR = 100  # the first token leads the second by at least so many times the largest difference of the float32 runs


@dataclass(frozen=True)
class Case:
    name: str
    why: str
    messages: list[dict]
    images: list[str] = field(default_factory=list)  # names of PNGs in IMAGES, in the order of the conversation
    max_new_tokens: int = 12


def user(text: str, images: int = 0) -> dict:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@dataclass(frozen=True)
class Model:
    family: str  # of the tokenizer
    environment: str  # that saves it
    model_type: str
    vocab: int  # rows of embed_tokens and lm_head, a multiple of 64 as converters make it
    image: int
    bos: int
    eos: int | list[int]
    twin: tuple[int, int]  # this row of lm_head is made a copy of that one: their logits are the same number
    text: dict
    cases: list[Case]
    seed: int = 0

    @property
    def other(self) -> str:
        return next(e for e in ENVIRONMENTS if e != self.environment)

    @property
    def classname(self) -> str:
        return {"llava_next": "LlavaNext", "llava": "Llava"}[self.model_type]

    def config(self) -> dict:
        """config.json in the spelling of 4.x, which both versions read."""
        text = {"model_type": "llama", "vocab_size": self.vocab, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
                "num_attention_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}  # fmt: skip
        vision = {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
                  "num_attention_heads": 4, "image_size": 56, "patch_size": 14, "projection_dim": 16}  # fmt: skip
        config = {"model_type": self.model_type, "image_token_index": self.image, "image_seq_length": 16, "projector_hidden_act": "gelu",
                  "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
                  "text_config": text | self.text, "vision_config": vision}  # fmt: skip
        return config | ({"image_grid_pinpoints": PINPOINTS} if self.model_type == "llava_next" else {})


UNICODE = "Что это? 写真に何が写っていますか。 Ça va, naïve 🦙🙂 e\u0301 — ½"
MODELS = {
    "llava-next": Model(
        "llama3", "5.23", "llava_next", 3072, 3011, 3000, [3009, 3001], (3071, 2497), {"num_key_value_heads": 2, "rope_theta": 500000.0, "bos_token_id": 3000, "eos_token_id": 3009},
        [
            Case("image", "One landscape photograph and a question, the usual prompt; its fifth token is a tie between two rows of the head.",
                 [user("What is shown in this image?", 1)], ["photo-100x75"]),
            Case("two-images", "Two images in one message, of different sizes and numbers of tiles: each has to stand where it belongs.",
                 [user("What is different between the two?", 2)], ["photo-40x52", "gradient-112x56"]),
            Case("conversation", "An image in the first and in the third message, with an answer between them: a column and a row of three tiles.",
                 [user("What is this?", 1), assistant("A drawing, I think."), user("And what is that?", 1)], ["noise-37x148", "photo-188x47"]),
            Case("text-only", "No image: the model must not wait for one, and positions count text alone.",
                 [user("Name a town that lies at a river.")]),
            Case("unicode-portrait", "Five scripts, an emoji outside of the basic plane, a combining accent; a portrait on a 2x2 canvas.",
                 [user(UNICODE, 1)], ["checker-70x110"]),
            Case("strip", "A strip of which unpadding keeps no cell: the whole view is all that goes into the prompt.",
                 [user("Describe the window.", 1)], ["noise-168x3"]),
            Case("tiny-image", "Six pixels, enlarged to every tile.",
                 [user("Which colours are these?", 1)], ["tiny-3x2"]),
            Case("eos-second-of-list", "It ends before max_new_tokens, at the second id of generation_config.json's list; config.json knows only the first.",
                 [user("Describe the window.", 1)], ["photo-40x52"], 24),
            Case("padding-row", "It chooses an id that is a row of the matrices and no token, which gives no text and goes on like any other.",
                 [user("Is the river large or small?", 1)], ["photo-40x52"], 14),
            Case("writes-image-token", "It chooses the image token itself, which is embedded by its own row: no image belongs to it.",
                 [user("Is there a tree in this picture?", 1)], ["photo-40x52"], 14),
        ],
    ),
    "llava": Model(
        "llama2", "4.51", "llava", 3328, 3263, 1, 2, (3327, 2416), {"num_key_value_heads": 4, "rope_theta": 10000.0},
        [
            Case("image", "One landscape photograph and a question, the usual prompt; its second token is a tie between two rows of the head.",
                 [user("What is shown in this image?", 1)], ["photo-100x75"]),
            Case("two-images", "Two images in one message: each has to stand where it belongs.",
                 [user("What is different between the two?", 2)], ["photo-40x52", "gradient-112x56"]),
            Case("conversation", "An image in the first and in the third message, with an answer between them.",
                 [user("What is this?", 1), assistant("A drawing, I think."), user("And what is that?", 1)], ["noise-37x148", "photo-188x47"]),
            Case("text-only", "No image: the model must not wait for one, and positions count text alone.",
                 [user("Name a town that lies at a river.")]),
            Case("unicode-portrait", "Five scripts, characters that only byte tokens can spell, a combining accent; a portrait.",
                 [user(UNICODE, 1)], ["checker-70x110"]),
            Case("strip", "A strip of which the crop keeps the middle.",
                 [user("Describe the window.", 1)], ["photo-300x15"]),
            Case("tiny-image", "Six pixels, enlarged to a tile.",
                 [user("Which colours are these?", 1)], ["tiny-3x2"]),
            Case("eos", "It ends before max_new_tokens, at the one id of generation_config.json.",
                 [user("What stands behind the cat?")], [], 24),
            Case("padding-row", "It chooses ids that are rows of the matrices and no tokens, which give no text and go on like any other.",
                 [user("Is there a bridge in this picture?", 1)], ["photo-40x52"], 14),
        ],
    ),
}  # fmt: skip


# -- one step, in one environment ------------------------------------------------------------------------------------


def weights(model: Model, config):
    """The synthetic weights of the model with its twin rows, by their on-disk names."""
    import synthetic

    for name, values in synthetic.tensors(config, model.seed):
        if name == "language_model.lm_head.weight":
            values[model.twin[0]] = values[model.twin[1]]
        yield name, values


def generation_config(model: Model):
    import transformers

    return transformers.GenerationConfig(bos_token_id=model.bos, eos_token_id=model.eos)


def save(model: Model, source: Path, folder: Path) -> None:
    """source: float32 under the first naming scheme, in the spelling of 4.x. folder: what this version saves."""
    import safetensors.torch
    import torch
    import transformers

    import config as configs
    import tokenizer_layouts as layouts

    source.mkdir(parents=True)
    (source / "config.json").write_text(json.dumps(model.config()))
    config = configs.read(source)
    state = {name: torch.from_numpy(values) for name, values in weights(model, config)}
    safetensors.torch.save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    generation_config(model).save_pretrained(source)

    made = json.loads((TOKENIZERS / model.family / "tokenizer.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as plain:
        layouts.write_source(plain, model.family, made, 56, PINPOINTS)
        layouts.load_processor(plain, model.family).save_pretrained(folder)
    fields = {k: v for k, v in model.config().items() if k != "model_type"}
    net = getattr(transformers, f"{model.classname}ForConditionalGeneration")(getattr(transformers, f"{model.classname}Config")(**fields))
    net.load_state_dict({name: state.pop(configs.on_disk(name)) for name in list(net.state_dict())})
    if state:
        raise ValueError(f"{sorted(state)} were not loaded")
    net.generation_config = generation_config(model)
    net.half().save_pretrained(folder, max_shard_size="500KB", safe_serialization=True)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


def prepare(model: Model, folder: Path, out: Path) -> None:
    """Prompt, ids and pixels of each case, made by the folder's own processor."""
    from PIL import Image

    import tokenizer_layouts as layouts
    import transformers

    if layouts.VERSION[0] >= 5:
        processor = getattr(transformers, f"{model.classname}Processor").from_pretrained(folder, backend="pil")
    else:
        processor = getattr(transformers, f"{model.classname}Processor").from_pretrained(folder, use_fast=False)
    out.mkdir()
    said = {}
    for case in model.cases:
        pictures = [Image.open(next(path for f in IMAGES if (path := f / f"{name}.png").is_file())) for name in case.images]
        text = processor.apply_chat_template(case.messages, add_generation_prompt=True, tokenize=False)
        made = processor(images=pictures or None, text=text, return_tensors="np")
        arrays = {"input_ids": np.asarray(made["input_ids"]).astype("<i8")}
        tiles, counts = [], []
        for i, picture in enumerate(pictures):
            one = processor(images=picture, text="<image>", return_tensors="np")
            pixels = np.asarray(one["pixel_values"])
            pixels = pixels[0] if pixels.ndim == 5 else pixels
            tiles.append(pixels)
            counts.append(int((np.asarray(one["input_ids"]) == model.image).sum()))
            # the array of several images is the arrays of the single ones, filled up with zeros
            together = np.asarray(made["pixel_values"])[i]
            together = together[: len(pixels)] if together.ndim == 4 else together[None]
            if not np.array_equal(together, pixels):
                raise ValueError(f"{case.name}: image {i} has other pixels among others")
        if pictures:
            arrays["pixel_values"] = np.asarray(made["pixel_values"]).astype("<f4")
            arrays["image_sizes"] = np.array([(p.height, p.width) for p in pictures], dtype="<i8")
        np.savez(out / f"{case.name}.npz", **arrays)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(t, dtype="<f4").tobytes() for t in tiles)).hexdigest() if tiles else ""
        said[case.name] = {"prompt": text, "image_sizes": [[p.height, p.width] for p in pictures], "image_tokens": counts, "tiles": sum(map(len, tiles)),
                           "pixels_sha256": digest}  # fmt: skip
    (out / "prompts.json").write_text(json.dumps(said))


def answer(model: Model, folder: Path, given: Path, out: Path) -> None:
    """Generates for each case: ids as users get them, and the logits of every step in float32 and in truth."""
    import torch
    import transformers

    import capture
    import witness_torch

    torch.set_num_threads(1)
    out.mkdir()
    log = {}
    nets = {"float32": witness_torch.load(folder, torch.float32, "sdpa"), "truth": witness_torch.load(folder, torch.float64, "eager")}
    for case in model.cases:
        with np.load(given / f"{case.name}.npz") as arrays:
            args = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "image_sizes" or model.model_type == "llava_next"}
        args["attention_mask"] = torch.ones_like(args["input_ids"])
        n, runs, steps = args["input_ids"].shape[1], {}, {}
        for kind, net in nets.items():
            for cached in (True, False):
                if not cached and (kind == "truth" or model.image in runs["float32"]):
                    continue  # without a cache transformers takes an image token that it wrote for one that wants an image
                seen: list[np.ndarray] = []
                head = net.get_output_embeddings().register_forward_hook(lambda m, given, y, seen=seen: seen.append(y[0, -1].numpy().copy()))
                lifted = capture.lifted(capture.NarrowLog()) if kind == "truth" else torch.no_grad()
                with lifted, torch.no_grad():
                    ids = net.generate(**args, do_sample=False, max_new_tokens=case.max_new_tokens, use_cache=cached)
                head.remove()
                runs[kind if cached else kind + "-uncached"] = ids[0, n:].tolist()
                if cached:
                    steps[kind] = np.stack(seen)
        np.savez(out / f"{case.name}.npz", **steps)
        log[case.name] = runs
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    (out / "runs.json").write_text(json.dumps({"versions": versions, "runs": log}))


def decode(model: Model, folder: Path, ids: Path) -> None:
    """The text of the ids of each case: {case: ids} -> {case: text}, in place."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    cases = json.loads(ids.read_text())
    texts = {name: tokenizer.decode(i, skip_special_tokens=True, clean_up_tokenization_spaces=False) for name, i in cases.items()}
    ids.write_text(json.dumps(texts))


# -- all of it -------------------------------------------------------------------------------------------------------


def runs_of(ids: list[int], image: int) -> list:
    """[id, id, [image, times], id, ...]"""
    out: list = []
    for i in ids:
        if i == image and out and isinstance(out[-1], list):
            out[-1][1] += 1
        else:
            out.append([i, 1] if i == image else i)
    return out


def step(environment: str, *args: str | Path) -> None:
    venvs = Path(os.environ.get("LLAVAREF_VENV", Path.home() / ".cache" / "llavaref"))
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    subprocess.run([str(venvs / environment / "bin" / "python"), str(HERE / "endtoend.py"), *map(str, args)], check=True, env=os.environ | one | quiet)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def make(name: str, out: Path, work: Path) -> None:
    model = MODELS[name]
    folder, source, given = out / name, work / "source", work / "given"
    step(model.environment, "save", name, source, folder)
    step(model.environment, "prepare", name, folder, given)
    folders = {model.environment: folder, model.other: source if model.other == "4.51" else folder}
    for environment in ENVIRONMENTS:
        step(environment, "answer", name, folders[environment], given, work / environment)
    witnesses = {e: json.loads((work / e / "runs.json").read_text()) for e in ENVIRONMENTS}
    prompts = json.loads((given / "prompts.json").read_text())

    chosen = {case.name: witnesses[model.environment]["runs"][case.name]["truth"] for case in model.cases}
    (work / "texts.json").write_text(json.dumps(chosen))
    step(model.environment, "decode", name, folder, work / "texts.json")
    texts = json.loads((work / "texts.json").read_text())

    cases, first, later = [], [], []
    for case in model.cases:
        ids = chosen[case.name]
        for environment, witness in witnesses.items():
            for kind, got in witness["runs"][case.name].items():
                if got != ids:
                    raise ValueError(f"{name}/{case.name}: {environment} {kind} chose {got}, the truth {ids}")
        logits = {e: np.load(work / e / f"{case.name}.npz") for e in ENVIRONMENTS}
        truth = logits[model.environment]["truth"]
        apart = float(np.abs(truth - logits[model.other]["truth"]).max())
        if apart > 1e-10:
            raise ValueError(f"{name}/{case.name}: the two truths differ by {apart}")
        noise = [np.abs(logits[e]["float32"] - truth).max() for e in ENVIRONMENTS]
        floors = [max(rms(logits[e]["float32"][i] - t) for e in ENVIRONMENTS) / rms(t) for i, t in enumerate(truth)]
        margins = []
        for z, token in zip(truth, ids):
            rest = z.copy()
            rest[token] = -np.inf
            if token == model.twin[1]:
                rest[model.twin[0]] = -np.inf
            margins.append(float(z[token] - rest.max()))
        if min(margins) < CLEAR * max(noise):
            raise ValueError(f"{name}/{case.name}: a margin of {min(margins):.2g} with noise of {max(noise):.2g}")
        with np.load(given / f"{case.name}.npz") as arrays:
            input_ids = arrays["input_ids"][0].tolist()
        # a tie must be one for float32 too, of any version: then it is the rule that decides it, and not the noise
        ties = [i for i, token in enumerate(ids) if token == model.twin[1]]
        for e in ENVIRONMENTS:
            for kind in ("float32", "truth"):
                for i in ties:
                    a, b = logits[e][kind][i][list(model.twin)]
                    if a != b:
                        raise ValueError(f"{name}/{case.name}: {e} {kind}: the twin rows give {a} and {b}")
        cases.append({"name": case.name, "why": case.why, "messages": case.messages, "images": case.images,
                      "max_new_tokens": case.max_new_tokens, **prompts[case.name], "input_ids": runs_of(input_ids, model.image), "new_ids": ids,
                      "text": texts[case.name], "ties": ties, "margin": float(f"{min(margins):.3g}"), "rms": [float(f"{rms(t):.4g}") for t in truth],
                      "floors": [float(f"{f:.3g}") for f in floors]})  # fmt: skip
        first.append(truth[0])
        later += [z[i % SAMPLE :: SAMPLE] for i, z in enumerate(truth[1:], 1)]
        stops = "max_new_tokens" if len(ids) == case.max_new_tokens else f"eos {ids[-1]}"
        print(f"  {name}/{case.name}: {len(input_ids)} ids, {len(ids)} new ({len(set(ids))} different), ends by {stops}, "
              f"margin {min(margins):.2g}, noise {max(noise):.1g}, largest floor {max(floors):.1g}, truths apart {apart:.1g}", flush=True)  # fmt: skip

    np.save(out / f"{name}.prompt-logits.npy", np.stack(first).astype("<f4"))
    np.save(out / f"{name}.step-logits.npy", np.stack(later).astype("<f4"))
    head = {"model": name, "saved_by": witnesses[model.environment]["versions"], "also_run_by": witnesses[model.other]["versions"],
            "eos": model.eos if isinstance(model.eos, list) else [model.eos], "twin_rows": list(model.twin), "step_logits_every": SAMPLE}  # fmt: skip
    text = json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + ",\n".join("  " + json.dumps(c, ensure_ascii=False) for c in cases) + "\n ]\n}\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")


def make_all(out: Path, names: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in names or MODELS:
        with tempfile.TemporaryDirectory(prefix="endtoend-") as work:
            shutil.rmtree(out / name, ignore_errors=True)
            make(name, out, Path(work))
    print(f"{sum(f.stat().st_size for f in out.rglob('*') if f.is_file())} bytes in {out}")


def verify(out: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="endtoend-") as new:
        make_all(Path(new), [])
        files = {f.relative_to(root) for root in (out, Path(new)) for f in root.rglob("*") if f.is_file() and f.parent.name != "images"}
        bad = [str(f) for f in sorted(files) if not (out / f).is_file() or not (Path(new) / f).is_file() or not filecmp.cmp(out / f, Path(new) / f, shallow=False)]
    print(f"{len(files)} files, different: {', '.join(bad) or 'none'}")
    return int(bool(bad))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("make", "verify", "save", "prepare", "answer", "decode"))
    parser.add_argument("args", nargs="+", help="make, verify: the folder; the other steps are this program's own")
    args = parser.parse_args()
    if args.step in ("make", "verify"):
        folder, *names = args.args
        if args.step == "verify":
            return verify(Path(folder))
        make_all(Path(folder), names)
        return 0
    model, *paths = args.args
    {"save": save, "prepare": prepare, "answer": answer, "decode": decode}[args.step](MODELS[model], *map(Path, paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
