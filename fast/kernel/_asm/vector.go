package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.vector; vector_amd64.go holds them at compile time.
const (
	vectorN     = 0
	vectorY     = 8
	vectorA     = 16
	vectorB     = 24
	vectorC     = 32
	vectorScale = 40
	vectorSum   = 44
)

// constants of the elementary functions, by the names that they have in vector.go of package kernel. Each is stored eight times,
// for AVX2; AVX-512 broadcasts the first.
var constants = []struct {
	name  string
	value float32
}{
	{"lowest", -176.1}, {"highest", 128}, {"log2E", 0x1.715476p0}, {"rounder", 0x1.8p23}, {"-ln2High", -0x1.62e4p-1}, {"-ln2Low", -0x1.7f7d1cp-20},
	{"expC2", 0x1.fffffcp-2}, {"expC3", 0x1.555492p-3}, {"expC4", 0x1.5558bcp-5}, {"expC5", 0x1.1239c6p-7}, {"expC6", 0x1.6a4154p-10},
	{"1", 1}, {"1/2", 0.5}, {"bias", math.Float32frombits(127)}, {"sign", math.Float32frombits(1 << 31)}, {"magnitude", math.Float32frombits(1<<31 - 1)},
	{"-Inf", float32(math.Inf(-1))}, {"most", math.MaxFloat32},
	{"-quickHigh", -0x1.b3b646p0}, {"-quickLow", 0x1.78d4fep-26}, {"quickMost", 104}, {"sqrtHalf", 0x1.6a09e6p-1},
	{"erfEdge", 0.93}, {"erfMost", 3.95},
	{"erfA0", 0x1.06eba6p-3}, {"erfA1", -0x1.8126e0p-2}, {"erfA2", 0x1.ce1922p-4}, {"erfA3", -0x1.b67608p-6}, {"erfA4", 0x1.46b610p-8}, {"erfA5", -0x1.37e142p-11},
	{"erfB0", -0x1.0731b6p-3}, {"erfB1", -0x1.457d92p-1}, {"erfB2", -0x1.af1fa8p-4}, {"erfB3", 0x1.76f478p-6}, {"erfB4", -0x1.a53470p-9}, {"erfB5", 0x1.c0659ap-13},
	{"7fff", math.Float32frombits(0x7fff)}, {"1 bit", math.Float32frombits(1)}, {"quiet", math.Float32frombits(0x40)},
}

// expConstants are those of e^x for x of 0 or less.
var expConstants = []string{"lowest", "log2E", "rounder", "-ln2High", "-ln2Low", "expC2", "expC3", "expC4", "expC5", "expC6", "1"}

// vectors writes the loops over values for one width of registers.
type vectors struct {
	*asm
	wide  bool // AVX-512
	table operand.Mem
	held  map[string]int // constants that the function at hand keeps in registers
}

// vectors opens the file: the constants, then every function in both widths.
func (a *asm) vectors() {
	table := a.StaticGlobal("elementary")
	a.DataAttributes(attr.RODATA | attr.NOPTR)
	for _, c := range constants {
		for range 8 {
			a.AppendDatum(operand.U32(math.Float32bits(c.value)))
		}
	}
	for _, v := range []vectors{{a, true, table, map[string]int{}}, {a, false, table, map[string]int{}}} {
		v.elementwise()
		v.softmax()
		v.norms()
		v.rope()
		v.conversions()
	}
}

// r is register i, bytes its size, and unroll how many of them hold 32 values.
func (v vectors) r(i int) reg.VecPhysical {
	if v.wide {
		return zs[i]
	}
	return ys[i]
}

func (v vectors) bytes() int {
	if v.wide {
		return 64
	}
	return 32
}

func (v vectors) unroll() int { return 128 / v.bytes() }

// c is the place of a constant.
func (v vectors) c(name string) operand.Mem {
	for i, c := range constants {
		if c.name == name {
			return v.table.Offset(32 * i)
		}
	}
	panic("no constant " + name)
}

// hold keeps constants in the upper 16 registers of AVX-512 until the function ends, instead of fetching each for every vector.
func (v vectors) hold(names ...string) {
	if !v.wide {
		return
	}
	for i, name := range names {
		v.VBROADCASTSS(v.c(name), zs[16+i])
		v.held[name] = 16 + i
	}
}

