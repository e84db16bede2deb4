package compare

import "math"

// A heat map has at most so many cells, so that a result stays of a moderate size whatever the tensor's.
const (
	maxMaps     = 3
	maxMapRows  = 40
	maxMapCells = 64 // in a row
)

// Map shows where in a tensor the differences are, along two of its axes and over all of the others.
type Map struct {
	Rows, Cols Span
	Excess     []float32 // [Rows.Cells, Cols.Cells]: the largest excess of the entries of a cell, at most MaxFloat32
}

// Span is an axis, divided into cells: index i is in cell i*Cells/Length.
type Span struct {
	Letter string
	Length int
	Cells  int
}

// First is the first index of a cell; that of the cell behind the last is Length.
func (s Span) First(cell int) int { return (cell*s.Length + s.Cells - 1) / s.Cells }

// maps draws the excess of each entry along the axes that tell most: rows against channels, rows against heads, tiles or heads against rows.
// axes are those of axesOf, of which shaped are axes of the tensor itself.
func maps(axes []axisSums, shaped int, excess []float64) []Map {
	var pairs [][2]axisSums
	last := shaped - 1
	if last == 0 {
		pairs = append(pairs, [2]axisSums{{letter: "", of: func(int) int { return 0 }, squares: make([]float64, 1)}, axes[0]})
	}
	for a := last; a > 0; a-- {
		pairs = append(pairs, [2]axisSums{axes[a-1], axes[a]})
		if a == last && len(axes) > shaped {
			pairs = append(pairs, [2]axisSums{axes[a-1], axes[shaped]})
		}
	}
	var out []Map
	for _, p := range pairs {
		if len(out) == maxMaps || len(out) > 0 && len(p[0].squares)*len(p[1].squares) == 1 {
			break
		}
		out = append(out, mapOf(p[0], p[1], excess))
	}
	return out
}

func mapOf(rows, cols axisSums, excess []float64) Map {
	m := Map{
		Rows: Span{rows.letter, len(rows.squares), min(len(rows.squares), maxMapRows)},
		Cols: Span{cols.letter, len(cols.squares), min(len(cols.squares), maxMapCells)},
	}
	m.Excess = make([]float32, m.Rows.Cells*m.Cols.Cells)
	for i, x := range excess {
		if x == 0 {
			continue
		}
		r, c := rows.of(i)*m.Rows.Cells/m.Rows.Length, cols.of(i)*m.Cols.Cells/m.Cols.Length
		cell := &m.Excess[r*m.Cols.Cells+c]
		*cell = max(*cell, float32(min(x, math.MaxFloat32)))
	}
	return m
}
