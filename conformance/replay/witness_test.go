package replay_test

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

var (
	witness = flag.String("witness", "", "a folder that tools/gen-golden/witness_torch.py has written for the cases of tiny-1.6")
	declare = flag.String("class", "f32", "the class to judge it by")
)

// readWitness reads a witness's dump of one case.
func readWitness(folder string) (map[string]shapes.Tensor, error) {
	var index struct {
		Nodes map[string]struct {
			Offset int
			Shape  []int
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(folder, "values.bin"))
	if err != nil {
		return nil, err
	}
	values := map[string]shapes.Tensor{}
	for name, at := range index.Nodes {
		x := shapes.NewTensor(at.Shape...)
		if _, err := binary.Decode(raw[at.Offset:], binary.LittleEndian, x.Data); err != nil {
			return nil, err
		}
		values[name] = x
	}
	return values, nil
}

// TestWitness judges transformers' own model in float32, float16 or bfloat16, every node of every case, and counts what fails. docs/numerics.md has the commands
// and the counts.
func TestWitness(t *testing.T) {
	if *witness == "" {
		t.Skip("needs -witness: values that transformers has computed, some hundred MB")
	}
	class, err := compare.ParseClass(*declare)
	if err != nil {
		t.Fatal(err)
	}
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	w := checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)
	tensors, fails := map[string]int{}, map[string]int{}
	nearest := map[string]map[compare.Criterion]float64{}
	for _, name := range set.Cases() {
		c, err := set.Case(name)
		if err != nil {
			t.Fatal(err)
		}
		values, err := readWitness(filepath.Join(*witness, name))
		if err != nil {
			t.Fatal(err)
		}
		e, err := replay.New(set.Config, w, c.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		shown := observer{e, shapes.DimsOf(set.Config, c.Inputs), map[string]shapes.Node{}, values, map[string]*compare.Budget{}, compare.Arithmetic{Class: class}}
		for _, n := range shapes.Nodes(set.Config) {
			shown.nodes[n.Name] = n
		}
		note := func(view string, n shapes.Node, v compare.Verdict) {
			key := fmt.Sprintf("%s %s", view, n.Kind)
			tensors[view]++
			if !v.Pass {
				fails[view]++
				t.Errorf("%s: %s: %v", name, n.Name, v)
			}
			if nearest[key] == nil {
				nearest[key] = map[compare.Criterion]float64{}
			}
			for _, k := range v.Checks {
				nearest[key][k.Criterion] = max(nearest[key][k.Criterion], k.Ratio)
			}
		}
		for _, n := range shapes.Nodes(set.Config) {
			got, has := values[n.Name]
			if !has || !n.Present(shown.dims) {
				continue
			}
			b, err := shown.budget(n)
			if err != nil {
				t.Fatal(err)
			}
			note("local", n, compare.Local(b, n, got).Verdict)
			truth, has := c.Node(n.Name)
			if !has {
				continue
			}
			note("accumulated", n, compare.Accumulated(driftInput(truth, got, class)).Verdict)
		}
	}
	t.Logf("%s as %s: %v tensors, %v fail", *witness, class, tensors, fails)
	for _, key := range slices.Sorted(maps.Keys(nearest)) {
		line := fmt.Sprintf("%-28s", key)
		for _, c := range slices.Sorted(maps.Keys(nearest[key])) {
			line += fmt.Sprintf("  %s %.3g", c, nearest[key][c])
		}
		t.Log(line)
	}
	if tensors["local"] == 0 {
		t.Error("nothing was compared")
	}
}

// observer evaluates nodes on what an engine shows, and derives what it does not.
type observer struct {
	*replay.Evaluator
	dims    shapes.Dims
	nodes   map[string]shapes.Node
	values  map[string]shapes.Tensor
	derived map[string]*compare.Budget
	as      compare.Arithmetic
}

func (o observer) budget(n shapes.Node) (compare.Budget, error) {
	var inputs []shapes.Tensor
	var budgets []*compare.Budget
	for _, name := range n.Inputs {
		in, isNode := o.nodes[name]
		value, shown := o.values[name]
		var b *compare.Budget
		if isNode && !shown && in.Present(o.dims) {
			if o.derived[name] == nil {
				made, err := o.budget(in)
				if err != nil {
					return compare.Budget{}, err
				}
				o.derived[name] = &made
			}
			b = o.derived[name]
			value = b.Want
		}
		inputs, budgets = append(inputs, value), append(budgets, b)
	}
	want, err := o.Eval(n, inputs)
	if err != nil {
		return compare.Budget{}, err
	}
	return o.BudgetDerived(n, inputs, budgets, want, o.as)
}
