package preprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"

	"golang.org/x/image/vp8l"

	"github.com/llavaref/llavaref/shapes"
)

// decodeWebP reads a WebP without loss, which has one decoding. Of one with loss, decoders differ in most pixels, and of an
// animation Pillow composes the first frame: both are refused.
func decodeWebP(data []byte) (Picture, error) {
	p, err := losslessWebP(data)
	if err != nil {
		return Picture{}, fmt.Errorf("webp: %w", err)
	}
	return p, nil
}

func losslessWebP(data []byte) (Picture, error) {
	if size := uint64(binary.LittleEndian.Uint32(data[4:])); size+8 > uint64(len(data)) {
		return Picture{}, fmt.Errorf("truncated: %d bytes of %d", len(data), size+8)
	}
	var pixels []byte
	var meta metadata
	canvas := shapes.Size{} // if the file has one
	for at := 12; at+8 <= len(data); {
		name, length := string(data[at:at+4]), uint64(binary.LittleEndian.Uint32(data[at+4:]))
		at += 8
		if length > uint64(len(data)-at) {
			return Picture{}, fmt.Errorf("truncated: chunk %q of %d bytes", name, length)
		}
		body := data[at : at+int(length)]
		at += int(length + length&1)
		switch name {
		case "VP8 ":
			return Picture{}, errors.New("lossy WebP is not supported, since decoders differ by tens of grey levels; want a PNG, or a WebP without loss")
		case "ANIM", "ANMF":
			return Picture{}, errors.New("animated WebP is not supported, want a single image")
		case "VP8L":
			if pixels != nil {
				return Picture{}, errors.New("two images, want one")
			}
			pixels = body
		case "VP8X":
			if len(body) != 10 || canvas != (shapes.Size{}) || pixels != nil {
				return Picture{}, fmt.Errorf("chunk VP8X of %d bytes, want one of 10 in front of the image", len(body))
			}
			three := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
			canvas = shapes.Size{H: three(body[7:]) + 1, W: three(body[4:]) + 1}
		case "EXIF":
			meta.exif = body
		case "XMP ":
			meta.xmp = body
		}
	}
	if pixels == nil {
		return Picture{}, errors.New("no image data")
	}
	c, err := vp8l.DecodeConfig(bytes.NewReader(pixels))
	if err != nil {
		return Picture{}, err
	}
	size := shapes.Size{H: c.Height, W: c.Width}
	if canvas != (shapes.Size{}) && canvas != size {
		return Picture{}, fmt.Errorf("image %v does not fill the canvas %v, which is not supported", size, canvas)
	}
	// A colour that is the only one takes no bits at all, so that a few bytes can claim any size; no more is believed than
	// a run of 4096 pixels for every byte.
	if err := checkClaim(size, len(pixels), 4096); err != nil {
		return Picture{}, err
	}
	orientation, err := meta.orientation()
	if err != nil {
		return Picture{}, err
	}
	m, err := vp8l.Decode(bytes.NewReader(pixels))
	if err != nil {
		return Picture{}, err
	}
	plain, ok := m.(*image.NRGBA)
	if !ok {
		return Picture{}, fmt.Errorf("decoded as %T, want *image.NRGBA", m)
	}
	return Picture{Image: withoutAlpha(plain), Format: "webp", Orientation: orientation}, nil
}

// withoutAlpha takes the colours of an image as they are, also where it is transparent.
func withoutAlpha(m *image.NRGBA) Image {
	out := NewImage(shapes.Size{H: m.Rect.Dy(), W: m.Rect.Dx()})
	for y := range out.Size.H {
		row, from := out.Row(y), m.Pix[y*m.Stride:]
		for x := range out.Size.W {
			copy(row[3*x:3*x+3], from[4*x:4*x+3])
		}
	}
	return out
}
