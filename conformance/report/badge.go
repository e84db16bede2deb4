package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/shapes"
)

// level is one of the parts that an engine is made of, and what the run says of it.
type level struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Note   string `json:"note"`
}

// The statuses of a level.
const (
	levelPass     = "pass"       // every case of the sets: the level's last node holds against the truth, and nothing that was compared fails
	levelPartial  = "partial"    // nothing is wrong by itself, but not all was compared, or what comes to the level is wrong already
	levelOther    = "convention" // nothing is wrong, but a node follows another published rule
	levelFail     = "fail"       // a node is wrong by itself, or the first to diverge
	levelError    = "error"      // something could not be tested
	levelUntested = "untested"   // nothing was compared
)

// part is what a level is judged by: stages of the cases of golden sets, of end-to-end sets, or of both.
type part struct {
	name             string
	stages           []string
	golden, endToEnd bool
}

// parts are those of the levels.
var parts = []part{
	{"inventory", []string{conformance.StageInventory}, true, true},
	{"preprocessing + tokens", []string{conformance.StagePreprocessing, conformance.StageTokens}, false, true},
	{"vision", []string{conformance.StageVision}, true, false},
	{"projector + packing", []string{conformance.StageProjector, conformance.StagePacking, conformance.StageMerge}, true, false},
	{"decoder", []string{conformance.StageDecoder, conformance.StageLogits}, true, false},
	{"generation", []string{conformance.StageGeneration}, false, true},
}

// levels says of each level what the run shows.
func levels(r conformance.Run) []level {
	var out []level
	for _, p := range parts {
		out = append(out, levelOf(p, r))
	}
	return out
}

// inventory says whether the level is judged once for each set, and not in every case.
func (p part) inventory() bool { return p.golden && p.endToEnd }

// levelOf sums a level up over all cases. What could not be tested in a set leaves no level a pass that the set is for, whichever level it was in.
func levelOf(p part, r conformance.Run) level {
	t := tally{whole: true}
	sets := 0
	for _, s := range r.Sets {
		if s.EndToEnd && !p.endToEnd || !s.EndToEnd && !p.golden {
			continue
		}
		sets++
		t.set(p, s)
	}
	if p.inventory() {
		t.whole = listed(r)
	}
	covered := fmt.Sprintf("%d of %d nodes compared", t.checked, t.expected)
	switch {
	case t.fails != "":
		return level{p.name, levelFail, "first at " + t.fails}
	case t.trouble != "":
		return level{p.name, levelError, t.trouble}
	case t.others != "":
		return level{p.name, levelOther, t.others}
	case t.drifts != "":
		return level{p.name, levelPartial, "no node of it is wrong by itself, but what comes to it is off: " + t.drifts}
	case sets == 0 && p.endToEnd:
		return level{p.name, levelUntested, "no part of this run: no end-to-end set was run"}
	case t.checked == 0 && p.inventory():
		return level{p.name, levelUntested, "the engine does not list its parameters"}
	case t.checked == 0:
		return level{p.name, levelUntested, "nothing was compared" + t.why}
	case !t.whole && p.inventory():
		return level{p.name, levelPartial, covered + ", not of every set"}
	case !t.whole && p.endToEnd:
		return level{p.name, levelPartial, covered + ", not all that the level has in every case of the sets" + t.why}
	case !t.whole:
		return level{p.name, levelPartial, covered + ", not the level's end against the truth in every case of the sets"}
	}
	return level{p.name, levelPass, covered}
}

// listed says whether every end-to-end set has an inventory, or where none was run every golden set.
func listed(r conformance.Run) bool {
	need := 0
	for _, endToEnd := range []bool{true, false} {
		for _, s := range r.Sets {
			if s.EndToEnd != endToEnd {
				continue
			}
			need++
			if !slices.ContainsFunc(s.Cases, func(c conformance.Case) bool {
				return slices.ContainsFunc(stagesOf(c, []string{conformance.StageInventory}), func(k conformance.Stage) bool { return k.Status() == conformance.Pass })
			}) {
				return false
			}
		}
		if need > 0 {
			break
		}
	}
	return need > 0
}

// tally is what the cases say of a level.
type tally struct {
	checked, expected              int
	whole                          bool // all that the level asks for is there and holds
	fails, others, drifts, trouble string
	why                            string // why the first case that was not run was not
}

func (t *tally) set(p part, s conformance.Set) {
	if s.Reason != "" && t.trouble == "" {
		t.trouble = s.Name + ": " + s.Reason
	}
	t.whole = t.whole && s.Total > 0 && len(s.Cases) >= s.Total
	for _, c := range s.Cases {
		where := s.Name + "/" + c.Name
		if t.whole = t.whole && c.Reason == ""; c.Reason != "" && t.why == "" {
			t.why = fmt.Sprintf(", %s: %s", where, c.Reason)
		}
		for _, problem := range c.Problems {
			if problem.Level > conformance.Convention && t.trouble == "" && !p.inventory() {
				t.trouble = where + ": " + problem.Text
			}
		}
		of := stagesOf(c, p.stages)
		for _, stage := range of {
			k := stage.Coverage()
			t.checked, t.expected = t.checked+k.Checked, t.expected+k.Expected
			for _, n := range stage.Nodes {
				t.node(n, c, where)
			}
		}
		t.whole = t.whole && (len(of) == 0 || s.EndToEnd && holdsThroughout(of) || !s.EndToEnd && holdsAtItsEnd(of))
	}
}

