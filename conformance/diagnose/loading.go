package diagnose

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// loading are the bugs of the configuration and of the weights: C.
func loading() []Bug {
	var bugs []Bug
	for _, theta := range []float64{10000, 50000, 500000, 1e6} {
		bugs = append(bugs, Bug{ID: "C01", Name: fmt.Sprint(int(theta)), Text: fmt.Sprintf("rope_theta is %.0f", theta), Look: "rope_theta in config.json, and the default of the class that reads it",
			Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Only: func(s *Site) bool { return s.Config.Text.RopeTheta != theta },
			Make: func(s *Site) (*Alternative, error) {
				return s.prompted(func(c *shapes.Config, _ *shapes.Inputs) { c.Text.RopeTheta = theta })
			}})
	}
	for _, eps := range []float64{0, 1e-12, 1e-8, 1e-6, 1e-5} {
		set := func(s *Site) (*Alternative, error) { return s.as(func(n *shapes.Node) { n.Eps = eps }) }
		other := func(s *Site) bool { return s.Node.Eps != eps }
		bugs = append(bugs,
			Bug{ID: "C02", Name: fmt.Sprint(eps), Text: fmt.Sprintf("eps of the RMSNorm is %g", eps), Look: "rms_norm_eps in text_config; the class default of transformers is 1e-6", Kinds: kinds(shapes.RMSNorm), Only: other, Make: set},
			Bug{ID: "C03", Name: fmt.Sprint(eps), Text: fmt.Sprintf("eps of the LayerNorm is %g", eps), Look: "layer_norm_eps in vision_config, 1e-5 unless it says otherwise", Kinds: kinds(shapes.LayerNorm), Only: other, Make: set})
	}
	feature := func(id, name, text, look string, layer func(s *Site) int) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.SelectFeatures), Make: func(s *Site) (*Alternative, error) {
			i := layer(s)
			if i < 0 || i > s.Config.Vision.NumHiddenLayers || i == s.Config.FeatureLayer() {
				return nil, nil
			}
			return s.insteadOf(0, hiddenState(i))
		}}
	}
	bugs = append(bugs,
		feature("C04", "", "the features are the output of the last vision layer, as vision_feature_layer -1 would have it", "which hidden state is selected; -2 is the output of the last layer but one",
			func(s *Site) int { return s.Config.Vision.NumHiddenLayers }),
		feature("C05", "", "the features are taken one vision layer too early", "hidden states are counted from 0, which is the output of pre_layrnorm",
			func(s *Site) int { return s.Config.FeatureLayer() - 1 }),
		feature("C06", "one less", "one vision layer less is run than the features need", "the number of layers that the converter or the loader keeps of the tower",
			func(s *Site) int { return s.Config.FeatureLayer() - 1 }),
		feature("C06", "one more", "one vision layer more is run than the features need", "the number of layers that the converter or the loader keeps of the tower",
			func(s *Site) int { return s.Config.FeatureLayer() + 1 }),
		feature("C06", "none", "the features are the tower's embeddings behind pre_layrnorm: no layer was run", "whether the loop over the vision layers runs at all",
			func(*Site) int { return 0 }),
		Bug{ID: "C07", Text: "lm_head uses the matrix of the embedding", Look: "tie_word_embeddings: it is false here, and lm_head.weight is in the checkpoint", Kinds: kinds(shapes.Linear), Only: leaves(shapes.LMHead),
			Make: func(s *Site) (*Alternative, error) {
				return s.as(func(n *shapes.Node) { n.Params[0] = shapes.TextModel + ".embed_tokens.weight" })
			}},
	)
	for _, by := range []int{-1, 1} {
		bugs = append(bugs,
			Bug{ID: "C08", Name: fmt.Sprintf("head %+d", by), Text: fmt.Sprintf("the rows of the vocabulary are shifted by %+d in lm_head", by), Look: "how the loader pads or cuts the vocabulary", Kinds: kinds(shapes.Linear), Only: leaves(shapes.LMHead),
				Make: func(s *Site) (*Alternative, error) {
					a, err := s.right()
					if err != nil {
						return nil, err
					}
					v := a.Want.Cols()
					return a.permuted(1, count(len(a.Want.Data), func(i int) int { return i/v*v + (i%v+by+v)%v }), a.Want.Shape), nil
				}},
			Bug{ID: "C08", Name: fmt.Sprintf("embedding %+d", by), Text: fmt.Sprintf("the rows of the vocabulary are shifted by %+d in embed_tokens", by), Look: "how the loader pads or cuts the vocabulary, and tokens that were added to it", Kinds: kinds(shapes.EmbedTokens),
				Make: func(s *Site) (*Alternative, error) {
					return s.prompted(func(c *shapes.Config, in *shapes.Inputs) {
						for i := range in.InputIDs {
							in.InputIDs[i] = (in.InputIDs[i] + by + c.Text.VocabSize) % c.Text.VocabSize
						}
					})
				}})
	}
	bugs = append(bugs,
		Bug{ID: "C10", Name: "not undone", Text: "rows are in GGUF's order: the two halves of each head interleaved", Look: "GGUF permutes q and k for its own RoPE; undo it, or pair neighbouring channels", Kinds: kinds(shapes.Linear), Only: textQKV,
			Make: func(s *Site) (*Alternative, error) { return s.headRows(s.headsOf(), ggufOrder) }},
		Bug{ID: "C10", Name: "undone twice", Text: "rows are put from GGUF's order into another one though they were not in it", Look: "whether the file is a GGUF at all, and whether v is left out of it", Kinds: kinds(shapes.Linear), Only: textQKV,
			Make: func(s *Site) (*Alternative, error) { return s.headRows(s.headsOf(), hfOrder) }},
		Bug{ID: "C10", Name: "heads", Text: "GGUF's order of rows is undone with the number of query heads", Look: "k has num_key_value_heads heads, not num_attention_heads", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool {
			return s.text() && s.is("k_proj") && s.Config.Text.NumAttentionHeads != s.Config.Text.NumKeyValueHeads && s.Config.Text.HeadDim*s.Config.Text.NumKeyValueHeads/s.Config.Text.NumAttentionHeads%2 == 0
		}, Make: func(s *Site) (*Alternative, error) {
			// Permuted by the writer with its own heads, undone with the others.
			a, err := s.headRows(s.Config.Text.NumKeyValueHeads, ggufOrder)
			if err != nil {
				return nil, err
			}
			width := a.Want.Cols()
			return a.permuted(1, spread(len(a.Want.Data), width, heads(width, s.Config.Text.NumAttentionHeads, hfOrder)), a.Want.Shape), nil
		}},
		Bug{ID: "C11", Text: "the weights of fc1 and fc2 are exchanged", Look: "GGUF's legacy mmproj names: ffn_down is fc1 and ffn_up is fc2", Kinds: kinds(shapes.Linear), Only: leaves("mlp.fc1", "mlp.fc2"),
			Make: func(s *Site) (*Alternative, error) {
				other := strings.Replace(s.Node.Params[0], ".fc1.", ".fc9.", 1)
				other = strings.Replace(other, ".fc2.", ".fc1.", 1)
				other = strings.Replace(other, ".fc9.", ".fc2.", 1)
				t, err := s.param(other)
				if err != nil {
					return nil, err
				}
				return s.weighted(0, func(_ []int, w []float32) { copy(w, t.Data) })
			}},
		Bug{ID: "C13", Text: "the weight is read transposed", Look: "the checkpoint has [out, in]; a square matrix does not complain", Kinds: kinds(shapes.Linear),
			Make: func(s *Site) (*Alternative, error) {
				return s.weighted(0, func(shape []int, w []float32) {
					t := make([]float32, len(w))
					for i, v := range w { // the values in memory order, read as [in, out]
						t[i%shape[0]*shape[1]+i/shape[0]] = v
					}
					copy(w, t)
				})
			}},
		exchanged("C14", "gate_proj", "up_proj", "gate_proj and up_proj are exchanged", "the names w1 and w3, or the order in a fused gate_up matrix"),
		exchangedNorms("C15", "input_layernorm", "post_attention_layernorm"),
		exchangedNorms("C15", "layer_norm1", "layer_norm2"),
		Bug{ID: "C18", Name: "flushed", Text: "weights below the smallest normal float16 are read as 0", Look: "subnormals where float16 is widened", Kinds: kinds(shapes.Linear, shapes.PatchEmbedding), Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(_ []int, w []float32) {
				for i, v := range w {
					if math.Abs(float64(v)) < 0x1p-14 {
						w[i] = 0
					}
				}
			})
		}},
		Bug{ID: "C18", Name: "bf16 as f16", Text: "the bits of bfloat16 are read as float16", Look: "the dtype of the tensor in the checkpoint", Kinds: kinds(shapes.Linear), Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(_ []int, w []float32) {
				for i, v := range w {
					w[i] = halfBits(uint16(math.Float32bits(v) >> 16))
				}
			})
		}},
		Bug{ID: "C19", Text: "the weight is all zeros", Look: "whether a prefix rule lost it when the checkpoint was loaded", Kinds: kinds(shapes.Linear),
			Make: func(s *Site) (*Alternative, error) {
				return s.weighted(0, func(_ []int, w []float32) { clear(w) })
			}},
	)
	for _, by := range []int{-1, 1} {
		bugs = append(bugs, Bug{ID: "C20", Name: fmt.Sprintf("%+d", by), Text: fmt.Sprintf("the parameters of layer i%+d stand in layer i", by), Look: "from what number the layers are counted where names are mapped", Kinds: kinds(shapes.Linear, shapes.LayerNorm, shapes.RMSNorm),
			Make: func(s *Site) (*Alternative, error) {
				names, ok := s.neighbours(by)
				if !ok {
					return nil, nil
				}
				return s.as(func(n *shapes.Node) { n.Params = names })
			}})
	}
	bugs = append(bugs,
		Bug{ID: "C22", Text: "the columns of o_proj stand in the order of groups, not of key heads: query head h meets those of head h mod (H/K) K + h / (H/K)", Look: "head h = k H/K + g: key heads are the outer index of the columns of o_proj as well", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool { return s.text() && s.is("o_proj") },
			Make: func(s *Site) (*Alternative, error) {
				t := s.Config.Text
				keys, group := t.NumKeyValueHeads, t.NumAttentionHeads/t.NumKeyValueHeads
				// Block b = g K + k of the columns meets head k H/K + g.
				return s.reading(columns(s.Inputs[0], count(s.Inputs[0].Cols(), func(i int) int {
					b := i / t.HeadDim
					return (b%keys*group+b/keys)*t.HeadDim + i%t.HeadDim
				})))
			}},
		Bug{ID: "C23", Name: "groups as blocks", Text: "a fused matrix of q, k and v that is grouped by key heads is cut into three blocks", Look: "the order of rows in the fused matrix: for each key head its query heads, the key head, its values", Kinds: kinds(shapes.Linear), Only: textQKV,
			Make: func(s *Site) (*Alternative, error) { return s.fused(grouped, blocks) }},
		Bug{ID: "C23", Name: "blocks as groups", Text: "a fused matrix of q, k and v in three blocks is cut as if it were grouped by key heads", Look: "the order of rows in the fused matrix: all query heads, all key heads, all values", Kinds: kinds(shapes.Linear), Only: textQKV,
			Make: func(s *Site) (*Alternative, error) { return s.fused(blocks, grouped) }},
	)
	for _, pair := range [][2]string{{"q_proj", "k_proj"}, {"q_proj", "v_proj"}, {"k_proj", "v_proj"}} {
		bugs = append(bugs, exchanged("C21", pair[0], pair[1], pair[0]+" and "+pair[1]+" are exchanged", "the order in a fused qkv matrix"))
	}
	return bugs
}

