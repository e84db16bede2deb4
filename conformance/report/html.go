package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
)

// The page's parts. It needs no network, and without the script only the reading under the pointer is missing.
var (
	//go:embed page/page.html
	pageTemplate string
	//go:embed page/page.css
	pageStyle string
	//go:embed page/page.js
	pageScript string

	page = template.Must(template.New("page").Parse(pageTemplate))
)

// Bounds of a page, so that an engine that is wrong everywhere gives one that can still be opened.
const (
	maxNodeDetails = 8  // failing nodes of a case that are shown in full
	maxFindings    = 12 // different diagnoses at the top
	maxOpenCases   = 3  // cases that do not pass and are unfolded
)

// HTML writes the result as one page that needs nothing else: the diagnosis in words, for each case the drift and the local error of every
// node along the depth, and where the first failing nodes are wrong. Whatever comes from outside is escaped, and the page's policy forbids
// any script but its own and any connection.
func HTML(w io.Writer, r conformance.Run) error {
	var b bytes.Buffer
	if err := page.Execute(&b, pageDoc(r)); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

type htmlPage struct {
	Policy                        template.HTML
	Style                         template.CSS
	Script                        template.JS
	Word, Status, Engine, Verdict string
	Facts, Provenance             []htmlFact
	Findings                      []htmlFinding
	MoreFindings                  string
	Sets                          []htmlSet
}

type htmlFact struct{ Name, Value string }

// htmlFinding is one diagnosis and the cases that have it.
type htmlFinding struct {
	Status, Title, Link string
	Node                bool // the title is a node's name
	Lines               []string
	Causes              []htmlCause
	Cases               []htmlLink
}

type htmlLink struct{ ID, Name string }

type htmlCause struct{ ID, Text, Look, Convention, Effect, Fit string }

type htmlSet struct {
	Name, Digest, Chosen, Reason string
	Stages                       []string
	Chart                        *htmlChart
	Cases                        []htmlCase
}

type htmlCase struct {
	ID, Name, Why, Status, Coverage, NodeCount string
	Open                                       bool
	Cells                                      []htmlCell
	Problems                                   []htmlProblem
	Skips, Assumptions                         []string
	Chart                                      *htmlChart
	First                                      *htmlFirst
	Causes                                     []htmlCause
	Stages                                     []htmlStage
	Nodes                                      []htmlNode
	MoreNodes                                  string
}

type htmlCell struct{ Status, Text string }

type htmlProblem struct{ Status, Word, Text string }

type htmlFirst struct{ Word, Link, Node, Explanation string }

type htmlStage struct {
	Name, Status, Checked, Drift, Local, Note string
	Rows                                      []htmlRow
}

type htmlRow struct {
	ID, Status, Name, Drift, Local, Note string
	Bad                                  bool
}

type htmlNode struct {
	ID, Name, Kind, Shape, Derived string
	Lines                          []string
	Causes                         []htmlCause
	Limits                         []htmlLimit
	Worst                          []htmlSite
	Axes                           []htmlAxis
	Maps                           []htmlMap
	Scale                          []htmlKey
}

type htmlLimit struct {
	View, Criterion, Value, Limit, Ratio, Where string
	Bad                                         bool
}

type htmlSite struct{ Index, Got, Want, Excess string }

type htmlAxis struct {
	Letter, Share, RMS string
	Length, Index      int
}

// statusWord is a run's status as its verdict calls it.
func statusWord(r conformance.Run) string {
	s := r.Status()
	switch {
	case s == conformance.Convention:
		return "other convention"
	case s == conformance.Pass && r.Against != "":
		return "no difference"
	case s == conformance.Fail && r.Against != "":
		return "different"
	case s == conformance.Pass:
		return "conformant"
	case s == conformance.Fail:
		return "not conformant"
	}
	return "could not test"
}

func pageDoc(r conformance.Run) htmlPage {
	p := htmlPage{Style: template.CSS(pageStyle), Script: template.JS(pageScript), Policy: policy(), Word: statusWord(r), Status: r.Status().String(),
		Engine: engineName(r), Verdict: Verdict(r), Facts: facts(r), Provenance: provenance(r)}
	b := pageBuilder{}
	for i, s := range r.Sets {
		p.Sets = append(p.Sets, b.set(i, s, r))
	}
	all := diagnoses(r)
	for _, d := range all[:min(len(all), maxFindings)] {
		p.Findings = append(p.Findings, finding(*d, p.Sets))
	}
	if over := len(all) - maxFindings; over > 0 {
		p.MoreFindings = fmt.Sprintf("And %d more, at their cases below.", over)
	}
	return p
}

// policy allows the page its own style, script and pictures, and nothing else.
func policy() template.HTML {
	sum := sha256.Sum256([]byte(pageScript))
	return template.HTML(fmt.Sprintf(`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-%s'; base-uri 'none'; form-action 'none'">`,
		base64.StdEncoding.EncodeToString(sum[:])))
}

func engineName(r conformance.Run) string {
	name := r.Engine.Name
	if name == "" {
		name = "the engine"
	}
	if r.Engine.Version != "" {
		name += " " + r.Engine.Version
	}
	return name
}

func facts(r conformance.Run) []htmlFact {
	c := r.Coverage()
	passed, total := 0, 0
	for _, s := range r.Sets {
		for _, c := range s.Cases {
			if total++; c.Status() == conformance.Pass {
				passed++
			}
		}
	}
	out := []htmlFact{
		{"judged as", string(r.Class)},
		{"cases that pass", fmt.Sprintf("%d of %d", passed, total)},
		{"nodes checked", fmt.Sprintf("%d of %d", c.Checked, c.Expected)},
	}
	if c.Skipped > 0 {
		out = append(out, htmlFact{"skipped", fmt.Sprint(c.Skipped)})
	}
	if names := conventionNames(r); names != "" {
		out = append(out, htmlFact{"follows another convention", names})
		if r.Status() == conformance.Convention {
			return out
		}
	}
	if _, c := firstWrong(r); c.First != nil {
		out = append(out, htmlFact{"first wrong", short(c.First.Node)})
	}
	return out
}

func provenance(r conformance.Run) []htmlFact {
	out := []htmlFact{{"engine", engineName(r)}, {"declares", declared(r.Engine)}, {"judged as", string(r.Class)}, {"looked at", views(r)}}
	for _, s := range r.Sets {
		if s.Digest != "" {
			out = append(out, htmlFact{"golden set " + s.Name, "weights sha256 " + s.Digest})
		}
	}
	if r.Against != "" {
		out = append(out, htmlFact{"held against", r.Against})
	}
	if r.By.Llavaref != "" {
		out = append(out, htmlFact{"judged by", "llavaref " + r.By.Llavaref})
	}
	if r.By.Machine != "" {
		out = append(out, htmlFact{"machine", r.By.Machine})
	}
	return out
}

// declared is what an engine says of its arithmetic.
func declared(e conformance.Info) string {
	text := fmt.Sprintf("class %s, %s", e.Class, count(int(e.Lanes), "accumulator"))
	if e.Lanes == 0 {
		text = fmt.Sprintf("class %s, no number of accumulators (1 is taken)", e.Class)
	}
	for _, c := range e.Classes {
		text += fmt.Sprintf("; %s: %s", c.Nodes, c.Class)
	}
	return text
}

// pageBuilder makes the sets and cases.
type pageBuilder struct {
	open int // cases that are unfolded so far
}

func (b *pageBuilder) set(at int, s conformance.Set, r conformance.Run) htmlSet {
	out := htmlSet{Name: s.Name, Digest: s.Digest, Reason: s.Reason, Stages: setStages(s), Chosen: count(len(s.Cases), "case")}
	if s.Total > len(s.Cases) {
		out.Chosen = fmt.Sprintf("%d of its %d cases", len(s.Cases), s.Total)
	}
	if len(s.Cases) > 1 {
		out.Chart = setChart(s)
	}
	for i, c := range s.Cases {
		out.Cases = append(out.Cases, b.caseOf(fmt.Sprintf("c%d-%d", at, i), c, r, out.Stages))
	}
	return out
}

// finding is a diagnosis with links to the cases and the node that it is about.
func finding(d diagnosis, sets []htmlSet) htmlFinding {
	f := htmlFinding{Status: d.status.String(), Title: d.title, Lines: d.lines, Causes: htmlCauses(d.causes), Node: d.node != ""}
	for _, at := range d.at {
		if at.of < 0 {
			f.Cases = append(f.Cases, htmlLink{Name: at.name})
			continue
		}
		c := sets[at.set].Cases[at.of]
		f.Cases = append(f.Cases, htmlLink{c.ID, at.name})
		for _, n := range c.Nodes {
			if n.Name == d.node && f.Link == "" {
				f.Link = n.ID
			}
		}
	}
	return f
}

func (b *pageBuilder) caseOf(id string, c conformance.Case, r conformance.Run, names []string) htmlCase {
	out := htmlCase{ID: id, Name: c.Name, Why: c.Why, Status: c.Status().String(), Coverage: coverage(c.Coverage(), r), Causes: htmlCauses(c.Causes)}
	k := c.Coverage()
	out.NodeCount = fmt.Sprintf("%d/%d", k.Checked, k.Expected)
	if c.Reason != "" {
		out.Coverage = c.Reason
	}
	if c.Status() > conformance.Pass && b.open < maxOpenCases {
		b.open++
		out.Open = true
	}
	for _, p := range c.Problems {
		out.Problems = append(out.Problems, htmlProblem{p.Level.String(), problemWord(p.Level), p.Text})
	}
	for _, a := range c.Assumptions {
		out.Assumptions = append(out.Assumptions, assumption(a))
	}
	out.Skips = skips(c)
	out.Cells, out.Stages = stages(id, c, names)
	out.Chart = caseChart(id, c)
	details(&out, c)
	if c.First != nil {
		out.First = &htmlFirst{Word: capital(firstWord(*c.First)), Node: c.First.Node, Explanation: c.First.Explanation}
		for _, n := range out.Nodes {
			if n.Name == c.First.Node {
				out.First.Link = n.ID
			}
		}
	}
	return out
}

// stages makes the cells of the case's line and the tables of its nodes.
func stages(id string, c conformance.Case, names []string) (cells []htmlCell, out []htmlStage) {
	at := 0
	for _, name := range names {
		cell := htmlCell{}
		for _, s := range c.Stages {
			if s.Name != name {
				continue
			}
			r := stageRow(s)
			cell.Text = fmt.Sprintf("%s, %s", ratio(r.drift), ratio(r.local))
			if r.status > conformance.Pass {
				cell.Status = r.status.String()
				cell.Text = fmt.Sprintf("%s: %s", r.status, cell.Text)
			}
			stage := htmlStage{Name: s.Name, Status: r.status.String(), Checked: fmt.Sprintf("%d/%d", r.checked, r.total), Drift: ratio(r.drift), Local: ratio(r.local), Note: short(r.worst)}
			if s.Name == conformance.StageLogits && len(s.Nodes) > 0 {
				stage.Note = tokens(s.Nodes[0])
			}
			for _, n := range s.Nodes {
				k := nodeRow(n)
				stage.Rows = append(stage.Rows, htmlRow{rowID(id, at), k.status.String(), short(n.Name), ratio(k.drift), ratio(k.local), note(n), k.status > conformance.Pass})
				at++
			}
			out = append(out, stage)
		}
		cells = append(cells, cell)
	}
	return cells, out
}

func rowID(id string, at int) string { return fmt.Sprintf("%s-%d", id, at) }

// capital is a phrase as it begins a sentence.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// note is the first thing to say of a node in a line.
func note(n conformance.Node) string {
	if n.Reason != "" {
		return n.Reason
	}
	for _, c := range n.Checks {
		if c.Result > conformance.Pass {
			return fmt.Sprintf("%s: %s", c.View, c.Reason)
		}
	}
	for _, c := range n.Checks {
		if c.Reason != "" {
			return fmt.Sprintf("%s: %s", c.View, c.Reason)
		}
	}
	return ""
}

// details shows in full the first node that diverges and the first ones that fail by themselves.
func details(out *htmlCase, c conformance.Case) {
	own, more := 0, 0
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			first := c.First != nil && c.First.Node == n.Name
			if _, _, follows := n.Convention(); !first && !follows && !wrongByItself(n) {
				continue
			}
			if !first {
				if own++; own > maxNodeDetails {
					more++
					continue
				}
			}
			out.Nodes = append(out.Nodes, detail(fmt.Sprintf("%s-n%d", out.ID, len(out.Nodes)), n))
		}
	}
	if more > 0 {
		out.MoreNodes = fmt.Sprintf("More that are wrong by their own inputs: %s. The tables below have them.", count(more, "node"))
	}
}

