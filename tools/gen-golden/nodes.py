"""The nodes that a golden set holds, in the order of execution, and what their shapes mean.

Letters: N tiles over all images, S patches of a tile + 1, P patches per side, D vision width, H heads, Dh head width,
F MLP width, R packed image rows, T text positions, C text width, K key heads, V vocabulary. There is no batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from config import Config

VISION = "vision_tower.vision_model"
TEXT = "language_model.model"


@dataclass(frozen=True)
class Node:
    name: str
    shape: tuple[int, ...]
    causal: bool = False  # scores and probs of the text model: row r sees columns 0 ... r mod T only
    channels: bool = True  # the last axis is a channel axis, so one of its columns can be a massive activation


def nodes(config: Config, tiles: int, rows: int, tokens: int) -> list[Node]:
    out: list[Node] = []
    if tiles:
        out += vision_nodes(config, tiles)
        c = config.text.hidden_size
        patches = config.vision.positions - 1
        out.append(Node("select_features", (tiles, patches, config.vision.hidden_size)))
        out += [Node(f"multi_modal_projector.{leaf}", (tiles, patches, c)) for leaf in ("linear_1", "act", "linear_2")]
        if config.packs_tiles:
            out.append(Node("pack_image_features", (rows, c)))
    return out + text_nodes(config, tokens)


def vision_nodes(config: Config, n: int) -> list[Node]:
    v = config.vision
    s, d, f, h, p = v.positions, v.hidden_size, v.intermediate_size, v.num_attention_heads, v.patches_per_side
    out = [
        Node(f"{VISION}.embeddings.patch_embedding", (n, d, p, p), channels=False),
        Node(f"{VISION}.embeddings", (n, s, d)),
        Node(f"{VISION}.pre_layrnorm", (n, s, d)),
    ]
    for i in range(v.num_hidden_layers):
        layer = f"{VISION}.encoder.layers.{i}"
        out.append(Node(f"{layer}.layer_norm1", (n, s, d)))
        out += [Node(f"{layer}.self_attn.{leaf}", (n, s, d)) for leaf in ("q_proj", "k_proj", "v_proj")]
        out += [Node(f"{layer}.self_attn.{leaf}", (n, h, s, s), channels=False) for leaf in ("scores", "probs")]
        out += [Node(f"{layer}.{leaf}", (n, s, d)) for leaf in ("self_attn.context", "self_attn.out_proj", "residual_attn", "layer_norm2")]
        out += [Node(f"{layer}.mlp.{leaf}", (n, s, f)) for leaf in ("fc1", "activation_fn")]
        out += [Node(f"{layer}.mlp.fc2", (n, s, d)), Node(layer, (n, s, d))]
    return out + [Node(f"{VISION}.pooled", (n, d)), Node(f"{VISION}.post_layernorm", (n, d))]


def text_nodes(config: Config, t: int) -> list[Node]:
    x = config.text
    c, f, h, k, dh = x.hidden_size, x.intermediate_size, x.num_attention_heads, x.num_key_value_heads, x.head_dim
    out = [
        Node(f"{TEXT}.embed_tokens", (t, c)),
        Node("merge_embeddings", (t, c)),
        # a low frequency's sine is small everywhere, which makes no channel of the others massive
        Node(f"{TEXT}.rotary_emb.cos", (t, dh), channels=False),
        Node(f"{TEXT}.rotary_emb.sin", (t, dh), channels=False),
    ]
    for i in range(x.num_hidden_layers):
        layer = f"{TEXT}.layers.{i}"
        out += [
            Node(f"{layer}.input_layernorm", (t, c)),
            Node(f"{layer}.self_attn.q_proj", (t, h * dh)),
            Node(f"{layer}.self_attn.k_proj", (t, k * dh)),
            Node(f"{layer}.self_attn.v_proj", (t, k * dh)),
            Node(f"{layer}.self_attn.rope_q", (t, h, dh)),
            Node(f"{layer}.self_attn.rope_k", (t, k, dh)),
            Node(f"{layer}.self_attn.scores", (h, t, t), causal=True, channels=False),
            Node(f"{layer}.self_attn.probs", (h, t, t), causal=True, channels=False),
            Node(f"{layer}.self_attn.context", (t, h * dh)),
            Node(f"{layer}.self_attn.o_proj", (t, c)),
            Node(f"{layer}.residual_attn", (t, c)),
            Node(f"{layer}.post_attention_layernorm", (t, c)),
        ]
        out += [Node(f"{layer}.mlp.{leaf}", (t, f)) for leaf in ("gate_proj", "up_proj", "act_fn", "gated")]
        out += [Node(f"{layer}.mlp.down_proj", (t, c)), Node(layer, (t, c))]
    return out + [Node(f"{TEXT}.norm", (t, c)), Node("language_model.lm_head", (t, x.vocab_size))]
