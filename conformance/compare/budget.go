package compare

import "github.com/llavaref/llavaref/shapes"

// Budget is the true output of one node on given inputs, and what rounding may do to each entry of it.
// Rounding a magnitude m to nearest moves the result by at most half a step of the format at m, and by a chance
// amount within that: worst cases add up, chance amounts add up as squares. So each entry has a sum and a root of a sum
// of squares, for the roundings of float32 arithmetic and for those of intermediate values to the storage class.
// The output's own rounding to storage is not in them: Local adds it. A nil slice is all zeros.
type Budget struct {
	Want  shapes.Tensor // y*, computed in float64 and rounded to float32
	Class Class         // of storage

	Acc    []float32 // float32 arithmetic, at the worst
	AccRMS []float32 // the same by chance: a roundoff for each rounding, times the magnitude
	Sto    []float32 // storage of intermediate values, at the worst; nil in class f32, where it is arithmetic
	StoRMS []float32 // the same by chance: half a step over sqrt(3) for each

	Pool  Pool    // how far one error of float32 arithmetic reaches
	Tilt  float64 // relative error that all entries may share, such as that of a rounded constant
	Copy  bool    // the node only moves values: no arithmetic at all
	Fused bool    // the value is never stored: the engine keeps it in registers

	// Derived says that some input is not the engine's own. An error of an input reaches many entries at once, in
	// proportions that are the weights' and not chance.
	Derived bool

	// Skewed says that errors of storage need not average out: a smooth function maps neighbouring numbers of the class to
	// numbers on one side of their neighbours, as x sigmoid(x) = x/2 + x^2/4 does where x is small.
	Skewed bool
}

// Pool says which entries share one error of float32 arithmetic. Shared errors do not average out.
type Pool int

// The pools.
const (
	PerEntry Pool = iota // each entry has its own: sums of products
	PerRow               // a row has one: the mean and the variance of a norm, the denominator of a softmax
	Whole                // all may have the same: an approximation of exp or erf errs on one side
)
