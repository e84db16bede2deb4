package bench

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/llavaref/llavaref/fast/kernel"
)

// The limits of an implementation that has no loops for them are those of plain Go: products and sums of single float32, and 8 bytes at a time.
// Products of bfloat16 pairs have none: fused multiply-adds stand in.

// sink keeps the results, so that the loops are not left out.
var sink atomic.Uint64

// plainReach is kernel.Pool.Reach in plain Go: how much was done, FLOP or bytes; 0 for kernel.Dot.
func plainReach(l kernel.Limit, threads, steps int, mem []byte) float64 {
	if l == kernel.Dot {
		return 0
	}
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			if l == kernel.FMA {
				sink.Add(uint64(multiplyAdds(steps)))
				return
			}
			part := len(mem) / threads &^ 7
			sink.Add(sumWords(mem[i*part:][:part]))
		})
	}
	wg.Wait()
	if l == kernel.FMA {
		return float64(threads) * float64(steps) * 16
	}
	return float64(threads * (len(mem) / threads &^ 7))
}

// multiplyAdds does eight products and sums a step that do not wait for each other.
func multiplyAdds(steps int) float32 {
	var a, b, c, d, e, f, g, h float32
	const x, y = 0.999, 0.125
	for range steps {
		a, b, c, d = a*x+y, b*x+y, c*x+y, d*x+y
		e, f, g, h = e*x+y, f*x+y, g*x+y, h*x+y
	}
	return a + b + c + d + e + f + g + h
}

func sumWords(mem []byte) uint64 {
	var a, b, c, d uint64
	for ; len(mem) >= 32; mem = mem[32:] {
		a += binary.LittleEndian.Uint64(mem)
		b += binary.LittleEndian.Uint64(mem[8:])
		c += binary.LittleEndian.Uint64(mem[16:])
		d += binary.LittleEndian.Uint64(mem[24:])
	}
	return a + b + c + d
}
