package tokenizer

import (
	"fmt"
	"slices"
	"strings"
)

// Variant names one of the ways in which versions of transformers cut the text of one and the same vocabulary.
type Variant string

const (
	// ByteLevel is Llama-3's pipeline, the only one of its family.
	ByteLevel Variant = "byte-level"
	// Prepend is Llama-2's tokenizer.json as the official checkpoint has it, used as it stands by transformers 4.x and by the
	// original LLaVA: every stretch of text between added tokens gets a "▁" in front, also the one after an image. Canonical.
	Prepend Variant = "prepend"
	// Metaspace is what transformers 5 rebuilds for the class LlamaTokenizer where legacy is false or absent: only a stretch
	// at the start of the text gets a "▁", none after an image, and a space at the start of the text leaves no trace.
	Metaspace Variant = "metaspace"
	// MetaspaceLegacy is what it rebuilds where legacy is true: every stretch gets a "▁", unless it starts with a space.
	MetaspaceLegacy Variant = "metaspace-legacy"
)

// Variant is that of the tokenizer at hand: of its tokenizer.json as it stands, unless As made it another.
func (t *Tokenizer) Variant() Variant { return t.variant }

// variant recognises a pipeline; "" for one that is none of the named ones.
func (p *pipeline) variant() Variant {
	for _, v := range []Variant{ByteLevel, Prepend, Metaspace, MetaspaceLegacy} {
		norm, pre := v.stages()
		if slices.Equal(norm, p.norm) && pre == p.pre {
			return v
		}
	}
	return ""
}

// stages are what makes a variant: how text is normalised and cut.
func (v Variant) stages() (normalizer, preTokenizer) {
	switch v {
	case Prepend:
		return normalizer{{prepend: "▁"}, {from: " ", to: "▁"}}, preTokenizer{kind: wholeStretch}
	case Metaspace:
		return nil, preTokenizer{kind: metaspaceForm, replacement: "▁", prepend: prependFirst}
	case MetaspaceLegacy:
		return nil, preTokenizer{kind: metaspaceForm, replacement: "▁", prepend: prependAlways}
	}
	return nil, preTokenizer{kind: llama3Split}
}

// Variants are those that the tokenizer's vocabulary can be used in, the canonical one of the family first.
func (t *Tokenizer) Variants() []Variant {
	if t.pre.kind == llama3Split {
		return []Variant{ByteLevel}
	}
	return []Variant{Prepend, Metaspace, MetaspaceLegacy}
}

// As returns the tokenizer with its text cut in another way. Added tokens, model and decoder stay.
func (t *Tokenizer) As(v Variant) (*Tokenizer, error) {
	if !slices.Contains(t.Variants(), v) {
		return nil, fmt.Errorf("tokenizer: variant %q, want one of %s", v, joinVariants(t.Variants()))
	}
	p := *t.pipeline
	p.norm, p.pre = v.stages()
	if err := p.add(t.added.list()); err != nil {
		return nil, err
	}
	out := *t
	out.pipeline, out.variant = &p, v
	return &out, nil
}

func joinVariants(vs []Variant) string {
	var names []string
	for _, v := range vs {
		names = append(names, string(v))
	}
	return strings.Join(names, ", ")
}

// Identify says which variants make exactly these ids of a text, begin-of-text included or not. Texts that all of them cut
// alike (without images and spaces at the start) cannot tell them apart; a prompt with "<image>\n" can. None if no variant
// makes them: then the ids are wrong, or their image tokens are expanded, which CollapseImages undoes.
func (t *Tokenizer) Identify(text string, ids []int) []Variant {
	var found []Variant
	for _, v := range t.Variants() {
		as, err := t.As(v)
		if err != nil {
			continue
		}
		if slices.Equal(as.Encode(text, true), ids) || slices.Equal(as.Encode(text, false), ids) {
			found = append(found, v)
		}
	}
	return found
}

// CollapseImages puts one image token in place of each run of them, the way back from ExpandImages for prompts in which no
// two images touch.
func CollapseImages(ids []int, imageToken int) []int {
	out := []int{}
	for i, id := range ids {
		if id != imageToken || i == 0 || ids[i-1] != imageToken {
			out = append(out, id)
		}
	}
	return out
}