func wrongByItself(n conformance.Node) bool {
	return slices.ContainsFunc(n.Checks, func(c conformance.Check) bool {
		return c.Result == conformance.Error || c.Result == conformance.Fail && (c.View == conformance.Local || c.View == conformance.Contract || c.View == conformance.Exact)
	})
}

func detail(id string, n conformance.Node) htmlNode {
	out := htmlNode{ID: id, Name: n.Name, Kind: string(n.Kind), Shape: index(n.Shape)}
	for _, c := range n.Checks {
		switch {
		case c.Result == conformance.Convention && c.Ratio < compare.Worse:
			out.Lines = append(out.Lines, fmt.Sprintf("%s is another convention's, %s times its limit: %s", c.View, ratio(c.Ratio), c.Reason))
		case c.Result == conformance.Fail && c.Ratio < compare.Worse:
			out.Lines = append(out.Lines, fmt.Sprintf("%s fails, %s times its limit: %s", c.View, ratio(c.Ratio), c.Reason))
		case c.Result > conformance.Pass:
			out.Lines = append(out.Lines, fmt.Sprintf("%s: %s", c.View, c.Reason))
		}
		if c.Fits != "" {
			out.Lines = append(out.Lines, fmt.Sprintf("The %s check would pass in class %s.", c.View, c.Fits))
		}
		out.Causes = append(out.Causes, htmlCauses(c.Causes)...)
		for _, l := range c.Limits {
			k := htmlLimit{string(c.View), string(l.Criterion), fmt.Sprintf("%.3g", l.Value), fmt.Sprintf("%.3g", l.Limit), ratio(l.Ratio), "", l.Ratio > 1}
			if len(l.Where) > 0 {
				k.Where = place(l.Where)
			}
			out.Limits = append(out.Limits, k)
		}
		if len(c.Derived) > 0 {
			names := make([]string, len(c.Derived))
			for i, d := range c.Derived {
				names[i] = short(d)
			}
			out.Derived = strings.Join(names, ", ")
		}
		if c.Census != nil {
			out.census(*c.Census)
		}
		if told := where(n, c); told != "" {
			out.Lines = append(out.Lines, told)
		}
	}
	return out
}

