package engines_test

import (
	"context"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// as is an engine that is judged by other claims than its own.
type as struct {
	conformance.Engine
	compare.Arithmetic
}

func (e as) Info() conformance.Info {
	info := e.Engine.Info()
	info.Arithmetic = e.Arithmetic
	return info
}

// In both classes the optimized engine passes every local verdict, and stays within three noise floors of its class at every node: judged without
// the allowance that its one accumulator would have.
func TestFastIsConformant(t *testing.T) {
	for _, e := range []struct {
		name string
		open conformance.Opener
		as   compare.Arithmetic
	}{
		{"float32", engines.OpenFast, compare.Arithmetic{Class: compare.F32, Lanes: 16}},
		{"bf16", engines.OpenFastBF16, compare.Arithmetic{Class: compare.BF16, Lanes: 16}},
	} {
		t.Run(e.name, func(t *testing.T) {
			for _, c := range []struct{ model, prompt string }{{"tiny-1.6", "text-small-norms"}, {"tiny-1.5", "two-images"}, {"tiny-1.6", "strip-no-rows"}} {
				set, err := golden.Embedded(c.model)
				if err != nil {
					t.Fatal(err)
				}
				target := conformance.Target{Set: set, Weights: checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)}
				if testing.Short() && c.prompt != "text-small-norms" {
					continue
				}
				strict := func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
					engine, err := e.open(c, w)
					return as{engine, e.as}, err
				}
				for _, run := range []conformance.Run{
					conformance.Suite{Targets: []conformance.Target{target}, Cases: c.prompt, Views: []conformance.View{conformance.Accumulated}}.Run(context.Background(), strict),
					conformance.Suite{Targets: []conformance.Target{target}, Cases: c.prompt, Views: []conformance.View{conformance.Local}}.Run(context.Background(), e.open),
				} {
					if run.Status() != conformance.Pass {
						var text strings.Builder
						if err := report.Text(&text, run, false); err != nil {
							t.Fatal(err)
						}
						t.Errorf("%s %s, %v:\n%s", c.model, c.prompt, run.Views, &text)
					}
				}
			}
		})
	}
}
