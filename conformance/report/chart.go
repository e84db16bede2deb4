package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

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
	chartColumns = 115 // letters that fit over a strip
	lowestRatio  = 1e-3
	highestRatio = 1e4
)

var (
	chartGrey  = color.NRGBA{0x7d, 0x85, 0x90, 0xff} // legible on white and on black
	chartFaint = color.NRGBA{0x7d, 0x85, 0x90, 0x60}
	limitRed   = color.NRGBA{0xd1, 0x40, 0x3f, 0xff}
	chartInk   = color.NRGBA{0x3b, 0x82, 0xc4, 0xff}
	chartBand  = color.NRGBA{0x3b, 0x82, 0xc4, 0x60}
)

// SVG draws the drift of every node along the depth of the model, a strip for each set, over its limit:
// a band from the least to the largest over the cases, a line along the largest. The red line is the limit, and what is above it
// has a red dot.
func SVG(w io.Writer, r conformance.Run) error {
	var sets []conformance.Set
	for _, s := range r.Sets {
		if !s.EndToEnd { // which has no depth
			sets = append(sets, s)
		}
	}
	strips := max(len(sets), 1)
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartHeight*vg.Length(strips)), vgsvg.EmbedFonts(false))
	tiles := draw.Tiles{Rows: strips, Cols: 1, PadY: 6, PadX: 4, PadTop: 4, PadBottom: 4, PadLeft: 4, PadRight: 10}
	for i, s := range sets {
		p, err := strip(s)
		if err != nil {
			return err
		}
		p.Draw(tiles.At(draw.New(canvas), 0, i))
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// The plot names one font and no way out for a reader who does not have it.
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Helvetica,Arial,sans-serif;")))
	return err
}

// strip is the plot of one set.
func strip(s conformance.Set) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = nil // whatever the page has
	p.Title.Text = fmt.Sprintf("%s: drift over its limit, node by node in the order of execution%s", s.Name, chartFinding(s))
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
	low, high := drifts(s, depth)
	if len(high) == 0 {
		return p, nil
	}
	around := slices.Clone(low)
	slices.Reverse(around)
	band, err := plotter.NewPolygon(slices.Concat(high, around))
	if err != nil {
		return nil, err
	}
	band.Color, band.LineStyle.Width = chartBand, 0
	along, err := plotter.NewLine(high)
	if err != nil {
		return nil, err
	}
	along.Color, along.Width = chartInk, 0.8
	p.Add(band, along)
	var above plotter.XYs
	for _, xy := range high {
		if xy.Y > 1 {
			above = append(above, xy)
		}
	}
	if len(above) > 0 {
		dots, err := plotter.NewScatter(above)
		if err != nil {
			return nil, err
		}
		dots.Color, dots.Radius, dots.Shape = limitRed, 1.3, draw.CircleGlyph{}
		p.Add(dots)
	}
	return p, nil
}

// chartFinding is a line of its own on the first case that diverges: where, and what the likely cause is. Letters that are no ASCII
// are left out, since the font that the plot measures with has not all of them.
func chartFinding(s conformance.Set) string {
	for _, c := range s.Cases {
		all := wrong(c)
		if len(all) == 0 {
			continue
		}
		d := all[0]
		word := "first wrong"
		if d.status == conformance.Convention {
			word = "first done otherwise"
		}
		line := fmt.Sprintf("%s: %s, in %s", word, d.title, c.Name)
		if len(d.causes) > 0 {
			line += fmt.Sprintf(": %s (%s)", d.causes[0].Text, d.causes[0].ID)
			if of := d.causes[0].Convention; of != "" {
				line += ", another convention: " + of
			}
		}
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, line)
		if len(line) > chartColumns {
			line = line[:chartColumns-4] + " ..."
		}
		return "\n" + line
	}
	return ""
}

// drifts is the least and the largest drift of each node over the cases, as far as the chart goes.
func drifts(s conformance.Set, depth map[string]float64) (low, high plotter.XYs) {
	type span struct{ low, high float64 }
	spans := map[float64]span{}
	for _, c := range s.Cases {
		for _, stage := range c.Stages {
			for _, n := range stage.Nodes {
				k, ok := n.Check(conformance.Accumulated)
				if !ok || k.Result == conformance.Skip {
					continue
				}
				if _, known := depth[n.Name]; !known {
					continue
				}
				y := min(max(k.Ratio, lowestRatio), highestRatio)
				at, seen := spans[depth[n.Name]]
				if !seen {
					at = span{y, y}
				}
				spans[depth[n.Name]] = span{min(at.low, y), max(at.high, y)}
			}
		}
	}
	for _, x := range slices.Sorted(maps.Keys(spans)) {
		low, high = append(low, plotter.XY{X: x, Y: spans[x].low}), append(high, plotter.XY{X: x, Y: spans[x].high})
	}
	return low, high
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
