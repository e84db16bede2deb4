package diagnose

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// packer packs image features by rules that can be changed. The zero value packs as PackImageFeatures does.
type packer struct {
	canvas  func(original shapes.Size, pinpoints []shapes.Size) shapes.Size             // nil is SelectBestResolution
	unpad   func(original, grid shapes.Size) (offset, kept shapes.Size)                 // nil is Unpad
	order   func(image [][]float32, base int) [][]float32                               // of an image's rows, base of them the whole image's
	newline string                                                                      // "none", "before", "not last", "columns", "zero"; empty is after each row
	tile    func(grid, at shapes.Size) int                                              // number of the tile at a place of the grid; nil is reading order
	cell    func(grid shapes.Size, side int, at shapes.Size) (tile int, in shapes.Size) // where the cell at a place of the grid is read; nil follows tile
	images  func(images [][][]float32) [][][]float32                                    // their order
}

// rows packs every image, one after the other; false if the rules do not fit the tiles that are there.
func (p packer) rows(s *Site, features, newline shapes.Tensor) ([][]float32, bool) {
	images, ok := p.each(s, features, newline)
	return slices.Concat(images...), ok
}

// each packs every image by itself.
func (p packer) each(s *Site, features, newline shapes.Tensor) ([][][]float32, bool) {
	if len(features.Shape) != 3 {
		return nil, false
	}
	side := s.Config.Vision.PatchesPerSide()
	cells := features.Shape[1]
	if cells != side*side {
		return nil, false
	}
	var images [][][]float32
	next := 0
	for _, size := range s.Prompt.ImageSizes {
		canvas := preprocess.SelectBestResolution(size, s.Config.GridPinpoints)
		right := shapes.Size{H: canvas.H / s.Config.Vision.ImageSize, W: canvas.W / s.Config.Vision.ImageSize}
		grid := right
		if p.canvas != nil {
			canvas = p.canvas(size, s.Config.GridPinpoints)
			grid = shapes.Size{H: canvas.H / s.Config.Vision.ImageSize, W: canvas.W / s.Config.Vision.ImageSize}
			if grid.Area() != right.Area() { // not the tiles that are there
				return nil, false
			}
		}
		if next+1+grid.Area() > features.Shape[0] {
			return nil, false
		}
		image, ok := p.image(size, grid, side, func(tile int, at shapes.Size) []float32 {
			return features.Row((next+tile)*cells + at.H*side + at.W)
		}, newline.Data)
		if !ok {
			return nil, false
		}
		images = append(images, image)
		next += 1 + right.Area()
	}
	if p.images != nil {
		if len(images) < 2 {
			return nil, false
		}
		images = p.images(images)
	}
	return images, true
}

// image packs one image; cell reads one of its cells, tile 0 being the whole image.
func (p packer) image(size, grid shapes.Size, side int, cell func(tile int, at shapes.Size) []float32, newline []float32) ([][]float32, bool) {
	unpad := p.unpad
	if unpad == nil {
		unpad = preprocess.Unpad
	}
	offset, kept := unpad(size, shapes.Size{H: grid.H * side, W: grid.W * side})
	if offset.H < 0 || offset.W < 0 || kept.H < 0 || kept.W < 0 || offset.H+kept.H > grid.H*side || offset.W+kept.W > grid.W*side {
		return nil, false
	}
	var out [][]float32
	for i := range side * side {
		out = append(out, cell(0, shapes.Size{H: i / side, W: i % side}))
	}
	if p.newline == "zero" {
		newline = make([]float32, len(newline))
	}
	at := func(y, x int) []float32 {
		if p.cell != nil {
			tile, in := p.cell(grid, side, shapes.Size{H: y, W: x})
			return cell(1+tile, in)
		}
		place := shapes.Size{H: y / side, W: x / side}
		tile := place.H*grid.W + place.W
		if p.tile != nil {
			tile = p.tile(grid, place)
		}
		return cell(1+tile, shapes.Size{H: y % side, W: x % side})
	}
	if p.newline == "columns" {
		for x := offset.W; x < offset.W+kept.W; x++ {
			for y := offset.H; y < offset.H+kept.H; y++ {
				out = append(out, at(y, x))
			}
			out = append(out, newline)
		}
		return p.ordered(out, side), true
	}
	for y := offset.H; y < offset.H+kept.H; y++ {
		if p.newline == "before" {
			out = append(out, newline)
		}
		for x := offset.W; x < offset.W+kept.W; x++ {
			out = append(out, at(y, x))
		}
		if p.newline == "" || p.newline == "zero" || p.newline == "not last" && y+1 < offset.H+kept.H {
			out = append(out, newline)
		}
	}
	return p.ordered(out, side), true
}