func (t *tally) node(n conformance.Node, c conformance.Case, where string) {
	own := wrongByItself(n) || c.First != nil && c.First.Node == n.Name
	_, cause, follows := n.Convention()
	exact, isExact := n.Check(conformance.Exact)
	followsFrom := isExact && exact.Result == conformance.Skip && c.First != nil // not judged, for what comes to it is off
	switch s := n.Status(); {
	case s == conformance.Error && t.trouble == "":
		t.trouble = fmt.Sprintf("%s, in %s", n.Name, where)
	case s == conformance.Fail && own && t.fails == "":
		t.fails = fmt.Sprintf("%s, in %s", n.Name, where)
	case follows && t.others == "":
		t.others = fmt.Sprintf("%s: %s, in %s", cause.Convention, n.Name, where)
	case (s == conformance.Fail && !own || s == conformance.Convention && !follows || followsFrom) && t.drifts == "":
		t.drifts = fmt.Sprintf("%s, in %s", n.Name, where)
		if c.First != nil {
			t.drifts = fmt.Sprintf("%s, in %s", c.First.Node, where)
		}
	}
}

func stagesOf(c conformance.Case, names []string) []conformance.Stage {
	var out []conformance.Stage
	for _, s := range c.Stages {
		if slices.Contains(names, s.Name) {
			out = append(out, s)
		}
	}
	return out
}

// holdsThroughout says whether every part was given and holds.
func holdsThroughout(stages []conformance.Stage) bool {
	return !slices.ContainsFunc(stages, func(s conformance.Stage) bool {
		return slices.ContainsFunc(s.Nodes, func(n conformance.Node) bool { return n.Status() != conformance.Pass })
	})
}

// holdsAtItsEnd says whether the last node that the logits need was held against the truth.
func holdsAtItsEnd(stages []conformance.Stage) bool {
	for _, s := range slices.Backward(stages) {
		for _, n := range slices.Backward(s.Nodes) {
			if n.Reach == shapes.Dead {
				continue
			}
			c, ok := n.Check(conformance.Accumulated)
			return ok && c.Result == conformance.Pass
		}
	}
	return false
}

// Badge writes the result as an endpoint of shields.io: the message counts the levels, and names the first that fails.
func Badge(w io.Writer, r conformance.Run) error { return writeBadge(w, levelsDoc(r)) }

func writeBadge(w io.Writer, d jsonLevels) error {
	message, colour := badge(d)
	return indented(w, struct {
		Version int    `json:"schemaVersion"`
		Label   string `json:"label"`
		Message string `json:"message"`
		Colour  string `json:"color"`
	}{1, "llavaref", message, colour})
}

// badge is green only if no level that was tested is less than a pass, and blue if the engine follows another published rule and nothing is wrong.
func badge(d jsonLevels) (message, colour string) {
	number := map[string]int{}
	for _, l := range d.Levels {
		number[l.Status]++
	}
	for _, status := range []string{levelFail, levelError} {
		for _, l := range d.Levels {
			switch {
			case l.Status != status:
			case status == levelFail:
				return fmt.Sprintf("%s: %s fails", d.Class, l.Name), "red"
			default:
				return "could not test", "lightgrey"
			}
		}
	}
	if d.Status == conformance.Convention.String() {
		return fmt.Sprintf("%s: other convention: %s", d.Class, strings.Join(d.Conventions, "; and ")), "blue"
	}
	if d.Status != conformance.Pass.String() {
		return "could not test", "lightgrey"
	}
	message, colour = fmt.Sprintf("%s: %d of %d levels pass", d.Class, number[levelPass], len(d.Levels)), "brightgreen"
	if n := number[levelPartial]; n > 0 {
		message, colour = message+fmt.Sprintf(", %d partly tested", n), "yellow"
	}
	if n := number[levelUntested]; n > 0 {
		message += fmt.Sprintf(", %d not tested", n)
	}
	return message, colour
}

type jsonLevels struct {
	Format   int             `json:"format"`
	Status   string          `json:"status"`
	Verdict  string          `json:"verdict"`
	Engine   jsonEngine      `json:"engine"`
	Class    string          `json:"class"`
	Llavaref string          `json:"llavaref,omitempty"`
	Sets     []jsonLevelsSet `json:"sets"`

	Conventions []string `json:"conventions,omitempty"`
	Levels      []level  `json:"levels"`
}

type jsonLevelsSet struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Total  int    `json:"total"`
	Run    int    `json:"run"`
}

// Levels writes what the run says of each level, small enough to be published.
func Levels(w io.Writer, r conformance.Run) error { return indented(w, levelsDoc(r)) }

func levelsDoc(r conformance.Run) jsonLevels {
	d := jsonLevels{Format: JSONFormat, Status: r.Status().String(), Verdict: Verdict(r), Engine: engineDoc(r.Engine), Class: string(r.Class), Llavaref: r.By.Llavaref, Sets: []jsonLevelsSet{}, Levels: levels(r)}
	for _, c := range r.Conventions() {
		d.Conventions = append(d.Conventions, c.Convention)
	}
	for _, s := range r.Sets {
		run := 0
		for _, c := range s.Cases {
			if c.Reason == "" {
				run++
			}
		}
		d.Sets = append(d.Sets, jsonLevelsSet{s.Name, s.Digest, s.Total, run})
	}
	return d
}

func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
