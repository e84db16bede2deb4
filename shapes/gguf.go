package shapes

import (
	"fmt"
	"strings"
)

// GGUF is a layout and not only a naming, so it is no Scheme: a model lies in two files, the text model and the projector
// with its tower, some rows stand in another order, and what the logits do not need is left out.

// GGUFTensor is one tensor of a GGUF file.
type GGUFTensor struct {
	Name  string // in the file
	Param string // the parameter's on-disk name
	Shape []int  // row-major, as on disk; the file writes it the other way round, the fastest axis first
	// Heads, if it is not 0, says that the rows of each of so many heads are interleaved: what stands on disk in halves,
	// 0 1 2 ... Dh/2 ..., stands in the file in pairs, 0 Dh/2 1 Dh/2+1 ... (GGUFRow).
	Heads int
}

// GGUFRow is which row of the parameter on disk is row r of the tensor in the file, where every head has dim rows.
// llama.cpp rotates neighbouring rows where transformers rotates rows Dh/2 apart, so its converter moves the rows of q and k.
func GGUFRow(dim, r int) int {
	head, i := r/dim, r%dim
	return head*dim + i%2*(dim/2) + i/2
}

// GGUFText lists the tensors of the text model's file, architecture "llama".
func GGUFText(c Config) []GGUFTensor {
	leaves := map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
		"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
		"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
	}
	var out []GGUFTensor
	for _, p := range Params(c) {
		t := GGUFTensor{Param: p.Name, Shape: p.Shape}
		switch p.Name {
		case TextModel + ".embed_tokens.weight":
			t.Name = "token_embd.weight"
		case TextModel + ".norm.weight":
			t.Name = "output_norm.weight"
		case LMHead + ".weight":
			t.Name = "output.weight"
		default:
			layer, leaf, ok := cutLayer(p.Name, TextModel+".layers.")
			if !ok {
				continue // of the other file
			}
			module := strings.TrimSuffix(leaf, ".weight")
			t.Name = "blk." + layer + "." + leaves[module] + ".weight"
			switch module {
			case "self_attn.q_proj":
				t.Heads = c.Text.NumAttentionHeads
			case "self_attn.k_proj":
				t.Heads = c.Text.NumKeyValueHeads
			}
		}
		out = append(out, t)
	}
	return out
}

// GGUFVision lists the tensors of the tower and the projector, architecture "clip", projector type "mlp". Layers past the feature
// layer and post_layernorm are not in the file. In legacy files ffn_down is fc1, ffn_up is fc2 and the newline has another name;
// a reader tells the two apart by the shape of ffn_down alone.
func GGUFVision(c Config, legacy bool) []GGUFTensor {
	up, down, newline := "ffn_up", "ffn_down", "v.image_newline"
	if legacy {
		up, down, newline = down, up, "model.image_newline"
	}
	leaves := map[string]string{
		"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out",
		"layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": up, "mlp.fc2": down,
	}
	whole := [][2]string{
		{ImageNewline, newline},
		{VisionTower + ".embeddings.class_embedding", "v.class_embd"},
		{VisionTower + ".embeddings.patch_embedding", "v.patch_embd"},
		{VisionTower + ".embeddings.position_embedding", "v.position_embd"},
		{VisionTower + ".pre_layrnorm", "v.pre_ln"},
		{Projector + ".linear_1", "mm.0"},
		{Projector + ".linear_2", "mm.2"},
	}
	var out []GGUFTensor
	for _, p := range Params(c) {
		if p.Reach == Dead {
			continue
		}
		t := GGUFTensor{Param: p.Name, Shape: p.Shape}
		for _, w := range whole {
			if rest, ok := cutPath(p.Name, w[0]); ok {
				t.Name = w[1] + rest
			}
		}
		if layer, leaf, ok := cutLayer(p.Name, VisionTower+".encoder.layers."); ok {
			dot := strings.LastIndexByte(leaf, '.')
			t.Name = "v.blk." + layer + "." + leaves[leaf[:dot]] + leaf[dot:]
		}
		if t.Name != "" {
			out = append(out, t)
		}
	}
	return out
}

// cutLayer cuts "7" and "mlp.fc1.weight" out of prefix + "7.mlp.fc1.weight".
func cutLayer(name, prefix string) (layer, leaf string, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ".")
}

