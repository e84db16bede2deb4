package tokenizer

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// expected is what the version that wrote a folder makes of it.
type expected struct {
	Version  string               `json:"transformers"`
	IDs      [][2]json.RawMessage `json:"ids"`
	Messages json.RawMessage      `json:"messages"`
	Prompt   string               `json:"prompt"`
}

func TestFoldersOfEveryVersionAreRead(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(vectors, "layouts", "*"))
	if err != nil || len(folders) != 14 {
		t.Fatalf("%d folders, %v", len(folders), err)
	}
	for _, dir := range folders {
		family, version, _ := strings.Cut(filepath.Base(dir), "-")
		t.Run(family+" "+version, func(t *testing.T) {
			tok, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			var want expected
			data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			for _, pair := range want.IDs {
				var text string
				var ids []int
				scan(t, pair[:], &text, &ids)
				if got := tok.Encode(text, true); !slices.Equal(got, ids) {
					t.Errorf("Encode(%q) = %v, want %v", text, got, ids)
				}
			}
			messages, err := ParseMessages(want.Messages)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := tok.Template(messages, true); err != nil || text != want.Prompt {
				t.Errorf("Template = %q, %v, want %q", text, err, want.Prompt)
			}
			variant := map[string]Variant{"llama3": ByteLevel, "llama2": Prepend}[family]
			if family == "llama2" && strings.HasPrefix(version, "5.") {
				variant = Metaspace // written into tokenizer.json
			}
			if tok.Variant() != variant {
				t.Errorf("Variant() = %q, want %q", tok.Variant(), variant)
			}
			checkIDs(t, tok)
			checkCount(t, dir, family)
		})
	}
}

// checkIDs holds begin-of-text, image token and stop ids against those of the models tiny-1.6 and tiny-1.5.
func checkIDs(t *testing.T, tok *Tokenizer) {
	if bos, ok := tok.BOS(); !ok || bos != 1 {
		t.Errorf("BOS() = %d, %v, want 1", bos, ok)
	}
	if stop, err := tok.Stop(); err != nil || !slices.Equal(stop, []int{2}) {
		t.Errorf("Stop() = %v, %v, want [2]", stop, err)
	}
	if image, err := tok.ImageToken(); err != nil || image != 320 {
		t.Errorf("ImageToken() = %d, %v, want 320", image, err)
	}
}

// checkCount counts a picture that fills one tile: 16 patches, and for LLaVA-1.6 a canvas of 1x2 tiles of which half is kept.
// The rows that the model makes and the image tokens that transformers' processor writes must be as many.
func checkCount(t *testing.T, dir, family string) {
	c, err := preprocess.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := 16
	if family == "llama3" {
		want = 16 + 16 + 4
	}
	p := preprocess.Processor{Config: c}
	plan, err := p.Plan(shapes.Size{H: 56, W: 56})
	if err != nil || plan.Features != want {
		t.Errorf("%d rows of features, %v, want %d", plan.Features, err, want)
	}
	if n, counts := p.Expanded(plan); counts && n != want {
		t.Errorf("the processor writes %d image tokens, want %d", n, want)
	}
}

