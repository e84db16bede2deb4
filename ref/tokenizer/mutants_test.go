package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// An engine is what the committed vectors judge: this package, or one with a bug in it.
type engine struct {
	encode  map[Variant]func(text string) []int          // with begin-of-text
	decode  map[string]func(ids []int, skip bool) string // by family
	prompt  map[string]func(m []Message, images []shapes.Size) ([]int, error)
	cut     func(text string) []string // Llama-3's pattern
	count   func(p preprocess.Processor, image shapes.Size) (int, error)
	stop    func(generation []int) []int // the ids that end a text, of those that the checkpoint names
	flagged func(t *Tokenizer, text string) []int
	parse   func(template string) (*chatTemplate, error)
}

// sound is this package.
func sound(t testing.TB) *engine {
	e := &engine{
		encode: map[Variant]func(string) []int{}, decode: map[string]func([]int, bool) string{}, prompt: map[string]func([]Message, []shapes.Size) ([]int, error){},
		cut:     splitLlama3,
		count:   count,
		stop:    func(ids []int) []int { return ids },
		flagged: func(t *Tokenizer, text string) []int { return t.Encode(text, true) },
		parse:   parseTemplate,
	}
	for v, tok := range variants(t) {
		e.encode[v] = func(text string) []int { return tok.Encode(text, true) }
	}
	for _, family := range []string{"llama3", "llama2"} {
		e.use(prompter(t, family))
	}
	return e
}

// count is the number of image tokens of one image.
func count(p preprocess.Processor, image shapes.Size) (int, error) {
	n, err := counts(p, []shapes.Size{image})
	if err != nil {
		return 0, err
	}
	return n[0], nil
}

// use makes prompts and text with a tokenizer.
func (e *engine) use(tok *Tokenizer, p preprocess.Processor) {
	family := "llama2"
	if p.ModelType == shapes.LlavaNext {
		family = "llama3"
	}
	e.decode[family] = tok.Decode
	e.prompt[family] = func(m []Message, images []shapes.Size) ([]int, error) {
		counts, err := counts(p, images)
		if err != nil {
			return nil, err
		}
		return tok.Prompt(m, true, counts)
	}
}

// faults are the sets of vectors that an engine fails, with how many of their lines. Only those whose name starts like of
// are looked at.
func faults(t testing.TB, e *engine, of string) map[string]int {
	found := map[string]int{}
	note := func(set string, wrong bool) {
		if wrong {
			found[set]++
		}
	}
	sets := map[string]func(){
		"ids": func() {
			for _, line := range readLines[stringVector](t, "strings.jsonl.gz") {
				for v, encode := range e.encode {
					note("ids "+string(v), !slices.Equal(encode(line.Text), line.want(v)))
				}
			}
		},
		"cuts": func() {
			for _, line := range readLines[stringVector](t, "strings.jsonl.gz") {
				note("cuts", !slices.Equal(lengths(e.cut(line.Text)), line.Cuts))
			}
		},
		"text": func() {
			for _, line := range readLines[decodeVector](t, "decode.jsonl.gz") {
				note("text "+line.Family, e.decode[line.Family](line.IDs, false) != line.Plain)
				note("text without special tokens "+line.Family, e.decode[line.Family](line.IDs, true) != line.skipped())
			}
		},
		"prompts": func() {
			for _, line := range readLines[promptVector](t, "prompts.json.gz") {
				messages, err := ParseMessages(line.Messages)
				if err != nil {
					t.Fatal(err)
				}
				got, err := e.prompt[line.Family](messages, line.images())
				note("prompts "+line.Family, err != nil || !slices.Equal(got, runs(t, line.IDs)))
			}
		},
		"counts": func() {
			_, next := prompter(t, "llama3")
			for _, line := range readLines[countVector](t, "counts.json.gz") {
				if line.Family != "llama3" || line.Tile != 336 || line.Strategy != "default" || line.Additional != 1 {
					continue
				}
				for _, c := range line.Counts {
					n, err := e.count(next, shapes.Size{H: c[0], W: c[1]})
					note("counts", err != nil || n != c[2])
				}
			}
		},
		"templates": func() {
			lines := readLines[[]json.RawMessage](t, "random.json.gz")
			for _, line := range lines[1:] {
				var text string
				var which int
				var generate bool
				var want *string
				scan(t, line, &text, &which, &generate, &want)
				messages, err := ParseMessages(lines[0][which])
				if err != nil {
					t.Fatal(err)
				}
				chat, err := e.parse(text)
				if err != nil {
					continue
				}
				got, err := (&Tokenizer{chat: chat, named: map[string]string{"bos_token": "<s>"}}).Template(messages, generate)
				note("templates", err == nil && (want == nil || got != *want))
			}
		},
		"layouts": func() {
			for _, layout := range []string{"llama3-4.57.6", "llama2-4.57.6"} {
				tok, err := Load(vectors + "/layouts/" + layout)
				if err != nil {
					t.Fatal(err)
				}
				ids, err := tok.Stop()
				note("layouts", err != nil || !slices.Equal(e.stop(ids), ids))
			}
		},
		"components": func() {
			for _, c := range readLines[componentVector](t, "components.json.gz") {
				tok, err := Parse(c.Tokenizer)
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range c.Texts {
					var text string
					var ids []int
					scan(t, line, &text, &ids)
					note("components: "+c.Name, !slices.Equal(e.flagged(tok, text), ids))
				}
			}
		},
	}
	for name, judge := range sets {
		if of == "" || strings.HasPrefix(of, name) {
			judge()
		}
	}
	return found
}

