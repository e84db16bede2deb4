package answers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
)

// tokens judges what became of the conversation.
func (j *judge) tokens() {
	s := conformance.Stage{Name: conformance.StageTokens}
	if j.answer.Prompt != nil {
		s.Nodes = append(s.Nodes, j.node(nodePrompt, []int{len(j.c.Prompt)}, true, j.prompt))
	}
	if len(j.c.Images) > 0 {
		s.Nodes = append(s.Nodes, j.node(nodeImageTokens, []int{len(j.c.Images)}, j.answer.ImageTokens != nil || j.expanded(), j.imageTokens))
	}
	s.Nodes = append(s.Nodes, j.node(nodeInputIDs, []int{len(j.want.InputIDs)}, j.answer.InputIDs != nil, j.inputIDs))
	j.stages = append(j.stages, s)
}

func (j *judge) prompt(k *conformance.Check) {
	have, want := *j.answer.Prompt, j.c.Prompt
	if have == want {
		return
	}
	at := 0
	for at < min(len(have), len(want)) && have[at] == want[at] {
		at++
	}
	fail(k, "from byte %d on it is %s, want %s", at, excerpt(have[at:]), excerpt(want[at:]))
	if messages, err := tokenizer.ParseMessages(j.c.Messages); err == nil {
		if without, err := j.target.Words.Template(messages, false); err == nil && have == without {
			k.Causes = append(k.Causes, conformance.Cause{ID: "M15", Text: "the words that begin the answer are missing", Look: "add_generation_prompt is true"})
		}
	}
}

// runs are the lengths of the runs of image tokens in ids.
func (j *judge) runs(ids []int) []int {
	var out []int
	for i, id := range ids {
		switch {
		case id != j.image:
		case i > 0 && ids[i-1] == j.image:
			out[len(out)-1]++
		default:
			out = append(out, 1)
		}
	}
	return out
}

// expanded says whether the engine's ids have more image tokens than there are images.
func (j *judge) expanded() bool { return sum(j.runs(j.answer.InputIDs)) > len(j.c.Images) }

// collapsed are ids in which an image is one token: in expanded ones images side by side are one token, too, since it is not seen where one ends.
func (j *judge) collapsed(ids []int) []int {
	if j.expanded() {
		return tokenizer.CollapseImages(ids, j.image)
	}
	return ids
}

// unexpanded are transformers' ids with one token for each image.
func (j *judge) unexpanded() []int {
	var out []int
	image, left := 0, 0 // the next one, and what is left of the tokens of the one before
	for _, id := range j.want.InputIDs {
		if id == j.image {
			if left--; left >= 0 {
				continue
			}
			left = j.c.ImageTokens[image] - 1
			image++
		}
		out = append(out, id)
	}
	return out
}

// imageTokens judges how many tokens stand for each image: as the engine says, and as they stand in its ids.
func (j *judge) imageTokens(k *conformance.Check) {
	have, want := j.answer.ImageTokens, j.c.ImageTokens
	if in, should := j.runs(j.answer.InputIDs), j.runs(j.want.InputIDs); j.expanded() { // two images side by side are one run
		switch {
		case have == nil:
			have, want = in, should
		case sum(in) != sum(have):
			fail(k, "image_tokens %v, but input_ids has %d image tokens (id %d)", have, sum(in), j.image)
			return
		case slices.Equal(have, want) && !slices.Equal(in, should):
			fail(k, "image_tokens %v, but input_ids has %v image tokens (id %d) side by side, want %v", have, in, j.image, should)
			return
		}
	}
	if slices.Equal(have, want) {
		return
	}
	fail(k, "%v, want %v: %d rows of image features for %d", have, want, sum(have), sum(want))
	j.explainCounts(k, have)
}

