package ref

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/llavaref/llavaref/shapes"
)

// Tensor is shapes.Tensor: float32, row-major.
type Tensor = shapes.Tensor

// Linear is torch's nn.Linear: y = x W^T + b.
//
// x [..., K] -> [..., M], with Weight [M, K] as in the checkpoint and Bias [M], or no bias at all.
// y[i, o] = float32(sum_k x[i, k] W[o, k] + b[o]), the sum in float64 and in the order of k.
type Linear struct{ Weight, Bias Tensor }

// Forward computes the layer.
func (l Linear) Forward(x Tensor) Tensor {
	rows, in, out := x.Rows(), x.Cols(), l.Weight.Shape[0]
	mustFit(l.Weight.Shape[1] == in, "Linear: x %v, Weight %v", x.Shape, l.Weight.Shape)
	y := shapes.NewTensor(append(slices.Clone(x.Shape[:len(x.Shape)-1]), out)...) // [..., M]
	const rowBlock, outBlock = 256, 32                                            // what stays in the caches as float64
	a := make([]float64, min(rows, rowBlock)*in)
	blocks := ceilDiv(out, outBlock)
	workers := min(runtime.GOMAXPROCS(0), blocks)
	type scratch struct{ b, sums []float64 }
	space := make([]scratch, workers) // made once: a layer in float64 would be twice its weights
	for w := range space {
		space[w] = scratch{make([]float64, outBlock*in), make([]float64, rowBlock*outBlock)}
	}
	for r0 := 0; r0 < rows; r0 += rowBlock {
		r1 := min(r0+rowBlock, rows)
		widenTo(a, x.Data[r0*in:r1*in]) // [r1-r0, K]
		parallel(workers, func(w int) {
			b, sums := space[w].b, space[w].sums
			for block := w; block < blocks; block += workers {
				o0, o1 := block*outBlock, min((block+1)*outBlock, out)
				widenTo(b, l.Weight.Data[o0*in:o1*in]) // [o1-o0, K]
				productT(sums, a, b, r1-r0, o1-o0, in) // [r1-r0, o1-o0]
				for i := range r1 - r0 {
					for o := range o1 - o0 {
						sum := sums[i*(o1-o0)+o]
						if l.Bias.Shape != nil {
							sum += float64(l.Bias.Data[o0+o])
						}
						y.Data[(r0+i)*out+o0+o] = float32(sum)
					}
				}
			}
		})
	}
	return y
}

// productT puts A B^T into y [m, n], for A [m, k] and B [n, k], each sum in the order of k.
// Four rows of A meet two rows of B at a time: eight sums side by side, each of them still in order.
func productT(y, a, b []float64, m, n, k int) {
	for i := 0; i < m; i += 4 {
		for j := 0; j < n; j += 2 {
			// At the edges the last row is computed again in place of one that is not there.
			i1, i2, i3, j1 := min(i+1, m-1), min(i+2, m-1), min(i+3, m-1), min(j+1, n-1)
			a0, a1, a2, a3 := a[i*k:][:k], a[i1*k:][:k], a[i2*k:][:k], a[i3*k:][:k]
			b0, b1 := b[j*k:][:k], b[j1*k:][:k]
			var s00, s01, s10, s11, s20, s21, s30, s31 float64
			for p, u := range b0 {
				v := b1[p]
				s00 += a0[p] * u
				s01 += a0[p] * v
				s10 += a1[p] * u
				s11 += a1[p] * v
				s20 += a2[p] * u
				s21 += a2[p] * v
				s30 += a3[p] * u
				s31 += a3[p] * v
			}
			y[i*n+j], y[i*n+j1] = s00, s01
			y[i1*n+j], y[i1*n+j1] = s10, s11
			y[i2*n+j], y[i2*n+j1] = s20, s21
			y[i3*n+j], y[i3*n+j1] = s30, s31
		}
	}
}

