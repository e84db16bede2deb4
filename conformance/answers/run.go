package answers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/shapes"
)

// Options say what is asked, and how it is judged.
type Options struct {
	Class    compare.Class              // judge by this class instead of the one that the engine declares; empty is the declared one
	Cases    string                     // only the cases whose name matches this pattern (path.Match); empty is all
	Only     bool                       // the engine is asked for nothing else: no golden set is run
	FailFast bool                       // stop after the first case that fails or could not be tested
	Progress func(conformance.Progress) // told of every case behind it; may be nil
}

// Cases lists the cases of a set that a pattern chooses.
func Cases(set *endtoend.Set, pattern string) []endtoend.Case {
	var out []endtoend.Case
	for _, c := range set.Cases {
		if ok, err := path.Match(pattern, c.Name); pattern == "" || ok && err == nil {
			out = append(out, c)
		}
	}
	return out
}

// Run asks an engine all cases of the targets and judges its answers. Whatever goes wrong is in the result, as in conformance.Suite.
func Run(ctx context.Context, targets []*Target, opt Options, open Opener) conformance.Run {
	r := runner{Options: opt, ctx: ctx, run: conformance.Run{Class: opt.Class}}
	for _, t := range targets {
		r.total += len(Cases(t.Set, opt.Cases))
	}
	for _, t := range targets {
		if cases := Cases(t.Set, opt.Cases); len(cases) > 0 && !r.stop {
			r.run.Sets = append(r.run.Sets, r.set(t, cases, open))
		}
	}
	return r.run
}

type runner struct {
	Options
	ctx         context.Context
	run         conformance.Run
	done, total int // cases
	stop        bool
}

func (r *runner) set(t *Target, cases []endtoend.Case, open Opener) conformance.Set {
	result := conformance.Set{Name: t.Set.Name, Digest: t.Digest, Total: len(t.Set.Cases), EndToEnd: true}
	engine, err := openEngine(open, t)
	if err != nil {
		result.Reason, r.stop = fmt.Sprintf("the engine could not be opened: %v", err), r.FailFast
		return result
	}
	if c, ok := engine.(io.Closer); ok {
		defer c.Close()
	}
	for _, c := range cases {
		k := r.runCase(engine, t, c)
		result.Cases = append(result.Cases, k)
		if r.done++; r.Progress != nil {
			r.Progress(conformance.Progress{Set: t.Set.Name, Case: c.Name, Done: r.done, Total: r.total})
		}
		if r.ctx.Err() != nil || r.FailFast && k.Status() > conformance.Convention {
			r.stop = true
			break
		}
	}
	oneInventory(result.Cases)
	return result
}

// oneInventory takes the empty inventories out of all cases if another one has it, and else out of all but the first: an engine need not list its
// parameters for each conversation anew.
func oneInventory(cases []conformance.Case) {
	given := false
	for _, c := range cases {
		given = given || len(c.Stages) > 0 && c.Stages[0].Status() > conformance.Skip && c.Stages[0].Name == conformance.StageInventory
	}
	for i, c := range cases {
		if len(c.Stages) == 0 || c.Stages[0].Name != conformance.StageInventory || c.Stages[0].Status() > conformance.Skip {
			continue
		}
		if given {
			cases[i].Stages = c.Stages[1:]
		}
		given = true
	}
}

// openEngine opens an engine; a panic of it is an error.
func openEngine(open Opener, t *Target) (e Engine, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v", p)
		}
	}()
	return open(t)
}

// ask is the engine's answer; a panic of it is an error.
func (r *runner) ask(e Engine, c endtoend.Case) (a Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v", p)
		}
	}()
	return e.Answer(r.ctx, c, r.Only && r.total == 1)
}

