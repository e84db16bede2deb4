package compare

import (
	"math"
	"slices"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

const positions, vocabulary = 40, 384

// distributions are logits of standard deviation 3.4, some positions sure of their token and some torn between two.
func distributions(seed uint64) shapes.Tensor {
	r := newRand(seed)
	z := shapes.NewTensor(positions, vocabulary)
	for t := range positions {
		row := z.Row(t)
		for i := range row {
			row[i] = float32(3.4 * r.NormFloat64())
		}
		switch best := argmax(row); t % 4 {
		case 1:
			row[best] += 8
		case 2:
			row[(best+1)%vocabulary] = row[best] - 1e-3
		}
	}
	return z
}

func noisy(z shapes.Tensor, size float64, seed uint64) shapes.Tensor {
	r := newRand(seed)
	y := shapes.Tensor{Shape: z.Shape, Data: slices.Clone(z.Data)}
	for i := range y.Data {
		y.Data[i] += float32(size * 3.4 * r.NormFloat64())
	}
	return y
}

func floors(class Class) (own, coarsest float64) {
	return map[Class]float64{F32: 3.5e-6, F16: 1e-2, BF16: 8.4e-2}[class], 8.4e-2 // tiny-1.6's
}

// TestLogits: an engine with the noise of its class passes, for 200 seeds; planted errors fail.
func TestLogits(t *testing.T) {
	for _, class := range Classes() {
		own, coarsest := floors(class)
		nearest := 0.0
		for seed := range uint64(200) {
			z := distributions(seed)
			r := Logits(LogitsInput{Truth: z, Got: noisy(z, own, seed+1000), Floor: own, Coarsest: coarsest, Class: class})
			nearest = max(nearest, r.Ratio)
			if !r.Pass {
				t.Errorf("%s, seed %d: %v", class, seed, r)
			}
			if r.Counts[Drifts]+r.Counts[Wrong] > 0 || r.Counts[Match]+r.Counts[NearTie] != positions {
				t.Errorf("%s, seed %d: tokens %v", class, seed, r.Counts)
			}
		}
		t.Logf("| logits, %s | the class's own noise, 200 tensors | at most %.2f |", class, nearest)

		for _, bug := range []struct {
			name   string
			caught []Class
			plant  func(y shapes.Tensor)
		}{
			{"noise of the next coarser class", []Class{F32, F16}, func(y shapes.Tensor) {
				size := 1e-2
				if class == F16 {
					size = 8.4e-2
				}
				copy(y.Data, noisy(y, size, 1).Data)
			}},
			{"every logit 1 % larger", []Class{F32}, func(y shapes.Tensor) {
				for i := range y.Data {
					y.Data[i] *= 1.01
				}
			}},
			{"every logit 30 % larger", []Class{F32, F16}, func(y shapes.Tensor) {
				for i := range y.Data {
					y.Data[i] *= 1.3
				}
			}},
			{"every logit twice as large", Classes(), func(y shapes.Tensor) {
				for i := range y.Data {
					y.Data[i] *= 2
				}
			}},
			{"shifted by one token", Classes(), func(y shapes.Tensor) {
				for t := range positions {
					first := y.Row(t)[0]
					copy(y.Row(t), y.Row(t)[1:])
					y.Row(t)[vocabulary-1] = first
				}
			}},
			{"one position from the next", Classes(), func(y shapes.Tensor) { copy(y.Row(5), y.Row(6)) }},
			{"last logit 30", Classes(), func(y shapes.Tensor) { y.Row(9)[vocabulary-1] = 30 }},
			{"NaN", Classes(), func(y shapes.Tensor) { y.Row(3)[4] = float32(math.NaN()) }},
			{"infinity", Classes(), func(y shapes.Tensor) { y.Row(3)[4] = float32(math.Inf(1)) }},
		} {
			least := math.Inf(1)
			for seed := range uint64(20) {
				z := distributions(seed)
				y := noisy(z, own, seed)
				bug.plant(y)
				r := Logits(LogitsInput{Truth: z, Got: y, Floor: own, Coarsest: coarsest, Class: class})
				least = min(least, r.Ratio)
				if r.Pass && slices.Contains(bug.caught, class) {
					t.Errorf("%s, %s, seed %d: %v", class, bug.name, seed, r)
				}
			}
			t.Logf("| logits, %s | %s | %s |", class, bug.name, magnitude(least))
		}
	}
}

// TestConstantIsInvisible: softmax does not see a constant, so neither does the divergence.
func TestConstantIsInvisible(t *testing.T) {
	z := distributions(1)
	y := shapes.Tensor{Shape: z.Shape, Data: slices.Clone(z.Data)}
	for i := range y.Data {
		z.Data[i] = float32(math.Round(float64(z.Data[i])*1024) / 1024)
		y.Data[i] = z.Data[i] + 4
	}
	if r := Logits(LogitsInput{Truth: z, Got: y, Floor: 1e-7, Coarsest: 0.1, Class: F32}); !r.Pass {
		t.Error(r)
	}
}

// TestDivergenceIsHalfTheVariance holds the expansion that the limits rest on.
func TestDivergenceIsHalfTheVariance(t *testing.T) {
	z := distributions(2)
	y := noisy(z, 1e-4, 3)
	for r := range positions {
		kl, _, _ := divergence(z.Row(r), y.Row(r))
		lz := LogSumExp(z.Row(r))
		var mean, square float64
		for i, v := range z.Row(r) {
			p := math.Exp(float64(v) - lz)
			d := float64(y.Row(r)[i]) - float64(v)
			mean += p * d
			square += p * d * d
		}
		if half := (square - mean*mean) / 2; math.Abs(kl-half) > 0.01*half+1e-15 {
			t.Errorf("position %d: KL %v, half the variance %v", r, kl, half)
		}
	}
}

func TestTokenVerdicts(t *testing.T) {
	const floor = 1e-3
	z := shapes.Tensor{Shape: []int{4, 3}, Data: []float32{
		5, 1, 0,
		5, 4.999, 0,
		5, 4, 0,
		5, -20, 0,
	}}
	y := shapes.Tensor{Shape: z.Shape, Data: []float32{
		5, 1, 0,
		4.999, 5, 0,
		4, 5, 0,
		-20, 5, 0,
	}}
	r := Logits(LogitsInput{Truth: z, Got: y, Floor: floor, Coarsest: 0.1, Class: F16})
	if want := []TokenVerdict{Match, NearTie, Drifts, Wrong}; !slices.Equal(r.Tokens, want) {
		t.Errorf("%v, want %v; noise %v", r.Tokens, want, r.Noise)
	}
	if r.Pass {
		t.Error(r)
	}
}

func TestLogitsRefusesOtherShapes(t *testing.T) {
	z := shapes.NewTensor(2, 3)
	for _, y := range []shapes.Tensor{{}, shapes.NewTensor(3, 2), shapes.NewTensor(6), {Shape: []int{2, 3}}, shapes.NewTensor(0, 3)} {
		if r := Logits(LogitsInput{Truth: z, Got: y, Class: F32}); r.Pass || r.Criterion != Shape {
			t.Errorf("shape %v: %v", y.Shape, r)
		}
	}
}
