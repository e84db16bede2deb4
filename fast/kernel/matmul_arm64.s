//go:build !purego

#include "go_asm.h"
#include "textflag.h"
#include "neon_arm64.h"

// One block of k of a tile of y, NEON: rows 1 to 6 of x against 16 columns of a panel of W, or 1 row against all 32 columns
// of two panels. What they compute stands at type tile; tileGeneric is the same in Go.
//
//	R0       x, [k][rows]                R8       tile
//	R1, R2   panels                      R3       what to prefetch
//	R4, R5   src and its stride          R6, R7   dst and its stride
//	R9       steps left, two k each      R10      rows + 256 panels, then scratch
//	V0-V23   sums: row i has V(4i) to V(4i+3); panel p of two has V(8p) to V(8p+7)
//	V24-V27  weights of one k and 16 columns
//	V28-V30  x of two k: value e = rows*(k odd) + row is lane e%4 of V(28+e/4)
//	V31      0xffff0000 in all lanes, the mask of odd k of bfloat16

#define PROLOGUE(one, two, three, four, five, six, pair) \
	MOVD t+0(FP), R8 \
	MOVD tile_steps(R8), R9 \
	MOVD tile_x(R8), R0 \
	MOVD (tile_w+0)(R8), R1 \
	MOVD tile_ahead(R8), R3 \
	MOVD (tile_src+0)(R8), R4 \
	MOVD tile_srcStride(R8), R5 \
	MOVD (tile_dst+0)(R8), R6 \
	MOVD tile_dstStride(R8), R7 \
	MOVD $0xffff0000, R10 \
	VDUP R10, V31.S4 \
	VEOR V0.B16, V0.B16, V0.B16 \
	VEOR V1.B16, V1.B16, V1.B16 \
	VEOR V2.B16, V2.B16, V2.B16 \
	VEOR V3.B16, V3.B16, V3.B16 \
	VEOR V4.B16, V4.B16, V4.B16 \
	VEOR V5.B16, V5.B16, V5.B16 \
	VEOR V6.B16, V6.B16, V6.B16 \
	VEOR V7.B16, V7.B16, V7.B16 \
	VEOR V8.B16, V8.B16, V8.B16 \
	VEOR V9.B16, V9.B16, V9.B16 \
	VEOR V10.B16, V10.B16, V10.B16 \
	VEOR V11.B16, V11.B16, V11.B16 \
	VEOR V12.B16, V12.B16, V12.B16 \
	VEOR V13.B16, V13.B16, V13.B16 \
	VEOR V14.B16, V14.B16, V14.B16 \
	VEOR V15.B16, V15.B16, V15.B16 \
	VEOR V16.B16, V16.B16, V16.B16 \
	VEOR V17.B16, V17.B16, V17.B16 \
	VEOR V18.B16, V18.B16, V18.B16 \
	VEOR V19.B16, V19.B16, V19.B16 \
	VEOR V20.B16, V20.B16, V20.B16 \
	VEOR V21.B16, V21.B16, V21.B16 \
	VEOR V22.B16, V22.B16, V22.B16 \
	VEOR V23.B16, V23.B16, V23.B16 \
	MOVD tile_panels(R8), R10 \
	LSL $8, R10, R10 \
	MOVD tile_rows(R8), R11 \
	ADD R11, R10, R10 \
	CMP $(256+6), R10 \
	BEQ six \
	CMP $(256+5), R10 \
	BEQ five \
	CMP $(256+4), R10 \
	BEQ four \
	CMP $(256+3), R10 \
	BEQ three \
	CMP $(256+2), R10 \
	BEQ two \
	CMP $(256+1), R10 \
	BEQ one \
	CMP $(512+1), R10 \
	BEQ pair \
	UNDEF

// x of two k.
#define X1 VLD1.P 8(R0), [V28.S2]
#define X2 VLD1.P 16(R0), [V28.S4]
#define X3 VLD1.P 16(R0), [V28.S4]; VLD1.P 8(R0), [V29.S2]
#define X4 VLD1.P 32(R0), [V28.S4, V29.S4]
#define X5 VLD1.P 32(R0), [V28.S4, V29.S4]; VLD1.P 8(R0), [V30.S2]
#define X6 VLD1.P 48(R0), [V28.S4, V29.S4, V30.S4]

// Weights of 16 columns, of the even k and then of the odd one; each leaves the panel's pointer where the next starts.
// Those of 32 columns do the first 16 (A) and the last 16 (B) of both k of a panel.
#define F32_EVEN(r) VLD1 (r), [V24.S4, V25.S4, V26.S4, V27.S4]; ADD $128, r
#define F32_ODD(r) VLD1 (r), [V24.S4, V25.S4, V26.S4, V27.S4]; ADD $128, r
#define F32_WIDE(r) VLD1.P 64(r), [V24.S4, V25.S4, V26.S4, V27.S4]

#define WIDEN_F16 \
	FCVTL_4S(24, 26) \
	FCVTL2_4S(25, 26) \
	FCVTL_4S(26, 27) \
	FCVTL2_4S(27, 27)
