package engines

import (
	"fmt"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/ref/generate"
	"github.com/llavaref/llavaref/shapes"
)

// Generator is an engine that extends a sequence token by token.
type Generator struct {
	Info    conformance.Info
	Session func() generate.Session // begins a sequence
}

// generators are the engines that can generate.
var generators = map[string]func(shapes.Config, shapes.Weights) (Generator, error){
	"ref": func(c shapes.Config, w shapes.Weights) (Generator, error) {
		model := ref.New(c, w)
		return Generator{refEngine{model}.Info(), func() generate.Session { return model.NewSession() }}, nil
	},
}

// FindGenerator opens the engine of a name for generation.
func FindGenerator(name string, c shapes.Config, w shapes.Weights) (Generator, error) {
	open, ok := generators[name]
	if !ok {
		return Generator{}, fmt.Errorf("engine %q cannot generate or is not known, want one of %s", name, strings.Join(sorted(generators), ", "))
	}
	return open(c, w)
}
