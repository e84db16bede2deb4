package fast

import (
	"math"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// linear is a matrix to multiply by, and a bias or none.
type linear struct {
	weight *kernel.Weights
	bias   []float32
}

// layerNorm is the weight and bias of a LayerNorm; an RMSNorm has no bias.
type layerNorm struct{ weight, bias []float32 }

// visionTower is CLIPVisionModel.
type visionTower struct {
	patchEmbedding    linear    // [D, 3*p*p]
	first             []float32 // [D], class_embedding plus the position embedding of position 0
	positionEmbedding []float32 // [P*P, D], of the patches
	preLayrnorm       layerNorm
	layers            []encoderLayer
	postLayernorm     layerNorm
	past              *kernel.KV // keys and values of one tile
}

// encoderLayer is CLIPEncoderLayer.
type encoderLayer struct {
	name                         string
	layerNorm1, layerNorm2       layerNorm
	qProj, kProj, vProj, outProj linear
	fc1, fc2                     linear
}

// visionScratch is the scratch of a group of tiles through tower and projector.
func visionScratch(c shapes.Config, tiles int) int {
	if tiles == 0 {
		return 0
	}
	v := c.Vision
	rows, patches := tiles*v.Positions(), tiles*(v.Positions()-1)
	size := v.NumChannels * v.PatchSize * v.PatchSize
	tower := 6*piece(rows*v.HiddenSize) + piece(rows*v.IntermediateSize) + piece(patches*size)
	return tower + piece(tiles*c.FeaturesPerTile()*v.HiddenSize) + 2*piece(rows*c.Text.HiddenSize)
}

// tower runs tiles through the tower: pixels [n, 3, px, px] -> the hidden state at vision_feature_layer [n, S, D].
// What it returns lies in the arena.
func (r *run) tower(pixels []float32, n int) []float32 {
	v, t, name := r.config.Vision, &r.vision, shapes.VisionTower
	positions, width, side := v.Positions(), v.HiddenSize, v.PatchesPerSide()
	a := &r.arena
	x, h := a.take(n*positions*width), a.take(n*positions*width) // [n, S, D]

	r.label(visionEnds, 0, "patch_embedding")
	patches := a.take(n * side * side * t.patchEmbedding.weight.K) // [n, P*P, 3*p*p]
	r.unfold(patches, pixels, n)
	embedded := h[:n*side*side*width] // [n, P*P, D]
	r.gemm(embedded, patches, n*side*side, t.patchEmbedding)
	if r.probe != nil {
		r.see(name+".embeddings.patch_embedding", channelsFirst(embedded, n, side*side, width), n, width, side, side)
	}
	r.label(visionEnds, 0, "embeddings")
	for i := range n {
		tile := x[i*positions*width:][:positions*width]
		copy(tile, t.first)
		r.pool.Add(tile[width:], embedded[i*side*side*width:][:side*side*width], t.positionEmbedding)
	}
	r.see(name+".embeddings", x, n, positions, width)
	r.label(visionEnds, 0, "pre_layrnorm")
	r.pool.LayerNorm(x, x, width, t.preLayrnorm.weight, t.preLayrnorm.bias, v.LayerNormEps)
	r.see(name+".pre_layrnorm", x, n, positions, width)

	features := x
	for i := range t.layers {
		if i == r.config.FeatureLayer() { // what follows does not reach the logits
			if r.probe == nil {
				break
			}
			features = append([]float32(nil), x...)
		}
		r.encoderLayer(&t.layers[i], i, x, h, n)
	}
	if r.probe != nil {
		pooled := make([]float32, n*width)
		for i := range n {
			copy(pooled[i*width:], x[i*positions*width:][:width])
		}
		r.see(shapes.NodePooled, pooled, n, width)
		r.pool.LayerNorm(pooled, pooled, width, t.postLayernorm.weight, t.postLayernorm.bias, v.LayerNormEps)
		r.see(name+".post_layernorm", pooled, n, width)
	}
	return features
}

// unfold lays the pixels of each patch side by side: pixels [n, 3, px, px] -> [n, P, P, 3, p, p].
func (r *run) unfold(dst, pixels []float32, n int) {
	v := r.config.Vision
	px, p, side := v.ImageSize, v.PatchSize, v.PatchesPerSide()
	for patch := range n * side * side {
		tile, gy, gx := patch/(side*side), patch/side%side, patch%side
		for c := range v.NumChannels {
			at := ((tile*v.NumChannels+c)*px+gy*p)*px + gx*p // pixels[tile, c, p gy, p gx]
			for range p {
				copy(dst[:p], pixels[at:])
				dst, at = dst[p:], at+px
			}
		}
	}
}

// channelsFirst is [n, cells, width] as [n, width, cells].
func channelsFirst(x []float32, n, cells, width int) []float32 {
	y := make([]float32, len(x))
	for i := range n {
		for cell := range cells {
			for d := range width {
				y[(i*width+d)*cells+cell] = x[(i*cells+cell)*width+d]
			}
		}
	}
	return y
}

// encoderLayer is one layer of the tower, in place: x [n, S, D]. h is room of the same size.
func (r *run) encoderLayer(l *encoderLayer, i int, x, h []float32, n int) {
	v := r.config.Vision
	positions, width, rows := v.Positions(), v.HiddenSize, n*v.Positions()
	a := &r.arena
	base := a.used
	wide := func() []float32 { return a.take(rows * width) }
	q, k, val, context, mlp := wide(), wide(), wide(), wide(), a.take(rows*v.IntermediateSize)
	see := func(leaf string, data []float32) { r.see(l.name+leaf, data, n, positions, len(data)/rows) }

	r.label(visionLayer, i, "layer_norm1")
	r.pool.LayerNorm(h, x, width, l.layerNorm1.weight, l.layerNorm1.bias, v.LayerNormEps)
	see(".layer_norm1", h)
	r.label(visionLayer, i, "q_proj")
	r.gemm(q, h, rows, l.qProj)
	see(".self_attn.q_proj", q)
	r.label(visionLayer, i, "k_proj")
	r.gemm(k, h, rows, l.kProj)
	see(".self_attn.k_proj", k)
	r.label(visionLayer, i, "v_proj")
	r.gemm(val, h, rows, l.vProj)
	see(".self_attn.v_proj", val)
	r.label(visionLayer, i, "attention")
	scale := float32(1 / math.Sqrt(float64(v.HeadDim())))
	for tile := range n {
		from, to := tile*positions*width, (tile+1)*positions*width
		r.vision.past.Reset()
		r.pool.Append(r.vision.past, k[from:to], val[from:to])
		r.pool.Attend(context[from:to], q[from:to], r.vision.past, v.NumAttentionHeads, scale, false)
	}
	see(".self_attn.context", context)
	r.label(visionLayer, i, "out_proj")
	r.gemm(h, context, rows, l.outProj)
	see(".self_attn.out_proj", h)
	r.label(visionLayer, i, "residual_attn")
	r.pool.Add(x, x, h)
	see(".residual_attn", x)
	r.label(visionLayer, i, "layer_norm2")
	r.pool.LayerNorm(h, x, width, l.layerNorm2.weight, l.layerNorm2.bias, v.LayerNormEps)
	see(".layer_norm2", h)
	r.label(visionLayer, i, "mlp.fc1")
	r.gemm(mlp, h, rows, l.fc1)
	see(".mlp.fc1", mlp)
	r.label(visionLayer, i, "mlp.activation_fn")
	r.pool.QuickGELU(mlp, mlp)
	see(".mlp.activation_fn", mlp)
	r.label(visionLayer, i, "mlp.fc2")
	r.gemm(h, mlp, rows, l.fc2)
	see(".mlp.fc2", h)
	r.label(visionLayer, i, "residual_mlp")
	r.pool.Add(x, x, h)
	see("", x)
	a.used = base
}

// gemm is a linear layer: x [m, K] -> y [m, N].
func (r *run) gemm(y, x []float32, m int, l linear) { r.pool.Gemm(y, x, m, l.weight, l.bias) }
