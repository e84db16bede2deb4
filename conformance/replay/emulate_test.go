package replay_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// This file emulates engines: float32 kernels with their own order of summation, their own exp, their own places of rounding.
// limits_test.go lets them pass before the limits, and breaks them.

// kernel is one way to compute in float32 with storage in some class.
type kernel struct {
	name    string
	lanes   compare.Lanes                               // as the engine would declare it
	dot     func(a, b []float32, start float32) float32 // sum of products
	exp     func(x float32) float32                     //
	stored  bool                                        // rounds intermediate values to storage where transformers, or candle, does
	online  bool                                        // softmax in one pass over blocks of keys
	welford bool                                        // variance by Welford's recurrence
	round   func(c compare.Class, x float32) float32    // to storage; nil is to nearest
}

func (k kernel) to(c compare.Class, x float32) float32 {
	if k.round != nil {
		return k.round(c, x)
	}
	return c.Round(x)
}

// step rounds an intermediate value to storage if the kernel stores it.
func (k kernel) step(c compare.Class, x float32) float32 {
	if k.stored {
		return k.to(c, x)
	}
	return x
}

func fma(a, b, c float32) float32 { return float32(float64(a)*float64(b) + float64(c)) }

func unfused(a, b, c float32) float32 { return float32(a*b) + c }

// laned keeps lanes partial sums over every lanes-th term and adds them up in a tree.
func laned(lanes int, step func(a, b, c float32) float32) func(a, b []float32, start float32) float32 {
	return func(a, b []float32, start float32) float32 {
		s := make([]float32, lanes)
		s[0] = start
		k := 0
		for ; k+lanes <= len(a); k += lanes {
			x, y := a[k:k+lanes], b[k:k+lanes]
			for l := range s {
				s[l] = step(x[l], y[l], s[l])
			}
		}
		for ; k < len(a); k++ {
			s[k%lanes] = step(a[k], b[k], s[k%lanes])
		}
		for n := lanes; n > 1; n /= 2 {
			for i := range n / 2 {
				s[i] += s[i+n/2]
			}
		}
		return s[0]
	}
}

func backwards(a, b []float32, start float32) float32 {
	for k := len(a) - 1; k >= 0; k-- {
		start = fma(a[k], b[k], start)
	}
	return start
}

func pairwise(a, b []float32, start float32) float32 {
	if len(a) <= 4 {
		return laned(1, fma)(a, b, start)
	}
	h := len(a) / 2
	return pairwise(a[:h], b[:h], start) + pairwise(a[h:], b[h:], 0)
}

