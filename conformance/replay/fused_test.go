package replay_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// chains are nodes that engines fuse: of each, only the last node's output is shown.
func chains() map[string][]string {
	layer := shapes.TextLayer(0)
	return map[string][]string{
		"attention, causal":     {nodeScores, nodeProbs, nodeContext},
		"attention, tower":      {nodeVScores, nodeVProbs, nodeVContext},
		"SiLU and gate":         {nodeSiLU, nodeMul},
		"rotary table and rope": {shapes.NodeCos, shapes.NodeSin, nodeRope},
		"query and rope":        {layer + ".self_attn.q_proj", nodeRope},
		"output and residual":   {layer + ".self_attn.o_proj", layer + ".residual_attn"},
		"residual and norm":     {layer + ".residual_attn", layer + ".post_attention_layernorm"},
		"norm and query":        {nodeRMS, layer + ".self_attn.q_proj"},
		"norm, fc1, activation": {shapes.VisionLayer(0) + ".layer_norm2", nodeFC1, nodeQuickGELU},
		"linear_1 and GELU":     {shapes.Projector + ".linear_1", nodeGELU},
		"patches and positions": {nodePatch, nodeEmbeddings},
	}
}

// chain is what an engine makes of fused nodes, and the verdict on it.
type chain struct {
	links []*scenario
}

func newChain(t testing.TB, nodes []string, class compare.Class, style string, seed uint64) chain {
	var c chain
	for _, n := range nodes {
		c.links = append(c.links, newScenario(t, tinyWidths(), n, class, style, seed))
	}
	return c
}

// emulate runs a kernel through the chain. Values between the nodes are stored only if the kernel stores every step.
func (c chain) emulate(k kernel) shapes.Tensor {
	made := map[string]shapes.Tensor{}
	var y shapes.Tensor
	for i, s := range c.links {
		link := *s
		link.inputs = slices.Clone(s.inputs)
		for j, name := range s.node.Inputs {
			if x, has := made[name]; has {
				link.inputs[j] = x
			}
		}
		inner := k
		if !k.stored && i < len(c.links)-1 {
			inner.round = func(_ compare.Class, x float32) float32 { return x }
		}
		y = emulate(&link, inner)
		made[s.node.Name] = y
	}
	return y
}

// judge derives what is not shown. fused says that the engine is known not to store it.
func (c chain) judge(t testing.TB, got shapes.Tensor, lanes compare.Lanes, fused bool) compare.LocalResult {
	t.Helper()
	values, budgets := map[string]shapes.Tensor{}, map[string]*compare.Budget{}
	for i, s := range c.links {
		e, err := replay.New(s.config, s, s.in)
		if err != nil {
			t.Fatal(err)
		}
		inputs, derived := slices.Clone(s.inputs), make([]*compare.Budget, len(s.inputs))
		for j, name := range s.node.Inputs {
			if x, has := values[name]; has {
				inputs[j], derived[j] = x, budgets[name]
			}
		}
		want, err := e.Eval(s.node, inputs)
		if err != nil {
			t.Fatal(err)
		}
		budget := e.BudgetDerived
		if fused && i < len(c.links)-1 {
			budget = e.FusedBudget
		}
		b, err := budget(s.node, inputs, derived, want, compare.Arithmetic{Class: s.class, Lanes: lanes})
		if err != nil {
			t.Fatal(err)
		}
		if i == len(c.links)-1 {
			return compare.Local(b, s.node, got)
		}
		values[s.node.Name], budgets[s.node.Name] = want, &b
	}
	panic("replay: a chain has nodes")
}

// TestFusedNodes lets engines hide what lies between the nodes of a chain: those that keep it in registers, and those that store it.
func TestFusedNodes(t *testing.T) {
	tensors := 0
	nearest := map[string]float64{}
	for seed := range uint64(*seeds) {
		style := styles()[int(seed)%len(styles())]
		for name, nodes := range chains() {
			for _, class := range compare.Classes() {
				c := newChain(t, nodes, class, style, seed)
				for i, k := range rightKernels() {
					if (i+int(seed))%4 != 0 { // each of them in its turn
						continue
					}
					for _, fused := range []bool{false, true} {
						if fused && k.stored {
							continue
						}
						tensors++
						r := c.judge(t, c.emulate(k), k.lanes, fused)
						if !r.Pass {
							t.Errorf("%s, %s, %s, seed %d, fused %v: %s: %v", name, class, style, seed, fused, k.name, r)
						}
						key := fmt.Sprintf("%-22s %-4s fused %v", name, class, fused)
						for _, check := range r.Checks {
							nearest[key] = max(nearest[key], check.Ratio)
						}
					}
				}
			}
		}
	}
	t.Logf("%d tensors", tensors)
	for _, key := range slices.Sorted(maps.Keys(nearest)) {
		t.Logf("%s %.3f", key, nearest[key])
	}
}

