package bench

import (
	"bytes"
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
)

// The drawing's measures, and colours that are legible on white and on black.
const (
	rooflineWidth  = 860 * vg.Inch / 72
	rooflineHeight = 420 * vg.Inch / 72
)

var (
	rooflineGrey = color.NRGBA{0x7d, 0x85, 0x90, 0xff}
	classColours = map[string]color.NRGBA{"fma": {0x3b, 0x82, 0xc4, 0xff}, "dot": {0xd1, 0x6a, 0x1f, 0xff}, "read": {0x3a, 0x9d, 0x5d, 0xff}}
)

// WriteSVG draws the roofline: floating-point operations for each byte of weights along, operations a second up. The lines are the limits as
// they were measured, sloping where memory is the limit and flat where arithmetic is; a dot is a row, in the colour of the limit that it is held
// against.
func (r Result) WriteSVG(w io.Writer) error {
	limit := map[string]float64{}
	for _, l := range r.Limits {
		limit[l.Name] = l.Median
	}
	points := map[string]plotter.XYs{}
	minX, maxX, minY, maxY := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, row := range r.Rows {
		if row.FLOP == 0 || row.Bytes == 0 {
			continue
		}
		p := plotter.XY{X: row.FLOP / row.Bytes, Y: row.FLOP / row.Seconds() / 1e9}
		points[row.Limit] = append(points[row.Limit], p)
		minX, maxX, minY, maxY = min(minX, p.X), max(maxX, p.X), min(minY, p.Y), max(maxY, p.Y)
	}
	if maxX == 0 {
		return fmt.Errorf("bench: no row has both operations and bytes: there is no roofline to draw")
	}
	minX, maxX = minX/2, maxX*2
	maxY = 2 * max(maxY, limit["fma"], limit["dot"])
	minY = min(minY/2, maxY/10)

	p := plot.New()
	p.BackgroundColor = nil // whatever the page has
	p.Title.Text = fmt.Sprintf("%s, %d threads, %s", r.Machine.CPU, r.Threads, r.Implementation)
	if !r.Conformance.Passed {
		p.Title.Text = "NOT CONFORMANT: " + p.Title.Text
	}
	style(&p.Title.TextStyle, 12)
	p.X.Label.Text, p.Y.Label.Text = "FLOP for each byte of weights", "GFLOP/s"
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = rooflineGrey, rooflineGrey
		style(&a.Label.TextStyle, 10)
		style(&a.Tick.Label, 9)
		a.Scale, a.Tick.Marker = plot.LogScale{}, decades{}
	}
	style(&p.Legend.TextStyle, 9)
	p.Legend.Top, p.Legend.Left = true, true
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = minX, maxX, minY, maxY

	for _, name := range limitNames {
		ink := classColours[name]
		if roof := roofOf(name, limit, minX, maxX, minY); roof != nil {
			line, err := plotter.NewLine(roof)
			if err != nil {
				return err
			}
			line.Color, line.Width = ink, 1
			p.Add(line)
			p.Legend.Add(fmt.Sprintf("%s: %.0f %s", name, limit[name], unitOf(name)), line)
		}
		if len(points[name]) > 0 {
			dots, err := plotter.NewScatter(points[name])
			if err != nil {
				return err
			}
			dots.Color, dots.Radius, dots.Shape = ink, 2, draw.CircleGlyph{}
			p.Add(dots)
		}
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(rooflineWidth, rooflineHeight), vgsvg.EmbedFonts(false))
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// The plot names one font and no way out for a reader who does not have it.
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Helvetica,Arial,sans-serif;")))
	return err
}

// roofOf is the line of one limit: flat for arithmetic, from where memory no longer is the limit; sloping for memory, up to where arithmetic is.
func roofOf(name string, limit map[string]float64, minX, maxX, minY float64) plotter.XYs {
	read, most := limit["read"], max(limit["fma"], limit["dot"])
	switch {
	case limit[name] == 0:
		return nil
	case name == "read":
		from, to := max(minX, minY/read), maxX
		if most > 0 {
			to = min(maxX, most/read)
		}
		if from >= to {
			return nil
		}
		return plotter.XYs{{X: from, Y: read * from}, {X: to, Y: read * to}}
	case read > 0 && limit[name]/read < maxX:
		return plotter.XYs{{X: max(minX, limit[name]/read), Y: limit[name]}, {X: maxX, Y: limit[name]}}
	default:
		return plotter.XYs{{X: minX, Y: limit[name]}, {X: maxX, Y: limit[name]}}
	}
}

func style(t *draw.TextStyle, size vg.Length) {
	t.Color = rooflineGrey
	t.Font = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size)
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
