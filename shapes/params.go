package shapes

import (
	"fmt"
	"strings"
)

// Names of the graph's parts, as on-disk checkpoints spell them.
const (
	VisionTower  = "vision_tower.vision_model"
	Projector    = "multi_modal_projector"
	TextModel    = "language_model.model"
	LMHead       = "language_model.lm_head"
	ImageNewline = "image_newline"
)

// VisionLayer is the name of encoder layer i, counted from 0.
func VisionLayer(i int) string { return fmt.Sprintf("%s.encoder.layers.%d", VisionTower, i) }

// TextLayer is the name of decoder layer i, counted from 0.
func TextLayer(i int) string { return fmt.Sprintf("%s.layers.%d", TextModel, i) }

// Reach says whether a parameter or a node can change the logits.
type Reach string

const (
	Reaches Reach = "reaches" // it can
	Inert   Reach = "inert"   // it is computed, but cancels before the logits: a vision key bias adds the same number to every score of a query
	Dead    Reach = "dead"    // the logits are computed without it: vision layers past the feature layer, post_layernorm
)

// Param is one tensor of the checkpoint.
type Param struct {
	Name  string // in the on-disk checkpoint, typos kept
	Shape []int
	Reach Reach
}

// Count is the number of values.
func (p Param) Count() int { return Product(p.Shape) }

// Params lists every parameter of the model in the order of the checkpoint's state dict:
// image_newline first, since it belongs to no module, then tower, projector, language model.
func Params(c Config) []Param {
	var ps []Param
	add := func(reach Reach, name string, shape ...int) { ps = append(ps, Param{name, shape, reach}) }

	if c.ModelType == LlavaNext {
		add(Reaches, ImageNewline, c.Text.HiddenSize)
	}
	v := c.Vision
	add(Reaches, VisionTower+".embeddings.class_embedding", v.HiddenSize)
	add(Reaches, VisionTower+".embeddings.patch_embedding.weight", v.HiddenSize, v.NumChannels, v.PatchSize, v.PatchSize)
	add(Reaches, VisionTower+".embeddings.position_embedding.weight", v.Positions(), v.HiddenSize)
	norm := func(reach Reach, name string) {
		add(reach, name+".weight", v.HiddenSize)
		add(reach, name+".bias", v.HiddenSize)
	}
	norm(Reaches, VisionTower+".pre_layrnorm")
	for i := range v.NumHiddenLayers {
		layer, reach := VisionLayer(i), Reaches
		if i >= c.FeatureLayer() {
			reach = Dead
		}
		linear := func(name string, out, in int) {
			add(reach, layer+name+".weight", out, in)
			bias := reach
			if name == ".self_attn.k_proj" && reach == Reaches {
				bias = Inert
			}
			add(bias, layer+name+".bias", out)
		}
		linear(".self_attn.k_proj", v.HiddenSize, v.HiddenSize)
		linear(".self_attn.v_proj", v.HiddenSize, v.HiddenSize)
		linear(".self_attn.q_proj", v.HiddenSize, v.HiddenSize)
		linear(".self_attn.out_proj", v.HiddenSize, v.HiddenSize)
		norm(reach, layer+".layer_norm1")
		linear(".mlp.fc1", v.IntermediateSize, v.HiddenSize)
		linear(".mlp.fc2", v.HiddenSize, v.IntermediateSize)
		norm(reach, layer+".layer_norm2")
	}
	norm(Dead, VisionTower+".post_layernorm")

	t := c.Text
	add(Reaches, Projector+".linear_1.weight", t.HiddenSize, v.HiddenSize)
	add(Reaches, Projector+".linear_1.bias", t.HiddenSize)
	add(Reaches, Projector+".linear_2.weight", t.HiddenSize, t.HiddenSize)
	add(Reaches, Projector+".linear_2.bias", t.HiddenSize)

	add(Reaches, TextModel+".embed_tokens.weight", t.VocabSize, t.HiddenSize)
	for i := range t.NumHiddenLayers {
		layer := TextLayer(i)
		add(Reaches, layer+".self_attn.q_proj.weight", t.NumAttentionHeads*t.HeadDim, t.HiddenSize)
		add(Reaches, layer+".self_attn.k_proj.weight", t.NumKeyValueHeads*t.HeadDim, t.HiddenSize)
		add(Reaches, layer+".self_attn.v_proj.weight", t.NumKeyValueHeads*t.HeadDim, t.HiddenSize)
		add(Reaches, layer+".self_attn.o_proj.weight", t.HiddenSize, t.NumAttentionHeads*t.HeadDim)
		add(Reaches, layer+".mlp.gate_proj.weight", t.IntermediateSize, t.HiddenSize)
		add(Reaches, layer+".mlp.up_proj.weight", t.IntermediateSize, t.HiddenSize)
		add(Reaches, layer+".mlp.down_proj.weight", t.HiddenSize, t.IntermediateSize)
		add(Reaches, layer+".input_layernorm.weight", t.HiddenSize)
		add(Reaches, layer+".post_attention_layernorm.weight", t.HiddenSize)
	}
	add(Reaches, TextModel+".norm.weight", t.HiddenSize)
	add(Reaches, LMHead+".weight", t.VocabSize, t.HiddenSize)
	return ps
}

// Total is the number of tensors and of values in a list of parameters.
func Total(ps []Param) (tensors, values int) {
	for _, p := range ps {
		values += p.Count()
	}
	return len(ps), values
}

// IsBuffer says whether a name in a checkpoint is a buffer that old writers saved beside the parameters:
// position_ids and the rotary embedding's inv_freq, both computed and never learnt.
func IsBuffer(name string) bool {
	return strings.HasSuffix(name, ".embeddings.position_ids") || strings.HasSuffix(name, ".rotary_emb.inv_freq")
}