func (r *runner) runCase(engine Engine, t *Target, c endtoend.Case) (out conformance.Case) {
	out = conformance.Case{Name: c.Name, Why: c.Why}
	a, err := r.ask(engine, c)
	if a.Close != nil {
		defer a.Close()
	}
	if r.ctx.Err() != nil { // whatever it said: the conversations behind are not asked
		err = fmt.Errorf("interrupted: %w", context.Cause(r.ctx))
	}
	var not conformance.NotRun
	if errors.As(err, &not) {
		out.Reason = string(not)
		return out
	}
	if err == nil {
		err = r.declared(a.Info)
	}
	j := &judge{target: t, c: c, answer: a, class: r.run.Class, lanes: a.Info.Lanes}
	if err == nil {
		j.want, err = t.Inputs(c)
	}
	if err == nil {
		j.image, err = t.Words.ImageToken()
	}
	if err == nil {
		err = j.judge()
	}
	if err != nil {
		out.Problems = append(out.Problems, conformance.Problem{Level: conformance.Error, Text: err.Error()})
		return out
	}
	out.Stages = j.stages
	out.First = first(j.stages)
	return out
}

// declared takes in what the engine declares. One engine declares the same for every conversation.
func (r *runner) declared(info conformance.Info) error {
	if _, err := compare.ParseClass(string(info.Class)); err != nil && r.Class == "" {
		return fmt.Errorf("the engine declares class %q, want f32, f16 or bf16", info.Class)
	}
	if old := r.run.Engine; old.Name != "" && !reflect.DeepEqual(old, info) {
		return fmt.Errorf("it declares itself otherwise than before: %s %s as %s, and here %s %s as %s; test them apart", old.Name, old.Version, old.Class, info.Name, info.Version, info.Class)
	}
	r.run.Engine, r.run.Class = info, info.Class
	if r.Class != "" {
		r.run.Class = r.Class
	}
	return nil
}

// first is the first part that fails, or without any the first that follows another convention.
func first(stages []conformance.Stage) *conformance.Divergence {
	for _, status := range []conformance.Status{conformance.Fail, conformance.Convention} {
		for _, s := range stages {
			for _, n := range s.Nodes {
				for _, k := range n.Checks {
					if k.Result == status {
						return &conformance.Divergence{Node: n.Name, View: k.View, Explanation: k.Reason}
					}
				}
			}
		}
	}
	return nil
}

// judge holds one answer against the truth.
type judge struct {
	target *Target
	c      endtoend.Case
	want   shapes.Inputs
	answer Answer
	class  compare.Class
	lanes  compare.Lanes
	image  int // id of the image token

	stages []conformance.Stage
	given  int // parts that the answer has
}

// judge judges all parts in the order in which an engine makes them. An answer without any is an error.
func (j *judge) judge() error {
	s := conformance.Stage{Name: conformance.StageInventory, Nodes: []conformance.Node{{Name: conformance.NodeParameters, Reach: shapes.Reaches, Shape: []int{len(shapes.Params(j.target.Config))}, Reason: notGiven}}}
	if j.answer.Parameters != nil {
		have, err := j.answer.Parameters()
		s = conformance.InventoryStage(j.target.Config, have, err)
		j.given++
	}
	j.stages = append(j.stages, s)
	j.preprocessing()
	j.tokens()
	j.generation()
	if j.given == 0 {
		return errors.New("the answer has nothing that could be judged, want at least one of pixel_values, image_sizes, image_tokens, input_ids, new_ids")
	}
	return nil
}

const notGiven = "the engine does not give it"

// node judges a part, if it is given. check changes a check that passes. What another published rule explains follows that rule.
func (j *judge) node(name string, shape []int, given bool, check func(k *conformance.Check)) conformance.Node {
	n := conformance.Node{Name: name, Shape: shape, Reach: shapes.Reaches, Reason: notGiven}
	if !given {
		return n
	}
	j.given++
	k := conformance.Check{View: conformance.Exact, Result: conformance.Pass}
	check(&k)
	k.Settle()
	if n.Reason = ""; k.Result == conformance.Skip {
		n.Reason = k.Reason
	}
	n.Checks = []conformance.Check{k}
	return n
}

// fail makes a check fail.
func fail(k *conformance.Check, format string, args ...any) {
	k.Result, k.Ratio, k.Reason = conformance.Fail, compare.Worse, fmt.Sprintf(format, args...)
}
