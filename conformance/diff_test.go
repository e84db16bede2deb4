package conformance_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// side is what an engine shows, in memory.
type side struct {
	info   conformance.Info
	values map[string]shapes.Tensor
}

func (s side) Info() conformance.Info                  { return s.info }
func (s side) Has(node string) bool                    { return s.values[node].Shape != nil }
func (s side) Read(node string) (shapes.Tensor, error) { return s.values[node], nil }
func (s side) Wrong(string) string                     { return "" }
func (s side) Missing(string) string                   { return "" }
func (s side) with(node string, t shapes.Tensor) side {
	out := side{s.info, map[string]shapes.Tensor{}}
	for name, v := range s.values {
		out.values[name] = v
	}
	out.values[node] = t
	return out
}

func show(t *testing.T, g enginetest.Graph, name string) (side, shapes.Inputs) {
	t.Helper()
	target := enginetest.Target()
	c, err := target.Set.Case("image")
	if err != nil {
		t.Fatal(err)
	}
	e, err := g.Opener()(target.Set.Config, target.Weights)
	if err != nil {
		t.Fatal(err)
	}
	s := side{e.Info(), map[string]shapes.Tensor{}}
	s.info.Name = name
	if s.info.Lanes == 0 {
		s.info.Lanes = 16
	}
	if _, err := e.Forward(c.Inputs, func(node string, v shapes.Tensor) { s.values[node] = v }); err != nil {
		t.Fatal(err)
	}
	return s, c.Inputs
}

func diffed(t *testing.T, a, b side, in shapes.Inputs) (conformance.Run, string) {
	t.Helper()
	run := conformance.Diff{Config: enginetest.Config(), Inputs: in, Set: "mini", Case: "image", A: a, B: b}.Run(context.Background())
	var text bytes.Buffer
	if err := report.Text(&text, run, false); err != nil {
		t.Fatal(err)
	}
	return run, text.String()
}

// Two engines that differ by a bug part at the node of the bug, whatever the rest of their graphs makes of it, and whichever comes first.
func TestTwoEnginesPartWhereTheyDiffer(t *testing.T) {
	a, in := show(t, enginetest.Graph{}, "a")
	for _, bug := range []struct {
		name, node string
		graph      enginetest.Graph
	}{
		{"QuickGELU in the projector", "multi_modal_projector.act", enginetest.Graph{Swap: func(n shapes.Node) shapes.Node {
			if n.Kind == shapes.GELU {
				n.Kind = shapes.QuickGELU
			}
			return n
		}}},
		{"another eps", "language_model.model.layers.0.input_layernorm", enginetest.Graph{Swap: func(n shapes.Node) shapes.Node {
			if n.Kind == shapes.RMSNorm {
				n.Eps = 1e-3
			}
			return n
		}}},
		{"another scale of the scores", "language_model.model.layers.1.self_attn.probs", enginetest.Graph{Inputs: func(n shapes.Node, in []shapes.Tensor, _ func(string) shapes.Tensor) []shapes.Tensor {
			if n.Name != "language_model.model.layers.1.self_attn.probs" {
				return in
			}
			half := shapes.Tensor{Shape: in[0].Shape}
			for _, v := range in[0].Data {
				half.Data = append(half.Data, v/2)
			}
			return []shapes.Tensor{half}
		}}},
	} {
		t.Run(bug.name, func(t *testing.T) {
			b, _ := show(t, bug.graph, "b")
			for _, pair := range [][2]side{{a, b}, {b, a}} {
				run, text := diffed(t, pair[0], pair[1], in)
				c := run.Sets[0].Cases[0]
				if run.Status() != conformance.Fail || c.First == nil || c.First.Node != bug.node {
					t.Errorf("%v, want fail at %s:\n%s", run.Status(), bug.node, text)
				}
			}
		})
	}
}

