package selftest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// JSON writes the whole matrix.
func JSON(w io.Writer, r Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// margin is an error over its limit in few characters.
func margin(x float64) string {
	switch {
	case x > 1e30:
		return "off"
	case x >= 100:
		return fmt.Sprintf("1e%d", int(math.Floor(math.Log10(x))))
	}
	return fmt.Sprintf("%.2g", x)
}

func share(n, of int) string {
	if of == 0 {
		return "0 of 0"
	}
	return fmt.Sprintf("%d of %d (%.1f %%)", n, of, 100*float64(n)/float64(of))
}

// Text writes the sums and what is wrong.
func Text(w io.Writer, r Result) error {
	b := bufio.NewWriter(w)
	summary(b, r, "", "  ")
	s := r.Score()
	verdict := "the suite keeps what it promises."
	if !s.Good() {
		verdict = "the suite does not keep what it promises."
	}
	fmt.Fprintf(b, "%s\n", verdict)
	return b.Flush()
}

func summary(b io.Writer, r Result, item, under string) {
	s := r.Score()
	line := func(format string, args ...any) { fmt.Fprintf(b, item+format+"\n", args...) }
	list := func(what string, names []string) {
		if len(names) == 0 {
			line("%s: none", what)
			return
		}
		line("%s: %d", what, len(names))
		for _, n := range names {
			fmt.Fprintf(b, "%s%s%s\n", under, item, n)
		}
	}
	line("ways of being wrong: %d; prompts: %d; as %s; trials in which anything changes: %d", len(r.Bugs), len(r.Cases), r.Class, s.Trials)
	line("caught by the node's own inputs, at the node itself: %s", share(s.Local, s.Trials))
	line("caught against the truth of the whole model: %s, at the node itself: %s", share(s.Drift, s.Trials), share(s.DriftThere, s.Trials))
	line("named rightly: %s", share(s.Named, s.Trials))
	list("survivors, caught in no view", s.Survivors)
	list("caught, but without the right name", s.Unnamed)
	list("bugs that change nothing in any of these prompts", s.Silent)
	list("prompts without a bug that shows in them alone", s.Idle)
	if len(r.Rights) > 0 {
		worst := 0.0
		for _, e := range r.Rights {
			worst = max(worst, e.Worst)
		}
		line("right engines let through: %s; the largest error over its limit in any of them: %.2g", share(len(r.Rights)-len(s.Flagged), len(r.Rights)), worst)
		list("right engines that were flagged", s.Flagged)
	}
}

// Summary writes the sums alone, as a part of a page.
func Summary(w io.Writer, r Result) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "## %s\n\n", r.Class)
	summary(b, r, "- ", "  ")
	return b.Flush()
}

// Markdown writes the page: the sums, the matrix by bug, the prompts, the right engines.
func Markdown(w io.Writer, r Result) error {
	b := bufio.NewWriter(w)
	summary(b, r, "- ", "  ")
	fmt.Fprint(b, "\n## Bug by bug\n\nMargins are errors over limits, smallest and largest over the prompts; `off` has no measure, such as a wrong shape. Truth: caught in how many of the prompts against the truth of the whole model.\n\n")
	fmt.Fprint(b, "| bug | what the engine does | prompts | caught | margin | truth | named | first node |\n|---|---|---|---|---|---|---|---|\n")
	for _, bug := range r.Bugs {
		if len(bug.Trials) == 0 {
			fmt.Fprintf(b, "| %s | %s | 0 | | | | | changes nothing here |\n", cell(bug.Key), cell(bug.Text))
			continue
		}
		low, high, local, drift, named := math.Inf(1), 0.0, 0, 0, 0
		for _, t := range bug.Trials {
			low, high = min(low, t.LocalMargin), max(high, t.LocalMargin)
			for _, x := range []struct {
				is bool
				n  *int
			}{{t.Local, &local}, {t.Drift, &drift}, {t.Rightly, &named}} {
				if x.is {
					*x.n++
				}
			}
		}
		margins := margin(low)
		if m := margin(high); m != margins {
			margins += " to " + m
		}
		fmt.Fprintf(b, "| %s | %s | %d | %d | %s | %d | %d | `%s` |\n", cell(bug.Key), cell(bug.Text), len(bug.Trials), local, margins, drift, named, bug.Trials[0].Node)
	}
	fmt.Fprint(b, "\n## Prompt by prompt\n\n| prompt | bugs that change anything | that show in no other prompt |\n|---|---|---|\n")
	for _, c := range r.Cases {
		alone := strings.Join(c.Alone, ", ")
		if alone == "" {
			alone = "none"
		}
		fmt.Fprintf(b, "| %s/%s | %d | %s |\n", c.Set, c.Name, c.Bugs, cell(alone))
	}
	if len(r.Rights) > 0 {
		fmt.Fprint(b, "\n## Right engines\n\nNone of these may be flagged. Worst is the largest error over its limit of any check of any node.\n\n| engine | prompt | result | worst |\n|---|---|---|---|\n")
		for _, e := range r.Rights {
			result := e.Status
			if e.Status != conformance.Pass.String() {
				result += ": " + e.First
			}
			fmt.Fprintf(b, "| %s | %s/%s | %s | %.2g |\n", cell(e.Name), e.Set, e.Case, cell(result), e.Worst)
		}
	}
	return b.Flush()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