#define F16_EVEN(r) VLD1 (r), [V26.H8, V27.H8]; ADD $64, r; WIDEN_F16
#define F16_ODD(r) VLD1 (r), [V26.H8, V27.H8]; ADD $64, r; WIDEN_F16
#define F16_WIDE(r) VLD1.P 32(r), [V26.H8, V27.H8]; WIDEN_F16

#define RAW(r) VLD1 (r), [V24.S4, V25.S4, V26.S4, V27.S4]
#define WIDEN_LOW \
	VSHL $16, V24.S4, V24.S4 \
	VSHL $16, V25.S4, V25.S4 \
	VSHL $16, V26.S4, V26.S4 \
	VSHL $16, V27.S4, V27.S4
#define WIDEN_HIGH \
	VAND V31.B16, V24.B16, V24.B16 \
	VAND V31.B16, V25.B16, V25.B16 \
	VAND V31.B16, V26.B16, V26.B16 \
	VAND V31.B16, V27.B16, V27.B16
#define BF16_EVEN(r) RAW(r); WIDEN_LOW
#define BF16_ODD(r) RAW(r); ADD $128, r; WIDEN_HIGH

// sums of row i += weights * value e of x
#define ROW(i, e) \
	FMLA_LANE(4*(i)+0, 24, 28+(e)/4, (e)%4) \
	FMLA_LANE(4*(i)+1, 25, 28+(e)/4, (e)%4) \
	FMLA_LANE(4*(i)+2, 26, 28+(e)/4, (e)%4) \
	FMLA_LANE(4*(i)+3, 27, 28+(e)/4, (e)%4)

#define ROWS1(k) ROW(0, k)
#define ROWS2(k) ROWS1(k) ROW(1, k+1)
#define ROWS3(k) ROWS2(k) ROW(2, k+2)
#define ROWS4(k) ROWS3(k) ROW(3, k+3)
#define ROWS5(k) ROWS4(k) ROW(4, k+4)
#define ROWS6(k) ROWS5(k) ROW(5, k+5)

// dst = src + sums, for row i
#define STORE(i) \
	VLD1 (R4), [V24.S4, V25.S4, V26.S4, V27.S4] \
	FADD_4S(24, 24, 4*(i)+0) \
	FADD_4S(25, 25, 4*(i)+1) \
	FADD_4S(26, 26, 4*(i)+2) \
	FADD_4S(27, 27, 4*(i)+3) \
	VST1 [V24.S4, V25.S4, V26.S4, V27.S4], (R6) \
	ADD R5, R4, R4 \
	ADD R7, R6, R6

#define STORE1 STORE(0)
#define STORE2 STORE1; STORE(1)
#define STORE3 STORE2; STORE(2)
#define STORE4 STORE3; STORE(3)
#define STORE5 STORE4; STORE(4)
#define STORE6 STORE5; STORE(5)

// A loop over two k: x, the weights of the even k, its products, the same for the odd k, a prefetch.
#define TILE(label, h, x, even, rows, odd, store) \
label: \
	x \
	even(R1) \
	rows(0) \
	odd(R1) \
	rows(h) \
	PRFM (R3), PLDL2KEEP \
	PRFM 64(R3), PLDL2KEEP \
	ADD $128, R3 \
	SUBS $1, R9, R9 \
	BNE label \
	store \
	RET

// Two panels of 32 columns and one row: sums q to q+3 += weights * value k of x.
#define QUARTER(q, k) \
	FMLA_LANE((q)+0, 24, 28, k) \
	FMLA_LANE((q)+1, 25, 28, k) \
	FMLA_LANE((q)+2, 26, 28, k) \
	FMLA_LANE((q)+3, 27, 28, k)

// Pointers of the second panel's sums.
#define STOREPAIR \
	STORE(0) \
	SUB R5, R4, R4 \
	SUB R7, R6, R6 \
	ADD $64, R4, R4 \
	ADD $64, R6, R6 \
	STORE(1) \
	MOVD (tile_src+8)(R8), R4 \
	MOVD (tile_dst+8)(R8), R6 \
	STORE(2) \
	SUB R5, R4, R4 \
	SUB R7, R6, R6 \
	ADD $64, R4, R4 \
	ADD $64, R6, R6 \
	STORE(3)

// func tileF32NEON(t *tile)
TEXT ·tileF32NEON(SB), NOSPLIT, $0-8
	PROLOGUE(one, two, three, four, five, six, pair)
	TILE(six, 6, X6, F32_EVEN, ROWS6, F32_ODD, STORE6)
	TILE(five, 5, X5, F32_EVEN, ROWS5, F32_ODD, STORE5)
	TILE(four, 4, X4, F32_EVEN, ROWS4, F32_ODD, STORE4)
	TILE(three, 3, X3, F32_EVEN, ROWS3, F32_ODD, STORE3)
	TILE(two, 2, X2, F32_EVEN, ROWS2, F32_ODD, STORE2)
	TILE(one, 1, X1, F32_EVEN, ROWS1, F32_ODD, STORE1)

