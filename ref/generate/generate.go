// Package generate chooses tokens: greedy decoding with the stopping rules of transformers' generate.
package generate

import (
	"context"
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Session is one sequence that an engine extends: see ref.Session.
type Session interface {
	// Extend adds positions and returns the logits [logitsToKeep, V] of the last ones.
	Extend(in shapes.Inputs, logitsToKeep int, probe shapes.Probe) (shapes.Tensor, error)
}

// Greedy extends the sequence by the prompt and then, token by token, by the id of the largest logit. A tie goes to the
// lowest id, and no id is suppressed. It ends after maxNewTokens, or after an id out of eos, which is part of the result.
// Positions go on from the prompt's last one. emit, if it is not nil, is called with each id as it is chosen.
// When the context is cancelled, what was generated so far is returned with the context's error.
func Greedy(ctx context.Context, s Session, prompt shapes.Inputs, maxNewTokens int, eos []int, emit func(id int)) ([]int, error) {
	if maxNewTokens < 1 {
		return nil, fmt.Errorf("generate: max_new_tokens %d, want at least 1", maxNewTokens)
	}
	if len(prompt.PositionIDs) == 0 {
		return nil, fmt.Errorf("generate: the prompt is empty")
	}
	var ids []int
	next, position := prompt, prompt.PositionIDs[len(prompt.PositionIDs)-1]
	for {
		if err := ctx.Err(); err != nil {
			return ids, err
		}
		logits, err := s.Extend(next, 1, nil)
		if err != nil {
			return ids, err
		}
		id := ArgMax(logits.Row(logits.Rows() - 1))
		ids = append(ids, id)
		if emit != nil {
			emit(id)
		}
		if len(ids) == maxNewTokens || slices.Contains(eos, id) {
			return ids, nil
		}
		position++
		next = shapes.Inputs{InputIDs: []int{id}, PositionIDs: []int{position}}
	}
}

// ArgMax is the index of the largest value, the lowest of equal ones. A NaN is larger than any number, as in torch.
func ArgMax(x []float32) int {
	best := 0
	for i, v := range x {
		if v != v {
			return i
		}
		if v > x[best] {
			best = i
		}
	}
	return best
}
