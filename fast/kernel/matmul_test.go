package kernel

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// product is one matrix product and what is known about its result.
type product struct {
	m, n, k int
	typ     Type
	class   Class
	x, bias []float32
	w       Matrix
	values  []float32 // of w
}

func (p product) String() string {
	return fmt.Sprintf("M=%d N=%d K=%d %v %v bias %t", p.m, p.n, p.k, p.typ, p.class, p.bias != nil)
}

// randomProduct makes one whose W ends at a guard page.
func randomProduct(tb testing.TB, r *rand.Rand, kind int, m, n, k int, typ Type, class Class) product {
	p := product{m: m, n: n, k: k, typ: typ, class: class, x: make([]float32, m*k)}
	kinds[kind].fill(r, p.x)
	values := make([]float32, n*k)
	fill := kinds[kind].fill
	if kinds[kind].name == "cancellation" { // of x alone: equal weights in each pair of k
		fill = func(r *rand.Rand, v []float32) {
			for i := range v {
				v[i] = float32(r.NormFloat64())
				if i%k%2 == 1 {
					v[i] = v[i-1]
				}
			}
		}
	}
	fill(r, values)
	if r.IntN(2) == 0 {
		p.bias = make([]float32, n)
		kinds[0].fill(r, p.bias)
	}
	bits, values := narrow(typ, values)
	p.values = values
	p.w = Matrix{Type: typ, N: n, K: k, U16: guardedBits(tb, bits)}
	if typ == F32 {
		p.w.F32 = guarded(tb, len(values))
		copy(p.w.F32, values)
	}
	return p
}

// input is x as the product's class reads it.
func (p product) input() []float32 {
	if p.class == Float32 {
		return p.x
	}
	_, values := narrow(BF16, p.x)
	return values
}

// rows are those that are checked: all of a small product, every 17th and the last ones of a large one.
func (p product) rows() []int {
	var rows []int
	for i := range p.m {
		if p.m*p.n*p.k < 5e6 || i%17 == 0 || i >= p.m-3 {
			rows = append(rows, i)
		}
	}
	return rows
}

// inOrder is the product in the order of sums that the package promises, by the definition of it. Rows that are not checked are NaN.
func (p product) inOrder() []float32 {
	x := p.input()
	y := make([]float32, p.m*p.n)
	for i := range y {
		y[i] = guardCell
	}
	_, size := blocks(even(p.k), p.class)
	for _, i := range p.rows() {
		for j := range p.n {
			var total float32
			if p.bias != nil {
				total = p.bias[j]
			}
			for k0 := 0; k0 < p.k; k0 += size {
				var sum float32
				for k := k0; k < min(k0+size, p.k); k++ {
					sum = fma32(x[i*p.k+k], p.values[j*p.k+k], sum)
				}
				total += sum
			}
			y[i*p.n+j] = total
		}
	}
	return y
}

// checkBound compares y with float64. The bound is the theorem for n = K + 2 roundings: |y - y*| <= gamma_n sum |x||w|, plus what
// flushed denormals may lose in the bf16 class. It is exceeded by a factor of thousands if one term is missing.
func (p product) checkBound(y []float32) error {
	const u = 0x1p-24
	x := p.input()
	nu := float64(p.k+2) * u
	gamma := nu / (1 - nu)
	for _, i := range p.rows() {
		for j := range p.n {
			var sum, abs, most float64
			if p.bias != nil {
				sum, abs = float64(p.bias[j]), math.Abs(float64(p.bias[j]))
			}
			for k := range p.k {
				a, b := float64(x[i*p.k+k]), float64(p.values[j*p.k+k])
				sum += a * b
				abs += math.Abs(a * b)
				most = max(most, math.Abs(a), math.Abs(b))
			}
			limit := gamma*abs + float64(p.k+2)*0x1p-149
			if p.class == BFloat16 {
				limit += float64(p.k) * 0x1p-126 * (2*most + 1)
			}
			got := float64(y[i*p.n+j])
			ok := math.Abs(got-sum) <= limit
			switch {
			case math.IsNaN(sum):
				ok = math.IsNaN(got)
			case math.IsInf(sum, 0):
				ok = got == sum
			}
			if !ok {
				return fmt.Errorf("y[%d, %d] = %v, want %v within %.3g", i, j, got, sum, limit)
			}
		}
	}
	return nil
}

