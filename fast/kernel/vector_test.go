package kernel

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/x448/float16"
)

var exhaustive = flag.Bool("exhaustive", false, "TestElementary over all float32, not a sample of them")

// elementary are the functions of one number: what they are, and how many units in the last place of the result they may be off. A relative
// limit of 0 means that the error is a multiple of x: see GELU.
var elementary = []struct {
	name string
	loop func(*vectorOps) func(*vector)
	want func(x float64) float64
	ulp  float64
}{
	{"exp", func(o *vectorOps) func(*vector) { return o.exp }, math.Exp, 1.1},
	{"erf", func(o *vectorOps) func(*vector) { return o.erf }, math.Erf, 2},
	{"SiLU", func(o *vectorOps) func(*vector) { return o.silu }, func(x float64) float64 { return x / (1 + math.Exp(-x)) }, 2},
	{"QuickGELU", func(o *vectorOps) func(*vector) { return o.quickGELU }, func(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }, 2},
	{"GELU", func(o *vectorOps) func(*vector) { return o.gelu }, func(x float64) float64 { return x * (1 + math.Erf(x/math.Sqrt2)) / 2 }, 0},
}

// ulpOf is the distance of float32s around v, which is a float64.
func ulpOf(v float64) float64 {
	_, e := math.Frexp(v)
	return math.Ldexp(1, max(e-24, -149))
}

// TestElementary holds every function of one number against float64, and all implementations to the same bits: for a sample of all
// float32, or for all of them with -exhaustive (plain Go for one in 16, it would take an hour).
func TestElementary(t *testing.T) {
	for _, f := range elementary {
		t.Run(f.name, func(t *testing.T) {
			step := uint64(1021)
			switch {
			case *exhaustive:
				step = 1
			case testing.Short():
				step = 65537
			}
			var mu sync.Mutex
			var wg sync.WaitGroup
			worst, worstAt := 0.0, float32(0)
			next := make(chan uint64, 8)
			for range 2 {
				wg.Go(func() {
					most, mostAt := 0.0, float32(0)
					for first := range next {
						x, y := make([]float32, elementaryChunk), make([]float32, elementaryChunk)
						for i := range x {
							x[i] = math.Float32frombits(uint32(min(first+uint64(i)*step, 1<<32-1)))
						}
						have := ""
						for _, m := range implementations {
							if !m.enabled || m.name == "generic" && have != "" && *exhaustive && first/elementaryChunk%16 != 0 {
								continue
							}
							other := make([]float32, elementaryChunk)
							f.loop(&m.vector)(&vector{n: len(x), y: address(other), a: address(x)})
							if have == "" {
								have, y = m.name, other
							} else if i := firstDifference(other, y); i >= 0 {
								t.Errorf("%s(%v) (%#x) = %v by %s, %v by %s", f.name, x[i], math.Float32bits(x[i]), other[i], m.name, y[i], have)
							}
						}
						for i, x := range x {
							if err := elementaryError(f.want(float64(x)), y[i], x, f.ulp == 0); err > most || err != err {
								most, mostAt = err, x
							}
						}
					}
					mu.Lock()
					if !(most <= worst) {
						worst, worstAt = most, mostAt
					}
					mu.Unlock()
				})
			}
			for first := uint64(0); first < 1<<32; first += elementaryChunk * step {
				next <- first
			}
			close(next)
			wg.Wait()
			limit := f.ulp
			if limit == 0 {
				limit = 2
			}
			t.Logf("%s: at most %.3f units, at %v (%#x)", f.name, worst, worstAt, math.Float32bits(worstAt))
			if !(worst <= limit) {
				t.Errorf("%v units off at %v (%#x), want at most %v; exact is %v", worst, worstAt, math.Float32bits(worstAt), limit, f.want(float64(worstAt)))
			}
		})
	}
}

const elementaryChunk = 1 << 12

