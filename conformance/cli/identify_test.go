package cli

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/x448/float16"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/ref/preprocess/pattern"
	"github.com/llavaref/llavaref/shapes"
)

// identify runs preprocess --identify on values of an image of the small model.
func identify(t *testing.T, model, path, image string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(context.Background(), []string{"preprocess", "--model", model, "--image", "pattern:" + image, "--identify", path}, &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", stderr.String())
	}
	return code, stdout.String()
}

func tinyProcessor(t *testing.T, model string, v preprocess.Variant) preprocess.Processor {
	t.Helper()
	c, err := shapes.Model(model)
	if err != nil {
		t.Fatal(err)
	}
	return preprocess.Processor{Config: preprocess.DefaultConfig(c), Variant: v}
}

func patternImage(t *testing.T, name string) preprocess.Image {
	t.Helper()
	size, pix, err := pattern.Make(name)
	if err != nil {
		t.Fatal(err)
	}
	return preprocess.Image{Size: size, Pix: pix}
}

// Every bug that changes the pixels of this image is named, on whichever library's arithmetic.
func TestIdentifyNamesEveryBug(t *testing.T) {
	const image = "photo-83x56" // landscape, odd padding, both sides change
	for _, model := range []string{"tiny-1.6", "tiny-1.5"} {
		named := 0
		m := patternImage(t, image)
		p := tinyProcessor(t, model, preprocess.Pillow)
		right, _, err := p.Image(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bugs.Of(p.ModelType) {
			y, err := b.Pixels(p, m)
			if err != nil {
				t.Fatal(err)
			}
			if (engineValues{Tensor: y}).equal(right) || b.ID == "P34a" { // that one is half of what torchvision does
				continue
			}
			path := filepath.Join(t.TempDir(), "values.npy")
			if err := npy.WriteFile(path, y.Shape, y.Data); err != nil {
				t.Fatal(err)
			}
			code, out := identify(t, model, path, image)
			want := exitNotConformant
			if b.Convention != "" {
				want = exitConvention
			}
			bug := code == want && strings.Contains(out, "known bug "+b.ID+" on pillow: "+b.What) && strings.Contains(out, "other convention: ") == (b.Convention != "")
			variant := code == exitConvention && strings.Contains(out, "the values of pillow-13") // which a bug may come to
			if !bug && !variant {
				t.Errorf("%s: %s: exit code %d:\n%s", model, b.ID, code, out)
			}
			named++
		}
		if named < 15 {
			t.Errorf("%s: %d bugs show in this image, want at least 15", model, named)
		}
	}
}

func TestIdentifyReadsWhatEnginesWrite(t *testing.T) {
	const image = "photo-83x56"
	p := tinyProcessor(t, "tiny-1.6", preprocess.Torchvision)
	y, _, err := p.Image(patternImage(t, image))
	if err != nil {
		t.Fatal(err)
	}
	half := make([]float16.Float16, len(y.Data))
	for i, v := range y.Data {
		half[i] = float16.Fromfloat32(v)
	}
	path := filepath.Join(t.TempDir(), "values.npy")
	check := func(name string, err error, wantCode int, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if code, out := identify(t, "tiny-1.6", path, image); code != wantCode || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, output %q, want %d and %q", name, code, out, wantCode, want)
		}
	}
	check("a batch of one", npy.WriteFile(path, append([]int{1}, y.Shape...), y.Data), exitConvention, "the values of torchvision")
	check("float16", npy.WriteFile(path, y.Shape, half), exitConvention, "the values of torchvision")
	filled := append(append([]float32{}, y.Data...), make([]float32, 2*3*56*56)...)
	check("filled up to a longer one of a batch", npy.WriteFile(path, []int{1, y.Shape[0] + 2, 3, 56, 56}, filled), exitConvention, "the values of torchvision")
	broken := append([]float32{}, y.Data...)
	broken[3*56*56+56+2] += 0.5
	check("one value off", npy.WriteFile(path, y.Shape, broken), 1, "torchvision  1 values differ, by at most 0.5; 1 pixel values, by at most 34 of 255; first in tile 1, channel 0, row 1, column 2")
	for i, v := range y.Data {
		broken[i] = v * (1 + 1e-6)
	}
	check("normalised otherwise", npy.WriteFile(path, y.Shape, broken), 1, "torchvision  has the same pixels, normalised otherwise")
}

