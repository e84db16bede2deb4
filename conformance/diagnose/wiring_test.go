package diagnose_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// renamed are weights in which layers of a name have another layer's parameters.
type renamed struct {
	shapes.Weights
	names *strings.Replacer
}

func (w renamed) Read(name string, from int, dst []float32) error {
	return w.Weights.Read(w.names.Replace(name), from, dst)
}

// An engine that shows hidden states, or features and logits, and nothing in between: no node can be judged by what it reads. None of the wrong engines
// here is made by the code that names it.
func TestWiringIsNamedFromAccumulatedValuesAlone(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "known-bugs.md"))
	if err != nil {
		t.Fatal(err)
	}
	c := set.Config
	w := checkpoint.Synthetic(c, *set.Manifest.Weights.Seed)
	const head, norm = shapes.LMHead, shapes.TextModel + ".norm"
	layers := func(of func(int) string, n int) []string {
		var names []string
		for i := range n {
			names = append(names, of(i))
		}
		return names
	}
	text, tower := layers(shapes.TextLayer, c.Text.NumHiddenLayers), layers(shapes.VisionLayer, c.Vision.NumHiddenLayers)
	// showing writes under a name what as gives: the name of a node, or with a change of it.
	showing := func(values map[string]shapes.Tensor, as func(name string) (string, func(shapes.Tensor) shapes.Tensor)) func(shapes.Node, shapes.Tensor, shapes.Probe) {
		return func(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
			values[n.Name] = shapes.Tensor{Shape: y.Shape, Data: slices.Clone(y.Data)}
			if n.Name != head {
				return
			}
			for _, n := range shapes.Nodes(c) { // at the end, so that one may be shown in the place of an earlier one
				from, change := as(n.Name)
				v, ok := values[from]
				if !ok {
					continue
				}
				if change != nil {
					v = change(v)
				}
				probe(n.Name, v)
			}
		}
	}
	kept := func(names ...string) func(string) (string, func(shapes.Tensor) shapes.Tensor) {
		return func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if slices.Contains(names, name) {
				return name, nil
			}
			return "", nil
		}
	}
	change := func(name string, f func(in []shapes.Tensor, y shapes.Tensor) shapes.Tensor) func(shapes.Node, []shapes.Tensor, shapes.Tensor) shapes.Tensor {
		return func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
			if n.Name == name {
				return f(in, y)
			}
			return y
		}
	}
	byRow := func(y shapes.Tensor, from func(r int) int) shapes.Tensor {
		z := shapes.NewTensor(y.Shape...)
		for r := range y.Rows() {
			copy(z.Row(r), y.Row(from(r)))
		}
		return z
	}
	rename := func(pairs ...int) shapes.Weights {
		var names []string
		for _, p := range pairs {
			names = append(names, strconv.Itoa(p))
		}
		var list []string
		for i := 0; i < len(names); i += 2 {
			list = append(list, "language_model.model.layers."+names[i]+".", "language_model.model.layers."+names[i+1]+".")
		}
		return renamed{w, strings.NewReplacer(list...)}
	}
	type shown = func(name string) (string, func(shapes.Tensor) shapes.Tensor)
	for _, k := range []struct {
		name   string
		prompt string
		engine enginetest.Graph
		shows  shown
		node   string // that is named; empty is the prompt
		id     string // empty is none
		says   string
	}{
		{name: "hidden states counted one too early", prompt: "text-small-norms", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if i := slices.Index(text, name); i > 0 {
				return text[i-1], nil
			} else if i == 0 {
				return shapes.NodeMerge, nil
			}
			return kept(norm, head)(name)
		}, id: "W02", says: "layers.0 shows the truth's merge_embeddings, and so on up to language_model.model.layers.31, 32 arrays that each show the one before: hidden states counted from another number; language_model.model.norm behind them is right"},
		{name: "hidden states of the tower counted one too late", prompt: "photo-1x2-portrait", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if i := slices.Index(tower, name); i >= 0 && i+1 < len(tower) {
				return tower[i+1], nil
			}
			return kept(shapes.NodeSelect, head)(name)
		}, id: "W02", says: "each show the one behind"},
		{name: "the last hidden state behind the norm", prompt: "text-small-norms", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == text[31] {
				return norm, nil
			}
			return kept(append(text, norm, head)...)(name)
		}, node: text[31], id: "W03", says: "shows the truth's language_model.model.norm; language_model.model.norm behind it is right"},
		{name: "one layer shown under two names", prompt: "text-small-norms", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == text[12] {
				return text[20], nil
			}
			return kept(append(text, norm, head)...)(name)
		}, node: text[12], id: "W03", says: "shows the truth's language_model.model.layers.20; language_model.model.layers.13 behind it is right"},
		{name: "a layer skipped", prompt: "text-small-norms", shows: kept(append(text, norm, head)...),
			engine: enginetest.Graph{Change: change(text[7], func(in []shapes.Tensor, _ shapes.Tensor) shapes.Tensor {
				return in[0] // replaced below: the layer's input
			}), Inputs: func(n shapes.Node, in []shapes.Tensor, has func(string) shapes.Tensor) []shapes.Tensor {
				if n.Name == text[7] {
					return []shapes.Tensor{has(text[6]), in[1]}
				}
				return in
			}}, node: text[7], id: "W04", says: "shows the truth's language_model.model.layers.6, and language_model.model.layers.8 behind it is wrong: layer 7 is skipped"},
		{name: "an MLP left out", prompt: "text-small-norms", shows: kept(append(text, norm, head)...),
			engine: enginetest.Graph{Change: change(text[7], func(in []shapes.Tensor, _ shapes.Tensor) shapes.Tensor { return in[0] })},
			node:   text[7], id: "W01", says: "shows the truth's language_model.model.layers.7.residual_attn"},
		{name: "a layer skipped, of eight that are not shown", prompt: "text-small-norms", shows: kept(text[3], text[11], head),
			engine: enginetest.Graph{Change: change(text[7], func(in []shapes.Tensor, _ shapes.Tensor) shapes.Tensor { return in[0] }), Inputs: func(n shapes.Node, in []shapes.Tensor, has func(string) shapes.Tensor) []shapes.Tensor {
				if n.Name == text[7] {
					return []shapes.Tensor{has(text[6]), in[1]}
				}
				return in
			}}, node: text[11], id: "W04", says: "as if layer 7 were skipped"},
		{name: "a layer run twice, of three that are not shown", prompt: "text-small-norms", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == text[7] {
				return text[8], nil
			}
			return kept(text[3], head)(name)
		}, engine: enginetest.Graph{Weights: rename(6, 5, 7, 6, 8, 7)},
			node: text[7], id: "W05", says: "as if layer 5 were run twice"},
		{name: "two layers in the other order", prompt: "text-small-norms", shows: kept(append(text, norm, head)...), engine: enginetest.Graph{Weights: rename(5, 6, 6, 5)},
			node: text[5], id: "W06", says: "as if layers 5 and 6 were run in the other order"},
		{name: "two of three layers in the other order", prompt: "text-small-norms", shows: kept(text[3], text[6], head), engine: enginetest.Graph{Weights: rename(5, 6, 6, 5)},
			node: text[6], id: "W06", says: "as if layers 5 and 6 were run in the other order"},
		{name: "a layer with the parameters of the one before", prompt: "text-small-norms", shows: kept(append(text, norm, head)...), engine: enginetest.Graph{Weights: rename(9, 8)},
			node: text[9], id: "C20", says: "as if layer 9 had the parameters of layer 8"},
		{name: "a known bug inside of the layers", prompt: "text-small-norms", shows: kept(append(text, norm, head)...), engine: enginetest.Graph{Swap: func(n shapes.Node) shapes.Node {
			if n.Kind == shapes.SiLU {
				n.Kind = shapes.QuickGELU
			}
			return n
		}}, node: text[0], id: "L25", says: "QuickGELU, not SiLU"},
		{name: "a known bug in the tower, which shows nothing but the features", prompt: "photo-1x2-portrait", shows: kept(shapes.NodeSelect, head), engine: enginetest.Graph{Swap: func(n shapes.Node) shapes.Node {
			if n.Kind == shapes.QuickGELU {
				n.Kind = shapes.GELU
			}
			return n
		}}, node: shapes.NodeSelect, id: "V10", says: "GELU with erf, not QuickGELU"},
		{name: "features of the last layer", prompt: "photo-1x2-portrait", shows: kept(shapes.NodeSelect, shapes.NodePack, head), engine: enginetest.Graph{Inputs: func(n shapes.Node, in []shapes.Tensor, has func(string) shapes.Tensor) []shapes.Tensor {
			if n.Name == shapes.NodeSelect {
				return []shapes.Tensor{has(tower[23])}
			}
			return in
		}}, node: shapes.NodeSelect, id: "C04", says: "the last layer, as vision_feature_layer -1 would have it"},
		{name: "the last position dropped and not the class token", prompt: "photo-1x2-portrait", shows: kept(shapes.NodeSelect, shapes.NodePack, head), engine: enginetest.Graph{Change: change(shapes.NodeSelect, func(in []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
			return byRowOf(in[0], y, func(r int) int { return r/16*17 + r%16 })
		})}, node: shapes.NodeSelect, id: "V09", says: "with the last position dropped"},
		{name: "the class token among the features", prompt: "photo-1x2-portrait", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == shapes.NodeSelect {
				return tower[22], nil
			}
			return kept(head)(name)
		}, node: shapes.NodeSelect, id: "V09", says: "has the class token among the features"},
		{name: "tiles in the reverse order in the dump alone", prompt: "photo-1x2-portrait", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == tower[10] {
				return name, func(y shapes.Tensor) shapes.Tensor {
					return byRow(y, func(r int) int { return (y.Shape[0]-1-r/17)*17 + r%17 })
				}
			}
			return kept(shapes.NodeSelect, head)(name)
		}, node: tower[10], id: "W07", says: "has its tiles in the reverse order; select_features behind it is right"},
		{name: "the class token at the end of the whole tower", prompt: "photo-1x2-portrait", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == tower[10] {
				return name, func(y shapes.Tensor) shapes.Tensor {
					return byRow(y, func(r int) int { return r/17*17 + (r%17+1)%17 })
				}
			}
			return kept(head)(name)
		}, node: tower[10], id: "W07", says: "has the class token at the end"},
		{name: "tiles packed in the reverse order", prompt: "photo-2x2-rows", shows: kept(shapes.NodePack, head), engine: enginetest.Graph{Inputs: func(n shapes.Node, in []shapes.Tensor, _ func(string) shapes.Tensor) []shapes.Tensor {
			if n.Name != shapes.NodePack {
				return in
			}
			return []shapes.Tensor{byRow(in[0], func(r int) int {
				if r < 16 {
					return r
				}
				return (5-r/16)*16 + r%16
			}), in[1]}
		}}, node: shapes.NodePack, id: "K23", says: "reverse order"},
		{name: "newlines before the rows", prompt: "photo-2x2-rows", shows: func(name string) (string, func(shapes.Tensor) shapes.Tensor) {
			if name == shapes.NodePack {
				return name, func(y shapes.Tensor) shapes.Tensor { // 16 rows of the whole image, then grid rows of 8 with the newline behind
					return byRow(y, func(r int) int {
						if r < 16 {
							return r
						}
						return 16 + (r-16)/9*9 + ((r-16)%9+8)%9
					})
				}
			}
			return "", nil
		}, node: shapes.NodePack, id: "K03", says: "the newline stands before each row"},
		{name: "image rows in the reverse order", prompt: "photo-1x2-portrait", shows: kept(shapes.NodeMerge, head), engine: enginetest.Graph{Inputs: func(n shapes.Node, in []shapes.Tensor, _ func(string) shapes.Tensor) []shapes.Tensor {
			if n.Name != shapes.NodeMerge {
				return in
			}
			return []shapes.Tensor{in[0], byRow(in[1], func(r int) int { return in[1].Rows() - 1 - r }), in[2]}
		}}, node: shapes.NodeMerge, id: "M11", says: "image rows in the reverse order"},
		{name: "no known error", prompt: "text-small-norms", shows: kept(append(text, norm, head)...), engine: enginetest.Graph{Change: change(text[4]+".mlp.down_proj", func(_ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
			z := shapes.Tensor{Shape: y.Shape, Data: slices.Clone(y.Data)}
			for r := range z.Rows() {
				z.Row(r)[5] += 0.25
			}
			return z
		})}, node: text[4]},
		{name: "another class than declared", prompt: "text-small-norms", shows: kept(append(text, norm, head)...), engine: enginetest.Graph{Change: enginetest.Rounded(compare.F16)}},
	} {
		t.Run(k.name, func(t *testing.T) {
			suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: k.prompt, Diagnose: diagnose.Diagnose}
			g := k.engine
			g.Show = showing(map[string]shapes.Tensor{}, k.shows)
			g.Declares.Arithmetic = compare.Arithmetic{Class: compare.F32, Lanes: 16}
			result := suite.Run(t.Context(), g.Opener()).Sets[0].Cases[0]
			if result.Status() != conformance.Fail || result.First == nil {
				t.Fatalf("%v, first %v, problems %v", result.Status(), result.First, result.Problems)
			}
			causes := result.Causes
			for _, stage := range result.Stages {
				for _, n := range stage.Nodes {
					for _, check := range n.Checks {
						if len(check.Causes) > 0 {
							t.Logf("%s: %+v", n.Name, check.Causes)
						}
						if n.Name == k.node {
							causes = append(causes, check.Causes...)
						}
					}
				}
			}
			if k.node != "" && result.First.Node != k.node {
				t.Errorf("first %v, want %s", *result.First, k.node)
			}
			if k.id == "" {
				if len(causes) > 0 {
					t.Errorf("named %+v, want nothing", causes)
				}
				return
			}
			if !strings.Contains(string(doc), "\n| "+k.id+" |") {
				t.Errorf("%s is not in docs/known-bugs.md", k.id)
			}
			if len(causes) == 0 || causes[0].ID != k.id || causes[0].Ratio > 1 || !strings.Contains(causes[0].Text, k.says) {
				t.Errorf("first %v, named %+v, want %s: %s", *result.First, causes, k.id, k.says)
			}
		})
	}
}