// checkOrder compares y with the promised order of sums, bit by bit.
func (p product) checkOrder(y []float32) error {
	want := p.inOrder()
	for _, i := range p.rows() {
		for j := range p.n {
			if got, want := y[i*p.n+j], want[i*p.n+j]; !sameBits(got, want) {
				return fmt.Errorf("y[%d, %d] = %v (%#08x), want the bits of %v (%#08x)", i, j, got, math.Float32bits(got), want, math.Float32bits(want))
			}
		}
	}
	return nil
}

// weights are W packed, at a guard page, or where it lies.
func (p product) weights(tb testing.TB, pool *Pool, direct bool) *Weights {
	if direct {
		return Direct(p.w, p.class)
	}
	size := PackedSize(p.w)
	mem := guarded(tb, size/4) // a multiple of 64 bytes before the end of a page
	return pool.Pack(unsafe.Slice((*byte)(unsafe.Pointer(&mem[0])), size), p.w, p.class)
}

// variants are all pairs of a type and a class.
var variants = []struct {
	typ   Type
	class Class
}{{F32, Float32}, {F16, Float32}, {BF16, Float32}, {BF16, BFloat16}}

// exact says whether an implementation promises the bits of the order of sums.
func exact(m *implementation, class Class) bool { return class == Float32 || m.matmul.dot == nil }

// arenas are where the tests' x and y live.
type arenas struct{ x, y *arena }

func newArenas(tb testing.TB) arenas {
	return arenas{newArena(tb, 1<<17), newArena(tb, 1<<17)}
}

// run computes the product with x and y at the guard page (or the given number of values before it) and checks all there is to check.
func (p product) run(tb testing.TB, pool *Pool, m *implementation, a arenas, before int, direct bool) {
	tb.Helper()
	x, checkX := a.x.place(len(p.x), before)
	copy(x, p.x)
	y, checkY := a.y.place(p.m*p.n, before)
	for i := range y {
		y[i] = guardCell
	}
	pool.Gemm(y, x, p.m, p.weights(tb, pool, direct), p.bias)
	for what, check := range map[string]func() error{"x": checkX, "y": checkY, "float64": func() error { return p.checkBound(y) }, "order": func() error {
		if !exact(m, p.class) {
			return nil
		}
		return p.checkOrder(y)
	}} {
		if err := check(); err != nil {
			tb.Errorf("%v, %d values before the guard page, direct %t, %d threads: %s: %v", p, before, direct, pool.Threads(), what, err)
		}
	}
}

// TestGemm runs every implementation, type and class over rows, columns and depths around all the multiples that the code cuts at.
func TestGemm(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		a := newArenas(t)
		r := rand.New(rand.NewPCG(1, 2))
		for _, v := range variants {
			for kind := range kinds {
				t.Run(fmt.Sprintf("%v %v %s", v.typ, v.class, kinds[kind].name), func(t *testing.T) {
					run := func(rows, n, k int) {
						if testing.Short() && r.IntN(5) > 0 {
							return
						}
						randomProduct(t, r, kind, rows, n, k, v.typ, v.class).run(t, pool, m, a, r.IntN(20), r.IntN(2) == 0)
					}
					for n := 1; n <= 4*panelWidth+1; n++ {
						run(1+r.IntN(16), n, 1+r.IntN(40))
					}
					for k := 1; k <= 4*panelWidth+1; k++ {
						run(1+r.IntN(16), 1+r.IntN(70), k)
					}
					for rows := 0; rows <= 3*14+1; rows++ {
						run(rows, 1+r.IntN(70), 1+r.IntN(80))
						run(rows, 8*panelWidth, 2+r.IntN(40)) // several panels at a time, where there are loops for it
						run(rows, 5*panelWidth, 2+r.IntN(40)) // and some that are left over
					}
					for _, k := range []int{511, 512, 513, 1023, 1024, 1025, 1026, 2047, 2049, 2051, 3074} {
						run(1+r.IntN(16), 1+r.IntN(40), k)
						run(1, 4*panelWidth, k)
					}
				})
			}
		}
	})
}

