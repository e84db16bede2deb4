package replay

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// Evaluator evaluates nodes of one model for one prompt. It is not safe for concurrent use; ref uses all cores by itself.
type Evaluator struct {
	config  shapes.Config
	weights shapes.Weights
	in      shapes.Inputs
	dims    shapes.Dims
	nodes   map[string]shapes.Node
	params  map[string]shapes.Param
	cache   map[string]shapes.Tensor // parameters of the node evaluated last
	cached  string                   // its name
}

// New makes an evaluator. It is an error if the prompt does not fit the model.
func New(c shapes.Config, w shapes.Weights, in shapes.Inputs) (*Evaluator, error) {
	if err := ref.CheckInputs(c, in); err != nil {
		return nil, err
	}
	e := &Evaluator{config: c, weights: w, in: in, dims: shapes.DimsOf(c, in), nodes: map[string]shapes.Node{}, params: map[string]shapes.Param{}}
	for _, n := range shapes.Nodes(c) {
		e.nodes[n.Name] = n
	}
	for _, p := range shapes.Params(c) {
		e.params[p.Name] = p
	}
	return e, nil
}

// graphInputs are the names in Node.Inputs that stand for the prompt and not for a node.
var graphInputs = []string{shapes.InPixelValues, shapes.InImageSizes, shapes.InInputIDs, shapes.InPositionIDs}

// evaluators says how each kind is evaluated. Inputs have been checked; those that are the prompt's own are taken from the evaluator.
var evaluators = map[shapes.Kind]func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error){
	shapes.PatchEmbedding: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		w, err := e.param(n, 0)
		return result(err, func() shapes.Tensor { return ref.PatchEmbedding{Weight: w}.Forward(e.in.PixelValues) })
	},
	shapes.VisionEmbeddings: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		class, err := e.param(n, 0)
		if err != nil {
			return shapes.Tensor{}, err
		}
		position, err := e.param(n, 1)
		return result(err, func() shapes.Tensor {
			return ref.CLIPVisionEmbeddings{ClassEmbedding: class, PositionEmbedding: position}.Embed(in[0])
		})
	},
	shapes.LayerNorm: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		weight, err := e.param(n, 0)
		if err != nil {
			return shapes.Tensor{}, err
		}
		bias, err := e.param(n, 1)
		return result(err, func() shapes.Tensor { return ref.LayerNorm{Weight: weight, Bias: bias, Eps: n.Eps}.Forward(in[0]) })
	},
	shapes.Linear: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return e.linear(n, in[0])
	},
	shapes.Scores: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.AttentionScores(in[0], in[1], n.Heads, n.KVHeads, n.Causal), nil
	},
	shapes.Softmax: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.Softmax(masked(n, in[0], float32(math.Inf(-1)))), nil
	},
	shapes.Context: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.AttentionContext(masked(n, in[0], 0), in[1], n.Heads, n.KVHeads), nil
	},
	shapes.Add: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.Add(in[0], in[1]), nil
	},
	shapes.QuickGELU: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.QuickGELU(in[0]), nil
	},
	shapes.ClassToken: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.ClassToken(in[0]), nil
	},
	shapes.SelectFeatures: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.SelectFeatures(in[0], e.config.SelectStrategy), nil
	},
	shapes.GELU: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.GELU(in[0]), nil
	},
	shapes.PackImageFeatures: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		newline, err := e.param(n, 0)
		if err != nil {
			return shapes.Tensor{}, err
		}
		return ref.PackImageFeatures(e.config, in[0], newline, e.in.ImageSizes)
	},
	shapes.EmbedTokens: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.EmbedTokens(e.weights, e.config.Text, e.in.InputIDs)
	},
	shapes.MergeEmbeddings: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.MergeEmbeddings(in[0], in[1], e.in.InputIDs, e.config.ImageTokenID)
	},
	shapes.RotaryCos: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.RotaryCos(e.in.PositionIDs, e.config.Text.HeadDim, e.config.Text.RopeTheta), nil
	},
	shapes.RotarySin: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.RotarySin(e.in.PositionIDs, e.config.Text.HeadDim, e.config.Text.RopeTheta), nil
	},
	shapes.RMSNorm: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		weight, err := e.param(n, 0)
		return result(err, func() shapes.Tensor { return ref.RMSNorm{Weight: weight, Eps: n.Eps}.Forward(in[0]) })
	},
	shapes.Rope: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.Rope(in[0], in[1], in[2], n.Heads), nil
	},
	shapes.SiLU: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.SiLU(in[0]), nil
	},
	shapes.Mul: func(e *Evaluator, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
		return ref.Mul(in[0], in[1]), nil
	},
}

func result(err error, f func() shapes.Tensor) (shapes.Tensor, error) {
	if err != nil {
		return shapes.Tensor{}, err
	}
	return f(), nil
}

// Eval is the node's true output on the given inputs: inputs[i] stands for node.Inputs[i]. In the places of the prompt's own inputs
// (pixel_values and the like) stands a zero Tensor, as it does for the features of a prompt without an image.
func (e *Evaluator) Eval(node shapes.Node, inputs []shapes.Tensor) (shapes.Tensor, error) {
	if err := e.checkInputs(node, inputs); err != nil {
		return shapes.Tensor{}, err
	}
	y, err := evaluators[node.Kind](e, node, inputs)
	if err != nil {
		return shapes.Tensor{}, fmt.Errorf("replay: %s: %w", node.Name, err)
	}
	return y, e.checkShape(node, "output", node.Name, y)
}

