package ref

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

func random(r *rand.Rand, shape ...int) Tensor {
	t := shapes.NewTensor(shape...)
	for i := range t.Data {
		t.Data[i] = float32(r.NormFloat64())
	}
	return t
}

// BenchmarkLinear is the speed that the reference has: a CLIP MLP of one tile, both cores.
func BenchmarkLinear(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x, l := random(r, 577, 1024), Linear{Weight: random(r, 4096, 1024), Bias: random(r, 4096)}
	for b.Loop() {
		l.Forward(x)
	}
	b.ReportMetric(2*577*1024*4096*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func TestLinearSumsInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][3]int{{1, 1, 1}, {3, 7, 5}, {4, 2, 64}, {257, 33, 17}, {300, 65, 9}} {
		rows, out, in := size[0], size[1], size[2]
		t.Run(fmt.Sprintf("%d rows, %d to %d", rows, in, out), func(t *testing.T) {
			x, l := random(r, rows, in), Linear{Weight: random(r, out, in), Bias: random(r, out)}
			y := l.Forward(x)
			for i := range rows {
				for o := range out {
					sum := 0.0
					for k := range in {
						sum += float64(x.Row(i)[k]) * float64(l.Weight.Row(o)[k])
					}
					if want := float32(sum + float64(l.Bias.Data[o])); y.Row(i)[o] != want {
						t.Fatalf("y[%d, %d] = %v, want %v", i, o, y.Row(i)[o], want)
					}
				}
			}
		})
	}
}

// The elementary functions are held against the standard library's, which are good to an ulp of float64.
func TestElementaryFunctions(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	worst := map[string]float64{}
	note := func(name string, x, got, want float64) {
		if got == want || math.IsNaN(got) && math.IsNaN(want) {
			return
		}
		if e := math.Abs(got-want) / math.Abs(want); e > worst[name] {
			worst[name] = e
			if e > 4e-15 {
				t.Errorf("%s(%v) = %v, want %v", name, x, got, want)
			}
		}
	}
	for range 200000 {
		x := r.NormFloat64() * math.Exp(r.Float64()*12-6)
		note("exp", x, exp(x), math.Exp(x))
		note("erf", x, erf(x), math.Erf(x))
		if p := math.Abs(x); math.Abs(log(p)-math.Log(p)) > 4e-15*max(1, math.Abs(math.Log(p))) {
			t.Errorf("log(%v) = %v, want %v", p, log(p), math.Log(p))
		}
		angle := float64(float32(r.Float64() * (1 << 20)))
		cos, sin := cosSin(angle)
		if e := math.Max(math.Abs(cos-math.Cos(angle)), math.Abs(sin-math.Sin(angle))); e > 2e-15 {
			t.Errorf("cosSin(%v) = %v, %v, want %v, %v", angle, cos, sin, math.Cos(angle), math.Sin(angle))
		}
	}
	for _, x := range []float64{0, math.Copysign(0, -1), 1e-310, 700, 709.7, 710, -744, -746, math.Inf(1), math.Inf(-1), math.NaN()} {
		note("exp", x, exp(x), math.Exp(x))
		note("erf", x, erf(x), math.Erf(x))
	}
	t.Log(worst)
}
