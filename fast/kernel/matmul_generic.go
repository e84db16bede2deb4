package kernel

import (
	"math"
	"unsafe"

	"github.com/x448/float16"
)

// The loops of this file are the meaning of the assembly: the same sums in the same order, and the same bits. They are
// exact rather than fast.

var genericMatmul = matmulOps{
	rows:    4,
	columns: panelWidth,
	tile:    [3]func(*tile){F32: tileF32Generic, F16: tileF16Generic, BF16: tileBF16Generic},
}

func tileF32Generic(t *tile)  { tileGeneric(t, F32) }
func tileF16Generic(t *tile)  { tileGeneric(t, F16) }
func tileBF16Generic(t *tile) { tileGeneric(t, BF16) }

func tileGeneric(t *tile, typ Type) {
	x := unsafe.Slice((*float32)(t.x), 2*t.steps*t.rows) // [k, rows]
	var w [panelWidth]float32
	var sums [16][panelWidth]float32
	for p := range t.panels {
		clear(sums[:t.rows])
		for k := range 2 * t.steps {
			widenColumns(&w, t.w[p], k, typ)
			for i, v := range x[k*t.rows:][:t.rows] {
				sum := &sums[i]
				for j := range sum {
					sum[j] = fma32(v, w[j], sum[j])
				}
			}
		}
		for i := range t.rows {
			src := (*[panelWidth]float32)(unsafe.Add(t.src[p], i*t.srcStride))
			dst := (*[panelWidth]float32)(unsafe.Add(t.dst[p], i*t.dstStride))
			for j, sum := range sums[i] {
				dst[j] = src[j] + sum
			}
		}
	}
}

// widenColumns reads the weights of one k from a panel.
func widenColumns(w *[panelWidth]float32, panel unsafe.Pointer, k int, typ Type) {
	switch typ {
	case F32: // [k][32]
		*w = *(*[panelWidth]float32)(unsafe.Add(panel, k*panelWidth*4))
	case F16: // [k][32]
		for j, bits := range (*[panelWidth]uint16)(unsafe.Add(panel, k*panelWidth*2)) {
			w[j] = float16.Frombits(bits).Float32()
		}
	case BF16: // [k/2][32][2]
		pairs := (*[panelWidth][2]uint16)(unsafe.Add(panel, k/2*panelWidth*4))
		for j := range pairs {
			w[j] = math.Float32frombits(uint32(pairs[j][k%2]) << 16)
		}
	}
}

// fma32 is a*b + c rounded once, to float32.
//
// The product is exact in float64. The sum of it and c is rounded to float64 and again to float32; that gives another
// result than one rounding only where the first one lands on a tie of the second. Then the float64 is made odd, by the
// sign of what the first rounding lost (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
func fma32(a, b, c float32) float32 {
	p, z := float64(a)*float64(b), float64(c)
	s := p + z
	bits := math.Float64bits(s)
	// A normal float32 drops 29 bits; a denormal one drops more, so all of those take the long way.
	if bits&(1<<29-1) != 1<<28 && bits>>52&0x7ff >= 1023-126 {
		return float32(s)
	}
	return fmaTie(p, z, s, bits)
}

func fmaTie(p, z, s float64, bits uint64) float32 {
	if bits>>52&0x7ff == 0x7ff {
		return float32(s)
	}
	// The exact error of s = p + z (Knuth's TwoSum). No step overflows: all is far below 2^1000.
	v := s - p
	lost := (p - (s - v)) + (z - v)
	if lost != 0 && bits&1 == 0 {
		if (lost > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}

// roundBF16 rounds to the nearest bfloat16, ties to even, and gives its bits. A NaN becomes quiet.
func roundBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 1<<6
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func widenBF16(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }
