//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

func archImplementations() []*implementation {
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA && x.HasF16C
	avx512 := avx2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	return []*implementation{
		{name: "avx512bf16", needs: []string{"avx512"}, runs: avx512 && x.HasAVX512BF16, ops: ops{matmul: avx512BF16Matmul, vector: avx512Vector, limits: avx512BF16Limits}},
		{name: "avx512", runs: avx512, ops: ops{matmul: avx512Matmul, vector: avx512Vector, limits: avx512Limits}},
		{name: "avx2", runs: avx2, ops: ops{matmul: avx2Matmul, vector: avx2Vector, limits: avx2Limits}},
	}
}
