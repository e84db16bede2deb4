package shapes

import "fmt"

// Size is a height and a width, in pixels, tiles or patches as the context says.
type Size struct{ H, W int }

// Area is H*W.
func (s Size) Area() int { return s.H * s.W }

// String is "HxW", the order of the fields.
func (s Size) String() string { return fmt.Sprintf("%dx%d", s.H, s.W) }

// Tensor is a dense float32 array in row-major order.
type Tensor struct {
	Shape []int
	Data  []float32
}

// NewTensor makes a tensor of zeros.
func NewTensor(shape ...int) Tensor {
	return Tensor{Shape: shape, Data: make([]float32, Product(shape))}
}

// Rows is the number of rows of the tensor seen as a matrix: the product of all axes but the last.
func (t Tensor) Rows() int { return Product(t.Shape[:len(t.Shape)-1]) }

// Cols is the length of the last axis.
func (t Tensor) Cols() int { return t.Shape[len(t.Shape)-1] }

// Row is row r of the tensor seen as a matrix. It shares the tensor's memory.
func (t Tensor) Row(r int) []float32 {
	c := t.Cols()
	return t.Data[r*c : (r+1)*c : (r+1)*c]
}

// Product is the number of elements of a shape; 1 for the empty shape.
func Product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Inputs is one prompt, ready for the model: what transformers' processor returns for a batch of one,
// with the tiles of all images in one row and the image token already repeated once a feature row.
type Inputs struct {
	PixelValues Tensor // [N, 3, px, px], normalised; no shape at all if the prompt has no image
	ImageSizes  []Size // original size of each image in pixels; LLaVA-1.5 has one tile an image and does not look at them
	InputIDs    []int  // [T]
	PositionIDs []int  // [T], from 0
}

// Probe receives the value of one node of the graph. The callee must not keep t.Data: the engine may reuse it.
type Probe func(node string, t Tensor)

// Weights gives the values of a model's parameters by their on-disk names, widened to float32 without rounding.
type Weights interface {
	// Read fills dst with consecutive values of the named parameter in row-major order, the first of them value
	// number from. It is an error to ask for a name that the model does not have or for values past its end.
	Read(name string, from int, dst []float32) error
}
