package compare

import (
	"math"

	"github.com/llavaref/llavaref/shapes"
)

// TokenVerdict says what became of the most probable token at one position.
type TokenVerdict string

// The verdicts, from best to worst.
const (
	Match   TokenVerdict = "MATCH"    // the same token
	NearTie TokenVerdict = "NEAR-TIE" // another one, but the truth prefers its own by less than the noise of the declared class
	Drifts  TokenVerdict = "DRIFT"    // another one, which the noise of the coarsest class could explain, but not that of the declared one
	Wrong   TokenVerdict = "WRONG"    // another one, and no rounding explains it
)

// LogitsInput is the true logits of a prompt and an engine's, [T, V], every position fed with the true tokens.
type LogitsInput struct {
	Truth, Got shapes.Tensor
	Floor      float64 // noise floor of the logits in the declared class, whole tensor
	Coarsest   float64 // the largest of the floors of all classes
	Class      Class
}

// LogitsResult is the verdict over all positions.
type LogitsResult struct {
	Verdict
	KL     []float64      // divergence of the engine's distribution from the true one, in nats, by position
	Tokens []TokenVerdict // by position
	Margin []float64      // by how much the truth prefers its own token to the engine's
	Noise  float64        // margins below it are ties
	Counts map[TokenVerdict]int
}

// Logits judges the next-token distributions. With errors dz of the logits, KL = Var(dz)/2 to second order, the variance taken over
// the true distribution p; if they are independent with standard deviation s, its expectation is s^2 (1 - sum p^2) / 2.
// A class's s is its floor times the rms of the logits.
func Logits(in LogitsInput) LogitsResult {
	r := LogitsResult{Counts: map[TokenVerdict]int{}}
	truth, got := in.Truth, in.Got
	if len(truth.Shape) != 2 || len(got.Shape) != 2 || truth.Shape[0] != got.Shape[0] || truth.Shape[1] != got.Shape[1] || len(truth.Data) == 0 || len(got.Data) != len(truth.Data) {
		r.Verdict = verdict([]Check{{Criterion: Shape, Value: 1, Ratio: Worse}})
		return r
	}
	positions := float64(truth.Rows())
	rms := rootMeanSquare(truth.Data)
	sigma := max(in.Floor, minimumFloor(in.Class)) * rms
	coarse := max(in.Coarsest, minimumFloor(BF16)) * rms
	// Two logits of one position differ by sqrt(2) sigma; the chance that any position's pair exceeds the tail is falseAlarm.
	spread := math.Sqrt2 * math.Sqrt(tail(1, positions))
	r.Noise = sigma * spread

	bad, worstToken := -1, 0
	var sum, expected float64
	var worst Check
	for t := range truth.Rows() {
		z, y := truth.Row(t), got.Row(t)
		kl, p2, ok := divergence(z, y)
		if !ok && bad < 0 {
			bad = t
		}
		own, other := argmax(z), argmax(y)
		margin := float64(z[own]) - float64(z[other])
		token := tokenVerdict(own == other, margin, r.Noise, coarse*spread)
		if !ok {
			token = Wrong
		}
		r.KL, r.Tokens, r.Margin = append(r.KL, kl), append(r.Tokens, token), append(r.Margin, margin)
		r.Counts[token]++
		if margin > r.Margin[worstToken] {
			worstToken = t
		}
		variance := sigma * sigma * (1 - p2)
		sum += kl
		expected += variance / 2
		limit := variance/2*tail(1, positions) + klResolution
		if c := check(KLWorst, kl, limit, []int{t}); worst.Criterion == "" || c.Ratio > worst.Ratio {
			worst = c
		}
	}
	var checks []Check
	if bad >= 0 {
		checks = append(checks, Check{NonFinite, 1, 0, Worse, []int{bad}})
	}
	checks = append(checks,
		check(KLMean, sum/positions, driftFactor*driftFactor*expected/positions+klResolution, nil),
		worst,
		check(Token, r.Margin[worstToken], r.Noise, []int{worstToken}))
	r.Verdict = verdict(checks)
	return r
}

func tokenVerdict(same bool, margin, noise, coarse float64) TokenVerdict {
	switch {
	case same:
		return Match
	case margin <= noise:
		return NearTie
	case margin <= coarse:
		return Drifts
	}
	return Wrong
}

// klResolution is what float64 leaves of a divergence of 0, for any vocabulary.
const klResolution = 1e-14

// divergence is KL(softmax(z) || softmax(y)) and the sum of the squares of softmax(z); not ok if a logit is no finite number.
func divergence(z, y []float32) (kl, p2 float64, ok bool) {
	lz, ly := LogSumExp(z), LogSumExp(y)
	if !finite(lz) || !finite(ly) {
		return Worse, 0, false
	}
	for i := range z {
		if !finite(float64(z[i])) || !finite(float64(y[i])) {
			return Worse, 0, false
		}
		log := float64(z[i]) - lz
		p := math.Exp(log)
		kl += p * (log - float64(y[i]) + ly)
		p2 += p * p
	}
	return max(kl, 0), p2, true
}

// LogSumExp is the logarithm of the sum of e^z, which may itself be too large for a number.
func LogSumExp(z []float32) float64 {
	top := math.Inf(-1)
	for _, v := range z {
		top = max(top, float64(v))
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// argmax is the index of the largest value, the lowest of equal ones.
func argmax(z []float32) int {
	best := 0
	for i, v := range z {
		if v > z[best] {
			best = i
		}
	}
	return best
}

func rootMeanSquare(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(x)))
}

// DistanceLimit is how far, as a root mean square in nats, the log-probabilities of a right engine may be from the truth: driftFactor noise floors
// of the logits, in units of their root mean square, and more for an engine in float32 with fewer accumulators than the floors were measured
// with. The normaliser of a distribution moves by less than its logits do.
func DistanceLimit(as Arithmetic, floor, rms float64) float64 {
	in := DriftInput{Class: as.Class, Lanes: as.Lanes}
	return in.limit(max(floor, minimumFloor(as.Class))) * rms
}