// elementaryError is how far y is from what is exact, in units in the last place of that, or of x/2.
func elementaryError(want float64, y, x float32, ofX bool) float64 {
	switch {
	case math.IsNaN(want):
		if y != y {
			return 0
		}
	case math.IsInf(want, 0) || math.Abs(want) >= math.MaxFloat32*(1+0x1p-25):
		if math.IsInf(float64(y), int(math.Copysign(1, want))) {
			return 0
		}
	case ofX:
		return math.Abs(float64(y)-want) / (0x1p-24*math.Abs(float64(x)) + 0x1p-149)
	default:
		return math.Abs(float64(y)-want) / ulpOf(want)
	}
	return math.Inf(1)
}

// valueOps are the operations on values, as a caller sees them: y, and up to two operands.
var valueOps = []struct {
	name     string
	operands int
	run      func(p *Pool, y, a, b []float32)
	want     func(a, b float64) float64 // nil: bits only
	relative float64                    // of |want|, in units of 2^-24
	absolute float64                    // of |a|
}{
	{"Add", 2, (*Pool).Add, func(a, b float64) float64 { return a + b }, 1, 0},
	{"Mul", 2, (*Pool).Mul, func(a, b float64) float64 { return a * b }, 1, 0},
	{"SiLU", 1, func(p *Pool, y, a, _ []float32) { p.SiLU(y, a) }, func(a, _ float64) float64 { return a / (1 + math.Exp(-a)) }, 4, 0},
	{"SiLUMul", 2, (*Pool).SiLUMul, func(a, b float64) float64 { return a / (1 + math.Exp(-a)) * b }, 6, 0},
	{"QuickGELU", 1, func(p *Pool, y, a, _ []float32) { p.QuickGELU(y, a) }, func(a, _ float64) float64 { return a / (1 + math.Exp(-1.702*a)) }, 4, 0},
	{"GELU", 1, func(p *Pool, y, a, _ []float32) { p.GELU(y, a) }, func(a, _ float64) float64 { return a * (1 + math.Erf(a/math.Sqrt2)) / 2 }, 0, 2},
}

// lengths are those of the tests of values: none to four vectors, and some that are cut into tasks.
func lengths() []int {
	var l []int
	for n := range 4*lanes + 3 {
		l = append(l, n)
	}
	return append(l, 1000, 1024, 4097)
}

// TestValues runs every operation on values: implementations, lengths, places, kinds of values, apart and in place, between guards.
func TestValues(t *testing.T) {
	defer func(old int) { taskValues = old }(taskValues)
	taskValues = 300
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		plain := newPool(1, implementations[len(implementations)-1])
		defer plain.Close()
		arenas := [3]*arena{newArena(t, 5000), newArena(t, 5000), newArena(t, 5000)}
		for _, op := range valueOps {
			t.Run(op.name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(21, 22))
				for _, kind := range kinds {
					for i, n := range lengths() {
						if testing.Short() && n > 64 && n%16 > 1 {
							continue
						}
						before := i * 7 % 19
						a, _ := arenas[0].place(n, before)
						b, _ := arenas[1].place(n, (before+3)%5)
						kind.fill(r, a)
						if clear(b); op.operands > 1 {
							kind.fill(r, b)
						}
						a0, b0 := slices.Clone(a), slices.Clone(b)
						want := make([]float32, n)
						op.run(plain, want, a0, b0)
						for place := range 1 + op.operands { // y is apart, a, b
							copy(a, a0)
							copy(b, b0)
							y, check := arenas[2].place(n, before/2)
							if place > 0 {
								y = [][]float32{a, b}[place-1]
								place := place
								check = func() error {
									for i, v := range [][]float32{b, a}[place-1] {
										if math.Float32bits(v) != math.Float32bits([][]float32{b0, a0}[place-1][i]) {
											return fmt.Errorf("wrote to operand %d", 2-place)
										}
									}
									return nil
								}
							}
							op.run(pool, y, a, b)
							if err := check(); err != nil {
								t.Fatalf("%s n=%d place %d: %v", kind.name, n, place, err)
							}
							for i := range y {
								x := float64(a0[i])
								exact := op.want(x, float64(b0[i]))
								limit := op.relative*0x1p-24*math.Abs(exact) + op.absolute*0x1p-24*math.Abs(x) + 0x1p-148*(1+math.Abs(float64(b0[i])))
								ok := math.Abs(float64(y[i])-exact) <= limit || math.IsNaN(exact) && y[i] != y[i] || float64(y[i]) == exact
								if !ok || !sameBits(y[i], want[i]) {
									t.Fatalf("%s n=%d place %d: y[%d] = %v of %v and %v, want %v within %.3g, and the bits of plain Go, %v", kind.name, n, place, i, y[i], a0[i], b0[i], exact, limit, want[i])
								}
							}
						}
					}
				}
			})
		}
	})
}

