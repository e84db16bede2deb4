package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// Verdict is the whole result in one sentence.
func Verdict(r conformance.Run) string {
	c := r.Coverage()
	sets, cases, fails, others, skipped := 0, 0, 0, 0, 0
	for _, s := range r.Sets {
		if s.Status() != conformance.Skip {
			sets++
		}
		for _, c := range s.Cases {
			if c.Status() == conformance.Skip {
				skipped++
				continue
			}
			cases++
			switch c.Status() {
			case conformance.Fail:
				fails++
			case conformance.Convention:
				others++
			}
		}
	}
	covered := fmt.Sprintf("%d of %d nodes checked", c.Checked, c.Expected)
	if c.Checked < c.Expected {
		covered += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	if skipped > 0 {
		covered += fmt.Sprintf(", %s not run", count(skipped, "case"))
	}
	if r.Status() == conformance.Convention {
		return fmt.Sprintf("other convention: %s. %s follows it as %s in %d of %s, %s%s.%s%s", conventionNames(r), r.Engine.Name, r.Class, others, count(cases, "case"), covered, untold(r), effects(r), allowed(r))
	}
	if s := r.Status(); r.Against != "" && s != conformance.Error {
		if s == conformance.Pass {
			return fmt.Sprintf("no difference: %s agrees with %s as %s, %s.", r.Engine.Name, r.Against, r.Class, covered)
		}
		return fmt.Sprintf("different: %s and %s differ as %s, %s.%s", r.Engine.Name, r.Against, r.Class, covered, first(r))
	}
	switch r.Status() {
	case conformance.Pass:
		return fmt.Sprintf("conformant: %s holds as %s in %s of %s, %s.", r.Engine.Name, r.Class, count(cases, "case"), count(sets, "set"), covered)
	case conformance.Fail:
		return fmt.Sprintf("not conformant: %s fails as %s in %d of %s, %s.%s", r.Engine.Name, r.Class, fails, count(cases, "case"), covered, first(r))
	}
	text := "could not test: " + trouble(r)
	if fails > 0 {
		text += fmt.Sprintf(" Besides, it fails in %d of %s.%s", fails, count(cases, "case"), first(r))
	}
	return text
}

// conventionNames are the published rules that the engine follows.
func conventionNames(r conformance.Run) string {
	var names []string
	for _, c := range r.Conventions() {
		names = append(names, c.Convention)
	}
	return strings.Join(names, "; and ")
}

// effects says what each convention changes, in the first case that shows it.
func effects(r conformance.Run) string {
	text := ""
	seen := map[string]bool{}
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			for _, k := range c.Conventions() {
				if k.Effect != "" && !seen[k.Convention] {
					seen[k.Convention] = true
					text += fmt.Sprintf(" In %s/%s: %s.", s.Name, c.Name, k.Effect)
				}
			}
		}
	}
	return text
}

// untold says how many nodes behind a convention could not be judged.
func untold(r conformance.Run) string {
	n := 0
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			n += c.Untold()
		}
	}
	if n == 0 {
		return ""
	}
	word := "they stand"
	if n == 1 {
		word = "it stands"
	}
	return fmt.Sprintf(", %d of them because %s behind it", n, word)
}

// allowed says that a run passes all the same.
func allowed(r conformance.Run) string {
	if !r.Accepted() {
		return ""
	}
	return " It is allowed here."
}

// first names the first node that diverges in the first case in which one does.
func first(r conformance.Run) string {
	set, c := firstWrong(r)
	if c.First == nil {
		return ""
	}
	return fmt.Sprintf(" First at %s, in %s/%s.", c.First.Node, set, c.Name)
}

// firstWrong is the first case in which a node diverges, and its set; a case that follows another convention and has nothing wrong is passed over.
func firstWrong(r conformance.Run) (set string, c conformance.Case) {
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			if c.First != nil && c.Status() != conformance.Convention {
				return s.Name, c
			}
		}
	}
	return "", conformance.Case{}
}

