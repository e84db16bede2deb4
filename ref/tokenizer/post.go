package tokenizer

import "slices"

// affixes are the ids that go around those of a text: begin-of-text in front of it, for both families.
type affixes struct{ before, after []int }

// postProcessor reads tokenizer.json's "post_processor": TemplateProcessing, ByteLevel (which moves offsets only and changes
// no id), or a Sequence with one TemplateProcessing in it. With two of them the library takes what the first one made for a
// pair of texts.
func (r *reader) postProcessor(o object) affixes {
	if o == nil {
		return affixes{}
	}
	switch typ := r.typeOf(o); typ {
	case "ByteLevel":
		return affixes{}
	case "TemplateProcessing":
		return r.template(o)
	case "Sequence":
		var a affixes
		templates := 0
		for _, part := range r.objects(o, "processors") {
			switch r.typeOf(part) {
			case "ByteLevel":
			case "TemplateProcessing":
				a = r.template(part)
				templates++
			default:
				r.fail("%q in a Sequence is not supported, want TemplateProcessing and ByteLevel", r.typeOf(part))
			}
		}
		if templates > 1 {
			r.fail("%d TemplateProcessing in a Sequence are not supported, want one", templates)
		}
		return a
	default:
		r.fail("%q is not supported, want TemplateProcessing, ByteLevel, a Sequence of them, or none", typ)
		return affixes{}
	}
}

// template reads the "single" template of a TemplateProcessing; pairs of texts do not occur.
// The ids are the template's own, which the library takes without looking at the vocabulary.
func (r *reader) template(o object) affixes {
	special := r.object(o, "special_tokens")
	var a affixes
	sequences := 0
	for _, piece := range r.objects(o, "single") {
		switch {
		case piece.has("Sequence") && len(piece) == 1:
			if id := r.str(r.object(piece, "Sequence"), "id", ""); id != "A" {
				r.fail("TemplateProcessing: Sequence %q in the template of a single text, want \"A\"", id)
			}
			sequences++
		case piece.has("SpecialToken") && len(piece) == 1:
			name := r.str(r.object(piece, "SpecialToken"), "id", "")
			if !special.has(name) {
				r.fail("TemplateProcessing: special_tokens lacks %q", name)
			}
			ids := r.ids(r.object(special, name), "ids")
			if sequences == 0 {
				a.before = append(a.before, ids...)
			} else {
				a.after = append(a.after, ids...)
			}
		default:
			r.fail("TemplateProcessing: a piece that is neither a Sequence nor a SpecialToken")
		}
	}
	if sequences != 1 {
		r.fail("TemplateProcessing: the text stands %d times in the template of a single text, want once", sequences)
	}
	return a
}

// ids reads a list of token ids.
func (r *reader) ids(o object, key string) []int {
	var v []int
	r.value(o, key, &v, "a list of ids")
	if i := slices.IndexFunc(v, func(id int) bool { return id < 0 || id > maxID }); i >= 0 {
		r.fail("%s[%d] %d is no id", key, i, v[i])
	}
	return v
}