// TestWidenAndRound holds all 2^16 numbers of both types, and rounding over a sample of all float32 and all ties between neighbours.
func TestWidenAndRound(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		all := guardedBits(t, make([]uint16, 1<<16))
		for i := range all {
			all[i] = uint16(i)
		}
		for _, typ := range []Type{F16, BF16} {
			t.Run(typ.String(), func(t *testing.T) {
				value := func(bits uint16) float32 {
					if typ == F16 {
						return float16.Frombits(bits).Float32()
					}
					return math.Float32frombits(uint32(bits) << 16)
				}
				nearest := func(x float32) uint16 { bits, _ := narrow(typ, []float32{x}); return bits[0] }
				for cut := range 70 {
					wide := guarded(t, len(all)-cut)
					pool.Widen(wide, all[cut:], typ)
					for i, got := range wide {
						if want := value(all[cut+i]); !sameBits(got, want) {
							t.Fatalf("Widen %#x = %v, want %v", all[cut+i], got, want)
						}
					}
					if testing.Short() && cut > 3 {
						break
					}
				}
				var x []float32
				for bits := range uint16(0x7f80) {
					a, b := value(bits), value(bits+1)
					tie := float32((float64(a) + float64(b)) / 2)
					x = append(x, a, tie, math.Nextafter32(tie, 0), math.Nextafter32(tie, math.MaxFloat32), -tie, -a)
				}
				x = append(x, float32(math.NaN()), math.Float32frombits(0x7f800001), math.Float32frombits(0xffffffff), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32)
				for bits := uint64(0); bits < 1<<32; bits += 40009 {
					x = append(x, math.Float32frombits(uint32(bits)))
				}
				from := guarded(t, len(x))
				copy(from, x)
				got := guardedBits(t, make([]uint16, len(x)))
				pool.Round(got, from, typ)
				for i, x := range x {
					want := nearest(x)
					if got[i] != want && !(x != x && value(got[i]) != value(got[i])) {
						t.Fatalf("Round %v (%#x) = %#x, want %#x", x, math.Float32bits(x), got[i], want)
					}
				}
				for n := range 100 {
					got := guardedBits(t, make([]uint16, n))
					for i := range got {
						got[i] = 0x5a5a
					}
					pool.Round(got, from[len(from)-n:], typ)
					for i := range got {
						if want := nearest(from[len(from)-n+i]); got[i] != want && from[len(from)-n+i] == from[len(from)-n+i] {
							t.Fatalf("Round, %d values: [%d] = %#x, want %#x", n, i, got[i], want)
						}
					}
				}
			})
		}
	})
}

