"""Plants known bugs into transformers and into the numpy witness, has the dumps judged, and prints docs/planted.md.

    go build -o llavaref ./cmd/llavaref
    python3 tools/adapters/transformers/planted.py --llavaref ./llavaref > docs/planted.md

Nothing here has seen the suite's own catalogue: a bug of transformers is a change of a module or a function of its, one of the witness is what
tools/gen-golden/test_catches.py plants. The ids are those of docs/known-bugs.md.

Needs what matrix.py needs: uv or python3.11, and makes the environment of transformers 5.23 in $LLAVAREF_ADAPTERS. The dumps take 5 GB, in --keep or
in a temporary folder. --only K14 plants those alone whose id matches.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import fnmatch
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable
from unittest import mock

import matrix

GEN_GOLDEN = Path(__file__).resolve().parents[2] / "gen-golden"
VERSION = "5.23"

TEXT, SMALL, FAR = "tiny-1.6/text-small-norms", "tiny-1.5/text", "tiny-1.6/text-far-positions"
ROWS, WIDE, TALL, SQUARE = "tiny-1.6/photo-2x2-rows", "tiny-1.6/photo-1x3", "tiny-1.6/noise-3x1", "tiny-1.6/checker-2x2-columns"
TWO, TWO_15, STRIP, PORTRAIT = "tiny-1.6/two-images", "tiny-1.5/two-images", "tiny-1.6/strip-no-rows", "tiny-1.6/photo-1x2-portrait"

# Why a bug is not named, or not where it was planted, by engine, id and prompt; the prompt may be left out.
WHY = {
    ("transformers", "C19", TEXT): "weights of no known origin: that the product is wrong is all that can be said",
    ("transformers", "L28"): "the adapter shows the input of the MLP's norm as residual_attn: the stream without the branch, which is what L33 says",
    ("witness", "P04"): "the canvas has other tiles than there are in the pixels: the witness stops in packing, before it shows anything that is wrong",
    ("witness", "V03"): "planted in the pixels, before the patch embedding",
    ("witness", "V08"): "the witness shows select_features before it is changed, so the change stands at the next node",
    ("witness", "V09"): "the witness shows select_features before it is changed, so the change stands at the next node",
    ("witness", "L10", FAR): "the float32 angle is rounded to float16; the bug that is known multiplies in float16, and positions beyond 2048 are no numbers of that",
    ("witness", "M02", TWO): "planted behind the packing that the witness shows, so the change stands at merge_embeddings, where this bug is known of LLaVA-1.5 alone",
    ("witness", "M02", TWO_15): "planted where LLaVA-1.6 packs: LLaVA-1.5 does not, so the change stands at merge_embeddings",
    ("witness", "M03"): "no position is an image's: the witness stops before it shows merge_embeddings",
    ("witness", "C19"): "the rows of lm_head in the reverse order, which stands for any other matrix",
    ("witness", "L26"): "planted by exchanging the two matrices, which is C14",
}


@dataclass
class Plant:
    id: str  # several, with / between them, where they are the same here
    what: str
    node: str  # how the name of the node ends where it is planted
    cases: tuple[str, ...]
    plant: Callable[["Engine"], None]


class Engine:
    """A copy of transformers' model that may be changed; what is changed elsewhere is taken back by undo."""

    def __init__(self, model, undo: contextlib.ExitStack):
        self.model, self._undo = copy.deepcopy(model), undo
        self.top = self.model.model
        self.vision, self.text, self.projector = self.top.vision_tower, self.top.language_model, self.top.multi_modal_projector
        self.tower, self.layers = self.vision.encoder.layers, self.text.layers
        self.config = self.model.config

    def patch(self, owner, name: str, new) -> None:
        self._undo.enter_context(mock.patch.object(owner, name, new))

    @staticmethod
    def forward(module, change: Callable) -> None:
        """change(plain) is the module's forward from now on."""
        module.forward = change(module.forward)


