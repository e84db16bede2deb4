package diagnose

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

func half(v float32) float32 { return compare.F16.Round(v) }

// decoder are the bugs of the language model: L.
func decoder() []Bug {
	// A rotation with other tables is the right one of those: it rounds as that does.
	rope := func(id, name, text, look string, tables func(s *Site) (cos, sin shapes.Tensor)) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.Rope), Make: func(s *Site) (*Alternative, error) {
			cos, sin := tables(s)
			return s.reading(s.Inputs[0], cos, sin)
		}}
	}
	table := func(id, name, text, look string, angle func(s *Site, position, i int) float64) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Make: func(s *Site) (*Alternative, error) {
			return s.table(angle, func(x float64) float32 { return float32(x) })
		}}
	}
	// The same with frequencies that a port may compute by another formula, of two roundings more.
	formula := func(id, name, text, look string, angle func(s *Site, position, i int) float64) Bug {
		b := table(id, name, text, look, angle)
		b.Make = func(s *Site) (*Alternative, error) {
			a, err := s.table(angle, func(x float64) float32 { return float32(x) })
			if err != nil {
				return nil, err
			}
			return s.loosened(a, angle), nil
		}
		return b
	}
	exact := func(s *Site, i int) float64 {
		return float64(float32(1) / float32(math.Pow(s.Config.Text.RopeTheta, 2*float64(i)/float64(s.Config.Text.HeadDim))))
	}
	rounded := func(name string, class compare.Class) []Bug {
		return []Bug{
			table("L10", name, "the angles are computed in "+name, "angles in float32 even where the model is in "+name, func(s *Site, position, i int) float64 {
				return float64(class.Round(class.Round(float32(position)) * class.Round(float32(exact(s, i)))))
			}),
			table("L10", "frequencies in "+name, "the inverse frequencies are rounded to "+name, "a model that is cast as a whole casts its buffer inv_freq too", func(s *Site, position, i int) float64 {
				return float64(float32(position) * class.Round(float32(exact(s, i))))
			}),
			{ID: "L10", Name: "positions in " + name, Text: "the positions are rounded to " + name, Look: "integers beyond 256 are not numbers of bfloat16", Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Make: func(s *Site) (*Alternative, error) {
				return s.table(func(s *Site, position, i int) float64 {
					return float64(class.Round(float32(position)) * float32(exact(s, i)))
				}, func(x float64) float32 { return float32(x) })
			}},
		}
	}
	wired := func(id, name, text, look string, kind shapes.Kind, only func(s *Site) bool, input int, instead func(s *Site) string) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(kind), Only: only, Make: func(s *Site) (*Alternative, error) {
			node := instead(s)
			if node == "" {
				return nil, nil
			}
			return s.insteadOf(input, node)
		}}
	}
	rms := func(id, text, look string, statistics func(x []float32, eps float64) (float64, float64), plus float64) Bug {
		return Bug{ID: id, Text: text, Look: look, Kinds: kinds(shapes.RMSNorm), Make: func(s *Site) (*Alternative, error) {
			return s.normed(func(x []float32) (float64, float64) { return statistics(x, s.Node.Eps) }, plus)
		}}
	}
	square := func(x []float32) float64 {
		mean, variance := moments(x)
		return variance + mean*mean
	}
	bugs := []Bug{
		{ID: "L01", Text: "neighbouring channels are paired", Look: "channel j goes with channel j + Dh/2 in weights that are not reordered", Kinds: kinds(shapes.Rope), Make: func(s *Site) (*Alternative, error) {
			// The right rotation of channels that are put into halves, and back.
			width := s.Inputs[1].Cols()
			a, err := s.reading(columns(s.Inputs[0], count(s.Inputs[0].Cols(), func(j int) int { return j/width*width + hfOrder(j%width, width) })), s.Inputs[1], s.Inputs[2])
			if err != nil {
				return nil, err
			}
			return a.permuted(1, count(len(a.Want.Data), func(j int) int { return j/width*width + ggufOrder(j%width, width) }), a.Want.Shape), nil
		}},
		rope("L02", "", "the rotation goes the other way", "the sign in rotate_half: [-x[Dh/2:], x[:Dh/2]]", func(s *Site) (cos, sin shapes.Tensor) {
			return s.Inputs[1], shapes.Tensor{Shape: s.Inputs[2].Shape, Data: times(s.Inputs[2].Data, -1)}
		}),
		rope("L02", "no sign", "rotate_half has no sign", "[-x[Dh/2:], x[:Dh/2]]", func(s *Site) (cos, sin shapes.Tensor) {
			sin = shapes.Tensor{Shape: s.Inputs[2].Shape, Data: slices.Clone(s.Inputs[2].Data)}
			for i := range sin.Data {
				if i%sin.Cols() < sin.Cols()/2 {
					sin.Data[i] = -sin.Data[i]
				}
			}
			return s.Inputs[1], sin
		}),
		rope("L03", "", "sine and cosine are exchanged", "the order of the two tables", func(s *Site) (cos, sin shapes.Tensor) { return s.Inputs[2], s.Inputs[1] }),
		{ID: "L05", Text: "nothing is rotated", Look: "whether RoPE is applied to both q and k", Kinds: kinds(shapes.Rope), Make: func(s *Site) (*Alternative, error) {
			width := s.Inputs[1].Cols()
			return s.moved(shapes.Tensor{Shape: []int{s.Inputs[0].Shape[0], s.Node.Heads, width}, Data: s.Inputs[0].Data})
		}},
		{ID: "L05", Name: "reset", Text: "the rotation starts at position 0 where the prompt says otherwise", Look: "position_ids", Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Make: func(s *Site) (*Alternative, error) {
			return s.prompted(func(_ *shapes.Config, in *shapes.Inputs) {
				for i := range in.PositionIDs {
					in.PositionIDs[i] = i
				}
			})
		}},
		{ID: "L04", Text: "the values are rotated too", Look: "RoPE belongs to q and k", Kinds: kinds(shapes.Context), Only: (*Site).text, Make: func(s *Site) (*Alternative, error) {
			cos, ok := s.Shown(shapes.NodeCos)
			sin, ok2 := s.Shown(shapes.NodeSin)
			v := s.Inputs[1]
			if !ok || !ok2 || cos.Rows() != v.Rows() {
				return nil, nil
			}
			r := rotated(v, cos, sin, func(in, cos, sin []float32, j int) float64 {
				return float64(in[j])*float64(cos[j]) + turned(in, j)*float64(sin[j])
			})
			r.Shape = v.Shape
			return s.reading(s.Inputs[0], r)
		}},
		{ID: "L04", Name: "in place", Text: "the values are rotated too, and shown so", Look: "RoPE belongs to q and k", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool { return s.text() && s.is("v_proj") }, Make: func(s *Site) (*Alternative, error) {
			cos, ok := s.Shown(shapes.NodeCos)
			sin, ok2 := s.Shown(shapes.NodeSin)
			if !ok || !ok2 || cos.Rows() != s.Inputs[0].Rows() || cos.Cols() != s.Config.Text.HeadDim || !slices.Equal(cos.Shape, sin.Shape) {
				return nil, nil
			}
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			turn := func(x shapes.Tensor) []float32 {
				return rotated(x, cos, sin, func(in, cos, sin []float32, j int) float64 {
					return float64(in[j])*float64(cos[j]) + turned(in, j)*float64(sin[j])
				}).Data
			}
			want := shapes.Tensor{Shape: a.Want.Shape, Data: turn(a.Want)}
			return &Alternative{Want: want, node: a.node, budget: func() (compare.Budget, error) {
				b, err := a.budget()
				if err != nil {
					return b, err
				}
				// What the projection may err goes through the rotation, which rounds three times more.
				through := func(x []float32) []float32 {
					if x == nil {
						return nil
					}
					y := rotated(shapes.Tensor{Shape: a.Want.Shape, Data: x}, cos, sin, func(in, cos, sin []float32, j int) float64 {
						return math.Abs(float64(in[j])*float64(cos[j])) + math.Abs(turned(in, j)*float64(sin[j]))
					}).Data
					size := rotated(a.Want, cos, sin, func(in, cos, sin []float32, j int) float64 {
						return math.Abs(float64(in[j])*float64(cos[j])) + math.Abs(turned(in, j)*float64(sin[j]))
					}).Data
					for i := range y {
						y[i] += size[i] * 0x3p-24
					}
					return y
				}
				b.Want, b.Acc, b.AccRMS, b.Sto, b.StoRMS = want, through(b.Acc), through(b.AccRMS), through(b.Sto), through(b.StoRMS)
				return b, nil
			}}, nil
		}},
		formula("L06", "i/Dh", "the exponent is i/Dh, not 2i/Dh: the frequencies of heads twice as wide", "the frequencies are theta^(-2i/Dh), i < Dh/2", func(s *Site, position, i int) float64 {
			return float64(float32(position) * (1 / float32(math.Pow(s.Config.Text.RopeTheta, float64(i)/float64(s.Config.Text.HeadDim)))))
		}),
		formula("L06", "half of Dh", "the frequencies are those of heads half as wide", "head_dim: hidden_size over num_attention_heads, unless the configuration says otherwise", func(s *Site, position, i int) float64 {
			return float64(float32(position) * (1 / float32(math.Pow(s.Config.Text.RopeTheta, 4*float64(i)/float64(s.Config.Text.HeadDim)))))
		}),
		{ID: "L07", Text: "positions are counted from 1", Look: "positions are counted from 0", Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Make: func(s *Site) (*Alternative, error) {
			return s.prompted(func(_ *shapes.Config, in *shapes.Inputs) {
				for i := range in.PositionIDs {
					in.PositionIDs[i]++
				}
			})
		}},
		{ID: "L08", Text: "an image counts as one position", Look: "positions go on behind the image by the number of its rows", Kinds: kinds(shapes.RotaryCos, shapes.RotarySin), Make: func(s *Site) (*Alternative, error) {
			return s.prompted(func(c *shapes.Config, in *shapes.Inputs) {
				at := -1
				for i, id := range in.InputIDs {
					if i == 0 || id != c.ImageTokenID || in.InputIDs[i-1] != c.ImageTokenID {
						at++
					}
					in.PositionIDs[i] = at
				}
			})
		}},
		table("L09", "", "the angles are computed in float64", "transformers' angles are products of float32", func(s *Site, position, i int) float64 {
			return float64(position) * math.Pow(s.Config.Text.RopeTheta, -2*float64(i)/float64(s.Config.Text.HeadDim))
		}),
		formula("L36", "", "the frequencies are scaled as for Llama 3.1, by 8 from a context of 8192", "rope_scaling: this model has none", func(s *Site, position, i int) float64 {
			return float64(float32(position) * float32(scaledAsLlama31(exact(s, i))))
		}),
		table("L37", "", "each angle is the one before times theta^(-2/Dh), in float32", "each frequency by itself, then times the position: products of products drift", func(s *Site, position, i int) float64 {
			step := float32(math.Pow(float64(float32(s.Config.Text.RopeTheta)), -2/float64(s.Config.Text.HeadDim)))
			angle := float32(position)
			for range i {
				angle *= step
			}
			return float64(angle)
		}),
		{ID: "L11", Text: "query head h meets key head h mod K", Look: "repeat_kv: query head h meets key head h / (H/K)", Kinds: kinds(shapes.Scores, shapes.Context), Only: func(s *Site) bool { return s.text() && s.Node.KVHeads > 1 && s.Node.KVHeads < s.Node.Heads },
			Make: func(s *Site) (*Alternative, error) {
				return s.keyHeads(func(h int) int { return h % s.Node.KVHeads })
			}},
		{ID: "L12", Text: "every query head meets the first key head", Look: "the number of key heads, and the stride between them", Kinds: kinds(shapes.Scores, shapes.Context), Only: func(s *Site) bool { return s.text() && s.Node.KVHeads > 1 },
			Make: func(s *Site) (*Alternative, error) { return s.keyHeads(func(int) int { return 0 }) }},
		masking("L14", "one ahead", "every position sees the next one too", func(i, j int) bool { return j <= i+1 }),
		masking("L14", "not itself", "no position sees itself", func(i, j int) bool { return j < i || i == 0 && j == 0 }),
		hiding("L14", "not itself, in the scores", "no position sees itself: the mask is in the scores", "the causal mask: query i sees keys j <= i", (*Site).text, func(i, j int) bool { return j < i || i == 0 && j == 0 }),
		masking("L15", "", "there is no mask", func(i, j int) bool { return true }),
		masking("L17", "", "the mask is upside down: positions see what comes after them", func(i, j int) bool { return j >= i }),
		hiding("L17", "in the scores", "the mask is upside down, in the scores", "the causal mask: query i sees keys j <= i", (*Site).text, func(i, j int) bool { return j >= i }),
		hiding("L35", "in the scores", "the scores see only 32 positions back: a sliding window", "the causal mask: query i sees keys j <= i", (*Site).text, func(i, j int) bool { return j > i-32 }),
		masking("L35", "", "positions see only 32 positions back: a sliding window", func(i, j int) bool { return j <= i && j > i-32 }),
		rms("L20", "the mean is subtracted: LayerNorm", "the kind of the norm", func(x []float32, eps float64) (float64, float64) {
			mean, variance := moments(x)
			return mean, 1 / math.Sqrt(variance+eps)
		}, 1),
		rms("L21", "the weight is 1 + w", "the weight is used as it is: this is no Gemma", func(x []float32, eps float64) (float64, float64) { return 0, 1 / math.Sqrt(square(x)+eps) }, 2),
		rms("L22", "eps is added outside of the root", "sqrt(mean + eps), not sqrt(mean) + eps", func(x []float32, eps float64) (float64, float64) { return 0, 1 / (math.Sqrt(square(x)) + eps) }, 1),
		rms("L23", "the sum of the squares is taken for their mean", "the mean over the width of the row", func(x []float32, eps float64) (float64, float64) {
			return 0, 1 / math.Sqrt(square(x)*float64(len(x))+eps)
		}, 1),
		{ID: "L24", Text: "the weight of the norm is not applied", Look: "whether the norm's weight was loaded", Kinds: kinds(shapes.RMSNorm), Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(_ []int, w []float32) {
				for i := range w {
					w[i] = 1
				}
			})
		}},
		wired("L26", "", "the activation is taken of up and not of gate", "down(SiLU(gate) * up): which of the two halves goes through SiLU", shapes.SiLU, nil, 0, func(s *Site) string {
			return strings.TrimSuffix(s.Node.Name, "act_fn") + "up_proj"
		}),
		wired("L26", "gate", "the product has gate in the place of up: SiLU(gate) * gate", "down(SiLU(gate) * up)", shapes.Mul, nil, 1, func(s *Site) string {
			return strings.TrimSuffix(s.Node.Name, "gated") + "gate_proj"
		}),
		wired("L27", "", "the gate has no activation: gate * up", "down(SiLU(gate) * up)", shapes.Mul, nil, 0, func(s *Site) string {
			return strings.TrimSuffix(s.Node.Name, "gated") + "gate_proj"
		}),
		{ID: "L27", Name: "sum", Text: "the gate is added and not multiplied", Look: "down(SiLU(gate) * up)", Kinds: kinds(shapes.Mul), Make: func(s *Site) (*Alternative, error) {
			return s.sum(1, 1)
		}},
		wired("L28", "", "attention and MLP are parallel: the MLP's norm reads the layer's input", "the MLP reads the residual stream behind the attention", shapes.RMSNorm, leaves("post_attention_layernorm"), 0, (*Site).layerInput),
		wired("L28", "vision", "attention and MLP are parallel: the MLP's norm reads the layer's input", "the MLP reads the residual stream behind the attention", shapes.LayerNorm, leaves("layer_norm2"), 0, (*Site).layerInput),
		{ID: "L29", Text: "the norm is missing", Look: "whether the norm is applied", Kinds: kinds(shapes.RMSNorm), Make: func(s *Site) (*Alternative, error) { return s.moved(s.Inputs[0]) }},
		{ID: "L29", Name: "twice", Text: "the norm is applied twice", Look: "whether both the model and the head apply the final norm", Kinds: kinds(shapes.RMSNorm, shapes.LayerNorm), Make: func(s *Site) (*Alternative, error) {
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			return s.reading(a.Want)
		}},
		{ID: "L30", Text: "lm_head reads the residual stream, without the last norm", Look: "the norm in front of lm_head", Kinds: kinds(shapes.Linear), Only: leaves(shapes.LMHead), Make: func(s *Site) (*Alternative, error) {
			return s.insteadOf(0, shapes.TextLayer(s.Config.Text.NumHiddenLayers-1))
		}},
		{ID: "L33", Text: "the residual is not added: the branch stands alone", Look: "the two inputs of the sum", Kinds: kinds(shapes.Add), Make: func(s *Site) (*Alternative, error) { return s.sum(0, 1) }},
		{ID: "L33", Name: "branch", Text: "the branch is not added: the residual stands alone", Look: "the two inputs of the sum", Kinds: kinds(shapes.Add), Make: func(s *Site) (*Alternative, error) { return s.sum(1, 0) }},
		{ID: "L33", Name: "difference", Text: "the branch is subtracted", Look: "the sign in the sum", Kinds: kinds(shapes.Add), Make: func(s *Site) (*Alternative, error) { return s.sum(1, -1) }},
		{ID: "L33", Name: "twice", Text: "the branch is added twice", Look: "a sum in place and another one behind it", Kinds: kinds(shapes.Add), Make: func(s *Site) (*Alternative, error) {
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			return s.reading(a.Want, s.Inputs[1])
		}},
		{ID: "L34", Text: "the residual is added to the norm's output and not to its input", Look: "pre-norm: the residual stream goes around the norm", Kinds: kinds(shapes.Add), Make: func(s *Site) (*Alternative, error) {
			return s.residualOf()
		}},
	}
	bugs = append(bugs, activationBugs(shapes.SiLU, "SiLU", "hidden_act of text_config is silu: x sigmoid(x)", map[string]string{"": "L25"})...)
	bugs = append(bugs, rounded("float16", compare.F16)...)
	return append(bugs, rounded("bfloat16", compare.BF16)...)
}

