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

// An array that has not the node's shape fails, and what it holds still tells the cause: here only the whole picture was packed, without its tiles.
func TestAnArrayOfAnotherShapeTellsItsCause(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.Case("photo-1x3")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	dir := filepath.Join(t.TempDir(), "photo-1x3")
	out, err := dump.Create(dir, conformance.Info{Name: "packs one tile", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 1}}, c.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	var first shapes.Tensor // the projector's rows of the first tile
	_, err = ref.New(set.Config, w).Forward(c.Inputs, func(node string, x shapes.Tensor) {
		if node == shapes.Projector+".linear_2" {
			rows, width := x.Shape[1], x.Shape[2]
			first = shapes.Tensor{Shape: []int{rows, width}, Data: slices.Clone(x.Data[:rows*width])}
		}
		if node == shapes.NodePack { // the rows of the whole picture alone
			x = first
		}
		out.Probe(node, x)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: "photo-1x3", Diagnose: diagnose.Diagnose}
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
			if !ok || check.Result != conformance.Fail || !slices.ContainsFunc(check.Causes, func(c conformance.Cause) bool { return c.ID == "K07" }) {
				t.Errorf("%+v, want a failure of the contract that comes from K07", n.Checks)
			}
		}
	}
}
