package diagnose

import (
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// The activation functions that are taken for one another, and the kind of node whose rounding they have; "" is the node's own.
var activations = []struct {
	name string
	kind shapes.Kind
	f    func(x float64) float64
}{
	{"GELU with erf", shapes.GELU, func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }},
	{"GELU with tanh", shapes.GELU, func(x float64) float64 { return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) }},
	{"QuickGELU", shapes.QuickGELU, func(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }},
	{"SiLU", shapes.SiLU, func(x float64) float64 { return x / (1 + math.Exp(-x)) }},
	{"ReLU", "", func(x float64) float64 { return max(x, 0) }},
	{"QuickGELU with 1.7", shapes.QuickGELU, func(x float64) float64 { return x / (1 + math.Exp(-1.7*x)) }},
	{"no function at all", "", func(x float64) float64 { return x }},
}

// activationBugs are the wrong functions at nodes of one kind. ids gives the id of each; functions that are not in it have the id of "".
func activationBugs(kind shapes.Kind, right, look string, ids map[string]string) []Bug {
	var bugs []Bug
	for _, a := range activations {
		if a.name == right {
			continue
		}
		id, ok := ids[a.name]
		if !ok {
			id = ids[""]
		}
		bugs = append(bugs, Bug{ID: id, Name: a.name, Text: "the activation is " + a.name + ", not " + right, Look: look, Kinds: kinds(kind),
			Make: func(s *Site) (*Alternative, error) { return s.each(a.kind, a.f) }})
	}
	return bugs
}

