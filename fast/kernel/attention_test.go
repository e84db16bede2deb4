package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// attention is one attention and its operands.
type attention struct {
	n, keys, heads, kvHeads, dim int
	scale                        float32
	causal                       bool
	q, k, v                      []float32
}

func (a attention) String() string {
	return fmt.Sprintf("%d queries, %d keys, %d/%d heads of %d, scale %v, causal %t", a.n, a.keys, a.heads, a.kvHeads, a.dim, a.scale, a.causal)
}

func randomAttention(r *rand.Rand, n, keys, heads, kvHeads, dim int, causal bool) attention {
	a := attention{n, keys, heads, kvHeads, dim, float32(1 / math.Sqrt(float64(dim))), causal,
		make([]float32, n*heads*dim), make([]float32, keys*kvHeads*dim), make([]float32, keys*kvHeads*dim)}
	// Queries of a few sizes, so that some rows are sharp and some are flat.
	kinds[0].fill(r, a.k)
	kinds[0].fill(r, a.v)
	for i := range n * heads {
		size := math.Ldexp(1, r.IntN(6)-2)
		for d := range dim {
			a.q[i*dim+d] = float32(r.NormFloat64() * size)
		}
	}
	return a
}

// run gives the result through a pool, the keys in chunks of so many positions.
func (a attention) run(p *Pool, kv *KV, chunk int) []float32 {
	kv.Reset()
	width := a.kvHeads * a.dim
	for from := 0; from < a.keys; from += chunk {
		to := min(from+chunk, a.keys)
		p.Append(kv, a.k[from*width:to*width], a.v[from*width:to*width])
	}
	y := make([]float32, len(a.q))
	p.Attend(y, a.q, kv, a.heads, a.scale, a.causal)
	return y
}

// check compares y with float64. A score is off by at most (dim + 2) roundoffs of sum |q||k| scale, and that much is what its
// exponential and the sum are off, relatively; the exponentials are off by 1 + |x| more, the sums by the number of their terms.
func (a attention) check(y []float32) error {
	const u = 0x1p-24
	for i := range a.n {
		for h := range a.heads {
			g := h / (a.heads / a.kvHeads)
			sees := a.keys
			if a.causal {
				sees = a.keys - a.n + i + 1
			}
			q := a.q[(i*a.heads+h)*a.dim:][:a.dim]
			scores, loss := make([]float64, sees), 0.0
			for j := range scores {
				k := a.k[(j*a.kvHeads+g)*a.dim:][:a.dim]
				abs := 0.0
				for d := range q {
					scores[j] += float64(q[d]) * float64(k[d]) * float64(a.scale)
					abs += math.Abs(float64(q[d]) * float64(k[d]) * float64(a.scale))
				}
				loss = max(loss, abs*float64(a.dim+4)*u)
			}
			top := slices.Max(scores)
			sum := 0.0
			for j := range scores {
				scores[j] = math.Exp(scores[j] - top)
				sum += scores[j]
			}
			terms := float64(min(sees, blockKeys)+sees/blockKeys) + 10
			for d := range a.dim {
				want, abs := 0.0, 0.0
				for j, e := range scores {
					v := float64(a.v[(j*a.kvHeads+g)*a.dim+d])
					want += e / sum * v
					abs += e / sum * math.Abs(v)
				}
				got := float64(y[(i*a.heads+h)*a.dim+d])
				limit := abs*(3*loss+u*terms) + float64(sees)*0x1p-126
				if !(math.Abs(got-want) <= limit) {
					return fmt.Errorf("y[%d, head %d, %d] = %v, want %v within %.3g", i, h, d, got, want, limit)
				}
			}
		}
	}
	return nil
}

