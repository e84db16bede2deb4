//go:build !purego

#include "go_asm.h"
#include "textflag.h"
#include "neon_arm64.h"

// The layouts of pack.go. A row's 16 bytes are four dwords here: four float32, four pairs of bfloat16, or four pairs of float16.
//
//	R8  packing          R9  16 bytes of a row left to do, one a step
//	R7  bytes from row to row
//	R1  16 bytes of the first row of this step; R2 walks down the rows
//	R6  half panel

#define HEADER \
	MOVD t+0(FP), R8 \
	MOVD packing_blocks(R8), R9 \
	LSL  $2, R9, R9 \
	MOVD packing_stride(R8), R7 \
	MOVD packing_src(R8), R1 \
	MOVD packing_dst(R8), R6

// V0 to V15 = 16 bytes of 16 rows
#define ROWS16 \
	MOVD R1, R2 \
	VLD1.P (R2)(R7), [V0.B16] \
	VLD1.P (R2)(R7), [V1.B16] \
	VLD1.P (R2)(R7), [V2.B16] \
	VLD1.P (R2)(R7), [V3.B16] \
	VLD1.P (R2)(R7), [V4.B16] \
	VLD1.P (R2)(R7), [V5.B16] \
	VLD1.P (R2)(R7), [V6.B16] \
	VLD1.P (R2)(R7), [V7.B16] \
	VLD1.P (R2)(R7), [V8.B16] \
	VLD1.P (R2)(R7), [V9.B16] \
	VLD1.P (R2)(R7), [V10.B16] \
	VLD1.P (R2)(R7), [V11.B16] \
	VLD1.P (R2)(R7), [V12.B16] \
	VLD1.P (R2)(R7), [V13.B16] \
	VLD1.P (R2)(R7), [V14.B16] \
	VLD1   (R2), [V15.B16] \
	ADD    $16, R1

// Rows a to d of four dwords become columns y0 to y3 of four rows; a and c are used up. Line by line:
//
//	y0 = a0 c0 a1 c1
//	y2 = a2 c2 a3 c3
//	a  = b0 d0 b1 d1
//	c  = b2 d2 b3 d3
//	y1 = a1 b1 c1 d1
//	y0 = a0 b0 c0 d0
//	y3 = a3 b3 c3 d3
//	y2 = a2 b2 c2 d2
#define COLUMNS(a, b, c, d, y0, y1, y2, y3) \
	VZIP1 c.S4, a.S4, y0.S4 \
	VZIP2 c.S4, a.S4, y2.S4 \
	VZIP1 d.S4, b.S4, a.S4 \
	VZIP2 d.S4, b.S4, c.S4 \
	VZIP2 a.S4, y0.S4, y1.S4 \
	VZIP1 a.S4, y0.S4, y0.S4 \
	VZIP2 c.S4, y2.S4, y3.S4 \
	VZIP1 c.S4, y2.S4, y2.S4

// V(16+4j) to V(19+4j) = dword j of the 16 rows
#define TRANSPOSE \
	COLUMNS(V0, V1, V2, V3, V16, V20, V24, V28) \
	COLUMNS(V4, V5, V6, V7, V17, V21, V25, V29) \
	COLUMNS(V8, V9, V10, V11, V18, V22, V26, V30) \
	COLUMNS(V12, V13, V14, V15, V19, V23, V27, V31)

// func packPairsNEON(t *packing)
//
// Lays 16 rows of dwords out as half a panel, [dword][16 of 32 rows]. A dword is one float32, or two consecutive bfloat16.
//
//	for j in 0..3: dst[j][0..15] = src[0..15][j]
TEXT ·packPairsNEON(SB), NOSPLIT, $0-8
	HEADER
	MOVD $128, R3 // | bytes of a column of the panel

loop:
	ROWS16
	TRANSPOSE
	VST1.P [V16.S4, V17.S4, V18.S4, V19.S4], (R6)(R3)
	VST1.P [V20.S4, V21.S4, V22.S4, V23.S4], (R6)(R3)
	VST1.P [V24.S4, V25.S4, V26.S4, V27.S4], (R6)(R3)
	VST1.P [V28.S4, V29.S4, V30.S4, V31.S4], (R6)(R3)
	SUBS   $1, R9, R9
	BNE    loop
	RET

// A dword of 16 rows in a to d: its low halves are one column of float16, its high halves the next.
#define HALVES(a, b, c, d) \
	VUZP1  b.H8, a.H8, V0.H8 \
	VUZP1  d.H8, c.H8, V1.H8 \
	VUZP2  b.H8, a.H8, V2.H8 \
	VUZP2  d.H8, c.H8, V3.H8 \
	VST1.P [V0.H8, V1.H8], (R6)(R3) \
	VST1.P [V2.H8, V3.H8], (R6)(R3)

// func packHalvesNEON(t *packing)
//
// Lays 16 rows of float16 out as half a panel, [k][16 of 32 rows].
//
//	for j in 0..7: dst[j][0..15] = src[0..15][j]
TEXT ·packHalvesNEON(SB), NOSPLIT, $0-8
	HEADER
	MOVD $64, R3 // | bytes of a column of the panel

