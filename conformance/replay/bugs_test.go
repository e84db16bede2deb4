package replay_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// bug is a wrong engine: a right kernel with one thing broken, or a whole tensor computed another way.
type bug struct {
	name   string
	node   string
	style  string                                     // of the activations; normal if empty
	sizes  func(w *widths)                            // other than tinyWidths
	in     string                                     // the classes it exists in; all if empty
	caught string                                     // the classes in which every tensor with it must fail
	alter  func(s *scenario, k *kernel, r *rand.Rand) // before the kernel runs; what it does to s is undone
	spoil  func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand)
}

const all = "f32 f16 bf16"

// sane is the kernel that a bug is planted in. It declares no lanes, so the limits are at their widest.
func sane() kernel { return kernel{name: "16 lanes", dot: laned(16, fma), exp: exp32} }

// scenario is what the bug is planted in.
func (b bug) scenario(t testing.TB, class compare.Class, seed uint64) *scenario {
	w := tinyWidths()
	if b.sizes != nil {
		b.sizes(&w)
	}
	style := b.style
	if style == "" {
		style = normal
	}
	return newScenario(t, w, b.node, class, style, seed)
}

// run plants the bug and judges the result.
func (b bug) run(t testing.TB, s *scenario) compare.LocalResult {
	t.Helper()
	budget := s.budget(t, sane().lanes)
	return compare.Local(budget, s.node, b.output(s))
}

// output plants the bug. The scenario stays as it is.
func (b bug) output(s *scenario) shapes.Tensor {
	k, r := sane(), rand.New(rand.NewPCG(s.seed, 99))
	eyes := *s // what the engine sees
	eyes.inputs, eyes.params, eyes.in.InputIDs, eyes.in.PositionIDs = slices.Clone(s.inputs), slices.Clone(s.params), slices.Clone(s.in.InputIDs), slices.Clone(s.in.PositionIDs)
	if b.alter != nil {
		b.alter(&eyes, &k, r)
	}
	y := emulate(&eyes, k)
	if b.spoil == nil {
		return y
	}
	b.spoil(&eyes, k, y, r)
	for i, v := range y.Data {
		if !math.IsInf(float64(v), 0) {
			y.Data[i] = s.class.Round(v)
		}
	}
	return y
}

// own makes a parameter or an input the engine's own, to be changed.
func own(ts []shapes.Tensor, i int) shapes.Tensor {
	ts[i] = shapes.Tensor{Shape: slices.Clone(ts[i].Shape), Data: slices.Clone(ts[i].Data)}
	return ts[i]
}

// toZero is x rounded to float32 towards zero.
func toZero(x float64) float32 {
	y := float32(x)
	if math.Abs(float64(y)) > math.Abs(x) {
		y = math.Nextafter32(y, 0)
	}
	return y
}

// cut is x rounded to the class towards zero.
func cut(c compare.Class, x float32) float32 {
	y := c.Round(x)
	if math.Abs(float64(y)) > math.Abs(float64(x)) {
		step := float32(2 * c.HalfStep(float64(x)))
		y -= float32(math.Copysign(float64(step), float64(x)))
	}
	return y
}

func inputsAs(c compare.Class) func(s *scenario, k *kernel, r *rand.Rand) {
	return func(s *scenario, k *kernel, r *rand.Rand) {
		for i := range s.inputs {
			x := own(s.inputs, i)
			for j, v := range x.Data {
				x.Data[j] = c.Round(v)
			}
		}
	}
}

// tf32 keeps eleven bits of both factors.
func tf32(s *scenario, k *kernel, r *rand.Rand) {
	x := own(s.inputs, 0)
	for j, v := range x.Data {
		x.Data[j] = math.Float32frombits((math.Float32bits(v) + 1<<12) &^ (1<<13 - 1))
	}
}

func exps(f func(x float64) float64) func(s *scenario, k *kernel, r *rand.Rand) {
	return func(s *scenario, k *kernel, r *rand.Rand) {
		k.exp = func(x float32) float32 { return float32(f(float64(x))) }
	}
}

// instead computes an elementwise node by another function.
func instead(f func(x float64) float64) func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
	return func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
		for i, x := range s.inputs[0].Data {
			y.Data[i] = float32(f(float64(x)))
		}
	}
}

