package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// Suite is what an engine is held against, and how.
type Suite struct {
	Targets  []Target
	Views    []View         // which views to take; nil is both
	Class    compare.Class  // judge by this class instead of the one that the engine declares; empty is the declared one
	Cases    string         // run only the cases whose name matches this pattern (path.Match); empty is all
	Diagnose Diagnoser      // asked what the failures of each prompt come from; may be nil
	FailFast bool           // stop after the first case that fails or could not be tested
	Progress func(Progress) // told of every node as it is judged, from the engine's own goroutine; may be nil
}

// Target is a golden set with its weights.
type Target struct {
	Set     *golden.Set
	Weights shapes.Weights
}

// Progress says how far a suite has come.
type Progress struct {
	Set, Case   string
	Done, Total int // nodes of all prompts
}

// Run opens the engine on every target and judges it case by case. Whatever goes wrong is in the result: an engine that
// cannot be opened, returns an error or panics is an Error, and the other cases go on. When ctx is cancelled, Run returns without
// waiting for a Forward that is under way; what that still computes is dropped.
func (s Suite) Run(ctx context.Context, open Opener) Run {
	run := Run{Views: s.views(), Class: s.Class}
	r := runner{Suite: s, ctx: ctx, run: &run}
	for _, t := range s.Targets {
		r.cases += len(s.cases(t.Set))
		r.total += len(s.cases(t.Set)) * len(shapes.Nodes(t.Set.Config))
	}
	for _, t := range s.Targets {
		if names := s.cases(t.Set); len(names) > 0 {
			run.Sets = append(run.Sets, r.set(t, names, open))
		}
		if r.stop {
			break
		}
	}
	return run
}

func (s Suite) views() []View {
	if len(s.Views) == 0 {
		return Views()
	}
	return slices.Clone(s.Views)
}

// cases lists the chosen cases of a set.
func (s Suite) cases(set *golden.Set) []string {
	var names []string
	for _, name := range set.Cases() {
		if ok, err := path.Match(s.Cases, name); s.Cases == "" || ok && err == nil {
			names = append(names, name)
		}
	}
	return names
}

// runner is one Run under way.
type runner struct {
	Suite
	ctx   context.Context
	run   *Run
	done  int // nodes of the prompts before this one
	total int
	cases int // in all
	stop  bool
}

func (r *runner) set(t Target, names []string, open Opener) Set {
	result := Set{Name: t.Set.Manifest.Model, Digest: t.Set.Manifest.Weights.SHA256, Total: len(t.Set.Cases())}
	engine, err := openEngine(open, t)
	if err != nil {
		result.Reason = fmt.Sprintf("the engine could not be opened: %v", err)
		r.stop = r.FailFast
		return result
	}
	if _, ok := engine.(CaseEngine); ok {
		defer closeEngine(engine)
	} else { // that declares itself prompt by prompt
		if err := r.declared(engine.Info()); err != nil {
			result.Reason = err.Error()
			return result
		}
		defer func() {
			if r.ctx.Err() == nil { // else a Forward may still be under way
				closeEngine(engine)
			}
		}()
	}
	for _, name := range names {
		c := r.runCase(engine, t, name)
		interrupted := r.ctx.Err() != nil
		if interrupted && c.Status() != Error { // the prompts behind are not run
			c.Reason, c.Problems = "", append(c.Problems, Problem{Error, fmt.Sprintf("interrupted: %v", context.Cause(r.ctx))})
		}
		result.Cases = append(result.Cases, c)
		r.done += len(shapes.Nodes(t.Set.Config))
		if interrupted || r.FailFast && c.Status() > Convention {
			r.stop = true
			break
		}
	}
	return result
}

// declared takes in what the engine declares. One engine declares the same for every prompt.
func (r *runner) declared(info Info) error {
	for _, c := range append([]NodeClass{{Class: info.Class}}, info.Classes...) {
		if _, err := compare.ParseClass(string(c.Class)); err != nil && (r.Class == "" || c.Nodes != "") {
			return fmt.Errorf("the engine declares class %q, want f32, f16 or bf16", c.Class)
		}
	}
	if old := r.run.Engine; old.Name != "" && !reflect.DeepEqual(old, info) {
		return fmt.Errorf("it declares itself otherwise than before: %s, and here %s; test them apart", inWords(info), inWords(old))
	}
	r.run.Engine, r.run.Class = info, info.Class
	if r.Class != "" {
		r.run.Class = r.Class
	}
	return nil
}

func inWords(info Info) string {
	return fmt.Sprintf("%s %s, %s with %d lanes, %d classes of nodes", info.Name, info.Version, info.Class, info.Lanes, len(info.Classes))
}

// openEngine opens an engine; a panic of it is an error.
func openEngine(open Opener, t Target) (e Engine, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v", p)
		}
	}()
	return open(t.Set.Config, t.Weights)
}

// forCase is the engine for one prompt.
func (r *runner) forCase(engine Engine, t Target, name string) (e Engine, err error) {
	of, ok := engine.(CaseEngine)
	if !ok {
		return engine, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v", p)
		}
	}()
	if e, err = of.ForCase(r.ctx, t, name, r.cases == 1); err != nil {
		return nil, err
	}
	if err := r.declared(e.Info()); err != nil {
		closeEngine(e)
		return nil, err
	}
	return e, nil
}

func closeEngine(e Engine) {
	if c, ok := e.(io.Closer); ok {
		c.Close()
	}
}

// runCase runs and judges one prompt.
func (r *runner) runCase(engine Engine, t Target, name string) Case {
	c, err := t.Set.Case(name)
	if err != nil {
		return Case{Name: name, Problems: []Problem{{Error, err.Error()}}}
	}
	of := engine
	engine, err = r.forCase(engine, t, name)
	var not NotRun
	if errors.As(err, &not) {
		return Case{Name: name, Why: c.Why, Reason: string(not)}
	}
	if err != nil {
		return Case{Name: name, Why: c.Why, Problems: []Problem{{Error, err.Error()}}}
	}
	info := r.run.Engine
	if r.Class != "" {
		info.Class, info.Classes = r.Class, nil
	}
	j, err := newJudge(t, c, r.Suite, info)
	if err != nil {
		return Case{Name: name, Why: c.Why, Problems: []Problem{{Error, err.Error()}}}
	}
	if r.Progress != nil {
		j.progress = func(nodes int) {
			r.Progress(Progress{Set: t.Set.Manifest.Model, Case: name, Done: r.done + nodes, Total: r.total})
		}
	}
	done, last := make(chan struct{}), j
	go func() {
		defer close(done)
		if _, ok := of.(CaseEngine); ok {
			defer closeEngine(engine)
		}
		j.forward(engine, cloneInputs(c.Inputs))
		j.inventory(engine)
		j.diagnose(r.ctx)
		last = j.otherwise(r.ctx, engine)
	}()
	select {
	case <-done:
		j = last
	case <-r.ctx.Done():
		j.problem(Error, "interrupted: %v", context.Cause(r.ctx))
	}
	return j.result()
}

// cloneInputs is a prompt that an engine may scribble over.
func cloneInputs(in shapes.Inputs) shapes.Inputs {
	in.PixelValues = shapes.Tensor{Shape: slices.Clone(in.PixelValues.Shape), Data: slices.Clone(in.PixelValues.Data)}
	in.ImageSizes, in.InputIDs, in.PositionIDs = slices.Clone(in.ImageSizes), slices.Clone(in.InputIDs), slices.Clone(in.PositionIDs)
	return in
}