// scaledAsLlama31 is a frequency under rope_scaling of type llama3: factor 8, low 1, high 4, context 8192.
func scaledAsLlama31(frequency float64) float64 {
	length := 2 * math.Pi / frequency
	switch {
	case length < 8192/4:
		return frequency
	case length > 8192:
		return frequency / 8
	}
	smooth := (8192/length - 1) / (4 - 1)
	return (1-smooth)*frequency/8 + smooth*frequency
}

// turned is rotate_half: [-x[Dh/2:], x[:Dh/2]].
func turned(in []float32, j int) float64 {
	h := len(in) / 2
	if j < h {
		return -float64(in[j+h])
	}
	return float64(in[j-h])
}

// rotated computes each channel of each head from its head and the position's tables: [T, heads*Dh] -> [T, heads, Dh].
func rotated(x, cos, sin shapes.Tensor, f func(in, cos, sin []float32, j int) float64) shapes.Tensor {
	width := cos.Cols()
	y := shapes.NewTensor(x.Shape[0], len(x.Data)/x.Shape[0]/width, width)
	per := len(x.Data) / x.Shape[0]
	for i := range y.Data {
		t, j := i/per, i%width
		y.Data[i] = float32(f(x.Data[i-j:][:width], cos.Row(t), sin.Row(t), j))
	}
	return y
}