// exchanged is a bug of two linear layers that have one another's parameters.
func exchanged(id, a, b, text, look string) Bug {
	return Bug{ID: id, Name: a + ", " + b, Text: text, Look: look, Kinds: kinds(shapes.Linear), Only: leaves(a, b), Make: func(s *Site) (*Alternative, error) {
		return s.swappedParams(a, b)
	}}
}

func exchangedNorms(id, a, b string) Bug {
	return Bug{ID: id, Name: a, Text: "the parameters of " + a + " and " + b + " are exchanged", Look: "the names that the two norms of a layer are mapped to", Kinds: kinds(shapes.RMSNorm, shapes.LayerNorm), Only: leaves(a, b), Make: func(s *Site) (*Alternative, error) {
		return s.swappedParams(a, b)
	}}
}

// swappedParams evaluates the node with the parameters of its partner, if they have the same shapes.
func (s *Site) swappedParams(a, b string) (*Alternative, error) {
	from, to := "."+a+".", "."+b+"."
	if !s.is(a) {
		from, to = to, from
	}
	names := make([]string, len(s.Node.Params))
	for i, name := range s.Node.Params {
		names[i] = strings.Replace(name, from, to, 1)
		have, want := s.graph.params[names[i]], s.graph.params[name]
		if names[i] == name || have.Name == "" || !sameShape(have.Shape, want.Shape) {
			return nil, nil
		}
	}
	return s.as(func(n *shapes.Node) { n.Params = names })
}

func sameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

var layerNumber = regexp.MustCompile(`\.layers\.(\d+)\.`)

// neighbours are the node's parameters in another layer, if there is one.
func (s *Site) neighbours(by int) ([]string, bool) {
	names := make([]string, len(s.Node.Params))
	for i, name := range s.Node.Params {
		at := layerNumber.FindStringSubmatchIndex(name)
		if at == nil {
			return nil, false
		}
		k, err := strconv.Atoi(name[at[2]:at[3]])
		if err != nil {
			return nil, false
		}
		names[i] = name[:at[2]] + strconv.Itoa(k+by) + name[at[3]:]
		if _, ok := s.graph.params[names[i]]; !ok {
			return nil, false
		}
	}
	return names, len(names) > 0
}

// hiddenState is the node of the tower's hidden state i.
func hiddenState(i int) string {
	if i == 0 {
		return shapes.VisionTower + ".pre_layrnorm"
	}
	return shapes.VisionLayer(i - 1)
}

// insteadOf evaluates the node with another of the engine's values in the place of input i.
func (s *Site) insteadOf(i int, node string) (*Alternative, error) {
	t, ok := s.Shown(node)
	if !ok || !sameShape(t.Shape, s.Inputs[i].Shape) {
		return nil, nil
	}
	in := append([]shapes.Tensor(nil), s.Inputs...)
	in[i] = t
	return s.reading(in...)
}