// with emits an instruction whose first operand is a constant: the first form for AVX2, and for AVX-512 where it is held; else the second, which broadcasts.
func (v vectors) with(narrow, broadcast func(...operand.Op), name string, ops ...operand.Op) {
	switch at, held := v.held[name]; {
	case held:
		narrow(append([]operand.Op{zs[at]}, ops...)...)
	case v.wide:
		broadcast(append([]operand.Op{v.c(name)}, ops...)...)
	default:
		narrow(append([]operand.Op{v.c(name)}, ops...)...)
	}
}

func (v vectors) vpand(ops ...operand.Op) { v.VPAND(ops[0], ops[1], ops[2]) }
func (v vectors) vpor(ops ...operand.Op)  { v.VPOR(ops[0], ops[1], ops[2]) }

func (v vectors) load(name string, to int) {
	if at, held := v.held[name]; held {
		v.VMOVAPS(zs[at], v.r(to))
	} else if v.wide {
		v.VBROADCASTSS(v.c(name), v.r(to))
	} else {
		v.VMOVUPS(v.c(name), v.r(to))
	}
}

// to = x*to + name
func (v vectors) fma(name string, x, to int) {
	v.with(v.VFMADD213PS, v.VFMADD213PS_BCST, name, v.r(x), v.r(to))
}

// to += x*name
func (v vectors) addProduct(name string, x, to int) {
	v.with(v.VFMADD231PS, v.VFMADD231PS_BCST, name, v.r(x), v.r(to))
}

func (v vectors) mul(name string, x, to int) {
	v.with(v.VMULPS, v.VMULPS_BCST, name, v.r(x), v.r(to))
}
func (v vectors) add(name string, x, to int) {
	v.with(v.VADDPS, v.VADDPS_BCST, name, v.r(x), v.r(to))
}
func (v vectors) sub(name string, x, to int) {
	v.with(v.VSUBPS, v.VSUBPS_BCST, name, v.r(x), v.r(to))
}
func (v vectors) and(name string, x, to int) {
	v.with(v.VANDPS, v.VANDPS_BCST, name, v.r(x), v.r(to))
}
func (v vectors) zero(i int) { v.VXORPS(v.r(i), v.r(i), v.r(i)) }

// bound gives x, or the constant where x is below (or above) it; a NaN stays.
func (v vectors) boundBelow(name string, x, scratch, to int) {
	v.VMAXPS(v.r(x), v.r(v.constant(name, scratch)), v.r(to))
}
func (v vectors) boundAbove(name string, x, scratch, to int) {
	v.VMINPS(v.r(x), v.r(v.constant(name, scratch)), v.r(to))
}

// constant is the register of a constant: the one that holds it, or scratch, into which it is loaded.
func (v vectors) constant(name string, scratch int) int {
	if at, held := v.held[name]; held {
		return at
	}
	v.load(name, scratch)
	return scratch
}

// function opens a function and loads the pointers: CX values left, DI y, SI a, DX b, R8 c.
func (v vectors) function(name string, doc ...string) {
	clear(v.held)
	full := v.name(name)
	doc[0] = full + " " + doc[0]
	v.asm.function(full, "vector", append(doc, "", "AX vector; CX values left; DI y; SI a; DX b; R8 c")...)
	v.Load(v.Param("t"), reg.RAX)
	v.MOVQ(mem(reg.RAX, vectorN), reg.RCX)
	v.MOVQ(mem(reg.RAX, vectorY), reg.RDI)
	v.MOVQ(mem(reg.RAX, vectorA), reg.RSI)
	v.MOVQ(mem(reg.RAX, vectorB), reg.RDX)
	v.MOVQ(mem(reg.RAX, vectorC), reg.R8)
}

func (v vectors) name(name string) string {
	if v.wide {
		return name + "AVX512"
	}
	return name + "AVX2"
}

// loop repeats the body for every so many values, and moves the pointers, by so many bytes a value.
func (v vectors) loop(label string, values int, pointers map[reg.GPPhysical]int, body func()) {
	v.Label(label)
	body()
	for _, r := range []reg.GPPhysical{reg.RDI, reg.RSI, reg.RDX, reg.R8} {
		if size := pointers[r]; size > 0 {
			v.ADDQ(operand.I32(values*size), r)
		}
	}
	v.SUBQ(operand.I32(values), reg.RCX)
	v.JNE(operand.LabelRef(label))
}

