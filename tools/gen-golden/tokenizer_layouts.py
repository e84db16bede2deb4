"""The folders that versions of transformers write: golden/vectors/tokenizer/layouts/FAMILY-VERSION.

    python tokenizer_layouts.py OUT       (run in one environment for each version)

A processor with the tokenizer of tiny-1.6 or tiny-1.5 is made from plain files, loaded and saved again by the version at hand, with its model's
config.json and generation_config.json. expected.json has what the same version's processor makes of a few texts, and, where
it can render a chat template, of a conversation.
"""
import inspect
import json
import pathlib
import shutil
import sys
import tempfile

import transformers

import tokenizer_pipelines as pipelines

TEMPLATES = {
    "llama3": "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'}}{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}{# Render all text next #}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] + '<|eot_id|>' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "llama2": "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
}
VERSION = tuple(int(n) for n in transformers.__version__.split(".")[:2])
if VERSION < (4, 44):  # they know no {% generation %}
    TEMPLATES["llama2"] = TEMPLATES["llama2"].replace("{% generation %}", "").replace("{% endgeneration %}", "")
TEXTS = ["Hello world", " two  spaces", "USER: <image>\nWhat? ASSISTANT:", "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat?<|eot_id|>",
         "<s>a</s>b", "é你\U0001f600\n", "<pad><unk>x"]
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]


def tiny(out, family):
    """Tokenizers for the models tiny-1.6 and tiny-1.5 of shapes/models: begin 1, end 2, image 320, pad 321, 384 ids."""
    tokens = json.loads(pathlib.Path(out, "tiny.json").read_text(encoding="utf-8"))[family]
    vocab = {t: i for i, t in enumerate(tokens)}
    if family == "llama3":
        made = pipelines.llama3(vocab, [], reserved=2)
        names = ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<image>", "<pad>"]
        made["added_tokens"] = [pipelines.special(t, i) for i, t in enumerate(tokens[:3])] + [
            pipelines.special(t, len(tokens) + i) for i, t in enumerate(names)]
        made["post_processor"]["processors"][1]["special_tokens"]["<|begin_of_text|>"]["ids"] = [1]
        parts = tokens[3:]
    else:
        made = pipelines.llama2(vocab, [])
        parts = tokens[3 + 256:]
    assert made["added_tokens"][-2] == pipelines.special("<image>", 320) and made["added_tokens"][-1]["id"] == 321
    made["model"]["merges"] = [f"{a} {b}" for a, b in pipelines.all_merges(parts)]
    return made


def config(family):
    """The model's config.json in the spelling of 4.x."""
    name = "tiny-1.6" if family == "llama3" else "tiny-1.5"
    return json.loads(pathlib.Path(__file__).parents[2].joinpath("shapes", "models", name + ".json").read_text())


def image_processor(family, tile=56, pinpoints=None):
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    p = {"crop_size": {"height": tile, "width": tile}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
         "do_resize": True, "image_mean": mean, "image_std": std, "resample": 3, "rescale_factor": 0.00392156862745098,
         "size": {"shortest_edge": tile}}
    if family == "llama3":
        return {**p, "do_pad": True, "image_grid_pinpoints": pinpoints, "image_processor_type": "LlavaNextImageProcessor",
                "processor_class": "LlavaNextProcessor"}
    return {**p, "image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}


def write_source(folder, family, made, tile=56, pinpoints=None, processor=True):
    """A folder like the official ones."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [t["content"] for t in made["added_tokens"]]
    tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True}
    if family == "llama2":
        tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False,
                    "clean_up_tokenization_spaces": False, "use_default_system_prompt": False, "sp_model_kwargs": {}}
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in made["added_tokens"]}
    kind = "LlavaNextProcessor" if family == "llama3" else "LlavaProcessor"
    files = {"tokenizer.json": made, "tokenizer_config.json": {**settings, **tokens, "added_tokens_decoder": decoder, "model_max_length": 4096,
                                                               "processor_class": kind, "padding_side": "left"},
             "special_tokens_map.json": tokens, "preprocessor_config.json": image_processor(family, tile, pinpoints),
             "chat_template.json": {"chat_template": TEMPLATES[family]}}
    if processor:
        files["processor_config.json"] = {"image_token": "<image>", "patch_size": 14, "processor_class": kind, "num_additional_image_tokens": 1,
                                          "vision_feature_select_strategy": "default"}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return names


def load_processor(folder, family):
    """The processor with the slow image processor, whatever the version calls it."""
    cls = transformers.LlavaNextProcessor if family == "llama3" else transformers.LlavaProcessor
    if VERSION[0] >= 5:
        return cls.from_pretrained(folder, backend="pil")
    from transformers import AutoTokenizer, CLIPImageProcessor, LlavaNextImageProcessor
    image = (LlavaNextImageProcessor if family == "llama3" else CLIPImageProcessor).from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = {}
    where = pathlib.Path(folder, "processor_config.json")
    if where.exists():
        given = {k: v for k, v in json.loads(where.read_text()).items() if k not in ("processor_class",)}
    template = json.loads(pathlib.Path(folder, "chat_template.json").read_text())["chat_template"]
    takes = inspect.signature(cls.__init__).parameters
    given = {k: v for k, v in given.items() if k in takes}
    if "chat_template" in takes:
        given["chat_template"] = template
    if "chat_template" not in takes:
        tokenizer.chat_template = template
    if VERSION < (4, 41) and family == "llama3":  # its processor takes Llama-2 tokenizers only
        return Parts(image, tokenizer)
    return cls(image, tokenizer, **given)


class Parts:
    """What a processor saves: its tokenizer and its image processor."""

    def __init__(self, *parts):
        self.parts = parts

    def save_pretrained(self, folder):
        for part in self.parts:
            part.save_pretrained(folder)


def main(out):
    for family in ("llama3", "llama2"):
        folder = pathlib.Path(out, "layouts", f"{family}-{transformers.__version__}")
        shutil.rmtree(folder, ignore_errors=True)
        made = tiny(out, family)
        c = config(family)
        with tempfile.TemporaryDirectory() as source:
            write_source(source, family, made, 56, c.get("image_grid_pinpoints"))
            p = load_processor(source, family)
            p.save_pretrained(folder)
        cls = transformers.LlavaNextConfig if family == "llama3" else transformers.LlavaConfig
        cls(**{k: v for k, v in c.items() if k != "model_type"}).save_pretrained(folder)
        transformers.GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        expected = {"transformers": transformers.__version__, "class": type(tokenizer).__name__,
                    "ids": [[text, tokenizer(text)["input_ids"]] for text in TEXTS]}
        rendered = None
        if hasattr(p, "apply_chat_template"):
            rendered = p.apply_chat_template(MESSAGES, add_generation_prompt=True)
        else:
            rendered = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
        expected["messages"], expected["prompt"] = MESSAGES, rendered
        (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        names = sorted(f.name for f in folder.iterdir() if f.name != "expected.json")
        print(transformers.__version__, family, expected["class"], names)


if __name__ == "__main__":
    main(sys.argv[1])
