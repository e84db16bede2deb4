package export_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/export"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// swapped gives some parameters the values of others.
type swapped struct {
	shapes.Weights
	of func(name string) string
}

func (s swapped) Read(name string, from int, dst []float32) error {
	return s.Weights.Read(s.of(name), from, dst)
}

// asItStands reads the text model's file without putting any row back.
type asItStands struct {
	shapes.Weights
	text  *checkpoint.GGUF
	names map[string]string
}

func (a asItStands) Read(name string, from int, dst []float32) error {
	if in, ok := a.names[name]; ok {
		return a.text.Read(in, from, dst)
	}
	return a.Weights.Read(name, from, dst)
}

// TestAnEngineGetsItsVerdict goes the way of an engine's author: a case is exported, an engine runs on the files and dumps, the dump is judged.
// The engine is the reference with the files' weights, right and with the mistakes that loaders make.
func TestAnEngineGetsItsVerdict(t *testing.T) {
	truncated := func(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ 0xffff) }
	nearest := func(x float32) float32 {
		b := math.Float32bits(x)
		return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	}
	type files struct {
		st, gguf     shapes.Weights // of the safetensors checkpoint, of the GGUF files
		text         *checkpoint.GGUF
		untouched    map[string]string // parameter -> tensor of the text model's file
		ffnExchanged func(string) string
	}
	for _, c := range []struct {
		name, id string
		class    compare.Class
		weights  func(f files) shapes.Weights
		stored   func(x float32) float32 // what storing does to a value
		first    string                  // the first diverging node; empty if the engine is right
	}{
		{"the checkpoint as it is", "text-small-norms", compare.F32, func(f files) shapes.Weights { return f.st }, nil, ""},
		{"an image", "gradient-1x2-full", compare.F32, func(f files) shapes.Weights { return f.st }, nil, ""},
		{"the GGUF files as they are meant", "text-small-norms", compare.F32, func(f files) shapes.Weights { return f.gguf }, nil, ""},
		{"rows of q and k in GGUF order", "text-small-norms", compare.F32, func(f files) shapes.Weights { return asItStands{f.st, f.text, f.untouched} }, nil, shapes.TextLayer(0) + ".self_attn.q_proj"},
		{"ffn_up and ffn_down exchanged", "gradient-1x2-full", compare.F32, func(f files) shapes.Weights { return swapped{f.st, f.ffnExchanged} }, nil, shapes.VisionLayer(0) + ".mlp.fc1"},
		{"bf16 that cuts off", "text-small-norms", compare.BF16, func(f files) shapes.Weights { return f.st }, truncated, shapes.NodeCos},
		{"f32 that stores bf16", "text-small-norms", compare.F32, func(f files) shapes.Weights { return f.st }, nearest, shapes.NodeCos},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.name != "rows of q and k in GGUF order" {
				t.Skip("a pass of the reference takes seconds")
			}
			set, err := golden.Embedded("tiny-1.6")
			if err != nil {
				t.Fatal(err)
			}
			target, release, err := conformance.OpenTarget(set, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			dir := filepath.Join(t.TempDir(), "case")
			if err := export.Write(context.Background(), dir, set, target.Weights, c.id, export.Options{DType: checkpoint.F32, GGUF: true}); err != nil {
				t.Fatal(err)
			}
			st, err := checkpoint.Open(filepath.Join(dir, export.ModelDir))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			bound, err := st.Bind(set.Config)
			if err != nil {
				t.Fatal(err)
			}
			text, err := checkpoint.OpenGGUF(filepath.Join(dir, export.GGUFDir, "model.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer text.Close()
			vision, err := checkpoint.OpenGGUF(filepath.Join(dir, export.GGUFDir, "mmproj.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer vision.Close()
			fromGGUF, err := checkpoint.BindGGUF(set.Config, text, vision)
			if err != nil {
				t.Fatal(err)
			}
			untouched := map[string]string{}
			for _, x := range shapes.GGUFText(set.Config) {
				untouched[x.Param] = x.Name
			}
			exchanged := func(name string) string {
				return strings.NewReplacer("mlp.fc1.weight", "mlp.fc2.weight", "mlp.fc2.weight", "mlp.fc1.weight").Replace(name)
			}
			golden, err := set.Case(c.id)
			if err != nil {
				t.Fatal(err)
			}
			info := conformance.Info{Name: "the files", Arithmetic: compare.Arithmetic{Class: c.class}}
			out := filepath.Join(t.TempDir(), "dump")
			w, err := dump.Create(out, info, golden.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ref.New(set.Config, c.weights(files{bound, fromGGUF, text, untouched, exchanged})).Forward(golden.Inputs, func(node string, x shapes.Tensor) {
				if c.stored != nil {
					y := shapes.NewTensor(x.Shape...)
					for i, v := range x.Data {
						y.Data[i] = c.stored(v)
					}
					x = y
				}
				w.Probe(node, x)
			})
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			open, err := engines.Find("dir:" + out)
			if err != nil {
				t.Fatal(err)
			}
			run := conformance.Suite{Targets: []conformance.Target{target}, Cases: c.id}.Run(context.Background(), open)
			result := run.Sets[0].Cases[0]
			got := ""
			if result.First != nil {
				got = result.First.Node
			}
			if want := map[bool]conformance.Status{true: conformance.Pass, false: conformance.Fail}[c.first == ""]; run.Status() != want || got != c.first {
				t.Errorf("%v, first diverging node %q, %v, want %v and %q", run.Status(), got, result.Problems, want, c.first)
			}
		})
	}
}
