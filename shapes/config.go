package shapes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Model types, as config.json spells them.
const (
	LlavaNext = "llava_next" // LLaVA-1.6: tiles of several resolutions, packed with a newline a row
	Llava     = "llava"      // LLaVA-1.5: one square tile an image
)

// Select strategies: which vision positions become image features.
const (
	SelectDefault = "default" // the patches, without the class token
	SelectFull    = "full"    // class token and patches
)

// Config is what the model's config.json says, defaults filled in as transformers fills them.
type Config struct {
	ModelType string // LlavaNext or Llava
	Vision    VisionConfig
	Text      TextConfig

	ImageTokenID        int    // the id that stands for one row of image features
	GridPinpoints       []Size // the canvases an image may be put on, in pixels; LLaVA-1.6 only
	VisionFeatureLayer  int    // index into the tower's hidden states, negative from the end: -2 is the output of the last layer but one
	SelectStrategy      string // SelectDefault or SelectFull
	ProjectorBias       bool
	DType               string // the dtype that the file says its checkpoint has ("float16"); empty if it does not say
	TransformersVersion string // which transformers wrote the file; empty if it does not say
}

// VisionConfig is the CLIP vision tower.
type VisionConfig struct {
	HiddenSize        int // D
	IntermediateSize  int // F
	NumHiddenLayers   int
	NumAttentionHeads int // H
	NumChannels       int
	ImageSize         int // pixels along one side of a tile
	PatchSize         int // pixels along one side of a patch
	LayerNormEps      float64
}

// TextConfig is the Llama decoder.
type TextConfig struct {
	VocabSize             int // V
	HiddenSize            int // C
	IntermediateSize      int // F
	NumHiddenLayers       int
	NumAttentionHeads     int // H
	NumKeyValueHeads      int // K
	HeadDim               int // Dh; HiddenSize / NumAttentionHeads unless the file says otherwise
	MaxPositionEmbeddings int
	RMSNormEps            float64
	RopeTheta             float64
}

// HeadDim is the width of one attention head, Dh.
func (v VisionConfig) HeadDim() int { return v.HiddenSize / v.NumAttentionHeads }

// PatchesPerSide is P.
func (v VisionConfig) PatchesPerSide() int { return v.ImageSize / v.PatchSize }

// Positions is S = 1 + P*P.
func (v VisionConfig) Positions() int { return 1 + v.PatchesPerSide()*v.PatchesPerSide() }

// FeatureLayer is VisionFeatureLayer counted from 0: the number of encoder layers whose output the features are.
// 0 stands for the output of pre_layrnorm.
func (c Config) FeatureLayer() int {
	if c.VisionFeatureLayer < 0 {
		return c.Vision.NumHiddenLayers + 1 + c.VisionFeatureLayer
	}
	return c.VisionFeatureLayer
}

// FeaturesPerTile is how many vision positions the select strategy keeps.
func (c Config) FeaturesPerTile() int {
	if c.SelectStrategy == SelectFull {
		return c.Vision.Positions()
	}
	return c.Vision.Positions() - 1
}

// Limits on what a config may ask for: far above any model of this family, low enough that no product of two overflows
// and that a hostile file cannot make us list a billion layers.
const (
	maxWidth  = 1 << 24
	maxLayers = 1 << 12
	maxPins   = 1 << 10
)

