package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/shapes"
)

// Nodes of the small model that tests refer to.
const (
	patches  = shapes.VisionTower + ".embeddings.patch_embedding"
	fc1      = shapes.VisionTower + ".encoder.layers.1.mlp.fc1"
	act      = shapes.Projector + ".act"
	context0 = shapes.TextModel + ".layers.0.self_attn.context"
	layer0   = shapes.TextModel + ".layers.0"
	layer1   = shapes.TextModel + ".layers.1"
)

// as declares a class.
func as(c compare.Class) conformance.Info {
	return conformance.Info{Name: "graph", Arithmetic: compare.Arithmetic{Class: c}}
}

// at changes the value of one node.
func at(name string, change func(in []shapes.Tensor, y shapes.Tensor)) func(shapes.Node, []shapes.Tensor, shapes.Tensor) shapes.Tensor {
	return func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
		if n.Name == name {
			change(in, y)
		}
		return y
	}
}

// swap evaluates one node as another kind.
func swap(name string, kind shapes.Kind) func(shapes.Node) shapes.Node {
	return func(n shapes.Node) shapes.Node {
		if n.Name == name {
			n.Kind = kind
		}
		return n
	}
}

// hidden hides the nodes whose name begins with prefix and has more after it.
func hidden(prefix string) func(shapes.Node, shapes.Tensor, shapes.Probe) {
	return enginetest.Only(func(n shapes.Node) bool { return !strings.HasPrefix(n.Name, prefix+".") })
}

func run(t *testing.T, g enginetest.Graph, s conformance.Suite) conformance.Run {
	t.Helper()
	s.Targets = []conformance.Target{enginetest.Target()}
	return s.Run(t.Context(), g.Opener())
}

