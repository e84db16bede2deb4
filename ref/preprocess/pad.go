package preprocess

import "github.com/llavaref/llavaref/shapes"

// Padding is how many rows and columns lie around an image on its canvas, in px. Where the canvas is smaller than the
// image they are negative, and that much of the image is cut off.
type Padding struct{ Top, Bottom, Left, Right int }

// Center is the padding of an image in the middle of a canvas; of an odd number the larger half goes to the bottom and to
// the right. Rule I10: _get_padding_size of transformers' LlavaNextImageProcessor, from 4.52.
func Center(image, canvas shapes.Size) Padding {
	top, left := (canvas.H-image.H)/2, (canvas.W-image.W)/2
	return Padding{Top: top, Bottom: canvas.H - image.H - top, Left: left, Right: canvas.W - image.W - left}
}

// Pad puts an image on a canvas of one colour: [H, W, 3] -> [Top+H+Bottom, Left+W+Right, 3]. The padding is not negative.
//
// Rule I10: _pad_for_patching of LlavaNextImageProcessor with black, which is 0 before normalisation and -mean/std after it;
// Rule I16: pad_to_square of LlavaImageProcessor with the mean colour.
func Pad(m Image, p Padding, colour [3]uint8) Image {
	out := NewImage(shapes.Size{H: p.Top + m.Size.H + p.Bottom, W: p.Left + m.Size.W + p.Right}) // [Top+H+Bottom, Left+W+Right, 3]
	if colour != [3]uint8{} {
		for i := range out.Pix {
			out.Pix[i] = colour[i%3]
		}
	}
	for y := range m.Size.H {
		copy(out.Row(p.Top + y)[p.Left*3:], m.Row(y))
	}
	return out
}

// square is the padding that makes a square of an image. pad_to_square of LlavaImageProcessor: half of the difference
// above or to the left, rounded down.
func square(image shapes.Size) Padding {
	side := max(image.H, image.W)
	return Center(image, shapes.Size{H: side, W: side})
}

// meanColour is the mean as a pixel, truncated: (122, 116, 104) with CLIP's.
func (c Config) meanColour() [3]uint8 {
	return [3]uint8{uint8(c.Mean[0] * 255), uint8(c.Mean[1] * 255), uint8(c.Mean[2] * 255)}
}
