package engines_test

import (
	"context"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// The reference is not only within three noise floors of float32 but below one, at every node of every prompt: it is a
// better float32 model than the one that the floors were measured with.
func TestRefStaysBelowTheFloorEverywhere(t *testing.T) {
	const factor = 3 // floors to the limit, compare.driftFactor
	var suite conformance.Suite
	for _, name := range golden.Names() {
		if !strings.HasPrefix(name, "tiny-") {
			continue
		}
		set, err := golden.Embedded(name)
		if err != nil {
			t.Fatal(err)
		}
		suite.Targets = append(suite.Targets, conformance.Target{Set: set, Weights: checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)})
	}
	suite.Views = []conformance.View{conformance.Accumulated}
	nodes, worst, at := 0, 0.0, ""
	for _, set := range suite.Run(context.Background(), engines.OpenRef).Sets {
		for _, c := range set.Cases {
			if c.Status() != conformance.Pass {
				t.Errorf("%s/%s: %v", set.Name, c.Name, c.Status())
			}
			for _, stage := range c.Stages {
				for _, n := range stage.Nodes {
					for _, check := range n.Checks {
						if check.View != conformance.Accumulated || check.Result == conformance.Skip {
							continue
						}
						nodes++
						if check.Ratio > worst {
							worst, at = check.Ratio, set.Name+"/"+c.Name+": "+n.Name
						}
						if check.Ratio*factor >= 1 {
							t.Errorf("%s/%s: %s: %.2f floors", set.Name, c.Name, n.Name, check.Ratio*factor)
						}
					}
				}
			}
		}
	}
	t.Logf("%d nodes, at most %.2f floors, at %s", nodes, worst*factor, at)
	if nodes < 10000 {
		t.Errorf("only %d nodes were compared", nodes)
	}
}