// TestGemmLarge crosses the borders between blocks of rows, which threads pack for themselves, panels and blocks of k.
func TestGemmLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(3, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(3, 4))
		for _, v := range variants {
			p := randomProduct(t, r, 0, 601, 200, 1100+1000*int(v.class), v.typ, v.class)
			a := arenas{newArena(t, len(p.x)), newArena(t, p.m*p.n)}
			if m.name == "generic" {
				p.m, p.x = 33, p.x[:33*p.k]
			}
			p.run(t, pool, m, a, 0, false)
			p.run(t, pool, m, a, 0, true)
		}
	})
}

// TestGemmParts has so many threads that all share the packed x, of which there is too much to be packed at once and to stay in a cache.
func TestGemmParts(t *testing.T) {
	defer func(scratch, block int) { scratchBytes, rowsBlockBytes = scratch, block }(scratchBytes, rowsBlockBytes)
	scratchBytes, rowsBlockBytes = 4*100*40, 4*100*30
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(333/leastRows+2, m)
		defer pool.Close()
		if testing.Short() && m.name == "generic" {
			t.Skip("some seconds")
		}
		r := rand.New(rand.NewPCG(5, 6))
		a := newArenas(t)
		for _, v := range variants {
			randomProduct(t, r, 0, 333, 70, 100, v.typ, v.class).run(t, pool, m, a, 0, false)
		}
	})
}

// TestGemmBits holds that the bits of a row do not depend on the other rows, on the threads, or on packing, and are the same every time.
// The bf16 class promises that too.
func TestGemmBits(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, v := range variants {
			p := randomProduct(t, r, 0, 61, 170, 1030+1026*int(v.class), v.typ, v.class)
			if m.name == "generic" || testing.Short() {
				p = randomProduct(t, r, 0, 15, 70, 1030+1026*int(v.class), v.typ, v.class)
			}
			threadCounts, rowCounts := []int{1, 2, 3, 7}, []int{1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 43, 57}
			if testing.Short() {
				threadCounts, rowCounts = []int{1, 3}, []int{1, 2, 4, 7, 14}
			}
			var want []float32
			for _, threads := range threadCounts {
				pool := newPool(threads, m)
				for _, direct := range []bool{false, true} {
					w := p.weights(t, pool, direct)
					y := make([]float32, p.m*p.n)
					pool.Gemm(y, p.x, p.m, w, p.bias)
					if want == nil {
						want = y
					}
					if i := firstDifference(y, want); i >= 0 {
						t.Errorf("%v: %d threads, direct %t: y[%d] = %v, want %v", p, threads, direct, i, y[i], want[i])
					}
					for _, rows := range rowCounts {
						if rows > p.m {
							break
						}
						got := y[:rows*p.n]
						pool.Gemm(got, p.x[:rows*p.k], rows, w, p.bias)
						if i := firstDifference(got, want[:len(got)]); i >= 0 {
							t.Errorf("%v: the first %d rows alone, %d threads, direct %t: y[%d] = %v, want %v", p, rows, threads, direct, i, got[i], want[i])
						}
					}
				}
				pool.Close()
			}
		}
	})
}

func firstDifference(a, b []float32) int {
	for i := range a {
		if !sameBits(a[i], b[i]) {
			return i
		}
	}
	return -1
}

// TestPackLayout holds that every implementation lays weights out as the comment in pack.go says, so that any may read what another packed.
func TestPackLayout(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(9, 10))
		for _, typ := range []Type{F32, F16, BF16} {
			for _, k := range []int{1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 1030} {
				for _, n := range []int{1, 16, 31, 32, 33, 100} {
					p := randomProduct(t, r, 0, 0, n, k, typ, Float32)
					w := p.weights(t, pool, false)
					for i := range len(w.packed) / typ.Size() { // value i of packed
						kEven := even(k)
						panel, at := i/(kEven*panelWidth), i%(kEven*panelWidth)
						row, col := panel*panelWidth+at%panelWidth, at/panelWidth
						if typ == BF16 {
							row, col = panel*panelWidth+at/2%panelWidth, at/2/panelWidth*2+at%2
						}
						var got, want uint32
						if typ == F32 {
							got = *(*uint32)(unsafe.Pointer(&w.packed[4*i]))
						} else {
							got = uint32(*(*uint16)(unsafe.Pointer(&w.packed[2*i])))
						}
						if row < n && col < k {
							if typ == F32 {
								want = math.Float32bits(p.w.F32[row*k+col])
							} else {
								want = uint32(p.w.U16[row*k+col])
							}
						}
						if got != want {
							t.Fatalf("%v N=%d K=%d: packed[%d] = %#x, want W[%d, %d] = %#x", typ, n, k, i, got, row, col, want)
						}
					}
				}
			}
		}
	})
}

