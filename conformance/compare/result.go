package compare

import (
	"fmt"
	"math"
)

// Criterion names one demand of a comparison.
type Criterion string

const (
	Shape     Criterion = "shape"      // the tensors have the same shape
	NonFinite Criterion = "non-finite" // NaN and infinities stand where the truth has them, and nowhere else
	Masked    Criterion = "masked"     // a probability that the causal mask forbids is exactly 0
	Copied    Criterion = "copied"     // a value that is only moved is the same value, or the same one rounded to storage
	Bound     Criterion = "bound"      // no entry is off by more than rounding can do at its worst
	Largest   Criterion = "largest"    // no entry is off by more than rounding does by chance
	RMS       Criterion = "rms"        // root mean square of the error, over all entries
	RowRMS    Criterion = "row rms"    // the same over one row
	SliceRMS  Criterion = "slice rms"  // the same over one index of one axis: a channel, a head, a tile
	Bias      Criterion = "bias"       // the error's mean is 0
	Shrink    Criterion = "shrink"     // the error's mean in the direction of the truth is 0: no scale error, no truncation
	Drifted   Criterion = "drift"      // accumulated error of the whole tensor
	RowDrift  Criterion = "row drift"  // accumulated error of the worst row
	MassDrift Criterion = "massive"    // accumulated error of the columns with massive activations
	KLMean    Criterion = "mean KL"    // divergence of the next-token distribution, mean over positions
	KLWorst   Criterion = "worst KL"   // the same at the worst position
	Token     Criterion = "token"      // the most probable token
	Equal     Criterion = "equal"      // integers are the same
)

// Check is one criterion, evaluated.
type Check struct {
	Criterion Criterion
	Value     float64 // of the quantity that is limited
	Limit     float64
	Ratio     float64 // Value / Limit; above 1 the check fails. Always finite
	Where     []int   // index of the entry; -1 on the axes that a row or a slice runs over; nil for the whole tensor
}

// Verdict sums up a comparison. The criterion with the largest ratio speaks for it.
type Verdict struct {
	Pass      bool
	Ratio     float64
	Criterion Criterion
	Where     []int
	Checks    []Check // all that were evaluated
}

// Worse is a ratio for what has no measure: a NaN, a wrong shape, a wrong integer.
const Worse = math.MaxFloat64

// verdict sums up checks; with none of them nothing was compared, and that does not pass.
func verdict(checks []Check) Verdict {
	v := Verdict{Pass: len(checks) > 0, Checks: checks}
	for i, c := range checks {
		if i == 0 || c.Ratio > v.Ratio {
			v.Ratio, v.Criterion, v.Where = c.Ratio, c.Criterion, c.Where
		}
		v.Pass = v.Pass && c.Ratio <= 1
	}
	return v
}

// check evaluates value against limit. Whatever is no number fails.
func check(c Criterion, value, limit float64, where []int) Check {
	r := value / limit
	switch {
	case value == 0:
		r = 0
	case math.IsNaN(r) || r > Worse:
		r = Worse
	}
	return Check{c, value, limit, r, where}
}

// String is one line for humans: "FAIL 12.3 times the limit: slice rms 15.6, limit 1.27, at [-1 17]".
func (v Verdict) String() string {
	if len(v.Checks) == 0 {
		return "FAIL nothing was compared"
	}
	word := "pass"
	if !v.Pass {
		word = "FAIL"
	}
	for _, c := range v.Checks {
		if c.Criterion == v.Criterion && c.Ratio == v.Ratio {
			s := fmt.Sprintf("%s %.3g times the limit: %s %.4g, limit %.4g", word, v.Ratio, c.Criterion, c.Value, c.Limit)
			if v.Where != nil {
				s += fmt.Sprintf(", at %v", v.Where)
			}
			return s
		}
	}
	return word
}
