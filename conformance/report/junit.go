package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"github.com/llavaref/llavaref/conformance"
)

// JUnit writes the result as JUnit XML: a suite for each case, a test for each stage, and one called "prompt" for what concerns the
// case as a whole. A stage that nothing was compared in is skipped. One that is off only
// because of another convention is a failure of the type "convention", and where that is allowed no failure.
func JUnit(w io.Writer, r conformance.Run) error {
	doc := junit.Testsuites{Name: "llavaref " + r.Engine.Name}
	if len(r.Sets) == 0 {
		s := junit.Testsuite{Name: "llavaref", Time: "0"}
		s.AddTestcase(junit.Testcase{Name: "prompt", Classname: "llavaref", Error: &junit.Result{Message: Verdict(r)}})
		doc.AddSuite(s)
	}
	for _, set := range r.Sets {
		if set.Reason != "" || len(set.Cases) == 0 {
			s := junit.Testsuite{Name: set.Name, Time: "0"}
			s.AddTestcase(junit.Testcase{Name: "prompt", Classname: set.Name, Error: &junit.Result{Message: set.Reason}})
			doc.AddSuite(s)
		}
		for _, c := range set.Cases {
			doc.AddSuite(junitCase(set.Name+"/"+c.Name, c, r.Allows(c.Conventions())))
		}
	}
	for i := range doc.Suites {
		doc.Suites[i].ID = i
	}
	return doc.WriteXML(w)
}

func junitCase(name string, c conformance.Case, allowed bool) junit.Testsuite {
	s := junit.Testsuite{Name: name, Time: "0"}
	if c.Reason != "" {
		s.AddTestcase(junit.Testcase{Name: "prompt", Classname: name, Skipped: &junit.Result{Message: c.Reason}})
		return s
	}
	prompt := junit.Testcase{Name: "prompt", Classname: name}
	var text []string
	level := conformance.Pass
	for _, p := range c.Problems {
		text = append(text, p.Text)
		level = max(level, p.Level)
	}
	for _, a := range c.Assumptions {
		text = append(text, assumption(a))
	}
	text = append(text, causes("", c.Causes)...)
	if c.Coverage().Checked == 0 {
		level = conformance.Error
		text = append(text, "nothing was compared")
	}
	result := &junit.Result{Message: strings.Join(text, "; ")}
	switch {
	case level == conformance.Error:
		prompt.Error = result
	case level == conformance.Fail:
		prompt.Failure = result
	case level == conformance.Convention && !allowed:
		prompt.Failure = result
		prompt.Failure.Type = "convention"
	case len(text) > 0:
		prompt.SystemOut = &junit.Output{Data: result.Message}
	}
	s.AddTestcase(prompt)
	for _, stage := range c.Stages {
		s.AddTestcase(junitStage(name, stage, c.First, allowed))
	}
	return s
}

func junitStage(class string, s conformance.Stage, first *conformance.Divergence, allowed bool) junit.Testcase {
	t := junit.Testcase{Name: s.Name, Classname: class}
	var lines []string
	message, own := "", false
	for _, n := range s.Nodes {
		if n.Status() <= conformance.Pass {
			continue
		}
		lines = append(append(lines, n.Name), nodeFindings(n, "")...)
		for _, c := range n.Checks {
			if !own && c.Result > conformance.Pass && c.View != conformance.Accumulated && c.View != conformance.Logits {
				message, own = n.Name+": "+c.Reason, true
			}
		}
		if first != nil && first.Node == n.Name {
			message, own = n.Name+": "+first.Explanation, true
		}
	}
	if !own && first != nil {
		message = "no node of this stage is wrong by itself; the drift comes from " + comesFrom(s, first)
	}
	result := &junit.Result{Message: message, Data: strings.Join(lines, "\n")}
	switch s.Status() {
	case conformance.Error:
		t.Error = result
	case conformance.Fail:
		t.Failure = result
	case conformance.Convention:
		if result.Type = "convention"; !allowed {
			t.Failure = result
		} else {
			t.SystemOut = &junit.Output{Data: message}
		}
	case conformance.Skip:
		reason := ""
		for _, n := range s.Nodes {
			reason = n.Reason
		}
		t.Skipped = &junit.Result{Message: fmt.Sprintf("%d nodes: %s", len(s.Nodes), reason)}
	}
	return t
}

// comesFrom is the node that a stage's drift comes from: the one with the convention that it stands behind, else the first that diverges.
func comesFrom(s conformance.Stage, first *conformance.Divergence) string {
	for _, n := range s.Nodes {
		for _, c := range n.Checks {
			if c.Result == conformance.Convention && c.Behind != "" && s.Status() == conformance.Convention {
				return c.Behind
			}
		}
	}
	return first.Node
}
