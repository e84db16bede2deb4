package compare

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

func TestMapsShowWhereTheDifferenceIs(t *testing.T) {
	scores := shapes.Node{Kind: shapes.Scores, Heads: 4, KVHeads: 4, Shape: []shapes.Dim{{Letter: "H"}, {Letter: "T"}, {Letter: "L"}}}
	vector := shapes.Node{Kind: shapes.Linear, Shape: []shapes.Dim{{Letter: "C"}}}
	for _, test := range []struct {
		name  string
		node  shapes.Node
		shape []int
		spoil []int    // index of the one entry that is off
		want  []string // rows x columns and cells of each map, and its one hot cell
	}{
		{"context", context, []int{6, 32}, []int{4, 17}, []string{"T 6/6 x H*Dh 32/32 at 4,17", "T 6/6 x H 4/4 at 4,2"}},
		{"scores", scores, []int{4, 50, 200}, []int{3, 49, 120}, []string{"T 50/40 x L 200/64 at 39,38", "H 4/4 x T 50/50 at 3,49"}},
		{"vector", vector, []int{9}, []int{8}, []string{" 1/1 x C 9/9 at 0,8"}},
		{"very wide", context, []int{1, 4096}, []int{0, 4095}, []string{"T 1/1 x H*Dh 4096/64 at 0,63", "T 1/1 x H 4/4 at 0,3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, y := made(test.node, test.shape...)
			at := 0
			for a, n := range test.shape {
				at = at*n + test.spoil[a]
			}
			y.Data[at] += 1
			var got []string
			for _, m := range TakeCensus(b, test.node, y, 1).Maps {
				if len(m.Excess) != m.Rows.Cells*m.Cols.Cells {
					t.Fatalf("%d values in a map of %d x %d cells", len(m.Excess), m.Rows.Cells, m.Cols.Cells)
				}
				hot := slices.Index(m.Excess, slices.Max(m.Excess))
				got = append(got, fmt.Sprintf("%s %d/%d x %s %d/%d at %d,%d", m.Rows.Letter, m.Rows.Length, m.Rows.Cells, m.Cols.Letter, m.Cols.Length, m.Cols.Cells, hot/m.Cols.Cells, hot%m.Cols.Cells))
				for i, x := range m.Excess {
					if i != hot && x != 0 {
						t.Errorf("cell %d of %v x %v has %v, and only one entry is off", i, m.Rows, m.Cols, x)
					}
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestACellsFirstIndexIsTheFirstThatFallsIntoIt(t *testing.T) {
	for _, s := range []Span{{"T", 50, 40}, {"T", 40, 40}, {"T", 200, 64}, {"T", 1, 1}, {"T", 577, 40}} {
		for cell := range s.Cells {
			first := s.First(cell)
			if first*s.Cells/s.Length != cell || first > 0 && (first-1)*s.Cells/s.Length == cell {
				t.Errorf("%v: cell %d begins at %d", s, cell, first)
			}
		}
		if s.First(s.Cells) != s.Length {
			t.Errorf("%v ends at %d", s, s.First(s.Cells))
		}
	}
}

func TestAMapOfWhatIsNoNumberIsFinite(t *testing.T) {
	b, y := made(context, 6, 32)
	y.Data[40] = float32(math.NaN())
	if hot := slices.Max(TakeCensus(b, context, y, 1).Maps[0].Excess); hot != math.MaxFloat32 {
		t.Errorf("%v, want the largest float32", hot)
	}
}
