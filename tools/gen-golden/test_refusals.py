"""Every guard of the generator, seen to fail: each test plants one mistake and wants it refused.

On a model of two and two layers, so that a run takes seconds; torch runs in the environments of the two witnesses.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import numpy as np

import checkpoint
import config as configs
import dump
import inputs
import sample
import synthetic
import verify
import witness_numpy
import write

HERE = Path(__file__).resolve().parent
VENVS = Path(os.environ.get("LLAVAREF_VENV", Path.home() / ".cache" / "llavaref"))
ENVIRONMENTS = ("4.51", "5.23")


# Run in one process an environment, which imports torch once and forks for every job.
RUNNER = """
import contextlib, json, os, sys
import torch, transformers
import capture, witness_torch
transformers.LlavaNextForConditionalGeneration  # imported here, not in every child
torch.set_num_threads(1)
for job in json.load(sys.stdin):
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    try:
        exec(job["plant"], globals())
        witness_torch.main(job["args"])
        said = ""
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    open(job["report"], "w").write(said)
    os._exit(0)
"""

# Mistakes, as lines of Python that run before the witness does.
CASTS_LEFT_IN = "capture.lifted = lambda log: contextlib.nullcontext()"
BLIND = "capture.NarrowLog.__torch_dispatch__ = lambda self, f, types, args=(), kwargs=None: f(*args, **(kwargs or {}))"
WRONG_NORM = """
norm = torch.nn.LayerNorm.forward
torch.nn.LayerNorm.forward = lambda self, x: norm(self, x) * (1 + 1e-9)
"""
OTHER_WEIGHTS = """
model_class = transformers.LlavaNextForConditionalGeneration
plain = model_class.from_pretrained.__func__
def load(cls, *args, **kwargs):
    model, report = plain(cls, *args, **kwargs)
    next(p for n, p in model.named_parameters() if n.endswith("layers.1.mlp.up_proj.weight")).data[0, 0] += 1
    return model, report
