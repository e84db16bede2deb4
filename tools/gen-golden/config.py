"""What config.json says about a model, the parameters that follow from it, and the names they have on disk.

Imports nothing but the standard library, so that every witness and every environment can use it.
Absent keys take the values that transformers gives them; nothing else is defaulted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vision:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def positions(self) -> int:
        """Patches of one tile, and the class token before them."""
        return self.patches_per_side**2 + 1


@dataclass(frozen=True)
class Text:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    hidden_act: str
    rms_norm_eps: float
    rope_theta: float


@dataclass(frozen=True)
class Config:
    model_type: str
    vision: Vision
    text: Text
    image_token: int
    pinpoints: tuple[tuple[int, int], ...]  # (height, width) in px, llava_next only
    vision_feature_layer: int
    projector_hidden_act: str

    @property
    def packs_tiles(self) -> bool:
        """LLaVA-NeXT cuts an image into tiles and packs their features; LLaVA-1.5 takes one square image as it is."""
        return self.model_type == "llava_next"


def path(model: str | Path) -> Path:
    """The config.json of a model in shapes/models, or of a folder."""
    if (Path(model) / "config.json").is_file():
        return Path(model) / "config.json"
    known = Path(__file__).resolve().parents[2] / "shapes" / "models" / f"{model}.json"
    if not known.is_file():
        raise FileNotFoundError(f"{model}: neither a name in shapes/models nor a folder with a config.json")
    return known


def read(model: str | Path) -> Config:
    folder = path(model)
    raw = json.loads(folder.read_text())
    if raw["model_type"] not in ("llava_next", "llava"):
        raise ValueError(f"{folder}: model_type {raw['model_type']!r}, want llava_next or llava")
    if raw.get("vision_feature_select_strategy", "default") != "default":
        raise ValueError(f"{folder}: vision_feature_select_strategy must be 'default'")
    if not isinstance(raw.get("vision_feature_layer", -2), int):
        raise ValueError(f"{folder}: a list of vision feature layers is not supported")

    vision, text = raw["vision_config"], raw["text_config"]
    heads, hidden = text.get("num_attention_heads", 32), text.get("hidden_size", 4096)
    # transformers 5 moved the base of the rotary embedding into a dictionary of its own
    theta = (text.get("rope_parameters") or {}).get("rope_theta", text.get("rope_theta", 10000.0))
    config = Config(
        model_type=raw["model_type"],
        vision=Vision(
            hidden_size=vision.get("hidden_size", 768),
            intermediate_size=vision.get("intermediate_size", 3072),
            num_hidden_layers=vision.get("num_hidden_layers", 12),
            num_attention_heads=vision.get("num_attention_heads", 12),
            num_channels=vision.get("num_channels", 3),
            image_size=vision.get("image_size", 224),
            patch_size=vision.get("patch_size", 32),
            hidden_act=vision.get("hidden_act", "quick_gelu"),
            layer_norm_eps=vision.get("layer_norm_eps", 1e-5),
        ),
        text=Text(
            hidden_size=hidden,
            intermediate_size=text.get("intermediate_size", 11008),
            num_hidden_layers=text.get("num_hidden_layers", 32),
            num_attention_heads=heads,
            num_key_value_heads=text.get("num_key_value_heads", heads),
            head_dim=text.get("head_dim") or hidden // heads,
            vocab_size=text.get("vocab_size", 32000),
            hidden_act=text.get("hidden_act", "silu"),
            rms_norm_eps=text.get("rms_norm_eps", 1e-6),
            rope_theta=theta,
        ),
        image_token=raw.get("image_token_id", raw.get("image_token_index", 32000)),
        pinpoints=tuple((h, w) for h, w in raw.get("image_grid_pinpoints", [])),
        vision_feature_layer=raw.get("vision_feature_layer", -2),
        projector_hidden_act=raw.get("projector_hidden_act", "gelu"),
    )
    acts = (config.vision.hidden_act, config.projector_hidden_act, config.text.hidden_act)
    if acts != ("quick_gelu", "gelu", "silu"):
        raise ValueError(f"{folder}: activations {acts}, want quick_gelu, gelu, silu")
    return config


def spelled_out(config: Config) -> dict:
    """A config.json that every version of transformers reads alike: in the keys of version 4, nothing left to defaults.

    Version 5 writes the rotary base and the image token under other keys, which 4.51 passes over in silence.
    """
    v, t = config.vision, config.text
    raw = {
        "architectures": ["LlavaNextForConditionalGeneration" if config.packs_tiles else "LlavaForConditionalGeneration"],
        "image_seq_length": v.positions - 1,
        "image_token_index": config.image_token,
        "model_type": config.model_type,
        "projector_hidden_act": config.projector_hidden_act,
        "text_config": {"model_type": "llama", "attention_bias": False, "mlp_bias": False, **vars(t)},
        "tie_word_embeddings": False,
        "vision_config": {"model_type": "clip_vision_model", **vars(v)},
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": "default",
    }
    if config.packs_tiles:
        raw["image_grid_pinpoints"] = [list(p) for p in config.pinpoints]
    return raw


def needs_spelling_out(raw: dict) -> bool:
    return "image_token_id" in raw or "rope_parameters" in raw["text_config"]


def parameters(config: Config) -> list[tuple[str, tuple[int, ...]]]:
    """Every parameter, its on-disk name and shape, in the order of transformers 4.51's state_dict.

    image_newline comes first: a parameter that stands directly on a module precedes the module's children.
    """
    v, t = config.vision, config.text
    d, f, c = v.hidden_size, v.intermediate_size, t.hidden_size
    out: list[tuple[str, tuple[int, ...]]] = []
    if config.packs_tiles:
        out.append(("image_newline", (c,)))

    prefix = "vision_tower.vision_model."
    out += [
        (prefix + "embeddings.class_embedding", (d,)),
        (prefix + "embeddings.patch_embedding.weight", (d, v.num_channels, v.patch_size, v.patch_size)),
        (prefix + "embeddings.position_embedding.weight", (v.positions, d)),
        (prefix + "pre_layrnorm.weight", (d,)),
        (prefix + "pre_layrnorm.bias", (d,)),
    ]
    for i in range(v.num_hidden_layers):
        layer = f"{prefix}encoder.layers.{i}."
        for leaf in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"):
            out += [(f"{layer}{leaf}.weight", (d, d)), (f"{layer}{leaf}.bias", (d,))]
        out += [(layer + "layer_norm1.weight", (d,)), (layer + "layer_norm1.bias", (d,))]
        out += [(layer + "mlp.fc1.weight", (f, d)), (layer + "mlp.fc1.bias", (f,))]
        out += [(layer + "mlp.fc2.weight", (d, f)), (layer + "mlp.fc2.bias", (d,))]
        out += [(layer + "layer_norm2.weight", (d,)), (layer + "layer_norm2.bias", (d,))]
    out += [(prefix + "post_layernorm.weight", (d,)), (prefix + "post_layernorm.bias", (d,))]

    out += [("multi_modal_projector.linear_1.weight", (c, d)), ("multi_modal_projector.linear_1.bias", (c,))]
    out += [("multi_modal_projector.linear_2.weight", (c, c)), ("multi_modal_projector.linear_2.bias", (c,))]

    prefix = "language_model.model."
    queries, keys = t.num_attention_heads * t.head_dim, t.num_key_value_heads * t.head_dim
    out.append((prefix + "embed_tokens.weight", (t.vocab_size, c)))
    for i in range(t.num_hidden_layers):
        layer = f"{prefix}layers.{i}."
        out += [
            (layer + "self_attn.q_proj.weight", (queries, c)),
            (layer + "self_attn.k_proj.weight", (keys, c)),
            (layer + "self_attn.v_proj.weight", (keys, c)),
            (layer + "self_attn.o_proj.weight", (c, queries)),
            (layer + "mlp.gate_proj.weight", (t.intermediate_size, c)),
            (layer + "mlp.up_proj.weight", (t.intermediate_size, c)),
            (layer + "mlp.down_proj.weight", (c, t.intermediate_size)),
            (layer + "input_layernorm.weight", (c,)),
            (layer + "post_attention_layernorm.weight", (c,)),
        ]
    out += [(prefix + "norm.weight", (c,)), ("language_model.lm_head.weight", (t.vocab_size, c))]
    return out


def on_disk(name: str) -> str:
    """The name that a module or parameter of any transformers version has in a checkpoint of the first naming scheme.

    4.51 has these names at run time too; 4.52 put everything but the head under `model.`, 5.6 took the level
    `vision_model` out of the tower, and 5.x writes that last form to disk for a model built from a config.
    """
    if name == "lm_head" or name.startswith("lm_head."):
        return "language_model." + name
    if name.startswith("model."):
        name = name.removeprefix("model.")
        if name == "language_model" or name.startswith("language_model."):
            name = "language_model.model" + name.removeprefix("language_model")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model"):
        name = "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name
