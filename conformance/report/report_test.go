package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

var update = flag.Bool("update", false, "write the golden outputs anew")

func pass(v conformance.View, ratio float64) conformance.Check {
	return conformance.Check{View: v, Result: conformance.Pass, Ratio: ratio, Limits: []compare.Check{{Criterion: compare.Drifted, Value: ratio * 1e-6, Limit: 1e-6, Ratio: ratio}}}
}

func fail(v conformance.View, ratio float64, reason string) conformance.Check {
	return conformance.Check{View: v, Result: conformance.Fail, Ratio: ratio, Reason: reason}
}

func node(name string, kind shapes.Kind, checks ...conformance.Check) conformance.Node {
	return conformance.Node{Name: name, Kind: kind, Shape: []int{3, 16, 64}, Reach: shapes.Reaches, Checks: checks}
}

// logits are those of a prompt of three tokens.
func logits(drift float64) conformance.Node {
	n := node(shapes.LMHead, shapes.Linear, pass(conformance.Accumulated, drift), pass(conformance.Local, 0.3), conformance.Check{
		View: conformance.Logits, Result: conformance.Pass, Ratio: 0.02, Tokens: map[compare.TokenVerdict]int{compare.Match: 2, compare.NearTie: 1},
		Limits: []compare.Check{{Criterion: compare.KLMean, Value: 2e-12, Limit: 1e-10, Ratio: 0.02}},
	})
	n.Shape = []int{3, 64}
	return n
}

func prefixed(name string) string { return shapes.Projector + "." + name }

func passing() conformance.Run {
	return conformance.Run{
		Engine: conformance.Info{Name: "ref", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 1}}, Class: compare.F32, Views: conformance.Views(),
		By: conformance.Provenance{Llavaref: "v0.3.0, revision 0123456", Machine: "a processor, linux/amd64"},
		Sets: []conformance.Set{{Name: "tiny", Digest: strings.Repeat("0123456789abcdef", 4), Total: 1, Cases: []conformance.Case{{
			Name: "photo", Why: "A photograph.",
			Stages: []conformance.Stage{
				{Name: conformance.StageProjector, Nodes: []conformance.Node{
					node(prefixed("linear_1"), shapes.Linear, pass(conformance.Accumulated, 0.2), pass(conformance.Local, 0.41)),
					node(prefixed("act"), shapes.GELU, pass(conformance.Accumulated, 0), pass(conformance.Local, 0)),
				}},
				{Name: conformance.StageLogits, Nodes: []conformance.Node{logits(0.12)}},
			},
		}}}},
	}
}

