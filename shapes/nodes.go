package shapes

import (
	"fmt"
	"strconv"
)

// Kind says what a node computes. Nodes of one kind differ in inputs, parameters and sizes only.
type Kind string

// The kinds, in the order of their first appearance.
const (
	PatchEmbedding    Kind = "PatchEmbedding"    // convolution whose stride is its kernel
	VisionEmbeddings  Kind = "VisionEmbeddings"  // class token before the patches, plus positions
	LayerNorm         Kind = "LayerNorm"         //
	Linear            Kind = "Linear"            // x W^T, plus a bias if it has one
	Scores            Kind = "Scores"            // q k^T / sqrt(Dh), head by head
	Softmax           Kind = "Softmax"           // over keys; causal in the text model
	Context           Kind = "Context"           // probabilities times values, heads side by side
	Add               Kind = "Add"               // the residual stream
	QuickGELU         Kind = "QuickGELU"         // x sigmoid(1.702 x)
	ClassToken        Kind = "ClassToken"        // position 0 of every tile
	SelectFeatures    Kind = "SelectFeatures"    // the positions that the select strategy keeps
	GELU              Kind = "GELU"              // with erf
	PackImageFeatures Kind = "PackImageFeatures" // tiles to rows: unpadded, a newline after each row
	EmbedTokens       Kind = "EmbedTokens"       //
	MergeEmbeddings   Kind = "MergeEmbeddings"   // image rows in the places of image tokens
	RotaryCos         Kind = "RotaryCos"         //
	RotarySin         Kind = "RotarySin"         //
	RMSNorm           Kind = "RMSNorm"           //
	Rope              Kind = "Rope"              // rotary position embedding of all heads
	SiLU              Kind = "SiLU"              //
	Mul               Kind = "Mul"               // the gate
)

// The graph's inputs, as they stand in Node.Inputs.
const (
	InPixelValues = "pixel_values"
	InImageSizes  = "image_sizes"
	InInputIDs    = "input_ids"
	InPositionIDs = "position_ids"
)

// Functional steps that have no module of their own.
const (
	NodeSelect = "select_features"
	NodePack   = "pack_image_features"
	NodeMerge  = "merge_embeddings"
	NodeCos    = TextModel + ".rotary_emb.cos"
	NodeSin    = TextModel + ".rotary_emb.sin"
	NodePooled = VisionTower + ".pooled"
)

// Dim is one axis of a node: its letter and, where the configuration alone decides it, its length.
type Dim struct {
	Letter string // from the legend, or a formula of letters such as "S-1"
	Len    int    // 0 if the prompt decides
}

// Node is one step of the graph.
type Node struct {
	Name   string   // module path in the on-disk checkpoint, plus a functional step where no module stands
	Kind   Kind     //
	Inputs []string // names of nodes, or of the graph's inputs
	Params []string // on-disk names
	Shape  []Dim    //
	Reach  Reach    //

	Heads   int     // Scores, Context, Rope: query heads (Rope of keys: key heads)
	KVHeads int     // Scores, Context: key and value heads
	Causal  bool    // Scores, Softmax, Context: key j is visible to query i if j <= i + (L - T)
	Eps     float64 // LayerNorm, RMSNorm
}

// Dims are the lengths that the prompt decides.
type Dims struct {
	N int // tiles
	R int // rows of image features
	T int // text positions
	L int // key positions: T, and those that a cache holds already
}

// DimsOf reads the lengths off a prompt that runs without a cache.
func DimsOf(c Config, in Inputs) Dims {
	d := Dims{T: len(in.InputIDs), L: len(in.InputIDs)}
	if len(in.PixelValues.Shape) > 0 {
		d.N = in.PixelValues.Shape[0]
	}
	for _, id := range in.InputIDs {
		if id == c.ImageTokenID {
			d.R++
		}
	}
	return d
}