func (p packer) ordered(image [][]float32, side int) [][]float32 {
	if p.order == nil {
		return image
	}
	return p.order(image, side*side)
}

// tensor is the packed rows as one tensor.
func tensor(list [][]float32) shapes.Tensor {
	y := shapes.Tensor{Shape: []int{len(list), len(list[0])}}
	for _, r := range list {
		y.Data = append(y.Data, r...)
	}
	return y
}

// unpadder unpads like Unpad, with its steps exchanged.
type unpadder struct {
	wide   func(ratio, grid float64) bool     // whether rows are cut and not columns
	scaled func(side, other, own float64) int // how many rows or columns the picture covers: of its side, when other of the grid meets own of the picture
	odd    bool                               // keep the exact number, with the odd one cut at the end
}

func (u unpadder) unpad(original, grid shapes.Size) (offset, kept shapes.Size) {
	wide, scaled := u.wide, u.scaled
	if wide == nil {
		wide = func(ratio, grid float64) bool { return ratio > grid }
	}
	if scaled == nil {
		scaled = func(side, other, own float64) int { return int(math.Floor(math.Round(side*(other/own)*1e7) / 1e7)) }
	}
	kept = grid
	if wide(float64(original.W)/float64(original.H), float64(grid.W)/float64(grid.H)) {
		offset.H, kept.H = u.cut(grid.H, scaled(float64(original.H), float64(grid.W), float64(original.W)))
	} else {
		offset.W, kept.W = u.cut(grid.W, scaled(float64(original.W), float64(grid.H), float64(original.H)))
	}
	return offset, kept
}

// cut is the slice [pad : n - pad] of n, pad = (n - kept) // 2, as Python has it: a number below 0 is counted from the end.
func (u unpadder) cut(n, kept int) (from, length int) {
	pad := (n - kept) >> 1
	to := n - pad
	if u.odd {
		to = pad + kept
	}
	within := func(i int) int {
		if i < 0 {
			i += n
		}
		return min(max(i, 0), n)
	}
	from = within(pad)
	return from, max(0, within(to)-from)
}

// canvasBy is SelectBestResolution with its rules changed.
func canvasBy(widthFirst, lastOfATie, canvasArea bool) func(original shapes.Size, pinpoints []shapes.Size) shapes.Size {
	return func(original shapes.Size, pinpoints []shapes.Size) shapes.Size {
		var best shapes.Size
		effective, waste := 0, 0
		for _, c := range pinpoints {
			if widthFirst {
				c = shapes.Size{H: c.W, W: c.H}
			}
			scale := min(float64(c.W)/float64(original.W), float64(c.H)/float64(original.H))
			most := original.Area()
			if canvasArea {
				most = c.Area()
			}
			e := min(int(float64(original.H)*scale)*int(float64(original.W)*scale), most)
			w := c.Area() - e
			if e > effective || e == effective && (best == shapes.Size{} || w < waste || lastOfATie && w == waste) {
				best, effective, waste = c, e, w
			}
		}
		return best
	}
}

