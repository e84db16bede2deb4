package conformance

import (
	"fmt"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// The limits of explanations. They decide which words are used, never whether something passes.
const (
	// jump is by how much a node's drift, over its limit, must exceed that of its inputs to be called a jump.
	// Honest noise grows by less: even the sum of two branches adds at most the two.
	jump = 4
	// broad is the share of the nodes judged locally that must fail for the arithmetic to be blamed and no single node.
	broad = 0.5
)

// diverge finds the first node of a case that is not as it should be, in the order of execution, and says what its failure means:
// the first that fails by itself, or without any the first whose drift fails, or without any the first that follows another convention.
func diverge(nodes []shapes.Node, results map[string]*Node) *Divergence {
	t := tally{drift: map[string]float64{}, excused: true}
	for _, n := range nodes {
		if r := results[n.Name]; r != nil {
			t.add(r)
		}
	}
	if blind, growth, ok := t.before(nodes, results); ok {
		return &Divergence{blind, Accumulated, fmt.Sprintf("drift jumps here, to %.3g times that of the node's inputs, and what it reads is not shown: this node, a hidden one before it, or the wiring", growth)}
	}
	switch {
	case t.first != nil:
		if c, ok := t.first.Check(Contract); ok && c.Result == Fail {
			return &Divergence{t.first.Name, Contract, "this is not the node's tensor: " + c.Reason}
		}
		if t.coarser() {
			return &Divergence{t.first.Name, Local, fmt.Sprintf("%d of %d nodes fail by their own inputs, and all of them would pass as %s: a lower precision class than declared", t.failing, t.local, t.coarse)}
		}
		return &Divergence{t.first.Name, Local, "local fails: this node is wrong, given its own inputs"}
	case t.drifted == nil && t.other != nil:
		c, cause, _ := t.other.Convention()
		return &Divergence{t.other.Name, c.View, "this node follows another published rule: " + cause.Convention}
	case t.drifted == nil:
		return nil
	}
	held := "local holds wherever it was judged"
	if t.local == 0 {
		held = "local was not judged"
	}
	if n, growth, ok := firstJump(nodes, results, t.drift); ok {
		return &Divergence{n, Accumulated, fmt.Sprintf("%s, but drift jumps here, to %.3g times that of the node's inputs: wiring, order or state", held, growth)}
	}
	d := Divergence{t.drifted.Name, Accumulated, held + " and drift grows smoothly, but above the floor: a lower precision class than declared"}
	c, ok := t.drifted.Check(Accumulated)
	if !ok || c.Result != Fail {
		d.View = Logits
		c, _ = t.drifted.Check(Logits)
	}
	if c.Fits != "" {
		d.Explanation += fmt.Sprintf("; it would pass as %s", c.Fits)
	}
	return &d
}

// tally is what diverge gathers from the nodes in the order of execution.
type tally struct {
	first   *Node              // that fails by itself
	drifted *Node              // first whose drift, or whose logits, fail
	other   *Node              // first that follows another convention
	local   int                // nodes judged locally
	failing int                // of them, those that fail
	excused bool               // every one of those would pass in a coarser class
	coarse  compare.Class      // the coarsest of those classes
	drift   map[string]float64 // over its limit, by node
}

func (t *tally) add(r *Node) {
	if _, _, ok := r.Convention(); ok && t.other == nil {
		t.other = r
	}
	for _, c := range r.Checks {
		if c.Result == Fail && t.first == nil && (c.View == Contract || c.View == Local) {
			t.first = r
		}
		if c.Result == Fail && t.drifted == nil && (c.View == Accumulated || c.View == Logits) {
			t.drifted = r
		}
		if c.Result == Skip || c.Result == Error {
			continue
		}
		switch c.View {
		case Accumulated:
			t.drift[r.Name] = c.Ratio
		case Local:
			t.local++
			if c.Result == Fail {
				t.failing++
				t.excused = t.excused && c.Fits != ""
				t.coarse = coarser(t.coarse, c.Fits)
			}
		}
	}
}

// before is a node that could not be judged by its own inputs and whose drift jumps before the first node that fails by itself: the engine is wrong
// there already. An engine that behaves like a coarser class has no such node.
func (t *tally) before(nodes []shapes.Node, results map[string]*Node) (string, float64, bool) {
	if t.first == nil || t.coarser() {
		return "", 0, false
	}
	for i, n := range nodes {
		if n.Name == t.first.Name {
			nodes = nodes[:i]
			break
		}
	}
	name, growth, ok := firstJump(nodes, results, t.drift)
	if !ok || results[name].compared(Local) {
		return "", 0, false
	}
	return name, growth, true
}

// coarser says whether what fails by itself would pass in a coarser class, and is most of what was judged so.
func (t *tally) coarser() bool {
	return t.excused && t.local > 1 && float64(t.failing) >= broad*float64(t.local)
}

// firstJump is the first node with failing drift that has much more of it than the largest of what it reads, behind nodes that were not
// judged what those read. Drift is in units of each node's own limit, and what is far below its limit is noise: it counts as a tenth.
func firstJump(nodes []shapes.Node, results map[string]*Node, drift map[string]float64) (string, float64, bool) {
	arriving := map[string]float64{} // at each node: its own drift, or that of what it reads
	for _, n := range nodes {
		before := 0.1
		for _, in := range n.Inputs {
			before = max(before, arriving[in]) // 0 for an input of the graph
		}
		d, judged := drift[n.Name]
		if !judged {
			arriving[n.Name] = before
			continue
		}
		arriving[n.Name] = d
		if c, ok := results[n.Name].Check(Accumulated); ok && c.Result == Fail && d/before >= jump {
			return n.Name, d / before, true
		}
	}
	return "", 0, false
}

// coarser is the coarser of two classes; an empty one counts as finer than all.
func coarser(a, b compare.Class) compare.Class {
	if rank(a) > rank(b) {
		return a
	}
	return b
}

func rank(c compare.Class) int {
	for i, k := range compare.Classes() {
		if k == c {
			return i
		}
	}
	return -1
}
