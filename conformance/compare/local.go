package compare

import (
	"math"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Budget is the true output of one node on given inputs, and what rounding may do to each entry of it.
// Rounding a magnitude m to nearest moves the result by at most half a step of the format at m, and by a chance
// amount within that: worst cases add up, chance amounts add up as squares. So each entry has a sum and a root of a sum
// of squares, for the roundings of float32 arithmetic and for those of intermediate values to the storage class.
// The output's own rounding to storage is not in them: Local adds it. A nil slice is all zeros.
type Budget struct {
	Want  shapes.Tensor // y*, computed in float64 and rounded to float32
	Class Class         // of storage

	Acc    []float32 // float32 arithmetic, at the worst
	AccRMS []float32 // the same by chance: a roundoff for each rounding, times the magnitude
	Sto    []float32 // storage of intermediate values, at the worst; nil in class f32, where it is arithmetic
	StoRMS []float32 // the same by chance: half a step over sqrt(3) for each

	Pool  Pool    // how far one error of float32 arithmetic reaches
	Tilt  float64 // relative error that all entries may share, such as that of a rounded constant
	Copy  bool    // the node only moves values: no arithmetic at all
	Fused bool    // the value is never stored: the engine keeps it in registers

	// Derived says that some input is not the engine's own. An error of an input reaches many entries at once, in
	// proportions that are the weights' and not chance.
	Derived bool

	// Skewed says that errors of storage need not average out: a smooth function maps neighbouring numbers of the class to
	// numbers on one side of their neighbours, as x sigmoid(x) = x/2 + x^2/4 does where x is small.
	Skewed bool
}

// Pool says which entries share one error of float32 arithmetic. Shared errors do not average out.
type Pool int

// The pools.
const (
	PerEntry Pool = iota // each entry has its own: sums of products
	PerRow               // a row has one: the mean and the variance of a norm, the denominator of a softmax
	Whole                // all may have the same: an approximation of exp or erf errs on one side
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

// stats gathers the errors of one group of entries.
type stats struct {
	n        int
	squares  float64 // of e = error over its allowed chance size
	acc      float64 // of that, the part allowed to float32 arithmetic
	most     float64 // of that, what storage can do at the worst
	sum      float64 // of e
	directed float64 // of e times the sign of the truth
	tilt     float64 // of what Tilt allows of e
}

func (s *stats) add(o stats) {
	s.n += o.n
	s.squares += o.squares
	s.acc += o.acc
	s.most += o.most
	s.sum += o.sum
	s.directed += o.directed
	s.tilt += o.tilt
}

// sums gathers errors for their mean.
type sums struct {
	n             int
	sum, directed float64
}

func (s *stats) sums() sums { return sums{s.n, s.sum, s.directed} }

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

// distinctRows is the number of distinct rows: R^2 / sum n^2 with n the multiplicities of equal rows of the truth.
func (j *judge) distinctRows() float64 {
	count := map[uint64]float64{}
	rows := j.Want.Rows()
	for r := range rows {
		h := uint64(0xcbf29ce484222325) // FNV-1a, a value at a time
		for _, v := range j.Want.Row(r) {
			h = (h ^ uint64(math.Float32bits(v))) * 0x100000001b3
		}
		count[h]++
	}
	squares := 0.0
	for _, n := range count {
		squares += n * n
	}
	return float64(rows) * float64(rows) / squares
}

// tail is the factor by which the mean square of m independent errors exceeds its expectation in the largest of g groups,
// but for a chance of falseAlarm: Laurent and Massart's bound for the chi-square distribution, and for m = 1 the normal distribution's own.
func tail(m, g float64) float64 {
	x := math.Log(max(g, 1) / falseAlarm)
	if m <= 1 {
		return 2 * x
	}
	return 1 + 2*math.Sqrt(x/m) + 2*x/m
}

// limit is the allowed root mean square of a group of errors in units of their chance size: own of them are independent in storage,
// and their float32 arithmetic lies in so many rows; groups is how many groups are looked at. Errors of storage are bounded, however
// alike they are. An error that all entries share is one of a library function and bounded as well.
func (j *judge) limit(s stats, own, rows, groups float64) float64 {
	n := float64(s.n)
	acc := s.acc / n
	storage, arithmetic := tail(own, groups), tail(j.pooled(own, rows), groups)
	switch {
	case j.Derived && groups > 1:
		storage, arithmetic = tail(1, groups), tail(1, groups)
	case j.Derived:
		storage, arithmetic = max(storage, lopsided), max(arithmetic, lopsided)
	case j.Pool == Whole:
		arithmetic = lopsided
	}
	return math.Sqrt(min((1-acc)*storage, s.most/n) + acc*arithmetic)
}

// independent is how many of the entries first, first + step, ... (count of them) have errors of their own. Entries that round to the same number of
// the class have one error between them if they are close to each other, as in a channel whose mean is much larger than its spread, or equal,
// as in a padded tile. It is 1/(1/count + p), p being the share of pairs that coincide, taken from a sample.
func (j *judge) independent(first, step, count int) float64 {
	const sample = 64
	n := min(sample, count)
	cells := make([]float32, n)
	for k := range cells {
		cells[k] = j.Class.Round(j.Want.Data[first+k*count/n*step])
	}
	slices.Sort(cells)
	pairs, run := 0, 0
	for k := 1; k < n; k++ {
		if run++; cells[k] != cells[k-1] {
			run = 0
		}
		pairs += run
	}
	if pairs == 0 {
		return float64(count)
	}
	return 1 / (1/float64(count) + float64(pairs)/float64(n*(n-1)/2))
}

// pooled is how many errors of float32 arithmetic are independent among own entries that lie in so many rows.
func (j *judge) pooled(own, rows float64) float64 {
	switch j.Pool {
	case PerRow:
		return max(rows, 1)
	case Whole:
		return 1
	}
	return own
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

func (s stats) rms() float64 { return math.Sqrt(s.squares / float64(s.n)) }

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

// mean checks the mean of the errors, or of the errors in the direction of the truth. Its standard deviation is what independent errors
// of the allowed size have, or what the data show: errors that rows, columns, heads or tiles have in common do not average out within them.
func (j *judge) mean(c Criterion, rows float64, of func(sums) float64) Check {
	n := float64(j.total.n)
	mean, acc := of(j.total.sums())/n, j.total.acc/n
	allowed := (1-acc)/n + acc/j.pooled(n, rows)
	single := (j.total.squares/n - mean*mean) / n // variance of the mean if all were independent
	seen := single
	common := func(groups int, at func(k int) sums) {
		v := 0.0
		for k := range groups {
			s := at(k)
			d := of(s) - float64(s.n)*mean
			v += d * d
		}
		seen += max(0, v/(n*n)-single)
	}
	for _, groups := range append([][]stats{j.rows}, j.slices...) {
		common(len(groups), func(k int) sums { return groups[k].sums() })
	}
	for _, groups := range j.lines {
		common(len(groups), func(k int) sums { return groups[k] })
	}
	return check(c, math.Abs(mean), biasSigmas*math.Sqrt(max(allowed, seen))+j.total.tilt/n, nil)
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
