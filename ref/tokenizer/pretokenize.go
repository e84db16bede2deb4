package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// preTokenizer cuts a stretch of text into the pieces that BPE sees one by one.
type preTokenizer struct {
	kind preTokenizerKind

	// Of Metaspace only.
	replacement string // one character, in place of a space: "▁"
	prepend     prependScheme
	split       bool // a piece ends before every replacement
}

type preTokenizerKind int

const (
	wholeStretch  preTokenizerKind = iota // no pre-tokenizer: the stretch is one piece
	llama3Split                           // Split by llama3Pattern, then ByteLevel
	metaspaceForm                         // Metaspace
)

type prependScheme string

// When Metaspace puts its character in front: before every stretch, before a stretch at the start of the whole text, never.
const (
	prependAlways prependScheme = "always"
	prependFirst  prependScheme = "first"
	prependNever  prependScheme = "never"
)

// cut returns the pieces of a stretch; first says that it stands at the start of the whole text.
func (p preTokenizer) cut(text string, first bool) []string {
	switch p.kind {
	case llama3Split:
		return splitLlama3(text)
	case metaspaceForm:
		return p.metaspace(text, first)
	}
	return []string{text}
}

// metaspace is Metaspace::pre_tokenize of tokenizers' pre_tokenizers/metaspace.rs. A stretch that starts with a space gets
// no second one in front: so a space at the start of a text leaves no trace in the ids.
func (p preTokenizer) metaspace(text string, atStart bool) []string {
	text = strings.ReplaceAll(text, " ", p.replacement)
	if !strings.HasPrefix(text, p.replacement) && (p.prepend == prependAlways || p.prepend == prependFirst && atStart) {
		text = p.replacement + text
	}
	if !p.split {
		return []string{text}
	}
	var pieces []string
	for text != "" {
		_, first := utf8.DecodeRuneInString(text)
		end := strings.Index(text[first:], p.replacement)
		if end < 0 {
			return append(pieces, text)
		}
		pieces = append(pieces, text[:first+end])
		text = text[first+end:]
	}
	return pieces
}

// preTokenizer reads tokenizer.json's "pre_tokenizer".
func (r *reader) preTokenizer(o object) preTokenizer {
	if o == nil {
		return preTokenizer{kind: wholeStretch}
	}
	switch typ := r.typeOf(o); typ {
	case "Sequence":
		return r.splitThenBytes(r.objects(o, "pretokenizers"))
	case "Metaspace":
		return r.metaspace(o)
	default:
		r.fail("%q is not supported, want Metaspace, a Sequence of Split and ByteLevel, or none", typ)
		return preTokenizer{}
	}
}

// splitThenBytes reads Llama-3's Sequence.
func (r *reader) splitThenBytes(parts []object) preTokenizer {
	var types []string
	for _, p := range parts {
		types = append(types, r.typeOf(p))
	}
	if len(types) != 2 || types[0] != "Split" || types[1] != "ByteLevel" {
		r.fail("a Sequence of %q is not supported, want Split and ByteLevel", types)
		return preTokenizer{}
	}
	split, bytes := parts[0], parts[1]
	pattern := r.object(split, "pattern")
	if got := r.str(pattern, "Regex", ""); got != llama3Pattern || len(pattern) != 1 {
		r.fail("Split: the pattern %s is not supported, want the Regex of Llama-3, %s", shorten(split["pattern"]), llama3Pattern)
	}
	if got := r.str(split, "behavior", ""); got != "Isolated" {
		r.fail("Split: behavior %q is not supported, want \"Isolated\"", got)
	}
	if r.boolean(split, "invert", false) {
		r.fail("Split: invert true is not supported, want false")
	}
	if r.boolean(bytes, "add_prefix_space", true) {
		r.fail("ByteLevel: add_prefix_space true is not supported, want false")
	}
	if r.boolean(bytes, "use_regex", true) {
		r.fail("ByteLevel: use_regex true is not supported, want false")
	}
	return preTokenizer{kind: llama3Split}
}

// metaspace reads a Metaspace in the spellings of tokenizers 0.13 to 0.23.
func (r *reader) metaspace(o object) preTokenizer {
	p := preTokenizer{
		kind:        metaspaceForm,
		replacement: r.str(o, "replacement", ""),
		prepend:     prependScheme(r.str(o, "prepend_scheme", string(prependAlways))),
		split:       r.boolean(o, "split", true),
	}
	if utf8.RuneCountInString(p.replacement) != 1 {
		r.fail("Metaspace: replacement %q, want one character", p.replacement)
	}
	switch p.prepend {
	case prependAlways, prependFirst, prependNever:
	default:
		r.fail("Metaspace: prepend_scheme %q, want \"always\", \"first\" or \"never\"", p.prepend)
	}
	if o.has("add_prefix_space") && !r.boolean(o, "add_prefix_space", true) && p.prepend != prependNever {
		r.fail("Metaspace: add_prefix_space false, but prepend_scheme %q", p.prepend)
	}
	return p
}