// byRowOf takes rows of x into a tensor of the shape of y.
func byRowOf(x, y shapes.Tensor, from func(r int) int) shapes.Tensor {
	z := shapes.NewTensor(y.Shape...)
	for r := range z.Rows() {
		copy(z.Row(r), x.Row(from(r)))
	}
	return z
}

// A dump's tensors are hostile: odd shapes and numbers that are none.
func TestHostileHiddenStates(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	for _, name := range []string{shapes.NodeSelect, shapes.NodePack, shapes.NodeMerge, shapes.VisionLayer(3), shapes.TextLayer(0), shapes.NodePooled} {
		for _, spoil := range []func(y shapes.Tensor) shapes.Tensor{
			func(y shapes.Tensor) shapes.Tensor { return shapes.NewTensor(1) },
			func(y shapes.Tensor) shapes.Tensor { return shapes.NewTensor(append([]int{1}, y.Shape...)...) },
			func(y shapes.Tensor) shapes.Tensor {
				return shapes.NewTensor(append([]int{y.Shape[0] + 1}, y.Shape[1:]...)...)
			},
			func(y shapes.Tensor) shapes.Tensor {
				s := slices.Clone(y.Shape)
				s[len(s)-1]++
				return shapes.NewTensor(s...)
			},
			func(y shapes.Tensor) shapes.Tensor {
				z := shapes.NewTensor(y.Shape...)
				z.Data[len(z.Data)/2] = float32(math.NaN())
				return z
			},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: "photo-1x2-portrait", Diagnose: func(_ context.Context, e conformance.Evidence) conformance.Findings {
				cancel() // the catalogue is not what is tested here
				return diagnose.Diagnose(ctx, e)
			}}
			result := suite.Run(t.Context(), func(shapes.Config, shapes.Weights) (conformance.Engine, error) { return one{name, spoil}, nil }).Sets[0].Cases[0]
			for _, p := range result.Problems {
				if p.Level == conformance.Error {
					t.Errorf("%s: %s", name, p.Text)
				}
			}
			if result.Status() != conformance.Fail || len(result.Causes) > 0 {
				t.Errorf("%s: %v, %v", name, result.Status(), result.Causes)
			}
			cancel()
		}
	}
}