// attentions are the shapes of the tests: every way of cutting, and every kind of border.
var attentions = []struct {
	n, keys, heads, kvHeads, dim int
	causal                       bool
}{
	{1, 1, 1, 1, 2, true}, {1, 1, 2, 1, 16, false}, {1, 31, 4, 1, 8, true}, {1, 32, 4, 2, 16, true}, {1, 33, 8, 2, 32, true},
	{1, 100, 20, 1, 16, true}, {2, 65, 4, 2, 34, true}, {5, 5, 3, 3, 64, true}, {5, 5, 3, 3, 64, false}, {13, 40, 4, 2, 16, true},
	{14, 64, 4, 2, 16, true}, {15, 63, 4, 1, 48, true}, {33, 33, 2, 2, 64, true}, {33, 33, 2, 2, 64, false}, {64, 97, 4, 2, 128, true},
	{37, 37, 16, 16, 16, false}, {3, 1100, 2, 1, 8, true}, {70, 1060, 2, 1, 8, true}, {40, 2100, 1, 1, 16, false},
}

// TestAttend runs all shapes through every implementation, against float64.
func TestAttend(t *testing.T) {
	defer func(old int) { attendBytes = old }(attendBytes)
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(31, 32))
		for i, s := range attentions {
			if m.name == "generic" && s.n*s.keys*s.heads*s.dim > 1e6 {
				continue
			}
			attendBytes = []int{1, 20 << 10, 384 << 10}[i%3]
			a := randomAttention(r, s.n, s.keys, s.heads, s.kvHeads, s.dim, s.causal)
			kv := NewKV(s.keys+i%3, s.kvHeads, s.dim)
			if err := a.check(a.run(pool, kv, s.keys)); err != nil {
				t.Errorf("%v: %v", a, err)
			}
		}
	})
}

// TestAttendBits holds that the bits of a query's row are the same on every implementation, for any number of threads, for any chunks of
// keys, for any chunk of queries (one by one included, as in decoding), and for any size of a task.
func TestAttendBits(t *testing.T) {
	defer func(old int) { attendBytes = old }(attendBytes)
	r := rand.New(rand.NewPCG(33, 34))
	for _, s := range attentions {
		if s.n*s.keys*s.heads*s.dim > 1e6 || testing.Short() && s.n*s.keys*s.heads*s.dim > 2e5 {
			continue
		}
		a := randomAttention(r, s.n, s.keys, s.heads, s.kvHeads, s.dim, s.causal)
		var want []float32
		each(t, func(t *testing.T, m *implementation) {
			for _, threads := range []int{1, 3} {
				pool := newPool(threads, m)
				kv := NewKV(s.keys+5, s.kvHeads, s.dim)
				for i, chunk := range []int{s.keys, 1, 7, 16, 40} {
					attendBytes = []int{384 << 10, 1, 20 << 10}[i%3]
					y := a.run(pool, kv, chunk)
					if want == nil {
						want = y
					}
					if i := firstDifference(y, want); i >= 0 {
						t.Fatalf("%v: %d threads, keys in chunks of %d: y[%d] = %v, want %v", a, threads, chunk, i, y[i], want[i])
					}
				}
				// Queries in chunks, each after its own keys: as a prompt in pieces, and as decoding.
				for _, chunk := range []int{1, 3, 20} {
					if !s.causal {
						break
					}
					kv.Reset()
					width, row := a.kvHeads*a.dim, a.heads*a.dim
					done := s.keys - s.n
					pool.Append(kv, a.k[:done*width], a.v[:done*width])
					for from := 0; from < s.n; from += chunk {
						to := min(from+chunk, s.n)
						pool.Append(kv, a.k[(done+from)*width:(done+to)*width], a.v[(done+from)*width:(done+to)*width])
						y := make([]float32, (to-from)*row)
						pool.Attend(y, a.q[from*row:to*row], kv, a.heads, a.scale, true)
						if i := firstDifference(y, want[from*row:to*row]); i >= 0 {
							t.Fatalf("%v: %d threads, queries %d to %d: y[%d] = %v, want %v", a, threads, from, to, i, y[i], want[from*row+i])
						}
					}
				}
				pool.Close()
			}
		})
	}
}

