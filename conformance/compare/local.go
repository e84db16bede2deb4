package compare

import (
	"math"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// The calibration: how many times the modelled root mean square error a right kernel may show.
const (
	// accFactor multiplies the chance error of float32 arithmetic, whose unit is one roundoff a rounding. The root mean
	// square of a rounding error is 0.42 roundoffs for a number of unknown leading digits, and up to 0.58 for one just above a power of two.
	accFactor = 1.5
	// stoFactor multiplies the chance error of storage, half a step over sqrt(3). The error of rounding a sum of two
	// numbers of the class with one exponent is 0 or the half step, each as often: 0.71 half steps instead of 0.58, a factor of 1.22.
	stoFactor = 1.25
	// falseAlarm is the chance that one tensor of a right engine fails one criterion, were its errors exactly as large as the
	// calibration allows.
	falseAlarm = 1e-6
	// biasSigmas is the number of standard deviations that the mean of the errors may be away from 0.
	biasSigmas = 5
	// lopsided is how much larger than modelled the mean square error of a library function may be: all of its errors
	// may be the largest ones, twice the modelled ones.
	lopsided = 4
	// flush is the smallest normal float32: anything below may be flushed to zero.
	flush = 0x1p-126
)

// LocalResult is the local verdict of one node.
type LocalResult struct {
	Verdict
	Entries int // compared; masked ones are not
	Rows    int
	// Distinct is how many rows there are for statistics: identical rows (a padded tile, a repeated token) count as one.
	Distinct float64
	// Finer counts values that the declared class cannot hold. It fails nothing: the engine is better than it says.
	Finer int
}

// Local judges the output of one node against the truth on the engine's own inputs.
func Local(b Budget, node shapes.Node, got shapes.Tensor) LocalResult {
	if !slices.Equal(b.Want.Shape, got.Shape) || len(got.Data) != len(b.Want.Data) || len(got.Shape) == 0 || len(got.Data) == 0 {
		return LocalResult{Verdict: verdict([]Check{{Criterion: Shape, Value: 1, Ratio: Worse}})}
	}
	j := newJudge(b, node, got)
	for i := range got.Data {
		j.entry(i)
	}
	r := LocalResult{Entries: j.total.n, Rows: b.Want.Rows(), Distinct: j.distinctRows(), Finer: j.finer}
	r.Verdict = verdict(j.checks(r.Distinct))
	return r
}

// Excess is, entry by entry, the error in units of the most that rounding may do to it: above 1 the entry is wrong by itself.
// Where NaN, an infinity or a masked probability is not what it must be, it is Worse.
func Excess(b Budget, node shapes.Node, got shapes.Tensor) []float64 {
	j := newJudge(b, node, got)
	x := make([]float64, len(got.Data))
	for i := range x {
		x[i] = j.excess(i)
	}
	return x
}

// judge walks over the entries of a tensor.
type judge struct {
	Budget
	node shapes.Node
	got  shapes.Tensor

	total  stats
	rows   []stats
	slices [][]stats // by axis, then index
	lines  [][]sums  // by axis, then all of the other indices; rows are those of the last axis

	bad, bound, largest, masked, copied site
	finer                               int
}

// site is the entry with the largest value of something.
type site struct {
	value, limit float64
	at           int
	seen         bool
}

func (s *site) offer(value, limit float64, at int) {
	if !s.seen || value*s.limit > s.value*limit {
		*s = site{value, limit, at, true}
	}
}

func newJudge(b Budget, node shapes.Node, got shapes.Tensor) *judge {
	j := &judge{Budget: b, node: node, got: got, rows: make([]stats, b.Want.Rows())}
	for a, n := range b.Want.Shape {
		j.slices = append(j.slices, make([]stats, n))
		if len(b.Want.Shape) > 2 && a < len(b.Want.Shape)-1 && n > 1 {
			j.lines = append(j.lines, make([]sums, len(b.Want.Data)/n))
		} else {
			j.lines = append(j.lines, nil)
		}
	}
	return j
}

// hidden says whether the causal mask hides entry i of a square of scores or probabilities.
func (j *judge) hidden(i int) bool {
	if !j.node.Causal || j.node.Kind == shapes.Context {
		return false
	}
	t, l := j.Want.Shape[len(j.Want.Shape)-2], j.Want.Cols()
	return i%l > i/l%t+l-t
}

func at(s []float32, i int) float64 {
	if s == nil {
		return 0
	}
	return float64(s[i])
}

// limits of entry i: the most that rounding can do, and the part of storage in it; the chance size that is allowed,
// and the part of float32 arithmetic in the square of that.
func (j *judge) limits(i int) (worst, stored, chance, acc float64) {
	want := math.Abs(float64(j.Want.Data[i]))
	second := 1 + 4*j.Class.Roundoff() // errors of errors
	worst = second * (at(j.Acc, i) + at(j.Sto, i))
	out, own := j.Class.HalfStep(want+worst), F32.HalfStep(want) // the engine's last rounding, and that of the truth itself
	stored = second*at(j.Sto, i) + out + own + flush
	worst += out + own + flush
	a := accFactor * at(j.AccRMS, i)
	s := at(j.StoRMS, i)
	sto := stoFactor * stoFactor * (s*s + (out*out+own*own)/3)
	chance = math.Sqrt(a*a+sto) + flush
	return worst, stored, chance, a * a / (chance * chance)
}

// excess is the error of entry i over the most that rounding can do; 0 for an entry that is not judged.
func (j *judge) excess(i int) float64 {
	want, got := float64(j.Want.Data[i]), float64(j.got.Data[i])
	switch {
	case j.hidden(i):
		if j.node.Kind == shapes.Softmax && got != 0 && !math.IsNaN(want) {
			return Worse
		}
		return 0
	case !sameNonFinite(want, got, j.Class):
		return Worse
	case !finite(want) || got == want || !finite(got):
		return 0
	case j.Copy:
		if got == float64(j.Class.Round(float32(want))) {
			return 0
		}
		return max(2, math.Abs(got-want)/j.Class.HalfStep(want))
	}
	worst, _, _, _ := j.limits(i)
	return math.Abs(got-want) / worst
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// sameNonFinite holds NaN against NaN and an infinity against the same infinity. A finite truth that overflows the class may be one.
func sameNonFinite(want, got float64, class Class) bool {
	switch {
	case finite(want) && finite(got):
		return true
	case math.IsNaN(want):
		return math.IsNaN(got)
	case finite(want):
		return got == float64(class.Round(float32(want)))
	}
	return got == want
}

// entry takes entry i into the statistics.
func (j *judge) entry(i int) {
	want, got := float64(j.Want.Data[i]), float64(j.got.Data[i])
	if j.hidden(i) {
		if j.node.Kind == shapes.Softmax {
			if j.masked.seen = true; got != 0 && !math.IsNaN(want) && j.masked.value == 0 {
				j.masked = site{1, 0, i, true}
			}
		}
		return
	}
	if !sameNonFinite(want, got, j.Class) {
		if j.bad.value == 0 { // the first one says most
			j.bad = site{1, 0, i, true}
		}
		return
	}
	if !finite(want) || !finite(got) {
		return
	}
	if j.Class.Round(j.got.Data[i]) != j.got.Data[i] {
		j.finer++
	}
	if j.Copy {
		j.copied.offer(j.excess(i), 1, i)
		j.total.n++
		return
	}
	worst, stored, chance, acc := j.limits(i)
	d := got - want
	e := d / chance
	sign := 1.0
	if want < 0 {
		sign = -1
	}
	j.bound.offer(math.Abs(d), worst, i)
	j.largest.offer(math.Abs(e), 1, i)
	o := stats{n: 1, squares: e * e, acc: acc, most: stored * stored / (chance * chance), sum: e, directed: e * sign, tilt: j.Tilt * math.Abs(want) / chance}
	j.total.add(o)
	j.rows[i/j.Want.Cols()].add(o)
	stride := 1
	for a := len(j.slices) - 1; a >= 0; a-- {
		n := len(j.slices[a])
		j.slices[a][i/stride%n].add(o)
		if j.lines[a] != nil {
			l := &j.lines[a][i/(stride*n)*stride+i%stride]
			l.n++
			l.sum += o.sum
			l.directed += o.directed
		}
		stride *= n
	}
}

// checks evaluates the criteria.
func (j *judge) checks(rows float64) []Check {
	var checks []Check
	where := func(i int) []int { return index(j.Want.Shape, i) }
	if j.bad.seen {
		checks = append(checks, Check{NonFinite, 1, 0, Worse, where(j.bad.at)})
	}
	if j.masked.seen {
		c := Check{Criterion: Masked, Value: j.masked.value, Where: where(j.masked.at)}
		if j.masked.value > 0 {
			c.Ratio = Worse
		} else {
			c.Where = nil
		}
		checks = append(checks, c)
	}
	if j.copied.seen {
		checks = append(checks, check(Copied, j.copied.value, 1, where(j.copied.at)))
	}
	if j.Copy || j.total.n == 0 {
		return checks
	}
	own := j.independent(0, 1, len(j.Want.Data))
	checks = append(checks,
		check(Bound, j.bound.value, j.bound.limit, where(j.bound.at)),
		check(Largest, j.largest.value, math.Sqrt(tail(1, float64(j.total.n))), where(j.largest.at)),
		check(RMS, j.total.rms(), j.limit(j.total, own, rows, 1), nil),
		j.worstRow())
	if c, has := j.worstSlice(rows); has {
		checks = append(checks, c)
	}
	if j.Derived || j.Skewed && j.Class != F32 { // no mean of 0 to be expected
		return checks
	}
	return append(checks,
		j.mean(Bias, rows, func(s sums) float64 { return s.sum }),
		j.mean(Shrink, rows, func(s sums) float64 { return s.directed }))
}

// worstRow is the check of the row that is nearest to its limit or furthest beyond it.
func (j *judge) worstRow() Check {
	worst, cols := Check{Ratio: -1}, j.Want.Cols()
	for r, s := range j.rows {
		if s.n == 0 {
			continue
		}
		own := min(j.independent(r*cols, 1, cols), float64(s.n))
		if c := check(RowRMS, s.rms(), j.limit(s, own, 1, float64(len(j.rows))), nil); c.Ratio > worst.Ratio {
			worst = c
			worst.Where = index(j.Want.Shape, r*cols)
			worst.Where[len(worst.Where)-1] = -1
		}
	}
	return worst
}

// worstSlice is the same over the indices of every axis.
func (j *judge) worstSlice(rows float64) (Check, bool) {
	worst, size := Check{Ratio: -1}, len(j.Want.Data)
	distinct := rows / float64(len(j.rows))
	stride := size
	for a, groups := range j.slices {
		stride /= len(groups) // distance of neighbours along the axis
		for k, s := range groups {
			if s.n == 0 || len(groups) == 1 {
				continue
			}
			var own, rows float64
			if stride == 1 { // a column: every entry in a row of its own
				own = j.independent(k, len(groups), size/len(groups))
				rows = float64(s.n) * distinct
			} else {
				own = j.independent(k*stride, 1, stride) // the first block of the slice stands for all
				rows = max(float64(s.n)/float64(j.Want.Cols())*distinct, 1)
				own *= rows * float64(j.Want.Cols()) / float64(stride)
			}
			own = max(min(own, float64(s.n)), 1)
			if c := check(SliceRMS, s.rms(), j.limit(s, own, rows, float64(len(groups))), nil); c.Ratio > worst.Ratio {
				worst = c
				worst.Where = slices.Repeat([]int{-1}, len(j.slices))
				worst.Where[a] = k
			}
		}
	}
	return worst, worst.Ratio >= 0
}

// index is the multi-index of entry i of a tensor.
func index(shape []int, i int) []int {
	at := make([]int, len(shape))
	for a := len(shape) - 1; a >= 0; a-- {
		at[a] = i % shape[a]
		i /= shape[a]
	}
	return at
}
