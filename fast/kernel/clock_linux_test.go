package kernel

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchNow is the clock of the benchmarks, in seconds. With LLAVAREF_BENCH_CLOCK=cpu it is the processor time of the whole
// process over the number of threads: what the wall clock would show if nobody else used the machine and all threads were busy.
func benchNow(tb testing.TB) func() float64 {
	if os.Getenv("LLAVAREF_BENCH_CLOCK") != "cpu" {
		start := time.Now()
		return func() float64 { return time.Since(start).Seconds() }
	}
	return func() float64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
			tb.Fatal(err)
		}
		return float64(t.Nano()) / 1e9 / float64(benchThreads())
	}
}
