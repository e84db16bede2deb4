package preprocess

import (
	"fmt"

	"github.com/llavaref/llavaref/shapes"
)

// Image is an RGB image of 8 bits a channel: rows from the top, pixels from the left, red, green, blue, no gaps.
type Image struct {
	Size shapes.Size
	Pix  []uint8 // [H, W, 3], 0..255
}

// NewImage makes a black image.
func NewImage(size shapes.Size) Image {
	return Image{Size: size, Pix: make([]uint8, size.Area()*3)} // [H, W, 3]
}

// Row is row y of the image, [W, 3]. It shares the image's memory.
func (m Image) Row(y int) []uint8 {
	n := m.Size.W * 3
	return m.Pix[y*n : (y+1)*n : (y+1)*n]
}

// check refuses an image that no code here can work on: without a pixel, or with a size that is not that of its pixels.
func (m Image) check() error {
	if m.Size.H < 1 || m.Size.W < 1 {
		return fmt.Errorf("preprocess: image of %v pixels, want at least 1x1", m.Size)
	}
	if len(m.Pix)%3 != 0 || len(m.Pix)/3/m.Size.W != m.Size.H || len(m.Pix)/3%m.Size.W != 0 {
		return fmt.Errorf("preprocess: image of %v pixels has %d values, want height * width * 3", m.Size, len(m.Pix))
	}
	return nil
}

// Box is a part of an image: the position of its first row and column, and its size.
type Box struct {
	Top, Left int
	Size      shapes.Size
}

// Crop copies a part out of an image. The box must lie within.
func Crop(m Image, b Box) Image {
	out := NewImage(b.Size)
	for y := range b.Size.H {
		copy(out.Row(y), m.Row(b.Top + y)[b.Left*3:])
	}
	return out
}
