package engines_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// An array that has not the node's shape fails, and what it holds still tells the cause, even where it has four times as many rows.
func TestAnArrayOfAnotherShapeTellsItsCause(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	newline := make([]float32, set.Config.Text.HiddenSize)
	if err := w.Read(shapes.ImageNewline, 0, newline); err != nil {
		t.Fatal(err)
	}
	// The rows of the whole picture alone.
	one := func(tiles shapes.Tensor) []float32 { return slices.Clone(tiles.Data[:tiles.Shape[1]*tiles.Shape[2]]) }
	// All rows of a grid of tiles side by side: 68 for the 16 that are left of the strip.
	all := func(tiles shapes.Tensor) []float32 {
		side, out := set.Config.Vision.PatchesPerSide(), one(tiles)
		for y := range side {
			for x := range (tiles.Shape[0] - 1) * side {
				out = append(out, tiles.Row(((1+x/side)*side+y)*side+x%side)...)
			}
			out = append(out, newline...)
		}
		return out
	}
	for _, test := range []struct {
		name, prompt, id string
		pack             func(tiles shapes.Tensor) []float32
	}{
		{"packs one tile", "photo-1x3", "K07", one},
		{"does not unpad", "strip-no-rows", "K10", all},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := set.Case(test.prompt)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), test.prompt)
			out, err := dump.Create(dir, conformance.Info{Name: test.name, Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 1}}, c.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			var packed shapes.Tensor
			_, err = ref.New(set.Config, w).Forward(c.Inputs, func(node string, x shapes.Tensor) {
				if node == shapes.Projector+".linear_2" {
					data := test.pack(x)
					packed = shapes.Tensor{Shape: []int{len(data) / x.Shape[2], x.Shape[2]}, Data: data}
				}
				if node == shapes.NodePack {
					x = packed
				}
				out.Probe(node, x)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: test.prompt, Diagnose: diagnose.Diagnose}
			result := suite.Run(context.Background(), engines.OpenDir(dir)).Sets[0].Cases[0]
			if result.First == nil || result.First.Node != shapes.NodePack {
				t.Fatalf("first %+v, want %s", result.First, shapes.NodePack)
			}
			for _, stage := range result.Stages {
				for _, n := range stage.Nodes {
					if n.Name != shapes.NodePack {
						continue
					}
					check, ok := n.Check(conformance.Contract)
					if !ok || check.Result != conformance.Fail || !slices.ContainsFunc(check.Causes, func(c conformance.Cause) bool { return c.ID == test.id }) {
						t.Errorf("%+v, want a failure of the contract that comes from %s", n.Checks, test.id)
					}
				}
			}
		})
	}
}
