package selftest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func target(t *testing.T, name string) conformance.Target {
	t.Helper()
	set, err := golden.Embedded(name)
	if err != nil {
		t.Fatal(err)
	}
	return conformance.Target{Set: set, Weights: checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed)}
}

// The whole matrix is the command's; here are the prompts of the tiny set that have the most to tell.
func TestEveryBugIsCaughtAndNineOfTenAreNamed(t *testing.T) {
	for _, name := range []string{"noise-3x1", "text-small-norms"} {
		r, err := Run(context.Background(), Options{Targets: []conformance.Target{target(t, "tiny-1.6")}, Cases: name})
		if err != nil {
			t.Fatal(err)
		}
		s := r.Score()
		if !s.Good() || len(s.Survivors) > 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if least := map[string]int{"noise-3x1": 150, "text-small-norms": 90}[name]; s.Trials < least {
			t.Errorf("%s: %d trials, want at least %d", name, s.Trials, least)
		}
		t.Logf("%s: %d trials, %d caught, %d against the truth, %d named", name, s.Trials, s.Local, s.Drift, s.Named)
	}
}

// In bfloat16 a bug's output is rounded, so it is not what the alternative gives.
func TestBugsAreCaughtAndNamedInBfloat16(t *testing.T) {
	for _, bugs := range []string{"J0*", "L1*", "V0*", "K1*"} {
		r, err := Run(context.Background(), Options{Targets: []conformance.Target{target(t, "tiny-1.6")}, Cases: "photo-1x2-portrait", Bugs: bugs, Class: compare.BF16})
		if err != nil {
			t.Fatal(err)
		}
		s := r.Score()
		t.Logf("%s: %d trials, %d caught, %d named; not caught %v; not named %v", bugs, s.Trials, s.Local, s.Named, s.Survivors, s.Unnamed)
		if s.Trials == 0 || s.Local == 0 || 10*s.Named < 9*s.Local {
			t.Errorf("%s: %+v", bugs, s)
		}
	}
}

func TestRightEnginesAreLetThrough(t *testing.T) {
	rights, err := tryRight(context.Background(), target(t, "tiny-1.5"), "text", func(engine string) bool {
		return !strings.Contains(engine, "16 lanes") && !strings.Contains(engine, "64 lanes") && !strings.Contains(engine, "16, 1") || strings.Contains(engine, "bf16, 16 lanes, FMA, softmax") // the rest is the command's
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rights) < 8 {
		t.Errorf("%d right engines, want at least 8", len(rights))
	}
	for _, r := range rights {
		if r.Status != "pass" {
			t.Errorf("%s: %s, %s", r.Name, r.Status, r.First)
		}
	}
}

// The measure itself has to be able to say no.
func TestTheScoreSeesWhatIsWrong(t *testing.T) {
	trial := Trial{Set: "s", Case: "c", Node: "n", Local: true, LocalMargin: 12, Drift: true, DriftAt: "n", Named: []string{"X1"}, Rightly: true}
	make := func(change func(r *Result)) Result {
		r := Result{Class: compare.F32, Cases: []Case{{"s", "c", 1, []string{"X1"}}}, Bugs: []Bug{{"X1", "X1", "does | wrong", []Trial{trial}}}, Rights: []Right{{Name: "e", Set: "s", Case: "c", Status: "pass"}}}
		change(&r)
		return r
	}
	if s := make(func(*Result) {}).Score(); !s.Good() || len(s.Survivors)+len(s.Idle)+len(s.Silent)+len(s.Unnamed) > 0 {
		t.Errorf("a matrix without fault: %+v", s)
	}
	for name, change := range map[string]func(r *Result){
		"nothing tried": func(r *Result) { r.Bugs[0].Trials = nil },
		"a survivor":    func(r *Result) { r.Bugs[0].Trials[0].Local, r.Bugs[0].Trials[0].Drift = false, false },
		"not by itself": func(r *Result) { r.Bugs[0].Trials[0].Local = false },
		"no name":       func(r *Result) { r.Bugs[0].Trials[0].Rightly = false },
		"a false alarm": func(r *Result) { r.Rights[0].Status = "fail" },
	} {
		r := make(change)
		if s := r.Score(); s.Good() {
			t.Errorf("%s: the score is good: %+v", name, s)
		}
		var out bytes.Buffer
		if err := Text(&out, r); err != nil || !strings.Contains(out.String(), "does not keep") {
			t.Errorf("%s: %v, %s", name, err, out.String())
		}
	}
	ten := func(caught int, class compare.Class) Score {
		return Score{Class: class, Trials: 10, Local: caught, Named: caught}
	}
	if !ten(9, compare.BF16).Good() || ten(8, compare.F16).Good() || ten(9, compare.F32).Good() {
		t.Error("in f16 and bf16 nine of ten are to be caught, in f32 all")
	}
	var out bytes.Buffer
	if err := Markdown(&out, make(func(*Result) {})); err != nil || !strings.Contains(out.String(), `does \| wrong | 1 | 1 | 12 | 1 | 1 | `+"`n`") {
		t.Errorf("%v, %s", err, out.String())
	}
}

func TestTheMatrixIsOrderedAndCounted(t *testing.T) {
	r, err := Run(context.Background(), Options{Targets: []conformance.Target{target(t, "tiny-1.5")}, Bugs: "C0[1278]"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Bugs {
		if !slices.IsSortedFunc(b.Trials, func(a, b Trial) int { return strings.Compare(a.Case, b.Case) }) {
			t.Errorf("%s: prompts in the order %v", b.Key, b.Trials)
		}
	}
	if len(r.Cases) != 3 || r.Cases[0].Bugs == 0 {
		t.Errorf("prompts %+v", r.Cases)
	}
}
