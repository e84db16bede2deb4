//go:build purego || (!amd64 && !arm64)

package kernel

func archImplementations() []*implementation { return nil }