func tanhGELU(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}
func erfGELU(x float64) float64   { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }
func quickGELU(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }
func siluOf(x float64) float64    { return x / (1 + math.Exp(-x)) }

// table looks f up by a float16 argument and gives a float16, as a lookup table of 65536 entries does.
func table(f func(float64) float64) func(x float64) float64 {
	return func(x float64) float64 {
		return float64(compare.F16.Round(float32(f(float64(compare.F16.Round(float32(x)))))))
	}
}

func scaled(factor float64) func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
	return func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
		for i := range y.Data {
			y.Data[i] = float32(float64(y.Data[i]) * factor)
		}
	}
}

// beforeStorage scales the float32 result, which is then rounded to storage.
func beforeStorage(factor float64) func(s *scenario, k *kernel, r *rand.Rand) {
	return func(s *scenario, k *kernel, r *rand.Rand) {
		k.round = func(c compare.Class, x float32) float32 { return c.Round(float32(float64(x) * factor)) }
	}
}

func eps(e float64) func(s *scenario, k *kernel, r *rand.Rand) {
	return func(s *scenario, k *kernel, r *rand.Rand) { s.node.Eps = e }
}

// long makes the sums k terms long: fc2 and down_proj.
func long(k, patches int) func(w *widths) {
	return func(w *widths) {
		w.vf, w.d, w.patches = k, 32, patches
	}
}

// linearBugs are the bugs of sums of products, tried at several widths.
func linearBugs() []bug {
	random := func(y shapes.Tensor, r *rand.Rand) int { return r.IntN(len(y.Data)) }
	return []bug{
		{name: "sums truncated, not rounded", in: "f32", caught: "f32", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.dot = laned(16, func(a, b, c float32) float32 { return toZero(float64(a)*float64(b) + float64(c)) })
		}},
		{name: "storage truncated, not rounded", in: "f16 bf16", caught: "f16 bf16", alter: func(s *scenario, k *kernel, r *rand.Rand) { k.round = cut }},
		{name: "every value times 1 + 2^-14", caught: "f32", alter: beforeStorage(1 + 0x1p-14)},
		{name: "every value times 1 + 2^-9", caught: all, alter: beforeStorage(1 + 0x1p-9)},
		{name: "every value times 1 + 2^-12", caught: "f32", alter: beforeStorage(1 + 0x1p-12)},
		{name: "one weight off by one bf16 step", caught: "f32", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			for {
				if i := random(w, r); w.Data[i] != 0 {
					w.Data[i] += float32(2 * compare.BF16.HalfStep(float64(w.Data[i])))
					return
				}
			}
		}},
		{name: "one weight of the other sign", caught: "f32", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			w.Data[random(w, r)] *= -1
		}},
		{name: "one of 16 lanes dropped", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w, lane := own(s.params, 0), r.IntN(16)
			for i := range w.Data {
				if i%w.Cols()%16 == lane {
					w.Data[i] = 0
				}
			}
		}},
		{name: "last term skipped", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			for o := range w.Rows() {
				w.Row(o)[w.Cols()-1] = 0
			}
		}},
		{name: "sums in float16", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.dot = laned(16, func(a, b, c float32) float32 { return compare.F16.Round(a*b + c) })
		}},
		{name: "sums in bfloat16", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.dot = laned(16, func(a, b, c float32) float32 { return compare.BF16.Round(a*b + c) })
		}},
		{name: "four partial sums stored in the class", in: "f16 bf16", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.dot = func(a, b []float32, start float32) float32 {
				for q := range 4 {
					from, to := q*len(a)/4, (q+1)*len(a)/4
					start += s.class.Round(laned(16, fma)(a[from:to], b[from:to], 0))
				}
				return start
			}
		}},
		{name: "TF32: inputs cut to 11 bits", in: "f32", caught: "f32", alter: tf32},
		{name: "inputs rounded to bfloat16", in: "f32 f16", caught: "f32 f16", alter: inputsAs(compare.BF16)},
		{name: "float16 storage", in: "f32", caught: "f32", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.round = func(c compare.Class, x float32) float32 { return compare.F16.Round(x) }
		}},
		{name: "bfloat16 storage", in: "f32 f16", caught: "f32 f16", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.round = func(c compare.Class, x float32) float32 { return compare.BF16.Round(x) }
		}},
		{name: "bias missing in one channel", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			b := own(s.params, 1)
			for {
				if i := random(b, r); math.Abs(float64(b.Data[i])) > 0.1 { // of a usual size
					b.Data[i] = 0
					return
				}
			}
		}},
		{name: "bias added twice", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			b := own(s.params, 1)
			for i := range b.Data {
				b.Data[i] *= 2
			}
		}},
		{name: "one row computed from the next", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			x := own(s.inputs, 0)
			copy(x.Row(3), x.Row(4))
		}},
		{name: "one channel 0", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w, b := own(s.params, 0), own(s.params, 1)
			o := r.IntN(w.Rows())
			clear(w.Row(o))
			b.Data[o] = 0
		}},
		{name: "one entry off by 2 % of its row's largest", caught: "f32 f16", spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			i := random(y, r)
			top := float32(0)
			for _, v := range y.Row(i / y.Cols()) {
				top = max(top, float32(math.Abs(float64(v))))
			}
			y.Data[i] += top / 50
		}},
		{name: "one NaN", caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			y.Data[random(y, r)] = float32(math.NaN())
		}},
		{name: "one infinity", caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			y.Data[random(y, r)] = float32(math.Inf(1))
		}},
		{name: "another layer's weights (gate and up swapped)", caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			r.Shuffle(len(w.Data), func(i, j int) { w.Data[i], w.Data[j] = w.Data[j], w.Data[i] })
		}},
	}
}

