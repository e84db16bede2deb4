package conformance

import (
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// maxTold is for how many failing nodes of a prompt it is looked for where they are wrong, and of how many entries.
const (
	maxTold        = 20
	maxToldEntries = 1 << 24
)

// coordinates are the ways in which a node's entries can be told apart: sorts of rows first, then its axes and what they are made of.
func (j *judge) coordinates(n shapes.Node, shape []int) []compare.Coordinate {
	var out []compare.Coordinate
	strides := make([]int, len(shape))
	for a, stride := len(shape)-1, 1; a >= 0; a-- {
		strides[a] = stride
		stride *= shape[a]
	}
	side := j.target.Set.Config.Vision.PatchesPerSide()
	for a, length := range shape {
		at := func(e int) int { return e / strides[a] % length }
		numbers := func(one, many string, length int, of func(k int) int) {
			out = append(out, compare.Coordinate{One: one, Many: many, Length: length, Of: func(e int) int { return of(at(e)) }})
		}
		own := func(k int) int { return k }
		last := a == len(shape)-1
		switch letter := n.Shape[a].Letter; {
		case letter == "N":
			numbers("tile", "tiles", length, own)
		case letter == "P" && last:
			numbers("column of patches", "columns of patches", length, own)
		case letter == "P":
			numbers("row of patches", "rows of patches", length, own)
		case (letter == "S" || letter == "L" || letter == "T") && last:
			numbers("key", "keys", length, own)
			if n.Causal {
				query := length - shape[a-1] // of the first row
				out = append(out, compare.Coordinate{One: "place back from the query", Many: "places back from the query", Length: length, Of: func(e int) int {
					return e/strides[a-1]%shape[a-1] + query - at(e)
				}})
			}
		case letter == "S" || letter == "S-1":
			numbers("position", "positions", length, own)
			if class := length - side*side; class >= 0 {
				numbers("row of patches", "rows of patches", side, func(k int) int { return floorDiv(k-class, side) })
				numbers("column of patches", "columns of patches", side, func(k int) int {
					if k < class {
						return -1
					}
					return (k - class) % side
				})
			}
		case letter == "T" || letter == "R":
			out = append(out, j.rowSorts(letter, length, at)...)
			numbers("row", "rows", length, own)
		case letter == "V":
			numbers("token", "tokens", length, own)
		case letter == "H" || letter == "K":
			numbers("head", "heads", length, own)
		default:
			numbers("channel", "channels", length, own)
			if heads := j.headsIn(n, letter); heads > 1 && length%heads == 0 {
				width := length / heads
				numbers("head", "heads", heads, func(k int) int { return k / width })
				numbers("channel of its head", "channels of their heads", width, func(k int) int { return k % width })
			}
		}
	}
	return out
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -1
	}
	return a / b
}

// headsIn is how many heads lie side by side in a node's channels; 0 if none do.
func (j *judge) headsIn(n shapes.Node, letter string) int {
	c := j.target.Set.Config
	switch {
	case letter == "H*Dh":
		return c.Text.NumAttentionHeads
	case letter == "K*Dh":
		return c.Text.NumKeyValueHeads
	case n.Kind == shapes.Context || strings.HasSuffix(n.Name, ".q_proj") || strings.HasSuffix(n.Name, ".k_proj") || strings.HasSuffix(n.Name, ".v_proj"):
		return c.Vision.NumAttentionHeads
	}
	return 0
}

// rowSorts tells the rows of a prompt or of its image rows apart: text, whole images, tiles, newlines.
func (j *judge) rowSorts(letter string, rows int, at func(e int) int) []compare.Coordinate {
	c, in := j.target.Set.Config, j.truth.Inputs
	cells := replay.Cells(c, in)
	if len(cells) == 0 {
		return nil
	}
	each := c.FeaturesPerTile()
	const text, whole, tile, newline = 0, 1, 2, 3
	sort, of := make([]int, rows), make([]int, rows)
	next := 0
	for r := range rows {
		of[r] = -1
		if letter == "T" && (r >= len(in.InputIDs) || in.InputIDs[r] != c.ImageTokenID) {
			continue
		}
		if next >= len(cells) {
			break
		}
		if cell := cells[next]; cell < 0 {
			sort[r] = newline
		} else {
			of[r], sort[r] = cell/each, tile
		}
		next++
	}
	first := 0 // the tile of each whole image
	for _, size := range in.ImageSizes {
		for r := range of {
			if of[r] == first && of[r] >= 0 {
				sort[r] = whole
			}
		}
		first++
		if c.ModelType != shapes.Llava {
			first += j.tilesOf(size)
		}
	}
	return []compare.Coordinate{
		{Names: []string{"text rows", "rows of whole images", "rows of tiles", "newline rows"}, Length: 4, Of: func(e int) int { return sort[at(e)] }},
		{One: "tile", Many: "tiles", Length: max(1, slices.Max(of)+1), Of: func(e int) int { return of[at(e)] }},
	}
}

// tilesOf is how many tiles an image has beside the whole.
func (j *judge) tilesOf(size shapes.Size) int { return replay.Grid(j.target.Set.Config, size).Area() }

// tell says where a tensor is wrong: entries are its places, excess gives their errors over what they may be.
func (j *judge) tell(n shapes.Node, shape []int, entries []int, excess func() []float64) *compare.Slice {
	if j.placed++; j.placed > maxTold || len(entries) > maxToldEntries || len(entries) == 0 || len(shape) != len(n.Shape) {
		return nil
	}
	bad := make([]bool, len(entries))
	for i, x := range excess() {
		bad[i] = x > 1
	}
	if n.Causal && (n.Kind == shapes.Scores || n.Kind == shapes.Softmax) { // what no query sees is no entry
		keys, queries := shape[len(shape)-1], shape[len(shape)-2]
		seen, wrong := entries[:0:0], bad[:0:0]
		for i, e := range entries {
			if bad[i] || e%keys <= e/keys%queries+keys-queries {
				seen, wrong = append(seen, e), append(wrong, bad[i])
			}
		}
		entries, bad = seen, wrong
	}
	if s, ok := compare.Telling(j.coordinates(n, shape), entries, bad); ok {
		return &s
	}
	return nil
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
