"""Strings that tokenizers stumble over, of many scripts: a pure function of the seed.

Nothing here depends on a library's version: characters are chosen by ranges of code points, not by their properties.
"""
import random

SCRIPTS = {
    "latin": [(0x61, 0x7A), (0x41, 0x5A), (0xC0, 0x17F)], "greek": [(0x3B1, 0x3C9), (0x391, 0x3A9), (0x1F00, 0x1F15)],
    "cyrillic": [(0x410, 0x44F), (0x450, 0x45F)], "armenian": [(0x561, 0x586)], "hebrew": [(0x5D0, 0x5EA), (0x591, 0x5BD)],
    "arabic": [(0x621, 0x64A), (0x64B, 0x652), (0x660, 0x669)], "devanagari": [(0x904, 0x939), (0x93A, 0x94D), (0x966, 0x96F)],
    "bengali": [(0x985, 0x9B9), (0x9BE, 0x9CD)], "tamil": [(0xB85, 0xBB9), (0xBBE, 0xBCD)], "thai": [(0xE01, 0xE3A), (0xE40, 0xE59)],
    "tibetan": [(0xF40, 0xF6C), (0xF71, 0xF84), (0xF0B, 0xF0E)], "georgian": [(0x10D0, 0x10FA)], "hangul": [(0xAC00, 0xD7A3), (0x1100, 0x1175)],
    "ethiopic": [(0x1200, 0x1248)], "khmer": [(0x1780, 0x17B3), (0x17B6, 0x17D1)], "kana": [(0x3041, 0x3096), (0x30A1, 0x30FA)],
    "han": [(0x4E00, 0x9FA5)], "han2": [(0x20000, 0x2A6D6)], "gothic": [(0x10330, 0x1034A)], "deseret": [(0x10400, 0x1044F)],
    "math": [(0x1D400, 0x1D454), (0x1D7CE, 0x1D7FF), (0x2200, 0x22FF)], "fullwidth": [(0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)],
    "numbers": [(0x2150, 0x2188), (0x2460, 0x249B), (0xBC, 0xBE), (0xB2, 0xB3), (0x3007, 0x3029)],
    "symbols": [(0x2600, 0x26FF), (0x2190, 0x21FF), (0x20A0, 0x20BF), (0x2500, 0x257F)], "emoji": [(0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF)],
    "new": [(0x1C89, 0x1C8A), (0xA7CB, 0xA7CD), (0x105C0, 0x105F3), (0x2EBF0, 0x2EE5D), (0x1E5F0, 0x1E5FA), (0x31350, 0x323AF)],
}
MARKS = [(0x300, 0x36F), (0x483, 0x487), (0x1AB0, 0x1ABE), (0x20D0, 0x20F0), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)]
SPACES = " \t\n\r\v\f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\xad\u061c\u180e\u2060"
CONTROL = "".join(map(chr, list(range(0, 9)) + list(range(14, 32)) + [127] + list(range(0x80, 0xA0))))
ODD = ["\ufffd", "\ufffe", "\uffff", "\ufdd0", "\U0001ffff", "\U0010ffff", "\ue000", "\U000f0000", "\x00", "\u2581", "\u2581\u2581", "Ġ", "Ċ", "ſ"]
PUNCT = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
WORDS = """the of and to in a is that for it as was with be by on not he I this are or his from at which but have an had they you
were their one all we can her has there been if more when will would who so no antidisestablishmentarianism Donaudampfschifffahrt
naïve café Straße ΑΘΗΝΑ Москва 東京 中文 서울 शहर ירושלים القاهرة กรุงเทพ HTTP iPhone x86_64 camelCase snake_case SCREAMING kebab-case
USER: ASSISTANT: What is shown in this image? Describe the picture in detail.""".split()
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'LL", "'lL", "'D", "'M", "'ſ", "'r", "'l", "'v",
                "\u2019s", "\u2019ll", "''s", "'sS", "'tis"]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "🇫🇷🇩", "1️⃣", "❤️", "☺︎", "🧑🏿‍🚀", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]
CODE = ["def f(x):\n    return x**2\n", "if (a != b) { c += 1; }\r\n", "<div class=\"x\">&amp;</div>", "https://a.example/b?c=d&e=%20f#g",
        "{\"k\": [1, 2.5, null]}", "\t\t- item\n\t\t- item\n", "x = 0xFF; y = 1e-10; z = 1_000_000", "$\\frac{1}{2}$", "a::b->c.*d", "#!/bin/sh"]
SPECIALS3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|reserved_special_token_0|>",
             "<|reserved_special_token_5|>", "<image>", "<pad>"]