// TestKVForgets holds that nothing of positions past Len is read, whatever they were: NaNs here, after Truncate and after Reset.
func TestKVForgets(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(35, 36))
		for _, keys := range []int{1, 2, 15, 16, 31, 32, 33, 47} {
			for _, causal := range []bool{true, false} {
				a := randomAttention(r, 1, keys, 4, 2, 16, causal)
				a.n, a.q = min(keys, 3), make([]float32, min(keys, 3)*4*16)
				kinds[0].fill(r, a.q)
				want := a.run(pool, NewKV(keys, 2, 16), keys)
				kv := NewKV(100, 2, 16)
				bad := make([]float32, 100*2*16)
				for i := range bad {
					bad[i] = float32(math.NaN())
				}
				pool.Append(kv, bad, bad)
				got := a.run(pool, kv, keys) // resets
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("%v: after Reset: y[%d] = %v, want %v", a, i, got[i], want[i])
				}
				pool.Append(kv, bad[:53*2*16], bad[:53*2*16])
				kv.Truncate(keys)
				if kv.Len() != keys {
					t.Errorf("Len = %d, want %d", kv.Len(), keys)
				}
				pool.Attend(got, a.q, kv, 4, a.scale, causal)
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("%v: after Truncate: y[%d] = %v, want %v", a, i, got[i], want[i])
				}
			}
		}
	})
}

// TestCausalLimit holds that the last position that a query sees counts and the one after it does not: its key is made to take all
// of the softmax.
func TestCausalLimit(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(1, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(37, 38))
		const heads, dim = 4, 16
		for _, keys := range []int{20, 40, 64, 70} {
			for _, n := range []int{2, 5, 20} {
				a := randomAttention(r, n, keys, heads, heads/2, dim, true)
				for i := range a.q {
					a.q[i] = 1
				}
				at := keys - n/2 // one query before it, one at it
				for h := range heads / 2 {
					for d := range dim {
						a.k[(at*heads/2+h)*dim+d] = 1000
						a.v[(at*heads/2+h)*dim+d] = 12345
					}
				}
				y := a.run(pool, NewKV(keys, heads/2, dim), keys)
				for i := range n {
					took := y[i*heads*dim] == 12345
					if want := keys-n+i >= at; took != want {
						t.Errorf("%d keys, %d queries: query %d (position %d) sees position %d: %t, want %t", keys, n, i, keys-n+i, at, took, want)
					}
				}
			}
		}
	})
}

// TestSoftmaxFar holds that scores far below the largest count as much as they do, down to denormal exponentials.
func TestSoftmaxFar(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		if err := checkFarScores(m); err != nil {
			t.Error(err)
		}
	})
}

// checkFarScores makes a row of two kinds of scores, and values so large that a lost exponential shows.
func checkFarScores(m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	for _, below := range []float64{1, 20, 60, 80, 81, 85, 87, 88, 95, 100} {
		const keys, dim = 50, 16
		a := attention{1, keys, 1, 1, dim, 1, true, make([]float32, dim), make([]float32, keys*dim), make([]float32, keys*dim)}
		a.q[0] = 1
		for j := 1; j < keys; j++ {
			a.k[j*dim], a.v[j*dim] = float32(-below), 0x1p120
		}
		got := a.run(pool, NewKV(keys, 1, dim), keys)[0]
		e := (keys - 1) * math.Exp(-below)
		want := e * 0x1p120 / (1 + e)
		// A denormal exponential is a whole number of 2^-149.
		limit := want*1e-5 + (keys-1)*0x1p-150*0x1p120
		if !(math.Abs(float64(got)-want) <= limit) {
			return fmt.Errorf("scores %v below the largest: y = %v, want %v within %.3g", below, got, want, limit)
		}
	}
	return nil
}