// otherHead reads key and value head h mod K instead of h/(H/K).
func otherHead(s *scenario, k *kernel, r *rand.Rand) {
	x := own(s.inputs, 1)
	heads := s.node.KVHeads
	width := len(x.Data) / (x.Shape[0] * heads)
	for t := range x.Shape[0] {
		row := x.Data[t*heads*width:][: heads*width : heads*width]
		for d := range width { // with two key heads and four query heads, heads 1 and 2 meet the wrong one
			row[d], row[width+d] = row[width+d], row[d]
		}
	}
}

// nodeBugs are the bugs of one kind each.
func nodeBugs() []bug {
	far := func(w *widths) { w.position = 200 }
	bugs := []bug{
		// Norms.
		{name: "eps 1e-6 for 1e-5, small rows", node: nodeRMS, style: small, caught: all, alter: eps(1e-6)},
		{name: "eps 1e-6 for 1e-5, usual rows", node: nodeRMS, alter: eps(1e-6)},
		{name: "eps 1e-6 for 1e-5, small rows", node: nodeLayerNorm, style: small, caught: all, alter: eps(1e-6)},
		{name: "eps 1e-12 for 1e-5, small rows", node: nodeLayerNorm, style: small, caught: all, alter: eps(1e-12)},
		{name: "eps 1e-6 for 1e-5, usual rows", node: nodeLayerNorm, alter: eps(1e-6)},
		{name: "unbiased variance, 64 wide", node: nodeLayerNorm, caught: all, spoil: unbiased},
		{name: "unbiased variance, 1024 wide", node: nodeLayerNorm, sizes: func(w *widths) { w.d = 1024 }, caught: "f32 f16", spoil: unbiased},
		{name: "mean of squares less square of mean, mean of 30 sigma", node: nodeLayerNorm, style: offset, caught: "f32", spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				row := s.inputs[0].Row(i)
				mean := k.dot(row, slices.Repeat([]float32{1}, len(row)), 0) / float32(len(row))
				variance := k.dot(row, row, 0)/float32(len(row)) - mean*mean
				for j, x := range row {
					y.Row(i)[j] = (x-mean)/float32(math.Sqrt(float64(variance)+1e-5))*s.params[0].Data[j] + s.params[1].Data[j]
				}
			}
		}},
		{name: "LayerNorm", node: nodeRMS, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				mean, variance := moments(k, s.inputs[0].Row(i))
				for j, x := range s.inputs[0].Row(i) {
					y.Row(i)[j] = (x - mean) / float32(math.Sqrt(float64(variance)+1e-5)) * s.params[0].Data[j]
				}
			}
		}},
		{name: "weight + 1", node: nodeRMS, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			for i := range w.Data {
				w.Data[i]++
			}
		}},
		{name: "one row of statistics in float16", node: nodeRMS, caught: "f32", alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.dot = laned(16, func(a, b, c float32) float32 { return compare.F16.Round(a*b + c) })
		}},
		// Activations.
		{name: "erf GELU", node: nodeQuickGELU, caught: all, spoil: instead(erfGELU)},
		{name: "tanh GELU", node: nodeQuickGELU, caught: all, spoil: instead(tanhGELU)},
		{name: "SiLU", node: nodeQuickGELU, caught: all, spoil: instead(siluOf)},
		{name: "1.7 for 1.702", node: nodeQuickGELU, caught: "f32 f16", spoil: instead(func(x float64) float64 { return x / (1 + math.Exp(-1.7*x)) })},
		{name: "float16 table", node: nodeQuickGELU, style: finer, in: "f32 f16", caught: "f32", spoil: instead(table(quickGELU))},
		{name: "tanh for erf", node: nodeGELU, caught: all, spoil: instead(tanhGELU)},
		{name: "tanh for erf, float16 tables, float32 inputs", node: nodeGELU, style: finer, in: "f16", caught: "f16", spoil: instead(table(tanhGELU))},
		{name: "float16 table", node: nodeGELU, style: finer, in: "f32 f16", caught: "f32", spoil: instead(table(erfGELU))},
		{name: "QuickGELU", node: nodeGELU, caught: all, spoil: instead(quickGELU)},
		{name: "ReLU", node: nodeGELU, caught: all, spoil: instead(func(x float64) float64 { return max(x, 0) })},
		{name: "erf off by 1e-5", node: nodeGELU, caught: "f32", spoil: instead(func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2) + 1e-5) })},
		{name: "erf GELU", node: nodeSiLU, caught: all, spoil: instead(erfGELU)},
		{name: "QuickGELU", node: nodeSiLU, caught: all, spoil: instead(quickGELU)},
		{name: "exp off by 2e-6", node: nodeSiLU, caught: "f32", alter: exps(func(x float64) float64 { return math.Exp(x) * (1 + 2e-6) })},
		{name: "exp off by 2e-6 x", node: nodeProbs, caught: "f32", alter: exps(func(x float64) float64 { return math.Exp(x * (1 + 2e-6)) })},
		{name: "exp 0 below -10", node: nodeProbs, caught: "f32", alter: exps(func(x float64) float64 {
			if x < -10 {
				return 0
			}
			return math.Exp(x)
		})},
		{name: "0.5 (1 + tanh(x/2)) for the sigmoid", node: nodeSiLU, caught: "f32", spoil: instead(func(x float64) float64 {
			return float64(float32(x) * (0.5 * (1 + float32(math.Tanh(x/2)))))
		})},
		// Attention.
		{name: "key head h mod K", node: nodeScores, caught: all, alter: otherHead},
		{name: "value head h mod K", node: nodeContext, caught: all, alter: otherHead},
		{name: "no scale", node: nodeScores, caught: all, spoil: scaled(4)},
		{name: "scaled twice", node: nodeVScores, caught: all, spoil: scaled(0.25)},
		{name: "scale 0.25 times 1 + 2^-12", node: nodeScores, caught: "f32", alter: beforeStorage(1 + 0x1p-12)},
		{name: "causal: sees one key too many", node: nodeProbs, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) { shiftMask(s, k, y, 2) }},
		{name: "causal: does not see itself", node: nodeProbs, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) { shiftMask(s, k, y, 0) }},
		{name: "no mask", node: nodeProbs, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				softmax(k, s.inputs[0].Row(i), y.Row(i))
			}
		}},
		{name: "causal mask in the tower", node: nodeVProbs, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) { shiftMask(s, k, y, 1) }},
		{name: "a hidden probability of 1e-30", node: nodeProbs, in: "f32 bf16", caught: "f32 bf16", spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) { y.Row(1)[5] = 1e-30 }},
		{name: "last key left out of the sum", node: nodeVProbs, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				x := s.inputs[0].Row(i)
				n := len(x) - 1
				softmax(k, x[:n], y.Row(i)[:n])
				y.Row(i)[n] = y.Row(i)[0] * float32(math.Exp(float64(x[n]-x[0])))
			}
		}},
		{name: "no maximum subtracted, scores of 100", node: nodeVProbs, style: offset, in: "f32", caught: "f32", spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				x, sum := s.inputs[0].Row(i), float32(0)
				for j, v := range x {
					y.Row(i)[j] = exp32(4 * v / 4 * 3)
					sum += y.Row(i)[j]
				}
				for j := range x {
					y.Row(i)[j] /= sum
				}
			}
		}},
		{name: "last key skipped", node: nodeVContext, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			p := own(s.inputs, 0)
			for i := range p.Rows() {
				p.Row(i)[p.Cols()-1] = 0
			}
		}},
		{name: "one head 0", node: nodeContext, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			for i := range y.Rows() {
				clear(y.Row(i)[16:32])
			}
		}},
		// Positions.
		{name: "rotate_half of the other sign", node: nodeRope, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			x := own(s.inputs, 2)
			for i := range x.Data {
				x.Data[i] *= -1
			}
		}},
		{name: "interleaved pairs", node: nodeRope, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			x, cos, sin := s.inputs[0], s.inputs[1], s.inputs[2]
			width := cos.Cols()
			for i := range y.Data {
				t, j := i/y.Cols()/y.Shape[1], i%width
				turned := -x.Data[i^1]
				if j%2 == 1 {
					turned *= -1
				}
				y.Data[i] = x.Data[i]*cos.Row(t)[j/2] + turned*sin.Row(t)[j/2]
			}
		}},
		{name: "cos and sin swapped", node: nodeRope, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			s.inputs[1], s.inputs[2] = s.inputs[2], s.inputs[1]
		}},
		{name: "float64 angles, positions to 3400", node: shapes.NodeCos, sizes: far, caught: "f32", spoil: rotated(func(p, i, d float64) float64 { return p * math.Pow(500000, -2*i/d) })},
		{name: "float64 angles, positions to 17", node: shapes.NodeCos, spoil: rotated(func(p, i, d float64) float64 { return p * math.Pow(500000, -2*i/d) })},
		{name: "bfloat16 angles", node: shapes.NodeCos, sizes: far, caught: all, spoil: rotated(func(p, i, d float64) float64 {
			return float64(compare.BF16.Round(float32(p * math.Pow(500000, -2*i/d))))
		})},
		{name: "theta 10000", node: shapes.NodeCos, caught: all, spoil: rotated(func(p, i, d float64) float64 { return p * math.Pow(10000, -2*i/d) })},
		{name: "exponent i/Dh", node: shapes.NodeSin, caught: all, spoil: rotated(func(p, i, d float64) float64 { return p * math.Pow(500000, -i/d) })},
		{name: "positions from 1", node: shapes.NodeCos, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			for i := range s.in.PositionIDs {
				s.in.PositionIDs[i]++
			}
		}},
		// The rest.
		{name: "truncated", node: nodeAdd, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			k.round = func(c compare.Class, x float32) float32 { return cut(c, x) }
			if s.class == compare.F32 {
				k.round = func(c compare.Class, x float32) float32 { return x }
			}
		}, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			if s.class == compare.F32 {
				for i := range y.Data {
					y.Data[i] = toZero(float64(s.inputs[0].Data[i]) + float64(s.inputs[1].Data[i]))
				}
			}
		}},
		{name: "residual twice", node: nodeAdd, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			x := own(s.inputs, 0)
			for i := range x.Data {
				x.Data[i] *= 2
			}
		}},
		{name: "truncated", node: nodeMul, in: "f16 bf16", caught: "f16 bf16", alter: func(s *scenario, k *kernel, r *rand.Rand) { k.round = cut }},
		{name: "class token without position", node: nodeEmbeddings, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			copy(y.Row(0), s.params[0].Data)
		}},
		{name: "patches read (ky, kx, c)", node: nodePatch, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			p := w.Shape[2]
			for d := range w.Shape[0] {
				filter := slices.Clone(w.Data[d*3*p*p:][:3*p*p])
				for i := range filter {
					w.Data[d*3*p*p+i] = filter[i%3*p*p+i/3]
				}
			}
		}},
		{name: "BGR", node: nodePatch, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			w := own(s.params, 0)
			p := w.Shape[2] * w.Shape[2]
			for d := range w.Shape[0] {
				filter := slices.Clone(w.Data[d*3*p:][:3*p])
				copy(w.Data[d*3*p:], filter[2*p:])
				copy(w.Data[d*3*p+2*p:], filter[:p])
			}
		}},
		{name: "one value one step up", node: nodeEmbed, caught: all, spoil: func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
			y.Data[7] += float32(2 * s.class.HalfStep(float64(y.Data[7])))
		}},
		{name: "next token's row", node: nodeEmbed, caught: all, alter: func(s *scenario, k *kernel, r *rand.Rand) {
			s.in.InputIDs[3] = (s.in.InputIDs[3] + 1) % 40
		}},
	}
	return bugs
}

