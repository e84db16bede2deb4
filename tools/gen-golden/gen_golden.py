"""Makes a golden set: the true value of every node of a LLaVA model for a few prompts, and the noise floors beside them.

    gen_golden.py --model tiny-1.6 --out golden/data/tiny-1.6
    gen_golden.py --checkpoint DIR --inputs DIR --out DIR [--sample N]
    gen_golden.py --model tiny-1.6 --verify golden/data/tiny-1.6

Runs every witness in its own environment as a process of its own, one after another, so that at most one model is in
memory. run.sh makes the environments and calls this.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import cases
import checkpoint
import config as configs
import dump
import inputs
import verify
import write

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = ("4.51", "5.23")


@dataclass(frozen=True)
class Workshop:
    """Where the witnesses run."""

    venvs: Path
    folder: Path
    threads: int

    def python(self, environment: str) -> str:
        return str(self.venvs / environment / "bin" / "python")

    def run(self, environment: str, script: str, *args: str) -> None:
        one = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
        subprocess.run([self.python(environment), str(HERE / script), *args], check=True, env=os.environ | one | quiet)

    def witness(self, environment: str, dtype: str, attention: str, weights: Path, given: Path) -> Path:
        """transformers' model in one dtype over all cases; returns the folder of its dumps."""
        out = self.folder / f"{environment}-{dtype}-{attention}"
        print(f"  transformers {environment}, {dtype}, {attention}", flush=True)
        self.run(environment, "witness_torch.py", "--checkpoint", str(weights), "--inputs", str(given), "--out", str(out),
                 "--dtype", dtype, "--attention", attention, "--threads", str(self.threads))  # fmt: skip
        return out

    def numpy_witness(self, weights: Path, given: Path) -> Path:
        out = self.folder / "numpy"
        print("  numpy", flush=True)
        self.run("5.23", "witness_numpy.py", "--checkpoint", str(weights), "--inputs", str(given), "--out", str(out))
        return out


def generate(shop: Workshop, weights: Path, given: Path, out: Path, name: str, kind: dict, budget: int) -> None:
    """weights and given are folders: a checkpoint, and the inputs of its cases."""
    config = configs.read(weights)
    prompts = [inputs.read(folder, config) for folder in inputs.folders(given)]
    out.mkdir(parents=True)
    shutil.copyfile(weights / "config.json", out / "config.json")

    truth, witnesses = agree(shop, weights, given, prompts, config)
    for prompt in prompts:
        write.case(out / prompt.name, prompt, config, dump.Reader(truth / prompt.name), budget)
    measure_floors(shop, weights, given, prompts, config, truth, out, budget)

    import PIL

    generator = {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__, "generator": "1"}
    write.manifest(
        out,
        model=name,
        weights=kind | {"sha256": checkpoint.Checkpoint(weights).digest()},
        sample=budget,
        classes=list(write.CLASSES),
        generator=generator,
        witnesses=witnesses,
        cases=[prompt.name for prompt in prompts],
    )


def agree(shop: Workshop, weights: Path, given: Path, prompts: list[inputs.Case], config: configs.Config) -> tuple[Path, list[dict]]:
    """The first witness's dumps, and what manifest.json says of all; the others must agree with it at every node."""
    truth = shop.witness(ENVIRONMENTS[0], "float64", "eager", weights, given)
    witnesses = [said(truth, 0.0)]
    others = (
        lambda: shop.witness(ENVIRONMENTS[1], "float64", "eager", weights, given),
        lambda: shop.numpy_witness(weights, given),
    )
    for other in others:
        folder = other()
        differences = [
            write.largest_difference(dump.Reader(truth / p.name), dump.Reader(folder / p.name), p.nodes(config)) for p in prompts
        ]
        witnesses.append(said(folder, max(differences)))
        shutil.rmtree(folder)
    return truth, witnesses


def said(folder: Path, difference: float) -> dict:
    versions = json.loads((folder / "witness.json").read_text())
    return {"transformers": versions["transformers"], "torch": versions["torch"], "max_difference": float(f"{difference:.2g}")}


def measure_floors(shop: Workshop, weights: Path, given: Path, prompts: list[inputs.Case], config: configs.Config, truth: Path, out: Path, budget: int) -> None:
    errors: dict[str, list] = {prompt.name: [] for prompt in prompts}
    for dtype in write.CLASSES.values():
        runs = [shop.witness(*run, weights, given) for run in ((ENVIRONMENTS[0], dtype, "eager"), (ENVIRONMENTS[1], dtype, "eager"), (ENVIRONMENTS[1], dtype, "sdpa"))]
        for prompt in prompts:
            readers = [dump.Reader(run / prompt.name) for run in runs]
            errors[prompt.name].append(write.floor(dump.Reader(truth / prompt.name), readers, prompt.nodes(config), budget))
        for run in runs:
            shutil.rmtree(run)
    for prompt in prompts:
        write.floors(out / prompt.name, errors[prompt.name])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", choices=sorted(cases.PLANS), help="a built-in model: synthetic weights, and the cases of cases.py")
    what.add_argument("--checkpoint", type=Path, help="a LLaVA or LLaVA-NeXT model that transformers saved as safetensors")
    parser.add_argument("--inputs", type=Path, help="with --checkpoint: a folder a case, see README.md")
    parser.add_argument("--out", type=Path, help="where the set goes; must not exist")
    parser.add_argument("--verify", type=Path, metavar="SET", help="make the set anew in a temporary folder and compare it with this one")
    parser.add_argument("--sample", type=int, help="entries kept of a larger node; 0 keeps all (default: the model's, or 4096)")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic weights")
    parser.add_argument("--threads", type=int, default=1, help="the committed sets are made with 1, wide with 2")
    parser.add_argument("--venvs", type=Path, default=os.environ.get("LLAVAREF_VENV", Path.home() / ".cache" / "llavaref"))
    args = parser.parse_args()
    if (args.out is None) == (args.verify is None):
        parser.error("one of --out and --verify is needed")
    if (args.checkpoint is None) != (args.inputs is None):
        parser.error("--checkpoint and --inputs belong together")
    if args.out and args.out.exists():
        parser.error(f"{args.out} exists: delete it first")

    with tempfile.TemporaryDirectory(prefix="gen-golden-") as work:
        shop = Workshop(Path(args.venvs), Path(work), args.threads)
        out = args.out or Path(work) / "set"
        shop.run(ENVIRONMENTS[0], "inventory.py")
        shop.run(ENVIRONMENTS[1], "inventory.py")
        if args.model:
            weights, given, name = Path(work) / "checkpoint", Path(work) / "inputs", args.model
            checkpoint.write_synthetic(args.model, args.seed, weights)
            cases.write(args.model, given)
            kind, budget = {"kind": "synthetic", "seed": args.seed}, cases.PLANS[args.model].sample
        else:
            weights = checkpoint.Checkpoint(args.checkpoint).for_every_witness(Path(work) / "checkpoint")
            given, name = args.inputs, args.checkpoint.resolve().name
            kind, budget = {"kind": "checkpoint"}, 4096
        budget = budget if args.sample is None else args.sample
        print(f"{name}:", flush=True)
        generate(shop, weights, given, out, name, kind, budget)
        if args.verify:
            return verify.report(args.verify, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
