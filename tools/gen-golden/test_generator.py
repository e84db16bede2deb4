"""The generator's own tests: what must be refused is refused. `run.sh test` runs them, in the environment of the numpy witness."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

import cases
import checkpoint
import config as configs
import dump
import inputs
import synthetic
import verify
import witness_numpy
import write

HERE = Path(__file__).resolve().parent
SET = HERE.parents[1] / "golden" / "data" / "tiny-1.6"


class Witness(unittest.TestCase):
    """The third witness with a bug in it is refused, whichever bug it is. The clean one agrees with itself."""

    @classmethod
    def setUpClass(cls):
        cls.work = Path(tempfile.mkdtemp())
        cls.weights, cls.given = cls.work / "checkpoint", cls.work / "inputs"
        checkpoint.write_synthetic("tiny-1.6", 0, cls.weights)
        cls.config = configs.read(cls.weights)
        for spec in cases.PLANS["tiny-1.6"].cases:
            if spec.name == "photo-1x2-portrait":
                inputs.write(cls.given / spec.name, cases.make("tiny-1.6", spec, cls.config))
        cls.clean = cls.run_witness("clean")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work)

    @classmethod
    def run_witness(cls, name: str) -> Path:
        out = cls.work / name
        witness_numpy.main(["--checkpoint", str(cls.weights), "--inputs", str(cls.given), "--out", str(out)])
        return out

    def difference(self, name: str) -> float:
        case = inputs.read(inputs.folders(self.given)[0], self.config)
        other = self.run_witness(name)
        first, second = (dump.Reader(folder / case.name) for folder in (self.clean, other))
        return write.largest_difference(first, second, case.nodes(self.config))

    def test_clean(self):
        self.assertEqual(self.difference("again"), 0)

    def test_planted(self):
        def tanh_gelu(x):
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

        def other_sign(x, cos, sin):
            half = x.shape[-1] // 2
            return x * cos[:, None] + np.concatenate((x[..., half:], -x[..., :half]), -1) * sin[:, None]

        real_norm = witness_numpy.layer_norm
        for name, bug in {
            "gelu": tanh_gelu,
            "quick_gelu": tanh_gelu,
            "silu": witness_numpy.gelu,
            "rotate": other_sign,
            "layer_norm": lambda x, w, b, eps: real_norm(x, w, b, 1e-6),
            "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True) * (1 + 1e-9),
        }.items():
            with self.subTest(name), mock.patch.object(witness_numpy, name, bug):
                with self.assertRaisesRegex(ValueError, "differs from|other entries are finite"):
                    self.difference(f"planted-{name}")


class Synthetic(unittest.TestCase):
    def test_checksums(self):
        """The committed checksums are those of the generator as it is."""
        lines = dict(line.split("\t") for line in (HERE / "checksums" / "tiny-1.6.tsv").read_text().splitlines() if not line.startswith("#"))
        self.assertGreater(len(lines), 600)
        with tempfile.TemporaryDirectory() as work:
            checkpoint.write_synthetic("tiny-1.6", 0, Path(work) / "c")
            self.assertEqual(checkpoint.Checkpoint(Path(work) / "c").digest(), json.loads((SET / "manifest.json").read_text())["weights"]["sha256"])

    def test_first_values(self):
        self.assertEqual(synthetic.fnv1a64("image_newline"), 0xAAC30B8B3687ACDD)


class Verify(unittest.TestCase):
    """A set that differs from the one made anew fails, but for a float32 step in a few values."""

    def setUp(self):
        self.work = Path(tempfile.mkdtemp())
        self.copy = self.work / "set"
        shutil.copytree(SET, self.copy)
        self.addCleanup(shutil.rmtree, self.work)

    def change(self, name: str, do) -> int:
        path = self.copy / name
        values = np.load(path)
        do(values)
        np.save(path, values)
        return verify.report(SET, self.copy)

    def test_same(self):
        self.assertEqual(verify.report(SET, self.copy), 0)

    def test_one_step(self):
        def step(v):
            v[7] = np.nextafter(v[7], np.float32(np.inf))

        self.assertEqual(self.change("two-images/values.npy", step), 0)

    def test_two_steps(self):
        def steps(v):
            v[7] = np.nextafter(np.nextafter(v[7], np.float32(np.inf)), np.float32(np.inf))

        self.assertEqual(self.change("two-images/values.npy", steps), 1)

    def test_many_steps(self):
        def steps(v):
            v[:] = np.nextafter(v, np.float32(np.inf))

        self.assertEqual(self.change("two-images/logits.npy", steps), 1)

    def test_inputs(self):
        def other(v):
            v[3] += 1

        self.assertEqual(self.change("two-images/input_ids.npy", other), 1)

    def test_floors(self):
        def half(v):
            v[5] *= 0.3

        self.assertEqual(self.change("two-images/floors.npy", half), 1)


if __name__ == "__main__":
    unittest.main()