loop:
	ROWS16
	TRANSPOSE
	HALVES(V16, V17, V18, V19) // | k = 0, 1
	HALVES(V20, V21, V22, V23) // | k = 2, 3
	HALVES(V24, V25, V26, V27) // | k = 4, 5
	HALVES(V28, V29, V30, V31) // | k = 6, 7
	SUBS $1, R9, R9
	BNE  loop
	RET

// v = the bfloat16 nearest to each of four float32, as a float32: what roundBF16 does. V24 is 0x7fff, V25 the bit 1, V26 the quiet
// bit, V31 the upper half of a lane. It uses V27 to V29. Line by line:
//
//	last = v >> 16 & 1
//	up = v + 0x7fff + last
//	nan = v | quiet
//	number = v == v
//	v = number ? up : nan
//	v &= 0xffff0000
#define ROUND_BF16(number, v) \
	VUSHR $16, v.S4, V27.S4 \
	VAND  V25.B16, V27.B16, V27.B16 \
	VADD  V24.S4, V27.S4, V27.S4 \
	VADD  v.S4, V27.S4, V27.S4 \
	VORR  V26.B16, v.B16, V28.B16 \
	FCMEQ_4S(29, number, number) \
	VMOV  V28.B16, v.B16 \
	VBIT  V29.B16, V27.B16, v.B16 \
	VAND  V31.B16, v.B16, v.B16

#define AS_IT_IS(number, v)

// Rows of x laid out for a tile, [k][rows], four k a step. round is applied to every value.
//
//	R9  steps left            R10 rows
//	R0-R5 rows of x           R6  tile
//	V0-V5 four k of each row  V16-V19 four rows of each k
#define PACK_ROWS(loop, five, six, round) \
	MOVD t+0(FP), R8 \
	MOVD packing_blocks(R8), R9 \
	MOVD packing_rows(R8), R10 \
	MOVD packing_stride(R8), R7 \
	MOVD packing_src(R8), R0 \
	MOVD packing_dst(R8), R6 \
	ADD  R7, R0, R1 \
	ADD  R7, R1, R2 \
	ADD  R7, R2, R3 \
	ADD  R7, R3, R4 \
	ADD  R7, R4, R5 \
loop: \
	VLD1.P 16(R0), [V0.S4] \
	VLD1.P 16(R1), [V1.S4] \
	VLD1.P 16(R2), [V2.S4] \
	VLD1.P 16(R3), [V3.S4] \
	round(0, V0) \
	round(1, V1) \
	round(2, V2) \
	round(3, V3) \
	COLUMNS(V0, V1, V2, V3, V16, V17, V18, V19) \
	CMP    $5, R10 \
	BEQ    five \
	BGT    six \
	VST1.P [V16.S4, V17.S4, V18.S4, V19.S4], 64(R6) \
	SUBS   $1, R9, R9 \
	BNE    loop \
	RET \
five: \
	VLD1.P 16(R4), [V4.S4] \
	round(4, V4) \
	VST1.P [V16.S4], 16(R6) \
	VST1.P V4.S[0], 4(R6) \
	VST1.P [V17.S4], 16(R6) \
	VST1.P V4.S[1], 4(R6) \
	VST1.P [V18.S4], 16(R6) \
	VST1.P V4.S[2], 4(R6) \
	VST1.P [V19.S4], 16(R6) \
	VST1.P V4.S[3], 4(R6) \
	SUBS   $1, R9, R9 \
	BNE    loop \
	RET \
six: \
	VLD1.P 16(R4), [V4.S4] \
	VLD1.P 16(R5), [V5.S4] \
	round(4, V4) \
	round(5, V5) \
	VZIP1  V5.S4, V4.S4, V6.S4 \
	VZIP2  V5.S4, V4.S4, V7.S4 \
	VST1.P [V16.S4], 16(R6) \
	VST1.P V6.D[0], 8(R6) \
	VST1.P [V17.S4], 16(R6) \
	VST1.P V6.D[1], 8(R6) \
	VST1.P [V18.S4], 16(R6) \
	VST1.P V7.D[0], 8(R6) \
	VST1.P [V19.S4], 16(R6) \
	VST1.P V7.D[1], 8(R6) \
	SUBS   $1, R9, R9 \
	BNE    loop \
	RET

// func packRowsNEON(t *packing)
//
// Lays 4, 5 or 6 rows of x out for a tile.
//
//	for j in 0..3: dst[j][0..rows-1] = src[0..rows-1][j]
TEXT ·packRowsNEON(SB), NOSPLIT, $0-8
	PACK_ROWS(loop, five, six, AS_IT_IS)

// func packRoundedNEON(t *packing)
//
// Lays 4, 5 or 6 rows of x out for a tile of the bf16 class, rounded to bfloat16.
//
//	for j in 0..3: dst[j][0..rows-1] = widenBF16(roundBF16(src[0..rows-1][j]))
TEXT ·packRoundedNEON(SB), NOSPLIT, $0-8
	MOVD $0x7fff, R0
	VDUP R0, V24.S4
	MOVD $1, R0
	VDUP R0, V25.S4
	MOVD $0x400000, R0
	VDUP R0, V26.S4
	MOVD $0xffff0000, R0
	VDUP R0, V31.S4
	PACK_ROWS(loop, five, six, ROUND_BF16)
