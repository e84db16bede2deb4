package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.tile; matmul_amd64.go holds them at compile time.
const (
	tileSteps     = 0
	tileRows      = 8
	tilePanels    = 16
	tileAhead     = 24
	tileStreams   = 32
	tileAheadStep = 40
	tileAheadRows = 48
	tileAheadWrap = 56
	tileSrcStride = 64
	tileDstStride = 72
	tileX         = 80
	tileW         = 88
	tileSrc       = 120
	tileDst       = 152
)

// lead is how far in front of each of several panels the loads are prefetched, in bytes. 1536 was better than 1024
// with every type, and than 512 with all but float32; docs/performance.md says by how much.
const lead = 1536

// format is how the weights of a panel lie in memory.
type format int

const (
	f32  format = iota // [k][32] float32
	f16                // [k][32] float16
	bf16               // [k/2][32][2] bfloat16
	dot                // the same, for VDPBF16PS against x as [k/2][rows][2] bfloat16
)

// step is how many bytes of one panel belong to two consecutive k.
func (f format) step() int {
	if f == f32 {
		return 256
	}
	return 128
}

// xStep is how many bytes of one packed row of x belong to two consecutive k.
func (f format) xStep() int {
	if f == dot {
		return 4
	}
	return 8
}

// halves is how often one step visits the accumulators.
func (f format) halves() int {
	if f == dot {
		return 1
	}
	return 2
}

var (
	panelRegs = []reg.GPPhysical{reg.RDI, reg.R8, reg.R9, reg.R10}
	zs        = []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	ys = []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}
	xs = []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	}
)

func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// shape is a tile that has a loop of its own: rows of x against a number of panels.
type shape struct{ panels, rows int }

func (s shape) label(f string) string { return fmt.Sprintf("%sp%dr%d", f, s.panels, s.rows) }

// dispatch loads the pointers and jumps to the loop of the tile's shape.
func (a *asm) dispatch(shapes []shape) {
	a.Load(a.Param("t"), reg.RAX)
	a.MOVQ(mem(reg.RAX, tileSteps), reg.RCX)
	a.MOVQ(mem(reg.RAX, tileX), reg.RSI)
	a.MOVQ(mem(reg.RAX, tileW), reg.RDI)
	a.MOVQ(mem(reg.RAX, tileAhead), reg.RDX)
	a.MOVQ(mem(reg.RAX, tilePanels), reg.RBX)
	a.SHLQ(operand.U8(8), reg.RBX)
	a.ADDQ(mem(reg.RAX, tileRows), reg.RBX)
	for _, s := range shapes {
		a.CMPQ(reg.RBX, operand.U32(uint32(s.panels<<8+s.rows)))
		a.JEQ(operand.LabelRef(s.label("")))
	}
	a.Comment("no such tile: the caller has a bug")
	a.UD2()
}

func (a *asm) tiles512() {
	var shapes []shape
	for rows := 14; rows >= 1; rows-- {
		shapes = append(shapes, shape{1, rows})
	}
	for rows := 7; rows >= 4; rows-- {
		shapes = append(shapes, shape{2, rows})
	}
	for rows := 3; rows >= 1; rows-- {
		shapes = append(shapes, shape{4, rows})
	}
	for _, v := range []struct {
		f    format
		name string
		what string
	}{
		{f32, "tileF32AVX512", "float32 weights, float32 class"},
		{f16, "tileF16AVX512", "float16 weights, float32 class"},
		{bf16, "tileBF16AVX512", "bfloat16 weights, float32 class"},
		{dot, "tileDotAVX512", "bfloat16 weights, bf16 class"},
	} {
		a.function(v.name, "tile",
			v.name+" adds one block of k to a tile of y: "+v.what+".",
			"",
			"AX tile; CX steps of two k left; SI x; DI, R8, R9, R10 panels; DX what to prefetch, with one panel R8, R9, R10 in which steps",
			"Z0..Z27 sums [row][panel][2 x 16 columns]; Z28, Z29 weights; Z30 one x in all lanes; Z31 mask of odd k")
		a.dispatch(shapes)
		for _, s := range shapes {
			a.tile512(v.f, s)
		}
	}
}