func TestEnginesGetTheVerdictTheyDeserve(t *testing.T) {
	for _, c := range []struct {
		name   string
		engine enginetest.Graph
		suite  conformance.Suite
		want   conformance.Status // of the case with the image
		text   conformance.Status // of the case without
		first  string             // first diverging node of the case with the image
		view   conformance.View
		says   string // in the explanation, or in a problem
		check  func(t *testing.T, c conformance.Case)
	}{
		{name: "right", want: conformance.Pass, text: conformance.Pass, check: wholeCoverage},
		{name: "right, in any order", engine: enginetest.Graph{Order: reversed}, want: conformance.Pass, text: conformance.Pass, check: wholeCoverage},
		{name: "right, with a buffer that it uses again", engine: enginetest.Graph{Show: scribbled}, want: conformance.Pass, text: conformance.Pass, check: wholeCoverage},
		{name: "right in f16, declared", engine: enginetest.Graph{Change: enginetest.Rounded(compare.F16), Declares: as(compare.F16)}, want: conformance.Pass, text: conformance.Pass},
		{name: "right in bf16, declared", engine: enginetest.Graph{Change: enginetest.Rounded(compare.BF16), Declares: as(compare.BF16)}, want: conformance.Pass, text: conformance.Pass},
		{
			name:   "f16 that declares f32",
			engine: enginetest.Graph{Change: enginetest.Rounded(compare.F16)},
			want:   conformance.Fail, text: conformance.Fail, first: patches, view: conformance.Local, says: "would pass as f16: a lower precision class than declared",
		},
		{
			name:   "f16 that declares f32, judged as f16",
			engine: enginetest.Graph{Change: enginetest.Rounded(compare.F16)}, suite: conformance.Suite{Class: compare.F16},
			want: conformance.Pass, text: conformance.Pass,
		},
		{
			name:   "f16 that declares f32, looked at from outside",
			engine: enginetest.Graph{Change: enginetest.Rounded(compare.F16)}, suite: conformance.Suite{Views: []conformance.View{conformance.Accumulated}},
			want: conformance.Fail, text: conformance.Fail, first: patches, view: conformance.Accumulated, says: "local was not judged",
		},
		{
			name:   "another activation",
			engine: enginetest.Graph{Swap: swap(act, shapes.QuickGELU)},
			want:   conformance.Fail, text: conformance.Pass, first: act, view: conformance.Local, says: "this node is wrong",
		},
		{
			name: "one entry off",
			engine: enginetest.Graph{Change: at(fc1, func(_ []shapes.Tensor, y shapes.Tensor) {
				y.Data[70] += 0.5
			})},
			want: conformance.Fail, text: conformance.Pass, first: fc1, view: conformance.Local, says: "this node is wrong",
			check: func(t *testing.T, c conformance.Case) {
				k := checkOf(t, c, fc1, conformance.Local)
				if k.Census == nil || k.Census.Bad != 1 || !slices.Equal(k.Census.Worst[0].Index, []int{0, 1, 6}) {
					t.Errorf("census %+v, want one bad entry at [0 1 6]", k.Census)
				}
				if k.Fits != "" {
					t.Errorf("would pass as %s, want as nothing", k.Fits)
				}
			},
		},
		{
			name: "NaN",
			engine: enginetest.Graph{Change: at(layer0, func(_ []shapes.Tensor, y shapes.Tensor) {
				y.Data[len(y.Data)-1] = float32(math.NaN()) // the last position, so that no other one reads it
			})},
			want: conformance.Fail, text: conformance.Fail, first: layer0, view: conformance.Local, says: "this node is wrong",
			check: func(t *testing.T, c conformance.Case) {
				if k := checkOf(t, c, layer0, conformance.Local); k.Census == nil || k.Census.NaN != 1 {
					t.Errorf("census %+v, want one NaN", k.Census)
				}
				if k := checkOf(t, c, shapes.LMHead, conformance.Logits); k.Result != conformance.Fail {
					t.Errorf("logits %v, want fail", k.Result)
				}
			},
		},
		{
			name:   "wrong wiring inside of a layer that shows its output only",
			engine: enginetest.Graph{Inputs: keysForValues, Show: hidden(layer0)},
			want:   conformance.Fail, text: conformance.Fail, first: layer0, view: conformance.Accumulated, says: "local holds wherever it was judged, but drift jumps here",
		},
		{
			name:   "an attention in one piece is judged through the nodes that it hides",
			engine: enginetest.Graph{Inputs: keysForValues, Show: fused},
			want:   conformance.Fail, text: conformance.Fail, first: context0, view: conformance.Local, says: "this node is wrong",
			check: func(t *testing.T, c conformance.Case) {
				if k := checkOf(t, c, context0, conformance.Local); !slices.Equal(k.Derived, []string{shapes.TextModel + ".layers.0.self_attn.probs"}) {
					t.Errorf("derived %v, want probs", k.Derived)
				}
			},
		},
		{name: "right, an attention in one piece", engine: enginetest.Graph{Show: fused}, want: conformance.Pass, text: conformance.Pass},
		{
			name:   "right, without the layers that do not reach the logits",
			engine: enginetest.Graph{Show: enginetest.Only(func(n shapes.Node) bool { return n.Reach != shapes.Dead })},
			want:   conformance.Pass, text: conformance.Pass,
			check: func(t *testing.T, c conformance.Case) {
				if k := c.Coverage(); k.Skipped != 16 || k.Checked+k.Skipped != k.Expected {
					t.Errorf("coverage %+v, want 16 skipped", k)
				}
				n := nodeOf(t, c, shapes.VisionTower+".post_layernorm")
				if n.Status() != conformance.Skip || !strings.Contains(n.Reason, "the logits do not need it") {
					t.Errorf("post_layernorm: %v, %q", n.Status(), n.Reason)
				}
			},
		},
		{
			name:   "right, shows nothing but the logits",
			engine: enginetest.Graph{Show: enginetest.Only(func(shapes.Node) bool { return false })},
			want:   conformance.Pass, text: conformance.Pass,
			check: func(t *testing.T, c conformance.Case) {
				if k := c.Coverage(); k.Checked != 1 || k.Accumulated != 1 || k.Local != 0 {
					t.Errorf("coverage %+v, want one node against the truth", k)
				}
			},
		},
		{
			name:   "nothing to compare",
			engine: enginetest.Graph{Show: enginetest.Only(func(shapes.Node) bool { return false })}, suite: conformance.Suite{Views: []conformance.View{conformance.Local}},
			want: conformance.Error, text: conformance.Error,
		},
		{
			name: "a wrong shape",
			engine: enginetest.Graph{Show: func(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
				if n.Name == act {
					y.Shape = []int{y.Shape[1], y.Shape[0], y.Shape[2]}
				}
				probe(n.Name, y)
			}},
			want: conformance.Fail, text: conformance.Pass, first: act, view: conformance.Contract, says: "shape [16 3 64], want [N, S-1, C] = [3 16 64]",
			check: func(t *testing.T, c conformance.Case) {
				if k := checkOf(t, c, shapes.Projector+".linear_2", conformance.Local); k.Result != conformance.Skip || !strings.Contains(k.Reason, act) {
					t.Errorf("linear_2: %v %q, want skip that names its input", k.Result, k.Reason)
				}
			},
		},
		{
			name: "too few values",
			engine: enginetest.Graph{Show: func(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
				if n.Name == act {
					y.Data = y.Data[1:]
				}
				probe(n.Name, y)
			}},
			want: conformance.Fail, text: conformance.Pass, first: act, view: conformance.Contract, says: "with 3071 values, want 3072",
		},
		{
			name: "logits of one position only",
			engine: enginetest.Graph{Return: func(y shapes.Tensor, _ shapes.Probe) (shapes.Tensor, error) {
				return shapes.Tensor{Shape: []int{1, y.Cols()}, Data: y.Row(0)}, nil
			}},
			want: conformance.Fail, text: conformance.Fail, first: shapes.LMHead, view: conformance.Contract, says: "other logits than it showed: shape [1 64]",
		},
		{
			name: "other logits than it showed",
			engine: enginetest.Graph{Return: func(y shapes.Tensor, _ shapes.Probe) (shapes.Tensor, error) {
				y.Data[5] = -y.Data[5]
				return y, nil
			}},
			want: conformance.Fail, text: conformance.Fail, first: shapes.LMHead, view: conformance.Contract, says: "other logits than it showed",
		},
		{
			name: "an error",
			engine: enginetest.Graph{Return: func(shapes.Tensor, shapes.Probe) (shapes.Tensor, error) {
				return shapes.Tensor{}, errors.New("out of memory")
			}},
			want: conformance.Error, text: conformance.Error, says: "returned an error: out of memory",
		},
		{
			name: "a panic with one prompt",
			engine: enginetest.Graph{Before: func(in shapes.Inputs) {
				if in.PixelValues.Shape != nil {
					panic("no images here")
				}
			}},
			want: conformance.Error, text: conformance.Pass, says: "panicked: no images here (",
		},
		{
			name: "the same node twice",
			engine: enginetest.Graph{Show: func(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
				probe(n.Name, y)
				if n.Name == act {
					probe(n.Name, y)
				}
			}},
			want: conformance.Error, text: conformance.Pass, says: act + " came twice",
		},
		{
			name: "names that the model does not have",
			engine: enginetest.Graph{Show: func(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
				probe(n.Name, y)
				if n.Kind == shapes.Mul {
					probe("blk.0.ffn", y)
				}
			}},
			want: conformance.Pass, text: conformance.Pass, says: "no node of these names: blk.0.ffn",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, c.engine, c.suite)
			image, text := r.Sets[0].Cases[0], r.Sets[0].Cases[1]
			if image.Status() != c.want || text.Status() != c.text {
				t.Errorf("image %v, text %v, want %v, %v: %+v %+v", image.Status(), text.Status(), c.want, c.text, image.Problems, image.First)
			}
			if want := max(c.want, c.text); r.Status() != want {
				t.Errorf("run %v, want %v", r.Status(), want)
			}
			said := ""
			for _, p := range image.Problems {
				said += p.Text + "\n"
			}
			if (image.First == nil) != (c.first == "") {
				t.Errorf("first diverging node %+v, want %q", image.First, c.first)
			} else if f := image.First; f != nil {
				said += f.Explanation
				if f.Node != c.first || f.View != c.view {
					t.Errorf("first diverging node %s (%s), want %s (%s)", f.Node, f.View, c.first, c.view)
				}
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("it says %q, want %q in it", said, c.says)
			}
			if c.check != nil {
				c.check(t, image)
			}
		})
	}
}

