package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// stream is a tensor of rows x cols normal values, one massive column, one small row, and an engine's noise on it.
type stream struct {
	DriftInput
	r *rand.Rand
}

const (
	streamRows, streamCols = 24, 128
	massiveColumn          = 5
	smallRow               = 3
)

func newStream(class Class, floor float64, seed uint64) *stream {
	s := &stream{r: newRand(seed)}
	s.Class, s.PerRow, s.Massive = class, streamCols, []int{massiveColumn}
	for r := range streamRows {
		sum := 0.0
		for c := range streamCols {
			v := s.r.NormFloat64()
			if c == massiveColumn {
				v = 60
			}
			if r == smallRow {
				v /= 1000
			}
			s.Want = append(s.Want, float32(v))
			sum += float64(float32(v)) * float64(float32(v))
		}
		s.RowRMS = append(s.RowRMS, float32(math.Sqrt(sum/streamCols)))
	}
	s.Floors = Floors{Whole: floor, WorstRow: 1.3 * floor, Massive: floor / 4}
	s.Got = slices.Clone(s.Want)
	return s
}

// noise adds an error of the given size: relative to 1, the size of all but the massive column, and a quarter of it, relative, there.
func (s *stream) noise(size float64) *stream {
	for i := range s.Got {
		d := size * s.r.NormFloat64()
		switch {
		case i%streamCols == massiveColumn:
			d *= 60.0 / 4
		case i/streamCols == smallRow:
			d /= 8
		}
		s.Got[i] += float32(d)
	}
	return s
}

// TestAccumulated: engines with the noise of the floor and a bit more pass, for 200 seeds; each planted error fails by the criterion that is there for it.
func TestAccumulated(t *testing.T) {
	const floor = 1e-2
	for seed := range uint64(200) {
		for _, size := range []float64{0, 0.5, 1, 1.5} {
			if d := Accumulated(newStream(BF16, floor, seed).noise(size * floor).DriftInput); !d.Pass {
				t.Errorf("seed %d, noise of %v floors: %v", seed, size, d)
			}
		}
	}
	for _, bug := range []struct {
		name  string
		want  Criterion
		plant func(s *stream)
	}{
		{"four floors of noise", Drifted, func(s *stream) { s.noise(4 * floor) }},
		{"every value 5 % larger", Drifted, func(s *stream) {
			for i := range s.Got {
				s.Got[i] *= 1.05
			}
		}},
		{"one row twice as large", RowDrift, func(s *stream) {
			for i := range streamCols {
				s.Got[7*streamCols+i] *= 2
			}
		}},
		{"two rows exchanged", RowDrift, func(s *stream) {
			for i := range streamCols {
				s.Got[8*streamCols+i], s.Got[9*streamCols+i] = s.Got[9*streamCols+i], s.Got[8*streamCols+i]
			}
		}},
		{"massive column 1 % larger", MassDrift, func(s *stream) {
			for r := range streamRows {
				s.Got[r*streamCols+massiveColumn] *= 1.01
			}
		}},
		{"NaN", NonFinite, func(s *stream) { s.Got[100] = float32(math.NaN()) }},
		{"infinity", NonFinite, func(s *stream) { s.Got[100] = float32(math.Inf(-1)) }},
		{"too few values", Shape, func(s *stream) { s.Got = s.Got[1:] }},
	} {
		least := math.Inf(1)
		for seed := range uint64(50) {
			s := newStream(BF16, floor, seed).noise(floor)
			bug.plant(s)
			d := Accumulated(s.DriftInput)
			least = min(least, d.Ratio)
			if d.Pass || !fails(d.Verdict, bug.want) {
				t.Errorf("%s, seed %d: %v, want it to fail by %q", bug.name, seed, d, bug.want)
			}
		}
		t.Logf("| %s | %s | %s |", bug.want, bug.name, magnitude(least))
	}
}

// magnitude prints a ratio with two digits.
func magnitude(ratio float64) string {
	switch {
	case ratio >= Worse:
		return "any"
	case ratio >= 1000:
		return fmt.Sprintf("%.0e", ratio)
	}
	return fmt.Sprintf("%.2g", ratio)
}

// fails says whether the criterion is among those that fail.
func fails(v Verdict, c Criterion) bool {
	return slices.ContainsFunc(v.Checks, func(k Check) bool { return k.Criterion == c && k.Ratio > 1 })
}