// Concrete is the node's shape for a prompt.
func (n Node) Concrete(d Dims) []int {
	shape := make([]int, len(n.Shape))
	for i, dim := range n.Shape {
		switch {
		case dim.Len > 0:
			shape[i] = dim.Len
		case dim.Letter == "N":
			shape[i] = d.N
		case dim.Letter == "R":
			shape[i] = d.R
		case dim.Letter == "T":
			shape[i] = d.T
		case dim.Letter == "L":
			shape[i] = d.L
		default:
			panic(fmt.Sprintf("shapes: node %s: axis %q has no length", n.Name, dim.Letter))
		}
	}
	return shape
}

// Present says whether the node exists for a prompt: without an image there is no tower, no projector and nothing to pack.
func (n Node) Present(d Dims) bool {
	for _, l := range n.Concrete(d) {
		if l == 0 {
			return false
		}
	}
	return true
}

// Symbolic is the node's shape in letters: "[N, S, D]".
func (n Node) Symbolic() string {
	s := "["
	for i, d := range n.Shape {
		if i > 0 {
			s += ", "
		}
		s += d.Letter
	}
	return s + "]"
}

// Known is the node's shape with the numbers that the configuration decides: "[N, 577, 1024]".
func (n Node) Known() string {
	s := "["
	for i, d := range n.Shape {
		if i > 0 {
			s += ", "
		}
		if d.Len > 0 {
			s += strconv.Itoa(d.Len)
		} else {
			s += d.Letter
		}
	}
	return s + "]"
}

// Nodes lists the graph in the order of execution: every input of a node stands before it.
// The vision layers that the logits do not need are in it, marked Dead, since a checkpoint has them.
func Nodes(c Config) []Node {
	g := graph{c: c}
	g.vision()
	features := g.projector()
	g.text(features)
	return g.nodes
}

// graph is a list of nodes under construction.
type graph struct {
	c     Config
	nodes []Node
}

// add appends a node and returns its name.
func (g *graph) add(n Node) string {
	if n.Reach == "" {
		n.Reach = Reaches
	}
	g.nodes = append(g.nodes, n)
	return n.Name
}

// layerNorm and linear name their parameters after the module, as torch does.
func layerNorm(name, in string, eps float64, shape []Dim, reach Reach) Node {
	return Node{Name: name, Kind: LayerNorm, Inputs: []string{in}, Params: []string{name + ".weight", name + ".bias"}, Shape: shape, Eps: eps, Reach: reach}
}

func linear(name, in string, bias bool, shape []Dim, reach Reach) Node {
	n := Node{Name: name, Kind: Linear, Inputs: []string{in}, Params: []string{name + ".weight"}, Shape: shape, Reach: reach}
	if bias {
		n.Params = append(n.Params, name+".bias")
	}
	return n
}

