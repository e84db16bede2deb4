package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// TestPlantedErrors puts wrong loops in the place of right ones, each with a mistake that kernels are known for, and holds that the checks
// that the other tests are made of see it; and that they see nothing where nothing was planted.
func TestPlantedErrors(t *testing.T) {
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			m := *active
			p.change(&m)
			err := p.check(t, &m)
			if p.name == "nothing" {
				if err != nil {
					t.Errorf("the right kernels: %v", err)
				}
			} else if err == nil {
				t.Error("not seen")
			} else {
				t.Log(err)
			}
		})
	}
}

var planted = []struct {
	name   string
	change func(m *implementation)
	check  func(t *testing.T, m *implementation) error
}{
	{"nothing", func(*implementation) {}, func(t *testing.T, m *implementation) error {
		return errors.Join(checkProducts(t, m), checkAttention(t, m), checkFarScores(m), checkNormRows(t, m), checkExp(t, m), checkAddition(t, m), checkRotation(t, m))
	}},
	{"the last step of a product skipped", func(m *implementation) {
		wrapTiles(m, func(f func(*tile), t *tile) {
			t.steps--
			f(t)
			t.steps++
		})
	}, checkProducts},
	{"the sums of a product not reset", func(m *implementation) {
		wrapTiles(m, func(f func(*tile), t *tile) {
			src, stride := t.src, t.srcStride
			t.src, t.srcStride = t.dst, t.dstStride
			f(t)
			t.src, t.srcStride = src, stride
		})
	}, checkProducts},
	{"the sums of an attention not reset", func(m *implementation) {
		wrapTiles(m, func(f func(*tile), t *tile) {
			src, stride := t.src, t.srcStride
			t.src, t.srcStride = t.dst, t.dstStride
			f(t)
			t.src, t.srcStride = src, stride
		})
	}, checkAttention},
	{"one row of a tile off by the width of a head", func(m *implementation) {
		pack := m.matmul.packX
		if pack == nil { // plain Go lays x out itself
			wrapTiles(m, func(f func(*tile), t *tile) { t.x = unsafe.Add(t.x, 4); f(t) })
			return
		}
		m.matmul.packX = func(c *packing) {
			c.stride += 16 * 4
			pack(c)
			c.stride -= 16 * 4
		}
	}, checkAttention},
	{"the tail of values skipped", func(m *implementation) {
		add := m.vector.add
		m.vector.add = func(v *vector) { v.n -= lanes; skipEmpty(add, v); v.n += lanes }
	}, checkAddition},
	{"a lane dropped from the sum of a softmax", func(m *implementation) {
		softmax := m.vector.softmax
		m.vector.softmax = func(v *vector) {
			softmax(v)
			for i := 5; i < v.n; i += lanes {
				v.sum -= unsafe.Slice((*float32)(v.y), v.n)[i]
			}
		}
	}, checkAttention},
	{"a lane dropped from the sum of a norm", func(m *implementation) {
		norm := m.vector.rmsNorm
		m.vector.rmsNorm = func(v *vector) {
			x := slices.Clone(unsafe.Slice((*float32)(v.a), v.n))
			for i := 31; i < v.n; i += lanes {
				x[i] = 0
			}
			sum := func(x []float32) (s float64) {
				for _, x := range x {
					s += float64(x) * float64(x)
				}
				return s/float64(v.n) + float64(v.scale)
			}
			right := sum(unsafe.Slice((*float32)(v.a), v.n))
			norm(v)
			for i := range v.n {
				unsafe.Slice((*float32)(v.y), v.n)[i] *= float32(math.Sqrt(right / sum(x)))
			}
		}
	}, checkNormRows},
	{"e^x taken for 0 below -80", func(m *implementation) {
		exp := m.vector.exp
		m.vector.exp = func(v *vector) {
			x := slices.Clone(unsafe.Slice((*float32)(v.a), v.n))
			exp(v)
			for i, x := range x {
				if x < -80 {
					unsafe.Slice((*float32)(v.y), v.n)[i] = 0
				}
			}
		}
	}, checkExp},
	{"the e^x of a softmax taken for 0 below -80", func(m *implementation) {
		softmax := m.vector.softmax
		m.vector.softmax = func(v *vector) {
			softmax(v)
			for i, y := range unsafe.Slice((*float32)(v.y), v.n) {
				if float64(y) < math.Exp(-80) {
					v.sum -= y
					unsafe.Slice((*float32)(v.y), v.n)[i] = 0
				}
			}
		}
	}, func(_ *testing.T, m *implementation) error { return checkFarScores(m) }},
	{"the halves of a head turned the other way", func(m *implementation) {
		rope := m.vector.rope
		m.vector.rope = func(v *vector) {
			for i, s := range unsafe.Slice((*float32)(v.c), 2*v.n) {
				unsafe.Slice((*float32)(v.c), 2*v.n)[i] = -s
			}
			rope(v)
		}
	}, checkRotation},
}

