package cli

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// Errors are planted into a whole run of the command, on the sets that come with the program: each has to end with exit code 1 and to name the
// node that it was planted in, or for what cannot matter with exit code 0.

// off reads one value of a parameter one bf16 step away from what it is.
type off struct {
	shapes.Weights
	param string
	index int
}

func (o off) Read(name string, from int, dst []float32) error {
	err := o.Weights.Read(name, from, dst)
	if i := o.index - from; err == nil && name == o.param && i >= 0 && i < len(dst) {
		// The weights are exact in bf16, so the lower half of the bits is 0 and this is the neighbour away from 0.
		dst[i] = math.Float32frombits(math.Float32bits(dst[i]) + 1<<16)
	}
	return err
}

// oneWeightOff is the reference with one weight off.
func oneWeightOff(param string, index int) conformance.Opener {
	return func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
		return engines.OpenRef(c, off{w, param, index})
	}
}

// evaluates is an engine that evaluates nodes as other nodes.
func evaluates(swap func(n shapes.Node) shapes.Node) conformance.Opener {
	return enginetest.Graph{Swap: swap}.Opener()
}

// computes is an engine that computes nodes of one kind by a function of their inputs.
func computes(kinds map[shapes.Kind]func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor)) conformance.Opener {
	return enginetest.Graph{Change: func(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
		if f := kinds[n.Kind]; f != nil {
			f(n, in, y)
		}
		return y
	}}.Opener()
}

// reads is an engine one node of which reads another node's value as its input number i.
func reads(node string, i int, other string) conformance.Opener {
	return enginetest.Graph{Inputs: func(n shapes.Node, in []shapes.Tensor, has func(string) shapes.Tensor) []shapes.Tensor {
		if n.Name == node {
			in = slices.Clone(in)
			in[i] = has(other)
		}
		return in
	}}.Opener()
}

func tanhGELU(_ shapes.Node, in []shapes.Tensor, y shapes.Tensor) {
	for i, v := range in[0].Data {
		x := float64(v)
		y.Data[i] = float32(0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))))
	}
}

// tiledKeys is grouped attention with key head h%K in the place of h/(H/K): heads are reordered so that the right function does the wrong thing.
func tiledKeys(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) {
	if !n.Causal {
		return
	}
	repeat := func(x shapes.Tensor) shapes.Tensor { // [T, K, Dh] or [T, K*Dh] -> the same with H, head h being x's head h%K
		t, width := x.Shape[0], shapes.Product(x.Shape[1:])/n.KVHeads
		out := shapes.NewTensor(t, n.Heads, width)
		if len(x.Shape) == 2 {
			out.Shape = []int{t, n.Heads * width}
		}
		for i := range t {
			for h := range n.Heads {
				copy(out.Data[(i*n.Heads+h)*width:][:width], x.Data[(i*n.KVHeads+h%n.KVHeads)*width:][:width])
			}
		}
		return out
	}
	if n.Kind == shapes.Scores {
		copy(y.Data, ref.AttentionScores(in[0], repeat(in[1]), n.Heads, n.Heads, true).Data)
	} else {
		copy(y.Data, ref.AttentionContext(in[0], repeat(in[1]), n.Heads, n.Heads).Data)
	}
}

