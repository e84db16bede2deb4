package preprocess

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// The canvases of whole/ are there in full, for whoever has to find out where his own differ.
func TestWholeCanvases(t *testing.T) {
	entries, err := os.ReadDir(vectors + "whole")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".npy")
		model, image, _ := strings.Cut(strings.Replace(name, "tiny-1.", "tiny-1_", 1), ".")
		s, err := testProcessor(t, strings.Replace(model, "_", ".", 1), Pillow).Steps(testImage(t, image))
		if err != nil {
			t.Fatal(err)
		}
		want, err := npy.ReadFile(vectors + "whole/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		values, err := want.Int64s()
		if err != nil {
			t.Fatal(err)
		}
		if shape := []int{s.Padded.Size.H, s.Padded.Size.W, 3}; !slices.Equal(shape, want.Shape) {
			t.Fatalf("%s: shape %v, want %v", name, shape, want.Shape)
		}
		different := 0
		for i, v := range values {
			if v != int64(s.Padded.Pix[i]) {
				different++
				if different == 1 {
					t.Errorf("%s: row %d, column %d, channel %d: %d, want %d", name, i/3/s.Padded.Size.W, i/3%s.Padded.Size.W, i%3, s.Padded.Pix[i], v)
				}
			}
		}
		if different > 1 {
			t.Errorf("%s: %d of %d values differ", name, different, len(values))
		}
	}
}

// One row of pixels, small enough to be followed by hand.
func TestResizeOfOneRow(t *testing.T) {
	m := NewImage(shapes.Size{H: 1, W: 8})
	for x, v := range []uint8{0, 255, 0, 255, 128, 64, 10, 200} {
		m.Pix[3*x], m.Pix[3*x+1], m.Pix[3*x+2] = v, 255-v, v/2
	}
	for w, want := range map[int]string{
		3:  "113 139 87",
		4:  "107 150 102 97",
		5:  "104 116 188 47 123",
		7:  "35 193 84 212 82 14 178",
		8:  "0 255 0 255 128 64 10 200",
		9:  "0 236 48 160 211 98 41 32 205",
		16: "0 54 216 215 40 37 206 249 164 107 78 44 6 48 163 217",
	} {
		for _, v := range []Variant{Pillow, Pillow122, Pillow13} {
			r, err := Resize(m, shapes.Size{H: 1, W: w}, v)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for x := range w {
				got = append(got, strconv.Itoa(int(r.Pix[3*x])))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: 8 to %d: %s, want %s", v, w, strings.Join(got, " "), want)
			}
		}
	}
	a, err := newAxis(8, 3, 0, 3, Pillow)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int32{1357984, 1678094, 1096189, 261175, -104842, -91194, -3102}; a.first[0] != 0 || !slices.Equal(a.weights[0], want) {
		t.Errorf("8 to 3: weights %v from %d, want %v from 0", a.weights[0], a.first[0], want)
	}
	if a, err = newAxis(4, 8, 0, 1, Pillow); err != nil || !slices.Equal(a.weights[0], []int32{4564390, -370086}) {
		t.Errorf("4 to 8: weights %v, error %v", a.weights, err)
	}
}

func TestAWindowIsAPartOfTheWhole(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	for _, v := range Variants() {
		for range 40 {
			m := testImage(t, fmt.Sprintf("noise-%dx%d", 1+r.IntN(60), 1+r.IntN(60)))
			to := shapes.Size{H: 1 + r.IntN(80), W: 1 + r.IntN(80)}
			box := Box{Top: r.IntN(to.H), Left: r.IntN(to.W)}
			box.Size = shapes.Size{H: 1 + r.IntN(to.H-box.Top), W: 1 + r.IntN(to.W-box.Left)}
			whole, err := Resize(m, to, v)
			if err != nil {
				t.Fatal(err)
			}
			part, err := ResizeWindow(m, to, box, v)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(part.Pix, Crop(whole, box).Pix) {
				t.Errorf("seed %d: %s: %v to %v: window %v differs", seed, v, m.Size, to, box)
			}
		}
	}
}

func TestAConstantImageStaysConstant(t *testing.T) {
	for _, v := range Variants() {
		for _, model := range []string{"llava-1.6", "llava-1.5"} {
			s, err := testProcessor(t, model, v).Steps(testImage(t, "flat-333x500"))
			if err != nil {
				t.Fatal(err)
			}
			for i, u := range s.Scaled.Pix {
				if u != [3]uint8{200, 30, 123}[i%3] {
					t.Fatalf("%s: %s: value %d is %d", model, v, i, u)
				}
			}
		}
	}
}