func unbiased(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
	for i := range y.Rows() {
		mean, variance := moments(k, s.inputs[0].Row(i))
		variance *= float32(y.Cols()) / float32(y.Cols()-1)
		for j, x := range s.inputs[0].Row(i) {
			y.Row(i)[j] = (x-mean)/float32(math.Sqrt(float64(variance)+1e-5))*s.params[0].Data[j] + s.params[1].Data[j]
		}
	}
}

// shiftMask lets query i see its first i + more keys.
func shiftMask(s *scenario, k kernel, y shapes.Tensor, more int) {
	queries := y.Shape[len(y.Shape)-2]
	for i := range y.Rows() {
		count := min(i%queries+more, y.Cols())
		clear(y.Row(i))
		if count > 0 {
			softmax(k, s.inputs[0].Row(i)[:count], y.Row(i)[:count])
		}
	}
}

// rotated fills cos or sin of other angles.
func rotated(angle func(p, i, d float64) float64) func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
	return func(s *scenario, k kernel, y shapes.Tensor, r *rand.Rand) {
		f := math.Cos
		if s.node.Kind == shapes.RotarySin {
			f = math.Sin
		}
		for t, p := range s.in.PositionIDs {
			for j := range y.Cols() {
				y.Row(t)[j] = float32(f(angle(float64(p), float64(j%(y.Cols()/2)), float64(y.Cols()))))
			}
		}
	}
}

