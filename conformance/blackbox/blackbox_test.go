package blackbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// The small set of enginetest: the search runs the model some hundred times.
func target() conformance.Target { return enginetest.Target() }

// write gives a distribution file of some rows of logits, whole or the most probable k.
func write(t *testing.T, set, name string, tokens int, logits shapes.Tensor, last, top int) string {
	t.Helper()
	p := filePrompt{Set: set, Case: name, Tokens: tokens}
	for i := logits.Rows() - last; i < logits.Rows(); i++ {
		row := logits.Row(i)
		if top == 0 {
			p.Logits = append(p.Logits, row)
			continue
		}
		ids := make([]int, len(row))
		for j := range ids {
			ids[j] = j
		}
		sort.Slice(ids, func(a, b int) bool { return row[ids[a]] > row[ids[b]] })
		norm := compare.LogSumExp(row)
		var list []fileTop
		for _, id := range ids[:top] {
			list = append(list, fileTop{id, math.Round((float64(row[id])-norm)*1e5) / 1e5})
		}
		p.Top = append(p.Top, list)
	}
	f := file{Format: 1, Engine: fileEngine{Name: "box", Class: "f32", Lanes: 16}, Prompts: []filePrompt{p}}
	if top > 0 {
		f.Resolution = 5e-6
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.json")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func judge(t *testing.T, tg conformance.Target, path string) Result {
	t.Helper()
	o, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Judge(context.Background(), o, []conformance.Target{tg}, func(string) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Text(&out, r); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	return r
}

// planted is the reference itself with another configuration or other weights: it shares no code with the catalogue.
func planted(t *testing.T, tg conformance.Target, name string, c func(*shapes.Config), w shapes.Weights, in func(*shapes.Inputs)) shapes.Tensor {
	t.Helper()
	truth, err := tg.Set.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	config, prompt := tg.Set.Config, truth.Inputs
	if c != nil {
		c(&config)
	}
	if in != nil {
		in(&prompt)
	}
	if w == nil {
		w = tg.Weights
	}
	y, err := ref.New(config, w).Forward(prompt, nil)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

func TestABugIsNamedByTheLogitsAlone(t *testing.T) {
	tg := target()
	const name = "image"
	for _, c := range []struct {
		what      string
		logits    shapes.Tensor
		last, top int
		id        string
	}{
		{"vision_feature_layer -1", planted(t, tg, name, func(c *shapes.Config) { c.VisionFeatureLayer = -1 }, nil, nil), 5, 0, "C04"},
		{"rope_theta 10000, the ten most probable tokens of two positions", planted(t, tg, name, func(c *shapes.Config) { c.Text.RopeTheta = 10000 }, nil, nil), 2, 10, "C01"},
		{"a bug in a pair", pair(t, tg, name), 3, 0, "J01"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := judge(t, tg, write(t, "mini", name, c.logits.Rows(), c.logits, c.last, c.top))
			if r.Status() != conformance.Fail || r.Search == nil || !r.Search.Matched || len(r.Search.Nearest) == 0 {
				t.Fatalf("%v, want a match", r.Status())
			}
			if best := r.Search.Nearest[0]; !slices.Contains(best.IDs, c.id) || best.Distance*10 > r.Search.Right {
				t.Errorf("%v at %g, the right model at %g, want %s", best.IDs, best.Distance, r.Search.Right, c.id)
			}
			for _, m := range r.Search.Nearest { // nothing else fits, but for what is the same bug by another name
				if m.Distance <= r.Search.Limit && !slices.Contains(m.IDs, c.id) && !(c.id == "C04" && slices.Equal(m.IDs, []string{"C06"})) {
					t.Errorf("%v fits too, at %g", m.IDs, m.Distance)
				}
			}
		})
	}
}

// pair is a model with two bugs.
func pair(t *testing.T, tg conformance.Target, name string) shapes.Tensor {
	truth, err := tg.Set.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := diagnose.NewModel(tg.Set.Config, tg.Weights, truth.Inputs, compare.F32)
	if err != nil {
		t.Fatal(err)
	}
	var bugs []diagnose.Bug
	for _, b := range diagnose.Catalogue() {
		if b.Key() == "J01/GELU with tanh" || b.Key() == "K24" {
			bugs = append(bugs, b)
		}
	}
	y, err := m.Logits(bugs...)
	if err != nil || len(bugs) != 2 {
		t.Fatal(err, len(bugs))
	}
	return y
}

func TestARightEngineIsConformantAndNothingIsSearched(t *testing.T) {
	tg := target()
	y := planted(t, tg, "text", nil, nil, nil)
	for _, k := range [][2]int{{y.Rows(), 0}, {1, 0}, {3, 20}} {
		r := judge(t, tg, write(t, "mini", "text", y.Rows(), y, k[0], k[1]))
		if r.Status() != conformance.Pass || r.Search != nil {
			t.Errorf("%v: %v", k, r.Status())
		}
	}
}

func TestWhatIsNoKnownBugIsNotNamed(t *testing.T) {
	tg := target()
	y := planted(t, tg, "text", nil, nil, func(in *shapes.Inputs) { in.InputIDs = slices.Clone(in.InputIDs); in.InputIDs[3]++ })
	r := judge(t, tg, write(t, "mini", "text", y.Rows(), y, 4, 0))
	if r.Status() != conformance.Fail || r.Search == nil || r.Search.Matched {
		t.Errorf("%+v", r)
	}
}

func TestTheNumberOfTokensTellsOfThePacking(t *testing.T) {
	tg := target()
	truth, err := tg.Set.Case("image")
	if err != nil {
		t.Fatal(err)
	}
	m, err := diagnose.NewModel(tg.Set.Config, tg.Weights, truth.Inputs, compare.F32)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range diagnose.Catalogue() {
		if b.Key() != "K01" {
			continue
		}
		y, err := m.Logits(b)
		if err != nil || y.Rows() >= len(truth.Inputs.InputIDs) {
			t.Fatalf("%v: %d tokens without newlines, want fewer than %d", err, y.Rows(), len(truth.Inputs.InputIDs))
		}
		r := judge(t, tg, write(t, "mini", truth.Name, y.Rows(), y, 4, 0))
		if r.Search == nil || !r.Search.Matched || !slices.Contains(r.Search.Nearest[0].IDs, "K01") {
			t.Errorf("%+v", r.Search)
		}
	}
}

// The prompt of an engine that counts the class token has one image token less than there are rows; it loses the last one.
func TestAMiscountOfImageTokensIsNamed(t *testing.T) {
	tg := target()
	truth, err := tg.Set.Case("image")
	if err != nil {
		t.Fatal(err)
	}
	in := truth.Inputs
	last := len(in.InputIDs) - 1
	for in.InputIDs[last] != tg.Set.Config.ImageTokenID {
		last--
	}
	in.InputIDs = slices.Delete(slices.Clone(in.InputIDs), last, last+1)
	in.PositionIDs = in.PositionIDs[:len(in.InputIDs)]
	y, err := enginetest.WithRows(tg.Set.Config, tg.Weights, truth.Inputs, in, func(y shapes.Tensor) shapes.Tensor {
		rows := y.Rows() - 1
		return shapes.Tensor{Shape: []int{rows, y.Cols()}, Data: y.Data[:rows*y.Cols()]}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tokens := range []int{y.Rows(), 0} { // said, and not
		r := judge(t, tg, write(t, "mini", truth.Name, tokens, y, 4, 0))
		if r.Search == nil || !r.Search.Matched || !slices.ContainsFunc(r.Search.Nearest, func(m Match) bool { // K05 gives the same: the last row is a newline
			return m.Keys[0] == "K19/one less" && m.Distance <= r.Search.Limit
		}) {
			t.Errorf("%d tokens: %+v", tokens, r.Search)
		}
	}
}

func TestBrokenFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"not json":              "{",
		"another format":        `{"format":2,"prompts":[{"case":"text","logits":[[1]]}]}`,
		"an unknown key":        `{"format":1,"prompts":[{"case":"text","logits":[[1]],"x":1}]}`,
		"a word for a number":   `{"format":1,"prompts":[{"case":"text","tokens":"9","logits":[[1]]}]}`,
		"a list":                `[1]`,
		"nothing":               `{"format":1,"prompts":[]}`,
		"both":                  `{"format":1,"prompts":[{"case":"text","logits":[[1]],"top":[[{"id":1,"logprob":-1}]]}]}`,
		"positive":              `{"format":1,"prompts":[{"case":"text","top":[[{"id":1,"logprob":0.5}]]}]}`,
		"no case":               `{"format":1,"prompts":[{"logits":[[1]]}]}`,
		"a class":               `{"format":1,"engine":{"class":"fp8"},"prompts":[{"case":"text","logits":[[1]]}]}`,
		"negative tokens":       `{"format":1,"prompts":[{"case":"text","tokens":-1,"logits":[[1]]}]}`,
		"more rows than tokens": `{"format":1,"prompts":[{"case":"text","tokens":1,"logits":[[1],[1]]}]}`,
		"resolution":            `{"format":1,"resolution":2,"prompts":[{"case":"text","logits":[[1]]}]}`,
		"two documents":         `{"format":1,"prompts":[{"case":"text","logits":[[1]]}]} {}`,
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".json")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %v, want an error, and not in Go's words", name, err)
		}
	}
	for name, content := range map[string]string{"x.npy": "not an array", "x.npz": "PK no archive", "x.bin": "1"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

// Files that are well-formed and wrong are errors or failures, never passes and never panics.
func TestOddLogitsDoNotPass(t *testing.T) {
	tg := target()
	v := tg.Set.Config.Text.VocabSize
	for name, p := range map[string]Prompt{
		"NaN":                {Case: "text", Rows: []Row{{Logits: slices.Repeat([]float32{float32(math.NaN())}, v)}}},
		"infinite":           {Case: "text", Rows: []Row{{Logits: slices.Repeat([]float32{float32(math.Inf(1))}, v)}}},
		"another vocabulary": {Case: "text", Rows: []Row{{Logits: make([]float32, v+1)}}},
		"a token beyond":     {Case: "text", Rows: []Row{{IDs: []int{v}, Log: []float64{-1}}}},
		"no rows":            {Case: "text"},
		"no such case":       {Case: "other", Rows: []Row{{Logits: make([]float32, v)}}},
		"too many rows":      {Case: "text", Rows: slices.Repeat([]Row{{Logits: make([]float32, v)}}, 100)},
	} {
		o := Output{Info: conformance.Info{Name: "box", Arithmetic: compare.Arithmetic{Class: compare.F32}}, Prompts: []Prompt{p}}
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // the search is not what is tested here
		r, err := Judge(ctx, o, []conformance.Target{tg}, func(string) bool { return true }, nil)
		if r.Status() == conformance.Pass {
			t.Errorf("%s passes", name)
		}
		if (name == "NaN" || name == "infinite") && (err != nil || r.Status() != conformance.Fail) {
			t.Errorf("%s: %v, %v, want fail without a search", name, r.Status(), err)
		}
		var out bytes.Buffer
		if err := JSON(&out, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestArrays(t *testing.T) {
	dir := t.TempDir()
	var buf bytes.Buffer
	if err := npy.Write(&buf, []int{1, 2, 3}, []float32{1, 2, 3, 4, 5, 6}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.npy")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := Read(path)
	if err != nil || len(o.Prompts) != 1 || fmt.Sprint(o.Prompts[0].Rows) != "[{[1 2 3] [] []} {[4 5 6] [] []}]" {
		t.Errorf("%v, %+v", err, o)
	}
}

// TestAConventionIsNoBug: what another published rule gives is told from a bug by the logits alone, and one other prompt that the rule does not explain makes
// it a bug again.
func TestAConventionIsNoBug(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	tg := conformance.Target{Set: set, Weights: checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)}
	truth, err := set.Case("photo-1x2-portrait")
	if err != nil {
		t.Fatal(err)
	}
	m, err := diagnose.NewModel(set.Config, tg.Weights, truth.Inputs, compare.F32)
	if err != nil {
		t.Fatal(err)
	}
	var bugs []diagnose.Bug // each takes a run of the model
	for _, b := range diagnose.Catalogue() {
		if slices.Contains([]string{"K01", "P01", "P03"}, b.Key()) {
			bugs = append(bugs, b)
		}
	}
	y, err := m.Logits(bugs[1])
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "tiny-1.6", truth.Name, y.Rows(), y, 4, 0)
	o, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	every := func(string) bool { return true }
	r, err := o.judge(t.Context(), []conformance.Target{tg}, every, bugs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Text(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"equal to the model with P01, another convention (the original LLaVA's canvas), to", "or equal to the model with P03 to", "\nother convention: the original LLaVA's canvas: box.\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if v := r.Prompts[0]; r.Status() != conformance.Convention || v.Convention != "the original LLaVA's canvas" || v.Effect != "68 tokens in the prompt for 58" {
		t.Errorf("%s: %+v", r.Status(), v)
	}
	for allowed, want := range map[string]bool{"P01": true, "the original LLaVA's canvas": true, "K11": false} {
		if r.Accepted([]string{allowed}) != want {
			t.Errorf("with %s allowed it is accepted: %v, want %v", allowed, !want, want)
		}
	}
	// The same, and a text that no convention explains.
	text, err := set.Case("text-small-norms")
	if err != nil {
		t.Fatal(err)
	}
	wrong := slices.Clone(text.Logits.Row(text.Logits.Rows() - 1))
	slices.Reverse(wrong)
	o.Prompts = append(o.Prompts, Prompt{Set: "tiny-1.6", Case: text.Name, Rows: []Row{{Logits: wrong}}})
	r, err = o.judge(t.Context(), []conformance.Target{tg}, every, bugs, nil)
	if err != nil || r.Status() != conformance.Fail || r.Prompts[0].Status != conformance.Convention.String() {
		t.Errorf("%v: %s, %+v", err, r.Status(), r.Prompts)
	}
}
