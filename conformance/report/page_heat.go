package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
)

// htmlMap is a heat map as a picture of one pixel a cell.
type htmlMap struct {
	Image         template.URL
	Alt, Caption  string
	Width, Height int // px on the page
}

type htmlKey struct {
	Colour template.CSS
	Text   string
}

type heatStep struct {
	upTo   float64
	colour color.NRGBA
	text   string // in the legend
}

// heatSteps are the colours of excesses up to a bound, each legible on white and on black.
var heatSteps = []heatStep{
	{0, color.NRGBA{0, 0, 0, 0}, ""},
	{0.1, color.NRGBA{0x80, 0x88, 0x92, 0x38}, ""},
	{1, color.NRGBA{0x80, 0x88, 0x92, 0x78}, "within rounding"},
	{3, color.NRGBA{0xf3, 0xc8, 0x4b, 0xff}, "to 3 times"},
	{10, color.NRGBA{0xf2, 0xa6, 0x36, 0xff}, "to 10"},
	{30, color.NRGBA{0xee, 0x82, 0x2d, 0xff}, "to 30"},
	{100, color.NRGBA{0xe4, 0x5c, 0x30, 0xff}, "to 100"},
	{1000, color.NRGBA{0xd4, 0x36, 0x45, 0xff}, "to 1000"},
	{1e4, color.NRGBA{0xb8, 0x2a, 0x86, 0xff}, "to 10,000"},
	{math.MaxFloat32 / 2, color.NRGBA{0x8a, 0x3f, 0xd1, 0xff}, "more"},
	{math.Inf(1), color.NRGBA{0x00, 0xa8, 0xc6, 0xff}, "NaN, infinite or masked"},
}

func heatScale() []htmlKey {
	var out []htmlKey
	for _, s := range heatSteps {
		if s.text != "" {
			out = append(out, htmlKey{template.CSS(fmt.Sprintf("rgba(%d,%d,%d,%.2f)", s.colour.R, s.colour.G, s.colour.B, float64(s.colour.A)/255)), s.text})
		}
	}
	return out
}

// heatMap draws a map. One whose cells do not fit its spans is left out.
func heatMap(m compare.Map) (htmlMap, bool) {
	rows, cols := m.Rows.Cells, m.Cols.Cells
	if rows < 1 || cols < 1 || len(m.Excess) != rows*cols {
		return htmlMap{}, false
	}
	var palette color.Palette
	for _, s := range heatSteps {
		palette = append(palette, s.colour)
	}
	img := image.NewPaletted(image.Rect(0, 0, cols, rows), palette)
	for i, x := range m.Excess {
		img.Pix[i/cols*img.Stride+i%cols] = uint8(step(x))
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return htmlMap{}, false
	}
	hot := slices.Index(m.Excess, slices.Max(m.Excess))
	where := fmt.Sprintf("worst at %s, %s", within(m.Rows, hot/cols), within(m.Cols, hot%cols))
	if m.Rows.Length == 1 {
		where = "worst at " + within(m.Cols, hot%cols)
	}
	caption := fmt.Sprintf("%s down, 0 to %d; %s across, 0 to %d", m.Rows.Letter, m.Rows.Length-1, m.Cols.Letter, m.Cols.Length-1)
	if m.Rows.Length == 1 {
		caption = fmt.Sprintf("%s across, 0 to %d", m.Cols.Letter, m.Cols.Length-1)
	}
	return htmlMap{
		Image: template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), Alt: "heat map: " + caption + "; " + where, Caption: caption + "; " + where + ".",
		Width: cols * cellSize(cols), Height: rows * cellSize(rows),
	}, true
}

// step is the number of the colour of an excess.
func step(x float32) int {
	for i, s := range heatSteps {
		if float64(x) <= s.upTo {
			return i
		}
	}
	return len(heatSteps) - 1 // a NaN
}

// cellSize is how many px a cell has along an axis of so many.
func cellSize(cells int) int { return min(max(160/cells, 7), 28) }

// within says which indices a cell has: "T = 4" or "C = 128 to 131".
func within(s compare.Span, cell int) string {
	from, to := s.First(cell), s.First(cell+1)-1
	if to <= from {
		return fmt.Sprintf("%s = %d", s.Letter, from)
	}
	return fmt.Sprintf("%s = %d to %d", s.Letter, from, to)
}