func skipEmpty(f func(*vector), v *vector) {
	if v.n > 0 {
		f(v)
	}
}

func wrapTiles(m *implementation, wrap func(f func(*tile), t *tile)) {
	for i, f := range m.matmul.tile {
		m.matmul.tile[i] = func(t *tile) { wrap(f, t) }
	}
}

func checkProducts(t *testing.T, m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	r := rand.New(rand.NewPCG(51, 52))
	for _, rows := range []int{1, 3, 20} {
		p := randomProduct(t, r, 0, rows, 70, 101, F32, Float32)
		y := make([]float32, p.m*p.n)
		pool.Gemm(y, p.x, p.m, p.weights(t, pool, false), p.bias)
		if err := p.checkBound(y); err != nil {
			return err
		}
	}
	return nil
}

func checkAttention(_ *testing.T, m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	r := rand.New(rand.NewPCG(53, 54))
	for _, s := range attentions {
		a := randomAttention(r, s.n, s.keys, s.heads, s.kvHeads, s.dim, s.causal)
		if err := a.check(a.run(pool, NewKV(s.keys, s.kvHeads, s.dim), s.keys)); err != nil {
			return fmt.Errorf("%v: %w", a, err)
		}
	}
	return nil
}

func checkNormRows(_ *testing.T, m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	r := rand.New(rand.NewPCG(55, 56))
	x, w, y := make([]float32, 1024), make([]float32, 1024), make([]float32, 1024)
	kinds[0].fill(r, x)
	kinds[0].fill(r, w)
	pool.RMSNorm(y, x, 1024, w, 1e-5)
	err := checkNorm(y, x, w, w, 1e-5, false)
	pool.LayerNorm(y, x, 1024, w, w, 1e-5)
	return errors.Join(err, checkNorm(y, x, w, w, 1e-5, true))
}

func checkExp(_ *testing.T, m *implementation) error {
	var x, y []float32
	for v := float32(-104); v < 89; v += 0.25 {
		x = append(x, v)
	}
	x = x[:len(x)/lanes*lanes]
	y = make([]float32, len(x))
	m.vector.exp(&vector{n: len(x), y: address(y), a: address(x)})
	for i, x := range x {
		if err := elementaryError(math.Exp(float64(x)), y[i], x, false); !(err <= 1) {
			return fmt.Errorf("e^%v = %v, %v units off", x, y[i], err)
		}
	}
	return nil
}

func checkAddition(_ *testing.T, m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	x, y := make([]float32, 100), make([]float32, 100)
	for i := range x {
		x[i] = float32(i + 1)
	}
	pool.Add(y, x, x)
	for i := range y {
		if y[i] != 2*x[i] {
			return fmt.Errorf("Add: y[%d] = %v, want %v", i, y[i], 2*x[i])
		}
	}
	return nil
}

func checkRotation(_ *testing.T, m *implementation) error {
	pool := newPool(1, m)
	defer pool.Close()
	r := rand.New(rand.NewPCG(57, 58))
	x, y, cos, sin := make([]float32, 128), make([]float32, 128), make([]float32, 64), make([]float32, 64)
	for _, v := range [][]float32{x, cos, sin} {
		kinds[0].fill(r, v)
	}
	s := slices.Clone(sin)
	pool.Rope(y, x, 2, 64, cos, sin)
	for i := range y {
		d := i % 64
		want := float64(x[i]) * float64(cos[d])
		if d < 32 {
			want -= float64(x[i+32]) * float64(s[d])
		} else {
			want += float64(x[i-32]) * float64(s[d])
		}
		if math.Abs(float64(y[i])-want) > 1e-5 {
			return fmt.Errorf("Rope: y[%d] = %v, want %v", i, y[i], want)
		}
	}
	return nil
}