// edited is a copy of a layout's folder with some files changed; nil takes one away.
func edited(t *testing.T, layout string, files map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(vectors, "layouts", layout))); err != nil {
		t.Fatal(err)
	}
	for name, change := range files {
		path := filepath.Join(dir, name)
		var data []byte
		switch change := change.(type) {
		case nil:
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		case string:
			data = []byte(change)
		case map[string]any: // fields to set; nil takes one away
			old, err := os.ReadFile(path)
			if err != nil {
				old = []byte("{}")
			}
			var o map[string]any
			if err := json.Unmarshal(old, &o); err != nil {
				t.Fatal(err)
			}
			maps.Copy(o, change)
			for key, v := range change {
				if v == nil {
					delete(o, key)
				}
			}
			if data, err = json.Marshal(o); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type fields = map[string]any

func TestWhatIsMissingOrContradictsIsNamed(t *testing.T) {
	template := func(tok *Tokenizer) error { _, err := tok.Template([]Message{User("a", 0)}, true); return err }
	image := func(tok *Tokenizer) error { _, err := tok.ImageToken(); return err }
	stop := func(tok *Tokenizer) error { _, err := tok.Stop(); return err }
	for _, c := range []struct {
		name, layout string
		files        map[string]any
		then         func(*Tokenizer) error // nil if Load itself fails
		want         string
	}{
		{"no tokenizer.json", "llama3-4.57.6", fields{"tokenizer.json": nil}, nil, "tokenizer.json is missing: it holds"},
		{"SentencePiece's file only", "llama2-4.44.2", fields{"tokenizer.json": nil, "tokenizer.model": "x"}, nil, "tokenizer.model, which is there, is the same vocabulary"},
		{"no template anywhere", "llama3-4.57.6", fields{"chat_template.jinja": nil}, template, "chat_template.json, in chat_template.jinja, or under chat_template in processor_config.json or tokenizer_config.json"},
		{"a template file without one", "llama3-4.44.2", fields{"chat_template.json": "{}"}, nil, "chat_template.json: chat_template is missing"},
		{"a template that cannot be read", "llama3-4.57.6", fields{"chat_template.jinja": "{% for %}"}, nil, "chat template"},
		{"a list of templates without a default", "llama3-4.39.3", fields{"tokenizer_config.json": fields{"chat_template": []any{fields{"name": "tool_use", "template": "x"}}}}, nil, `none of the list is named "default"`},
		{"no config.json, image token", "llama3-4.57.6", fields{"config.json": nil}, image, "config.json is missing: it says"},
		{"no stop ids", "llama3-4.57.6", fields{"generation_config.json": nil, "config.json": nil}, stop, "neither generation_config.json nor config.json"},
		{"a generation config without stop ids", "llama3-4.57.6", fields{"generation_config.json": "{}"}, stop, "generation_config.json has no eos_token_id"},
		{"stop ids of a wrong kind", "llama3-4.57.6", fields{"generation_config.json": `{"eos_token_id": ["a"]}`}, nil, "eos_token_id"},
		{"image token of the other family", "llama3-4.57.6", fields{"config.json": fields{"image_token_index": nil, "image_token_id": 32000}}, image, `"<image>" has id 320 in tokenizer.json, but image_token_id is 32000 in config.json`},
		{"image token of the original LLaVA", "llama3-4.57.6", fields{"config.json": fields{"image_token_index": -200}}, image, "image_token_index -200, want 0 to"},
		{"image token that is no token", "llama3-4.57.6", fields{"processor_config.json": fields{"image_token": "<img>"}}, image, `"<img>" is not among the added tokens`},
		{"a special token that is none", "llama3-4.57.6", fields{"tokenizer_config.json": fields{"pad_token": "<nopad>"}}, nil, `pad_token "<nopad>" is not in tokenizer.json`},
		{"begin-of-text switched off in one place", "llama2-4.57.6", fields{"tokenizer_config.json": fields{"add_bos_token": false}}, nil, "add_bos_token asks for ids [] around a text, but the post_processor of tokenizer.json puts [1] there"},
		{"end-of-text switched on in one place", "llama2-4.57.6", fields{"tokenizer_config.json": fields{"add_eos_token": true}}, nil, "add_eos_token asks for ids [2] around a text, but the post_processor of tokenizer.json puts [] there"},
		{"flags that contradict", "llama3-4.57.6", fields{"tokenizer_config.json": fields{"added_tokens_decoder": fields{"320": fields{"content": "<image>", "special": true, "lstrip": true}}}}, nil, `added_tokens_decoder: "<image>" is`},
		{"an id that contradicts", "llama3-4.57.6", fields{"tokenizer_config.json": fields{"added_tokens_decoder": fields{"999": fields{"content": "<new>", "special": true}}}}, nil, `"<new>" has id 999, but the library gives it 322`},
		{"special tokens split", "llama3-4.57.6", fields{"tokenizer_config.json": fields{"split_special_tokens": true}}, nil, "split_special_tokens true is not supported"},
		{"a folder for a file", "llama3-4.57.6", fields{"config.json": "[]"}, nil, "config.json: not a JSON object"},
		{"a Git LFS pointer", "llama3-4.57.6", fields{"processor_config.json": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, nil, "processor_config.json: is a Git LFS pointer and not the file: fetch it with git lfs pull"},
		{"the vocabulary as a Git LFS pointer", "llama3-4.57.6", fields{"tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, nil, "tokenizer.json: is a Git LFS pointer and not the file: fetch it with git lfs pull"},
		{"a config that is no JSON", "llama3-4.57.6", fields{"processor_config.json": "{"}, nil, "processor_config.json: not a JSON object"},
		{"half a surrogate pair", "llama3-4.57.6", fields{"tokenizer_config.json": `{"x": "\ud800"}`}, nil, "half a surrogate pair"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Load(edited(t, c.layout, c.files))
			if c.then != nil && err == nil {
				err = c.then(tok)
			} else if c.then != nil {
				t.Fatalf("Load: %v", err)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "tokenizer: ") {
				t.Errorf("%v\nwant %q in it", err, c.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "is no folder") {
		t.Error(err)
	}
}

func TestStopIDsAreANumberOrAList(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]any
		want  []int
	}{
		{"a number", fields{"generation_config.json": `{"eos_token_id": 128009}`}, []int{128009}},
		{"a list", fields{"generation_config.json": `{"eos_token_id": [128001, 128009]}`}, []int{128001, 128009}},
		{"no generation_config.json: the model's", fields{"generation_config.json": nil, "config.json": fields{"eos_token_id": 5}}, []int{5}},
		{"the text model's", fields{"generation_config.json": nil, "config.json": fields{"text_config": fields{"eos_token_id": []int{7, 8}}}}, []int{7, 8}},
		{"the default of LlamaConfig", fields{"generation_config.json": nil, "config.json": fields{"text_config": fields{}}}, []int{2}},
	} {
		tok, err := Load(edited(t, "llama3-4.57.6", c.files))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tok.Stop(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

// Added tokens that only tokenizer_config.json has are added, with the id that the library gives them.
func TestAddedTokensOfTheConfiguration(t *testing.T) {
	tok, err := Load(edited(t, "llama3-4.57.6", fields{"tokenizer_config.json": fields{"added_tokens_decoder": fields{"322": fields{"content": "<new>", "special": true}}}}))
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a<new>", false); !slices.Equal(got, append(tok.Encode("a", false), 322)) {
		t.Errorf("got %v", got)
	}
	if got := tok.Decode([]int{322, 323}, true); got != "" {
		t.Errorf("decoded %q, want nothing of a special token and of an id without token", got)
	}
}
