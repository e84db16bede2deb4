package generate

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

// script answers each step with logits whose largest is the next id, and notes what it was given.
type script struct {
	ids       []int
	positions []int
	steps     int
}

func (s *script) Extend(in shapes.Inputs, keep int, _ shapes.Probe) (shapes.Tensor, error) {
	s.positions = append(s.positions, in.PositionIDs...)
	y := shapes.NewTensor(keep, 10)
	y.Data[s.ids[s.steps]] = 1
	s.steps++
	return y, nil
}

func TestGreedyStops(t *testing.T) {
	prompt := shapes.Inputs{InputIDs: []int{4, 4, 4}, PositionIDs: []int{0, 1, 7}}
	for _, test := range []struct {
		name string
		max  int
		eos  []int
		want []int
	}{
		{"after max_new_tokens", 3, []int{9}, []int{5, 6, 7}},
		{"after an eos, which is kept", 5, []int{9}, []int{5, 6, 7, 9}},
		{"after any of several eos", 5, []int{9, 6}, []int{5, 6}},
		{"without an eos", 5, nil, []int{5, 6, 7, 9, 1}},
		{"at the first token", 5, []int{5}, []int{5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{ids: []int{5, 6, 7, 9, 1, 1, 1}}
			var seen []int
			got, err := Greedy(context.Background(), s, prompt, test.max, test.eos, func(id int) { seen = append(seen, id) })
			if err != nil || !slices.Equal(got, test.want) || !slices.Equal(seen, got) {
				t.Errorf("ids %v, emitted %v, error %v, want %v", got, seen, err, test.want)
			}
			for i, p := range s.positions[3:] {
				if p != 8+i {
					t.Errorf("positions %v, want 0 1 7 8 9 ...", s.positions)
				}
			}
		})
	}
}

func TestGreedyRefusals(t *testing.T) {
	prompt := shapes.Inputs{InputIDs: []int{4}, PositionIDs: []int{0}}
	if _, err := Greedy(context.Background(), &script{}, prompt, 0, nil, nil); err == nil || !strings.Contains(err.Error(), "max_new_tokens 0") {
		t.Errorf("max_new_tokens 0: error %v", err)
	}
	if _, err := Greedy(context.Background(), &script{}, shapes.Inputs{}, 1, nil, nil); err == nil {
		t.Error("an empty prompt was taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ids, err := Greedy(ctx, &script{ids: []int{5, 6, 7}}, prompt, 3, nil, func(int) { cancel() })
	if err != context.Canceled || !slices.Equal(ids, []int{5}) {
		t.Errorf("cancelled after one token: %v, %v", ids, err)
	}
}

func TestArgMax(t *testing.T) {
	nan := float32(math.NaN())
	for _, test := range []struct {
		x    []float32
		want int
	}{
		{[]float32{1, 3, 3, 2}, 1},
		{[]float32{-5, -2, -2}, 1},
		{[]float32{0, float32(math.Copysign(0, -1))}, 0},
		{[]float32{float32(math.Inf(-1)), float32(math.Inf(-1))}, 0},
		{[]float32{1, nan, 5, nan}, 1},
	} {
		if got := ArgMax(test.x); got != test.want {
			t.Errorf("ArgMax(%v) = %d, want %d", test.x, got, test.want)
		}
	}
}
