package replay

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// Budget is what rounding may do to each entry of the node's output, want being what Eval makes of the inputs.
// The engine declares its arithmetic. docs/numerics.md derives every formula.
func (e *Evaluator) Budget(node shapes.Node, inputs []shapes.Tensor, want shapes.Tensor, as compare.Arithmetic) (compare.Budget, error) {
	return e.BudgetDerived(node, inputs, make([]*compare.Budget, len(inputs)), want, as)
}

// BudgetDerived is Budget where some inputs are not the engine's own: derived[i] is the budget of inputs[i] if that is the output of Eval
// and nil if the engine has shown it. What rounding may have done to an input of the first sort is carried through the node.
// Unless its budget is a FusedBudget, it may have been stored.
func (e *Evaluator) BudgetDerived(node shapes.Node, inputs []shapes.Tensor, derived []*compare.Budget, want shapes.Tensor, as compare.Arithmetic) (compare.Budget, error) {
	return e.budget(node, inputs, derived, want, as, false)
}

// FusedBudget is BudgetDerived for a node whose output an engine is known to keep in registers: computed in float32, with no step of it stored.
func (e *Evaluator) FusedBudget(node shapes.Node, inputs []shapes.Tensor, derived []*compare.Budget, want shapes.Tensor, as compare.Arithmetic) (compare.Budget, error) {
	return e.budget(node, inputs, derived, want, as, true)
}

func (e *Evaluator) budget(node shapes.Node, inputs []shapes.Tensor, derived []*compare.Budget, want shapes.Tensor, as compare.Arithmetic, fused bool) (compare.Budget, error) {
	if err := e.checkInputs(node, inputs); err != nil {
		return compare.Budget{}, err
	}
	if err := e.checkShape(node, "output", node.Name, want); err != nil {
		return compare.Budget{}, err
	}
	if len(derived) != len(inputs) {
		return compare.Budget{}, fmt.Errorf("replay: %s: %d budgets for %d inputs", node.Name, len(derived), len(inputs))
	}
	b := compare.Budget{Want: want, Class: as.Class, Fused: fused}
	if f := budgets[node.Kind]; f == nil {
		b.Copy = true
	} else {
		s := newSums(len(want.Data), as)
		s.fused = fused
		if err := f(e, node, inputs, want, s); err != nil {
			return compare.Budget{}, fmt.Errorf("replay: %s: %w", node.Name, err)
		}
		b = s.budget(want)
		b.Fused = fused
	}
	for i, d := range derived {
		if d == nil {
			d = finer(inputs[i], as.Class)
		}
		if d == nil || b.Copy && derived[i] == nil { // Local lets a copy be rounded
			continue
		}
		if err := e.carry(node, inputs, i, *d, &b); err != nil {
			return compare.Budget{}, fmt.Errorf("replay: %s: %w", node.Name, err)
		}
	}
	return b, nil
}

// finer is the budget of an input that the engine shows in finer numbers than its class has: it may round them on the way
// into the node. It is nil if there is nothing to round.
func finer(x shapes.Tensor, class compare.Class) *compare.Budget {
	if class == compare.F32 {
		return nil
	}
	var b *compare.Budget
	for i, v := range x.Data {
		if class.Round(v) == v || v != v {
			continue
		}
		if b == nil {
			b = &compare.Budget{Want: x, Class: class, Copy: true, Sto: make([]float32, len(x.Data)), StoRMS: make([]float32, len(x.Data))}
		}
		h := class.HalfStep(float64(v))
		b.Sto[i], b.StoRMS[i] = float32(h), float32(h/math.Sqrt(3))
	}
	return b
}

// sums gathers a budget: for each entry the sum of the errors that rounding may make, and the sum of their squares.
type sums struct {
	compare.Arithmetic
	acc, acc2, sto, sto2 []float64
	pool                 compare.Pool
	tilt                 float64
	skewed               bool
	fused                bool // nothing is stored
	derived              bool
}

func newSums(n int, as compare.Arithmetic) *sums {
	return &sums{Arithmetic: as, acc: make([]float64, n), acc2: make([]float64, n), sto: make([]float64, n), sto2: make([]float64, n)}
}

// unit is the roundoff of float32.
const unit = 1.0 / (1 << 24)

