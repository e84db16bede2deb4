package conformance

import (
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// An Engine is one implementation of one model with its weights.
type Engine interface {
	// Info says what the engine is and what it declares about its arithmetic. It is judged by what it declares.
	Info() Info

	// Forward computes the logits [T, V] of one prompt and calls probe, if it is not nil, with each node of shapes.Nodes
	// that it can expose, in any order, at most once each. The engine may reuse t.Data after probe returns, and must not
	// keep the inputs. It is called for one prompt at a time.
	Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error)
}

// Info is what an engine declares about itself.
type Info struct {
	Name    string
	Version string
	compare.Arithmetic
}

// Opener makes an engine of a model with its weights.
type Opener func(c shapes.Config, w shapes.Weights) (Engine, error)
