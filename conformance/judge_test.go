package conformance

import (
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// feed hands the truth of a prompt to a judge, node by node, and reports the largest number of tensors that it held.
// enginetest cannot be used here: it imports this package.
func feed(t *testing.T, j *judge, target Target, in shapes.Inputs, after func(node string)) {
	t.Helper()
	e, err := replay.New(target.Set.Config, target.Weights, in)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]shapes.Tensor{}
	for _, n := range j.nodes {
		inputs := make([]shapes.Tensor, len(n.Inputs))
		for i, name := range n.Inputs {
			inputs[i] = values[name]
		}
		if values[n.Name], err = e.Eval(n, inputs); err != nil {
			t.Fatal(err)
		}
		j.probe(n.Name, values[n.Name])
		after(n.Name)
	}
	j.returned(values[shapes.LMHead])
	j.judgeDerived()
}

func TestTensorsAreLetGo(t *testing.T) {
	set, err := golden.Embedded("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	target, release, err := OpenTarget(set, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := set.Case("text")
	if err != nil {
		t.Fatal(err)
	}
	j, err := newJudge(target, c, Suite{}, Info{Arithmetic: compare.Arithmetic{Class: compare.F32}})
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	feed(t, j, target, c.Inputs, func(string) { most = max(most, len(j.held)) })
	// The rotary tables, the residual stream, and the widest part of an attention: q, k, v and their rotated selves.
	if most > 10 {
		t.Errorf("%d tensors held at once, want at most 10 of %d", most, len(j.nodes))
	}
	if len(j.held) != 0 {
		t.Errorf("%d tensors held at the end, want none", len(j.held))
	}
	if r := j.result(); r.Status() != Pass {
		t.Errorf("%v %+v %+v", r.Status(), r.First, r.Problems)
	}
}