func wholeCoverage(t *testing.T, c conformance.Case) {
	if k := c.Coverage(); k != (conformance.Coverage{Expected: 94, Checked: 94, Local: 94, Accumulated: 94}) {
		t.Errorf("coverage %+v, want all of 94 in both views", k)
	}
}

func reversed(nodes []shapes.Node) []shapes.Node {
	slices.Reverse(nodes)
	return nodes
}

// scribbled shows every node in one buffer.
func scribbled(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
	b := shapes.Tensor{Shape: slices.Clone(y.Shape), Data: slices.Clone(y.Data)}
	probe(n.Name, b)
	for i := range b.Data {
		b.Data[i] = float32(math.NaN())
	}
	b.Shape[0] = -1
}

// keysForValues lets the first attention of the decoder average keys in the place of values.
func keysForValues(n shapes.Node, in []shapes.Tensor, value func(string) shapes.Tensor) []shapes.Tensor {
	if n.Name == context0 {
		return []shapes.Tensor{in[0], value(shapes.TextModel + ".layers.0.self_attn.k_proj")}
	}
	return in
}

// fused hides what an attention in one piece does not have.
func fused(n shapes.Node, y shapes.Tensor, probe shapes.Probe) {
	if n.Kind != shapes.Scores && n.Kind != shapes.Softmax && n.Kind != shapes.Rope {
		probe(n.Name, y)
	}
}