// ParseConfig reads a config.json of model type llava_next or llava, in the spelling of transformers 4.x or 5.x
// (torch_dtype or dtype, rope_theta or rope_parameters, image_token_index or image_token_id).
// A field that the file omits gets the default of transformers' own configuration class, and no other.
// Whatever would make another model of it (activation, rope scaling, biases, tied embeddings, ...) is refused by name and value.
func ParseConfig(data []byte) (Config, error) {
	if err := NotFetched(data); err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	var raw object
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&raw); err != nil {
		return Config{}, fmt.Errorf("config: not a JSON object: %w", err)
	}
	if _, err := dec.Token(); err == nil {
		return Config{}, fmt.Errorf("config: more data after the JSON object")
	}
	r := reader{}
	c := Config{
		ModelType:           r.str(raw, "model_type", ""),
		VisionFeatureLayer:  r.integer(raw, "vision_feature_layer", -2, -maxLayers, maxLayers),
		SelectStrategy:      r.oneOf(raw, "vision_feature_select_strategy", SelectDefault, SelectDefault, SelectFull),
		ImageTokenID:        r.integer(raw, r.either(raw, "image_token_index", "image_token_id"), 32000, 0, maxWidth),
		ProjectorBias:       r.boolean(raw, "multimodal_projector_bias", true),
		DType:               r.str(raw, r.either(raw, "torch_dtype", "dtype"), ""),
		TransformersVersion: r.str(raw, "transformers_version", ""),
	}
	switch c.ModelType {
	case LlavaNext:
		c.GridPinpoints = r.pinpoints(raw)
	case Llava:
	default:
		r.fail("model_type %q, want %q or %q", c.ModelType, LlavaNext, Llava)
	}
	r.oneOf(raw, "projector_hidden_act", "gelu", "gelu")
	if !c.ProjectorBias {
		r.fail("multimodal_projector_bias false, only true is supported")
	}
	if r.boolean(raw, "tie_word_embeddings", false) {
		r.fail("tie_word_embeddings true, only false is supported")
	}
	c.Vision = r.vision(raw.object("vision_config", &r))
	c.Text = r.text(raw.object("text_config", &r))
	if r.err != nil {
		return Config{}, r.err
	}
	return c, c.validate()
}

// vision reads vision_config. Without one, transformers takes CLIP ViT-L/14-336; with one, CLIPVisionConfig's own defaults, ViT-B/32.
func (r *reader) vision(o object) VisionConfig {
	d := VisionConfig{HiddenSize: 768, IntermediateSize: 3072, NumHiddenLayers: 12, NumAttentionHeads: 12, NumChannels: 3, ImageSize: 224, PatchSize: 32, LayerNormEps: 1e-5}
	if o == nil {
		d = VisionConfig{HiddenSize: 1024, IntermediateSize: 4096, NumHiddenLayers: 24, NumAttentionHeads: 16, NumChannels: 3, ImageSize: 336, PatchSize: 14, LayerNormEps: 1e-5}
	}
	r.path = "vision_config."
	defer func() { r.path = "" }()
	r.oneOf(o, "model_type", "clip_vision_model", "clip_vision_model")
	r.oneOf(o, "hidden_act", "quick_gelu", "quick_gelu")
	return VisionConfig{
		HiddenSize:        r.integer(o, "hidden_size", d.HiddenSize, 1, maxWidth),
		IntermediateSize:  r.integer(o, "intermediate_size", d.IntermediateSize, 1, maxWidth),
		NumHiddenLayers:   r.integer(o, "num_hidden_layers", d.NumHiddenLayers, 1, maxLayers),
		NumAttentionHeads: r.integer(o, "num_attention_heads", d.NumAttentionHeads, 1, maxWidth),
		NumChannels:       r.integer(o, "num_channels", d.NumChannels, 1, maxLayers),
		ImageSize:         r.integer(o, "image_size", d.ImageSize, 1, 1<<14),
		PatchSize:         r.integer(o, "patch_size", d.PatchSize, 1, 1<<14),
		LayerNormEps:      r.number(o, "layer_norm_eps", d.LayerNormEps),
	}
}

