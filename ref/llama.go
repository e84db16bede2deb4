package ref

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// EmbedTokens looks up one row a token: ids [T] -> [T, C]. Image tokens are looked up like any other; MergeEmbeddings
// overwrites them (S20).
func EmbedTokens(w shapes.Weights, c shapes.TextConfig, ids []int) (Tensor, error) {
	y := shapes.NewTensor(len(ids), c.HiddenSize) // [T, C]
	for t, id := range ids {
		if id < 0 || id >= c.VocabSize {
			return Tensor{}, fmt.Errorf("ref: input_ids[%d]: %d, want 0 to %d", t, id, c.VocabSize-1)
		}
		if err := w.Read(shapes.TextModel+".embed_tokens.weight", id*c.HiddenSize, y.Row(t)); err != nil {
			return Tensor{}, err
		}
	}
	return y, nil
}

// InverseFrequencies are the angles that one position turns each pair of channels by: 1 / theta^(2i/Dh), i < Dh/2, in rad.
// S25: the power is rounded to float32, then its reciprocal is (LlamaRotaryEmbedding's inv_freq, a float32 buffer).
func InverseFrequencies(headDim int, theta float64) []float32 {
	f := make([]float32, headDim/2)
	for i := range f {
		power := float32(exp(float64(2*i) / float64(headDim) * log(theta)))
		f[i] = 1 / power
	}
	return f
}

// RotaryCos is the cosine of every position's angles: [T] -> [T, Dh], the Dh/2 angles twice over.
// S25: the angle is a float32 product, as in transformers; its cosine is rounded to float32 once.
func RotaryCos(positions []int, headDim int, theta float64) Tensor {
	return rotary(positions, headDim, theta, func(angle float64) float64 { cos, _ := cosSin(angle); return cos })
}

// RotarySin is the sine of the same angles.
func RotarySin(positions []int, headDim int, theta float64) Tensor {
	return rotary(positions, headDim, theta, func(angle float64) float64 { _, sin := cosSin(angle); return sin })
}

func rotary(positions []int, headDim int, theta float64, f func(float64) float64) Tensor {
	frequencies := InverseFrequencies(headDim, theta)
	y := shapes.NewTensor(len(positions), headDim) // [T, Dh]
	for t, p := range positions {
		for i, frequency := range frequencies {
			v := float32(f(float64(float32(p) * frequency)))
			y.Row(t)[i], y.Row(t)[i+headDim/2] = v, v
		}
	}
	return y
}

// Rope turns each head's channels by the position's angles: x [T, heads*Dh] -> [T, heads, Dh].
// Channel j is paired with channel j + Dh/2, not with its neighbour: x cos + rotate_half(x) sin, where
// rotate_half(x) = [-x[Dh/2:], x[:Dh/2]] (S26; apply_rotary_pos_emb, transformers 4.51).
func Rope(x, cos, sin Tensor, heads int) Tensor {
	positions, width := x.Shape[0], cos.Cols()
	mustFit(x.Cols() == heads*width && cos.Rows() == positions, "Rope: x %v, cos %v, %d heads", x.Shape, cos.Shape, heads)
	y := shapes.NewTensor(positions, heads, width) // [T, heads, Dh]
	half := width / 2
	for t := range positions {
		c, s := cos.Row(t), sin.Row(t)
		for h := range heads {
			in, out := x.Row(t)[h*width:][:width], y.Data[(t*heads+h)*width:][:width]
			for j := range half {
				out[j] = float32(float64(in[j])*float64(c[j]) - float64(in[j+half])*float64(s[j]))
				out[j+half] = float32(float64(in[j+half])*float64(c[j+half]) + float64(in[j])*float64(s[j+half]))
			}
		}
	}
	return y
}

// RMSNorm is LlamaRMSNorm: x / sqrt(mean(x^2) + eps) * Weight over the last axis (S24).
type RMSNorm struct {
	Weight Tensor // [C]
	Eps    float64
}

// Forward: [T, C] -> [T, C].
func (l RMSNorm) Forward(x Tensor) Tensor {
	y := shapes.NewTensor(x.Shape...)
	n := float64(x.Cols())
	parallel(x.Rows(), func(r int) {
		in, out := x.Row(r), y.Row(r)
		squares := 0.0
		for _, v := range in {
			squares += float64(v) * float64(v)
		}
		root := math.Sqrt(squares/n + l.Eps)
		for j, v := range in {
			out[j] = float32(float64(v) * float64(l.Weight.Data[j]) / root)
		}
	})
	return y
}

