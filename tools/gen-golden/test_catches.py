"""What a case says it catches, it catches: every known bug of every case's list, planted in the numpy witness.

A bug counts as caught if the witness stops (other numbers of rows), or if some node moves by more than three float32
floors, which is the limit of the accumulated verdict. The sets of the small models only: their numbers of layers,
tiles and heads are those of the real ones, or more hostile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
import unittest
from pathlib import Path
from typing import Callable
from unittest import mock

import numpy as np

import cases
import checkpoint
import geometry
import inputs
import sample
import witness_numpy as witness
from nodes import TEXT, VISION

DATA = Path(__file__).resolve().parents[2] / "golden" / "data"
ROUNDOFF = 2.0**-24
LIMIT = 3

Model = witness.Model
patch = mock.patch.object


def linear(change: Callable) -> Callable:
    """change(model, x, name, bias, plain) in place of Model.linear."""
    plain = Model.linear
    return lambda: patch(Model, "linear", lambda self, x, name, bias=True: change(self, x, name, bias, lambda *a: plain(self, *a)))


def weight(change: Callable) -> Callable:
    plain = Model.weight
    return lambda: patch(Model, "weight", lambda self, name: change(name, lambda n: plain(self, n)))


def function(name: str, replacement: Callable) -> Callable:
    return lambda: patch(witness, name, replacement)


def geometric(name: str, replacement: Callable) -> Callable:
    return lambda: patch(geometry, name, replacement)


def configured(**changes) -> Callable:
    """Fields of the text or vision configuration, or of the whole."""

    def wrap():
        plain = Model.__init__

        def init(self, ck):
            plain(self, ck)
            for key, value in changes.items():
                part, _, field = key.rpartition("__")
                if part:
                    value = dataclasses.replace(getattr(self.config, part), **{field: value})
                self.config = dataclasses.replace(self.config, **{part or field: value})

        return patch(Model, "__init__", init)

    return wrap


def packing(newline: Callable = lambda kept, ends: np.concatenate((kept, ends), axis=1), order: Callable = lambda base, tiles: [base, tiles]) -> Callable:
    """pack_image_features with another way of placing newlines, or of ordering the parts."""

    def pack(self, features, case):
        end, side, c = self.weight("image_newline"), self.config.vision.patches_per_side, features.shape[-1]
        packed, first = [], 0
        for size, count in zip(case.image_sizes, case.tile_counts(self.config)):
            rows, columns = geometry.grid(self.config, size)
            whole = witness.unpack_tiles(features[first + 1 : first + count], rows, columns, side)
            down, across = geometry.unpadded(whole.shape[:2], size)
            kept = whole[down, across]
            ends = np.broadcast_to(end, (kept.shape[0], 1, c))
            packed += order(features[first], newline(kept, ends).reshape(-1, c))
            first += count
        return np.concatenate(packed)

    return lambda: patch(Model, "pack_image_features", pack)


def no_newline_at_last_row(kept, ends):
    joined = np.concatenate((kept, ends), axis=1)
    return joined.reshape(-1, joined.shape[-1])[:-1]


def exactly(a: int, b: int, c: int) -> int:
    return int(round(a * (b / c), 7))


def in_float32(a: int, b: int, c: int) -> int:
    return int(np.float32(a) * (np.float32(b) / np.float32(c)))


def unpadded(count: Callable = exactly, is_wide: Callable = lambda ratio, cells: ratio > cells, symmetric: bool = True) -> Callable:
    """geometry.unpadded with another count of kept cells, another comparison of the aspect ratios, or another place."""

    def cut(all_: int, kept: int) -> slice:
        pad = (all_ - kept) // 2
        return slice(pad, all_ - pad if symmetric else pad + kept)

    def unpad(cells, size):
        (high, wide), (height, width) = cells, size
        if is_wide(width / height, wide / high):
            return cut(high, count(height, wide, width)), slice(0, wide)
        return slice(0, high), cut(wide, count(width, high, height))

    return geometric("unpadded", unpad)


def best_resolution(width_first=False, last_of_a_tie=False, canvas_area=False) -> Callable:
    def best(size, pinpoints):
        height, width = size
        choice, most, least = pinpoints[0], 0, math.inf
        for pinpoint in pinpoints:
            canvas = pinpoint[::-1] if width_first else pinpoint
            scale = min(canvas[1] / width, canvas[0] / height)
            kept = min(int(width * scale) * int(height * scale), canvas[0] * canvas[1] if canvas_area else width * height)
            waste = canvas[0] * canvas[1] - kept
            if kept > most or kept == most and (waste <= least if last_of_a_tie else waste < least):
                choice, most, least = canvas, kept, waste
        return choice

    return geometric("best_resolution", best)


def tables(angles: Callable) -> Callable:
    """rotary_tables from angles(position_ids, head_dim, theta) [T, Dh/2] in any dtype."""

    def made(position_ids, head_dim, theta):
        angle = angles(position_ids, head_dim, theta)
        angle = np.concatenate((angle, angle), axis=1).astype(np.float64)
        return np.cos(angle), np.sin(angle)

    return function("rotary_tables", made)


def inverse(exponents, theta):
    return np.float32(1) / np.power(theta, exponents).astype(np.float32)


def half_angles(position_ids, head_dim, theta):
    return (position_ids[:, None] * inverse(np.arange(0, head_dim, 2) / head_dim, theta)).astype(np.float16)


def exact_angles(position_ids, head_dim, theta):
    return position_ids[:, None] * np.power(float(theta), -np.arange(0, head_dim, 2) / head_dim)


def half_exponents(position_ids, head_dim, theta):
    return position_ids.astype(np.float32)[:, None] * inverse(np.arange(head_dim // 2) / head_dim, theta)


def rotating_values():
    """RoPE on the values as well: Model.linear is told the tables, since v_proj has no rotation of its own."""
    plain_tables, plain_linear, last = witness.rotary_tables, Model.linear, {}

    def remember(*args):
        last["tables"] = plain_tables(*args)
        return last["tables"]

    def rotated(self, x, name, bias=True):
        y = plain_linear(self, x, name, bias)
        if not name.startswith(TEXT) or not name.endswith("v_proj"):
            return y
        return witness.rotate(y.reshape(len(y), -1, self.config.text.head_dim), *last["tables"]).reshape(y.shape)

    stack = contextlib.ExitStack()
    stack.enter_context(patch(witness, "rotary_tables", remember))
    stack.enter_context(patch(Model, "linear", rotated))
    return stack


def interleaved(x, cos, sin):
    even, odd = x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    c, s = cos[:, None, :half], sin[:, None, :half]
    return np.stack((even * c - odd * s, odd * c + even * s), axis=-1).reshape(x.shape)


def causal_in_the_tower(x):
    if x.ndim == 4:
        x = np.where(np.triu(np.ones(x.shape[-2:], dtype=bool), 1), -np.inf, x)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def seeing_one_ahead(scores):
    return np.where(np.triu(np.ones(scores.shape[1:], dtype=bool), 2), -np.inf, scores)


def norms(change: Callable) -> Callable:
    plain = Model.norm
    return lambda: patch(Model, "norm", lambda self, x, name: change(x, name, lambda: plain(self, x, name)))


def swapped_norms():
    other = {"input_layernorm": "post_attention_layernorm", "post_attention_layernorm": "input_layernorm"}

    def swapped(self, x, name, plain=Model.rms):
        layer, _, leaf = name.rpartition(".")
        return plain(self, x, f"{layer}.{other.get(leaf, leaf)}")

    return patch(Model, "rms", swapped)


def swapped_gate(self, x, name, bias, plain):
    layer, _, leaf = name.rpartition(".")
    return plain(x, f"{layer}.{ {'gate_proj': 'up_proj', 'up_proj': 'gate_proj'}.get(leaf, leaf)}", bias)


def tower(pixels: Callable = lambda x, patch_size: x, features: Callable = lambda model, x: x) -> Callable:
    """vision_tower that gets other pixels, or gives other features."""

    def run(self, x, put, plain=Model.vision_tower):
        return features(self, plain(self, pixels(x, self.config.vision.patch_size), put))

    return lambda: patch(Model, "vision_tower", run)


def transposed_patches(pixels, k):
    """Tokens column by column: the same as the picture transposed patch by patch."""
    n, c, side, _ = pixels.shape
    return pixels.reshape(n, c, side // k, k, side // k, k).transpose(0, 1, 4, 3, 2, 5).reshape(pixels.shape)


def channels_last(pixels, k):
    """A patch flattened (ky, kx, c), under the kernel's (c, ky, kx)."""
    n, c, side, _ = pixels.shape
    p = side // k
    patches = pixels.reshape(n, c, p, k, p, k).transpose(0, 2, 4, 3, 5, 1).reshape(n, p, p, c, k, k)
    return patches.transpose(0, 3, 1, 4, 2, 5).reshape(pixels.shape)


