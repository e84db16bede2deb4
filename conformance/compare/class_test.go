package compare

import (
	"math"
	"testing"

	"github.com/x448/float16"
)

// TestRoundIsNearestEven holds Round against x448/float16 for float16, against the bits for bfloat16, and against itself for float32.
func TestRoundIsNearestEven(t *testing.T) {
	same := func(c Class, x, got, want float32) {
		t.Helper()
		if got != want && !(math.IsNaN(float64(got)) && math.IsNaN(float64(want))) {
			t.Fatalf("%s of %v (%#08x): %v, want %v", c, x, math.Float32bits(x), got, want)
		}
	}
	bfloat := func(x float32) float32 {
		b := math.Float32bits(x)
		if x != x {
			return x
		}
		return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	}
	for b := uint64(0); b < 1<<32; b += 9973 {
		x := math.Float32frombits(uint32(b))
		same(F16, x, F16.Round(x), float16.Fromfloat32(x).Float32())
		same(BF16, x, BF16.Round(x), bfloat(x))
		same(F32, x, F32.Round(x), x)
	}
	for i := range 1 << 16 { // every number of the class, and what lies half way to the next
		f := float16.Frombits(uint16(i)).Float32()
		same(F16, f, F16.Round(f), f)
		b := math.Float32frombits(uint32(i) << 16)
		same(BF16, b, BF16.Round(b), b)
		half := math.Float32frombits(uint32(i)<<16 | 0x8000)
		same(BF16, half, BF16.Round(half), bfloat(half))
		if h := f + float32(F16.HalfStep(float64(f))); !math.IsInf(float64(f), 0) {
			same(F16, h, F16.Round(h), float16.Fromfloat32(h).Float32())
		}
	}
}

func TestHalfStep(t *testing.T) {
	for _, test := range []struct {
		class Class
		x     float64
		want  float64
	}{
		{F32, 1, 0x1p-24}, {F16, 1, 0x1p-11}, {BF16, 1, 0x1p-8},
		{F32, -1.99, 0x1p-24}, {F16, 3, 0x1p-10}, {BF16, 0.75, 0x1p-9},
		{F16, 0, 0x1p-25}, {F16, 1e-6, 0x1p-25}, {F16, 0x1p-14, 0x1p-25}, {BF16, 0, 0x1p-134}, {F32, 1e-40, 0x1p-150},
	} {
		if got := test.class.HalfStep(test.x); got != test.want {
			t.Errorf("%s at %v: %v, want %v", test.class, test.x, got, test.want)
		}
	}
	for _, c := range Classes() {
		if c.Roundoff() != c.HalfStep(1) {
			t.Errorf("%s: roundoff %v, half step at 1 %v", c, c.Roundoff(), c.HalfStep(1))
		}
		if parsed, err := ParseClass(string(c)); err != nil || parsed != c {
			t.Errorf("ParseClass(%q) = %v, %v", c, parsed, err)
		}
	}
	if _, err := ParseClass("fp8"); err == nil {
		t.Error("ParseClass takes fp8")
	}
}

func TestDepth(t *testing.T) {
	for _, test := range []struct {
		lanes Lanes
		k     int
		want  float64
	}{{0, 64, 64}, {1, 64, 64}, {16, 64, 8}, {64, 4096, 70}, {16, 5, 5}} {
		if got := test.lanes.Depth(test.k); got != test.want {
			t.Errorf("%d lanes, %d terms: %v, want %v", test.lanes, test.k, got, test.want)
		}
	}
}

// TestTail draws the largest mean square of many groups and finds it below the factor, but not far below.
func TestTail(t *testing.T) {
	for _, m := range []int{1, 4, 64, 1024} {
		const groups = 1000
		r := newRand(1)
		largest := 0.0
		for range groups {
			s := 0.0
			for range m {
				x := r.NormFloat64()
				s += x * x
			}
			largest = max(largest, s/float64(m))
		}
		limit := tail(float64(m), groups)
		t.Logf("%d entries in each of %d groups: largest mean square %.3f, limit %.3f", m, groups, largest, limit)
		if largest > limit || largest < limit/5 {
			t.Errorf("%d entries: largest mean square %.3f, limit %.3f", m, largest, limit)
		}
	}
}
