package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.probe.
const (
	probeSteps = 0
	probeAt    = 8
)

// limits writes loops that do nothing but what the machine does best, for the ceilings that the products are measured against.
func (a *asm) limits() {
	a.function("peakFMAAVX512", "probe", "peakFMAAVX512 runs 24 independent VFMADD231PS a step on registers of zeros.")
	a.peak(func(i int) { a.VFMADD231PS(reg.Z30, reg.Z31, zs[i]) }, func() {
		for i := range 24 {
			a.VPXORD(zs[i], zs[i], zs[i])
		}
		a.VPXORD(reg.Z30, reg.Z30, reg.Z30)
		a.VPXORD(reg.Z31, reg.Z31, reg.Z31)
	}, 24)

	a.function("peakDotAVX512", "probe", "peakDotAVX512 runs 24 independent VDPBF16PS a step on registers of zeros.")
	a.peak(func(i int) { a.dot(i, 30, 31) }, func() {
		for i := range 24 {
			a.VPXORD(zs[i], zs[i], zs[i])
		}
		a.VPXORD(reg.Z30, reg.Z30, reg.Z30)
		a.VPXORD(reg.Z31, reg.Z31, reg.Z31)
	}, 24)

	a.function("peakFMAAVX2", "probe", "peakFMAAVX2 runs 12 independent VFMADD231PS a step on registers of zeros.")
	a.peak(func(i int) { a.VFMADD231PS(reg.Y14, reg.Y15, ys[i]) }, func() {
		for i := range 16 {
			a.VXORPS(ys[i], ys[i], ys[i])
		}
	}, 12)

	a.function("readStreamsAVX2", "probe",
		"readStreamsAVX2 reads four streams, 256 bytes of each a step, each prefetched 1 KiB ahead.",
		"",
		"CX steps left; DI, R8, R9, R10 streams")
	a.Load(a.Param("t"), reg.RAX)
	a.MOVQ(mem(reg.RAX, probeSteps), reg.RCX)
	for p, r := range panelRegs {
		a.MOVQ(mem(reg.RAX, probeAt+8*p), r)
	}
	for i := range 8 {
		a.VXORPS(ys[i], ys[i], ys[i])
	}
	a.Label("loop")
	for p, r := range panelRegs {
		for at := 0; at < 256; at += 64 {
			a.PREFETCHT0(mem(r, 1024+at)) // 512 to 2048 give the same
			a.VORPS(mem(r, at), ys[2*p], ys[2*p])
			a.VORPS(mem(r, at+32), ys[2*p+1], ys[2*p+1])
		}
		a.ADDQ(operand.I32(256), r)
	}
	a.DECQ(reg.RCX)
	a.JNE(operand.LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

func (a *asm) peak(one func(i int), clear func(), count int) {
	a.Load(a.Param("t"), reg.RAX)
	a.MOVQ(mem(reg.RAX, probeSteps), reg.RCX)
	clear()
	a.Label("loop")
	for i := range count {
		one(i)
	}
	a.DECQ(reg.RCX)
	a.JNE(operand.LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}
