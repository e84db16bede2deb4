package compare

import "math"

// The limits of the accumulated verdict.
const (
	// driftFactor is how many noise floors an engine may drift. A floor is the error of one implementation with one order of summation;
	// others of the same class scatter around it. docs/numerics.md has the measured scatter.
	driftFactor = 3
	// floorLanes and shortSum say what the floors were measured with: at least 16 partial sums side by side, as any vector unit has them.
	// An engine in float32 with fewer has sqrt(16/lanes) times the noise in its sums; where they are longer than 256 terms, its squares lose
	// digits on one side (replay's squaresLost) and the noise grows with their length too. In the other classes storage outweighs both.
	floorLanes, shortSum = 16, 256
	// rowFloor keeps the denominator of a row from vanishing: a row's error is judged against at least this share of the whole tensor's rms.
	rowFloor = 1.0 / 64
)

// minimumFloor is the floor that stands in where the measured one is smaller: the error of rounding the value to storage once, as a root mean square.
// The model that the floors were measured with moves some values without error that another may compute.
func minimumFloor(c Class) float64 { return c.Roundoff() / math.Sqrt(3) }

// minimumRowFloor is the same for the worst row, all of whose entries may be just above a power of two and in the middle between two neighbours.
func minimumRowFloor(c Class) float64 { return c.Roundoff() }

// Floors are the noise floors of one node in one class, as a golden set has them.
type Floors struct{ Whole, WorstRow, Massive float64 }

// DriftInput is a node's true values and an engine's, on the entries that the golden set keeps, row by row.
type DriftInput struct {
	Want, Got []float32
	PerRow    int       // kept entries a row
	RowRMS    []float32 // root mean square of each kept row of the truth over its whole length
	Columns   []int32   // column of each kept entry; nil if all of a row is kept, in order
	Massive   []int     // columns with massive activations, judged apart
	Class     Class     // that the engine declares
	Floors    Floors    // of that class
	Lanes     Lanes     // that the engine declares
	Longest   int       // terms of the model's longest sum; 0 stands for a short one
}

// factor is how many floors the engine may drift.
func (in DriftInput) factor() float64 {
	lanes := float64(max(in.Lanes, 1))
	if in.Class != F32 || lanes >= floorLanes {
		return driftFactor
	}
	return driftFactor * math.Sqrt(floorLanes/lanes*max(1, float64(in.Longest)/shortSum))
}

// Drift is the accumulated verdict of one node.
type Drift struct {
	Verdict
	Entries                  int     // compared; those behind the causal mask are not
	Whole, WorstRow, Massive float64 // the three errors, each defined as its floor is
}

// Accumulated judges how far a node has drifted from the truth of the whole model.
func Accumulated(in DriftInput) Drift {
	var d Drift
	if in.PerRow <= 0 || len(in.Want) == 0 || len(in.Got) != len(in.Want) || len(in.RowRMS)*in.PerRow != len(in.Want) || in.Columns != nil && len(in.Columns) != len(in.Want) {
		d.Verdict = verdict([]Check{{Criterion: Shape, Value: 1, Ratio: Worse}})
		return d
	}
	massive := map[int]bool{}
	for _, c := range in.Massive {
		massive[c] = true
	}
	var rest, mass, all struct{ err, val float64 } // sums of squares
	worst, bad, massEntries := 0, -1, 0
	rows := make([]float64, len(in.RowRMS)) // rms of the error of each row
	for r := range rows {
		sum, n := 0.0, 0
		for j := r * in.PerRow; j < (r+1)*in.PerRow; j++ {
			want, got := float64(in.Want[j]), float64(in.Got[j])
			if math.IsInf(want, -1) { // a score that the causal mask hides: an engine may have anything there
				continue
			}
			d.Entries++
			if !finite(got) || !finite(want) {
				if bad < 0 {
					bad = j
				}
				continue
			}
			col := j - r*in.PerRow
			if in.Columns != nil {
				col = int(in.Columns[j])
			}
			diff := got - want
			all.val += want * want
			if massive[col] {
				mass.err += diff * diff
				mass.val += want * want
				massEntries++
				continue
			}
			rest.err += diff * diff
			rest.val += want * want
			sum += diff * diff
			n++
		}
		if n > 0 {
			rows[r] = math.Sqrt(sum / float64(n))
		}
	}
	whole := math.Sqrt(all.val / float64(max(d.Entries, 1)))
	for r, e := range rows {
		rows[r] = quotient(e, max(float64(in.RowRMS[r]), whole*rowFloor))
		if rows[r] > rows[worst] {
			worst = r
		}
	}
	d.Whole, d.WorstRow, d.Massive = quotient(math.Sqrt(rest.err), math.Sqrt(rest.val)), rows[worst], quotient(math.Sqrt(mass.err), math.Sqrt(mass.val))

	var checks []Check
	factor := in.factor()
	if bad >= 0 {
		checks = append(checks, Check{NonFinite, 1, 0, Worse, []int{bad}})
	}
	if d.Entries > massEntries {
		checks = append(checks,
			check(Drifted, d.Whole, factor*max(in.Floors.Whole, minimumFloor(in.Class)), nil),
			check(RowDrift, d.WorstRow, factor*max(in.Floors.WorstRow, minimumRowFloor(in.Class)), []int{worst}))
	}
	if massEntries > 0 {
		checks = append(checks, check(MassDrift, d.Massive, factor*max(in.Floors.Massive, minimumFloor(in.Class)), nil))
	}
	d.Verdict = verdict(checks)
	return d
}

// quotient is a/b, and 0/0 = 0: no error in a tensor of zeros is no error.
func quotient(a, b float64) float64 {
	if a == 0 {
		return 0
	}
	return a / b
}
