package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/shapes"
)

// changed is an engine that answers as another one does, but for one thing.
type changed struct {
	answers.Engine
	change func(a *answers.Answer, c endtoend.Case)
}

func (e changed) Answer(ctx context.Context, c endtoend.Case, only bool) (answers.Answer, error) {
	a, err := e.Engine.Answer(ctx, c, only)
	if err == nil && e.change != nil {
		e.change(&a, c)
	}
	return a, err
}

// whole is a run of golden sets in which all holds, and the end-to-end sets, answered by the optimized engine with one thing changed.
func whole(t *testing.T, change func(a *answers.Answer, c endtoend.Case)) conformance.Run {
	t.Helper()
	var targets []*answers.Target
	for _, name := range endtoend.Names() {
		target, release, err := answers.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		targets = append(targets, target)
	}
	open, ok, err := engines.FindAnswers("fast", 0)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	answered := answers.Run(context.Background(), targets, answers.Options{}, func(t *answers.Target) (answers.Engine, error) {
		e, err := open(t)
		return changed{e, change}, err
	})
	r := six()
	r.Engine = answered.Engine
	return conformance.Join(r, answered)
}

// Each level that is wrong fails, and no other one says anything that is not so.
func TestEachLevelFailsAlone(t *testing.T) {
	parameters := func(change func([]shapes.Param) []shapes.Param) func(*answers.Answer, endtoend.Case) {
		return func(a *answers.Answer, _ endtoend.Case) {
			if read := a.Parameters; read != nil {
				a.Parameters = func() ([]shapes.Param, error) {
					have, err := read()
					return change(slices.Clone(have)), err
				}
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(a *answers.Answer, c endtoend.Case)
		want   string // statuses of the levels
		badge  string
	}{
		{"nothing is wrong", nil, "pass pass pass pass pass pass", "f32: 6 of 6 levels pass, brightgreen"},
		{"a parameter has another shape", parameters(func(have []shapes.Param) []shapes.Param {
			have[5].Shape = []int{7}
			return have
		}), "fail pass pass pass pass pass", "f32: inventory fails, red"},
		{"a parameter is missing", parameters(func(have []shapes.Param) []shapes.Param { return have[1:] }), "fail pass pass pass pass pass", "f32: inventory fails, red"},
		{"channels exchanged", func(a *answers.Answer, _ endtoend.Case) {
			if read := a.Pixels; read != nil {
				a.Pixels = func(most int) (shapes.Tensor, error) {
					x, err := read(most)
					area := x.Shape[2] * x.Shape[3]
					for tile := range slices.Chunk(x.Data, 3*area) {
						red := slices.Clone(tile[:area])
						copy(tile, tile[2*area:])
						copy(tile[2*area:], red)
					}
					return x, err
				}
			}
		}, "pass fail pass pass pass pass", "f32: preprocessing + tokens fails, red"},
		{"begin-of-text twice", func(a *answers.Answer, _ endtoend.Case) { a.InputIDs = append([]int{a.InputIDs[0]}, a.InputIDs...) },
			"pass fail pass pass pass pass", "f32: preprocessing + tokens fails, red"},
		{"begin-of-text twice, and other tokens for it", func(a *answers.Answer, _ endtoend.Case) {
			a.InputIDs, a.NewIDs = append([]int{a.InputIDs[0]}, a.InputIDs...), []int{1, 2, 3}
		}, "pass fail pass pass pass partial", "f32: preprocessing + tokens fails, red"},
		{"one of two ends is not known", func(a *answers.Answer, c endtoend.Case) {
			if c.Name == "eos-second-of-list" {
				a.NewIDs = append(a.NewIDs, 5, 6, 7)
			}
		}, "pass pass pass pass pass fail", "f32: generation fails, red"},
		{"no pixels, which are another program's", func(a *answers.Answer, _ endtoend.Case) { a.Pixels = nil },
			"pass partial pass pass pass pass", "f32: 5 of 6 levels pass, 1 partly tested, yellow"},
		{"generation of one case alone", func(a *answers.Answer, c endtoend.Case) {
			if c.Name != "image" {
				a.NewIDs, a.Text = nil, nil
			}
		}, "pass pass pass pass pass partial", "f32: 5 of 6 levels pass, 1 partly tested, yellow"},
		{"no generation", func(a *answers.Answer, c endtoend.Case) { a.NewIDs, a.Text = nil, nil },
			"pass pass pass pass pass untested", "f32: 5 of 6 levels pass, 1 not tested, brightgreen"},
		{"no list of parameters", func(a *answers.Answer, c endtoend.Case) { a.Parameters = nil },
			"untested pass pass pass pass pass", "f32: 5 of 6 levels pass, 1 not tested, brightgreen"},
		{"a list of one model's parameters", func(a *answers.Answer, c endtoend.Case) {
			if a.Parameters != nil {
				if have, _ := a.Parameters(); have[0].Name == "image_newline" || strings.Contains(have[0].Name, "newline") {
					a.Parameters = nil
				}
			}
		}, "partial pass pass pass pass pass", "f32: 5 of 6 levels pass, 1 partly tested, yellow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := whole(t, c.change)
			all := levels(r)
			var got []string
			for _, l := range all {
				got = append(got, l.Status)
				if l.Note == "" {
					t.Errorf("%s has no note", l.Name)
				}
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("%s, want %s\n%+v", g, c.want, all)
			}
			message, colour := badge(levelsDoc(r))
			if g := fmt.Sprintf("%s, %s", message, colour); g != c.badge {
				t.Errorf("badge %s, want %s", g, c.badge)
			}
		})
	}
}

// listing is a run of several golden sets in which all holds, some of them with a list of parameters.
func listing(lists ...bool) conformance.Run {
	r := six()
	r.Sets = nil
	for i, given := range lists {
		set := six().Sets[0]
		set.Name = fmt.Sprint("tiny-", i)
		if given {
			k := conformance.Check{View: conformance.Exact, Result: conformance.Pass}
			c := &set.Cases[0]
			c.Stages = append([]conformance.Stage{{Name: conformance.StageInventory, Nodes: []conformance.Node{node(conformance.NodeParameters, "", k)}}}, c.Stages...)
		}
		r.Sets = append(r.Sets, set)
	}
	return r
}

// unasked is an end-to-end set of which no case was run.
func unasked() conformance.Set {
	return conformance.Set{Name: "llava", EndToEnd: true, Total: 2, Cases: []conformance.Case{{Name: "image", Reason: "no dump of it"}, {Name: "strip", Reason: "no dump of it"}}}
}

// Where no end-to-end set was run, every golden set needs its list; and sets whose conversations were skipped say nothing of the graph.
func TestLevelsOfGoldenSetsAlone(t *testing.T) {
	with := func(r conformance.Run, s ...conformance.Set) conformance.Run {
		r.Sets = append(r.Sets, s...)
		return r
	}
	for _, c := range []struct {
		name, want string
		run        conformance.Run
	}{
		{"a list for each set", "pass untested pass pass pass untested", listing(true, true)},
		{"a list for the first set", "partial untested pass pass pass untested", listing(true, false)},
		{"a list for the last set", "partial untested pass pass pass untested", listing(false, true)},
		{"no list", "untested untested pass pass pass untested", listing(false, false)},
		{"conversations skipped", "untested untested pass pass pass untested", with(listing(false), unasked())},
		{"conversations skipped, and a list beside the nodes", "partial untested pass pass pass untested", with(listing(true), unasked())},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range levels(c.run) {
				got = append(got, l.Status)
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("%s, want %s\n%+v", g, c.want, levels(c.run))
			}
		})
	}
}

// A case that was skipped is none that was run.
func TestSkippedCasesAreNotRun(t *testing.T) {
	r := listing(true)
	r.Sets = append(r.Sets, unasked())
	r.Sets[0].Total, r.Sets[0].Cases = 2, append(r.Sets[0].Cases, conformance.Case{Name: "other", Reason: "no dump of it"})
	var got []string
	for _, s := range levelsDoc(r).Sets {
		got = append(got, fmt.Sprintf("%s %d of %d", s.Name, s.Run, s.Total))
	}
	if want := []string{"tiny-0 1 of 2", "llava 0 of 2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
