package replay

import (
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// Cells says what stands in each packed row of image features: the number of the cell, counted through all tiles, and -1 for a newline. None if the
// prompt has no image or its tiles do not fit its sizes.
func Cells(c shapes.Config, in shapes.Inputs) []int {
	if len(in.PixelValues.Shape) == 0 {
		return nil
	}
	features := shapes.NewTensor(in.PixelValues.Shape[0], c.FeaturesPerTile(), 1) // [N, S-1, 1]
	for i := range features.Data {
		features.Data[i] = float32(i) // exact up to 2^24 cells
	}
	packed := features
	if c.ModelType != shapes.Llava {
		var err error
		if packed, err = ref.PackImageFeatures(c, features, shapes.Tensor{Shape: []int{1}, Data: []float32{-1}}, in.ImageSizes); err != nil {
			return nil
		}
	}
	out := make([]int, len(packed.Data))
	for i, v := range packed.Data {
		out[i] = int(v)
	}
	return out
}

// Grid is how many tiles an image has, down and across, beside the whole.
func Grid(c shapes.Config, size shapes.Size) shapes.Size { return ref.TileGrid(c, size) }
