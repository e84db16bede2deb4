"""Write the vectors of ids in golden/vectors/tokenizer with the library "tokenizers", or hold other versions against them.

    python tokenizer_vectors.py OUT           (tokenizers 0.22.2, of transformers 4.57.6)
    python tokenizer_vectors.py OUT --check   (0.19.1 and 0.23.3: counts what they make otherwise, writes nothing)

strings.jsonl.gz   a text a line: t the text; l3, l2, ms, ml its ids with begin-of-text by the tokenizers llama3 and llama2, and
                   by llama2 as transformers 5 rebuilds it (ms: Metaspace "first", ml: "always"); ms and ml only where they
                   differ from l2; c the lengths, in characters, of the pieces into which Llama-3's pattern cuts the text
decode.jsonl.gz    a list of ids a line: f the family, i the ids, p their text, s their text without special tokens
lossy.json.gz      bytes (in hexadecimal) and what Python's errors="replace" makes of them, a pair a line
components.json.gz pipelines that use what the two families do not: tokenizer.json, texts with ids, lists of ids with texts
"""
import argparse
import gzip
import json
import pathlib
import random

import tokenizers
from tokenizers import Regex, pre_tokenizers

import tokenizer_pipelines as pipelines
import tokenizer_strings as strings

FIXED = [
    "", " ", "  ", "\n", "\r\n", "\t", "▁", "▁▁", " ▁", "a", " a", "a ", "  a  ", "Hello world", "don't DON'T don\u2019t", "'ſ 'S 'lL 'rE",
    "1 12 123 1234 12345 123456789", "٠١٢٣٤", "½⅓Ⅷ①", "a\u0301", "e\u0301\u0302\u0303", "\u0301a", "👩‍👩‍👧‍👦👍🏽🇫🇷🇩", "שלום עולם", "مرحبا بالعالم",
    "\u202eabc\u202c", "\x00\x01\x7f", "\ufffd\ufffd", "\ufffe\uffff\ufdd0", "\U0010ffff", "<image>", "<image><image>", " <image> ", "a<image>b",
    "<image>\nWhat is this?", "USER: <image>\nWhat is this? ASSISTANT:", "USER: <image>\n<image>\nBoth? ASSISTANT: yes</s>USER: <image> ASSISTANT:",
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is this?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<s>", "</s>", "<unk>", "<pad>", "< s>", "<s><s> <s>", "<|begin_of_text|><|begin_of_text|>", "<0x0A>", "<0xE4><0xBD><0xA0>",
    " " * 100, "\n" * 50, "a" * 300, "ab" * 200, "=" * 129, "x " * 50, "antidisestablishmentarianism" * 4, " \n \n ", "\u3000日本\u3000", "\u2028x\u2029",
]


def gz(path, lines):
    """Compressed without a time, so that the same vectors are the same file."""
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0))


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f.read().split("\n") if line]


def load(out, family, scheme=None):
    made = json.loads(pathlib.Path(out, family, "tokenizer.json").read_text(encoding="utf-8"))
    if scheme:
        made = pipelines.metaspace(made, scheme)
    return tokenizers.Tokenizer.from_str(json.dumps(made))


def texts():
    source = strings.Strings(20240501, strings.SPECIALS3 + strings.SPECIALS2)
    seen = dict.fromkeys(FIXED)
    while len(seen) < 3200:
        text = source.string()
        if len(text) <= 400:
            seen.setdefault(text)
    return list(seen)


def string_vectors(out):
    cut = pre_tokenizers.Split(Regex(pipelines.LLAMA3_PATTERN), "isolated")
    l3, l2, ms, ml = load(out, "llama3"), load(out, "llama2"), load(out, "llama2", "first"), load(out, "llama2", "always")
    for text in texts():
        line = {"t": text, "l3": l3.encode(text).ids, "l2": l2.encode(text).ids}
        for key, t in (("ms", ms), ("ml", ml)):
            ids = t.encode(text).ids
            if ids != line["l2"]:
                line[key] = ids
        line["c"] = [len(piece) for piece, _ in cut.pre_tokenize_str(text)]
        yield line


def decode_vectors(out):
    r = random.Random(7)
    for family in ("llama3", "llama2"):
        t = load(out, family)
        size = t.get_vocab_size()
        for _ in range(1500):
            low = r.choice([size, 260, 130])
            ids = [r.randrange(low) if r.random() < 0.9 else r.randrange(size - 12, size + 3) for _ in range(r.randint(0, 14))]
            plain, skipped = (t.decode(ids, skip_special_tokens=skip) for skip in (False, True))
            line = {"f": family, "i": ids, "p": plain}
            if skipped != plain:
                line["s"] = skipped
            yield line