// failing has one of everything that can go wrong, and a name from outside that no format may stumble over.
func failing() conformance.Run {
	wrong := fail(conformance.Local, 6.3e4, "bound 0.0156, limit 2.48e-07, at [1, 3, 4]")
	wrong.Fits = compare.BF16
	axis := compare.Axis{Letter: "C", Length: 64, Index: 4, RMS: 0.003, Share: 0.97}
	wrong.Census = &compare.Census{
		Entries: 3072, Bad: 48, NaN: 1, Worst: []compare.Site{{Index: []int{1, 3, 4}, Want: -0.0649, Got: -0.0805, Excess: 6.3e4}, {Index: []int{0, 3, 4}, Want: 1, Got: float32(math.NaN()), Excess: compare.Worse}},
		Axes: []compare.Axis{axis}, Narrowest: &axis,
		Maps: []compare.Map{{Rows: compare.Span{Letter: "S", Length: 4, Cells: 2}, Cols: compare.Span{Letter: "C", Length: 64, Cells: 3}, Excess: []float32{0, 0.5, 0, math.MaxFloat32, 6.3e4, 0}}},
	}
	wrong.Where = &compare.Slice{Text: "tile 1, there channels 4 to 7", Bad: 47, Size: 60, AllBad: 48, All: 3072}
	wrong.Causes = []conformance.Cause{
		{ID: "J01", Text: "the activation is GELU by tanh, not by erf", Look: "the projector's activation <b>", Ratio: 0.4},
		{ID: "P23", Text: "the vertical pass comes first", Ratio: 0.9, Convention: "Pillow 13"},
	}
	wrong.Limits = []compare.Check{{Criterion: compare.Bound, Value: math.Inf(1), Limit: 2.48e-7, Ratio: compare.Worse, Where: []int{1, 3, 4}}}
	skipped := node(prefixed("linear_1"), shapes.Linear)
	skipped.Reason = "the engine does not expose it"
	r := conformance.Run{
		Engine: conformance.Info{Name: "other", Version: "1.2", Arithmetic: compare.Arithmetic{Class: compare.F32}}, Class: compare.BF16, Views: conformance.Views(),
		Sets: []conformance.Set{{Name: "tiny", Digest: strings.Repeat("f", 64), Total: 3, Cases: []conformance.Case{
			{
				Name: "photo", Why: "A photograph.",
				First: &conformance.Divergence{Node: prefixed("act"), View: conformance.Local, Explanation: "local fails: this node is wrong, given its own inputs"},
				Stages: []conformance.Stage{
					{Name: conformance.StageProjector, Nodes: []conformance.Node{
						skipped,
						node(prefixed("act"), shapes.GELU, fail(conformance.Accumulated, 1.4e4, "drift 0.0104, limit 7.36e-07"), wrong),
						node(prefixed("linear_2"), shapes.Linear, fail(conformance.Accumulated, 120, "row drift 0.01, limit 8.3e-05, at [0, 3, :]"),
							conformance.Check{View: conformance.Local, Reason: "its input x is not exposed, and cannot be told from what is"}),
					}},
					{Name: conformance.StagePacking, Nodes: []conformance.Node{node(shapes.NodePack, shapes.PackImageFeatures, fail(conformance.Accumulated, 99.4, "drift 0.01, limit 0.0001"), pass(conformance.Local, 0))}},
					{Name: conformance.StageLogits, Nodes: []conformance.Node{logits(0.99)}},
				},
			},
			{
				Name: "shape", Why: "A wrong shape.",
				First:    &conformance.Divergence{Node: shapes.NodeMerge, View: conformance.Contract, Explanation: "this is not the node's tensor: shape [1], want [T, C] = [3 64]"},
				Problems: []conformance.Problem{{Level: conformance.Skip, Text: "not judged, since the model has no node of these names: <a> & \"b\" ]]>"}},
				Stages: []conformance.Stage{{Name: conformance.StageMerge, Nodes: []conformance.Node{
					node(shapes.NodeMerge, shapes.MergeEmbeddings, fail(conformance.Contract, compare.Worse, "shape [1], want [T, C] = [3 64]")),
				}}},
			},
		}}},
	}
	return r
}

func broken() conformance.Run {
	r := failing()
	r.Sets[0].Cases = append(r.Sets[0].Cases, conformance.Case{
		Name: "text", Why: "No image.", Problems: []conformance.Problem{{Level: conformance.Error, Text: "the engine panicked: index out of range (main.run, line 7)"}},
		Stages: []conformance.Stage{{Name: conformance.StageLogits, Nodes: []conformance.Node{{Name: shapes.LMHead, Kind: shapes.Linear, Shape: []int{3, 64}, Reach: shapes.Reaches, Reason: "the engine does not expose it"}}}},
	})
	r.Sets = append(r.Sets, conformance.Set{Name: "wide", Digest: strings.Repeat("e", 64), Reason: "the engine could not be opened: no device"})
	return r
}

