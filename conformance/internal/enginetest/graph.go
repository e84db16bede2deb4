// Package enginetest has engines to test the suite with, and a small golden set to test it on.
package enginetest

import (
	"slices"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// Graph is an engine that evaluates the graph node by node. Without any of its hooks it is correct; each hook plants one sort of error.
type Graph struct {
	Config   shapes.Config
	Weights  shapes.Weights
	Declares conformance.Info

	Swap   func(n shapes.Node) shapes.Node                                                         // evaluates this node in the place of n
	Change func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor                  // the node's value, given the right one; later nodes read it
	Show   func(n shapes.Node, t shapes.Tensor, probe shapes.Probe)                                // instead of probe(n.Name, t)
	Order  func(nodes []shapes.Node) []shapes.Node                                                 // in which the nodes are shown, after all are computed
	Return func(logits shapes.Tensor, probe shapes.Probe) (shapes.Tensor, error)                   // what Forward returns
	Before func(in shapes.Inputs)                                                                  // called first
	Inputs func(n shapes.Node, in []shapes.Tensor, has func(string) shapes.Tensor) []shapes.Tensor // what the node reads
}

// Opener makes Graph engines with the hooks of g.
func (g Graph) Opener() conformance.Opener {
	return func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
		e := g
		e.Config = c
		if e.Weights == nil {
			e.Weights = w
		}
		if e.Declares.Name == "" {
			e.Declares.Name = "graph"
		}
		if e.Declares.Class == "" {
			e.Declares.Class = compare.F32
		}
		return e, nil
	}
}

// Info is what the engine was told to declare.
func (g Graph) Info() conformance.Info { return g.Declares }

// Forward evaluates the graph, then shows it.
func (g Graph) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	if g.Before != nil {
		g.Before(in)
	}
	e, err := replay.New(g.Config, g.Weights, in)
	if err != nil {
		return shapes.Tensor{}, err
	}
	var nodes []shapes.Node
	values := map[string]shapes.Tensor{}
	for _, n := range shapes.Nodes(g.Config) {
		if !n.Present(shapes.DimsOf(g.Config, in)) {
			continue
		}
		if values[n.Name], err = g.eval(e, n, values); err != nil {
			return shapes.Tensor{}, err
		}
		nodes = append(nodes, n)
	}
	if g.Order != nil {
		nodes = g.Order(slices.Clone(nodes))
	}
	for _, n := range nodes {
		if g.Show != nil {
			g.Show(n, values[n.Name], probe)
		} else {
			probe(n.Name, values[n.Name])
		}
	}
	if g.Return != nil {
		return g.Return(values[shapes.LMHead], probe)
	}
	return values[shapes.LMHead], nil
}

func (g Graph) eval(e *replay.Evaluator, n shapes.Node, values map[string]shapes.Tensor) (shapes.Tensor, error) {
	inputs := make([]shapes.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		inputs[i] = values[name]
	}
	read := inputs
	if g.Inputs != nil {
		read = g.Inputs(n, inputs, func(name string) shapes.Tensor { return values[name] })
	}
	as := n
	if g.Swap != nil {
		as = g.Swap(n)
	}
	y, err := e.Eval(as, read)
	if err == nil && g.Change != nil {
		y = g.Change(n, read, y)
	}
	return y, err
}

// Rounded changes every value to the nearest one of a class.
func Rounded(c compare.Class) func(shapes.Node, []shapes.Tensor, shapes.Tensor) shapes.Tensor {
	return func(_ shapes.Node, _ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
		for i, v := range y.Data {
			y.Data[i] = c.Round(v)
		}
		return y
	}
}

// Only shows the nodes for which keep is true.
func Only(keep func(n shapes.Node) bool) func(shapes.Node, shapes.Tensor, shapes.Probe) {
	return func(n shapes.Node, t shapes.Tensor, probe shapes.Probe) {
		if keep(n) {
			probe(n.Name, t)
		}
	}
}

// WithRows are the logits of a prompt whose packed image rows are others than the right ones: as many as it has image tokens. in is the prompt that the
// tower sees.
func WithRows(c shapes.Config, w shapes.Weights, in, prompt shapes.Inputs, change func(packed shapes.Tensor) shapes.Tensor) (shapes.Tensor, error) {
	values := map[string]shapes.Tensor{}
	_, err := Graph{Config: c, Weights: w}.Forward(in, func(name string, t shapes.Tensor) {
		if name == shapes.NodePack {
			values[name] = change(t)
		}
	})
	if err != nil {
		return shapes.Tensor{}, err
	}
	e, err := replay.New(c, w, prompt)
	if err != nil {
		return shapes.Tensor{}, err
	}
	nodes := shapes.Nodes(c)
	behind := slices.IndexFunc(nodes, func(n shapes.Node) bool { return n.Name == shapes.NodePack }) + 1
	for _, n := range nodes[behind:] {
		if values[n.Name], err = (Graph{}).eval(e, n, values); err != nil {
			return shapes.Tensor{}, err
		}
	}
	return values[shapes.LMHead], nil
}
