package replay

import (
	"math"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// carry adds to b what the errors of input number i may do to the node's output. Errors at the worst are carried by the magnitudes of
// the derivatives, squares of chance errors by their squares, both through the node itself.
func (e *Evaluator) carry(n shapes.Node, in []shapes.Tensor, i int, d compare.Budget, b *compare.Budget) error {
	h := func(w float64) float64 {
		if d.Fused || d.Class == compare.F32 {
			return 0
		}
		return d.Class.HalfStep(w)
	}
	stored := d.Class != compare.F32 || d.Sto != nil // the value was rounded to few digits, or something that it is made of
	if b.Sto == nil && stored {
		b.Sto, b.StoRMS = make([]float32, len(b.Want.Data)), make([]float32, len(b.Want.Data))
	}
	steps := []struct {
		from, into []float32
		own        func(w float64) float64 // of rounding the input's value itself
		power      float64
	}{
		{d.Acc, b.Acc, func(w float64) float64 { return 2 * unit * w }, 1},
		{d.AccRMS, b.AccRMS, func(w float64) float64 { return unit * w }, 2},
		{d.Sto, b.Sto, h, 1},
		{d.StoRMS, b.StoRMS, func(w float64) float64 { return h(w) / math.Sqrt(3) }, 2},
	}
	if b.Copy { // a copy of something derived is no exact copy
		n := len(b.Want.Data)
		b.Copy = false
		b.Acc, b.AccRMS, b.Sto, b.StoRMS = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
		steps[0].into, steps[1].into, steps[2].into, steps[3].into = b.Acc, b.AccRMS, b.Sto, b.StoRMS
	}
	b.Pool = max(b.Pool, d.Pool)
	b.Tilt += d.Tilt
	b.Derived = true
	for k, s := range steps {
		if k >= 2 && !stored {
			break
		}
		err := shapes.NewTensor(d.Want.Shape...)
		for j, w := range d.Want.Data {
			m := 0.0
			if s.from != nil {
				m = math.Pow(float64(s.from[j]), s.power)
			}
			if !d.Copy {
				m += math.Pow(s.own(math.Abs(float64(w))), s.power)
			}
			if m > math.MaxFloat32 || m != m {
				m = 0 // no number there, so none in the output either
			}
			err.Data[j] = float32(m)
		}
		through, fault := e.through(n, in, i, err, s.power)
		if fault != nil {
			return fault
		}
		for j, v := range through.Data {
			old := math.Pow(float64(s.into[j]), s.power)
			s.into[j] = narrow([]float64{math.Pow(old+math.Abs(float64(v)), 1/s.power)})[0]
		}
	}
	return nil
}

// through takes errors of input i through the node, each multiplied by the given power of the magnitude of the derivative.
func (e *Evaluator) through(n shapes.Node, in []shapes.Tensor, i int, err shapes.Tensor, power float64) (shapes.Tensor, error) {
	pow := func(t shapes.Tensor) shapes.Tensor {
		y := shapes.NewTensor(t.Shape...)
		for j, v := range t.Data {
			y.Data[j] = float32(math.Pow(math.Abs(float64(v)), power))
		}
		return y
	}
	// scaled multiplies by the derivative, and for the worst case adds half of the largest second derivative.
	scaled := func(bend float64, slope func(j int) float64) shapes.Tensor {
		y := shapes.NewTensor(err.Shape...)
		for j, v := range err.Data {
			y.Data[j] = v * float32(math.Pow(math.Abs(slope(j)), power))
			if power == 1 {
				y.Data[j] += v * v * float32(bend/2)
			}
		}
		return y
	}
	switch n.Kind {
	case shapes.Linear:
		y := shapes.NewTensor(n.Concrete(e.dims)...)
		return y, e.linearBlocks(n, err, func(first int, l ref.Linear) {
			block := ref.Linear{Weight: pow(l.Weight)}.Forward(err)
			for r := range y.Rows() {
				copy(y.Row(r)[first:], block.Row(r))
			}
		})
	case shapes.Scores:
		q, k := err, pow(in[1])
		if i == 1 {
			q, k = pow(in[0]), err
		}
		y := ref.AttentionScores(q, k, n.Heads, n.KVHeads, n.Causal)
		if power == 2 {
			width := float64(len(in[0].Data)) / float64(shapes.Product(in[0].Shape[:len(in[0].Shape)-1])*n.Heads)
			if n.Causal {
				width = float64(in[0].Cols())
			}
			for j := range y.Data {
				y.Data[j] *= float32(1 / math.Sqrt(width))
			}
		}
		return masked(n, y, 0), nil
	case shapes.Softmax: // dy_j = y_j (dx_j - sum_i y_i dx_i)
		probs := ref.Softmax(masked(n, in[0], float32(math.Inf(-1))))
		y := shapes.NewTensor(err.Shape...)
		for r := range y.Rows() {
			p, d, out := probs.Row(r), err.Row(r), y.Row(r)
			mean := 0.0
			for j := range p {
				mean += math.Pow(float64(p[j]), power) * float64(d[j])
			}
			for j := range p {
				both := float64(d[j]) + mean
				if power == 1 {
					both = math.Expm1(min(both, 700)) // an error of the exponent that need not be small
				}
				out[j] = float32(min(math.Pow(float64(p[j]), power)*both, math.MaxFloat32))
			}
		}
		return y, nil
	case shapes.Context:
		if i == 0 {
			return ref.AttentionContext(masked(n, err, 0), pow(in[1]), n.Heads, n.KVHeads), nil
		}
		return ref.AttentionContext(pow(masked(n, in[0], 0)), err, n.Heads, n.KVHeads), nil
	case shapes.LayerNorm, shapes.RMSNorm:
		return e.throughNorm(n, in[0], err, power)
	case shapes.Rope:
		return throughRope(n, in, i, err, pow), nil
	case shapes.Mul:
		return scaled(0, func(j int) float64 { return float64(in[1-i].Data[j]) }), nil
	case shapes.QuickGELU:
		return scaled(0.86, func(j int) float64 { return gateSlope(float64(in[0].Data[j]), 1.702) }), nil
	case shapes.SiLU:
		return scaled(0.5, func(j int) float64 { return gateSlope(float64(in[0].Data[j]), 1) }), nil
	case shapes.GELU:
		return scaled(0.8, func(j int) float64 {
			x := float64(in[0].Data[j])
			return (1+math.Erf(x/math.Sqrt2))/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		}), nil
	case shapes.Add:
		return err, nil
	case shapes.VisionEmbeddings: // the position embedding and the class token are parameters
		class := shapes.NewTensor(err.Shape[1])
		return ref.CLIPVisionEmbeddings{ClassEmbedding: class, PositionEmbedding: shapes.NewTensor(1+err.Shape[2]*err.Shape[3], err.Shape[1])}.Embed(err), nil
	case shapes.ClassToken:
		return ref.ClassToken(err), nil
	case shapes.SelectFeatures:
		return ref.SelectFeatures(err, e.config.SelectStrategy), nil
	case shapes.PackImageFeatures:
		return ref.PackImageFeatures(e.config, err, shapes.NewTensor(err.Cols()), e.in.ImageSizes)
	case shapes.MergeEmbeddings:
		embeds, features := shapes.NewTensor(n.Concrete(e.dims)...), err
		if i == 0 {
			embeds, features = err, in[1]
			if features.Shape != nil {
				features = shapes.NewTensor(features.Shape...)
			}
		}
		return ref.MergeEmbeddings(embeds, features, e.in.InputIDs, e.config.ImageTokenID)
	}
	return shapes.NewTensor(n.Concrete(e.dims)...), nil // the input is the prompt's own
}

// gateSlope is the derivative of x/(1 + e^(-a x)).
func gateSlope(x, a float64) float64 {
	g := 1 / (1 + math.Exp(-a*x))
	return g + a*x*g/(1+math.Exp(a*x))
}

// throughRope: out[j] = x[j] cos[j] -+ x[j +- Dh/2] sin[j].
func throughRope(n shapes.Node, in []shapes.Tensor, i int, err shapes.Tensor, pow func(shapes.Tensor) shapes.Tensor) shapes.Tensor {
	x, cos, sin := pow(in[0]), pow(in[1]), pow(in[2])
	switch i {
	case 0:
		x = err
	case 1:
		cos, sin = err, shapes.NewTensor(sin.Shape...)
	case 2:
		cos, sin = shapes.NewTensor(cos.Shape...), err
	}
	minus := shapes.NewTensor(sin.Shape...) // rotate_half's minus sign undone: magnitudes add
	copy(minus.Data, sin.Data)
	for t := range minus.Rows() {
		for j := range minus.Cols() / 2 {
			minus.Row(t)[j] *= -1
		}
	}
	return ref.Rope(x, cos, minus, n.Heads)
}

// throughNorm: dy_j = w_j/sigma (dx_j - mean(dx) - z_j mean(z dx)) with z the normalised row; RMSNorm has no mean(dx).
func (e *Evaluator) throughNorm(n shapes.Node, x, err shapes.Tensor, power float64) (shapes.Tensor, error) {
	weight, fault := e.param(n, 0)
	if fault != nil {
		return shapes.Tensor{}, fault
	}
	y := shapes.NewTensor(err.Shape...)
	k := float64(x.Cols())
	for r := range x.Rows() {
		row, d, out := x.Row(r), err.Row(r), y.Row(r)
		mean, squares := 0.0, 0.0
		if n.Kind == shapes.LayerNorm {
			for _, v := range row {
				mean += float64(v) / k
			}
		}
		for _, v := range row {
			squares += (float64(v) - mean) * (float64(v) - mean)
		}
		sigma := math.Sqrt(squares/k + n.Eps)
		var moved, turned float64
		for j, v := range row {
			z := math.Abs(float64(v)-mean) / sigma
			if n.Kind == shapes.LayerNorm {
				moved += float64(d[j]) / math.Pow(k, power)
			}
			turned += math.Pow(z/k, power) * float64(d[j])
		}
		for j, v := range row {
			z := math.Abs(float64(v)-mean) / sigma
			out[j] = float32(math.Pow(math.Abs(float64(weight.Data[j]))/sigma, power) * (float64(d[j]) + moved + math.Pow(z, power)*turned))
		}
	}
	return y, nil
}
