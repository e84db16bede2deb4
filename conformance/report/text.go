package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// Text writes the result for a terminal: a line for each stage of each case, or with verbose for each node, what is wrong under the
// case that it is wrong in, and the verdict in the last line.
func Text(w io.Writer, r conformance.Run, verbose bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s\n", engine(r))
	fmt.Fprintf(b, "%s; drift and local are errors over their limits: above 1 fails\n", views(r))
	for _, s := range r.Sets {
		textSet(b, r, s, verbose)
	}
	fmt.Fprintf(b, "\n%s\n", Verdict(r))
	return b.Flush()
}

func textSet(w io.Writer, r conformance.Run, s conformance.Set, verbose bool) {
	fmt.Fprintf(w, "\n%s", s.Name)
	if s.Digest != "" {
		fmt.Fprintf(w, ", weights %s", s.Digest[:min(12, len(s.Digest))])
	}
	fmt.Fprintln(w)
	if s.Reason != "" {
		fmt.Fprintf(w, "  error: %s\n", s.Reason)
	}
	for i, c := range s.Cases {
		if c.Reason != "" {
			if same := alike(s.Cases[i:]); i > 0 && s.Cases[i-1].Reason == c.Reason {
				continue
			} else if same > 1 {
				fmt.Fprintf(w, "\n  %s and %d more: skip, %s\n", c.Name, same-1, c.Reason)
			} else {
				fmt.Fprintf(w, "\n  %s: skip, %s\n", c.Name, c.Reason)
			}
			continue
		}
		fmt.Fprintf(w, "\n  %s: %s, %s\n", c.Name, c.Status(), coverage(c.Coverage(), r))
		if verbose && c.Why != "" {
			fmt.Fprintf(w, "  %s\n", c.Why)
		}
		for _, line := range skips(c) {
			fmt.Fprintf(w, "    skipped, %s\n", line)
		}
		if verbose {
			textNodes(w, c)
		} else {
			textStages(w, c)
		}
		for _, line := range findings(c) {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
}

// alike is how many of the first cases were not run for the same reason.
func alike(cases []conformance.Case) int {
	for i, c := range cases {
		if c.Reason != cases[0].Reason {
			return i
		}
	}
	return len(cases)
}

func textStages(w io.Writer, c conformance.Case) {
	if len(c.Stages) == 0 {
		return
	}
	width, names := statusWidth(c), 10
	for _, s := range c.Stages {
		names = max(names, len(s.Name))
	}
	fmt.Fprintf(w, "    %-*s %-*s %9s  %8s %8s  %s\n", width, "", names, "stage", "checked", "drift", "local", "worst node")
	for _, s := range c.Stages {
		r := stageRow(s)
		checked, note := fmt.Sprintf("%d/%d", r.checked, r.total), short(r.worst)
		if s.Name == conformance.StageLogits {
			note = tokens(s.Nodes[0])
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("    %-*s %-*s %9s  %8s %8s  %s", width, r.status, names, s.Name, checked, ratio(r.drift), ratio(r.local), note), " "))
	}
}

// statusWidth is the width of the longest status of a case, or of the usual ones.
func statusWidth(c conformance.Case) int {
	width := len(conformance.Error.String())
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			width = max(width, len(n.Status().String()))
		}
	}
	return width
}

func textNodes(w io.Writer, c conformance.Case) {
	width := statusWidth(c)
	for _, s := range c.Stages {
		fmt.Fprintf(w, "    %-*s %-44s %8s %8s\n", width, s.Status(), s.Name, "drift", "local")
		for _, n := range s.Nodes {
			r := nodeRow(n)
			fmt.Fprintf(w, "    %-*s   %-42s %8s %8s\n", width, r.status, short(n.Name), ratio(r.drift), ratio(r.local))
			if r.status > conformance.Pass {
				for _, line := range nodeFindings(n, "") {
					fmt.Fprintf(w, "          %s\n", line)
				}
			}
			for _, k := range n.Checks {
				if k.Result == conformance.Skip && k.Reason != "" {
					fmt.Fprintf(w, "            %s: %s\n", k.View, k.Reason)
				}
			}
		}
	}
}