func (a *asm) tile512(f format, s shape) {
	acc := func(i, p, v int) int { return (i*s.panels+p)*2 + v }
	a.Label(s.label(""))
	for p := 1; p < s.panels; p++ {
		a.MOVQ(mem(reg.RAX, tileW+8*p), panelRegs[p])
	}
	if f == bf16 {
		a.Comment("Z31 = 0xffff0000 in all lanes")
		a.VPTERNLOGD(operand.U8(0xff), reg.Z31, reg.Z31, reg.Z31)
		a.VPSLLD(operand.U8(16), reg.Z31, reg.Z31)
	}
	for i := range 2 * s.panels * s.rows {
		a.VPXORD(zs[i], zs[i], zs[i])
	}
	loop := a.openLoop(s)
	for half := range f.halves() {
		xAt := half * 4 * s.rows
		if s.rows == 1 {
			a.broadcast512(f, mem(reg.RSI, xAt))
		}
		for p := range s.panels {
			a.weights512(f, panelRegs[p], half)
			for i := range s.rows {
				switch {
				case f == dot:
					if s.rows > 1 {
						a.broadcast512(f, mem(reg.RSI, xAt+4*i))
					}
					a.dot(acc(i, p, 0), 28, 30)
					a.dot(acc(i, p, 1), 29, 30)
				case s.rows > 1 && s.panels > 1:
					x := mem(reg.RSI, xAt+4*i)
					a.VFMADD231PS_BCST(x, reg.Z28, zs[acc(i, p, 0)])
					a.VFMADD231PS_BCST(x, reg.Z29, zs[acc(i, p, 1)])
				default:
					if s.rows > 1 {
						a.broadcast512(f, mem(reg.RSI, xAt+4*i))
					}
					a.VFMADD231PS(reg.Z30, reg.Z28, zs[acc(i, p, 0)])
					a.VFMADD231PS(reg.Z30, reg.Z29, zs[acc(i, p, 1)])
				}
			}
		}
	}
	a.advance(f, s, f.step())
	a.closeLoop(s, loop, 128)
	a.Comment("dst = src + sums")
	a.MOVQ(mem(reg.RAX, tileSrcStride), reg.RBX)
	a.MOVQ(mem(reg.RAX, tileDstStride), reg.RCX)
	for p := range s.panels {
		a.MOVQ(mem(reg.RAX, tileSrc+8*p), reg.RSI)
		a.MOVQ(mem(reg.RAX, tileDst+8*p), reg.RDI)
		for i := range s.rows {
			for v := range 2 {
				z := zs[acc(i, p, v)]
				a.VADDPS(mem(reg.RSI, 64*v), z, z)
				a.VMOVUPS(z, mem(reg.RDI, 64*v))
			}
			if i+1 < s.rows {
				a.ADDQ(reg.RBX, reg.RSI)
				a.ADDQ(reg.RCX, reg.RDI)
			}
		}
	}
	a.VZEROUPPER()
	a.RET()
}

// weights512 loads the weights of one k (of two k if f is dot) and 32 columns into Z28 and Z29.
func (a *asm) weights512(f format, w reg.Register, half int) {
	for v := range 2 {
		z := zs[28+v]
		switch f {
		case f32:
			a.VMOVUPS(mem(w, 128*half+64*v), z)
		case f16:
			a.VCVTPH2PS(mem(w, 64*half+32*v), z)
		case bf16:
			if half == 0 {
				a.VPSLLD(operand.U8(16), mem(w, 64*v), z)
			} else {
				a.VPANDD(mem(w, 64*v), reg.Z31, z)
			}
		case dot:
			a.VMOVDQU32(mem(w, 64*v), z)
		}
	}
}

// rowSteps is how many steps before the end of a loop the last row of its tile of y is prefetched, the row before it as many steps earlier,
// and so on: late enough for the first-level cache to keep them, and one after the other. All rows at once would wait for memory together,
// and the x and W of the loop behind them.
const rowSteps = 8

