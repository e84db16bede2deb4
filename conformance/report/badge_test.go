package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// six is a run of one case with a node in each of the stages that the suite tests, all of which hold.
func six() conformance.Run {
	r := passing()
	good := func() []conformance.Check {
		return []conformance.Check{pass(conformance.Accumulated, 0.2), pass(conformance.Local, 0.3)}
	}
	var stages []conformance.Stage
	for _, name := range conformance.Stages() {
		stages = append(stages, conformance.Stage{Name: name, Nodes: []conformance.Node{
			node(name+".middle", shapes.Linear, good()...), node(name+".end", shapes.Linear, good()...),
			{Name: name + ".dead", Reach: shapes.Dead, Reason: "not exposed"},
		}})
	}
	r.Sets[0].Cases[0].Stages = stages
	return r
}

// skipped takes the checks of a node away.
func skipped(r conformance.Run, name string) {
	for _, s := range r.Sets[0].Cases[0].Stages {
		for i := range s.Nodes {
			if s.Nodes[i].Name == name {
				s.Nodes[i].Checks = nil
			}
		}
	}
}

func breaks(r conformance.Run, name string, c conformance.Check) {
	for _, s := range r.Sets[0].Cases[0].Stages {
		for i := range s.Nodes {
			if s.Nodes[i].Name == name {
				s.Nodes[i].Checks = append(s.Nodes[i].Checks, c)
			}
		}
	}
}

func TestLevelsThatWereNotTestedDoNotPass(t *testing.T) {
	for _, test := range []struct {
		name  string
		make  func() conformance.Run
		want  string // statuses of vision, projector + packing, decoder
		badge string
	}{
		{"everything holds", six, "pass pass pass", "f32: 3 of 6 levels pass, 3 not tested, brightgreen"},
		{"a node in the middle is not exposed", func() conformance.Run { r := six(); skipped(r, "vision.middle"); return r }, "pass pass pass", "f32: 3 of 6 levels pass, 3 not tested, brightgreen"},
		{"the end is not exposed", func() conformance.Run { r := six(); skipped(r, "vision.end"); return r }, "partial pass pass", "f32: 2 of 6 levels pass, 1 partly tested, 3 not tested, yellow"},
		{"nothing of a level is exposed", func() conformance.Run { r := six(); skipped(r, "vision.end"); skipped(r, "vision.middle"); return r }, "untested pass pass",
			"f32: 2 of 6 levels pass, 4 not tested, brightgreen"},
		{"no case has the level", func() conformance.Run {
			r := six()
			r.Sets[0].Cases[0].Stages = r.Sets[0].Cases[0].Stages[3:]
			return r
		}, "untested pass pass", "f32: 2 of 6 levels pass, 4 not tested, brightgreen"},
		{"not all cases were run", func() conformance.Run { r := six(); r.Sets[0].Total = 2; return r }, "partial partial partial", "f32: 0 of 6 levels pass, 3 partly tested, 3 not tested, yellow"},
		{"a case was not run", func() conformance.Run {
			r := six()
			r.Sets[0].Total, r.Sets[0].Cases = 2, append(r.Sets[0].Cases, conformance.Case{Name: "other", Reason: "no dump"})
			return r
		}, "partial partial partial", "f32: 0 of 6 levels pass, 3 partly tested, 3 not tested, yellow"},
		{"a node is wrong, and drift follows", func() conformance.Run {
			r := six()
			breaks(r, "packing.end", fail(conformance.Local, 7, "bound"))
			breaks(r, "decoder.middle", fail(conformance.Accumulated, 7, "drift"))
			r.Sets[0].Cases[0].First = &conformance.Divergence{Node: "packing.end", View: conformance.Local}
			return r
		}, "pass fail partial", "f32: projector + packing fails, red"},
		{"drift jumps", func() conformance.Run {
			r := six()
			breaks(r, "decoder.middle", fail(conformance.Accumulated, 7, "drift"))
			r.Sets[0].Cases[0].First = &conformance.Divergence{Node: "decoder.middle", View: conformance.Accumulated}
			return r
		}, "pass pass fail", "f32: decoder fails, red"},
		{"the engine panicked", func() conformance.Run {
			r := six()
			r.Sets[0].Cases[0].Problems = []conformance.Problem{{Level: conformance.Error, Text: "it panicked"}}
			return r
		}, "error error error", "could not test, lightgrey"},
		{"another convention, and drift follows", func() conformance.Run {
			r := six()
			follows, drifts := fail(conformance.Local, 7, "bound"), fail(conformance.Accumulated, 7, "drift")
			follows.Result, follows.Causes = conformance.Convention, []conformance.Cause{{ID: "P01", Convention: "another's"}}
			drifts.Result, drifts.Behind = conformance.Convention, "packing.end"
			breaks(r, "packing.end", follows)
			breaks(r, "decoder.middle", drifts)
			r.Sets[0].Cases[0].First = &conformance.Divergence{Node: "packing.end", View: conformance.Local}
			return r
		}, "pass convention partial", "f32: other convention: another's, blue"},
		{"another convention, and a bug", func() conformance.Run {
			r := six()
			follows := fail(conformance.Local, 7, "bound")
			follows.Result, follows.Causes = conformance.Convention, []conformance.Cause{{ID: "P01", Convention: "another's"}}
			breaks(r, "packing.end", follows)
			breaks(r, "decoder.middle", fail(conformance.Local, 7, "bound"))
			r.Sets[0].Cases[0].First = &conformance.Divergence{Node: "decoder.middle", View: conformance.Local}
			return r
		}, "pass convention fail", "f32: decoder fails, red"},
		{"nothing was run", func() conformance.Run { return conformance.Run{Class: compare.F32} }, "untested untested untested", "could not test, lightgrey"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := levels(test.make())
			var got []string
			for _, l := range all[2:5] {
				got = append(got, l.Status)
			}
			if g := strings.Join(got, " "); g != test.want {
				t.Errorf("%s, want %s", g, test.want)
			}
			for _, i := range []int{0, 1, 5} {
				if all[i].Status != levelUntested || all[i].Note == "" {
					t.Errorf("%+v, want not tested, with a reason", all[i])
				}
			}
			message, colour := badge(levelsDoc(test.make()))
			if g := fmt.Sprintf("%s, %s", message, colour); g != test.badge {
				t.Errorf("badge %q, want %q", g, test.badge)
			}
		})
	}
}

