package preprocess

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/llavaref/llavaref/shapes"
)

// pngFile is what stands in the chunks of a PNG.
type pngFile struct {
	size       shapes.Size
	depth      int // bits of a sample: 1, 2, 4, 8 or 16
	colour     int // grey, trueColour, palette, greyAlpha or trueAlpha
	interlaced bool
	palette    []byte // red, green, blue
	data       []byte // the compressed image data, which may be cut into many chunks
	begun      bool   // the first of them was seen
	ended      bool   // another chunk came after it
	metadata
}

// Colour types of PNG.
const (
	grey       = 0
	trueColour = 2
	paletted   = 3
	greyAlpha  = 4
	trueAlpha  = 6
)

// decodePNG reads a PNG as Pillow's PngImagePlugin and then convert("RGB") do, 10.4 to 13.0: alpha is dropped, grey of 16
// bits is clipped at 255 and not scaled, of other samples of 16 bits the high byte counts, gamma and colour profiles
// do not. Of an APNG it is the first image. A missing IEND and what follows it do not matter.
//
// The standard library's image/png scales grey of 16 bits, wants an IEND and does not see EXIF.
func decodePNG(data []byte) (Picture, error) {
	f, err := readPNG(data)
	if err != nil {
		return Picture{}, fmt.Errorf("png: %w", err)
	}
	orientation, err := f.orientation()
	if err != nil {
		return Picture{}, fmt.Errorf("png: %w", err)
	}
	m, err := f.image()
	if err != nil {
		return Picture{}, fmt.Errorf("png: %w", err)
	}
	return Picture{Image: m, Format: "png", Orientation: orientation}, nil
}

// readPNG walks over the chunks. As in Pillow, the checksum of a chunk counts before the image data, not from there on.
func readPNG(data []byte) (*pngFile, error) {
	f := &pngFile{}
	animated := false
	at := 8
	for chunk := 0; ; chunk++ {
		if len(data)-at < 8 {
			if f.begun {
				return f, nil
			}
			return nil, errors.New("truncated: no image data")
		}
		length, id := int64(binary.BigEndian.Uint32(data[at:])), string(data[at+4:at+8])
		at += 8
		if !isChunkID(id) {
			if f.begun {
				return f, nil
			}
			return nil, fmt.Errorf("chunk %q, want four letters", id)
		}
		if id == "IEND" || id == "fcTL" && animated && f.begun {
			if !f.begun {
				return nil, errors.New("no image data")
			}
			return f, nil
		}
		if length > int64(len(data)-at) {
			return nil, fmt.Errorf("truncated: chunk %q of %d bytes, %d left", id, length, len(data)-at)
		}
		body := data[at : at+int(length)]
		at += int(length)
		if !f.begun && id != "IDAT" {
			if len(data)-at < 4 || binary.BigEndian.Uint32(data[at:]) != crc32.Update(crc32.ChecksumIEEE([]byte(id)), crc32.IEEETable, body) {
				return nil, fmt.Errorf("chunk %q: wrong checksum", id)
			}
		}
		at = min(at+4, len(data))
		if id == "acTL" && !f.begun && len(body) >= 8 {
			animated = binary.BigEndian.Uint32(body) > 1
		}
		if err := f.chunk(id, body); err != nil {
			return nil, fmt.Errorf("chunk %q: %w", id, err)
		}
	}
}

