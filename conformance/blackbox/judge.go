package blackbox

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// Result is the judgement.
type Result struct {
	Engine  conformance.Info `json:"-"`
	Name    string           `json:"engine"`
	Class   compare.Class    `json:"class"`
	Prompts []Verdict        `json:"prompts"`
	Search  *Search          `json:"search,omitempty"` // of the first prompt that is wrong
}

// Verdict is the judgement of one prompt.
type Verdict struct {
	Set        string  `json:"set"`
	Case       string  `json:"case"`
	Status     string  `json:"status"`
	Reason     string  `json:"reason,omitempty"`
	Tokens     int     `json:"tokens,omitempty"` // that the engine says the prompt has
	WantTokens int     `json:"want_tokens"`
	Positions  int     `json:"positions"` // compared
	Distance   float64 `json:"distance"`  // root mean square difference of log-probabilities, in nats
	Limit      float64 `json:"limit"`
	KL         float64 `json:"kl"`                   // mean divergence in nats, where all logits are there
	Convention string  `json:"convention,omitempty"` // the published rule that gives the engine's output
	Effect     string  `json:"effect,omitempty"`     // what it changes of this prompt
	Wrong      int     `json:"wrong_first"`          // positions whose most probable token is another one, and no near-tie
}

// Search says which known bug gives the engine's output.
type Search struct {
	Set     string  `json:"set"`
	Case    string  `json:"case"`
	Tried   int     `json:"tried"` // models
	Right   float64 `json:"distance_of_the_right_model"`
	Matched bool    `json:"matched"`
	Limit   float64 `json:"limit"`
	Nearest []Match `json:"nearest"` // nearest first; all that match, and the runner-up
}

// Match is one wrong model.
type Match struct {
	IDs      []string `json:"ids"`
	Keys     []string `json:"keys"`
	Text     string   `json:"text"`
	Look     string   `json:"look"`
	Distance float64  `json:"distance"`
	Tokens   int      `json:"tokens"`
	// Convention is the published rule that the model follows, where that is all that is other about it.
	Convention string `json:"convention,omitempty"`
}

// Status of the whole.
func (r Result) Status() conformance.Status {
	s := conformance.Skip
	for _, v := range r.Prompts {
		for _, k := range []conformance.Status{conformance.Pass, conformance.Convention, conformance.Fail, conformance.Error} {
			if v.Status == k.String() {
				s = max(s, k)
			}
		}
	}
	if s == conformance.Skip {
		return conformance.Error
	}
	return s
}

// Judge holds an engine's output against the truth of golden sets and, where it is wrong, searches for the bug. progress may be nil.
func Judge(ctx context.Context, o Output, targets []conformance.Target, only func(name string) bool, progress func(done, total int)) (Result, error) {
	return o.judge(ctx, targets, only, slices.Concat(diagnose.Catalogue(), diagnose.Counting()), progress)
}

// judge searches among some bugs.
func (o Output) judge(ctx context.Context, targets []conformance.Target, only func(name string) bool, bugs []diagnose.Bug, progress func(done, total int)) (Result, error) {
	r := Result{Engine: o.Info, Name: o.Info.Name, Class: o.Info.Class}
	var first *wrong
	var all []wrong
	for _, p := range o.Prompts {
		found := false
		for _, t := range targets {
			name := t.Set.Manifest.Model
			if p.Set != "" && p.Set != name || p.Case != "" && !slices.Contains(t.Set.Cases(), p.Case) {
				continue
			}
			at := p.Case
			if at == "" { // a single array without a name
				var names []string
				for _, n := range t.Set.Cases() {
					if only(n) {
						names = append(names, n)
					}
				}
				if len(names) != 1 || len(targets) != 1 {
					return r, fmt.Errorf("blackbox: an array without a name goes with --model and --case, of one prompt")
				}
				at = names[0]
			}
			if !only(at) {
				found = true
				continue
			}
			truth, err := t.Set.Case(at)
			if err != nil {
				return r, err
			}
			p.Set, p.Case = name, at
			v := o.verdict(t.Set.Config, truth, p)
			v.Set = name
			r.Prompts = append(r.Prompts, v)
			if v.Status == conformance.Fail.String() && v.Distance < compare.Worse { // NaN is no model's output
				w := wrong{t, truth, p, len(r.Prompts) - 1}
				all = append(all, w)
				if first == nil || smaller(truth, first.truth) {
					first = &w
				}
			}
			found = true
			break
		}
		if !found {
			r.Prompts = append(r.Prompts, Verdict{Set: p.Set, Case: p.Case, Status: conformance.Error.String(), Reason: "no golden set has such a prompt"})
		}
	}
	if first == nil {
		return r, nil
	}
	s, err := o.search(ctx, first.t, first.truth, first.p, r.Prompts[first.at], bugs, progress)
	r.Search = s
	if err != nil || !s.Matched {
		return r, err
	}
	for _, w := range all {
		if err := o.otherwise(ctx, w, &r.Prompts[w.at], s); err != nil {
			return r, err
		}
	}
	return r, nil
}

