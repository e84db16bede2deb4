package conformance

import (
	"context"
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// Reprompter is an Engine that has one prompt's values only, a dump. Where it follows a convention by which an image has another number of tokens,
// the suite asks for its values of the prompt as the convention makes it.
type Reprompter interface {
	Reprompt(in shapes.Inputs) (Engine, error)
}

// retold is a prompt as a convention makes it, with another number of image tokens.
type retold struct {
	at     string // the node with the convention
	check  Check  // that shows it
	cause  Cause
	inputs shapes.Inputs
}

// otherwise judges the engine once more where a convention gives the prompt another number of image tokens and the engine goes by that: nothing
// behind has the shapes of the golden prompt then, so it is held against the prompt as the convention makes it, by its own inputs. The judge
// with the verdict is returned, j itself if there is no other.
func (j *judge) otherwise(ctx context.Context, engine Engine) *judge {
	t, ok := j.retell()
	if !ok || ctx.Err() != nil {
		return j
	}
	if r, ok := engine.(Reprompter); ok {
		again, err := r.Reprompt(cloneInputs(t.inputs))
		if err != nil {
			return j
		}
		engine = again
	}
	truth := *j.truth
	truth.Inputs = t.inputs
	k, err := newJudge(j.target, &truth, j.suite, j.info)
	if err != nil {
		return j
	}
	k.told = &t
	k.problem(Skip, "behind %s the prompt has %d positions for %d, as %s makes it: what is there is judged by its own inputs alone", t.at, len(t.inputs.InputIDs), len(j.truth.Inputs.InputIDs), t.cause.Convention)
	k.forward(engine, cloneInputs(t.inputs))
	k.inventory(engine)
	k.diagnose(ctx)
	if ctx.Err() != nil || k.misfits(t.at) >= j.misfits(t.at) {
		return j
	}
	return k
}

// retell finds a convention that changes the number of image tokens, where that misfits the golden prompt.
func (j *judge) retell() (retold, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.nodes {
		for _, c := range j.results[n.Name].Checks {
			cause, ok := followed(c.Causes)
			if !ok || c.Result != Fail || cause.Rows == nil {
				continue
			}
			in, ok := reprompted(j.truth.Inputs, j.target.Set.Config.ImageTokenID, cause.Rows)
			return retold{n.Name, c, cause, in}, ok
		}
	}
	return retold{}, false
}

// misfits counts what does not go with the prompt: errors, and nodes but one with another shape.
func (j *judge) misfits(but string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	misfits := 0
	for _, p := range j.faults {
		if p.Level == Error {
			misfits++
		}
	}
	for name, r := range j.results {
		if c, ok := r.Check(Contract); ok && c.Result == Fail && name != but {
			misfits++
		}
	}
	return misfits
}

// reprompted is a prompt with other numbers of image tokens; false if it is not clear where each image stands, or the positions have gaps.
func reprompted(in shapes.Inputs, image int, rows []int) (shapes.Inputs, bool) {
	out := in
	out.InputIDs, out.PositionIDs = nil, nil
	next := 0
	for i, id := range in.InputIDs {
		if in.PositionIDs[i] != i {
			return in, false
		}
		switch {
		case id != image:
			out.InputIDs = append(out.InputIDs, id)
		case i > 0 && in.InputIDs[i-1] == image:
		case next == len(rows):
			return in, false
		default:
			out.InputIDs = append(out.InputIDs, slices.Repeat([]int{id}, rows[next])...)
			next++
		}
	}
	for i := range out.InputIDs {
		out.PositionIDs = append(out.PositionIDs, i)
	}
	return out, next == len(rows) && next == len(in.ImageSizes)
}

// untruth says why there is no truth of a node: the golden set has that of another prompt. Empty if there is one.
func (j *judge) untruth(n shapes.Node, shape []int) string {
	if j.told == nil || slices.Equal(shape, n.Concrete(j.dims)) {
		return ""
	}
	return fmt.Sprintf("behind %s, which follows another convention (%s), the prompt has other positions than the golden one, and there is no truth of it", j.told.at, j.told.cause.Convention)
}