func isChunkID(id string) bool {
	for _, c := range []byte(id) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

// chunk takes in one chunk. A chunk that does not matter here still has to have the length that Pillow wants of it.
func (f *pngFile) chunk(id string, body []byte) error {
	shortest := map[string]int{"IHDR": 13, "gAMA": 4, "sRGB": 1, "pHYs": 9, "acTL": 8, "fcTL": 26, "fdAT": 4}[id]
	if len(body) < shortest {
		return fmt.Errorf("%d bytes, want at least %d", len(body), shortest)
	}
	f.ended = f.ended || f.begun && id != "IDAT"
	switch id {
	case "IHDR":
		return f.header(body)
	case "PLTE":
		if f.colour == paletted && len(body) > 3*256 {
			return fmt.Errorf("%d bytes, want at most %d", len(body), 3*256)
		}
		if !f.begun {
			f.palette = body
		}
	case "tRNS":
		if want := map[int]int{grey: 2, trueColour: 6}[f.colour]; len(body) < want {
			return fmt.Errorf("%d bytes, want at least %d", len(body), want)
		}
	case "cHRM":
		if len(body)%4 != 0 {
			return fmt.Errorf("%d bytes, want a multiple of 4", len(body))
		}
	case "fcTL":
		if !f.begun {
			return f.frame(body)
		}
	case "fdAT":
		if !f.begun {
			return errors.New("in front of the image data")
		}
	case "IDAT":
		if f.size == (shapes.Size{}) {
			return errors.New("in front of IHDR")
		}
		f.begun = true
		if !f.ended {
			f.data = append(f.data, body...)
		}
	case "eXIf":
		f.exif = body
	case "tEXt", "zTXt", "iTXt":
		return f.text(id, body)
	}
	return nil
}

func (f *pngFile) header(body []byte) error {
	if f.size != (shapes.Size{}) {
		return errors.New("second one")
	}
	f.depth, f.colour, f.interlaced = int(body[8]), int(body[9]), body[12] != 0
	depths := map[int]string{grey: "\x01\x02\x04\x08\x10", trueColour: "\x08\x10", paletted: "\x01\x02\x04\x08", greyAlpha: "\x08\x10", trueAlpha: "\x08\x10"}[f.colour]
	if !bytes.Contains([]byte(depths), body[8:9]) {
		return fmt.Errorf("depth %d of colour type %d, which does not exist", body[8], body[9])
	}
	if body[11] != 0 {
		return fmt.Errorf("filter method %d, want 0", body[11])
	}
	w, h := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	if w > maxPixels || h > maxPixels {
		return fmt.Errorf("size %dx%d, want at most %d pixels (Pillow's limit)", h, w, maxPixels)
	}
	f.size = shapes.Size{H: int(h), W: int(w)}
	return checkSize(f.size)
}

// frame refuses an APNG whose first frame is a part of the image only.
func (f *pngFile) frame(body []byte) error {
	w, h := binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:])
	x, y := binary.BigEndian.Uint32(body[12:]), binary.BigEndian.Uint32(body[16:])
	if x != 0 || y != 0 || int(w) != f.size.W || int(h) != f.size.H {
		return fmt.Errorf("first frame of %dx%d pixels at %d, %d does not fill the %v image, which is not supported", h, w, y, x, f.size)
	}
	return nil
}

// text reads the two texts that can hold an orientation.
func (f *pngFile) text(id string, body []byte) error {
	key, value, found := bytes.Cut(body, []byte{0})
	profile, xmp := string(key) == "Raw profile type exif", string(key) == "XML:com.adobe.xmp"
	if !found || !profile && !xmp {
		return nil
	}
	packed := id == "zTXt"
	switch {
	case packed && (len(value) == 0 || value[0] != 0):
		return errors.New("unknown compression method")
	case packed:
		value = value[1:]
	case id == "iTXt":
		if len(value) < 2 || value[0] != 0 && value[1] != 0 {
			return nil
		}
		packed = value[0] != 0
		parts := bytes.SplitN(value[2:], []byte{0}, 3) // language, translated key, text
		if len(parts) < 3 {
			return nil
		}
		value = parts[2]
	}
	if packed {
		text, err := inflateText(value)
		if err != nil {
			return err
		}
		value = text
	}
	if xmp {
		f.xmp = value
		return nil
	}
	if f.exif != nil {
		return nil // eXIf counts more
	}
	exif, err := rawProfile(value)
	f.exif = exif
	return err
}

// inflateText unpacks at most a MiB; more than that is an error to Pillow too. Broken text counts as none.
func inflateText(packed []byte) ([]byte, error) {
	const limit = 1 << 20
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(z, limit+1))
	if len(text) > limit {
		return nil, fmt.Errorf("text of more than %d bytes", limit)
	}
	if err != nil {
		return nil, nil
	}
	return text, nil
}

// samples is how many numbers a pixel has.
func (f *pngFile) samples() int {
	return map[int]int{grey: 1, trueColour: 3, paletted: 1, greyAlpha: 2, trueAlpha: 4}[f.colour]
}

// pass is one of the images that a PNG is made of: pixels left, left+stepX, ... of rows top, top+stepY, ...
type pass struct{ top, left, stepY, stepX int }

// Adam7.
var passes = []pass{{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4}, {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}}

// size is how much of an image belongs to a pass.
func (p pass) size(image shapes.Size) shapes.Size {
	return shapes.Size{H: max(0, (image.H-p.top+p.stepY-1)/p.stepY), W: max(0, (image.W-p.left+p.stepX-1)/p.stepX)}
}