func textQKV(s *Site) bool { return s.text() && s.is("q_proj", "k_proj", "v_proj") }

// headsOf is how many heads stand side by side in the output of a projection.
func (s *Site) headsOf() int {
	switch {
	case s.vision():
		return s.Config.Vision.NumAttentionHeads
	case s.is("q_proj"):
		return s.Config.Text.NumAttentionHeads
	}
	return s.Config.Text.NumKeyValueHeads
}

// ggufOrder says which row of a head of n stands at place j in GGUF's order: the two halves interleaved.
func ggufOrder(j, n int) int { return j%2*(n/2) + j/2 }

// hfOrder undoes it: from interleaved to halves.
func hfOrder(j, n int) int { return j%(n/2)*2 + j/(n/2) }

// heads is the order of all columns of which each head is reordered.
func heads(width, n int, order func(j, n int) int) []int {
	each := width / n
	return count(width, func(i int) int { return i/each*each + order(i%each, each) })
}

// spread repeats an order of columns for every row.
func spread(size, width int, order []int) []int {
	return count(size, func(i int) int { return i/width*width + order[i%width] })
}

// place is a head of q_proj, k_proj or v_proj: 0, 1 or 2.
type place struct{ projection, head int }

// blocks is the order of heads in a fused matrix of three blocks.
func blocks(heads, keys int) []place {
	var order []place
	for i, n := range []int{heads, keys, keys} {
		for h := range n {
			order = append(order, place{i, h})
		}
	}
	return order
}

// grouped is the order of heads in a fused matrix that is grouped by key heads.
func grouped(heads, keys int) []place {
	var order []place
	for k := range keys {
		for g := range heads / keys {
			order = append(order, place{0, k*(heads/keys) + g})
		}
		order = append(order, place{1, k}, place{2, k})
	}
	return order
}