func (v vectors) end() {
	v.VZEROUPPER()
	v.RET()
}

// expParts: see vector_generic.go. high is overwritten; the results are p in register p, n as a number in register n, and as an integer in
// register i, or not if that is -1. low is a register, or -1 for 0; small says that high is 0 or less, or a rounding more. It uses t.
func (v vectors) expParts(high, low, p, n, i, t int, small bool) {
	v.boundBelow("lowest", high, t, high)
	if !small {
		v.boundAbove("highest", high, t, high)
	}
	v.Comment("n = the integer nearest to high log2(e)")
	v.load("log2E", t)
	v.fma("rounder", high, t)
	if i >= 0 {
		v.with(v.VPSUBD, v.VPSUBD_BCST, "rounder", v.r(t), v.r(i))
	}
	v.sub("rounder", t, n)
	v.Comment("r = high - n ln2 + low")
	v.addProduct("-ln2High", n, high)
	if low >= 0 {
		v.addProduct("-ln2Low", n, low)
		v.VADDPS(v.r(low), v.r(high), v.r(high))
	} else {
		v.addProduct("-ln2Low", n, high)
	}
	v.Comment("p = e^r - 1")
	v.load("expC6", p)
	for _, c := range []string{"expC5", "expC4", "expC3", "expC2"} {
		v.fma(c, high, p)
	}
	v.VMULPS(v.r(high), v.r(high), v.r(t))
	v.VFMADD213PS(v.r(high), v.r(t), v.r(p))
}

// powers turns the integer n in register i into 2^(n/2) and 2^(n - n/2), in s1 and s2. i may be s2.
func (v vectors) powers(i, s1, s2 int) {
	v.Comment("2^n in two halves")
	v.VPSRAD(operand.U8(1), v.r(i), v.r(s1))
	v.VPSUBD(v.r(s1), v.r(i), v.r(s2))
	for _, s := range []int{s1, s2} {
		v.with(v.VPADDD, v.VPADDD_BCST, "bias", v.r(s), v.r(s))
		v.VPSLLD(operand.U8(23), v.r(s), v.r(s))
	}
}

// exp puts e^x into to. x is overwritten; it uses n, i and t.
func (v vectors) exp(x, to, n, i, t int, small bool) {
	if v.wide {
		i = -1 // VSCALEFPS takes n as a number
	}
	v.expParts(x, -1, to, n, i, t, small)
	v.add("1", to, to)
	if v.wide {
		v.VSCALEFPS(v.r(n), v.r(to), v.r(to))
		return
	}
	v.powers(i, t, i)
	v.VMULPS(v.r(t), v.r(to), v.r(to))
	v.VMULPS(v.r(i), v.r(to), v.r(to))
}

// sigmoidTimes: see vector_generic.go. x stays in register 0, high is in 1, low in 2 (if there is one); the result is in 3. It uses 4 to 8.
func (v vectors) sigmoidTimes(low bool) {
	const x, high, p, s2, n, s1, t, d = 0, 1, 3, 4, 5, 6, 7, 8
	lowAt := -1
	if low {
		lowAt = 2
	}
	v.expParts(high, lowAt, p, n, s2, t, true)
	v.powers(s2, s1, s2)
	v.Comment("d = 1 + z, and what its rounding lost")
	v.add("1", p, t)
	v.VMULPS(v.r(s1), v.r(t), v.r(t))
	v.VMULPS(v.r(s2), v.r(t), v.r(t))
	v.add("1", t, d)
	v.sub("1", d, n)
	v.VSUBPS(v.r(n), v.r(t), v.r(t))
	v.Comment("its reciprocal, and what is wrong with it")
	v.load("1", n)
	v.VDIVPS(v.r(d), v.r(n), v.r(n))
	v.VMOVAPS(v.r(n), v.r(high))
	v.with(v.VFNMADD213PS, v.VFNMADD213PS_BCST, "1", v.r(d), v.r(high))
	v.VFNMADD231PS(v.r(t), v.r(n), v.r(high))
	v.VMULPS(v.r(high), v.r(n), v.r(high))
	v.Comment("x, or where x is negative x e^t")
	v.VMULPS(v.r(s1), v.r(x), v.r(d))
	v.VFMADD213PS(v.r(d), v.r(d), v.r(p))
	v.load("1", t)
	if v.wide {
		v.VPMOVD2M(v.r(x), reg.K1)
		v.VBLENDMPS(v.r(p), v.r(x), reg.K1, v.r(p))
		v.VBLENDMPS(v.r(s2), v.r(t), reg.K1, v.r(s2))
	} else {
		v.VBLENDVPS(v.r(x), v.r(p), v.r(x), v.r(p))
		v.VBLENDVPS(v.r(x), v.r(s2), v.r(t), v.r(s2))
	}
	v.boundAbove("most", p, t, t)
	v.VMULPS(v.r(high), v.r(t), v.r(t))
	v.VFMADD213PS(v.r(t), v.r(n), v.r(p))
	v.VMULPS(v.r(s2), v.r(p), v.r(p))
}

