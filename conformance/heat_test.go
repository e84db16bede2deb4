package conformance_test

import (
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
)

// An engine that is wrong everywhere gets heat maps for its first nodes only, and a census for all.
func TestHeatMapsAreKeptForTheFirstFailingNodes(t *testing.T) {
	g := enginetest.Graph{Change: enginetest.Rounded(compare.BF16)}
	run := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}, Class: compare.F32, Cases: "image"}.Run(t.Context(), g.Opener())
	var maps, later, censuses int
	for _, s := range run.Sets[0].Cases[0].Stages {
		for _, n := range s.Nodes {
			c, ok := n.Check(conformance.Local)
			if !ok || c.Census == nil {
				continue
			}
			censuses++
			switch {
			case len(c.Census.Maps) > 0 && maps < censuses-1:
				later++
			case len(c.Census.Maps) > 0:
				maps++
			}
		}
	}
	if maps != 8 || later != 0 || censuses < 20 {
		t.Errorf("%d maps in front, %d later, of %d nodes that fail; want 8, 0 and many", maps, later, censuses)
	}
}
