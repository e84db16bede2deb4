package tokenizer

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestIllFormedTextIsReplacedAsPythonDoes(t *testing.T) {
	tok := small(t, "llama3")
	for _, pair := range readLines[[2]string](t, "lossy.json.gz") {
		raw, err := hex.DecodeString(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		if got := Lossy(string(raw)); got != pair[1] {
			t.Errorf("Lossy(% x) = %q, want %q", raw, got, pair[1])
		}
		if got, want := tok.Encode(string(raw), true), tok.Encode(pair[1], true); !slices.Equal(got, want) {
			t.Errorf("Encode(% x) = %v, want %v", raw, got, want)
		}
	}
}

// with is a tokenizer.json of the small vocabularies, changed at a path of keys ("model.unk_token").
func with(t *testing.T, family, path string, value any) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, family, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(data, &whole); err != nil {
		t.Fatal(err)
	}
	at := whole
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		at = at[key].(map[string]any)
	}
	at[keys[len(keys)-1]] = value
	if data, err = json.Marshal(whole); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestComponentsThatAreNotKnownAreRefusedByName(t *testing.T) {
	list := func(parts ...any) []any { return parts }
	typ := func(name string) fields { return fields{"type": name} }
	split := func(pattern, behavior string, invert bool) fields {
		return fields{"type": "Split", "pattern": fields{"Regex": pattern}, "behavior": behavior, "invert": invert}
	}
	bytes := func(prefix, regex bool) fields {
		return fields{"type": "ByteLevel", "add_prefix_space": prefix, "use_regex": regex, "trim_offsets": true}
	}
	sequence := func(parts ...any) fields { return fields{"type": "Sequence", "pretokenizers": parts} }
	good := split(llama3Pattern, "Isolated", false)
	template := func(single ...any) fields {
		return fields{"type": "TemplateProcessing", "single": single, "special_tokens": fields{"<s>": fields{"ids": list(1)}}}
	}
	text, bos := fields{"Sequence": fields{"id": "A"}}, fields{"SpecialToken": fields{"id": "<s>"}}
	token := func(id int, content string, normalized bool) fields {
		return fields{"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": true}
	}
	for _, c := range []struct {
		family, path string
		value        any
		want         string
	}{
		{"llama2", "version", "2.0", `version "2.0", want "1.0"`},
		{"llama2", "normalizer", typ("NFC"), `normalizer: "NFC" is not supported`},
		{"llama2", "normalizer", fields{"type": "Sequence", "normalizers": list(typ("Sequence"))}, "a Sequence in a Sequence"},
		{"llama2", "normalizer", fields{"type": "Replace", "pattern": fields{"Regex": "a+"}, "content": ""}, "a pattern that is a Regex is not supported"},
		{"llama2", "normalizer", fields{"type": "Replace", "pattern": fields{"String": ""}, "content": ""}, "the pattern is empty"},
		{"llama2", "pre_tokenizer", typ("Whitespace"), `pre_tokenizer: "Whitespace" is not supported`},
		{"llama2", "pre_tokenizer", typ("BertPreTokenizer"), `"BertPreTokenizer" is not supported`},
		{"llama2", "pre_tokenizer", fields{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}, "with a normalizer it is not supported"},
		{"llama2", "pre_tokenizer", fields{"type": "Metaspace", "replacement": "__"}, `replacement "__", want one character`},
		{"llama2", "pre_tokenizer", fields{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}, `prepend_scheme "last"`},
		{"llama2", "pre_tokenizer", fields{"type": "Metaspace", "replacement": "▁", "add_prefix_space": false}, "add_prefix_space false, but prepend_scheme"},
		{"llama3", "pre_tokenizer", bytes(false, true), `"ByteLevel" is not supported`},
		{"llama3", "pre_tokenizer", sequence(good), "a Sequence of [\"Split\"] is not supported"},
		{"llama3", "pre_tokenizer", sequence(typ("Digits"), bytes(false, false)), `a Sequence of ["Digits" "ByteLevel"] is not supported`},
		{"llama3", "pre_tokenizer", sequence(split(`\s+`, "Isolated", false), bytes(false, false)), "is not supported, want the Regex of Llama-3"},
		{"llama3", "pre_tokenizer", sequence(split(llama3Pattern, "Removed", false), bytes(false, false)), `behavior "Removed" is not supported`},
		{"llama3", "pre_tokenizer", sequence(split(llama3Pattern, "Isolated", true), bytes(false, false)), "invert true is not supported"},
		{"llama3", "pre_tokenizer", sequence(good, bytes(true, false)), "add_prefix_space true is not supported"},
		{"llama3", "pre_tokenizer", sequence(good, bytes(false, true)), "use_regex true is not supported"},
		{"llama2", "post_processor", typ("RobertaProcessing"), `post_processor: "RobertaProcessing" is not supported`},
		{"llama2", "post_processor", fields{"type": "Sequence", "processors": list(typ("BertProcessing"))}, `"BertProcessing" in a Sequence is not supported`},
		{"llama2", "post_processor", fields{"type": "Sequence", "processors": list(template(text), template(bos, text))}, "2 TemplateProcessing in a Sequence"},
		{"llama2", "post_processor", template(bos), "the text stands 0 times"},
		{"llama2", "post_processor", template(text, text), "the text stands 2 times"},
		{"llama2", "post_processor", template(fields{"Sequence": fields{"id": "B"}}), `Sequence "B"`},
		{"llama2", "post_processor", template(text, fields{"SpecialToken": fields{"id": "</s>"}}), `special_tokens lacks "</s>"`},
		{"llama2", "post_processor", template(text, fields{}), "neither a Sequence nor a SpecialToken"},
		{"llama2", "decoder", nil, "decoder: it is missing"},
		{"llama2", "decoder", typ("WordPiece"), `decoder: "WordPiece" is not supported`},
		{"llama2", "decoder", typ("ByteLevel"), "a ByteLevel decoder goes with a ByteLevel pre_tokenizer"},
		{"llama2", "decoder", fields{"type": "Sequence", "decoders": list(typ("Fuse"))}, `a Sequence of ["Fuse"] is not supported`},
		{"llama2", "decoder", fields{"type": "Sequence", "decoders": list(fields{"type": "Replace", "pattern": fields{"String": "▁"}, "content": " "}, typ("ByteFallback"), typ("Fuse"), fields{"type": "Strip", "content": " ", "start": 0, "stop": 1})}, "stop 1 is not supported"},
		{"llama2", "model.type", "Unigram", `model: "Unigram" is not supported, want "BPE"`},
		{"llama2", "model.dropout", 0.1, "dropout 0.1 is not supported"},
		{"llama2", "model.end_of_word_suffix", "</w>", `end_of_word_suffix "</w>" is not supported`},
		{"llama2", "model.continuing_subword_prefix", "##", `continuing_subword_prefix "##" is not supported`},
		{"llama2", "model.unk_token", "<none>", `unk_token "<none>" is not in the vocabulary`},
		{"llama2", "model.vocab", list(), "vocab is missing, want an object"},
		{"llama2", "model.vocab", fields{"a": "b"}, `"a": b, want an id`},
		{"llama2", "model.vocab", fields{"a": -1}, `"a": -1 is no id`},
		{"llama2", "model.vocab", fields{"a": 1.5}, `"a": 1.5 is no id`},
		{"llama2", "model.vocab", fields{"a": 1, "b": 1}, "both have id 1"},
		{"llama2", "model.merges", fields{}, `merges: want a list of "a b"`},
		{"llama2", "model.merges", list("a b c"), "want two tokens"},
		{"llama2", "model.merges", list(list("a", "b", "c")), "want two tokens"},
		{"llama2", "model.merges", list("a ☃"), "must be in the vocabulary"},
		{"llama2", "added_tokens", list(fields{"id": 1}), "added_tokens[0] lacks content"},
		{"llama2", "added_tokens", list(token(0, "<unk>", false), token(0, "<unk>", false)), `"<unk>" is there twice`},
		{"llama2", "added_tokens", list(token(9999, "<x>", false)), `"<x>" has id 9999, but the library gives it`},
		{"llama2", "added_tokens", list(token(7, "<unk>", false)), `"<unk>" has id 7, but the library gives it 0`},
		{"llama2", "added_tokens", list(token(3, "", false)), "has 0 bytes"},
		{"llama2", "added_tokens", list(token(3, strings.Repeat("x", 5000), false)), "has 5000 bytes, want 1 to 4096"},
	} {
		t.Run(c.family+" "+c.path+" "+c.want, func(t *testing.T) {
			_, err := Parse(with(t, c.family, c.path, c.value))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "tokenizer: tokenizer.json") {
				t.Errorf("%v\nwant %q in it", err, c.want)
			}
		})
	}
}

