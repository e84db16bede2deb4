//go:build !linux

package kernel

import "testing"

// guarded returns n values; only Linux has a guard page after them.
func guarded(tb testing.TB, n int) []float32 { return make([]float32, n) }