func TestRoundingIsNoDifference(t *testing.T) {
	a, in := show(t, enginetest.Graph{}, "a")
	for _, class := range compare.Classes() {
		declared := conformance.Info{Name: "b", Arithmetic: compare.Arithmetic{Class: class, Lanes: 16}}
		b, _ := show(t, enginetest.Graph{Change: enginetest.Rounded(class), Declares: declared}, "b")
		for _, pair := range [][2]side{{a, b}, {b, a}} {
			if run, text := diffed(t, pair[0], pair[1], in); run.Status() != conformance.Pass || run.Class != class {
				t.Errorf("%s: %v as %s, want pass:\n%s", class, run.Status(), run.Class, text)
			}
		}
		if class != compare.F32 {
			b.info.Class = compare.F32
			if run, text := diffed(t, a, b, in); run.Status() != conformance.Fail {
				t.Errorf("%s declared as f32: %v, want fail:\n%s", class, run.Status(), text)
			}
		}
	}
}

func TestWhatADiffSaysOfOneNode(t *testing.T) {
	const node = "language_model.model.layers.0.self_attn.scores"
	a, in := show(t, enginetest.Graph{}, "a")
	v := a.values[node]
	changed := func(change func(t shapes.Tensor)) shapes.Tensor {
		c := shapes.Tensor{Shape: v.Shape, Data: append([]float32{}, v.Data...)}
		change(c)
		return c
	}
	width := v.Cols()
	for _, c := range []struct {
		name   string
		value  shapes.Tensor
		status conformance.Status
		want   string
	}{
		{"behind the causal mask", changed(func(t shapes.Tensor) { t.Data[1] = 17 }), conformance.Pass, "93 nodes have the same bits"},
		{"before the causal mask", changed(func(t shapes.Tensor) { t.Data[width] += 17 }), conformance.Fail, "the two part here"},
		{"NaN", changed(func(t shapes.Tensor) { t.Data[width] = float32(math.NaN()) }), conformance.Fail, "first diverging node: " + node},
		{"missing in the second", shapes.Tensor{}, conformance.Pass, "skipped, only the first has it: " + node},
	} {
		run, text := diffed(t, a, a.with(node, c.value), in)
		if run.Status() != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %v, want %v with %q:\n%s", c.name, run.Status(), c.status, c.want, text)
		}
	}
	hidden := changed(func(t shapes.Tensor) { t.Data[1] = 17 })
	if run, text := diffed(t, a.with(node, hidden), a, in); run.Status() != conformance.Pass {
		t.Errorf("behind the causal mask of the first: %v, want pass:\n%s", run.Status(), text)
	}
	if run, text := diffed(t, side{info: a.info}, a, in); run.Status() != conformance.Error {
		t.Errorf("nothing to compare: %v, want error:\n%s", run.Status(), text)
	}
}

// The noise floors of all golden sets are below the law that stands in where there is none, and at some node of each class more than half of it.
func TestGrowthIsThatOfTheGoldenSets(t *testing.T) {
	for _, class := range compare.Classes() {
		most, at := 0.0, ""
		for _, name := range golden.Names() {
			set, err := golden.Embedded(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, prompt := range set.Cases() {
				c, err := set.Case(prompt)
				if err != nil {
					t.Fatal(err)
				}
				depth := map[string]int{}
				for _, n := range shapes.Nodes(set.Config) {
					depth[n.Name] = 1
					for _, in := range n.Inputs {
						depth[n.Name] = max(depth[n.Name], depth[in]+1)
					}
					truth, ok := c.Node(n.Name)
					if !ok {
						continue
					}
					r := truth.Floors[golden.Class(class)].Whole / compare.FloorOfDepth(class, depth[n.Name])
					if r > 1 {
						t.Errorf("%s: %s/%s: %s: %.3g times the law", class, name, prompt, n.Name, r)
					}
					if r > most {
						most, at = r, fmt.Sprintf("%s/%s: %s", name, prompt, n.Name)
					}
				}
			}
		}
		t.Logf("%s: at most %.2f of the law, at %s", class, most, at)
		if most < 0.5 {
			t.Errorf("%s: at most %.2f of the law, want more than half", class, most)
		}
	}
}
