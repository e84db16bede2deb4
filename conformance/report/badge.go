package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

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

// levelStages says which stages of the graph a level has. The others are no part of a run of the suite.
var levelStages = []struct {
	name   string
	stages []string
	how    string // what tests it, where a run of the suite does not
}{
	{"inventory", nil, "llavaref params verify"},
	{"preprocessing + tokens", nil, "llavaref check ids and llavaref preprocess"},
	{"vision", []string{conformance.StageVision}, ""},
	{"projector + packing", []string{conformance.StageProjector, conformance.StagePacking, conformance.StageMerge}, ""},
	{"decoder", []string{conformance.StageDecoder, conformance.StageLogits}, ""},
	{"generation", nil, "generated tokens beside those of transformers"},
}

// levels says of each level what the run shows.
func levels(r conformance.Run) []level {
	var out []level
	for _, l := range levelStages {
		if l.stages == nil {
			out = append(out, level{l.name, levelUntested, "no part of this run: " + l.how})
			continue
		}
		out = append(out, levelOf(l.name, l.stages, r))
	}
	return out
}

// levelOf sums a level up over all cases. What could not be tested leaves no level a pass, in whichever level it was.
func levelOf(name string, stages []string, r conformance.Run) level {
	checked, expected, whole, fails, others, drifts, trouble := 0, 0, true, "", "", "", ""
	for _, s := range r.Sets {
		where := s.Name
		if s.Reason != "" && trouble == "" {
			trouble = where + ": " + s.Reason
		}
		whole = whole && s.Total > 0 && len(s.Cases) >= s.Total
		for _, c := range s.Cases {
			where := s.Name + "/" + c.Name
			whole = whole && c.Reason == ""
			for _, p := range c.Problems {
				if p.Level > conformance.Convention && trouble == "" {
					trouble = where + ": " + p.Text
				}
			}
			part := stagesOf(c, stages)
			for _, stage := range part {
				k := stage.Coverage()
				checked, expected = checked+k.Checked, expected+k.Expected
				for _, n := range stage.Nodes {
					own := wrongByItself(n) || c.First != nil && c.First.Node == n.Name
					if n.Status() == conformance.Fail && own && fails == "" {
						fails = fmt.Sprintf("%s, in %s", n.Name, where)
					}
					if _, cause, ok := n.Convention(); ok && others == "" {
						others = fmt.Sprintf("%s: %s, in %s", cause.Convention, n.Name, where)
					}
					_, _, follows := n.Convention()
					if s := n.Status(); (s == conformance.Fail && !own || s == conformance.Convention && !follows) && drifts == "" {
						drifts = fmt.Sprintf("%s, in %s", n.Name, where)
						if c.First != nil {
							drifts = fmt.Sprintf("%s, in %s", c.First.Node, where)
						}
					}
					if n.Status() == conformance.Error && trouble == "" {
						trouble = fmt.Sprintf("%s, in %s", n.Name, where)
					}
				}
			}
			whole = whole && (len(part) == 0 || holdsAtItsEnd(part))
		}
	}
	covered := fmt.Sprintf("%d of %d nodes compared", checked, expected)
	switch {
	case fails != "":
		return level{name, levelFail, "first at " + fails}
	case trouble != "":
		return level{name, levelError, trouble}
	case others != "":
		return level{name, levelOther, others}
	case drifts != "":
		return level{name, levelPartial, "no node of it is wrong by itself, but what comes to it is off: " + drifts}
	case checked == 0:
		return level{name, levelUntested, "nothing was compared"}
	case !whole:
		return level{name, levelPartial, covered + ", not the level's end against the truth in every case of the sets"}
	}
	return level{name, levelPass, covered}
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
func Badge(w io.Writer, r conformance.Run) error {
	all := levels(r)
	message, colour := badge(r, all)
	return indented(w, struct {
		Version int    `json:"schemaVersion"`
		Label   string `json:"label"`
		Message string `json:"message"`
		Colour  string `json:"color"`
	}{1, "llavaref", message, colour})
}

// badge is green only if no level that was tested is less than a pass, and blue if the engine follows another published rule and nothing is wrong.
func badge(r conformance.Run, all []level) (message, colour string) {
	number := map[string]int{}
	for _, l := range all {
		number[l.Status]++
	}
	for _, status := range []string{levelFail, levelError} {
		for _, l := range all {
			switch {
			case l.Status != status:
			case status == levelFail:
				return fmt.Sprintf("%s: %s fails", r.Class, l.Name), "red"
			default:
				return "could not test", "lightgrey"
			}
		}
	}
	if r.Status() == conformance.Convention {
		return fmt.Sprintf("%s: other convention: %s", r.Class, conventionNames(r)), "blue"
	}
	if r.Status() != conformance.Pass {
		return "could not test", "lightgrey"
	}
	message, colour = fmt.Sprintf("%s: %d of %d levels pass", r.Class, number[levelPass], len(all)), "brightgreen"
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
func Levels(w io.Writer, r conformance.Run) error {
	d := jsonLevels{Format: JSONFormat, Status: r.Status().String(), Verdict: Verdict(r), Engine: engineDoc(r.Engine), Class: string(r.Class), Llavaref: r.By.Llavaref, Sets: []jsonLevelsSet{}, Levels: levels(r)}
	for _, c := range r.Conventions() {
		d.Conventions = append(d.Conventions, c.Convention)
	}
	for _, s := range r.Sets {
		d.Sets = append(d.Sets, jsonLevelsSet{s.Name, s.Digest, s.Total, len(s.Cases)})
	}
	return indented(w, d)
}

func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