// TestNorms holds both norms against float64, row by row, in place and apart, for widths with and without tails.
// The limits: a sum of n squares in 32 lanes loses (n/32 + 8) roundoffs at most, half of which reach y, which takes four more;
// the mean loses as many, of the mean of |x|.
func TestNorms(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		plain := newPool(1, implementations[len(implementations)-1])
		defer plain.Close()
		const most = 6 * 1024
		in, weights, biases, out := newArena(t, most), newArena(t, 1024), newArena(t, 1024), newArena(t, most)
		r := rand.New(rand.NewPCG(23, 24))
		for _, kind := range kinds {
			for width := 1; width <= 1024; width++ {
				if width > 4*lanes+2 && width != 1000 && width != 1024 {
					continue
				}
				for _, rows := range []int{1, 5} {
					x, _ := in.place(width*rows, width%7)
					w, _ := weights.place(width, width%3)
					b, _ := biases.place(width, width%5)
					kind.fill(r, x)
					kinds[0].fill(r, w)
					kinds[0].fill(r, b)
					x0 := slices.Clone(x)
					for _, eps := range []float64{1e-5, 1e-2} {
						for _, layer := range []bool{true, false} {
							for _, inPlace := range []bool{true, false} {
								copy(x, x0)
								y, check := out.place(width*rows, width%11)
								if inPlace {
									y, check = x, func() error { return nil }
								}
								want := make([]float32, len(x))
								if layer {
									plain.LayerNorm(want, x0, width, w, b, eps)
									pool.LayerNorm(y, x, width, w, b, eps)
								} else {
									plain.RMSNorm(want, x0, width, w, eps)
									pool.RMSNorm(y, x, width, w, eps)
								}
								if err := check(); err != nil {
									t.Fatalf("%s width %d: %v", kind.name, width, err)
								}
								if i := firstDifference(y, want); i >= 0 {
									t.Fatalf("%s layer %t, width %d: y[%d] = %v, plain Go gives %v", kind.name, layer, width, i, y[i], want[i])
								}
								for r := range rows {
									if err := checkNorm(y[r*width:][:width], x0[r*width:][:width], w, b, eps, layer); err != nil {
										t.Fatalf("%s layer %t, width %d, %d rows: row %d: %v", kind.name, layer, width, rows, r, err)
									}
								}
							}
						}
					}
				}
			}
		}
	})
}

func checkNorm(y, x, w, b []float32, eps float64, layer bool) error {
	const u = 0x1p-24
	n := float64(len(x))
	var mean, abs, variance float64
	for _, v := range x {
		mean += float64(v) / n
		abs += math.Abs(float64(v)) / n
	}
	if !layer {
		mean, abs = 0, 0
	}
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean) / n
	}
	scale := 1 / math.Sqrt(variance+eps)
	loss := n/lanes + 8
	shift := loss * u * abs // error of the mean
	for i, v := range x {
		want := (float64(v) - mean) * scale * float64(w[i])
		limit := u*(loss/2+6)*math.Abs(want) + scale*math.Abs(float64(w[i]))*(shift+u*math.Abs(mean)*2)
		// An error of the mean moves the variance by its square, and the rounding of each x - mean by what that loses.
		limit += math.Abs(want) * (scale*scale*(shift*shift+2*shift*u*abs) + u*scale*(abs+math.Abs(mean)))
		if layer {
			want += float64(b[i])
			limit += u * math.Abs(want)
		}
		limit += 0x1p-140
		ok := math.Abs(float64(y[i])-want) <= limit || math.IsNaN(want) && y[i] != y[i]
		if !ok {
			return fmt.Errorf("y[%d] = %v, want %v within %.3g", i, y[i], want, limit)
		}
	}
	return nil
}

// TestRope holds the rotation against its definition, in the order of roundings that transformers has, for heads with and without tails.
func TestRope(t *testing.T) {
	defer func(old int) { taskValues = old }(taskValues)
	taskValues = 200
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		r := rand.New(rand.NewPCG(25, 26))
		for _, kind := range kinds {
			for _, dim := range []int{2, 4, 6, 16, 30, 32, 34, 64, 96, 128} {
				for _, heads := range []int{1, 3} {
					for _, positions := range []int{0, 1, 4} {
						for _, inPlace := range []bool{false, true} {
							n := positions * heads * dim
							x, _ := newArena(t, n).place(n, dim%3)
							kind.fill(r, x)
							cos, sin := guarded(t, positions*dim), guarded(t, positions*dim)
							kinds[0].fill(r, cos)
							kinds[0].fill(r, sin)
							want := make([]float32, n)
							for i := range want {
								at := i/(heads*dim)*dim + i%dim
								if i%dim < dim/2 {
									want[i] = float32(x[i]*cos[at]) + float32(-x[i+dim/2]*sin[at])
								} else {
									want[i] = float32(x[i]*cos[at]) + float32(x[i-dim/2]*sin[at])
								}
							}
							y, check := newArena(t, n).place(n, 0)
							if inPlace {
								y = x
							}
							pool.Rope(y, x, heads, dim, cos, sin)
							if err := check(); err != nil {
								t.Fatalf("dim %d: %v", dim, err)
							}
							if i := firstDifference(y, want); i >= 0 {
								t.Fatalf("%s, %d positions, %d heads of %d, in place %t: y[%d] = %v, want %v", kind.name, positions, heads, dim, inPlace, i, y[i], want[i])
							}
						}
					}
				}
			}
		}
	})
}