// erf puts erf of register 0, which stays, into 3. It uses 1, 2 and 4 to 7.
func (v vectors) erf() {
	const x, t, small, large = 0, 1, 2, 3
	v.and("magnitude", x, t)
	v.VMULPS(v.r(x), v.r(x), v.r(4))
	v.load("erfA5", small)
	for _, c := range []string{"erfA4", "erfA3", "erfA2", "erfA1", "erfA0"} {
		v.fma(c, 4, small)
	}
	v.VFMADD213PS(v.r(x), v.r(x), v.r(small))
	v.boundAbove("erfMost", t, 4, t)
	v.load("erfB5", 4)
	for _, c := range []string{"erfB4", "erfB3", "erfB2", "erfB1", "erfB0"} {
		v.fma(c, t, 4)
	}
	v.VFMSUB213PS(v.r(t), v.r(t), v.r(4))
	v.exp(4, large, 5, 6, 7, true)
	v.load("1", 4)
	v.VSUBPS(v.r(large), v.r(4), v.r(large))
	v.and("sign", x, 4)
	v.VORPS(v.r(4), v.r(large), v.r(large))
	const greater = operand.U8(0x1e)
	if v.wide {
		v.VCMPPS_BCST(greater, v.c("erfEdge"), v.r(t), reg.K1)
		v.VBLENDMPS(v.r(large), v.r(small), reg.K1, v.r(large))
	} else {
		v.VCMPPS(greater, v.c("erfEdge"), v.r(t), v.r(t))
		v.VBLENDVPS(v.r(t), v.r(large), v.r(small), v.r(large))
	}
}

// elementwise writes the functions of values that have nothing to do with each other.
func (v vectors) elementwise() {
	one := map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 4}
	two := map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 4, reg.RDX: 4}
	values := v.bytes() / 4
	sigmoid := append([]string{"sign", "bias", "most"}, expConstants...)

	for _, op := range []struct {
		name, doc string
		pointers  map[reg.GPPhysical]int
		result    int // register of it
		body      func()
		hold      []string
	}{
		{"add", "is y = a + b.", two, 0, func() { v.VADDPS(mem(reg.RDX, 0), v.r(0), v.r(0)) }, nil},
		{"mul", "is y = a * b.", two, 0, func() { v.VMULPS(mem(reg.RDX, 0), v.r(0), v.r(0)) }, nil},
		{"exp", "is y = e^a.", one, 3, func() { v.exp(0, 3, 4, 5, 6, false) }, expConstants},
		{"erf", "is y = erf(a).", one, 3, v.erf, nil},
		{"silu", "is y = a sigmoid(a).", one, 3, v.silu, sigmoid},
		{"siluMul", "is y = a sigmoid(a) b.", two, 3, func() { v.silu(); v.VMULPS(mem(reg.RDX, 0), v.r(3), v.r(3)) }, sigmoid},
		{"quickGELU", "is y = a sigmoid(1.702 a).", one, 3, func() {
			v.and("magnitude", 0, 3)
			v.boundAbove("quickMost", 3, 4, 3)
			v.Comment("-1.702 |a| in two numbers")
			v.load("-quickHigh", 2)
			v.VMULPS(v.r(2), v.r(3), v.r(1))
			v.VFMSUB213PS(v.r(1), v.r(3), v.r(2))
			v.addProduct("-quickLow", 3, 2)
			v.sigmoidTimes(true)
		}, append([]string{"magnitude", "quickMost", "-quickHigh", "-quickLow", "bias"}, expConstants...)},
		{"gelu", "is y = a (1/2 + erf(a/sqrt 2)/2).", one, 3, func() {
			v.mul("sqrtHalf", 0, 0)
			v.erf()
			v.load("1/2", 4)
			v.fma("1/2", 4, 3)
			v.VMULPS(mem(reg.RSI, 0), v.r(3), v.r(3))
		}, nil},
	} {
		v.function(op.name, op.doc)
		v.hold(op.hold...)
		v.loop("loop", values, op.pointers, func() {
			v.VMOVUPS(mem(reg.RSI, 0), v.r(0))
			op.body()
			v.VMOVUPS(v.r(op.result), mem(reg.RDI, 0))
		})
		v.end()
	}

	v.function("divide", "is y = a / scale.")
	v.VBROADCASTSS(mem(reg.RAX, vectorScale), v.r(1))
	v.loop("loop", values, one, func() {
		v.VMOVUPS(mem(reg.RSI, 0), v.r(0))
		v.VDIVPS(v.r(1), v.r(0), v.r(0))
		v.VMOVUPS(v.r(0), mem(reg.RDI, 0))
	})
	v.end()
}

