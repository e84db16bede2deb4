// Package preprocess turns images into what the model sees. The integers are exact: which canvas, which size, which padding.
package preprocess

import (
	"strconv"

	"github.com/llavaref/llavaref/shapes"
)

// SelectBestResolution chooses the canvas for an image, both in pixels: the one on which most of the image's own pixels
// survive, and of those the one that wastes least. Ties go to the first. An empty list gives the zero Size.
//
// select_best_resolution in transformers' image_processing_utils; float64 throughout, the scale first, then the products,
// each truncated. float32 chooses another canvas for some sizes (606x1211, width x height).
func SelectBestResolution(original shapes.Size, pinpoints []shapes.Size) shapes.Size {
	var best shapes.Size
	bestEffective, bestWaste := 0, 0
	for _, canvas := range pinpoints {
		scale := min(float64(canvas.W)/float64(original.W), float64(canvas.H)/float64(original.H))
		scaled := shapes.Size{H: int(float64(original.H) * scale), W: int(float64(original.W) * scale)}
		effective := min(scaled.Area(), original.Area())
		waste := canvas.Area() - effective
		if effective > bestEffective || effective == bestEffective && (best == shapes.Size{} || waste < bestWaste) {
			best, bestEffective, bestWaste = canvas, effective, waste
		}
	}
	return best
}

// Unpad says which cells of a feature grid belong to the image and not to the padding around it: the offset of the first
// kept row and column, and how many are kept. The same number is cut on both sides, so one cell of padding can stay.
//
// unpad_image in transformers' modeling_llava_next, from 4.47: float64, rounded to 7 decimals before it is truncated.
func Unpad(original, grid shapes.Size) (offset, kept shapes.Size) {
	kept = grid
	if float64(original.W)/float64(original.H) > float64(grid.W)/float64(grid.H) {
		h := truncate7(float64(original.H) * (float64(grid.W) / float64(original.W)))
		offset.H = (grid.H - h) / 2
		kept.H = grid.H - 2*offset.H
	} else {
		w := truncate7(float64(original.W) * (float64(grid.H) / float64(original.H)))
		offset.W = (grid.W - w) / 2
		kept.W = grid.W - 2*offset.W
	}
	return offset, kept
}

// truncate7 is Python's int(round(v, 7)).
func truncate7(v float64) int {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 7, 64), 64) // a number that was just formatted can be parsed
	return int(r)
}
