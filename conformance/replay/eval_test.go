package replay_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func config(t testing.TB, name string) shapes.Config {
	t.Helper()
	c, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// prompt is text, the rows of one image for each size, text.
func prompt(t testing.TB, c shapes.Config, sizes ...shapes.Size) shapes.Inputs {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(len(sizes))))
	in := shapes.Inputs{ImageSizes: sizes, InputIDs: []int{1, 7, 3}}
	tiles := 0
	for _, s := range sizes {
		rows := c.FeaturesPerTile()
		tiles++
		if c.ModelType == shapes.LlavaNext {
			grid := ref.TileGrid(c, s).Area()
			packed, err := ref.PackImageFeatures(c, shapes.NewTensor(1+grid, rows, 1), shapes.NewTensor(1), []shapes.Size{s})
			if err != nil {
				t.Fatal(err)
			}
			rows = packed.Rows()
			tiles += grid
		}
		in.InputIDs = append(in.InputIDs, slices.Repeat([]int{c.ImageTokenID}, rows)...)
		in.InputIDs = append(in.InputIDs, 11, 7)
	}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i+3000*(i/8)) // some of them far out
	}
	if tiles > 0 {
		in.PixelValues = shapes.NewTensor(tiles, 3, c.Vision.ImageSize, c.Vision.ImageSize)
		for i := range in.PixelValues.Data {
			in.PixelValues.Data[i] = float32(r.IntN(4096)-2048) / 1024
		}
	}
	return in
}

// forward is every node that ref shows, and how often.
func forward(t testing.TB, c shapes.Config, w shapes.Weights, in shapes.Inputs) (map[string]shapes.Tensor, map[string]int) {
	t.Helper()
	values, count := map[string]shapes.Tensor{}, map[string]int{}
	if _, err := ref.New(c, w).Forward(in, func(name string, v shapes.Tensor) {
		values[name] = shapes.Tensor{Shape: slices.Clone(v.Shape), Data: slices.Clone(v.Data)}
		count[name]++
	}); err != nil {
		t.Fatal(err)
	}
	return values, count
}

// inputsOf are the values of a node's inputs; zero tensors for what is not a node of this prompt.
func inputsOf(n shapes.Node, values map[string]shapes.Tensor) []shapes.Tensor {
	var in []shapes.Tensor
	for _, name := range n.Inputs {
		in = append(in, values[name])
	}
	return in
}

// TestNodesAreForward holds the table of nodes against ref's Forward: the same bits at every node, and each node shown once.
func TestNodesAreForward(t *testing.T) {
	for _, model := range []string{"tiny-1.6", "tiny-1.5"} {
		for _, sizes := range [][]shapes.Size{nil, {{H: 90, W: 60}}} {
			t.Run(fmt.Sprintf("%s with %d images", model, len(sizes)), func(t *testing.T) {
				c := config(t, model)
				w := checkpoint.Synthetic(c, 0)
				in := prompt(t, c, sizes...)
				values, count := forward(t, c, w, in)
				e, err := replay.New(c, w, in)
				if err != nil {
					t.Fatal(err)
				}
				dims := shapes.DimsOf(c, in)
				present := 0
				for _, n := range shapes.Nodes(c) {
					if !n.Present(dims) {
						continue
					}
					present++
					want, seen := values[n.Name]
					if !seen || count[n.Name] != 1 {
						t.Fatalf("%s: ref showed it %d times, want once", n.Name, count[n.Name])
					}
					got, err := e.Eval(n, inputsOf(n, values))
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got.Shape, want.Shape) {
						t.Fatalf("%s: shape %v, want %v", n.Name, got.Shape, want.Shape)
					}
					for i := range want.Data {
						if math.Float32bits(got.Data[i]) != math.Float32bits(want.Data[i]) {
							t.Fatalf("%s: entry %d of %v: %v, ref has %v", n.Name, i, want.Shape, got.Data[i], want.Data[i])
						}
					}
				}
				if present != len(values) {
					t.Errorf("ref showed %d nodes, the table has %d", len(values), present)
				}
			})
		}
	}
}

// TestRefPasses: every node of ref passes its own budget, in any class that is finer than or equal to float32's.
func TestRefPasses(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 90, W: 60})
	values, _ := forward(t, c, w, in)
	e, err := replay.New(c, w, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range shapes.Nodes(c) {
		b, err := e.Budget(n, inputsOf(n, values), values[n.Name], compare.Arithmetic{Class: compare.F32})
		if err != nil {
			t.Fatal(err)
		}
		if r := compare.Local(b, n, values[n.Name]); !r.Pass || r.Ratio > 0 {
			t.Errorf("%s: %v", n.Name, r)
		}
	}
}
