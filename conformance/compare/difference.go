package compare

import (
	"math"

	"github.com/llavaref/llavaref/shapes"
)

// growth is how many roundoffs of its class a value is off after one operation, where the error of a model of d operations in a row is the
// square root of d times that: the largest that any node of the golden sets shows, which TestGrowthIsThatOfTheGoldenSets measures.
// In float32 long sums add to it; in the other classes storage is nearly all.
var growth = map[Class]float64{F32: 13, F16: 3, BF16: 3}

// FloorOfDepth is the noise floor that a node d operations deep may have where none was measured.
func FloorOfDepth(class Class, d int) float64 {
	return growth[class] * class.Roundoff() * math.Sqrt(float64(max(d, 1)))
}

// Difference judges two engines' values of one node against each other: in.Want is one's and in.Got the other's, whole. Each of them may be
// as far from the truth as an engine may, to no side in particular, so the limits are those of Accumulated times the square root of 2. Without
// measured floors (Floors is zero) there is a limit on the whole tensor alone, from the depth.
func Difference(in DriftInput, depth int) Drift {
	measured := in.Floors != Floors{}
	if !measured {
		in.Floors = Floors{Whole: FloorOfDepth(in.Class, depth), Massive: FloorOfDepth(in.Class, depth)}
	}
	in.Floors.Whole *= math.Sqrt2
	in.Floors.WorstRow *= math.Sqrt2
	in.Floors.Massive *= math.Sqrt2
	in.RowRMS = rowRMS(in.Want, in.PerRow)
	d := Accumulated(in)
	if !measured {
		var checks []Check
		for _, c := range d.Checks {
			if c.Criterion != RowDrift {
				checks = append(checks, c)
			}
		}
		d.Verdict = verdict(checks)
	}
	return d
}

// rowRMS is the root mean square of each row, entries that are no numbers left out.
func rowRMS(x []float32, width int) []float32 {
	if width <= 0 || len(x)%width != 0 {
		return nil
	}
	out := make([]float32, len(x)/width)
	for r := range out {
		sum, n := 0.0, 0
		for _, v := range x[r*width : (r+1)*width] {
			if finite(float64(v)) {
				sum += float64(v) * float64(v)
				n++
			}
		}
		out[r] = float32(math.Sqrt(sum / float64(max(n, 1))))
	}
	return out
}

// RowRMSOf is the root mean square of each row of a tensor.
func RowRMSOf(t shapes.Tensor) []float32 { return rowRMS(t.Data, t.Cols()) }