def class_token(position: Callable) -> Callable:
    """np.concatenate of class token and patches, in another order or after the positions."""
    real = np.concatenate

    def joined(parts, axis=0, **kwargs):
        if isinstance(parts, tuple) and len(parts) == 2 and axis == 1 and parts[0].ndim == 3 and parts[0].shape[1] == 1 and parts[1].shape[1] > 1:
            return position(*parts, real)
        return real(parts, axis=axis, **kwargs)

    return lambda: patch(np, "concatenate", joined)


def without(suffixes: tuple[str, ...]) -> Callable:
    return linear(lambda self, x, name, bias, plain: plain(x, name, bias and not name.endswith(suffixes)))


def transposed(leaves: tuple[str, ...]) -> Callable:
    return weight(lambda name, plain: plain(name).T if name.endswith(tuple(f"{leaf}.weight" for leaf in leaves)) else plain(name))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def swapped_images(self, selected, case, put, plain=Model.image_features):
    """The second image's rows first."""
    packed = plain(self, selected, case, put)
    rows = geometry.feature_rows(self.config, case.image_sizes[0])
    return np.concatenate((packed[rows:], packed[:rows]))


def scaled_queries(self, x, name, bias, plain):
    heads = self.config.vision.num_attention_heads
    y = plain(x, name, bias)
    return y / math.sqrt(heads) if name.startswith(VISION) and name.endswith("q_proj") else y