def components():
    """Flags of added tokens, unknown characters, merges that ids do not imply, every way of Metaspace."""
    letters = list("abcdefghijklmnop▁ _.<>|é你")
    base = ["<unk>"] + letters
    made = ["ab", "bc", "abc", "cd", "abcd", "▁a", "▁ab", "aa", "aaa", "aaaa", "b▁", "▁▁", "<<"]
    vocab = {t: i for i, t in enumerate(base + made)}
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("c", "d"), ("ab", "cd"), ("▁", "a"), ("▁", "ab"), ("a", "a"), ("aa", "a"), ("aa", "aa"),
              ("b", "▁"), ("▁", "▁"), ("<", "<")]
    bytes_ = {f"<0x{b:02X}>": len(vocab) + b for b in range(256)}

    def model(**options):
        return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": False, "byte_fallback": False, "vocab": dict(vocab), "merges": [" ".join(m) for m in merges], **options}

    def token(content, token_id, **flags):
        return pipelines.special(content, token_id, **flags)

    def whole(name, model_, added=(), pre=None, norm=None, decoder=None, post=None):
        return name, {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": norm,
                      "pre_tokenizer": pre, "post_processor": post, "decoder": decoder or {"type": "Sequence", "decoders": [
                          {"type": "ByteFallback"}, {"type": "Fuse"}]}, "model": model_}

    def meta(scheme, split):
        return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}

    size = len(vocab)
    flags = [token("<<l>>", size, lstrip=True), token("<<r>>", size + 1, rstrip=True), token("<<b>>", size + 2, lstrip=True, rstrip=True),
             token("ab", vocab["ab"], single_word=True, special=False), token("<<n>>", size + 3, normalized=True, special=False),
             token("<<n>", size + 4), token("é", vocab["é"], special=False), token("  ", size + 5, special=False, normalized=False)]
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    replace = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}]}
    around = {"type": "Sequence", "processors": [
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "y", "type_id": 0}}, {"SpecialToken": {"id": "x", "type_id": 0}},
                                                  {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "y", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"x": {"id": "x", "ids": [3], "tokens": ["c"]}, "y": {"id": "y", "ids": [4, 5], "tokens": ["d", "e"]}}},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}]}
    partial = {k: v for k, v in bytes_.items() if int(k[3:5], 16) < 0xE0}
    byte_level = pipelines.llama3(dict(vocab), [" ".join(m) for m in merges], reserved=6)
    byte_level["model"]["ignore_merges"] = False
    yield whole("characters without a token are dropped", model())
    yield whole("unknown", model(unk_token="<unk>"))
    yield whole("unknown, fused", model(unk_token="<unk>", fuse_unk=True))
    yield whole("byte fallback", model(byte_fallback=True, vocab={**vocab, **bytes_}))
    yield whole("byte fallback for some bytes, unknown fused", model(byte_fallback=True, unk_token="<unk>", fuse_unk=True, vocab={**vocab, **{
        k: size + i for i, k in enumerate(partial)}}))
    yield whole("byte fallback for some bytes, unknown", model(byte_fallback=True, unk_token="<unk>", vocab={**vocab, **{
        k: size + i for i, k in enumerate(partial)}}))
    yield whole("whole pieces first", model(ignore_merges=True), pre=meta("never", True))
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield whole(f"Metaspace {scheme}, split {split}", model(), pre=meta(scheme, split), added=[token("<<l>>", size)], decoder=replace)
    yield whole("flags of added tokens", model(unk_token="<unk>"), added=flags)
    yield whole("flags of added tokens, normalised", model(unk_token="<unk>"), added=flags, norm=prepend)
    yield whole("ids before and after", model(), post=around)
    yield "byte-level without ignore_merges, bytes missing", byte_level


def component_vectors():
    r = random.Random(3)
    pieces = ["a", "b", "c", "d", "ab", "abc", "abcd", "aa", "aaa", " ", "  ", "▁", "_", ".", "é", "你", "🦙", "x", "<<l>>", "<<r>>", "<<b>>", "<<n>>",
              "<<n>", "<<", "<", "<<n", "\n", "\u00a0", "ß", "٣", "e\u0301", "\u200d"]
    for name, made in components():
        t = tokenizers.Tokenizer.from_str(json.dumps(made))
        cases, lists = [], []
        for i in range(150):
            text = "".join(r.choice(pieces) for _ in range(r.randint(0, 12)))
            cases.append([text, t.encode(text).ids, t.encode(text, add_special_tokens=False).ids])
        for i in range(40):
            ids = [r.randrange(t.get_vocab_size() + 2) for _ in range(r.randint(0, 10))]
            lists.append([ids, t.decode(ids, skip_special_tokens=False), t.decode(ids, skip_special_tokens=True)])
        yield {"name": name, "tokenizer": made, "texts": cases, "ids": lists}


def lossy_vectors():
    r = random.Random(13)
    parts = [b"a", b"\x80", b"\xbf", b"\xc0", b"\xc2", b"\xc2\xa0", b"\xdf", b"\xe0", b"\xe0\xa0", b"\xe0\x9f", b"\xe4\xbd", b"\xe4\xbd\xa0",
             b"\xed\xa0\x80", b"\xed\x9f\xbf", b"\xef\xbf\xbd", b"\xf0", b"\xf0\x90", b"\xf0\x8f", b"\xf0\x9f\x98", b"\xf0\x9f\x98\x80",
             b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5", b"\xff", b"\xfe"]
    for _ in range(1500):
        data = b"".join(r.choice(parts) if r.random() < 0.8 else bytes([r.randrange(256)]) for _ in range(r.randint(0, 8)))
        yield [data.hex(), data.decode("utf-8", "replace")]


def differences(name, have, want):
    differ = [(a, b) for a, b in zip(have, want, strict=True) if a != b]
    print(f"tokenizers {tokenizers.__version__}: {name}: {len(differ)} of {len(want)} differ")
    for a, b in differ[:3]:
        print("   ", str(a)[:200], "\n   ", str(b)[:200])


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("out", type=pathlib.Path)
    parse.add_argument("--check", action="store_true")
    args = parse.parse_args()
    for name, made in (("strings.jsonl.gz", string_vectors(args.out)), ("decode.jsonl.gz", decode_vectors(args.out)),
                       ("components.json.gz", component_vectors()), ("lossy.json.gz", lossy_vectors())):
        lines = list(made)
        if args.check:
            differences(name, lines, read(args.out / name))
        else:
            gz(args.out / name, lines)
            print(f"{args.out / name}: {len(lines)} lines, {(args.out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
