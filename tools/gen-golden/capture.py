"""Reading every node out of transformers' own model, and the same model without its internal casts.

Nothing here edits transformers. Modules give their inputs and outputs through hooks; the four steps that have no
module (softmax, rotary embedding, packing) are wrapped at the names under which transformers looks them up.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.llama import modeling_llama as llama

import config as configs
from nodes import TEXT, VISION, Node

Put = Callable[[str, np.ndarray], None]


def to_numpy(x: torch.Tensor) -> np.ndarray:
    x = x.detach()
    return (x if x.dtype == torch.float64 else x.float()).numpy()


def first(output) -> torch.Tensor:
    """Layers return a tuple up to transformers 4, a tensor from 5 on."""
    return output[0] if isinstance(output, tuple) else output


class Capture:
    """Puts every node of one forward pass: `with capture: model(...)`."""

    def __init__(self, model: torch.nn.Module, nodes: list[Node], put: Put):
        self._model, self._put = model, put
        self._nodes = {node.name: node for node in nodes}
        self._modules = {configs.on_disk(name): module for name, module in model.named_modules()}
        self._attention = ""  # the attention module that is running
        self._undo = contextlib.ExitStack()

    def put(self, name: str, x: torch.Tensor) -> None:
        # a leading batch axis of 1 goes, [N*H, S, S] unfolds: the number and the order of the values stay
        values = to_numpy(x).reshape(self._nodes[name].shape)
        if self._nodes[name].causal:
            hidden = np.triu(np.ones(values.shape[1:], dtype=bool), 1)
            if name.endswith(".scores"):  # the mask stands in softmax's input as the dtype's lowest number
                values = np.where(hidden, -np.inf, values)
            elif np.any(values[:, hidden]):
                raise ValueError(f"{name}: a hidden key has a probability")
        self._put(name, values)

    def __enter__(self) -> "Capture":
        with self._undo:  # if anything fails here, everything is taken back
            for name in self._nodes:
                if name in self._modules:
                    self._after(name, lambda out, name=name: self.put(name, first(out)))
            self._vision_and_projector()
            self._text()
            self._wrap(F, "softmax", self._softmax)
            self._undo = self._undo.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._undo.close()

    def _vision_and_projector(self) -> None:
        if "select_features" not in self._nodes:
            return
        self._input_of(f"{VISION}.post_layernorm", f"{VISION}.pooled")
        self._input_of("multi_modal_projector", "select_features")
        for name in self._layers(f"{VISION}.encoder.layers"):
            self._input_of(f"{name}.self_attn.out_proj", f"{name}.self_attn.context")
            self._input_of(f"{name}.layer_norm2", f"{name}.residual_attn")
            self._running(f"{name}.self_attn")
        if "pack_image_features" in self._nodes:
            # from 4.52 on the top model only forwards to the one that packs
            owner = getattr(self._model, "model", self._model)
            self._wrap(owner, "pack_image_features", self._pack)

    def _text(self) -> None:
        self._input_of(f"{TEXT}.layers.0.input_layernorm", "merge_embeddings")
        self._after(f"{TEXT}.rotary_emb", self._rotary_tables)
        for name in self._layers(f"{TEXT}.layers"):
            self._input_of(f"{name}.self_attn.o_proj", f"{name}.self_attn.context")
            self._input_of(f"{name}.post_attention_layernorm", f"{name}.residual_attn")
            self._input_of(f"{name}.mlp.down_proj", f"{name}.mlp.gated")
            self._running(f"{name}.self_attn")
        self._wrap(llama, "apply_rotary_pos_emb", self._rotate)

    def _layers(self, prefix: str) -> Iterator[str]:
        i = 0
        while f"{prefix}.{i}" in self._modules:
            yield f"{prefix}.{i}"
            i += 1

    def _after(self, module: str, do: Callable) -> None:
        handle = self._modules[module].register_forward_hook(lambda m, args, out: do(out))
        self._undo.callback(handle.remove)

    def _input_of(self, module: str, node: str) -> None:
        handle = self._modules[module].register_forward_pre_hook(lambda m, args: self.put(node, args[0]))
        self._undo.callback(handle.remove)

    def _running(self, attention: str) -> None:
        module = self._modules[attention]

        def mark(value: str) -> None:
            self._attention = value

        self._undo.callback(module.register_forward_pre_hook(lambda m, args: mark(attention)).remove)
        self._undo.callback(module.register_forward_hook(lambda m, args, out: mark("")).remove)

    def _wrap(self, owner, name: str, wrapper: Callable) -> None:
        original = getattr(owner, name)
        own = name in vars(owner)  # a bound method is found on the class; putting it back would leave a copy behind
        setattr(owner, name, lambda *args, **kwargs: wrapper(original, *args, **kwargs))
        self._undo.callback(lambda: setattr(owner, name, original) if own else delattr(owner, name))

    def _softmax(self, softmax, x, *args, **kwargs):
        y = softmax(x, *args, **kwargs)
        if self._attention:
            self.put(f"{self._attention}.scores", x)
            self.put(f"{self._attention}.probs", y.to(x.dtype))  # the cast that the caller makes next
        return y

    def _rotate(self, rotate, *args, **kwargs):
        q, k = rotate(*args, **kwargs)
        for leaf, x in (("rope_q", q), ("rope_k", k)):
            self.put(f"{self._attention}.{leaf}", x[0].transpose(0, 1))  # [1, heads, T, Dh] -> [T, heads, Dh]
        return q, k

    def _rotary_tables(self, output) -> None:
        self.put(f"{TEXT}.rotary_emb.cos", output[0])
        self.put(f"{TEXT}.rotary_emb.sin", output[1])

    def _pack(self, pack, *args, **kwargs):
        packed, lengths = pack(*args, **kwargs)
        # 4.51 returns the images concatenated, 5.x one by one
        self.put("pack_image_features", packed if isinstance(packed, torch.Tensor) else torch.cat(list(packed)))
        return packed, lengths


@contextlib.contextmanager
def lifted(log: "NarrowLog") -> Iterator[None]:
    """RMSNorm and softmax in the dtype of their input; RoPE's angles float32, cos and sin rounded to float32 once.

    The casts are an implementation's choice, not the model: left in, they move the logits as far as a whole float32
    run does. RoPE's float32 angles are the model: with float64 angles positions in the thousands would disagree with
    every engine. cos and sin are those of the float32 angle, rounded once, because torch's own float32 ones are a
    unit off in one entry of twenty, which no other language could reproduce.
    """
    softmax, rms, rope = F.softmax, llama.LlamaRMSNorm.forward, llama.LlamaRotaryEmbedding.forward

    def softmax_own_dtype(x, dim=None, _stacklevel=3, dtype=None):
        return softmax(x, dim=dim)

    def rms_own_dtype(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    @torch.no_grad()
    def rope_table(self, x, position_ids):
        if self.attention_scaling != 1:
            raise ValueError("rotary_emb: a scaled rotary embedding is not the model that this generator knows")
        with log.allowed():
            angle = position_ids[..., None].float() * self.inv_freq.float()
            angle = torch.cat((angle, angle), -1).double()
            return angle.cos().float().to(x.dtype), angle.sin().float().to(x.dtype)

    F.softmax, llama.LlamaRMSNorm.forward, llama.LlamaRotaryEmbedding.forward = softmax_own_dtype, rms_own_dtype, rope_table
    try:
        yield
    finally:
        F.softmax, llama.LlamaRMSNorm.forward, llama.LlamaRotaryEmbedding.forward = softmax, rms, rope


class NarrowLog(TorchDispatchMode):
    """Every operator of a float64 run whose result is a narrower float, outside what is allowed."""

    def __init__(self):
        super().__init__()
        self.operators: list[str] = []
        self._allowed = False

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self._allowed:
            floats = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.is_floating_point()]
            self.operators += [f"{func} -> {x.dtype}" for x in floats if x.dtype != torch.float64]
        return out
