//go:build !purego

package kernel

import "unsafe"

// The generator in _asm knows these offsets.
var _ = [1]struct{}{}[unsafe.Offsetof(packing{}.blocks)-0+
	unsafe.Offsetof(packing{}.rows)-8+
	unsafe.Offsetof(packing{}.stride)-16+
	unsafe.Offsetof(packing{}.src)-24+
	unsafe.Offsetof(packing{}.dst)-32+
	unsafe.Offsetof(packing{}.tail)-40]

//go:noescape
func packPairsAVX512(t *packing)

//go:noescape
func packHalvesAVX512(t *packing)

//go:noescape
func packRowsAVX512(t *packing)

// packRowsDotAVX512 needs AVX512_BF16.
//
//go:noescape
func packRowsDotAVX512(t *packing)

//go:noescape
func packRowsAVX2(t *packing)
