package answers

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// generation judges what the engine chooses.
func (j *judge) generation() {
	s := conformance.Stage{Name: conformance.StageGeneration}
	s.Nodes = append(s.Nodes, j.node(nodeNewIDs, []int{len(j.c.NewIDs)}, j.answer.NewIDs != nil, j.newIDs))
	if j.answer.Text != nil && slices.Equal(j.answer.NewIDs, j.c.NewIDs) { // else it is the text of other ids
		s.Nodes = append(s.Nodes, j.node(nodeText, []int{len(j.c.Text)}, true, j.text))
	}
	j.stages = append(j.stages, s)
}

// newIDs holds the ids against those that transformers chose. In f32 each of them leads by at least 100 times the noise, or is a tie of equal
// rows; in a coarser class the choice between two may be closer than the noise, and then what comes after is not judged.
func (j *judge) newIDs(k *conformance.Check) {
	have, want := j.answer.NewIDs, j.c.NewIDs
	at := 0
	for at < min(len(have), len(want)) && have[at] == want[at] {
		at++
	}
	if at > 0 {
		k.Tokens = map[compare.TokenVerdict]int{compare.Match: at}
	}
	if at == len(have) && at == len(want) {
		return
	}
	if from := j.wrongBefore(); from != "" { // before anything else: what an engine makes of another prompt tells nothing
		k.Result, k.Reason, k.Tokens = conformance.Skip, fmt.Sprintf("other ids than transformers', but so is %s already", from), nil
		return
	}
	switch {
	case at == len(want):
		fail(k, "%d ids, want %d: it goes on where transformers ends", len(have), len(want))
	case at == len(have):
		fail(k, "%d ids, want %d: all are right, but the next would be %d", len(have), len(want), want[at])
	default:
		fail(k, "number %d is %d, want %d", at, have[at], want[at])
		if j.nearTie(k, at, have[at]) {
			return
		}
	}
	j.explainNewIDs(k, at)
}

// wrongBefore is the first part before the generation that is not transformers'; empty if all are.
func (j *judge) wrongBefore() string {
	for _, s := range j.stages {
		if s.Name != conformance.StagePreprocessing && s.Name != conformance.StageTokens {
			continue
		}
		for _, n := range s.Nodes {
			if n.Status() > conformance.Pass {
				return n.Name
			}
		}
	}
	return ""
}

// nearTie says whether a right engine of the class may have chosen other than transformers at a step, and changes the check if so. The noise is
// that of transformers' float32 logits at this step, as much larger as the class rounds more; the limit is that of the logits of a golden set.
func (j *judge) nearTie(k *conformance.Check, step, chosen int) bool {
	if j.class == compare.F32 || slices.Contains(j.c.Ties, step) || chosen < 0 || chosen >= j.target.Config.Text.VocabSize {
		return false
	}
	z, err := j.logits(step)
	if err != nil {
		k.Result, k.Reason = conformance.Error, fmt.Sprintf("the reference could not evaluate step %d: %v", step, err)
		return true
	}
	margin := float64(z[j.c.NewIDs[step]]) - float64(z[chosen])
	floor := j.c.Floors[step] * j.class.Roundoff() / compare.F32.Roundoff()
	limit := math.Sqrt2 * compare.DistanceLimit(compare.Arithmetic{Class: j.class, Lanes: j.lanes}, floor, j.c.RMS[step])
	k.Limits = append(k.Limits, compare.Check{Criterion: compare.Token, Value: margin, Limit: limit, Ratio: margin / limit, Where: []int{step}})
	k.Ratio = margin / limit
	if margin > limit {
		k.Reason += fmt.Sprintf(", whose logit is larger by %.2g, where %s explains %.2g", margin, j.class, limit)
		return false
	}
	k.Result = conformance.Pass
	k.Reason = fmt.Sprintf("the first %d of %d ids; number %d is %d for %d, whose logit is larger by %.2g, which is less than %s can tell (%.2g): not judged from there on",
		step, len(j.c.NewIDs), step, chosen, j.c.NewIDs[step], margin, j.class, limit)
	if step == 0 {
		k.Result = conformance.Skip
	} else {
		k.Tokens[compare.NearTie] = 1
	}
	return true
}

// logits are those of one step, transformers' ids before it: [V].
func (j *judge) logits(step int) ([]float32, error) {
	s := ref.New(j.target.Config, j.target.Weights).NewSession()
	in := j.want
	in.InputIDs, in.PositionIDs = slices.Clone(in.InputIDs), slices.Clone(in.PositionIDs)
	z, err := s.Extend(in, 1, nil) // [1, V]
	for i := range step {
		if err != nil {
			break
		}
		z, err = s.Extend(shapes.Inputs{InputIDs: j.c.NewIDs[i : i+1], PositionIDs: []int{len(in.InputIDs) + i}}, 1, nil) // [1, V]
	}
	if err != nil {
		return nil, err
	}
	return z.Row(z.Rows() - 1), nil
}

// explainNewIDs says what the first difference looks like.
func (j *judge) explainNewIDs(k *conformance.Check, at int) {
	have, want, eos := j.answer.NewIDs, j.c.NewIDs, j.target.Set.EOS
	cause := func(id, look, format string, args ...any) {
		k.Causes = append(k.Causes, conformance.Cause{ID: id, Text: fmt.Sprintf(format, args...), Look: look})
	}
	switch last := want[len(want)-1]; {
	case at == len(want) && slices.Contains(eos, last):
		cause("G01", "eos_token_id of generation_config.json, which may be a list", "it does not end at id %d, one of the %d that end an answer", last, len(eos))
	case at == len(want):
		cause("G05", "max_new_tokens counts new ids alone", "it goes on behind max_new_tokens")
	case at == len(have) && at == len(want)-1 && slices.Contains(eos, want[at]):
		cause("G01", "new_ids has the id that ends an answer, too", "the id that ends the answer, %d, is left out", want[at])
	case at == len(have) && at > 0 && !slices.Contains(eos, have[at-1]):
		cause("G05", "max_new_tokens, or max_length, which counts the prompt", "it ends after %d ids, at none that ends an answer", at)
	case at < len(have) && slices.Contains(j.c.Ties, at) && have[at] == j.target.Set.TwinRows[0]:
		cause("G02", "of equal logits the lowest id counts", "a tie of equal logits goes to the higher id")
	case at < len(have) && j.target.Words.Decode(want[at:at+1], false) == "":
		cause("G02", "the maximum goes over all rows of lm_head", "the maximum is taken over fewer ids: %d is no token of the tokenizer, and a row all the same", want[at])
	}
}

func (j *judge) text(k *conformance.Check) {
	if have := *j.answer.Text; have != j.c.Text {
		fail(k, "%s, want %s, of the same ids", excerpt(have), excerpt(j.c.Text))
	}
}
