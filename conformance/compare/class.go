package compare

import (
	"fmt"
	"math"
)

// Class is a storage format for activations. Sums run in float32 in every class.
type Class string

// The classes, in the order of the noise floors of a golden set.
const (
	F32  Class = "f32"
	F16  Class = "f16"
	BF16 Class = "bf16"
)

// Classes lists them in that order.
func Classes() []Class { return []Class{F32, F16, BF16} }

// ParseClass reads a class by its name.
func ParseClass(name string) (Class, error) {
	for _, c := range Classes() {
		if string(c) == name {
			return c, nil
		}
	}
	return "", fmt.Errorf("compare: class %q, want f32, f16 or bf16", name)
}

// unit is the roundoff of float32, 2^-24: half the distance from 1 to the next number.
const unit = 1.0 / (1 << 24)

// format describes a binary floating point format: the bits of its significand, the leading one included,
// the exponent of its smallest normal number and its largest finite number.
type format struct {
	bits   int
	minExp int
	max    float64
}

func (c Class) format() format {
	switch c {
	case F16:
		return format{11, -14, 65504}
	case BF16:
		return format{8, -126, 0x1.fep127}
	default:
		return format{24, -126, math.MaxFloat32}
	}
}

// Roundoff is half the distance from 1 to the next number of the class: 2^-24, 2^-11 or 2^-8.
// Rounding to nearest changes a number by at most this much of itself.
func (c Class) Roundoff() float64 { return math.Ldexp(1, -c.format().bits) }

// HalfStep is half the distance between the neighbours of x in the class: the most that rounding x to nearest can change it.
func (c Class) HalfStep(x float64) float64 {
	f := c.format()
	e := f.minExp
	if b := math.Float64bits(x) >> 52 & 0x7ff; b != 0 { // not zero and not subnormal in float64
		e = max(e, int(b)-1023)
	}
	return math.Float64frombits(uint64(e-f.bits+1023) << 52) // 2^(e - bits); e is far above float64's own subnormals
}

// Round is x rounded to the class, to nearest, ties to even.
func (c Class) Round(x float32) float32 {
	if c == F32 || x == 0 || math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
		return x
	}
	if c == BF16 { // the upper half of the bits; a carry goes where it should, up to infinity
		b := math.Float32bits(x)
		return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	}
	step := 2 * c.HalfStep(float64(x))
	y := math.RoundToEven(float64(x)/step) * step // both steps are exact: step is a power of two
	if math.Abs(y) > c.format().max {
		return float32(math.Copysign(math.Inf(1), y))
	}
	return float32(y)
}

// Lanes is how many float32 partial sums a kernel keeps side by side while it adds up a long sum, as the engine declares it:
// the vector width times the vector accumulators, or the number of blocks that are summed apart.
// 0 is undeclared and gets the budget of 1, the longest chain of additions.
type Lanes int

// Depth is the longest chain of additions through a sum of k terms.
func (l Lanes) Depth(k int) float64 {
	n := float64(max(l, 1))
	return math.Ceil(float64(k)/n) + math.Ceil(math.Log2(n))
}

// Arithmetic is what an engine declares of itself: the class that it stores activations in, and how it adds up.
type Arithmetic struct {
	Class Class
	Lanes Lanes
}