func nodeOf(t *testing.T, c conformance.Case, name string) conformance.Node {
	t.Helper()
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if n.Name == name {
				return n
			}
		}
	}
	t.Fatalf("%s is not in the result", name)
	return conformance.Node{}
}

func checkOf(t *testing.T, c conformance.Case, name string, v conformance.View) conformance.Check {
	t.Helper()
	k, ok := nodeOf(t, c, name).Check(v)
	if !ok {
		t.Fatalf("%s has no check of view %s", name, v)
	}
	return k
}

func TestInputsAreACopyForEveryPrompt(t *testing.T) {
	spoil := enginetest.Graph{Before: func(in shapes.Inputs) { in.PositionIDs[0] = 7 }}
	r := run(t, spoil, conformance.Suite{Cases: "text"})
	if got := r.Sets[0].Cases[0].First; got == nil || got.Node != shapes.NodeCos {
		t.Fatalf("first diverging node %+v, want %s: the engine ran on spoilt positions", got, shapes.NodeCos)
	}
	target := enginetest.Target()
	c, err := target.Set.Case("text")
	if err != nil {
		t.Fatal(err)
	}
	if c.Inputs.PositionIDs[0] != 0 {
		t.Error("the set's own inputs were changed")
	}
}

// parallel shows its nodes from many goroutines at a time.
type parallel struct{ conformance.Engine }

func (p parallel) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	var wg sync.WaitGroup
	y, err := p.Engine.Forward(in, func(name string, t shapes.Tensor) {
		wg.Go(func() { probe(name, t) })
	})
	wg.Wait()
	return y, err
}

func TestNodesMayComeFromManyGoroutines(t *testing.T) {
	s := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}}
	r := s.Run(t.Context(), func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
		e, err := enginetest.Graph{}.Opener()(c, w)
		return parallel{e}, err
	})
	if r.Status() != conformance.Pass || r.Coverage().Checked != r.Coverage().Expected {
		t.Errorf("%v, %+v", r.Status(), r.Coverage())
	}
}

func TestAnEngineThatCannotBeOpened(t *testing.T) {
	s := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}}
	for name, c := range map[string]struct {
		open conformance.Opener
		says string
	}{
		"error": {func(shapes.Config, shapes.Weights) (conformance.Engine, error) { return nil, errors.New("no device") }, "no device"},
		"panic": {func(shapes.Config, shapes.Weights) (conformance.Engine, error) { panic("index out of range") }, "it panicked: index out of range"},
		"class": {enginetest.Graph{Declares: as("f8")}.Opener(), `declares class "f8", want f32, f16 or bf16`},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.Run(t.Context(), c.open)
			if r.Status() != conformance.Error || len(r.Sets) != 1 || !strings.Contains(r.Sets[0].Reason, c.says) {
				t.Errorf("%v, %+v, want error that says %q", r.Status(), r.Sets, c.says)
			}
		})
	}
}

func TestARunWithoutSetsIsAnError(t *testing.T) {
	if r := (conformance.Suite{}).Run(t.Context(), enginetest.Graph{}.Opener()); r.Status() != conformance.Error {
		t.Errorf("%v, want error", r.Status())
	}
	if r := run(t, enginetest.Graph{}, conformance.Suite{Cases: "no-such-case"}); r.Status() != conformance.Error {
		t.Errorf("no case: %v, want error", r.Status())
	}
}

func TestCancelDoesNotWaitForTheEngine(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	forever := make(chan struct{})
	defer close(forever)
	g := enginetest.Graph{Before: func(shapes.Inputs) { cancel(); <-forever }}
	r := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}}.Run(ctx, g.Opener())
	if r.Status() != conformance.Error || len(r.Sets[0].Cases) != 1 {
		t.Fatalf("%v with %d cases, want error after the first", r.Status(), len(r.Sets[0].Cases))
	}
	if p := r.Sets[0].Cases[0].Problems; len(p) != 1 || !strings.Contains(p[0].Text, "interrupted") {
		t.Errorf("problems %+v, want interrupted", p)
	}
}