// wrong is a prompt that fails.
type wrong struct {
	t     conformance.Target
	truth *golden.Case
	p     Prompt
	at    int // number of its verdict
}

// otherwise tells another convention from a bug: the prompt follows one if a model that is right but for conventions gives its output, be it that bugs
// would give it as well. Those conventions are tried that gave the output which was searched.
func (o Output) otherwise(ctx context.Context, w wrong, v *Verdict, s *Search) error {
	catalogue := slices.Concat(diagnose.Catalogue(), diagnose.Counting())
	var tried [][]diagnose.Bug
	for _, m := range s.Nearest {
		if m.Distance > s.Limit || m.Convention == "" {
			continue
		}
		var bugs []diagnose.Bug
		for _, key := range m.Keys {
			bugs = append(bugs, catalogue[slices.IndexFunc(catalogue, func(b diagnose.Bug) bool { return b.Key() == key })])
		}
		tried = append(tried, bugs)
	}
	if len(tried) == 0 {
		return nil
	}
	found, err := o.try(ctx, w.t, w.truth, w.p, tried, nil)
	if err != nil {
		return err
	}
	for _, m := range found {
		if m.Distance > v.Limit {
			continue
		}
		v.Status, v.Convention = conformance.Convention.String(), m.Convention
		v.Effect = fmt.Sprintf("%d tokens in the prompt, as it should be", m.Tokens)
		if m.Tokens != v.WantTokens {
			v.Effect = fmt.Sprintf("%d tokens in the prompt for %d", m.Tokens, v.WantTokens)
		}
		return nil
	}
	return nil
}

// smaller prefers a prompt with an image, which passes all of the model, and of those the shorter one.
func smaller(a, b *golden.Case) bool {
	if ai, bi := a.Inputs.PixelValues.Shape != nil, b.Inputs.PixelValues.Shape != nil; ai != bi {
		return ai
	}
	return len(a.Inputs.InputIDs) < len(b.Inputs.InputIDs)
}

