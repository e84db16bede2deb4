package conformance

import (
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// truthOf is a prompt's truth with the limits by which an engine is judged. It is a Truth.
type truthOf struct {
	truth   *golden.Case
	met     map[string]compare.Class
	lanes   compare.Lanes
	longest int
}

// Shape is that of a node.
func (t truthOf) Shape(node string) []int {
	n, ok := t.truth.Node(node)
	if !ok {
		return nil
	}
	return n.Shape
}

// limits are those of a node's drift.
func (t truthOf) limits(n *golden.NodeTruth) compare.DriftInput {
	class := t.met[n.Name]
	f := n.Floors[golden.Class(class)]
	return compare.DriftInput{Massive: n.Massive, Class: class, Lanes: t.lanes, Longest: t.longest, Floors: compare.Floors{Whole: f.Whole, WorstRow: f.WorstRow, Massive: f.Massive}}
}

// Against holds rows of a tensor against the truth of a node.
func (t truthOf) Against(node string, got shapes.Tensor, from func(row int) int) (ratio float64, rows int, ok bool) {
	n, known := t.truth.Node(node)
	if !known || len(got.Shape) == 0 || len(got.Data) == 0 || got.Cols() != n.Shape[len(n.Shape)-1] {
		return 0, 0, false
	}
	in, each := t.limits(n), n.Sample.PerRow()
	in.PerRow = each
	for i := range n.Sample.Rows() {
		r := from(n.Sample.Row(i))
		if r < 0 || (r+1)*got.Cols() > len(got.Data) {
			continue
		}
		rows++
		in.RowRMS = append(in.RowRMS, n.RowRMS[i])
		in.Want = append(in.Want, n.Values[i*each:(i+1)*each]...)
		for j := i * each; j < (i+1)*each; j++ {
			column := n.Sample.Column(j)
			in.Got, in.Columns = append(in.Got, got.Row(r)[column]), append(in.Columns, int32(column))
		}
	}
	if rows == 0 {
		return 0, 0, false
	}
	return compare.Accumulated(in).Ratio, rows, true
}

// Near holds a tensor against another value of a node.
func (t truthOf) Near(node string, want, got shapes.Tensor) (ratio float64, ok bool) {
	n, known := t.truth.Node(node)
	if !known || !slices.Equal(want.Shape, got.Shape) || len(want.Data) != len(got.Data) || len(got.Data) == 0 || got.Cols() != n.Shape[len(n.Shape)-1] {
		return 0, false
	}
	in := t.limits(n)
	in.Want, in.Got, in.PerRow, in.RowRMS = want.Data, got.Data, want.Cols(), compare.RowRMSOf(want)
	return compare.Accumulated(in).Ratio, true
}