// TestWrongKernels plants every bug in every class. With -v it prints the matrix of docs/numerics.md: error over limit, the smallest of all tensors.
func TestWrongKernels(t *testing.T) {
	ks, patches := []int{64, 128, 1024, 4096, 14336}, []int{16, 12, 8, 4, 4}
	if *seeds <= 8 {
		ks = ks[:4]
	}
	for i, k := range ks {
		bugs := linearBugs()
		for j := range bugs {
			bugs[j].node, bugs[j].sizes = nodeFC2, long(k, patches[i])
			bugs[j].name = fmt.Sprintf("K = %d: %s", k, bugs[j].name)
		}
		plant(t, bugs, max(1, min(*seeds, 20)*64/k), "Linear")
	}
	bugs := map[shapes.Kind][]bug{}
	var kinds []shapes.Kind
	for _, b := range nodeBugs() {
		kind := newScenario(t, tinyWidths(), b.node, compare.F32, normal, 0).node.Kind
		if bugs[kind] == nil {
			kinds = append(kinds, kind)
		}
		bugs[kind] = append(bugs[kind], b)
	}
	for _, kind := range kinds {
		plant(t, bugs[kind], min(*seeds, 20), string(kind))
	}
}

// plant runs the bugs on tensors tensors in each class.
func plant(t *testing.T, bugs []bug, tensors int, kind string) {
	t.Helper()
	least := map[compare.Class][]compare.LocalResult{}
	var wg sync.WaitGroup
	for _, class := range compare.Classes() {
		results := make([]compare.LocalResult, len(bugs))
		least[class] = results
		wg.Go(func() {
			for seed := range uint64(tensors) {
				scenarios := map[string]*scenario{} // many bugs are planted in the same one
				for i, b := range bugs {
					if b.in != "" && !slices.Contains(strings.Fields(b.in), string(class)) {
						continue
					}
					key := b.node + b.style
					if b.sizes != nil && kind != "Linear" {
						key = b.name
					}
					if scenarios[key] == nil {
						scenarios[key] = b.scenario(t, class, seed)
					}
					if r := b.run(t, scenarios[key]); results[i].Checks == nil || r.Ratio < results[i].Ratio {
						results[i] = r
					}
				}
			}
		})
	}
	wg.Wait()
	for i, b := range bugs {
		text := fmt.Sprintf("| %s | %s |", kind, b.name)
		for _, class := range compare.Classes() {
			r := least[class][i]
			if r.Checks == nil {
				text += " |"
				continue
			}
			text += " " + magnitude(r.Ratio) + " |"
			if slices.Contains(strings.Fields(b.caught), string(class)) && r.Pass {
				t.Errorf("%s: %s in class %s passed: %v", kind, b.name, class, r)
			}
		}
		t.Log(text)
	}
}

