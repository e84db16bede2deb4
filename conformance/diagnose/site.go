package diagnose

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// Site is one node of one prompt, with the inputs that an engine gave it.
type Site struct {
	Config  shapes.Config
	Weights shapes.Weights
	Prompt  shapes.Inputs
	Node    shapes.Node
	Inputs  []shapes.Tensor   // Inputs[i] stands for Node.Inputs[i]
	Derived []*compare.Budget // of inputs that are not the engine's own; nil if all are
	As      compare.Arithmetic
	Shown   func(node string) (shapes.Tensor, bool) // other values of the engine
	Got     shapes.Tensor                           // what the engine made of it; no shape at all while a mutant computes it

	eval  *replay.Evaluator // of the right model
	graph *table
}

// table is the graph of a configuration, looked up by name.
type table struct {
	nodes  map[string]shapes.Node
	params map[string]shapes.Param
	order  []shapes.Node
}

func tableOf(c shapes.Config) *table {
	t := &table{nodes: map[string]shapes.Node{}, params: map[string]shapes.Param{}, order: shapes.Nodes(c)}
	for _, n := range t.order {
		t.nodes[n.Name] = n
	}
	for _, p := range shapes.Params(c) {
		t.params[p.Name] = p
	}
	return t
}

// Alternative is what a node is with a bug.
type Alternative struct {
	Want   shapes.Tensor
	node   shapes.Node // that it is judged as
	budget func() (compare.Budget, error)
	effect string // in tokens, where it has one
	rows   []int  // of each image, where they are not as many as they should be
}

// Verdict holds an engine's tensor against the alternative, by the limits of a right kernel for it.
func (a *Alternative) Verdict(got shapes.Tensor) (compare.Verdict, error) {
	if !slices.Equal(a.Want.Shape, got.Shape) {
		return compare.Verdict{Ratio: compare.Worse}, nil
	}
	b, err := a.budget()
	if err != nil {
		return compare.Verdict{}, err
	}
	return compare.Local(b, a.node, got).Verdict, nil
}

// NewSite makes a site of a prompt. evaluator is that of the right model for the prompt.
func (t *table) site(s Site, evaluator *replay.Evaluator) *Site {
	s.eval, s.graph = evaluator, t
	if s.Derived == nil {
		s.Derived = make([]*compare.Budget, len(s.Inputs))
	}
	return &s
}

// is says whether the node has one of the names behind its last dots: "q_proj", "mlp.fc1".
func (s *Site) is(leaves ...string) bool {
	for _, l := range leaves {
		if s.Node.Name == l || len(s.Node.Name) > len(l) && s.Node.Name[len(s.Node.Name)-len(l)-1:] == "."+l {
			return true
		}
	}
	return false
}

// vision says whether the node belongs to the tower.
func (s *Site) vision() bool { return under(s.Node.Name, shapes.VisionTower) }

// text says whether the node belongs to the language model.
func (s *Site) text() bool { return under(s.Node.Name, "language_model") }

// projector says whether the node belongs to the projector.
func (s *Site) projector() bool { return under(s.Node.Name, shapes.Projector) }

func under(name, module string) bool {
	return len(name) > len(module) && name[:len(module)+1] == module+"."
}

// run evaluates a node with an evaluator and judges it as that node.
func (s *Site) run(e *replay.Evaluator, n shapes.Node, in []shapes.Tensor) (*Alternative, error) {
	want, err := e.Eval(n, in)
	if err != nil {
		return nil, err
	}
	return &Alternative{Want: want, node: n, budget: func() (compare.Budget, error) { return e.BudgetDerived(n, in, s.Derived, want, s.As) }}, nil
}

// right is the node as it should be.
func (s *Site) right() (*Alternative, error) { return s.run(s.eval, s.Node, s.Inputs) }

// as evaluates a changed node in the place of this one.
func (s *Site) as(change func(n *shapes.Node)) (*Alternative, error) {
	n := s.Node
	n.Params, n.Inputs = slices.Clone(n.Params), slices.Clone(n.Inputs)
	change(&n)
	return s.run(s.eval, n, s.Inputs)
}

// reading evaluates the node on other inputs.
func (s *Site) reading(in ...shapes.Tensor) (*Alternative, error) { return s.run(s.eval, s.Node, in) }

// prompted evaluates the node for another prompt or configuration with the same sizes.
func (s *Site) prompted(change func(c *shapes.Config, in *shapes.Inputs)) (*Alternative, error) {
	c, in := s.Config, s.Prompt
	in.PositionIDs, in.InputIDs, in.ImageSizes = slices.Clone(in.PositionIDs), slices.Clone(in.InputIDs), slices.Clone(in.ImageSizes)
	change(&c, &in)
	e, err := replay.New(c, s.Weights, in)
	if err != nil {
		return nil, err
	}
	return s.run(e, s.Node, s.Inputs)
}

// maxAltered bounds the parameters that are changed in memory: values.
const maxAltered = 1 << 26

// weighted evaluates the node with one of its parameters changed: change gets its values, whole, to overwrite.
func (s *Site) weighted(i int, change func(shape []int, w []float32)) (*Alternative, error) {
	if i >= len(s.Node.Params) {
		return nil, nil
	}
	p := s.graph.params[s.Node.Params[i]]
	if p.Count() > maxAltered {
		return nil, nil
	}
	w := make([]float32, p.Count())
	if err := s.Weights.Read(p.Name, 0, w); err != nil {
		return nil, err
	}
	before := slices.Clone(w)
	change(p.Shape, w)
	if slices.Equal(before, w) {
		return nil, nil
	}
	e, err := replay.New(s.Config, &altered{s.Weights, p.Name, w}, s.Prompt)
	if err != nil {
		return nil, err
	}
	return s.run(e, s.Node, s.Inputs)
}