// trouble is the first reason why something could not be tested.
func trouble(r conformance.Run) string {
	for _, s := range r.Sets {
		if s.Reason != "" {
			return fmt.Sprintf("%s: %s.", s.Name, s.Reason)
		}
		for _, c := range s.Cases {
			if c.Status() != conformance.Error {
				continue
			}
			for _, p := range c.Problems {
				if p.Level == conformance.Error {
					return fmt.Sprintf("%s/%s: %s.", s.Name, c.Name, p.Text)
				}
			}
			for _, stage := range c.Stages {
				for _, n := range stage.Nodes {
					for _, check := range n.Checks {
						if check.Result == conformance.Error {
							return fmt.Sprintf("%s/%s: %s: %s.", s.Name, c.Name, n.Name, check.Reason)
						}
					}
				}
			}
			return fmt.Sprintf("%s/%s: nothing was compared.", s.Name, c.Name)
		}
	}
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			if c.Reason != "" {
				return fmt.Sprintf("no case was run; %s/%s: %s.", s.Name, c.Name, c.Reason)
			}
		}
	}
	return "no case was run."
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// engine says who was judged and as what.
func engine(r conformance.Run) string {
	name := r.Engine.Name
	if name == "" {
		name = "the engine"
	}
	if r.Engine.Version != "" {
		name += " " + r.Engine.Version
	}
	if r.Engine.Class == "" { // no dump or engine could be opened, to say what it is
		return name + ", not judged"
	}
	judged := fmt.Sprintf("judged as %s", r.Class)
	if r.Class != r.Engine.Class {
		judged += fmt.Sprintf(" (it declares %q)", r.Engine.Class)
	}
	lanes := "one accumulator, since it declares none"
	if r.Engine.Lanes > 0 {
		lanes = count(int(r.Engine.Lanes), "accumulator")
	}
	text := fmt.Sprintf("%s, %s with %s", name, judged, lanes)
	if r.Class != r.Engine.Class {
		return text
	}
	for _, c := range r.Engine.Classes {
		text += fmt.Sprintf("; %s as %s", c.Nodes, c.Class)
	}
	return text
}

// views says how each node was looked at.
func views(r conformance.Run) string {
	words := map[conformance.View]string{conformance.Local: "by its own inputs", conformance.Accumulated: "against the truth"}
	if r.Against != "" {
		words[conformance.Accumulated] = "against " + r.Against
	}
	var out []string
	for _, v := range r.Views {
		out = append(out, words[v])
	}
	return "each node " + strings.Join(out, " and ")
}

// coverage is how much of a case was compared: "389 of 389 nodes checked".
func coverage(c conformance.Coverage, r conformance.Run) string {
	s := fmt.Sprintf("%d of %d nodes checked", c.Checked, c.Expected)
	if c.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	both := slices.Contains(r.Views, conformance.Local) && slices.Contains(r.Views, conformance.Accumulated)
	if both && c.Local < c.Checked {
		s += fmt.Sprintf(", %d by their own inputs", c.Local)
	}
	if both && c.Accumulated < c.Checked {
		s += fmt.Sprintf(", %d against the truth", c.Accumulated)
	}
	return s
}

// skips counts the nodes of a case that were not compared, by reason, in the order of their first node.
func skips(c conformance.Case) []string {
	type group struct {
		reason, example string
		n               int
	}
	var groups []*group
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if n.Reason == "" || n.Status() != conformance.Skip {
				continue
			}
			i := slices.IndexFunc(groups, func(g *group) bool { return g.reason == n.Reason })
			if i < 0 {
				groups = append(groups, &group{n.Reason, n.Name, 0})
				i = len(groups) - 1
			}
			groups[i].n++
		}
	}
	var out []string
	for _, g := range groups {
		of := g.example
		if g.n > 1 {
			of += fmt.Sprintf(" and %d more", g.n-1)
		}
		out = append(out, fmt.Sprintf("%s: %s", g.reason, of))
	}
	return out
}

// row is what a table says of a stage or of a node.
type row struct {
	status         conformance.Status
	drift, local   float64 // worst error over its limit; negative if nothing was judged
	worst          string  // the node with the largest of the two
	checked, total int
}

// stageRow sums up a stage.
func stageRow(s conformance.Stage) row {
	c := s.Coverage()
	r := row{s.Status(), -1, -1, "", c.Checked, c.Expected}
	top := -1.0
	for _, n := range s.Nodes {
		one := nodeRow(n)
		r.drift, r.local = max(r.drift, one.drift), max(r.local, one.local)
		if m := max(one.drift, one.local); m > top && m > 0 {
			top, r.worst = m, n.Name
		}
	}
	return r
}

// nodeRow sums up a node. A wrong shape counts as both views gone wrong. The divergence of the logits goes with the square of an error and
// has a line of its own.
func nodeRow(n conformance.Node) row {
	r := row{status: n.Status(), drift: -1, local: -1, worst: n.Name}
	for _, c := range n.Checks {
		if c.Result == conformance.Skip || c.Result == conformance.Error {
			continue
		}
		if c.View == conformance.Accumulated || c.View == conformance.Contract || c.View == conformance.Exact {
			r.drift = max(r.drift, c.Ratio)
		}
		if c.View == conformance.Local || c.View == conformance.Contract {
			r.local = max(r.local, c.Ratio)
		}
	}
	return r
}

