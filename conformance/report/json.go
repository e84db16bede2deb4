package report

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
)

// JSONFormat is the version of the schema that JSON writes; docs/result-format.md describes it.
const JSONFormat = 1

// JSON writes the whole result.
func JSON(w io.Writer, r conformance.Run) error {
	return indented(w, runDoc(r))
}

// number is a float64; what JSON has no number for becomes a string.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.AppendQuote(nil, strconv.FormatFloat(f, 'g', -1, 64)), nil
	}
	return json.Marshal(f)
}

type jsonRun struct {
	Format   int          `json:"format"`
	Status   string       `json:"status"`
	Verdict  string       `json:"verdict"`
	Engine   jsonEngine   `json:"engine"`
	Class    string       `json:"class"`
	Views    []string     `json:"views"`
	Against  string       `json:"against,omitempty"`
	Llavaref string       `json:"llavaref,omitempty"`
	Machine  string       `json:"machine,omitempty"`
	Coverage jsonCoverage `json:"coverage"`

	Conventions []jsonCause `json:"conventions,omitempty"`
	Allowed     []string    `json:"allowed,omitempty"`

	Sets []jsonSet `json:"sets"`
}

type jsonEngine struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Class   string `json:"class"`
	Lanes   int    `json:"lanes"`

	Classes []jsonNodeClass `json:"classes,omitempty"`
}

type jsonNodeClass struct {
	Nodes string `json:"nodes"`
	Class string `json:"class"`
}

type jsonAssumption struct {
	Nodes string `json:"nodes"`
	Class string `json:"class"`
	Count int    `json:"count"`
	Exact bool   `json:"exact"`
}

type jsonCoverage struct {
	Expected    int `json:"expected"`
	Checked     int `json:"checked"`
	Skipped     int `json:"skipped"`
	Local       int `json:"local"`
	Accumulated int `json:"accumulated"`
}

type jsonSet struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	Total  int    `json:"total"`
	// EndToEnd says that the cases are conversations.
	EndToEnd bool       `json:"end_to_end,omitempty"`
	Cases    []jsonCase `json:"cases"`
}

type jsonCase struct {
	Name     string        `json:"name"`
	Why      string        `json:"why"`
	Status   string        `json:"status"`
	Reason   string        `json:"reason,omitempty"`
	Coverage jsonCoverage  `json:"coverage"`
	Problems []jsonProblem `json:"problems"`
	First    *jsonFirst    `json:"first"`
	Causes   []jsonCause   `json:"causes,omitempty"`
	Stages   []jsonStage   `json:"stages"`

	Assumptions []jsonAssumption `json:"assumptions,omitempty"`
}

type jsonProblem struct {
	Level string `json:"level"`
	Text  string `json:"text"`
}

type jsonFirst struct {
	Node        string `json:"node"`
	View        string `json:"view"`
	Explanation string `json:"explanation"`
}

type jsonStage struct {
	Name   string     `json:"name"`
	Status string     `json:"status"`
	Nodes  []jsonNode `json:"nodes"`
}

type jsonNode struct {
	Name   string      `json:"name"`
	Kind   string      `json:"kind"`
	Shape  []int       `json:"shape"`
	Reach  string      `json:"reach"`
	Status string      `json:"status"`
	Reason string      `json:"reason,omitempty"`
	Checks []jsonCheck `json:"checks"`
}

type jsonCheck struct {
	View    string         `json:"view"`
	Status  string         `json:"status"`
	Reason  string         `json:"reason,omitempty"`
	Ratio   number         `json:"ratio"`
	Limits  []jsonLimit    `json:"limits"`
	Fits    string         `json:"fits,omitempty"`
	Derived []string       `json:"derived,omitempty"`
	Census  *jsonCensus    `json:"census,omitempty"`
	Where   *jsonWhere     `json:"where,omitempty"`
	Tokens  map[string]int `json:"tokens,omitempty"`
	Causes  []jsonCause    `json:"causes,omitempty"`
	Behind  string         `json:"behind,omitempty"`
}

type jsonCause struct {
	ID         string `json:"id"`
	Text       string `json:"text"`
	Look       string `json:"look"`
	Ratio      number `json:"ratio"`
	Convention string `json:"convention,omitempty"`
	Effect     string `json:"effect,omitempty"`
}

type jsonLimit struct {
	Criterion string `json:"criterion"`
	Value     number `json:"value"`
	Limit     number `json:"limit"`
	Ratio     number `json:"ratio"`
	Where     []int  `json:"where,omitempty"`
}

type jsonCensus struct {
	Entries  int        `json:"entries"`
	Bad      int        `json:"bad"`
	NaN      int        `json:"nan"`
	Infinite int        `json:"infinite"`
	Worst    []jsonSite `json:"worst"`
	Axes     []jsonAxis `json:"axes"`
	Maps     []jsonMap  `json:"maps,omitempty"`
}

type jsonWhere struct {
	Text       string `json:"text"`
	Bad        int    `json:"bad"`
	Entries    int    `json:"entries"`
	AllBad     int    `json:"all_bad"`
	AllEntries int    `json:"all_entries"`
}

type jsonMap struct {
	Rows   jsonSpan `json:"rows"`
	Cols   jsonSpan `json:"columns"`
	Excess []string `json:"excesses"` // a string a row: indented output would give each number a line
}

type jsonSpan struct {
	Letter string `json:"letter"`
	Length int    `json:"length"`
	Cells  int    `json:"cells"`
}

