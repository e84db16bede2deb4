package conformance

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// A Side is one of two engines' values of one prompt.
type Side interface {
	Info() Info
	Has(node string) bool
	Read(node string) (shapes.Tensor, error)
	Wrong(node string) string   // what is wrong with what it has of a node; empty if nothing is
	Missing(node string) string // why it has nothing of it
}

// Diff is two engines that are held against each other, without a truth.
type Diff struct {
	Config shapes.Config
	Inputs shapes.Inputs
	Set    string       // name of the model
	Case   string       // name of the prompt
	Truth  *golden.Case // for its noise floors, if the prompt is one of a golden set; otherwise nil
	A, B   Side
	Class  compare.Class // judge by this class instead of the coarser one of the two
}

// Run compares node after node, in the order of execution. B is what the result is about; A is what it is held against. A node that both have is
// judged by the coarser of its two classes, met on the way to it.
func (d Diff) Run(ctx context.Context) Run {
	a, b := d.A.Info(), d.B.Info()
	run := Run{Engine: b, Views: []View{Accumulated}, Class: coarser(a.Class, b.Class), Against: inShort(a)}
	if d.Class != "" {
		run.Class = d.Class
	}
	result := Case{Name: d.Case}
	all := shapes.Nodes(d.Config)
	_, met := classes(all, func(node string) compare.Class {
		if d.Class != "" {
			return d.Class
		}
		return coarser(ClassOf(a, node), ClassOf(b, node))
	})
	dims := shapes.DimsOf(d.Config, d.Inputs)
	depth := map[string]int{}
	var nodes []shapes.Node
	results := map[string]*Node{}
	same := 0
	for _, n := range all {
		depth[n.Name] = 1
		for _, in := range n.Inputs {
			depth[n.Name] = max(depth[n.Name], depth[in]+1)
		}
		if !n.Present(dims) {
			continue
		}
		if ctx.Err() != nil {
			result.Problems = append(result.Problems, Problem{Error, fmt.Sprintf("interrupted: %v", context.Cause(ctx))})
			break
		}
		r := &Node{Name: n.Name, Kind: n.Kind, Shape: n.Concrete(dims), Reach: n.Reach}
		nodes, results[n.Name] = append(nodes, n), r
		if d.node(n, r, depth[n.Name], met[n.Name], min(a.Lanes, b.Lanes)) {
			same++
		}
	}
	if same > 0 {
		result.Problems = append(result.Problems, Problem{Skip, fmt.Sprintf("%d nodes have the same bits", same)})
	}
	for _, stage := range Stages() {
		s := Stage{Name: stage}
		for _, n := range nodes {
			if StageOf(n.Name) == stage {
				s.Nodes = append(s.Nodes, *results[n.Name])
			}
		}
		if len(s.Nodes) > 0 {
			result.Stages = append(result.Stages, s)
		}
	}
	result.First = parts(nodes, results)
	run.Sets = []Set{{Name: d.Set, Total: 1, Cases: []Case{result}}}
	return run
}

// inShort names an engine.
func inShort(i Info) string {
	if i.Version == "" {
		return i.Name
	}
	return i.Name + " " + i.Version
}

// node compares one node, and says whether both have the same bits.
func (d Diff) node(n shapes.Node, r *Node, depth int, class compare.Class, lanes compare.Lanes) bool {
	hasA, hasB := d.A.Has(n.Name), d.B.Has(n.Name)
	for _, wrong := range []string{d.A.Wrong(n.Name), d.B.Wrong(n.Name)} {
		if wrong != "" {
			r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: wrong})
			return false
		}
	}
	switch {
	case !hasA && !hasB:
		r.Reason = "neither has it"
	case !hasA:
		r.Reason = "only the second has it"
	case !hasB:
		r.Reason = "only the first has it"
	}
	if r.Reason != "" {
		return false
	}
	a, err := d.A.Read(n.Name)
	if err != nil {
		r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: err.Error()})
		return false
	}
	b, err := d.B.Read(n.Name)
	if err != nil {
		r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: err.Error()})
		return false
	}
	if rows := min(a.Shape[0], b.Shape[0]); n.Name == shapes.LMHead { // either may have the last positions only
		a, b = lastRowsOf(a, rows), lastRowsOf(b, rows)
	}
	same := sameBits(a, b)
	j := judge{as: compare.Arithmetic{Class: class, Lanes: lanes}}
	in := compare.DriftInput{Want: visibleOnly(n, a), Got: b.Data, PerRow: a.Cols(), Lanes: lanes, Longest: longestSum(d.Config, len(d.Inputs.InputIDs))}
	as := func(class compare.Class) compare.Verdict {
		in := in
		in.Class = class
		if d.Truth != nil {
			if t, ok := d.Truth.Node(n.Name); ok {
				f := t.Floors[golden.Class(class)]
				in.Floors, in.Massive = compare.Floors{Whole: f.Whole, WorstRow: f.WorstRow, Massive: f.Massive}, t.Massive
			}
		}
		return compare.Difference(in, depth).Verdict
	}
	c := Check{View: Accumulated}
	j.decide(&c, class, as(class), func(class compare.Class) bool { return as(class).Pass })
	r.Checks = append(r.Checks, c)
	return same
}

func lastRowsOf(t shapes.Tensor, rows int) shapes.Tensor {
	return shapes.Tensor{Shape: []int{rows, t.Cols()}, Data: t.Data[len(t.Data)-rows*t.Cols():]}
}

// visibleOnly has -Inf in the places of scores that the causal mask hides, where an engine may have anything.
func visibleOnly(n shapes.Node, t shapes.Tensor) []float32 {
	if n.Kind != shapes.Scores || !n.Causal {
		return t.Data
	}
	out := slices.Clone(t.Data)
	queries, keys := t.Shape[1], t.Shape[2]
	for r := range t.Rows() {
		for k := r%queries + 1 + keys - queries; k < keys; k++ {
			out[r*keys+k] = float32(math.Inf(-1))
		}
	}
	return out
}

// parts is the first node at which two engines part: the first whose difference jumps beyond that of its inputs, or without one the first
// that differs by more than rounding.
func parts(nodes []shapes.Node, results map[string]*Node) *Divergence {
	drift := map[string]float64{}
	var first *Node
	for _, n := range nodes {
		r := results[n.Name]
		if c, ok := r.Check(Contract); ok && c.Result == Fail {
			return &Divergence{Node: n.Name, View: Contract, Explanation: c.Reason}
		}
		c, ok := r.Check(Accumulated)
		if !ok {
			continue
		}
		drift[n.Name] = c.Ratio
		if c.Result == Fail && first == nil {
			first = r
		}
	}
	if first == nil {
		return nil
	}
	if n, times, ok := firstJump(nodes, results, drift); ok {
		return &Divergence{Node: n, View: Accumulated, Explanation: fmt.Sprintf("the two part here: the difference is %.3g times that of what the node reads", times)}
	}
	return &Divergence{Node: first.Name, View: Accumulated, Explanation: "the difference grows smoothly, and here it is more than rounding: another precision, or a small difference before"}
}