func (n *htmlNode) census(c compare.Census) {
	for _, line := range extent(c) {
		n.Lines = append(n.Lines, strings.TrimSpace(line))
	}
	for _, s := range c.Worst {
		n.Worst = append(n.Worst, htmlSite{index(s.Index), fmt.Sprint(s.Got), fmt.Sprint(s.Want), ratio(s.Excess)})
	}
	for _, a := range c.Axes {
		if a.Length > 1 {
			n.Axes = append(n.Axes, htmlAxis{a.Letter, fmt.Sprintf("%.1f %%", 100*a.Share), fmt.Sprintf("%.3g", a.RMS), a.Length, a.Index})
		}
	}
	for _, m := range c.Maps {
		if h, ok := heatMap(m); ok {
			n.Maps = append(n.Maps, h)
		}
	}
	if len(n.Maps) > 0 {
		n.Scale = heatScale()
	}
}

// place is an index with a colon on the axes that a row or a slice runs over: "[:, 17]".
func place(at []int) string {
	words := make([]string, len(at))
	for i, k := range at {
		words[i] = fmt.Sprint(k)
		if k < 0 {
			words[i] = ":"
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func htmlCauses(list []conformance.Cause) []htmlCause {
	var out []htmlCause
	for _, c := range list {
		k := htmlCause{c.ID, c.Text, c.Look, c.Convention, c.Effect, ""}
		if !math.IsNaN(c.Ratio) {
			k.Fit = fmt.Sprintf("With that in the node's place the error is %s of its limit.", ratio(c.Ratio))
		}
		out = append(out, k)
	}
	return out
}