type jsonSite struct {
	Index  []int  `json:"index"`
	Want   number `json:"want"`
	Got    number `json:"got"`
	Excess number `json:"excess"`
}

type jsonAxis struct {
	Letter string `json:"letter"`
	Length int    `json:"length"`
	Index  int    `json:"index"`
	RMS    number `json:"rms"`
	Share  number `json:"share"`
}

func runDoc(r conformance.Run) jsonRun {
	d := jsonRun{Format: JSONFormat, Against: r.Against, Status: r.Status().String(), Verdict: Verdict(r), Class: string(r.Class), Coverage: jsonCoverage(r.Coverage()), Llavaref: r.By.Llavaref, Machine: r.By.Machine, Sets: []jsonSet{},
		Engine: engineDoc(r.Engine), Conventions: causeDocs(r.Conventions()), Allowed: r.Allowed}
	for _, v := range r.Views {
		d.Views = append(d.Views, string(v))
	}
	for _, s := range r.Sets {
		set := jsonSet{s.Name, s.Digest, s.Status().String(), s.Reason, s.Total, s.EndToEnd, []jsonCase{}}
		for _, c := range s.Cases {
			set.Cases = append(set.Cases, caseDoc(c))
		}
		d.Sets = append(d.Sets, set)
	}
	return d
}

func engineDoc(e conformance.Info) jsonEngine {
	d := jsonEngine{Name: e.Name, Version: e.Version, Class: string(e.Class), Lanes: int(e.Lanes)}
	for _, c := range e.Classes {
		d.Classes = append(d.Classes, jsonNodeClass{c.Nodes, string(c.Class)})
	}
	return d
}

func caseDoc(c conformance.Case) jsonCase {
	d := jsonCase{Name: c.Name, Why: c.Why, Status: c.Status().String(), Reason: c.Reason, Coverage: jsonCoverage(c.Coverage()), Problems: []jsonProblem{}, Stages: []jsonStage{}}
	for _, p := range c.Problems {
		d.Problems = append(d.Problems, jsonProblem{p.Level.String(), p.Text})
	}
	for _, a := range c.Assumptions {
		d.Assumptions = append(d.Assumptions, jsonAssumption{a.Nodes, string(a.Class), a.Count, a.Exact})
	}
	if f := c.First; f != nil {
		d.First = &jsonFirst{f.Node, string(f.View), f.Explanation}
	}
	d.Causes = causeDocs(c.Causes)
	for _, s := range c.Stages {
		stage := jsonStage{Name: s.Name, Status: s.Status().String()}
		for _, n := range s.Nodes {
			node := jsonNode{n.Name, string(n.Kind), n.Shape, string(n.Reach), n.Status().String(), n.Reason, []jsonCheck{}}
			for _, k := range n.Checks {
				node.Checks = append(node.Checks, checkDoc(k))
			}
			stage.Nodes = append(stage.Nodes, node)
		}
		d.Stages = append(d.Stages, stage)
	}
	return d
}

func checkDoc(c conformance.Check) jsonCheck {
	d := jsonCheck{View: string(c.View), Status: c.Result.String(), Reason: c.Reason, Ratio: number(c.Ratio), Limits: []jsonLimit{}, Fits: string(c.Fits), Derived: c.Derived}
	for _, l := range c.Limits {
		d.Limits = append(d.Limits, jsonLimit{string(l.Criterion), number(l.Value), number(l.Limit), number(l.Ratio), l.Where})
	}
	if len(c.Tokens) > 0 {
		d.Tokens = map[string]int{}
		for verdict, n := range c.Tokens {
			d.Tokens[string(verdict)] = n
		}
	}
	d.Causes, d.Behind = causeDocs(c.Causes), c.Behind
	if w := c.Where; w != nil {
		d.Where = &jsonWhere{w.Text, w.Bad, w.Size, w.AllBad, w.All}
	}
	if c.Census != nil {
		d.Census = censusDoc(*c.Census)
	}
	return d
}

func causeDocs(causes []conformance.Cause) []jsonCause {
	var docs []jsonCause
	for _, c := range causes {
		docs = append(docs, jsonCause{c.ID, c.Text, c.Look, number(c.Ratio), c.Convention, c.Effect})
	}
	return docs
}

func censusDoc(c compare.Census) *jsonCensus {
	d := &jsonCensus{Entries: c.Entries, Bad: c.Bad, NaN: c.NaN, Infinite: c.Inf, Worst: []jsonSite{}, Axes: []jsonAxis{}}
	for _, s := range c.Worst {
		d.Worst = append(d.Worst, jsonSite{s.Index, number(s.Want), number(s.Got), number(s.Excess)})
	}
	for _, a := range c.Axes {
		d.Axes = append(d.Axes, jsonAxis{a.Letter, a.Length, a.Index, number(a.RMS), number(a.Share)})
	}
	for _, m := range c.Maps {
		j := jsonMap{jsonSpan(m.Rows), jsonSpan(m.Cols), nil}
		for row := range slices.Chunk(m.Excess, m.Cols.Cells) {
			words := make([]string, len(row))
			for i, x := range row {
				words[i] = strconv.FormatFloat(float64(x), 'g', 2, 32)
			}
			j.Excess = append(j.Excess, strings.Join(words, " "))
		}
		d.Maps = append(d.Maps, j)
	}
	return d
}
