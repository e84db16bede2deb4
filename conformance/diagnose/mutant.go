package diagnose

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// Model evaluates one prompt with and without bugs. It keeps the values of the right model, so that a bug costs only what stands behind it.
// It is not safe for concurrent use.
type Model struct {
	config  shapes.Config
	weights shapes.Weights
	prompt  shapes.Inputs
	graph   *table
	eval    *replay.Evaluator
	class   compare.Class // that values are stored in
	dims    shapes.Dims
	values  map[string]shapes.Tensor // of the right model, in its class
	preset  map[string]shapes.Tensor // values that are taken as they are
}

// NewModel evaluates the right model on a prompt, every value rounded to the class.
func NewModel(c shapes.Config, w shapes.Weights, in shapes.Inputs, class compare.Class) (*Model, error) {
	eval, err := replay.New(c, w, in)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c, weights: w, prompt: in, graph: tableOf(c), eval: eval, class: class, dims: shapes.DimsOf(c, in)}
	m.values, err = m.Run(nil, nil)
	return m, err
}

// Nodes lists the nodes that the prompt has.
func (m *Model) Nodes() []shapes.Node {
	var nodes []shapes.Node
	for _, n := range m.graph.order {
		if n.Present(m.dims) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Value is what the right model has at a node.
func (m *Model) Value(node string) shapes.Tensor { return m.values[node] }

// Site is a node as a right engine would come to it.
func (m *Model) Site(n shapes.Node, lanes compare.Lanes) *Site {
	return m.site(n, m.values, lanes)
}

func (m *Model) site(n shapes.Node, values map[string]shapes.Tensor, lanes compare.Lanes) *Site {
	in := make([]shapes.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		in[i] = values[name]
	}
	return m.graph.site(Site{Config: m.config, Weights: m.weights, Prompt: m.prompt, Node: n, Inputs: in, As: compare.Arithmetic{Class: m.class, Lanes: lanes},
		Shown: func(name string) (shapes.Tensor, bool) { t, ok := values[name]; return t, ok }}, m.eval)
}

// Alter computes a node of a right engine with a bug; no shape if the bug does not exist there or changes nothing.
func (m *Model) Alter(b Bug, n shapes.Node) (shapes.Tensor, error) {
	return m.alter(b, m.Site(n, 0), m.values[n.Name])
}

// alter is the node with a bug, no shape if it is the same without.
func (m *Model) alter(b Bug, s *Site, right shapes.Tensor) (y shapes.Tensor, err error) {
	if !b.At(s) {
		return y, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("diagnose: %s at %s: %v", b.Key(), s.Node.Name, p)
		}
	}()
	a, err := b.Make(s)
	if err != nil || a == nil {
		return shapes.Tensor{}, err
	}
	y = m.stored(a.Want)
	if slices.Equal(y.Shape, right.Shape) && slices.EqualFunc(y.Data, right.Data, func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b)
	}) {
		return shapes.Tensor{}, nil
	}
	return y, nil
}

func (m *Model) stored(t shapes.Tensor) shapes.Tensor {
	if m.class == compare.F32 {
		return t
	}
	y := shapes.Tensor{Shape: t.Shape, Data: make([]float32, len(t.Data))}
	for i, v := range t.Data {
		y.Data[i] = m.class.Round(v)
	}
	return y
}

// Run evaluates the graph with bugs at every node where they live, and gives all values. A node none of whose inputs has changed keeps its
// right value. only, if not nil, restricts the bugs to the nodes that it is true for.
func (m *Model) Run(bugs []Bug, only func(n shapes.Node) bool) (map[string]shapes.Tensor, error) {
	return m.run(bugs, only, nil)
}

// run is Run that stops early: see, if not nil, is told of every node whose value is not the right model's, and says whether to go on.
func (m *Model) run(bugs []Bug, only func(n shapes.Node) bool, see func(n shapes.Node, y shapes.Tensor) bool) (map[string]shapes.Tensor, error) {
	values := make(map[string]shapes.Tensor, len(m.values))
	changed := map[string]bool{}
	for _, n := range m.graph.order {
		if !n.Present(m.dims) {
			continue
		}
		if y, ok := m.preset[n.Name]; ok {
			values[n.Name] = y
			continue
		}
		right, known := m.values[n.Name]
		dirty := !known
		for _, in := range n.Inputs {
			dirty = dirty || changed[in]
		}
		// In the order of execution a bug may read what has been computed so far.
		s := m.site(n, values, 0)
		y := right
		if dirty {
			m.fit(s)
			var err error
			if y, err = m.eval.Eval(n, s.Inputs); err != nil {
				return nil, err
			}
			y = m.stored(y)
		}
		for _, b := range bugs {
			if only != nil && !only(n) {
				continue
			}
			z, err := m.alter(b, s, y)
			if err != nil {
				return nil, err
			}
			if z.Shape != nil {
				y, dirty = z, true
				break
			}
		}
		values[n.Name] = y
		if dirty && known {
			changed[n.Name] = true
			if see != nil && !see(n, y) {
				return values, nil
			}
		}
	}
	return values, nil
}

// fit makes the inputs of a node have the sizes that the prompt asks for, as an engine does that puts as many image rows into the prompt
// as it has: a number that is too large is cut, one that is too small is filled up with zeros.
func (m *Model) fit(s *Site) {
	for i, name := range s.Node.Inputs {
		n, ok := m.graph.nodes[name]
		if !ok || s.Inputs[i].Shape == nil {
			continue
		}
		want := n.Concrete(m.dims)
		if slices.Equal(want, s.Inputs[i].Shape) {
			continue
		}
		t := shapes.NewTensor(want...)
		if len(want) == 3 && len(s.Inputs[i].Shape) == 3 && want[2] == s.Inputs[i].Shape[2] { // tile by tile
			for k := range min(want[0], s.Inputs[i].Shape[0]) {
				size := s.Inputs[i].Shape[1] * want[2]
				copy(t.Data[k*want[1]*want[2]:][:want[1]*want[2]], s.Inputs[i].Data[k*size:][:size])
			}
		} else {
			copy(t.Data, s.Inputs[i].Data)
		}
		s.Inputs[i] = t
	}
}