// TestAccumulatedFormulas computes the three errors as docs/golden-format.md words them.
func TestAccumulatedFormulas(t *testing.T) {
	s := newStream(F16, 1e-3, 1).noise(1e-3)
	// keep every third column only, as a sampled node does
	in := s.DriftInput
	in.Want, in.Got, in.PerRow = nil, nil, 0
	for c := 2; c < streamCols; c += 3 {
		in.PerRow++
	}
	for r := range streamRows {
		for c := 2; c < streamCols; c += 3 {
			in.Want, in.Got, in.Columns = append(in.Want, s.Want[r*streamCols+c]), append(in.Got, s.Got[r*streamCols+c]), append(in.Columns, int32(c))
		}
	}
	var dd, yy, md, my, all float64
	worst := 0.0
	for i := range in.Want {
		y, d := float64(in.Want[i]), float64(in.Got[i])-float64(in.Want[i])
		all += y * y
		if in.Columns[i] == massiveColumn {
			md, my = md+d*d, my+y*y
		} else {
			dd, yy = dd+d*d, yy+y*y
		}
	}
	whole := math.Sqrt(all / float64(len(in.Want)))
	for r := range streamRows {
		sum, n := 0.0, 0.0
		for j := range in.PerRow {
			if in.Columns[r*in.PerRow+j] != massiveColumn {
				d := float64(in.Got[r*in.PerRow+j]) - float64(in.Want[r*in.PerRow+j])
				sum, n = sum+d*d, n+1
			}
		}
		worst = max(worst, math.Sqrt(sum/n)/max(float64(in.RowRMS[r]), whole/64))
	}
	d := Accumulated(in)
	for _, v := range [][2]float64{{d.Whole, math.Sqrt(dd / yy)}, {d.WorstRow, worst}, {d.Massive, math.Sqrt(md / my)}} {
		if math.Abs(v[0]-v[1]) > 1e-12*v[1] {
			t.Errorf("%v, want %v", v[0], v[1])
		}
	}
}

// TestAccumulatedWithoutFloor: where the unmodified model has no error at all, another may round to storage, but not be off by 4 roundoffs.
func TestAccumulatedWithoutFloor(t *testing.T) {
	for _, class := range Classes() {
		s := newStream(class, 0, 3)
		s.Lanes = 16
		for i, v := range s.Got {
			v *= 1 + float32(s.r.Float64())/4 // not a number of the class
			s.Want[i], s.Got[i] = v, class.Round(v)
		}
		if d := Accumulated(s.DriftInput); !d.Pass {
			t.Errorf("%s: rounded once: %v", class, d)
		}
		for i := range s.Got {
			s.Got[i] *= 1 + 4*float32(class.Roundoff())
		}
		if d := Accumulated(s.DriftInput); d.Pass {
			t.Errorf("%s: 4 roundoffs larger: %v", class, d)
		}
	}
}

// TestAccumulatedLanes: an engine in float32 with one accumulator may have the noise of its long chains; in the other classes storage outweighs it.
func TestAccumulatedLanes(t *testing.T) {
	const floor = 1e-6
	for _, test := range []struct {
		class   Class
		lanes   Lanes
		longest int
		size    float64
		pass    bool
	}{
		{F32, 16, 14336, 2.5, true}, {F32, 16, 14336, 4, false},
		{F32, 1, 0, 8, true}, {F32, 0, 256, 8, true}, {F32, 1, 256, 16, false},
		{F32, 4, 256, 4, true}, {F32, 4, 256, 8, false},
		{F32, 1, 4096, 20, true}, {F32, 1, 4096, 40, false},
		{F16, 1, 4096, 4, false},
	} {
		unit := floor
		if test.class == F16 {
			unit = 1e-2
		}
		s := newStream(test.class, unit, 1).noise(test.size * unit)
		s.Lanes, s.Longest = test.lanes, test.longest
		if d := Accumulated(s.DriftInput); d.Pass != test.pass {
			t.Errorf("%s, %d lanes, sums of %d, %v floors: %v", test.class, test.lanes, test.longest, test.size, d)
		}
	}
}

// TestAccumulatedIgnoresHiddenScores: behind the causal mask the truth has -Inf and an engine whatever it likes, a NaN too.
func TestAccumulatedIgnoresHiddenScores(t *testing.T) {
	inf := float32(math.Inf(-1))
	in := DriftInput{Want: []float32{1, inf, 2, 3}, Got: []float32{1, -3.4e38, 2, 3}, PerRow: 2, RowRMS: []float32{1, 2.5}, Class: F32}
	if d := Accumulated(in); !d.Pass || d.Entries != 3 {
		t.Errorf("%v, %d entries", d, d.Entries)
	}
	in.Got[1] = float32(math.NaN())
	if d := Accumulated(in); !d.Pass {
		t.Error(d)
	}
	in.Want, in.Got = []float32{inf, inf}, []float32{0, 0}
	in.RowRMS = []float32{0}
	if d := Accumulated(in); d.Pass {
		t.Errorf("nothing to compare, yet %v", d)
	}
}