model_class.from_pretrained = classmethod(load)
"""
ROUNDED_TABLE = """
check = witness_torch.check_values
witness_torch.check_values = lambda model, *args: check(model.bfloat16(), *args)
"""


def run_time_name(name: str) -> str:
    """What 4.52 to 5.5 call a parameter in memory."""
    if "lm_head" in name:
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


class Guards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls._folder.cleanup)
        cls.root = Path(cls._folder.name)
        raw = json.loads(configs.path("tiny-1.6").read_text())
        raw["vision_config"]["num_hidden_layers"] = raw["text_config"]["num_hidden_layers"] = 2
        (cls.root / "small").mkdir()
        (cls.root / "small" / "config.json").write_text(json.dumps(raw))
        cls.weights = cls.root / "weights"
        checkpoint.write_synthetic(cls.root / "small", 0, cls.weights)
        cls.config = configs.read(cls.weights)

        rng = np.random.default_rng(0)
        ids = np.concatenate((rng.integers(2, 320, 4), np.full(36, 320), rng.integers(2, 320, 8)))
        pixels = rng.normal(size=(3, 3, 56, 56)).astype(np.float32)
        cls.case = inputs.Case("case", pixels, [(52, 40)], ids, np.arange(len(ids)), {})
        cls.given = cls.root / "inputs"
        inputs.write(cls.given / "case", cls.case)
        cls.nodes = cls.case.nodes(cls.config)
        cls.truth = cls.by_numpy("truth")

        cls.spoilt = {
            "missing": cls.changed_checkpoint("missing", lambda name: None if name.endswith("layers.1.mlp.fc1.bias") else name),
            "unexpected": cls.changed_checkpoint("unexpected", lambda name: "language_model.model.extra.weight" if name == "image_newline" else name),
            "renamed": cls.changed_checkpoint("renamed", run_time_name),
        }
        cls.spoilt["copy"] = cls.copy_for_every_witness(cls.spoilt["renamed"])
        cls.said = {environment: cls.by_torch(environment) for environment in ENVIRONMENTS}

    @classmethod
    def by_numpy(cls, name: str) -> dump.Reader:
        witness_numpy.main(["--checkpoint", str(cls.weights), "--inputs", str(cls.given), "--out", str(cls.root / name)])
        return dump.Reader(cls.root / name / "case")

    @classmethod
    def by_torch(cls, environment: str) -> dict[str, str]:
        """Runs the witness once a mistake; what it said, "" if it went through."""
        jobs = {"clean": ("", cls.weights, "float64"), "casts": (CASTS_LEFT_IN, cls.weights, "float64")}
        jobs["casts unseen"] = (f"{CASTS_LEFT_IN}\n{BLIND}", cls.weights, "float64")
        jobs |= {"norm": (WRONG_NORM, cls.weights, "float64"), "weights": (OTHER_WEIGHTS, cls.weights, "float64")}
        jobs["table"] = (ROUNDED_TABLE, cls.weights, "bfloat16")
        jobs |= {name: ("", folder, "float64") for name, folder in cls.spoilt.items()}
        work = cls.root / environment
        work.mkdir()
        listed = []
        for name, (plant, weights, dtype) in jobs.items():
            args = ["--checkpoint", str(weights), "--inputs", str(cls.given), "--out", str(work / name), "--dtype", dtype]
            listed.append({"plant": plant, "args": args, "report": str(work / f"{name}.txt")})
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
        command = [str(VENVS / environment / "bin" / "python"), "-c", RUNNER]
        subprocess.run(command, cwd=HERE, check=True, input=json.dumps(listed), capture_output=True, text=True, env=os.environ | quiet)
        return {name: (work / f"{name}.txt").read_text() for name in jobs}

    @classmethod
    def changed_checkpoint(cls, name: str, change) -> Path:
        """A copy of the checkpoint whose tensors went through change(name) -> name, None to leave one out."""
        folder = cls.root / f"weights-{name}"
        shutil.copytree(cls.weights, folder)
        have = checkpoint.Checkpoint(cls.weights)
        kept = [(change(n), "F32", shape, n) for n, shape in configs.parameters(cls.config) if change(n) is not None]
        checkpoint.write(folder / "model.safetensors", [k[:3] for k in kept], (np.asarray(have[k[3]]) for k in kept))
        return folder

    @classmethod
    def copy_for_every_witness(cls, renamed: Path) -> Path:
        """Of a checkpoint under other names, whose configuration has the keys of transformers 5 as well."""
        raw = json.loads((renamed / "config.json").read_text())
        raw["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": raw["text_config"].pop("rope_theta")}
        raw["image_token_id"] = raw.pop("image_token_index")
        folder = cls.root / "weights-version-5"
        shutil.copytree(renamed, folder)
        (folder / "config.json").write_text(json.dumps(raw))
        return checkpoint.Checkpoint(folder).for_every_witness(cls.root / "weights-copy")

    def by_each(self):
        for environment in ENVIRONMENTS:
            with self.subTest(environment):
                yield environment

    def difference(self, environment: str, job: str) -> float:
        self.assertEqual(self.said[environment][job], "")
        return write.largest_difference(self.truth, dump.Reader(self.root / environment / job / "case"), self.nodes)

    # the witnesses against each other

    def test_all_witnesses_agree(self):
        for environment in self.by_each():
            self.assertLess(self.difference(environment, "clean"), write.AGREEMENT)

    def test_an_error_in_the_numpy_witness_is_refused(self):
        plants = {
            "quick_gelu": witness_numpy.gelu,
            "gelu": witness_numpy.quick_gelu,
            "softmax": lambda x, plain=witness_numpy.softmax: plain(x.astype(np.float32)).astype(np.float64),
            "key_head": lambda heads, kv_heads: np.arange(heads) % kv_heads,
            "hide_later_keys": lambda scores: np.where(np.triu(np.ones(scores.shape[1:], bool), 2), -np.inf, scores),
        }
        for name, wrong in plants.items():
            with self.subTest(name), unittest.mock.patch.object(witness_numpy, name, wrong):
                with self.assertRaisesRegex(ValueError, "differs from|other entries are finite"):
                    write.largest_difference(self.truth, self.by_numpy("planted"), self.nodes)

    def test_an_error_in_a_torch_witness_is_refused(self):
        for environment in self.by_each():
            with self.assertRaisesRegex(ValueError, "differs from"):
                self.difference(environment, "norm")

    def test_a_cast_left_in_is_seen_by_the_log(self):
        for environment in self.by_each():
            self.assertIn("rounded to a narrower float", self.said[environment]["casts"])

    def test_a_cast_left_in_is_seen_by_the_other_witnesses(self):
        for environment in self.by_each():
            with self.assertRaisesRegex(ValueError, "differs from"):
                self.difference(environment, "casts unseen")

    # loading

    def test_a_missing_tensor_is_refused(self):
        for environment in self.by_each():
            self.assertRegex(self.said[environment]["missing"], "did not load every tensor.*fc1.bias")
        with self.assertRaisesRegex(ValueError, "1 tensors are missing"):
            checkpoint.Checkpoint(self.spoilt["missing"])

    def test_an_unexpected_tensor_is_refused(self):
        for environment in self.by_each():
            self.assertIn("did not load every tensor", self.said[environment]["unexpected"])
        with self.assertRaisesRegex(ValueError, "1 tensors are missing"):
            checkpoint.Checkpoint(self.spoilt["unexpected"])

    def test_names_that_the_first_witness_would_only_warn_of(self):
        self.assertIn("did not load every tensor", self.said["4.51"]["renamed"])
        self.assertLess(self.difference("5.23", "renamed"), write.AGREEMENT)
        self.assertEqual(checkpoint.Checkpoint(self.spoilt["renamed"]).digest(), checkpoint.Checkpoint(self.weights).digest())

    def test_a_copy_for_every_witness(self):
        for environment in self.by_each():
            self.assertLess(self.difference(environment, "copy"), write.AGREEMENT)
        unchanged = checkpoint.Checkpoint(self.weights)
        self.assertEqual(unchanged.for_every_witness(self.root / "none"), self.weights)

    def test_weights_that_are_not_the_checkpoints_are_refused(self):
        for environment in self.by_each():
            self.assertIn("up_proj.weight does not hold the checkpoint's values", self.said[environment]["weights"])

    def test_a_rounded_rotary_table_is_refused(self):
        for environment in self.by_each():
            self.assertIn("inv_freq is torch.bfloat16", self.said[environment]["table"])

    # inputs, dumps, weights

    def test_inputs_that_do_not_fit_together_are_refused(self):
        wrong = {
            "image tokens in input_ids": {"input_ids": np.where(np.arange(48) == 10, 5, self.case.input_ids)},
            "want \\(3, 3, 56, 56\\)": {"pixel_values": self.case.pixel_values[:2]},
            "vocabulary 384": {"input_ids": np.where(np.arange(48) == 0, 384, self.case.input_ids)},
            "want both": {"position_ids": np.arange(47)},
        }
        for pattern, change in wrong.items():
            with self.subTest(pattern), self.assertRaisesRegex(ValueError, pattern):
                inputs.check(self.given, inputs.Case(**(vars(self.case) | change)), self.config)

    def test_a_node_left_out_or_computed_twice_is_refused(self):
        writer = dump.Writer(self.root / "partial", self.nodes[:2], "<f8")
        with self.assertRaisesRegex(KeyError, "not a node"):
            writer.put("no_such_node", np.zeros(1))
        with self.assertRaisesRegex(ValueError, "want"):
            writer.put(self.nodes[0].name, np.zeros(1))
        writer.put(self.nodes[0].name, np.zeros(self.nodes[0].shape))
        with self.assertRaisesRegex(KeyError, "twice"):
            writer.put(self.nodes[0].name, np.zeros(self.nodes[0].shape))
        with self.assertRaisesRegex(KeyError, "1 nodes were not computed"):
            writer.close()

    def test_weights_have_the_check_values(self):
        self.assertEqual(synthetic.fnv1a64("image_newline"), 0xAAC30B8B3687ACDD)
        for name, shape, limit, shift, first, total in (
            ("language_model.model.layers.0.self_attn.q_proj.weight", (64, 64), 177, 9, [25, -7, -161, 128, -101, 43, -129, -92], 2573),
            ("multi_modal_projector.linear_1.weight", (64, 32), 156, 10, [-106, 26, 123, 85, 127, -49, 27, -54], -7402),
        ):
            with self.subTest(name):
                rule = synthetic.rule(name, shape)
                self.assertEqual((rule.limit, rule.shift), (limit, shift))
                k = synthetic.tensor(name, shape, 0) * 2.0**shift
                self.assertEqual((k.ravel()[:8].tolist(), k.sum()), (first, total))

    def test_weights_are_the_committed_checksums(self):
        for model in ("tiny-1.6", "tiny-1.5"):
            with self.subTest(model):
                text = (HERE / "checksums" / f"{model}.tsv").read_text()
                self.assertEqual("".join(f"{n}\t{s}\n" for n, s in synthetic.checksums(configs.read(model), 0)), text)
                manifest = json.loads((HERE.parents[1] / "golden" / "data" / model / "manifest.json").read_text())
                self.assertEqual(text.splitlines()[-1], f"*\t{manifest['weights']['sha256']}")

    # the set

    def small_set(self, name: str) -> Path:
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        nodes = write.case(folder / "case", self.case, self.config, self.truth, 4096)
        write.floors(folder / "case", [[sample.Floor(1e-6, 1e-5, 0.0)] * len(nodes)] * 3)
        return folder

    def signed(self, folder: Path) -> Path:
        write.manifest(folder, model="small", weights={}, sample=4096, classes=[], cases=["case"])
        return folder

    def verdict(self, have: Path, want: Path) -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            return verify.report(have, want)

    def test_verify_refuses_a_changed_set(self):
        want = self.signed(self.small_set("want"))
        self.assertEqual(self.verdict(self.signed(self.small_set("have")), want), 0)

        def steps(share, count):
            def change(folder):
                values = np.load(folder / "case" / "values.npy")
                for i in range(0, values.size, int(1 / share)):
                    for _ in range(count):
                        values[i] = np.nextafter(values[i], np.float32(np.inf))
                np.save(folder / "case" / "values.npy", values)

            return change

        def floor(folder):
            floors = np.load(folder / "case" / "floors.npy")
            floors[5, 1, 0] *= 2
            np.save(folder / "case" / "floors.npy", floors)

        def why(folder):
            path = folder / "case" / "case.json"
            path.write_text(path.read_text().replace('"rows":', '"rows" :', 1))

        for what, change, verdict in (
            ("one step in one value of 20 000", steps(5e-5, 1), 0),
            ("one step in one value of 1000", steps(1e-3, 1), 1),
            ("two steps in one value", steps(1e-6, 2), 1),
            ("a floor doubled", floor, 1),
            ("a byte of case.json", why, 1),
            ("a file too many", lambda folder: (folder / "case" / "extra").write_text("x"), 1),
        ):
            with self.subTest(what):
                folder = self.small_set("have")
                change(folder)
                self.assertEqual(self.verdict(self.signed(folder), want), verdict)


if __name__ == "__main__":
    unittest.main()