// explainCounts names the rule or the bug that counts as the engine does.
func (j *judge) explainCounts(k *conformance.Check, have []int) {
	p := j.target.Processor
	counts := func(of func(s shapes.Size) (preprocess.Plan, error)) bool {
		var out []int
		for _, s := range j.want.ImageSizes {
			plan, err := of(s)
			if err != nil {
				return false
			}
			out = append(out, plan.Features)
		}
		return slices.Equal(out, have)
	}
	for _, b := range bugs.Of(p.ModelType) {
		if counts(func(s shapes.Size) (preprocess.Plan, error) { return b.Plan(p, s) }) {
			k.Causes = append(k.Causes, conformance.Cause{ID: b.ID, Text: b.What, Look: "llavaref tokens WIDTH HEIGHT says what becomes of an image", Convention: b.Convention, Effect: effect(b.Convention, sum(have), j.c.ImageTokens)})
		}
	}
}

// inputIDs judges the text among the ids: an image is one token here.
func (j *judge) inputIDs(k *conformance.Check) {
	have, want := j.collapsed(j.answer.InputIDs), j.collapsed(j.unexpanded())
	if slices.Equal(have, want) {
		return
	}
	at := 0
	for at < min(len(have), len(want)) && have[at] == want[at] {
		at++
	}
	fail(k, "%d ids, want %d (an image counts as one); from number %d on they are %s, want %s", len(have), len(want), at, j.words(have[at:]), j.words(want[at:]))
	j.explainIDs(k, have, want)
}

// words shows the first of some ids and what they say.
func (j *judge) words(ids []int) string {
	const most = 6
	if len(ids) == 0 {
		return "at an end"
	}
	ids = ids[:min(most, len(ids))]
	return fmt.Sprintf("%s (%s)", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), " "), "[]"), excerpt(j.target.Words.Decode(ids, false)))
}

// CutID is the id in docs/known-bugs.md of another published way to cut text.
const CutID = "M16"

// explainIDs names what makes the engine's ids, an image being one token.
func (j *judge) explainIDs(k *conformance.Check, have, want []int) {
	words := j.target.Words
	cause := func(c conformance.Cause) { k.Causes = append(k.Causes, c) }
	if bos, ok := words.BOS(); ok {
		if slices.Equal(have, append([]int{bos}, want...)) {
			cause(conformance.Cause{ID: "M05", Text: "begin-of-text stands there twice", Look: "the template writes it already, or the tokenizer adds it: not both"})
		}
		if slices.Equal(append([]int{bos}, have...), want) {
			cause(conformance.Cause{ID: "M05", Text: "begin-of-text is missing", Look: "add_special_tokens, and what the template writes"})
		}
	}
	for _, v := range words.Variants() {
		as, err := words.As(v)
		if err == nil && v != words.Variant() && slices.Equal(j.collapsed(as.EncodePrompt(j.c.Prompt)), have) {
			cause(conformance.Cause{ID: CutID, Text: fmt.Sprintf("the text is cut as %s does it", v), Convention: string(v), Effect: fmt.Sprintf("%d ids for %d, an image counting as one", len(have), len(want))})
		}
	}
	if messages, err := tokenizer.ParseMessages(j.c.Messages); err == nil {
		if without, err := words.Template(messages, false); err == nil && slices.Equal(j.collapsed(words.EncodePrompt(without)), have) {
			cause(conformance.Cause{ID: "M15", Text: "the words that begin the answer are missing", Look: "add_generation_prompt is true"})
		}
	}
	if len(k.Causes) == 0 && !slices.Contains(have, j.image) && slices.Contains(want, j.image) {
		cause(conformance.Cause{ID: "M03", Text: fmt.Sprintf("no image token (id %d) stands for an image", j.image), Look: fmt.Sprintf("if the engine has a placeholder of its own, write %d for it", j.image)})
	}
}

// effect is what a convention changes in the number of image tokens.
func effect(convention string, have int, want []int) string {
	if convention == "" {
		return ""
	}
	return fmt.Sprintf("%d image tokens for %d", have, sum(want))
}

func sum(x []int) int {
	n := 0
	for _, v := range x {
		n += v
	}
	return n
}

// excerpt quotes the beginning of a text.
func excerpt(s string) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}
