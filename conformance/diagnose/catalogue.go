package diagnose

import (
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Bug is one thing that ports do wrong, at the nodes of some kinds.
type Bug struct {
	ID         string // of docs/known-bugs.md
	Name       string // with ID unique: one id may be done wrong in more than one way
	Text       string // what an engine with it does, in one sentence
	Look       string // where to look
	Convention string // the published rule that it is, where it is no bug of the engine's own
	Kinds      []shapes.Kind
	Only       func(s *Site) bool // of these kinds; nil is all

	// Make is what the bug makes of a node; nil if it does not exist there.
	Make func(s *Site) (*Alternative, error)

	packer *packer // of a bug of packing: the rules by which it packs
}

// Key names the bug: "C01/10000".
func (b Bug) Key() string {
	if b.Name == "" {
		return b.ID
	}
	return b.ID + "/" + b.Name
}

// At says whether the bug lives in a node.
func (b Bug) At(s *Site) bool {
	return slices.Contains(b.Kinds, s.Node.Kind) && (b.Only == nil || b.Only(s))
}

// Catalogue lists the bugs, in the order of docs/known-bugs.md.
func Catalogue() []Bug {
	return slices.Concat(loading(), tower(), projector(), packing(), merging(), decoder(), kernels())
}

// Counting lists the bugs of counting image tokens. The graph is right with them, and the prompt has another number of tokens than the images have rows, so they
// show in what comes out and in no node.
func Counting() []Bug {
	bug := func(name, text string, order func(image [][]float32, base int) [][]float32) Bug {
		p := packer{order: order}
		return Bug{ID: "K19", Name: name, Text: text, Look: "the class token is no row of features: base features are patches, 576 of 577", Kinds: kinds(shapes.PackImageFeatures), packer: &p,
			Make: func(s *Site) (*Alternative, error) { return s.packed(p) }}
	}
	return []Bug{
		bug("one less", "each image has one token less than rows, the last row is lost", func(image [][]float32, _ int) [][]float32 { return image[:len(image)-1] }),
		bug("one less, first", "each image has one token less than rows, the first row is lost", func(image [][]float32, _ int) [][]float32 { return image[1:] }),
		bug("one more", "each image has one token more than rows, zeros stand there", func(image [][]float32, _ int) [][]float32 {
			return append(slices.Clone(image), make([]float32, len(image[0])))
		}),
	}
}

func kinds(k ...shapes.Kind) []shapes.Kind { return k }

// leaves restricts a bug to nodes of some names.
func leaves(names ...string) func(s *Site) bool {
	return func(s *Site) bool { return s.is(names...) }
}

// rank puts published rules before bugs: where both give what the engine has, it does what a published rule says.
func (b Bug) rank() int {
	if b.Convention != "" {
		return 0
	}
	return 1
}
