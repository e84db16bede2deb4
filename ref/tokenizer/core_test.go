package tokenizer

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pkoukk/tiktoken-go"
)

// tiktoken merges by ids and the library by a list. Where the list says all that the ids say (newCore checks it) both must
// agree also when several merges make one token and overlap, of which the library takes the earlier in its list and tiktoken
// the one further left: small alphabets and many short tokens, until something overlaps.
func TestIDsAndListsOfMergesSayTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	compared := 0
	for range 400 {
		m := randomBPE(r)
		core, err := tiktoken.NewCoreBPE(m.vocab, map[string]int{}, `(?s).+`)
		if err != nil {
			t.Fatal(err)
		}
		tik := tiktoken.NewTiktoken(core, nil, nil)
		if !m.idsAreRanks() || !m.mergesAreAll() {
			t.Fatalf("%v: ids and merges do not agree", m.vocab)
		}
		for range 100 {
			var text strings.Builder
			for range 1 + r.IntN(24) {
				text.WriteByte("aab"[r.IntN(3)])
			}
			if _, whole := m.vocab[text.String()]; whole {
				continue
			}
			compared++
			if got, want := tik.EncodeOrdinary(text.String()), m.encode(text.String()); !slices.Equal(got, want) {
				t.Fatalf("%v: %q: by ids %v, by the list %v", m.vocab, text.String(), got, want)
			}
		}
	}
	t.Logf("%d texts", compared)
}

// randomBPE is a vocabulary over two letters with a merge for every way to make a token.
func randomBPE(r *rand.Rand) *bpe {
	tokens := []string{"a", "b"}
	m := &bpe{vocab: map[string]int{"a": 0, "b": 1}, merges: map[pair]merge{}, unknown: none}
	for range 40 {
		made := tokens[r.IntN(len(tokens))] + tokens[r.IntN(len(tokens))]
		if _, have := m.vocab[made]; have || len(made) > 8 || len(tokens) > 14 {
			continue
		}
		m.vocab[made], tokens = len(tokens), append(tokens, made)
	}
	for id, made := range tokens {
		var ways []pair
		for i := 1; i < len(made); i++ {
			left, ok := m.vocab[made[:i]]
			if right, ok2 := m.vocab[made[i:]]; ok && ok2 {
				ways = append(ways, pair{left, right})
			}
		}
		slices.SortFunc(ways, func(a, b pair) int {
			if a.left != b.left {
				return a.left - b.left
			}
			return a.right - b.right
		})
		for _, p := range ways {
			m.merges[p] = merge{len(m.merges), id}
		}
	}
	return m
}

// With the core or without it, short pieces or long: the same ids.
func TestCoreAndListAgreeOnTheVectors(t *testing.T) {
	tok := small(t, "llama3")
	if tok.core == nil {
		t.Fatal("the small Llama-3 tokenizer does not go to tiktoken")
	}
	without := *tok.pipeline
	without.core = nil
	alone := &Tokenizer{pipeline: &without}
	for _, line := range readLines[stringVector](t, "strings.jsonl.gz") {
		if got, want := alone.Encode(line.Text, true), tok.Encode(line.Text, true); !slices.Equal(got, want) {
			t.Errorf("%q: by the list %v, by the core %v", line.Text, got, want)
		}
	}
	for _, unit := range []string{" ", "a", "ab", "=", "\n", "你", "x\u0301"} {
		text := strings.Repeat(unit, 1000)
		whole := tok.Encode(text, false)
		if got := tok.Decode(whole, false); got != text {
			t.Errorf("%d times %q comes back as %d bytes", 1000, unit, len(got))
		}
		var pieces []int
		for _, p := range splitLlama3(text) {
			pieces = append(pieces, tok.core.encode(p)...)
		}
		if !slices.Equal(pieces, whole) {
			t.Errorf("%d times %q: by the core %d ids, else %d", 1000, unit, len(pieces), len(whole))
		}
	}
}

func TestCoreIsLeftOutWhereItWouldDiffer(t *testing.T) {
	for name, change := range map[string]func(*bpe){
		"merges only":                 func(m *bpe) { m.ignoreMerges = false },
		"a byte without a token":      func(m *bpe) { delete(m.vocab, "!") },
		"a merge less than ids imply": func(m *bpe) { delete(m.merges, anyMerge(m)) },
		"merges in another order":     func(m *bpe) { p := anyMerge(m); m.merges[p] = merge{1 << 20, m.merges[p].id} },
		"a token that is no bytes":    func(m *bpe) { m.vocab["▁"] = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			m := small(t, "llama3").model
			if newCore(m) == nil {
				t.Fatal("no core to begin with")
			}
			change(m)
			if newCore(m) != nil {
				t.Error("tiktoken would be used")
			}
		})
	}
}

// anyMerge is the first merge of all.
func anyMerge(m *bpe) pair {
	for p, to := range m.merges {
		if to.rank == 0 {
			return p
		}
	}
	return pair{}
}

func BenchmarkEncode(b *testing.B) {
	text := strings.Repeat("What is shown in this image? Describe the picture in detail: 12345 items, naïve café 東京.\n", 100)
	for _, family := range []string{"llama3", "llama2"} {
		tok := small(b, family)
		b.Run(family, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text, true)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, variable := range []string{"LLAVAREF_TOKENIZER_JSON_LLAMA3", "LLAVAREF_TOKENIZER_JSON_LLAMA2"} {
		data, err := os.ReadFile(os.Getenv(variable))
		if err != nil {
			b.Skipf("%s: %v", variable, err)
		}
		b.Run(variable, func(b *testing.B) {
			for b.Loop() {
				if _, err := Parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