// blocked sums blocks of terms with 16 lanes and adds each block to what is in memory.
func blocked(a, b []float32, start float32) float32 {
	const block = 96
	for k := 0; k < len(a); k += block {
		end := min(k+block, len(a))
		start += laned(16, fma)(a[k:end], b[k:end], 0)
	}
	return start
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

// roughExp errs by up to two units in the last place, differently for each argument.
func roughExp(x float32) float32 {
	y := exp32(x)
	h := math.Float32bits(x) * 2654435761
	for range h >> 30 % 3 {
		y = math.Nextafter32(y, float32(math.Inf(1-2*int(h>>29&1))))
	}
	return y
}

// lopsidedExp is exp2 of a rounded product with a rounded log2(e), and one unit in the last place too large.
func lopsidedExp(x float32) float32 {
	y := float32(math.Exp2(float64(x * float32(math.Log2E))))
	return math.Nextafter32(y, float32(math.Inf(1)))
}

// rightKernels must pass every limit in every class.
func rightKernels() []kernel {
	ks := []kernel{
		{name: "1 accumulator", dot: laned(1, unfused)},
		{name: "1 accumulator, FMA", dot: laned(1, fma), exp: roughExp, welford: true},
		{name: "1 accumulator, backwards", dot: backwards, exp: lopsidedExp},
		{name: "4 lanes", lanes: 4, dot: laned(4, unfused), online: true},
		{name: "8 lanes, FMA", lanes: 8, dot: laned(8, fma), online: true, exp: roughExp},
		{name: "16 lanes, FMA", lanes: 16, dot: laned(16, fma), exp: lopsidedExp, welford: true},
		{name: "64 lanes, FMA", lanes: 64, dot: laned(64, fma), exp: roughExp},
		{name: "pairwise", lanes: 16, dot: pairwise},
		{name: "blocks of 96, 16 lanes", lanes: 16, dot: blocked, online: true},
		{name: "16 lanes, undeclared", dot: laned(16, fma)},
	}
	for i := range ks {
		if ks[i].exp == nil {
			ks[i].exp = exp32
		}
	}
	for _, k := range ks[:len(ks):len(ks)] {
		k.name += ", every step stored"
		k.stored = true
		ks = append(ks, k)
	}
	return ks
}

// scenario is one node with inputs that an engine of a class could have.
type scenario struct {
	name   string
	config shapes.Config
	in     shapes.Inputs
	class  compare.Class
	node   shapes.Node
	inputs []shapes.Tensor
	params []shapes.Tensor // in the order of node.Params
	seed   uint64

	want    shapes.Tensor
	budgets map[compare.Lanes]compare.Budget
}

// Read makes a scenario the model's weights.
func (s *scenario) Read(name string, from int, dst []float32) error {
	for i, p := range s.node.Params {
		if p == name {
			copy(dst, s.params[i].Data[from:])
			return nil
		}
	}
	return fmt.Errorf("no parameter %s", name)
}

// widths are the sizes of a model of one layer each.
type widths struct {
	patches       int // P
	d, vf, vheads int
	c, f          int
	heads, kv, dh int
	tokens        int
	position      int // distance of positions
}

func tinyWidths() widths {
	return widths{patches: 3, d: 64, vf: 128, vheads: 4, c: 64, f: 128, heads: 4, kv: 2, dh: 16, tokens: 18, position: 1}
}

func (w widths) config() shapes.Config {
	return shapes.Config{
		ModelType: shapes.Llava, ImageTokenID: 40, VisionFeatureLayer: -1, SelectStrategy: shapes.SelectDefault, ProjectorBias: true,
		Vision: shapes.VisionConfig{HiddenSize: w.d, IntermediateSize: w.vf, NumHiddenLayers: 1, NumAttentionHeads: w.vheads, NumChannels: 3, ImageSize: 14 * w.patches, PatchSize: 14, LayerNormEps: 1e-5},
		Text:   shapes.TextConfig{VocabSize: 48, HiddenSize: w.c, IntermediateSize: w.f, NumHiddenLayers: 1, NumAttentionHeads: w.heads, NumKeyValueHeads: w.kv, HeadDim: w.dh, MaxPositionEmbeddings: 8192, RMSNormEps: 1e-5, RopeTheta: 500000},
	}
}

// data styles of activations.
const (
	normal  = "normal"
	oneSign = "positive"   // every term of a sum may have one sign
	massive = "massive"    // a column a hundred times as large as the others
	smooth  = "smooth"     // neighbours alike: long runs of terms of one sign
	small   = "small rows" // some rows a thousand times smaller
	offset  = "large mean" // a mean thirty times the standard deviation
	repeats = "repeats"    // most rows the same
	finer   = "finer"      // numbers that the class does not have; a kernel that stores every step rounds them first
)

func styles() []string {
	return []string{normal, oneSign, massive, smooth, small, offset, repeats, finer}
}

// fill makes activations of a style, rounded to the class.
func fill(t shapes.Tensor, r *rand.Rand, c compare.Class, style string, scale float64) {
	if style == finer {
		c = compare.F32
	}
	cols := t.Cols()
	for i := range t.Rows() {
		row := t.Row(i)
		for j := range row {
			v := r.NormFloat64() * scale
			switch style {
			case oneSign:
				v = math.Abs(v)
			case massive:
				if j == cols/3 {
					v = 100*scale + v
				}
			case smooth:
				v = scale * (math.Sin(2*math.Pi*float64(j)/float64(cols)+float64(i)) + v/scale/8)
			case small:
				if i%3 == 0 {
					v /= 1024
				}
			case offset:
				v += 30 * scale
			}
			row[j] = c.Round(float32(v))
		}
		if style == repeats && i > 1 && i%4 != 0 {
			copy(row, t.Row(0))
		}
	}
}

// newScenario builds the node of the given name with inputs in the style. Weights are numbers of bfloat16 and of float16.
func newScenario(t testing.TB, w widths, node string, class compare.Class, style string, seed uint64) *scenario {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, uint64(len(node))))
	s := &scenario{config: w.config(), class: class, seed: seed, budgets: map[compare.Lanes]compare.Budget{}}
	const tiles = 2
	perTile := s.config.FeaturesPerTile()
	s.in = shapes.Inputs{ImageSizes: make([]shapes.Size, tiles)}
	for i := range s.in.ImageSizes {
		s.in.ImageSizes[i] = shapes.Size{H: 1, W: 1}
	}
	s.in.PixelValues = shapes.NewTensor(tiles, 3, s.config.Vision.ImageSize, s.config.Vision.ImageSize)
	fill(s.in.PixelValues, r, compare.F32, style, 1) // the golden set's, whatever the engine's class
	if strings.HasPrefix(node, "language_model") && !strings.HasPrefix(node, shapes.NodeMerge) {
		s.in = shapes.Inputs{}
		perTile = 0
	}
	for i := range max(w.tokens, perTile*tiles) {
		id := r.IntN(40)
		if i < perTile*tiles {
			id = 40
		}
		s.in.InputIDs = append(s.in.InputIDs, id)
		s.in.PositionIDs = append(s.in.PositionIDs, i*w.position)
	}
	dims := shapes.DimsOf(s.config, s.in)
	nodes := map[string]shapes.Node{}
	for _, n := range shapes.Nodes(s.config) {
		nodes[n.Name] = n
	}
	n, has := nodes[node]
	if !has {
		t.Fatalf("no node %s", node)
	}
	s.node = n
	s.name = fmt.Sprintf("%s %s %s", node, class, style)
	for _, name := range n.Inputs {
		producer, has := nodes[name]
		if !has {
			s.inputs = append(s.inputs, shapes.Tensor{})
			continue
		}
		x := shapes.NewTensor(producer.Concrete(dims)...)
		switch producer.Kind {
		case shapes.Scores:
			fill(x, r, class, style, 3)
		case shapes.Softmax:
			probabilities(x, n, r, class)
		case shapes.RotaryCos, shapes.RotarySin:
			for p := range x.Rows() {
				for j := range x.Cols() / 2 {
					angle := float64(float32(s.in.PositionIDs[p]) * float32(math.Pow(500000, -2*float64(j)/float64(x.Cols()))))
					v := math.Cos(angle)
					if producer.Kind == shapes.RotarySin {
						v = math.Sin(angle)
					}
					x.Row(p)[j] = class.Round(float32(v))
					x.Row(p)[j+x.Cols()/2] = x.Row(p)[j]
				}
			}
		default:
			scale := 1.0
			if n.Kind == shapes.Scores {
				scale = 1.6
			}
			if n.Kind == shapes.QuickGELU || n.Kind == shapes.GELU || n.Kind == shapes.SiLU {
				scale = 2.5
			}
			fill(x, r, class, style, scale)
		}
		s.inputs = append(s.inputs, x)
	}
	params := map[string]shapes.Param{}
	for _, p := range shapes.Params(s.config) {
		params[p.Name] = p
	}
	for _, name := range n.Params {
		p := shapes.NewTensor(params[name].Shape...)
		scale := 0.3
		if len(p.Shape) > 1 {
			scale = 1 / math.Sqrt(float64(shapes.Product(p.Shape[1:])))
		}
		for i := range p.Data {
			v := r.NormFloat64() * scale
			if strings.HasSuffix(name, "norm.weight") || strings.Contains(name, "layer_norm") && strings.HasSuffix(name, ".weight") {
				v += 1
			}
			p.Data[i] = compare.F16.Round(compare.BF16.Round(float32(v)))
		}
		s.params = append(s.params, p)
	}
	return s
}