// table is a table of cosines or sines of other angles.
func (s *Site) table(angle func(s *Site, position, i int) float64, store func(x float64) float32) (*Alternative, error) {
	f := math.Cos
	if s.Node.Kind == shapes.RotarySin {
		f = math.Sin
	}
	width := s.Config.Text.HeadDim
	y := shapes.NewTensor(len(s.Prompt.PositionIDs), width)
	for t, p := range s.Prompt.PositionIDs {
		for i := range width / 2 {
			v := store(f(angle(s, p, i)))
			y.Row(t)[i], y.Row(t)[i+width/2] = v, v
		}
	}
	return s.value(y)
}

// loosened allows for two more roundings of each angle.
func (s *Site) loosened(a *Alternative, angle func(s *Site, position, i int) float64) *Alternative {
	slope := math.Sin
	if s.Node.Kind == shapes.RotarySin {
		slope = math.Cos
	}
	return &Alternative{Want: a.Want, node: a.node, budget: func() (compare.Budget, error) {
		b, err := a.budget()
		if err != nil {
			return b, err
		}
		b.Acc, b.AccRMS, b.Pool = slices.Clone(b.Acc), slices.Clone(b.AccRMS), compare.Whole
		if b.Acc == nil {
			b.Acc, b.AccRMS = make([]float32, len(a.Want.Data)), make([]float32, len(a.Want.Data))
		}
		for i := range a.Want.Data {
			width := a.Want.Cols()
			x := angle(s, s.Prompt.PositionIDs[i/width], i%width%(width/2))
			more := float32(math.Abs(x*slope(x)) * 0x1p-23)
			b.Acc[i] += more
			b.AccRMS[i] += more
		}
		return b, nil
	}}
}

