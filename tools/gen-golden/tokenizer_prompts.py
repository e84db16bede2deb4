"""Write the vectors of prompts in golden/vectors/tokenizer with transformers' processors, or hold other versions against them.

    python tokenizer_prompts.py OUT           (transformers 4.57.6)
    python tokenizer_prompts.py OUT --check   (4.44.2: templates only; 5.23.0: all of it)

templates.json.gz  a rendering a line: the template's name (or its text, once), messages, whether a generation prompt was asked
                   for, and the text; null where Jinja raised an error
prompts.json.gz    a conversation about images a line: family, messages, sizes [height, width], the text, and the processor's
                   ids, <image> expanded: ids; for llama2 also ms and ml, as transformers 5 makes them (legacy false and true)
counts.json.gz     a processor a line and [height, width, image tokens] for many sizes
"""
import argparse
import json
import pathlib
import random
import tempfile

import numpy as np
import transformers
from PIL import Image

import tokenizer_layouts as layouts
import tokenizer_pipelines as pipelines
import tokenizer_strings as strings
from tokenizer_vectors import differences, gz, read

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SIZES = [(336, 336), (480, 640), (640, 480), (300, 1000), (1000, 300), (333, 500), (899, 1024), (88, 99), (100, 400), (37, 148), (5, 700), (700, 5)]  # a height of 1 or 3 pixels is taken for a number of channels

OTHER_TEMPLATES = {
    "llama3 of Meta": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'][0]['text'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    "blocks on lines": "{% for m in messages %}\n    {% if m.role == 'user' %}\n  U: {{ m.content | length }}\n    {% elif m.role in ['system', 'tool'] %}\n  S\n    {% else %}\n  A{{ loop.index }}{{ '' if loop.last else ',' }}\n    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\n>{% endif %}\n",
    "white space control": "{%- for m in messages -%}  \n  {{- m.role -}}  \n {#- a comment -#}  {% generation %} x {% endgeneration %}\n{%- endfor -%}\n\n end\r\n\n",
    "alternation": "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% for c in m['content'] if c['type'] == 'text' %}{{ c.text | upper }}{% if not loop.last %}{{ ' | ' }}{% endif %}{% else %}-{% endfor %}{% endfor %}",
    "parts": "{{ bos_token }}{% for m in messages[1:] %}{% set first = m['content'] | first %}{% if first is defined and first['text'] is not defined %}[img]{% elif 'a' in m.role and first is mapping %}{{ first.text[0:0] if false else first.text.strip() }}{% endif %}{{ m.name | default('anon') }}{{ loop.first ~ loop.revindex }}{% endfor %}{{ messages[-1].role.startswith('u') or messages[0]['role'] }}",
    "undefined": "{% for m in messages %}{{ m['nothing'] }}{% for x in m['nothing'] %}y{% endfor %}{{ m['nothing']['more'] }}{% endfor %}",
    "number and string": "{% for m in messages %}{{ 'n' + (loop.index | length) }}{% endfor %}",
    "string and undefined": "{{ 'a' + messages[0]['nothing'] }}",
    "unknown tag": "{% for m in messages %}{% raw_ %}{% endfor %}",
    "scopes": "{% set x = 'o' %}{% for m in messages %}{{ x }}{% set x = m.role %}{{ x }}{% if true %}{% set x = 'i' %}{% endif %}{{ x }};{% endfor %}{{ x }}",
    "quotes": "{{ \"it's\" }}{{ 'say \"x\"' }}{{ 'tab\there' }}{{ 'a' if false else 'c' }}",
    "adjacent strings": "{{ 'a' 'b' }}",
}