// text reads text_config; defaults are LlamaConfig's, 7B without rope scaling.
func (r *reader) text(o object) TextConfig {
	r.path = "text_config."
	defer func() { r.path = "" }()
	r.oneOf(o, "model_type", "llama", "llama")
	r.oneOf(o, "hidden_act", "silu", "silu")
	for _, key := range []string{"attention_bias", "mlp_bias", "tie_word_embeddings"} {
		if r.boolean(o, key, false) {
			r.fail("%s true, only false is supported", key)
		}
	}
	t := TextConfig{
		VocabSize:             r.integer(o, "vocab_size", 32000, 1, maxWidth),
		HiddenSize:            r.integer(o, "hidden_size", 4096, 1, maxWidth),
		IntermediateSize:      r.integer(o, "intermediate_size", 11008, 1, maxWidth),
		NumHiddenLayers:       r.integer(o, "num_hidden_layers", 32, 1, maxLayers),
		NumAttentionHeads:     r.integer(o, "num_attention_heads", 32, 1, maxWidth),
		MaxPositionEmbeddings: r.integer(o, "max_position_embeddings", 2048, 1, maxWidth),
		RMSNormEps:            r.number(o, "rms_norm_eps", 1e-6),
	}
	t.NumKeyValueHeads = r.integer(o, "num_key_value_heads", t.NumAttentionHeads, 1, maxWidth)
	t.HeadDim = r.integer(o, "head_dim", t.HiddenSize/max(t.NumAttentionHeads, 1), 1, maxWidth)
	t.RopeTheta = r.rope(o)
	return t
}

// rope reads the base of the rotary embedding: rope_theta and rope_scaling in 4.x, rope_parameters in 5.x.
func (r *reader) rope(o object) float64 {
	theta := r.number(o, "rope_theta", 10000)
	for _, key := range []string{"rope_scaling", "rope_parameters"} {
		p := o.object(key, r)
		if p == nil {
			continue
		}
		for _, typ := range []string{"rope_type", "type"} {
			if v := r.str(p, typ, "default"); v != "default" {
				r.fail("%s.%s %q, only \"default\" is supported", key, typ, v)
			}
		}
		if _, has := p["rope_theta"]; has {
			inner := r.number(p, "rope_theta", 0)
			if _, both := o["rope_theta"]; both && inner != theta {
				r.fail("rope_theta %v, but %s.rope_theta %v", theta, key, inner)
			}
			theta = inner
		}
	}
	return theta
}

func (r *reader) pinpoints(o object) []Size {
	raw, has := o["image_grid_pinpoints"]
	if !has || string(raw) == "null" {
		return []Size{{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}}
	}
	var pairs [][]int
	if err := json.Unmarshal(raw, &pairs); err != nil {
		r.fail("image_grid_pinpoints: %v, want pairs [height, width]", err)
		return nil
	}
	if len(pairs) == 0 || len(pairs) > maxPins {
		r.fail("image_grid_pinpoints: %d pairs, want 1 to %d", len(pairs), maxPins)
		return nil
	}
	var pins []Size
	for i, p := range pairs {
		if len(p) != 2 {
			r.fail("image_grid_pinpoints[%d]: %d numbers, want 2", i, len(p))
			return nil
		}
		pins = append(pins, Size{H: p[0], W: p[1]})
	}
	return pins
}

