package preprocess

import "github.com/llavaref/llavaref/shapes"

// normalTable is what each of the 256 values of a channel becomes: [3, 256].
//
// Rule I18. Pillow: rescale and normalize in transformers' image_transforms. The product with the factor is float64, rounded to
// float32; mean and deviation are float32, and so are the subtraction and the division.
// Torchvision: _fuse_mean_std_and_rescale_factor and normalize, float32 throughout: mean and deviation are multiplied by
// 1/factor, and the value stays 0..255. It differs from the other in the last bits of most entries.
func (c Config) normalTable(v Variant) [3][256]float32 {
	var t [3][256]float32 // [3, 256]
	for channel := range 3 {
		mean, std := float32(c.Mean[channel]), float32(c.Std[channel])
		if v == Torchvision {
			mean *= float32(1 / c.RescaleFactor)
			std *= float32(1 / c.RescaleFactor)
		}
		for u := range 256 {
			x := float32(float64(u) * c.RescaleFactor)
			if v == Torchvision {
				x = float32(u)
			}
			t[channel][u] = (x - mean) / std
		}
	}
	return t
}

// normalize turns tiles into what the vision tower takes: rescaled, normalised, one channel after the other.
//
// tiles N of [px, px, 3], 0..255 -> [N, 3, px, px].
func normalize(tiles []Image, table [3][256]float32) shapes.Tensor {
	px := tiles[0].Size
	y := shapes.NewTensor(len(tiles), 3, px.H, px.W) // [N, 3, px, px]
	bands(len(tiles)*3, func(from, to int) {
		for plane := from; plane < to; plane++ {
			pix, channel := tiles[plane/3].Pix, plane%3
			out := y.Data[plane*px.Area():][:px.Area()] // [px, px]
			for i := range out {
				out[i] = table[channel][pix[3*i+channel]]
			}
		}
	})
	return y
}
