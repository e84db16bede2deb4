package ref

import (
	"math"

	"github.com/llavaref/llavaref/shapes"
)

// see hands a node's value to the probe, if there is one, and returns it.
type see func(node string, t Tensor) Tensor

// CLIPVisionEmbeddings makes positions out of pixels: one patch, one position, and the class token before them.
type CLIPVisionEmbeddings struct {
	ClassEmbedding    Tensor // [D]
	PatchEmbedding    PatchEmbedding
	PositionEmbedding Tensor // [S, D]
}

// Forward: pixel_values [N, 3, px, px] -> [N, S, D]. S6, S7; CLIPVisionEmbeddings, transformers 4.51, without interpolation.
func (e CLIPVisionEmbeddings) Forward(pixels Tensor, name string, see see) Tensor {
	patches := see(name+".patch_embedding", e.PatchEmbedding.Forward(pixels)) // [N, D, P, P]
	return see(name, e.Embed(patches))                                        // [N, S, D]
}

// PatchEmbedding is the convolution whose stride is its kernel: each patch meets each filter once.
type PatchEmbedding struct {
	Weight Tensor // [D, 3, p, p]
}

// Forward: [N, 3, px, px] -> [N, D, P, P].
// y[n, d, gy, gx] = sum over c, ky, kx of Weight[d, c, ky, kx] x[n, c, p gy + ky, p gx + kx], no bias
// (S6; torch's conv2d).
func (e PatchEmbedding) Forward(x Tensor) Tensor {
	tiles, channels, px := x.Shape[0], x.Shape[1], x.Shape[2]
	width, p := e.Weight.Shape[0], e.Weight.Shape[2]
	side, size := px/p, channels*p*p
	y := shapes.NewTensor(tiles, width, side, side) // [N, D, P, P]
	w := widen(e.Weight.Data)                       // [D, 3*p*p]
	parallel(tiles*side, func(row int) {
		n, gy := row/side, row%side
		patches := make([]float64, 0, side*size) // [P, 3*p*p], one row of patches
		for gx := range side {
			for c := range channels {
				for ky := range p {
					at := ((n*channels+c)*px+gy*p+ky)*px + gx*p // x[n, c, p gy + ky, p gx]
					for _, v := range x.Data[at : at+p] {
						patches = append(patches, float64(v))
					}
				}
			}
		}
		sums := make([]float64, side*width) // [P, D]
		productT(sums, patches, w, side, width, size)
		for gx := range side {
			for d := range width {
				y.Data[((n*width+d)*side+gy)*side+gx] = float32(sums[gx*width+d])
			}
		}
	})
	return y
}

// Embed: patches [N, D, P, P] -> [N, S, D]. Position 0 is the class token, position 1 + gy P + gx the patch (gy, gx);
// row s of the position embedding is added to position s, the class token's included (S7).
func (e CLIPVisionEmbeddings) Embed(patches Tensor) Tensor {
	tiles, width := patches.Shape[0], patches.Shape[1]
	count := patches.Shape[2] * patches.Shape[3]
	y := shapes.NewTensor(tiles, 1+count, width) // [N, S, D]
	for n := range tiles {
		for s := range 1 + count {
			for d := range width {
				v := e.ClassEmbedding.Data[d]
				if s > 0 {
					v = patches.Data[(n*width+d)*count+s-1] // patches[n, d, gy, gx]
				}
				y.Data[(n*(1+count)+s)*width+d] = float32(float64(v) + float64(e.PositionEmbedding.Data[s*width+d]))
			}
		}
	}
	return y
}

// LayerNorm is torch's nn.LayerNorm over the last axis, with the biased variance:
// y = (x - mean) / sqrt(var + eps) * Weight + Bias (S8).
type LayerNorm struct {
	Weight, Bias Tensor // [D]
	Eps          float64
}