SPECIALS2 = ["<s>", "</s>", "<unk>", "<image>", "<pad>"]
PARTIAL = ["<|begin_of_text|", "|begin_of_text|>", "<|eot_id", "<|eot_id|", "<|", "|>", "<imag", "<image", "image>", "< image>", "<image >",
           "<<image>", "<image>>", "<IMAGE>", "<s", "</s", "< s>", "<0x0A>", "<0x41>", "<0xE4>", "<0xZZ>", "<unk", "[INST]", "<|eot_id|><",
           "<|reserved_special_token_9999|>", "<|start_header_id|><|start_header_id|"]


class Strings:
    """An endless source of strings. vocabulary: tokens as text, from which strings that follow the merges are made."""

    def __init__(self, seed, specials, vocabulary=()):
        self.r = random.Random(seed)
        self.specials = specials
        self.vocabulary = list(vocabulary)

    def char(self, ranges):
        a, b = self.r.choice(ranges)
        return chr(self.r.randint(a, b))

    def word(self):
        r = self.r
        name = r.choice(list(SCRIPTS))
        if r.random() < 0.4:
            return r.choice(WORDS)
        word = "".join(self.char(SCRIPTS[name]) for _ in range(r.randint(1, 9)))
        if r.random() < 0.15:
            at = r.randint(0, len(word))
            word = word[:at] + self.char(MARKS) + word[at:]
        return word

    def number(self):
        r = self.r
        digits = "".join(r.choice("0123456789") for _ in range(r.randint(1, 11)))
        kind = r.randint(0, 5)
        if kind == 0:
            return digits + "." + digits
        if kind == 1:
            return "".join(self.char(SCRIPTS["numbers"] + [(0x660, 0x669), (0x966, 0x96F)]) for _ in range(r.randint(1, 7)))
        if kind == 2:
            return f"{int(digits):,}"
        return digits

    def spaces(self):
        r = self.r
        kind = r.randint(0, 6)
        if kind == 0:
            return " " * r.choice([1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 60, 81, 83, 130])
        if kind == 1:
            return r.choice(["\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", " \n", "\n ", "  \n  ", "\t\n", "\n\t", "\r", "\n\r", " \r\n \r\n  "])
        if kind == 2:
            return "".join(r.choice(SPACES) for _ in range(r.randint(1, 6)))
        return " "

    def odd(self):
        r = self.r
        return r.choice([
            lambda: r.choice(ODD), lambda: r.choice(INVISIBLE), lambda: r.choice(CONTROL), lambda: r.choice(EMOJI),
            lambda: r.choice(PARTIAL), lambda: r.choice(self.specials), lambda: r.choice(CONTRACTIONS), lambda: r.choice(CODE),
            lambda: "".join(r.choice(PUNCT) for _ in range(r.randint(1, 5))), lambda: r.choice(PUNCT) * r.randint(2, 40),
            lambda: self.char(MARKS) * r.randint(1, 4), lambda: chr(r.choice([r.randint(0x80, 0xD7FF), r.randint(0xE000, 0x10FFFF)])),
            lambda: self.char(SCRIPTS[r.choice(list(SCRIPTS))]) * r.randint(2, 30),
        ])()

    def token(self):
        """A part of a token, one, or several in a row."""
        r = self.r
        if not self.vocabulary:
            return self.word()
        text = "".join(r.choice(self.vocabulary) for _ in range(r.randint(1, 3)))
        if r.random() < 0.3 and len(text) > 1:
            a = r.randint(0, len(text) - 1)
            text = text[a:r.randint(a + 1, len(text))]
        return text

    def string(self):
        r = self.r
        kind = r.randint(0, 11)
        if kind == 0:  # a sentence of one script
            return " ".join(self.word() for _ in range(r.randint(1, 7)))
        if kind == 1:  # runs of a short unit: where the order of merges shows
            unit = "".join(r.choice(["a", "b", " ", "=", "-", "\n", "aa", "ab", self.word()[:2]]) for _ in range(r.randint(1, 3)))
            return unit * r.randint(2, 40)
        if kind == 2:  # a very long word
            return "".join(r.choice([self.word(), self.token()]).replace(" ", "") for _ in range(r.randint(8, 30)))
        if kind == 3:
            return "".join(self.token() for _ in range(r.randint(1, 5)))
        if kind == 4:  # a prompt
            return r.choice([
                f"{self.specials[0]}<image>{self.spaces()}{self.word()} {self.word()}{self.specials[-3]}",
                f"USER: <image>\n{self.word()} {self.word()} ASSISTANT: {self.word()}</s>USER: {self.word()} ASSISTANT:",
                f"<image><image>{self.spaces()}<image>{self.word()}",
            ])
        if kind == 5:
            return "".join(r.choice([self.spaces, self.odd])() for _ in range(r.randint(1, 6)))
        if kind == 6:
            return r.choice(["", " ", "  "]) + self.word() + r.choice(["", " ", "  ", "\n"])
        parts = [self.word, self.number, self.spaces, self.odd, self.spaces, self.word, self.token]
        return "".join(r.choice(parts)() for _ in range(r.randint(1, 10)))
