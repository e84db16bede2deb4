package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// maxHidden is through how many nodes that an engine does not show causes are looked for, as many as the suite derives.
const maxHidden = 4

// hidden tries the bugs of the nodes before f that the engine has not shown, such as scores and probabilities that a fused attention keeps to itself:
// a bug there is named where f's node, computed rightly from there on, gives the engine's tensor.
func (d *doctor) hidden(ctx context.Context, f conformance.Failure, bugs []Bug) ([]conformance.Cause, []Bug) {
	type fit struct {
		bug   Bug
		node  string
		ratio float64
		as    *Alternative
	}
	var fits []fit
	chain := d.unshown(f)
	for k, n := range chain {
		before, err := d.derive(f, chain[:k], derivation{})
		if err != nil {
			return nil, nil
		}
		at := f
		at.Node, at.Class, at.Got = n, d.class(n.Name, f.Class), shapes.Tensor{}
		at.Inputs, at.Derived = d.inputs(n, before, nil, nil)
		site := d.site(at)
		for _, b := range bugs {
			if ctx.Err() != nil {
				break
			}
			if !b.At(site) || slices.ContainsFunc(fits, func(f fit) bool { return f.bug.Key() == b.Key() }) {
				continue
			}
			var as *Alternative
			through := Bug{Make: func(*Site) (*Alternative, error) {
				a, err := b.Make(site)
				as = a
				if err != nil || a == nil {
					return nil, err
				}
				budget, err := a.budget()
				if err != nil {
					return nil, err
				}
				values := before.with(n.Name, a.Want, &budget)
				if values, err = d.derive(f, chain[k+1:], values); err != nil {
					return nil, err
				}
				end := f
				end.Inputs, end.Derived = d.inputs(f.Node, values, f.Inputs, f.Derived)
				return d.site(end).right()
			}}
			if _, ratio, ok := try(through, site, f.Got); ok {
				fits = append(fits, fit{b, n.Name, ratio, as})
			}
		}
	}
	for _, b := range bugs { // one bug may live in several of the nodes, such as both tables of the rotary embedding
		if ctx.Err() != nil || len(chain) < 2 {
			break
		}
		if slices.ContainsFunc(fits, func(f fit) bool { return f.bug.Key() == b.Key() }) {
			continue
		}
		var where []string
		everywhere := Bug{Make: func(*Site) (*Alternative, error) {
			values, err := d.altered(f, chain, b, &where)
			if err != nil || len(where) < 2 {
				return nil, err
			}
			end := f
			end.Inputs, end.Derived = d.inputs(f.Node, values, f.Inputs, f.Derived)
			return d.site(end).right()
		}}
		if a, ratio, ok := try(everywhere, d.site(f), f.Got); ok {
			fits = append(fits, fit{b, strings.Join(where, " and "), ratio, a})
		}
	}
	slices.SortStableFunc(fits, func(a, b fit) int { return cmp.Or(a.bug.rank()-b.bug.rank(), cmp.Compare(a.ratio, b.ratio)) })
	var causes []conformance.Cause
	var fitting []Bug
	for _, f := range fits[:min(maxCauses, len(fits))] {
		c := f.bug.cause(f.ratio, f.as)
		c.Text = fmt.Sprintf("in %s, which the engine does not show: %s", f.node, c.Text)
		causes, fitting = append(causes, c), append(fitting, f.bug)
	}
	return causes, fitting
}

// unshown lists the nodes that lie hidden between f and what the engine shows, in the order of execution; none if there are too many to derive.
func (d *doctor) unshown(f conformance.Failure) []shapes.Node {
	if f.View != conformance.Local {
		return nil
	}
	found := map[string]bool{}
	var walk func(name string)
	walk = func(name string) {
		n, isNode := d.graph.nodes[name]
		if _, shown := d.Shown[name]; !isNode || shown || found[name] || len(found) > maxHidden {
			return
		}
		found[name] = true
		for _, in := range n.Inputs {
			walk(in)
		}
	}
	for i, name := range f.Node.Inputs {
		if i < len(f.Derived) && f.Derived[i] != nil {
			walk(name)
		}
	}
	if len(found) > maxHidden {
		return nil
	}
	var chain []shapes.Node
	for _, n := range d.graph.order {
		if found[n.Name] {
			chain = append(chain, n)
		}
	}
	return chain
}

// derivation is values of hidden nodes, and what rounding may have done to the engine's.
type derivation map[string]derived

type derived struct {
	value  shapes.Tensor
	budget *compare.Budget
}

func (v derivation) with(name string, t shapes.Tensor, b *compare.Budget) derivation {
	w := derivation{name: {t, b}}
	for n, x := range v {
		if n != name {
			w[n] = x
		}
	}
	return w
}

// derive evaluates hidden nodes, one behind the other, beside those that are known.
func (d *doctor) derive(f conformance.Failure, chain []shapes.Node, known derivation) (derivation, error) {
	for _, n := range chain {
		in, budgets := d.inputs(n, known, nil, nil)
		want, err := d.eval.Eval(n, in)
		if err != nil {
			return nil, err
		}
		b, err := d.eval.BudgetDerived(n, in, budgets, want, compare.Arithmetic{Class: d.class(n.Name, f.Class), Lanes: d.Lanes})
		if err != nil {
			return nil, err
		}
		known = known.with(n.Name, want, &b)
	}
	return known, nil
}

// altered evaluates hidden nodes, one behind the other, with a bug in each in which it lives; where lists those.
func (d *doctor) altered(f conformance.Failure, chain []shapes.Node, b Bug, where *[]string) (derivation, error) {
	values := derivation{}
	for _, n := range chain {
		at := f
		at.Node, at.Class, at.Got = n, d.class(n.Name, f.Class), shapes.Tensor{}
		at.Inputs, at.Derived = d.inputs(n, values, nil, nil)
		site := d.site(at)
		if b.At(site) {
			a, err := b.Make(site)
			if err != nil {
				return nil, err
			}
			if a != nil {
				budget, err := a.budget()
				if err != nil {
					return nil, err
				}
				values = values.with(n.Name, a.Want, &budget)
				*where = append(*where, n.Name)
				continue
			}
		}
		var err error
		if values, err = d.derive(f, []shapes.Node{n}, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// inputs are what a node reads: hidden values, else those that are given, else the engine's.
func (d *doctor) inputs(n shapes.Node, hidden derivation, given []shapes.Tensor, budgets []*compare.Budget) ([]shapes.Tensor, []*compare.Budget) {
	in, b := make([]shapes.Tensor, len(n.Inputs)), make([]*compare.Budget, len(n.Inputs))
	for i, name := range n.Inputs {
		if h, ok := hidden[name]; ok {
			in[i], b[i] = h.value, h.budget
		} else if given != nil {
			in[i], b[i] = given[i], budgets[i]
		} else {
			in[i] = d.Shown[name]
		}
	}
	return in, b
}

// class is that of a node, where the evidence says.
func (d *doctor) class(node string, otherwise compare.Class) compare.Class {
	if d.Classes != nil {
		if c := d.Classes[node]; c != "" {
			return c
		}
	}
	return otherwise
}