// other follows another convention: one node does, what stands behind it is off for it, and of one node that cannot be told.
func other() conformance.Run {
	r := passing()
	r.Engine.Name, r.Allowed = "other", []string{"nobody's"}
	packs := fail(conformance.Contract, compare.Worse, "shape [1176 64], want [R, C] = [2352 64]")
	packs.Result = conformance.Convention
	packs.Causes = []conformance.Cause{
		{ID: "P01", Text: "the pinpoints are <read> as (width, height)", Look: "the canvas", Convention: "the original LLaVA's canvas", Effect: "1176 image tokens for 2352", Rows: []int{1176}},
		{ID: "P03", Text: "the later canvas", Look: "the first stands"},
	}
	drifts := fail(conformance.Accumulated, 120, "drift 0.01, limit 8.3e-05")
	drifts.Result, drifts.Behind = conformance.Convention, shapes.NodePack
	untold := node(shapes.NodeMerge, shapes.MergeEmbeddings, conformance.Check{View: conformance.Accumulated, Behind: shapes.NodePack, Reason: "cannot be told"})
	untold.Reason = "cannot be told"
	c := &r.Sets[0].Cases[0]
	c.First = &conformance.Divergence{Node: shapes.NodePack, View: conformance.Contract, Explanation: "this node follows another published rule: the original LLaVA's canvas"}
	c.Stages = slices.Insert(c.Stages, 1,
		conformance.Stage{Name: conformance.StagePacking, Nodes: []conformance.Node{node(shapes.NodePack, shapes.PackImageFeatures, packs)}},
		conformance.Stage{Name: conformance.StageMerge, Nodes: []conformance.Node{untold}},
		conformance.Stage{Name: conformance.StageDecoder, Nodes: []conformance.Node{node(shapes.TextModel+".norm", shapes.RMSNorm, drifts, pass(conformance.Local, 0.3))}},
	)
	return r
}

// otherAndWrong is other with a bug beside the convention.
func otherAndWrong() conformance.Run {
	r := other()
	c := &r.Sets[0].Cases[0]
	act := &c.Stages[0].Nodes[1]
	act.Checks[1] = fail(conformance.Local, 300, "bound 0.1, limit 1e-07, at [0, 0, 0]")
	c.First = &conformance.Divergence{Node: act.Name, View: conformance.Local, Explanation: "local fails: this node is wrong, given its own inputs"}
	return r
}

// allowedOther is other where its convention is allowed.
func allowedOther() conformance.Run {
	r := other()
	r.Allowed = []string{"P01"}
	return r
}

var runs = map[string]func() conformance.Run{"passing": passing, "failing": failing, "broken": broken, "convention": other, "convention-and-bug": otherAndWrong, "convention-allowed": allowedOther}

var formats = map[string]func(io.Writer, conformance.Run) error{
	"txt":         func(w io.Writer, r conformance.Run) error { return Text(w, r, false) },
	"verbose.txt": func(w io.Writer, r conformance.Run) error { return Text(w, r, true) },
	"json":        JSON,
	"xml":         JUnit,
	"md":          Markdown,
	"html":        htmlWithoutPictures,
	"github":      func(w io.Writer, r conformance.Run) error { return GitHub(w, r, "src/model, v2.cpp") },
	"badge.json":  Badge,
	"levels.json": Levels,
}

// htmlWithoutPictures leaves the bytes of the pictures out: they are those of Go's compressor.
func htmlWithoutPictures(w io.Writer, r conformance.Run) error {
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		return err
	}
	_, err := w.Write(regexp.MustCompile(`data:image/png;base64,[^"]*`).ReplaceAll(b.Bytes(), []byte("data:image/png")))
	return err
}

// Of two cases, the first of which only follows another convention, the second is what the verdict is about.
func TestTheFirstThatIsWrongIsNoConvention(t *testing.T) {
	r, wrong := other(), otherAndWrong()
	c := wrong.Sets[0].Cases[0]
	c.Name = "second"
	r.Sets[0].Cases = append(r.Sets[0].Cases[:1:1], c)
	if text := Verdict(r); !strings.HasPrefix(text, "not conformant: ") || !strings.HasSuffix(text, "First at "+c.First.Node+", in "+r.Sets[0].Name+"/second.") {
		t.Errorf("%s", text)
	}
	var page bytes.Buffer
	if err := HTML(&page, r); err != nil {
		t.Fatal(err)
	}
	if want := "<dt>first wrong</dt><dd>" + short(c.First.Node) + "</dd>"; !strings.Contains(page.String(), want) {
		t.Errorf("the page does not say %s", want)
	}
}

