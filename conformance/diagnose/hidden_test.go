package diagnose_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// A bug in a node that the engine does not show is named at the first node behind it that is shown.
func TestABugInAHiddenNodeIsNamed(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	v := set.Config.Vision
	param := func(name string, values int) []float32 {
		x := make([]float32, values)
		if err := w.Read(name, 0, x); err != nil {
			t.Fatal(err)
		}
		return x
	}
	embeddings, layer := shapes.VisionTower+".embeddings", shapes.VisionLayer(0)
	class, positions := param(embeddings+".class_embedding", v.HiddenSize), param(embeddings+".position_embedding.weight", v.Positions()*v.HiddenSize)
	for name, c := range map[string]struct {
		hidden func(n shapes.Node) bool
		change func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor
		shown  string // the node that fails
		id     string
	}{
		"class token last": {
			func(n shapes.Node) bool { return n.Name == embeddings },
			func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
				if n.Name != embeddings {
					return y
				}
				patches := v.Positions() - 1
				for tile := range y.Shape[0] {
					for s := range v.Positions() {
						for d := range v.HiddenSize {
							x := class[d]
							if s < patches {
								x = in[0].Data[(tile*v.HiddenSize+d)*patches+s]
							}
							y.Data[(tile*v.Positions()+s)*v.HiddenSize+d] = x + positions[s*v.HiddenSize+d]
						}
					}
				}
				return y
			},
			shapes.VisionTower + ".pre_layrnorm", "V04",
		},
		"scores divided by the root of the whole width, in a fused attention": {
			func(n shapes.Node) bool { return n.Kind == shapes.Scores || n.Kind == shapes.Softmax },
			func(n shapes.Node, _ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
				if n.Kind == shapes.Scores && !n.Causal {
					for i := range y.Data {
						y.Data[i] = float32(float64(y.Data[i]) / math.Sqrt(float64(v.NumAttentionHeads)))
					}
				}
				return y
			},
			layer + ".self_attn.context", "V12",
		},
		"each angle made out of the one before, in tables that are not shown": {
			func(n shapes.Node) bool { return n.Kind == shapes.RotaryCos || n.Kind == shapes.RotarySin },
			func(n shapes.Node, _ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
				f := map[shapes.Kind]func(float64) float64{shapes.RotaryCos: math.Cos, shapes.RotarySin: math.Sin}[n.Kind]
				if f == nil {
					return y
				}
				step := float32(math.Pow(set.Config.Text.RopeTheta, -2/float64(set.Config.Text.HeadDim)))
				for p := range y.Rows() { // the prompt's positions are 0, 1, 2, ...
					angle := float32(p)
					for i := range y.Cols() / 2 {
						y.Row(p)[i], y.Row(p)[i+y.Cols()/2] = float32(f(float64(angle))), float32(f(float64(angle)))
						angle *= step
					}
				}
				return y
			},
			shapes.TextLayer(0) + ".self_attn.rope_q", "L37",
		},
	} {
		t.Run(name, func(t *testing.T) {
			suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: "photo-1x2-portrait", Diagnose: diagnose.Diagnose}
			g := enginetest.Graph{Change: c.change, Show: enginetest.Only(func(n shapes.Node) bool { return !c.hidden(n) })}
			g.Declares.Arithmetic = compare.Arithmetic{Class: compare.F32, Lanes: 1}
			result := suite.Run(context.Background(), g.Opener()).Sets[0].Cases[0]
			if result.First == nil || result.First.Node != c.shown {
				t.Fatalf("first %+v, want %s", result.First, c.shown)
			}
			for _, stage := range result.Stages {
				for _, n := range stage.Nodes {
					if n.Name != c.shown {
						continue
					}
					check, _ := n.Check(conformance.Local)
					for _, cause := range check.Causes {
						if cause.ID == c.id && strings.Contains(cause.Text, "does not show") {
							return
						}
					}
					t.Errorf("%s is said to come from %+v, want %s", n.Name, check.Causes, c.id)
				}
			}
		})
	}
}
