//go:build !linux

package kernel

import (
	"testing"
	"time"
)

// benchNow is the clock of the benchmarks, in seconds.
func benchNow(testing.TB) func() float64 {
	start := time.Now()
	return func() float64 { return time.Since(start).Seconds() }
}