// LlamaDecoderLayer is one pre-norm layer of the decoder (S23).
type LlamaDecoderLayer struct {
	SelfAttn               LlamaAttention
	MLP                    LlamaMLP
	InputLayernorm         RMSNorm
	PostAttentionLayernorm RMSNorm
}

// Forward: x [T, C], cos and sin [T, Dh] -> [T, C]. past holds the positions before x, and x's afterwards.
func (l LlamaDecoderLayer) Forward(x, cos, sin Tensor, past *KV, name string, see see) Tensor {
	h := see(name+".input_layernorm", l.InputLayernorm.Forward(x))                 // [T, C]
	h = l.SelfAttn.Forward(h, cos, sin, past, name+".self_attn", see)              // [T, C]
	x = see(name+".residual_attn", Add(x, h))                                      // [T, C]
	h = see(name+".post_attention_layernorm", l.PostAttentionLayernorm.Forward(x)) // [T, C]
	h = l.MLP.Forward(h, name+".mlp", see)                                         // [T, C]
	return see(name, Add(x, h))                                                    // [T, C]
}

// LlamaAttention lets every position see itself and what stands before it; H/K query heads share one key head
// (S27, S28).
type LlamaAttention struct {
	QProj        Linear // [H*Dh, C]
	KProj, VProj Linear // [K*Dh, C]
	OProj        Linear // [C, H*Dh]
	Heads        int    // H
	KVHeads      int    // K
}

// Forward: x [T, C], cos and sin [T, Dh] -> [T, C]; past [L-T] -> [L].
func (a LlamaAttention) Forward(x, cos, sin Tensor, past *KV, name string, see see) Tensor {
	q := see(name+".q_proj", a.QProj.Forward(x))          // [T, H*Dh]
	k := see(name+".k_proj", a.KProj.Forward(x))          // [T, K*Dh]
	v := see(name+".v_proj", a.VProj.Forward(x))          // [T, K*Dh]
	q = see(name+".rope_q", Rope(q, cos, sin, a.Heads))   // [T, H, Dh]
	k = see(name+".rope_k", Rope(k, cos, sin, a.KVHeads)) // [T, K, Dh]
	past.Append(k, v)
	scores := see(name+".scores", AttentionScores(q, past.K, a.Heads, a.KVHeads, true))  // [H, T, L]
	probs := see(name+".probs", Softmax(scores))                                         // [H, T, L]
	context := see(name+".context", AttentionContext(probs, past.V, a.Heads, a.KVHeads)) // [T, H*Dh]
	return see(name+".o_proj", a.OProj.Forward(context))                                 // [T, C]
}

// KV is what one layer keeps of the positions behind it: keys after their rotation, values as they are (DynamicCache).
type KV struct {
	K Tensor // [L, K, Dh]
	V Tensor // [L, K*Dh]
}

// Append adds the keys and values of T more positions.
func (kv *KV) Append(k, v Tensor) {
	kv.K = appendRows(kv.K, k)
	kv.V = appendRows(kv.V, v)
}

func appendRows(x, more Tensor) Tensor {
	y := Tensor{Shape: slices.Clone(more.Shape), Data: append(x.Data, more.Data...)}
	if x.Shape != nil {
		y.Shape[0] += x.Shape[0]
	}
	return y
}

// LlamaMLP is down(SiLU(gate(x)) * up(x)) (S23).
type LlamaMLP struct {
	GateProj, UpProj Linear // [F, C]
	DownProj         Linear // [C, F]
}

// Forward: [T, C] -> [T, C].
func (m LlamaMLP) Forward(x Tensor, name string, see see) Tensor {
	gate := see(name+".gate_proj", m.GateProj.Forward(x))    // [T, F]
	up := see(name+".up_proj", m.UpProj.Forward(x))          // [T, F]
	act := see(name+".act_fn", SiLU(gate))                   // [T, F]
	gated := see(name+".gated", Mul(act, up))                // [T, F]
	return see(name+".down_proj", m.DownProj.Forward(gated)) // [T, C]
}