// TestFusedBugs plants bugs in chains of which only the end is shown. With -v it prints error over limit, the smallest of all tensors,
// first if what is hidden may have been stored, then if it is known not to be.
func TestFusedBugs(t *testing.T) {
	input := func(link, i int, f func(s *scenario, x shapes.Tensor)) func(links []*scenario) {
		return func(links []*scenario) {
			s := links[link]
			f(s, own(s.inputs, i))
		}
	}
	times := func(factor float32) func(s *scenario, x shapes.Tensor) {
		return func(s *scenario, x shapes.Tensor) {
			for i := range x.Data {
				x.Data[i] *= factor
			}
		}
	}
	keyHeads := func(links []*scenario) { otherHead(links[0], nil, nil) }
	bugs := []struct {
		chain, name, style, caught string
		plant                      func(links []*scenario)
		activation                 func(float64) float64
	}{
		{chain: "attention, causal", name: "key head h mod K", caught: all, plant: keyHeads},
		{chain: "attention, causal", name: "value head h mod K", caught: all, plant: func(links []*scenario) { otherHead(links[2], nil, nil) }},
		{chain: "attention, causal", name: "scores twice as large", caught: all, plant: input(0, 0, times(2))},
		{chain: "attention, causal", name: "scores 1 % larger", caught: "f32 f16", plant: input(0, 0, times(1.01))},
		{chain: "attention, causal", name: "keys one position late", caught: all, plant: input(0, 1, func(s *scenario, x shapes.Tensor) {
			row := x.Shape[1] * x.Shape[2]
			copy(x.Data[row:], slices.Clone(x.Data[:len(x.Data)-row]))
		})},
		{chain: "attention, tower", name: "scores scaled twice", caught: all, plant: input(0, 0, times(0.25))},
		{chain: "SiLU and gate", name: "gate and up swapped", caught: all, plant: func(links []*scenario) {
			links[0].inputs[0], links[1].inputs[1] = links[1].inputs[1], links[0].inputs[0]
		}},
		{chain: "rotary table and rope", name: "positions from 1", caught: all, plant: func(links []*scenario) {
			for _, s := range links {
				for i := range s.in.PositionIDs {
					s.in.PositionIDs[i]++
				}
			}
		}},
		{chain: "residual and norm", name: "eps 1e-6, small rows", style: small, caught: all, plant: func(links []*scenario) { links[1].node.Eps = 1e-6 }},
		{chain: "norm and query", name: "weight + 1", caught: all, plant: func(links []*scenario) {
			w := own(links[0].params, 0)
			for i := range w.Data {
				w.Data[i]++
			}
		}},
		{chain: "linear_1 and GELU", name: "tanh GELU", caught: "f32 f16", activation: tanhGELU},
		{chain: "norm, fc1, activation", name: "erf GELU", caught: "f32 f16", activation: erfGELU},
	}
	for _, b := range bugs {
		text := fmt.Sprintf("| %s | %s |", b.chain, b.name)
		for _, class := range compare.Classes() {
			least := [2]float64{compare.Worse, compare.Worse}
			for seed := range uint64(*seeds) {
				style := b.style
				if style == "" {
					style = normal
				}
				c := newChain(t, chains()[b.chain], class, style, seed)
				var broken chain
				for _, s := range c.links {
					e := *s
					e.inputs, e.params, e.in.PositionIDs = slices.Clone(s.inputs), slices.Clone(s.params), slices.Clone(s.in.PositionIDs)
					broken.links = append(broken.links, &e)
				}
				if b.plant != nil {
					b.plant(broken.links)
				}
				k := sane()
				y := broken.emulate(k)
				if b.activation != nil {
					last := len(broken.links) - 1
					x := chain{broken.links[:last]}.emulate(kernel{dot: k.dot, exp: k.exp, round: func(_ compare.Class, x float32) float32 { return x }})
					for i, v := range x.Data {
						y.Data[i] = class.Round(float32(b.activation(float64(v))))
					}
				}
				for i, fused := range []bool{false, true} {
					r := c.judge(t, y, k.lanes, fused)
					least[i] = min(least[i], r.Ratio)
					if r.Pass && slices.Contains(strings.Fields(b.caught), string(class)) {
						t.Errorf("%s: %s in class %s, seed %d, fused %v passed: %v", b.chain, b.name, class, seed, fused, r)
					}
				}
			}
			text += fmt.Sprintf(" %s, %s |", magnitude(least[0]), magnitude(least[1]))
		}
		t.Log(text)
	}
}
