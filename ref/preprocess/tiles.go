package preprocess

import "github.com/llavaref/llavaref/shapes"

// CutTiles cuts a canvas into square tiles in reading order: [Gh*px, Gw*px, 3] -> Gh*Gw of [px, px, 3].
// Rule I11: divide_to_patches in transformers' image_transforms.
func CutTiles(canvas Image, px int) []Image {
	var tiles []Image
	for y := 0; y < canvas.Size.H; y += px {
		for x := 0; x < canvas.Size.W; x += px {
			tiles = append(tiles, Crop(canvas, Box{Top: y, Left: x, Size: shapes.Size{H: px, W: px}})) // [px, px, 3]
		}
	}
	return tiles
}