func (v vectors) silu() {
	v.with(v.VORPS, v.VORPS_BCST, "sign", v.r(0), v.r(1))
	v.sigmoidTimes(false)
}

// reduce combines the registers that hold 32 values, from register first, in the order of lanes: j with j+16, j+8, j+4, j+2, j+1.
// op is VADDPS or VMAXPS. The result is in all lanes of register first.
func (v vectors) reduce(op func(...operand.Op), first int) {
	v.Comment("all lanes into one: j with j+16, j+8, j+4, j+2, j+1")
	y0, x0, y1, x1 := ys[first], xs[first], ys[first+1], xs[first+1]
	if v.wide {
		op(v.r(first+1), v.r(first), v.r(first))
		v.VEXTRACTF64X4(operand.U8(1), v.r(first), y1)
	} else {
		op(v.r(first+2), v.r(first), v.r(first))
		op(v.r(first+3), v.r(first+1), v.r(first+1))
	}
	op(y1, y0, y0)
	v.VEXTRACTF128(operand.U8(1), y0, x1)
	op(x1, x0, x0)
	v.VPERMILPS(operand.U8(0x4e), x0, x1)
	op(x1, x0, x0)
	v.VPERMILPS(operand.U8(0xb1), x0, x1)
	op(x1, x0, x0)
	v.VBROADCASTSS(x0, v.r(first))
}

// sumRegister is where the sums of a row begin: the last registers.
func (v vectors) sumRegister() int { return 16 - v.unroll() }

// softmax writes the exponentials of a row of scores and their sum.
func (v vectors) softmax() {
	v.function("softmax", "is y = e^(scale (a - max(a))), and sum = the sum of y.")
	const top, scale, x, e = 0, 1, 2, 3
	sums := v.sumRegister()
	v.VBROADCASTSS(mem(reg.RAX, vectorScale), v.r(scale))
	v.hold(expConstants...)
	for i := range v.unroll() {
		v.load("-Inf", sums+i)
	}
	v.loop("most", 32, map[reg.GPPhysical]int{reg.RSI: 4}, func() {
		for i := range v.unroll() {
			v.VMOVUPS(mem(reg.RSI, i*v.bytes()), v.r(x))
			v.Comment("a NaN is not above what there is")
			v.VMAXPS(v.r(sums+i), v.r(x), v.r(sums+i))
		}
	})
	v.reduce(v.VMAXPS, sums)
	v.VMOVAPS(v.r(sums), v.r(top))
	for i := range v.unroll() {
		v.zero(sums + i)
	}
	v.MOVQ(mem(reg.RAX, vectorN), reg.RCX)
	v.MOVQ(mem(reg.RAX, vectorA), reg.RSI)
	v.loop("exp", 32, map[reg.GPPhysical]int{reg.RSI: 4, reg.RDI: 4}, func() {
		for i := range v.unroll() {
			v.VMOVUPS(mem(reg.RSI, i*v.bytes()), v.r(x))
			v.VSUBPS(v.r(top), v.r(x), v.r(x))
			v.VMULPS(v.r(scale), v.r(x), v.r(x))
			v.exp(x, e, 4, 5, 6, true)
			v.VMOVUPS(v.r(e), mem(reg.RDI, i*v.bytes()))
			v.VADDPS(v.r(e), v.r(sums+i), v.r(sums+i))
		}
	})
	v.reduce(v.VADDPS, sums)
	v.VMOVSS(xs[sums], mem(reg.RAX, vectorSum))
	v.end()
}