// round counts roundings in float32 arithmetic: the sum of their magnitudes and the sum of the squares.
func (s *sums) round(i int, worst, chance2 float64) {
	s.acc[i] += unit * math.Abs(worst)
	s.acc2[i] += unit * unit * chance2
}

// store counts the rounding of one intermediate value to storage; its error reaches the result multiplied by times.
func (s *sums) store(i int, value, times float64) {
	if s.Class == compare.F32 || s.fused {
		m := value * times
		s.round(i, m, m*m)
		return
	}
	h := s.Class.HalfStep(value) * math.Abs(times)
	s.sto[i] += h
	s.sto2[i] += h * h / 3
}

// halfSteps is by how much each x times scale may change when it is stored, and whether any of them does.
func (s *sums) halfSteps(x []float32, scale float64) (steps []float64, rounded bool) {
	steps = make([]float64, len(x))
	if s.Class == compare.F32 || s.fused {
		return steps, false
	}
	for i, v := range x {
		y := float64(v) * scale
		if float64(s.Class.Round(float32(y))) != y {
			steps[i], rounded = s.Class.HalfStep(y), true
		}
	}
	return steps, rounded
}

func (s *sums) budget(want shapes.Tensor) compare.Budget {
	b := compare.Budget{Want: want, Class: s.Class, Acc: narrow(s.acc), AccRMS: roots(s.acc2), Pool: s.pool, Tilt: s.tilt, Skewed: s.skewed, Derived: s.derived}
	if s.Class != compare.F32 {
		b.Sto, b.StoRMS = narrow(s.sto), roots(s.sto2)
	}
	return b
}

// narrow takes a budget to float32. What is no number, since some input is none or overflows on the way, becomes the largest one: nothing is known there.
func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = math.MaxFloat32
		if v < math.MaxFloat32 {
			y[i] = float32(v)
		}
	}
	return y
}

func roots(x []float64) []float32 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = math.Sqrt(v)
	}
	return narrow(y)
}