// packing are the bugs of packing tiles to rows: K, and those of P that show there.
func packing() []Bug {
	// The canvas decides how many tiles there are, so a wrong one of the same area shows here and any other in the pixel values.
	bug := func(id, name, text, look string, p packer) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.PackImageFeatures), packer: &p, Make: func(s *Site) (*Alternative, error) {
			return s.packed(p)
		}}
	}
	swap := func(z shapes.Size) shapes.Size { return shapes.Size{H: z.W, W: z.H} }
	whole := func(_, grid shapes.Size) (offset, kept shapes.Size) { return shapes.Size{}, grid }
	single := unpadder{scaled: func(a, b, c float64) int { return int(float32(a) * (float32(b) / float32(c))) }}.unpad
	// One tile after another, as they are in memory.
	flat := func(grid shapes.Size, side int, at shapes.Size) (int, shapes.Size) {
		i := at.H*grid.W*side + at.W
		return i / (side * side), shapes.Size{H: i % (side * side) / side, W: i % side}
	}
	convention := func(b Bug, name string) Bug {
		b.Convention = name
		return b
	}
	return []Bug{
		bug("C09", "", "image_newline is all zeros", "whether image_newline was loaded", packer{newline: "zero"}),
		{ID: "C09", Name: "other", Text: "image_newline is another vector than the checkpoint's", Look: "whether image_newline was loaded, and where it is read from", Kinds: kinds(shapes.PackImageFeatures), Make: func(s *Site) (*Alternative, error) {
			newline, err := s.param(shapes.ImageNewline)
			if err != nil {
				return nil, err
			}
			list, ok := packer{}.rows(s, s.Inputs[0], newline)
			if !ok {
				return nil, nil
			}
			other := shapes.Tensor{Shape: newline.Shape, Data: slices.Clone(newline.Data)}
			for i := range other.Data { // what a mutant has for it
				other.Data[i] = float32(math.Sin(float64(i+1))) / 4
			}
			if s.Got.Shape != nil {
				if len(s.Got.Shape) != 2 || s.Got.Shape[0] != len(list) || s.Got.Shape[1] != len(list[0]) {
					return nil, nil
				}
				for i, r := range list {
					if &r[0] == &newline.Data[0] {
						other.Data = s.Got.Row(i)
						break
					}
				}
				if slices.Equal(other.Data, make([]float32, len(other.Data))) {
					return nil, nil // the case before says it better
				}
			}
			for i, r := range list {
				if &r[0] == &newline.Data[0] {
					list[i] = other.Data
				}
			}
			return s.moved(tensor(list))
		}},
		bug("K01", "", "there is no newline", "image_newline, after each row of cells of the grid", packer{newline: "none"}),
		bug("K03", "", "the newline stands before each row", "image_newline, after each row of cells of the grid", packer{newline: "before"}),
		bug("K05", "", "there is no newline after the last row", "image_newline, after each row of cells, the last one included", packer{newline: "not last"}),
		bug("K07", "last", "the whole image stands after the tiles", "the order of the two parts of an image", packer{order: func(image [][]float32, base int) [][]float32 { return slices.Concat(image[base:], image[:base]) }}),
		bug("K07", "left out", "the whole image is left out", "the first tile of an image is the whole picture", packer{order: func(image [][]float32, base int) [][]float32 { return image[base:] }}),
		bug("K07", "only", "only the whole image is there, without its tiles", "the tiles behind the whole picture", packer{order: func(image [][]float32, base int) [][]float32 { return image[:base] }}),
		bug("K08", "", "the tiles stand one after another and are not put together to one grid", "the permutation (0, 2, 1, 3) of [rows of tiles, columns of tiles, side, side] before rows are read", packer{cell: flat}),
		bug("K09", "", "rows and columns of the grid of tiles are exchanged", "image_sizes are (height, width), and so are the pinpoints", packer{cell: func(grid shapes.Size, side int, at shapes.Size) (int, shapes.Size) {
			// The grid read as W x H tiles, then viewed as the H x W grid in the order of memory.
			wrong := swap(grid)
			i := at.H*grid.W*side + at.W
			y, x := i/(wrong.W*side), i%(wrong.W*side)
			return y/side*wrong.W + x/side, shapes.Size{H: y % side, W: x % side}
		}}),
		bug("K09", "unpadded so", "rows and columns of the grid of tiles are exchanged, and it is unpadded as such", "image_sizes are (height, width), and so are the pinpoints", packer{canvas: func(o shapes.Size, p []shapes.Size) shapes.Size { return swap(preprocess.SelectBestResolution(o, p)) }}),
		bug("K09", "unpadded so, in float32", "rows and columns of the grid of tiles are exchanged, and it is unpadded as such, in float32: transformers 4.41 to 4.43 do both", "image_sizes are (height, width), and so are the pinpoints and what get_anyres_image_grid_shape gives",
			packer{canvas: func(o shapes.Size, p []shapes.Size) shapes.Size { return swap(preprocess.SelectBestResolution(o, p)) }, unpad: single}),
		bug("K10", "", "the grid is not unpadded", "unpad_image", packer{unpad: whole}),
		convention(bug("K11", "", "the new size is truncated without being rounded to 7 decimals first", "unpad_image, as it was before transformers 4.47: some sizes keep two rows or columns fewer",
			packer{unpad: unpadder{scaled: func(a, b, c float64) int { return int(a * (b / c)) }}.unpad}), "transformers before 4.47"),
		bug("K12", "", "the grid is unpadded in float32", "unpad_image computes in float64", packer{unpad: single}),
		bug("K13", "", "exactly as many rows or columns are kept as the picture covers, an odd one cut on one side", "unpad_image cuts the same number on both sides", packer{unpad: unpadder{odd: true}.unpad}),
		bug("K14", "", "the new size is rounded up", "unpad_image truncates", packer{unpad: unpadder{scaled: func(a, b, c float64) int { return int(math.Ceil(math.Round(a*(b/c)*1e7) / 1e7)) }}.unpad}),
		bug("K15", "", "the comparison of the two aspects is reversed", "unpad_image cuts rows where the picture is wider than the grid", packer{unpad: unpadder{wide: func(r, g float64) bool { return r < g }}.unpad}),
		bug("K16", "", "the scale is the inverse one", "unpad_image scales by grid over picture", packer{unpad: unpadder{scaled: func(a, b, c float64) int {
			if v := a * (c / b); v < b {
				return int(v)
			}
			return 0
		}}.unpad}),
		bug("K16", "whatever comes", "the scale is the inverse one, and what is longer than the grid is cut from its end", "unpad_image scales by grid over picture", packer{unpad: unpadder{scaled: func(a, b, c float64) int { return int(a * (c / b)) }}.unpad}),
		bug("K18", "", "the grid is read column by column, a newline after each column", "rows of cells, a newline after each row", packer{newline: "columns"}),
		bug("K20", "", "the aspect is height over width", "unpad_image compares width over height", packer{unpad: unpadder{wide: func(r, g float64) bool { return 1/r > g }}.unpad}),
		bug("K25", "", "the grid is unpadded at its end only", "unpad_image cuts the same number on both sides", packer{unpad: func(o, g shapes.Size) (shapes.Size, shapes.Size) {
			_, kept := preprocess.Unpad(o, g)
			return shapes.Size{}, kept
		}}),
		bug("K26", "", "where rows are cut, the end is counted back from the width of the grid and not from its height", "unpad_image keeps rows padding to height - padding", packer{unpad: func(o, g shapes.Size) (shapes.Size, shapes.Size) {
			offset, kept := preprocess.Unpad(o, g)
			if offset.H > 0 {
				kept.H = max(0, min(g.W-offset.H, g.H)-offset.H) // a slice in Python ends where the array does
			}
			return offset, kept
		}}),
		bug("K27", "", "the grid is neither unpadded nor given newlines", "mm_patch_merge_type is spatial_unpad: unpad_image, then image_newline after each row of cells", packer{unpad: whole, newline: "none"}),
		bug("K28", "", "the tiles stand one after another as they are: no grid, no unpadding, no newlines", "mm_patch_merge_type is spatial_unpad, not flat", packer{unpad: whole, newline: "none", cell: flat}),
		convention(bug("P01", "", "the canvas is chosen among pinpoints read as (width, height)", "the original LLaVA's own code reads them so: pictures of up to 336 pixels stand on the vertical canvas, with another number of newlines", packer{canvas: canvasBy(true, false, false)}), "the original LLaVA's canvas"),
		bug("P02", "", "width and height of image_sizes are exchanged", "image_sizes are (height, width)", packer{unpad: func(o, g shapes.Size) (shapes.Size, shapes.Size) { return preprocess.Unpad(swap(o), g) }}),
		bug("P03", "", "of two canvases that are equally good the later one is taken", "the first of equal canvases stands", packer{canvas: canvasBy(false, true, false)}),
		bug("P04", "", "effective pixels are limited by the canvas and not by the picture", "select_best_resolution takes the smaller of scaled and original pixels", packer{canvas: canvasBy(false, false, true)}),
		bug("P18", "", "the tiles are numbered column by column", "tiles are in reading order", packer{tile: func(grid, at shapes.Size) int { return at.W*grid.H + at.H }}),
		bug("K23", "", "the tiles are in the reverse order", "tiles are in reading order", packer{tile: func(grid, at shapes.Size) int { return grid.Area() - 1 - at.H*grid.W - at.W }}),
		bug("K24", "", "the cells within a tile are read column by column", "patches within a tile are in reading order", packer{cell: func(grid shapes.Size, side int, at shapes.Size) (int, shapes.Size) {
			return at.H/side*grid.W + at.W/side, shapes.Size{H: at.W % side, W: at.H % side}
		}}),
		bug("M02", "", "the images are packed in the reverse order", "images go by the order of their tokens", packer{images: func(images [][][]float32) [][][]float32 {
			y := slices.Clone(images)
			slices.Reverse(y)
			return y
		}}),
	}
}

