package preprocess

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
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
	"rows-missing":       "unexpected EOF",
	"chunk-two-headers":  "second one",
	"exif-byte":          "orientation of type 1",
	"apng-first-in-part": "does not fill",
	"apng-no-idat":       "in front of the image data",
	"gif-first-in-part":  "does not fill",
	"bmp":                "BMP is not supported",
	"tiff":               "TIFF is not supported",
	"webp":               "WebP is not supported",
	"ppm":                "want a PNG, a GIF or a JPEG",
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