// tower are the bugs of the vision tower: V.
func tower() []Bug {
	patch := func(id, name, text, look string, from func(c, y, x, channels, p int) (int, int, int)) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: kinds(shapes.PatchEmbedding), Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(shape []int, w []float32) {
				channels, p := shape[1], shape[2]
				size := channels * p * p
				old := slices.Clone(w)
				for d := range shape[0] {
					for i := range size {
						c, y, x := from(i/(p*p), i/p%p, i%p, channels, p)
						w[d*size+i] = old[d*size+(c*p+y)*p+x]
					}
				}
			})
		}}
	}
	swapPatches := func(s *Site) (*Alternative, error) {
		x := s.Inputs[0]
		side := x.Shape[3]
		return s.reading(rows(x, 1, count(len(x.Data), func(i int) int { return i/(side*side)*side*side + i%side*side + i/side%side })))
	}
	bugs := []Bug{
		patch("V01", "", "a patch is flattened as (row, column, channel), the kernel as (channel, row, column)", "the layout of im2col against that of the convolution's weight", func(c, y, x, channels, p int) (int, int, int) {
			// The pixel (c, y, x) stands at (y p + x) channels + c, and meets the weight there.
			at := (y*p+x)*channels + c
			return at / (p * p), at / p % p, at % p
		}),
		patch("V01", "kernel as (row, column, channel)", "the kernel is reordered to (row, column, channel), a patch flattened as (channel, row, column)", "the layout of im2col against that of the convolution's weight", func(c, y, x, channels, p int) (int, int, int) {
			at := (c*p+y)*p + x
			return at % channels, at / (channels * p), at / channels % p
		}),
		patch("V18", "transposed", "rows and columns of the patch kernel are exchanged", "the layout of the convolution's weight", func(c, y, x, _, _ int) (int, int, int) { return c, x, y }),
		patch("V18", "mirrored", "the patch kernel is mirrored in both directions: a convolution as in mathematics", "torch's conv2d does not mirror", func(c, y, x, _, p int) (int, int, int) { return c, p - 1 - y, p - 1 - x }),
		patch("P28", "", "the colours meet the filters of BGR", "the order of the channels", func(c, y, x, channels, _ int) (int, int, int) { return channels - 1 - c, y, x }),
		{ID: "V03", Text: "patches are taken column by column", Look: "the order in which the grid of patches becomes positions", Kinds: kinds(shapes.VisionEmbeddings), Make: swapPatches},
		{ID: "V04", Text: "the class token stands at the end", Look: "where the class token is joined to the patches", Kinds: kinds(shapes.VisionEmbeddings), Make: func(s *Site) (*Alternative, error) {
			return s.embedded(func(position, last int) (patch, place int) {
				if position == last {
					return -1, position
				}
				return position, position
			})
		}},
		{ID: "V06", Name: "class token without", Text: "positions are added before the class token is put in front: each patch has the position of the one before", Look: "the order of adding positions and joining the class token", Kinds: kinds(shapes.VisionEmbeddings), Make: func(s *Site) (*Alternative, error) {
			return s.embedded(func(position, last int) (patch, place int) {
				if position == 0 {
					return -1, -1
				}
				return position - 1, position - 1
			})
		}},
		{ID: "V06", Name: "rolled", Text: "the patches are one position off", Look: "the order of adding positions and joining the class token", Kinds: kinds(shapes.VisionEmbeddings), Make: func(s *Site) (*Alternative, error) {
			return s.embedded(func(position, last int) (patch, place int) {
				if position == 0 {
					return -1, 0
				}
				return (position - 2 + last) % last, position
			})
		}},
		{ID: "V19", Text: "no positions are added", Look: "whether position_embedding was loaded and is used", Kinds: kinds(shapes.VisionEmbeddings), Make: func(s *Site) (*Alternative, error) {
			return s.embedded(func(position, last int) (patch, place int) { return position - 1, -1 })
		}},
		{ID: "V20", Text: "the class token is all zeros", Look: "whether class_embedding was loaded", Kinds: kinds(shapes.VisionEmbeddings), Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(_ []int, w []float32) { clear(w) })
		}},
		{ID: "V07", Text: "the norm is skipped", Look: "whether the norm is applied; CLIP's pre_layrnorm is spelt so in the checkpoint", Kinds: kinds(shapes.LayerNorm), Only: func(s *Site) bool { return !s.is("post_layernorm") },
			Make: func(s *Site) (*Alternative, error) { return s.moved(s.Inputs[0]) }},
		{ID: "V08", Text: "post_layernorm is applied to the features", Look: "the features are hidden states as they are; post_layernorm belongs to the pooled output", Kinds: kinds(shapes.SelectFeatures), Make: func(s *Site) (*Alternative, error) {
			a, err := s.layerNormed(s.Inputs[0], shapes.VisionTower+".post_layernorm")
			if err != nil {
				return nil, err
			}
			first := 0
			if s.Config.SelectStrategy != shapes.SelectFull {
				first = 1
			}
			n, positions, width := a.Want.Shape[0], a.Want.Shape[1], a.Want.Shape[2]
			kept := positions - first
			b := a.permuted(width, count(n*kept, func(i int) int { return i/kept*positions + first + i%kept }), []int{n, kept, width})
			b.node = s.Node
			return b, nil
		}},
		{ID: "V09", Name: "kept", Text: "the class token is kept among the features", Look: "vision_feature_select_strategy default drops position 0", Kinds: kinds(shapes.SelectFeatures), Only: drops,
			Make: func(s *Site) (*Alternative, error) { return s.moved(s.Inputs[0]) }},
		{ID: "V09", Name: "last", Text: "the last position is dropped and not the class token", Look: "the class token is position 0", Kinds: kinds(shapes.SelectFeatures), Only: drops, Make: func(s *Site) (*Alternative, error) {
			n, positions, width := s.Inputs[0].Shape[0], s.Inputs[0].Shape[1], s.Inputs[0].Shape[2]
			y := rows(s.Inputs[0], width, count(n*(positions-1), func(i int) int { return i/(positions-1)*positions + i%(positions-1) }))
			y.Shape[1]--
			return s.moved(y)
		}},
		{ID: "V09", Name: "rolled", Text: "the last position stands first", Look: "which end of the positions the class token is cut from", Kinds: kinds(shapes.SelectFeatures), Only: drops, Make: func(s *Site) (*Alternative, error) {
			n, positions, width := s.Inputs[0].Shape[0], s.Inputs[0].Shape[1], s.Inputs[0].Shape[2]
			kept := positions - 1
			y := rows(s.Inputs[0], width, count(n*kept, func(i int) int { return i/kept*positions + (i%kept+kept)%positions }))
			y.Shape[1]--
			return s.moved(y)
		}},
		{ID: "V13", Text: "the tower has a causal mask", Look: "the tower's attention sees every position of its tile", Kinds: kinds(shapes.Softmax), Only: (*Site).vision, Make: func(s *Site) (*Alternative, error) {
			x := shapes.Tensor{Shape: s.Inputs[0].Shape, Data: slices.Clone(s.Inputs[0].Data)}
			for i := range x.Data {
				if l := x.Cols(); i%l > i/l%x.Shape[2] {
					x.Data[i] = float32(math.Inf(-1))
				}
			}
			return s.reading(x)
		}},
		hiding("V13", "in the scores", "the tower has a causal mask, in the scores", "the tower's attention sees every position of its tile", (*Site).vision, func(i, j int) bool { return j <= i }),
		{ID: "V15", Text: "the bias is missing", Look: "whether the bias was loaded and is added", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool { return s.vision() && len(s.Node.Params) > 1 },
			Make: func(s *Site) (*Alternative, error) {
				return s.as(func(n *shapes.Node) { n.Params = n.Params[:1] })
			}},
		{ID: "V16", Text: "the bias is added twice", Look: "a bias in the matrix product and another one behind it", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool { return len(s.Node.Params) > 1 },
			Make: func(s *Site) (*Alternative, error) {
				return s.weighted(1, func(_ []int, w []float32) {
					for i := range w {
						w[i] *= 2
					}
				})
			}},
		{ID: "V17", Text: "the variance is divided by n - 1", Look: "torch's LayerNorm divides by n", Kinds: kinds(shapes.LayerNorm), Make: func(s *Site) (*Alternative, error) {
			return s.normed(func(x []float32) (mean, scale float64) {
				mean, square := moments(x)
				n := float64(len(x))
				return mean, 1 / math.Sqrt(square*n/(n-1)+s.Node.Eps)
			}, 1)
		}},
		{ID: "V21", Text: "the mean is not subtracted: RMSNorm", Look: "the kind of the norm", Kinds: kinds(shapes.LayerNorm), Make: func(s *Site) (*Alternative, error) {
			return s.normed(func(x []float32) (mean, scale float64) {
				mean, square := moments(x)
				return 0, 1 / math.Sqrt(square+mean*mean+s.Node.Eps)
			}, 1)
		}},
		{ID: "V22", Text: "eps is added to the deviation, outside of the root", Look: "sqrt(var + eps), not sqrt(var) + eps", Kinds: kinds(shapes.LayerNorm), Make: func(s *Site) (*Alternative, error) {
			return s.normed(func(x []float32) (mean, scale float64) {
				mean, square := moments(x)
				return mean, 1 / (math.Sqrt(square) + s.Node.Eps)
			}, 1)
		}},
		{ID: "V23", Text: "the heads are interleaved: head h has the channels h, h+H, h+2H, ...", Look: "the reshape of q and k to heads: [positions, heads, width], not [positions, width, heads]", Kinds: kinds(shapes.Scores), Only: (*Site).vision, Make: func(s *Site) (*Alternative, error) {
			order := interleaved(s.Inputs[0].Cols(), s.Node.Heads)
			return s.reading(columns(s.Inputs[0], order), columns(s.Inputs[1], order))
		}},
		{ID: "V24", Text: "the heads are put side by side channels first: channel d of head h at d H + h", Look: "the transpose before the reshape behind the attention", Kinds: kinds(shapes.Context), Make: func(s *Site) (*Alternative, error) {
			return s.contextOf(func(j, heads, each int) int { return j%heads*each + j/heads })
		}},
		{ID: "V24", Name: "taken apart", Text: "the channels of the heads are taken apart as if channel d of head h stood at d H + h", Look: "the transpose before the reshape behind the attention", Kinds: kinds(shapes.Context), Make: func(s *Site) (*Alternative, error) {
			return s.contextOf(func(j, heads, each int) int { return j%each*heads + j/each })
		}},
		{ID: "V25", Text: "no transpose behind the attention: the values of head after head are read as rows", Look: "the transpose from [heads, positions, width] to [positions, heads, width]", Kinds: kinds(shapes.Context), Make: func(s *Site) (*Alternative, error) {
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			h := s.Node.Heads
			width := a.Want.Cols() / h
			t := s.Inputs[0].Shape[len(s.Inputs[0].Shape)-2]
			// In memory [heads, positions, width]; the right order is [positions, heads, width].
			return a.permuted(width, count(len(a.Want.Data)/width, func(i int) int {
				tile, j := i/(t*h), i%(t*h)
				return tile*t*h + j%t*h + j/t
			}), a.Want.Shape), nil
		}},
		{ID: "V26", Text: "the softmax runs over the queries and not over the keys", Look: "the axis of the softmax", Kinds: kinds(shapes.Softmax), Only: (*Site).vision, Make: func(s *Site) (*Alternative, error) {
			x := s.Inputs[0]
			l := x.Cols()
			turn := count(len(x.Data), func(i int) int { return i/(l*l)*l*l + i%l*l + i/l%l })
			a, err := s.reading(rows(x, 1, turn))
			if err != nil {
				return nil, err
			}
			return a.permuted(1, turn, a.Want.Shape), nil
		}},
	}
	for _, k := range []struct {
		name, text string
		factor     func(width, model float64) float64
	}{
		{"none", "the scores are not scaled", func(width, _ float64) float64 { return math.Sqrt(width) }},
		{"twice", "the scores are scaled twice", func(width, _ float64) float64 { return 1 / math.Sqrt(width) }},
		{"model", "the scores are scaled by the width of the model, 1/sqrt(D)", func(width, model float64) float64 { return math.Sqrt(width / model) }},
		{"heads", "the scores are scaled by the number of heads, 1/sqrt(H)", func(width, model float64) float64 { return width / math.Sqrt(model) }},
	} {
		bugs = append(bugs, Bug{ID: "V12", Name: k.name, Text: k.text, Look: "the scale is 1/sqrt of the width of one head, once", Kinds: kinds(shapes.Scores), Make: func(s *Site) (*Alternative, error) {
			width, model := float64(s.Config.Vision.HeadDim()), float64(s.Config.Vision.HiddenSize)
			if s.text() {
				width, model = float64(s.Config.Text.HeadDim), float64(s.Config.Text.HiddenSize)
			}
			return s.scaled(k.factor(width, model))
		}})
	}
	for _, k := range []struct {
		name, text string
		factor     func(width, model float64) float64
	}{
		{"queries", "the queries are scaled by 1/sqrt(Dh): what is shown is not the projection itself", func(width, _ float64) float64 { return 1 / math.Sqrt(width) }},
		{"queries, heads", "the queries are scaled by the number of heads, 1/sqrt(H)", func(width, model float64) float64 { return math.Sqrt(width / model) }},
	} {
		bugs = append(bugs, Bug{ID: "V12", Name: k.name, Text: k.text, Look: "the scale is 1/sqrt of the width of one head, once, and belongs to the scores", Kinds: kinds(shapes.Linear), Only: func(s *Site) bool { return s.vision() && s.is("q_proj") }, Make: func(s *Site) (*Alternative, error) {
			return s.scaled(k.factor(float64(s.Config.Vision.HeadDim()), float64(s.Config.Vision.HiddenSize)))
		}})
	}
	return append(bugs, activationBugs(shapes.QuickGELU, "QuickGELU", "hidden_act of vision_config is quick_gelu: x sigmoid(1.702 x)",
		map[string]string{"GELU with erf": "V10", "GELU with tanh": "V10", "SiLU": "V11", "QuickGELU with 1.7": "V11", "": "V10"})...)
}