// TestHugeScores holds that scores that no float32 rounding can tell from each other by less than thousands leave a softmax of
// numbers: the largest takes all. A subtraction after the scale, fused, would leave e to the power of what the scale's rounding lost.
func TestHugeScores(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(1, m)
		defer pool.Close()
		const keys, dim = 40, 16
		for i := range 50 {
			a := attention{1, keys, 1, 1, dim, 0.35355338, true, make([]float32, dim), make([]float32, keys*dim), make([]float32, keys*dim)}
			for d := range dim {
				a.q[d] = float32(1e4 + 37.7*float64(i*d))
			}
			for j := range keys {
				for d := range dim {
					a.k[j*dim+d] = float32(1e9 * (1 + float64((j*7+i)%keys)))
				}
				a.v[j*dim] = float32((j*7 + i) % keys)
			}
			if got := a.run(pool, NewKV(keys, 1, dim), keys)[0]; got != keys-1 {
				t.Errorf("y = %v, want %v", got, keys-1)
			}
		}
	})
}

// TestAttendSpecials holds what infinities and NaNs in q and k do: the row becomes NaN, and no other row changes.
func TestAttendSpecials(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(39, 40))
		for _, bad := range []float64{math.NaN(), math.Inf(1)} {
			a := randomAttention(r, 20, 40, 4, 2, 16, true)
			want := a.run(pool, NewKV(40, 2, 16), 40)
			const query, head = 7, 2
			a.q[(query*4+head)*16+3] = float32(bad)
			got := a.run(pool, NewKV(40, 2, 16), 40)
			for i := range got {
				if i/16 == query*4+head {
					if got[i] == got[i] {
						t.Fatalf("q is %v: y[%d] = %v, want NaN", bad, i, got[i])
					}
				} else if !sameBits(got[i], want[i]) {
					t.Fatalf("q is %v in another row: y[%d] = %v, want %v", bad, i, got[i], want[i])
				}
			}
		}
	})
}

// TestAttendAllocatesNothing holds that neither Append nor Attend allocates once the pool has seen their sizes.
func TestAttendAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(41, 42))
		for _, n := range []int{1, 30} {
			a := randomAttention(r, n, 50, 4, 2, 32, true)
			kv := NewKV(50, 2, 32)
			y := make([]float32, len(a.q))
			call := func() {
				kv.Reset()
				pool.Append(kv, a.k, a.v)
				pool.Attend(y, a.q, kv, 4, a.scale, true)
			}
			call()
			if got := testing.AllocsPerRun(20, call); got != 0 {
				t.Errorf("%v: %v allocations a call, want 0", a, got)
			}
		}
	})
}

// guardedKV is a KV whose keys and values each end at a guard page.
func guardedKV(tb testing.TB, capacity, kvHeads, dim int) *KV {
	kv := NewKV(capacity, kvHeads, dim)
	kv.keys, kv.values = guarded(tb, len(kv.keys)), guarded(tb, len(kv.values))
	return kv
}

// TestAttendPlaces runs attention on memory that ends at guard pages, at different offsets, with all kinds of values, against plain Go.
// Values of v stay finite: an infinity times a probability of 0 is a NaN, and which rows share a tile is the implementation's business.
func TestAttendPlaces(t *testing.T) {
	plain := newPool(1, implementations[len(implementations)-1])
	defer plain.Close()
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(43, 44))
		for _, kind := range kinds {
			for i, s := range attentions {
				if work := s.n * s.keys * s.heads * s.dim; work > 3e5 || testing.Short() && work > 5e4 {
					continue
				}
				a := randomAttention(r, s.n, s.keys, s.heads, s.kvHeads, s.dim, s.causal)
				kind.fill(r, a.q)
				kind.fill(r, a.k)
				want := a.run(plain, NewKV(s.keys, s.kvHeads, s.dim), s.keys)
				for _, p := range []*[]float32{&a.q, &a.k, &a.v} {
					placed, _ := newArena(t, len(*p)).place(len(*p), i%5)
					copy(placed, *p)
					*p = placed
				}
				kv := guardedKV(t, s.keys, s.kvHeads, s.dim)
				pool.Append(kv, a.k, a.v)
				y, check := newArena(t, len(a.q)).place(len(a.q), i%3)
				pool.Attend(y, a.q, kv, a.heads, a.scale, a.causal)
				if err := check(); err != nil {
					t.Fatalf("%s, %v: %v", kind.name, a, err)
				}
				if i := firstDifference(y, want); i >= 0 {
					t.Fatalf("%s, %v: y[%d] = %v, plain Go gives %v", kind.name, a, i, y[i], want[i])
				}
			}
		}
	})
}