def plants() -> list[Plant]:
    """The bugs of transformers."""
    import torch
    import torch.nn.functional as F
    from transformers.models.clip import modeling_clip
    from transformers.models.llama import modeling_llama
    from transformers.models.llava_next import modeling_llava_next

    out: list[Plant] = []

    def bug(id: str, what: str, node: str, cases: str | tuple[str, ...], plant: Callable) -> None:
        out.append(Plant(id, what, node, (cases,) if isinstance(cases, str) else cases, plant))

    def each(modules: Callable, change: Callable) -> Callable:
        """change of every module that is meant."""
        return lambda e: [change(m) for m in modules(e)]

    def write(parameter: Callable, value: Callable) -> Callable:
        """Other values for a parameter."""

        def plant(e):
            p = parameter(e)
            p.data = value(e, p.data.clone()).clone()

        return plant

    def exchange(a, b) -> None:
        a.data, b.data = b.data, a.data

    def of(kind) -> Callable:
        return lambda e: [m for m in e.model.modules() if isinstance(m, kind)]

    rms, norms = of(modeling_llama.LlamaRMSNorm), of(torch.nn.LayerNorm)
    attentions, mlps = lambda e: [x.self_attn for x in e.layers], lambda e: [x.mlp for x in e.layers]

    # Configuration and loading.

    def frequencies(dim, theta, count=None, over=None):
        return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float)[:count] / (over or dim))

    def inverse(value: Callable) -> Callable:
        """value(inv_freq, Dh, theta) for the inverse frequencies."""

        def plant(e):
            r = e.text.rotary_emb
            r.inv_freq = value(r.inv_freq, e.layers[0].self_attn.head_dim, e.config.text_config.rope_parameters["rope_theta"])

        return plant

    bug("C01", "rope_theta 50000", "rotary_emb.cos", TEXT, inverse(lambda inv, dim, theta: frequencies(dim, 50000.0)))
    bug("C02", "rms_norm_eps 1e-6", "layers.0.input_layernorm", TEXT, each(rms, lambda m: setattr(m, "variance_epsilon", 1e-6)))
    bug("C03", "layer_norm_eps 1e-12", "pre_layrnorm", ROWS, each(norms, lambda m: setattr(m, "eps", 1e-12)))

    def layer(i: int) -> Callable:
        return lambda e: setattr(e.top.config, "vision_feature_layer", i)

    bug("C04/C06", "vision_feature_layer -1", "select_features", ROWS, layer(-1))
    bug("C05/C06", "vision_feature_layer -3", "select_features", ROWS, layer(-3))

    head, embedding = lambda e: e.model.lm_head.weight, lambda e: e.text.embed_tokens.weight
    bug("C07", "lm_head is the embedding", "lm_head", TEXT, write(head, lambda e, w: embedding(e).data))
    for by in (-1, 1):
        shifted = lambda e, w, by=by: w.roll(-by, 0)
        bug("C08", f"rows of lm_head shifted by {by:+d}", "lm_head", TEXT, write(head, shifted))
        bug("C08", f"rows of the embedding shifted by {by:+d}", "embed_tokens", TEXT, write(embedding, shifted))

    def random(e, w):
        return torch.randn(w.shape, generator=torch.Generator().manual_seed(0)) / math.sqrt(w.shape[-1])

    newline = lambda e: e.top.image_newline
    bug("C09", "image_newline zeros", "pack_image_features", ROWS, write(newline, lambda e, w: w * 0))
    bug("C09", "image_newline newly initialised", "pack_image_features", ROWS, write(newline, random))

    def in_gguf(w, heads):
        return w.reshape(heads, 2, -1, w.shape[-1]).transpose(1, 2).reshape(w.shape)

    def out_of_gguf(w, heads):
        return w.reshape(heads, -1, 2, w.shape[-1]).transpose(1, 2).reshape(w.shape)

    def left_in_gguf(a):
        a.q_proj.weight.data = in_gguf(a.q_proj.weight.data, a.config.num_attention_heads)
        a.k_proj.weight.data = in_gguf(a.k_proj.weight.data, a.config.num_key_value_heads)

    def taken_out_wrong(a):
        a.k_proj.weight.data = out_of_gguf(in_gguf(a.k_proj.weight.data, a.config.num_key_value_heads), a.config.num_attention_heads)

    bug("C10", "q and k left in GGUF's order", "q_proj", (TEXT, SMALL), each(attentions, left_in_gguf))
    bug("C10", "k out of GGUF's order with the number of query heads", "k_proj", TEXT, each(attentions, taken_out_wrong))

    def literally(x):
        a, b = x.mlp.fc1.weight, x.mlp.fc2.weight
        a.data, b.data = b.data.reshape(a.shape), a.data.reshape(b.shape)

    bug("C11", "weights of fc1 and fc2 exchanged", "mlp.fc1", ROWS, each(lambda e: e.tower, literally))
    bug("C13", "o_proj transposed", "o_proj", TEXT, each(attentions, lambda a: setattr(a.o_proj.weight, "data", a.o_proj.weight.data.T.clone())))
    bug("C13", "linear_2 transposed", "linear_2", ROWS, write(lambda e: e.projector.linear_2.weight, lambda e, w: w.T))
    bug("C14", "gate and up exchanged", "mlp.gate_proj", TEXT, each(mlps, lambda m: exchange(m.gate_proj.weight, m.up_proj.weight)))
    bug("C15", "the two norms of a layer exchanged", "layers.0.input_layernorm", TEXT, each(lambda e: e.layers, lambda x: exchange(x.input_layernorm.weight, x.post_attention_layernorm.weight)))
    kernel = lambda e: e.vision.embeddings.patch_embedding.weight
    bug("C18", "float16 subnormals of the patch kernel read as 0", "patch_embedding", ROWS, write(kernel, lambda e, w: torch.where(w.abs() < 2.0**-14, 0.0, w)))
    bug("C19", "lm_head zeros", "lm_head", TEXT, write(head, lambda e, w: w * 0))
    bug("C19", "o_proj of layer 3 newly initialised", "layers.3.self_attn.o_proj", TEXT, write(lambda e: e.layers[3].self_attn.o_proj.weight, random))

    def counted_from_1(e):
        states = [copy.deepcopy(x.state_dict()) for x in e.layers]
        for i, x in enumerate(e.layers):
            x.load_state_dict(states[min(i + 1, len(states) - 1)])

    bug("C20", "layers counted from 1", "layers.0.input_layernorm", TEXT, counted_from_1)
    bug("C21", "k and v exchanged", "k_proj", TEXT, each(attentions, lambda a: exchange(a.k_proj.weight, a.v_proj.weight)))

    def groups(a):
        w, kv = a.o_proj.weight, a.config.num_key_value_heads
        w.data = w.data.reshape(len(w), -1, kv, a.head_dim).transpose(1, 2).reshape(w.shape)

    bug("C22", "columns of o_proj in the order of groups", "o_proj", TEXT, each(attentions, groups))

    def fused(a):
        kv, group = a.config.num_key_value_heads, a.num_key_value_groups
        q, k, v = (m.weight.data for m in (a.q_proj, a.k_proj, a.v_proj))
        d = q.shape[-1]
        qkv = torch.cat((q.reshape(kv, group * a.head_dim, d), k.reshape(kv, a.head_dim, d), v.reshape(kv, a.head_dim, d)), 1).reshape(-1, d)
        a.q_proj.weight.data, a.k_proj.weight.data, a.v_proj.weight.data = (x.clone() for x in qkv.split((len(q), len(k), len(v))))

    bug("C23", "a fused qkv, grouped by key head, cut into blocks", "q_proj", (TEXT, SMALL), each(attentions, fused))

    # The vision tower.

    bug("V01", "patches flattened (row, column, channel) under a kernel (channel, row, column)", "patch_embedding", ROWS, write(kernel, lambda e, w: w.reshape(len(w), *w.shape[2:], w.shape[1]).permute(0, 3, 1, 2)))
    bug("V18", "patch kernel transposed", "patch_embedding", ROWS, write(kernel, lambda e, w: w.transpose(2, 3)))
    bug("V18", "patch kernel mirrored", "patch_embedding", ROWS, write(kernel, lambda e, w: w.flip(2, 3)))
    bug("P28", "BGR", "patch_embedding", ROWS, write(kernel, lambda e, w: w.flip(1)))

    def embeddings(make: Callable) -> Callable:
        """make(class token [N, 1, D], patches [N, D, P, P], positions [S, D]) are the embeddings."""

        def plant(e):
            m = e.vision.embeddings

            def forward(pixel_values, *args, **kwargs):
                return make(m.class_embedding.expand(len(pixel_values), 1, -1), m.patch_embedding(pixel_values), m.position_embedding.weight)

            m.forward = forward

        return plant

    def line(patches):
        return patches.flatten(2).transpose(1, 2)

    bug("V03", "patches column by column", "embeddings", ROWS, embeddings(lambda c, x, p: torch.cat((c, line(x.transpose(2, 3))), 1) + p))
    bug("V04", "class token last", "embeddings", ROWS, embeddings(lambda c, x, p: torch.cat((line(x), c), 1) + p))
    bug("V06", "class token in front behind the positions", "embeddings", ROWS, embeddings(lambda c, x, p: torch.cat((c, line(x) + p[:-1]), 1)))
    bug("V19", "no positions", "embeddings", ROWS, embeddings(lambda c, x, p: torch.cat((c, line(x)), 1)))
    bug("V20", "class token zeros", "embeddings", ROWS, embeddings(lambda c, x, p: torch.cat((c * 0, line(x)), 1) + p))
    bug("V07", "pre_layrnorm skipped", "pre_layrnorm", ROWS, lambda e: e.forward(e.vision.pre_layrnorm, lambda plain: lambda x: x))

    def selected(change: Callable) -> Callable:
        """change(engine, features without the class token, all of them) are what the projector reads."""

        def plant(e):
            seen = {}
            e.tower[e.top.config.vision_feature_layer].register_forward_hook(lambda m, args, y: seen.update(all=y[0] if isinstance(y, tuple) else y))
            e.projector.register_forward_pre_hook(lambda m, args: (change(e, args[0], seen["all"]),))

        return plant

    bug("V08", "post_layernorm on the features", "select_features", ROWS, selected(lambda e, x, y: F.layer_norm(x, x.shape[-1:], e.vision.post_layernorm.weight, e.vision.post_layernorm.bias, e.vision.post_layernorm.eps)))
    
    def none_run(e):
        e.vision.pre_layrnorm.register_forward_hook(lambda m, args, y: setattr(e, "first", y))
        e.projector.register_forward_pre_hook(lambda m, args: (e.first[:, 1:],))

    bug("C06", "no vision layer run", "select_features", ROWS, none_run)
    bug("V09", "last token dropped for the class token", "select_features", ROWS, selected(lambda e, x, y: y[:, :-1]))

    def activation(f: Callable) -> Callable:
        return each(lambda e: [x.mlp.activation_fn for x in e.tower], lambda m: setattr(m, "forward", f))

    tanh = lambda x: F.gelu(x, approximate="tanh")
    for id, what, f in (("V10", "GELU with erf", F.gelu), ("V10", "GELU with tanh", tanh), ("V11", "SiLU", F.silu)):
        bug(id, what, "mlp.activation_fn", ROWS, activation(f))
    for what, scale in (("1/sqrt(D)", lambda a: a.embed_dim**-0.5), ("1/sqrt(H)", lambda a: a.num_heads**-0.5), ("twice", lambda a: a.scale**2)):
        bug("V12", f"scale {what}", "scores", ROWS, each(lambda e: [x.self_attn for x in e.tower], lambda a, scale=scale: setattr(a, "scale", scale(a))))
    bug("V12", "no scale", "scores", ROWS, each(lambda e: [x.self_attn for x in e.tower], lambda a: setattr(a, "scale", 1.0)))

    def attention(qk=lambda x: x, scores=lambda x: x, axis=-1, joined=lambda x: x.transpose(1, 2)) -> Callable:
        """The tower's attention with a step changed."""

        def run(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
            query, key = qk(query), qk(key)
            probs = F.softmax(scores(torch.matmul(query, key.transpose(-1, -2)) * scaling), dim=axis)
            return joined(torch.matmul(probs, value)).contiguous(), probs

        return lambda e: e.patch(modeling_clip, "eager_attention_forward", run)

    def mask(allowed):
        return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

    def interleaved(x):
        n, h, s, d = x.shape
        return x.transpose(1, 2).reshape(n, s, d, h).permute(0, 3, 1, 2)

    bug("V13", "causal mask in the tower", "scores", ROWS, attention(scores=lambda x: x + mask(torch.ones(x.shape[-2:], dtype=torch.bool).tril())))

    def layer_norm(statistics: Callable) -> Callable:
        """statistics(x, eps) are what is subtracted and what is divided by."""

        def change(m):
            def forward(x):
                mean, scale = statistics(x, m.eps)
                return (x - mean) / scale * m.weight + m.bias

            m.forward = forward

        return each(norms, change)

    mean = lambda x: x.mean(-1, keepdim=True)
    bug("V17", "variance with n - 1", "pre_layrnorm", ROWS, layer_norm(lambda x, eps: (mean(x), (x.var(-1, keepdim=True) + eps).sqrt())))
    bug("V21", "mean not subtracted", "pre_layrnorm", ROWS, layer_norm(lambda x, eps: (0, (mean(x**2) + eps).sqrt())))
    bug("V22", "eps outside of the root", "pre_layrnorm", ROWS, layer_norm(lambda x, eps: (mean(x), x.var(-1, keepdim=True, correction=0).sqrt() + eps)))

    def bias(modules: Callable, times: float) -> Callable:
        return each(modules, lambda m: setattr(m.bias, "data", m.bias.data * times))

    bug("V15", "bias of k_proj missing", "k_proj", ROWS, bias(lambda e: [x.self_attn.k_proj for x in e.tower], 0))
    bug("V16", "bias of fc1 twice", "fc1", ROWS, bias(lambda e: [x.mlp.fc1 for x in e.tower], 2))
    bug("V23", "heads interleaved", "scores", ROWS, attention(qk=interleaved))
    bug("V24", "heads joined channels first", "context", ROWS, attention(joined=lambda x: x.permute(0, 2, 3, 1)))
    bug("V25", "no transpose behind the attention", "context", ROWS, attention(joined=lambda x: x))
    bug("V26", "softmax over the queries", "probs", ROWS, attention(axis=-2))

    # The projector.

    for id, what, f in (("J01", "tanh GELU", tanh), ("J02", "QuickGELU", lambda x: x * torch.sigmoid(1.702 * x)), ("J02", "ReLU", F.relu), ("J02", "SiLU", F.silu)):
        bug(id, what, "multi_modal_projector.act", ROWS, lambda e, f=f: setattr(e.projector.act, "forward", f))
    bug("J04", "bias of linear_1 missing", "linear_1", ROWS, bias(lambda e: [e.projector.linear_1], 0))

    # Packing. A grid is [C, H, W], the features of tiles [tiles, P*P, C].

    def merged(tiles, rows, columns, side):
        return tiles.reshape(rows, columns, side, side, -1).permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)

    def after(grid, end):
        return torch.cat((grid, end[:, None, None].expand(-1, grid.shape[1], 1)), 2).flatten(1, 2).T

    def packing(tiles=lambda x, r, c: x, merge=merged, ends=after, order=lambda base, tiles: (base, tiles), images=lambda x: x, unpad=None) -> Callable:
        """pack_image_features with a step changed."""

        def plant(e):
            vision, pinpoints = e.top.config.vision_config, e.top.config.image_grid_pinpoints
            side = vision.image_size // vision.patch_size

            def pack(image_features, image_sizes, vision_feature_select_strategy=None, image_newline=None):
                packed = []
                for feature, size in zip(image_features, image_sizes):
                    rows, columns = modeling_llava_next.get_anyres_image_grid_shape(size, pinpoints, vision.image_size)
                    grid = merge(tiles(feature[1:], rows, columns), rows, columns, side)
                    grid = (unpad or modeling_llava_next.unpad_image)(grid, size)
                    packed.append(torch.cat(order(feature[0], ends(grid, image_newline))))
                return images(packed), torch.tensor([len(x) for x in packed])

            e.patch(e.top, "pack_image_features", pack)

        return plant

    def pack(id: str, what: str, cases: str | tuple[str, ...], plant: Callable) -> None:
        bug(id, what, "pack_image_features", cases, plant)

    whole = lambda grid, size: grid
    plain = lambda grid, end: grid.flatten(1, 2).T
    in_memory = lambda x, rows, columns, side: x.reshape(rows * side, columns * side, -1).permute(2, 0, 1)
    flat = lambda x, rows, columns, side: x.flatten(0, 1).T[:, None]

    pack("K01", "no newline", (ROWS, WIDE), packing(ends=plain))
    pack("K03", "newline before each row", ROWS, packing(ends=lambda grid, end: torch.cat((end[:, None, None].expand(-1, grid.shape[1], 1), grid), 2).flatten(1, 2).T))
    pack("K05", "no newline after the last row", ROWS, packing(ends=lambda grid, end: after(grid, end)[:-1]))
    pack("K07", "whole image last", (ROWS, TWO), packing(order=lambda base, tiles: (tiles, base)))
    pack("K07", "whole image left out", ROWS, packing(order=lambda base, tiles: (tiles,)))
    pack("K07", "tiles left out", ROWS, packing(order=lambda base, tiles: (base,)))
    pack("K08", "tiles one after another", (ROWS, WIDE), packing(merge=in_memory))

    def exchanged(x, rows, columns, side):
        return merged(x, columns, rows, side)

    pack("K09", "rows and columns of the grid exchanged, then viewed as the right one", WIDE, packing(merge=lambda x, rows, columns, side: exchanged(x, rows, columns, side).reshape(-1, rows * side, columns * side)))
    pack("K09", "rows and columns of the grid exchanged", (TALL, TWO), packing(merge=exchanged))
    pack("K10", "not unpadded", (ROWS, SQUARE), packing(unpad=whole))

    def unpadding(scaled=lambda side, other, own: int(round(side * (other / own), 7)), wide=lambda ratio, grid: ratio > grid, cut=lambda all_, kept: slice((all_ - kept) // 2, all_ - (all_ - kept) // 2)) -> Callable:
        """unpad_image with a step changed: how much is kept, of what, and where it is cut."""

        def unpad(grid, size):
            (height, width), (high, across) = [int(x) for x in size], grid.shape[1:]
            if wide(width / height, across / high):
                return grid[:, cut(high, scaled(height, across, width))]
            return grid[:, :, cut(across, scaled(width, high, height))]

        return lambda e: e.patch(modeling_llava_next, "unpad_image", unpad)

    def in_float32(a, b, c):
        x = torch.tensor([a, b, c], dtype=torch.float32)
        return int(x[0] * (x[1] / x[2]))

    pack("K11", "not rounded to 7 decimals", WIDE, unpadding(lambda a, b, c: int(a * (b / c))))
    pack("K12", "float32", TALL, unpadding(in_float32))
    pack("K13", "the odd row cut as well", (TALL, SQUARE), unpadding(cut=lambda all_, kept: slice((all_ - kept) // 2, (all_ - kept) // 2 + kept)))
    pack("K14", "rounded up", (TWO, STRIP), unpadding(lambda a, b, c: math.ceil(round(a * (b / c), 7))))
    pack("K15", "comparison reversed", ROWS, unpadding(wide=lambda ratio, grid: ratio < grid))
    pack("K16", "inverse scale", ROWS, unpadding(lambda a, b, c: int(round(a * (c / b), 7))))
    pack("K18", "read column by column", ROWS, packing(ends=lambda grid, end: after(grid.transpose(1, 2), end)))
    pack("K23", "tiles in the reverse order", ROWS, packing(tiles=lambda x, rows, columns: x.flip(0)))
    pack("K24", "cells of a tile column by column", ROWS, packing(merge=lambda x, rows, columns, side: merged(x.reshape(len(x), side, side, -1).transpose(1, 2).flatten(1, 2), rows, columns, side)))
    pack("K25", "unpadded at the end only", (SQUARE, ROWS), unpadding(cut=lambda all_, kept: slice(0, all_ - (all_ - kept) // 2 * 2)))

    def by_the_width(grid, size):
        (height, width), (high, across) = [int(x) for x in size], grid.shape[1:]
        if width / height > across / high:
            padding = (high - int(round(height * (across / width), 7))) // 2
            return grid[:, padding : across - padding]
        padding = (across - int(round(width * (high / height), 7))) // 2
        return grid[:, :, padding : across - padding]

    pack("K26", "rows cut at the end counted by the width", TWO, packing(unpad=by_the_width))
    pack("K27", "neither unpadded nor a newline", (ROWS, WIDE), packing(unpad=whole, ends=plain))
    pack("K28", "all tiles one after another, as they are", (ROWS, WIDE), packing(merge=flat, unpad=whole, ends=plain))

    def swapped_sizes(e):
        unpad = modeling_llava_next.unpad_image
        e.patch(modeling_llava_next, "unpad_image", lambda grid, size: unpad(grid, size.flip(0)))

    pack("P02", "width and height of the sizes exchanged", (ROWS, SQUARE), swapped_sizes)
    pack("P18", "tiles column by column", ROWS, packing(tiles=lambda x, rows, columns: x.reshape(rows, columns, *x.shape[1:]).transpose(0, 1).flatten(0, 1)))
    pack("M02", "images in the reverse order", TWO, packing(images=lambda x: x[::-1]))

    def canvas(width_first=False, last_of_a_tie=False) -> Callable:
        def best(size, pinpoints):
            (height, width), choice, most, least = size, None, 0, math.inf
            for pinpoint in pinpoints:
                high, across = pinpoint[::-1] if width_first else pinpoint
                scale = min(across / width, high / height)
                kept = min(int(width * scale) * int(height * scale), width * height)
                waste = high * across - kept
                if kept > most or kept == most and (waste <= least if last_of_a_tie else waste < least):
                    choice, most, least = (high, across), kept, waste
            return choice

        return lambda e: e.patch(modeling_llava_next, "select_best_resolution", best)

    pack("P01", "pinpoints read as (width, height)", PORTRAIT, canvas(width_first=True))
    pack("P03", "the later of two equal canvases", PORTRAIT, canvas(last_of_a_tie=True))

    # Merging.

    def merging(change: Callable) -> Callable:
        """change(engine, embeddings [T, C], which are of images [T], rows [R, C]) are what the decoder reads."""

        def plant(e):
            seen = {}
            e.text.embed_tokens.register_forward_hook(lambda m, args, y: seen.update(ids=args[0][0], embedded=y[0]))

            def read(module, args, kwargs):
                images = seen["ids"] == e.config.image_token_id
                x = change(e, seen["embedded"], images, kwargs["inputs_embeds"][0][images])
                return args, kwargs | {"inputs_embeds": x[None]}

            e.text.register_forward_pre_hook(read, with_kwargs=True)

        return plant

    def put(x, images, rows):
        x = x.clone()
        x[images] = rows.to(x.dtype)
        return x

    def merge(id: str, what: str, cases: str | tuple[str, ...], change: Callable) -> None:
        bug(id, what, "merge_embeddings", cases, merging(change))

    def second(images):
        """Which positions are of images behind the first."""
        begins = images & ~torch.cat((torch.zeros(1, dtype=torch.bool), images[:-1]))
        return images & (begins.cumsum(0) > 1)

    def one_late(e, x, images, rows):
        x, late = put(x, images, rows), second(images)
        at = late | late.roll(1)  # and the token behind, which takes the place in front
        x[at] = x[at].roll(1, 0)
        return x

    merge("M02", "images in the reverse order", TWO_15, lambda e, x, images, rows: put(x, images, torch.cat((rows[len(rows) // 2 :], rows[: len(rows) // 2]))))
    merge("M13", "the first image's rows for every image", TWO_15, lambda e, x, images, rows: put(x, images, rows[: len(rows) // 2].repeat(2, 1)))
    merge("M14", "the image behind the first one position late", (TWO, TWO_15), one_late)
    merge("M03", "no image token recognised", ROWS, lambda e, x, images, rows: x)
    merge("M10", "image rows one position late", ROWS, lambda e, x, images, rows: put(x, images.roll(1), rows))
    merge("M10", "image rows one position early", ROWS, lambda e, x, images, rows: put(x, images.roll(-1), rows))
    merge("M11", "image rows in the reverse order", ROWS, lambda e, x, images, rows: put(x, images, rows.flip(0)))
    merge("M12", "image rows added to the embeddings", ROWS, lambda e, x, images, rows: put(x, images, x[images] + rows))
    merge("M07", "image rows rounded to float16", ROWS, lambda e, x, images, rows: put(x, images, rows.half()))
    bug("M07", "embeddings scaled by sqrt(C)", "embed_tokens", TEXT, lambda e: e.forward(e.text.embed_tokens, lambda plain: lambda ids: plain(ids) * math.sqrt(e.config.text_config.hidden_size)))

    # Positions.

    def rotation(change: Callable) -> Callable:
        return lambda e: e.patch(modeling_llama, "apply_rotary_pos_emb", change)

    def rotated(turn: Callable) -> Callable:
        return rotation(lambda q, k, cos, sin, unsqueeze_dim=1: tuple(turn(x, cos.unsqueeze(1), sin.unsqueeze(1)) for x in (q, k)))

    half = modeling_llama.rotate_half

    def neighbours(x, cos, sin):
        cos, sin = (t[..., : t.shape[-1] // 2] for t in (cos, sin))
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)

    bug("L01", "neighbouring channels paired", "rope_q", TEXT, rotated(neighbours))
    bug("L02", "rotated the other way", "rope_q", TEXT, rotated(lambda x, cos, sin: x * cos - half(x) * sin))
    bug("L02", "rotate_half without its sign", "rope_q", TEXT, rotated(lambda x, cos, sin: x * cos + x.roll(x.shape[-1] // 2, -1) * sin))
    bug("L03", "sine and cosine exchanged", "rope_q", TEXT, rotated(lambda x, cos, sin: x * sin + half(x) * cos))
    bug("L05", "nothing rotated", "rope_q", TEXT, rotated(lambda x, cos, sin: x))

    def values_too(e):
        rotate, attend, seen = modeling_llama.apply_rotary_pos_emb, modeling_llama.eager_attention_forward, {}

        def remember(q, k, cos, sin, **kwargs):
            seen.update(cos=cos, sin=sin)
            return rotate(q, k, cos, sin, **kwargs)

        e.patch(modeling_llama, "apply_rotary_pos_emb", remember)
        e.patch(modeling_llama, "eager_attention_forward", lambda module, q, k, v, *args, **kwargs: attend(module, q, k, rotate(v, v, seen["cos"], seen["sin"])[0], *args, **kwargs))

    bug("L04", "values rotated too", "context", TEXT, values_too)

    def tables(angles: Callable) -> Callable:
        """angles(positions [T], inverse frequencies [Dh/2], theta), of any dtype."""

        def plant(e):
            def forward(x, position_ids):
                angle = angles(position_ids[0], e.text.rotary_emb.inv_freq, e.config.text_config.rope_parameters["rope_theta"])
                angle = torch.cat((angle, angle), -1)[None]
                return angle.cos().float(), angle.sin().float()

            e.text.rotary_emb.forward = forward

        return plant

    def table(id: str, what: str, cases: str | tuple[str, ...], plant: Callable) -> None:
        bug(id, what, "rotary_emb.cos", cases, plant)

    def as_one(e):
        def forward(plain):
            def run(x, position_ids):
                images = e.seen == e.config.image_token_id
                again = images & torch.cat((torch.zeros(1, dtype=torch.bool), images[:-1]))
                return plain(x, (position_ids[0] - again.cumsum(0))[None])

            return run

        e.text.embed_tokens.register_forward_hook(lambda m, args, y: setattr(e, "seen", args[0][0]))
        e.forward(e.text.rotary_emb, forward)

    def scaled(inv, dim, theta, factor=8.0, low=1.0, high=4.0, before=8192):
        length = 2 * math.pi / inv
        smooth = (before / length - low) / (high - low)
        between = (1 - smooth) * inv / factor + smooth * inv
        return torch.where(length > before / low, inv / factor, torch.where(length < before / high, inv, between))

    def one_by_one(positions, inv, theta):
        angle, by, out = positions.float(), torch.tensor(theta ** (-1 / len(inv)), dtype=torch.float32), []
        for _ in inv:
            out.append(angle)
            angle = angle * by
        return torch.stack(out, -1)

    table("L06", "exponent i/Dh", (TEXT, SMALL), inverse(lambda inv, dim, theta: 1.0 / theta ** (torch.arange(dim // 2, dtype=torch.float) / dim)))
    table("L06", "frequencies of heads half as wide", TEXT, inverse(lambda inv, dim, theta: 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float) / (dim // 2))))
    table("L07", "positions from 1", TEXT, lambda e: e.forward(e.text.rotary_emb, lambda plain: lambda x, position_ids: plain(x, position_ids + 1)))
    table("L08", "an image counts as one position", ROWS, as_one)
    table("L09", "angles in float64", FAR, tables(lambda p, inv, theta: p.double()[:, None] * theta ** -(torch.arange(len(inv), dtype=torch.float64) / len(inv))))
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        table("L10", f"angles in {name}", TEXT, tables(lambda p, inv, theta, t=dtype: (p.to(t)[:, None] * inv.to(t)).float()))
        table("L10", f"inverse frequencies cast to {name}", TEXT, inverse(lambda inv, dim, theta, t=dtype: inv.to(t).float()))
        table("L10", f"positions in {name}", FAR, tables(lambda p, inv, theta, t=dtype: p.to(t).float()[:, None] * inv))
    table("L36", "frequencies scaled as for Llama 3.1", (TEXT, FAR), inverse(scaled))
    table("L37", "each angle made out of the one before", (TEXT, FAR), tables(one_by_one))

    # Attention.

    bug("L11", "query head h meets key head h mod K", "scores", TEXT, lambda e: e.patch(modeling_llama, "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1)))
    bug("L12", "every query head meets the first key head", "scores", TEXT, lambda e: e.patch(modeling_llama, "repeat_kv", lambda x, n: x[:, :1].expand(-1, n * x.shape[1], -1, -1)))

    def masked(id: str, what: str, node: str, allowed: Callable) -> None:
        """allowed(query, key) says who sees whom."""

        def make(*args, inputs_embeds, **kwargs):
            at = torch.arange(inputs_embeds.shape[1])
            return mask(allowed(at[:, None], at[None]).expand(len(at), len(at)))[None, None]

        bug(id, what, node, TEXT, lambda e: e.patch(modeling_llama, "create_causal_mask", make))

    masked("L14", "one ahead", "probs", lambda q, k: k <= q + 1)
    masked("L14", "not itself", "scores", lambda q, k: (k < q) | ((q == 0) & (k == 0)))
    masked("L15", "no mask", "probs", lambda q, k: k >= 0)
    masked("L17", "mask upside down", "scores", lambda q, k: k >= q)
    masked("L35", "a window of 32", "scores", lambda q, k: (k <= q) & (q - k < 32))

    # Norms, the MLP, the stream.

    def rms_norm(change: Callable) -> Callable:
        """change(x, weight, eps) in place of every RMSNorm."""
        return each(rms, lambda m: setattr(m, "forward", lambda x: change(x, m.weight, m.variance_epsilon)))

    root = lambda x, eps: x * torch.rsqrt(mean(x**2) + eps)

    def normed(what_id: str, what: str, change: Callable) -> None:
        bug(what_id, what, "layers.0.input_layernorm", TEXT, rms_norm(change))

    normed("L20", "LayerNorm for RMSNorm", lambda x, w, eps: F.layer_norm(x, x.shape[-1:], w, None, eps))
    normed("L21", "1 + w", lambda x, w, eps: (1 + w) * root(x, eps))
    normed("L22", "eps outside of the root", lambda x, w, eps: w * (x / (mean(x**2).sqrt() + eps)))
    normed("L23", "sum for mean", lambda x, w, eps: w * (x * torch.rsqrt((x**2).sum(-1, keepdim=True) + eps)))
    normed("L24", "weight not applied", lambda x, w, eps: root(x, eps))
    normed("L29", "norm twice", lambda x, w, eps: w * root(w * root(x, eps), eps))
    bug("L29", "last norm missing", "norm", TEXT, lambda e: e.forward(e.text.norm, lambda plain: lambda x: x))

    def in_front(e):
        e.text.norm.register_forward_pre_hook(lambda m, args: setattr(e, "stream", args[0]))
        e.forward(e.model.lm_head, lambda plain: lambda x: plain(e.stream))

    bug("L30", "lm_head reads the stream in front of the last norm", "lm_head", TEXT, in_front)

    def mlp(change: Callable) -> Callable:
        """change(module, gate, up) is what down_proj reads."""
        return each(mlps, lambda m: setattr(m, "forward", lambda x: m.down_proj(change(m, m.gate_proj(x), m.up_proj(x)))))

    bug("L25", "GELU for SiLU", "mlp.act_fn", TEXT, each(mlps, lambda m: setattr(m.act_fn, "forward", F.gelu)))
    bug("L26", "SiLU of up", "mlp.act_fn", TEXT, mlp(lambda m, gate, up: m.act_fn(up) * gate))
    bug("L26", "SiLU(gate) * gate", "mlp.gated", TEXT, mlp(lambda m, gate, up: m.act_fn(gate) * gate))

    def without(m, gate, up):
        m.act_fn(gate)  # shown, and not used
        return gate * up

    bug("L27", "gate * up", "mlp.gated", TEXT, mlp(without))
    bug("L27", "SiLU(gate) + up", "mlp.gated", TEXT, mlp(lambda m, gate, up: m.act_fn(gate) + up))

    def stream(step: Callable) -> Callable:
        """step(layer, x, attend) is a decoder layer; attend(normed) is its attention."""

        def change(x):
            x.forward = lambda hidden_states, **kwargs: step(x, hidden_states, lambda h: x.self_attn(hidden_states=h, **kwargs)[0])

        return each(lambda e: e.layers, change)

    def fed(x, h):
        return x.mlp(x.post_attention_layernorm(h))

    def subtracted(x, h, attend, times):
        h = h + attend(x.input_layernorm(h))
        return h + times * fed(x, h)

    def parallel(x, h, attend):
        return h + attend(x.input_layernorm(h)) + fed(x, h)

    def no_residual(x, h, attend):
        h = attend(x.input_layernorm(h))
        return h + fed(x, h)

    def no_branch(x, h, attend):
        attend(x.input_layernorm(h))
        return h + fed(x, h)

    def behind_the_norm(x, h, attend):
        h = x.input_layernorm(h)
        h = h + attend(h)
        return h + fed(x, h)

    bug("L28", "attention and MLP in parallel", "residual_attn", TEXT, stream(parallel))
    bug("L33", "residual of the attention missing", "residual_attn", TEXT, stream(no_residual))
    bug("L33", "attention's branch missing", "residual_attn", TEXT, stream(no_branch))
    bug("L33", "MLP's branch subtracted", "layers.0", TEXT, stream(lambda x, h, attend: subtracted(x, h, attend, -1)))
    bug("L33", "MLP's branch twice", "layers.0", TEXT, stream(lambda x, h, attend: subtracted(x, h, attend, 2)))
    bug("L34", "residual behind the norm", "residual_attn", TEXT, stream(behind_the_norm))

    # Products.

    def product(change: Callable) -> Callable:
        """change(plain, x, width) in place of the product of every q_proj of the decoder."""
        return each(attentions, lambda a: Engine.forward(a.q_proj, lambda plain: lambda x: change(plain, x, x.shape[-1])))

    def cleared(y, *at):
        y = y.clone()
        y[at] = 0
        return y

    bug("A01", "last 8 terms of each sum", "q_proj", TEXT, product(lambda f, x, n: f(cleared(x, ..., slice(n - 8, n)))))
    bug("A01", "last row", "q_proj", TEXT, product(lambda f, x, n: cleared(f(x), ..., -1, slice(None))))
    bug("A01", "last column", "q_proj", TEXT, product(lambda f, x, n: cleared(f(x), ..., -1)))
    bug("A04", "lane 3 of 16", "q_proj", TEXT, product(lambda f, x, n: f(cleared(x, ..., slice(3, None, 16)))))
    bug("A10", "each row from the one before", "q_proj", TEXT, product(lambda f, x, n: f(x).roll(1, -2)))

    def other_input(e):
        x = e.layers[2]
        x.input_layernorm.register_forward_pre_hook(lambda m, args: setattr(e, "stream", args[0]))
        e.forward(x.self_attn.v_proj, lambda plain: lambda h: plain(e.stream))

    bug("W01", "v_proj of layer 2 reads the layer's input", "layers.2.self_attn.v_proj", TEXT, other_input)
    return out


class Stop(Exception):
    """All that is wanted has been shown."""


def folder_of(root: Path, *words: str) -> Path:
    return root / "-".join(words).replace("/", "-").replace(" ", "-")


def into_transformers(cases: Path, out: Path, only: str) -> list[dict]:
    import torch

    import adapter

    torch.set_num_threads(1)
    models, trials = {}, []
    for p in plants():
        for case in p.cases:
            if not any(fnmatch.fnmatch(id, only) for id in p.id.split("/")):
                continue
            folder, set_ = cases / "float32" / case, case.split("/")[0]
            if set_ not in models:
                models[set_] = adapter.load(folder / "model", torch.float32, "eager")
            to = folder_of(out / "transformers", p.id, p.what, case)
            with contextlib.ExitStack() as undo, torch.no_grad():
                e = Engine(models[set_], undo)
                prompt = adapter.Case(folder, e.model.config)
                dump = adapter.Dump(to, {
                    "format": 1, "engine": "transformers", "version": adapter.transformers.__version__, "class": "f32", "lanes": 1, "naming": adapter.Names(e.model).naming,
                    "about": {"planted": f"{p.id}: {p.what}"}, "set": set_, "case": case.split("/")[1],
                })
                p.plant(e)
                try:
                    with adapter.Capture(e.model, dump, prompt):
                        if prompt.pixel_values is not None and p.node != "rotary_emb.cos":
                            e.layers[0].input_layernorm.register_forward_pre_hook(stop)
                        e.model(**prompt.arguments(torch.float32))
                except Stop:
                    pass
                except (ValueError, RuntimeError, IndexError) as error:  # the image has another number of rows than tokens
                    if prompt.pixel_values is None:
                        raise
                    print(f"{to.name}: {error}", file=sys.stderr)
                dump.close()
            trials.append({"engine": "transformers", "id": p.id, "what": p.what, "node": p.node, "case": case, "dump": str(to)})
    return trials


def stop(*args) -> None:
    raise Stop


# Where the witness's bugs are planted: by id, or by its letter.
SITES = {
    "C01": "rotary_emb.cos", "C02": "layers.0.input_layernorm", "C04": "select_features", "C05": "select_features", "C06": "select_features", "C07": "lm_head", "C09": "pack_image_features",
    "C13": "q_proj", "C14": "gate_proj", "C15": "layers.0.input_layernorm", "C19": "lm_head",
    "V01": "patch_embedding", "V03": "patch_embedding", "V04": "embeddings", "V06": "embeddings", "V07": "pre_layrnorm", "V08": "select_features", "V09": "select_features", "V10": "activation_fn",
    "V11": "activation_fn", "V12": "q_proj", "V13": "probs", "V15": "k_proj", "V17": "pre_layrnorm", "J01": "act", "J02": "act", "J04": "linear_1",
    "L01": "rope_q", "L02": "rope_q", "L03": "rope_q", "L04": "v_proj", "L06": "rotary_emb.cos", "L07": "rotary_emb.cos", "L09": "rotary_emb.cos", "L10": "rotary_emb.cos", "L11": "scores",
    "L14": "probs", "L15": "probs", "L20": "layers.0.input_layernorm", "L21": "layers.0.input_layernorm", "L23": "layers.0.input_layernorm", "L25": "act_fn", "L26": "gate_proj", "L29": "norm",
    "K": "pack_image_features", "P": "pack_image_features", "M": "pack_image_features",
}


def into_witness(out: Path, only: str) -> list[dict]:
    """What test_catches.py plants, on every prompt that it plants it on."""
    sys.path.insert(0, str(GEN_GOLDEN))
    import numpy as np

    import cases as plan
    import checkpoint
    import test_catches
    import witness_numpy

    trials = []
    for set_ in ("tiny-1.6", "tiny-1.5"):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.write_synthetic(set_, 0, Path(folder))
            weights = checkpoint.Checkpoint(Path(folder))
            for spec in plan.PLANS[set_].cases:
                prompt = plan.make(set_, spec, weights.config)
                for id in spec.catches:
                    if not fnmatch.fnmatch(id, only):
                        continue
                    to, nodes = folder_of(out / "witness", id, set_, spec.name), []
                    to.mkdir(parents=True)

                    def put(name: str, x) -> None:
                        if prompt.pixel_values is not None and name.endswith("rotary_emb.cos"):
                            raise Stop
                        x[...] = x.astype(np.float32)  # in place: it is what the next node reads
                        np.save(to / f"{name}.npy", x.astype(np.float32))
                        nodes.append({"name": name, "shape": list(x.shape)})

                    try:
                        with test_catches.BUGS[id]():
                            witness_numpy.Model(weights).forward(prompt, put)
                    except Stop:
                        pass
                    except (ValueError, IndexError) as error:
                        print(f"{to.name}: {error}", file=sys.stderr)
                    manifest = {"format": 1, "engine": "numpy witness", "class": "f32", "lanes": 16, "naming": "hf", "set": set_, "case": spec.name, "about": {"planted": id}, "nodes": nodes}
                    (to / "manifest.json").write_text(json.dumps(manifest))
                    trials.append({"engine": "witness", "id": id, "what": "", "node": SITES.get(id, SITES.get(id[0])), "case": f"{set_}/{spec.name}", "dump": str(to)})
    return trials


def verdict(llavaref: str, t: dict) -> dict:
    """The trial, and what the suite says of its dump."""
    case = matrix.judge(llavaref, Path(t["dump"]), *t["case"].split("/"))["sets"][0]["cases"][0]
    first = (case.get("first") or {}).get("node", "")
    checks = [c for stage in case["stages"] for n in stage["nodes"] if n["name"] == first for c in n["checks"]]
    ids = [cause["id"] for c in checks for cause in c.get("causes") or []]
    called = "yes" if set(ids) & set(t["id"].split("/")) else "otherwise" if ids else "no"
    return t | {"caught": case["status"] != "pass", "first": first, "there": first == t["node"] or first.endswith(f".{t['node']}"), "ids": ids, "named": called}


def short(node: str) -> str:
    for prefix in ("language_model.model.", "language_model.", "vision_tower.vision_model."):
        node = node.removeprefix(prefix)
    return f"`{node}`" if node else "none"


HEAD = """# Bugs planted by other code

Written by `python3 tools/adapters/transformers/planted.py --llavaref ./llavaref > docs/planted.md`; the script says what it needs.

`llavaref selftest` (docs/selftest.md) plants its bugs with the code that names them, so what it says of names is the most that can be hoped for. Here nothing that plants has seen that code. Each bug is planted, the model is run and dumped in
float32, and `llavaref check --engine dir:` judges the dump. *There*: the first node that is blamed is the one where the bug was planted. *Named*: its id is among the causes that are given for that node, at most five.

- transformers: modules and functions of transformers 5.23.0 are changed (`plants` in the script), the adapter dumps. Bugs of the images stop in front of the decoder. Where an engine stops because the image has another number of rows than tokens, the dump ends there.
- witness: the numpy witness with what `tools/gen-golden/test_catches.py` plants, on every prompt that it plants it on. It is made a float32 engine by rounding what each node hands on.
"""


def page(trials: list[dict]) -> str:
    out = [HEAD, "| planted into | trials | caught | there | named | otherwise | not named |", "|---|---|---|---|---|---|---|"]
    for engine in ("transformers", "witness"):
        mine = [t for t in trials if t["engine"] == engine]
        counts = [len(mine), *(sum(t[k] for t in mine) for k in ("caught", "there")), *(sum(t["named"] == k for t in mine) for k in ("yes", "otherwise", "no"))]
        out.append(f"| {engine} | " + " | ".join(map(str, counts)) + " |")
    out += ["", f"Named independently: {sum(t['named'] == 'yes' for t in trials)} of {len(trials)}.", "", "## Not named, or otherwise", "", "| planted into | id | what | prompt | blamed | called | why |", "|---|---|---|---|---|---|---|"]
    for t in trials:
        if t["named"] != "yes" or not t["there"]:
            why = WHY.get((t["engine"], t["id"], t["case"])) or WHY.get((t["engine"], t["id"]), "")
            out.append(f"| {t['engine']} | {t['id']} | {t['what']} | {t['case']} | {short(t['first'])} | {', '.join(t['ids']) or 'nothing'} | {why} |")
    for engine, title in (("transformers", "Into transformers"), ("witness", "Into the numpy witness")):
        out += ["", f"## {title}", "", "| id | what | prompt | first node that is blamed | there | named | all names |", "|---|---|---|---|---|---|---|"]
        for t in trials:
            if t["engine"] == engine:
                out.append(f"| {t['id']} | {t['what']} | {t['case']} | {short(t['first'])} | {'yes' if t['there'] else 'no'} | {t['named']} | {', '.join(t['ids'])} |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llavaref", help="the command")
    parser.add_argument("--keep", type=Path, help="a folder to be made, for cases and dumps")
    parser.add_argument("--only", default="*", help="ids of bugs, as a pattern")
    parser.add_argument("--jobs", type=int, default=2, help="dumps judged at a time")
    parser.add_argument("--plant", type=Path, help=argparse.SUPPRESS)  # the part that runs in the environment of transformers
    args = parser.parse_args()
    if args.plant:
        trials = into_transformers(args.plant / "cases", args.plant / "dumps", args.only) + into_witness(args.plant / "dumps", args.only)
        (args.plant / "trials.json").write_text(json.dumps(trials))
        return
    if not args.llavaref:
        parser.error("--llavaref is missing")
    llavaref = str(Path(args.llavaref).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep.resolve() if args.keep else Path(temporary)
        matrix.export(llavaref, [TEXT, SMALL, FAR, ROWS, WIDE, TALL, SQUARE, TWO, TWO_15, STRIP, PORTRAIT], "float32", root / "cases")
        subprocess.run([matrix.environment(VERSION), __file__, "--plant", root, "--only", args.only], check=True)
        trials = json.loads((root / "trials.json").read_text())
        with ThreadPoolExecutor(args.jobs) as pool:
            trials = list(pool.map(lambda t: verdict(llavaref, t), trials))
        print(page(trials), end="")


if __name__ == "__main__":
    sys.exit(main())