// image unpacks the image data: zlib, then row by row the filter, then the samples.
func (f *pngFile) image() (Image, error) {
	order := []pass{{0, 0, 1, 1}}
	if f.interlaced {
		order = passes
	}
	bits := f.samples() * f.depth // of a pixel
	rowBytes := func(width int) int { return (width*bits + 7) / 8 }

	raw := 0
	for _, p := range order {
		part := p.size(f.size)
		if part.W > 0 {
			raw += part.H * (1 + rowBytes(part.W))
		}
	}
	const ratio = 1032 // zlib cannot pack more into a byte
	if raw/ratio > len(f.data) {
		return Image{}, fmt.Errorf("truncated: %d bytes of image data, want %d unpacked", len(f.data), raw)
	}
	z, err := zlib.NewReader(bytes.NewReader(f.data))
	if err != nil {
		return Image{}, fmt.Errorf("image data: %w", err)
	}
	out := NewImage(f.size) // [H, W, 3]
	for _, p := range order {
		part := p.size(f.size)
		if part.W == 0 {
			continue
		}
		n := rowBytes(part.W)
		row, above := make([]byte, 1+n), make([]byte, 1+n) // a filter type, then the samples
		for y := range part.H {
			if _, err := io.ReadFull(z, row); err != nil {
				return Image{}, fmt.Errorf("image data: row %d of %d: %w", y, part.H, endless(err))
			}
			if err := unfilter(row[0], row[1:], above[1:], max(bits/8, 1)); err != nil {
				return Image{}, fmt.Errorf("image data: row %d: %w", y, err)
			}
			f.pixels(out.Row(p.top + y*p.stepY)[3*p.left:], 3*p.stepX, row[1:], part.W)
			row, above = above, row
		}
	}
	// Pillow does not look for the end of the data either, but sees a wrong checksum or a broken block if one follows.
	if _, err := io.ReadFull(z, make([]byte, 1)); err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Image{}, fmt.Errorf("image data: %w", err)
	}
	return out, nil
}

// endless is the error of data that ends too early.
func endless(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unfilter undoes the prediction of a row from the pixel at its left, size bytes before, and from the row above it.
func unfilter(filter byte, row, above []byte, size int) error {
	switch filter {
	case 0:
	case 1:
		for i := size; i < len(row); i++ {
			row[i] += row[i-size]
		}
	case 2:
		for i := range row {
			row[i] += above[i]
		}
	case 3:
		for i := range row {
			left := 0
			if i >= size {
				left = int(row[i-size])
			}
			row[i] += uint8((left + int(above[i])) / 2)
		}
	case 4:
		for i := range row {
			var left, corner int
			if i >= size {
				left, corner = int(row[i-size]), int(above[i-size])
			}
			row[i] += paeth(left, int(above[i]), corner)
		}
	default:
		return fmt.Errorf("filter %d, want 0 to 4", filter)
	}
	return nil
}

// paeth is whichever of left, above and corner is nearest to left + above - corner.
func paeth(left, above, corner int) uint8 {
	byLeft, byAbove, byCorner := abs(above-corner), abs(left-corner), abs(left+above-2*corner)
	switch {
	case byLeft <= byAbove && byLeft <= byCorner:
		return uint8(left)
	case byAbove <= byCorner:
		return uint8(above)
	}
	return uint8(corner)
}

func abs(v int) int { return max(v, -v) }

// pixels turns a row of samples into red, green and blue, step bytes from one pixel to the next.
func (f *pngFile) pixels(out []uint8, step int, row []byte, width int) {
	for x := range width {
		px := out[x*step:][:3]
		switch f.colour {
		case grey:
			v := f.sample(row, x)
			switch f.depth {
			case 16:
				v = min(v, 255)
			default:
				v *= 255 / (1<<f.depth - 1)
			}
			px[0], px[1], px[2] = uint8(v), uint8(v), uint8(v)
		case greyAlpha:
			v := row[x*2*f.depth/8] // the high byte of 16 bits
			px[0], px[1], px[2] = v, v, v
		case paletted:
			f.entry(px, f.sample(row, x))
		default:
			size := f.depth / 8
			at := row[x*f.samples()*size:]
			px[0], px[1], px[2] = at[0], at[size], at[2*size]
		}
	}
}

// sample is number i of a row of single samples.
func (f *pngFile) sample(row []byte, i int) int {
	switch f.depth {
	case 8:
		return int(row[i])
	case 16:
		return int(binary.BigEndian.Uint16(row[2*i:]))
	}
	perByte := 8 / f.depth
	return int(row[i/perByte]) >> (8 - f.depth*(1+i%perByte)) & (1<<f.depth - 1)
}

// entry is a colour of the palette; black beyond its end.
func (f *pngFile) entry(px []uint8, index int) {
	if 3*index+2 < len(f.palette) {
		copy(px, f.palette[3*index:][:3])
	}
}
