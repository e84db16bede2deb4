package compare

// Integers is the result of an exact comparison.
type Integers struct {
	Verdict
	Different int   // how many differ, those that only one side has included
	First     int   // index of the first of them; -1 if there is none
	Want, Got []int // up to eight values of each side from there on
}

// Exact compares token ids, sizes, counts: what has one right value.
func Exact(want, got []int) Integers {
	r := Integers{First: -1}
	n := max(len(want), len(got))
	for i := range n {
		if i < len(want) && i < len(got) && want[i] == got[i] {
			continue
		}
		r.Different++
		if r.First < 0 {
			r.First = i
		}
	}
	c := Check{Criterion: Equal, Value: float64(r.Different)}
	if r.Different > 0 {
		c.Ratio, c.Where = Worse, []int{r.First}
		r.Want, r.Got = excerpt(want, r.First), excerpt(got, r.First)
	}
	r.Verdict = verdict([]Check{c})
	return r
}

func excerpt(s []int, from int) []int {
	from = min(from, len(s))
	return s[from:min(from+8, len(s))]
}
