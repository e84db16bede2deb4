package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"

	"github.com/x448/float16"
)

// The harness of this package's tests. An operation's test runs every implementation (each), on memory that shows reads and writes
// past its ends (arena), with values that are hard in different ways (kinds), against float64.

func TestMain(m *testing.M) {
	fmt.Printf("kernel: active %s of", Active())
	for _, i := range Implementations() {
		fmt.Printf(" %s (available %t, enabled %t)", i.Name, i.Available, i.Enabled)
	}
	fmt.Println()
	os.Exit(m.Run())
}

// TestRequired fails where an implementation that LLAVAREF_TEST_REQUIRE names cannot run, so that none is skipped in silence.
func TestRequired(t *testing.T) {
	for _, name := range nameList("LLAVAREF_TEST_REQUIRE", os.Getenv("LLAVAREF_TEST_REQUIRE")) {
		if !slices.ContainsFunc(implementations, func(m *implementation) bool { return m.name == name && m.enabled }) {
			t.Errorf("implementation %s is required and cannot run: have %+v", name, Implementations())
		}
	}
}

// each runs a test for every implementation that can run here.
func each(t *testing.T, test func(t *testing.T, m *implementation)) {
	for _, m := range implementations {
		t.Run(m.name, func(t *testing.T) {
			if !m.enabled {
				t.Skipf("%s cannot run here (LLAVAREF_TEST_REQUIRE makes this a failure)", m.name)
			}
			test(t, m)
		})
	}
}

// guardCell is the NaN around the values of a test. No operation makes this one.
var guardCell = math.Float32frombits(0x7fc5a5a5)

// arena is memory that ends at a guard page. Values are placed in it with guard cells on both sides.
type arena struct{ mem []float32 }

const guardCells = 40

func newArena(tb testing.TB, values int) *arena {
	return &arena{guarded(tb, values+2*guardCells)}
}

// place returns n values, the last of them so many values before the guard page, and a function that tells which guard cell
// has been written to. What was placed here before is void.
func (a *arena) place(n, before int) (values []float32, check func() error) {
	end := len(a.mem) - before
	lead := a.mem[max(0, end-n-guardCells) : end-n]
	tail := a.mem[end:]
	for _, g := range [][]float32{lead, tail} {
		for i := range g {
			g[i] = guardCell
		}
	}
	return a.mem[end-n : end : end], func() error {
		for i, v := range lead {
			if math.Float32bits(v) != math.Float32bits(guardCell) {
				return fmt.Errorf("wrote %v to the guard cell %d before the first value", v, len(lead)-i)
			}
		}
		for i, v := range tail {
			if math.Float32bits(v) != math.Float32bits(guardCell) {
				return fmt.Errorf("wrote %v to the guard cell %d after the last value", v, i+1)
			}
		}
		return nil
	}
}

// kinds are the values that tests are made of.
var kinds = []struct {
	name string
	fill func(r *rand.Rand, v []float32)
}{
	{"random", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}},
	{"denormal", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64() * 0x1p-130)
			if r.IntN(3) == 0 {
				v[i] = float32(r.NormFloat64())
			}
		}
	}},
	{"Inf", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
			if r.IntN(40) == 0 {
				v[i] = float32(math.Inf(r.IntN(2)*2 - 1))
			}
		}
	}},
	{"NaN", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
			if r.IntN(60) == 0 {
				v[i] = float32(math.NaN())
			}
		}
	}},
	{"cancellation", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(math.Ldexp(1+r.Float64(), r.IntN(20)))
			if i%2 == 1 {
				v[i] = -v[i-1]
			}
		}
	}},
}

// sameBits says whether two values are the same to the last bit; all NaNs are, and both zeros.
func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b || a == 0 && b == 0
}

// narrow rounds values to a type of weights, and gives the values that result as well.
func narrow(t Type, v []float32) (bits []uint16, values []float32) {
	if t == F32 {
		return nil, v
	}
	bits, values = make([]uint16, len(v)), make([]float32, len(v))
	for i := range v {
		if t == F16 {
			h := float16.Fromfloat32(v[i])
			bits[i], values[i] = h.Bits(), h.Float32()
		} else {
			bits[i] = roundBF16(v[i])
			values[i] = widenBF16(bits[i])
		}
	}
	return bits, values
}

// guardedBits is a copy of bits that ends at a guard page.
func guardedBits(tb testing.TB, bits []uint16) []uint16 {
	if len(bits) == 0 {
		return nil
	}
	mem := guarded(tb, (len(bits)+1)/2)
	all := unsafe.Slice((*uint16)(unsafe.Pointer(&mem[0])), 2*len(mem))
	to := all[len(all)-len(bits):]
	copy(to, bits)
	return to
}
