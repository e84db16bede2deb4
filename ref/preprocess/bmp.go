package preprocess

import (
	"bytes"
	"fmt"
	"image"

	"golang.org/x/image/bmp"

	"github.com/llavaref/llavaref/shapes"
)

// decodeBMP reads a BMP without compression: 1, 4 and 8 bits with a palette, 24 and 32 bits. Alpha is dropped, as everywhere.
// What golang.org/x/image refuses (run lengths, masks, 16 bits, OS/2) is refused here too.
func decodeBMP(data []byte) (Picture, error) {
	c, err := bmp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return Picture{}, fmt.Errorf("bmp: %w", err)
	}
	const mostPixels = 8 // of 1 bit in a byte
	if err := checkClaim(shapes.Size{H: c.Height, W: c.Width}, len(data), mostPixels); err != nil {
		return Picture{}, fmt.Errorf("bmp: %w", err)
	}
	m, err := bmp.Decode(bytes.NewReader(data))
	if err != nil {
		return Picture{}, fmt.Errorf("bmp: %w", err)
	}
	p := Picture{Format: "bmp", Orientation: 1}
	switch m := m.(type) {
	case *image.NRGBA: // 32 bits
		p.Image = withoutAlpha(m)
	case *image.Paletted:
		for _, index := range m.Pix {
			if int(index) >= len(m.Palette) {
				return Picture{}, fmt.Errorf("bmp: colour %d of a palette of %d, which is not supported", index, len(m.Palette))
			}
		}
		p.Image = toRGB(m)
	default:
		p.Image = toRGB(m)
	}
	return p, nil
}