def lane_dropped(self, x, name, bias, plain):
    """The tail of a dot product, beyond the last full vector of 16, is left out."""
    tail = x.shape[-1] % 16
    return plain(np.concatenate((x[..., : x.shape[-1] - tail], np.zeros_like(x[..., :tail])), axis=-1), name, bias)


BUGS: dict[str, Callable] = {
    "C01": configured(text__rope_theta=50_000.0),  # wrong for both models
    "C02": configured(text__rms_norm_eps=1e-6),
    "C04": configured(vision_feature_layer=-1),
    "C05": configured(vision_feature_layer=-3),
    "C06": configured(vision_feature_layer=-1),
    "C07": weight(lambda name, plain: plain(f"{TEXT}.embed_tokens.weight" if "lm_head" in name else name)),
    "C09": weight(lambda name, plain: plain(name) * (name != "image_newline")),
    "C13": transposed(("q_proj", "o_proj", "out_proj", "linear_2")),
    "C14": linear(swapped_gate),
    "C15": swapped_norms,
    "C19": weight(lambda name, plain: plain(name)[::-1] if "lm_head" in name else plain(name)),
    "L01": function("rotate", interleaved),
    "L02": function("rotate", lambda x, cos, sin, plain=witness.rotate: plain(x, cos, -sin)),
    "L03": function("rotate", lambda x, cos, sin, plain=witness.rotate: plain(x, sin, cos)),
    "L04": rotating_values,
    "L06": tables(half_exponents),
    "L07": function("rotary_tables", lambda p, d, t, plain=witness.rotary_tables: plain(p + 1, d, t)),
    "L09": tables(exact_angles),
    "L10": tables(half_angles),
    "L11": function("key_head", lambda heads, kv: np.arange(heads) % kv),
    "L14": function("hide_later_keys", seeing_one_ahead),
    "L15": function("hide_later_keys", lambda scores: scores),
    "L20": function("rms_norm", lambda x, w, eps: witness.layer_norm(x, w, 0.0, eps)),
    "L21": function("rms_norm", lambda x, w, eps, plain=witness.rms_norm: plain(x, 1 + w, eps)),
    "L23": function("rms_norm", lambda x, w, eps: w * x / np.sqrt((x**2).sum(-1, keepdims=True) + eps)),
    "L25": function("silu", witness.gelu),
    "L26": linear(swapped_gate),
    "L29": lambda: patch(Model, "rms", lambda self, x, name, plain=Model.rms: x if name == f"{TEXT}.norm" else plain(self, x, name)),
    "V01": tower(pixels=channels_last),
    "V03": tower(pixels=transposed_patches),
    "V04": class_token(lambda token, patches, join: join((patches, token), axis=1)),
    "V06": class_token(lambda token, patches, join: join((token, np.roll(patches, 1, axis=1)), axis=1)),
    "V07": norms(lambda x, name, plain: x if name.endswith("pre_layrnorm") else plain()),
    "V08": tower(features=lambda model, x: model.norm(x, f"{VISION}.post_layernorm")),
    "V09": tower(features=lambda model, x: np.roll(x, 1, axis=1)),
    "V10": function("quick_gelu", witness.gelu),
    "V11": function("quick_gelu", witness.silu),
    "V12": linear(scaled_queries),
    "V13": function("softmax", causal_in_the_tower),
    "V15": without(("self_attn.k_proj",)),
    "V17": function("layer_norm", lambda x, w, b, eps: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + eps) * w + b),
    "J01": function("gelu", tanh_gelu),
    "J02": function("gelu", witness.quick_gelu),
    "J04": without(("linear_1", "linear_2")),
    "K01": packing(newline=lambda kept, ends: kept),
    "K03": packing(newline=lambda kept, ends: np.concatenate((ends, kept), axis=1)),
    "K05": packing(newline=no_newline_at_last_row),
    "K07": packing(order=lambda base, tiles: [tiles, base]),
    "K08": function("unpack_tiles", lambda tiles, rows, columns, side: tiles.reshape(rows * side, columns * side, -1)),
    "K09": function("unpack_tiles", lambda tiles, rows, columns, side, plain=witness.unpack_tiles: plain(tiles, columns, rows, side)),
    "K10": geometric("unpadded", lambda cells, size: (slice(0, cells[0]), slice(0, cells[1]))),
    "K11": unpadded(lambda a, b, c: int(a * (b / c))),
    "K12": unpadded(in_float32),
    "K13": unpadded(symmetric=False),
    "K15": unpadded(is_wide=lambda ratio, cells: ratio < cells),
    "K16": unpadded(lambda a, b, c: int(a * (c / b)) if a * (c / b) < b else 0),
    "K20": unpadded(is_wide=lambda ratio, cells: 1 / ratio > cells),
    "M02": lambda: patch(Model, "image_features", swapped_images),
    "M03": configured(image_token=321),
    "P01": best_resolution(width_first=True),
    "P02": geometric("unpadded", lambda cells, size, plain=geometry.unpadded: plain(cells, size[::-1])),
    "P03": best_resolution(last_of_a_tie=True),
    "P04": best_resolution(canvas_area=True),
    "A01": linear(lane_dropped),
}


