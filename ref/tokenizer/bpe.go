package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// bpe is the model of byte pair encoding: BPE of tokenizers' models/bpe/model.rs. A piece of text starts as its characters,
// and the adjacent pair that comes first in the list of merges becomes one token, the leftmost of equal ones, until no
// pair is in the list.
type bpe struct {
	vocab  map[string]int
	tokens map[int]string
	merges map[pair]merge

	ignoreMerges bool     // a piece that is a token is that token, whatever the merges make of it
	byteFallback bool     // a character that is no token becomes its bytes' tokens <0x00> to <0xFF>
	bytes        [256]int // the ids of those, none where there is no such token
	unknown      int      // the id for what neither finds, or none: then it is dropped
	fuseUnknown  bool     // a run of unknown characters is one unknown token
}

type pair struct{ left, right int }

type merge struct{ rank, id int }

// encode returns the ids of one piece.
func (m *bpe) encode(piece string) []int {
	if m.ignoreMerges {
		if id, ok := m.vocab[piece]; ok {
			return []int{id}
		}
	}
	return m.mergeAll(m.characters(piece))
}

// characters returns the ids of a piece's characters, merge_word in model.rs. As there, an unknown token that waits to be
// joined by another stands behind the bytes of a character that came after it.
func (m *bpe) characters(piece string) []int {
	ids := make([]int, 0, len(piece))
	waiting := false
	for i, r := range piece {
		char := piece[i : i+utf8.RuneLen(r)]
		if id, ok := m.vocab[char]; ok {
			if waiting {
				ids, waiting = append(ids, m.unknown), false
			}
			ids = append(ids, id)
			continue
		}
		if bytes, ok := m.fallback(char); ok {
			ids = append(ids, bytes...)
			continue
		}
		if m.unknown == none {
			continue
		}
		if waiting && !m.fuseUnknown {
			ids = append(ids, m.unknown)
		}
		waiting = true
	}
	if waiting {
		ids = append(ids, m.unknown)
	}
	return ids
}