// magnitude prints a ratio with two digits.
func magnitude(x float64) string {
	switch {
	case x >= compare.Worse:
		return "any"
	case x >= 1000:
		return fmt.Sprintf("%.0e", x)
	}
	return fmt.Sprintf("%.2g", x)
}

// TestOneTolerance counts how many of the bugs of sums of products one tolerance for everything would miss, 1024 terms in class f32, and whether
// it lets the right kernels pass.
func TestOneTolerance(t *testing.T) {
	cosine := func(want, got []float32) float64 {
		var xy, xx, yy float64
		for i := range want {
			x, y := float64(want[i]), float64(got[i])
			xy, xx, yy = xy+x*y, xx+x*x, yy+y*y
		}
		return xy / math.Sqrt(xx*yy)
	}
	nmse := func(want, got []float32) float64 {
		var d, v float64
		for i := range want {
			e := float64(got[i]) - float64(want[i])
			d, v = d+e*e, v+float64(want[i])*float64(want[i])
		}
		return d / v
	}
	rules := []struct {
		name string
		pass func(want, got []float32) bool
	}{
		{"cosine above 0.999", func(want, got []float32) bool { return cosine(want, got) > 0.999 }},
		{"NMSE below 1e-2", func(want, got []float32) bool { return nmse(want, got) < 1e-2 }},
		{"NMSE below 5e-4", func(want, got []float32) bool { return nmse(want, got) < 5e-4 }},
		{"|difference| <= 1e-3 + 1e-3 |truth|", func(want, got []float32) bool {
			for i := range want {
				if !(math.Abs(float64(got[i])-float64(want[i])) <= 1e-3+1e-3*math.Abs(float64(want[i]))) {
					return false
				}
			}
			return true
		}},
		{"|difference| <= 1e-8 + 1e-5 |truth|", func(want, got []float32) bool {
			for i := range want {
				if !(math.Abs(float64(got[i])-float64(want[i])) <= 1e-8+1e-5*math.Abs(float64(want[i]))) {
					return false
				}
			}
			return true
		}},
	}
	s := newScenario(t, func() widths { w := tinyWidths(); long(1024, 4)(&w); return w }(), nodeFC2, compare.F32, normal, 1)
	want := s.budget(t, 0).Want.Data
	missed, alarms := make([]int, len(rules)+1), make([]int, len(rules)+1)
	bugs, kernels := 0, rightKernels()[:10]
	for _, k := range kernels {
		y := emulate(s, k)
		for i, r := range rules {
			if !r.pass(want, y.Data) {
				alarms[i]++
			}
		}
		if !judge(t, s, k).Pass {
			alarms[len(rules)]++
		}
	}
	for _, b := range linearBugs() {
		if !slices.Contains(strings.Fields(b.caught), string(compare.F32)) {
			continue
		}
		bugs++
		y := b.output(s)
		for i, r := range rules {
			if r.pass(want, y.Data) {
				missed[i]++
			}
		}
		if compare.Local(s.budget(t, 0), s.node, y).Pass {
			missed[len(rules)]++
		}
	}
	for i, r := range rules {
		t.Logf("| %s | %d of %d | %d of %d |", r.name, missed[i], bugs, alarms[i], len(kernels))
	}
	last := len(rules)
	t.Logf("| the local verdict | %d of %d | %d of %d |", missed[last], bugs, alarms[last], len(kernels))
	if missed[last]+alarms[last] > 0 {
		t.Error("the local verdict is wrong about some of them")
	}
}