func (g *graph) vision() {
	v := g.c.Vision
	n, s, d, f := Dim{"N", 0}, Dim{"S", v.Positions()}, Dim{"D", v.HiddenSize}, Dim{"F", v.IntermediateSize}
	h, p := Dim{"H", v.NumAttentionHeads}, Dim{"P", v.PatchesPerSide()}
	wide := []Dim{n, s, d}

	e := VisionTower + ".embeddings"
	patches := g.add(Node{Name: e + ".patch_embedding", Kind: PatchEmbedding, Inputs: []string{InPixelValues}, Params: []string{e + ".patch_embedding.weight"}, Shape: []Dim{n, d, p, p}})
	x := g.add(Node{Name: e, Kind: VisionEmbeddings, Inputs: []string{patches}, Params: []string{e + ".class_embedding", e + ".position_embedding.weight"}, Shape: wide})
	x = g.add(layerNorm(VisionTower+".pre_layrnorm", x, v.LayerNormEps, wide, Reaches))
	features := x // hidden state 0
	for i := range v.NumHiddenLayers {
		layer, reach := VisionLayer(i), Reaches
		if i >= g.c.FeatureLayer() {
			reach = Dead
		}
		attn := layer + ".self_attn"
		normed := g.add(layerNorm(layer+".layer_norm1", x, v.LayerNormEps, wide, reach))
		q := g.add(linear(attn+".q_proj", normed, true, wide, reach))
		k := g.add(linear(attn+".k_proj", normed, true, wide, reach))
		val := g.add(linear(attn+".v_proj", normed, true, wide, reach))
		square := []Dim{n, h, s, s}
		scores := g.add(Node{Name: attn + ".scores", Kind: Scores, Inputs: []string{q, k}, Shape: square, Reach: reach, Heads: v.NumAttentionHeads, KVHeads: v.NumAttentionHeads})
		probs := g.add(Node{Name: attn + ".probs", Kind: Softmax, Inputs: []string{scores}, Shape: square, Reach: reach})
		context := g.add(Node{Name: attn + ".context", Kind: Context, Inputs: []string{probs, val}, Shape: wide, Reach: reach, Heads: v.NumAttentionHeads, KVHeads: v.NumAttentionHeads})
		out := g.add(linear(attn+".out_proj", context, true, wide, reach))
		x = g.add(Node{Name: layer + ".residual_attn", Kind: Add, Inputs: []string{x, out}, Shape: wide, Reach: reach})
		normed = g.add(layerNorm(layer+".layer_norm2", x, v.LayerNormEps, wide, reach))
		fc1 := g.add(linear(layer+".mlp.fc1", normed, true, []Dim{n, s, f}, reach))
		act := g.add(Node{Name: layer + ".mlp.activation_fn", Kind: QuickGELU, Inputs: []string{fc1}, Shape: []Dim{n, s, f}, Reach: reach})
		fc2 := g.add(linear(layer+".mlp.fc2", act, true, wide, reach))
		x = g.add(Node{Name: layer, Kind: Add, Inputs: []string{x, fc2}, Shape: wide, Reach: reach})
		if i+1 == g.c.FeatureLayer() {
			features = x
		}
	}
	pooled := g.add(Node{Name: NodePooled, Kind: ClassToken, Inputs: []string{x}, Shape: []Dim{n, d}, Reach: Dead})
	g.add(layerNorm(VisionTower+".post_layernorm", pooled, v.LayerNormEps, []Dim{n, d}, Dead))

	m := Dim{"S-1", g.c.FeaturesPerTile()}
	if g.c.SelectStrategy == SelectFull {
		m.Letter = "S"
	}
	g.add(Node{Name: NodeSelect, Kind: SelectFeatures, Inputs: []string{features}, Shape: []Dim{n, m, d}})
}

// projector returns the node whose rows take the places of the image tokens.
func (g *graph) projector() string {
	m, c := g.nodes[len(g.nodes)-1].Shape[1], Dim{"C", g.c.Text.HiddenSize}
	shape := []Dim{{"N", 0}, m, c}
	x := g.add(linear(Projector+".linear_1", NodeSelect, true, shape, Reaches))
	x = g.add(Node{Name: Projector + ".act", Kind: GELU, Inputs: []string{x}, Shape: shape})
	x = g.add(linear(Projector+".linear_2", x, true, shape, Reaches))
	if g.c.ModelType == Llava {
		return x // one tile an image: its rows are taken as they are
	}
	return g.add(Node{Name: NodePack, Kind: PackImageFeatures, Inputs: []string{x, InImageSizes}, Params: []string{ImageNewline}, Shape: []Dim{{"R", 0}, c}})
}

