package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/golden"
)

func goldenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "golden",
		Short: "List and verify golden sets",
		Long: `A golden set is a folder with prompts of one model and the true value of every node for them, with the noise floors
that say how much of a difference is noise. Some come with the program.`,
		Example: `  llavaref golden list`,
		Args:    groupArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(goldenListCommand(), goldenVerifyCommand())
	return cmd
}

func goldenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the sets that come with the program",
		Long: `List names the golden sets that come with the program, the cases in them and what each is there for, and the
witnesses: the versions of transformers and torch that computed the truth, with their largest difference from each
other, over the size of the node.`,
		Example: `  llavaref golden list`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for i, name := range golden.Names() {
				s, err := golden.Embedded(name)
				if err != nil {
					return err
				}
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := goldenText(cmd.OutOrStdout(), s); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// goldenText describes a set.
func goldenText(w io.Writer, s *golden.Set) error {
	m := s.Manifest
	weights := m.Weights.Kind
	if m.Weights.Seed != nil {
		weights += fmt.Sprintf(", seed %d", *m.Weights.Seed)
	}
	fmt.Fprintf(w, "%s, %d cases, weights %s, sha256 %s\n", m.Model, len(m.Cases), weights, m.Weights.SHA256)
	for _, witness := range m.Witnesses {
		fmt.Fprintf(w, "  %s, largest difference %.1e\n", witness, witness.MaxDifference)
	}
	for _, name := range m.Cases {
		c, err := s.Case(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %s: %d tokens, %d images, %d nodes\n    %s\n", c.Name, len(c.Inputs.InputIDs), len(c.Inputs.ImageSizes), len(c.Nodes), c.Why)
	}
	return nil
}

func goldenVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Hold the files of a golden set against its manifest and the format",
		Long: `Verify checks all that can be checked about a golden set without running the model: sizes and SHA-256 of every file
against the manifest, nothing missing and nothing too many; two witnesses that agree; the fingerprint of synthetic
weights, which it makes; shapes, rows and entries against what configuration and inputs imply; and what the values of
each node say about each other.

Exit codes: 0 the set is sound, 1 it is not, and the error names the file, 2 wrong usage, 3 there is no set.`,
		Example: `  llavaref golden verify --help`,
		Args:    oneArg("the folder of a golden set"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := golden.Open(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return err
			} else if err != nil {
				return exitError{exitNotConformant, err}
			}
			b := newStepsBar(cmd.ErrOrStderr(), "weights")
			r := golden.Verify(s, b.set)
			b.close()
			w := cmd.OutOrStdout()
			for _, c := range r.Checks {
				switch {
				case c.Err != nil:
					fmt.Fprintf(w, "FAIL  %s\n        %v\n", c.Name, c.Err)
				case c.Skip != "":
					fmt.Fprintf(w, "skip  %s\n        %s\n", c.Name, c.Skip)
				default:
					fmt.Fprintf(w, "ok    %s\n        %s\n", c.Name, c.Detail)
				}
			}
			if r.Err() != nil {
				fmt.Fprintf(w, "\n%s is not sound.\n", args[0])
				return exitError{code: exitNotConformant}
			}
			fmt.Fprintf(w, "\n%s is sound.\n", args[0])
			return nil
		},
	}
}
