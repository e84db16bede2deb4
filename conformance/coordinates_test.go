package conformance_test

import (
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/shapes"
)

// Where a node is wrong is said in the words of the model: which tiles, heads, newlines. The image of the small set has a whole image of 16 rows, and
// 4 rows of 8 cells and a newline.
func TestWhereANodeIsWrongIsSaid(t *testing.T) {
	q := shapes.TextModel + ".layers.0.self_attn.q_proj"
	vq, vscores := shapes.VisionTower+".encoder.layers.0.self_attn.q_proj", shapes.VisionTower+".encoder.layers.0.self_attn.scores"
	scores := shapes.TextModel + ".layers.0.self_attn.scores"
	alone := func(name string) func(shapes.Node, shapes.Tensor, shapes.Probe) {
		return enginetest.Only(func(n shapes.Node) bool { return n.Name == name })
	}
	for _, c := range []struct {
		name, node string
		bad        func(at []int) bool
		show       func(shapes.Node, shapes.Tensor, shapes.Probe)
		want       string
	}{
		{"newlines", shapes.NodePack, func(at []int) bool { return at[0] >= 16 && (at[0]-16)%9 == 8 }, nil, "newline rows"},
		{"rows of tiles", shapes.NodePack, func(at []int) bool { return at[0] >= 16 && (at[0]-16)%9 != 8 }, nil, "rows of tiles"},
		{"newlines in the prompt", shapes.NodeMerge, nil, nil, "newline rows"},
		{"two heads", q, func(at []int) bool { return at[1] >= 32 }, nil, "heads from 2 on"},
		{"the second half of every head", q, func(at []int) bool { return at[1]%16 >= 8 }, nil, "channels of their heads from 8 on"},
		{"one tile", vq, func(at []int) bool { return at[0] == 1 }, nil, "tile 1"},
		{"the class token", vq, func(at []int) bool { return at[1] == 0 }, nil, "position 0"},
		{"all but the class token", vq, func(at []int) bool { return at[1] > 0 }, nil, "all but position 0"},
		{"a head of the tower", vscores, func(at []int) bool { return at[1] == 1 }, nil, "head 1"},
		{"keys far back", scores, func(at []int) bool { return at[1]-at[2] > 20 && at[1] >= at[2] }, nil, "places back from the query from 21 on"},
		{"rows from a place on, of a node that is shown alone", q, func(at []int) bool { return at[0] >= 40 }, alone(q), "rows from 40 on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := c.bad
			if bad == nil {
				target := enginetest.Target()
				truth, err := target.Set.Case("image")
				if err != nil {
					t.Fatal(err)
				}
				rows, newline := 0, map[int]bool{}
				for at, id := range truth.Inputs.InputIDs {
					if id == target.Set.Config.ImageTokenID {
						newline[at] = rows >= 16 && (rows-16)%9 == 8
						rows++
					}
				}
				bad = func(at []int) bool { return newline[at[0]] }
			}
			g := enginetest.Graph{Show: c.show, Change: at(c.node, func(_ []shapes.Tensor, y shapes.Tensor) {
				index := make([]int, len(y.Shape))
				for i := range y.Data {
					for a, k := len(index)-1, i; a >= 0; a-- {
						index[a] = k % y.Shape[a]
						k /= y.Shape[a]
					}
					if bad(index) {
						y.Data[i] += 0.5
					}
				}
			}), Declares: conformance.Info{Name: "graph", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 16}}}
			r := run(t, g, conformance.Suite{Cases: "image"})
			for _, stage := range r.Sets[0].Cases[0].Stages {
				for _, n := range stage.Nodes {
					if n.Name != c.node {
						continue
					}
					for _, k := range n.Checks {
						if k.Result == conformance.Fail && (k.View == conformance.Local || c.show != nil) {
							if k.Where == nil || k.Where.Text != c.want || k.Where.Bad*20 < k.Where.AllBad*19 {
								t.Errorf("%s: %+v, want %q", k.View, k.Where, c.want)
							}
							return
						}
					}
					t.Errorf("%s does not fail: %+v", n.Name, n.Checks)
				}
			}
		})
	}
}