// Forward: [..., D] -> [..., D].
func (l LayerNorm) Forward(x Tensor) Tensor {
	y := shapes.NewTensor(x.Shape...)
	n := float64(x.Cols())
	parallel(x.Rows(), func(r int) {
		in, out := x.Row(r), y.Row(r)
		mean := 0.0
		for _, v := range in {
			mean += float64(v)
		}
		mean /= n
		variance := 0.0
		for _, v := range in {
			d := float64(v) - mean
			variance += float64(d * d)
		}
		sigma := math.Sqrt(variance/n + l.Eps)
		for j, v := range in {
			out[j] = float32(float64((float64(v)-mean)/sigma*float64(l.Weight.Data[j])) + float64(l.Bias.Data[j]))
		}
	})
	return y
}

// CLIPEncoderLayer is one pre-norm layer of the tower (S8).
type CLIPEncoderLayer struct {
	SelfAttn   CLIPAttention
	LayerNorm1 LayerNorm
	MLP        CLIPMLP
	LayerNorm2 LayerNorm
}

// Forward: [N, S, D] -> [N, S, D].
func (l CLIPEncoderLayer) Forward(x Tensor, name string, see see) Tensor {
	h := see(name+".layer_norm1", l.LayerNorm1.Forward(x)) // [N, S, D]
	h = l.SelfAttn.Forward(h, name+".self_attn", see)      // [N, S, D]
	x = see(name+".residual_attn", Add(x, h))              // [N, S, D]
	h = see(name+".layer_norm2", l.LayerNorm2.Forward(x))  // [N, S, D]
	h = l.MLP.Forward(h, name+".mlp", see)                 // [N, S, D]
	return see(name, Add(x, h))                            // [N, S, D]
}

// CLIPAttention lets every position of a tile see every other one of the same tile (S9).
type CLIPAttention struct {
	KProj, VProj, QProj, OutProj Linear // [D, D] and [D] each
	Heads                        int
}

// Forward: [N, S, D] -> [N, S, D].
func (a CLIPAttention) Forward(x Tensor, name string, see see) Tensor {
	q := see(name+".q_proj", a.QProj.Forward(x))                                  // [N, S, D]
	k := see(name+".k_proj", a.KProj.Forward(x))                                  // [N, S, D]
	v := see(name+".v_proj", a.VProj.Forward(x))                                  // [N, S, D]
	scores := see(name+".scores", AttentionScores(q, k, a.Heads, a.Heads, false)) // [N, H, S, S]
	probs := see(name+".probs", Softmax(scores))                                  // [N, H, S, S]
	context := see(name+".context", AttentionContext(probs, v, a.Heads, a.Heads)) // [N, S, D]
	return see(name+".out_proj", a.OutProj.Forward(context))                      // [N, S, D]
}

// CLIPMLP is fc2(QuickGELU(fc1(x))).
type CLIPMLP struct {
	FC1 Linear // [F, D] and [F]
	FC2 Linear // [D, F] and [D]
}

// Forward: [N, S, D] -> [N, S, D].
func (m CLIPMLP) Forward(x Tensor, name string, see see) Tensor {
	h := see(name+".fc1", m.FC1.Forward(x))      // [N, S, F]
	h = see(name+".activation_fn", QuickGELU(h)) // [N, S, F]
	return see(name+".fc2", m.FC2.Forward(h))    // [N, S, D]
}

// ClassToken takes position 0 of every tile: [N, S, D] -> [N, D].
func ClassToken(x Tensor) Tensor {
	tiles, positions, width := x.Shape[0], x.Shape[1], x.Shape[2]
	y := shapes.NewTensor(tiles, width) // [N, D]
	for n := range tiles {
		copy(y.Row(n), x.Data[n*positions*width:][:width])
	}
	return y
}

// SelectFeatures takes the positions that become image features: [N, S, D] -> [N, S-1, D], all but the class token, for
// the strategy "default"; everything for "full". S11; get_image_features, transformers 4.51.
func SelectFeatures(x Tensor, strategy string) Tensor {
	first := 1
	if strategy == shapes.SelectFull {
		first = 0
	}
	tiles, positions, width := x.Shape[0], x.Shape[1], x.Shape[2]
	y := shapes.NewTensor(tiles, positions-first, width) // [N, S-1, D]
	for n := range tiles {
		copy(y.Data[n*(positions-first)*width:][:(positions-first)*width], x.Data[(n*positions+first)*width:])
	}
	return y
}