// budgets says for each kind that computes what rounding may do. The other kinds move values.
var budgets = map[shapes.Kind]func(e *Evaluator, n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error{
	shapes.PatchEmbedding:   (*Evaluator).patchBudget,
	shapes.VisionEmbeddings: onlyStored,
	shapes.LayerNorm:        (*Evaluator).layerNormBudget,
	shapes.Linear:           (*Evaluator).linearBudget,
	shapes.Scores:           (*Evaluator).scoresBudget,
	shapes.Softmax:          (*Evaluator).softmaxBudget,
	shapes.Context:          (*Evaluator).contextBudget,
	shapes.Add:              onlyStored,
	shapes.QuickGELU:        (*Evaluator).quickGELUBudget,
	shapes.GELU:             (*Evaluator).geluBudget,
	shapes.RotaryCos:        (*Evaluator).rotaryBudget,
	shapes.RotarySin:        (*Evaluator).rotaryBudget,
	shapes.RMSNorm:          (*Evaluator).rmsNormBudget,
	shapes.Rope:             (*Evaluator).ropeBudget,
	shapes.SiLU:             (*Evaluator).siluBudget,
	shapes.Mul:              onlyStored,
}

// onlyStored is the budget of one operation: its result is rounded, and Local counts that.
func onlyStored(e *Evaluator, n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	s.tilt = s.shortProducts()
	return nil
}

// shortProducts is by how much rounding the product of two numbers of the class makes it smaller on average, twice over. The
// digits that are lost are not evenly distributed: over all pairs of bfloat16 the mean error is -0.012 half steps, of float16 -0.0016.
func (s *sums) shortProducts() float64 {
	if s.Class == compare.F32 {
		return 0
	}
	u := s.Class.Roundoff()
	return 8 * u * u
}

// product is what the budget of a sum of products depends on.
type product struct {
	sum, abs, squares float64 // of the terms
	walk              float64 // sum of the squares of the partial sums of one accumulator
}

// newProduct follows the partial sums s_1 ... s_K of a[k] b[k]. The largest of three walks counts: in index order, backwards,
// and the expectation over all orders, K/6 sum t^2 + (K/3 - 1/6) y^2.
func newProduct(a, b []float32) product {
	var sum, abs, squares, walk, first float64
	k := 0
	for ; k+4 <= len(a); k += 4 { // every fourth partial sum stands for four
		t0, t1 := float64(a[k])*float64(b[k]), float64(a[k+1])*float64(b[k+1])
		t2, t3 := float64(a[k+2])*float64(b[k+2]), float64(a[k+3])*float64(b[k+3])
		abs += (math.Abs(t0) + math.Abs(t1)) + (math.Abs(t2) + math.Abs(t3))
		squares += (t0*t0 + t1*t1) + (t2*t2 + t3*t3)
		sum += (t0 + t1) + (t2 + t3)
		walk += 4 * sum * sum
		first += 4 * sum
	}
	for ; k < len(a); k++ {
		t := float64(a[k]) * float64(b[k])
		abs += math.Abs(t)
		squares += t * t
		sum += t
		walk += sum * sum
		first += sum
	}
	n := float64(len(a))
	backwards := walk - 2*sum*first + n*sum*sum
	expected := n/6*squares + (n/3-1.0/6)*sum*sum
	return product{sum, abs, squares, max(walk, backwards, expected)}
}

// add counts the roundings of the sum, in terms of scale times itself: depth n + 1 at the worst, one of them the products'.
// With L lanes, each partial sum is an L-th (or a sqrt(L)-th, where signs are random) of what it is with one, and the lanes are
// then added up in a tree of log2(L) levels.
func (p product) add(s *sums, i, k int, scale float64) {
	n := s.Lanes.Depth(k) + 1
	s.round(i, n/(1-n*unit)*p.abs*scale, (p.chance(s.Lanes)+p.squares+2*p.sum*p.sum)*scale*scale)
}

// chance is the sum of the squares of the partial sums.
func (p product) chance(lanes compare.Lanes) float64 {
	n := float64(max(lanes, 1))
	return p.walk/n + math.Log2(n)*p.squares
}

func (e *Evaluator) linearBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	x, out := in[0], want.Cols()
	return e.linearBlocks(n, x, func(first int, l ref.Linear) {
		parallel(x.Rows(), func(r int) {
			for o := range l.Weight.Shape[0] {
				i := r*out + first + o
				p := newProduct(x.Row(r), l.Weight.Row(o))
				p.add(s, i, x.Cols(), 1)
				if l.Bias.Shape != nil { // added last, perhaps to a product that has been stored
					y := p.sum + float64(l.Bias.Data[o])
					s.store(i, p.sum, 1)
					s.round(i, y, y*y)
				}
			}
		})
	})
}

// patchBudget: transformers also rounds the pixels to the class before the convolution.
func (e *Evaluator) patchBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	w, err := e.param(n, 0)
	if err != nil {
		return err
	}
	x := e.in.PixelValues
	channels, px, width, p := x.Shape[1], x.Shape[2], w.Shape[0], w.Shape[2]
	side, size := px/p, channels*p*p
	coarse := finer(x, s.Class) != nil
	parallel(x.Shape[0]*side*side, func(patch int) {
		tile, gy, gx := patch/(side*side), patch/side%side, patch%side
		values := make([]float32, 0, size)
		for c := range channels {
			for ky := range p {
				at := ((tile*channels+c)*px+gy*p+ky)*px + gx*p
				values = append(values, x.Data[at:at+p]...)
			}
		}
		for d := range width {
			q := newProduct(values, w.Data[d*size:][:size])
			i := ((tile*width+d)*side+gy)*side + gx
			q.add(s, i, size, 1)
			if coarse {
				u := s.Class.Roundoff()
				s.sto[i] += u * q.abs
				s.sto2[i] += u * u * q.squares / 3
			}
		}
	})
	s.derived = coarse
	return nil
}