// altered are weights with one parameter replaced.
type altered struct {
	shapes.Weights
	name string
	data []float32
}

// Read reads the parameter in memory, or one of the checkpoint.
func (a *altered) Read(name string, from int, dst []float32) error {
	if name != a.name {
		return a.Weights.Read(name, from, dst)
	}
	if from < 0 || from > len(a.data)-len(dst) {
		return fmt.Errorf("diagnose: %s: values %d to %d, want at most %d", name, from, from+len(dst), len(a.data))
	}
	copy(dst, a.data[from:])
	return nil
}

// param reads a parameter whole.
func (s *Site) param(name string) (shapes.Tensor, error) {
	p, ok := s.graph.params[name]
	if !ok || p.Count() > maxAltered {
		return shapes.Tensor{}, fmt.Errorf("diagnose: %s is no parameter that can be read whole", name)
	}
	t := shapes.NewTensor(p.Shape...)
	return t, s.Weights.Read(name, 0, t.Data)
}

// value is another result with the limits of a right one of that size.
func (s *Site) value(want shapes.Tensor) (*Alternative, error) {
	return &Alternative{Want: want, node: s.Node, budget: func() (compare.Budget, error) {
		return s.eval.BudgetDerived(s.Node, s.Inputs, s.Derived, want, s.As)
	}}, nil
}

// moved is a result that only moves values, of whatever shape. The inputs' own rounding, where they are derived, is not in its limit.
func (s *Site) moved(want shapes.Tensor) (*Alternative, error) {
	b := compare.Budget{Want: want, Class: s.As.Class, Copy: true}
	n := s.Node
	n.Shape = make([]shapes.Dim, len(want.Shape))
	return &Alternative{Want: want, node: n, budget: func() (compare.Budget, error) { return b, nil }}, nil
}

// each computes an elementwise function of the first input in float64. kind is that of the right function of the sort, "" is the node's own:
// a function that cancels has other limits than one that does not.
func (s *Site) each(kind shapes.Kind, f func(x float64) float64) (*Alternative, error) {
	y := shapes.NewTensor(s.Inputs[0].Shape...)
	for i, v := range s.Inputs[0].Data {
		y.Data[i] = float32(f(float64(v)))
	}
	n := s.Node
	if kind != "" {
		n.Kind = kind
	}
	return &Alternative{Want: y, node: n, budget: func() (compare.Budget, error) { return s.eval.BudgetDerived(n, s.Inputs, s.Derived, y, s.As) }}, nil
}

// scaled multiplies the right result; the limits are those of the right one, scaled.
func (s *Site) scaled(factor float64) (*Alternative, error) {
	a, err := s.right()
	if err != nil {
		return nil, err
	}
	return a.rearranged(func(x []float32) []float32 { return times(x, factor) }, a.Want.Shape, factor), nil
}

func times(x []float32, factor float64) []float32 {
	if x == nil {
		return nil
	}
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(float64(v) * factor)
	}
	return y
}

// rearranged moves the values of an alternative, and what rounding may do to them with them. factor, if not 0, is by what move also scales.
func (a *Alternative) rearranged(move func(x []float32) []float32, shape []int, factor float64) *Alternative {
	want := shapes.Tensor{Shape: shape, Data: move(a.Want.Data)}
	return &Alternative{Want: want, node: a.node, budget: func() (compare.Budget, error) {
		b, err := a.budget()
		if err != nil {
			return b, err
		}
		some := func(x []float32) []float32 {
			if x == nil {
				return nil
			}
			y := move(x)
			for i, v := range y {
				if factor < 0 {
					y[i] = -v
				}
			}
			return y
		}
		b.Want, b.Acc, b.AccRMS, b.Sto, b.StoRMS = want, some(b.Acc), some(b.AccRMS), some(b.Sto), some(b.StoRMS)
		if b.Copy && factor != 0 { // a copy that was scaled is rounded once more, and so is the factor
			n := len(want.Data)
			b.Copy, b.Acc, b.AccRMS, b.Tilt = false, make([]float32, n), make([]float32, n), b.Tilt+0x1p-24
			for i, v := range want.Data {
				m := float32(math.Abs(float64(v)) * 0x1p-23)
				b.Acc[i], b.AccRMS[i] = m, m
			}
		}
		return b, nil
	}}
}

// permuted is the right result with its rows, of width values each, in another order: row i is the right row from[i].
func (a *Alternative) permuted(width int, from []int, shape []int) *Alternative {
	return a.rearranged(func(x []float32) []float32 {
		y := make([]float32, len(from)*width)
		for i, r := range from {
			copy(y[i*width:][:width], x[r*width:][:width])
		}
		return y
	}, shape, 0)
}

// rows reorders the rows of a tensor.
func rows(t shapes.Tensor, width int, from []int) shapes.Tensor {
	y := shapes.Tensor{Shape: slices.Clone(t.Shape), Data: make([]float32, 0, len(from)*width)}
	for _, r := range from {
		y.Data = append(y.Data, t.Data[r*width:][:width]...)
	}
	return y
}

// columns reorders the columns of a tensor: column j is the old column from[j].
func columns(t shapes.Tensor, from []int) shapes.Tensor {
	y := shapes.NewTensor(t.Shape...)
	for r := range y.Rows() {
		in, out := t.Row(r), y.Row(r)
		for j, f := range from {
			out[j] = in[f]
		}
	}
	return y
}

func count(n int, f func(i int) int) []int {
	y := make([]int, n)
	for i := range y {
		y[i] = f(i)
	}
	return y
}
