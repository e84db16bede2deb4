package engines

import (
	"fmt"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/fast"
	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/ref/generate"
	"github.com/llavaref/llavaref/shapes"
)

// Generator is an engine that extends a sequence token by token.
type Generator struct {
	Info    conformance.Info
	Session func() generate.Session // begins a sequence
	Quick   bool                    // a prompt takes seconds and not minutes, and takes less memory if no node is looked at
	Close   func() error            // gives its memory back
}

// generators are the engines that can generate, sequences of so many positions at the most.
var generators = map[string]func(c shapes.Config, w shapes.Weights, positions int) (Generator, error){
	"ref": func(c shapes.Config, w shapes.Weights, positions int) (Generator, error) {
		model := ref.New(c, w)
		return Generator{Info: refEngine{model}.Info(), Session: func() generate.Session { return model.NewSession() }, Close: func() error { return nil }}, nil
	},
	"fast":      fastGenerator(kernel.Float32),
	"fast-bf16": fastGenerator(kernel.BFloat16),
}

func fastGenerator(class kernel.Class) func(c shapes.Config, w shapes.Weights, positions int) (Generator, error) {
	return func(c shapes.Config, w shapes.Weights, positions int) (Generator, error) {
		model, err := fast.New(c, w, fast.Options{Class: class, ContextLength: positions})
		if err != nil {
			return Generator{}, err
		}
		return fastModel(model), nil
	}
}

func fastModel(m *fast.Llava) Generator {
	return Generator{Info: fastInfo(m.Class()), Session: func() generate.Session { return m.NewSession() }, Quick: true, Close: m.Close}
}

// Generators lists the engines that FindGenerator knows.
func Generators() []string { return sorted(generators) }

// KnowsGenerator says whether an engine can generate, before it is opened.
func KnowsGenerator(name string) error {
	if _, ok := generators[name]; !ok {
		return fmt.Errorf("engine %q cannot generate or is not known, want one of %s", name, strings.Join(Generators(), ", "))
	}
	return nil
}

// OpenGenerator opens the engine of a name for sequences of so many positions at the most.
func OpenGenerator(name string, c shapes.Config, w shapes.Weights, positions int) (Generator, error) {
	if err := KnowsGenerator(name); err != nil {
		return Generator{}, err
	}
	return generators[name](c, w, positions)
}
