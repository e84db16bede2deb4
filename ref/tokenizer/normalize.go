package tokenizer

import "strings"

// normalizer is a list of steps that text goes through before it is cut: Prepend and Replace of tokenizers' normalizers.
type normalizer []normalizerStep

type normalizerStep struct {
	prepend  string // in front of a text that is not empty; "" for none
	from, to string // every from becomes to; from is "" for none
}

func (n normalizer) apply(text string) string {
	for _, s := range n {
		if s.prepend != "" && text != "" {
			text = s.prepend + text
		}
		if s.from != "" {
			text = strings.ReplaceAll(text, s.from, s.to)
		}
	}
	return text
}

// normalizer reads tokenizer.json's "normalizer".
func (r *reader) normalizer(o object) normalizer {
	if o == nil {
		return nil
	}
	switch typ := r.typeOf(o); typ {
	case "Sequence":
		var n normalizer
		for _, part := range r.objects(o, "normalizers") {
			if r.typeOf(part) == "Sequence" {
				r.fail("a Sequence in a Sequence, want Prepend and Replace in it")
				return nil
			}
			n = append(n, r.normalizer(part)...)
		}
		return n
	case "Prepend":
		return normalizer{{prepend: r.str(o, "prepend", "")}}
	case "Replace":
		return normalizer{{from: r.pattern(o), to: r.str(o, "content", "")}}
	default:
		r.fail("%q is not supported, want Prepend and Replace, or none", typ)
		return nil
	}
}

// pattern reads the pattern of a Replace, which may be a string only.
func (r *reader) pattern(o object) string {
	p := r.object(o, "pattern")
	for kind := range p {
		if kind != "String" {
			r.fail("Replace: a pattern that is a %s is not supported, want a String", kind)
			return ""
		}
	}
	s := r.str(p, "String", "")
	if s == "" {
		r.fail("Replace: the pattern is empty")
	}
	return s
}
