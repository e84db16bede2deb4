package compare

import "math"

// The limits of the accumulated verdict.
const (
	// driftFactor is how many noise floors an engine may drift. A floor is the error of one implementation with one order of summation;
	// others of the same class scatter around it: docs/numerics.md has by how much.
	driftFactor = 3
	// floorLanes says what the floors were measured with: at least 16 partial sums side by side, as any vector unit has them.
	// An engine in float32 with fewer has sqrt(16/lanes) times the noise in its sums. In the other classes storage outweighs it.
	floorLanes = 16
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

// limit is how far the engine may drift where the floor is this. In float32 with fewer lanes than the floors were measured with, a norm over squares of
// few digits also errs on one side, by half of an eighth of a roundoff for each addition (replay's squaresLost); that error is not noise and stands beside the floors.
func (in DriftInput) limit(floor float64) float64 {
	lanes := float64(max(in.Lanes, 1))
	if in.Class != F32 || lanes >= floorLanes {
		return driftFactor * floor
	}
	return driftFactor*math.Sqrt(floorLanes/lanes)*floor + float64(in.Longest)/lanes/16*unit
}

// Drift is the accumulated verdict of one node.
type Drift struct {
	Verdict
	Entries                  int     // compared; those behind the causal mask are not
	Whole, WorstRow, Massive float64 // the three errors, each defined as its floor is
}

// Accumulated judges how far a node has drifted from the truth of the whole model.
func Accumulated(in DriftInput) Drift {
	if in.PerRow <= 0 || len(in.Want) == 0 || len(in.Got) != len(in.Want) || len(in.RowRMS)*in.PerRow != len(in.Want) || in.Columns != nil && len(in.Columns) != len(in.Want) {
		return Drift{Verdict: verdict([]Check{{Criterion: Shape, Value: 1, Ratio: Worse}})}
	}
	g := gather(in)
	d := Drift{Entries: g.entries, Whole: g.rest.relative(), Massive: g.massive.relative()}
	worst := 0
	whole := math.Sqrt((g.rest.values + g.massive.values) / float64(max(g.entries, 1)))
	for r, e := range g.rows {
		e = quotient(e, max(float64(in.RowRMS[r]), whole*rowFloor))
		if e > d.WorstRow {
			d.WorstRow, worst = e, r
		}
	}
	var checks []Check
	if g.bad >= 0 {
		checks = append(checks, Check{NonFinite, 1, 0, Worse, []int{g.bad}})
	}
	if g.rest.entries > 0 {
		checks = append(checks,
			check(Drifted, d.Whole, in.limit(max(in.Floors.Whole, minimumFloor(in.Class))), nil),
			check(RowDrift, d.WorstRow, in.limit(max(in.Floors.WorstRow, minimumRowFloor(in.Class))), []int{worst}))
	}
	if g.massive.entries > 0 {
		checks = append(checks, check(MassDrift, d.Massive, in.limit(max(in.Floors.Massive, minimumFloor(in.Class))), nil))
	}
	d.Verdict = verdict(checks)
	return d
}

// gathered is what the three errors are made of.
type gathered struct {
	entries       int // that exist
	bad           int // the first entry with no number; -1 if there is none
	rest, massive squares
	rows          []float64 // rms of the error of each row, massive columns left out
}

// squares are sums of squares, of the error and of the truth.
type squares struct {
	entries       int
	error, values float64
}

func (s *squares) add(want, diff float64) {
	s.entries++
	s.error += diff * diff
	s.values += want * want
}

func (s squares) relative() float64 { return quotient(math.Sqrt(s.error), math.Sqrt(s.values)) }

func gather(in DriftInput) gathered {
	massive := map[int]bool{}
	for _, c := range in.Massive {
		massive[c] = true
	}
	g := gathered{bad: -1, rows: make([]float64, len(in.RowRMS))}
	for r := range g.rows {
		var row squares
		for j := r * in.PerRow; j < (r+1)*in.PerRow; j++ {
			want, got := float64(in.Want[j]), float64(in.Got[j])
			if math.IsInf(want, -1) { // a score that the causal mask hides: an engine may have anything there
				continue
			}
			g.entries++
			if !finite(got) || !finite(want) {
				if g.bad < 0 {
					g.bad = j
				}
				continue
			}
			col := j - r*in.PerRow
			if in.Columns != nil {
				col = int(in.Columns[j])
			}
			if massive[col] {
				g.massive.add(want, got-want)
				continue
			}
			g.rest.add(want, got-want)
			row.add(want, got-want)
		}
		if row.entries > 0 {
			g.rows[r] = math.Sqrt(row.error / float64(row.entries))
		}
	}
	return g
}

// quotient is a/b, and 0/0 = 0: no error in a tensor of zeros is no error.
func quotient(a, b float64) float64 {
	if a == 0 {
		return 0
	}
	return a / b
}

// entryFactor is by how much an entry's error may exceed the limit of its row's root mean square by chance.
const entryFactor = 3

// DriftExcess is, for each kept entry, its error over the most that is noise, by the limit of its row; beyond 1 the entry is wrong.
func DriftExcess(in DriftInput) []float64 {
	g := gather(in)
	whole := math.Sqrt((g.rest.values + g.massive.values) / float64(max(g.entries, 1)))
	out := make([]float64, len(in.Want))
	for j, want := range in.Want {
		if math.IsInf(float64(want), -1) {
			continue
		}
		d := float64(in.Got[j]) - float64(want)
		if !finite(d) {
			out[j] = Worse
			continue
		}
		row := max(float64(in.RowRMS[j/in.PerRow]), whole*rowFloor, math.Abs(float64(want)))
		out[j] = quotient(math.Abs(d), entryFactor*in.limit(max(in.Floors.WorstRow, minimumRowFloor(in.Class)))*row)
	}
	return out
}
