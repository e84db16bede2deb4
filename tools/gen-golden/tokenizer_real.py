"""Write a real tokenizer.json from a package of npm, for the tests that read LLAVAREF_TOKENIZER_JSON_LLAMA3 or _LLAMA2.

    npm pack llama3-tokenizer-js@1.2.0 && tar xzf llama3-tokenizer-js-1.2.0.tgz
    python tokenizer_real.py llama3 package/src/data-converted.js llama3.json
    npm pack llama-tokenizer-js@1.2.2 && tar xzf llama-tokenizer-js-1.2.2.tgz
    python tokenizer_real.py llama2 package/llama-tokenizer.js llama2.json

Both vocabularies are under Meta's licences: use the files, do not commit them.
"""
import base64
import json
import re
import struct
import sys

import tokenizer_pipelines as pipelines


def blob(source, name):
    return base64.b64decode(re.search(rf'const {name} *= *"([^"]*)"', source).group(1))


def main(family, package, out):
    with open(package, encoding="utf-8") as f:
        source = f.read()
    tokens = blob(source, "llama_vocab_base64").decode("utf-8").split("\n")
    packed = blob(source, "llama_merges_binary")
    if family == "llama3":  # 17 bits an id, the highest first
        bits = int.from_bytes(packed, "big")
        total = len(packed) * 8
        count = total // 17
        text = bin(bits)[2:].zfill(total)
        ids = [int(text[i * 17:i * 17 + 17], 2) for i in range(count)]
    else:
        ids = list(struct.unpack(f"<{len(packed) // 2}H", packed))
    ids = ids[:len(ids) // 2 * 2]
    pairs = [[tokens[a], tokens[b]] for a, b in zip(ids[::2], ids[1::2])]
    vocab = {token: i for i, token in enumerate(tokens)}
    while pairs and pairs[-1][0] + pairs[-1][1] not in vocab:  # the padding of the last byte
        pairs.pop()
    assert len(vocab) == len(tokens)
    made = pipelines.llama3(vocab, pairs) if family == "llama3" else pipelines.llama2(vocab, pairs)
    with open(out, "w", encoding="utf-8") as f:
        json.dump(made, f, ensure_ascii=False)
    print(f"{out}: {len(vocab)} tokens, {len(pairs)} merges, {len(made['added_tokens'])} added tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
