package replay_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// layerOf is the table without its repetitions: the first layer of the tower, of the text model, and everything outside of layers.
func layerOf(c shapes.Config) []shapes.Node {
	return slices.DeleteFunc(shapes.Nodes(c), func(n shapes.Node) bool {
		return strings.Contains(n.Name, ".layers.") && !strings.Contains(n.Name, ".layers.0")
	})
}

// TestHostileInputs gives every kind of node wrong shapes, missing inputs and data that do not fill their shape: errors, and no panic.
func TestHostileInputs(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 90, W: 60})
	values, _ := forward(t, c, w, in)
	e, err := replay.New(c, w, in)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(n shapes.Node, what string, inputs []shapes.Tensor) {
		t.Helper()
		if _, err := e.Eval(n, inputs); err == nil {
			t.Errorf("%s: Eval takes %s", n.Name, what)
		}
		if _, err := e.Budget(n, inputs, values[n.Name], compare.Arithmetic{}); err == nil {
			t.Errorf("%s: Budget takes %s", n.Name, what)
		}
	}
	for _, n := range layerOf(c) {
		good := inputsOf(n, values)
		refused(n, "one input too few", good[1:])
		refused(n, "one input too many", append(slices.Clone(good), shapes.Tensor{}))
		for i := range good {
			if good[i].Shape == nil {
				continue
			}
			for what, bad := range map[string]shapes.Tensor{
				"no shape":              {},
				"a negative length":     {Shape: append([]int{-1}, good[i].Shape[1:]...), Data: good[i].Data},
				"another shape":         {Shape: append([]int{1}, good[i].Shape...), Data: good[i].Data},
				"too few data":          {Shape: good[i].Shape, Data: good[i].Data[1:]},
				"no data":               {Shape: good[i].Shape},
				"shape 0":               {Shape: make([]int, len(good[i].Shape))},
				"a shape too large":     {Shape: []int{math.MaxInt, math.MaxInt}},
				"one position too many": shapes.NewTensor(append([]int{good[i].Shape[0] + 1}, good[i].Shape[1:]...)...),
			} {
				inputs := slices.Clone(good)
				inputs[i] = bad
				refused(n, what, inputs)
			}
		}
		if _, err := e.Budget(n, good, shapes.NewTensor(3), compare.Arithmetic{}); err == nil {
			t.Errorf("%s: Budget takes a truth of another shape", n.Name)
		}
		if _, err := e.BudgetDerived(n, good, nil, values[n.Name], compare.Arithmetic{}); err == nil && len(good) > 0 {
			t.Errorf("%s: BudgetDerived takes no budgets for %d inputs", n.Name, len(good))
		}
		odd := n
		odd.Name = "nowhere"
		refused(odd, "a name that is no node's", good)
		odd = n
		odd.Kind = "Convolution"
		refused(odd, "a kind that is none", good)
	}
	if _, err := replay.New(c, w, shapes.Inputs{}); err == nil {
		t.Error("New takes a prompt without a token")
	}
}

// TestAnyBits gives every kind of node NaN, infinities, denormals and the largest numbers, alone and mixed. The result may be no number, but it comes,
// and comparing it with itself passes.
func TestAnyBits(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 90, W: 60})
	values, _ := forward(t, c, w, in)
	e, err := replay.New(c, w, in)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 3))
	odd := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32, 1e-45, 0, 1, 7e4, float32(math.Copysign(0, -1))}
	for _, n := range layerOf(c) {
		for turn, share := range []float64{0.01, 0.5, 1} {
			inputs := slices.Clone(inputsOf(n, values))
			for i, x := range inputs {
				inputs[i] = shapes.Tensor{Shape: x.Shape, Data: slices.Clone(x.Data)}
				for k := range x.Data {
					if r.Float64() < share {
						inputs[i].Data[k] = odd[r.IntN(len(odd))]
					}
				}
				if x.Shape == nil {
					inputs[i] = x
				}
			}
			want, err := e.Eval(n, inputs)
			if err != nil {
				t.Fatal(err)
			}
			for _, class := range compare.Classes()[turn : turn+1] {
				b, err := e.Budget(n, inputs, want, compare.Arithmetic{Class: class})
				if err != nil {
					t.Fatal(err)
				}
				y := shapes.Tensor{Shape: want.Shape, Data: slices.Clone(want.Data)}
				for i, v := range y.Data {
					y.Data[i] = class.Round(v)
				}
				finite := slices.ContainsFunc(y.Data, func(v float32) bool { return v-v == 0 })
				if v := compare.Local(b, n, y); !v.Pass && finite {
					t.Errorf("%s, class %s: the truth itself: %v", n.Name, class, v)
				}
				for i := range inputs { // and through derived inputs
					budgets := make([]*compare.Budget, len(inputs))
					budgets[i] = &compare.Budget{Want: inputs[i], Class: class}
					if inputs[i].Shape == nil {
						continue
					}
					if _, err := e.BudgetDerived(n, inputs, budgets, want, compare.Arithmetic{Class: class}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// broken are weights that cannot be read.
type broken struct{}

func (broken) Read(string, int, []float32) error { return errBroken }

var errBroken = errors.New("broken")

// TestUnreadableWeights: a weight that cannot be read is an error of the node that has it.
func TestUnreadableWeights(t *testing.T) {
	c := config(t, "tiny-1.6")
	in := prompt(t, c, shapes.Size{H: 90, W: 60})
	values, _ := forward(t, c, checkpoint.Synthetic(c, 0), in)
	e, err := replay.New(c, broken{}, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range layerOf(c) {
		_, err := e.Eval(n, inputsOf(n, values))
		if (err != nil) != (len(n.Params) > 0) {
			t.Errorf("%s, %d parameters: %v", n.Name, len(n.Params), err)
		}
	}
}
