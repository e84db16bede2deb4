"""Writes sample.json: which entries the generator keeps of some nodes, for the Go twin's test.

    python golden/testdata/sample.py        (needs numpy and tools/gen-golden)
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1] / "tools" / "gen-golden"))

from nodes import Node  # noqa: E402
from sample import kept  # noqa: E402

LAYER = "language_model.model.layers.31.self_attn"
CASES = [  # name, shape, causal, budget
    ("image", (2, 3, 4), False, 24),
    ("image", (2, 3, 4), False, 0),
    ("image", (2, 3, 4), False, 23),
    ("image", (2, 3, 4), False, 1),
    ("image", (7,), False, 3),
    ("image", (7, 1), False, 3),
    ("image", (7, 2), False, 9),
    ("vision_tower.vision_model.embeddings.patch_embedding", (3, 64, 4, 4), False, 384),
    ("vision_tower.vision_model.encoder.layers.3.mlp.fc1", (3, 17, 128), False, 384),
    ("vision_tower.vision_model.encoder.layers.3.self_attn.probs", (3, 4, 17, 17), False, 384),
    ("language_model.lm_head", (65, 384), False, 384),
    ("language_model.lm_head", (2374, 128320), False, 4096),
    ("language_model.lm_head", (383, 384), False, 384),
    ("language_model.model.norm", (384, 128), False, 384),
    ("language_model.model.norm", (385, 128), False, 384),
    (LAYER + ".scores", (8, 7, 7), True, 392),
    (LAYER + ".scores", (8, 7, 7), True, 391),
    (LAYER + ".scores", (8, 7, 7), True, 112),
    (LAYER + ".scores", (8, 64, 64), True, 384),
    (LAYER + ".probs", (32, 200, 200), True, 4096),
    (LAYER + ".probs", (2, 50, 50), True, 4096),
    (LAYER + ".probs", (1, 1, 1), True, 384),
]

out = []
for name, shape, causal, budget in CASES:
    keep = kept(Node(name, shape, causal), budget)
    pairs = np.stack([np.broadcast_to(keep.rows[:, None], keep.columns.shape), keep.columns], axis=-1).reshape(-1, 2)
    out.append({
        "name": name, "shape": shape, "causal": causal, "budget": budget,
        "rows": len(keep.rows), "entries": len(pairs),
        "first": pairs[:8].tolist(), "last": pairs[-8:].tolist(),
        "sha256": hashlib.sha256(pairs.astype("<i8").tobytes()).hexdigest(),  # of all (row, column), as little-endian int64
    })
(here / "sample.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")