// TestValuesAllocateNothing holds that no operation on values allocates.
func TestValuesAllocateNothing(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		pool := newPool(2, m)
		defer pool.Close()
		defer func(old int) { taskValues = old }(taskValues)
		taskValues = 64
		x, y, w, bits := make([]float32, 640), make([]float32, 640), make([]float32, 64), make([]uint16, 640)
		for name, call := range map[string]func(){
			"Add": func() { pool.Add(y, x, x) }, "Mul": func() { pool.Mul(y, x, x) }, "SiLU": func() { pool.SiLU(y, x) }, "SiLUMul": func() { pool.SiLUMul(y, x, x) },
			"QuickGELU": func() { pool.QuickGELU(y, x) }, "GELU": func() { pool.GELU(y, x) }, "LayerNorm": func() { pool.LayerNorm(y, x, 64, w, w, 1e-5) },
			"RMSNorm": func() { pool.RMSNorm(y, x, 64, w, 1e-5) }, "Rope": func() { pool.Rope(y, x, 2, 32, x[:320], x[:320]) },
			"Widen": func() { pool.Widen(y, bits, F16) }, "Round": func() { pool.Round(bits, x, BF16) },
		} {
			call()
			if got := testing.AllocsPerRun(20, call); got != 0 {
				t.Errorf("%s: %v allocations a call, want 0", name, got)
			}
		}
	})
}

