package conformance

import (
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// followed is the convention among the causes of a failure. One that gives the engine's values within the limit is what the engine follows, even
// where a bug gives them too: by all that was compared the engine does what a published rule says.
func followed(causes []Cause) (Cause, bool) {
	i := slices.IndexFunc(causes, func(c Cause) bool { return c.Convention != "" })
	if i < 0 {
		return Cause{}, false
	}
	return causes[i], true
}

// Convention is the check by which a node follows another published rule, and that rule; false if it follows none.
func (n Node) Convention() (Check, Cause, bool) {
	for _, c := range n.Checks {
		if c.Result != Convention {
			continue
		}
		if cause, ok := followed(c.Causes); ok {
			return c, cause, true
		}
	}
	return Check{}, Cause{}, false
}

// Settle makes a failing check that a convention explains one that follows it, conventions first among its causes.
func (c *Check) Settle() {
	if _, ok := followed(c.Causes); ok && c.Result == Fail {
		c.Result = Convention
		slices.SortStableFunc(c.Causes, func(a, b Cause) int { return rankOf(a) - rankOf(b) })
	}
}

// settle tells another convention from a bug, in the order of execution. A node whose own check a convention explains follows it. What comes after it is off
// against the truth by necessity, so there the local view decides: the drift is the convention's where the node holds by its own inputs, and so does
// everything between. Where that is not known, drift says nothing, and the node is skipped with that reason.
func settle(nodes []shapes.Node, results map[string]*Node) {
	s := settler{behind: map[string]string{}, proved: map[string]bool{}, names: map[string]string{}}
	for _, n := range nodes {
		if r := results[n.Name]; r != nil {
			s.node(n, r)
		}
	}
}

type settler struct {
	behind map[string]string // node -> the first node with a convention that it depends on, or is
	proved map[string]bool   // nodes of which nothing but that convention is known to be off
	names  map[string]string // of the conventions, by their nodes
}

func (s *settler) node(n shapes.Node, r *Node) {
	proved := true
	for _, in := range n.Inputs {
		if at := s.behind[in]; at != "" {
			if s.behind[n.Name] == "" {
				s.behind[n.Name] = at
			}
			proved = proved && s.proved[in]
		}
	}
	after := s.behind[n.Name] != ""
	failing, follows := false, ""
	for _, c := range r.Checks {
		if !own(c, after) || c.Result != Fail {
			continue
		}
		if cause, ok := followed(c.Causes); ok {
			follows = cause.Convention
		} else {
			failing = true
		}
	}
	if failing {
		s.proved[n.Name] = false
		return
	}
	if follows != "" {
		s.names[n.Name] = follows
		if s.behind[n.Name] == "" {
			s.behind[n.Name] = n.Name
		}
	}
	at := s.behind[n.Name]
	if at == "" {
		return
	}
	local, judged := r.Check(Local)
	holds := judged && local.Result == Pass
	s.proved[n.Name] = proved && (holds || follows != "" || len(r.Checks) == 0)
	for i := range r.Checks {
		c := &r.Checks[i]
		switch {
		case c.Result != Fail:
		case own(*c, after):
			c.Settle()
		case s.proved[n.Name]:
			c.Result, c.Behind = Convention, at
		default:
			*c = Check{View: c.View, Behind: at, Reason: fmt.Sprintf("off against the truth, as all is behind %s, which follows another convention (%s); whether there is a bug as well cannot be told, since not all between is exposed", at, s.names[at])}
		}
		if r.Status() == Skip && r.Reason == "" && c.Behind != "" {
			r.Reason = c.Reason
		}
	}
}

// own says whether a check is about the node itself: its inputs or its shape, or its drift where that has a cause and no convention before it.
func own(c Check, after bool) bool {
	return c.View == Local || c.View == Contract || len(c.Causes) > 0 && !after
}

// rankOf puts conventions before bugs.
func rankOf(c Cause) int {
	if c.Convention != "" {
		return 0
	}
	return 1
}

// Conventions lists the published rules that the engine follows, each once, in the order in which they show.
func (c Case) Conventions() []Cause {
	var out []Cause
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if _, cause, ok := n.Convention(); ok {
				out = addConvention(out, cause)
			}
		}
	}
	return out
}

// Conventions lists the published rules that the engine follows in any case, each once, in the order in which they show.
func (r Run) Conventions() []Cause {
	var out []Cause
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			for _, cause := range c.Conventions() {
				out = addConvention(out, cause)
			}
		}
	}
	return out
}

func addConvention(list []Cause, c Cause) []Cause {
	if slices.ContainsFunc(list, func(k Cause) bool { return k.Convention == c.Convention }) {
		return list
	}
	return append(list, c)
}

// Accepted says whether the run passes, but for conventions that are allowed.
func (r Run) Accepted() bool {
	switch r.Status() {
	case Pass:
		return true
	case Convention:
		return r.Allows(r.Conventions())
	}
	return false
}

// Allows says whether all of some conventions are allowed, by their names or by the ids of their bugs.
func (r Run) Allows(list []Cause) bool {
	return !slices.ContainsFunc(list, func(c Cause) bool {
		return !slices.Contains(r.Allowed, c.Convention) && !slices.Contains(r.Allowed, c.ID)
	})
}

// Untold counts the nodes of a case that are skipped because a convention before them cannot be told from a bug of their own.
func (c Case) Untold() int {
	n := 0
	for _, s := range c.Stages {
		for _, node := range s.Nodes {
			if node.Status() == Skip && slices.ContainsFunc(node.Checks, func(k Check) bool { return k.Behind != "" }) {
				n++
			}
		}
	}
	return n
}
