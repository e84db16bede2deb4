package compare

import (
	"cmp"
	"math"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Census describes the difference of a tensor that failed.
type Census struct {
	Entries   int    // compared
	Bad       int    // off by more than rounding can do
	NaN, Inf  int    // in the engine's tensor
	First     *Site  // the first bad entry in memory order; nil if none is bad by itself
	Worst     []Site // the entries with the largest excess, worst first
	Axes      []Axis // the worst index of each axis
	Maps      []Map  // where the differences are
	Narrowest *Axis  // the axis one index of which has almost all of the difference, if there is one: one row, one channel, one head is wrong
}

// Site is one entry.
type Site struct {
	Index     []int
	Want, Got float32
	Excess    float64 // the error over the most that rounding can do
}

// Axis is the worst index of one axis.
type Axis struct {
	Letter string
	Length int
	Index  int
	RMS    float64 // of the error at that index
	Share  float64 // of the sum of the squared errors of the whole tensor, 0 to 1
}

// concentrated is the share of the squared error that must lie at one index of an axis to call the difference concentrated there.
const concentrated = 0.9

// TakeCensus describes how got differs from b.Want, with at most k sites. The tensors must have the same shape.
func TakeCensus(b Budget, node shapes.Node, got shapes.Tensor, k int) Census {
	var c Census
	if !slices.Equal(b.Want.Shape, got.Shape) || len(got.Data) != len(b.Want.Data) || len(got.Data) == 0 {
		return c
	}
	excess := Excess(b, node, got)
	axes := axesOf(node, got.Shape)
	var order []int
	for i, v := range got.Data {
		g, w := float64(v), float64(b.Want.Data[i])
		switch {
		case math.IsNaN(g):
			c.NaN++
		case math.IsInf(g, 0):
			c.Inf++
		}
		c.Entries++
		if excess[i] > 0 {
			order = append(order, i)
		}
		if excess[i] > 1 {
			c.Bad++
			if c.First == nil {
				s := siteAt(b, got, excess, i)
				c.First = &s
			}
		}
		if excess[i] == 0 {
			continue
		}
		d := g - w
		if !finite(d) {
			d = math.MaxFloat32 // larger than any other difference, and its square fits float64
		}
		for a := range axes {
			axes[a].squares[axes[a].of(i)] += d * d
		}
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(excess[y], excess[x]) })
	for _, i := range order[:min(k, len(order))] {
		c.Worst = append(c.Worst, siteAt(b, got, excess, i))
	}
	c.Maps = maps(axes, len(got.Shape), excess)
	for _, a := range axes {
		c.Axes = append(c.Axes, a.worst(len(got.Data)))
	}
	for i := range c.Axes {
		a := &c.Axes[i]
		if a.Length > 1 && a.Share >= concentrated && (c.Narrowest == nil || a.Length > c.Narrowest.Length) {
			c.Narrowest = a
		}
	}
	return c
}

func siteAt(b Budget, got shapes.Tensor, excess []float64, i int) Site {
	return Site{index(got.Shape, i), b.Want.Data[i], got.Data[i], excess[i]}
}

// axisSums gathers squared errors along one axis.
type axisSums struct {
	letter  string
	of      func(i int) int // the axis's index of entry i
	squares []float64
}

// axesOf lists the node's axes, and the heads that lie side by side in the columns of an attention context.
func axesOf(node shapes.Node, shape []int) []axisSums {
	var axes []axisSums
	stride := 1
	for a := len(shape) - 1; a >= 0; a-- {
		letter := "?"
		if a < len(node.Shape) {
			letter = node.Shape[a].Letter
		}
		s, n := stride, shape[a]
		axes = append(axes, axisSums{letter, func(i int) int { return i / s % n }, make([]float64, n)})
		stride *= n
	}
	slices.Reverse(axes)
	cols := shape[len(shape)-1]
	if node.Kind == shapes.Context && node.Heads > 0 && cols%node.Heads == 0 {
		width := cols / node.Heads
		axes = append(axes, axisSums{"H", func(i int) int { return i % cols / width }, make([]float64, node.Heads)})
	}
	return axes
}

func (a axisSums) worst(entries int) Axis {
	w := Axis{Letter: a.letter, Length: len(a.squares)}
	total := 0.0
	for i, s := range a.squares {
		total += s
		if s > a.squares[w.Index] {
			w.Index = i
		}
	}
	w.RMS = math.Sqrt(a.squares[w.Index] * float64(w.Length) / float64(entries))
	w.Share = quotient(a.squares[w.Index], total)
	return w
}
