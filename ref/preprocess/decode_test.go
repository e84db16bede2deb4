package preprocess

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

const vectors = "../../golden/vectors/preprocess/"

// decodeCase is an image file and what load_image of transformers makes of it.
type decodeCase struct {
	Name          string
	File          []byte
	Height, Width int
	SHA256        string
	RGB           []byte // JPEG only: zlib of the pixels
	Error         string
}

func decodeCases(t testing.TB) []decodeCase {
	t.Helper()
	data, err := os.ReadFile(vectors + "decode.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Cases []decodeCase }
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Cases
}

// refused are the files that Pillow reads and this package does not, each with what the error has to say.
var refused = map[string]string{
	"rows-missing":           "unexpected EOF",
	"chunk-two-headers":      "second one",
	"exif-byte":              "orientation of type 1",
	"apng-first-in-part":     "does not fill",
	"apng-no-idat":           "in front of the image data",
	"gif-first-in-part":      "does not fill",
	"bmp-8-beyond-palette":   "colour 5 of a palette of 5",
	"bmp-16":                 "unsupported BMP",
	"bmp-24-gap":             "unsupported BMP",
	"webp-lossy":             "lossy WebP is not supported",
	"webp-lossy-alpha":       "lossy WebP is not supported",
	"webp-lossless-animated": "animated WebP is not supported",
	"tiff":                   "TIFF is not supported",
	"ppm":                    "want a PNG, a BMP, a GIF, a JPEG or a WebP",
}

func TestDecodeImageReadsWhatLoadImageReads(t *testing.T) {
	for _, c := range decodeCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			p, err := DecodeImage(c.File)
			if want, ok := refused[c.Name]; ok {
				if c.Error != "" {
					t.Fatalf("transformers does not read it either (%s): no reason to list it", c.Error)
				}
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("error %v, want one with %q", err, want)
				}
				return
			}
			if c.Error != "" {
				if err == nil {
					t.Fatalf("no error, transformers has a %s", c.Error)
				}
				t.Log(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Size.H != c.Height || p.Size.W != c.Width {
				t.Fatalf("size %v, want %dx%d", p.Size, c.Height, c.Width)
			}
			if p.Format == "jpeg" {
				if p.Warning == "" {
					t.Error("a JPEG without a warning")
				}
				checkNear(t, p.Pix, unpack(t, c.RGB), 12)
				return
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(p.Pix)); got != c.SHA256 {
				t.Errorf("pixels have SHA-256 %s, want %s", got, c.SHA256)
			}
		})
	}
}