// NaN is near to nothing: no model is run to find that out of it, which would take half a minute for each prompt.
func TestNaNIsHeldAgainstNoModel(t *testing.T) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	for value, want := range map[float32]bool{7: true, float32(math.NaN()): false, float32(math.Inf(1)): false, float32(math.Inf(-1)): false} {
		spoil := func(y shapes.Tensor) shapes.Tensor {
			z := shapes.NewTensor(y.Shape...)
			copy(z.Data, y.Data)
			z.Data[len(z.Data)/2] = value
			return z
		}
		var near counting
		suite := conformance.Suite{Targets: []conformance.Target{{Set: set, Weights: w}}, Cases: "photo-1x2-portrait", Diagnose: func(ctx context.Context, e conformance.Evidence) conformance.Findings {
			ctx, cancel := context.WithCancel(ctx)
			cancel() // one model is enough to see that some are tried
			near.Truth = e.Truth
			e.Truth = &near
			return diagnose.Diagnose(ctx, e)
		}}
		result := suite.Run(t.Context(), func(shapes.Config, shapes.Weights) (conformance.Engine, error) {
			return one{shapes.NodePack, spoil}, nil
		})
		if result.Status() != conformance.Fail || near.n > 0 != want {
			t.Errorf("%v: %v, held against %d models", value, result.Status(), near.n)
		}
	}
}

// counting counts how often a tensor is held against a model's.
type counting struct {
	conformance.Truth
	n int
}

func (c *counting) Near(node string, want, got shapes.Tensor) (ratio float64, ok bool) {
	c.n++
	return c.Truth.Near(node, want, got)
}

// one is an engine that shows one node, spoilt.
type one struct {
	name  string
	spoil func(y shapes.Tensor) shapes.Tensor
}

func (one) Info() conformance.Info {
	return conformance.Info{Name: "one", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 16}}
}

func (e one) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		return shapes.Tensor{}, err
	}
	for _, n := range shapes.Nodes(set.Config) {
		if n.Name == e.name {
			probe(n.Name, e.spoil(shapes.NewTensor(n.Concrete(shapes.DimsOf(set.Config, in))...)))
		}
	}
	return shapes.Tensor{}, nil
}
