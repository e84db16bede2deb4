package diagnose_test

import (
	"math"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// A bug that changes how many rows each of several images has runs on a prompt with as many tokens at each image.
func TestSeveralImagesHaveTheRowsThatABugGivesThem(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	truth, err := set.Case("two-images")
	if err != nil {
		t.Fatal(err)
	}
	c, w := set.Config, checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	newline := make([]float32, c.Text.HiddenSize)
	if err := w.Read(shapes.ImageNewline, 0, newline); err != nil {
		t.Fatal(err)
	}
	var keep []bool // by packed row: whether it is no newline
	right := enginetest.Graph{Config: c, Weights: w}
	if _, err := right.Forward(truth.Inputs, func(name string, y shapes.Tensor) {
		if name == shapes.NodePack {
			for r := range y.Rows() {
				keep = append(keep, !slices.Equal(y.Row(r), newline))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	in := truth.Inputs
	in.InputIDs = nil
	row := 0
	for _, id := range truth.Inputs.InputIDs {
		if id == c.ImageTokenID {
			row++
			if !keep[row-1] {
				continue
			}
		}
		in.InputIDs = append(in.InputIDs, id)
	}
	in.PositionIDs = in.PositionIDs[:len(in.InputIDs)]
	if len(in.InputIDs) > len(truth.Inputs.InputIDs)-4 {
		t.Fatalf("%d tokens without newlines of %d", len(in.InputIDs), len(truth.Inputs.InputIDs))
	}
	want, err := enginetest.WithRows(c, w, truth.Inputs, in, func(y shapes.Tensor) shapes.Tensor {
		z := shapes.Tensor{Shape: []int{0, y.Cols()}}
		for r := range y.Rows() {
			if keep[r] {
				z.Data = append(z.Data, y.Row(r)...)
				z.Shape[0]++
			}
		}
		return z
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := diagnose.NewModel(c, w, truth.Inputs, compare.F32)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range diagnose.Catalogue() {
		if b.Key() != "K01" {
			continue
		}
		got, err := m.Logits(b)
		if err != nil || !slices.Equal(got.Shape, want.Shape) {
			t.Fatalf("%v, logits %v, want %v", err, got.Shape, want.Shape)
		}
		for i, v := range want.Data {
			if math.Abs(float64(v-got.Data[i])) > 1e-5 {
				t.Fatalf("logit %d is %v, want %v", i, got.Data[i], v)
			}
		}
		return
	}
	t.Error("K01 was not tried")
}