// scoresBudget: the scale is applied to the query, to the product (then transformers stores both), or to both factors as a root.
// 1/sqrt(Dh) rounded to float32 is the same relative error everywhere.
func (e *Evaluator) scoresBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	q, k := in[0], in[1]
	width := len(q.Data) / (q.Rows() * n.Heads)
	if len(q.Shape) == 3 && q.Shape[1] == n.Heads && n.Causal {
		width = q.Cols()
	}
	batch, queries, keys := heads(want.Shape, n.Heads)
	scale := 1 / math.Sqrt(float64(width))
	fraction, _ := math.Frexp(scale)
	s.tilt = unit + s.shortProducts()
	parallel(batch*n.Heads*queries, func(r int) {
		b, h, i := r/(n.Heads*queries), r/queries%n.Heads, r%queries
		a := q.Data[((b*queries+i)*n.Heads+h)*width:][:width]
		steps, rounded := s.halfSteps(a, scale)
		for j := range visible(n, i, queries, keys) {
			key := k.Data[((b*keys+j)*n.KVHeads+h/(n.Heads/n.KVHeads))*width:][:width]
			p := newProduct(a, key)
			at := r*keys + j
			p.add(s, at, width, scale)
			s.store(at, p.sum, scale)
			if fraction != 0.5 { // scaling by a power of two is free of error
				s.round(at, 2*p.abs*scale, 2*p.squares*scale*scale)
			}
			if rounded {
				for d, h := range steps {
					h *= math.Abs(float64(key[d]))
					s.sto[at] += h
					s.sto2[at] += h * h / 3
				}
			}
		}
	})
	return nil
}

// contextBudget is that of a sum over the visible keys.
func (e *Evaluator) contextBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	probs, v := in[0], in[1]
	batch, queries, keys := heads(probs.Shape, n.Heads)
	width := want.Cols() / n.Heads
	parallel(batch*n.Heads, func(bh int) {
		b, h := bh/n.Heads, bh%n.Heads
		values := shapes.NewTensor(width, keys)
		for j := range keys {
			row := v.Data[((b*keys+j)*n.KVHeads+h/(n.Heads/n.KVHeads))*width:][:width]
			for d, x := range row {
				values.Data[d*keys+j] = x
			}
		}
		for i := range queries {
			count := visible(n, i, queries, keys)
			p := probs.Row(bh*queries + i)[:count]
			for d := range width {
				newProduct(p, values.Row(d)[:count]).add(s, ((b*queries+i)*n.Heads+h)*width+d, count, 1)
			}
		}
	})
	return nil
}

// heads reads the sizes of a square of scores: [N, H, S, S] or [H, T, L].
func heads(square []int, n int) (batch, queries, keys int) {
	rank := len(square)
	queries, keys = square[rank-2], square[rank-1]
	return shapes.Product(square[:rank-2]) / n, queries, keys
}

// visible is how many keys query i sees.
func visible(n shapes.Node, i, queries, keys int) int {
	if n.Causal {
		return i + 1 + keys - queries
	}
	return keys
}

// The error of library functions, in roundoffs of their result: one unit in the last place is two of them.
const (
	worstExp, chanceExp = 4, 2  // exp, two units at the worst
	worstErf, chanceErf = 16, 4 // erf, absolute: as 1 minus a polynomial times e^(-x^2), it has an error of its own (1.5e-7, Abramowitz and Stegun 7.1.26) and those of terms near 1. torch's is up to 12
	onlineSteps         = 5     // an online softmax, which rescales its sum when it meets a new maximum: a product, an exp
)

// softmaxBudget: y_j = e^(x_j) / sum e^(x_i), x = s - max s. An error d of x_j moves y_j by y_j d, and the denominator by the mean of the d over y.
// Rounding x, or its product with log2(e) where exp is computed as a power of two, is an error of u |x| each.
func (e *Evaluator) softmaxBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	x := masked(n, in[0], float32(math.Inf(-1)))
	s.pool = compare.Whole
	queries, keys := x.Shape[len(x.Shape)-2], x.Cols()
	parallel(x.Rows(), func(r int) {
		count := visible(n, r%queries, queries, keys)
		row, y := x.Row(r)[:count], want.Row(r)[:count]
		top := float64(slices.Max(row))
		span := top - float64(slices.Min(row))
		var worst, chance float64 // of the denominator
		for j, p := range y {
			d := 2 * (top - float64(row[j]))
			worst += float64(p) * (d + worstExp)
			chance += float64(p) * float64(p) * (d*d + chanceExp*chanceExp)
		}
		ones := slices.Repeat([]float32{1}, count)
		sum := newProduct(y, ones)
		worst += onlineSteps*s.Lanes.Depth(count) + span
		chance += sum.chance(s.Lanes)/max(sum.sum*sum.sum, 1e-9) + onlineSteps*math.Log(float64(count)+1)
		for j, p := range y {
			i, d, p := r*keys+j, 2*(top-float64(row[j])), float64(p)
			if p == 0 {
				continue // an exponent below float32's range, or no number at all
			}
			s.round(i, p*(worst+d+worstExp+2), p*p*(chance+d*d+chanceExp*chanceExp+2))
		}
	})
	return nil
}

