package fast

import (
	"fmt"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// form is how a parameter lies in memory.
type form uint8

const (
	vector form = iota // float32, as in the checkpoint
	rows               // rows of the checkpoint in their own type: the embedding, of which a token needs one
	panels             // kernel.PackedSize: a matrix that is multiplied by
)

// block is one parameter in the model's memory.
type block struct {
	shapes.Param
	form form
	typ  kernel.Type
	n, k int // rows, and values of one
	at   int // its first byte
	size int // bytes
}

// layout is where each parameter lies. Configuration and types decide all of it.
type layout struct {
	blocks []block // in the order of shapes.Params
	index  map[string]int
	size   int // bytes of all
}

// alignment of a parameter: a page, so that reads from a file may go around every cache.
const alignment = 4096

// maxBytes bounds a model: far above any machine, low enough that no sum or product of sizes overflows.
const maxBytes = 1 << 46

// newLayout places the parameters of a model. types says what the values of a matrix, or of embedding rows, are stored as. It is an error
// if the configuration asks for more than maxBytes.
func newLayout(c shapes.Config, types func(name string) kernel.Type) (layout, error) {
	l := layout{index: map[string]int{}}
	for _, p := range shapes.Params(c) {
		values := 1.0
		for _, n := range p.Shape {
			values *= float64(n)
		}
		if values > maxBytes/8 || l.size > maxBytes {
			return layout{}, fmt.Errorf("fast: %s: shape %v: the model is larger than %d bytes", p.Name, p.Shape, maxBytes)
		}
		b := block{Param: p, form: formOf(p), n: p.Shape[0], k: shapes.Product(p.Shape[1:]), at: l.size}
		if b.form != vector {
			b.typ = types(p.Name)
		}
		switch b.form {
		case panels:
			b.size = kernel.PackedSize(kernel.Matrix{Type: b.typ, N: b.n, K: b.k})
		default:
			b.size = b.n * b.k * b.typ.Size()
		}
		l.size = alignUp(b.at + b.size)
		l.index[p.Name] = len(l.blocks)
		l.blocks = append(l.blocks, b)
	}
	return l, nil
}

func alignUp(n int) int { return (n + alignment - 1) / alignment * alignment }

// formOf says how a parameter is used.
func formOf(p shapes.Param) form {
	switch {
	case p.Name == shapes.TextModel+".embed_tokens.weight":
		return rows
	case p.Name == shapes.VisionTower+".embeddings.position_embedding.weight", len(p.Shape) == 1:
		return vector
	}
	return panels
}

func (l layout) block(name string) block {
	i, ok := l.index[name]
	if !ok {
		panic(fmt.Sprintf("fast: the model has no parameter %s", name))
	}
	return l.blocks[i]
}
