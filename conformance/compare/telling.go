package compare

import (
	"fmt"
	"math"
	"slices"
)

// Coordinate tells entries of a tensor apart: an axis, or what an axis is made of.
type Coordinate struct {
	One, Many string              // what its numbers count: "channel", "channels"
	Names     []string            // of its numbers, where they are sorts and no places: "newline rows"
	Length    int                 //
	Of        func(entry int) int // its number at an entry, -1 where it has none
}

// Slice is the part of a tensor that tells most about where it is wrong.
type Slice struct {
	Text      string // "heads 4 to 7, there every second channel"
	Bad, Size int    // wrong entries in the part, and entries
	AllBad    int    // wrong entries of the whole tensor
	All       int    // entries of the whole tensor
}

// The limits of what is called telling.
const (
	tellingShare = 0.3 // of what there is to know of which entries are wrong, that a part must tell; in bits
	tellingBits  = 12  // that a part must tell beyond what it takes to name it: less may be chance
	maxStride    = 16  // every second, third, ... place
	maxApart     = 4   // places that do not lie side by side
	maxParts     = 2   // coordinates in a slice
)

// Telling finds the part of a tensor that tells most about which of some entries are wrong, with the shortest description: places, a range or every
// so-and-so-manieth place of one coordinate, and there of another. False if no part tells much: everything is wrong, or places without a pattern are.
func Telling(coordinates []Coordinate, entries []int, bad []bool) (Slice, bool) {
	s := Slice{All: len(entries)}
	for _, b := range bad {
		if b {
			s.AllBad++
		}
	}
	for range maxParts {
		p, ok := mostTelling(coordinates, entries, bad)
		if !ok {
			break
		}
		var in []int
		var wrong []bool
		s.Bad = 0
		for j, e := range entries {
			if k := coordinates[p.coordinate].Of(e); k >= 0 && p.has(k) != p.not {
				if in, wrong = append(in, e), append(wrong, bad[j]); bad[j] {
					s.Bad++
				}
			}
		}
		if s.Text != "" {
			s.Text += ", there "
		}
		s.Text += p.words(coordinates[p.coordinate])
		entries, bad, s.Size = in, wrong, len(in)
	}
	return s, s.Text != ""
}

// part is some numbers of one coordinate.
type part struct {
	coordinate int
	not        bool  // all but these
	apart      []int // these; or
	from, to   int   // this range, inclusive; or
	stride     int   // every so many, from `from` on, if not 0
	bits       float64
}

func (p part) has(k int) bool {
	switch {
	case p.apart != nil:
		return slices.Contains(p.apart, k)
	case p.stride > 0:
		return k >= p.from && (k-p.from)%p.stride == 0
	}
	return k >= p.from && k <= p.to
}

func (p part) words(c Coordinate) string {
	if n := len(p.apart); n > 1 && p.apart[n-1]-p.apart[0] == n-1 { // they lie side by side
		p.from, p.to, p.apart = p.apart[0], p.apart[n-1], nil
	}
	text := ""
	switch {
	case c.Names != nil:
		for i, k := range p.list(c) {
			if i > 0 {
				text += " and "
			}
			text += c.Names[k]
		}
	case p.stride == 2:
		text = fmt.Sprintf("every second %s, from %d on", c.One, p.from)
	case p.stride == 3:
		text = fmt.Sprintf("every third %s, from %d on", c.One, p.from)
	case p.stride > 0:
		text = fmt.Sprintf("every %dth %s, from %d on", p.stride, c.One, p.from)
	case len(p.apart) == 1:
		text = fmt.Sprintf("%s %d", c.One, p.apart[0])
	case p.apart != nil:
		text = c.Many
		for i, k := range p.apart {
			switch {
			case i == 0:
				text += fmt.Sprintf(" %d", k)
			case i+1 == len(p.apart):
				text += fmt.Sprintf(" and %d", k)
			default:
				text += fmt.Sprintf(", %d", k)
			}
		}
	case p.from == p.to:
		text = fmt.Sprintf("%s %d", c.One, p.from)
	case p.from == 0:
		text = fmt.Sprintf("%s up to %d", c.Many, p.to)
	case p.to == c.Length-1:
		text = fmt.Sprintf("%s from %d on", c.Many, p.from)
	default:
		text = fmt.Sprintf("%s %d to %d", c.Many, p.from, p.to)
	}
	if p.not {
		return "all but " + text
	}
	return text
}

