package fast

import (
	"math"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// languageModel is LlamaForCausalLM.
type languageModel struct {
	embedTokens embedding
	frequencies []float32 // [Dh/2], rad a position
	layers      []decoderLayer
	norm        layerNorm
	lmHead      linear
}

// embedding is rows of the checkpoint in their own type: [V, C].
type embedding struct {
	typ kernel.Type
	f32 []float32
	u16 []uint16
}

// decoderLayer is LlamaDecoderLayer.
type decoderLayer struct {
	name                       string
	inputLayernorm             layerNorm
	qProj, kProj, vProj, oProj linear
	postAttentionLayernorm     layerNorm
	gateProj, upProj, downProj linear
}

// textScratch is the scratch of a chunk of positions.
func textScratch(c shapes.Config, rows int) int {
	t := c.Text
	q, kv := t.NumAttentionHeads*t.HeadDim, t.NumKeyValueHeads*t.HeadDim
	return 2*piece(rows*t.HiddenSize) + 2*piece(rows*t.HeadDim) + 2*piece(rows*q) + 2*piece(rows*kv) + 2*piece(rows*t.IntermediateSize)
}

// row puts row i of the embedding into dst [C].
func (e *embedding) row(p *kernel.Pool, dst []float32, i int) {
	if e.typ == kernel.F32 {
		copy(dst, e.f32[i*len(dst):])
		return
	}
	p.Widen(dst, e.u16[i*len(dst):][:len(dst)], e.typ)
}

// inverseFrequencies: 1 / theta^(2i/Dh). The power is rounded to float32, then its reciprocal is (S25).
func inverseFrequencies(headDim int, theta float64) []float32 {
	f := make([]float32, headDim/2)
	for i := range f {
		f[i] = 1 / float32(math.Pow(theta, float64(2*i)/float64(headDim)))
	}
	return f
}

// rotary puts cosine and sine of every position's angles into cos and sin [T, Dh], each of the Dh/2 angles twice. The angle is a float32
// product; its cosine and sine are rounded once (S25).
func rotary(cos, sin []float32, positions []int, frequencies []float32) {
	half := len(frequencies)
	for t, p := range positions {
		c, s := cos[2*half*t:][:2*half], sin[2*half*t:][:2*half]
		for i, f := range frequencies {
			sine, cosine := math.Sincos(float64(float32(p) * f))
			c[i], s[i] = float32(cosine), float32(sine)
			c[i+half], s[i+half] = c[i], s[i]
		}
	}
}

// decode runs the positions from, ..., to-1 of the prompt through the decoder, and makes the logits of those from number first on.
func (r *run) decode(s *Session, from, to, first int) {
	t, m := r.config.Text, &r.text
	rows, width := to-from, t.HiddenSize
	a := &r.arena
	x, h := a.take(rows*width), a.take(rows*width)             // [T, C]
	cos, sin := a.take(rows*t.HeadDim), a.take(rows*t.HeadDim) // [T, Dh]
	r.label(textEnds, 0, "embed_tokens")
	r.embed(x, from, to)
	r.label(textEnds, 0, "rotary_emb")
	rotary(cos, sin, r.in.PositionIDs[from:to], m.frequencies)
	if r.probe != nil {
		r.see(shapes.NodeCos, cos, rows, t.HeadDim)
		r.see(shapes.NodeSin, sin, rows, t.HeadDim)
	}
	keep := min(max(first-from, 0), rows) // the first row of the chunk whose logits are wanted
	for i := range m.layers {
		needed := 0
		if i == len(m.layers)-1 && r.probe == nil {
			needed = keep // no later layer attends to the others
		}
		r.decoderLayer(&m.layers[i], i, needed, x, h, cos, sin, s.past.layers[i])
	}
	if keep == rows {
		return
	}
	if r.probe != nil {
		keep = 0 // the norm is shown whole
	}
	r.label(textEnds, 0, "norm")
	r.pool.RMSNorm(h[keep*width:], x[keep*width:], width, m.norm.weight, t.RMSNormEps)
	if r.probe != nil {
		r.see(shapes.TextModel+".norm", h, rows, width)
		keep = max(first-from, 0)
	}
	logits := s.logits[(from+keep-first)*t.VocabSize:][:(rows-keep)*t.VocabSize]
	r.label(lmHeadLayer, 0, "lm_head")
	r.gemm(logits, h[keep*width:], rows-keep, m.lmHead)
	if r.probe != nil {
		r.see(shapes.LMHead, logits, rows-keep, t.VocabSize)
	}
}

// embed looks up the tokens of some positions, [T, C], and puts image rows into the places of image tokens.
func (r *run) embed(x []float32, from, to int) {
	width := r.config.Text.HiddenSize
	for t, id := range r.in.InputIDs[from:to] {
		r.text.embedTokens.row(r.pool, x[t*width:][:width], id)
	}
	if r.probe != nil {
		r.see(shapes.TextModel+".embed_tokens", x, to-from, width)
	}
	if r.image.tiles > 0 {
		for t, id := range r.in.InputIDs[from:to] {
			if id == r.config.ImageTokenID {
				copy(x[t*width:][:width], r.imageRow(r.nextRow))
				r.nextRow++
			}
		}
	}
	if r.probe != nil {
		r.see(shapes.NodeMerge, x, to-from, width)
	}
}

// decoderLayer is one layer, in place: x [T, C], cos and sin [T, Dh]. h is room of the size of x; past has the positions before x, and x's afterwards.
// Keys and values are made of all rows; only the rows from number needed on go through the rest of the layer, the others keep what they were.
func (r *run) decoderLayer(l *decoderLayer, i, needed int, x, h, cos, sin []float32, past *kernel.KV) {
	t := r.config.Text
	rows := len(x) / t.HiddenSize
	a := &r.arena
	base := a.used
	heads, kvHeads, dim := t.NumAttentionHeads, t.NumKeyValueHeads, t.HeadDim
	q, context := a.take(rows*heads*dim), a.take(rows*heads*dim)                 // [T, H*Dh]
	k, v := a.take(rows*kvHeads*dim), a.take(rows*kvHeads*dim)                   // [T, K*Dh]
	gate, up := a.take(rows*t.IntermediateSize), a.take(rows*t.IntermediateSize) // [T, F]
	probed := r.probe != nil
	see := func(leaf string, data []float32) {
		if probed {
			r.see(l.name+leaf, data, rows, len(data)/rows)
		}
	}
	r.label(textLayer, i, "input_layernorm")
	r.pool.RMSNorm(h, x, t.HiddenSize, l.inputLayernorm.weight, t.RMSNormEps)
	see(".input_layernorm", h)
	q, context = q[needed*heads*dim:], context[needed*heads*dim:] // [T', H*Dh], T' the rows that are needed
	r.label(textLayer, i, "q_proj")
	r.gemm(q, h[needed*t.HiddenSize:], rows-needed, l.qProj)
	see(".self_attn.q_proj", q)
	r.label(textLayer, i, "k_proj")
	r.gemm(k, h, rows, l.kProj)
	see(".self_attn.k_proj", k)
	r.label(textLayer, i, "v_proj")
	r.gemm(v, h, rows, l.vProj)
	see(".self_attn.v_proj", v)
	r.label(textLayer, i, "rope")
	r.pool.Rope(q, q, heads, dim, cos[needed*dim:], sin[needed*dim:])
	r.pool.Rope(k, k, kvHeads, dim, cos, sin)
	if probed {
		r.see(l.name+".self_attn.rope_q", q, rows, heads, dim)
		r.see(l.name+".self_attn.rope_k", k, rows, kvHeads, dim)
	}
	r.label(textLayer, i, "attention")
	r.pool.Append(past, k, v)
	if rows -= needed; rows == 0 {
		a.used = base
		return
	}
	x, h = x[needed*t.HiddenSize:], h[needed*t.HiddenSize:]                 // [T', C]
	gate, up = gate[:rows*t.IntermediateSize], up[:rows*t.IntermediateSize] // [T', F]
	r.pool.Attend(context, q, past, heads, float32(1/math.Sqrt(float64(dim))), true)
	see(".self_attn.context", context)
	r.label(textLayer, i, "o_proj")
	r.gemm(h, context, rows, l.oProj)
	see(".self_attn.o_proj", h)
	r.label(textLayer, i, "residual_attn")
	r.pool.Add(x, x, h)
	see(".residual_attn", x)
	r.label(textLayer, i, "post_attention_layernorm")
	r.pool.RMSNorm(h, x, t.HiddenSize, l.postAttentionLayernorm.weight, t.RMSNormEps)
	see(".post_attention_layernorm", h)
	r.label(textLayer, i, "mlp.gate_proj")
	r.gemm(gate, h, rows, l.gateProj)
	see(".mlp.gate_proj", gate)
	r.label(textLayer, i, "mlp.up_proj")
	r.gemm(up, h, rows, l.upProj)
	see(".mlp.up_proj", up)
	r.label(textLayer, i, "mlp.gated")
	r.pool.SiLUMul(gate, gate, up)
	see(".mlp.gated", gate)
	r.label(textLayer, i, "mlp.down_proj")
	r.gemm(h, gate, rows, l.downProj)
	see(".mlp.down_proj", h)
	r.label(textLayer, i, "residual_mlp")
	r.pool.Add(x, x, h)
	see("", x)
	a.used = base
}