// layerNormBudget: y = (x - m)/sigma w + b. An error of the mean moves all of a row by w/sigma times itself; one of the variance, relative, by half of
// itself times y - b. The mean is itself rounded, and so is x - m. Implementations that store after each step store (x-m)/sigma and its product with w.
func (e *Evaluator) layerNormBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	weight, err := e.param(n, 0)
	if err != nil {
		return err
	}
	bias, err := e.param(n, 1)
	if err != nil {
		return err
	}
	x, cols := in[0], want.Cols()
	ones := slices.Repeat([]float32{1}, cols)
	s.pool, s.tilt = compare.PerRow, normTilt+s.shortProducts()
	parallel(x.Rows(), func(r int) {
		row, k := x.Row(r), float64(cols)
		p := newProduct(row, ones)
		mean := p.sum / k
		deviations := make([]float32, cols)
		for j, v := range row {
			deviations[j] = float32(float64(v) - mean)
		}
		q := newProduct(deviations, deviations)
		sigma := math.Sqrt(q.sum/k + n.Eps)
		depth := s.Lanes.Depth(cols)
		// Of the mean, absolute; the sum's walk over K, and the rounding of the mean itself.
		meanWorst := (depth*p.abs)/k + 2*math.Abs(mean)
		meanChance := p.chance(s.Lanes)/(k*k) + 2*mean*mean
		// Of sigma, relative: half of the variance's.
		sigmaWorst := (depth+1)/2 + normSteps
		sigmaChance := (q.chance(s.Lanes)+q.squares)/4/max(q.sum*q.sum, 1e-300) + normSteps
		for j := range row {
			i, w := r*cols+j, float64(weight.Data[j])
			scaled := float64(want.Data[i]) - float64(bias.Data[j]) // (x - m)/sigma w
			s.round(i, math.Abs(w)/sigma*meanWorst+math.Abs(scaled)*sigmaWorst, w/sigma*w/sigma*meanChance+scaled*scaled*sigmaChance)
			s.round(i, scaled, scaled*scaled)  // x - m
			s.store(i, quotient(scaled, w), w) // over sigma
			s.store(i, scaled, 1)              // times w
		}
	})
	return nil
}

// The roundings of a norm beside its sums.
const (
	normSteps = 4        // 1/sqrt by an approximation and a Newton step, its argument, its product
	normTilt  = 4 * unit // what such an approximation and a rounded 1/K or eps may err on one side, relative
)

// rmsNormBudget: y = x w / sqrt(mean(x^2) + eps); an error of the mean, relative, moves a row by half of itself. transformers stores x / sqrt(...).
// Squares of numbers with few digits are a case of their own: see squaresLost.
func (e *Evaluator) rmsNormBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	weight, err := e.param(n, 0)
	if err != nil {
		return err
	}
	x, cols := in[0], want.Cols()
	tilts := make([]float64, x.Rows())
	parallel(x.Rows(), func(r int) {
		p := newProduct(x.Row(r), x.Row(r))
		lost := squaresLost(x.Row(r), s.Lanes) / 2
		worst := (s.Lanes.Depth(cols)+1)/2 + normSteps
		chance := (p.chance(s.Lanes)+p.squares)/4/max(p.sum*p.sum, 1e-300) + normSteps + lost*lost
		tilts[r] = lost
		for j := range cols {
			i := r*cols + j
			y, w := float64(want.Data[i]), float64(weight.Data[j])
			s.round(i, y*(worst+1), y*y*(chance+1))
			s.store(i, quotient(y, w), w) // x / sqrt(...)
		}
	})
	s.pool, s.tilt = compare.PerRow, normTilt+s.shortProducts()+unit*slices.Max(tilts)
	return nil
}