// TestKVLayout holds the layout that KV promises, after appending in pieces.
func TestKVLayout(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		for _, dim := range []int{2, 16, 40, 64} {
			const heads, keys = 3, 70
			a := randomAttention(rand.New(rand.NewPCG(45, 46)), 1, keys, heads, heads, dim, true)
			for _, chunk := range []int{1, 5, 16, 32, 70} {
				kv := guardedKV(t, keys, heads, dim)
				for from := 0; from < keys; from += chunk {
					to := min(from+chunk, keys)
					pool.Append(kv, a.k[from*heads*dim:to*heads*dim], a.v[from*heads*dim:to*heads*dim])
				}
				room, columns := 96, ceilDiv(dim, 32)*32
				for at := range keys {
					for h := range heads {
						for d := range columns {
							i := (at*heads + h) * dim
							if d < dim {
								if got, want := kv.keys[((h*room/32+at/32)*dim+d)*32+at%32], a.k[i+d]; got != want {
									t.Fatalf("chunks of %d: key [%d, %d, %d] = %v, want %v", chunk, at, h, d, got, want)
								}
							}
							want := float32(0)
							if d < dim {
								want = a.v[i+d]
							}
							if got := kv.values[((h*columns/32+d/32)*room+at)*32+d%32]; got != want {
								t.Fatalf("chunks of %d: value [%d, %d, %d] = %v, want %v", chunk, at, h, d, got, want)
							}
						}
					}
				}
			}
		}
	})
}

// FuzzAttend looks for a shape or a way of cutting that changes a bit.
func FuzzAttend(f *testing.F) {
	f.Add(uint8(1), uint16(33), uint8(1), uint8(3), uint8(15), uint8(3), true, uint64(1))
	f.Add(uint8(20), uint16(80), uint8(0), uint8(0), uint8(31), uint8(40), false, uint64(2))
	f.Fuzz(func(t *testing.T, n uint8, keys uint16, kvHeads, group, half, chunk uint8, causal bool, seed uint64) {
		s := attention{keys: 1 + int(keys)%1100, kvHeads: 1 + int(kvHeads)%3, dim: 2 + 2*(int(half)%20), causal: causal}
		s.n, s.heads = 1+int(n)%min(40, s.keys), s.kvHeads*(1+int(group)%5)
		a := randomAttention(rand.New(rand.NewPCG(seed, 0)), s.n, s.keys, s.heads, s.kvHeads, s.dim, causal)
		var want []float32
		for _, m := range implementations {
			if !m.enabled || m.name == "generic" && s.n*s.keys*s.heads*s.dim > 1e6 {
				continue
			}
			pool := newPool(2, m)
			got := a.run(pool, guardedKV(t, s.keys, s.kvHeads, s.dim), 1+int(chunk))
			pool.Close()
			if want == nil {
				want = got
				if err := a.check(got); err != nil {
					t.Fatalf("%v: %s: %v", a, m.name, err)
				}
			} else if i := firstDifference(got, want); i >= 0 {
				t.Fatalf("%v: y[%d] = %v by %s, %v by the first", a, i, got[i], m.name, want[i])
			}
		}
	})
}
