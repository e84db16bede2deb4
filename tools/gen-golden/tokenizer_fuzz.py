"""Vectors of any tokenizer.json by the library "tokenizers", for the fuzz test of ref/tokenizer.

    python tokenizer_fuzz.py llama3 llama3.json            writes llama3.json.vectors.gz, 24 000 strings
    LLAVAREF_TOKENIZER_JSON_LLAMA3=$PWD/llama3.json go test -run Fuzzed -v ./ref/tokenizer

A line is a JSON list: the text, its ids with BOS, the text of those ids, the same without special tokens. Every fourth line
is ids drawn at random instead: null, the ids, and their two texts.
"""
import argparse
import gzip
import json
import random

import tokenizers

import tokenizer_strings as strings


def spelled(tokenizer, family):
    """The vocabulary as text, tokens that are no whole characters left out."""
    texts = []
    for token, token_id in sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1]):
        if family == "llama3":
            token = tokenizer.decode([token_id], skip_special_tokens=False)
        else:
            token = token.replace("▁", " ")
        if "\ufffd" not in token and not token.startswith("<0x"):
            texts.append(token)
    return texts


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("family", choices=["llama3", "llama2"])
    parse.add_argument("tokenizer_json")
    parse.add_argument("--count", type=int, default=24000)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    t = tokenizers.Tokenizer.from_file(args.tokenizer_json)
    specials = strings.SPECIALS3 if args.family == "llama3" else strings.SPECIALS2
    source = strings.Strings(args.seed, specials, spelled(t, args.family))
    r = random.Random(args.seed)
    out = args.tokenizer_json + ".vectors.gz"
    texts = idlists = 0
    with gzip.open(out, "wt", encoding="utf-8", compresslevel=3) as f:
        while texts < args.count:
            text = source.string()
            ids = t.encode(text).ids
            f.write(json.dumps([text, ids, t.decode(ids, skip_special_tokens=False), t.decode(ids, skip_special_tokens=True)]) + "\n")
            texts += 1
            if texts % 3 == 0:
                size = t.get_vocab_size()
                low = r.choice([size, 300, 600])
                ids = [r.randrange(low) if r.random() < 0.9 else r.randrange(size + 3) for _ in range(r.randint(1, 12))]
                both = [t.decode(ids, skip_special_tokens=skip) for skip in (False, True)]
                f.write(json.dumps([None, ids, *both]) + "\n")
                idlists += 1
    print(f"{out}: tokenizers {tokenizers.__version__}, seed {args.seed}, {texts} texts, {idlists} lists of ids")


if __name__ == "__main__":
    main()