// changed is a copy of a tokenizer whose pipeline was changed. Its core goes, so that the model counts.
func changed(tok *Tokenizer, change func(*pipeline)) *Tokenizer {
	p := *tok.pipeline
	m, a := *p.model, *p.added
	p.model, p.added, p.core = &m, &a, nil
	change(&p)
	out := *tok
	out.pipeline = &p
	return &out
}

// joined joins the pieces of splitLlama3 that a cutter with a bug would not have cut.
func joined(text string, join func(left, right string) bool) []string {
	var out []string
	for _, p := range splitLlama3(text) {
		if n := len(out); n > 0 && join(out[n-1], p) {
			out[n-1] += p
			continue
		}
		out = append(out, p)
	}
	return out
}

// Every bug that a port makes here, or easily makes, planted once: the committed vectors must see it, in the sets named.
// The ids M02 to M09, K19, P02 and G01 are those of the list of known porting bugs.
func TestPlantedBugsAreCaughtByTheVectors(t *testing.T) {
	if found := faults(t, sound(t), ""); len(found) > 0 {
		t.Fatalf("without a bug: %v", found)
	}
	three, next := prompter(t, "llama3")
	two, square := prompter(t, "llama2")
	image := three.added.byContent["<image>"]
	retemplate := func(tok *Tokenizer, old, new string) *Tokenizer {
		for _, v := range readLines[templateVector](t, "templates.json.gz") {
			if v.Name == "llama3" && v.Template != "" {
				if !strings.Contains(v.Template, old) {
					t.Fatalf("the template lacks %q", old)
				}
				chat, err := parseTemplate(strings.Replace(v.Template, old, new, 1))
				if err != nil {
					t.Fatal(err)
				}
				out := *tok
				out.chat = chat
				return &out
			}
		}
		return nil
	}
	prompts := func(e *engine, change func(ids []int) []int) {
		honest := e.prompt["llama3"]
		e.prompt["llama3"] = func(m []Message, s []shapes.Size) ([]int, error) {
			ids, err := honest(m, s)
			return change(ids), err
		}
	}
	split := func(cut func(string) []string) func(*engine) {
		return func(e *engine) { e.cut = cut }
	}
	model := func(v Variant, change func(*pipeline)) func(*engine) {
		return func(e *engine) {
			tok := changed(variants(t)[v], change)
			e.encode[v] = func(text string) []int { return tok.Encode(text, true) }
		}
	}
	flags := func(change func(*AddedToken)) func(*engine) {
		return func(e *engine) {
			e.flagged = func(tok *Tokenizer, text string) []int {
				list := tok.added.list()
				for i := range list {
					change(&list[i])
				}
				p := *tok.pipeline
				if err := p.add(list); err != nil {
					t.Fatal(err)
				}
				return (&Tokenizer{pipeline: &p}).Encode(text, true)
			}
		}
	}
	for _, bug := range []struct {
		name  string
		plant func(e *engine)
		in    string // a set that sees it
	}{
		{"M02 images in the wrong order", func(e *engine) {
			honest := e.prompt["llama3"]
			e.prompt["llama3"] = func(m []Message, s []shapes.Size) ([]int, error) {
				s = slices.Clone(s)
				slices.Reverse(s)
				return honest(m, s)
			}
		}, "prompts llama3"},
		{"M03 the image token 32000 of the other family", func(e *engine) {
			prompts(e, func(ids []int) []int { return replaced(ids, image, 32000) })
		}, "prompts llama3"},
		{"M03 the placeholder -200 of the original LLaVA", func(e *engine) {
			prompts(e, func(ids []int) []int { return replaced(ids, image, -200) })
		}, "prompts llama3"},
		{"M05 begin-of-text missing", func(e *engine) { prompts(e, func(ids []int) []int { return ids[1:] }) }, "prompts llama3"},
		{"M05 begin-of-text doubled", func(e *engine) {
			prompts(e, func(ids []int) []int { return append([]int{ids[0]}, ids...) })
		}, "prompts llama3"},
		{"M05 begin-of-text doubled by a template that writes it", func(e *engine) {
			tok := *retemplate(three, "{% for message", "{{ bos_token }}{% for message")
			tok.named = map[string]string{"bos_token": "<|begin_of_text|>"}
			e.prompt["llama3"] = func(m []Message, s []shapes.Size) ([]int, error) {
				text, err := tok.Template(m, true)
				if err != nil {
					return nil, err
				}
				counts, err := counts(next, s)
				if err != nil {
					return nil, err
				}
				return ExpandImages(tok.Encode(text, true), image, counts)
			}
		}, "prompts llama3"},
		{"M06 the line break after the image missing", func(e *engine) { e.use(retemplate(three, `'\n' + content`, `'' + content`), next) }, "prompts llama3"},
		{"M06 a line break after every image as well", func(e *engine) { e.use(retemplate(three, `'<image>'`, `'<image>\n'`), next) }, "prompts llama3"},
		{"M09 truncation cuts image tokens", func(e *engine) {
			prompts(e, func(ids []int) []int { return ids[:min(len(ids), 2048)] })
		}, "prompts llama3"},
		{"text before images, in the order of the message", func(e *engine) {
			tok := retemplate(three, "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}{# Render all text next #}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] + '<|eot_id|>' }}{% endfor %}",
				"{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<image>' }}{% else %}{{ '\\n' + content['text'] + '<|eot_id|>' }}{% endif %}{% endfor %}")
			e.use(tok, next)
		}, "prompts llama3"},
		{"one end of turn for a message, not one for a text", func(e *engine) {
			e.use(retemplate(three, "+ '<|eot_id|>' }}{% endfor %}", "}}{% endfor %}{{ '<|eot_id|>' }}"), next)
		}, "prompts llama3"},
		{"the generation prompt forgotten", func(e *engine) { e.use(retemplate(three, "{% if add_generation_prompt %}", "{% if false %}"), next) }, "prompts llama3"},
		{"special tokens in the prompt read as text", func(e *engine) {
			tok := changed(three, func(p *pipeline) {
				list := p.added.list()
				list = slices.DeleteFunc(list, func(a AddedToken) bool { return strings.HasPrefix(a.Content, "<|") })
				raw := &addedTokens{byID: p.added.byID, byContent: p.added.byContent}
				for _, a := range list {
					raw.raw.add(a.Content, a.ID)
				}
				p.added = raw
			})
			e.use(tok, next)
			e.encode[ByteLevel] = func(text string) []int { return tok.Encode(text, true) }
		}, "ids byte-level"},
		{"K19 one image token short: num_additional_image_tokens 0", func(e *engine) {
			p := expanding(next, 0, shapes.SelectDefault)
			e.use(three, p)
			e.count = func(_ preprocess.Processor, s shapes.Size) (int, error) { return count(p, s) }
		}, "counts"},
		{"K19 one image token short, LLaVA-1.5", func(e *engine) { e.use(two, expanding(square, 0, shapes.SelectDefault)) }, "prompts llama2"},
		{"K19 one image token too many: nothing taken off for the class token", func(e *engine) {
			e.use(two, expanding(square, 1, shapes.SelectFull))
		}, "prompts llama2"},
		{"P02 height and width swapped", func(e *engine) {
			e.count = func(p preprocess.Processor, s shapes.Size) (int, error) { return count(p, shapes.Size{H: s.W, W: s.H}) }
		}, "counts"},
		{"K18 a newline for every column, not for every row", func(e *engine) {
			e.count = func(p preprocess.Processor, s shapes.Size) (int, error) {
				plan, err := p.Plan(s)
				return plan.Features - plan.Kept.H + plan.Kept.W, err
			}
		}, "counts"},
		{"patches of 16 pixels", func(e *engine) {
			p := next
			p.PatchSize = 16
			e.count = func(_ preprocess.Processor, s shapes.Size) (int, error) { return count(p, s) }
		}, "counts"},
		{"white space between tags taken for the start of a line", func(e *engine) {
			e.parse = func(text string) (*chatTemplate, error) { return parsedByGonja(text, true) }
		}, "templates"},
		{"no trim_blocks and lstrip_blocks", func(e *engine) {
			e.parse = func(text string) (*chatTemplate, error) { return parsedByGonja(text, false) }
		}, "templates"},
		{"the body of generation left out", func(e *engine) {
			e.parse = func(text string) (*chatTemplate, error) {
				return parseTemplate(strings.NewReplacer("endgeneration", "endif", "generation", "if nothing").Replace(text))
			}
		}, "templates"},
		{"G01 stops at end-of-text only, never at end of turn", func(e *engine) {
			e.stop = func([]int) []int { return []int{three.added.byContent["<|end_of_text|>"]} }
		}, "layouts"},

		{"no contractions", split(func(s string) []string {
			return joined(s, func(l, r string) bool { return contraction(r) == len(r) && len(r) > 0 && letters(l) > 0 })
		}), "cuts"},
		{"contractions of small letters only", split(func(s string) []string {
			return joined(s, func(_, r string) bool { return contraction(r) == len(r) && r != "" && r != strings.ToLower(r) })
		}), "cuts"},
		{"the long s is no s", split(func(s string) []string {
			return joined(s, func(_, r string) bool { return r == "'ſ" })
		}), "cuts"},
		{"digits not cut in threes", split(func(s string) []string {
			return joined(s, func(l, r string) bool {
				last, _ := utf8.DecodeLastRuneInString(l)
				first, _ := utf8.DecodeRuneInString(r)
				return isDigit(last) && isDigit(first)
			})
		}), "cuts"},
		{"letters of Go's older Unicode tables", split(func(s string) []string {
			return joined(s, func(l, r string) bool {
				last, _ := utf8.DecodeLastRuneInString(l)
				first, _ := utf8.DecodeRuneInString(r)
				return isLetter(last) && !unicode.IsLetter(last) && isOther(first)
			})
		}), "cuts"},
		{"white space goes with what is in front", split(func(s string) []string {
			var out []string
			for _, p := range splitLlama3(s) {
				if n := len(out); n > 0 && strings.HasPrefix(p, " ") && len(p) > 1 && strings.TrimSpace(p) != "" {
					out[n-1] += " "
					p = p[1:]
				}
				out = append(out, p)
			}
			return out
		}), "cuts"},
		{"the last space of a run stays in the run", split(func(s string) []string {
			var out []string
			for _, p := range splitLlama3(s) {
				if n := len(out); n > 0 && strings.HasPrefix(p, " ") && strings.TrimSpace(out[n-1]) == "" && strings.TrimSpace(p) != "" {
					out[n-1] += " "
					p = p[1:]
				}
				out = append(out, p)
			}
			return out
		}), "cuts"},
		{"line breaks not kept with punctuation", split(func(s string) []string {
			var out []string
			for _, p := range splitLlama3(s) {
				if cut := strings.TrimRight(p, "\r\n"); cut != "" && cut != p && strings.TrimSpace(cut) != "" {
					out = append(out, cut, p[len(cut):])
					continue
				}
				out = append(out, p)
			}
			return out
		}), "cuts"},
		{"not cut at all", split(func(s string) []string { return []string{s} }), "cuts"},
		{"merges from the right", model(Prepend, func(p *pipeline) {
			m := map[pair]merge{}
			for k, v := range p.model.merges {
				m[k] = merge{1<<20 - v.rank, v.id}
			}
			p.model.merges = m
		}), "ids prepend"},
		{"the longest token first instead of merges", func(e *engine) {
			tok := two
			e.encode[Prepend] = func(text string) []int {
				ids := slices.Clone(tok.around.before)
				for _, s := range tok.added.extract(Lossy(text), tok.norm) {
					if s.id != none {
						ids = append(ids, s.id)
						continue
					}
					ids = append(ids, longest(tok.model, s.text)...)
				}
				return ids
			}
		}, "ids prepend"},
		{"no byte fallback: unknown characters become <unk>", model(Prepend, func(p *pipeline) { p.model.byteFallback = false }), "ids prepend"},
		{"no ▁ in front of the text", model(Prepend, func(p *pipeline) { p.norm = p.norm[1:] }), "ids prepend"},
		{"no ▁ after an image: the pipeline of transformers 5", model(Prepend, func(p *pipeline) {
			p.norm, p.pre = Metaspace.stages()
		}), "ids prepend"},
		{"legacy of transformers 5", model(Prepend, func(p *pipeline) { p.norm, p.pre = MetaspaceLegacy.stages() }), "ids prepend"},
		{"4.x taken for 5.x", model(Metaspace, func(p *pipeline) { p.norm, p.pre = Prepend.stages() }), "ids metaspace"},
		{"▁ in front of the whole text only", func(e *engine) {
			tok := changed(two, func(p *pipeline) { p.norm = p.norm[1:] })
			e.encode[Prepend] = func(text string) []int {
				if text != "" && tok.added.extract(text, nil)[0].id == none {
					text = "▁" + text
				}
				return tok.Encode(text, true)
			}
		}, "ids prepend"},
		{"a space instead of ▁", model(Prepend, func(p *pipeline) { p.norm = nil }), "ids prepend"},
		{"end-of-text added", model(Prepend, func(p *pipeline) { p.around.after = []int{2} }), "ids prepend"},
		{"merges although the piece is a token", func(e *engine) {
			e.flagged = func(tok *Tokenizer, text string) []int {
				return changed(tok, func(p *pipeline) { p.model.ignoreMerges = false }).Encode(text, true)
			}
		}, "components: whole pieces first"},
		{"unknown characters joined, or not", func(e *engine) {
			e.flagged = func(tok *Tokenizer, text string) []int {
				return changed(tok, func(p *pipeline) { p.model.fuseUnknown = !p.model.fuseUnknown }).Encode(text, true)
			}
		}, "components: unknown"},
		{"lstrip not heeded", flags(func(a *AddedToken) { a.LStrip = false }), "components: flags of added tokens"},
		{"rstrip not heeded", flags(func(a *AddedToken) { a.RStrip = false }), "components: flags of added tokens"},
		{"single_word not heeded", flags(func(a *AddedToken) { a.SingleWord = false }), "components: flags of added tokens"},
		{"normalized not heeded", flags(func(a *AddedToken) { a.Normalized = false }), "components: flags of added tokens, normalised"},

		{"a character for each bad byte", func(e *engine) {
			e.decode["llama3"] = func(ids []int, skip bool) string {
				var raw []byte
				for _, id := range ids {
					token, ok := three.token(id)
					if three.added.byID[id].Special && skip || !ok {
						continue
					}
					bytes, _ := unspellBytes(token)
					raw = append(raw, bytes...)
				}
				return string([]rune(string(raw)))
			}
		}, "text llama3"},
		{"a character for each bad stretch, of byte tokens", func(e *engine) {
			e.decode["llama2"] = func(ids []int, skip bool) string {
				s := two.NewStream(skip)
				text := ""
				for _, id := range ids {
					if text += s.Push(id); len(s.bytes) > 0 && incomplete(s.bytes) == 0 {
						text += s.strip(Lossy(string(s.bytes)))
						s.bytes = nil
					}
				}
				return text + s.strip(Lossy(string(s.bytes)))
			}
		}, "text llama2"},
		{"special tokens kept", func(e *engine) {
			e.decode["llama3"] = func(ids []int, _ bool) string { return three.Decode(ids, false) }
		}, "text without special tokens llama3"},
		{"special tokens always left out", func(e *engine) {
			e.decode["llama2"] = func(ids []int, _ bool) string { return two.Decode(ids, true) }
		}, "text llama2"},
		{"the space in front kept", func(e *engine) {
			e.decode["llama2"] = changed(two, func(p *pipeline) { p.decoder.most = 0 }).Decode
		}, "text llama2"},
		{"all spaces in front taken", func(e *engine) {
			e.decode["llama2"] = changed(two, func(p *pipeline) { p.decoder.most = 99 }).Decode
		}, "text llama2"},
		{"spaces cleaned up", func(e *engine) {
			e.decode["llama2"] = func(ids []int, skip bool) string {
				return strings.NewReplacer(" .", ".", " ?", "?", " !", "!", " ,", ",", " ' ", "'", " n't", "n't", " 'm", "'m", " 's", "'s").Replace(two.Decode(ids, skip))
			}
		}, "text llama2"},
	} {
		t.Run(bug.name, func(t *testing.T) {
			e := sound(t)
			bug.plant(e)
			found := faults(t, e, bug.in)
			if found[bug.in] == 0 {
				t.Errorf("not seen in %s, only in %v", bug.in, found)
			}
			t.Logf("seen in %v", found)
		})
	}
}

