// Package selftest measures the suite: every known bug is planted into a right engine on every prompt, and it is noted whether it was
// caught, at which node, by how much, and whether the diagnosis named it. Right engines of many kinds are let through, too, and none of
// them may be flagged.
package selftest

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// Options say what is tried.
type Options struct {
	Targets  []conformance.Target
	Cases    string                // only cases whose name matches (path.Match); empty is all
	Bugs     string                // only bugs whose id or key matches; empty is all
	Class    compare.Class         // that the engines store their values in; empty is f32
	Right    bool                  // try right engines as well
	Workers  int                   // prompts at a time; 0 is one for each core
	Progress func(done, total int) // may be nil; called from several goroutines, one at a time
}

// Result is the kill matrix, and what became of right engines.
type Result struct {
	Class  compare.Class `json:"class"`
	Cases  []Case        `json:"cases"`
	Bugs   []Bug         `json:"bugs"`
	Rights []Right       `json:"right_engines"`
}

// Case is one prompt: how many bugs exist in it, and which are caught nowhere else.
type Case struct {
	Set   string   `json:"set"`
	Name  string   `json:"name"`
	Bugs  int      `json:"bugs"`
	Alone []string `json:"alone"` // keys of bugs that change something in this prompt only
}

// Bug is one row of the matrix.
type Bug struct {
	Key    string  `json:"key"`
	ID     string  `json:"id"`
	Text   string  `json:"text"`
	Trials []Trial `json:"trials"` // one for each prompt in which it changes anything
}

// Trial is a bug in a prompt.
type Trial struct {
	Set  string `json:"set"`
	Case string `json:"case"`
	Node string `json:"node"` // the first that the bug changes

	Local       bool    `json:"local"` // caught by the node's own inputs, or by its shape
	LocalMargin float64 `json:"local_margin"`

	Drift       bool    `json:"accumulated"` // caught against the truth
	DriftAt     string  `json:"accumulated_at,omitempty"`
	DriftMargin float64 `json:"accumulated_margin"`

	Named   []string `json:"named"`         // ids, best first
	Rightly bool     `json:"named_rightly"` // the bug's own id is among them
}

// Run fills the matrix.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Class == "" {
		o.Class = compare.F32
	}
	r := runner{Options: o, bugs: map[string]*Bug{}}
	result := Result{Class: o.Class}
	for _, b := range diagnose.Catalogue() {
		id, err := path.Match(o.Bugs, b.ID)
		if err != nil {
			return result, fmt.Errorf("selftest: %q: %w", o.Bugs, err)
		}
		if key, _ := path.Match(o.Bugs, b.Key()); key || id || o.Bugs == "" {
			r.list = append(r.list, b)
			r.bugs[b.Key()] = &Bug{Key: b.Key(), ID: b.ID, Text: b.Text}
		}
	}
	type job struct {
		target conformance.Target
		name   string
	}
	var jobs []job
	for _, t := range o.Targets {
		for _, name := range t.Set.Cases() {
			if ok, err := path.Match(o.Cases, name); err != nil {
				return result, fmt.Errorf("selftest: %q: %w", o.Cases, err)
			} else if ok || o.Cases == "" {
				jobs = append(jobs, job{t, name})
			}
		}
	}
	r.total = len(jobs) * len(r.list)
	todo := make(chan job)
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for j := range todo {
				if errs[w] == nil {
					errs[w] = r.prompt(ctx, j.target, j.name)
				}
			}
		})
	}
	for _, j := range jobs {
		todo <- j
	}
	close(todo)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return result, err
		}
	}
	for _, b := range r.list {
		row := r.bugs[b.Key()]
		slices.SortFunc(row.Trials, func(a, b Trial) int { return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Case, b.Case)) })
		result.Bugs = append(result.Bugs, *row)
	}
	for _, j := range jobs {
		c := Case{Set: j.target.Set.Manifest.Model, Name: j.name, Alone: []string{}}
		for _, b := range result.Bugs {
			for _, t := range b.Trials {
				if t.Set == c.Set && t.Case == c.Name {
					c.Bugs++
					if len(b.Trials) == 1 {
						c.Alone = append(c.Alone, b.Key)
					}
				}
			}
		}
		result.Cases = append(result.Cases, c)
	}
	if o.Right {
		seen := map[string]bool{} // one prompt of each sort is enough: the arithmetic is the same
		for _, j := range jobs {
			c, err := j.target.Set.Case(j.name)
			if err != nil {
				return result, err
			}
			sort := fmt.Sprint(j.target.Set.Manifest.Model, c.Inputs.PixelValues.Shape != nil)
			if seen[sort] {
				continue
			}
			seen[sort] = true
			rights, err := tryRight(ctx, j.target, j.name, nil)
			if err != nil {
				return result, err
			}
			result.Rights = append(result.Rights, rights...)
		}
	}
	return result, nil
}

