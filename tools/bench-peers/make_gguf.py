"""Writes a GGUF of Llama layers in the shapes of Llama-3-8B, as `wide` has them: 2 layers, 1024 tokens, no tokenizer. For llama-bench."""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, MLP, HEADS, KV_HEADS, HEAD, VOCAB = 2, 4096, 14336, 32, 8, 128, 1024


def main(path, kind):
    types = {"bf16": gguf.GGMLQuantizationType.BF16, "f16": gguf.GGMLQuantizationType.F16, "f32": gguf.GGMLQuantizationType.F32}
    random = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("wide, the decoder alone")
    w.add_block_count(LAYERS)
    w.add_context_length(8192)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(MLP)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(500000.0)
    w.add_rope_dimension_count(HEAD)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")

    def add(name, *shape):
        data = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
        if len(shape) == 1:
            w.add_tensor(name, np.ones(shape, np.float32))
        else:
            w.add_tensor(name, gguf.quants.quantize(data, types[kind]), raw_dtype=types[kind])

    add("token_embd.weight", VOCAB, WIDTH)
    for i in range(LAYERS):
        add(f"blk.{i}.attn_norm.weight", WIDTH)
        add(f"blk.{i}.attn_q.weight", HEADS * HEAD, WIDTH)
        add(f"blk.{i}.attn_k.weight", KV_HEADS * HEAD, WIDTH)
        add(f"blk.{i}.attn_v.weight", KV_HEADS * HEAD, WIDTH)
        add(f"blk.{i}.attn_output.weight", WIDTH, HEADS * HEAD)
        add(f"blk.{i}.ffn_norm.weight", WIDTH)
        add(f"blk.{i}.ffn_gate.weight", MLP, WIDTH)
        add(f"blk.{i}.ffn_up.weight", MLP, WIDTH)
        add(f"blk.{i}.ffn_down.weight", WIDTH, MLP)
    add("output_norm.weight", WIDTH)
    add("output.weight", VOCAB, WIDTH)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