func TestOutputs(t *testing.T) {
	for name, make := range runs {
		for ext, render := range formats {
			t.Run(name+"."+ext, func(t *testing.T) {
				var b bytes.Buffer
				if err := render(&b, make()); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", name+"."+ext)
				if *update {
					if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), b.String()); diff != "" {
					t.Errorf("output changed (-update writes it anew):\n%s", diff)
				}
			})
		}
	}
}

// A dump that cannot be opened does not say what it is, and nothing may be said of its class or its accumulators.
func TestWhatCouldNotBeOpenedIsNotJudged(t *testing.T) {
	for class, want := range map[compare.Class]string{"": "the engine, not judged", compare.F16: "the engine, not judged"} {
		if got := engine(conformance.Run{Class: class}); got != want {
			t.Errorf("class %q: %s, want %s", class, got, want)
		}
	}
	if got, want := engine(passing()), "judged as f32"; !strings.Contains(got, want) {
		t.Errorf("%s, want %s in it", got, want)
	}
}

func TestVerdictsSayTheStatus(t *testing.T) {
	for want, make := range map[string]func() conformance.Run{
		"conformant: ref holds as f32 in 1 case of 1 set, 3 of 3 nodes checked.":                                                                                                                                                        passing,
		"not conformant: other fails as bf16 in 2 of 2 cases, 5 of 6 nodes checked, 1 skipped. First at multi_modal_projector.act, in tiny/photo.":                                                                                      failing,
		"could not test: tiny/text: the engine panicked: index out of range (main.run, line 7). Besides, it fails in 2 of 3 cases. First at multi_modal_projector.act, in tiny/photo.":                                                  broken,
		"other convention: the original LLaVA's canvas. other follows it as f32 in 1 of 1 case, 5 of 6 nodes checked, 1 skipped, 1 of them because it stands behind it. In tiny/photo: 1176 image tokens for 2352.":                     other,
		"other convention: the original LLaVA's canvas. other follows it as f32 in 1 of 1 case, 5 of 6 nodes checked, 1 skipped, 1 of them because it stands behind it. In tiny/photo: 1176 image tokens for 2352. It is allowed here.": allowedOther,
		"not conformant: other fails as f32 in 1 of 1 case, 5 of 6 nodes checked, 1 skipped. First at multi_modal_projector.act, in tiny/photo.":                                                                                        otherAndWrong,
		"could not test: no case was run.": func() conformance.Run { return conformance.Run{} },
	} {
		if got := Verdict(make()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestTextFitsATerminal(t *testing.T) {
	long := passing()
	name := "encoder.layers.23.self_attn.out_proj"
	long.Sets[0].Cases[0].Stages[0].Nodes[0].Name = shapes.VisionTower + "." + name
	long.Sets[0].Cases[0].Stages[0].Nodes[0].Checks[0].Ratio = 1.2345e-7
	for _, r := range []conformance.Run{long, failing(), broken()} {
		for _, verbose := range []bool{false, true} {
			var b bytes.Buffer
			if err := Text(&b, r, verbose); err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(b.String(), "\n") {
				if n := utf8.RuneCountInString(line); n > 100 && regexp.MustCompile(`[0-9] +[0-9.-]+ +\S+$`).MatchString(line) {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		}
	}
}

func TestXMLAndJSONAreWellFormed(t *testing.T) {
	for name, make := range runs {
		var x, j bytes.Buffer
		if err := JUnit(&x, make()); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(&x)
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := JSON(&j, make()); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(j.Bytes()) {
			t.Errorf("%s: no JSON", name)
		}
	}
}

// TestTheSchemaIsDocumented holds docs/result-format.md to every key that the JSON has.
func TestTheSchemaIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "result-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, make := range runs {
		if err := JSON(&b, make()); err != nil {
			t.Fatal(err)
		}
	}
	keys := map[string]bool{}
	for _, m := range regexp.MustCompile(`"([a-z0-9_]+)":`).FindAllStringSubmatch(b.String(), -1) {
		keys[m[1]] = true
	}
	if len(keys) < 40 {
		t.Fatalf("%d keys in the JSON of a run with everything in it, want at least 40", len(keys))
	}
	for key := range keys {
		if !bytes.Contains(text, []byte("`"+key+"`")) {
			t.Errorf("docs/result-format.md does not say what %q is", key)
		}
	}
}

func TestDrawingsAreWellFormedAndStable(t *testing.T) {
	draw := map[string]func(io.Writer) error{
		"strip of a passing run": func(w io.Writer) error { return SVG(w, passing()) },
		"strip of a failing run": func(w io.Writer) error { return SVG(w, failing()) },
		"strip of a broken run":  func(w io.Writer) error { return SVG(w, broken()) },
		"strip of nothing":       func(w io.Writer) error { return SVG(w, conformance.Run{}) },
	}
	for _, model := range shapes.ModelNames() {
		c, err := shapes.Model(model)
		if err != nil {
			t.Fatal(err)
		}
		draw["graph of "+model] = func(w io.Writer) error { return GraphSVG(w, c) }
	}
	for name, render := range draw {
		t.Run(name, func(t *testing.T) {
			var a, b bytes.Buffer
			if err := render(&a); err != nil {
				t.Fatal(err)
			}
			if err := render(&b); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Error("two drawings of one thing differ")
			}
			if bad := regexp.MustCompile(`NaN|Inf|#-[^"]*`).Find(a.Bytes()); bad != nil {
				t.Errorf("%q is neither a coordinate nor a colour", bad)
			}
			d := xml.NewDecoder(&a)
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestTheGraphIsDrawnWhole holds the drawing to one box for each node outside of layers and in the first layer, and to their edges.
func TestTheGraphIsDrawnWhole(t *testing.T) {
	for _, model := range []string{"llava-1.6-llama3-8b", "llava-1.5-7b"} {
		c, err := shapes.Model(model)
		if err != nil {
			t.Fatal(err)
		}
		d := newDrawing(c)
		d.place()
		for _, n := range d.nodes {
			if d.byName[n.Name] == nil {
				t.Errorf("%s: no box for %s", model, n.Name)
			}
			for _, in := range n.Inputs {
				if d.byName[in] == nil {
					t.Errorf("%s: %s reads %s, which has no box", model, n.Name, in)
				}
			}
		}
		for i, a := range d.boxes {
			for _, b := range d.boxes[i+1:] {
				if a.left() < b.right() && b.left() < a.right() && a.top() < b.bottom() && b.top() < a.bottom() {
					t.Errorf("%s: the boxes of %s and %s overlap", model, a.name, b.name)
				}
			}
		}
	}
}

func TestDOTHasEveryNodeAndEdge(t *testing.T) {
	c, err := shapes.Model("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := GraphDOT(&b, c); err != nil {
		t.Fatal(err)
	}
	edges := 0
	for _, n := range shapes.Nodes(c) {
		edges += len(n.Inputs)
		if !strings.Contains(b.String(), `"`+n.Name+`" [label=`) {
			t.Errorf("no node %s", n.Name)
		}
	}
	if got := strings.Count(b.String(), " -> "); got != edges {
		t.Errorf("%d edges, want %d", got, edges)
	}
}

func TestRatiosAreShort(t *testing.T) {
	for x, want := range map[float64]string{-1: "-", 0: "0", 1e-9: "0.00", 0.211: "0.21", 1: "1.00", 99.7: "99.7", 123.4: "123", 4.9e5: "4.9e+05", compare.Worse: "off"} {
		if got := ratio(x); got != want {
			t.Errorf("%v: %q, want %q", x, got, want)
		}
	}
}
