package compare

import (
	"math"
	"slices"
)

// This file holds what the local verdict needs of statistics: how large a mean of errors may be that are drawn by chance,
// and how many of them are independent.

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

func (s stats) rms() float64 { return math.Sqrt(s.squares / float64(s.n)) }

// sums gathers errors for their mean.
type sums struct {
	n             int
	sum, directed float64
}

func (s *stats) sums() sums { return sums{s.n, s.sum, s.directed} }

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
