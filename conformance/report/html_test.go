package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

func render(t *testing.T, r conformance.Run) string {
	t.Helper()
	var a, b bytes.Buffer
	if err := HTML(&a, r); err != nil {
		t.Fatal(err)
	}
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two pages of one result differ")
	}
	return a.String()
}

// hostile has markup and quotes in everything that comes from outside.
func hostile() conformance.Run {
	const evil = `"'><script>alert(1)</script><img src=x onerror=alert(1)>` + "`{{.}} javascript:alert(1) </style> \x00\xff\n"
	r := broken()
	r.Engine.Name, r.Engine.Version = evil, evil
	r.Engine.Classes = []conformance.NodeClass{{Nodes: evil, Class: compare.BF16}}
	r.By = conformance.Provenance{Llavaref: evil, Machine: evil}
	for i := range r.Sets {
		s := &r.Sets[i]
		s.Name, s.Digest = evil, evil
		for k := range s.Cases {
			c := &s.Cases[k]
			c.Name, c.Why = evil, evil
			c.Problems = append(c.Problems, conformance.Problem{Level: conformance.Error, Text: evil})
			c.Causes = []conformance.Cause{{ID: evil, Text: evil, Look: evil, Convention: evil}}
			c.Assumptions = []conformance.Assumption{{Nodes: evil, Class: evil}}
			if c.First != nil {
				c.First.Explanation = evil
			}
			for _, stage := range c.Stages {
				for n := range stage.Nodes {
					node := &stage.Nodes[n]
					if c.First != nil && c.First.Node == node.Name {
						c.First.Node = evil
					}
					node.Name, node.Reason = evil, evil
					for i := range node.Checks {
						node.Checks[i].Reason, node.Checks[i].Derived, node.Checks[i].Fits = evil, []string{evil}, evil
					}
				}
			}
		}
	}
	return r
}

func TestAPageHasNoMarkupFromOutside(t *testing.T) {
	text := render(t, hostile())
	if n := strings.Count(text, "alert(1)"); n < 30 {
		t.Errorf("the names come %d times, want them all", n)
	}
	body := strings.Replace(text, pageScript, "", 1)
	if n := strings.Count(strings.ToLower(body), "<script"); n != 1 {
		t.Errorf("%d scripts, want one", n)
	}
	tags := regexp.MustCompile(`<[a-zA-Z][^>]*>`)
	for _, tag := range tags.FindAllString(strings.Replace(body, pageStyle, "", 1), -1) {
		if strings.Contains(tag, "alert") && !regexp.MustCompile(`^<svg [^>]* aria-label="[^"<]*">$`).MatchString(tag) {
			t.Errorf("a name from outside stands in a tag: %s", tag)
		}
		if regexp.MustCompile(`(?i)\son[a-z]+=|javascript:`).MatchString(strings.ReplaceAll(tag, "aria-label", "")) && !strings.Contains(tag, "aria-label") {
			t.Errorf("a handler in a tag: %s", tag)
		}
	}
}

func TestAPageNeedsNothingElse(t *testing.T) {
	for name, make := range runs {
		text := render(t, make())
		for _, bad := range []string{"http://", "https://", "@import", "url(", "<link", "<iframe", "ZgotmplZ"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: the page has %q", name, bad)
			}
		}
		script := regexp.MustCompile(`(?s)<script>(.*)</script>`).FindStringSubmatch(text)
		if script == nil {
			t.Fatalf("%s: no script", name)
		}
		sum := sha256.Sum256([]byte(script[1]))
		if want := "script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(text, want) {
			t.Errorf("%s: the policy does not allow the page's own script: want %s", name, want)
		}
	}
}

// TestAPageIsWellFormed: every element is closed, no id comes twice, and every link leads somewhere.
func TestAPageIsWellFormed(t *testing.T) {
	all := map[string]func() conformance.Run{"hostile": hostile, "nothing": func() conformance.Run { return conformance.Run{} }}
	for name, make := range runs {
		all[name] = make
	}
	for name, make := range all {
		t.Run(name, func(t *testing.T) {
			text := render(t, make())
			text = strings.Replace(strings.Replace(text, pageScript, "", 1), pageStyle, "", 1)
			d := xml.NewDecoder(strings.NewReader(strings.NewReplacer("\x00", "", "\xff", "", "<!doctype html>", "").Replace(text)))
			d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
			ids, links := map[string]bool{}, []string{}
			var open []string
			for {
				token, err := d.Token()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				switch e := token.(type) {
				case xml.StartElement:
					open = append(open, e.Name.Local)
					for _, a := range e.Attr {
						switch {
						case a.Name.Local == "id" && ids[a.Value]:
							t.Errorf("id %q comes twice", a.Value)
						case a.Name.Local == "id":
							ids[a.Value] = true
						case a.Name.Local == "href":
							links = append(links, strings.TrimPrefix(a.Value, "#"))
						}
					}
				case xml.EndElement:
					if len(open) == 0 || open[len(open)-1] != e.Name.Local {
						t.Fatalf("</%s> closes %v", e.Name.Local, open)
					}
					open = open[:len(open)-1]
				}
			}
			for _, l := range links {
				if !ids[l] {
					t.Errorf("a link leads to %q, which is not there", l)
				}
			}
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
		})
	}
}