func TestPlantedErrors(t *testing.T) {
	vision, text := shapes.VisionLayer, shapes.TextLayer
	eps := func(kind shapes.Kind) func(n shapes.Node) shapes.Node {
		return func(n shapes.Node) shapes.Node {
			if n.Kind == kind {
				n.Eps = 1e-6
			}
			return n
		}
	}
	kind := func(is, as shapes.Kind) func(n shapes.Node) shapes.Node {
		return func(n shapes.Node) shapes.Node {
			if n.Kind == is {
				n.Kind = as
			}
			return n
		}
	}
	for _, c := range []struct {
		name  string
		open  conformance.Opener
		cases string
		node  string // empty if the error cannot matter
		cause string // id of the known bug that it is; empty if it is none
	}{
		{"none, in the reference", engines.OpenRef, "photo-2x2-rows", "", ""},
		{"none, node by node", enginetest.Graph{}.Opener(), "text-small-norms", "", ""},
		{"a weight of the decoder", oneWeightOff(text(17)+".mlp.down_proj.weight", 700), "text-small-norms", text(17) + ".mlp.down_proj", ""},
		{"a weight of a norm", oneWeightOff(text(31)+".input_layernorm.weight", 3), "text-small-norms", text(31) + ".input_layernorm", ""},
		{"a weight of the head", oneWeightOff(shapes.LMHead+".weight", 5000), "text-small-norms", shapes.LMHead, ""},
		{"a weight of the tower", oneWeightOff(vision(5)+".self_attn.out_proj.weight", 99), "photo-2x2-rows", vision(5) + ".self_attn.out_proj", ""},
		{"a weight that cancels before the logits", oneWeightOff(vision(0)+".self_attn.k_proj.bias", 7), "photo-2x2-rows", vision(0) + ".self_attn.k_proj", ""},
		{"a weight that the logits do not need", oneWeightOff(vision(23)+".mlp.fc1.weight", 0), "photo-2x2-rows", vision(23) + ".mlp.fc1", ""},
		{"one value of the newline", oneWeightOff(shapes.ImageNewline, 64), "photo-2x2-rows", shapes.NodePack, "C09"},
		{"the embedding of the image token, which is replaced", oneWeightOff(shapes.TextModel+".embed_tokens.weight", 320*128), "text-small-norms", "", ""},
		{"GELU by tanh", computes(map[shapes.Kind]func(shapes.Node, []shapes.Tensor, shapes.Tensor){shapes.GELU: tanhGELU}), "photo-2x2-rows", shapes.Projector + ".act", "J01"},
		{"QuickGELU in the projector", evaluates(kind(shapes.GELU, shapes.QuickGELU)), "photo-2x2-rows", shapes.Projector + ".act", "J02"},
		{"GELU in the tower", evaluates(kind(shapes.QuickGELU, shapes.GELU)), "photo-2x2-rows", vision(0) + ".mlp.activation_fn", "V10"},
		{"RMSNorm's epsilon", evaluates(eps(shapes.RMSNorm)), "text-small-norms", text(0) + ".input_layernorm", "C02"},
		{"LayerNorm's epsilon", evaluates(eps(shapes.LayerNorm)), "photo-2x2-rows", shapes.VisionTower + ".pre_layrnorm", "C03"},
		{"grouped heads dealt out in turn", computes(map[shapes.Kind]func(shapes.Node, []shapes.Tensor, shapes.Tensor){shapes.Scores: tiledKeys, shapes.Context: tiledKeys}), "text-small-norms", text(0) + ".self_attn.scores", "L11"},
		{"the last vision layer for the features", reads(shapes.NodeSelect, 0, vision(23)), "photo-2x2-rows", shapes.NodeSelect, "C04"},
		{"attention and MLP in parallel", reads(text(3)+".post_attention_layernorm", 0, text(2)), "text-small-norms", text(3) + ".post_attention_layernorm", "L28"},
		{"a layer skipped", reads(text(9)+".input_layernorm", 0, text(7)), "text-small-norms", text(9) + ".input_layernorm", "W01"},
		{"no biases in the tower", evaluates(func(n shapes.Node) shapes.Node {
			if n.Kind == shapes.Linear && conformance.StageOf(n.Name) == conformance.StageVision {
				n.Params = n.Params[:1]
			}
			return n
		}), "photo-2x2-rows", vision(0) + ".self_attn.q_proj", "V15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"check", "--model", "tiny-1.6", "--case", c.cases, "--engine", "planted"}, &out, &errs,
				func(string) (conformance.Opener, error) { return c.open, nil })
			t.Logf("llavaref check said:\n%s", out.String())
			want, verdict := exitNotConformant, "not conformant: "
			if c.node == "" {
				want, verdict = exitConformant, "conformant: "
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if code != want || !strings.HasPrefix(lines[len(lines)-1], verdict) || errs.Len() > 0 {
				t.Errorf("exit code %d, want %d; verdict %q; stderr %q", code, want, lines[len(lines)-1], errs.String())
			}
			first := regexp.MustCompile(`(?m)^ +first diverging node: (\S+)$`).FindStringSubmatch(out.String())
			if got := fmt.Sprint(first); c.node == "" && first != nil || c.node != "" && (first == nil || first[1] != c.node) {
				t.Errorf("first diverging node %s, want %q", got, c.node)
			}
			_, found, _ := strings.Cut(out.String(), "first diverging node")
			named := regexp.MustCompile(`likely cause: .* \((\w+)\), error`).FindStringSubmatch(found)
			if got := fmt.Sprint(named); c.cause == "" && named != nil || c.cause != "" && (named == nil || named[1] != c.cause) {
				t.Errorf("cause %s, want %q", got, c.cause)
			}
		})
	}
}

// TestTheREADMEShowsWhatIsPrinted runs the command lines of README.md whose output it shows, and the planted error that it tells of.
func TestTheREADMEShowsWhatIsPrinted(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	output := func(find finder, args ...string) string {
		var out, errs bytes.Buffer
		run(t.Context(), args, &out, &errs, find)
		return out.String() + errs.String()
	}
	shown := regexp.MustCompile("(?m)^```\n\\$ go run ./cmd/llavaref (.*)\n((?:[^`].*\n|\n)*)```$").FindAllSubmatch(readme, -1)
	if len(shown) != 1 {
		t.Fatalf("README.md shows the output of %d command lines, want 1", len(shown))
	}
	for _, m := range shown {
		if diff := cmp.Diff(string(m[2]), output(engines.Find, strings.Fields(string(m[1]))...)); diff != "" {
			t.Errorf("llavaref %s prints something else than README.md shows:\n%s", m[1], diff)
		}
	}
	planted := computes(map[shapes.Kind]func(shapes.Node, []shapes.Tensor, shapes.Tensor){shapes.GELU: tanhGELU})
	out := output(func(string) (conformance.Opener, error) { return planted, nil }, "check", "--model", "tiny-1.6", "--case", "photo-2x2-rows")
	if _, out, _ = strings.Cut(out, "\n\n"); !bytes.Contains(readme, []byte(out[strings.Index(out, "  photo-"):])) {
		t.Errorf("README.md does not show what is printed for GELU by tanh:\n%s", out)
	}
}

// TestAHalfPrecisionEngineIsCalledOne: the same values are right as bf16 and wrong as what they were declared to be.
func TestAHalfPrecisionEngineIsCalledOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mini")
	if err := enginetest.Write(dir, enginetest.FS()); err != nil {
		t.Fatal(err)
	}
	g := enginetest.Graph{Change: enginetest.Rounded(compare.BF16)}
	for class, want := range map[string]int{"bf16": exitConformant, "f32": exitNotConformant} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"check", "--golden", dir, "--class", class}, &out, &errs,
			func(string) (conformance.Opener, error) { return g.Opener(), nil })
		if code != want {
			t.Errorf("as %s: exit code %d, want %d\n%s%s", class, code, want, out.String(), errs.String())
		}
		if want == exitNotConformant && !strings.Contains(out.String(), "would pass as bf16: a lower precision class than declared") {
			t.Errorf("as %s it does not say why:\n%s", class, out.String())
		}
	}
}
