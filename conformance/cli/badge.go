package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/report"
)

func badgeCommand() *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "badge LEVELS...",
		Short: "Make one badge of several runs of an engine",
		Long: `Badge puts together what several runs say of an engine's levels, each written by check --report levels=PATH: of an
engine whose tokenizer is another program, or whose graph and conversations are tested in two jobs. Of each level the
worst run that tested it counts, and one that did not test it says nothing.

The runs have to be of one engine and version, judged as one class, on sets of the same weights. The text format has a
line for each level, levels is one file of all runs, badge an endpoint of shields.io.

Exit codes: 0 nothing that was tested is wrong, 1 a level fails, 2 wrong usage, 3 a file cannot be read, is of another
engine, or something could not be tested, 4 another convention.`,
		Example: `  llavaref check --model tiny-1.5 --case text --report levels=graph.json
  llavaref check --model llava --case text-only --report levels=words.json
  llavaref badge graph.json words.json
  llavaref badge graph.json words.json --format badge --out badge.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("%s takes files that check --report levels=PATH has written, got none", cmd.CommandPath())
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, levels or badge")
	cmd.Flags().StringVar(&out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf("format", format, "text", "levels", "badge"); err != nil {
			return err
		}
		var files [][]byte
		for _, path := range args {
			data, err := readSmall(path)
			if err != nil {
				return err
			}
			files = append(files, data)
		}
		if out != "" {
			if err := writable(out); err != nil {
				return err
			}
		}
		m, err := report.MergeLevels(args, files)
		if err != nil {
			return err
		}
		write := map[string]func(io.Writer) error{"text": m.Text, "levels": m.Levels, "badge": m.Badge}[format]
		if err := writeOut(cmd, out, write); err != nil {
			return err
		}
		switch m.Status() {
		case conformance.Pass.String():
			return nil
		case conformance.Fail.String():
			return exitError{code: exitNotConformant}
		case conformance.Convention.String():
			return exitError{code: exitConvention}
		}
		return exitError{code: exitUntested}
	}
	return cmd
}
