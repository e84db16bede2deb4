package kernel

import (
	"fmt"
	"testing"
)

// BenchmarkAttend measures Append and Attend against the FMA peak, or where there is one query against reading memory: the vision tower,
// a prompt at once and in chunks, and a step of decoding, with the heads of LLaVA-1.6 on Llama 3 and on CLIP.
func BenchmarkAttend(b *testing.B) {
	for _, m := range implementations {
		if !m.enabled || m.name == "generic" || m.name == "avx512bf16" {
			continue
		}
		for _, s := range []struct {
			name                         string
			n, keys, heads, kvHeads, dim int
			causal                       bool
		}{
			{"vision", 577, 577, 16, 16, 64, false},
			{"prefill", 512, 512, 32, 8, 128, true},
			{"prefill", 512, 2340, 32, 8, 128, true},
			{"prefill", 2340, 2340, 32, 8, 128, true},
			{"decode", 1, 64, 32, 8, 128, true},
			{"decode", 1, 2400, 32, 8, 128, true},
			{"decode", 1, 2400, 32, 32, 128, true},
		} {
			b.Run(fmt.Sprintf("%s/%s/n=%d/keys=%d/heads=%d-%d", m.name, s.name, s.n, s.keys, s.heads, s.kvHeads), func(b *testing.B) {
				pool := newPool(benchThreads(), m)
				defer pool.Close()
				width := s.kvHeads * s.dim
				k, q, y := make([]float32, s.keys*width), make([]float32, s.n*s.heads*s.dim), make([]float32, s.n*s.heads*s.dim)
				for i := range k {
					k[i] = float32(i%1001-500) / 500
				}
				for i := range q {
					q[i] = float32(i%997-500) / 500
				}
				// As many caches as layers, up to half a GiB, so that decoding reads them from memory.
				copies := 1
				if s.n == 1 {
					copies = max(1, min(32, (1<<29)/KVBytes(s.keys, s.kvHeads, s.dim)))
				}
				var kvs []*KV
				for range copies {
					kv := NewKV(s.keys, s.kvHeads, s.dim)
					pool.Append(kv, k[:(s.keys-s.n)*width], k[:(s.keys-s.n)*width])
					kvs = append(kvs, kv)
				}
				sees := 0
				for i := range s.n {
					if s.causal {
						sees += s.keys - s.n + i + 1
					} else {
						sees += s.keys
					}
				}
				what, amount, unit := FMA, float64(4*s.dim*s.heads)*float64(sees), "GFLOP/s"
				region := []byte(nil)
				if s.n == 1 {
					what, amount, unit = Read, float64(8*width*s.keys), "GB/s"
					region = allocate(b, 64<<20)
				}
				c := clock{now: benchNow(b)}
				i := 0
				for b.Loop() {
					c.step(func() float64 { return pool.Reach(what, peakSteps, region) }, func() float64 {
						kv := kvs[i%copies]
						i++
						kv.Truncate(s.keys - s.n)
						pool.Append(kv, k[len(k)-s.n*width:], k[len(k)-s.n*width:])
						pool.Attend(y, q, kv, s.heads, 0.1, s.causal)
						return amount
					})
				}
				c.report(b, what.String(), unit)
			})
		}
	}
}

// BenchmarkValues measures the operations on values: bytes read and written a second, against reading memory.
func BenchmarkValues(b *testing.B) {
	const n = 1 << 22
	for _, m := range implementations {
		if !m.enabled || m.name == "generic" || m.name == "avx512bf16" {
			continue
		}
		pool := newPool(benchThreads(), m)
		region := allocate(b, 64<<20)
		x, z, y, bits := floats(allocate(b, 4*n)), floats(allocate(b, 4*n)), floats(allocate(b, 4*n)), halfwords(allocate(b, 2*n))
		w := make([]float32, 4096)
		for i := range x {
			x[i] = float32(i%1001-500) / 100
			z[i] = x[i]
		}
		for _, op := range []struct {
			name  string
			bytes int // a value
			run   func()
		}{
			{"Add", 12, func() { pool.Add(y, x, z) }}, {"SiLUMul", 12, func() { pool.SiLUMul(y, x, z) }}, {"QuickGELU", 8, func() { pool.QuickGELU(y, x) }}, {"GELU", 8, func() { pool.GELU(y, x) }},
			{"LayerNorm1024", 8, func() { pool.LayerNorm(y, x, 1024, w[:1024], w[:1024], 1e-5) }}, {"RMSNorm4096", 8, func() { pool.RMSNorm(y, x, 4096, w, 1e-5) }},
			{"Rope32x128", 8, func() { pool.Rope(y, x, 32, 128, z[:n/32], z[:n/32]) }},
			{"WidenBF16", 6, func() { pool.Widen(y, bits, BF16) }}, {"WidenF16", 6, func() { pool.Widen(y, bits, F16) }}, {"RoundBF16", 6, func() { pool.Round(bits, x, BF16) }},
		} {
			b.Run(m.name+"/"+op.name, func(b *testing.B) {
				c := clock{now: benchNow(b)}
				for b.Loop() {
					c.step(func() float64 { return pool.Reach(Read, 0, region) }, func() float64 { op.run(); return float64(n * op.bytes) })
				}
				c.report(b, Read.String(), "GB/s")
			})
		}
		pool.Close()
	}
}
