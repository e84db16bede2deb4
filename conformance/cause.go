package conformance

import (
	"context"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// Cause is one explanation of a failure: what an engine seems to do.
type Cause struct {
	ID         string  // of docs/known-bugs.md
	Text       string  // what the engine seems to do, in one sentence
	Look       string  // where to look
	Ratio      float64 // of error to limit with that done in the node's place; at most 1 fits
	Convention string  // name of the published rule that it follows; empty for a bug
	Effect     string  // of a convention: what it changes in this prompt, in tokens or in pixels
	Rows       []int   // of a convention that changes their number: the image rows of each image
}

// A Diagnoser says what the failures of one prompt come from. It must not change what it is given, and stops when ctx is done.
type Diagnoser func(ctx context.Context, e Evidence) Findings

// Evidence is what an engine has shown of one prompt, as far as it is kept, and which nodes failed.
type Evidence struct {
	Config   shapes.Config
	Weights  shapes.Weights
	Inputs   shapes.Inputs
	Lanes    compare.Lanes            // that the engine declares
	Classes  map[string]compare.Class // of the nodes, as the engine declares them; nil where a Failure's class is that of all
	Failures []Failure                // in the order of execution
	Shown    map[string]shapes.Tensor // the engine's values by node, the largest ones left out

	Blind  []Failure          // nodes that are wrong against the truth, or in their shape, and whose inputs the engine does not show; in the order of execution
	Drifts map[string]float64 // error against the truth over its limit, of every node that was judged so
	Truth  Truth              // what the golden set has of the prompt; may be nil
}

// Truth is the truth of a prompt, as far as a golden set keeps it.
type Truth interface {
	// Shape is that of a node of the golden set; nil if it has none of that name.
	Shape(node string) []int

	// Against holds rows of a tensor against the truth of a node: from says which row of the tensor stands for a row of the node, -1 for none.
	// The ratio is that of error to limit, over so many kept rows; false if nothing can be compared.
	Against(node string, got shapes.Tensor, from func(row int) int) (ratio float64, rows int, ok bool)

	// Near holds a tensor against another value of a node, whole, by the limits of its drift.
	Near(node string, want, got shapes.Tensor) (ratio float64, ok bool)
}

// Failure is a node that is wrong by its own inputs, or that has not the node's shape.
type Failure struct {
	Node    shapes.Node
	View    View              // Local or Contract, and of Blind ones Accumulated
	Inputs  []shapes.Tensor   // of the engine's, or derived: Inputs[i] stands for Node.Inputs[i]
	Derived []*compare.Budget // Derived[i] is the budget of an input that the reference evaluated; nil for the engine's own
	Got     shapes.Tensor
	Class   compare.Class // that the node is judged by
	Ratio   float64       // of error to limit
}

// Findings is what a Diagnoser has to say.
type Findings struct {
	Nodes map[string][]Cause // of failing nodes
	Case  []Cause            // of the whole prompt: recognised across nodes
}

// Bounds on what is kept for a diagnosis.
const (
	maxKept     = 1 << 28 // values of all kept tensors, and again of all failures: 1 GiB each
	maxKeptOne  = 1 << 24 // values of one tensor
	maxFailures = 40      // nodes that are diagnosed
	maxAlike    = 3       // of them of one kind
)

// keep holds on to a node's value for the diagnosis, as far as there is room.
func (j *judge) keep(name string, t shapes.Tensor) {
	if j.suite.Diagnose == nil || len(t.Data) > maxKeptOne || j.keptValues+len(t.Data) > maxKept {
		return
	}
	j.kept[name] = t
	j.keptValues += len(t.Data)
}

// blame notes a failure for the diagnosis.
func (j *judge) blame(f Failure) {
	size := len(f.Got.Data)
	for _, in := range f.Inputs {
		size += len(in.Data)
	}
	if j.suite.Diagnose == nil || len(j.failures) >= maxFailures || len(f.Got.Data) > maxKeptOne || j.blamed+size > maxKept {
		return
	}
	alike := 0
	for _, other := range j.failures {
		if other.Node.Kind == f.Node.Kind {
			alike++
		}
	}
	if alike < maxAlike {
		f.Class = j.own[f.Node.Name]
		j.blamed += size
		j.failures = append(j.failures, f)
	}
}

// MostOdd is how many values a tensor of another shape may have where its node has so many, to be looked at for a cause: a few times as many, and
// some more for a node of few values. The flattest picture has no row of tiles, and one that is not unpadded all of them.
func MostOdd(values int) int { return min(4*values+1<<16, maxKeptOne) }

// blameShape notes a tensor of another shape. Only one that is not much larger than it should be is kept.
func (j *judge) blameShape(n shapes.Node, t shapes.Tensor, want []int) {
	if j.suite.Diagnose == nil || len(t.Data) > MostOdd(shapes.Product(want)) || len(t.Shape) > 8 {
		return
	}
	for _, l := range t.Shape {
		if l <= 0 || l > len(t.Data) {
			return
		}
	}
	if shapes.Product(t.Shape) != len(t.Data) {
		return
	}
	j.blame(Failure{Node: n, View: Contract, Ratio: compare.Worse, Got: shapes.Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}})
}

