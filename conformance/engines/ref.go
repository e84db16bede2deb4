package engines

import (
	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// OpenRef is the reference implementation as an engine. It stores float32 and sums in float64, whose error is below that of
// any number of float32 accumulators: it is judged as what the noise floors were measured with.
func OpenRef(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
	return refEngine{ref.New(c, w)}, nil
}

type refEngine struct{ *ref.Llava }

func (refEngine) Info() conformance.Info {
	return conformance.Info{Name: "ref", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 16}}
}