// ratio is an error over its limit in few characters: "0.21", "4.9e+03", "off" where it has no measure, "-" where nothing was judged.
func ratio(x float64) string {
	switch {
	case x < 0:
		return "-"
	case x == 0:
		return "0"
	case x >= compare.Worse:
		return "off"
	case x < 0.005:
		return "0.00"
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	case x < 10000:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.1e", x)
}

// short cuts what the stage says already off a node's name.
func short(name string) string {
	for _, prefix := range []string{shapes.VisionTower, shapes.Projector, shapes.TextModel} {
		if rest, ok := strings.CutPrefix(name, prefix+"."); ok {
			return rest
		}
	}
	return strings.TrimPrefix(name, "language_model.")
}

// findings says in lines what is wrong in a case: the first node that diverges, why, and what the difference looks like.
func findings(c conformance.Case) []string {
	var out []string
	for _, p := range c.Problems {
		out = append(out, problemWord(p.Level)+": "+p.Text)
	}
	for _, a := range c.Assumptions {
		out = append(out, assumption(a))
	}
	out = append(out, causes("", c.Causes)...)
	if c.First == nil {
		return out
	}
	out = append(out, firstWord(*c.First)+": "+c.First.Node, "  "+c.First.Explanation)
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if n.Name == c.First.Node {
				out = append(out, nodeFindings(n, c.First.View)...)
			}
		}
	}
	for _, n := range besides(c) {
		out = append(out, "besides, wrong as well: "+n.Name)
		out = append(out, nodeFindings(n, "")...)
	}
	for _, n := range conventional(c) {
		if n.Name != c.First.Node {
			out = append(out, "besides, another convention: "+n.Name)
			out = append(out, nodeFindings(n, "")...)
		}
	}
	if n := c.Untold(); n > 0 {
		out = append(out, fmt.Sprintf("%s behind a convention could not be judged: off against the truth, and not all between is exposed", count(n, "node")))
	}
	return out
}

// firstWord is what the first divergence of a case is called.
func firstWord(d conformance.Divergence) string {
	if d.View == conformance.Exact {
		return "first wrong"
	}
	return "first diverging node"
}

// besides are the parts of a case that have one right value, and another one here, behind the first that diverges.
func besides(c conformance.Case) []conformance.Node {
	var out []conformance.Node
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if k, ok := n.Check(conformance.Exact); ok && k.Result == conformance.Fail && (c.First == nil || c.First.Node != n.Name) {
				out = append(out, n)
			}
		}
	}
	return out
}

// setStages are the stages of a set's cases, in the order in which tables have them.
func setStages(s conformance.Set) []string {
	if s.EndToEnd {
		return conformance.EndToEndStages()
	}
	names := conformance.Stages()
	for _, c := range s.Cases {
		if len(stagesOf(c, []string{conformance.StageInventory})) > 0 {
			return append(names, conformance.StageInventory)
		}
	}
	return names
}

// problemWord is what a problem's level is called.
func problemWord(level conformance.Status) string {
	return map[conformance.Status]string{conformance.Skip: "note", conformance.Convention: "other convention", conformance.Fail: "fails", conformance.Error: "error"}[level]
}

// conventional are the nodes of a case that follow another published rule themselves.
func conventional(c conformance.Case) []conformance.Node {
	var out []conformance.Node
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if _, _, ok := n.Convention(); ok {
				out = append(out, n)
			}
		}
	}
	return out
}

// assumption says what an engine may have left undeclared, as it would have to be declared.
func assumption(a conformance.Assumption) string {
	exact := ""
	if a.Exact {
		exact = ", and all its values are numbers of that class"
	}
	if a.Nodes == "*" {
		return fmt.Sprintf("assumption, not taken: the engine as a whole behaves like %s storage (%s)%s. If that is meant, the manifest declares it: \"class\": %q", a.Class, count(a.Count, "node"), exact, a.Class)
	}
	return fmt.Sprintf("assumption, not taken: %s behaves like %s storage (%s)%s. If that is meant, the manifest declares it: \"classes\": [{\"nodes\": %q, \"class\": %q}]",
		a.Nodes, a.Class, count(a.Count, "node"), exact, a.Nodes, a.Class)
}