// keyHeads evaluates an attention in which query head h meets the key head of its choice: once for each distance between the two, with
// the key heads rolled by it, and of each result the heads for which that is right.
func (s *Site) keyHeads(meets func(h int) int) (*Alternative, error) {
	heads, kv := s.Node.Heads, s.Node.KVHeads
	parts := make([]*Alternative, kv)
	for by := range kv {
		x := s.Inputs[1]
		per := len(x.Data) / x.Shape[0]
		width := per / kv
		in := []shapes.Tensor{s.Inputs[0], rows(x, width, count(x.Shape[0]*kv, func(i int) int { return i/kv*kv + (i%kv+by)%kv }))}
		var err error
		if parts[by], err = s.reading(in...); err != nil {
			return nil, err
		}
	}
	shape := parts[0].Want.Shape
	headOf := func(i int) int { return i / (shape[len(shape)-1] * shape[len(shape)-2]) } // Scores: [H, T, L]
	if s.Node.Kind == shapes.Context {
		each := shape[len(shape)-1] / heads
		headOf = func(i int) int { return i % shape[len(shape)-1] / each }
	}
	pick := func(of func(by int) []float32) []float32 {
		list := make([][]float32, kv)
		for by := range list {
			if list[by] = of(by); list[by] == nil {
				return nil
			}
		}
		y := make([]float32, len(list[0]))
		for i := range y {
			h := headOf(i)
			y[i] = list[((meets(h)-h/(heads/kv))%kv+kv)%kv][i]
		}
		return y
	}
	return joined(parts, s.Node, shape, pick), nil
}