// norms writes both norms of one row.
func (v vectors) norms() {
	sums := v.sumRegister()
	const mean, scale, n = 0, 1, 2
	row := map[reg.GPPhysical]int{reg.RSI: 4}
	clear := func() {
		for i := range v.unroll() {
			v.zero(sums + i)
		}
	}
	again := func() {
		v.MOVQ(mem(reg.RAX, vectorN), reg.RCX)
		v.MOVQ(mem(reg.RAX, vectorA), reg.RSI)
	}
	count := func() {
		v.VXORPS(xs[n], xs[n], xs[n])
		v.VCVTSI2SSQ(reg.RCX, xs[n], xs[n])
	}
	inverse := func() {
		v.reduce(v.VADDPS, sums)
		v.Comment("scale = 1 / sqrt(sum / n + eps)")
		v.VDIVSS(xs[n], xs[sums], xs[3])
		v.VADDSS(mem(reg.RAX, vectorScale), xs[3], xs[3])
		v.VSQRTSS(xs[3], xs[3], xs[3])
		v.VMOVSS(v.c("1"), xs[4])
		v.VDIVSS(xs[3], xs[4], xs[4])
		v.VBROADCASTSS(xs[4], v.r(scale))
	}

	v.function("layerNorm", "is y = (a - mean(a)) / sqrt(variance(a) + scale) * b + c.")
	count()
	clear()
	v.loop("mean", 32, row, func() {
		for i := range v.unroll() {
			v.VADDPS(mem(reg.RSI, i*v.bytes()), v.r(sums+i), v.r(sums+i))
		}
	})
	v.reduce(v.VADDPS, sums)
	v.VDIVSS(xs[n], xs[sums], xs[3])
	v.VBROADCASTSS(xs[3], v.r(mean))
	again()
	clear()
	v.loop("variance", 32, row, func() {
		for i := range v.unroll() {
			v.VMOVUPS(mem(reg.RSI, i*v.bytes()), v.r(3))
			v.VSUBPS(v.r(mean), v.r(3), v.r(3))
			v.VFMADD231PS(v.r(3), v.r(3), v.r(sums+i))
		}
	})
	inverse()
	again()
	v.loop("write", v.bytes()/4, map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 4, reg.RDX: 4, reg.R8: 4}, func() {
		v.VMOVUPS(mem(reg.RSI, 0), v.r(3))
		v.VSUBPS(v.r(mean), v.r(3), v.r(3))
		v.VMULPS(v.r(scale), v.r(3), v.r(3))
		v.VMOVUPS(mem(reg.RDX, 0), v.r(4))
		v.VFMADD213PS(mem(reg.R8, 0), v.r(4), v.r(3))
		v.VMOVUPS(v.r(3), mem(reg.RDI, 0))
	})
	v.end()

	v.function("rmsNorm", "is y = a / sqrt(mean(a²) + scale) * b.")
	count()
	clear()
	v.loop("squares", 32, row, func() {
		for i := range v.unroll() {
			v.VMOVUPS(mem(reg.RSI, i*v.bytes()), v.r(3))
			v.VFMADD231PS(v.r(3), v.r(3), v.r(sums+i))
		}
	})
	inverse()
	again()
	v.loop("write", v.bytes()/4, map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 4, reg.RDX: 4}, func() {
		v.VMULPS(mem(reg.RSI, 0), v.r(scale), v.r(3))
		v.VMULPS(mem(reg.RDX, 0), v.r(3), v.r(3))
		v.VMOVUPS(v.r(3), mem(reg.RDI, 0))
	})
	v.end()
}

