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

Exit codes: 0 everything is caught, nine of ten are named, no false alarm; 1 not so; 2 wrong usage; 3 could not test.`,
		Example: `  llavaref selftest --model tiny-1.5 --case text --bug L25
  llavaref selftest --model tiny-1.6 --case noise-3x1 --bug 'K*' --format markdown`,
		Args: noArgs,
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&models, "model", nil, "golden sets, separated by commas (default the tiny ones)")
	fs.StringVar(&pattern, "case", "", "only the prompts whose name matches this pattern")
	fs.StringVar(&bugs, "bug", "", "only the bugs of this id, or whose id/name matches this pattern")
	fs.StringVar(&class, "class", "f32", "class that the engines store their values in: f32, f16 or bf16")
	fs.BoolVar(&right, "right", false, "run right engines too")
	fs.StringVar(&format, "format", "text", "text, json or markdown")
	fs.StringVar(&out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf("format", format, "text", "json", "markdown"); err != nil {
			return err
		}
		c, err := compare.ParseClass(class)
		if err != nil {
			return usage("--class %q, want f32, f16 or bf16", class)
		}
		for flag, p := range map[string]string{"case": pattern, "bug": bugs} {
			if _, err := path.Match(p, ""); err != nil {
				return usage("--%s %q: %w", flag, p, err)
			}
		}
		if len(models) == 0 {
			models = defaultSets()
		}
		o := selftest.Options{Cases: pattern, Bugs: bugs, Class: c, Right: right}
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
		b := newStepsBar(cmd.ErrOrStderr(), "trials")
		o.Progress = func(done, total int) { b.set(int64(done), int64(total)) }
		r, err := selftest.Run(cmd.Context(), o)
		b.close()
		if err != nil {
			return err
		}
		if len(r.Cases) == 0 || len(r.Bugs) == 0 {
			return usage("--case %q and --bug %q match %d prompts and %d bugs, want at least one of each", pattern, bugs, len(r.Cases), len(r.Bugs))
		}
		err = writeOut(cmd, out, func(w io.Writer) error {
			switch format {
			case "json":
				return selftest.JSON(w, r)
			case "markdown":
				return selftest.Markdown(w, r)
			}
			return selftest.Text(w, r)
		})
		if err != nil {
			return err
		}
		if out != "" {
			s := r.Score()
			fmt.Fprintf(cmd.OutOrStdout(), "%d trials, %d caught, %d named, %d right engines flagged.\n", s.Trials, s.Local, s.Named, len(s.Flagged))
		}
		if r.Score().Trials == 0 {
			return exitError{exitUntested, errors.New("none of these bugs changes anything in these prompts")}
		}
		if !r.Score().Good() {
			return exitError{code: exitNotConformant}
		}
		return nil
	}
	return cmd
}
