package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// vector is the argument of the loops over values. The loops of the assembly take whole blocks of values only
// (a multiple of lanes, of 16 for half a head of rope); what is left over runs in plain Go, which gives the same bits.
// The assembly knows the offsets of these fields.
type vector struct {
	n          int            // values
	y, a, b, c unsafe.Pointer // y may be a or b
	scale      float32        // what a number is to be multiplied by, or divided by; eps of a norm
	sum        float32        // what softmax returns
}

// lanes is how many sums a sum over a row is made of, on all implementations: value i belongs to sum i%lanes, each sum runs in the
// order of i, and then sum j takes sum j+16 up, for all j below 16, j+8, j+4, j+2, j+1.
const lanes = 32

// vectorOps are the loops over values of one implementation; what is nil is generic.
type vectorOps struct {
	add, mul                       func(*vector) // y = a + b, a * b
	exp, erf                       func(*vector) // y = exp(a), erf(a): the tests' view of what the others are made of
	silu, siluMul, quickGELU, gelu func(*vector) // of a; siluMul: silu(a) * b
	softmax                        func(*vector) // y = exp(scale*(a-max(a))), sum = sum of y
	divide                         func(*vector) // y = a / scale
	layerNorm, rmsNorm             func(*vector) // one row; a is x, b the weight, c the bias
	rope                           func(*vector) // one head; n is half of its width, b cos, c sin
	widenF16, widenBF16            func(*vector) // y float32, a uint16
	roundF16, roundBF16            func(*vector) // y uint16, a float32
}

// complete fills in what an implementation leaves to plain Go.
func (o *vectorOps) complete() {
	g := &genericVector
	for _, f := range []struct{ to, from *func(*vector) }{
		{&o.add, &g.add}, {&o.mul, &g.mul}, {&o.exp, &g.exp}, {&o.erf, &g.erf}, {&o.silu, &g.silu}, {&o.siluMul, &g.siluMul},
		{&o.quickGELU, &g.quickGELU}, {&o.gelu, &g.gelu}, {&o.softmax, &g.softmax}, {&o.divide, &g.divide}, {&o.layerNorm, &g.layerNorm},
		{&o.rmsNorm, &g.rmsNorm}, {&o.rope, &g.rope}, {&o.widenF16, &g.widenF16}, {&o.widenBF16, &g.widenBF16},
		{&o.roundF16, &g.roundF16}, {&o.roundBF16, &g.roundBF16},
	} {
		if *f.to == nil {
			*f.to = *f.from
		}
	}
}

// taskValues is about how many values one task of the pool takes: enough to be worth waking a thread. Tests change it; the results do not depend on it.
var taskValues = 16 << 10

// valuesJob is a job of the pool over values or rows of values.
type valuesJob struct {
	loop, rest func(*vector) // the implementation's, and plain Go for what is left over
	vector     vector        // of all values
	size       [3]int        // bytes of one value of y, a and b
	task       int           // values, or rows, of a task
	rows       int           // for norms and rope
	width      int           // values of a row
	heads      int           // for rope
}

// Add computes y = a + b, value by value. All lengths are the same; y may be a or b.
func (p *Pool) Add(y, a, b []float32) { p.binary("Add", p.vector.add, genericVector.add, y, a, b) }

// Mul computes y = a * b, value by value. All lengths are the same; y may be a or b.
func (p *Pool) Mul(y, a, b []float32) { p.binary("Mul", p.vector.mul, genericVector.mul, y, a, b) }

// SiLU computes y = x sigmoid(x), within 2 ULP for every x; -Inf gives NaN, as it does in torch. y may be x.
func (p *Pool) SiLU(y, x []float32) { p.unary("SiLU", p.vector.silu, genericVector.silu, y, x) }

// SiLUMul computes y = SiLU(gate) * up, value by value. All lengths are the same; y may be gate or up.
func (p *Pool) SiLUMul(y, gate, up []float32) {
	p.binary("SiLUMul", p.vector.siluMul, genericVector.siluMul, y, gate, up)
}

