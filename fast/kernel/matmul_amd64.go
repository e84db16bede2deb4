//go:build !purego

package kernel

import "unsafe"

// The generator in _asm knows these offsets.
var _ = [1]struct{}{}[unsafe.Offsetof(tile{}.steps)-0+
	unsafe.Offsetof(tile{}.rows)-8+
	unsafe.Offsetof(tile{}.panels)-16+
	unsafe.Offsetof(tile{}.ahead)-24+
	unsafe.Offsetof(tile{}.aheadStride)-32+
	unsafe.Offsetof(tile{}.aheadStep)-40+
	unsafe.Offsetof(tile{}.aheadRows)-48+
	unsafe.Offsetof(tile{}.aheadWrap)-56+
	unsafe.Offsetof(tile{}.srcStride)-64+
	unsafe.Offsetof(tile{}.dstStride)-72+
	unsafe.Offsetof(tile{}.x)-80+
	unsafe.Offsetof(tile{}.w)-88+
	unsafe.Offsetof(tile{}.src)-120+
	unsafe.Offsetof(tile{}.dst)-152]

var (
	avx512Matmul = matmulOps{
		rows:    14,
		columns: panelWidth,
		streams: streams512,
		tile:    [3]func(*tile){F32: tileF32AVX512, F16: tileF16AVX512, BF16: tileBF16AVX512},
		packW:   [3]func(*packing){F32: packPairsAVX512, F16: packHalvesAVX512, BF16: packPairsAVX512},
		packX:   packRowsAVX512,
		xValues: 16,
		xRows:   func(int) bool { return true },
		tails:   true,
	}
	avx512BF16Matmul = withDot(avx512Matmul, tileDotAVX512, packRowsDotAVX512)
	avx2Matmul       = matmulOps{
		rows:    6,
		columns: 16,
		streams: func(rows int) int { return []int{1, 2, 1, 1, 1, 1, 1}[rows] },
		tile:    [3]func(*tile){F32: tileF32AVX2, F16: tileF16AVX2, BF16: tileBF16AVX2},
		packX:   packRowsAVX2,
		xValues: 4,
		xRows:   func(rows int) bool { return rows >= 4 },
	}
)

func withDot(o matmulOps, dot func(*tile), packDot func(*packing)) matmulOps {
	o.dot, o.packDot = dot, packDot
	return o
}

// streams512 is bound by the 28 registers of sums: 2 for each row and panel.
func streams512(rows int) int {
	switch {
	case rows <= 3:
		return 4
	case rows <= 7:
		return 2
	}
	return 1
}

//go:noescape
func tileF32AVX512(t *tile)

//go:noescape
func tileF16AVX512(t *tile)

//go:noescape
func tileBF16AVX512(t *tile)

// tileDotAVX512 needs AVX512_BF16.
//
//go:noescape
func tileDotAVX512(t *tile)

//go:noescape
func tileF32AVX2(t *tile)

//go:noescape
func tileF16AVX2(t *tile)

//go:noescape
func tileBF16AVX2(t *tile)
