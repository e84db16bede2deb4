package golden

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// Limits of Verify.
const (
	maxWitnessDifference = 1e-11 // the witnesses' float64 sums differ by their order, which 24 + 32 layers make 1e-12 of; one float32 cast shows at 1e-7
	massiveFactor        = 6     // a column is massive if its rms is more than so many times the median column's
)

// Check is one thing that was looked at.
type Check struct {
	Name   string // "files", "provenance", "weights", "case NAME"
	Detail string // what was found, if it is good
	Skip   string // why it could not be looked at
	Err    error  // what is wrong
}

// Report is what Verify found.
type Report struct {
	Set    string
	Checks []Check
}

// Err joins what is wrong; nil if nothing is.
func (r Report) Err() error {
	var errs []error
	for _, c := range r.Checks {
		errs = append(errs, c.Err)
	}
	return errors.Join(errs...)
}

// Verify checks all that can be checked about a set without running the model: who made it and whether they agreed, that the weights are
// the ones it names (synthetic ones are made again: about a second for 10^8 of them; progress, if not nil, is told), every file of every
// case, and what the values of a case say about each other.
func Verify(s *Set, progress func(done, total int64)) Report {
	r := Report{Set: s.Name}
	var bytes int64
	for _, f := range s.Manifest.Files {
		bytes += f.Bytes
	}
	r.Checks = append(r.Checks,
		Check{Name: "files", Detail: fmt.Sprintf("%d files, %d bytes, as listed", len(s.Manifest.Files), bytes)}, // or Open had refused
		s.provenance(),
		s.weights(progress))
	for _, name := range s.Manifest.Cases {
		r.Checks = append(r.Checks, s.verifyCase(name))
	}
	return r
}

// provenance checks that the set says what made it, and that two independent witnesses agreed about it.
func (s *Set) provenance() Check {
	c := Check{Name: "provenance"}
	m := s.Manifest
	for _, key := range []string{"generator", "python", "numpy", "pillow"} {
		if m.Generator[key] == "" {
			c.Err = s.errorf(manifestFile, "generator: no version of %s", key)
			return c
		}
	}
	if len(m.Witnesses) < 2 {
		c.Err = s.errorf(manifestFile, "witnesses: %d, want at least 2", len(m.Witnesses))
		return c
	}
	var who []string
	worst := 0.0
	for i, w := range m.Witnesses {
		if w.MaxDifference >= maxWitnessDifference {
			c.Err = s.errorf(manifestFile, "witnesses[%d]: max_difference %.3g, want less than %g", i, w.MaxDifference, maxWitnessDifference)
			return c
		}
		worst = max(worst, w.MaxDifference)
		who = append(who, w.String())
	}
	slices.Sort(who)
	if len(slices.Compact(slices.Clone(who))) < 2 {
		c.Err = s.errorf(manifestFile, "witnesses: %d times %s, want two different ones", len(who), who[0])
		return c
	}
	c.Detail = fmt.Sprintf("%s agree to %.2g", strings.Join(who, ", "), worst)
	return c
}

// String names a witness by what it is made of.
func (w Witness) String() string {
	if name, other := strings.CutPrefix(w.Transformers, "none, but "); other { // a witness without transformers
		return name
	}
	return fmt.Sprintf("transformers %s with torch %s", w.Transformers, w.Torch)
}

// weights checks the fingerprint of synthetic weights by making them.
func (s *Set) weights(progress func(done, total int64)) Check {
	c := Check{Name: "weights"}
	w := s.Manifest.Weights
	if w.Kind != Synthetic {
		c.Skip = "a checkpoint's, which the set does not carry: compare " + w.SHA256 + " with the checkpoint's own digest"
		return c
	}
	have, err := checkpoint.Digest(s.Config, checkpoint.Synthetic(s.Config, *w.Seed), progress)
	switch {
	case err != nil:
		c.Err = s.errorf(manifestFile, "weights: %w", err)
	case have != w.SHA256:
		c.Err = s.errorf(manifestFile, "weights: synthetic ones of seed %d have sha256 %s, want %s", *w.Seed, have, w.SHA256)
	default:
		c.Detail = fmt.Sprintf("synthetic, seed %d, sha256 %s", *w.Seed, have)
	}
	return c
}