// masking is a softmax under another mask: sees says whether query i sees key j. The scores that the right mask hides are computed from
// the engine's q and k.
func masking(id, name, text string, sees func(i, j int) bool) Bug {
	return Bug{ID: id, Name: name, Text: text, Look: "the causal mask: query i sees keys j <= i", Kinds: kinds(shapes.Softmax), Only: (*Site).text, Make: func(s *Site) (*Alternative, error) {
		scores, ok := s.graph.nodes[s.Node.Inputs[0]]
		if !ok || len(scores.Inputs) != 2 {
			return nil, nil
		}
		q, hasQ := s.Shown(scores.Inputs[0])
		k, hasK := s.Shown(scores.Inputs[1])
		if !hasQ || !hasK {
			return nil, nil
		}
		all, err := s.unmasked(scores, q, k)
		if err != nil {
			return nil, err
		}
		x := shapes.Tensor{Shape: s.Inputs[0].Shape, Data: slices.Clone(s.Inputs[0].Data)}
		t, l := x.Shape[1], x.Shape[2]
		for i := range x.Data {
			row, j := i/l%t+l-t, i%l
			switch {
			case !sees(row, j):
				x.Data[i] = float32(math.Inf(-1))
			case j > row:
				x.Data[i] = all.Data[i]
			}
		}
		n := s.Node
		n.Causal = false
		return s.run(s.eval, n, []shapes.Tensor{x})
	}}
}

