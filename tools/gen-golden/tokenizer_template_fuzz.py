"""Random chat templates and what Jinja makes of them, for the fuzz test of ref/tokenizer.

    python tokenizer_template_fuzz.py OUT.gz --count 20000 --seed 1       (transformers 4.57.6, jinja2 3.1.6)
    LLAVAREF_TEMPLATES=$PWD/OUT.gz go test -run RandomTemplates -v ./ref/tokenizer

random.json.gz of golden/vectors/tokenizer is --count 1500 --seed 3.

A line is a JSON list: the template, which of MESSAGES, whether a generation prompt was asked for, the text or null where Jinja
raised an error. The first line has MESSAGES. The templates are of the part of Jinja that ref/tokenizer supports, and of what lies near it.
"""
import argparse
import gzip
import io
import json
import pathlib
import random

from transformers.utils.chat_template_utils import _compile_jinja_template


class Templates:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.names = []

    def pick(self, *makers):
        return self.r.choice(makers)()

    def literal(self):
        return self.r.choice(["'a'", '"b"', "'user'", "'text'", "'image'", "' x\\n'", "'it\\'s'", "''", "'<|eot_id|>'", "'a b'", "'{{'", "'%}'"])

    def value(self, depth=0):
        """An expression of any type."""
        r = self.r
        simple = [self.literal, lambda: "messages", lambda: "messages[0]", lambda: "messages[-1]['role']", lambda: "messages[0].role", lambda: "nothing",
                  lambda: "add_generation_prompt", lambda: str(r.randint(0, 3)), lambda: "true", lambda: "false", lambda: "bos_token", lambda: "[]",
                  lambda: "['user', 1]", lambda: "messages[0]['content']", lambda: "messages[0]['content'][0]", lambda: "messages[0]['nothing']",
                  lambda: "messages[1:]", lambda: "messages[:-1]", lambda: "messages[5]", lambda: "messages | length", lambda: "loop.index", lambda: "loop.first"]
        if self.names:
            simple += [lambda: r.choice(self.names)] * 8
            simple += [lambda: r.choice(self.names) + r.choice([".role", "['role']", "['content']", ".type", ".text", "['text']", "['nothing']"])] * 12
        if depth > 2 or r.random() < 0.35:
            return self.pick(*simple)
        d = depth + 1
        v = lambda: self.value(d)  # noqa: E731
        return self.pick(
            lambda: f"{v()} + {v()}", lambda: f"{v()} ~ {v()}", lambda: f"{v()} ~ {v()} ~ {v()}", lambda: f"{self.literal()} + {v()}",
            lambda: f"({v()})", lambda: f"{v()} == {v()}", lambda: f"{v()} != {v()}", lambda: f"{v()} and {v()}", lambda: f"{v()} or {v()}",
            lambda: f"not {v()}", lambda: f"{v()} in {v()}", lambda: f"{v()} not in {v()}", lambda: f"{v()} | {self.filter()}",
            lambda: f"{v()} is {self.test()}", lambda: f"{v()} is not {self.test()}", lambda: f"{v()}.{self.method()}",
            lambda: f"({v()}) | {self.filter()} | {self.filter()}", lambda: f"{v()} | selectattr('type', 'equalto', '{r.choice(['text', 'image'])}')",
            lambda: f"{v()} | rejectattr('type', '==', 'text') | list", lambda: f"{r.randint(0, 5)} % {r.randint(1, 3)} == {r.randint(0, 1)}",
            lambda: f"{v()} < {v()}", lambda: f"-{r.randint(1, 3)} + {r.randint(1, 3)}", lambda: f"{v()}[{v()}]")

    def filter(self):
        return self.r.choice(["trim", "upper", "lower", "length", "first", "last", "list", "default('d')", "count", "tojson", "join(',')", "string"])

    def test(self):
        return self.r.choice(["defined", "undefined", "string", "mapping", "sequence", "iterable", "equalto('a')", "equalto 'text'", "none", "in ['a', 'user']"])

    def method(self):
        return self.r.choice(["upper()", "lower()", "strip()", "lstrip()", "rstrip()", "startswith('a')", "endswith('r')", "title()", "split(' ')"])

    def space(self):
        return self.r.choice(["", "", " ", "\n", "\n  ", "  \n", "\n\n", "\t", " \n \n"])

    def tag(self, inside):
        r = self.r
        return "{%" + r.choice(["", "", "-", "+" if r.random() < 0.1 else ""]) + " " + inside + " " + r.choice(["", "", "-"]) + "%}"

    def body(self, depth=0):
        return "".join(self.statement(depth) for _ in range(self.r.randint(1, 3)))

    def statement(self, depth):
        r = self.r
        kinds = [self.space, lambda: r.choice(["x", "y z", "<image>", "}", "{", "é"]), lambda: self.output(), lambda: self.output(), lambda: self.comment()]
        if depth < 3:
            kinds += [lambda: self.loop(depth), lambda: self.loop(depth), lambda: self.condition(depth), lambda: self.condition(depth), lambda: self.assignment(),
                      lambda: self.tag("generation") + self.body(depth + 1) + self.tag("endgeneration")]
        return self.space() + self.pick(*kinds) + self.space()

    def output(self):
        inner = self.value()
        if self.r.random() < 0.15:
            inner += f" if {self.value(2)}" + (f" else {self.value(2)}" if self.r.random() < 0.7 else "")
        return "{{" + self.r.choice(["", "-"]) + " " + inner + " " + self.r.choice(["", "-"]) + "}}"

    def comment(self):
        return "{#" + self.r.choice(["", "-"]) + " c " + self.r.choice(["", "-"]) + "#}"

    def loop(self, depth):
        r = self.r
        name = r.choice(["m", "c", "x"])
        over = r.choice(["messages", "messages[1:]", "messages[0]['content']", "'ab'", "nothing", "[1, 2]"])
        if self.names and r.random() < 0.6:
            over = r.choice(self.names) + r.choice(["['content']", ".content", "['content'] | selectattr('type', 'equalto', 'text')", "['content'] | selectattr('type', 'eq', 'image') | list"])
        self.names.append(name)
        condition = f" if {self.value(1)}" if r.random() < 0.15 else ""
        inside = self.body(depth + 1)
        self.names.pop()
        otherwise = self.tag("else") + self.body(depth + 1) if r.random() < 0.15 else ""
        return self.tag(f"for {name} in {over}{condition}") + inside + otherwise + self.tag("endfor")

    def condition(self, depth):
        out = self.tag(f"if {self.value()}") + self.body(depth + 1)
        if self.r.random() < 0.3:
            out += self.tag(f"elif {self.value(1)}") + self.body(depth + 1)
        if self.r.random() < 0.4:
            out += self.tag("else") + self.body(depth + 1)
        return out + self.tag("endif")

    def assignment(self):
        value = self.value()
        name = self.r.choice(["v", "w"])
        made = self.tag(f"set {name} = {value}")
        self.names.append(name)
        return made