class Caught(Exception):
    """A node is off: the rest of the run need not be waited for."""


class Truth:
    """A case of a committed set, by the witness without a bug."""

    def __init__(self, weights: checkpoint.Checkpoint, set_: Path, prompt: inputs.Case):
        self.weights, self.prompt = weights, prompt
        self.nodes = {node.name: node for node in prompt.nodes(weights.config)}
        self.floors = dict(zip(self.nodes, np.load(set_ / prompt.name / "floors.npy")[:, 0].astype(np.float64)))
        self.budget = json.loads((set_ / "manifest.json").read_text())["sample"]
        self.values: dict[str, np.ndarray] = {}
        Model(weights).forward(prompt, self.values.__setitem__)

    def must_hold(self, name: str, values: np.ndarray) -> None:
        node = self.nodes[name]
        if values.size != math.prod(node.shape):
            raise Caught(f"{name}: {values.size} values")
        error = sample.Measure(self.values[name].reshape(node.shape), node, self.budget).error(values.reshape(node.shape))
        whole, row = LIMIT * max(self.floors[name][0], ROUNDOFF / math.sqrt(3)), LIMIT * max(self.floors[name][1], ROUNDOFF)
        if not (error.whole <= whole and error.worst_row <= row):  # which is so for not-a-number as well
            raise Caught(f"{name}: {error.whole / whole:.3g} and {error.worst_row / row:.3g} of the limits")

    def catches(self, bug: str) -> str:
        """Where the bug shows, or nothing."""
        try:
            with BUGS[bug]():
                Model(self.weights).forward(self.prompt, self.must_hold)
        except (Caught, ValueError, IndexError) as error:  # the latter two: the features are not as many as the tokens
            return str(error)
        return ""


class Catches(unittest.TestCase):
    def check(self, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.write_synthetic(name, 0, Path(folder))
            weights = checkpoint.Checkpoint(Path(folder))
            for spec in cases.PLANS[name].cases:
                truth = Truth(weights, DATA / name, cases.make(name, spec, weights.config))
                for bug in spec.catches:
                    with self.subTest(set=name, case=spec.name, bug=bug):
                        self.assertTrue(truth.catches(bug), f"{bug} passes {name}/{spec.name}")
                with self.subTest(set=name, case=spec.name, bug="none"):
                    Model(weights).forward(truth.prompt, truth.must_hold)

    def test_tiny_16(self):
        self.check("tiny-1.6")

    def test_tiny_15(self):
        self.check("tiny-1.5")


if __name__ == "__main__":
    unittest.main()
