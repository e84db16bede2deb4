package engines

import (
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

type fastEngine struct{ *fast.Llava }

func (e fastEngine) Info() conformance.Info { return fastInfo(e.Class()) }

func fastInfo(class kernel.Class) conformance.Info {
	if class == kernel.BFloat16 {
		return conformance.Info{Name: "fast-bf16", Version: kernel.Active(), Arithmetic: compare.Arithmetic{Class: compare.BF16, Lanes: 1}}
	}
	return conformance.Info{Name: "fast", Version: kernel.Active(), Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 1}}
}
