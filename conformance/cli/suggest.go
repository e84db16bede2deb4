package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// propose prints rules for the arrays of the last dump that its manifest does not explain.
func (f *diffFlags) propose(cmd *cobra.Command, s *sides) error {
	last := len(s.readers) - 1
	truth := func(node string) (shapes.Tensor, bool) {
		if !s.bindings[0].Has(node) {
			return shapes.Tensor{}, false
		}
		t, err := s.bindings[0].Read(node)
		return t, err == nil
	}
	if last == 0 {
		values, err := f.reference(cmd, s)
		if err != nil {
			return err
		}
		truth = func(node string) (shapes.Tensor, bool) {
			t, ok := values[node]
			return t, ok
		}
	}
	p := dump.Suggest(s.readers[last], s.bindings[last], s.config, s.inputs, truth)
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%d of %d arrays that %s does not explain have one reading\n", p.Explained, p.Arrays, dump.ManifestFile)
	if text := p.Fragment(); text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
	for _, line := range p.Open {
		fmt.Fprintf(w, "\n%s\n", line)
	}
	if p.Explained < p.Arrays {
		return exitError{code: exitNotConformant}
	}
	return nil
}

// reference computes all nodes of a golden case.
func (f *diffFlags) reference(cmd *cobra.Command, s *sides) (map[string]shapes.Tensor, error) {
	if s.truth == nil || s.set.Manifest.Weights.Seed == nil {
		return nil, usage("with one dump, it must be of a case of a golden set with synthetic weights (--model, --case); or give a dump with known names before it")
	}
	target, release, err := conformance.OpenTarget(s.set, "", nil)
	if err != nil {
		return nil, err
	}
	defer release()
	values := map[string]shapes.Tensor{}
	bar := newStepsBar(cmd.ErrOrStderr(), "nodes of the reference")
	defer bar.close()
	total := int64(len(shapes.Nodes(s.config)))
	_, err = ref.New(s.config, target.Weights).Forward(s.inputs, func(node string, t shapes.Tensor) {
		values[node] = shapes.Tensor{Shape: append([]int{}, t.Shape...), Data: append([]float32{}, t.Data...)}
		bar.set(int64(len(values)), total)
	})
	return values, err
}
