package preprocess

import (
	"math"
	"strconv"

	"github.com/llavaref/llavaref/shapes"
)

// SelectBestResolution chooses the canvas for an image, both in pixels: the one on which most of the image's own pixels
// survive, and of those the one that wastes least. Ties go to the first. An empty list gives the zero Size.
//
// Rule I7: select_best_resolution in transformers' image_processing_utils; float64 throughout, the scale first, then the products,
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

// FitCanvas is the size of an image scaled onto a canvas with its proportions kept: one side is the canvas's, the other is
// rounded up.
//
// Rule I8: get_patch_output_size in transformers' image_processing_utils; float64. The product is rounded to float64 before it is
// rounded up, so its noise counts: 72x27 (width x height) becomes 253 high on a canvas 672 wide, where 27*672/72 is 252.
func FitCanvas(original, canvas shapes.Size) shapes.Size {
	scaleW := float64(canvas.W) / float64(original.W)
	scaleH := float64(canvas.H) / float64(original.H)
	if scaleW < scaleH {
		return shapes.Size{H: min(int(math.Ceil(float64(original.H)*scaleW)), canvas.H), W: canvas.W}
	}
	return shapes.Size{H: canvas.H, W: min(int(math.Ceil(float64(original.W)*scaleH)), canvas.W)}
}

// FitEdge is the size of an image scaled so that its short side has edge pixels; the long side is rounded down.
//
// Rule I15: get_resize_output_image_size in transformers' image_transforms, default_to_square=False: a product of integers, divided
// in float64, truncated.
func FitEdge(original shapes.Size, edge int) shapes.Size {
	if original.W <= original.H {
		return shapes.Size{H: int(float64(edge*original.H) / float64(original.W)), W: edge}
	}
	return shapes.Size{H: edge, W: int(float64(edge*original.W) / float64(original.H))}
}

// Unpad says which cells of a feature grid belong to the image and not to the padding around it: the offset of the first
// kept row and column, and how many are kept. The same number is cut on both sides, so one cell of padding can stay.
//
// Rule S17: unpad_image in transformers' modeling_llava_next, from 4.47: float64, rounded to 7 decimals before it is truncated.
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

// truncate7 is Python's int(round(v, 7)) for v >= 0: rounding to 7 decimals moves v by at most half of 1e-7, so it can
// reach the next integer only from right below it, and it never falls below an integer that v has reached.
func truncate7(v float64) int {
	n := int(v)
	if v-float64(n) < 1-1e-6 {
		return n
	}
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 7, 64), 64) // a number that was just formatted can be parsed
	return int(r)
}
