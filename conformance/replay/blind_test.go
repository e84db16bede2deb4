package replay_test

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

var blind = flag.Bool("blind", false, "measure what the accumulated verdict cannot see; takes minutes")

// TestBlindSpots runs the whole model with one bug in it, free of any other error, over every case of tiny-1.6, and prints how far its drift comes: at the worst node
// and at the logits, in units of the limit of each class. Below 1 the accumulated verdict cannot see the bug, whatever the case.
func TestBlindSpots(t *testing.T) {
	if !*blind {
		t.Skip("needs -blind: takes minutes")
	}
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	with := func(f func(float64) float64) func(in []shapes.Tensor, n shapes.Node) shapes.Tensor {
		return func(in []shapes.Tensor, n shapes.Node) shapes.Tensor {
			y := shapes.NewTensor(in[0].Shape...)
			for i, v := range in[0].Data {
				y.Data[i] = float32(f(float64(v)))
			}
			return y
		}
	}
	for _, bug := range []struct {
		name string
		kind shapes.Kind
		node string // a part of the name
		eps  float64
		f    func(in []shapes.Tensor, n shapes.Node) shapes.Tensor
	}{
		{name: "none", kind: "none"},
		{name: "QuickGELU in the projector", kind: shapes.GELU, f: with(quickGELU)},
		{name: "tanh GELU in the projector", kind: shapes.GELU, f: with(tanhGELU)},
		{name: "erf GELU in the tower", kind: shapes.QuickGELU, f: with(erfGELU)},
		{name: "RMSNorm eps 1e-6", kind: shapes.RMSNorm, eps: 1e-6},
		{name: "LayerNorm eps 1e-6", kind: shapes.LayerNorm, eps: 1e-6},
		{name: "float64 angles, cos", kind: shapes.RotaryCos},
		{name: "GELU for SiLU", kind: shapes.SiLU, f: with(erfGELU)},
		{name: "scores of the tower scaled twice", kind: shapes.Scores, node: "vision", f: func(in []shapes.Tensor, n shapes.Node) shapes.Tensor {
			y := ref.AttentionScores(in[0], in[1], n.Heads, n.KVHeads, n.Causal)
			for i := range y.Data {
				y.Data[i] /= 4
			}
			return y
		}},
	} {
		worst, logits := map[compare.Class]float64{}, map[compare.Class]float64{}
		for _, name := range set.Cases() {
			c, err := set.Case(name)
			if err != nil {
				t.Fatal(err)
			}
			e, err := replay.New(set.Config, w, c.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			values := map[string]shapes.Tensor{}
			for _, n := range shapes.Nodes(set.Config) {
				if !n.Present(shapes.DimsOf(set.Config, c.Inputs)) {
					continue
				}
				in := inputsOf(n, values)
				var y shapes.Tensor
				switch mine := n.Kind == bug.kind && strings.Contains(n.Name, bug.node); {
				case mine && bug.f != nil:
					y = bug.f(in, n)
				case mine && bug.kind == shapes.RotaryCos:
					y = shapes.NewTensor(len(c.Inputs.PositionIDs), set.Config.Text.HeadDim)
					for p, at := range c.Inputs.PositionIDs {
						for j := range y.Cols() {
							y.Row(p)[j] = float32(math.Cos(float64(at) * math.Pow(set.Config.Text.RopeTheta, -2*float64(j%(y.Cols()/2))/float64(y.Cols()))))
						}
					}
				default:
					if mine {
						n.Eps = bug.eps
					}
					if y, err = e.Eval(n, in); err != nil {
						t.Fatal(err)
					}
				}
				values[n.Name] = y
				truth, has := c.Node(n.Name)
				if !has {
					continue
				}
				for _, class := range compare.Classes() {
					in := driftInput(truth, y, class)
					d := compare.Accumulated(in)
					worst[class] = max(worst[class], d.Ratio)
					if n.Name == shapes.LMHead {
						logits[class] = max(logits[class], d.Ratio)
					}
				}
			}
		}
		text := fmt.Sprintf("| %s |", bug.name)
		for _, class := range compare.Classes() {
			text += fmt.Sprintf(" %s, %s |", magnitude(worst[class]), magnitude(logits[class]))
		}
		t.Log(text)
	}
}

// driftInput is a node's truth and the values of an engine with sixteen lanes.
func driftInput(truth *golden.NodeTruth, got shapes.Tensor, class compare.Class) compare.DriftInput {
	f := truth.Floors[golden.Class(class)]
	in := compare.DriftInput{
		Want: truth.Values, Got: golden.Gather(got, truth.Sample), PerRow: truth.Sample.PerRow(), RowRMS: truth.RowRMS, Massive: truth.Massive,
		Class: class, Lanes: 16, Floors: compare.Floors{Whole: f.Whole, WorstRow: f.WorstRow, Massive: f.Massive},
	}
	if !truth.Sample.Whole() {
		in.Columns = slices.Collect(func(yield func(int32) bool) {
			for _, column := range truth.Sample.All() {
				if !yield(int32(column)) {
					return
				}
			}
		})
	}
	return in
}

// TestLanes measures how much further float32 drifts with fewer lanes than 16, in the text model of tiny-1.6 and of wide: at the worst node, and at the logits.
func TestLanes(t *testing.T) {
	if !*blind {
		t.Skip("needs -blind: takes minutes")
	}
	for _, model := range []string{"tiny-1.6", "wide"} {
		c := config(t, model)
		w := checkpoint.Synthetic(c, 0)
		in := shapes.Inputs{}
		for i := range 8 {
			in.InputIDs, in.PositionIDs = append(in.InputIDs, 7*i+1), append(in.PositionIDs, i)
		}
		truth, _ := forward(t, c, w, in)
		kernels := rightKernels()
		floor := drifts(t, c, w, in, truth, kernels[5]) // 16 lanes
		for _, k := range kernels[:9] {
			worst := 0.0
			drift := drifts(t, c, w, in, truth, k)
			for name, d := range drift {
				if floor[name] > 2e-8 { // a rounding, not a sum that happens to be exact
					worst = max(worst, d/floor[name])
				}
			}
			t.Logf("| %s | %s | %.2g | %.2g |", model, k.name, worst, drift[shapes.LMHead]/floor[shapes.LMHead])
		}
	}
}

// drifts runs the whole model through a kernel and returns each node's error relative to the truth.
func drifts(t *testing.T, c shapes.Config, w shapes.Weights, in shapes.Inputs, truth map[string]shapes.Tensor, k kernel) map[string]float64 {
	params := map[string]shapes.Param{}
	for _, p := range shapes.Params(c) {
		params[p.Name] = p
	}
	made, drift := map[string]shapes.Tensor{}, map[string]float64{}
	for _, n := range shapes.Nodes(c) {
		if !n.Present(shapes.DimsOf(c, in)) {
			continue
		}
		s := &scenario{config: c, in: in, class: compare.F32, node: n, inputs: inputsOf(n, made)}
		for _, p := range n.Params {
			x := shapes.NewTensor(params[p].Shape...)
			if err := w.Read(p, 0, x.Data); err != nil {
				t.Fatal(err)
			}
			s.params = append(s.params, x)
		}
		if n.Kind == shapes.MergeEmbeddings {
			made[n.Name] = s.inputs[0]
		} else {
			made[n.Name] = emulate(s, k)
		}
		var error, values float64
		for i, v := range truth[n.Name].Data {
			if v := float64(v); !math.IsInf(v, 0) {
				d := float64(made[n.Name].Data[i]) - v
				error, values = error+d*d, values+v*v
			}
		}
		drift[n.Name] = math.Sqrt(error / values)
	}
	return drift
}