def conversations():
    r = random.Random(11)
    source = strings.Strings(12, strings.SPECIALS3 + strings.SPECIALS2)
    yield [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown in this image?"}]}]
    yield [{"role": "user", "content": [{"type": "text", "text": "What is shown?"}, {"type": "image"}]}]
    yield layouts.MESSAGES
    yield [{"role": "system", "content": [{"type": "text", "text": "You are a helpful language and vision assistant."}]},
           {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Compare."}, {"type": "text", "text": "Why?"}]},
           {"role": "assistant", "content": [{"type": "text", "text": "They differ."}]}, {"role": "user", "content": [{"type": "text", "text": "How?"}]}]
    yield [{"role": "user", "content": []}]
    yield [{"role": "assistant", "content": [{"type": "image"}]}]
    odd = ["{{ messages }}", "{% endfor %}", "a & b < c > \"d\" 'e'", "\\n", "", "\n", " ", "USER: <image>", "<|eot_id|>", "{# x #}", "ß ŉ ǰ İ ﬁ"]
    for _ in range(60):
        messages = []
        for _ in range(r.randint(1, 5)):
            content = []
            for _ in range(r.choice([0, 1, 1, 2, 3])):
                text = r.choice(odd) if r.random() < 0.3 else source.string()[:60]
                content.append({"type": "image"} if r.random() < 0.35 else {"type": "text", "text": text})
            messages.append({"role": r.choice(["user", "assistant", "system", "user", "assistant", "Straße", "tool"]), "content": content})
        yield messages


def render(tokenizer, template, messages, generate):
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=generate)
    except Exception:
        return None


def template_vectors(out):
    with tempfile.TemporaryDirectory() as folder:
        made = json.loads((out / "llama3" / "tokenizer.json").read_text(encoding="utf-8"))
        layouts.write_source(folder, "llama3", made, 336, PINPOINTS)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for name, template in {**layouts.TEMPLATES, **OTHER_TEMPLATES}.items():
        yield {"name": name, "template": template}
        many = list(conversations())
        for i, messages in enumerate(many if name in layouts.TEMPLATES else many[:12]):
            for generate in (False, True):
                yield {"name": name, "messages": messages, "generate": generate, "want": render(tokenizer, template, messages, generate)}


def images_in(messages):
    return sum(part["type"] == "image" for m in messages for part in m["content"])


def expanded(tokenizer, prompt, counts):
    """What a processor does to the text before it makes ids of it."""
    for n in counts:
        prompt = prompt.replace("<image>", "<placeholder>" * n, 1)
    return tokenizer(prompt.replace("<placeholder>", "<image>"))["input_ids"]


def prompt_vectors(out):
    import tokenizers
    r = random.Random(5)
    major = layouts.VERSION[0]
    for family in ("llama3", "llama2"):
        made = json.loads((out / family / "tokenizer.json").read_text(encoding="utf-8"))
        folder = pathlib.Path(tempfile.mkdtemp())
        layouts.write_source(folder, family, made, 336, PINPOINTS)
        if family == "llama2" and major >= 5:  # as it stands, which 5.x does for other classes
            edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        processor = layouts.load_processor(folder, family)
        if family == "llama2":
            forms = {}
            for key, scheme, legacy in (("ms", "first", False), ("ml", "always", True)):
                if major >= 5:
                    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", legacy=legacy)
                    forms[key] = layouts.load_processor(folder, family)
                else:
                    t = tokenizers.Tokenizer.from_str(json.dumps(pipelines.metaspace(made, scheme)))
                    forms[key] = lambda text, t=t: {"input_ids": t.encode(text).ids}
        for messages in conversations():
            sizes = [r.choice(SIZES) for _ in range(images_in(messages))]
            text = processor.apply_chat_template(messages, add_generation_prompt=True)
            if text.count("<image>") != len(sizes):  # a text that says <image>
                continue
            # Counts and not ids of every run of image tokens, to keep the file small.
            pictures = [Image.fromarray(np.zeros((h, w, 3), dtype=np.uint8)) for h, w in sizes] or None
            ids = processor(images=pictures, text=text)["input_ids"]
            ids = ids[0] if isinstance(ids[0], list) else ids
            line = {"family": family, "messages": messages, "sizes": sizes, "text": text, "ids": runs(ids, processor.tokenizer.convert_tokens_to_ids("<image>"))}
            if family == "llama2":
                image = processor.tokenizer.convert_tokens_to_ids("<image>")
                for key, form in forms.items():
                    if major >= 5:
                        made_ids = form(images=pictures, text=text)["input_ids"]
                        made_ids = made_ids[0] if isinstance(made_ids[0], list) else made_ids
                    else:
                        made_ids = expanded(form, text, [576] * len(sizes))
                    line[key] = runs(made_ids, image)
            yield line


def runs(ids, image):
    """[id, id, [image, times], id, ...]"""
    out = []
    for i in ids:
        if i == image and out and isinstance(out[-1], list):
            out[-1][1] += 1
        else:
            out.append([i, 1] if i == image else i)
    return out


def edit(path, **fields):
    made = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**made, **fields}, ensure_ascii=False), encoding="utf-8")


def count_vectors(out):
    r = random.Random(9)
    tiny = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    for family, tile, pins in (("llama3", 336, PINPOINTS), ("llama3", 56, tiny), ("llama2", 336, None), ("llama2", 56, None)):
        for strategy in ("default", "full"):
            for additional in (0, 1):
                folder = pathlib.Path(tempfile.mkdtemp())
                made = json.loads((out / family / "tokenizer.json").read_text(encoding="utf-8"))
                layouts.write_source(folder, family, made, tile, pins)
                edit(folder / "processor_config.json", vision_feature_select_strategy=strategy, num_additional_image_tokens=additional)
                p = layouts.load_processor(folder, family)
                sizes = list(SIZES) + [(336, 672), (672, 672), (1080, 1920), (336, 1344), (152, 95), (369, 656), (1211, 606), (1, 1000), (1000, 1)]
                n = 3000 if family == "llama3" and strategy == "default" and additional else 150
                sizes += [(r.randint(1, 1500), r.randint(1, 1500)) for _ in range(n)]
                counts = p._get_num_multimodal_tokens(image_sizes=[list(s) for s in sizes])["num_image_tokens"]
                yield {"family": family, "tile": tile, "patch": 14, "strategy": strategy, "additional": additional, "pinpoints": pins,
                       "counts": [[h, w, n] for (h, w), n in zip(sizes, counts)]}


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("out", type=pathlib.Path)
    parse.add_argument("--check", action="store_true")
    args = parse.parse_args()
    sets = {"templates.json.gz": template_vectors, "prompts.json.gz": prompt_vectors, "counts.json.gz": count_vectors}
    for name, make in sets.items():
        if layouts.VERSION < (4, 52) and name != "templates.json.gz":
            continue
        lines = [json.loads(json.dumps(line)) for line in make(args.out)]
        if args.check:
            differences(f"transformers {transformers.__version__}: {name}", lines, read(args.out / name))
        else:
            gz(args.out / name, lines)
            print(f"{args.out / name}: {len(lines)} lines, {(args.out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
