package report

import (
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/conformance"
)

// diagnosis is what is wrong, once for all cases that have it.
type diagnosis struct {
	status conformance.Status
	node   string // that it is about; empty for a whole prompt or set
	title  string
	lines  []string
	causes []conformance.Cause
	at     []spot
}

// spot is a case by its number, or with case -1 a whole set.
type spot struct {
	set, of int
	name    string
}

// diagnoses gathers what is wrong in a run, in the order in which it shows.
func diagnoses(r conformance.Run) []*diagnosis {
	var out []*diagnosis
	seen := map[string]*diagnosis{}
	add := func(d diagnosis, at spot) {
		key := fmt.Sprint(d.status, d.title, d.lines, named(d.causes))
		if seen[key] == nil {
			seen[key] = &d
			out = append(out, &d)
		}
		seen[key].at = append(seen[key].at, at)
	}
	for i, s := range r.Sets {
		if s.Reason != "" {
			add(diagnosis{status: conformance.Error, title: "the set " + s.Name + " could not be tested", lines: []string{s.Reason}}, spot{i, -1, s.Name})
		}
		for k, c := range s.Cases {
			at := spot{i, k, s.Name + "/" + c.Name}
			for _, p := range c.Problems {
				switch p.Level {
				case conformance.Error:
					add(diagnosis{status: p.Level, title: "could not be tested", lines: []string{p.Text}}, at)
				case conformance.Convention:
					add(diagnosis{status: p.Level, title: "another convention", lines: []string{p.Text}}, at)
				case conformance.Fail:
					add(diagnosis{status: p.Level, title: "the prompt fails", lines: []string{p.Text}}, at)
				}
			}
			for _, d := range wrong(c) {
				add(d, at)
			}
		}
	}
	return out
}

// wrong is what is wrong with the nodes of a case: the first that diverges, those that follow another convention, and those that the reference could not evaluate.
func wrong(c conformance.Case) []diagnosis {
	var out []diagnosis
	if f := c.First; f != nil {
		d := diagnosis{status: conformance.Fail, node: f.Node, title: f.Node, lines: []string{f.Explanation}, causes: slices.Clone(c.Causes)}
		if n, ok := find(c, f.Node); ok {
			d.status = min(n.Status(), conformance.Fail)
			for _, k := range n.Checks {
				d.causes = append(d.causes, k.Causes...)
			}
		}
		out = append(out, d)
	} else if len(c.Causes) > 0 {
		out = append(out, diagnosis{status: conformance.Fail, title: "the whole prompt", causes: c.Causes})
	}
	for _, n := range besides(c) {
		k, _ := n.Check(conformance.Exact)
		out = append(out, diagnosis{status: conformance.Fail, node: n.Name, title: n.Name, lines: []string{k.Reason}, causes: k.Causes})
	}
	for _, n := range conventional(c) {
		if k, cause, _ := n.Convention(); c.First == nil || c.First.Node != n.Name {
			out = append(out, diagnosis{status: conformance.Convention, node: n.Name, title: n.Name, lines: []string{"this node follows another published rule: " + cause.Convention}, causes: k.Causes})
		}
	}
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			for _, k := range n.Checks {
				if k.Result == conformance.Error {
					return append(out, diagnosis{status: conformance.Error, node: n.Name, title: n.Name, lines: []string{k.Reason}})
				}
			}
		}
	}
	return out
}

func find(c conformance.Case, node string) (conformance.Node, bool) {
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if n.Name == node {
				return n, true
			}
		}
	}
	return conformance.Node{}, false
}

// named are causes without how well they fit, which differs from case to case.
func named(causes []conformance.Cause) []string {
	var out []string
	for _, c := range causes {
		out = append(out, c.ID+c.Convention+c.Text+c.Effect)
	}
	return out
}