// AttentionScores is q k^T / sqrt(Dh), head by head.
//
// Vision: q, k [N, S, D] -> [N, H, S, S]. Text: q [T, H, Dh], k [L, K, Dh] -> [H, T, L], each key head shared by H/K query
// heads in a row, so query head h meets key head h / (H/K) (S27); L - T positions come from a cache. A causal query i sees keys
// j <= i + L - T only; the others get -Inf.
// CLIPAttention and LlamaAttention (eager_attention_forward), transformers 4.51; the scale is applied to the float64 sum.
func AttentionScores(q, k Tensor, heads, kvHeads int, causal bool) Tensor {
	batch, queries, keys, width := attentionSizes(q, k, heads, kvHeads, causal)
	y := shapes.NewTensor(batch*heads, queries, keys) // [N*H, S, S] or [H, T, L]
	scale := 1 / math.Sqrt(float64(width))
	parallel(batch*heads, func(bh int) {
		n, h := bh/heads, bh%heads
		qs := headRows(q, n, queries, heads, h, width)                // [queries, Dh]
		ks := headRows(k, n, keys, kvHeads, h/(heads/kvHeads), width) // [keys, Dh]
		sums := make([]float64, queries*keys)                         // [queries, keys]
		productT(sums, qs, ks, queries, keys, width)
		for i := range queries {
			for j := range keys {
				s := float32(sums[i*keys+j] * scale)
				if causal && j > i+keys-queries {
					s = float32(math.Inf(-1))
				}
				y.Data[(bh*queries+i)*keys+j] = s
			}
		}
	})
	if !causal {
		y.Shape = []int{batch, heads, queries, keys} // [N, H, S, S]
	}
	return y
}

// Softmax is exp(x - max) / sum over the last axis. A score of -Inf gets exactly 0.
func Softmax(x Tensor) Tensor {
	y := shapes.NewTensor(x.Shape...)
	parallel(x.Rows(), func(r int) {
		in, out := x.Row(r), y.Row(r)
		top := float64(slices.Max(in))
		e := make([]float64, len(in))
		sum := 0.0
		for j, v := range in {
			e[j] = exp(float64(v) - top)
			sum += e[j]
		}
		for j := range out {
			out[j] = float32(e[j] / sum)
		}
	})
	return y
}

// AttentionContext is probabilities times values, the heads side by side again.
//
// Vision: probs [N, H, S, S], v [N, S, D] -> [N, S, D]. Text: probs [H, T, L], v [L, K*Dh] -> [T, H*Dh]; query head h
// meets value head h / (H/K).
func AttentionContext(probs, v Tensor, heads, kvHeads int) Tensor {
	queries, keys := probs.Shape[len(probs.Shape)-2], probs.Cols()
	batch := probs.Rows() / queries / heads
	width := v.Cols() / kvHeads
	mustFit(v.Rows() == batch*keys && width*kvHeads == v.Cols(), "AttentionContext: probs %v, v %v, %d and %d heads", probs.Shape, v.Shape, heads, kvHeads)
	y := shapes.NewTensor(batch, queries, heads*width) // [N, S, D] or [1, T, H*Dh]
	parallel(batch*heads, func(bh int) {
		n, h := bh/heads, bh%heads
		p := widen(probs.Data[bh*queries*keys : (bh+1)*queries*keys]) // [queries, keys]
		vs := headRows(v, n, keys, kvHeads, h/(heads/kvHeads), width) // [keys, Dh]
		sums := make([]float64, queries*width)                        // [queries, Dh]
		productT(sums, p, transpose(vs, keys, width), queries, width, keys)
		for i := range queries {
			for d := range width {
				y.Data[(n*queries+i)*heads*width+h*width+d] = float32(sums[i*width+d])
			}
		}
	})
	if len(probs.Shape) == 3 {
		y.Shape = y.Shape[1:] // [T, H*Dh]
	}
	return y
}