// probabilities are the softmax of normal scores, causal if the node is, rounded to the class.
func probabilities(x shapes.Tensor, n shapes.Node, r *rand.Rand, class compare.Class) {
	queries := x.Shape[len(x.Shape)-2]
	for i := range x.Rows() {
		row := x.Row(i)
		count := len(row)
		if n.Causal {
			count = i%queries + 1
		}
		sum := 0.0
		e := make([]float64, count)
		for j := range e {
			e[j] = math.Exp(3 * r.NormFloat64())
			sum += e[j]
		}
		for j := range e {
			row[j] = class.Round(float32(e[j] / sum))
		}
	}
}

// budget is what replay says of a scenario. It is kept, since many kernels meet the same scenario.
func (s *scenario) budget(t testing.TB, lanes compare.Lanes) compare.Budget {
	t.Helper()
	if b, has := s.budgets[lanes]; has {
		return b
	}
	e, err := replay.New(s.config, s, s.in)
	if err != nil {
		t.Fatal(err)
	}
	if s.want.Shape == nil {
		if s.want, err = e.Eval(s.node, s.inputs); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Budget(s.node, s.inputs, s.want, compare.Arithmetic{Class: s.class, Lanes: lanes})
	if err != nil {
		t.Fatal(err)
	}
	s.budgets[lanes] = b
	return b
}

// judge evaluates a kernel on a scenario and returns the local verdict.
func judge(t testing.TB, s *scenario, k kernel) compare.LocalResult {
	t.Helper()
	return compare.Local(s.budget(t, k.lanes), s.node, emulate(s, k))
}

// emulate runs a kernel.
func emulate(s *scenario, k kernel) shapes.Tensor {
	y := shapes.NewTensor(s.node.Concrete(shapes.DimsOf(s.config, s.in))...)
	if k.stored {
		given, rounded := s.inputs, *s
		s = &rounded
		s.inputs = nil
		for _, x := range given {
			r := shapes.Tensor{Shape: x.Shape, Data: slices.Clone(x.Data)}
			for i, v := range r.Data {
				r.Data[i] = s.class.Round(v)
			}
			s.inputs = append(s.inputs, r)
		}
	}
	emulators[s.node.Kind](s, k, y)
	for i, v := range y.Data {
		if !math.IsInf(float64(v), -1) {
			y.Data[i] = k.to(s.class, v)
		}
	}
	return y
}

// emulators computes in float32 what each kind computes. The caller rounds the result to storage.
var emulators = map[shapes.Kind]func(s *scenario, k kernel, y shapes.Tensor){
	shapes.Linear: func(s *scenario, k kernel, y shapes.Tensor) {
		x, w := s.inputs[0], s.params[0]
		for r := range y.Rows() {
			for o := range y.Cols() {
				v := k.dot(x.Row(r), w.Row(o), 0)
				if len(s.params) > 1 {
					v = k.step(s.class, v) + s.params[1].Data[o]
				}
				y.Row(r)[o] = v
			}
		}
	},
	shapes.PatchEmbedding: func(s *scenario, k kernel, y shapes.Tensor) {
		x, w := s.in.PixelValues, s.params[0]
		side, p, px, width := y.Shape[2], w.Shape[2], x.Shape[2], w.Shape[0]
		size := 3 * p * p
		for i := range y.Data {
			n, d, gy, gx := i/(width*side*side), i/(side*side)%width, i/side%side, i%side
			var patch []float32
			for c := range 3 {
				for ky := range p {
					for _, v := range x.Data[((n*3+c)*px+gy*p+ky)*px+gx*p:][:p] {
						patch = append(patch, s.class.Round(v))
					}
				}
			}
			y.Data[i] = k.dot(patch, w.Data[d*size:][:size], 0)
		}
	},
	shapes.VisionEmbeddings: func(s *scenario, k kernel, y shapes.Tensor) {
		x, class, position := s.inputs[0], s.params[0], s.params[1]
		count := x.Shape[2] * x.Shape[3]
		for i := range y.Data {
			n, p, d := i/y.Cols()/y.Shape[1], i/y.Cols()%y.Shape[1], i%y.Cols()
			v := class.Data[d]
			if p > 0 {
				v = x.Data[(n*y.Cols()+d)*count+p-1]
			}
			y.Data[i] = v + position.Row(p)[d]
		}
	},
	shapes.Scores: func(s *scenario, k kernel, y shapes.Tensor) {
		h := headsOf(s, s.inputs[0])
		scale := float32(1 / math.Sqrt(float64(h.width)))
		for i := range y.Data {
			row, j := i/h.keys, i%h.keys
			if s.node.Causal && j > row%h.queries+h.keys-h.queries {
				y.Data[i] = -3.4e38 // as eager masks leave it
				continue
			}
			q, key := h.query(s.inputs[0], row), h.key(s.inputs[1], row, j)
			if k.stored && !s.node.Causal { // CLIPAttention scales the query
				scaled := make([]float32, len(q))
				for d := range q {
					scaled[d] = k.to(s.class, q[d]*scale)
				}
				y.Data[i] = k.dot(scaled, key, 0)
				continue
			}
			y.Data[i] = k.step(s.class, k.dot(q, key, 0)) * scale
		}
	},
	shapes.Softmax: func(s *scenario, k kernel, y shapes.Tensor) {
		queries := y.Shape[len(y.Shape)-2]
		for r := range y.Rows() {
			count := y.Cols()
			if s.node.Causal {
				count = r%queries + 1
			}
			softmax(k, s.inputs[0].Row(r)[:count], y.Row(r)[:count])
		}
	},
	shapes.Context: func(s *scenario, k kernel, y shapes.Tensor) {
		p, v := s.inputs[0], s.inputs[1]
		queries, keys := p.Shape[len(p.Shape)-2], p.Cols()
		width, kv := y.Cols()/s.node.Heads, s.node.KVHeads
		for row := range p.Rows() {
			n, h, i := row/queries/s.node.Heads, row/queries%s.node.Heads, row%queries
			count := keys
			if s.node.Causal {
				count = i + 1
			}
			column := make([]float32, count)
			for d := range width {
				for j := range count {
					column[j] = v.Data[((n*keys+j)*kv+h/(s.node.Heads/kv))*width+d]
				}
				y.Data[((n*queries+i)*s.node.Heads+h)*width+d] = k.dot(p.Row(row)[:count], column, 0)
			}
		}
	},
	shapes.Add: func(s *scenario, k kernel, y shapes.Tensor) {
		for i := range y.Data {
			y.Data[i] = s.inputs[0].Data[i] + s.inputs[1].Data[i]
		}
	},
	shapes.Mul: func(s *scenario, k kernel, y shapes.Tensor) {
		for i := range y.Data {
			y.Data[i] = s.inputs[0].Data[i] * s.inputs[1].Data[i]
		}
	},
	shapes.QuickGELU: func(s *scenario, k kernel, y shapes.Tensor) {
		for i, x := range s.inputs[0].Data {
			y.Data[i] = x * k.step(s.class, 1/(1+k.exp(-k.step(s.class, 1.702*x))))
		}
	},
	shapes.SiLU: func(s *scenario, k kernel, y shapes.Tensor) {
		for i, x := range s.inputs[0].Data {
			y.Data[i] = x / (1 + k.exp(-x))
		}
	},
	shapes.GELU: func(s *scenario, k kernel, y shapes.Tensor) {
		for i, x := range s.inputs[0].Data {
			erf := float32(math.Erf(float64(x * float32(math.Sqrt2/2))))
			if k.lanes == 8 { // a rougher one
				erf = math.Nextafter32(erf, float32(math.Inf(1)))
			}
			y.Data[i] = x * 0.5 * (1 + erf)
		}
	},
	shapes.RMSNorm: func(s *scenario, k kernel, y shapes.Tensor) {
		for r := range y.Rows() {
			row := s.inputs[0].Row(r)
			mean := k.dot(row, row, 0) / float32(len(row))
			inverse := float32(1 / math.Sqrt(float64(mean+float32(s.node.Eps))))
			for j, x := range row {
				y.Row(r)[j] = s.params[0].Data[j] * k.step(s.class, x*inverse)
			}
		}
	},
	shapes.LayerNorm: func(s *scenario, k kernel, y shapes.Tensor) {
		for r := range y.Rows() {
			row := s.inputs[0].Row(r)
			mean, variance := moments(k, row)
			inverse := float32(1 / math.Sqrt(float64(variance+float32(s.node.Eps))))
			for j, x := range row {
				y.Row(r)[j] = k.step(s.class, k.step(s.class, (x-mean)*inverse)*s.params[0].Data[j]) + s.params[1].Data[j]
			}
		}
	},
	shapes.RotaryCos: func(s *scenario, k kernel, y shapes.Tensor) { rotary(s, k, y, math.Cos) },
	shapes.RotarySin: func(s *scenario, k kernel, y shapes.Tensor) { rotary(s, k, y, math.Sin) },
	shapes.Rope: func(s *scenario, k kernel, y shapes.Tensor) {
		x, cos, sin := s.inputs[0], s.inputs[1], s.inputs[2]
		width := cos.Cols()
		for i := range y.Data {
			t, j := i/y.Cols()/y.Shape[1], i%width
			turned := -x.Data[i-j+(j+width/2)%width]
			if j >= width/2 {
				turned *= -1
			}
			y.Data[i] = k.step(s.class, x.Data[i]*cos.Row(t)[j]) + k.step(s.class, turned*sin.Row(t)[j])
		}
	},
	shapes.EmbedTokens: func(s *scenario, k kernel, y shapes.Tensor) {
		for t, id := range s.in.InputIDs {
			copy(y.Row(t), s.params[0].Row(id))
		}
	},
}

func rotary(s *scenario, k kernel, y shapes.Tensor, f func(float64) float64) {
	for t, p := range s.in.PositionIDs {
		for j := range y.Cols() / 2 {
			inverse := 1 / float32(math.Pow(500000, 2*float64(j)/float64(y.Cols())))
			v := float32(f(float64(float32(p) * inverse)))
			if k.lanes == 8 && (t+j)%20 == 0 { // torch's are off by one unit in the last place in one of twenty
				v = math.Nextafter32(v, 0)
			}
			y.Row(t)[j], y.Row(t)[j+y.Cols()/2] = v, v
		}
	}
}

// moments are mean and variance in float32.
func moments(k kernel, row []float32) (mean, variance float32) {
	n := float32(len(row))
	if k.welford {
		var m2 float32
		for j, x := range row {
			d := x - mean
			mean += d / float32(j+1)
			m2 += d * (x - mean)
		}
		return mean, m2 / n
	}
	mean = k.dot(row, slices.Repeat([]float32{1}, len(row)), 0) / n
	centred := make([]float32, len(row))
	for j, x := range row {
		centred[j] = x - mean
	}
	return mean, k.dot(centred, centred, 0) / n
}

// softmax in two passes, or online over blocks of 8 keys.
func softmax(k kernel, x, y []float32) {
	ones := slices.Repeat([]float32{1}, len(x))
	if !k.online {
		top := slices.Max(x)
		for j := range x {
			y[j] = k.exp(x[j] - top)
		}
		inverse := 1 / k.dot(y, ones, 0)
		for j := range y {
			y[j] *= inverse
		}
		return
	}
	top, sum := float32(math.Inf(-1)), float32(0)
	for j := 0; j < len(x); j += 8 {
		block := x[j:min(j+8, len(x))]
		next := max(top, slices.Max(block))
		sum *= k.exp(top - next)
		for i, v := range block {
			y[j+i] = k.exp(v - next)
		}
		sum += k.dot(y[j:j+len(block)], ones[:len(block)], 0)
		top = next
	}
	for j := range x {
		y[j] = k.exp(x[j]-top) / sum
	}
}

// headLayout finds the vectors of one head in q, k and v.
type headLayout struct{ queries, keys, heads, kv, width int }

func headsOf(s *scenario, q shapes.Tensor) headLayout {
	h := headLayout{heads: s.node.Heads, kv: s.node.KVHeads}
	if s.node.Causal { // [T, H, Dh]
		h.queries, h.width = q.Shape[0], q.Shape[2]
	} else {
		h.queries, h.width = q.Shape[1], q.Shape[2]/h.heads
	}
	h.keys = h.queries
	return h
}

func (h headLayout) query(q shapes.Tensor, row int) []float32 {
	n, head, i := row/h.queries/h.heads, row/h.queries%h.heads, row%h.queries
	return q.Data[((n*h.queries+i)*h.heads+head)*h.width:][:h.width]
}

func (h headLayout) key(k shapes.Tensor, row, j int) []float32 {
	n, head := row/h.queries/h.heads, row/h.queries%h.heads
	return k.Data[((n*h.keys+j)*h.kv+head/(h.heads/h.kv))*h.width:][:h.width]
}
