package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.packing; pack_amd64.go holds them at compile time.
const (
	packBlocks = 0
	packRows   = 8
	packStride = 16
	packSrc    = 24
	packDst    = 32
	packTail   = 40
)

// transpose512 turns 16 rows of 16 dwords in Z0..Z15 into 16 columns in Z0..Z15. It uses Z16..Z31.
//
//	r0 = a0 a1 .. a15, r1 = b0 b1 .. b15, ...  ->  r0 = a0 b0 c0 .. p0, r1 = a1 b1 .. p1, ...
func (a *asm) transpose512() {
	z := func(i int) reg.VecPhysical { return zs[i] }
	a.Comment("dwords of two rows side by side, in each quarter: a0 b0 a1 b1, a2 b2 a3 b3")
	for i := 0; i < 16; i += 2 {
		a.VPUNPCKLDQ(z(i+1), z(i), z(16+i))
		a.VPUNPCKHDQ(z(i+1), z(i), z(17+i))
	}
	a.Comment("of four rows: a0 b0 c0 d0, then a1 b1 c1 d1, and so on")
	for i := 0; i < 16; i += 4 {
		a.VPUNPCKLQDQ(z(18+i), z(16+i), z(i))
		a.VPUNPCKHQDQ(z(18+i), z(16+i), z(i+1))
		a.VPUNPCKLQDQ(z(19+i), z(17+i), z(i+2))
		a.VPUNPCKHQDQ(z(19+i), z(17+i), z(i+3))
	}
	a.Comment("Z(4g+j) holds rows 4g..4g+3 of the columns j, j+4, j+8, j+12: gather the quarters of eight rows, then of sixteen")
	for j := range 4 {
		a.VSHUFI32X4(operand.U8(0x88), z(4+j), z(j), z(16+j))    // rows 0-3 of j, j+8; rows 4-7 of j, j+8
		a.VSHUFI32X4(operand.U8(0xdd), z(4+j), z(j), z(20+j))    // rows 0-3 of j+4, j+12; rows 4-7 of the same
		a.VSHUFI32X4(operand.U8(0x88), z(12+j), z(8+j), z(24+j)) // rows 8-15
		a.VSHUFI32X4(operand.U8(0xdd), z(12+j), z(8+j), z(28+j))
	}
	for j := range 4 {
		a.VSHUFI32X4(operand.U8(0x88), z(24+j), z(16+j), z(j))
		a.VSHUFI32X4(operand.U8(0xdd), z(24+j), z(16+j), z(8+j))
		a.VSHUFI32X4(operand.U8(0x88), z(28+j), z(20+j), z(4+j))
		a.VSHUFI32X4(operand.U8(0xdd), z(28+j), z(20+j), z(12+j))
	}
}

// rows16 loads 64 bytes of 16 rows from SI, the rows R8 bytes apart; R9 is three times R8. It uses R10.
func (a *asm) rows16() {
	a.MOVQ(reg.RSI, reg.R10)
	for i := 0; i < 16; i += 4 {
		a.VMOVDQU32(operand.Mem{Base: reg.R10}, zs[i])
		a.VMOVDQU32(operand.Mem{Base: reg.R10, Index: reg.R8, Scale: 1}, zs[i+1])
		a.VMOVDQU32(operand.Mem{Base: reg.R10, Index: reg.R8, Scale: 2}, zs[i+2])
		a.VMOVDQU32(operand.Mem{Base: reg.R10, Index: reg.R9, Scale: 1}, zs[i+3])
		if i < 12 {
			a.LEAQ(operand.Mem{Base: reg.R10, Index: reg.R8, Scale: 4}, reg.R10)
		}
	}
}

