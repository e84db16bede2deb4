//go:build !purego

package kernel

import "unsafe"

// The generator in _asm knows these offsets.
var _ = [1]struct{}{}[unsafe.Offsetof(vector{}.n)-0+
	unsafe.Offsetof(vector{}.y)-8+
	unsafe.Offsetof(vector{}.a)-16+
	unsafe.Offsetof(vector{}.b)-24+
	unsafe.Offsetof(vector{}.c)-32+
	unsafe.Offsetof(vector{}.scale)-40+
	unsafe.Offsetof(vector{}.sum)-44]

var (
	avx512Vector = vectorOps{
		add:       addAVX512,
		mul:       mulAVX512,
		exp:       expAVX512,
		erf:       erfAVX512,
		silu:      siluAVX512,
		siluMul:   siluMulAVX512,
		quickGELU: quickGELUAVX512,
		gelu:      geluAVX512,
		softmax:   softmaxAVX512,
		divide:    divideAVX512,
		layerNorm: layerNormAVX512,
		rmsNorm:   rmsNormAVX512,
		rope:      ropeAVX512,
		widenF16:  widenF16AVX512,
		widenBF16: widenBF16AVX512,
		roundF16:  roundF16AVX512,
		roundBF16: roundBF16AVX512,
	}
	avx2Vector = vectorOps{
		add:       addAVX2,
		mul:       mulAVX2,
		exp:       expAVX2,
		erf:       erfAVX2,
		silu:      siluAVX2,
		siluMul:   siluMulAVX2,
		quickGELU: quickGELUAVX2,
		gelu:      geluAVX2,
		softmax:   softmaxAVX2,
		divide:    divideAVX2,
		layerNorm: layerNormAVX2,
		rmsNorm:   rmsNormAVX2,
		rope:      ropeAVX2,
		widenF16:  widenF16AVX2,
		widenBF16: widenBF16AVX2,
		roundF16:  roundF16AVX2,
		roundBF16: roundBF16AVX2,
	}
)

//go:noescape
func addAVX512(t *vector)

//go:noescape
func mulAVX512(t *vector)

//go:noescape
func expAVX512(t *vector)

//go:noescape
func erfAVX512(t *vector)

//go:noescape
func siluAVX512(t *vector)

//go:noescape
func siluMulAVX512(t *vector)

//go:noescape
func quickGELUAVX512(t *vector)

//go:noescape
func geluAVX512(t *vector)

//go:noescape
func softmaxAVX512(t *vector)

//go:noescape
func divideAVX512(t *vector)

//go:noescape
func layerNormAVX512(t *vector)

//go:noescape
func rmsNormAVX512(t *vector)

//go:noescape
func ropeAVX512(t *vector)

//go:noescape
func widenF16AVX512(t *vector)

//go:noescape
func widenBF16AVX512(t *vector)

//go:noescape
func roundF16AVX512(t *vector)

//go:noescape
func roundBF16AVX512(t *vector)

//go:noescape
func addAVX2(t *vector)

//go:noescape
func mulAVX2(t *vector)

//go:noescape
func expAVX2(t *vector)

//go:noescape
func erfAVX2(t *vector)

//go:noescape
func siluAVX2(t *vector)

//go:noescape
func siluMulAVX2(t *vector)

//go:noescape
func quickGELUAVX2(t *vector)

//go:noescape
func geluAVX2(t *vector)

//go:noescape
func softmaxAVX2(t *vector)

//go:noescape
func divideAVX2(t *vector)

//go:noescape
func layerNormAVX2(t *vector)

//go:noescape
func rmsNormAVX2(t *vector)

//go:noescape
func ropeAVX2(t *vector)

//go:noescape
func widenF16AVX2(t *vector)

//go:noescape
func widenBF16AVX2(t *vector)

//go:noescape
func roundF16AVX2(t *vector)

//go:noescape
func roundBF16AVX2(t *vector)