// verdict judges one prompt against the truth.
func (o Output) verdict(c shapes.Config, truth *golden.Case, p Prompt) Verdict {
	total := len(truth.Inputs.InputIDs)
	v := Verdict{Case: truth.Name, Status: conformance.Pass.String(), Tokens: p.Tokens, WantTokens: total}
	fail := func(level conformance.Status, format string, args ...any) Verdict {
		v.Status, v.Reason = level.String(), fmt.Sprintf(format, args...)
		return v
	}
	for i, r := range p.Rows {
		if r.Logits != nil && len(r.Logits) != c.Text.VocabSize {
			return fail(conformance.Error, "%d logits at position %d, want %d", len(r.Logits), i, c.Text.VocabSize)
		}
		for _, id := range r.IDs {
			if id < 0 || id >= c.Text.VocabSize {
				return fail(conformance.Error, "token %d, want 0 to %d", id, c.Text.VocabSize-1)
			}
		}
	}
	if len(p.Rows) == 0 {
		return fail(conformance.Error, "no positions")
	}
	head, ok := truth.Node(shapes.LMHead)
	if !ok {
		return fail(conformance.Error, "the golden set has no floor for the logits")
	}
	floor := head.Floors[golden.Class(o.Info.Class)].Whole
	v.Limit = compare.DistanceLimit(o.Info.Arithmetic, floor, rms(truth.Logits.Data)) + o.Resolution
	var finite bool
	if v.Distance, v.Positions, finite = distance(p.Rows, truth.Logits); !finite {
		v.Distance = compare.Worse
		return fail(conformance.Fail, "NaN or an infinity among the logits: no distance from any model, and no bug to search for")
	}
	if p.Tokens > 0 && p.Tokens != total {
		return fail(conformance.Fail, "the prompt has %d tokens, want %d: the number of image rows, or the text around them", p.Tokens, total)
	}
	if len(p.Rows) > total {
		return fail(conformance.Fail, "%d positions, but the prompt has %d tokens", len(p.Rows), total)
	}
	if p.Rows[0].Logits != nil {
		n := len(p.Rows)
		got := shapes.NewTensor(n, c.Text.VocabSize)
		for i, r := range p.Rows {
			copy(got.Row(i), r.Logits)
		}
		want := shapes.Tensor{Shape: got.Shape, Data: truth.Logits.Data[(total-n)*c.Text.VocabSize:]}
		in := compare.LogitsInput{Truth: want, Got: got, Floor: floor, Class: o.Info.Class}
		for _, f := range head.Floors {
			in.Coarsest = max(in.Coarsest, f.Whole)
		}
		l := compare.Logits(in)
		for _, kl := range l.KL {
			v.KL += kl / float64(n)
		}
		v.Wrong = l.Counts[compare.Wrong] + l.Counts[compare.Drifts]
		if v.Wrong > 0 {
			return fail(conformance.Fail, "the most probable token is another one at %d of %d positions", v.Wrong, n)
		}
	}
	if v.Distance > v.Limit {
		return fail(conformance.Fail, "the log-probabilities are %.3g away from the truth, limit %.3g", v.Distance, v.Limit)
	}
	return v
}

func rms(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(max(len(x), 1)))
}

// distance is the root mean square difference of log-probabilities, the last rows against the last rows of a model; not finite if the
// engine's are not.
func distance(rows []Row, model shapes.Tensor) (d float64, positions int, finite bool) {
	n := min(len(rows), model.Rows())
	sum, entries := 0.0, 0
	for i := range n {
		r, z := rows[len(rows)-n+i], model.Row(model.Rows()-n+i)
		norm := compare.LogSumExp(z)
		if r.Logits != nil {
			own := compare.LogSumExp(r.Logits)
			for j, v := range r.Logits {
				e := float64(v) - own - float64(z[j]) + norm
				sum += e * e
			}
			entries += len(r.Logits)
			continue
		}
		for k, id := range r.IDs {
			e := r.Log[k] - float64(z[id]) + norm
			sum += e * e
		}
		entries += len(r.IDs)
	}
	d = math.Sqrt(sum / float64(max(entries, 1)))
	return d, n, !math.IsNaN(d) && !math.IsInf(d, 0)
}

// Limits of the search.
const (
	partners = 6 // nearest single bugs whose pairs are tried; the nearest is tried with every other bug besides
	reported = 5
)

// search runs known bugs through the reference on one prompt.
func (o Output) search(ctx context.Context, t conformance.Target, truth *golden.Case, p Prompt, v Verdict, bugs []diagnose.Bug, progress func(done, total int)) (*Search, error) {
	s := &Search{Set: p.Set, Case: p.Case, Right: v.Distance, Limit: v.Limit}
	single := make([][]diagnose.Bug, len(bugs))
	for i, b := range bugs {
		single[i] = []diagnose.Bug{b}
	}
	found, err := o.try(ctx, t, truth, p, single, progress)
	if err != nil {
		return nil, err
	}
	s.Tried = len(found)
	if len(found) > 0 && found[0].Distance > s.Limit { // no bug alone: pairs of the nearest
		var near []diagnose.Bug
		for _, m := range found {
			b := bugs[slices.IndexFunc(bugs, func(b diagnose.Bug) bool { return b.Key() == m.Keys[0] })]
			if len(near) < partners && !slices.ContainsFunc(near, func(n diagnose.Bug) bool { return n.ID == b.ID }) {
				near = append(near, b)
			}
		}
		var pairs [][]diagnose.Bug
		for i, a := range near {
			for _, b := range near[i+1:] {
				pairs = append(pairs, []diagnose.Bug{a, b})
			}
		}
		if len(near) > 0 { // what is left may be a bug that is small by itself
			for _, b := range bugs {
				if b.ID != near[0].ID && !slices.ContainsFunc(near, func(n diagnose.Bug) bool { return n.Key() == b.Key() }) {
					pairs = append(pairs, []diagnose.Bug{near[0], b})
				}
			}
		}
		more, err := o.try(ctx, t, truth, p, pairs, progress)
		if err != nil {
			return nil, err
		}
		s.Tried += len(more)
		found = append(found, more...)
		slices.SortStableFunc(found, func(a, b Match) int { return cmp.Compare(a.Distance, b.Distance) })
	}
	s.Matched = len(found) > 0 && found[0].Distance <= s.Limit
	slices.SortStableFunc(found, func(a, b Match) int { // of those that match, the conventions first
		if a.Distance > s.Limit || b.Distance > s.Limit || (a.Convention == "") == (b.Convention == "") {
			return cmp.Compare(a.Distance, b.Distance)
		}
		return cmp.Compare(b.Convention, a.Convention)
	})
	for _, m := range found {
		if m.Distance <= s.Limit || len(s.Nearest) < reported {
			s.Nearest = append(s.Nearest, m)
		}
	}
	return s, nil
}