// diagnose asks the Diagnoser about what has failed, and puts what it says beside the checks.
func (j *judge) diagnose(ctx context.Context) {
	if j.suite.Diagnose == nil {
		return
	}
	e, any := j.evidence()
	if !any {
		return
	}
	found := j.suite.Diagnose(ctx, e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.causes = found.Case
	for name, causes := range found.Nodes {
		r := j.results[name]
		if r == nil {
			continue
		}
		for i, c := range r.Checks {
			if c.Result == Fail && (c.View == Local || c.View == Contract || c.View == Accumulated && !r.compared(Local)) {
				r.Checks[i].Causes = causes
				break
			}
		}
	}
}

// evidence gathers the failures in the order of execution, those without inputs left out.
func (j *judge) evidence() (Evidence, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return Evidence{}, false
	}
	e := Evidence{Drifts: map[string]float64{}, Truth: truthOf{j.truth, j.met, j.as.Lanes, j.longest}, Config: j.target.Set.Config, Weights: j.target.Weights, Inputs: cloneInputs(j.truth.Inputs), Lanes: j.as.Lanes, Classes: j.own, Shown: j.kept}
	for _, n := range j.nodes {
		for _, f := range j.failures {
			if f.Node.Name != n.Name {
				continue
			}
			if f.Inputs == nil && !j.keptInputs(&f) {
				f.Inputs, f.Derived = nil, nil
				e.Blind = append(e.Blind, f)
				continue
			}
			e.Failures = append(e.Failures, f)
		}
		r := j.results[n.Name]
		c, ok := r.Check(Accumulated)
		if !ok || c.Result != Pass && c.Result != Fail {
			continue
		}
		e.Drifts[n.Name] = c.Ratio
		if t, kept := j.kept[n.Name]; c.Result == Fail && kept && !r.compared(Local) {
			e.Blind = append(e.Blind, Failure{Node: n, View: Accumulated, Got: t, Class: j.met[n.Name], Ratio: c.Ratio})
		}
	}
	return e, len(e.Failures)+len(e.Blind) > 0
}

// keptInputs finds the inputs of a failure among what is kept.
func (j *judge) keptInputs(f *Failure) bool {
	f.Inputs, f.Derived = make([]shapes.Tensor, len(f.Node.Inputs)), make([]*compare.Budget, len(f.Node.Inputs))
	for i, name := range f.Node.Inputs {
		if _, isNode := j.byName[name]; !isNode {
			continue
		}
		t, ok := j.kept[name]
		if !ok {
			return false
		}
		f.Inputs[i] = t
	}
	return true
}