// hiding is a mask in the scores that hides what the right one shows: sees says whether query i sees key j.
func hiding(id, name, text, look string, only func(s *Site) bool, sees func(i, j int) bool) Bug {
	return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.Scores), Only: only, Make: func(s *Site) (*Alternative, error) {
		a, err := s.right()
		if err != nil {
			return nil, err
		}
		want := shapes.Tensor{Shape: a.Want.Shape, Data: slices.Clone(a.Want.Data)}
		t, l := want.Shape[len(want.Shape)-2], want.Cols()
		for i := range want.Data {
			if !sees(i/l%t+l-t, i%l) {
				want.Data[i] = float32(math.Inf(-1))
			}
		}
		return &Alternative{Want: want, node: a.node, budget: func() (compare.Budget, error) {
			b, err := a.budget()
			b.Want = want
			return b, err
		}}, nil
	}}
}

// unmasked computes all scores of a text attention.
func (s *Site) unmasked(n shapes.Node, q, k shapes.Tensor) (shapes.Tensor, error) {
	if len(q.Shape) != 3 || len(k.Shape) != 3 || q.Shape[1] != n.Heads || k.Shape[1] != n.KVHeads || q.Shape[2] != k.Shape[2] {
		return shapes.Tensor{}, fmt.Errorf("diagnose: %s: q %v and k %v do not fit", n.Name, q.Shape, k.Shape)
	}
	width := q.Shape[2]
	y := shapes.NewTensor(n.Heads, q.Shape[0], k.Shape[0])
	for i := range y.Data {
		h, t, j := i/(q.Shape[0]*k.Shape[0]), i/k.Shape[0]%q.Shape[0], i%k.Shape[0]
		a, b := q.Data[(t*n.Heads+h)*width:][:width], k.Data[(j*n.KVHeads+h/(n.Heads/n.KVHeads))*width:][:width]
		sum := 0.0
		for d, v := range a {
			sum += float64(v) * float64(b[d])
		}
		y.Data[i] = float32(sum / math.Sqrt(float64(width)))
	}
	return y, nil
}