// QuickGELU computes y = x sigmoid(1.702 x), within 2 ULP for every x; -Inf gives NaN, as it does in torch. y may be x.
func (p *Pool) QuickGELU(y, x []float32) {
	p.unary("QuickGELU", p.vector.quickGELU, genericVector.quickGELU, y, x)
}

// GELU computes y = x/2 (1 + erf(x/sqrt 2)) as it stands: erf is right to 2 ULP, and for negative x the sum cancels, so that
// the error of y is up to 2^-23 |x|. -Inf gives NaN, as it does in torch. y may be x.
func (p *Pool) GELU(y, x []float32) { p.unary("GELU", p.vector.gelu, genericVector.gelu, y, x) }

func (p *Pool) unary(name string, loop, rest func(*vector), y, x []float32) {
	if len(y) != len(x) {
		panic(fmt.Sprintf("kernel: %s: y %d, x %d values, want the same", name, len(y), len(x)))
	}
	mustAlias(name, y, x)
	p.values(valuesJob{loop: loop, rest: rest, vector: vector{n: len(y), y: address(y), a: address(x)}, size: [3]int{4, 4, 0}})
}

func (p *Pool) binary(name string, loop, rest func(*vector), y, a, b []float32) {
	if len(y) != len(a) || len(y) != len(b) {
		panic(fmt.Sprintf("kernel: %s: y %d, operands %d and %d values, want the same", name, len(y), len(a), len(b)))
	}
	mustAlias(name, y, a)
	mustAlias(name, y, b)
	p.values(valuesJob{loop: loop, rest: rest, vector: vector{n: len(y), y: address(y), a: address(a), b: address(b)}, size: [3]int{4, 4, 4}})
}

// Widen gives the values of float16 or bfloat16 bits, exactly; a signalling NaN becomes a quiet one. dst and src are equally long.
func (p *Pool) Widen(dst []float32, src []uint16, t Type) {
	if len(dst) != len(src) || t != F16 && t != BF16 {
		panic(fmt.Sprintf("kernel: Widen: %v, dst %d, src %d values, want F16 or BF16 and the same number", t, len(dst), len(src)))
	}
	loop, rest := p.vector.widenF16, genericVector.widenF16
	if t == BF16 {
		loop, rest = p.vector.widenBF16, genericVector.widenBF16
	}
	p.values(valuesJob{loop: loop, rest: rest, vector: vector{n: len(dst), y: address(dst), a: address(src)}, size: [3]int{4, 2, 0}})
}

// Round gives the bits of the nearest float16 or bfloat16, ties to even: denormals are kept, what is too large becomes an infinity,
// a NaN stays one and is quiet. dst and src are equally long.
func (p *Pool) Round(dst []uint16, src []float32, t Type) {
	if len(dst) != len(src) || t != F16 && t != BF16 {
		panic(fmt.Sprintf("kernel: Round: %v, dst %d, src %d values, want F16 or BF16 and the same number", t, len(dst), len(src)))
	}
	loop, rest := p.vector.roundF16, genericVector.roundF16
	if t == BF16 {
		loop, rest = p.vector.roundBF16, genericVector.roundBF16
	}
	p.values(valuesJob{loop: loop, rest: rest, vector: vector{n: len(dst), y: address(dst), a: address(src)}, size: [3]int{2, 4, 0}})
}

// LayerNorm computes, for each row of width values of x, y = (x - mean) / sqrt(variance + eps) * w + b, with the variance of the
// whole row (divided by width, not by width-1) in a second pass. w and b are width long. y may be x.
func (p *Pool) LayerNorm(y, x []float32, width int, w, b []float32, eps float64) {
	if len(b) != width {
		panic(fmt.Sprintf("kernel: LayerNorm: bias %d values, want %d", len(b), width))
	}
	mustBeApart("LayerNorm", y, b)
	p.norm("LayerNorm", p.vector.layerNorm, genericVector.layerNorm, y, x, width, w, eps, address(b))
}

