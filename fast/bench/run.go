package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// Options say what is measured.
type Options struct {
	Name        string          // of the model, for the result
	Config      shapes.Config   // whose shapes the rows have
	Also        []shapes.Config // whose products are measured, too
	Rows        string          // patterns of names, as --rows has them; none is the standard rows
	Threads     int             // 0 is GOMAXPROCS
	Quick       bool
	Features    string // of the processor, for the result
	Conformance Conformance
	Progress    func(done, total int, name string) // may be nil

	Tower      *shapes.Config                                                 // another configuration, whose tower is measured in the place of Config's; may be nil
	Whole      bool                                                           // Config is too large to be in memory twice: its own rows are the standard ones, and those in bf16
	Prompt     func() (shapes.Inputs, error)                                  // makes a prompt with an image, from its pixels on; nil: no first token is measured
	PromptName string                                                         // of the row
	Loading    func(done, total int64)                                        // told of the weights; may be nil
	Around     func(row string, measure func() (passes int, err error)) error // runs the measurement of the one row, and labels are put on all threads; may be nil
}

// groups lists all works of the options.
func (r *runner) groups() []group {
	kernels := slices.Concat(gemms(r.Config, r.Also...), attentions(r.Config))
	if r.Whole {
		for _, g := range kernels {
			for _, w := range g.works {
				w.standard = false
			}
		}
	}
	return append(kernels, engines(r)...)
}

// Names lists the rows that a run of these options measures.
func Names(o Options) ([]string, error) {
	matches, err := matcher(o.Rows)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range (&runner{Options: o}).groups() {
		for _, w := range g.works {
			if matches(w) {
				names = append(names, w.name)
			}
		}
	}
	return names, nil
}

// Run measures. The conformance of what is measured is the caller's to check; a result says what he found.
func Run(ctx context.Context, o Options) (Result, error) {
	matches, err := matcher(o.Rows)
	if err != nil {
		return Result{}, err
	}
	names, err := Names(o)
	if err != nil {
		return Result{}, err
	}
	if len(names) == 0 {
		return Result{}, fmt.Errorf("bench: no row matches %q", o.Rows)
	}
	if o.Around != nil && len(names) != 1 {
		return Result{}, fmt.Errorf("bench: %q matches %d rows, want one: a profile of several says of none where its time goes", o.Rows, len(names))
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	p := thorough
	if o.Quick {
		p = quick
	}
	r := Result{
		Format: Format, Date: time.Now().UTC().Format(time.RFC3339), Program: thisProgram(), Machine: thisMachine(o.Features),
		Implementation: kernel.Active(), Threads: o.Threads, Model: o.Name, Quick: o.Quick, Conformance: o.Conformance,
	}
	m, err := newMeter(o.Threads, p)
	if err != nil {
		return Result{}, err
	}
	defer m.close()
	seen := map[string]bool{}
	told := func(name string) {
		seen[name] = true
		if o.Progress != nil {
			o.Progress(len(seen)-1, len(names), name)
		}
	}
	all := &runner{Options: o, threads: o.Threads}
	for _, g := range all.groups() {
		var works []*work
		for _, w := range g.works {
			if matches(w) {
				works = append(works, w)
			}
		}
		if len(works) == 0 {
			continue
		}
		rows, err := m.group(ctx, g, works, o.Around, told)
		if err != nil {
			return Result{}, err
		}
		r.Rows = append(r.Rows, rows...)
	}
	r.Limits, r.Loads, r.PeakMemory = m.limits(), all.loads, PeakMemory()
	return r, r.check()
}

func (m *meter) group(ctx context.Context, g group, works []*work, around func(string, func() (int, error)) error, told func(string)) ([]Row, error) {
	closed, err := g.open(m, works)
	if err != nil {
		return nil, err
	}
	defer closed()
	for _, w := range works {
		told(w.name)
		if w.check != nil {
			if err := w.check(); err != nil {
				return nil, fmt.Errorf("bench: %s: %w", w.name, err)
			}
		}
	}
	if around == nil {
		return m.measure(ctx, works, told)
	}
	var rows []Row
	err = around(works[0].name, func() (int, error) {
		if rows, err = m.measure(ctx, works, told); err != nil {
			return 0, err
		}
		return rows[0].Passes, nil
	})
	return rows, err
}