// rope writes the rotation of one head.
func (v vectors) rope() {
	v.function("rope", "turns one head: n is half of its width, a x, b cos, c sin.",
		"y1 = x1 cos1 - x2 sin1, y2 = x2 cos2 + x1 sin2; BX is the distance of the halves.")
	v.MOVQ(reg.RCX, reg.RBX)
	v.SHLQ(operand.U8(2), reg.RBX)
	half := func(r reg.Register) operand.Mem { return operand.Mem{Base: r, Index: reg.RBX, Scale: 1} }
	v.loop("loop", v.bytes()/4, map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 4, reg.RDX: 4, reg.R8: 4}, func() {
		v.VMOVUPS(mem(reg.RSI, 0), v.r(0))
		v.VMOVUPS(half(reg.RSI), v.r(1))
		v.VMULPS(mem(reg.RDX, 0), v.r(0), v.r(2))
		v.VMULPS(mem(reg.R8, 0), v.r(1), v.r(3))
		v.VSUBPS(v.r(3), v.r(2), v.r(2))
		v.VMULPS(half(reg.RDX), v.r(1), v.r(1))
		v.VMULPS(half(reg.R8), v.r(0), v.r(0))
		v.VADDPS(v.r(0), v.r(1), v.r(1))
		v.VMOVUPS(v.r(2), mem(reg.RDI, 0))
		v.VMOVUPS(v.r(1), half(reg.RDI))
	})
	v.end()
}

// conversions writes those between float32 and the half formats.
func (v vectors) conversions() {
	widen := map[reg.GPPhysical]int{reg.RDI: 4, reg.RSI: 2}
	round := map[reg.GPPhysical]int{reg.RDI: 2, reg.RSI: 4}
	values := v.bytes() / 4

	v.function("widenF16", "is y = the values of the float16 of a.")
	v.loop("loop", values, widen, func() {
		v.VCVTPH2PS(mem(reg.RSI, 0), v.r(0))
		v.VMOVUPS(v.r(0), mem(reg.RDI, 0))
	})
	v.end()

	v.function("widenBF16", "is y = the values of the bfloat16 of a.")
	v.loop("loop", values, widen, func() {
		v.VPMOVZXWD(mem(reg.RSI, 0), v.r(0))
		v.VPSLLD(operand.U8(16), v.r(0), v.r(0))
		v.VMOVUPS(v.r(0), mem(reg.RDI, 0))
	})
	v.end()

	v.function("roundF16", "is y = the float16 nearest to a, ties to even.")
	v.loop("loop", values, round, func() {
		v.VMOVUPS(mem(reg.RSI, 0), v.r(0))
		v.VCVTPS2PH(operand.U8(0), v.r(0), mem(reg.RDI, 0))
	})
	v.end()

	v.function("roundBF16", "is y = the bfloat16 nearest to a, ties to even; a NaN becomes quiet.")
	count := 1
	if !v.wide {
		count = 2
	}
	v.loop("loop", count*values, round, func() {
		for i := range count {
			x, up, nan := v.r(3*i), v.r(3*i+1), v.r(3*i+2)
			v.VMOVUPS(mem(reg.RSI, i*v.bytes()), x)
			v.Comment("bits + 0x7fff + the last bit that stays, or of a NaN bits | 0x400000; the upper half of it")
			v.VPSRLD(operand.U8(16), x, up)
			v.with(v.vpand, v.VPANDD_BCST, "1 bit", up, up)
			v.with(v.VPADDD, v.VPADDD_BCST, "7fff", up, up)
			v.VPADDD(up, x, up)
			v.VPSRLD(operand.U8(16), up, up)
			v.VPSRLD(operand.U8(16), x, nan)
			v.with(v.vpor, v.VPORD_BCST, "quiet", nan, nan)
			const unordered = operand.U8(3)
			if v.wide {
				v.VCMPPS(unordered, x, x, reg.K1)
				v.VPBLENDMD(nan, up, reg.K1, up)
				v.VPMOVDW(up, mem(reg.RDI, 0))
			} else {
				v.VCMPPS(unordered, x, x, x)
				v.VBLENDVPS(x, nan, up, up)
			}
		}
		if !v.wide {
			v.VPACKUSDW(v.r(4), v.r(1), v.r(1))
			v.VPERMQ(operand.U8(0xd8), v.r(1), v.r(1))
			v.VMOVDQU(v.r(1), mem(reg.RDI, 0))
		}
	})
	v.end()
}