// fused is q_proj, k_proj or v_proj cut out of a matrix that was put together in one order of heads and is read in another.
func (s *Site) fused(written, read func(heads, keys int) []place) (*Alternative, error) {
	t := s.Config.Text
	leaf := []string{"q_proj", "k_proj", "v_proj"}
	mine := slices.IndexFunc(leaf, func(l string) bool { return s.is(l) })
	base := strings.TrimSuffix(s.Node.Name, leaf[mine])
	parts := make([]*Alternative, len(leaf))
	for i, l := range leaf {
		n, ok := s.graph.nodes[base+l]
		if !ok || len(n.Inputs) != 1 || n.Inputs[0] != s.Node.Inputs[0] {
			return nil, nil
		}
		var err error
		if parts[i], err = s.run(s.eval, n, s.Inputs); err != nil {
			return nil, err
		}
	}
	from := map[place]place{}
	in, out := written(t.NumAttentionHeads, t.NumKeyValueHeads), read(t.NumAttentionHeads, t.NumKeyValueHeads)
	for i, p := range out {
		from[p] = in[i]
	}
	shape := parts[mine].Want.Shape
	pick := func(of func(i int) []float32) []float32 {
		lists := make([][]float32, len(parts))
		for i := range lists {
			if lists[i] = of(i); lists[i] == nil {
				return nil
			}
		}
		y := make([]float32, len(parts[mine].Want.Data))
		width := shape[len(shape)-1]
		for j := range y {
			p := from[place{mine, j % width / t.HeadDim}]
			other := parts[p.projection].Want.Cols()
			y[j] = lists[p.projection][j/width*other+p.head*t.HeadDim+j%t.HeadDim]
		}
		return y
	}
	return joined(parts, parts[mine].node, shape, pick), nil
}

// joined is a result of which each value is that of one of several others; pick chooses among lists of them.
func joined(parts []*Alternative, n shapes.Node, shape []int, pick func(of func(i int) []float32) []float32) *Alternative {
	want := shapes.Tensor{Shape: shape, Data: pick(func(i int) []float32 { return parts[i].Want.Data })}
	return &Alternative{Want: want, node: n, budget: func() (compare.Budget, error) {
		budgets := make([]compare.Budget, len(parts))
		for i := range budgets {
			var err error
			if budgets[i], err = parts[i].budget(); err != nil {
				return budgets[i], err
			}
		}
		b := budgets[0]
		b.Want = want
		b.Acc, b.AccRMS = pick(func(i int) []float32 { return budgets[i].Acc }), pick(func(i int) []float32 { return budgets[i].AccRMS })
		b.Sto, b.StoRMS = pick(func(i int) []float32 { return budgets[i].Sto }), pick(func(i int) []float32 { return budgets[i].StoRMS })
		return b, nil
	}}
}

// headRows is the layer with the rows of each head of its weight in another order.
func (s *Site) headRows(n int, order func(j, n int) int) (*Alternative, error) {
	a, err := s.right()
	if err != nil {
		return nil, err
	}
	width := a.Want.Cols()
	return a.permuted(1, spread(len(a.Want.Data), width, heads(width, n, order)), a.Want.Shape), nil
}

// halfBits widens the bits of a float16.
func halfBits(h uint16) float32 {
	sign, e, m := 1.0, int(h>>10&31), float64(h&1023)
	if h>>15 == 1 {
		sign = -1
	}
	switch e {
	case 0:
		return float32(sign * math.Ldexp(m, -24))
	case 31:
		return float32(sign * 65504) // finite, so that there is something to compare
	}
	return float32(sign * math.Ldexp(1024+m, e-25))
}

// layerNormed is LayerNorm of a tensor with other parameters, and its limits.
func (s *Site) layerNormed(x shapes.Tensor, module string) (*Alternative, error) {
	n := s.graph.nodes[shapes.VisionTower+".pre_layrnorm"]
	n.Params = []string{module + ".weight", module + ".bias"}
	return s.run(s.eval, n, []shapes.Tensor{x})
}
