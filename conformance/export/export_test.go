package export

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func open(t *testing.T, name string) (*golden.Set, shapes.Weights) {
	t.Helper()
	set, err := golden.Embedded(name)
	if err != nil {
		t.Fatal(err)
	}
	target, release, err := conformance.OpenTarget(set, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release() })
	return set, target.Weights
}

// readInputs reads a prompt back with the numpy reader alone.
func readInputs(t *testing.T, dir string) shapes.Inputs {
	t.Helper()
	var in shapes.Inputs
	for name, ids := range map[string]*[]int{"input_ids.npy": &in.InputIDs, "position_ids.npy": &in.PositionIDs} {
		a, err := npy.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		values, err := a.Int64s()
		if err != nil || a.DType != "<i8" || len(a.Shape) != 1 {
			t.Fatalf("%s: %v of shape %v, %v, want int64 [T]", name, a.DType, a.Shape, err)
		}
		for _, v := range values {
			*ids = append(*ids, int(v))
		}
	}
	var sizes [][2]int
	data, err := os.ReadFile(filepath.Join(dir, "image_sizes.json"))
	if err == nil {
		err = json.Unmarshal(data, &sizes)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sizes {
		in.ImageSizes = append(in.ImageSizes, shapes.Size{H: s[0], W: s[1]})
	}
	a, err := npy.ReadFile(filepath.Join(dir, "pixel_values.npy"))
	if errors.Is(err, os.ErrNotExist) {
		return in
	}
	if err != nil {
		t.Fatal(err)
	}
	in.PixelValues.Shape = a.Shape
	if in.PixelValues.Data, err = a.Float32s(); err != nil {
		t.Fatal(err)
	}
	return in
}

func TestAnExportedCaseIsTheCase(t *testing.T) {
	for _, c := range []struct {
		set, name string
		opt       Options
	}{
		{"tiny-1.6", "photo-2x2-rows", Options{DType: checkpoint.F32}},
		{"tiny-1.6", "two-images", Options{DType: checkpoint.BF16, Scheme: shapes.Original}},
		{"tiny-1.6", "text-far-positions", Options{DType: checkpoint.F16, Scheme: shapes.Transformers56}},
		{"tiny-1.5", "photo", Options{DType: checkpoint.F16, Scheme: shapes.LiteLlama}},
		{"tiny-1.5", "text", Options{DType: checkpoint.F32, Scheme: shapes.Transformers452}},
	} {
		t.Run(c.set+" "+c.name, func(t *testing.T) {
			set, w := open(t, c.set)
			dir := filepath.Join(t.TempDir(), "case")
			if err := Write(context.Background(), dir, set, w, c.name, c.opt); err != nil {
				t.Fatal(err)
			}
			want, err := set.Case(c.name)
			if err != nil {
				t.Fatal(err)
			}
			have := readInputs(t, dir)
			if !slices.Equal(have.InputIDs, want.Inputs.InputIDs) || !slices.Equal(have.PositionIDs, want.Inputs.PositionIDs) ||
				!slices.Equal(have.ImageSizes, want.Inputs.ImageSizes) || !slices.Equal(have.PixelValues.Shape, want.Inputs.PixelValues.Shape) ||
				!slices.Equal(have.PixelValues.Data, want.Inputs.PixelValues.Data) {
				t.Errorf("the prompt is another one than the set's: got %v and pixels %v", have.InputIDs, have.PixelValues.Shape)
			}
			model, err := checkpoint.Open(filepath.Join(dir, ModelDir))
			if err != nil {
				t.Fatal(err)
			}
			defer model.Close()
			text, err := os.ReadFile(filepath.Join(dir, ModelDir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := shapes.ParseConfig(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := cfg.DType, map[checkpoint.DType]string{checkpoint.F32: "float32", checkpoint.F16: "float16", checkpoint.BF16: "bfloat16"}[c.opt.DType]; got != want {
				t.Errorf("config.json says dtype %q, want %q", got, want)
			}
			bound, err := model.Bind(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := checkpoint.Digest(cfg, bound, nil); err != nil || got != set.Manifest.Weights.SHA256 {
				t.Errorf("the checkpoint has fingerprint %s, %v, want the set's, %s", got, err, set.Manifest.Weights.SHA256)
			}
			table, err := os.ReadFile(filepath.Join(dir, NodesFile))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(string(table), "\n") - 1; got != len(want.Nodes) {
				t.Errorf("nodes.tsv has %d nodes, want %d", got, len(want.Nodes))
			}
			readme, err := os.ReadFile(filepath.Join(dir, ReadmeFile))
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range []string{"--model " + c.set + " --case " + c.name, `"class": "` + strings.ToLower(string(c.opt.DType)) + `"`} {
				if !strings.Contains(string(readme), words) {
					t.Errorf("README.txt does not say %q", words)
				}
			}
			if strings.Contains(string(readme), "<no value>") {
				t.Error("README.txt has a hole")
			}
			for i, name := range want.Images {
				picture, err := golden.Image(name)
				if err != nil {
					t.Fatal(err)
				}
				files, _ := filepath.Glob(filepath.Join(dir, ImagesDir, "*"))
				if len(files) != len(want.Images) {
					t.Fatalf("%d pictures, want %d", len(files), len(want.Images))
				}
				if got, err := os.ReadFile(files[i]); err != nil || !slices.Equal(got, picture) {
					t.Errorf("%s is not %s: %v", files[i], name, err)
				}
			}
		})
	}
}

// other is weights whose values f16 and bf16 do not have.
type other struct{ shapes.Weights }

func (o other) Read(name string, from int, dst []float32) error {
	err := o.Weights.Read(name, from, dst)
	for i := range dst {
		dst[i] += 1.0 / (1 << 20)
	}
	return err
}

func TestWriteRefusesAndLeavesNothing(t *testing.T) {
	set, w := open(t, "tiny-1.5")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		w    shapes.Weights
		id   string
		opt  Options
		want string
	}{
		{"a case that is not there", context.Background(), w, "tekst", Options{DType: checkpoint.F32}, "tekst"},
		{"weights that the dtype cannot hold", context.Background(), other{w}, "text", Options{DType: checkpoint.BF16}, "is no value of BF16"},
		{"a dtype that is none", context.Background(), w, "text", Options{DType: "F8"}, "F8"},
		{"a scheme that is none", context.Background(), w, "text", Options{DType: checkpoint.F32, Scheme: "x"}, "naming scheme"},
		{"interrupted", cancelled, w, "text", Options{DType: checkpoint.F32}, "canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			err := Write(c.ctx, filepath.Join(parent, "out"), set, c.w, c.id, c.opt)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if left, _ := os.ReadDir(parent); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	t.Run("a folder that is not empty", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := Write(context.Background(), dir, set, w, "text", Options{DType: checkpoint.F32})
		if err == nil || !strings.Contains(err.Error(), "mine") {
			t.Errorf("got %v, want an error that names what is there", err)
		}
	})
	t.Run("an empty folder is taken", func(t *testing.T) {
		dir := t.TempDir()
		if err := Write(context.Background(), dir, set, w, "text", Options{DType: checkpoint.F32}); err != nil {
			t.Error(err)
		}
	})
}