// attentionSizes reads batch, queries, keys and head width off q and k, which both hold their heads side by side.
func attentionSizes(q, k Tensor, heads, kvHeads int, causal bool) (batch, queries, keys, width int) {
	if causal { // text: [T, H, Dh], [L, K, Dh]
		mustFit(len(q.Shape) == 3 && len(k.Shape) == 3 && q.Shape[1] == heads && k.Shape[1] == kvHeads && q.Shape[2] == k.Shape[2] && q.Shape[0] <= k.Shape[0],
			"AttentionScores: q %v, k %v, %d and %d heads", q.Shape, k.Shape, heads, kvHeads)
		return 1, q.Shape[0], k.Shape[0], q.Shape[2]
	}
	mustFit(len(q.Shape) == 3 && heads == kvHeads && slices.Equal(q.Shape, k.Shape) && q.Shape[2]%heads == 0,
		"AttentionScores: q %v, k %v, %d and %d heads", q.Shape, k.Shape, heads, kvHeads)
	return q.Shape[0], q.Shape[1], k.Shape[1], q.Shape[2] / heads
}

// headRows copies head h of sequence n out of x, whose rows hold all heads side by side: [rows, Dh].
func headRows(x Tensor, n, rows, heads, h, width int) []float64 {
	y := make([]float64, 0, rows*width)
	for i := range rows {
		at := ((n*rows+i)*heads + h) * width // x[n, i, h, :]
		for _, v := range x.Data[at : at+width] {
			y = append(y, float64(v))
		}
	}
	return y
}

func transpose(x []float64, rows, cols int) []float64 {
	y := make([]float64, len(x)) // [cols, rows]
	for r := range rows {
		for c := range cols {
			y[c*rows+r] = x[r*cols+c]
		}
	}
	return y
}

// Add is a + b, the residual stream's one operation.
func Add(a, b Tensor) Tensor {
	mustFit(slices.Equal(a.Shape, b.Shape), "Add: %v and %v", a.Shape, b.Shape)
	y := shapes.NewTensor(a.Shape...)
	for i := range y.Data {
		y.Data[i] = float32(float64(a.Data[i]) + float64(b.Data[i]))
	}
	return y
}

// Mul is a * b, element by element: the gate of LlamaMLP.
func Mul(a, b Tensor) Tensor {
	mustFit(slices.Equal(a.Shape, b.Shape), "Mul: %v and %v", a.Shape, b.Shape)
	y := shapes.NewTensor(a.Shape...)
	for i := range y.Data {
		y.Data[i] = float32(float64(a.Data[i]) * float64(b.Data[i]))
	}
	return y
}

// QuickGELU is x sigmoid(1.702 x), the activation of CLIP (QuickGELUActivation).
func QuickGELU(x Tensor) Tensor {
	return elementwise(x, func(v float64) float64 { return v / (1 + exp(-1.702*v)) })
}

// GELU is x/2 (1 + erf(x / sqrt(2))), the projector's activation (GELUActivation): exact, not the tanh approximation.
func GELU(x Tensor) Tensor {
	return elementwise(x, func(v float64) float64 { return v / 2 * (1 + erf(v/math.Sqrt2)) })
}

// SiLU is x sigmoid(x), the activation of Llama.
func SiLU(x Tensor) Tensor {
	return elementwise(x, func(v float64) float64 { return v / (1 + exp(-v)) })
}

func elementwise(x Tensor, f func(float64) float64) Tensor {
	y := shapes.NewTensor(x.Shape...)
	parallel(x.Rows(), func(r int) {
		in, out := x.Row(r), y.Row(r)
		for j, v := range in {
			out[j] = float32(f(float64(v)))
		}
	})
	return y
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	widenTo(y, x)
	return y
}

func widenTo(y []float64, x []float32) {
	for i, v := range x {
		y[i] = float64(v)
	}
}

// parallel calls f(0) ... f(n-1), on all cores. No two calls write to the same element and none of them splits a sum,
// so the number of cores cannot change a bit.
func parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// mustFit panics if tensors do not fit together: the caller's mistake, data from outside is checked before it comes here.
func mustFit(ok bool, format string, args ...any) {
	if !ok {
		panic("ref: " + fmt.Sprintf(format, args...))
	}
}