func TestAStripIsCroppedWithoutItsWhole(t *testing.T) {
	p := testProcessor(t, "llava-1.5", Pillow)
	for _, size := range []shapes.Size{{H: 1, W: 100_000}, {H: 100_000, W: 1}} {
		s, err := p.Steps(NewImage(size))
		if err != nil {
			t.Fatal(err)
		}
		if s.Resized.Area() != 336*33_600_000 || s.Scaled.Size != (shapes.Size{H: 336, W: 336}) {
			t.Errorf("%v: resized %v, crop %v", size, s.Resized, s.Scaled.Size)
		}
	}
	if _, err := p.Steps(NewImage(shapes.Size{H: 1, W: 1_000_000})); err == nil || !strings.Contains(err.Error(), "more than Pillow can allocate") {
		t.Errorf("336 000 000 columns: error %v", err)
	}
	square := testProcessor(t, "llava-1.5-square", Pillow)
	if _, err := square.Steps(NewImage(shapes.Size{H: 1, W: 20_000})); err == nil || !strings.Contains(err.Error(), "at most 178956970 pixels") {
		t.Errorf("a square of 400 000 000 pixels: error %v", err)
	}
}

func TestImagesThatAreNone(t *testing.T) {
	p := testProcessor(t, "llava-1.6", Pillow)
	for _, m := range []Image{{}, {Size: shapes.Size{H: 1}}, {Size: shapes.Size{H: -1, W: -1}, Pix: make([]uint8, 3)}, {Size: shapes.Size{H: 2, W: 2}, Pix: make([]uint8, 11)}, {Size: shapes.Size{H: math.MaxInt, W: math.MaxInt}}} {
		if _, _, err := p.Image(m); err == nil {
			t.Errorf("size %v with %d values: no error", m.Size, len(m.Pix))
		}
	}
	for _, size := range []shapes.Size{{}, {H: 0, W: 5}, {H: 5, W: -1}, {H: MaxSide + 1, W: 1}} {
		if _, err := p.Plan(size); err == nil || p.FeatureCount(size) != 0 {
			t.Errorf("size %v: error %v, %d features", size, err, p.FeatureCount(size))
		}
	}
	m := NewImage(shapes.Size{H: 2, W: 2})
	for _, box := range []Box{{Size: shapes.Size{H: 5, W: 1}}, {Top: -1, Size: shapes.Size{H: 1, W: 1}}, {Left: 4, Size: shapes.Size{H: 1, W: 1}}, {}, {Top: math.MaxInt, Size: shapes.Size{H: 1, W: 1}}} {
		if _, err := ResizeWindow(m, shapes.Size{H: 4, W: 4}, box, Pillow); err == nil {
			t.Errorf("window %v of 4x4: no error", box)
		}
	}
}

func TestWhatTransformersExpands(t *testing.T) {
	next, llava := testProcessor(t, "llava-1.6", Pillow), testProcessor(t, "llava-1.5", Pillow)
	full := llava
	full.SelectStrategy = shapes.SelectFull
	for _, c := range []struct {
		name      string
		p         Processor
		expansion *Expansion
		want      int
		counts    bool
	}{
		{"as it should be", next, &Expansion{1, "default"}, 1176, true},
		{"the 1175", next, &Expansion{0, "default"}, 1175, true},
		{"no strategy", next, &Expansion{0, ""}, 1176, true},
		{"no strategy and one too many", next, &Expansion{1, ""}, 1177, true},
		{"too old to count", next, nil, 0, false},
		{"LLaVA-1.5", llava, &Expansion{1, "default"}, 576, true},
		{"LLaVA-1.5, the 575", llava, &Expansion{0, "default"}, 575, true},
		{"LLaVA-1.5 with class token", full, &Expansion{1, "full"}, 577, true},
		{"LLaVA-1.5 with class token forgotten", full, &Expansion{0, "full"}, 576, true},
	} {
		c.p.Expansion = c.expansion
		l, err := c.p.Plan(shapes.Size{H: 336, W: 336})
		if err != nil {
			t.Fatal(err)
		}
		if got, counts := c.p.Expanded(l); got != c.want || counts != c.counts {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, got, counts, c.want, c.counts)
		}
	}
}

func TestTruncate7IsPythonsRounding(t *testing.T) {
	slow := func(v float64) int {
		r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 7, 64), 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(r)
	}
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200_000 {
		v := r.Float64() * math.Pow(2, float64(r.IntN(30)))
		if r.IntN(2) == 0 { // right below an integer, by about the rounding's width
			v = math.Max(0, math.Round(v)-math.Pow(2, -float64(18+r.IntN(10))))
		}
		if got, want := truncate7(v), slow(v); got != want {
			t.Fatalf("seed %d: %v: %d, want %d", seed, v, got, want)
		}
	}
}

func TestParseVariant(t *testing.T) {
	for _, v := range Variants() {
		if got, err := ParseVariant(string(v)); got != v || err != nil {
			t.Errorf("%s: %s, %v", v, got, err)
		}
	}
	if _, err := ParseVariant("opencv"); err == nil || !strings.Contains(err.Error(), `"opencv"`) {
		t.Errorf("error %v", err)
	}
}
