package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/x448/float16"
)

// halfValue is a binary16 number by its definition.
func halfValue(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&31), float64(h&1023)
	if h>>15 == 1 {
		sign = -1
	}
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

func TestWidenF16IsExactForAllValues(t *testing.T) {
	src := make([]byte, 2<<16)
	for h := range 1 << 16 {
		binary.LittleEndian.PutUint16(src[2*h:], uint16(h))
	}
	dst := make([]float32, 1<<16)
	widen(F16, dst, src)
	for h, got := range dst {
		h := uint16(h)
		if want := float16.Frombits(h).Float32(); math.Float32bits(got) != math.Float32bits(want) {
			t.Fatalf("%04x: %08x, x448/float16 has %08x", h, math.Float32bits(got), math.Float32bits(want))
		}
		want := halfValue(h)
		if float64(got) != want && want == want {
			t.Fatalf("%04x: %v, want %v", h, got, want)
		}
		if want == 0 && math.Signbit(float64(got)) != (h>>15 == 1) {
			t.Fatalf("%04x: the sign of zero is lost", h)
		}
		if quiet := uint32(h&0x8000)<<16 | 0x7fc00000 | uint32(h&0x3ff)<<13; want != want && math.Float32bits(got) != quiet {
			t.Fatalf("%04x: NaN %08x, want the quiet %08x", h, math.Float32bits(got), quiet)
		}
	}
}

func TestWidenBF16AndF32KeepAllBits(t *testing.T) {
	src := make([]byte, 2<<16)
	for h := range 1 << 16 {
		binary.LittleEndian.PutUint16(src[2*h:], uint16(h))
	}
	dst := make([]float32, 1<<16)
	widen(BF16, dst, src)
	for h, got := range dst {
		if want := uint32(h) << 16; math.Float32bits(got) != want {
			t.Fatalf("%04x: %08x, want %08x", h, math.Float32bits(got), want)
		}
	}
	bits := []uint32{0, 1 << 31, 1, 0x7f800000, 0xff800000, 0x7f800001, 0x7fc01234, 0xffbfffff, 0x3f800000, 0x12345678}
	raw := make([]byte, 0, 4*len(bits))
	for _, b := range bits {
		raw = binary.LittleEndian.AppendUint32(raw, b)
	}
	widen(F32, dst[:len(bits)], raw)
	for i, want := range bits {
		if got := math.Float32bits(dst[i]); got != want {
			t.Errorf("%08x, want %08x", got, want)
		}
	}
}

// narrow1 rounds one value.
func narrow1(d DType, x float32, exact bool) (uint16, error) {
	var raw [2]byte
	_, err := narrow(d, raw[:], []float32{x}, exact)
	return binary.LittleEndian.Uint16(raw[:]), err
}

func widen1(d DType, h uint16) float32 {
	var dst [1]float32
	widen(d, dst[:], binary.LittleEndian.AppendUint16(nil, h))
	return dst[0]
}

func TestNarrowIsTheInverseOfWiden(t *testing.T) {
	for _, d := range []DType{F16, BF16} {
		for h := range 1 << 16 {
			x := widen1(d, uint16(h))
			if x != x {
				continue
			}
			if got, err := narrow1(d, x, true); err != nil || got != uint16(h) {
				t.Fatalf("%s: %04x became %04x, %v", d, h, got, err)
			}
		}
	}
}

// Between two neighbours, each value goes to the nearer, and the middle to the one whose last bit is 0.
func TestNarrowRoundsToNearestEven(t *testing.T) {
	for d, infinite := range map[DType]uint16{F16: 0x7c00, BF16: 0x7f80} {
		for h := range infinite - 1 {
			low, high := float64(widen1(d, h)), float64(widen1(d, h+1))
			middle := float32((low + high) / 2)
			even := h + h&1
			for _, c := range []struct {
				x    float32
				want uint16
			}{
				{math.Nextafter32(middle, float32(low)), h},
				{middle, even},
				{math.Nextafter32(middle, float32(high)), h + 1},
			} {
				for sign, mirrored := range map[uint16]float32{0: c.x, 0x8000: -c.x} {
					if got, err := narrow1(d, mirrored, false); err != nil || got != c.want|sign {
						t.Fatalf("%s: %v became %04x, %v; want %04x", d, mirrored, got, err, c.want|sign)
					}
				}
			}
		}
	}
}

func TestNarrowRefusesOverflowAndInexactValues(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		d     DType
		x     float32
		exact bool
		want  string
	}{
		{F16, 65519, false, ""},
		{F16, 65520, false, "65520 is beyond the range of F16"},
		{F16, -65520, false, "-65520 is beyond the range of F16"},
		{F16, inf, true, ""},
		{F16, 1e-9, false, ""},
		{F16, 1e-9, true, "1e-09 (bits 3089705f) is no value of F16"},
		{F16, 2049, true, "2049 (bits 45001000) is no value of F16"},
		{F16, 65520, true, "65520 (bits 477ff000) is no value of F16"},
		{BF16, math.MaxFloat32, false, "3.4028235e+38 is beyond the range of BF16"},
		{BF16, -inf, true, ""},
		{BF16, 257, false, ""},
		{BF16, 257, true, "257 (bits 43808000) is no value of BF16"},
		{BF16, math.Float32frombits(0x7f800001), false, ""},
		{BF16, math.Float32frombits(0x7f800001), true, "NaN (bits 7f800001) is no value of BF16"},
	} {
		_, err := narrow1(c.d, c.x, c.exact)
		if got := fmt.Sprint(err); got != c.want && !(err == nil && c.want == "") {
			t.Errorf("%s, %v, exact %v: %v, want %q", c.d, c.x, c.exact, err, c.want)
		}
	}
}

func TestNarrowKeepsNaNs(t *testing.T) {
	for _, d := range []DType{F16, BF16} {
		for _, b := range []uint32{0x7f800001, 0x7fffffff, 0xffffffff, 0xff800001, 0x7fc00000} {
			h, err := narrow1(d, math.Float32frombits(b), false)
			if x := widen1(d, h); err != nil || x == x || math.Signbit(float64(x)) != (b>>31 == 1) {
				t.Errorf("%s: NaN %08x became %04x, %v", d, b, h, err)
			}
		}
	}
}

func TestNarrowSaysWhichValue(t *testing.T) {
	at, err := narrow(BF16, make([]byte, 6), []float32{1, 2, 1e-45}, true)
	if err == nil || at != 2 {
		t.Errorf("value number %d, %v", at, err)
	}
}

func BenchmarkWiden(b *testing.B) {
	src := make([]byte, 1<<18)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(src); i += 2 { // weights as they come: normal numbers, a few of them subnormal in F16
		binary.LittleEndian.PutUint16(src[i:], float16.Fromfloat32(float32(r.NormFloat64()*0.02)).Bits())
	}
	for _, d := range []DType{F32, F16, BF16} {
		b.Run(string(d), func(b *testing.B) {
			dst := make([]float32, len(src)*8/d.Bits())
			b.SetBytes(int64(len(dst))) // MB/s is millions of values a second
			for b.Loop() {
				widen(d, dst, src)
			}
		})
	}
}