pair:
	MOVD (tile_w+8)(R8), R2

pairLoop:
	X1
	PRFM 1024(R1), PLDL1KEEP
	PRFM 1088(R1), PLDL1KEEP
	PRFM 1152(R1), PLDL1KEEP
	PRFM 1216(R1), PLDL1KEEP
	PRFM 1024(R2), PLDL1KEEP
	PRFM 1088(R2), PLDL1KEEP
	PRFM 1152(R2), PLDL1KEEP
	PRFM 1216(R2), PLDL1KEEP
	F32_WIDE(R1)            // | even k, first panel
	QUARTER(0, 0)
	F32_WIDE(R1)
	QUARTER(4, 0)
	F32_WIDE(R2)            // | even k, second panel
	QUARTER(8, 0)
	F32_WIDE(R2)
	QUARTER(12, 0)
	F32_WIDE(R1)            // | odd k
	QUARTER(0, 1)
	F32_WIDE(R1)
	QUARTER(4, 1)
	F32_WIDE(R2)
	QUARTER(8, 1)
	F32_WIDE(R2)
	QUARTER(12, 1)
	SUBS $1, R9, R9
	BNE  pairLoop
	STOREPAIR
	RET

// func tileF16NEON(t *tile)
TEXT ·tileF16NEON(SB), NOSPLIT, $0-8
	PROLOGUE(one, two, three, four, five, six, pair)
	TILE(six, 6, X6, F16_EVEN, ROWS6, F16_ODD, STORE6)
	TILE(five, 5, X5, F16_EVEN, ROWS5, F16_ODD, STORE5)
	TILE(four, 4, X4, F16_EVEN, ROWS4, F16_ODD, STORE4)
	TILE(three, 3, X3, F16_EVEN, ROWS3, F16_ODD, STORE3)
	TILE(two, 2, X2, F16_EVEN, ROWS2, F16_ODD, STORE2)
	TILE(one, 1, X1, F16_EVEN, ROWS1, F16_ODD, STORE1)

pair:
	MOVD (tile_w+8)(R8), R2

pairLoop:
	X1
	PRFM 1024(R1), PLDL1KEEP
	PRFM 1088(R1), PLDL1KEEP
	PRFM 1024(R2), PLDL1KEEP
	PRFM 1088(R2), PLDL1KEEP
	F16_WIDE(R1)            // | even k, first panel
	QUARTER(0, 0)
	F16_WIDE(R1)
	QUARTER(4, 0)
	F16_WIDE(R2)            // | even k, second panel
	QUARTER(8, 0)
	F16_WIDE(R2)
	QUARTER(12, 0)
	F16_WIDE(R1)            // | odd k
	QUARTER(0, 1)
	F16_WIDE(R1)
	QUARTER(4, 1)
	F16_WIDE(R2)
	QUARTER(8, 1)
	F16_WIDE(R2)
	QUARTER(12, 1)
	SUBS $1, R9, R9
	BNE  pairLoop
	STOREPAIR
	RET

// func tileBF16NEON(t *tile)
TEXT ·tileBF16NEON(SB), NOSPLIT, $0-8
	PROLOGUE(one, two, three, four, five, six, pair)
	TILE(six, 6, X6, BF16_EVEN, ROWS6, BF16_ODD, STORE6)
	TILE(five, 5, X5, BF16_EVEN, ROWS5, BF16_ODD, STORE5)
	TILE(four, 4, X4, BF16_EVEN, ROWS4, BF16_ODD, STORE4)
	TILE(three, 3, X3, BF16_EVEN, ROWS3, BF16_ODD, STORE3)
	TILE(two, 2, X2, BF16_EVEN, ROWS2, BF16_ODD, STORE2)
	TILE(one, 1, X1, BF16_EVEN, ROWS1, BF16_ODD, STORE1)

pair:
	MOVD (tile_w+8)(R8), R2

pairLoop:
	X1
	PRFM 1024(R1), PLDL1KEEP
	PRFM 1088(R1), PLDL1KEEP
	PRFM 1024(R2), PLDL1KEEP
	PRFM 1088(R2), PLDL1KEEP
	RAW(R1)                 // | first panel, columns 0 to 15
	WIDEN_LOW
	QUARTER(0, 0)
	RAW(R1)
	WIDEN_HIGH
	QUARTER(0, 1)
	ADD $64, R1
	RAW(R1)                 // | columns 16 to 31
	WIDEN_LOW
	QUARTER(4, 0)
	RAW(R1)
	WIDEN_HIGH
	QUARTER(4, 1)
	ADD $64, R1
	RAW(R2)                 // | second panel
	WIDEN_LOW
	QUARTER(8, 0)
	RAW(R2)
	WIDEN_HIGH
	QUARTER(8, 1)
	ADD $64, R2
	RAW(R2)
	WIDEN_LOW
	QUARTER(12, 0)
	RAW(R2)
	WIDEN_HIGH
	QUARTER(12, 1)
	ADD $64, R2
	SUBS $1, R9, R9
	BNE  pairLoop
	STOREPAIR
	RET
