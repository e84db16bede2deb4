package report

import (
	"fmt"
	"image/color"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/llavaref/llavaref/conformance"
)

// The chart's measures and its ends: what is below the lowest ratio, exact zeros included, is drawn there, and so for the highest.
const (
	chartWidth   = 860 * vg.Inch / 72
	chartHeight  = 230 * vg.Inch / 72
	lowestRatio  = 1e-3
	highestRatio = 1e4
)

var (
	chartGrey  = color.NRGBA{0x7d, 0x85, 0x90, 0xff} // legible on white and on black
	chartFaint = color.NRGBA{0x7d, 0x85, 0x90, 0x60}
	limitRed   = color.NRGBA{0xd1, 0x40, 0x3f, 0xff}
	chartInk   = map[bool]color.NRGBA{false: {0x3b, 0x82, 0xc4, 0xa0}, true: {0xd1, 0x40, 0x3f, 0xd0}}
)

// SVG draws the drift of every node along the depth of the model, a strip for each set: one dot for each node and case, over
// its limit of three noise floors. The red line is the limit; red dots are above it.
func SVG(w io.Writer, r conformance.Run) error {
	strips := max(len(r.Sets), 1)
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartHeight*vg.Length(strips)), vgsvg.EmbedFonts(false))
	tiles := draw.Tiles{Rows: strips, Cols: 1, PadY: 6, PadX: 4, PadTop: 4, PadBottom: 4, PadLeft: 4, PadRight: 10}
	for i, s := range r.Sets {
		p, err := strip(s)
		if err != nil {
			return err
		}
		p.Draw(tiles.At(draw.New(canvas), 0, i))
	}
	_, err := canvas.WriteTo(w)
	return err
}

// strip is the plot of one set.
func strip(s conformance.Set) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.Title.Text = fmt.Sprintf("%s: drift over its limit, node by node in the order of execution", s.Name)
	styleText(&p.Title.TextStyle, 12)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = chartGrey, chartGrey
		styleText(&a.Label.TextStyle, 10)
		styleText(&a.Tick.Label, 9)
	}
	p.Y.Scale, p.Y.Min, p.Y.Max = plot.LogScale{}, lowestRatio, highestRatio
	p.Y.Tick.Marker = decades{}

	depth, stages := depths(s)
	p.X.Min, p.X.Max = -1, math.Max(float64(len(depth)), 1)
	p.X.Tick.Marker = stages
	for _, t := range stages {
		line, err := plotter.NewLine(plotter.XYs{{X: t.from - 0.5, Y: lowestRatio}, {X: t.from - 0.5, Y: highestRatio}})
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = chartFaint, 0.5
		p.Add(line)
	}
	limit, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: 1}, {X: p.X.Max, Y: 1}})
	if err != nil {
		return nil, err
	}
	limit.Color, limit.Width = limitRed, 1
	p.Add(limit)
	dots := map[bool]plotter.XYs{}
	for _, c := range s.Cases {
		for _, stage := range c.Stages {
			for _, n := range stage.Nodes {
				if k, ok := n.Check(conformance.Accumulated); ok && k.Result != conformance.Skip {
					y := min(max(k.Ratio, lowestRatio), highestRatio)
					dots[k.Ratio > 1] = append(dots[k.Ratio > 1], plotter.XY{X: depth[n.Name], Y: y})
				}
			}
		}
	}
	for _, bad := range []bool{false, true} {
		if len(dots[bad]) == 0 {
			continue
		}
		scatter, err := plotter.NewScatter(dots[bad])
		if err != nil {
			return nil, err
		}
		scatter.Color, scatter.Radius, scatter.Shape = chartInk[bad], 1.1, draw.CircleGlyph{}
		p.Add(scatter)
	}
	return p, nil
}

func styleText(t *draw.TextStyle, size vg.Length) {
	t.Color = chartGrey
	t.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size)
}

// depths numbers the nodes of all cases in the order of execution, and says where each stage begins.
func depths(s conformance.Set) (map[string]float64, stageTicks) {
	depth := map[string]float64{}
	var ticks stageTicks
	for _, name := range conformance.Stages() {
		from := float64(len(depth))
		for _, c := range s.Cases {
			for _, stage := range c.Stages {
				if stage.Name != name {
					continue
				}
				for _, n := range stage.Nodes {
					if _, ok := depth[n.Name]; !ok {
						depth[n.Name] = float64(len(depth))
					}
				}
			}
		}
		if to := float64(len(depth)); to > from {
			ticks = append(ticks, stageTick{name, from, to})
		}
	}
	return depth, ticks
}

// stageTicks labels the stages that are wide enough for a label.
type stageTicks []stageTick

type stageTick struct {
	name     string
	from, to float64
}

// Ticks gives each of them a label in its middle.
func (s stageTicks) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for _, t := range s {
		if (t.to-t.from)/(hi-lo) > 0.05 {
			out = append(out, plot.Tick{Value: (t.from + t.to - 1) / 2, Label: t.name})
		}
	}
	return out
}

// decades marks the powers of ten.
type decades struct{}

// Ticks gives one for each power of ten of the range.
func (decades) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for e := math.Ceil(math.Log10(lo)); e <= math.Floor(math.Log10(hi)+1e-9); e++ {
		out = append(out, plot.Tick{Value: math.Pow(10, e), Label: fmt.Sprintf("%g", math.Pow(10, e))})
	}
	return out
}
