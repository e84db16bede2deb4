package conformance

import (
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// Drift is the accumulated verdict of one node outside of a run: an engine's tensor against the truth of the whole model. It is an error if
// the golden set does not have the node or the tensor has another shape.
func Drift(c shapes.Config, truth *golden.Case, node string, t shapes.Tensor, as compare.Arithmetic) (Check, error) {
	n, ok := truth.Node(node)
	if !ok {
		return Check{}, fmt.Errorf("conformance: %s: the golden set has no such node", node)
	}
	if !slices.Equal(n.Shape, t.Shape) || len(t.Data) != shapes.Product(t.Shape) {
		return Check{}, fmt.Errorf("conformance: %s: shape %v with %d values, want %v", node, t.Shape, len(t.Data), n.Shape)
	}
	j := &judge{truth: truth, as: as, longest: longestSum(c, len(truth.Inputs.InputIDs)), met: map[string]compare.Class{node: as.Class}}
	return j.accumulated(shapes.Node{Name: node}, t), nil
}