// packed packs the node's features by changed rules; nil if the result is what the right rules give.
func (s *Site) packed(p packer) (*Alternative, error) {
	newline, err := s.param(shapes.ImageNewline)
	if err != nil {
		return nil, err
	}
	images, ok := p.each(s, s.Inputs[0], newline)
	list := slices.Concat(images...)
	if !ok || len(list) == 0 {
		return nil, nil
	}
	a, err := s.moved(tensor(list))
	if right, ok := (packer{}).each(s, s.Inputs[0], newline); ok && err == nil {
		a.effect, a.rows = effectOnRows(images, right)
	}
	return a, err
}

// effectOnRows says what another way to pack changes: the number of image tokens, or which rows there are. rows are those of each image, if their
// number is another one.
func effectOnRows(images, right [][][]float32) (effect string, rows []int) {
	is, should := slices.Concat(images...), slices.Concat(right...)
	if len(is) == len(should) {
		others := 0
		for i := range is {
			if &is[i][0] != &should[i][0] {
				others++
			}
		}
		return fmt.Sprintf("%d image tokens as it should be, %d of them with another row of features", len(is), others), nil
	}
	for _, image := range images {
		rows = append(rows, len(image))
	}
	return fmt.Sprintf("%d image tokens for %d", len(is), len(should)), rows
}

