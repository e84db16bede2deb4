//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

func archImplementations() []*implementation {
	return []*implementation{
		{name: "neon", runs: cpu.ARM64.HasASIMD, ops: ops{matmul: neonMatmul, vector: neonVector, limits: neonLimits}},
	}
}
