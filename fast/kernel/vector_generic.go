package kernel

import (
	"math"
	"unsafe"

	"github.com/x448/float16"
)

// The loops of this file are the meaning of the assembly: the same steps in the same order, and the same bits.
// fma32 is a fused multiply-add; other products are rounded before they are added to anything, which the conversions see to.

var genericVector = vectorOps{
	add:       func(v *vector) { binaryGeneric(v, func(a, b float32) float32 { return a + b }) },
	mul:       func(v *vector) { binaryGeneric(v, func(a, b float32) float32 { return a * b }) },
	exp:       func(v *vector) { unaryGeneric(v, exp32) },
	erf:       func(v *vector) { unaryGeneric(v, erf32) },
	silu:      func(v *vector) { unaryGeneric(v, silu32) },
	siluMul:   func(v *vector) { binaryGeneric(v, func(a, b float32) float32 { return silu32(a) * b }) },
	quickGELU: func(v *vector) { unaryGeneric(v, quickGELU32) },
	gelu:      func(v *vector) { unaryGeneric(v, gelu32) },
	softmax:   softmaxGeneric,
	divide:    func(v *vector) { scale := v.scale; unaryGeneric(v, func(a float32) float32 { return a / scale }) },
	layerNorm: layerNormGeneric,
	rmsNorm:   rmsNormGeneric,
	rope:      ropeGeneric,
	widenF16: func(v *vector) {
		y, a := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*uint16)(v.a), v.n)
		for i, bits := range a {
			y[i] = float16.Frombits(bits).Float32()
		}
	},
	widenBF16: func(v *vector) {
		y, a := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*uint16)(v.a), v.n)
		for i, bits := range a {
			y[i] = widenBF16(bits)
		}
	},
	roundF16: func(v *vector) {
		y, a := unsafe.Slice((*uint16)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n)
		for i, x := range a {
			y[i] = float16.Fromfloat32(x).Bits()
		}
	},
	roundBF16: func(v *vector) {
		y, a := unsafe.Slice((*uint16)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n)
		for i, x := range a {
			y[i] = roundBF16(x)
		}
	},
}

func unaryGeneric(v *vector, f func(float32) float32) {
	y, a := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n)
	for i, x := range a {
		y[i] = f(x)
	}
}

func binaryGeneric(v *vector, f func(a, b float32) float32) {
	y, a, b := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n), unsafe.Slice((*float32)(v.b), v.n)
	for i, x := range a {
		y[i] = f(x, b[i])
	}
}

// expParts is e^(high+low) = (1+p) s1 s2, for a low of about a unit in the last place of high, which counts if split is set: 1+p is e^r for the |r| <= ln2/2
// that is left, s1 and s2 are powers of two, in two halves because 2^n may be out of range where the result is not.
func expParts(high, low float32, split bool) (p, s1, s2 float32) {
	if lowest > high {
		high = lowest
	}
	if highest < high {
		high = highest
	}
	n := fma32(high, log2E, rounder)
	i := int32(math.Float32bits(n) - math.Float32bits(rounder))
	n -= rounder
	r := fma32(n, -ln2High, high)
	if split {
		r += fma32(n, -ln2Low, low) // low and that together, to round once
	} else {
		r = fma32(n, -ln2Low, r)
	}
	q := fma32(expC6, r, expC5)
	q = fma32(q, r, expC4)
	q = fma32(q, r, expC3)
	q = fma32(q, r, expC2)
	square := float32(r * r)
	p = fma32(q, square, r)
	half := i >> 1
	return p, math.Float32frombits(uint32(half+127) << 23), math.Float32frombits(uint32(i-half+127) << 23)
}

func exp32(x float32) float32 {
	p, s1, s2 := expParts(x, 0, false)
	return float32(float32(p+1)*s1) * s2
}

// sigmoidTimes is x / (1 + e^(high+low)) for negative high, if x is positive, else x e^(high+low) / (1 + e^(high+low)):
// x sigmoid(t) for high+low = -|t|. The reciprocal of d = 1 + z is corrected by what its two roundings lost. The last power of two comes last, so that nothing is lost where e^t is denormal and the result is not.
func sigmoidTimes(x, high, low float32, split bool) float32 {
	p, s1, s2 := expParts(high, low, split)
	z := float32(float32(float32(p+1)*s1) * s2)
	d := z + 1
	lost := z - float32(d-1)
	inverse := 1 / d
	e := fma32(-inverse, d, 1)
	e = fma32(-inverse, lost, e)
	num, last := x, float32(1)
	if math.Signbit(float64(x)) {
		scaled := float32(x * s1)
		num, last = fma32(scaled, p, scaled), s2
	}
	bounded := num // an infinity times a correction of 0 would be NaN
	if math.MaxFloat32 < bounded {
		bounded = math.MaxFloat32
	}
	return fma32(num, inverse, float32(bounded*float32(inverse*e))) * last
}