// TestValuesMisuse holds that the caller's mistakes are refused before anything is written.
func TestValuesMisuse(t *testing.T) {
	pool := NewPool(1)
	defer pool.Close()
	v := make([]float32, 64)
	bits := make([]uint16, 64)
	for name, call := range map[string]func(){
		"Add, short":               func() { pool.Add(v[:3], v[:4], v[:3]) },
		"Add, shifted":             func() { pool.Add(v[:8], v[4:12], v[4:12]) },
		"SiLU, short":              func() { pool.SiLU(v[:3], v[:4]) },
		"GELU, shifted":            func() { pool.GELU(v[1:9], v[:8]) },
		"Mul, one shifted":         func() { pool.Mul(v[:8], v[:8], v[4:12]) },
		"LayerNorm, no width":      func() { pool.LayerNorm(v[:8], v[:8], 0, nil, nil, 1) },
		"LayerNorm, part of a row": func() { pool.LayerNorm(v[:8], v[:8], 3, v[16:19], v[20:23], 1) },
		"LayerNorm, short bias":    func() { pool.LayerNorm(v[:8], v[:8], 4, v[16:20], v[20:23], 1) },
		"RMSNorm, weight in y":     func() { pool.RMSNorm(v[:8], v[16:24], 4, v[:4], 1) },
		"Rope, odd":                func() { pool.Rope(v[:9], v[:9], 3, 3, v[16:19], v[20:23]) },
		"Rope, short table":        func() { pool.Rope(v[:8], v[:8], 2, 4, v[16:19], v[20:24]) },
		"Widen, float32":           func() { pool.Widen(v, bits, F32) },
		"Round, short":             func() { pool.Round(bits[:3], v, F16) },
		"NewKV, odd":               func() { NewKV(3, 2, 3) },
		"NewKV, nothing":           func() { NewKV(0, 2, 4) },
		"Append, too many":         func() { pool.Append(NewKV(3, 2, 4), v[:32], v[:32]) },
		"Append, part":             func() { pool.Append(NewKV(3, 2, 4), v[:9], v[:9]) },
		"Truncate, more":           func() { NewKV(3, 2, 4).Truncate(1) },
		"Attend, nothing":          func() { pool.Attend(v[:8], v[8:16], NewKV(3, 2, 4), 2, 1, true) },
		"Attend, heads":            func() { pool.Attend(v[:12], v[12:24], filled(pool, 3, 2, 4), 3, 1, true) },
		"Attend, scale":            func() { pool.Attend(v[:8], v[8:16], filled(pool, 3, 2, 4), 2, 0, true) },
		"Attend, NaN for a scale":  func() { pool.Attend(v[:8], v[8:16], filled(pool, 3, 2, 4), 2, float32(math.NaN()), true) },
		"Attend, overlap":          func() { pool.Attend(v[:8], v[4:12], filled(pool, 3, 2, 4), 2, 1, true) },
		"Attend, too many queries": func() { pool.Attend(v[:32], v[32:], filled(pool, 3, 2, 4), 2, 1, true) },
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

func filled(p *Pool, n, kvHeads, dim int) *KV {
	kv := NewKV(n, kvHeads, dim)
	p.Append(kv, make([]float32, n*kvHeads*dim), make([]float32, n*kvHeads*dim))
	return kv
}

// FuzzValues looks for a value, a length or a place where an implementation has other bits than plain Go.
func FuzzValues(f *testing.F) {
	f.Add([]byte{0, 0, 0x80, 0x3f, 1, 0, 0, 0, 0, 0, 0x80, 0xff}, uint8(0), uint8(0))
	f.Add([]byte{0, 0, 0xc0, 0x7f, 0, 0, 0xb0, 0xc2, 0xff, 0xff, 0x7f, 0x7f}, uint8(40), uint8(3))
	plain := newPool(1, implementations[len(implementations)-1])
	f.Cleanup(plain.Close)
	f.Fuzz(func(t *testing.T, data []byte, repeat, before uint8) {
		var x []float32
		for ; len(data) >= 4; data = data[4:] {
			x = append(x, math.Float32frombits(uint32(data[0])|uint32(data[1])<<8|uint32(data[2])<<16|uint32(data[3])<<24))
		}
		for n := len(x); n > 0 && len(x) < 1000 && len(x) < n*(1+int(repeat)); {
			x = append(x, x[len(x)-n])
		}
		a, _ := newArena(t, len(x)).place(len(x), int(before)%37)
		copy(a, x)
		b := slices.Clone(x)
		slices.Reverse(b)
		for _, m := range implementations {
			if !m.enabled {
				continue
			}
			pool := newPool(2, m)
			run := func(name string, f func(p *Pool, y []float32)) {
				want := make([]float32, len(x))
				f(plain, want)
				got, check := newArena(t, len(x)).place(len(x), int(before)%5)
				f(pool, got)
				if err := check(); err != nil {
					t.Fatalf("%s %s: %v", m.name, name, err)
				}
				if i := firstDifference(got, want); i >= 0 {
					t.Fatalf("%s %s: y[%d] = %v of %v, plain Go gives %v", m.name, name, i, got[i], x[i], want[i])
				}
			}
			for _, op := range valueOps {
				run(op.name, func(p *Pool, y []float32) { op.run(p, y, a, b) })
			}
			if len(x) > 0 {
				run("LayerNorm", func(p *Pool, y []float32) { p.LayerNorm(y, a, len(a), b, b, 1e-5) })
				run("RMSNorm", func(p *Pool, y []float32) { p.RMSNorm(y, a, len(a), b, 1e-5) })
			}
			for _, typ := range []Type{F16, BF16} {
				run(typ.String(), func(p *Pool, y []float32) {
					bits := make([]uint16, len(x))
					p.Round(bits, a, typ)
					p.Widen(y, bits, typ)
				})
			}
			pool.Close()
		}
	})
}
