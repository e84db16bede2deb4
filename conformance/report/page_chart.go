package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// htmlChart is the drift and the local error of nodes over their limits along the depth, on a logarithmic axis. The drawing is stretched to
// the width of the page, so whatever has letters stands beside it.
type htmlChart struct {
	Case, Label    string
	Width          int // nodes
	LimitY         string
	Grid, Band     string
	Drift, Local   string // paths; empty if there is none
	Wrong          string // nodes that fail by themselves
	X, Y           []htmlTick
	First          *htmlMark
	depth          map[string]float64
	drifts, locals []span
}

type htmlTick struct{ At, Width, Text string }

type htmlMark struct{ X, Left, Side, Text string }

// span is the least and the largest of what several cases say of a node.
type span struct {
	low, high float64
	seen      bool
	fails     bool
}

func (s *span) add(x float64, fails bool) {
	if !s.seen {
		*s = span{x, x, true, false}
	}
	s.low, s.high, s.fails = min(s.low, x), max(s.high, x), s.fails || fails
}

// setChart has all cases of a set, caseChart one of them.
func setChart(s conformance.Set) *htmlChart {
	c := newChart(s)
	if c == nil {
		return nil
	}
	c.Label = "drift and local error of every node over their limits, the largest of all cases"
	c.Band = c.band()
	return c
}

func caseChart(id string, k conformance.Case) *htmlChart {
	c := newChart(conformance.Set{Cases: []conformance.Case{k}})
	if c == nil {
		return nil
	}
	c.Case, c.Label = id, "drift and local error of every node over their limits"
	if f := k.First; f != nil {
		if at, ok := c.depth[f.Node]; ok {
			c.mark(f.Node, at)
			c.Label += fmt.Sprintf("; the first diverging node is %s", f.Node)
		}
	}
	return c
}

func newChart(s conformance.Set) *htmlChart {
	depth, stages := depths(s)
	if len(depth) == 0 {
		return nil
	}
	c := &htmlChart{Width: len(depth), LimitY: coordinate(height(1)), depth: depth, drifts: make([]span, len(depth)), locals: make([]span, len(depth))}
	judged := false
	for _, k := range s.Cases {
		for _, stage := range k.Stages {
			for _, n := range stage.Nodes {
				x, known := depth[n.Name]
				if !known { // it is no node of the graph
					continue
				}
				at, row := int(x), nodeRow(n)
				if row.drift >= 0 {
					c.drifts[at].add(row.drift, false)
				}
				if row.local >= 0 {
					c.locals[at].add(row.local, wrongByItself(n))
				}
				judged = judged || row.drift >= 0 || row.local >= 0
			}
		}
	}
	if !judged {
		return nil
	}
	c.Drift = c.line()
	c.dots()
	var grid strings.Builder
	for e := -3.0; e <= 4; e++ {
		y := coordinate(height(math.Pow(10, e)))
		c.Y = append(c.Y, htmlTick{y, "", decadeName(int(e))})
		if e > -3 && e < 4 && e != 0 {
			fmt.Fprintf(&grid, "M0 %sH%d", y, c.Width)
		}
	}
	for _, t := range stages {
		if t.from > 0 {
			fmt.Fprintf(&grid, "M%s 0V100", coordinate(t.from))
		}
		if share := (t.to - t.from) / float64(c.Width); share > 0.12 {
			c.X = append(c.X, htmlTick{coordinate(100 * t.from / float64(c.Width)), coordinate(100 * share), t.name})
		}
	}
	c.Grid = grid.String()
	return c
}

// height is the place of a ratio, 0 at the top and 100 at the bottom.
func height(ratio float64) float64 {
	ratio = min(max(ratio, lowestRatio), highestRatio)
	return 100 * (math.Log10(highestRatio) - math.Log10(ratio)) / (math.Log10(highestRatio) - math.Log10(lowestRatio))
}

// coordinate is a number with at most two decimals, none of them a trailing zero.
func coordinate(x float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", x), "0"), ".")
}

func decadeName(e int) string {
	switch {
	case e < 0:
		return fmt.Sprintf("%.*f", -e, math.Pow(10, float64(e)))
	case e < 4:
		return fmt.Sprintf("%.0f", math.Pow(10, float64(e)))
	}
	return "≥ 10⁴"
}

// line joins the drift of nodes that are side by side.
func (c *htmlChart) line() string {
	var b strings.Builder
	joined := false
	for i, d := range c.drifts {
		if !d.seen {
			joined = false
			continue
		}
		word := "M"
		if joined {
			word = "L"
		}
		fmt.Fprintf(&b, "%s%s %s", word, coordinate(float64(i)+0.5), coordinate(height(d.high)))
		if alone := !joined && (i+1 == len(c.drifts) || !c.drifts[i+1].seen); alone {
			b.WriteString("h0.01")
		}
		joined = true
	}
	return b.String()
}

// dots are the local errors; those of nodes that fail by themselves are drawn larger. An error of 0 is no dot: it would be a line at the bottom.
func (c *htmlChart) dots() {
	var dots, wrong strings.Builder
	for i, l := range c.locals {
		if !l.seen || l.high == 0 {
			continue
		}
		b := &dots
		if l.fails {
			b = &wrong
		}
		fmt.Fprintf(b, "M%s %sh0.01", coordinate(float64(i)+0.5), coordinate(height(l.high)))
	}
	c.Local, c.Wrong = dots.String(), wrong.String()
}

// band is the area between the least and the largest drift, a piece for each run of nodes without a gap.
func (c *htmlChart) band() string {
	var b strings.Builder
	for from := 0; from < len(c.drifts); from++ {
		to := from
		for to < len(c.drifts) && c.drifts[to].seen {
			to++
		}
		for i := from; i < to; i++ {
			word := "L"
			if i == from {
				word = "M"
			}
			fmt.Fprintf(&b, "%s%s %s", word, coordinate(float64(i)+0.5), coordinate(height(c.drifts[i].high)))
		}
		for i := to - 1; i >= from; i-- {
			fmt.Fprintf(&b, "L%s %s", coordinate(float64(i)+0.5), coordinate(height(c.drifts[i].low)))
		}
		if to > from {
			b.WriteString("Z")
		}
		from = to
	}
	return b.String()
}

// mark puts a line and a flag at the first diverging node.
func (c *htmlChart) mark(node string, at float64) {
	left := 100 * (at + 0.5) / float64(c.Width)
	m := htmlMark{X: coordinate(at + 0.5), Left: coordinate(left), Side: "left", Text: short(node)}
	if left > 50 {
		m.Side = "right"
	}
	c.First = &m
}