// TestGemmAllocatesNothing holds that a product allocates nothing once the pool has seen its size.
func TestGemmAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(11, 12))
		for _, v := range variants {
			for _, rows := range []int{1, 2, 8, 40} {
				for _, direct := range []bool{false, true} {
					p := randomProduct(t, r, 0, rows, 70, 101, v.typ, v.class)
					w := p.weights(t, pool, direct)
					y := make([]float32, p.m*p.n)
					call := func() { pool.Gemm(y, p.x, p.m, w, p.bias) }
					call()
					if got := testing.AllocsPerRun(20, call); got != 0 {
						t.Errorf("%v direct %t: %v allocations a call, want 0", p, direct, got)
					}
				}
			}
		}
	})
}

// TestPoolEnds holds that Close leaves no goroutine behind, used or not, and may be called twice.
func TestPoolEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	r := rand.New(rand.NewPCG(13, 14))
	for i := range 50 {
		pool := NewPool(1 + i%5)
		if i%2 == 0 {
			p := randomProduct(t, r, 0, 20, 100, 30, F32, Float32)
			pool.Gemm(make([]float32, p.m*p.n), p.x, p.m, p.weights(t, pool, true), nil)
		}
		pool.Close()
		pool.Close()
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines after closing all pools, %d before", after, before)
	}
}

// TestPoolWaits holds that a thread that slept until the tasks of others are done is woken.
func TestPoolWaits(t *testing.T) {
	defer func(was time.Duration) { patience = was }(patience)
	patience = 0
	pool := NewPool(2)
	defer pool.Close()
	for range 100 {
		var inside atomic.Int64
		pool.phases = append(pool.phases[:0], phase{kind: probeLimit, tasks: 2})
		pool.job = job{loop: func(at *probe) {
			for inside.Add(1); inside.Load() < 2; { // one task each
				runtime.Gosched()
			}
			for at != &pool.workers[0].probe && pool.sleepers.Load() == 0 {
				runtime.Gosched()
			}
		}}
		pool.run()
	}
}