// imageRows is how many rows each image has in the prompt.
func (s *Site) imageRows() []int {
	side := s.Config.Vision.PatchesPerSide()
	var each []int
	for _, size := range s.Prompt.ImageSizes {
		n := side * side
		if s.Config.ModelType == shapes.LlavaNext {
			canvas := preprocess.SelectBestResolution(size, s.Config.GridPinpoints)
			_, kept := preprocess.Unpad(size, shapes.Size{H: canvas.H / s.Config.Vision.PatchSize, W: canvas.W / s.Config.Vision.PatchSize})
			n += kept.H * (kept.W + 1)
		}
		each = append(each, n)
	}
	return each
}

// merging are the bugs of the token embeddings and of putting image rows among them: M.
func merging() []Bug {
	merge := func(id, name, text, look string, make func(s *Site, embeds, features shapes.Tensor, at []int) (shapes.Tensor, bool)) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.MergeEmbeddings), Only: func(s *Site) bool { return s.Inputs[1].Shape != nil }, Make: func(s *Site) (*Alternative, error) {
			var at []int
			for t, id := range s.Prompt.InputIDs {
				if id == s.Config.ImageTokenID {
					at = append(at, t)
				}
			}
			embeds := shapes.Tensor{Shape: slices.Clone(s.Inputs[0].Shape), Data: slices.Clone(s.Inputs[0].Data)}
			y, ok := make(s, embeds, s.Inputs[1], at)
			if !ok || s.Inputs[1].Rows() < 1 {
				return nil, nil
			}
			return s.moved(y)
		}}
	}
	put := func(y, features shapes.Tensor, at []int, place func(i int) int) shapes.Tensor {
		for i := range min(len(at), features.Rows()) {
			if t := place(i); t >= 0 && t < y.Rows() {
				copy(y.Row(t), features.Row(i))
			}
		}
		return y
	}
	return []Bug{
		merge("M02", "merge", "the images stand in the reverse order", "images go by the order of their tokens", func(s *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			if s.Config.ModelType != shapes.Llava || f.Shape[0] < 2 {
				return y, false
			}
			each := f.Shape[1]
			return put(y, rows(f, f.Cols(), count(f.Rows(), func(i int) int { return (f.Shape[0]-1-i/each)*each + i%each })), at, func(i int) int { return at[i] }), true
		}),
		merge("M03", "", "no image token is recognised: the embeddings stay as they are", "image_token_index of this checkpoint", func(_ *Site, y, _ shapes.Tensor, _ []int) (shapes.Tensor, bool) { return y, true }),
		merge("M10", "late", "the image rows stand one position late", "the place where the image begins", func(_ *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			return put(y, f, at, func(i int) int { return at[i] + 1 }), true
		}),
		merge("M10", "early", "the image rows stand one position early", "the place where the image begins", func(_ *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			return put(y, f, at, func(i int) int { return at[i] - 1 }), true
		}),
		merge("M11", "", "the image rows are in the reverse order", "the order in which rows are put into the places of image tokens", func(_ *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			return put(y, f, at, func(i int) int { return at[len(at)-1-i] }), len(at) <= f.Rows()
		}),
		merge("M13", "", "every image has the rows of the first one", "which image's rows go to which image token", func(s *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			each := s.imageRows()
			if len(each) < 2 || slices.Max(each) != slices.Min(each) || each[0] == 0 || f.Rows() < len(at) {
				return y, false
			}
			return put(y, rows(f, f.Cols(), count(f.Rows(), func(i int) int { return i % each[0] })), at, func(i int) int { return at[i] }), true
		}),
		merge("M14", "", "the text behind the second image and each further one begins too early: a token for each image before it stands in front of the image", "whether the places of image tokens are counted with the image tokens before them", func(s *Site, y, f shapes.Tensor, at []int) (shapes.Tensor, bool) {
			each := s.imageRows()
			total := 0
			for _, n := range each {
				total += n
			}
			if len(each) < 2 || total != len(at) || f.Rows() < total {
				return y, false
			}
			text := shapes.Tensor{Shape: []int{y.Rows() - total, y.Cols()}}
			var before []int // how many text tokens stand before each image
			for t, id := range s.Prompt.InputIDs {
				if id != s.Config.ImageTokenID {
					text.Data = append(text.Data, y.Row(t)...)
				}
			}
			first := 0
			for _, n := range each {
				if n == 0 {
					return y, false
				}
				before = append(before, at[first]-first)
				first += n
			}
			z := shapes.Tensor{Shape: y.Shape}
			row, from := 0, 0
			for i, n := range each {
				if from > before[i]+i || before[i]+i > text.Rows() { // such an engine stops here
					return y, false
				}
				z.Data = append(z.Data, text.Data[from*y.Cols():(before[i]+i)*y.Cols()]...)
				for range n {
					z.Data = append(z.Data, f.Row(row)...)
					row++
				}
				from = before[i] + i
			}
			z.Data = append(z.Data, text.Data[from*y.Cols():]...)
			return z, true
		}),
		{ID: "M12", Text: "the image rows are added to the embeddings of the image tokens", Look: "rows replace the embeddings", Kinds: kinds(shapes.MergeEmbeddings), Only: func(s *Site) bool { return s.Inputs[1].Shape != nil }, Make: func(s *Site) (*Alternative, error) {
			y := shapes.Tensor{Shape: s.Inputs[0].Shape, Data: slices.Clone(s.Inputs[0].Data)}
			next := 0
			for t, id := range s.Prompt.InputIDs {
				if id == s.Config.ImageTokenID && next < s.Inputs[1].Rows() {
					for j, v := range s.Inputs[1].Row(next) {
						y.Row(t)[j] += v
					}
					next++
				}
			}
			a, err := s.moved(y)
			if err != nil {
				return nil, err
			}
			return a.rearranged(func(x []float32) []float32 { return x }, y.Shape, 1), nil
		}},
		{ID: "M07", Text: "the embeddings are scaled by the root of their width", Look: "this model does not scale its embeddings", Kinds: kinds(shapes.EmbedTokens), Make: func(s *Site) (*Alternative, error) {
			return s.scaled(math.Sqrt(float64(s.Config.Text.HiddenSize)))
		}},
		{ID: "M07", Name: "features", Text: "the image rows are scaled by the inverse root of their width", Look: "this model does not scale its image rows", Kinds: kinds(shapes.MergeEmbeddings), Only: func(s *Site) bool { return s.Inputs[1].Shape != nil }, Make: func(s *Site) (*Alternative, error) {
			f := shapes.Tensor{Shape: s.Inputs[1].Shape, Data: times(s.Inputs[1].Data, 1/math.Sqrt(float64(s.Config.Text.HiddenSize)))}
			a, err := s.reading(s.Inputs[0], f, shapes.Tensor{})
			if err != nil {
				return nil, err
			}
			return a.rearranged(func(x []float32) []float32 { return x }, a.Want.Shape, 1), nil
		}},
		{ID: "M07", Name: "float16", Text: "the image rows are rounded to float16 on the way", Look: "a cast of the image features to another dtype than the text's", Kinds: kinds(shapes.MergeEmbeddings), Only: func(s *Site) bool { return s.Inputs[1].Shape != nil }, Make: func(s *Site) (*Alternative, error) {
			f := shapes.Tensor{Shape: s.Inputs[1].Shape, Data: slices.Clone(s.Inputs[1].Data)}
			for i, v := range f.Data {
				f.Data[i] = half(v)
			}
			return s.reading(s.Inputs[0], f, shapes.Tensor{})
		}},
	}
}
