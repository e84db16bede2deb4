package dump

import (
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// The namings that are no scheme of shapes: they have other layouts as well as other names.
const (
	LlamaCpp   = "llama.cpp"   // names of the nodes of ggml's graph
	GGUF       = "gguf"        // a node has the name of the tensor that makes it
	GGUFLegacy = "gguf-legacy" // the same, with the tower's ffn_up and ffn_down exchanged
	VLLM       = "vllm"        // vLLM's module paths
	NoNaming   = "none"
)

// Namings lists what Manifest.Naming may be.
func Namings() []string {
	var names []string
	for _, s := range shapes.Schemes() {
		names = append(names, string(s))
	}
	return append(names, LlamaCpp, GGUF, GGUFLegacy, VLLM, NoNaming)
}

func known(naming string) bool { return slices.Contains(Namings(), naming) }

// Rules lists where a naming has each node of a model: its own rules, the more usual one first where there are several for a node.
func Rules(naming string, c shapes.Config) []Rule {
	switch naming {
	case LlamaCpp:
		return llamaCpp()
	case GGUF:
		return gguf(".ffn_up", ".ffn_down")
	case GGUFLegacy:
		return gguf(".ffn_down", ".ffn_up")
	case VLLM:
		return vllm(c)
	case NoNaming:
		return nil
	}
	var rules []Rule
	for _, n := range shapes.Nodes(c) {
		name := shapes.Scheme(naming).FromDisk(n.Name)
		if naming == string(shapes.Original) && n.Name == shapes.Projector+".act" {
			name = "model.mm_projector.1"
		}
		rules = append(rules, Rule{Node: Names{n.Name}, Tensor: name})
	}
	return rules
}

// The layers of the two parts, as a pattern.
var (
	visionLayer = strings.Replace(shapes.VisionLayer(0), ".0", ".{i}", 1)
	textLayer   = strings.Replace(shapes.TextLayer(0), ".0", ".{i}", 1)
)

// named makes rules of pairs of a node's rest behind prefix and an array's name, with axes where a third word has them.
func named(prefix, array string, list ...[3]string) []Rule {
	var rules []Rule
	for _, p := range list {
		rules = append(rules, Rule{Node: Names{prefix + p[0]}, Tensor: array + p[1], Axes: p[2]})
	}
	return rules
}

// llamaCpp: names as the callback gets them. One name can stand for several operations, and then has the operation behind a dot. The
// parts of a prompt and the tiles of an image come one by one, and may be kept one by one, NAME#0, NAME#1, or joined.
func llamaCpp() []Rule {
	text := named(textLayer, "",
		[3]string{".input_layernorm", "attn_norm-{i}"},
		[3]string{".self_attn.q_proj", "Qcur-{i}.MUL_MAT", "T H*Dh~"},
		[3]string{".self_attn.k_proj", "Kcur-{i}.MUL_MAT", "T K*Dh~"},
		[3]string{".self_attn.v_proj", "Vcur-{i}.MUL_MAT"},
		[3]string{".self_attn.rope_q", "Qcur-{i}.ROPE", "T H Dh~"},
		[3]string{".self_attn.rope_k", "Kcur-{i}.ROPE", "T K Dh~"},
		[3]string{".self_attn.context", "kqv_out-{i}"},
		[3]string{".self_attn.o_proj", "attn_out-{i}"},
		[3]string{".residual_attn", "ffn_inp-{i}"},
		[3]string{".post_attention_layernorm", "ffn_norm-{i}"},
		[3]string{".mlp.gate_proj", "ffn_gate-{i}"},
		[3]string{".mlp.up_proj", "ffn_up-{i}"},
		[3]string{".mlp.gated", "ffn_swiglu-{i}"},
		[3]string{".mlp.down_proj", "ffn_out-{i}"},
		[3]string{"", "l_out-{i}"})
	text = append(text, named("", "",
		[3]string{shapes.NodeMerge, "inp_embd"},
		[3]string{shapes.TextModel + ".norm", "result_norm"},
		[3]string{shapes.LMHead, "result_output"})...)
	vision := named(visionLayer, "v.",
		[3]string{".layer_norm1", "layer_inp_normed-{i}"},
		[3]string{".self_attn.q_proj", "Qcur-{i}"},
		[3]string{".self_attn.k_proj", "Kcur-{i}"},
		[3]string{".self_attn.v_proj", "Vcur-{i}"},
		[3]string{".self_attn.context", "kqv_out-{i}"},
		[3]string{".self_attn.out_proj", "attn_out-{i}"},
		[3]string{".residual_attn", "ffn_inp-{i}"},
		[3]string{".layer_norm2", "ffn_inp_normed-{i}"},
		[3]string{".mlp.fc1", "ffn_up_b-{i}"},
		[3]string{".mlp.activation_fn", "ffn_gelu_quick-{i}"},
		[3]string{".mlp.fc2", "ffn_out-{i}"},
		[3]string{"", "layer_out-{i}"})
	vision = append(vision, named("", "v.", [3]string{shapes.VisionTower + ".pre_layrnorm", "pre_ln"})...)
	rules := append(partwise(text, "T"), partwise(vision, "N")...)
	attn := textLayer + ".self_attn"
	return append(rules, // of one part: the keys of a further one are more than its queries
		Rule{Node: Names{attn + ".scores"}, Tensor: "kq-{i}", Padded: "L", Scale: &Scale{Root: true}},
		Rule{Node: Names{attn + ".probs"}, Tensor: "kq_soft_max-{i}", Padded: "L"})
}

// partwise adds to each rule the one for arrays that are kept part by part.
func partwise(rules []Rule, axis string) []Rule {
	var out []Rule
	for _, r := range rules {
		parts := r
		parts.Tensor, parts.Join = r.Tensor+"#"+partMark, axis
		if axis == "N" { // one tile, without its axis
			parts.Axes = "S " + lastAxis
		}
		out = append(out, r, parts)
	}
	return out
}

// gguf: fc1 and fc2 are the names of the tower's two layers.
func gguf(fc1, fc2 string) []Rule {
	text := named(textLayer, "blk.{i}",
		[3]string{".input_layernorm", ".attn_norm"},
		[3]string{".self_attn.q_proj", ".attn_q", "T H*Dh~"},
		[3]string{".self_attn.k_proj", ".attn_k", "T K*Dh~"},
		[3]string{".self_attn.v_proj", ".attn_v"},
		[3]string{".self_attn.rope_q", ".rope_q", "T H Dh~"},
		[3]string{".self_attn.rope_k", ".rope_k", "T K Dh~"},
		[3]string{".self_attn.scores", ".scores"},
		[3]string{".self_attn.probs", ".probs"},
		[3]string{".self_attn.context", ".context"},
		[3]string{".self_attn.o_proj", ".attn_output"},
		[3]string{".residual_attn", ".residual_attn"},
		[3]string{".post_attention_layernorm", ".ffn_norm"},
		[3]string{".mlp.gate_proj", ".ffn_gate"},
		[3]string{".mlp.up_proj", ".ffn_up"},
		[3]string{".mlp.act_fn", ".act_fn"},
		[3]string{".mlp.gated", ".gated"},
		[3]string{".mlp.down_proj", ".ffn_down"},
		[3]string{"", ""})
	vision := named(visionLayer, "v.blk.{i}",
		[3]string{".layer_norm1", ".ln1"},
		[3]string{".self_attn.q_proj", ".attn_q"},
		[3]string{".self_attn.k_proj", ".attn_k"},
		[3]string{".self_attn.v_proj", ".attn_v"},
		[3]string{".self_attn.scores", ".scores"},
		[3]string{".self_attn.probs", ".probs"},
		[3]string{".self_attn.context", ".context"},
		[3]string{".self_attn.out_proj", ".attn_out"},
		[3]string{".residual_attn", ".residual_attn"},
		[3]string{".layer_norm2", ".ln2"},
		[3]string{".mlp.fc1", fc1},
		[3]string{".mlp.activation_fn", ".activation_fn"},
		[3]string{".mlp.fc2", fc2},
		[3]string{"", ""})
	rest := named("", "",
		[3]string{shapes.VisionTower + ".embeddings.patch_embedding", "v.patch_embd"},
		[3]string{shapes.VisionTower + ".embeddings", "v.embeddings"},
		[3]string{shapes.VisionTower + ".pre_layrnorm", "v.pre_ln"},
		[3]string{shapes.NodePooled, "v.pooled"},
		[3]string{shapes.VisionTower + ".post_layernorm", "v.post_ln"},
		[3]string{shapes.NodeSelect, shapes.NodeSelect},
		[3]string{shapes.Projector + ".linear_1", "mm.0"},
		[3]string{shapes.Projector + ".act", "mm.1"},
		[3]string{shapes.Projector + ".linear_2", "mm.2"},
		[3]string{shapes.NodePack, shapes.NodePack},
		[3]string{shapes.TextModel + ".embed_tokens", "token_embd"},
		[3]string{shapes.NodeMerge, shapes.NodeMerge},
		[3]string{shapes.NodeCos, "rope.cos"},
		[3]string{shapes.NodeSin, "rope.sin"},
		[3]string{shapes.TextModel + ".norm", "output_norm"},
		[3]string{shapes.LMHead, "output"})
	return slices.Concat(vision, rest, text)
}

// vllm: a module that returns a tuple has its members under .0, .1, ... RMSNorm takes and returns the residual stream: member 1 of the norm
// behind the attention is the stream behind the attention, of the next layer's first norm the layer's output.
func vllm(c shapes.Config) []Rule {
	attn := visionLayer + ".self_attn"
	vision := []Rule{{Node: Names{attn + ".q_proj", attn + ".k_proj", attn + ".v_proj"}, Tensor: attn + ".qkv_proj"}}
	attn = textLayer + ".self_attn"
	last := shapes.TextLayer(c.Text.NumHiddenLayers - 1)
	text := []Rule{
		{Node: Names{textLayer + ".input_layernorm"}, Tensor: textLayer + ".input_layernorm.0"},
		{Node: Names{shapes.TextLayer(0) + ".input_layernorm"}, Tensor: shapes.TextLayer(0) + ".input_layernorm"}, // the first has no residual to add, and returns no tuple
		{Node: Names{attn + ".q_proj", attn + ".k_proj", attn + ".v_proj"}, Tensor: attn + ".qkv_proj"},
		{Node: Names{attn + ".rope_q"}, Tensor: attn + ".rotary_emb.0", Axes: "T H*Dh"},
		{Node: Names{attn + ".rope_k"}, Tensor: attn + ".rotary_emb.1", Axes: "T K*Dh"},
		{Node: Names{attn + ".context"}, Tensor: attn + ".attn"},
		{Node: Names{textLayer + ".residual_attn"}, Tensor: textLayer + ".post_attention_layernorm.1"},
		{Node: Names{textLayer + ".post_attention_layernorm"}, Tensor: textLayer + ".post_attention_layernorm.0"},
		{Node: Names{textLayer + ".mlp.gate_proj", textLayer + ".mlp.up_proj"}, Tensor: textLayer + ".mlp.gate_up_proj"},
		{Node: Names{textLayer + ".mlp.gated"}, Tensor: textLayer + ".mlp.act_fn"},
		{Node: Names{last}, Tensor: shapes.TextModel + ".norm.1"},
		{Node: Names{textLayer}, Tensor: strings.Replace(textLayer, "{i}", "{i+1}", 1) + ".input_layernorm.1"},
		{Node: Names{textLayer}, Sum: []string{textLayer + ".0", textLayer + ".1"}},
		{Node: Names{shapes.TextModel + ".norm"}, Tensor: shapes.TextModel + ".norm.0"},
		{Node: Names{shapes.LMHead}, Tensor: shapes.LMHead, Rows: "last"}, // of the sampled row alone
	}
	rules := slices.Concat(vision, text)
	for _, r := range Rules(string(shapes.OnDisk), c) { // the rest is called as on disk, and so are parts that were not fused
		if !strings.HasSuffix(r.Tensor, ".mlp.act_fn") { // vLLM's act_fn is the gate times up as well
			rules = append(rules, r)
		}
	}
	return rules
}
