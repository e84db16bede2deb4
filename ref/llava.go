package ref

import (
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Llava is LlavaNextForConditionalGeneration (LLaVA-1.6), or LlavaForConditionalGeneration (LLaVA-1.5) where the
// configuration says so: the two differ in how tiles become rows, and in nothing else.
type Llava struct {
	config  shapes.Config
	weights shapes.Weights
	params  map[string]shapes.Param
	slab    []float32 // the weights of the layer at hand
}

// New makes the model of a configuration. Nothing is read from the weights before Forward.
func New(c shapes.Config, w shapes.Weights) *Llava {
	params := map[string]shapes.Param{}
	for _, p := range shapes.Params(c) {
		params[p.Name] = p
	}
	return &Llava{config: c, weights: w, params: params}
}

// Forward computes the logits [T, V] of one prompt and calls probe, if it is not nil, once with every node of
// shapes.Nodes that the prompt has, in that order. It is an error if the inputs do not fit the model or each other,
// or if a weight cannot be read. A Llava runs one Forward at a time.
func (m *Llava) Forward(in shapes.Inputs, probe shapes.Probe) (Tensor, error) {
	return m.NewSession().Extend(in, 0, probe)
}

// Session is one sequence of tokens that grows: what the layers keep of the positions behind it.
type Session struct {
	model *Llava
	past  []KV // a layer each
}

// NewSession begins a sequence.
func (m *Llava) NewSession() *Session {
	return &Session{m, make([]KV, m.config.Text.NumHiddenLayers)}
}

// Extend adds a prompt, or a part of one, to the sequence and returns the logits of its last logitsToKeep positions,
// [logitsToKeep, V]; of all of them, [T, V], for 0. Positions that the sequence has already are seen by the new ones.
// The images of a part stand in that part whole. As in transformers, an image token in a later part without pixel
// values, such as one that the model itself has written, is embedded like any other.
// After an error the sequence is of no use.
func (s *Session) Extend(in shapes.Inputs, logitsToKeep int, probe shapes.Probe) (Tensor, error) {
	m := s.model
	if err := CheckInputs(m.config, in); err != nil {
		return Tensor{}, err
	}
	see := func(node string, t Tensor) Tensor {
		if probe != nil {
			probe(node, t)
		}
		return t
	}
	var features Tensor
	if in.PixelValues.Shape != nil {
		var err error
		if features, err = m.imageFeatures(in, see); err != nil { // [R, C], or [N, S-1, C] in LLaVA-1.5
			return Tensor{}, err
		}
	}
	embeds, err := EmbedTokens(m.weights, m.config.Text, in.InputIDs) // [T, C]
	if err != nil {
		return Tensor{}, err
	}
	see(shapes.TextModel+".embed_tokens", embeds)
	x := embeds
	if begun := s.past[0].K.Shape != nil; !begun || features.Shape != nil {
		if x, err = MergeEmbeddings(embeds, features, in.InputIDs, m.config.ImageTokenID); err != nil { // [T, C]
			return Tensor{}, err
		}
	}
	see(shapes.NodeMerge, x)
	return s.decode(x, in.PositionIDs, logitsToKeep, see)
}

// imageFeatures runs the tower and the projector: get_image_features and pack_image_features of transformers 4.51.
func (m *Llava) imageFeatures(in shapes.Inputs, see see) (Tensor, error) {
	hidden, err := m.visionTower(in.PixelValues, see) // [N, S, D]
	if err != nil {
		return Tensor{}, err
	}
	x := see(shapes.NodeSelect, SelectFeatures(hidden, m.config.SelectStrategy)) // [N, S-1, D]
	l := m.load()
	projector := LlavaNextMultiModalProjector{Linear1: l.linear(shapes.Projector+".linear_1", true), Linear2: l.linear(shapes.Projector+".linear_2", true)}
	if l.err != nil {
		return Tensor{}, l.err
	}
	x = projector.Forward(x, shapes.Projector, see) // [N, S-1, C]
	if m.config.ModelType == shapes.Llava {
		return x, nil
	}
	l = m.load()
	newline := l.tensor(shapes.ImageNewline) // [C]
	if l.err != nil {
		return Tensor{}, l.err
	}
	if x, err = PackImageFeatures(m.config, x, newline, in.ImageSizes); err != nil { // [R, C]
		return Tensor{}, err
	}
	return see(shapes.NodePack, x), nil
}

// visionTower is CLIPVisionModel: pixel_values [N, 3, px, px] -> the hidden state at vision_feature_layer [N, S, D] (S10).
// Layers past it and post_layernorm do not reach the logits; they are computed because the checkpoint has them.
func (m *Llava) visionTower(pixels Tensor, see see) (Tensor, error) {
	v, name := m.config.Vision, shapes.VisionTower
	l := m.load()
	embeddings := CLIPVisionEmbeddings{
		ClassEmbedding:    l.tensor(name + ".embeddings.class_embedding"),
		PatchEmbedding:    PatchEmbedding{l.tensor(name + ".embeddings.patch_embedding.weight")},
		PositionEmbedding: l.tensor(name + ".embeddings.position_embedding.weight"),
	}
	preLayrnorm := l.layerNorm(name + ".pre_layrnorm")
	if l.err != nil {
		return Tensor{}, l.err
	}
	x := embeddings.Forward(pixels, name+".embeddings", see) // [N, S, D]
	x = see(name+".pre_layrnorm", preLayrnorm.Forward(x))    // [N, S, D], hidden state 0
	features := x
	for i := range v.NumHiddenLayers {
		layer, err := m.visionLayer(i)
		if err != nil {
			return Tensor{}, err
		}
		x = layer.Forward(x, shapes.VisionLayer(i), see) // [N, S, D], hidden state i+1
		if i+1 == m.config.FeatureLayer() {
			features = x
		}
	}
	l = m.load()
	postLayernorm := l.layerNorm(name + ".post_layernorm")
	if l.err != nil {
		return Tensor{}, l.err
	}
	pooled := see(shapes.NodePooled, ClassToken(x))            // [N, D]
	see(name+".post_layernorm", postLayernorm.Forward(pooled)) // [N, D]
	return features, nil
}

// decode is LlamaForCausalLM from its embeddings on (S23, S29): x [T, C], positions [T] -> [T, V].
func (s *Session) decode(x Tensor, positions []int, logitsToKeep int, see see) (Tensor, error) {
	m, t := s.model, s.model.config.Text
	cos := see(shapes.NodeCos, RotaryCos(positions, t.HeadDim, t.RopeTheta)) // [T, Dh]
	sin := see(shapes.NodeSin, RotarySin(positions, t.HeadDim, t.RopeTheta)) // [T, Dh]
	for i := range t.NumHiddenLayers {
		layer, err := m.textLayer(i)
		if err != nil {
			return Tensor{}, err
		}
		x = layer.Forward(x, cos, sin, &s.past[i], shapes.TextLayer(i), see) // [T, C]
	}
	l := m.load()
	norm := l.rmsNorm(shapes.TextModel + ".norm")
	if l.err != nil {
		return Tensor{}, l.err
	}
	x = see(shapes.TextModel+".norm", norm.Forward(x)) // [T, C]
	if first := x.Rows() - logitsToKeep; logitsToKeep > 0 && first > 0 {
		x = Tensor{Shape: []int{logitsToKeep, x.Cols()}, Data: x.Data[first*x.Cols():]}
	}
	logits, err := m.lmHead(x) // [T, V]
	if err != nil {
		return Tensor{}, err
	}
	return see(shapes.LMHead, logits), nil
}

// lmHead is the last linear layer, a block of the vocabulary at a time: its matrix can be larger than any layer.
func (m *Llava) lmHead(x Tensor) (Tensor, error) {
	c, v := m.config.Text.HiddenSize, m.config.Text.VocabSize
	logits := shapes.NewTensor(x.Rows(), v) // [T, V]
	const block = 4096                      // rows of the vocabulary
	for v0 := 0; v0 < v; v0 += block {
		l := m.load()
		rows := min(block, v-v0)
		head := Linear{Weight: Tensor{Shape: []int{rows, c}, Data: l.read(shapes.LMHead+".weight", v0*c, rows*c)}}
		if l.err != nil {
			return Tensor{}, l.err
		}
		y := head.Forward(x) // [T, rows]
		for t := range x.Rows() {
			copy(logits.Row(t)[v0:], y.Row(t))
		}
	}
	return logits, nil
}

func (m *Llava) visionLayer(i int) (CLIPEncoderLayer, error) {
	name, l := shapes.VisionLayer(i), m.load()
	layer := CLIPEncoderLayer{
		SelfAttn: CLIPAttention{
			KProj:   l.linear(name+".self_attn.k_proj", true),
			VProj:   l.linear(name+".self_attn.v_proj", true),
			QProj:   l.linear(name+".self_attn.q_proj", true),
			OutProj: l.linear(name+".self_attn.out_proj", true),
			Heads:   m.config.Vision.NumAttentionHeads,
		},
		LayerNorm1: l.layerNorm(name + ".layer_norm1"),
		MLP:        CLIPMLP{FC1: l.linear(name+".mlp.fc1", true), FC2: l.linear(name+".mlp.fc2", true)},
		LayerNorm2: l.layerNorm(name + ".layer_norm2"),
	}
	return layer, l.err
}

func (m *Llava) textLayer(i int) (LlamaDecoderLayer, error) {
	name, l := shapes.TextLayer(i), m.load()
	layer := LlamaDecoderLayer{
		SelfAttn: LlamaAttention{
			QProj:   l.linear(name+".self_attn.q_proj", false),
			KProj:   l.linear(name+".self_attn.k_proj", false),
			VProj:   l.linear(name+".self_attn.v_proj", false),
			OProj:   l.linear(name+".self_attn.o_proj", false),
			Heads:   m.config.Text.NumAttentionHeads,
			KVHeads: m.config.Text.NumKeyValueHeads,
		},
		MLP: LlamaMLP{
			GateProj: l.linear(name+".mlp.gate_proj", false),
			UpProj:   l.linear(name+".mlp.up_proj", false),
			DownProj: l.linear(name+".mlp.down_proj", false),
		},
		InputLayernorm:         l.rmsNorm(name + ".input_layernorm"),
		PostAttentionLayernorm: l.rmsNorm(name + ".post_attention_layernorm"),
	}
	return layer, l.err
}

// loader reads the parameters of one layer into the model's slab, over those of the layer before, and keeps the first error.
type loader struct {
	m    *Llava
	used int
	err  error
}

// load begins a layer. Weights that were loaded before are gone.
func (m *Llava) load() *loader { return &loader{m: m} }

// read takes consecutive values of a parameter. A slab that is too small is left to the tensors that already lie in it.
func (l *loader) read(name string, from, count int) []float32 {
	if l.err != nil {
		return nil
	}
	if l.used+count > len(l.m.slab) {
		l.m.slab, l.used = make([]float32, max(count, l.m.largestLayer())), 0
	}
	dst := l.m.slab[l.used:][:count:count]
	l.used += count
	l.err = l.m.weights.Read(name, from, dst)
	return dst
}

// largestLayer is the number of values of the largest decoder or encoder layer.
func (m *Llava) largestLayer() int {
	sum := func(prefix string) int {
		n := 0
		for name, p := range m.params {
			if len(name) > len(prefix) && name[:len(prefix)] == prefix {
				n += p.Count()
			}
		}
		return n
	}
	return max(sum(shapes.VisionLayer(0)+"."), sum(shapes.TextLayer(0)+"."))
}

func (l *loader) tensor(name string) Tensor {
	p := l.m.params[name]
	return Tensor{Shape: slices.Clone(p.Shape), Data: l.read(name, 0, p.Count())}
}

func (l *loader) linear(name string, bias bool) Linear {
	y := Linear{Weight: l.tensor(name + ".weight")}
	if bias {
		y.Bias = l.tensor(name + ".bias")
	}
	return y
}

func (l *loader) layerNorm(name string) LayerNorm {
	return LayerNorm{Weight: l.tensor(name + ".weight"), Bias: l.tensor(name + ".bias"), Eps: l.m.config.Vision.LayerNormEps}
}

func (l *loader) rmsNorm(name string) RMSNorm {
	return RMSNorm{Weight: l.tensor(name + ".weight"), Eps: l.m.config.Text.RMSNormEps}
}

// CheckInputs says whether a prompt fits the model: shapes, counts, ranges. It does not count image tokens against
// features; MergeEmbeddings does.
func CheckInputs(c shapes.Config, in shapes.Inputs) error {
	if len(in.InputIDs) == 0 {
		return fmt.Errorf("ref: input_ids: empty, want at least one token")
	}
	if len(in.PositionIDs) != len(in.InputIDs) {
		return fmt.Errorf("ref: position_ids: %d, want one for each of %d input_ids", len(in.PositionIDs), len(in.InputIDs))
	}
	for t, p := range in.PositionIDs {
		if p < 0 || p > maxPosition {
			return fmt.Errorf("ref: position_ids[%d]: %d, want 0 to %d", t, p, maxPosition)
		}
	}
	px := in.PixelValues
	if px.Shape == nil {
		if len(in.ImageSizes) > 0 {
			return fmt.Errorf("ref: image_sizes: %d images, but no pixel_values", len(in.ImageSizes))
		}
		return nil
	}
	v := c.Vision
	want := []int{-1, v.NumChannels, v.ImageSize, v.ImageSize}
	if len(px.Shape) != 4 || px.Shape[0] < 1 || !slices.Equal(px.Shape[1:], want[1:]) || len(px.Data) != shapes.Product(px.Shape) {
		return fmt.Errorf("ref: pixel_values: shape %v with %d values, want [N %d %d %d]", px.Shape, len(px.Data), want[1], want[2], want[3])
	}
	if c.ModelType == shapes.LlavaNext && len(in.ImageSizes) == 0 {
		return fmt.Errorf("ref: image_sizes: none, want one for each image")
	}
	for i, s := range in.ImageSizes {
		if s.H < 1 || s.W < 1 || s.H > 1<<24 || s.W > 1<<24 {
			return fmt.Errorf("ref: image_sizes[%d]: %v pixels, want at least 1x1", i, s)
		}
	}
	return nil
}

// maxPosition bounds the angles of the rotary embedding, which cosSin reduces exactly up to there.
const maxPosition = 1 << 20