// sum is a times the first input plus b times the second.
func (s *Site) sum(a, b float64) (*Alternative, error) {
	y := shapes.NewTensor(s.Inputs[0].Shape...)
	for i, v := range s.Inputs[0].Data {
		y.Data[i] = float32(a*float64(v) + b*float64(s.Inputs[1].Data[i]))
	}
	if a == 0 || b == 0 {
		return s.moved(y)
	}
	return s.value(y)
}

// layerInput is the node that the layer of this one begins with: what its first sum adds to.
func (s *Site) layerInput() string {
	at := layerNumber.FindStringIndex(s.Node.Name)
	if at == nil {
		return ""
	}
	if n, ok := s.graph.nodes[s.Node.Name[:at[1]]+"residual_attn"]; ok {
		return n.Inputs[0]
	}
	return ""
}

// residualOf adds the branch to the output of the layer's norm.
func (s *Site) residualOf() (*Alternative, error) {
	layer := strings.TrimSuffix(s.Node.Name, ".residual_attn")
	norms := map[bool][]string{true: {"layer_norm1", "layer_norm2"}, false: {"input_layernorm", "post_attention_layernorm"}}[s.vision()]
	norm := layer + "." + norms[1]
	if strings.HasSuffix(s.Node.Name, ".residual_attn") {
		norm = layer + "." + norms[0]
	}
	return s.insteadOf(0, norm)
}
