package golden

import (
	"fmt"
	"hash/fnv"
	"iter"

	"github.com/llavaref/llavaref/shapes"
)

// Sample says which entries of a node a set keeps. The node is a matrix: its last axis the columns, all others the rows.
// Kept rows are numbered i = 0, 1, ..., kept entries j = 0, 1, ... through all kept rows, PerRow of them in each.
type Sample struct {
	rows, cols   int // of the node
	kept, perRow int // rows kept, entries kept of each
	queries      int // T if the node is causal, otherwise 0
	step, offset int // of the column from one entry to the next; step is 0 if everything is kept
}

// Limits within which no number of a sample overflows: entries of a node, and of its sample.
const (
	maxEntries = 1 << 40
	maxBudget  = 1 << 22
)

// NewSample is the rule of docs/golden-format.md for the node of that name and shape. Budget is the set's "sample";
// causal is true for the text model's scores and probs.
// A shape without axes, with an axis below 1 or with more than 2^40 entries is a programmer's mistake, as is a budget outside of 0 to 2^22.
func NewSample(name string, shape []int, causal bool, budget int) Sample {
	entries, err := countEntries(shape)
	if err != nil || budget < 0 || budget > maxBudget || causal && len(shape) < 2 {
		panic(fmt.Sprintf("golden: sample: %s: shape %v, causal %v, budget %d: no such sample", name, shape, causal, budget))
	}
	c := shape[len(shape)-1]
	s := Sample{rows: entries / c, cols: c}
	if causal {
		s.queries = shape[len(shape)-2]
	}
	switch {
	case budget == 0 || entries <= budget:
		s.kept, s.perRow = s.rows, c
		return s
	case s.rows >= budget:
		s.kept, s.perRow = budget, 1
	default:
		s.kept, s.perRow = s.rows, budget/s.rows
	}
	s.step = (618*c + 999) / 1000
	for gcd(s.step, c) != 1 {
		s.step++
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	s.offset = int(h.Sum64() % uint64(c))
	return s
}

// SampleOf is the sample of a node of the graph for a prompt.
func SampleOf(n shapes.Node, d shapes.Dims, budget int) Sample {
	return NewSample(n.Name, n.Concrete(d), causal(n), budget)
}

// causal says whether rows of the node are cut at their query's position: scores and probs, not the context made of them.
func causal(n shapes.Node) bool {
	return n.Causal && (n.Kind == shapes.Scores || n.Kind == shapes.Softmax)
}

// Rows is the number of kept rows.
func (s Sample) Rows() int { return s.kept }

// PerRow is the number of entries kept of each kept row: entry j is in kept row j / PerRow.
func (s Sample) PerRow() int { return s.perRow }

// Entries is the number of kept entries.
func (s Sample) Entries() int { return s.kept * s.perRow }

// Whole says whether every entry of the node is kept. A causal row then has entries beyond its query as well:
// -Inf in scores, 0 in probs.
func (s Sample) Whole() bool { return s.step == 0 }

// Row is the number of kept row i among the node's rows.
func (s Sample) Row(i int) int {
	if s.kept == s.rows {
		return i
	}
	return i * s.rows / s.kept
}

// Width is how many columns exist in the node's row number r: all, or in a causal node those up to the row's query.
func (s Sample) Width(r int) int {
	if s.queries > 0 {
		return min(1+r%s.queries, s.cols)
	}
	return s.cols
}

// Column is the column of entry j.
func (s Sample) Column(j int) int {
	if s.step == 0 {
		return j % s.cols
	}
	c := s.cols
	if s.queries > 0 {
		c = s.Width(s.Row(j / s.perRow))
	}
	return (j*s.step + s.offset) % c
}

// All gives row and column of every kept entry, in order.
func (s Sample) All() iter.Seq2[int, int] {
	return func(yield func(r, c int) bool) {
		next, step := s.offset, s.step%s.cols
		for i := range s.kept {
			r := s.Row(i)
			for k := range s.perRow {
				c := k
				switch {
				case s.step == 0:
				case s.queries > 0:
					c = s.Column(i*s.perRow + k)
				default: // the same column, without a division an entry
					c = next
					if next += step; next >= s.cols {
						next -= s.cols
					}
				}
				if !yield(r, c) {
					return
				}
			}
		}
	}
}

// Gather takes the kept entries out of a node's whole tensor. It is for the caller to have compared the tensor's shape with the node's.
func Gather(t shapes.Tensor, s Sample) []float32 {
	if len(t.Data) != s.rows*s.cols {
		panic(fmt.Sprintf("golden: gather: tensor of %d values, want %d (%d rows of %d)", len(t.Data), s.rows*s.cols, s.rows, s.cols))
	}
	if s.Whole() {
		return append([]float32(nil), t.Data...)
	}
	out := make([]float32, 0, s.Entries())
	for r, c := range s.All() {
		out = append(out, t.Data[r*s.cols+c])
	}
	return out
}

// countEntries is the product of a shape that may be anything.
func countEntries(shape []int) (int, error) {
	if len(shape) == 0 {
		return 0, fmt.Errorf("shape %v, want at least one axis", shape)
	}
	n := 1
	for _, d := range shape {
		if d < 1 || d > maxEntries/n {
			return 0, fmt.Errorf("shape %v, want axes of at least 1 and at most %d entries", shape, maxEntries)
		}
		n *= d
	}
	return n, nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