// nodeFindings says what failed at a node, what the difference looks like, and which class would take it.
func nodeFindings(n conformance.Node, only conformance.View) []string {
	var out []string
	for _, c := range n.Checks {
		if c.Result == conformance.Error {
			out = append(out, fmt.Sprintf("  %s: %s", c.View, c.Reason))
		}
		if c.Result != conformance.Fail && c.Result != conformance.Convention {
			continue
		}
		line := fmt.Sprintf("  %s, %s times its limit: %s", c.View, ratio(c.Ratio), c.Reason)
		if c.Ratio >= compare.Worse {
			line = fmt.Sprintf("  %s: %s", c.View, c.Reason)
		}
		if c.View == only && (c.View == conformance.Contract || c.View == conformance.Exact) { // the explanation has said it
			out = append(out, causes("  ", c.Causes)...)
			continue
		}
		out = append(out, line)
		out = append(out, causes("  ", c.Causes)...)
		if c.Census != nil {
			out = append(out, census(*c.Census)...)
		}
		if told := where(n, c); told != "" {
			out = append(out, "  "+told)
		}
		if c.Fits != "" && c.View == only {
			out = append(out, fmt.Sprintf("  this check would pass in class %s", c.Fits))
		}
	}
	return out
}

// causes says what the engine seems to do. All of them reproduce its tensor; more than one is said to be so.
func causes(indent string, list []conformance.Cause) []string {
	var out []string
	for i, c := range list {
		word := "likely cause"
		if c.Convention != "" {
			word = "other convention"
		}
		if i > 0 {
			word = "or " + word
		}
		line := fmt.Sprintf("%s%s: %s (%s), error %s of its limit with that", indent, word, c.Text, c.ID, ratio(c.Ratio))
		if c.Convention != "" {
			line = fmt.Sprintf("%s%s: %s: %s (%s), error %s of its limit with that", indent, word, c.Convention, c.Text, c.ID, ratio(c.Ratio))
		}
		out = append(out, line)
		if c.Look != "" {
			out = append(out, fmt.Sprintf("%s  look at: %s", indent, c.Look))
		}
		if c.Effect != "" {
			out = append(out, fmt.Sprintf("%s  in this prompt: %s", indent, c.Effect))
		}
	}
	return out
}

// census describes the difference of a tensor, its worst entries included.
func census(c compare.Census) []string {
	out := extent(c)
	for i, s := range c.Worst {
		word := "  worst "
		if i > 0 {
			word = "        "
		}
		out = append(out, fmt.Sprintf("%s%s: %v, want %v", word, index(s.Index), s.Got, s.Want))
	}
	return out
}

// extent says how much of a tensor is off, and whether it is all in one place.
func extent(c compare.Census) []string {
	line := fmt.Sprintf("  %d of %d entries are off by more than rounding can do", c.Bad, c.Entries)
	if c.Bad == 0 {
		line = "  no entry is off by more than rounding can do, all of them together are"
	}
	if c.NaN+c.Inf > 0 {
		line += fmt.Sprintf("; %d NaN, %d infinite", c.NaN, c.Inf)
	}
	out := []string{line}
	if a := c.Narrowest; a != nil && a.Length > 1 {
		out = append(out, fmt.Sprintf("  %.0f %% of the difference is at %s = %d, of 0 to %d", 100*a.Share, a.Letter, a.Index, a.Length-1))
	}
	return out
}

// where says which part of a tensor tells most about where it is wrong. What a local check says is said once.
func where(n conformance.Node, c conformance.Check) string {
	if local, ok := n.Check(conformance.Local); c.Where == nil || c.View == conformance.Accumulated && ok && local.Result == conformance.Fail {
		return ""
	}
	w := c.Where
	return fmt.Sprintf("%d of the %d wrong entries lie in %s, which is %.2g %% of the %d looked at", w.Bad, w.AllBad, w.Text, 100*float64(w.Size)/float64(max(w.All, 1)), w.All)
}

// index is the place of an entry: "[1, 3, 17]".
func index(at []int) string {
	return "[" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(at)), ", "), "[]") + "]"
}

// tokens says what became of the most probable tokens: "50 of 54 tokens MATCH, 4 NEAR-TIE, KL 0.31 of its limit".
func tokens(n conformance.Node) string {
	c, ok := n.Check(conformance.Logits)
	if !ok || len(c.Tokens) == 0 {
		return ""
	}
	total := 0
	for _, k := range c.Tokens {
		total += k
	}
	s := fmt.Sprintf("%d of %s %s", c.Tokens[compare.Match], count(total, "token"), compare.Match)
	for _, v := range []compare.TokenVerdict{compare.NearTie, compare.Drifts, compare.Wrong} {
		if c.Tokens[v] > 0 {
			s += fmt.Sprintf(", %d %s", c.Tokens[v], v)
		}
	}
	worst := 0.0
	for _, l := range c.Limits {
		if l.Criterion == compare.KLMean || l.Criterion == compare.KLWorst {
			worst = max(worst, l.Ratio)
		}
	}
	return s + fmt.Sprintf(", KL %s of its limit", ratio(worst))
}
