package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxID bounds ids; tokenizers has 32 bits for them, of which a Go int holds 31 everywhere.
const maxID = 1<<31 - 1

// AddedToken is a token that is found in the text itself, before the model sees any of it.
type AddedToken struct {
	Content    string
	ID         int
	SingleWord bool // only where no letter, digit or underscore touches it
	LStrip     bool // takes the white space on its left with it
	RStrip     bool // takes the white space on its right with it
	Normalized bool // looked for in the normalised text, in its normalised form
	Special    bool // left out of decoded text when special tokens are
}

// addedTokens is AddedVocabulary of tokenizers' tokenizer/added_vocabulary.rs. A tokenizer.json that lists one content twice
// is refused: the versions of the library make different things of it.
type addedTokens struct {
	byID      map[int]AddedToken
	byContent map[string]int
	raw       matcher // tokens that are looked for before normalisation
	normal    matcher // tokens that are looked for after it
}

func newAddedTokens(list []AddedToken, n normalizer) (*addedTokens, error) {
	a := &addedTokens{byID: map[int]AddedToken{}, byContent: map[string]int{}}
	for _, t := range list {
		if _, twice := a.byContent[t.Content]; twice {
			return nil, fmt.Errorf("added_tokens: %q is there twice", t.Content)
		}
		if other, twice := a.byID[t.ID]; twice {
			return nil, fmt.Errorf("added_tokens: %q and %q both have id %d", other.Content, t.Content, t.ID)
		}
		a.byID[t.ID], a.byContent[t.Content] = t, t.ID
		content, into := t.Content, &a.raw
		if t.Normalized {
			content, into = n.apply(t.Content), &a.normal
		}
		if content == "" {
			return nil, fmt.Errorf("added_tokens: nothing is left of %q after normalisation", t.Content)
		}
		if !into.add(content, t.ID) {
			return nil, fmt.Errorf("added_tokens: %q is there twice after normalisation", t.Content)
		}
	}
	return a, nil
}

// list returns the tokens by id.
func (a *addedTokens) list() []AddedToken {
	var all []AddedToken
	for _, t := range a.byID {
		all = append(all, t)
	}
	slices.SortFunc(all, func(x, y AddedToken) int { return x.ID - y.ID })
	return all
}

// stretch is a part of the text: an added token, or what lies between two of them.
type stretch struct {
	text  string // in its normalised form
	id    int    // of the added token; none for text
	first bool   // text at the very start of the input
}

const none = -1

// extract cuts a text into stretches, extract_and_normalize in added_vocabulary.rs: first the tokens of the text as it is,
// then, in what is left, those of the normalised text. Stretches of no text are dropped.
func (a *addedTokens) extract(text string, n normalizer) []stretch {
	var out []stretch
	for _, s := range a.find(text, &a.raw) {
		if s.id != none {
			out = append(out, s)
			continue
		}
		for _, in := range a.find(n.apply(s.text), &a.normal) {
			in.first = in.first && s.first
			if in.id != none || in.text != "" {
				out = append(out, in)
			}
		}
	}
	return out
}

// find cuts text at the tokens that m finds: find_matches in added_vocabulary.rs.
func (a *addedTokens) find(text string, m *matcher) []stretch {
	var out []stretch
	done := 0 // up to here the text is in out
	for at := 0; ; {
		start, stop, id := m.next(text, at)
		if id == none {
			break
		}
		at = stop // the search goes on here, whatever is stripped
		t := a.byID[id]
		if t.SingleWord && (endsWithWord(text[:start]) || startsWithWord(text[stop:])) {
			continue
		}
		if t.LStrip {
			start = min(max(len(strings.TrimRightFunc(text[:start], unicode.IsSpace)), done), stop)
		}
		if t.RStrip {
			stop = len(text) - len(strings.TrimLeftFunc(text[stop:], unicode.IsSpace))
		}
		if done < start {
			out = append(out, stretch{text: text[done:start], id: none, first: done == 0})
		}
		out = append(out, stretch{text: text[start:stop], id: id})
		done = stop
	}
	if done != len(text) || text == "" {
		out = append(out, stretch{text: text[min(done, len(text)):], id: none, first: done == 0})
	}
	return out
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Rust's regex crate: Alphabetic, M, Nd, Pc, Join_Control (UTS 18, annex C).
func isWord(r rune) bool {
	return isLetter(r) || unicode.In(r, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Other_Lowercase, unicode.Other_Uppercase, unicode.Join_Control)
}

// matcher finds strings in a text: a tree of bytes, each node the first child of its parent or the next sibling.
type matcher struct{ nodes []matcherNode }

type matcherNode struct {
	child, sibling int32 // 0 for none: the root is nobody's child
	id             int32 // of the string that ends here, or none
	byte           byte
}

// add adds a string that is not empty; false if it is there already.
func (m *matcher) add(s string, id int) bool {
	if m.nodes == nil {
		m.nodes = []matcherNode{{id: none}}
	}
	at := int32(0)
	for i := range len(s) {
		to := m.step(at, s[i])
		if to == 0 {
			to = int32(len(m.nodes))
			m.nodes = append(m.nodes, matcherNode{byte: s[i], id: none, sibling: m.nodes[at].child})
			m.nodes[at].child = to
		}
		at = to
	}
	if m.nodes[at].id != none {
		return false
	}
	m.nodes[at].id = int32(id)
	return true
}

// step goes from a node along a byte; 0 if that leads nowhere.
func (m *matcher) step(at int32, b byte) int32 {
	to := m.nodes[at].child
	for to != 0 && m.nodes[to].byte != b {
		to = m.nodes[to].sibling
	}
	return to
}

// next finds the leftmost string at or after from, of several at one place the longest; id is none if there is none.
func (m *matcher) next(text string, from int) (start, stop, id int) {
	if m.nodes == nil {
		return 0, 0, none
	}
	for start = from; start < len(text); start++ {
		id = none
		at := int32(0)
		for i := start; i < len(text); i++ {
			if at = m.step(at, text[i]); at == 0 {
				break
			}
			if m.nodes[at].id != none {
				stop, id = i+1, int(m.nodes[at].id)
			}
		}
		if id != none {
			return start, stop, id
		}
	}
	return 0, 0, none
}
