package diagnose

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// open evaluates the right model on a prompt, and makes a doctor who has seen it.
func open(t testing.TB, set, name string, class compare.Class) (*Model, *doctor) {
	t.Helper()
	s, err := golden.Embedded(set)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(s.Config, *s.Manifest.Weights.Seed)
	m, err := NewModel(s.Config, w, c.Inputs, class)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDoctor(conformance.Evidence{Config: s.Config, Weights: w, Inputs: c.Inputs, Shown: m.values})
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func failure(m *Model, n shapes.Node, y shapes.Tensor) conformance.Failure {
	return conformance.Failure{Node: n, View: conformance.Local, Inputs: m.Site(n, 0).Inputs, Got: y, Class: m.class}
}

// An engine in bfloat16 rounds every value, so what it makes of a bug is not what the alternative gives: the bug has to be recognised all the same.
func TestABugIsNamedInAnEngineThatRounds(t *testing.T) {
	m, d := open(t, "tiny-1.6", "photo-1x2-portrait", compare.BF16)
	for _, at := range [][2]string{
		{"V10/GELU with erf", shapes.VisionLayer(3) + ".mlp.activation_fn"},
		{"C13", shapes.TextLayer(2) + ".self_attn.q_proj"},
		{"L11", shapes.TextLayer(1) + ".self_attn.scores"},
		{"V12/model", shapes.VisionLayer(0) + ".self_attn.scores"},
		{"L21", shapes.TextModel + ".norm"},
		{"K08", shapes.NodePack},
		{"L03", shapes.TextLayer(5) + ".self_attn.rope_k"},
		{"V08", shapes.NodeSelect},
	} {
		bug := Catalogue()[slices.IndexFunc(Catalogue(), func(b Bug) bool { return b.Key() == at[0] })]
		n := m.graph.nodes[at[1]]
		y, err := m.Alter(bug, n)
		if err != nil || y.Shape == nil {
			t.Errorf("%s at %s: %v, want a wrong tensor", at[0], at[1], err)
			continue
		}
		causes, _ := d.node(context.Background(), failure(m, n, y), Catalogue())
		if len(causes) == 0 || !slices.ContainsFunc(causes, func(c conformance.Cause) bool { return c.ID == bug.ID && c.Ratio <= 1 }) {
			t.Errorf("%s at %s: named %v", at[0], at[1], causes)
		}
	}
}

// What is no known bug has no name.
func TestOtherErrorsAreNotNamed(t *testing.T) {
	m, d := open(t, "tiny-1.6", "photo-1x2-portrait", compare.F32)
	spoils := map[string]func(y shapes.Tensor){
		"one entry off":     func(y shapes.Tensor) { y.Data[len(y.Data)/2] += 0.25 },
		"NaN":               func(y shapes.Tensor) { y.Data[7] = float32(math.NaN()) },
		"everything 1 % up": func(y shapes.Tensor) { copy(y.Data, times(y.Data, 1.01)) },
		"a column negated": func(y shapes.Tensor) {
			for r := range y.Rows() {
				y.Row(r)[3] *= -1
			}
		},
	}
	for _, name := range []string{shapes.VisionTower + ".embeddings.patch_embedding", shapes.VisionTower + ".pre_layrnorm", shapes.VisionLayer(1) + ".self_attn.v_proj", shapes.VisionLayer(1) + ".mlp.activation_fn",
		shapes.NodeSelect, shapes.NodePack, shapes.NodeMerge, shapes.NodeCos, shapes.TextLayer(0) + ".self_attn.rope_q", shapes.TextLayer(0) + ".self_attn.context", shapes.TextLayer(0) + ".residual_attn", shapes.TextLayer(4) + ".input_layernorm"} {
		n := m.graph.nodes[name]
		for what, spoil := range spoils {
			y := shapes.Tensor{Shape: m.values[name].Shape, Data: slices.Clone(m.values[name].Data)}
			spoil(y)
			f := failure(m, n, y)
			causes, _ := d.node(context.Background(), f, Catalogue())
			if causes = append(causes, d.wiring(context.Background(), f)...); len(causes) > 0 {
				t.Errorf("%s at %s is called %v", what, name, causes)
			}
		}
	}
}

// transformers 4.42.4 gives these many rows (docs/adapters.md), and is called by the name of what its source does.
func TestThePackingOfOldTransformersIsNamed(t *testing.T) {
	for name, rows := range map[string]int{"photo-1x3": 16, "two-images": 46} {
		m, d := open(t, "tiny-1.6", name, compare.F32)
		bug := Catalogue()[slices.IndexFunc(Catalogue(), func(b Bug) bool { return b.Key() == "K09/unpadded so, in float32" })]
		n := m.graph.nodes[shapes.NodePack]
		y, err := m.Alter(bug, n)
		if err != nil || y.Shape == nil || y.Shape[0] != rows {
			t.Errorf("%s: %v, %v, want %d rows", name, y.Shape, err, rows)
			continue
		}
		causes, _ := d.node(context.Background(), failure(m, n, y), Catalogue())
		if !slices.ContainsFunc(causes, func(c conformance.Cause) bool { return c.ID == "K09" && strings.Contains(c.Text, "float32") }) {
			t.Errorf("%s: named %v", name, causes)
		}
	}
}

func TestEveryBugIsDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "known-bugs.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, b := range Catalogue() {
		if seen[b.Key()] {
			t.Errorf("%s is there twice", b.Key())
		}
		seen[b.Key()] = true
		if !strings.Contains(string(doc), "\n| "+b.ID+" |") {
			t.Errorf("%s is not in docs/known-bugs.md", b.ID)
		}
		if b.Text == "" || b.Look == "" || len(b.Kinds) == 0 {
			t.Errorf("%s says too little", b.Key())
		}
	}
}

// An engine's values are hostile: whatever shapes it shows, nothing panics.
func TestHostileEvidence(t *testing.T) {
	m, d := open(t, "tiny-1.5", "photo", compare.F32)
	shown := map[string]shapes.Tensor{}
	for name, v := range m.values {
		shown[name] = v
	}
	shown[shapes.NodeCos] = shapes.NewTensor(1, 2)
	shown[shapes.TextLayer(0)+".self_attn.rope_q"] = shapes.NewTensor(3)
	shown[shapes.TextLayer(0)+".mlp.gate_proj"] = shapes.Tensor{Shape: []int{}}
	d.Shown = shown
	for _, name := range []string{shapes.TextLayer(0) + ".self_attn.context", shapes.TextLayer(0) + ".self_attn.probs", shapes.TextLayer(0) + ".mlp.gated", shapes.NodeSelect} {
		n := m.graph.nodes[name]
		for _, got := range []shapes.Tensor{m.values[name], {}, shapes.NewTensor(1), shapes.NewTensor(2, 3, 4, 5)} {
			f := failure(m, n, got)
			d.node(context.Background(), f, Catalogue())
			d.wiring(context.Background(), f)
		}
	}
}