// TestPoolSleeps holds that helpers that went to sleep come back: with more threads than processors, with as many, and with so little
// patience that they sleep all the time.
func TestPoolSleeps(t *testing.T) {
	defer func(was time.Duration) { patience = was }(patience)
	for _, c := range []struct {
		threads  int
		patience time.Duration
	}{{3, patience}, {2, patience}, {2, 0}} {
		t.Run(fmt.Sprintf("%d threads, %v", c.threads, c.patience), func(t *testing.T) {
			patience = c.patience
			pool := NewPool(c.threads)
			defer pool.Close()
			r := rand.New(rand.NewPCG(15, 16))
			p := randomProduct(t, r, 0, 30, 100, 60, F32, Float32)
			w := p.weights(t, pool, false)
			y := make([]float32, p.m*p.n)
			for i := range 200 {
				if i%4 == 0 { // until all helpers sleep
					for _, h := range pool.workers[1:] {
						for !h.parked.Load() {
							runtime.Gosched()
						}
					}
				}
				clear(y)
				pool.Gemm(y, p.x, p.m, w, p.bias)
				if err := p.checkOrder(y); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMisuse holds that the caller's mistakes are refused before anything is written.
func TestMisuse(t *testing.T) {
	pool := NewPool(1)
	defer pool.Close()
	w := Direct(Matrix{Type: F32, N: 3, K: 2, F32: make([]float32, 6)}, Float32)
	both := make([]float32, 8)
	for name, call := range map[string]func(){
		"short x":               func() { pool.Gemm(make([]float32, 6), make([]float32, 3), 2, w, nil) },
		"long y":                func() { pool.Gemm(make([]float32, 7), make([]float32, 4), 2, w, nil) },
		"short bias":            func() { pool.Gemm(make([]float32, 6), make([]float32, 4), 2, w, make([]float32, 2)) },
		"negative rows":         func() { pool.Gemm(nil, nil, -1, w, nil) },
		"y overlaps x":          func() { pool.Gemm(both[2:8], both[:4], 2, w, nil) },
		"y overlaps bias":       func() { pool.Gemm(both[:3], make([]float32, 2), 1, w, both[2:5]) },
		"weights missing":       func() { Direct(Matrix{Type: F16, N: 3, K: 2, U16: make([]uint16, 5)}, Float32) },
		"no weights":            func() { Direct(Matrix{}, Float32) },
		"bf16 class of float16": func() { Direct(Matrix{Type: F16, N: 3, K: 2, U16: make([]uint16, 6)}, BFloat16) },
		"bf16 class of float32": func() { w.WithClass(BFloat16) },
		"packed memory short":   func() { pool.Pack(make([]byte, 64), w.direct, Float32) },
		"no threads":            func() { NewPool(0) },
		"unknown name":          func() { nameList("LLAVAREF_DISABLE", "avx3") },
		"generic disabled":      func() { register(nil, "generic") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted, want a panic")
				}
			}()
			call()
		})
	}
}

// TestDisable holds which implementations a list leaves.
func TestDisable(t *testing.T) {
	for disable, want := range map[string][]string{
		"":                    {"a+b", "a", "generic"},
		"avx512":              {"generic"},
		" avx512bf16 , neon,": {"a", "generic"},
	} {
		list := register([]*implementation{{name: "avx512bf16", needs: []string{"avx512"}, runs: true}, {name: "avx512", runs: true}, {name: "avx2"}}, disable)
		var got []string
		for _, m := range list {
			if m.enabled {
				got = append(got, map[string]string{"avx512bf16": "a+b", "avx512": "a", "generic": "generic"}[m.name])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("LLAVAREF_DISABLE=%q leaves %q, want %q", disable, got, want)
		}
	}
}

// TestFMA32 compares the generic fused multiply-add with exact arithmetic, near ties above all.
func TestFMA32(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	random := func() float32 {
		switch r.IntN(4) {
		case 0:
			return math.Float32frombits(r.Uint32())
		case 1: // few bits: products that are ties
			return float32(math.Ldexp(float64(r.IntN(1<<13)-1<<12), r.IntN(40)-20))
		case 2:
			return float32(math.Ldexp(float64(r.IntN(1<<13)-1<<12), -r.IntN(149)))
		}
		return float32(r.NormFloat64())
	}
	for range 500_000 {
		a, b, c := random(), random(), random()
		got := fma32(a, b, c)
		p := float64(a) * float64(b)
		if math.IsNaN(p+float64(c)) || math.IsInf(p+float64(c), 0) {
			if !sameBits(got, float32(p+float64(c))) {
				t.Fatalf("fma32(%v, %v, %v) = %v", a, b, c, got)
			}
			continue
		}
		var exact big.Float
		exact.SetPrec(1000).Add(big.NewFloat(p), big.NewFloat(float64(c)))
		if want, _ := exact.Float32(); !sameBits(got, want) {
			t.Fatalf("fma32(%v, %v, %v) = %v, want %v", a, b, c, got, want)
		}
	}
}

// FuzzGemm looks for a shape, a place or a value that an implementation gets wrong.
func FuzzGemm(f *testing.F) {
	f.Add(uint8(1), uint8(32), uint16(64), uint8(0), uint8(0), uint64(1))
	f.Add(uint8(15), uint8(33), uint16(513), uint8(3), uint8(4), uint64(2))
	f.Fuzz(func(t *testing.T, rows, n uint8, k uint16, variant, kind uint8, seed uint64) {
		v := variants[int(variant)%len(variants)]
		r := rand.New(rand.NewPCG(seed, 0))
		a := newArenas(t)
		p := randomProduct(t, r, int(kind)%len(kinds), int(rows)%48, 1+int(n), 1+int(k)%1100, v.typ, v.class)
		for _, m := range implementations {
			if m.enabled {
				pool := newPool(2, m)
				p.run(t, pool, m, a, r.IntN(20), seed%2 == 0)
				pool.Close()
			}
		}
	})
}
