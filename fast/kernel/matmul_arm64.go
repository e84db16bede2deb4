//go:build !purego

package kernel

var neonMatmul = matmulOps{
	rows:    6,
	columns: 16,
	streams: func(rows int) int { return []int{1, 2, 1, 1, 1, 1, 1}[rows] },
	tile:    [3]func(*tile){F32: tileF32NEON, F16: tileF16NEON, BF16: tileBF16NEON},
	packW:   [3]func(*packing){F32: packPairsNEON, F16: packHalvesNEON, BF16: packPairsNEON},
	packX:   packRowsNEON,
	rounded: packRoundedNEON,
	xValues: 4,
	xRows:   func(rows int) bool { return rows >= 4 },
}

var neonLimits = limitOps{fma: peakFMANEON, fmaStep: 24 * 4 * 2, read: readStreamsNEON}

//go:noescape
func tileF32NEON(t *tile)

//go:noescape
func tileF16NEON(t *tile)

//go:noescape
func tileBF16NEON(t *tile)

//go:noescape
func packPairsNEON(t *packing)

//go:noescape
func packHalvesNEON(t *packing)

//go:noescape
func packRowsNEON(t *packing)

//go:noescape
func packRoundedNEON(t *packing)

//go:noescape
func peakFMANEON(t *probe)

//go:noescape
func readStreamsNEON(t *probe)