// TestABadgeIsAnEndpoint: shields.io refuses keys that it does not know.
func TestABadgeIsAnEndpoint(t *testing.T) {
	for name, make := range runs {
		var b bytes.Buffer
		if err := Badge(&b, make()); err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || got["schemaVersion"] != 1.0 || got["label"] == "" || got["message"] == "" || got["color"] == "" {
			t.Errorf("%s: %v, want schemaVersion, label, message and color", name, got)
		}
	}
}

func TestAnnotationsAreOneLineEach(t *testing.T) {
	r := hostile()
	var b bytes.Buffer
	if err := GitHub(&b, r, "a,b:c%d\ne.go"); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "::error file=a%2Cb%3Ac%25d%0Ae.go,title=llavaref") && !strings.HasPrefix(line, "::warning file=a%2Cb%3Ac%25d%0Ae.go,title=llavaref") {
			t.Errorf("no annotation: %q", line)
		}
	}
}

func TestThereAreNoMoreAnnotationsThanAreShown(t *testing.T) {
	r := conformance.Run{Engine: conformance.Info{Name: "other"}, Class: compare.F32}
	for i := range 30 {
		r.Sets = append(r.Sets, conformance.Set{Name: "tiny", Reason: fmt.Sprintf("broken in its own way %d", i)})
	}
	var b bytes.Buffer
	if err := GitHub(&b, r, ""); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "::error title="); n != 10 || !strings.Contains(b.String(), "21 more things are wrong") {
		t.Errorf("%d annotations, want 10, the last with what is left out:\n%s", n, b.String())
	}
	for i := range r.Sets { // all broken in the same way
		r.Sets[i].Reason = "broken"
	}
	b.Reset()
	if err := GitHub(&b, r, ""); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "::error title="); n != 2 || !strings.Contains(b.String(), "and 24 more") {
		t.Errorf("%d annotations, want 2:\n%s", n, b.String())
	}
}