// Trial is one bug in a right engine's run of one prompt, looked at in every way that the suite has.
type Trial struct {
	Site   shapes.Node // the first node where the bug changes something; no name if there is none in this prompt
	Wrong  shapes.Tensor
	Local  compare.Verdict     // of that node, by its own inputs
	Shape  bool                // it has another shape: nothing more to judge
	Causes []conformance.Cause // named at that node
}

// Try plants a bug at the first node where it changes something, judges that node by its own inputs and asks for causes.
func (m *Model) Try(ctx context.Context, b Bug, lanes compare.Lanes) (Trial, error) {
	for _, n := range m.Nodes() {
		if !slices.Contains(b.Kinds, n.Kind) {
			continue
		}
		y, err := m.Alter(b, n)
		if err != nil {
			return Trial{}, err
		}
		if y.Shape == nil {
			continue
		}
		t := Trial{Site: n, Wrong: y}
		s := m.Site(n, lanes)
		right, err := s.right()
		if err != nil {
			return t, err
		}
		view := conformance.Local
		if t.Shape = !slices.Equal(right.Want.Shape, y.Shape); t.Shape {
			t.Local, view = compare.Verdict{Ratio: compare.Worse}, conformance.Contract
		} else if t.Local, err = right.Verdict(y); err != nil {
			return t, err
		}
		if !t.Local.Pass {
			d := &doctor{conformance.Evidence{Config: m.config, Weights: m.weights, Inputs: m.prompt, Lanes: lanes, Shown: m.values}, m.eval, m.graph}
			f := conformance.Failure{Node: n, View: view, Inputs: s.Inputs, Got: y, Class: m.class, Ratio: t.Local.Ratio}
			t.Causes, _ = d.node(ctx, f, Catalogue())
		}
		return t, nil
	}
	return Trial{}, nil
}

// Spread runs the graph with a bug at every node where it lives and tells see of each changed node in the order of execution, until see
// says to stop.
func (m *Model) Spread(b Bug, see func(n shapes.Node, y shapes.Tensor) bool) error {
	_, err := m.run([]Bug{b}, nil, see)
	return err
}

// imageRows is how many rows each image of the prompt has with bugs; none if that cannot be told.
func (m *Model) imageRows(bugs []Bug) []int {
	p := packer{}
	for _, b := range bugs {
		if b.packer != nil {
			p = *b.packer
			break // the first changes the node, as in Run
		}
	}
	if len(m.prompt.PixelValues.Shape) == 0 {
		return nil
	}
	side := m.config.Vision.PatchesPerSide()
	cells := shapes.NewTensor(m.prompt.PixelValues.Shape[0], side*side, 1)
	images, ok := p.each(&Site{Config: m.config, Prompt: m.prompt}, cells, shapes.NewTensor(1))
	if !ok {
		return nil
	}
	return count(len(images), func(i int) int { return len(images[i]) })
}

func total(list []int) int {
	n := 0
	for _, v := range list {
		n += v
	}
	return n
}

// Logits are those of the model with bugs at every node where they live, [T, V]. Where a bug changes how many rows the images have, the prompt has as many
// image tokens, as in an engine that makes its prompt by itself.
func (m *Model) Logits(bugs ...Bug) (shapes.Tensor, error) {
	values, err := m.Run(bugs, nil)
	if err != nil {
		return shapes.Tensor{}, err
	}
	packed := values[shapes.NodePack]
	if packed.Shape == nil || packed.Rows() == m.dims.R {
		return values[shapes.LMHead], nil
	}
	right, wrong := m.imageRows(nil), m.imageRows(bugs)
	if len(right) != len(wrong) || total(right) != m.dims.R || total(wrong) != packed.Rows() { // whose rows they are is not known
		if len(m.prompt.ImageSizes) != 1 {
			return values[shapes.LMHead], nil
		}
		right, wrong = []int{m.dims.R}, []int{packed.Rows()}
	}
	in := m.prompt
	in.InputIDs, in.PositionIDs = nil, nil
	image, left := 0, 0 // the image at hand, and how many of its right tokens are still to come
	for _, id := range m.prompt.InputIDs {
		if id != m.config.ImageTokenID {
			in.InputIDs = append(in.InputIDs, id)
			continue
		}
		if left == 0 { // a new image
			left = right[image]
			in.InputIDs = append(in.InputIDs, slices.Repeat([]int{id}, wrong[image])...)
			image++
		}
		left--
	}
	in.PositionIDs = count(len(in.InputIDs), func(i int) int { return i })
	eval, err := replay.New(m.config, m.weights, in)
	if err != nil {
		return shapes.Tensor{}, err
	}
	other := &Model{config: m.config, weights: m.weights, prompt: in, graph: m.graph, eval: eval, class: m.class, dims: shapes.DimsOf(m.config, in), preset: map[string]shapes.Tensor{}}
	for _, n := range m.graph.order {
		if y, ok := values[n.Name]; ok {
			other.preset[n.Name] = y
		}
		if n.Name == shapes.NodePack {
			break
		}
	}
	if values, err = other.Run(bugs, nil); err != nil {
		return shapes.Tensor{}, err
	}
	return values[shapes.LMHead], nil
}
