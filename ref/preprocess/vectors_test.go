package preprocess

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/ref/preprocess/pattern"
	"github.com/llavaref/llavaref/shapes"
)

// testProcessor is the processor of a model by its name in the vectors.
func testProcessor(t testing.TB, model string, v Variant) Processor {
	t.Helper()
	config := map[string]string{"llava-1.6": "llava-1.6-llama3-8b", "llava-1.6-reversed": "llava-1.6-llama3-8b", "llava-1.5": "llava-1.5-7b", "llava-1.5-square": "llava-1.5-7b"}[model]
	if config == "" {
		config = model
	}
	c, err := shapes.Model(config)
	if err != nil {
		t.Fatal(err)
	}
	p := Processor{Config: DefaultConfig(c), Variant: v}
	p.PadToSquare = model == "llava-1.5-square"
	if model == "llava-1.6-reversed" {
		p.Pinpoints = slices.Clone(p.Pinpoints)
		slices.Reverse(p.Pinpoints)
	}
	return p
}

// table reads a file of the vectors: its lines after the head, cut at the tabs.
func table(t testing.TB, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile(vectors + name)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[1:] {
		rows = append(rows, strings.Split(line, "\t"))
	}
	if len(rows) == 0 {
		t.Fatalf("%s: nothing in it", name)
	}
	return rows
}

var images sync.Map // name -> Image; each is made once

// testImage is an image of the vectors: a pattern, or a PNG of the repository.
func testImage(t testing.TB, name string) Image {
	t.Helper()
	make := func() (Image, error) {
		if strings.HasSuffix(name, ".png") {
			p, err := ReadImage("../../" + name)
			return p.Image, err
		}
		size, pix, err := pattern.Make(name)
		return Image{Size: size, Pix: pix}, err
	}
	once, _ := images.LoadOrStore(name, sync.OnceValues(make))
	m, err := once.(func() (Image, error))()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func digest(pix []uint8) string { return fmt.Sprintf("%x", sha256.Sum256(pix)) }

// digestFloats is the SHA-256 of the values in little-endian.
func digestFloats(data []float32) string {
	b := make([]byte, 0, 4*len(data))
	for _, v := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return digest(b)
}

func shapeText(shape []int) string {
	var words []string
	for _, d := range shape {
		words = append(words, strconv.Itoa(d))
	}
	return strings.Join(words, "x")
}

// stages are the hashes of an image's preprocessing, as pixels.tsv has them.
func stages(s Steps) []string {
	return []string{shapeText(s.PixelValues.Shape), digest(s.Scaled.Pix), digest(s.Padded.Pix), digestFloats(s.PixelValues.Data)}
}

func TestPixelsAreThoseOfTransformers(t *testing.T) {
	counts := map[string]int{}
	for _, row := range table(t, "pixels.tsv") {
		variant, model, image, want := row[0], row[1], row[2], row[3:]
		counts[variant]++
		t.Run(variant+"/"+model+"/"+image, func(t *testing.T) {
			t.Parallel()
			s, err := testProcessor(t, model, Variant(variant)).Steps(testImage(t, image))
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range stages(s) {
				if got != want[i] {
					t.Errorf("%s: %s, want %s", []string{"shape", "resized", "canvas", "pixel_values"}[i], got, want[i])
				}
			}
		})
	}
	for _, v := range Variants() {
		if counts[string(v)] == 0 {
			t.Errorf("no vector of variant %s", v)
		}
	}
}

func TestResizeIsThatOfTheLibraries(t *testing.T) {
	for _, row := range table(t, "resize.tsv") {
		variant, image, want := row[0], row[1], row[4]
		var to shapes.Size
		if _, err := fmt.Sscan(row[2], &to.W); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(row[3], &to.H); err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("%s/%s/%v", variant, image, to), func(t *testing.T) {
			t.Parallel()
			got, err := Resize(testImage(t, image), to, Variant(variant))
			if err != nil {
				t.Fatal(err)
			}
			if got.Size != to || digest(got.Pix) != want {
				t.Errorf("size %v, SHA-256 %s, want %v, %s", got.Size, digest(got.Pix), to, want)
			}
		})
	}
}

func TestNormalisedValuesAreThoseOfTransformers(t *testing.T) {
	for _, row := range table(t, "normal.tsv") {
		value, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		p := testProcessor(t, "llava-1.6", Variant(row[0]))
		got := p.normalTable(p.Variant)
		for c := range 3 {
			if bits := fmt.Sprintf("%08x", math.Float32bits(got[c][value])); bits != row[2+c] {
				t.Errorf("%s: value %d, channel %d: %s, want %s", row[0], value, c, bits, row[2+c])
			}
		}
	}
}

// row is a line of sizes.tsv after the model and before the reason.
func (l Plan) row() []int {
	p := l.Padding
	return []int{l.Original.W, l.Original.H, l.Canvas.H, l.Canvas.W, l.Resized.H, l.Resized.W, p.Top, p.Bottom, p.Left, p.Right, l.Tiles, l.Offset.H, l.Offset.W, l.Kept.H, l.Kept.W, l.Features}
}

func TestPlansOfHostileSizes(t *testing.T) {
	for _, row := range table(t, "sizes.tsv") {
		var want []int
		for _, word := range row[1:17] {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, n)
		}
		l, err := testProcessor(t, row[0], Pillow).Plan(shapes.Size{W: want[0], H: want[1]})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.row(); !slices.Equal(got, want) {
			t.Errorf("%s: %s (%s):\ngot  %v\nwant %v", row[0], strings.Join(row[1:3], "x"), row[17], got, want)
		}
	}
}

// All sizes up to 2000x2000: 4 000 000 plans of either model, in blocks of 50 widths.
func TestPlansOfAllSizes(t *testing.T) {
	next, crop := testProcessor(t, "llava-1.6", Pillow), testProcessor(t, "llava-1.5", Pillow)
	for _, row := range table(t, "geometry.tsv") {
		first, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("widths from %d", first), func(t *testing.T) {
			t.Parallel()
			var tiles, crops []byte
			for w := first; w < first+50; w++ {
				for h := 1; h <= 2000; h++ {
					original := shapes.Size{H: h, W: w}
					for _, v := range next.planCanvas(original).row()[2:] {
						tiles = binary.LittleEndian.AppendUint16(tiles, uint16(v))
					}
					l := crop.planCrop(original)
					for _, v := range []int{l.Resized.H, l.Resized.W, -l.Padding.Top, -l.Padding.Left} {
						crops = binary.LittleEndian.AppendUint32(crops, uint32(v))
					}
				}
			}
			if got := digest(tiles); got != row[2] {
				t.Errorf("LLaVA-1.6: SHA-256 %s, want %s", got, row[2])
			}
			if got := digest(crops); got != row[3] {
				t.Errorf("LLaVA-1.5: SHA-256 %s, want %s", got, row[3])
			}
		})
	}
}
