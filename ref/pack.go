package ref

import (
	"fmt"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// PackImageFeatures puts the tiles of each image together again and reads them row by row.
//
// features [N, P*P, C] of all images in order, newline [C] -> [R, C]. Of each image, first the tile of the whole picture,
// as it is; then the other tiles as one grid of Gh*P x Gw*P cells, cut to the cells that the picture covers, with the
// newline after every row of cells. sizes are the pictures' original sizes in pixels; they decide the grid.
// S13 to S18; pack_image_features, transformers 4.51. It is an error if the sizes ask for another number of tiles than there are.
func PackImageFeatures(c shapes.Config, features, newline Tensor, sizes []shapes.Size) (Tensor, error) {
	tiles, cells, width := features.Shape[0], features.Shape[1], features.Shape[2]
	side := c.Vision.PatchesPerSide() // P
	packed := Tensor{Shape: []int{0, width}}
	add := func(row []float32) {
		packed.Data = append(packed.Data, row...)
		packed.Shape[0]++
	}
	next := 0 // the first tile of the image at hand
	for i, size := range sizes {
		grid := TileGrid(c, size) // G
		if next+1+grid.Area() > tiles {
			return Tensor{}, fmt.Errorf("ref: pixel_values: %d tiles, but image %d of %v pixels ends at tile %d", tiles, i, size, next+1+grid.Area())
		}
		for cell := range cells {
			add(features.Row(next*cells + cell))
		}
		offset, kept := preprocess.Unpad(size, shapes.Size{H: grid.H * side, W: grid.W * side})
		for y := offset.H; y < offset.H+kept.H; y++ {
			for x := offset.W; x < offset.W+kept.W; x++ {
				tile := next + 1 + y/side*grid.W + x/side // tiles are in reading order
				add(features.Row(tile*cells + y%side*side + x%side))
			}
			add(newline.Data)
		}
		next += 1 + grid.Area()
	}
	if next != tiles {
		return Tensor{}, fmt.Errorf("ref: pixel_values: %d tiles, but the %d images have %d", tiles, len(sizes), next)
	}
	return packed, nil
}

// TileGrid is how many tiles the canvas of an image has, down and across.
func TileGrid(c shapes.Config, original shapes.Size) shapes.Size {
	canvas := preprocess.SelectBestResolution(original, c.GridPinpoints)
	return shapes.Size{H: canvas.H / c.Vision.ImageSize, W: canvas.W / c.Vision.ImageSize}
}

// MergeEmbeddings puts the rows of image features into the places of the image tokens, in order.
//
// embeds [T, C], features [R, C] or [N, S-1, C], ids [T] -> [T, C]. S20 to S22; masked_scatter in LlavaNextForConditionalGeneration,
// transformers 4.51, which likewise refuses a number of tokens that is not the number of rows.
func MergeEmbeddings(embeds, features Tensor, ids []int, imageToken int) (Tensor, error) {
	rows := 0
	if features.Shape != nil {
		rows = features.Rows()
	}
	y := shapes.NewTensor(embeds.Shape...) // [T, C]
	copy(y.Data, embeds.Data)
	next := 0
	for t, id := range ids {
		if id != imageToken {
			continue
		}
		if next < rows {
			copy(y.Row(t), features.Row(next))
		}
		next++
	}
	if next != rows {
		return Tensor{}, fmt.Errorf("ref: input_ids: %d image tokens (id %d), but %d rows of image features", next, imageToken, rows)
	}
	return y, nil
}