// checkInputs holds the inputs against the shapes that the nodes of their names have for this prompt.
func (e *Evaluator) checkInputs(node shapes.Node, inputs []shapes.Tensor) error {
	if evaluators[node.Kind] == nil {
		return fmt.Errorf("replay: %s: kind %q, want one of shapes.Kind", node.Name, node.Kind)
	}
	if _, known := e.nodes[node.Name]; !known {
		return fmt.Errorf("replay: %s is no node of this model", node.Name)
	}
	if !node.Present(e.dims) {
		return fmt.Errorf("replay: %s: the prompt has no such node", node.Name)
	}
	if len(inputs) != len(node.Inputs) {
		return fmt.Errorf("replay: %s: %d inputs, want %d", node.Name, len(inputs), len(node.Inputs))
	}
	for i, name := range node.Inputs {
		if slices.Contains(graphInputs, name) {
			continue
		}
		producer, known := e.nodes[name]
		if !known {
			return fmt.Errorf("replay: %s: input %s is no node of this model", node.Name, name)
		}
		if !producer.Present(e.dims) {
			if inputs[i].Shape != nil {
				return fmt.Errorf("replay: %s: input %s: shape %v, but the prompt has no such node", node.Name, name, inputs[i].Shape)
			}
			continue
		}
		if err := e.checkShape(producer, "input", node.Name, inputs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *Evaluator) checkShape(producer shapes.Node, role, subject string, t shapes.Tensor) error {
	want := producer.Concrete(e.dims)
	if !slices.Equal(t.Shape, want) || len(t.Data) != shapes.Product(want) {
		return fmt.Errorf("replay: %s: %s %s: shape %v with %d values, want %s = %v", subject, role, producer.Name, t.Shape, len(t.Data), producer.Symbolic(), want)
	}
	return nil
}

// masked is x with hidden in the places that a causal mask hides, whatever the engine has there.
func masked(n shapes.Node, x shapes.Tensor, hidden float32) shapes.Tensor {
	if !n.Causal {
		return x
	}
	y := shapes.Tensor{Shape: x.Shape, Data: slices.Clone(x.Data)} // [H, T, L]
	queries, keys := x.Shape[1], x.Shape[2]
	for r := range y.Rows() {
		row := y.Row(r)
		for j := r%queries + keys - queries + 1; j < keys; j++ {
			row[j] = hidden
		}
	}
	return y
}

// blockSize is how many values of a matrix are read at a time. The two large matrices, embed_tokens and lm_head, are never held whole.
const blockSize = 1 << 24

// param reads the node's parameter number i whole. It stays at hand until another node is evaluated.
func (e *Evaluator) param(n shapes.Node, i int) (shapes.Tensor, error) {
	if i >= len(n.Params) {
		return shapes.Tensor{}, fmt.Errorf("%d parameters, want more than %d", len(n.Params), i)
	}
	name := n.Params[i]
	p, known := e.params[name]
	if !known {
		return shapes.Tensor{}, fmt.Errorf("%s is no parameter of this model", name)
	}
	if e.cached != n.Name {
		e.cached, e.cache = n.Name, map[string]shapes.Tensor{}
	}
	if t, has := e.cache[name]; has {
		return t, nil
	}
	t := shapes.NewTensor(p.Shape...)
	if err := e.weights.Read(name, 0, t.Data); err != nil {
		return shapes.Tensor{}, err
	}
	e.cache[name] = t
	return t, nil
}

// linear evaluates a linear layer block by block of its outputs.
func (e *Evaluator) linear(n shapes.Node, x shapes.Tensor) (shapes.Tensor, error) {
	y := shapes.NewTensor(n.Concrete(e.dims)...)
	err := e.linearBlocks(n, x, func(first int, l ref.Linear) {
		block := l.Forward(x)
		for r := range y.Rows() {
			copy(y.Row(r)[first:], block.Row(r))
		}
	})
	return y, err
}

// linearBlocks calls f with the layer's outputs from first on, some at a time.
func (e *Evaluator) linearBlocks(n shapes.Node, x shapes.Tensor, f func(first int, l ref.Linear)) error {
	if len(n.Params) == 0 {
		return fmt.Errorf("no parameters, want a weight")
	}
	p, known := e.params[n.Params[0]]
	if !known || len(p.Shape) != 2 || p.Shape[1] != x.Cols() || p.Shape[0] != n.Concrete(e.dims)[len(n.Shape)-1] {
		return fmt.Errorf("weight %s %v does not take %d columns to %s", n.Params[0], p.Shape, x.Cols(), n.Known())
	}
	out, in := p.Shape[0], p.Shape[1]
	var bias shapes.Tensor
	if len(n.Params) > 1 {
		var err error
		if bias, err = e.param(n, 1); err != nil {
			return err
		}
		if len(bias.Data) != out {
			return fmt.Errorf("bias %s has %d values, want %d", n.Params[1], len(bias.Data), out)
		}
	}
	rows := max(blockSize/in, 1)
	for first := 0; first < out; first += rows {
		count := min(rows, out-first)
		var w shapes.Tensor
		var err error
		if count == out {
			w, err = e.param(n, 0)
		} else {
			w = shapes.NewTensor(count, in)
			err = e.weights.Read(p.Name, first*in, w.Data)
		}
		if err != nil {
			return err
		}
		l := ref.Linear{Weight: w}
		if bias.Shape != nil {
			l.Bias = shapes.Tensor{Shape: []int{count}, Data: bias.Data[first:][:count]}
		}
		f(first, l)
	}
	return nil
}