// TestIdentifyNamesConventions: each published rule has an exit code of its own, and says what it changes of the image at hand.
func TestIdentifyNamesConventions(t *testing.T) {
	bug := func(id string) func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
		return func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
			for _, b := range bugs.Of(p.ModelType) {
				if b.ID == id {
					return b.Pixels(p, m)
				}
			}
			t.Fatalf("no bug %s", id)
			return shapes.Tensor{}, nil
		}
	}
	variant := func(v preprocess.Variant) func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
		return func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
			p.Variant = v
			y, _, err := p.Image(m)
			return y, err
		}
	}
	for _, c := range []struct {
		name, model, image string
		engine             func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error)
		code               int
		says               string
	}{
		{"right", "tiny-1.6", "photo-83x56", variant(preprocess.Pillow), exitConformant, "the values of pillow, all"},
		{"torchvision", "tiny-1.6", "photo-83x56", variant(preprocess.Torchvision), exitConvention, "other convention: torchvision. Of this image: 44 image tokens as it should be, and at most "},
		{"Pillow 13", "tiny-1.6", "noise-37x148", variant(preprocess.Pillow13), exitConvention, "other convention: pillow-13. Of this image: 76 image tokens as it should be, and at most "},
		{"the original LLaVA's canvas", "tiny-1.6", "photo-40x52", bug("P01"), exitConvention, "other convention: the original LLaVA's canvas. Of this image: 46 image tokens for 36, and at most "},
		{"the original LLaVA-1.5's square", "tiny-1.5", "photo-83x56", bug("P45a"), exitConvention, "other convention: the original LLaVA-1.5's square. Of this image: 16 image tokens as it should be, and at most "},
		{"the padding of transformers up to 4.51", "tiny-1.6", "photo-83x56", bug("P11b"), exitConvention, "other convention: padding of transformers up to 4.51. Of this image: "},
		{"a bug", "tiny-1.6", "photo-83x56", bug("P20"), exitNotConformant, "known bug P20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			y, err := c.engine(tinyProcessor(t, c.model, preprocess.Pillow), patternImage(t, c.image))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "values.npy")
			if err := npy.WriteFile(path, y.Shape, y.Data); err != nil {
				t.Fatal(err)
			}
			code, out := identify(t, c.model, path, c.image)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, c.code, c.says, out)
			}
			t.Log(out)
		})
	}
}

// TestIdentifyKnowsAlphaOnWhite: transformers drops the alpha of a file, and puts that of an image object on white from 5.21 on.
func TestIdentifyKnowsAlphaOnWhite(t *testing.T) {
	dir := t.TempDir()
	size := shapes.Size{H: 60, W: 44}
	picture, white, dropped := image.NewNRGBA(image.Rect(0, 0, size.W, size.H)), preprocess.NewImage(size), preprocess.NewImage(size)
	for i := range size.Area() {
		c := [4]uint8{uint8(7 * i), uint8(3*i + 40), uint8(200 - i), uint8(11 * i)}
		copy(picture.Pix[4*i:], c[:])
		for k, v := range c[:3] {
			dropped.Pix[3*i+k] = v
			white.Pix[3*i+k] = uint8(math.Floor((float64(v)*float64(c[3])+255*(255-float64(c[3])))/255 + 127.0/255)) // Pillow's paste
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "picture.png")
	if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		of   preprocess.Image
		v    preprocess.Variant
		code int
		says string
	}{
		{"dropped", dropped, preprocess.Pillow, exitConformant, "the values of pillow"},
		{"on white", white, preprocess.Pillow, exitConvention, "other convention: alpha on white. Of this image: "},
		{"on white, by torchvision", white, preprocess.Torchvision, exitConvention, "other convention: alpha on white, and torchvision. Of this image: "},
	} {
		p := tinyProcessor(t, "tiny-1.6", c.v)
		y, _, err := p.Image(c.of)
		if err != nil {
			t.Fatal(err)
		}
		values := filepath.Join(dir, "values.npy")
		if err := npy.WriteFile(values, y.Shape, y.Data); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := Run(t.Context(), []string{"preprocess", "--model", "tiny-1.6", "--image", path, "--identify", values}, &out, &errs)
		if code != c.code || !strings.Contains(out.String(), c.says) || errs.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", c.name, code, c.code, c.says, out.String(), errs.String())
		}
	}
}
