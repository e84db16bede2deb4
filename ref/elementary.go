package ref

import "math"

// The standard library's exp, log, sin, cos and erf are assembly on some processors and fused on others, and differ there
// in the last bit. These are the textbook series, each product rounded before it is added to anything, so they give the
// same bits everywhere. Their relative error is a few units of 2^-53, far below the float32 rounding of a node's output.

const (
	ln2Hi = 6.93147180369123816490e-01 // its low 32 bits are zero: k*ln2Hi is exact for |k| < 2^20
	ln2Lo = 1.90821492927058770002e-10
)

// exp is e^x.
func exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709.7:
		return math.Inf(1)
	case x < -745.2:
		return 0
	}
	k := math.Round(x / math.Ln2)
	r := x - float64(k*ln2Hi) - float64(k*ln2Lo) // |r| <= ln2/2
	sum := 1.0
	for n := 14.0; n >= 1; n-- { // Horner's form of sum r^n/n!
		sum = 1 + float64(r*sum)/n
	}
	return math.Ldexp(sum, int(k))
}

// log is the natural logarithm of a positive number: Newton's steps on exp.
func log(x float64) float64 {
	_, e := math.Frexp(x)
	y := float64(e) * math.Ln2
	for range 6 {
		y += float64(x*exp(-y)) - 1
	}
	return y
}

// erf is the error function: 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1*3*5*...*(2n+1)), all terms of one sign.
func erf(x float64) float64 {
	if x != x {
		return x
	}
	if math.Abs(x) >= 6 {
		return math.Copysign(1, x) // 1 - erf(6) = 2e-17
	}
	term, sum := x, x
	for n := 1.0; math.Abs(term) > 1e-18*math.Abs(sum); n++ {
		term = float64(term*x) * x * 2 / (2*n + 1)
		sum += term
	}
	// x^2 exactly: h*h is exact, and x^2 - h^2 is small. Rounded, it would cost erf(x) x^2 units in the last place.
	h := float64(float32(x))
	square := exp(-float64(h*h)) * exp(-float64((x-h)*(x+h)))
	return 2 / math.Sqrt(math.Pi) * square * sum
}

// pi/2 in three parts of 33 bits and less, so that k times a part is exact for |k| < 2^20.
const (
	halfPi1 = 1.57079632673412561417e+00
	halfPi2 = 6.07710050630396597660e-11
	halfPi3 = 2.02226624879595063154e-21
)

// cosSin is the cosine and sine of an angle in radians, |x| < 1.6e6.
func cosSin(x float64) (cos, sin float64) {
	k := math.Round(x / (math.Pi / 2))
	r := x - float64(k*halfPi1) - float64(k*halfPi2) - float64(k*halfPi3) // |r| <= pi/4
	q := -float64(r * r)
	cos, sin = 1, 1
	for n := 18.0; n >= 2; n -= 2 { // Horner's forms of the two Taylor series
		cos = 1 + float64(q*cos)/(n*(n-1))
		sin = 1 + float64(q*sin)/(n*(n+1))
	}
	sin *= r
	switch int64(k) & 3 {
	case 1:
		return -sin, cos
	case 2:
		return -cos, -sin
	case 3:
		return sin, -cos
	}
	return cos, sin
}