func unpack(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func checkNear(t *testing.T, got, want []byte, limit int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	worst := 0
	for i := range got {
		worst = max(worst, abs(int(got[i])-int(want[i])))
	}
	if worst > limit {
		t.Errorf("largest difference %d of 255, want at most %d", worst, limit)
	}
	t.Logf("largest difference %d of 255", worst)
}

// A file that claims much is refused before memory is asked for.
func TestNothingIsAllocatedForWhatAHeaderClaims(t *testing.T) {
	// A WebP of one colour, of which no pixel takes a bit, with another size in its header: 16,384 x 10,000 pixels in a few bytes.
	cases := decodeCases(t)
	huge := bytes.Clone(cases[slices.IndexFunc(cases, func(c decodeCase) bool { return c.Name == "webp-lossless-one-colour" })].File)
	copy(huge[21:], "\xff\xff\xc3\x09")
	for _, c := range append(cases, decodeCase{Name: "webp-huge", File: huge}) {
		if !strings.HasPrefix(c.Name, "size-") && !strings.HasPrefix(c.Name, "chunk-length") && c.Name != "bmp-huge" && c.Name != "webp-huge" {
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeImage(c.File)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > 1<<20 {
			t.Errorf("%s: %d bytes allocated, error %v", c.Name, used, err)
		}
	}
}

// P35: an orientation that is not applied, and transparency put on white, as newer versions do with image objects.
func TestOrientationAndTransparencyShow(t *testing.T) {
	shown := 0
	for _, c := range decodeCases(t) {
		p, err := DecodeImage(c.File)
		if err != nil {
			continue
		}
		if p.Orientation != 1 && p.Format == "png" {
			shown++
			stored := orient(p.Image, map[int]int{2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[p.Orientation])
			if got := fmt.Sprintf("%x", sha256.Sum256(stored.Pix)); got == c.SHA256 && stored.Size == p.Size {
				t.Errorf("%s: the same without its orientation %d", c.Name, p.Orientation)
			}
		}
		if strings.Contains(c.Name, "alpha") && p.Format == "png" {
			shown++
			white := NewImage(p.Size)
			m, err := png.Decode(bytes.NewReader(c.File))
			if err != nil {
				t.Fatal(err)
			}
			for i := range white.Pix {
				v := color.NRGBAModel.Convert(m.At(i/3%p.Size.W, i/3/p.Size.W)).(color.NRGBA)
				u, a := int([]uint8{v.R, v.G, v.B}[i%3]), int(v.A)
				white.Pix[i] = uint8((u*a + 255*(255-a) + 127) / 255)
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(white.Pix)); got == c.SHA256 {
				t.Errorf("%s: the same on white", c.Name)
			}
		}
	}
	if shown < 20 {
		t.Errorf("%d files show it, want at least 20", shown)
	}
}

func TestReadImageReadsRegularFilesOnly(t *testing.T) {
	if _, err := ReadImage(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: error %v", err)
	}
	if _, err := ReadImage("no such file"); err == nil {
		t.Error("no file: no error")
	}
	p, err := ReadImage("../../golden/data/images/photo-40x52.png")
	if err != nil || p.Size != (shapes.Size{H: 52, W: 40}) || p.Format != "png" || p.Orientation != 1 || p.Warning != "" {
		t.Errorf("%v %s %d %q, error %v", p.Size, p.Format, p.Orientation, p.Warning, err)
	}
}

func FuzzDecodeImage(f *testing.F) {
	for _, c := range decodeCases(f) {
		f.Add(c.File)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodeImage(data)
		if err != nil {
			return
		}
		if p.Size.H < 1 || p.Size.W < 1 || len(p.Pix) != p.Size.Area()*3 || p.Orientation < 1 || p.Orientation > 8 {
			t.Fatalf("size %v, %d values, orientation %d", p.Size, len(p.Pix), p.Orientation)
		}
		if p.Format == "png" {
			checkAgainstStandardLibrary(t, data, p)
		}
	})
}

// checkAgainstStandardLibrary compares with image/png, where that reads the file and means the same by it.
func checkAgainstStandardLibrary(t *testing.T, data []byte, p Picture) {
	m, err := png.Decode(bytes.NewReader(data))
	if err != nil || p.Orientation != 1 {
		return
	}
	if _, grey16 := m.(*image.Gray16); grey16 {
		return // clipped here, scaled there
	}
	for i, got := range p.Pix {
		x, y := i/3%p.Size.W, i/3/p.Size.W
		var want color.NRGBA
		switch m := m.(type) {
		case *image.Paletted:
			index := int(m.ColorIndexAt(x, y))
			if index >= len(m.Palette) {
				return
			}
			want = color.NRGBAModel.Convert(m.Palette[index]).(color.NRGBA)
		case *image.NRGBA64:
			v := m.NRGBA64At(x, y)
			want = color.NRGBA{R: uint8(v.R >> 8), G: uint8(v.G >> 8), B: uint8(v.B >> 8), A: 255}
			if bytes.Contains(data, []byte("tRNS")) {
				return // grey of 16 bits with a key
			}
		case *image.NRGBA:
			want = m.NRGBAAt(x, y)
		default:
			want = color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
		}
		if want.A == 0 {
			continue // the standard library may have forgotten the colour
		}
		if w := []uint8{want.R, want.G, want.B}[i%3]; got != w {
			t.Fatalf("%T: row %d, column %d, channel %d: %d, the standard library has %d", m, y, x, i%3, got, w)
		}
	}
}
