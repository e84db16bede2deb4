package kernel

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"
)

// TestLoopsGiveTheBitsOfPlainGo holds every loop over values of every implementation against the one of vector_generic.go: the same bits,
// signs of zeros too, where a NaN is any NaN. Of functions of one number a sample of all float32 is compared: a constant that is one bit off
// changes some of them, which the bounds of TestElementary may leave unseen.
func TestLoopsGiveTheBitsOfPlainGo(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		if m.name == "generic" {
			t.Skip("plain Go is what the others are compared with")
		}
		step := uint64(16411)
		if testing.Short() {
			step = 131101
		}
		const chunk = 1024
		a, b, want, scales := guarded(t, chunk), guarded(t, chunk), make([]float32, chunk), []float32{1, 3, -0.088388346, 1e-30, float32(math.Inf(1)), 0}
		r := rand.New(rand.NewPCG(63, 64))
		for _, f := range valueLoops {
			t.Run(f.name, func(t *testing.T) {
				loop, plain := f.loop(&m.vector), f.loop(&genericVector)
				out := newArena(t, chunk)
				for first, n := uint64(0), 0; first < 1<<32; first, n = first+chunk*step, n+1 {
					for i := range a {
						a[i] = math.Float32frombits(uint32(min(first+uint64(i)*step, 1<<32-1)))
						if i%2 == 1 { // where something happens
							a[i] = math.Float32frombits(math.Float32bits(a[i])&(1<<31|1<<23-1) | uint32(118+r.IntN(17))<<23)
						}
						b[i] = float32(r.NormFloat64())
						if k := r.IntN(64); k < 2 {
							[][]float32{a, b}[k][i] = math.Float32frombits(hardBits[r.IntN(len(hardBits))])
						}
					}
					v := vector{n: chunk, a: address(a), b: address(b), scale: scales[n%len(scales)]}
					y, check := out.place(chunk, 0)
					v.y = address(want)
					plain(&v)
					v.y = address(y)
					loop(&v)
					if err := check(); err != nil {
						t.Fatal(err)
					}
					if i := differentBits(y, want); i >= 0 {
						t.Fatalf("of %v (%#x) and %v, scale %v: %v (%#x), want %v (%#x)", a[i], math.Float32bits(a[i]), b[i], v.scale, y[i], math.Float32bits(y[i]), want[i], math.Float32bits(want[i]))
					}
				}
			})
		}
		for _, f := range rowLoops {
			t.Run(f.name, func(t *testing.T) {
				loop, plain := f.loop(&m.vector), f.loop(&genericVector)
				out, in := newArena(t, chunk), newArena(t, chunk)
				for try := range 400 {
					if testing.Short() && try >= 100 {
						break
					}
					n := lanes * (1 + r.IntN(chunk/lanes))
					x, _ := in.place(n, r.IntN(4))
					kinds[try%len(kinds)].fill(r, x)
					if try%7 == 3 { // one value far above all others, in any lane
						x[r.IntN(n)] = 1000
					}
					w, c := a[:n], b[:n]
					kinds[0].fill(r, w)
					kinds[0].fill(r, c)
					v := vector{n: n, a: address(x), b: address(w), c: address(c), scale: float32(math.Ldexp(r.Float64(), -r.IntN(12)))}
					v.y = address(want)
					plain(&v)
					sum := v.sum
					y, check := out.place(n, r.IntN(4))
					v.y, v.sum = address(y), 0
					loop(&v)
					if err := check(); err != nil {
						t.Fatal(err)
					}
					if i := differentBits(y, want[:n]); i >= 0 {
						t.Fatalf("%s, %d values, scale %v: y[%d] = %v (%#x), want %v (%#x)", kinds[try%len(kinds)].name, n, v.scale, i, y[i], math.Float32bits(y[i]), want[i], math.Float32bits(want[i]))
					}
					if differentBits([]float32{v.sum}, []float32{sum}) >= 0 {
						t.Fatalf("%s, %d values, scale %v: sum %v, want %v", kinds[try%len(kinds)].name, n, v.scale, v.sum, sum)
					}
				}
			})
		}
	})
}

type namedLoop struct {
	name string
	loop func(*vectorOps) func(*vector)
}

var valueLoops = []namedLoop{
	{"add", func(o *vectorOps) func(*vector) { return o.add }},
	{"mul", func(o *vectorOps) func(*vector) { return o.mul }},
	{"exp", func(o *vectorOps) func(*vector) { return o.exp }},
	{"erf", func(o *vectorOps) func(*vector) { return o.erf }},
	{"silu", func(o *vectorOps) func(*vector) { return o.silu }},
	{"siluMul", func(o *vectorOps) func(*vector) { return o.siluMul }},
	{"quickGELU", func(o *vectorOps) func(*vector) { return o.quickGELU }},
	{"gelu", func(o *vectorOps) func(*vector) { return o.gelu }},
	{"divide", func(o *vectorOps) func(*vector) { return o.divide }},
	{"roundF16", func(o *vectorOps) func(*vector) { return rounded(o.roundF16, o.widenF16) }},
	{"roundBF16", func(o *vectorOps) func(*vector) { return rounded(o.roundBF16, o.widenBF16) }},
}

var rowLoops = []namedLoop{
	{"softmax", func(o *vectorOps) func(*vector) { return o.softmax }},
	{"layerNorm", func(o *vectorOps) func(*vector) { return o.layerNorm }},
	{"rmsNorm", func(o *vectorOps) func(*vector) { return o.rmsNorm }},
	{"rope", func(o *vectorOps) func(*vector) {
		return func(v *vector) { h := *v; h.n /= 2; o.rope(&h) } // n is half of a head
	}},
}

// rounded rounds to half the bits and widens again.
func rounded(round, widen func(*vector)) func(*vector) {
	return func(v *vector) {
		bits := make([]uint16, v.n)
		round(&vector{n: v.n, y: unsafe.Pointer(&bits[0]), a: v.a})
		widen(&vector{n: v.n, y: v.y, a: unsafe.Pointer(&bits[0])})
	}
}

// differentBits is the first place where two rows differ in a bit, but for NaNs, or -1.
func differentBits(got, want []float32) int {
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
			return i
		}
	}
	return -1
}

// TestEveryLoopIsCompared holds that the tables of this file name every loop there is.
func TestEveryLoopIsCompared(t *testing.T) {
	named := map[string]bool{"widenF16": true, "widenBF16": true} // with the rounding
	for _, f := range valueLoops {
		named[f.name] = true
	}
	for _, f := range rowLoops {
		named[f.name] = true
	}
	ops := reflect.TypeFor[vectorOps]()
	for i := range ops.NumField() {
		if name := ops.Field(i).Name; !named[name] {
			t.Errorf("nothing compares %s with plain Go", name)
		}
	}
	if len(named) != ops.NumField() {
		t.Errorf("%d loops are compared, want the %d of vectorOps", len(named), ops.NumField())
	}
}
