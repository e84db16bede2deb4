package blackbox

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// JSON writes the result.
func JSON(w io.Writer, r Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Format int    `json:"format"`
		Status string `json:"status"`
		Result
	}{1, r.Status().String(), r})
}

// Text writes the result for a terminal.
func Text(w io.Writer, r Result) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s, its logits alone, judged as %s; distances are root mean squares of log-probabilities, in nats\n", r.Name, r.Class)
	for _, v := range r.Prompts {
		fmt.Fprintf(b, "\n  %s/%s: %s\n", v.Set, v.Case, v.Status)
		if v.Positions > 0 {
			fmt.Fprintf(b, "    last %d of %d positions, distance %.3g, limit %.3g", v.Positions, v.WantTokens, v.Distance, v.Limit)
			if v.KL > 0 {
				fmt.Fprintf(b, ", mean KL %.3g", v.KL)
			}
			fmt.Fprintln(b)
		}
		if v.Reason != "" {
			fmt.Fprintf(b, "    %s\n", v.Reason)
		}
		if v.Convention != "" {
			fmt.Fprintf(b, "    other convention: %s: %s\n", v.Convention, v.Effect)
		}
	}
	if r.Search != nil {
		fmt.Fprintln(b)
		r.Search.text(b)
	}
	words := map[conformance.Status]string{conformance.Pass: "conformant, as far as logits tell", conformance.Convention: "other convention: " + r.conventions(), conformance.Fail: "not conformant", conformance.Error: "could not test"}
	fmt.Fprintf(b, "\n%s: %s.\n", words[r.Status()], r.Name)
	return b.Flush()
}

// conventions are the published rules that the engine follows, each once.
func (r Result) conventions() string {
	var names []string
	for _, v := range r.Prompts {
		if v.Convention != "" && !slices.Contains(names, v.Convention) {
			names = append(names, v.Convention)
		}
	}
	return strings.Join(names, and)
}

func (s *Search) text(w io.Writer) {
	fmt.Fprintf(w, "  %d wrong models tried on %s/%s\n", s.Tried, s.Set, s.Case)
	var runner *Match
	for i, m := range s.Nearest {
		ids := strings.Join(m.IDs, " with ")
		if m.Distance <= s.Limit {
			word := "equal to"
			if i > 0 {
				word = "or equal to"
			}
			if m.Convention != "" {
				ids += ", another convention (" + m.Convention + "),"
			}
			fmt.Fprintf(w, "  %s the model with %s to %.2g, and %.3g away from the right one: %s\n    look at: %s\n", word, ids, m.Distance, s.Right, m.Text, m.Look)
		} else if runner == nil {
			runner = &s.Nearest[i]
		}
	}
	if !s.Matched {
		fmt.Fprintf(w, "  none of them, alone or in a likely pair, gives this output: limit %.3g, the right model is %.3g away\n", s.Limit, s.Right)
	}
	if runner != nil {
		word := "the runner-up"
		if !s.Matched {
			word = "the nearest"
		}
		fmt.Fprintf(w, "  %s is %s at %.3g: %s\n", word, strings.Join(runner.IDs, " with "), runner.Distance, runner.Text)
	}
}