// packWeights512 writes the functions that lay 16 rows of W out as half a panel.
func (a *asm) packWeights512() {
	a.function("packPairsAVX512", "packing",
		"packPairsAVX512 lays 16 rows of dwords out as half a panel, [dword][16 of 32 rows].",
		"A dword is one float32, or two consecutive bfloat16.",
		"",
		"CX blocks of 16 dwords left; SI rows; R8 bytes between them, R9 three times that; DI half panel")
	a.packHeader()
	a.Label("loop")
	a.rows16()
	a.transpose512()
	for i := range 16 {
		a.VMOVDQU32(zs[i], mem(reg.RDI, 128*i))
	}
	a.ADDQ(operand.I32(64), reg.RSI)
	a.ADDQ(operand.I32(16*128), reg.RDI)
	a.DECQ(reg.RCX)
	a.JNE(operand.LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()

	a.function("packHalvesAVX512", "packing",
		"packHalvesAVX512 lays 16 rows of float16 out as half a panel, [k][16 of 32 rows].",
		"",
		"CX blocks of 32 k left; SI rows; R8 bytes between them, R9 three times that; DI half panel")
	a.packHeader()
	a.Label("loop")
	a.rows16()
	a.transpose512()
	a.Comment("each register holds the pairs k, k+1 of 16 rows: low halves are k, high halves k+1")
	for i := range 16 {
		a.VPMOVDW(zs[i], mem(reg.RDI, 128*i))
		a.VPSRLD(operand.U8(16), zs[i], zs[i])
		a.VPMOVDW(zs[i], mem(reg.RDI, 128*i+64))
	}
	a.ADDQ(operand.I32(64), reg.RSI)
	a.ADDQ(operand.I32(16*128), reg.RDI)
	a.DECQ(reg.RCX)
	a.JNE(operand.LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

func (a *asm) packHeader() {
	a.Load(a.Param("t"), reg.RAX)
	a.MOVQ(mem(reg.RAX, packBlocks), reg.RCX)
	a.MOVQ(mem(reg.RAX, packRows), reg.RBX)
	a.MOVQ(mem(reg.RAX, packStride), reg.R8)
	a.MOVQ(mem(reg.RAX, packSrc), reg.RSI)
	a.MOVQ(mem(reg.RAX, packDst), reg.RDI)
	a.LEAQ(operand.Mem{Base: reg.R8, Index: reg.R8, Scale: 2}, reg.R9)
}

// packRows512 writes the functions that lay rows of x out for a tile.
func (a *asm) packRows512() {
	for _, v := range []struct {
		bf16 bool
		name string
		doc  []string
	}{
		{false, "packRowsAVX512", []string{
			"packRowsAVX512 lays 1 to 16 rows of x out for a tile, [k][rows]: blocks, then a tail of less than a block, and a zero after an odd one.",
			"",
			"CX blocks of 16 k left; SI rows; R8 bytes between them; BX rows; DI tile, R11 bytes of it for one k; K1 lanes of the rows;",
			"R9 k of the tail, K2 k of the block that are there, R12 how many are written"}},
		{true, "packRowsDotAVX512", []string{
			"packRowsDotAVX512 rounds 1 to 16 rows of x to bfloat16 and lays them out for a tile, [k/2][rows][2]: blocks, then a tail of less than a block,",
			"and a zero after an odd one.",
			"",
			"CX blocks of 32 k left; SI rows; R8 bytes between them; BX rows; DI tile, R11 bytes of it for two k; K1 lanes of the rows;",
			"R9 k of the tail, K2 and K3 k of the block that are there, R12 how many pairs are written"}},
	} {
		a.function(v.name, "packing", v.doc...)
		a.packHeader()
		a.MOVQ(mem(reg.RAX, packTail), reg.R9)
		a.Comment("K1 = 2^rows - 1")
		a.MOVQ(reg.RCX, reg.RDX)
		a.MOVQ(reg.RBX, reg.RCX)
		a.MOVL(operand.U32(1), reg.EAX)
		a.SHLQ(reg.CL, reg.RAX)
		a.DECQ(reg.RAX)
		a.KMOVW(reg.EAX, reg.K1)
		a.MOVQ(reg.RDX, reg.RCX)
		a.MOVQ(reg.RBX, reg.R11)
		a.SHLQ(operand.U8(2), reg.R11)
		a.KXNORW(reg.K2, reg.K2, reg.K2)
		a.KXNORW(reg.K3, reg.K3, reg.K3)
		a.TESTQ(reg.RCX, reg.RCX)
		a.JEQ(operand.LabelRef("tail"))
		a.Label("loop")
		a.MOVL(operand.U32(16), reg.R12L)
		a.Label("block")
		a.Comment("rows past the last stay what they were: no lane of them is stored")
		a.MOVQ(reg.RSI, reg.R10)
		a.MOVQ(reg.RBX, reg.RDX)
		for i := range 16 {
			a.PREFETCHT0(mem(reg.R10, 512))
			if v.bf16 {
				a.PREFETCHT0(mem(reg.R10, 512+64))
				a.VMOVUPS_Z(mem(reg.R10, 0), reg.K2, reg.Z30)
				a.VMOVUPS_Z(mem(reg.R10, 64), reg.K3, reg.Z31)
				a.toBF16(i, 31, 30)
			} else {
				a.VMOVUPS_Z(mem(reg.R10, 0), reg.K2, zs[i])
			}
			if i < 15 {
				a.DECQ(reg.RDX)
				a.JEQ(operand.LabelRef("turn"))
				a.ADDQ(reg.R8, reg.R10)
			}
		}
		a.Label("turn")
		a.transpose512()
		for i := range 16 {
			a.VMOVUPS(zs[i], reg.K1, mem(reg.RDI, 0))
			a.ADDQ(reg.R11, reg.RDI)
			a.DECQ(reg.R12)
			a.JEQ(operand.LabelRef("written"))
		}
		a.Label("written")
		if v.bf16 {
			a.ADDQ(operand.I32(128), reg.RSI)
		} else {
			a.ADDQ(operand.I32(64), reg.RSI)
		}
		a.DECQ(reg.RCX)
		a.JGT(operand.LabelRef("loop"))
		a.Label("tail")
		a.Comment("K2, K3 = 2^tail - 1; after the tail there is none left")
		a.TESTQ(reg.R9, reg.R9)
		a.JEQ(operand.LabelRef("done"))
		a.MOVQ(reg.R9, reg.RCX)
		a.MOVL(operand.U32(1), reg.EAX)
		a.SHLQ(reg.CL, reg.RAX)
		a.DECQ(reg.RAX)
		a.KMOVW(reg.EAX, reg.K2)
		a.SHRQ(operand.U8(16), reg.RAX)
		a.KMOVW(reg.EAX, reg.K3)
		a.LEAQ(operand.Mem{Base: reg.R9, Disp: 1}, reg.R12)
		if v.bf16 {
			a.SHRQ(operand.U8(1), reg.R12)
		} else {
			a.ANDQ(operand.I8(-2), reg.R12)
		}
		a.XORL(reg.R9L, reg.R9L)
		a.XORL(reg.ECX, reg.ECX)
		a.JMP(operand.LabelRef("block"))
		a.Label("done")
		a.VZEROUPPER()
		a.RET()
	}
}

// packRows256 writes the function that lays 4 to 6 rows of x out for a tile with AVX2.
func (a *asm) packRows256() {
	a.function("packRowsAVX2", "packing",
		"packRowsAVX2 lays 4, 5 or 6 rows of x out for a tile, [k][rows].",
		"",
		"CX blocks of 4 k left; SI rows; R8 bytes between them, R9 three times that; BX rows; DI tile")
	a.packHeader()
	a.LEAQ(operand.Mem{Base: reg.RSI, Index: reg.R8, Scale: 4}, reg.R10)
	for _, rows := range []int{4, 5} {
		a.CMPQ(reg.RBX, operand.U32(uint32(rows)))
		a.JEQ(operand.LabelRef(map[int]string{4: "four", 5: "five"}[rows]))
	}
	for _, rows := range []int{6, 5, 4} {
		label := map[int]string{4: "four", 5: "five", 6: "six"}[rows]
		a.Label(label)
		x := []reg.VecPhysical{reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11}
		a.VMOVUPS(operand.Mem{Base: reg.RSI}, x[0])
		a.VMOVUPS(operand.Mem{Base: reg.RSI, Index: reg.R8, Scale: 1}, x[1])
		a.VMOVUPS(operand.Mem{Base: reg.RSI, Index: reg.R8, Scale: 2}, x[2])
		a.VMOVUPS(operand.Mem{Base: reg.RSI, Index: reg.R9, Scale: 1}, x[3])
		a.VUNPCKLPS(x[1], x[0], x[4])
		a.VUNPCKHPS(x[1], x[0], x[5])
		a.VUNPCKLPS(x[3], x[2], x[6])
		a.VUNPCKHPS(x[3], x[2], x[7])
		a.Comment("X0..X3 = k, k+1, k+2, k+3 of rows 0..3")
		a.VUNPCKLPD(x[6], x[4], x[0])
		a.VUNPCKHPD(x[6], x[4], x[1])
		a.VUNPCKLPD(x[7], x[5], x[2])
		a.VUNPCKHPD(x[7], x[5], x[3])
		for k := range 4 {
			a.VMOVUPS(x[k], mem(reg.RDI, 4*rows*k))
		}
		switch rows {
		case 5:
			a.VMOVUPS(operand.Mem{Base: reg.R10}, x[4])
			for k := range 4 {
				a.VEXTRACTPS(operand.U8(uint8(k)), x[4], mem(reg.RDI, 4*rows*k+16))
			}
		case 6:
			a.VMOVUPS(operand.Mem{Base: reg.R10}, x[4])
			a.VMOVUPS(operand.Mem{Base: reg.R10, Index: reg.R8, Scale: 1}, x[5])
			a.VUNPCKLPS(x[5], x[4], x[6])
			a.VUNPCKHPS(x[5], x[4], x[7])
			a.VMOVLPD(x[6], mem(reg.RDI, 16))
			a.VMOVHPD(x[6], mem(reg.RDI, 4*rows+16))
			a.VMOVLPD(x[7], mem(reg.RDI, 8*rows+16))
			a.VMOVHPD(x[7], mem(reg.RDI, 12*rows+16))
		}
		a.ADDQ(operand.I32(16), reg.RSI)
		a.ADDQ(operand.I32(16), reg.R10)
		a.ADDQ(operand.I32(16*rows), reg.RDI)
		a.DECQ(reg.RCX)
		a.JNE(operand.LabelRef(label))
		a.VZEROUPPER()
		a.RET()
	}
}