// list is every number of the part.
func (p part) list(c Coordinate) []int {
	var out []int
	for k := range c.Length {
		if p.has(k) {
			out = append(out, k)
		}
	}
	return out
}

// counts are entries and wrong ones among them.
type counts struct{ bad, all float64 }

func (c counts) minus(d counts) counts { return counts{c.bad - d.bad, c.all - d.all} }

// bits is how many it takes to say which of the entries are wrong.
func (c counts) bits() float64 {
	h := func(n float64) float64 {
		if n <= 0 || c.all <= 0 {
			return 0
		}
		return -n * math.Log2(n/c.all)
	}
	return h(c.bad) + h(c.all-c.bad)
}

// mostTelling is the best part by one coordinate.
func mostTelling(coordinates []Coordinate, entries []int, bad []bool) (best part, ok bool) {
	for i, c := range coordinates {
		if c.Length < 2 {
			continue
		}
		at := make([]counts, c.Length)
		var whole counts
		for j, e := range entries {
			k := c.Of(e)
			if k < 0 || k >= c.Length {
				continue
			}
			at[k].all++
			whole.all++
			if bad[j] {
				at[k].bad++
				whole.bad++
			}
		}
		need := whole.bits()
		for _, p := range parts(c, at, whole) {
			var in counts
			for k := range at {
				if p.has(k) {
					in.bad, in.all = in.bad+at[k].bad, in.all+at[k].all
				}
			}
			out := whole.minus(in)
			if in.all == 0 || out.all == 0 {
				continue
			}
			told := need - in.bits() - out.bits()
			p.coordinate, p.not = i, in.bad*out.all < out.bad*in.all
			if p.bits = told - p.cost(c); told < tellingShare*need || p.bits < tellingBits || ok && p.bits <= best.bits {
				continue
			}
			best, ok = p, true
		}
	}
	return best, ok
}

// cost is how many bits it takes to name a part.
func (p part) cost(c Coordinate) float64 {
	place := math.Log2(float64(c.Length))
	switch {
	case p.apart != nil:
		return 2 + float64(len(p.apart))*place
	case p.stride > 0:
		return 2 + 2*math.Log2(maxStride)
	}
	return 2 + 2*place
}

// parts are those that are tried: for every shape the one that tells most.
func parts(c Coordinate, at []counts, whole counts) []part {
	var out []part
	density := func(k int) float64 { return at[k].bad / max(at[k].all, 1) }
	var order []int
	for k := range at {
		if at[k].all > 0 {
			order = append(order, k)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch d := density(b) - density(a); {
		case d > 0:
			return 1
		case d < 0:
			return -1
		}
		return 0
	})
	most := maxApart
	if c.Names != nil {
		most = len(order)
	}
	for n := 1; n <= min(most, len(order)-1); n++ {
		out = append(out, part{apart: sorted(order[:n])}, part{apart: sorted(order[len(order)-n:])})
	}
	if c.Names != nil {
		return out
	}
	mean := whole.bad / max(whole.all, 1)
	for _, sign := range []float64{1, -1} { // the range with the most wrong entries beyond the mean, and the one with the fewest
		from, sum, top := 0, 0.0, 0.0
		p := part{to: -1}
		for k := range at {
			if sum <= 0 {
				from, sum = k, 0
			}
			if sum += sign * (at[k].bad - mean*at[k].all); sum > top {
				top, p.from, p.to = sum, from, k
			}
		}
		if p.to >= p.from {
			out = append(out, p)
		}
	}
	for stride := 2; stride <= maxStride && 2*stride <= c.Length; stride++ {
		sums := make([]counts, stride)
		for k := range at {
			sums[k%stride].bad += at[k].bad
			sums[k%stride].all += at[k].all
		}
		high, low := 0, 0
		for r := range sums {
			if sums[r].bad*sums[high].all > sums[high].bad*sums[r].all {
				high = r
			}
			if sums[r].bad*sums[low].all < sums[low].bad*sums[r].all {
				low = r
			}
		}
		out = append(out, part{stride: stride, from: high}, part{stride: stride, from: low})
	}
	return out
}

func sorted(x []int) []int {
	y := slices.Clone(x)
	slices.Sort(y)
	return y
}
