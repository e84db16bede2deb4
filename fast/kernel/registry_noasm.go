//go:build purego || !amd64

package kernel

func archImplementations() []*implementation { return nil }