// contextOf is the attention's output with its channels in another order: channel j is that of from.
func (s *Site) contextOf(from func(j, heads, each int) int) (*Alternative, error) {
	a, err := s.right()
	if err != nil {
		return nil, err
	}
	width, heads := a.Want.Cols(), s.Node.Heads
	return a.permuted(1, spread(len(a.Want.Data), width, count(width, func(j int) int { return from(j, heads, width/heads) })), a.Want.Shape), nil
}

// drops says whether the class token is to be dropped.
func drops(s *Site) bool { return s.Config.SelectStrategy != shapes.SelectFull }

// interleaved is the order of channels in which channel d of head h stands at d H + h in memory: the place h Dh + d reads from there.
func interleaved(width, heads int) []int {
	each := width / heads
	return count(width, func(i int) int { return i%each*heads + i/each })
}

// embedded makes the tower's embeddings with other patches or positions: at gives for each position the patch, -1 for the class token,
// and the row of the position embedding, -1 for none.
func (s *Site) embedded(at func(position, last int) (patch, place int)) (*Alternative, error) {
	x := s.Inputs[0] // [N, D, P, P]
	class, err := s.param(s.Node.Params[0])
	if err != nil {
		return nil, err
	}
	places, err := s.param(s.Node.Params[1])
	if err != nil {
		return nil, err
	}
	tiles, width, last := x.Shape[0], x.Shape[1], x.Shape[2]*x.Shape[3]
	y := shapes.NewTensor(tiles, 1+last, width)
	for r := range y.Rows() {
		patch, place := at(r%(1+last), last)
		for d := range width {
			v := float64(class.Data[d])
			if patch >= 0 {
				v = float64(x.Data[(r/(1+last)*width+d)*last+patch])
			}
			if place >= 0 {
				v += float64(places.Row(place)[d])
			}
			y.Row(r)[d] = float32(v)
		}
	}
	if s.Derived[0] == nil {
		return s.value(y)
	}
	return &Alternative{Want: y, node: s.Node, budget: func() (compare.Budget, error) {
		// Beside its own rounding, a row has the errors of the patch that stands in it, wherever that is.
		b, err := s.eval.BudgetDerived(s.Node, s.Inputs, make([]*compare.Budget, len(s.Inputs)), y, s.As)
		if err != nil {
			return b, err
		}
		a, err := s.right()
		if err != nil {
			return b, err
		}
		right, err := a.budget()
		if err != nil {
			return b, err
		}
		add := func(into, from []float32) []float32 {
			if from == nil {
				return into
			}
			if into == nil {
				into = make([]float32, len(from))
			}
			for r := range y.Rows() {
				patch, _ := at(r%(1+last), last)
				for d := range width {
					into[r*width+d] += from[(r/(1+last)*(1+last)+1+patch)*width+d]
				}
			}
			return into
		}
		b.Acc, b.AccRMS, b.Sto, b.StoRMS = add(b.Acc, right.Acc), add(b.AccRMS, right.AccRMS), add(b.Sto, right.Sto), add(b.StoRMS, right.StoRMS)
		b.Pool, b.Tilt, b.Derived = max(b.Pool, right.Pool), b.Tilt+right.Tilt, true
		return b, nil
	}}, nil
}