// perhaps has something for the first prompt alone, and the run is interrupted while it is asked for the second.
type perhaps struct {
	conformance.Engine
	stop  context.CancelFunc
	cases *int
}

func (p perhaps) ForCase(context.Context, conformance.Target, string, bool) (conformance.Engine, error) {
	if *p.cases++; *p.cases == 2 {
		p.stop()
		return nil, conformance.NotRun("nothing for it")
	}
	return p.Engine, nil
}

func TestAnInterruptedRunDoesNotPass(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, open := 0, enginetest.Graph{}.Opener()
	r := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}}.Run(ctx, func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
		e, err := open(c, w)
		return perhaps{e, cancel, &n}, err
	})
	if cases := r.Sets[0].Cases; r.Status() != conformance.Error || len(cases) != 2 || len(cases[1].Problems) != 1 || !strings.Contains(cases[1].Problems[0].Text, "interrupted") {
		t.Errorf("%v, %d cases, want an error in the second: %+v", r.Status(), len(cases), cases[len(cases)-1])
	}
}

// closing is an engine that counts how often it is closed.
type closing struct {
	conformance.Engine
	closed *int
}

func (c closing) Close() error {
	*c.closed++
	return nil
}

func TestAnEngineIsClosedBehindTheLastPrompt(t *testing.T) {
	for name, cut := range map[string]bool{"after all prompts": false, "not while a Forward may be under way": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			closed, open := 0, enginetest.Graph{Before: func(shapes.Inputs) {
				if cut {
					cancel()
				}
			}}.Opener()
			conformance.Suite{Targets: []conformance.Target{enginetest.Target()}, Cases: "text"}.Run(ctx, func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
				e, err := open(c, w)
				return closing{e, &closed}, err
			})
			if want := map[bool]int{false: 1, true: 0}[cut]; closed != want {
				t.Errorf("closed %d times, want %d", closed, want)
			}
		})
	}
}

func TestFailFastStopsAfterTheFirstFailure(t *testing.T) {
	wrong := enginetest.Graph{Swap: swap(act, shapes.QuickGELU)}
	if r := run(t, wrong, conformance.Suite{FailFast: true}); len(r.Sets[0].Cases) != 1 || r.Status() != conformance.Fail {
		t.Errorf("%d cases, %v, want one that fails", len(r.Sets[0].Cases), r.Status())
	}
	if r := run(t, enginetest.Graph{}, conformance.Suite{FailFast: true}); len(r.Sets[0].Cases) != 2 {
		t.Errorf("%d cases of a right engine, want both", len(r.Sets[0].Cases))
	}
}

func TestProgressOnlyGrows(t *testing.T) {
	last, calls := 0, 0
	run(t, enginetest.Graph{}, conformance.Suite{Progress: func(p conformance.Progress) {
		if p.Done < last || p.Done > p.Total || p.Set != "mini" {
			t.Errorf("progress %+v after %d", p, last)
		}
		last, calls = p.Done, calls+1
	}})
	if calls != 94+42 {
		t.Errorf("%d calls, want one a node", calls)
	}
}

func TestTheSameRunGivesTheSameResult(t *testing.T) {
	g := enginetest.Graph{Change: enginetest.Rounded(compare.BF16)}
	var first []byte
	for range 2 {
		var b bytes.Buffer
		if err := report.JSON(&b, run(t, g, conformance.Suite{Cases: "text"})); err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, b.Bytes()) {
			t.Error("two runs, two results")
		}
		first = b.Bytes()
	}
}

func TestStagesCoverTheGraph(t *testing.T) {
	for _, model := range shapes.ModelNames() {
		c, err := shapes.Model(model)
		if err != nil {
			t.Fatal(err)
		}
		last := 0
		for _, n := range shapes.Nodes(c) {
			at := slices.Index(conformance.Stages(), conformance.StageOf(n.Name))
			if at < last {
				t.Errorf("%s: %s is in stage %s, after a node of stage %s", model, n.Name, conformance.Stages()[at], conformance.Stages()[last])
			}
			last = at
		}
		if conformance.Stages()[last] != conformance.StageLogits {
			t.Errorf("%s ends in stage %s", model, conformance.Stages()[last])
		}
	}
}