// GGUFValue is one entry of a GGUF file's metadata: a bool, string, uint32, float32, []int32, []float32 or []string.
type GGUFValue struct {
	Key   string
	Value any
}

// GGUFTextMetadata is what llama.cpp has to know of the text model. There is no tokenizer in it: the model takes ids.
func GGUFTextMetadata(c Config, name string) []GGUFValue {
	t := c.Text
	return []GGUFValue{
		{"general.architecture", "llama"},
		{"general.type", "model"},
		{"general.name", name},
		{"llama.vocab_size", uint32(t.VocabSize)},
		{"llama.context_length", uint32(t.MaxPositionEmbeddings)},
		{"llama.embedding_length", uint32(t.HiddenSize)},
		{"llama.block_count", uint32(t.NumHiddenLayers)},
		{"llama.feed_forward_length", uint32(t.IntermediateSize)},
		{"llama.attention.head_count", uint32(t.NumAttentionHeads)},
		{"llama.attention.head_count_kv", uint32(t.NumKeyValueHeads)},
		{"llama.attention.key_length", uint32(t.HeadDim)},
		{"llama.attention.value_length", uint32(t.HeadDim)},
		{"llama.attention.layer_norm_rms_epsilon", float32(t.RMSNormEps)},
		{"llama.rope.dimension_count", uint32(t.HeadDim)},
		{"llama.rope.freq_base", float32(t.RopeTheta)},
		{"tokenizer.ggml.model", "none"},
	}
}

// CLIP's normalisation, which config.json does not have and a projector file needs.
var (
	clipMean = []float32{0.48145466, 0.4578275, 0.40821073}
	clipStd  = []float32{0.26862954, 0.26130258, 0.27577711}
)

// GGUFVisionMetadata is what llama.cpp has to know of the tower and the projector. Without feature_layer it would compute one
// layer less than block_count.
func GGUFVisionMetadata(c Config, name string) []GGUFValue {
	v := c.Vision
	out := []GGUFValue{
		{"general.architecture", "clip"},
		{"general.type", "mmproj"},
		{"general.name", name},
		{"clip.has_vision_encoder", true},
		{"clip.has_llava_projector", true},
		{"clip.projector_type", "mlp"},
		{"clip.use_gelu", false}, // which means QuickGELU
		{"clip.vision.image_size", uint32(v.ImageSize)},
		{"clip.vision.patch_size", uint32(v.PatchSize)},
		{"clip.vision.embedding_length", uint32(v.HiddenSize)},
		{"clip.vision.feed_forward_length", uint32(v.IntermediateSize)},
		{"clip.vision.projection_dim", uint32(c.Text.HiddenSize)},
		{"clip.vision.block_count", uint32(c.FeatureLayer())},
		{"clip.vision.feature_layer", []int32{int32(c.FeatureLayer())}},
		{"clip.vision.attention.head_count", uint32(v.NumAttentionHeads)},
		{"clip.vision.attention.layer_norm_epsilon", float32(v.LayerNormEps)},
		{"clip.vision.image_mean", clipMean},
		{"clip.vision.image_std", clipStd},
	}
	if c.ModelType != LlavaNext {
		return out
	}
	var pins []int32 // as config.json has them, height first, which is how llama.cpp's own converter writes them
	for _, p := range c.GridPinpoints {
		pins = append(pins, int32(p.H), int32(p.W))
	}
	return append(out,
		GGUFValue{"clip.vision.image_grid_pinpoints", pins},
		GGUFValue{"clip.vision.mm_patch_merge_type", "spatial_unpad"},
		GGUFValue{"clip.vision.image_aspect_ratio", "anyres"},
	)
}

// GGUFUnsupported is why the model cannot be written as GGUF; nil if it can.
func GGUFUnsupported(c Config) error {
	switch {
	case c.SelectStrategy != SelectDefault:
		return fmt.Errorf("GGUF: vision_feature_select_strategy %q: a projector file of type mlp has no class token, want %q", c.SelectStrategy, SelectDefault)
	case c.Vision.NumChannels != 3:
		return fmt.Errorf("GGUF: %d channels, want 3", c.Vision.NumChannels)
	case c.FeatureLayer() == 0:
		return fmt.Errorf("GGUF: vision_feature_layer %d: a tower without a layer cannot be written", c.VisionFeatureLayer)
	}
	return nil
}