// openLoop begins the loop over the steps of a tile. A tile of one panel stops from time to time before its end to prefetch a row of y.
func (a *asm) openLoop(s shape) (label string) {
	label = s.label("loop")
	if s.panels == 1 {
		a.Comment("R8 = bytes from one to the next of what is prefetched in a step, R9 = three times that, R10 = bytes from step to step")
		a.MOVQ(mem(reg.RAX, tileStreams), reg.R8)
		a.LEAQ(operand.Mem{Base: reg.R8, Index: reg.R8, Scale: 2}, reg.R9)
		a.MOVQ(mem(reg.RAX, tileAheadStep), reg.R10)
		a.Comment("R11 = steps until R12 is added, too")
		a.MOVQ(mem(reg.RAX, tileAheadRows), reg.R11)
		a.MOVQ(mem(reg.RAX, tileAheadWrap), reg.R12)
		a.Comment("R13 = rows of y to prefetch, RBX = the next of them, CX = steps before it")
		a.MOVQ(mem(reg.RAX, tileDst), reg.RBX)
		a.MOVQ(mem(reg.RAX, tileDstStride), reg.R15)
		a.XORL(reg.R13L, reg.R13L)
		a.CMPQ(reg.RCX, operand.U32(rowSteps*s.rows))
		a.JLE(operand.LabelRef(label))
		a.MOVL(operand.U32(s.rows), reg.R13L)
		a.SUBQ(operand.U32(rowSteps*s.rows), reg.RCX)
	}
	a.Label(label)
	return label
}

// closeLoop ends it. bytes is the width of the tile of y.
func (a *asm) closeLoop(s shape, label string, bytes int) {
	a.DECQ(reg.RCX)
	a.JNE(operand.LabelRef(label))
	if s.panels > 1 {
		return
	}
	done := s.label("done")
	a.TESTQ(reg.R13, reg.R13)
	a.JEQ(operand.LabelRef(done))
	for at := 0; at < bytes; at += 64 {
		a.PREFETCHT0(mem(reg.RBX, at))
	}
	a.ADDQ(reg.R15, reg.RBX)
	a.DECQ(reg.R13)
	a.MOVL(operand.U32(rowSteps), reg.ECX)
	a.JMP(operand.LabelRef(label))
	a.Comment("the next row of what is prefetched")
	a.Label(s.label("ahead"))
	a.ADDQ(reg.R12, reg.RDX)
	a.MOVQ(mem(reg.RAX, tileAheadRows), reg.R11)
	a.JMP(operand.LabelRef(s.label("on")))
	a.Label(done)
}

func (a *asm) broadcast512(f format, x operand.Mem) {
	if f == dot {
		a.VPBROADCASTD(x, reg.Z30)
	} else {
		a.VBROADCASTSS(x, reg.Z30)
	}
}

// advance prefetches and moves the pointers past two k.
func (a *asm) advance(f format, s shape, step int) {
	for p := range s.panels {
		for at := 0; at < step; at += 64 {
			if s.panels > 1 {
				a.PREFETCHT0(mem(panelRegs[p], lead+at))
			} else {
				a.PREFETCHT1([]operand.Mem{
					{Base: reg.RDX},
					{Base: reg.RDX, Index: reg.R8, Scale: 1},
					{Base: reg.RDX, Index: reg.R8, Scale: 2},
					{Base: reg.RDX, Index: reg.R9, Scale: 1},
				}[at/64])
			}
		}
		a.ADDQ(operand.I32(step), panelRegs[p])
	}
	if s.panels == 1 {
		a.ADDQ(reg.R10, reg.RDX)
		a.DECQ(reg.R11)
		a.JEQ(operand.LabelRef(s.label("ahead")))
		a.Label(s.label("on"))
	}
	a.ADDQ(operand.I32(f.xStep()*s.rows), reg.RSI)
}