// validate refuses what no model of this family can be, whichever field is to blame.
func (c Config) validate() error {
	v, t := c.Vision, c.Text
	switch {
	case v.HiddenSize%v.NumAttentionHeads != 0:
		return fmt.Errorf("config: vision_config.hidden_size %d is not a multiple of num_attention_heads %d", v.HiddenSize, v.NumAttentionHeads)
	case v.PatchSize > v.ImageSize:
		return fmt.Errorf("config: vision_config.patch_size %d is larger than image_size %d", v.PatchSize, v.ImageSize)
	case c.FeatureLayer() < 0 || c.FeatureLayer() > v.NumHiddenLayers:
		return fmt.Errorf("config: vision_feature_layer %d, but the tower has %d hidden states", c.VisionFeatureLayer, v.NumHiddenLayers+1)
	case t.NumAttentionHeads%t.NumKeyValueHeads != 0:
		return fmt.Errorf("config: text_config.num_attention_heads %d is not a multiple of num_key_value_heads %d", t.NumAttentionHeads, t.NumKeyValueHeads)
	case t.HeadDim%2 != 0:
		return fmt.Errorf("config: text_config.head_dim %d is odd, rotary embedding pairs its halves", t.HeadDim)
	case c.ImageTokenID >= t.VocabSize:
		return fmt.Errorf("config: image_token_index %d is outside of vocab_size %d", c.ImageTokenID, t.VocabSize)
	case c.ModelType == LlavaNext && c.SelectStrategy == SelectFull:
		return fmt.Errorf("config: vision_feature_select_strategy %q: %s packs patches only and takes %q", c.SelectStrategy, LlavaNext, SelectDefault)
	}
	for _, p := range c.GridPinpoints {
		if p.H <= 0 || p.W <= 0 || p.H%v.ImageSize != 0 || p.W%v.ImageSize != 0 || p.H > 1<<20 || p.W > 1<<20 {
			return fmt.Errorf("config: image_grid_pinpoints: [%d, %d] is not made of whole %d pixel tiles", p.H, p.W, v.ImageSize)
		}
	}
	return nil
}

// object is a JSON object whose values are read one by one.
type object map[string]json.RawMessage

// object returns the object under key; nil if it is absent or null.
func (o object) object(key string, r *reader) object {
	raw, has := o[key]
	if !has || string(raw) == "null" {
		return nil
	}
	var in object
	if err := json.Unmarshal(raw, &in); err != nil {
		r.fail("%s: %v, want an object", key, err)
	}
	return in
}

// reader reads fields with their defaults and keeps the first error.
type reader struct {
	path string // of the object being read, for errors
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("config: "+r.path+format, args...)
	}
}

// value decodes o[key] into dst; false if the key is absent or null, both of which mean the default to transformers.
func (r *reader) value(o object, key string, dst any, want string) bool {
	raw, has := o[key]
	if !has || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, dst); err != nil {
		r.fail("%s %s, want %s", key, shorten(raw), want)
		return false
	}
	return true
}

func (r *reader) str(o object, key, def string) string {
	v := def
	r.value(o, key, &v, "a string")
	return v
}

func (r *reader) oneOf(o object, key, def string, allowed ...string) string {
	v := r.str(o, key, def)
	if !slices.Contains(allowed, v) {
		r.fail("%s %q, want %s", key, v, quoteAll(allowed))
	}
	return v
}

func (r *reader) boolean(o object, key string, def bool) bool {
	v := def
	r.value(o, key, &v, "true or false")
	return v
}

func (r *reader) integer(o object, key string, def, lo, hi int) int {
	v := def
	r.value(o, key, &v, "an integer")
	if v < lo || v > hi {
		r.fail("%s %d, want %d to %d", key, v, lo, hi)
		return def
	}
	return v
}

// number reads a positive finite number, which all of this family's are: epsilons and the base of the rotary embedding.
func (r *reader) number(o object, key string, def float64) float64 {
	v := def
	r.value(o, key, &v, "a number")
	if !(v > 0) || math.IsInf(v, 0) {
		r.fail("%s %v, want a positive number", key, v)
		return def
	}
	return v
}

// either returns whichever of two spellings of a key the object uses; both at once must agree.
func (r *reader) either(o object, old, new string) string {
	a, hasOld := o[old]
	b, hasNew := o[new]
	if hasOld && hasNew && !bytes.Equal(a, b) {
		r.fail("%s %s, but %s %s", old, shorten(a), new, shorten(b))
	}
	if hasNew && !hasOld {
		return new
	}
	return old
}

func shorten(raw []byte) string {
	if len(raw) > 40 {
		return string(raw[:37]) + "..."
	}
	return string(raw)
}

func quoteAll(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(q, " or ")
}
