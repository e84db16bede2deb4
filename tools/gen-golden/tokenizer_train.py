"""Train the small tokenizers of golden/vectors/tokenizer: the families' pipelines around small vocabularies.

    python tokenizer_train.py OUT         (tokenizers 0.23.3, babel 2.18.0; writes OUT/llama3, OUT/llama2 and OUT/tiny.json)

The text is the CLDR's: names of languages, countries and units in two hundred languages, and English sentences. Lists of
merges are made of the vocabulary as transformers' converters make Llama's: every way to put a token together of two.
"""
import json
import pathlib
import sys

import tokenizers
from babel import Locale, localedata
from tokenizers import Regex, models, pre_tokenizers, trainers

import tokenizer_pipelines as pipelines
from tokenizer_pipelines import all_merges

ENGLISH = """What is shown in this image? Describe the picture in detail. The image shows a red stop sign at the corner of a
street, and there's a black car that doesn't stop. How many people are in the photo, and what are they doing? We're sure it
isn't a drawing: you'll see it's a photograph. I'd say they've been there since 1999 or 2024, about 3.14 km from 10,000 others.
You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and
assist the user with a variety of tasks using natural language. USER: ASSISTANT: user assistant system"""


def corpus():
    yield from [ENGLISH] * 40
    for code in sorted(localedata.locale_identifiers()):
        if "_" in code:
            continue
        locale = Locale.parse(code)
        names = [*locale.languages.values(), *locale.territories.values(), *locale.months["format"]["wide"].values(),
                 *locale.days["format"]["wide"].values()]
        yield " ".join(str(name) for name in names[:400])
    yield from ["def f(x):\n    return x\n\n\n" * 4, "    if a == b:\r\n        c += 1\r\n" * 4, "-" * 64, "=" * 64, "  \n\n  \t\t" * 9, " " * 64]


def trained(pre_tokenizer, text, **options):
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer
    t.train_from_iterator(text, trainers.BpeTrainer(show_progress=False, **options))
    vocab = t.get_vocab()
    return sorted(vocab, key=vocab.get)


SPLIT = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pipelines.LLAMA3_PATTERN), "isolated"),
                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def llama3():
    tokens = trained(SPLIT, corpus(), vocab_size=3000, initial_alphabet=ALPHABET)
    vocab = {token: i for i, token in enumerate(tokens)}
    return pipelines.llama3(vocab, all_merges(tokens), reserved=6)


def llama2():
    trained_tokens = trained(pre_tokenizers.Metaspace("▁", "always"), corpus(), vocab_size=3000, limit_alphabet=500)
    made = [t for t in trained_tokens if len(t) > 1] + ["▁" * n for n in (2, 3, 4, 8)]
    made = sorted(dict.fromkeys(made), key=lambda t: t.count("▁") != len(t))  # runs of spaces first, as in Llama-2
    chars = sorted({c for t in made for c in t} | {t for t in trained_tokens if len(t) == 1})
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + made + chars
    merges = all_merges(made + chars)
    whole = set(made + chars)
    merges = [(a, b) for a, b in merges if a in whole and b in whole]
    return pipelines.llama2({token: i for i, token in enumerate(tokens)}, merges)


def tiny():
    """The tokens of tiny-1.6 and tiny-1.5 below their image token, 320."""
    return {
        "llama3": ["<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>"] + trained(SPLIT, [ENGLISH], vocab_size=256 + 57, initial_alphabet=ALPHABET),
        "llama2": ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + trained(
            pre_tokenizers.Metaspace("▁", "always"), [ENGLISH], vocab_size=61, limit_alphabet=30),
    }


def main(out):
    for family, made in (("llama3", llama3()), ("llama2", llama2())):
        made["model"]["merges"] = [f"{a} {b}" for a, b in made["model"]["merges"]]  # the spelling that all versions read
        folder = pathlib.Path(out, family)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        tokenizers.Tokenizer.from_str(text)
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        print(f"{folder}: {len(made['model']['vocab'])} tokens, {len(made['model']['merges'])} merges, {len(text.encode())} bytes")
    text = json.dumps(tiny(), ensure_ascii=False, separators=(",", ":"))
    pathlib.Path(out, "tiny.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