func (a *asm) tiles256() {
	shapes := []shape{{1, 6}, {1, 5}, {1, 4}, {1, 3}, {1, 2}, {1, 1}, {2, 1}}
	for _, v := range []struct {
		f    format
		name string
		what string
	}{
		{f32, "tileF32AVX2", "float32 weights"},
		{f16, "tileF16AVX2", "float16 weights"},
		{bf16, "tileBF16AVX2", "bfloat16 weights"},
	} {
		a.function(v.name, "tile",
			v.name+" adds one block of k to a tile of y: "+v.what+", float32 class.",
			"One panel means 16 of its columns, two panels mean all 32 of each.",
			"",
			"AX tile; CX steps of two k left; SI x; DI, R8 panels; DX what to prefetch, with one panel R8, R9, R10 in which steps",
			"Y0..Y11 sums [row][panel][8 columns]; Y12, Y13 weights; Y14 one x in all lanes; Y15 mask of odd k")
		a.dispatch(shapes)
		for _, s := range shapes {
			a.tile256(v.f, s)
		}
	}
}

func (a *asm) tile256(f format, s shape) {
	vecs := 2 * s.panels // of 8 columns, in one panel
	acc := func(i, p, v int) reg.VecPhysical { return ys[(i*s.panels+p)*vecs+v] }
	a.Label(s.label(""))
	for p := 1; p < s.panels; p++ {
		a.MOVQ(mem(reg.RAX, tileW+8*p), panelRegs[p])
	}
	if f == bf16 {
		a.Comment("Y15 = 0xffff0000 in all lanes")
		a.VPCMPEQD(reg.Y15, reg.Y15, reg.Y15)
		a.VPSLLD(operand.U8(16), reg.Y15, reg.Y15)
	}
	for i := range s.panels * s.rows * vecs {
		a.VXORPS(ys[i], ys[i], ys[i])
	}
	loop := a.openLoop(s)
	for half := range 2 {
		xAt := half * 4 * s.rows
		if s.rows == 1 {
			a.VBROADCASTSS(mem(reg.RSI, xAt), reg.Y14)
		}
		for p := range s.panels {
			for v0 := 0; v0 < vecs; v0 += 2 {
				a.weights256(f, panelRegs[p], half, v0)
				for i := range s.rows {
					if s.rows > 1 {
						a.VBROADCASTSS(mem(reg.RSI, xAt+4*i), reg.Y14)
					}
					a.VFMADD231PS(reg.Y14, reg.Y12, acc(i, p, v0))
					a.VFMADD231PS(reg.Y14, reg.Y13, acc(i, p, v0+1))
				}
			}
		}
	}
	a.advance(f, s, f.step())
	a.closeLoop(s, loop, 64*s.panels)
	a.Comment("dst = src + sums")
	a.MOVQ(mem(reg.RAX, tileSrcStride), reg.RBX)
	a.MOVQ(mem(reg.RAX, tileDstStride), reg.RCX)
	for p := range s.panels {
		a.MOVQ(mem(reg.RAX, tileSrc+8*p), reg.RSI)
		a.MOVQ(mem(reg.RAX, tileDst+8*p), reg.RDI)
		for i := range s.rows {
			for v := range vecs {
				y := acc(i, p, v)
				a.VADDPS(mem(reg.RSI, 32*v), y, y)
				a.VMOVUPS(y, mem(reg.RDI, 32*v))
			}
			if i+1 < s.rows {
				a.ADDQ(reg.RBX, reg.RSI)
				a.ADDQ(reg.RCX, reg.RDI)
			}
		}
	}
	a.VZEROUPPER()
	a.RET()
}

// weights256 loads the weights of one k and of the columns 8*v0..8*v0+15 into Y12 and Y13.
func (a *asm) weights256(f format, w reg.Register, half, v0 int) {
	for v := range 2 {
		y := ys[12+v]
		at := 32 * (v0 + v)
		switch f {
		case f32:
			a.VMOVUPS(mem(w, 128*half+at), y)
		case f16:
			a.VCVTPH2PS(mem(w, 64*half+at/2), y)
		case bf16:
			if half == 0 {
				a.VMOVDQU(mem(w, at), y)
				a.VPSLLD(operand.U8(16), y, y)
			} else {
				a.VPAND(mem(w, at), reg.Y15, y)
			}
		}
	}
}
