//go:build !purego

package kernel

var neonVector = vectorOps{
	add:       addNEON,
	mul:       mulNEON,
	exp:       expNEON,
	erf:       erfNEON,
	silu:      siluNEON,
	siluMul:   siluMulNEON,
	quickGELU: quickGELUNEON,
	gelu:      geluNEON,
	softmax:   softmaxNEON,
	divide:    divideNEON,
	layerNorm: layerNormNEON,
	rmsNorm:   rmsNormNEON,
	rope:      ropeNEON,
	widenF16:  widenF16NEON,
	widenBF16: widenBF16NEON,
	roundF16:  roundF16NEON,
	roundBF16: roundBF16NEON,
}

//go:noescape
func addNEON(t *vector)

//go:noescape
func mulNEON(t *vector)

//go:noescape
func expNEON(t *vector)

//go:noescape
func erfNEON(t *vector)

//go:noescape
func siluNEON(t *vector)

//go:noescape
func siluMulNEON(t *vector)

//go:noescape
func quickGELUNEON(t *vector)

//go:noescape
func geluNEON(t *vector)

//go:noescape
func softmaxNEON(t *vector)

//go:noescape
func divideNEON(t *vector)

//go:noescape
func layerNormNEON(t *vector)

//go:noescape
func rmsNormNEON(t *vector)

//go:noescape
func ropeNEON(t *vector)

//go:noescape
func widenF16NEON(t *vector)

//go:noescape
func widenBF16NEON(t *vector)

//go:noescape
func roundF16NEON(t *vector)

//go:noescape
func roundBF16NEON(t *vector)
