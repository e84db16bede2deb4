package cli

import (
	"bytes"
	"context"
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
			bug := code == 1 && strings.Contains(out, "known bug "+b.ID+" on pillow: "+b.What)
			variant := code == 0 && strings.Contains(out, "the values of pillow-13") // which a bug may come to
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
	check("a batch of one", npy.WriteFile(path, append([]int{1}, y.Shape...), y.Data), 0, "the values of torchvision")
	check("float16", npy.WriteFile(path, y.Shape, half), 0, "the values of torchvision")
	filled := append(append([]float32{}, y.Data...), make([]float32, 2*3*56*56)...)
	check("filled up to a longer one of a batch", npy.WriteFile(path, []int{1, y.Shape[0] + 2, 3, 56, 56}, filled), 0, "the values of torchvision")
	broken := append([]float32{}, y.Data...)
	broken[3*56*56+56+2] += 0.5
	check("one value off", npy.WriteFile(path, y.Shape, broken), 1, "torchvision  1 values differ, by at most 0.5; 1 pixel values, by at most 34 of 255; first in tile 1, channel 0, row 1, column 2")
	for i, v := range y.Data {
		broken[i] = v * (1 + 1e-6)
	}
	check("normalised otherwise", npy.WriteFile(path, y.Shape, broken), 1, "torchvision  has the same pixels, normalised otherwise")
}