func TestAPageSaysTheMainThings(t *testing.T) {
	text := render(t, failing())
	for _, want := range []string{
		"other 1.2", "not conformant", "multi_modal_projector.act", "first: act", "local fails: this node is wrong, given its own inputs",
		"the activation is GELU by tanh, not by erf", "J01", "the projector&#39;s activation &lt;b&gt;", "other convention: Pillow 13",
		"48 of 3072 entries are off", "97 % of the difference is at C = 4", "[1, 3, 4]", "S down, 0 to 3; C across, 0 to 63; worst at S = 2 to 3, C = 0 to 21.",
		"2 of its 3 cases", strings.Repeat("f", 64), "v0.3.0, revision 0123456", "a processor, linux/amd64", "the engine does not expose it: multi_modal_projector.linear_1",
	} {
		if want == "v0.3.0, revision 0123456" || want == "a processor, linux/amd64" {
			if !strings.Contains(render(t, passing()), want) {
				t.Errorf("the page of a passing run does not say %q", want)
			}
			continue
		}
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(render(t, passing()), "What is wrong") {
		t.Error("the page of a passing run says what is wrong")
	}
}

// wrongEverywhere is as large as a result of the embedded sets gets: every node of 13 prompts fails, by its own inputs too.
func wrongEverywhere(t *testing.T) conformance.Run {
	config, err := shapes.Model("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	r := failing()
	template := r.Sets[0].Cases[0].Stages[0].Nodes[1].Checks
	heat := compare.Map{Rows: compare.Span{Letter: "S", Length: 577, Cells: 40}, Cols: compare.Span{Letter: "D", Length: 1024, Cells: 64}, Excess: make([]float32, 40*64)}
	for i := range heat.Excess {
		heat.Excess[i] = float32(math.Exp(float64(i*7919%23) - 5))
	}
	census := *template[1].Census
	census.Maps = []compare.Map{heat, heat, heat}
	for range 12 {
		c := r.Sets[0].Cases[0]
		c.Name = fmt.Sprintf("case %d", len(r.Sets[0].Cases))
		c.Stages = nil
		for _, name := range conformance.Stages() {
			stage := conformance.Stage{Name: name}
			for _, n := range shapes.Nodes(config) {
				if conformance.StageOf(n.Name) != name {
					continue
				}
				checks := []conformance.Check{template[0], template[1]}
				checks[1].Census = &census
				stage.Nodes = append(stage.Nodes, conformance.Node{Name: n.Name, Kind: n.Kind, Shape: []int{5, 577, 1024}, Reach: n.Reach, Checks: checks})
			}
			c.Stages = append(c.Stages, stage)
		}
		r.Sets[0].Cases = append(r.Sets[0].Cases, c)
	}
	return r
}

func TestAPageOfAnEngineThatIsWrongEverywhereCanBeOpened(t *testing.T) {
	text := render(t, wrongEverywhere(t))
	t.Logf("%d bytes", len(text))
	if len(text) > 5e6 {
		t.Errorf("%d bytes, want at most 5 MB", len(text))
	}
	if n := strings.Count(text, "<h4>"); n > 14*(maxNodeDetails+1) {
		t.Errorf("%d nodes in full, want at most %d a case", n, maxNodeDetails+1)
	}
}

func TestHeatMapsHaveTheColourOfTheirExcess(t *testing.T) {
	m := compare.Map{Rows: compare.Span{Letter: "T", Length: 2, Cells: 2}, Cols: compare.Span{Letter: "C", Length: 3, Cells: 3},
		Excess: []float32{0, 0.5, 2, 50, math.MaxFloat32, float32(math.NaN())}}
	h, ok := heatMap(m)
	if !ok {
		t.Fatal("no picture")
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(h.Image), "data:image/png;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"", "within rounding", "to 3 times", "to 100", "NaN, infinite or masked", "NaN, infinite or masked"} {
		r, g, b, a := img.At(i%3, i/3).RGBA()
		want := heatSteps[0]
		for _, s := range heatSteps {
			if text != "" && s.text == text {
				want = s
			}
		}
		if wr, wg, wb, wa := want.colour.RGBA(); r != wr || g != wg || b != wb || a != wa {
			t.Errorf("cell %d: colour %d %d %d %d, want that of %q", i, r, g, b, a, text)
		}
	}
	m.Excess = m.Excess[1:]
	if _, ok := heatMap(m); ok {
		t.Error("a map without all of its cells was drawn")
	}
}

func TestChartsMarkTheFirstDivergingNode(t *testing.T) {
	c := caseChart("c", failing().Sets[0].Cases[0])
	if c.First == nil || c.First.Text != "act" || c.First.X != "1.5" || c.First.Side != "left" {
		t.Errorf("%+v, want act in the middle of node 1", c.First)
	}
	if c.Width != 5 || c.LimitY != coordinate(height(1)) || !strings.HasPrefix(c.Wrong, "M1.5 0h") {
		t.Errorf("width %d, limit at %s, wrong %q", c.Width, c.LimitY, c.Wrong)
	}
	if strings.Contains(c.Drift, "M0.5") || !strings.HasPrefix(c.Drift, "M1.5 0L2.5 ") {
		t.Errorf("drift %q: the first node has none, and the second is above the scale", c.Drift)
	}
}