func TestWhatIsNoTokenizerJSONIsRefused(t *testing.T) {
	for data, want := range map[string]string{
		"": "not a JSON object", "[]": "not a JSON object", "null": "null, want a JSON object", "{} {}": "more data after", "{}": "decoder: it is missing",
		"{\"a\": \"\xff\"}": "not UTF-8", `{"a": "\ud83d"}`: "half a surrogate pair", `{"a": "\ude00\ud83d"}`: "half a surrogate pair", `{"a": "\ud83d\u0041"}`: "half a surrogate pair",
		`{"decoder": {"type": "ByteLevel"}, "pre_tokenizer": 5}`: "pre_tokenizer 5, want an object",
		strings.Repeat(`{"a":`, 20000):                           "not a JSON object",
	} {
		if _, err := Parse([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", data, err, want)
		}
	}
	duplicate := `{"model": {"vocab": {"a": 1, "a": 2}, "merges": []}, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}}`
	if _, err := Parse([]byte(duplicate)); err == nil || !strings.Contains(err.Error(), `"a" is there twice`) {
		t.Error(err)
	}
	if o, err := parseObject([]byte(`{"a": "\ud83d\ude00 \\ud83d \"\\"}`)); err != nil {
		t.Errorf("%v, %v", o, err)
	}
}

// Merges as pairs are those that are written as strings.
func TestMergesAsPairs(t *testing.T) {
	var whole struct {
		Model struct {
			Merges []string `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(with(t, "llama2", "version", "1.0"), &whole); err != nil {
		t.Fatal(err)
	}
	var pairs [][]string
	for _, m := range whole.Model.Merges {
		pairs = append(pairs, strings.Split(m, " "))
	}
	tok, err := Parse(with(t, "llama2", "model.merges", pairs))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("What is shown here?", true), small(t, "llama2").Encode("What is shown here?", true); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestMessagesThatTemplatesWouldGetWrongAreRefused(t *testing.T) {
	for data, want := range map[string]string{
		`{}`: "want a list of objects", `[] []`: "more data", `[null]`: "want role and content", `[{"role": "user"}]`: "want role and content",
		`[{"role": "user", "content": "a"}]`:                           `content "a", want a list of objects`,
		`[{"role": 1, "content": []}]`:                                 "role 1, want a string",
		`[{"role": "user", "content": [null]}]`:                        "content[0] is null",
		`[{"role": "user", "content": [{"type": "video"}]}]`:           `type "video", want "image" or "text"`,
		`[{"role": "user", "content": [{"type": "text"}]}]`:            "want text",
		`[{"role": "user", "content": [{"text": "a"}]}]`:               `type ""`,
		`[{"role": "user", "content": [{"type": "text", "text": 5}]}]`: "text 5, want a string",
	} {
		if _, err := ParseMessages([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", data, err, want)
		}
	}
	messages, err := ParseMessages([]byte(`[{"role": "user", "content": [{"type": "image", "url": "x.png"}, {"type": "text", "text": "a"}]}]`))
	if err != nil || Images(messages) != 1 {
		t.Errorf("%v, %v", messages, err)
	}
	tok, _ := prompter(t, "llama3")
	if _, err := tok.Template(nil, true); err == nil || !strings.Contains(err.Error(), "0 messages") {
		t.Error(err)
	}
	want := "<|start_header_id|>user<|end_header_id|>\n\n<image>\na<|eot_id|>"
	if got, err := tok.Template([]Message{User("a", 1)}, false); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// What a template may do is bounded: none of these runs for long, writes for ever, or takes the process down.
func TestHostileTemplatesAreStopped(t *testing.T) {
	loops := strings.Repeat("{% for a in messages %}", 8) + "x" + strings.Repeat("{% endfor %}", 8)
	doubling := "{% set s = 'xxxxxxxxxxxxxxxx' %}" + strings.Repeat("{% set s = s ~ s %}", 60) + "{{ s }}"
	for name, c := range map[string]struct{ template, want string }{
		"nested loops":              {loops, "steps"},
		"nested loops over nothing": {strings.Replace(loops, "x", "", 1), "steps"},
		"doubling":                  {doubling, "steps"},
		"output":                    {"{% for a in messages %}{% for b in messages %}" + strings.Repeat("y", 2000) + "{% endfor %}{% endfor %}", "it writes more than"},
		"too long":                  {strings.Repeat("x", maxTemplate+1), "bytes, want at most"},
		"parentheses":               {"{{ " + strings.Repeat("(", 30000) + "1" + strings.Repeat(")", 30000) + " }}", "nested more than"},
		"blocks":                    {strings.Repeat("{% if a %}", 65) + strings.Repeat("{% endif %}", 65), "nested more than"},
		"brackets":                  {"{{ a" + strings.Repeat("[a", 20000) + " }}", "nested more than"},
		"escapes":                   {`{{ 'a\\nb' }}`, "the escape"},
		"files":                     {"{% include '/etc/passwd' %}", "include"},
		"inheritance":               {"{% extends 'a' %}", "extends"},
		"import":                    {"{% import 'a' as b %}", "import"},
		"macros":                    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "macro"},
		"range":                     {"{% for i in range(1000000000) %}x{% endfor %}", "range is not supported"},
		"range, called":             {"{{ range(5) }}", "the function range is not supported"},
		"repetition":                {"{{ 'x' * 1000000000 }}", "a string * an int is not supported"},
		"formats":                   {"{{ '%1000000000d' % 5 }}", "is not supported"},
		"padding":                   {"{{ 'x'.ljust(1000000000) }}", "the method ljust"},
		"filter":                    {"{{ 'x' | center(1000000000) }}", "the filter center"},
		"lipsum":                    {"{{ lipsum(1000000) }}", "the function lipsum is not supported"},
		"self":                      {"{{ self }}", ""},
		"powers":                    {"{{ 9 ** 9 ** 9 }}", "is not supported"},
		"a method of a dict":        {"{{ messages[0].update }}", "the method update of a dict"},
		"two names":                 {"{% for k, v in messages %}x{% endfor %}", "for with two names"},
		"raise":                     {"{{ raise_exception('no system prompt') }}", "the template refuses the messages: no system prompt"},
		"modulo":                    {"{{ 5 % 0 }}", "modulo 0"},
		"unclosed":                  {"{% for a in messages %}", "EOF"},
		"unclosed string":           {"{{ 'a }}", "chat template"},
		"unclosed call":             {"{{ f(", "chat template"},
		"nothing at all":            {"{{ }}", "chat template"},
	} {
		t.Run(name, func(t *testing.T) {
			chat, err := parseTemplate(c.template)
			if err == nil {
				var messages []Message
				for range 60 {
					messages = append(messages, User("a", 1))
				}
				_, err = (&Tokenizer{chat: chat}).Template(messages, true)
			}
			if c.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestVariantsAreTold(t *testing.T) {
	tok := small(t, "llama2")
	image := tok.added.byContent["<image>"]
	text := "USER: <image>\nWhat is shown? ASSISTANT:"
	for _, v := range tok.Variants() {
		ids := as(t, tok, v).Encode(text, true)
		want := []Variant{v}
		if v != Metaspace { // a stretch without a space in front is cut alike
			want = []Variant{Prepend, MetaspaceLegacy}
		}
		if got := tok.Identify(text, ids); !slices.Equal(got, want) {
			t.Errorf("ids of %s are identified as %v, want %v", v, got, want)
		}
		if got := tok.Identify(text, ids[1:]); !slices.Equal(got, want) {
			t.Errorf("ids of %s without begin-of-text are identified as %v", v, got)
		}
		expanded, err := ExpandImages(ids, image, []int{576})
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Identify(text, CollapseImages(expanded, image)); !slices.Equal(got, want) {
			t.Errorf("expanded ids of %s are identified as %v", v, got)
		}
	}
	if got := tok.Identify(" <image> a", as(t, tok, MetaspaceLegacy).Encode(" <image> a", true)); !slices.Equal(got, []Variant{Metaspace, MetaspaceLegacy}) {
		t.Errorf("a leading space: %v", got)
	}
	if got := tok.Identify(text, []int{1, 2, 3}); got != nil {
		t.Errorf("wrong ids are identified as %v", got)
	}
	if _, err := tok.As(ByteLevel); err == nil || !strings.Contains(err.Error(), `variant "byte-level", want one of prepend, metaspace, metaspace-legacy`) {
		t.Error(err)
	}
	three := small(t, "llama3")
	if got := three.Identify(text, three.Encode(text, true)); !slices.Equal(got, []Variant{ByteLevel}) {
		t.Errorf("%v", got)
	}
}
