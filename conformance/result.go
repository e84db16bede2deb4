package conformance

import (
	"fmt"
	"reflect"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// View is one way of looking at a node.
type View string

// The views.
const (
	Accumulated View = "accumulated" // against the truth of the whole model
	Local       View = "local"       // against the node's true value on the engine's own inputs
	Logits      View = "logits"      // the next-token distributions, against the truth
	Contract    View = "contract"    // what an engine owes whatever its numbers: the node's shape, the logits that it probed
	Exact       View = "exact"       // what has one right value, known from transformers: parameters, pixels, ids
)

// Views lists the two views that can be chosen. The logits are judged whenever the accumulated view is, the contract always.
func Views() []View { return []View{Local, Accumulated} }

// Run is the result of a suite: an engine held against golden sets. It is made of plain values.
type Run struct {
	Engine Info
	Class  compare.Class // that the engine was judged by
	Views  []View        // that were asked for
	Sets   []Set
	// Allowed are conventions, by their names or by the ids of their bugs, that whoever asked for the run accepts.
	Allowed []string
	// Against is the engine that this one was held against; empty for the truth of golden sets.
	Against string
	By      Provenance
}

// Join is two parts of a run as one: the sets of the second behind those of the first. Where the engine declares itself otherwise there, they are
// no part of one run, and the second's sets have that as their reason.
func Join(a, b Run) Run {
	if a.Engine.Name == "" {
		a.Engine, a.Class = b.Engine, b.Class
	}
	for _, s := range b.Sets {
		if b.Engine.Name != "" && !reflect.DeepEqual(a.Engine, b.Engine) && s.Reason == "" {
			s.Reason = fmt.Sprintf("it declares itself otherwise than before: %s, and here %s; test them apart", inWords(a.Engine), inWords(b.Engine))
		}
		a.Sets = append(a.Sets, s)
	}
	return a
}

// Provenance says what judged, and on what. A Suite leaves it empty.
type Provenance struct {
	Llavaref string // version and source revision of the program
	Machine  string // processor and system; empty unless it was asked for
}

// Set is the result of one golden set.
type Set struct {
	Name   string
	Digest string // SHA-256 of the weights
	Total  int    // cases that the set has; fewer of them may have been chosen
	// EndToEnd says that the cases are conversations, judged by what the engine makes of them, and not node by node.
	EndToEnd bool
	Cases    []Case
	Reason   string // why no case could be run
}

// Case is the result of one prompt.
type Case struct {
	Name, Why string
	Stages    []Stage
	Problems  []Problem
	First     *Divergence // nil if nothing diverges
	Reason    string      // why it was not run; it is skipped then

	Causes      []Cause      // of the whole prompt: recognised across nodes, best first
	Assumptions []Assumption // what the engine may have left undeclared
}

// Problem is what went wrong with a whole prompt.
type Problem struct {
	Level Status // Skip for a note, Convention, Fail or Error
	Text  string
}

// Assumption is a class that nodes behave like though the engine has not declared it. Nothing is judged by it.
type Assumption struct {
	Nodes string        // pattern of a NodeClass that fits them
	Class compare.Class // by whose limits they would pass
	Count int
	// Exact says that every value of theirs is a number of the class.
	Exact bool
}

// Stage is the nodes of one stage of the model, in the order of execution.
type Stage struct {
	Name  string
	Nodes []Node
}

// Node is the result of one node that the prompt has.
type Node struct {
	Name   string
	Kind   shapes.Kind
	Shape  []int
	Reach  shapes.Reach
	Reason string  // why nothing was compared
	Checks []Check // in the order Contract, Accumulated, Local, Logits, as far as they were tried; or Exact alone
}

// Check is one view of one node.
type Check struct {
	View    View
	Result  Status
	Reason  string          // why it was skipped, or what the failure is, in words
	Ratio   float64         // of error to limit, of the criterion that went furthest
	Limits  []compare.Check // all criteria
	Fits    compare.Class   // where the check fails: the finest coarser class by whose limits it would pass, empty if there is none
	Holds   compare.Class   // where a local check fails and Fits is not empty: Fits again if all values are numbers of that class
	Derived []string        // inputs that the engine does not expose and that the reference evaluated from those before them
	Census  *compare.Census // where a local check fails
	Where   *compare.Slice  // of a failing check: the part of the tensor that tells most about where it is wrong; nil if none does
	Tokens  map[compare.TokenVerdict]int
	Causes  []Cause // of a failing local or contract check: what reproduces the engine's tensor, best first
	Behind  string  // node with the convention that an accumulated or logits check is off for, or cannot be told apart from a bug for
}

// Divergence is the first node that is not as it should be.
type Divergence struct {
	Node        string
	View        View
	Explanation string
}

// Status is the check's own.
func (c Check) Status() Status { return c.Result }

// Status is the problem's level.
func (p Problem) Status() Status { return p.Level }

// Status of a node is that of its worst check.
func (n Node) Status() Status { return worst(n.Checks) }

// Status of a stage is that of its worst node.
func (s Stage) Status() Status { return worst(s.Nodes) }

// Status of a case is that of its worst stage or problem, and Error if nothing was compared; Skip if it was not run.
func (c Case) Status() Status {
	if c.Reason != "" {
		return Skip
	}
	if c.Coverage().Checked == 0 {
		return Error
	}
	return max(worst(c.Stages), worst(c.Problems))
}

// Status of a set is that of its worst case, and Error if it has none.
func (s Set) Status() Status {
	if s.Reason != "" || len(s.Cases) == 0 {
		return Error
	}
	return worst(s.Cases)
}

// Status of a run is that of its worst set, and Error if nothing was compared in any.
func (r Run) Status() Status {
	if s := worst(r.Sets); s > Skip {
		return s
	}
	return Error
}

// Coverage says how many nodes there are and how many of them were compared.
type Coverage struct {
	Expected, Checked, Skipped int
	Local, Accumulated         int // nodes that were compared in each view
}

func (c Coverage) plus(d Coverage) Coverage {
	return Coverage{c.Expected + d.Expected, c.Checked + d.Checked, c.Skipped + d.Skipped, c.Local + d.Local, c.Accumulated + d.Accumulated}
}

// compared says whether a view of the node was judged.
func (n Node) compared(v View) bool {
	for _, c := range n.Checks {
		if c.View == v && c.Result.compared() {
			return true
		}
	}
	return false
}

// Check is the node's check of a view; false if it was not tried.
func (n Node) Check(v View) (Check, bool) {
	for _, c := range n.Checks {
		if c.View == v {
			return c, true
		}
	}
	return Check{}, false
}

// Coverage of a stage counts its nodes.
func (s Stage) Coverage() Coverage {
	var c Coverage
	for _, n := range s.Nodes {
		c.Expected++
		exact := n.compared(Exact) // which has no inputs but the prompt's, and no truth but the one that it is held against
		local, accumulated := n.compared(Local) || exact, n.compared(Accumulated) || n.compared(Logits) || exact
		if local {
			c.Local++
		}
		if accumulated {
			c.Accumulated++
		}
		if local || accumulated || n.Status() == Fail || n.Status() == Convention {
			c.Checked++
		} else {
			c.Skipped++
		}
	}
	return c
}

// Coverage of a case is the sum over its stages.
func (c Case) Coverage() Coverage { return sum(c.Stages) }

// Coverage of a set is the sum over its cases.
func (s Set) Coverage() Coverage { return sum(s.Cases) }

// Coverage of a run is the sum over its sets.
func (r Run) Coverage() Coverage { return sum(r.Sets) }

func sum[T interface{ Coverage() Coverage }](children []T) Coverage {
	var c Coverage
	for _, child := range children {
		c = c.plus(child.Coverage())
	}
	return c
}