// parsedByGonja is a template whose white space is gonja's own affair.
func parsedByGonja(text string, blocks bool) (*chatTemplate, error) {
	if _, err := parseTemplate(text); err != nil {
		return nil, err
	}
	cfg := config.New()
	cfg.TrimBlocks, cfg.LeftStripBlocks = blocks, blocks
	root, err := parser.NewParser("", tokens.LexAll(text, cfg), cfg, noFiles{}, controlStructures()).Parse()
	if err != nil {
		return nil, err
	}
	return &chatTemplate{root.Nodes}, nil
}

// expanding is a processor with other settings of processor_config.json.
func expanding(p preprocess.Processor, additional int, strategy string) preprocess.Processor {
	p.Expansion = &preprocess.Expansion{AdditionalTokens: additional, SelectStrategy: strategy}
	return p
}

// replaced is ids with one id for another.
func replaced(ids []int, old, new int) []int {
	out := slices.Clone(ids)
	for i, id := range out {
		if id == old {
			out[i] = new
		}
	}
	return out
}

// longest cuts text into the longest tokens from the left, bytes for what is none.
func longest(m *bpe, text string) []int {
	var ids []int
	for text != "" {
		end := len(text)
		for ; end > 0; end-- {
			if id, ok := m.vocab[text[:end]]; ok && utf8.ValidString(text[:end]) {
				ids = append(ids, id)
				break
			}
		}
		if end == 0 {
			_, end = utf8.DecodeRuneInString(text)
			bytes, _ := m.fallback(text[:end])
			ids = append(ids, bytes...)
		}
		text = text[end:]
	}
	return ids
}
