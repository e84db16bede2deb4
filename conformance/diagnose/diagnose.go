package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// Limits of a diagnosis.
const (
	maxCauses = 5                // that are named for one node
	patience  = 90 * time.Second // for one prompt; what is not tried by then is not named
	// repeats is how many failing nodes of one place of the layers are tried with every alternative; further ones are tried with
	// what has fitted the others of their place.
	repeats = 1
)

// Diagnose names what the failures of a prompt come from. It is a conformance.Diagnoser.
func Diagnose(ctx context.Context, e conformance.Evidence) conformance.Findings {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d, err := newDoctor(e)
	if err != nil {
		return conformance.Findings{}
	}
	var found conformance.Findings
	found.Nodes, found.Case = d.blind(ctx)
	tried := map[string]int{}
	fitted, behind := map[string][]Bug{}, map[string][]Bug{}
	for _, f := range e.Failures {
		place := layerNumber.ReplaceAllString(f.Node.Name+".", ".layers.N.")
		bugs := Catalogue()
		if tried[place]++; tried[place] > repeats && len(fitted[place]) > 0 {
			bugs = fitted[place]
		}
		causes, fit := d.node(ctx, f, bugs)
		fitted[place] = append(fitted[place], fit...)
		if len(causes) == 0 {
			bugs := Catalogue()
			if tried[place] > repeats && len(behind[place]) > 0 {
				bugs = behind[place]
			}
			causes, fit = d.hidden(ctx, f, bugs)
			behind[place] = append(behind[place], fit...)
		}
		if len(causes) == 0 {
			causes = d.wiring(ctx, f)
			found.Case = append(found.Case, causes...)
		}
		if len(causes) > 0 {
			found.Nodes[f.Node.Name] = causes
		}
		if ctx.Err() != nil {
			break
		}
	}
	return found
}

// doctor has what the failures of one prompt share.
type doctor struct {
	conformance.Evidence
	eval  *replay.Evaluator
	graph *table
}

func newDoctor(e conformance.Evidence) (*doctor, error) {
	eval, err := replay.New(e.Config, e.Weights, e.Inputs)
	if err != nil {
		return nil, err
	}
	return &doctor{e, eval, tableOf(e.Config)}, nil
}

func (d *doctor) site(f conformance.Failure) *Site {
	return d.graph.site(Site{Config: d.Config, Weights: d.Weights, Prompt: d.Inputs, Node: f.Node, Inputs: f.Inputs, Derived: f.Derived,
		As: compare.Arithmetic{Class: f.Class, Lanes: d.Lanes}, Shown: d.shown, Got: f.Got}, d.eval)
}

func (d *doctor) shown(name string) (shapes.Tensor, bool) {
	t, ok := d.Shown[name]
	return t, ok
}

// node tries the bugs of a node: the causes that reproduce the engine's tensor, and the bugs that they are.
func (d *doctor) node(ctx context.Context, f conformance.Failure, bugs []Bug) ([]conformance.Cause, []Bug) {
	type fit struct {
		bug   Bug
		ratio float64
		as    *Alternative
	}
	var fits []fit
	s := d.site(f)
	for _, b := range bugs {
		if ctx.Err() != nil {
			break
		}
		if !b.At(s) || slices.ContainsFunc(fits, func(f fit) bool { return f.bug.Key() == b.Key() }) {
			continue
		}
		if a, ratio, ok := try(b, s, f.Got); ok {
			fits = append(fits, fit{b, ratio, a})
		}
	}
	slices.SortStableFunc(fits, func(a, b fit) int { return cmp.Or(a.bug.rank()-b.bug.rank(), cmp.Compare(a.ratio, b.ratio)) })
	var causes []conformance.Cause
	var fitting []Bug
	for _, f := range fits[:min(maxCauses, len(fits))] {
		causes = append(causes, f.bug.cause(f.ratio, f.as))
		fitting = append(fitting, f.bug)
	}
	return causes, fitting
}

// cause is the bug, which made an alternative if any is given, as a result says it.
func (b Bug) cause(ratio float64, as *Alternative) conformance.Cause {
	c := conformance.Cause{ID: b.ID, Text: b.Text, Look: b.Look, Ratio: ratio, Convention: b.Convention}
	if b.Convention != "" && as != nil {
		c.Effect, c.Rows = as.effect, as.rows
	}
	return c
}

// try holds an engine's tensor against a bug at its node. An alternative that cannot be made of what the engine has shown does not fit: its
// values are the engine's, and whatever they make of a kernel, up to a panic, is not an error of ours.
func try(b Bug, s *Site, got shapes.Tensor) (a *Alternative, ratio float64, fits bool) {
	defer func() {
		if recover() != nil {
			fits = false
		}
	}()
	a, err := b.Make(s)
	if err != nil || a == nil {
		return nil, 0, false
	}
	v, err := a.Verdict(got)
	return a, v.Ratio, err == nil && v.Pass
}

// wiring looks for another of the engine's values that the node may have read in the place of one of its inputs.
func (d *doctor) wiring(ctx context.Context, f conformance.Failure) []conformance.Cause {
	if f.View != conformance.Local {
		return nil
	}
	var causes []conformance.Cause
	s := d.site(f)
	for i, name := range f.Node.Inputs {
		if f.Inputs[i].Shape == nil {
			continue
		}
		for _, n := range d.graph.order {
			t, ok := d.Shown[n.Name]
			if n.Name == name || n.Name == f.Node.Name || !ok || !slices.Equal(t.Shape, f.Inputs[i].Shape) {
				continue
			}
			if ctx.Err() != nil {
				return causes
			}
			in := slices.Clone(f.Inputs)
			in[i] = t
			_, ratio, ok := try(Bug{Make: func(s *Site) (*Alternative, error) { return s.reading(in...) }}, s, f.Got)
			if ok && len(causes) < maxCauses {
				causes = append(causes, conformance.Cause{ID: "W01", Text: fmt.Sprintf("%s reads %s in the place of %s", f.Node.Name, n.Name, name), Look: "which value is handed on to this node", Ratio: ratio})
			}
		}
	}
	slices.SortStableFunc(causes, func(a, b conformance.Cause) int { return cmp.Compare(a.Ratio, b.Ratio) })
	return causes
}
