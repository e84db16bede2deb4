"""The third witness: LLaVA-NeXT and LLaVA-1.5 in plain numpy float64, written from the published semantics.

It shares no code with transformers or torch, so a misreading of one of them, or a cast left in by mistake, shows as
a disagreement. Deliberately naive: one function a step, no cache, one case at a time, one layer's weights at a time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

import dump
import geometry
import inputs
from checkpoint import Checkpoint
from nodes import TEXT, VISION

Array = np.ndarray

erf = np.frompyfunc(math.erf, 1, 1)  # numpy has none; the C library's is within one unit in the last place


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return weight * (x / np.sqrt((x**2).mean(-1, keepdims=True) + eps))


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, e) / (1 + e)


def quick_gelu(x: Array) -> Array:
    return x * sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)).astype(np.float64))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotary_tables(position_ids: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """cos and sin [T, Dh]. The float32 steps are the model's definition: positions reach further than float64 angles agree."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    inv_freq = np.float32(1) / np.power(theta, exponents).astype(np.float32)
    angle = position_ids.astype(np.float32)[:, None] * inv_freq[None, :]
    angle = np.concatenate((angle, angle), axis=1).astype(np.float64)
    return np.cos(angle).astype(np.float32).astype(np.float64), np.sin(angle).astype(np.float32).astype(np.float64)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """x [T, heads, Dh]; channel j pairs with j + Dh/2."""
    half = x.shape[-1] // 2
    turned = np.concatenate((-x[..., half:], x[..., :half]), axis=-1)
    return x * cos[:, None] + turned * sin[:, None]


def hide_later_keys(scores: Array) -> Array:
    """scores [H, T, T]: a query sees the keys up to its own row."""
    return np.where(np.triu(np.ones(scores.shape[1:], dtype=bool), 1), -np.inf, scores)


def key_head(heads: int, kv_heads: int) -> Array:
    """The key head that each query head reads: consecutive query heads share one."""
    return np.arange(heads) // (heads // kv_heads)


def unpack_tiles(tiles: Array, rows: int, columns: int, side: int) -> Array:
    """[rows*columns, side*side, C] -> the feature map [rows*side, columns*side, C]."""
    c = tiles.shape[-1]
    return tiles.reshape(rows, columns, side, side, c).transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, c)


