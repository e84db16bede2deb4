package answers_test

import (
	"testing"

	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// narrowest finds the step of a case at which the chosen id leads the runner-up by least, and the runner-up and the least likely id there.
func narrowest(t *testing.T, target *answers.Target, name string) (step, runner, last int) {
	t.Helper()
	c, err := target.Set.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	next, err := target.Inputs(c)
	if err != nil {
		t.Fatal(err)
	}
	s, position, least := ref.New(target.Config, target.Weights).NewSession(), len(next.InputIDs)-1, float32(1e9)
	for i, id := range c.NewIDs {
		z, err := s.Extend(next, 1, nil) // [1, V]
		if err != nil {
			t.Fatal(err)
		}
		second, worst := -1, 0
		for k, v := range z.Data {
			if k != id && (second < 0 || v > z.Data[second]) {
				second = k
			}
			if v < z.Data[worst] {
				worst = k
			}
		}
		if margin := z.Data[id] - z.Data[second]; i > 0 && margin < least {
			step, runner, last, least = i, second, worst, margin
		}
		position++
		next = shapes.Inputs{InputIDs: []int{id}, PositionIDs: []int{position}}
	}
	return step, runner, last
}
