package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/fast"
	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// OpenFast is the optimized engine in its float32 class. Its matrix products add up to 1024 terms in one accumulator, so it is judged with the
// budget of one.
func OpenFast(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
	return openFast(c, w, kernel.Float32)
}

// OpenFastBF16 is the optimized engine in its bf16 class: what enters a product with weights is rounded to bfloat16, all else is float32.
func OpenFastBF16(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
	return openFast(c, w, kernel.BFloat16)
}

func openFast(c shapes.Config, w shapes.Weights, class kernel.Class) (conformance.Engine, error) {
	m, err := fast.New(c, w, fast.Options{Class: class})
	if err != nil {
		return nil, err
	}
	return fastEngine{m}, nil
}

// FastFile is the name of a file in the optimized engine's own layout, in a model's folder.
const FastFile = "model.fast"

// WriteFast writes such a file: see fast.WriteFile. config is the model's config.json; progress may be nil.
func WriteFast(ctx context.Context, path string, config []byte, w shapes.Weights, progress func(done, total int64)) error {
	return fast.WriteFile(ctx, path, config, w, fast.Options{Progress: progress})
}

// HasFast says whether a generator would be opened from a file in its own layout in the folder.
func HasFast(name, dir string) bool {
	_, err := os.Stat(filepath.Join(dir, FastFile))
	return fastClass(name) != nil && !errors.Is(err, fs.ErrNotExist)
}

func fastClass(name string) *kernel.Class {
	class, ok := map[string]kernel.Class{"fast": kernel.Float32, "fast-bf16": kernel.BFloat16}[name]
	if !ok {
		return nil
	}
	return &class
}

// OpenFastGenerator opens a generator from the file in its own layout that the folder holds, whose model must be that of the configuration.
func OpenFastGenerator(name, dir string, c shapes.Config, positions int) (Generator, error) {
	class := fastClass(name)
	if class == nil {
		return Generator{}, fmt.Errorf("engine %q has no layout of its own", name)
	}
	model, err := fast.OpenFile(filepath.Join(dir, FastFile), fast.Options{Class: *class, ContextLength: positions})
	if err != nil {
		return Generator{}, err
	}
	if !reflect.DeepEqual(model.Config(), c) {
		model.Close()
		return Generator{}, fmt.Errorf("%s: its model is not that of config.json beside it: convert the checkpoint again", filepath.Join(dir, FastFile))
	}
	return fastModel(model), nil
}

type fastEngine struct{ *fast.Llava }

func (e fastEngine) Info() conformance.Info { return fastInfo(e.Class()) }

func fastInfo(class kernel.Class) conformance.Info {
	if class == kernel.BFloat16 {
		return conformance.Info{Name: "fast-bf16", Version: kernel.Active(), Arithmetic: compare.Arithmetic{Class: compare.BF16, Lanes: 1}}
	}
	return conformance.Info{Name: "fast", Version: kernel.Active(), Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 1}}
}