// try runs models with bugs, and gives those that change anything, nearest first.
func (o Output) try(ctx context.Context, t conformance.Target, truth *golden.Case, p Prompt, list [][]diagnose.Bug, progress func(done, total int)) ([]Match, error) {
	workers := min(runtime.GOMAXPROCS(0), len(list))
	matches := make([]*Match, len(list))
	errs := make([]error, workers)
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			m, err := diagnose.NewModel(t.Set.Config, t.Weights, truth.Inputs, compare.F32)
			if err != nil {
				errs[w] = err
				return
			}
			right := m.Value(shapes.LMHead)
			for i := w; i < len(list); i += workers {
				if errs[w] = ctx.Err(); errs[w] != nil {
					return
				}
				if y, err := m.Logits(list[i]...); err == nil && !slices.Equal(y.Data, right.Data) { // a bug that cannot be run here is none
					matches[i] = o.match(p, list[i], y)
				}
				mu.Lock()
				if done++; progress != nil {
					progress(done, len(list))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	var out []Match
	for _, m := range matches {
		if m != nil {
			out = append(out, *m)
		}
	}
	slices.SortStableFunc(out, func(a, b Match) int { return cmp.Compare(a.Distance, b.Distance) })
	return out, nil
}

// match is how far the engine is from a wrong model; nil if their numbers of tokens differ.
func (o Output) match(p Prompt, bugs []diagnose.Bug, y shapes.Tensor) *Match {
	if p.Tokens > 0 && p.Tokens != y.Rows() || len(p.Rows) > y.Rows() {
		return nil
	}
	d, _, finite := distance(p.Rows, y)
	if !finite {
		return nil
	}
	m := &Match{Distance: d, Tokens: y.Rows()}
	var names []string // of their conventions
	for _, b := range bugs {
		m.IDs, m.Keys = append(m.IDs, b.ID), append(m.Keys, b.Key())
		if m.Text != "" {
			m.Text, m.Look = m.Text+"; and ", m.Look+"; and "
		}
		m.Text, m.Look = m.Text+b.Text, m.Look+b.Look
		names = append(names, b.Convention)
	}
	if !slices.Contains(names, "") {
		m.Convention = strings.Join(names, and)
	}
	return m
}

// Accepted says whether the engine passes, but for conventions that are allowed, by their names or by the ids of their bugs.
func (r Result) Accepted(allowed []string) bool {
	ok := func(name string) bool {
		return slices.Contains(allowed, name) || slices.ContainsFunc(diagnose.Catalogue(), func(b diagnose.Bug) bool {
			return b.Convention == name && slices.Contains(allowed, b.ID)
		})
	}
	for _, v := range r.Prompts {
		switch v.Status {
		case conformance.Pass.String():
		case conformance.Convention.String():
			for name := range strings.SplitSeq(v.Convention, and) {
				if !ok(name) {
					return false
				}
			}
		default:
			return false
		}
	}
	return len(r.Prompts) > 0
}

// and stands between the names of conventions.
const and = "; and "
