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
}

// groups lists all works of the options.
func groups(o Options) []group {
	return slices.Concat(gemms(o.Config, o.Also...), attentions(o.Config))
}

// Names lists the rows that a run of these options measures.
func Names(o Options) ([]string, error) {
	matches, err := matcher(o.Rows)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range groups(o) {
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
	for _, g := range groups(o) {
		var works []*work
		for _, w := range g.works {
			if matches(w) {
				works = append(works, w)
			}
		}
		if len(works) == 0 {
			continue
		}
		rows, err := m.group(ctx, g, works, told)
		if err != nil {
			return Result{}, err
		}
		r.Rows = append(r.Rows, rows...)
	}
	r.Limits, r.PeakMemory = m.limits(), PeakMemory()
	return r, r.check()
}

func (m *meter) group(ctx context.Context, g group, works []*work, told func(string)) ([]Row, error) {
	closed, err := g.open(m, works)
	if err != nil {
		return nil, err
	}
	defer closed()
	return m.measure(ctx, works, told)
}
