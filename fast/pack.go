package fast

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/llavaref/llavaref/shapes"
)

// imagePlan says what the images of a prompt are made of.
type imagePlan struct {
	tiles int
	rows  []int32 // of the features [N*(S-1), C], in the order of the image tokens; newlineRow is image_newline
}

const newlineRow = -1

// maxPosition bounds the angles of the rotary embedding.
const maxPosition = 1 << 20

// plan holds a prompt against the model: shapes, counts, ranges, and image tokens against rows of features.
// first says that nothing comes before the prompt.
func (m *Llava) plan(in shapes.Inputs, first bool) (imagePlan, error) {
	c := m.config
	refuse := func(format string, args ...any) (imagePlan, error) {
		return imagePlan{}, fmt.Errorf("fast: "+format, args...)
	}
	if len(in.InputIDs) == 0 {
		return refuse("input_ids: empty, want at least one token")
	}
	if len(in.PositionIDs) != len(in.InputIDs) {
		return refuse("position_ids: %d, want one for each of %d input_ids", len(in.PositionIDs), len(in.InputIDs))
	}
	tokens := 0
	for t, id := range in.InputIDs {
		if id < 0 || id >= c.Text.VocabSize {
			return refuse("input_ids[%d]: %d, want 0 to %d", t, id, c.Text.VocabSize-1)
		}
		if p := in.PositionIDs[t]; p < 0 || p > maxPosition {
			return refuse("position_ids[%d]: %d, want 0 to %d", t, p, maxPosition)
		}
		if id == c.ImageTokenID {
			tokens++
		}
	}
	px, v := in.PixelValues, c.Vision
	if px.Shape == nil {
		if len(in.ImageSizes) > 0 {
			return refuse("image_sizes: %d images, but no pixel_values", len(in.ImageSizes))
		}
		if first && tokens > 0 {
			return refuse("input_ids: %d image tokens (id %d), but 0 rows of image features", tokens, c.ImageTokenID)
		}
		return imagePlan{}, nil
	}
	want := []int{v.NumChannels, v.ImageSize, v.ImageSize}
	if len(px.Shape) != 4 || px.Shape[0] < 1 || px.Shape[0] > len(px.Data) || !slices.Equal(px.Shape[1:], want) || len(px.Data) != shapes.Product(px.Shape) {
		return refuse("pixel_values: shape %v with %d values, want [N %d %d %d]", px.Shape, len(px.Data), want[0], want[1], want[2])
	}
	if c.ModelType == shapes.LlavaNext && len(in.ImageSizes) == 0 {
		return refuse("image_sizes: none, want one for each image")
	}
	for i, s := range in.ImageSizes {
		if s.H < 1 || s.W < 1 || s.H > 1<<24 || s.W > 1<<24 {
			return refuse("image_sizes[%d]: %v pixels, want at least 1x1", i, s)
		}
	}
	p := imagePlan{tiles: px.Shape[0]}
	var err error
	if c.ModelType == shapes.Llava {
		for i := range p.tiles * c.FeaturesPerTile() {
			p.rows = append(p.rows, int32(i))
		}
	} else if p.rows, err = packImageFeatures(c, in.ImageSizes, p.tiles); err != nil {
		return imagePlan{}, err
	}
	if tokens != len(p.rows) {
		return refuse("input_ids: %d image tokens (id %d), but %d rows of image features", tokens, c.ImageTokenID, len(p.rows))
	}
	return p, nil
}

// packImageFeatures lists the rows that pack_image_features makes of all tiles: of each image, first the tile of the whole picture,
// then the other tiles as one grid, cut to the cells that the picture covers, with the newline after every row of cells (S13 to S18).
func packImageFeatures(c shapes.Config, sizes []shapes.Size, tiles int) ([]int32, error) {
	side := c.Vision.PatchesPerSide()
	cells := side * side
	var out []int32
	next := 0 // the first tile of the image at hand
	for i, size := range sizes {
		canvas := bestResolution(size, c.GridPinpoints)
		grid := shapes.Size{H: canvas.H / c.Vision.ImageSize, W: canvas.W / c.Vision.ImageSize}
		if next+1+grid.Area() > tiles {
			return nil, fmt.Errorf("fast: pixel_values: %d tiles, but image %d of %v pixels ends at tile %d", tiles, i, size, next+1+grid.Area())
		}
		for cell := range cells {
			out = append(out, int32(next*cells+cell))
		}
		offset, kept := unpad(size, shapes.Size{H: grid.H * side, W: grid.W * side})
		for y := offset.H; y < offset.H+kept.H; y++ {
			for x := offset.W; x < offset.W+kept.W; x++ {
				tile := next + 1 + y/side*grid.W + x/side
				out = append(out, int32(tile*cells+y%side*side+x%side))
			}
			out = append(out, newlineRow)
		}
		next += 1 + grid.Area()
	}
	if next != tiles {
		return nil, fmt.Errorf("fast: pixel_values: %d tiles, but the %d images have %d", tiles, len(sizes), next)
	}
	return out, nil
}

// bestResolution is transformers' select_best_resolution: the canvas on which most of the image's own pixels survive, and of those the
// one that wastes least; the first of equals. Its order of float64 operations decides some sizes.
func bestResolution(image shapes.Size, canvases []shapes.Size) (best shapes.Size) {
	most, least := -1, 0
	for _, canvas := range canvases {
		scale := min(float64(canvas.W)/float64(image.W), float64(canvas.H)/float64(image.H))
		scaled := int(float64(image.W)*scale) * int(float64(image.H)*scale)
		effective := min(scaled, image.Area())
		waste := canvas.Area() - effective
		if effective > most || effective == most && waste < least {
			best, most, least = canvas, effective, waste
		}
	}
	return best
}

// unpad is unpad_image of transformers' modeling_llava_next: the first row and column of the grid that belong to the image, and how many do.
func unpad(image, grid shapes.Size) (offset, kept shapes.Size) {
	kept = grid
	round := func(v float64) int { // int(round(v, 7)), where only the last bits below an integer can matter
		if v-float64(int(v)) > 1-1e-6 {
			v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'f', 7, 64), 64)
		}
		return int(v)
	}
	if float64(image.W)/float64(image.H) > float64(grid.W)/float64(grid.H) {
		offset.H = (grid.H - round(float64(image.H)*(float64(grid.W)/float64(image.W)))) / 2
		kept.H -= 2 * offset.H
	} else {
		offset.W = (grid.W - round(float64(image.W)*(float64(grid.H)/float64(image.H)))) / 2
		kept.W -= 2 * offset.W
	}
	return offset, kept
}