// fallback returns the ids of a character's bytes; false unless each of them has one.
func (m *bpe) fallback(char string) ([]int, bool) {
	if !m.byteFallback {
		return nil, false
	}
	var ids []int
	for i := range len(char) {
		id := m.bytes[char[i]]
		if id == none {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

// mergeAll merges pairs until none is left, Word::merge_all in models/bpe/word.rs. A queue holds the pairs that can be
// merged, the lowest rank first, of equal ranks the leftmost. Its entries are not taken out when a neighbour changes: an
// entry counts as long as the pair that stands there now makes the same token, even if by another merge of another rank.
func (m *bpe) mergeAll(ids []int) []int {
	type symbol struct{ id, prev, next int } // of neighbours: positions, none at the ends; id is none once it is merged away
	symbols := make([]symbol, len(ids))
	for i, id := range ids {
		symbols[i] = symbol{id, i - 1, i + 1}
	}
	if len(ids) > 0 {
		symbols[len(ids)-1].next = none
	}
	var q queue
	push := func(at int) {
		if at == none || symbols[at].next == none {
			return
		}
		if to, ok := m.merges[pair{symbols[at].id, symbols[symbols[at].next].id}]; ok {
			q.push(candidate{to.rank, at, to.id})
		}
	}
	for i := range symbols {
		push(i)
	}
	for len(q) > 0 {
		c := q.pop()
		s := &symbols[c.at]
		if s.id == none || s.next == none {
			continue
		}
		right := symbols[s.next]
		if to, ok := m.merges[pair{s.id, right.id}]; !ok || to.id != c.id {
			continue
		}
		symbols[s.next].id = none
		s.id, s.next = c.id, right.next
		if right.next != none {
			symbols[right.next].prev = c.at
		}
		push(s.prev)
		push(c.at)
	}
	out := ids[:0]
	for _, s := range symbols {
		if s.id != none {
			out = append(out, s.id)
		}
	}
	return out
}

// candidate is a pair that can be merged: the rank of the merge, where its left half stands, what it makes.
type candidate struct{ rank, at, id int }

// queue is a binary heap, the first candidate at its root.
type queue []candidate

func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.at < b.at
}

func (q *queue) push(c candidate) {
	*q = append(*q, c)
	h := *q
	i := len(h) - 1
	for i > 0 && h[i].before(h[(i-1)/2]) {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
}

func (q *queue) pop() candidate {
	h := *q
	top := h[0]
	h[0] = h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].before(h[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	*q = h
	return top
}

// bpe reads tokenizer.json's "model".
func (r *reader) bpe(o object) *bpe {
	if typ := r.str(o, "type", "BPE"); typ != "BPE" {
		r.fail("%q is not supported, want \"BPE\"", typ)
		return nil
	}
	if o.has("dropout") && string(o["dropout"]) != "0.0" {
		r.fail("dropout %s is not supported, want null", shorten(o["dropout"]))
	}
	for _, key := range []string{"continuing_subword_prefix", "end_of_word_suffix"} {
		if v := r.str(o, key, ""); v != "" {
			r.fail("%s %q is not supported, want null", key, v)
		}
	}
	m := &bpe{
		ignoreMerges: r.boolean(o, "ignore_merges", false),
		byteFallback: r.boolean(o, "byte_fallback", false),
		fuseUnknown:  r.boolean(o, "fuse_unk", false),
		unknown:      none,
	}
	m.vocab, m.tokens = r.vocab(o["vocab"])
	if r.err != nil {
		return nil
	}
	if unk := r.str(o, "unk_token", ""); o.has("unk_token") {
		id, ok := m.vocab[unk]
		if !ok {
			r.fail("unk_token %q is not in the vocabulary", unk)
		}
		m.unknown = id
	}
	for b := range 256 {
		m.bytes[b] = none
		if id, ok := m.vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
			m.bytes[b] = id
		}
	}
	m.merges = r.merges(o["merges"], m.vocab)
	return m
}

// vocab reads the ids of tokens. No token may be there twice and no two may have one id, which Go's maps would hide.
func (r *reader) vocab(raw json.RawMessage) (map[string]int, map[int]string) {
	vocab, tokens := map[string]int{}, map[int]string{}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		r.fail("vocab is missing, want an object of tokens and ids")
		return nil, nil
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			r.fail("vocab: %v", err)
			return nil, nil
		}
		token := key.(string) // an object's keys are strings
		value, err := dec.Token()
		number, ok := value.(json.Number)
		if err != nil || !ok {
			r.fail("vocab: %q: %v, want an id", token, value)
			return nil, nil
		}
		id, err := strconv.Atoi(number.String())
		if err != nil || id < 0 || id > maxID {
			r.fail("vocab: %q: %s is no id", token, number)
			return nil, nil
		}
		if _, twice := vocab[token]; twice {
			r.fail("vocab: %q is there twice", token)
			return nil, nil
		}
		if other, twice := tokens[id]; twice {
			r.fail("vocab: %q and %q both have id %d", other, token, id)
			return nil, nil
		}
		if vocab[token], tokens[id] = id, token; len(vocab) > maxTokens {
			r.fail("vocab: more than %d tokens", maxTokens)
			return nil, nil
		}
	}
	return vocab, tokens
}

// merges reads the list of merges: "a b" as tokenizers up to 0.19 writes them, or ["a", "b"]. Of a pair that stands there
// twice the later place counts.
func (r *reader) merges(raw json.RawMessage, vocab map[string]int) map[pair]merge {
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		var lines []string
		if err := json.Unmarshal(raw, &lines); err != nil || raw == nil {
			r.fail("merges: want a list of \"a b\", or of [\"a\", \"b\"]")
			return nil
		}
		pairs = pairs[:0]
		for _, line := range lines {
			if !strings.HasPrefix(line, "#version") {
				pairs = append(pairs, strings.Split(line, " "))
			}
		}
	}
	if len(pairs) > maxMerges {
		r.fail("merges: %d of them, want at most %d", len(pairs), maxMerges)
		return nil
	}
	merges := make(map[pair]merge, len(pairs))
	for rank, p := range pairs {
		if len(p) != 2 {
			r.fail("merges[%d]: %q, want two tokens", rank, p)
			return nil
		}
		left, ok := vocab[p[0]]
		right, ok2 := vocab[p[1]]
		id, ok3 := vocab[p[0]+p[1]]
		if !ok || !ok2 || !ok3 {
			r.fail("merges[%d]: %q and %q, and both together, must be in the vocabulary", rank, p[0], p[1])
			return nil
		}
		merges[pair{left, right}] = merge{rank, id}
	}
	return merges
}