func silu32(x float32) float32 { return sigmoidTimes(x, -abs32(x), 0, false) }

func quickGELU32(x float32) float32 {
	a := abs32(x)
	if quickMost < a {
		a = quickMost
	}
	high := float32(a * -quickHigh)
	low := fma32(a, -quickHigh, -high)
	low = fma32(a, -quickLow, low)
	return sigmoidTimes(x, high, low, true)
}

func gelu32(x float32) float32 {
	e := erf32(float32(x * sqrtHalf))
	return x * fma32(e, 0.5, 0.5)
}

func erf32(x float32) float32 {
	t := abs32(x)
	s := float32(x * x)
	q := fma32(erfA5, s, erfA4)
	q = fma32(q, s, erfA3)
	q = fma32(q, s, erfA2)
	q = fma32(q, s, erfA1)
	q = fma32(q, s, erfA0)
	small := fma32(q, x, x)
	if erfMost < t {
		t = erfMost
	}
	q = fma32(erfB5, t, erfB4)
	q = fma32(q, t, erfB3)
	q = fma32(q, t, erfB2)
	q = fma32(q, t, erfB1)
	q = fma32(q, t, erfB0)
	large := 1 - exp32(fma32(q, t, -t))
	if t > erfEdge {
		return math.Float32frombits(math.Float32bits(large) | math.Float32bits(x)&(1<<31))
	}
	return small
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// sumLanes adds the sums of a row up, in the order that lanes describes.
func sumLanes(sums *[lanes]float32) float32 {
	for half := lanes / 2; half > 0; half /= 2 {
		for j := range half {
			sums[j] += sums[j+half]
		}
	}
	return sums[0]
}

func softmaxGeneric(v *vector) {
	y, a := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n)
	top := float32(math.Inf(-1))
	for _, x := range a {
		if x > top { // a NaN is not, and makes the sum one
			top = x
		}
	}
	var sums [lanes]float32
	for i, x := range a {
		y[i] = exp32(float32(x-top) * v.scale)
		sums[i%lanes] += y[i]
	}
	v.sum = sumLanes(&sums)
}

func layerNormGeneric(v *vector) {
	y, x := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n)
	w, b := unsafe.Slice((*float32)(v.b), v.n), unsafe.Slice((*float32)(v.c), v.n)
	var sums [lanes]float32
	for i, x := range x {
		sums[i%lanes] += x
	}
	mean := sumLanes(&sums) / float32(v.n)
	clear(sums[:])
	for i, x := range x {
		d := x - mean
		sums[i%lanes] = fma32(d, d, sums[i%lanes])
	}
	scale := inverseSqrt(float32(sumLanes(&sums)/float32(v.n)) + v.scale)
	for i, x := range x {
		y[i] = fma32(float32((x-mean)*scale), w[i], b[i])
	}
}

func rmsNormGeneric(v *vector) {
	y, x, w := unsafe.Slice((*float32)(v.y), v.n), unsafe.Slice((*float32)(v.a), v.n), unsafe.Slice((*float32)(v.b), v.n)
	var sums [lanes]float32
	for i, x := range x {
		sums[i%lanes] = fma32(x, x, sums[i%lanes])
	}
	scale := inverseSqrt(float32(sumLanes(&sums)/float32(v.n)) + v.scale)
	for i, x := range x {
		y[i] = float32(x*scale) * w[i]
	}
}

func ropeGeneric(v *vector) {
	n := v.n
	y, x := unsafe.Slice((*float32)(v.y), 2*n), unsafe.Slice((*float32)(v.a), 2*n)
	cos, sin := unsafe.Slice((*float32)(v.b), 2*n), unsafe.Slice((*float32)(v.c), 2*n)
	for i := range n {
		x1, x2 := x[i], x[n+i]
		y[i] = float32(x1*cos[i]) - float32(x2*sin[i])
		y[n+i] = float32(x2*cos[n+i]) + float32(x1*sin[n+i])
	}
}
