// Package bench measures the fast engine and its kernels against what the machine can do.
//
// A figure of speed alone says little: clocks move, machines differ, and somebody else may have the processor. So every
// piece of work runs between two measurements of the limit that it should reach, by the same number of threads and in
// the same second, and what is reported first is the ratio. A limit is fused multiply-adds (fma), products of bfloat16
// pairs (dot) or bytes read from memory (read), as [kernel.Pool.Reach] finds them.
//
// A [Result] is plain values: it is written as text, as JSON, in the format of Go's benchmarks and as a roofline drawing,
// and [Compare] holds two of them against each other.
package bench
