"""Holds an exported case's GGUF files against its safetensors checkpoint, with the readers of other projects.

    llavaref case export --case photo-1x3 --out case --gguf
    python tools/gguf/check.py case

Every tensor of both files has to be a parameter, with the values of the checkpoint once the rows of q and k are put back,
every parameter that the logits need has to be there, and the metadata has to say what config.json says.
Needs tools/gguf/requirements.in. Exit code 0: it all agrees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from safetensors import safe_open

TEXT_LEAVES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}
VISION_LEAVES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1", "ln2": "layer_norm2", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}
WHOLE = {
    "token_embd": "language_model.model.embed_tokens", "output_norm": "language_model.model.norm", "output": "language_model.lm_head",
    "v.class_embd": "vision_tower.vision_model.embeddings.class_embedding", "v.patch_embd": "vision_tower.vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_tower.vision_model.embeddings.position_embedding", "v.pre_ln": "vision_tower.vision_model.pre_layrnorm",
    "mm.0": "multi_modal_projector.linear_1", "mm.2": "multi_modal_projector.linear_2", "v.image_newline": "image_newline",
}


def parameter(name: str) -> str:
    """The on-disk name of a GGUF tensor."""
    if name in WHOLE:
        return WHOLE[name]
    module, _, leaf = name.rpartition(".")
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    parts = module.split(".")
    if parts[0] == "v":
        return f"vision_tower.vision_model.encoder.layers.{parts[2]}.{VISION_LEAVES[parts[3]]}.{leaf}"
    return f"language_model.model.layers.{parts[1]}.{TEXT_LEAVES[parts[2]]}.{leaf}"


def unpermute(x: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of llama.cpp's LlamaModel.permute."""
    return x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def field(reader: GGUFReader, key: str):
    return reader.fields[key].contents()


def main(folder: Path) -> None:
    config = json.loads((folder / "model" / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    wrong: list[str] = []
    seen: set[str] = set()
    with safe_open(folder / "model" / "model.safetensors", "np") as checkpoint:
        for file in ("model.gguf", "mmproj.gguf"):
            reader = GGUFReader(folder / "gguf" / file)
            for tensor in reader.tensors:
                name = parameter(tensor.name)
                seen.add(name)
                want = checkpoint.get_tensor(name).astype(np.float32)
                have = np.array(tensor.data).astype(np.float32)
                if file == "model.gguf" and ".attn_q." in tensor.name:
                    have = unpermute(have, text["num_attention_heads"])
                if file == "model.gguf" and ".attn_k." in tensor.name:
                    have = unpermute(have, text["num_key_value_heads"])
                if have.shape != want.shape or not np.array_equal(have, want):
                    wrong.append(f"{file}: {tensor.name} is not {name}")
            expected = {
                "model.gguf": {
                    "general.architecture": "llama", "llama.block_count": text["num_hidden_layers"], "llama.embedding_length": text["hidden_size"],
                    "llama.attention.head_count": text["num_attention_heads"], "llama.attention.head_count_kv": text["num_key_value_heads"],
                    "llama.vocab_size": text["vocab_size"], "llama.rope.freq_base": text["rope_theta"], "llama.rope.dimension_count": text["head_dim"],
                },
                "mmproj.gguf": {
                    "general.architecture": "clip", "clip.projector_type": "mlp", "clip.vision.patch_size": vision["patch_size"],
                    "clip.vision.image_size": vision["image_size"], "clip.vision.attention.head_count": vision["num_attention_heads"],
                    "clip.vision.block_count": vision["num_hidden_layers"] - 1, "clip.use_gelu": False,
                },
            }[file]
            for key, want in expected.items():
                if field(reader, key) != want:
                    wrong.append(f"{file}: {key} is {field(reader, key)}, want {want}")
            print(f"{file}: {len(reader.tensors)} tensors, {len(reader.fields)} fields")
        last = f"encoder.layers.{vision['num_hidden_layers'] - 1}."
        needed = {n for n in checkpoint.keys() if last not in n and "post_layernorm." not in n}
        needed |= {n for n in checkpoint.keys() if n.startswith("language_model")}
    if missing := sorted(needed - seen):
        wrong.append(f"{len(missing)} parameters are in no file: {missing[:3]}")
    for line in wrong:
        print("WRONG", line)
    if wrong:
        sys.exit(1)
    print(f"every one of {len(seen)} parameters has the checkpoint's values")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