MESSAGES = [
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
    [{"role": "system", "content": [{"type": "text", "text": " be brief "}]}, {"role": "user", "content": [{"type": "text", "text": "a\n"}, {"type": "image"}, {"type": "text", "text": ""}]},
     {"role": "assistant", "content": [{"type": "text", "text": "b"}]}],
    [{"role": "user", "content": []}],
]


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("out")
    parse.add_argument("--count", type=int, default=20000)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    r = random.Random(args.seed)
    made = Templates(args.seed)
    rendered = 0
    with io.StringIO() as f:
        f.write(json.dumps(MESSAGES) + "\n")
        written = 0
        while written < args.count:
            made.names = []
            template, messages, generate = made.body(), r.choice(MESSAGES), r.random() < 0.5
            try:
                compiled = _compile_jinja_template(template)
            except Exception:
                continue  # no template: what stands in a branch that is never reached would not matter here
            written += 1
            try:
                text = compiled.render(messages=messages, add_generation_prompt=generate, bos_token="<s>")
                rendered += 1
            except Exception:
                text = None
            f.write(json.dumps([template, MESSAGES.index(messages), generate, text]) + "\n")
        pathlib.Path(args.out).write_bytes(gzip.compress(f.getvalue().encode(), 9, mtime=0))
    print(f"{args.out}: seed {args.seed}, {args.count} templates, {rendered} rendered")


if __name__ == "__main__":
    main()