func (g *graph) text(features string) {
	t := g.c.Text
	pos, keys, c, f := Dim{"T", 0}, Dim{"L", 0}, Dim{"C", t.HiddenSize}, Dim{"F", t.IntermediateSize}
	h, kv, dh := Dim{"H", t.NumAttentionHeads}, Dim{"K", t.NumKeyValueHeads}, Dim{"Dh", t.HeadDim}
	q, k := Dim{"H*Dh", t.NumAttentionHeads * t.HeadDim}, Dim{"K*Dh", t.NumKeyValueHeads * t.HeadDim}
	wide := []Dim{pos, c}

	rms := func(name, in string) string {
		return g.add(Node{Name: name, Kind: RMSNorm, Inputs: []string{in}, Params: []string{name + ".weight"}, Shape: wide, Eps: t.RMSNormEps})
	}
	x := g.add(Node{Name: TextModel + ".embed_tokens", Kind: EmbedTokens, Inputs: []string{InInputIDs}, Params: []string{TextModel + ".embed_tokens.weight"}, Shape: wide})
	x = g.add(Node{Name: NodeMerge, Kind: MergeEmbeddings, Inputs: []string{x, features, InInputIDs}, Shape: wide})
	cos := g.add(Node{Name: NodeCos, Kind: RotaryCos, Inputs: []string{InPositionIDs}, Shape: []Dim{pos, dh}})
	sin := g.add(Node{Name: NodeSin, Kind: RotarySin, Inputs: []string{InPositionIDs}, Shape: []Dim{pos, dh}})
	for i := range t.NumHiddenLayers {
		layer := TextLayer(i)
		attn := layer + ".self_attn"
		normed := rms(layer+".input_layernorm", x)
		qp := g.add(linear(attn+".q_proj", normed, false, []Dim{pos, q}, Reaches))
		kp := g.add(linear(attn+".k_proj", normed, false, []Dim{pos, k}, Reaches))
		vp := g.add(linear(attn+".v_proj", normed, false, []Dim{pos, k}, Reaches))
		qr := g.add(Node{Name: attn + ".rope_q", Kind: Rope, Inputs: []string{qp, cos, sin}, Shape: []Dim{pos, h, dh}, Heads: t.NumAttentionHeads})
		kr := g.add(Node{Name: attn + ".rope_k", Kind: Rope, Inputs: []string{kp, cos, sin}, Shape: []Dim{pos, kv, dh}, Heads: t.NumKeyValueHeads})
		square := []Dim{h, pos, keys}
		scores := g.add(Node{Name: attn + ".scores", Kind: Scores, Inputs: []string{qr, kr}, Shape: square, Heads: t.NumAttentionHeads, KVHeads: t.NumKeyValueHeads, Causal: true})
		probs := g.add(Node{Name: attn + ".probs", Kind: Softmax, Inputs: []string{scores}, Shape: square, Causal: true})
		context := g.add(Node{Name: attn + ".context", Kind: Context, Inputs: []string{probs, vp}, Shape: []Dim{pos, q}, Heads: t.NumAttentionHeads, KVHeads: t.NumKeyValueHeads, Causal: true})
		out := g.add(linear(attn+".o_proj", context, false, wide, Reaches))
		x = g.add(Node{Name: layer + ".residual_attn", Kind: Add, Inputs: []string{x, out}, Shape: wide})
		normed = rms(layer+".post_attention_layernorm", x)
		gate := g.add(linear(layer+".mlp.gate_proj", normed, false, []Dim{pos, f}, Reaches))
		up := g.add(linear(layer+".mlp.up_proj", normed, false, []Dim{pos, f}, Reaches))
		act := g.add(Node{Name: layer + ".mlp.act_fn", Kind: SiLU, Inputs: []string{gate}, Shape: []Dim{pos, f}})
		gated := g.add(Node{Name: layer + ".mlp.gated", Kind: Mul, Inputs: []string{act, up}, Shape: []Dim{pos, f}})
		down := g.add(linear(layer+".mlp.down_proj", gated, false, wide, Reaches))
		x = g.add(Node{Name: layer, Kind: Add, Inputs: []string{x, down}, Shape: wide})
	}
	x = rms(TextModel+".norm", x)
	g.add(linear(LMHead, x, false, []Dim{pos, {"V", t.VocabSize}}, Reaches))
}
