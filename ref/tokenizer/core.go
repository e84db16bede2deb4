package tokenizer

import (
	"slices"

	"github.com/pkoukk/tiktoken-go"
)

// core is tiktoken's BPE, which knows no list of merges: of all adjacent pairs whose bytes together are a token it merges
// the one with the lowest id. Llama-3 was made for it, and its tokenizer.json lists the merges that come to the same.
type core struct{ bpe *tiktoken.Tiktoken }

// maxCorePiece is the longest piece, in bytes, that goes to tiktoken, whose time grows with the square of it
// (100 000 spaces take 12 s). Longer ones take the list of merges.
const maxCorePiece = 256

// newCore returns tiktoken's core for a byte-level model; nil if ids and list of merges do not say the same thing:
// that takes whole pieces looked up first, a token for every byte, merges in the order of the ids that they make, and a
// merge for every way to make a token of two.
func newCore(m *bpe) *core {
	if !m.ignoreMerges {
		return nil
	}
	ranks := make(map[string]int, len(m.vocab))
	for token, id := range m.vocab {
		bytes, ok := unspellBytes(token)
		if !ok {
			return nil
		}
		ranks[bytes] = id
	}
	for b := range 256 {
		if _, ok := ranks[string([]byte{byte(b)})]; !ok {
			return nil
		}
	}
	if !m.idsAreRanks() || !m.mergesAreAll() {
		return nil
	}
	bpe, err := tiktoken.NewCoreBPE(ranks, map[string]int{}, `(?s).+`) // the pieces are cut already
	if err != nil {
		return nil
	}
	return &core{tiktoken.NewTiktoken(bpe, nil, nil)}
}

// encode returns the ids of one piece.
func (c *core) encode(piece string) []int { return c.bpe.EncodeOrdinary(piece) }

// idsAreRanks says whether a merge that stands later makes no token with a lower id.
func (m *bpe) idsAreRanks() bool {
	first, last := map[int]int{}, map[int]int{} // of each token, the places of its merges
	for _, to := range m.merges {
		if at, ok := first[to.id]; !ok || to.rank < at {
			first[to.id] = to.rank
		}
		last[to.id] = max(last[to.id], to.rank)
	}
	made := make([]int, 0, len(first))
	for id := range first {
		made = append(made, id)
	}
	slices.Sort(made)
	for i := 1; i < len(made); i++ {
		if last[made[i-1]] > first[made[i]] {
			return false
		}
	}
	return true
}

// mergesAreAll says whether every token that two tokens make is made of them by a merge.
func (m *bpe) mergesAreAll() bool {
	for token, id := range m.vocab {
		for i := range token {
			left, ok := m.vocab[token[:i]]
			if !ok {
				continue
			}
			if right, ok := m.vocab[token[i:]]; ok && m.merges[pair{left, right}].id != id {
				return false
			}
		}
	}
	return true
}
