package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// The benchmarks run the machine's limit before and after every product, on the same threads, and report the median of the ratios
// of each product to the two limits beside it: "%fma", "%dot" or "%read". Where the two limits differ by more than 3 percent
// somebody else had the machine in between, and the product does not count; "counted" is how many did. If none did, all do.

// clock measures work against a limit.
type clock struct {
	now                func() float64
	limit, work, ratio []float64
	counted            int
}

func (c *clock) step(limit, work func() float64) {
	rate := func(f func() float64) float64 {
		start := c.now()
		amount := f()
		return amount / (c.now() - start) / 1e9
	}
	before := rate(limit)
	w := rate(work)
	after := rate(limit)
	r := 200 * w / (before + after)
	quiet := before < 1.03*after && after < 1.03*before
	if quiet && c.counted == 0 {
		c.limit, c.work, c.ratio = nil, nil, nil
	}
	if quiet || c.counted == 0 {
		c.work, c.ratio, c.limit = append(c.work, w), append(c.ratio, r), append(c.limit, (before+after)/2)
	}
	if quiet {
		c.counted++
	}
}

// report gives the medians.
func (c *clock) report(b *testing.B, limit, unit string) {
	b.ReportMetric(median(c.work), unit)
	b.ReportMetric(median(c.limit), "limit-"+unit)
	b.ReportMetric(median(c.ratio), "%"+limit)
	b.ReportMetric(float64(c.counted), "counted")
	b.ReportMetric(0, "ns/op")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// threads for benchmarks: LLAVAREF_BENCH_THREADS, or all.
func benchThreads() int {
	if n, err := strconv.Atoi(os.Getenv("LLAVAREF_BENCH_THREADS")); err == nil {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// allocate is Alloc for the life of a benchmark, every page touched.
func allocate(b *testing.B, bytes int) []byte {
	mem, free, err := Alloc(bytes)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := free(); err != nil {
			b.Error(err)
		}
	})
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	return mem
}

func floats(mem []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[0])), len(mem)/4)
}

func halfwords(mem []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(&mem[0])), len(mem)/2)
}

// peakSteps makes a limit's run take about a millisecond a thread.
const peakSteps = 5000

func BenchmarkGemm(b *testing.B) {
	shapes := []struct{ k, n int }{{1024, 1024}, {1024, 4096}, {4096, 1024}, {4096, 4096}, {4096, 14336}, {14336, 4096}}
	for _, m := range implementations {
		if !m.enabled || m.name == "generic" {
			continue
		}
		for _, v := range variants {
			if v.class == BFloat16 && m.matmul.dot == nil {
				continue
			}
			for _, s := range shapes {
				for _, rows := range []int{1, 2, 4, 8, 64, 577, 1176, 2928} {
					for _, how := range []string{"packed", "direct"} {
						name := fmt.Sprintf("%s/%v-%v/K=%d/N=%d/M=%d/%s", m.name, v.typ, v.class, s.k, s.n, rows, how)
						b.Run(name, func(b *testing.B) { benchmarkGemm(b, m, v.typ, v.class, rows, s.n, s.k, how == "direct") })
					}
				}
			}
		}
	}
}

func benchmarkGemm(b *testing.B, m *implementation, typ Type, class Class, rows, n, k int, direct bool) {
	pool := newPool(benchThreads(), m)
	defer pool.Close()
	r := rand.New(rand.NewPCG(1, 1))
	x, y, bias := make([]float32, rows*k), make([]float32, rows*n), make([]float32, n)
	for i := range x {
		x[i] = r.Float32() - 0.5
	}
	// Several copies of W, half a GiB in all, so that decoding reads it from memory as in a model, where layers follow each other.
	w := Matrix{Type: typ, N: n, K: k}
	copies := 1
	if rows <= 8 {
		copies = max(1, (1<<29)/(n*k*typ.Size()))
	}
	var ws []*Weights
	var raw []byte
	for i := range copies {
		if direct || i == 0 { // packed weights may all be made of the same ones
			raw = allocate(b, n*k*typ.Size())
		}
		if typ == F32 {
			w.F32 = floats(raw)
			for i := range w.F32 {
				w.F32[i] = float32(i%255-127) / 128
			}
		} else {
			w.U16 = halfwords(raw)
			for i := range w.U16 {
				w.U16[i] = 0x3c00 + uint16(i&63)
			}
		}
		if direct {
			ws = append(ws, Direct(w, class))
		} else {
			ws = append(ws, pool.Pack(allocate(b, PackedSize(w)), w, class))
		}
	}
	flop := func() float64 { return float64(2 * rows * n * k) }
	bytes := func() float64 { return float64(n * k * typ.Size()) }
	what, amount := FMA, flop
	if class == BFloat16 {
		what = Dot
	}
	var region []byte
	if rows <= 2 {
		what, amount = Read, bytes
		region = allocate(b, 64<<20)
	}
	c := clock{now: benchNow(b)}
	i := 0
	for b.Loop() {
		c.step(func() float64 { return pool.Reach(what, peakSteps, region) }, func() float64 {
			pool.Gemm(y, x, rows, ws[i%len(ws)], bias)
			i++
			return amount()
		})
	}
	unit := "GFLOP/s"
	if what == Read {
		unit = "GB/s"
	}
	c.report(b, what.String(), unit)
	if rows > 2 {
		b.ReportMetric(median(c.work)/flop()*bytes(), "GB/s")
	}
}

// BenchmarkPack measures the one-time cost of packing: bytes of W read a second, against reading memory.
func BenchmarkPack(b *testing.B) {
	for _, m := range implementations {
		if !m.enabled {
			continue
		}
		for _, typ := range []Type{F32, F16, BF16} {
			b.Run(m.name+"/"+typ.String(), func(b *testing.B) {
				pool := newPool(benchThreads(), m)
				defer pool.Close()
				const n, k = 4096, 4096
				w := Matrix{Type: typ, N: n, K: k}
				raw := allocate(b, n*k*typ.Size())
				w.F32, w.U16 = floats(raw), halfwords(raw)
				if typ == F32 {
					w.U16 = nil
				}
				to := allocate(b, PackedSize(w))
				c := clock{now: benchNow(b)}
				for b.Loop() {
					c.step(func() float64 { return pool.Reach(Read, 0, raw) }, func() float64 {
						pool.Pack(to, w, Float32)
						return float64(len(raw))
					})
				}
				c.report(b, Read.String(), "GB/s")
			})
		}
	}
}

// BenchmarkWake measures a product that is too small to gain from threads: what a call costs beside its work.
func BenchmarkWake(b *testing.B) {
	for _, threads := range []int{1, benchThreads()} {
		b.Run(strings.TrimSpace(fmt.Sprintf("threads=%d", threads)), func(b *testing.B) {
			pool := NewPool(threads)
			defer pool.Close()
			w := Direct(Matrix{Type: F32, N: 64, K: 2, F32: make([]float32, 128)}, Float32)
			x, y := make([]float32, 2), make([]float32, 64)
			for b.Loop() {
				pool.Gemm(y, x, 1, w, nil)
			}
		})
	}
}