// squaresLost is what a sum of the squares of numbers of float16 or bfloat16 may lose on one side, in roundoffs of the sum. An odd square is 1 modulo 8,
// so that its lower digits are rounded down far more often than up, once the partial sum has no room for them: up to an eighth of a
// roundoff for each addition, where other sums only have errors of chance. Embeddings are such numbers, whatever the engine's class.
func squaresLost(x []float32, lanes compare.Lanes) float64 {
	for _, c := range []compare.Class{compare.F16, compare.BF16} {
		if !slices.ContainsFunc(x, func(v float32) bool { return c.Round(v) != v }) {
			return lanes.Depth(len(x)) / 8
		}
	}
	return 0
}

// rotaryBudget: cos and sin of a given float32 angle, to two units in the last place of 1. The angle itself is exact.
func (e *Evaluator) rotaryBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	s.pool = compare.Whole
	for i, y := range want.Data {
		s.round(i, 2*math.Abs(float64(y))+2, float64(y)*float64(y)+0.25)
	}
	return nil
}

// ropeBudget: two products, which transformers stores, and their sum.
func (e *Evaluator) ropeBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	x, cos, sin := in[0], in[1], in[2]
	width := cos.Cols()
	s.tilt = 2 * s.shortProducts()
	parallel(want.Shape[0], func(t int) {
		c, sn := cos.Row(t), sin.Row(t)
		for h := range n.Heads {
			at := (t*n.Heads + h) * width
			for j := range width {
				s.store(at+j, float64(x.Data[at+j])*float64(c[j]), 1)
				s.store(at+j, float64(x.Data[at+(j+width/2)%width])*float64(sn[j]), 1)
			}
		}
	})
	return nil
}

// quickGELUBudget: y = x g, g = 1/(1 + e^-t), t = 1.702 x. dy/dt = x g (1-g). transformers stores t, g and y.
func (e *Evaluator) quickGELUBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	s.pool, s.skewed = compare.Whole, true
	parallel(in[0].Rows(), func(r int) {
		for j, v := range in[0].Row(r) {
			i, x := r*want.Cols()+j, float64(v)
			slope, g := sigmoidBudget(s, i, x, 1.702*x, 3)
			s.store(i, 1.702*x, slope)
			s.store(i, g, x)
		}
	})
	return nil
}

// siluBudget is the same with t = x. transformers stores y only.
func (e *Evaluator) siluBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	s.pool, s.skewed = compare.Whole, true
	parallel(in[0].Rows(), func(r int) {
		for j, v := range in[0].Row(r) {
			sigmoidBudget(s, r*want.Cols()+j, float64(v), float64(v), 2)
		}
	})
	return nil
}

// sigmoidBudget counts the float32 roundings of x/(1 + e^-t): some of t, the exp, the sum, the quotient, the product.
// It returns dy/dt and the sigmoid of t.
func sigmoidBudget(s *sums, i int, x, t, roundings float64) (slope, g float64) {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return 0, 0
	}
	g = 1 / (1 + math.Exp(-t))
	slope = x * g / (1 + math.Exp(t))
	y := x * g
	s.round(i, math.Abs(slope)*(roundings*math.Abs(t)+worstExp)+3*math.Abs(y), slope*slope*(roundings*t*t+chanceExp*chanceExp)+3*y*y)
	return slope, g
}

// geluBudget: y = x/2 (1 + erf(x/sqrt 2)). For negative x the sum cancels: an error of erf is one of y, times x/2, however small y is.
func (e *Evaluator) geluBudget(n shapes.Node, in []shapes.Tensor, want shapes.Tensor, s *sums) error {
	s.pool, s.skewed = compare.Whole, true
	parallel(in[0].Rows(), func(r int) {
		for j, v := range in[0].Row(r) {
			i, x := r*want.Cols()+j, float64(v)
			if math.IsInf(x, 0) || math.IsNaN(x) {
				continue
			}
			slope := x * math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) * x // x times dy/dx of the erf
			y := float64(want.Data[i])
			s.round(i, worstErf*math.Abs(x)/2+2*math.Abs(slope)+3*math.Abs(y), chanceErf*chanceErf*x*x/4+2*slope*slope+3*y*y)
		}
	})
	return nil
}

// quotient is a/b, and 0/0 = 0.
func quotient(a, b float64) float64 {
	if a == 0 {
		return 0
	}
	return a / b
}

// parallel calls f(0) ... f(n-1) on all cores. No two calls write to the same entry.
func parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