// RMSNorm computes, for each row of width values of x, y = w * (x / sqrt(mean(x²) + eps)). w is width long. y may be x.
func (p *Pool) RMSNorm(y, x []float32, width int, w []float32, eps float64) {
	p.norm("RMSNorm", p.vector.rmsNorm, genericVector.rmsNorm, y, x, width, w, eps, nil)
}

func (p *Pool) norm(name string, loop, rest func(*vector), y, x []float32, width int, w []float32, eps float64, b unsafe.Pointer) {
	if width <= 0 || len(y) != len(x) || len(x)%width != 0 || len(w) != width {
		panic(fmt.Sprintf("kernel: %s: y %d, x %d, weight %d values, want rows of %d and one weight a column", name, len(y), len(x), len(w), width))
	}
	mustAlias(name, y, x)
	mustBeApart(name, y, w)
	if width%lanes != 0 {
		loop = rest
	}
	p.rows(kindNorm, valuesJob{
		loop: loop, vector: vector{n: width, y: address(y), a: address(x), b: address(w), c: b, scale: float32(eps)},
		task: max(1, taskValues/width), rows: len(x) / width, width: width,
	})
}

// Rope turns the pairs of every head by an angle: x, y [T, heads, dim], cos and sin [T, dim], in the arrangement of transformers'
// rotate_half: with x1 and x2 the halves of a head, y1 = x1 cos1 - x2 sin1 and y2 = x2 cos2 + x1 sin2, each product rounded before
// the sum. y may be x.
func (p *Pool) Rope(y, x []float32, heads, dim int, cos, sin []float32) {
	if heads <= 0 || dim <= 0 || dim%2 != 0 || len(y) != len(x) || len(x)%(heads*dim) != 0 || len(cos) != len(x)/heads || len(sin) != len(cos) {
		panic(fmt.Sprintf("kernel: Rope: y %d, x %d, cos %d, sin %d values, want [T, %d, %d] and [T, %d], the last even", len(y), len(x), len(cos), len(sin), heads, dim, dim))
	}
	mustAlias("Rope", y, x)
	mustBeApart("Rope", y, cos)
	mustBeApart("Rope", y, sin)
	loop := p.vector.rope
	if dim/2%16 != 0 {
		loop = genericVector.rope
	}
	p.rows(kindRope, valuesJob{
		loop: loop, vector: vector{n: dim / 2, y: address(y), a: address(x), b: address(cos), c: address(sin)},
		task: max(1, taskValues/(heads*dim)), rows: len(x) / (heads * dim), width: heads * dim, heads: heads,
	})
}

// mustAlias holds that y is x or has nothing in common with it: a shifted overlap would read what was written before.
func mustAlias(name string, y, x []float32) {
	if len(y) > 0 && &y[0] != &x[0] && overlap(y, x) {
		panic("kernel: " + name + ": y overlaps an operand and is not the same")
	}
}

func mustBeApart(name string, y, x []float32) {
	if overlap(y, x) {
		panic("kernel: " + name + ": y overlaps a weight, bias or table")
	}
}