type runner struct {
	Options
	list  []diagnose.Bug
	total int

	mu   sync.Mutex
	bugs map[string]*Bug
	done int
}

// prompt tries every bug on one prompt.
func (r *runner) prompt(ctx context.Context, t conformance.Target, name string) error {
	truth, err := t.Set.Case(name)
	if err != nil {
		return err
	}
	m, err := diagnose.NewModel(t.Set.Config, t.Weights, truth.Inputs, r.Class)
	if err != nil {
		return err
	}
	for _, b := range r.list {
		if err := ctx.Err(); err != nil {
			return err
		}
		trial, err := r.trial(ctx, m, t.Set, truth, b)
		if err != nil {
			return fmt.Errorf("selftest: %s in %s/%s: %w", b.Key(), t.Set.Manifest.Model, name, err)
		}
		r.mu.Lock()
		if trial.Node != "" {
			r.bugs[b.Key()].Trials = append(r.bugs[b.Key()].Trials, trial)
		}
		if r.done++; r.Progress != nil {
			r.Progress(r.done, r.total)
		}
		r.mu.Unlock()
	}
	return nil
}

// lanes is what the engines declare: the sums of the reference are better than those of any number of accumulators.
const lanes = 16

func (r *runner) trial(ctx context.Context, m *diagnose.Model, set *golden.Set, truth *golden.Case, b diagnose.Bug) (Trial, error) {
	tried, err := m.Try(ctx, b, lanes)
	if err != nil || tried.Site.Name == "" {
		return Trial{}, err
	}
	t := Trial{Set: set.Manifest.Model, Case: truth.Name, Node: tried.Site.Name, Local: !tried.Local.Pass, LocalMargin: tried.Local.Ratio, Named: []string{}}
	for _, c := range tried.Causes {
		if !slices.Contains(t.Named, c.ID) {
			t.Named = append(t.Named, c.ID)
		}
	}
	t.Rightly = slices.Contains(t.Named, b.ID)
	if tried.Shape {
		t.Drift, t.DriftAt, t.DriftMargin = true, t.Node, t.LocalMargin
		return t, nil
	}
	as := compare.Arithmetic{Class: r.Class, Lanes: lanes}
	var fault error
	err = m.Spread(b, func(n shapes.Node, y shapes.Tensor) bool {
		c, err := conformance.Drift(set.Config, truth, n.Name, y, as)
		if err != nil {
			fault = err
			return false
		}
		if t.DriftMargin = max(t.DriftMargin, c.Ratio); c.Result == conformance.Fail {
			t.Drift, t.DriftAt, t.DriftMargin = true, n.Name, c.Ratio
			return false
		}
		return true
	})
	return t, cmp.Or(fault, err)
}

// Score sums the matrix up.
type Score struct {
	Class                                   compare.Class
	Trials, Local, Drift, DriftThere, Named int
	Silent                                  []string // bugs that change nothing in any prompt
	Survivors                               []string // trials that no view caught: "key in set/case"
	Unnamed                                 []string // caught, but called something else or nothing
	Idle                                    []string // cases that catch nothing alone
	Flagged                                 []string // right engines that were flagged
}

// Score counts.
func (r Result) Score() Score {
	s := Score{Class: r.Class}
	for _, b := range r.Bugs {
		if len(b.Trials) == 0 {
			s.Silent = append(s.Silent, b.Key)
		}
		for _, t := range b.Trials {
			at := fmt.Sprintf("%s in %s/%s", b.Key, t.Set, t.Case)
			s.Trials++
			if t.Local {
				s.Local++
			}
			if t.Drift {
				s.Drift++
				if t.DriftAt == t.Node {
					s.DriftThere++
				}
			}
			if !t.Local && !t.Drift {
				s.Survivors = append(s.Survivors, at)
			}
			if t.Rightly {
				s.Named++
			} else if t.Local {
				s.Unnamed = append(s.Unnamed, at)
			}
		}
	}
	for _, c := range r.Cases {
		if len(c.Alone) == 0 {
			s.Idle = append(s.Idle, c.Set+"/"+c.Name)
		}
	}
	for _, e := range r.Rights {
		if e.Status != conformance.Pass.String() {
			s.Flagged = append(s.Flagged, fmt.Sprintf("%s in %s/%s: %s", e.Name, e.Set, e.Case, e.First))
		}
	}
	return s
}

// Good says whether the suite keeps what it promises: every bug that changes anything is caught by the node's own inputs, nine of ten
// are named, and no right engine is flagged. In f16 and bf16 a bug may be smaller than what storage rounds away: nine of ten are to be caught.
func (s Score) Good() bool {
	caught := s.Local == s.Trials
	if s.Class != "" && s.Class != compare.F32 {
		caught = 10*s.Local >= 9*s.Trials
	}
	return s.Trials > 0 && caught && 10*s.Named >= 9*s.Trials && len(s.Flagged) == 0
}
