package bench

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"unicode/utf8"
)

// Verdict is what a comparison says of a row.
type Verdict string

// The verdicts. A change that is beyond the threshold, but not beyond the noise, is Unclear.
const (
	Same    Verdict = "same"
	Faster  Verdict = "faster"
	Slower  Verdict = "slower"
	Unclear Verdict = "unclear"
)

// Comparison is two results held against each other, row by row, in percent of the limit that each was measured beside.
type Comparison struct {
	Threshold float64 // points of percent of the limit
	Rows      []Change
	Added     []string // rows that only the new result has
}

// Change is one row in both results.
type Change struct {
	Name     string
	Limit    string
	Old, New float64 // medians in percent of the limit
	Noise    float64 // points that two measurements of the same program differ by, at most, in 19 of 20 cases
	Verdict  Verdict
}

// Count is how many rows have a verdict.
func (c Comparison) Count(v Verdict) int {
	n := 0
	for _, r := range c.Rows {
		if r.Verdict == v {
			n++
		}
	}
	return n
}

// Compare holds a result against an older one, row by row. again, if not nil, is the old program measured a second time: what differs
// between the two is noise that the samples of one run do not show. It is an error if the results cannot be compared: other machines,
// kernels, threads, models, or if the new result lacks a row of the old one.
func Compare(old, again *Result, new Result, threshold float64) (Comparison, error) {
	c := Comparison{Threshold: threshold}
	if !(threshold > 0 && threshold <= 100) {
		return c, fmt.Errorf("bench: a threshold of %g percent of the limit, want more than 0 and at most 100", threshold)
	}
	for _, other := range []*Result{again, &new} {
		if other == nil {
			continue
		}
		if err := comparable(*old, *other); err != nil {
			return c, err
		}
	}
	byName := index(new)
	var second map[string]Row
	if again != nil {
		second = index(*again)
	}
	for _, row := range old.Rows {
		now, ok := byName[row.Name]
		if !ok {
			return c, fmt.Errorf("bench: the new result has no row %s", row.Name)
		}
		if now.Limit != row.Limit || now.FLOP != row.FLOP || now.Bytes != row.Bytes {
			return c, fmt.Errorf("bench: %s: %g FLOP and %g bytes against %s, and then %g and %g against %s: not the same work", row.Name, row.FLOP, row.Bytes, row.Limit, now.FLOP, now.Bytes, now.Limit)
		}
		delete(byName, row.Name)
		change := Change{Name: row.Name, Limit: row.Limit, Old: median(row.Percents()), New: median(now.Percents())}
		if math.IsNaN(change.Old) || math.IsNaN(change.New) {
			return c, fmt.Errorf("bench: %s: no limit was measured beside it, and without it times say nothing", row.Name)
		}
		change.Noise = math.Hypot(noise(row.Percents()), noise(now.Percents()))
		if again != nil {
			r, ok := second[row.Name]
			if !ok {
				return c, fmt.Errorf("bench: the second result of the old program has no row %s", row.Name)
			}
			if between := math.Abs(change.Old - median(r.Percents())); !(between <= change.Noise) {
				change.Noise = between
			}
		}
		change.Verdict = judge(change.New-change.Old, change.Noise, threshold)
		c.Rows = append(c.Rows, change)
	}
	for _, row := range new.Rows {
		if _, left := byName[row.Name]; left {
			c.Added = append(c.Added, row.Name)
		}
	}
	if len(c.Rows) == 0 {
		return c, fmt.Errorf("bench: the old result has no rows, nothing was compared")
	}
	return c, nil
}

// judge says what a difference means.
func judge(difference, noise, threshold float64) Verdict {
	switch {
	case math.Abs(difference) <= threshold && noise <= threshold:
		return Same
	case !(math.Abs(difference) > noise):
		return Unclear // also where the noise is unknown
	case difference < 0:
		return Slower
	default:
		return Faster
	}
}

func index(r Result) map[string]Row {
	m := map[string]Row{}
	for _, row := range r.Rows {
		m[row.Name] = row
	}
	return m
}

// comparable says why two results cannot be compared; nil if they can.
func comparable(a, b Result) error {
	for _, f := range []struct {
		what string
		a, b any
	}{
		{"processor", a.Machine.CPU, b.Machine.CPU}, {"architecture", a.Machine.Arch, b.Machine.Arch}, {"number of cores", a.Machine.Cores, b.Machine.Cores},
		{"number of threads", a.Threads, b.Threads}, {"model", a.Model, b.Model}, {"kind of run, quick", a.Quick, b.Quick},
	} {
		if f.a != f.b {
			return fmt.Errorf("bench: not the same %s: %v and %v", f.what, f.a, f.b)
		}
	}
	return nil
}

// noise is how far the medians of two runs of the same samples lie apart, in 19 of 20 cases: an A/A test. It draws two runs of as many
// samples as there are from them, again and again; the seed is fixed, so that the same files give the same verdict. With one sample, nothing is known.
func noise(v []float64) float64 {
	const draws = 400
	if len(v) < 3 {
		return math.NaN()
	}
	r := rand.New(rand.NewPCG(1, 2))
	half := func() float64 {
		s := make([]float64, len(v))
		for i := range s {
			s[i] = v[r.IntN(len(v))]
		}
		return median(s)
	}
	apart := make([]float64, draws)
	for i := range apart {
		apart[i] = math.Abs(half() - half())
	}
	slices.Sort(apart)
	return apart[draws*19/20] / math.Sqrt2 // of one of the two; the caller adds both
}

// WriteText writes what changed, and the verdict in the last line.
func (c Comparison) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	width := 10
	for _, r := range c.Rows {
		width = max(width, utf8.RuneCountInString(r.Name))
	}
	fmt.Fprintf(b, "%-*s %8s %8s %8s %8s  %s\n", width, "row, in percent of the limit", "old", "new", "change", "noise", "verdict")
	for _, r := range c.Rows {
		fmt.Fprintf(b, "%-*s %8s %8s %+8.1f %8s  %s\n", width, r.Name, percent(r.Old), percent(r.New), r.New-r.Old, percent(r.Noise), r.Verdict)
	}
	for _, name := range c.Added {
		fmt.Fprintf(b, "%s: only in the new result\n", name)
	}
	fmt.Fprintf(b, "\n%d rows, a threshold of %g points: %d slower, %d faster, %d the same, %d unclear\n", len(c.Rows), c.Threshold, c.Count(Slower), c.Count(Faster), c.Count(Same), c.Count(Unclear))
	return b.Flush()
}
