package cli

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/selftest"
	"github.com/llavaref/llavaref/golden"
)

func selftestCommand() *cobra.Command {
	var models []string
	var pattern, bugs, class, format, out string
	var right bool
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Measure how many bugs the suite catches, and names",
		Long: `Selftest plants every bug of docs/known-bugs.md that lives in the graph into a right engine, on every prompt of the
golden sets, and says for each: whether it is caught by the node's own inputs and against the truth of the whole
model, at which node first, with what margin (error over limit), and whether the diagnosis names it. What no view
catches is listed, and so is a prompt in which no bug shows that does not show elsewhere.

With --right it also runs the whole suite on right engines that compute in other ways (1, 16 and 64 accumulators,
fused or not, a softmax in blocks, in f32, f16 and bf16, and changes that change nothing that is shown): each of
them that is flagged is a false alarm. They run on the first prompt with an image and the first without of each set.

With --class f16 or bf16 every value of the wrong engine is rounded to that class, and so are the limits those of
the class: a bug that is smaller than what storage rounds away survives, and is listed.

Exit codes: 0 everything is caught (in f16 and bf16 nine of ten), nine of ten are named, no false alarm; 1 not so;
2 wrong usage; 3 could not test.`,
		Example: `  llavaref selftest --model tiny-1.5 --case text --bug L25
  llavaref selftest --model tiny-1.6 --case noise-3x1 --bug 'K*' --format markdown
  llavaref selftest --class f16,bf16 --model tiny-1.5 --case text --bug L25 --format summary`,
		Args: noArgs,
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&models, "model", nil, "golden sets, separated by commas (default the tiny ones)")
	fs.StringVar(&pattern, "case", "", "only the prompts whose name matches this pattern")
	fs.StringVar(&bugs, "bug", "", "only the bugs of this id, or whose id/name matches this pattern")
	fs.StringVar(&class, "class", "f32", "classes that the engines store their values in: f32, f16, bf16, some of them with commas between, or all")
	fs.BoolVar(&right, "right", false, "run right engines too")
	fs.StringVar(&format, "format", "text", "text, json, markdown, or summary: the sums alone, in Markdown")
	fs.StringVar(&out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf("format", format, "text", "json", "markdown", "summary"); err != nil {
			return err
		}
		all, err := selftestClasses(class)
		if err != nil {
			return err
		}
		if len(all) > 1 && (format == "json" || format == "markdown") {
			return usage("--format %s is of one class, and --class %s is %d: give one, or --format text or summary", format, class, len(all))
		}
		for flag, p := range map[string]string{"case": pattern, "bug": bugs} {
			if _, err := path.Match(p, ""); err != nil {
				return usage("--%s %q: %w", flag, p, err)
			}
		}
		if len(models) == 0 {
			models = defaultSets()
		}
		o := selftest.Options{Cases: pattern, Bugs: bugs, Right: right}
		for _, name := range models {
			if !slices.Contains(golden.Names(), name) {
				return usage("--model %q has no golden set in the program, want %s", name, strings.Join(golden.Names(), ", "))
			}
			set, err := golden.Embedded(name)
			if err != nil {
				return err
			}
			target, release, err := conformance.OpenTarget(set, "", func(int64, int64) {})
			if err != nil {
				return err
			}
			defer release()
			o.Targets = append(o.Targets, target)
		}
		var results []selftest.Result
		for _, c := range all {
			b := newStepsBar(cmd.ErrOrStderr(), "trials as "+string(c))
			o.Class, o.Progress = c, func(done, total int) { b.set(int64(done), int64(total)) }
			r, err := selftest.Run(cmd.Context(), o)
			b.close()
			if err != nil {
				return err
			}
			if len(r.Cases) == 0 || len(r.Bugs) == 0 {
				return usage("--case %q and --bug %q match %d prompts and %d bugs, want at least one of each", pattern, bugs, len(r.Cases), len(r.Bugs))
			}
			results = append(results, r)
			o.Right = false // right engines are of every class, once
		}
		err = writeOut(cmd, out, func(w io.Writer) error {
			write := map[string]func(io.Writer, selftest.Result) error{"text": selftest.Text, "json": selftest.JSON, "markdown": selftest.Markdown, "summary": selftest.Summary}[format]
			for i, r := range results {
				if i > 0 {
					fmt.Fprintln(w)
				}
				if err := write(w, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		good, trials := true, 0
		for _, r := range results {
			s := r.Score()
			good, trials = good && s.Good(), trials+s.Trials
			if out != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%d trials, %d caught, %d named, %d right engines flagged.\n", s.Trials, s.Local, s.Named, len(s.Flagged))
			}
		}
		switch {
		case trials == 0:
			return exitError{exitUntested, errors.New("none of these bugs changes anything in these prompts")}
		case !good:
			return exitError{code: exitNotConformant}
		}
		return nil
	}
	return cmd
}

// selftestClasses are the classes of --class: one, some with commas between, or all.
func selftestClasses(text string) ([]compare.Class, error) {
	if text == "all" {
		return compare.Classes(), nil
	}
	var out []compare.Class
	for _, word := range strings.Split(text, ",") {
		c, err := compare.ParseClass(word)
		if err != nil || slices.Contains(out, c) {
			return nil, usage("--class %q, want f32, f16, bf16, some of them with commas between, or all", text)
		}
		out = append(out, c)
	}
	return out, nil
}