class Model:
    def __init__(self, checkpoint: Checkpoint):
        self.config = checkpoint.config
        self._checkpoint = checkpoint

    def weight(self, name: str) -> Array:
        return self._checkpoint[name].astype(np.float64)

    def linear(self, x: Array, name: str, bias: bool = True) -> Array:
        y = x @ self.weight(f"{name}.weight").T
        return y + self.weight(f"{name}.bias") if bias else y

    def norm(self, x: Array, name: str) -> Array:
        eps = self.config.vision.layer_norm_eps
        return layer_norm(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), eps)

    def rms(self, x: Array, name: str) -> Array:
        return rms_norm(x, self.weight(f"{name}.weight"), self.config.text.rms_norm_eps)

    def forward(self, case: inputs.Case, put) -> None:
        features = None
        if case.pixel_values is not None:
            selected = self.vision_tower(case.pixel_values.astype(np.float64), put)
            features = self.image_features(selected, case, put)
        self.language_model(case, features, put)

    def vision_tower(self, pixels: Array, put) -> Array:
        v = self.config.vision
        n, p, k = pixels.shape[0], v.patches_per_side, v.patch_size
        d = v.hidden_size

        # a convolution whose stride is its kernel is a matrix product over the patches
        cut = pixels.reshape(n, v.num_channels, p, k, p, k).transpose(0, 2, 4, 1, 3, 5).reshape(n, p * p, -1)
        patches = cut @ self.weight(f"{VISION}.embeddings.patch_embedding.weight").reshape(d, -1).T  # [N, P*P, D]
        put(f"{VISION}.embeddings.patch_embedding", patches.transpose(0, 2, 1).reshape(n, d, p, p))

        token = np.broadcast_to(self.weight(f"{VISION}.embeddings.class_embedding"), (n, 1, d))
        x = np.concatenate((token, patches), axis=1)  # [N, S, D]
        x = x + self.weight(f"{VISION}.embeddings.position_embedding.weight")
        put(f"{VISION}.embeddings", x)
        x = self.norm(x, f"{VISION}.pre_layrnorm")
        put(f"{VISION}.pre_layrnorm", x)

        hidden_states = [x]
        for i in range(v.num_hidden_layers):
            x = self.vision_layer(x, f"{VISION}.encoder.layers.{i}", put)
            hidden_states.append(x)
        put(f"{VISION}.pooled", x[:, 0])
        put(f"{VISION}.post_layernorm", self.norm(x[:, 0], f"{VISION}.post_layernorm"))

        selected = hidden_states[self.config.vision_feature_layer][:, 1:]
        put("select_features", selected)
        return selected

    def vision_layer(self, x: Array, name: str, put) -> Array:
        n, s, d = x.shape
        heads = self.config.vision.num_attention_heads

        normed = self.norm(x, f"{name}.layer_norm1")
        put(f"{name}.layer_norm1", normed)
        qkv = []
        for leaf in ("q_proj", "k_proj", "v_proj"):
            y = self.linear(normed, f"{name}.self_attn.{leaf}")
            put(f"{name}.self_attn.{leaf}", y)
            qkv.append(y.reshape(n, s, heads, d // heads).transpose(0, 2, 1, 3))  # [N, H, S, Dh]
        q, k, v = qkv
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(d // heads)
        put(f"{name}.self_attn.scores", scores)
        probs = softmax(scores)
        put(f"{name}.self_attn.probs", probs)
        context = (probs @ v).transpose(0, 2, 1, 3).reshape(n, s, d)
        put(f"{name}.self_attn.context", context)
        out = self.linear(context, f"{name}.self_attn.out_proj")
        put(f"{name}.self_attn.out_proj", out)
        x = x + out
        put(f"{name}.residual_attn", x)

        normed = self.norm(x, f"{name}.layer_norm2")
        put(f"{name}.layer_norm2", normed)
        hidden = self.linear(normed, f"{name}.mlp.fc1")
        put(f"{name}.mlp.fc1", hidden)
        hidden = quick_gelu(hidden)
        put(f"{name}.mlp.activation_fn", hidden)
        out = self.linear(hidden, f"{name}.mlp.fc2")
        put(f"{name}.mlp.fc2", out)
        x = x + out
        put(name, x)
        return x

    def image_features(self, selected: Array, case: inputs.Case, put) -> Array:
        x = self.linear(selected, "multi_modal_projector.linear_1")
        put("multi_modal_projector.linear_1", x)
        x = gelu(x)
        put("multi_modal_projector.act", x)
        x = self.linear(x, "multi_modal_projector.linear_2")
        put("multi_modal_projector.linear_2", x)
        if not self.config.packs_tiles:
            return x.reshape(-1, x.shape[-1])
        packed = self.pack_image_features(x, case)
        put("pack_image_features", packed)
        return packed

    def pack_image_features(self, features: Array, case: inputs.Case) -> Array:
        """[N, P*P, C] -> [R, C]: for each image its whole view, then its feature map, unpadded, a newline after each row."""
        newline = self.weight("image_newline")
        side, c = self.config.vision.patches_per_side, features.shape[-1]
        packed, first = [], 0
        for size, count in zip(case.image_sizes, case.tile_counts(self.config)):
            rows, columns = geometry.grid(self.config, size)
            whole = unpack_tiles(features[first + 1 : first + count], rows, columns, side)
            down, across = geometry.unpadded(whole.shape[:2], size)
            kept = whole[down, across]
            ends = np.broadcast_to(newline, (kept.shape[0], 1, c))
            packed += [features[first], np.concatenate((kept, ends), axis=1).reshape(-1, c)]
            first += count
        return np.concatenate(packed)

    def language_model(self, case: inputs.Case, features: Array | None, put) -> None:
        t = self.config.text
        x = self._checkpoint[f"{TEXT}.embed_tokens.weight"][case.input_ids].astype(np.float64)
        put(f"{TEXT}.embed_tokens", x)
        if features is not None:
            x = x.copy()
            x[case.input_ids == self.config.image_token] = features
        put("merge_embeddings", x)
        cos, sin = rotary_tables(case.position_ids, t.head_dim, t.rope_theta)
        put(f"{TEXT}.rotary_emb.cos", cos)
        put(f"{TEXT}.rotary_emb.sin", sin)
        for i in range(t.num_hidden_layers):
            x = self.text_layer(x, cos, sin, f"{TEXT}.layers.{i}", put)
        x = self.rms(x, f"{TEXT}.norm")
        put(f"{TEXT}.norm", x)
        put("language_model.lm_head", self.linear(x, "language_model.lm_head", bias=False))

    def text_layer(self, x: Array, cos: Array, sin: Array, name: str, put) -> Array:
        t, text = len(x), self.config.text
        heads, kv_heads, dh = text.num_attention_heads, text.num_key_value_heads, text.head_dim

        normed = self.rms(x, f"{name}.input_layernorm")
        put(f"{name}.input_layernorm", normed)
        q, k, v = (self.linear(normed, f"{name}.self_attn.{leaf}", bias=False) for leaf in ("q_proj", "k_proj", "v_proj"))
        put(f"{name}.self_attn.q_proj", q)
        put(f"{name}.self_attn.k_proj", k)
        put(f"{name}.self_attn.v_proj", v)
        q = rotate(q.reshape(t, heads, dh), cos, sin)
        k = rotate(k.reshape(t, kv_heads, dh), cos, sin)
        put(f"{name}.self_attn.rope_q", q)
        put(f"{name}.self_attn.rope_k", k)

        shared = key_head(heads, kv_heads)
        q, k, v = q.transpose(1, 0, 2), k.transpose(1, 0, 2)[shared], v.reshape(t, kv_heads, dh).transpose(1, 0, 2)[shared]
        scores = hide_later_keys(q @ k.transpose(0, 2, 1) / math.sqrt(dh))
        put(f"{name}.self_attn.scores", scores)
        probs = softmax(scores)
        put(f"{name}.self_attn.probs", probs)
        context = (probs @ v).transpose(1, 0, 2).reshape(t, heads * dh)
        put(f"{name}.self_attn.context", context)
        out = self.linear(context, f"{name}.self_attn.o_proj", bias=False)
        put(f"{name}.self_attn.o_proj", out)
        x = x + out
        put(f"{name}.residual_attn", x)

        normed = self.rms(x, f"{name}.post_attention_layernorm")
        put(f"{name}.post_attention_layernorm", normed)
        gate = self.linear(normed, f"{name}.mlp.gate_proj", bias=False)
        up = self.linear(normed, f"{name}.mlp.up_proj", bias=False)
        put(f"{name}.mlp.gate_proj", gate)
        put(f"{name}.mlp.up_proj", up)
        active = silu(gate)
        put(f"{name}.mlp.act_fn", active)
        gated = active * up
        put(f"{name}.mlp.gated", gated)
        out = self.linear(gated, f"{name}.mlp.down_proj", bias=False)
        put(f"{name}.mlp.down_proj", out)
        x = x + out
        put(name, x)
        return x


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    model = Model(Checkpoint(args.checkpoint))
    for folder in inputs.folders(args.inputs):
        case = inputs.read(folder, model.config)
        writer = dump.Writer(args.out / case.name, case.nodes(model.config), "<f8")
        model.forward(case, writer.put)
        writer.close()
    versions = {"transformers": f"none, but numpy {np.__version__}", "torch": "none"}
    (args.out / "witness.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