func address[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// values runs a job over values that have nothing to do with each other.
func (p *Pool) values(j valuesJob) {
	if j.vector.n == 0 {
		return
	}
	j.task = max(lanes, taskValues/lanes*lanes)
	p.start(kindValues, ceilDiv(j.vector.n, j.task), j)
}

// rows runs a job over rows.
func (p *Pool) rows(k kind, j valuesJob) {
	if j.rows == 0 {
		return
	}
	p.start(k, ceilDiv(j.rows, j.task), j)
}

func (p *Pool) start(k kind, tasks int, j valuesJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.job = job{values: j}
	p.phases = append(p.phases[:0], phase{kind: k, tasks: tasks})
	p.run()
}

// someValues is task i of a job over values: whole blocks, and what is left of the last one.
func (p *Pool) someValues(w *worker, i int) {
	j := &p.job.values
	from := i * j.task
	count := min(j.task, j.vector.n-from)
	v := &w.vector
	*v = j.vector
	v.y, v.a, v.b = unsafe.Add(v.y, from*j.size[0]), unsafe.Add(v.a, from*j.size[1]), unsafe.Add(v.b, from*j.size[2])
	whole := count / lanes * lanes
	if v.n = whole; whole > 0 {
		j.loop(v)
	}
	if v.n = count - whole; v.n > 0 {
		v.y, v.a, v.b = unsafe.Add(v.y, whole*j.size[0]), unsafe.Add(v.a, whole*j.size[1]), unsafe.Add(v.b, whole*j.size[2])
		j.rest(v)
	}
}

// someRows is task i of a norm.
func (p *Pool) someRows(w *worker, i int) {
	j := &p.job.values
	v := &w.vector
	for r := i * j.task; r < min((i+1)*j.task, j.rows); r++ {
		*v = j.vector
		v.y, v.a = unsafe.Add(v.y, 4*r*j.width), unsafe.Add(v.a, 4*r*j.width)
		j.loop(v)
	}
}

// someHeads is task i of a rope: some positions, all heads of each.
func (p *Pool) someHeads(w *worker, i int) {
	j := &p.job.values
	v := &w.vector
	dim := 2 * j.vector.n
	for t := i * j.task; t < min((i+1)*j.task, j.rows); t++ {
		*v = j.vector
		v.b, v.c = unsafe.Add(v.b, 4*t*dim), unsafe.Add(v.c, 4*t*dim)
		for h := range j.heads {
			// No pointer may go past the end of its values, not even unused: the garbage collector looks at it.
			at := 4 * (t*j.width + h*dim)
			v.y, v.a = unsafe.Add(j.vector.y, at), unsafe.Add(j.vector.a, at)
			j.loop(v)
		}
	}
}

// Constants of the elementary functions. The polynomials are minimax fits, rounded to float32 from the lowest coefficient up with
// the rest fitted again; what they are worth is measured over all of float32 (TestElementary -exhaustive).
const (
	log2E   = 0x1.715476p0
	ln2High = 0x1.62e4p-1 // 15 bits: n times it is exact
	ln2Low  = 0x1.7f7d1cp-20
	rounder = 0x1.8p23 // added to a number, it leaves the nearest integer in the low bits

	// Below lowest, n is at least -254 and both halves of 2^n are 0: times a finite number that is 0, times an infinity NaN.
	lowest  = -176.1
	highest = 128

	expC2 = 0x1.fffffcp-2 // e^r = 1 + r + r² (expC2 + ... + expC6 r⁴)
	expC3 = 0x1.555492p-3
	expC4 = 0x1.5558bcp-5
	expC5 = 0x1.1239c6p-7
	expC6 = 0x1.6a4154p-10

	quickHigh = 0x1.b3b646p0 // 1.702 = quickHigh + quickLow
	quickLow  = -0x1.78d4fep-26
	quickMost = 104 // where QuickGELU has become 0 or x

	sqrtHalf = 0x1.6a09e6p-1

	erfEdge = 0.93          // |x| where one fit ends and the other begins
	erfMost = 3.95          // where erf has become 1
	erfA0   = 0x1.06eba6p-3 // erf x = x + x (erfA0 + ... + erfA5 x^10)
	erfA1   = -0x1.8126e0p-2
	erfA2   = 0x1.ce1922p-4
	erfA3   = -0x1.b67608p-6
	erfA4   = 0x1.46b610p-8
	erfA5   = -0x1.37e142p-11
	erfB0   = -0x1.0731b6p-3 // 1 - erf x = e^(-x + x (erfB0 + ... + erfB5 x⁵))
	erfB1   = -0x1.457d92p-1
	erfB2   = -0x1.af1fa8p-4
	erfB3   = 0x1.76f478p-6
	erfB4   = -0x1.a53470p-9
	erfB5   = 0x1.c0659ap-13
)

// inverseSqrt is 1/sqrt(v), each step rounded to float32: what VSQRTSS and VDIVSS give.
func inverseSqrt(v float32) float32 { return 1 / float32(math.Sqrt(float64(v))) }