// moments are the mean and the variance of a row.
func moments(x []float32) (mean, variance float64) {
	for _, v := range x {
		mean += float64(v)
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean)
	}
	return mean, variance / float64(len(x))
}

// normed is a norm with other statistics: (x - mean) scale (weight + plus - 1) + bias, if it has one.
func (s *Site) normed(statistics func(x []float32) (mean, scale float64), plus float64) (*Alternative, error) {
	weight, err := s.param(s.Node.Params[0])
	if err != nil {
		return nil, err
	}
	var bias shapes.Tensor
	if len(s.Node.Params) > 1 {
		if bias, err = s.param(s.Node.Params[1]); err != nil {
			return nil, err
		}
	}
	y := shapes.NewTensor(s.Inputs[0].Shape...)
	for r := range y.Rows() {
		mean, scale := statistics(s.Inputs[0].Row(r))
		for j, v := range s.Inputs[0].Row(r) {
			z := (float64(v) - mean) * scale * (float64(weight.Data[j]) + plus - 1)
			if bias.Shape != nil {
				z += float64(bias.Data[j])
			}
			y.Row(r)[j] = float32(z)
		}
	}
	return s.value(y)
}

// projector are the bugs of the projector: J.
func projector() []Bug {
	bugs := activationBugs(shapes.GELU, "GELU with erf", "projector_hidden_act is gelu: with erf, not tanh",
		map[string]string{"GELU with tanh": "J01", "": "J02"})
	return append(bugs, Bug{ID: "J04", Text: "the bias is missing", Look: "whether the bias was loaded and is added", Kinds: kinds(shapes.Linear), Only: (*Site).projector,
		Make: func(s *Site) (*Alternative, error) {
			return s.as(func(n *shapes.Node) { n.Params = n.Params[:1] })
		}})
}
