"""Writes the folders f32, f16 and bf16 beside this file with the format's own writer and transformers' own sharding.

Made with safetensors 0.8.0, huggingface_hub 2.4.0, numpy 2.4.6; write_test.go holds checkpoint.Write to the same bytes.
"""

import json
from pathlib import Path

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import TensorSpec, serialize_file

SHAPES = {"b.weight": [2, 3], "a.bias": [3], "scalar": [], "none": [0, 4], "large.weight": [5, 4], "<&>\"\\": [1], "z": [7]}

for dtype, name, width in (("f32", "float32", 4), ("f16", "float16", 2), ("bf16", "bfloat16", 2)):
    out = Path(__file__).parent / dtype
    out.mkdir(exist_ok=True)
    state, keep, at = {}, [], 0
    for key, shape in SHAPES.items():
        count = int(np.prod(shape, dtype=np.int64))
        values = (np.arange(at, at + count, dtype=np.float32) - 16) / 8
        at += count
        if dtype == "bf16":
            stored = (values.view(np.uint32) >> 16).astype("<u2")
        else:
            stored = values.astype("<f4" if dtype == "f32" else "<f2")
        keep.append(stored)  # a TensorSpec holds an address only
        state[key] = TensorSpec(dtype=name, shape=shape, data_ptr=stored.ctypes.data, data_len=stored.nbytes)
    split = split_state_dict_into_shards_factory(
        state,
        get_storage_size=lambda t: t.data_len,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=10 * width,
    )
    for file, keys in split.filename_to_tensors.items():
        serialize_file({key: state[key] for key in keys}, out / file, {"format": "pt"})
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
