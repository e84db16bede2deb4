package preprocess

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"io"
	"os"

	"github.com/llavaref/llavaref/shapes"
)

// maxImageFile is how many bytes of a file are read: as many as the largest PNG that is accepted can need.
const maxImageFile = maxPixels*8 + 1<<20

// Picture is an image that was read from a file.
type Picture struct {
	Image
	Format      string // "png", "bmp", "gif", "jpeg" or "webp"
	Orientation int    // the EXIF orientation that was applied, 1 to 8; 1 is none
	Warning     string // why other libraries may read other pixels from the file; empty if they do not
}

// ReadImage reads a PNG, a BMP, a GIF, a JPEG or a lossless WebP as load_image of transformers 4.39 to 5.23 does with Pillow when it is given a path:
// the first frame, turned as its EXIF orientation says, as RGB without its alpha.
func ReadImage(path string) (Picture, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Picture{}, fmt.Errorf("preprocess: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Picture{}, fmt.Errorf("preprocess: %s is not a regular file", path)
	}
	if info.Size() > maxImageFile {
		return Picture{}, fmt.Errorf("preprocess: %s has %d bytes, want at most %d", path, info.Size(), int64(maxImageFile))
	}
	f, err := os.Open(path)
	if err != nil {
		return Picture{}, fmt.Errorf("preprocess: %w", err)
	}
	defer f.Close()
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return Picture{}, fmt.Errorf("preprocess: %s: %w", path, err)
	}
	p, err := DecodeImage(data)
	if err != nil {
		return Picture{}, fmt.Errorf("preprocess: %s: %w", path, err)
	}
	return p, nil
}

// DecodeImage reads the bytes of an image file; its name does not matter. The size is read and checked before memory is
// asked for, and a file that is too short for what it claims is refused before that, too.
func DecodeImage(data []byte) (Picture, error) {
	var p Picture
	var err error
	switch format := sniff(data); format {
	case "png":
		p, err = decodePNG(data)
	case "gif":
		p, err = decodeGIF(data)
	case "jpeg":
		p, err = decodeJPEG(data)
	case "bmp":
		p, err = decodeBMP(data)
	case "webp":
		p, err = decodeWebP(data)
	case "":
		err = fmt.Errorf("starts with %q, want a PNG, a BMP, a GIF, a JPEG or a WebP", data[:min(len(data), 8)])
	default:
		err = fmt.Errorf("%s is not supported, want a PNG, a BMP, a GIF, a JPEG or a WebP", format)
	}
	if err != nil {
		return Picture{}, err
	}
	p.Image = orient(p.Image, p.Orientation)
	return p, nil
}

// sniff names the format of a file by its first bytes; empty if it is none of those that it knows.
func sniff(data []byte) string {
	starts := func(magic string) bool { return bytes.HasPrefix(data, []byte(magic)) }
	switch {
	case starts("\x89PNG\r\n\x1a\n"):
		return "png"
	case starts("GIF87a"), starts("GIF89a"):
		return "gif"
	case starts("\xff\xd8\xff"):
		return "jpeg"
	case starts("RIFF") && len(data) >= 12 && string(data[8:12]) == "WEBP":
		return "webp"
	case starts("BM"):
		return "bmp"
	case starts("II*\x00"), starts("MM\x00*"):
		return "TIFF"
	case starts("\x93NUMPY"):
		return "NumPy's .npy"
	}
	return ""
}

// checkSize holds the size that a header claims against Pillow's limit.
func checkSize(size shapes.Size) error {
	if size.H < 1 || size.W < 1 {
		return fmt.Errorf("size %v, want at least 1x1 pixels", size)
	}
	if size.H > maxPixels/size.W {
		return fmt.Errorf("size %v, want at most %d pixels (Pillow's limit)", size, maxPixels)
	}
	return nil
}

// checkClaim holds it also against the data, of which a byte can stand for so many pixels at most.
func checkClaim(size shapes.Size, bytes, pixelsPerByte int) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if size.Area()/pixelsPerByte > bytes {
		return fmt.Errorf("truncated: %d bytes cannot hold %v pixels", bytes, size)
	}
	return nil
}

// decodeJPEG reads a JPEG with the standard library, whose inverse transform and upsampling are not those of libjpeg.
func decodeJPEG(data []byte) (Picture, error) {
	c, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return Picture{}, err
	}
	const mostPixels = 8 * 64 // 64 pixels of a block of which each channel takes a bit, at 8 bits a byte
	if err := checkClaim(shapes.Size{H: c.Height, W: c.Width}, len(data), mostPixels); err != nil {
		return Picture{}, fmt.Errorf("jpeg: %w", err)
	}
	orientation, err := jpegOrientation(data)
	if err != nil {
		return Picture{}, fmt.Errorf("jpeg: %w", err)
	}
	m, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return Picture{}, err
	}
	return Picture{
		Image:       toRGB(m),
		Format:      "jpeg",
		Orientation: orientation,
		Warning:     "JPEG decoders differ in single pixels, by up to 101 of 255 where colour is subsampled; give other engines the decoded pixels, as PNG or .npy",
	}, nil
}

// decodeGIF reads the first frame of a GIF, as Pillow does, whose transparent colour shows when the alpha is dropped.
func decodeGIF(data []byte) (Picture, error) {
	c, err := gif.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return Picture{}, err
	}
	const mostPixels = 4096 // a code of LZW, more than a byte long, stands for fewer than 4096 pixels
	if err := checkClaim(shapes.Size{H: c.Height, W: c.Width}, len(data), mostPixels); err != nil {
		return Picture{}, fmt.Errorf("gif: %w", err)
	}
	if bytes.Contains(data, []byte("tiff:Orientation")) {
		return Picture{}, fmt.Errorf("gif: an orientation in XMP is not supported")
	}
	m, err := gif.Decode(bytes.NewReader(opaqueGIF(data)))
	if err != nil {
		return Picture{}, err
	}
	if m.Bounds() != image.Rect(0, 0, c.Width, c.Height) {
		return Picture{}, fmt.Errorf("gif: first frame %v does not fill the %dx%d image, which is not supported", m.Bounds(), c.Height, c.Width)
	}
	return Picture{Image: toRGB(m), Format: "gif", Orientation: 1}, nil
}

// opaqueGIF is the same file without transparency in its first frame: the standard library would lose the colour behind it.
func opaqueGIF(data []byte) []byte {
	const header, colourTable = 13, 0x80
	at := header
	if len(data) < header {
		return data
	}
	if data[10]&colourTable != 0 {
		at += 3 << (1 + data[10]&7)
	}
	for at+2 < len(data) && data[at] == 0x21 { // extensions, each a label and blocks
		label := data[at+1]
		at += 2
		if label == 0xf9 && at+1 < len(data) && data[at] >= 1 { // graphic control: flags, delay, transparent index
			data = bytes.Clone(data)
			data[at+1] &^= 1
		}
		for at < len(data) && data[at] != 0 {
			at += 1 + int(data[at])
		}
		at++
	}
	return data
}

// toRGB takes the colours of an opaque image.
func toRGB(m image.Image) Image {
	b := m.Bounds()
	out := NewImage(shapes.Size{H: b.Dy(), W: b.Dx()})
	for y := range out.Size.H {
		row := out.Row(y)
		for x := range out.Size.W {
			r, g, b, _ := m.At(b.Min.X+x, b.Min.Y+y).RGBA()
			row[3*x], row[3*x+1], row[3*x+2] = uint8(r>>8), uint8(g>>8), uint8(b>>8)
		}
	}
	return out
}