func (s *Set) verifyCase(name string) Check {
	c, err := s.Case(name)
	if err != nil {
		return Check{Name: "case " + name, Err: err}
	}
	return s.checkCase(c)
}

// checkCase holds what a case says about itself together.
func (s *Set) checkCase(c *Case) Check {
	check := Check{Name: "case " + c.Name}
	entries := 0
	for i := range c.Nodes {
		n := &c.Nodes[i]
		entries += len(n.Values)
		if err := n.consistent(); err != nil {
			check.Err = s.errorf(c.Name, "%s: %w", n.Name, err)
			return check
		}
	}
	if n, ok := c.Node(shapes.LMHead); ok {
		for j, v := range Gather(c.Logits, n.Sample) {
			if v != n.Values[j] {
				check.Err = s.errorf(c.Name+"/"+logitsFile, "%v where %s has %v (entry %d)", v, valuesFile, n.Values[j], j)
				return check
			}
		}
	}
	check.Detail = fmt.Sprintf("%d nodes, %d entries", len(c.Nodes), entries)
	return check
}

// consistent holds a node's values, row norms, massive columns and floors against each other.
func (n *NodeTruth) consistent() error {
	if len(n.Massive) == 0 {
		for _, class := range Classes() {
			if f := n.Floors[class]; f.Massive != 0 {
				return fmt.Errorf("%s: massive floor %v, want 0: no column is massive", class, f.Massive)
			}
		}
	} else if !channels(n.kind) {
		return fmt.Errorf("massive %v, want none: the last axis of a %s is no channel axis", n.Massive, n.kind)
	}
	if err := n.checkRowRMS(); err != nil {
		return err
	}
	if n.Sample.Whole() && channels(n.kind) {
		return n.checkMassive()
	}
	return nil
}

// channels says whether the columns of a kind are channels, so that one of them can be massive.
func channels(k shapes.Kind) bool {
	switch k {
	case shapes.PatchEmbedding, shapes.Scores, shapes.Softmax, shapes.RotaryCos, shapes.RotarySin:
		return false
	}
	return true
}

// checkRowRMS holds the rows' norms against the values: equal where a row is kept whole, and no kept value too large for its row elsewhere.
func (n *NodeTruth) checkRowRMS() error {
	const rounding = 1e-6 // of values and norms to float32: 2^-24 each
	sum := make([]float64, n.Sample.Rows())
	j := 0
	for row, c := range n.Sample.All() {
		i := j / n.Sample.PerRow()
		if w := n.Sample.Width(row); c < w {
			v, rms := float64(n.Values[j]), float64(n.RowRMS[i])
			if v*v > rms*rms*float64(w)*(1+rounding)+math.SmallestNonzeroFloat32 {
				return fmt.Errorf("row %d, column %d is %v, too large for a row of %d with an rms of %v", row, c, v, w, rms)
			}
			sum[i] += v * v
		}
		j++
	}
	if !n.Sample.Whole() {
		return nil
	}
	for i, have := range n.RowRMS {
		want := math.Sqrt(sum[i] / float64(n.Sample.Width(i)))
		if math.Abs(float64(have)-want) > rounding*want+math.SmallestNonzeroFloat32 {
			return fmt.Errorf("row %d has an rms of %v, want %v from its values", i, have, want)
		}
	}
	return nil
}

// checkMassive finds the massive columns of a node that is kept whole.
func (n *NodeTruth) checkMassive() error {
	cols := n.Shape[len(n.Shape)-1]
	rms := make([]float64, cols)
	for j, v := range n.Values {
		rms[j%cols] += float64(v) * float64(v)
	}
	for c := range rms {
		rms[c] = math.Sqrt(rms[c] / float64(n.Sample.Rows()))
	}
	sorted := slices.Sorted(slices.Values(rms))
	median := (sorted[(cols-1)/2] + sorted[cols/2]) / 2
	for c, v := range rms {
		if math.Abs(v-massiveFactor*median) < 1e-6*v {
			continue // on the edge: rounding decides
		}
		if _, listed := slices.BinarySearch(n.Massive, c); listed != (v > massiveFactor*median) {
			return fmt.Errorf("column %d has an rms of %.4g, the median one %.4g: massive %v, want %v", c, v, median, listed, !listed)
		}
	}
	return nil
}
