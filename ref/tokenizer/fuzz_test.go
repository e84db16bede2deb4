package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// These look for panics, endless loops and broken round trips:
//
//	go test -run XXX -fuzz FuzzParse ./ref/tokenizer
//
// Differences from the library itself are looked for by tools/gen-golden/tokenizer_fuzz.py and TestFuzzedVectorsOfRealVocabularies.

func FuzzParse(f *testing.F) {
	for _, name := range []string{"layouts/llama3-4.57.6", "layouts/llama2-4.44.2", "layouts/llama2-5.23.0"} {
		data, err := os.ReadFile(filepath.Join(vectors, name, "tokenizer.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"added_tokens":[],"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]}}`))
	f.Add([]byte(`{"model":{"unk_token":"a","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"Metaspace","replacement":"a"},"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"a"},"content":""},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":"b","start":3}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "tokenizer: ") {
				t.Errorf("error without its package: %v", err)
			}
			return
		}
		for _, text := range []string{"", "a<image>b ab <s>", "\xff é你", "  ▁ x"} {
			ids := tok.Encode(text, true)
			if got, want := streamed(tok, ids, true), tok.Decode(ids, true); got != want {
				t.Errorf("stream %q, whole %q", got, want)
			}
		}
		for _, v := range tok.Variants() {
			if as, err := tok.As(v); err == nil {
				as.Encode("a b<image>", true)
			}
		}
	})
}

// FuzzConfigs gives a folder three files that are anything.
func FuzzConfigs(f *testing.F) {
	for _, layout := range []string{"llama3-4.57.6", "llama3-5.23.0", "llama2-4.39.3"} {
		var files []string
		for _, name := range []string{"tokenizer_config.json", "processor_config.json", "config.json", "generation_config.json"} {
			data, _ := os.ReadFile(filepath.Join(vectors, "layouts", layout, name)) // 4.39 has no processor_config.json
			files = append(files, string(data))
		}
		f.Add(files[0], files[1], files[2], files[3])
	}
	base := filepath.Join(vectors, "layouts", "llama3-4.57.6")
	vocabulary, err := os.ReadFile(filepath.Join(base, "tokenizer.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tokenizer, processor, model, generation string) {
		dir := t.TempDir()
		for name, data := range map[string]string{"tokenizer.json": string(vocabulary), "tokenizer_config.json": tokenizer, "processor_config.json": processor,
			"config.json": model, "generation_config.json": generation} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := Load(dir)
		if err != nil {
			return
		}
		tok.Stop()
		tok.ImageToken()
		tok.Template([]Message{User("a", 1)}, true)
	})
}

func FuzzTemplate(f *testing.F) {
	for _, v := range readLines[templateVector](f, "templates.json.gz") {
		if v.Template != "" {
			f.Add(v.Template)
		}
	}
	f.Add("{{ a.b[1:2] if c is defined else 'd' ~ 1 }}{%- set x = [1, 'a'] -%}{% if not x and 1 in x or 2 > 1 %}{# c #}{% elif a %}{% endif %}")
	f.Fuzz(func(t *testing.T, text string) {
		chat, err := parseTemplate(text)
		if err != nil {
			return
		}
		tok := &Tokenizer{chat: chat, named: map[string]string{"bos_token": "<s>"}}
		out, err := tok.Template([]Message{User("a", 1), {Role: "assistant", Content: []Part{{Type: "text", Text: "b"}}}}, true)
		if err == nil && len(out) > maxRendered {
			t.Errorf("%d bytes", len(out))
		}
		again, err2 := tok.Template([]Message{User("a", 1), {Role: "assistant", Content: []Part{{Type: "text", Text: "b"}}}}, true)
		if out != again || (err == nil) != (err2 == nil) {
			t.Errorf("%q, %v, and again %q, %v", out, err, again, err2)
		}
	})
}

func FuzzMessages(f *testing.F) {
	for _, v := range readLines[promptVector](f, "prompts.json.gz")[:10] {
		f.Add([]byte(v.Messages))
	}
	tok, _ := prompter(f, "llama3")
	f.Fuzz(func(t *testing.T, data []byte) {
		messages, err := ParseMessages(data)
		if err != nil {
			return
		}
		tok.Template(messages, true)
	})
}

// FuzzText: whatever the text, ids make it again, and a stream makes what Decode makes.
func FuzzText(f *testing.F) {
	for _, text := range []string{"", " a  b ", "don't 12345 \r\n\r\n  x", "\xff\xc3(\xe4\xbd", "<|eot_id|><image>é👩‍👩‍👧‍👦", "'ſ ▁▁", strings.Repeat("ab", 300)} {
		f.Add(text)
	}
	three, two := small(f, "llama3"), small(f, "llama2")
	f.Fuzz(func(t *testing.T, text string) {
		clean := Lossy(text)
		if !utf8.ValidString(clean) {
			t.Fatalf("%q is made into %q", text, clean)
		}
		ids := three.Encode(text, false)
		if got := three.Decode(ids, false); got != clean {
			t.Errorf("Llama-3: %q comes back as %q", clean, got)
		}
		if got := streamed(three, ids, false); got != clean {
			t.Errorf("Llama-3: %q is streamed as %q", clean, got)
		}
		pieces := ""
		for _, p := range three.Split(text, true)[1:] {
			pieces += p.Text
		}
		if pieces != clean {
			t.Errorf("Llama-3: the pieces of %q are those of %q", clean, pieces)
		}
		for _, tok := range []*Tokenizer{two, as(t, two, Metaspace), as(t, two, MetaspaceLegacy)} {
			ids := tok.Encode(text, true)
			if got, want := streamed(tok, ids, true), tok.Decode(ids, true); got != want {
				t.Errorf("Llama-2: %q is streamed as %q, decoded as %q", clean, got, want)
			}
		}
		if hasAdded := len(two.added.extract(clean, nil)); clean != "" && hasAdded == 1 && !strings.Contains(clean, "▁") && !strings.Contains(clean, "<0x") {
			if got := two.Decode(two.Encode(text, true), true); got != clean && two.added.extract(clean, nil)[0].id == none {
				t.Errorf("Llama-2: %q comes back as %q", clean, got)
			}
		}
	})
}

// FuzzIDs: any ids, in a family's vocabulary or not.
func FuzzIDs(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 0, 255, 255})
	toks := []*Tokenizer{small(f, "llama3"), small(f, "llama2")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var ids []int
		for i := 0; i+1 < len(raw); i += 2 {
			ids = append(ids, (int(raw[i])<<8|int(raw[i+1]))%3300-2)
		}
		for _, tok := range toks {
			for _, skip := range []bool{false, true} {
				whole := tok.Decode(ids, skip)
				if !utf8.ValidString(whole) {
					t.Errorf("Decode(%v) is no UTF-8: %q", ids, whole)
				}
				s := tok.NewStream(skip)
				text := ""
				for _, id := range ids {
					part := s.Push(id)
					if !utf8.ValidString(part) {
						t.Errorf("a part of %v is no UTF-8: %q", ids, part)
					}
					text += part
				}
				if text += s.Flush(); text != whole {
					t.Errorf("%v is streamed as %q, decoded as %q", ids, text, whole)
				}
			}
		}
	})
}
