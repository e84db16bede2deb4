// Package cli is the llavaref command. Its help is the manual: every command's Long says what it does and what its output
// means, and the examples that stand in the help are run by a test.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/shapes"
)

// Exit codes.
const (
	exitConformant    = 0
	exitNotConformant = 1 // something differs from what it should be
	exitUsage         = 2 // the command line is wrong
	exitUntested      = 3 // the question could not be answered: a file is missing or broken, nothing was compared
	exitConvention    = 4 // what differs follows another published rule, and nothing else is wrong
)

// exitError carries an exit code. Without an error of its own nothing more is printed: the output has said it all.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// usage is an error in the command line.
func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

// Run runs one command line, without the program's name in front, and returns the exit code:
// 0 conformant, 1 not conformant or differences found, 2 wrong usage, 3 the question could not be answered, 4 another convention and nothing wrong.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return run(ctx, args, stdout, stderr, engines.Find)
}

// finder finds an engine by its name.
type finder func(name string) (conformance.Opener, error)

func run(ctx context.Context, args []string, stdout, stderr io.Writer, find finder) int {
	root := rootCommand(find)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitConformant
	}
	code := exitUntested
	var exit exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(stderr, "llavaref: %v\n", err)
	if code == exitUsage {
		fmt.Fprintf(stderr, "%s --help says what it takes.\n", cmd.CommandPath())
	}
	return code
}

func rootCommand(find finder) *cobra.Command {
	root := &cobra.Command{
		Use:   "llavaref",
		Short: "Reference implementation and conformance suite for LLaVA-1.6 and LLaVA-1.5",
		Long: `Llavaref holds an implementation of LLaVA-1.6 (LLaVA-NeXT) or LLaVA-1.5 against the true value of every node of
the model's graph, and says which node is the first to be wrong.

Exit codes: 0 conformant, 1 not conformant or differences found, 2 wrong usage, 3 the question could not be
answered (a file is missing or broken, or nothing was compared), 4 what differs follows another published rule
and nothing else is wrong.`,
		Example: `  llavaref check --case 'text-*'
  llavaref params --total
  llavaref nodes --model tiny-1.6`,
		Args:          groupArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{exitUsage, err} })
	root.AddCommand(checkCommand(find), badgeCommand(), benchCommand(find), profileCommand(), diffCommand(), paramsCommand(), nodesCommand(), weightsCommand(), convertCommand(), runCommand(), tokenizeCommand(), templateCommand(), tokensCommand(), preprocessCommand(), goldenCommand(), caseCommand(), selftestCommand(), versionCommand())
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// noArgs refuses positional arguments, each a usage error that names the first one.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument, got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// oneArg wants exactly one positional argument and says what it is.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s takes one argument, %s, got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// groupArgs refuses what is no subcommand of a command that only holds others.
func groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usage("%s has no command %q, want one of %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))
}

// exitOf is the error that gives a run's exit code; nil if it passes.
func exitOf(run conformance.Run) error {
	switch s := run.Status(); {
	case run.Accepted():
		return nil
	case s == conformance.Convention:
		return exitError{code: exitConvention}
	case s == conformance.Fail:
		return exitError{code: exitNotConformant}
	}
	return exitError{code: exitUntested}
}

// oneOf holds a flag to its list of values.
func oneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return usage("--%s %q, want one of %s", flag, value, strings.Join(allowed, ", "))
}

// exclusive refuses two flags at once.
func exclusive(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usage("--%s and --%s exclude each other", a, b)
	}
	return nil
}

// modelFlags choose a configuration: one that comes with the project, or a file.
type modelFlags struct {
	cmd         *cobra.Command
	model, file string
}

func (f *modelFlags) add(cmd *cobra.Command, model string) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.model, "model", model, "a model that comes with the project: "+strings.Join(shapes.ModelNames(), ", "))
	cmd.Flags().StringVar(&f.file, "config", "", "a config.json instead of --model")
}

// config returns the configuration and the name that it goes by in output.
func (f *modelFlags) config() (string, shapes.Config, error) {
	if err := exclusive(f.cmd, "model", "config"); err != nil {
		return "", shapes.Config{}, err
	}
	if f.file == "" {
		c, err := shapes.Model(f.model)
		if err != nil {
			return "", c, usage("--model: %w", err)
		}
		return f.model, c, nil
	}
	c, err := readConfig(f.file)
	return f.file, c, err
}

// checkpointConfig reads the configuration of the checkpoint in a folder.
func checkpointConfig(dir string) (shapes.Config, error) {
	switch info, err := os.Stat(dir); {
	case err != nil:
		return shapes.Config{}, fmt.Errorf("%w; want the folder of a checkpoint, with its config.json", err)
	case !info.IsDir():
		return shapes.Config{}, fmt.Errorf("%s is no folder, want the folder of a checkpoint, as transformers saves it", dir)
	}
	c, err := readConfig(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%s has no config.json, want the folder of a checkpoint, as transformers saves it", dir)
	}
	return c, err
}

// readConfig reads a config.json from disk.
func readConfig(path string) (shapes.Config, error) {
	const limit = 1 << 24 // no config of this family has more than a few KiB
	info, err := os.Stat(path)
	if err != nil {
		return shapes.Config{}, err
	}
	if info.IsDir() {
		return shapes.Config{}, fmt.Errorf("%s is a folder, want a config.json", path)
	}
	if info.Size() > limit {
		return shapes.Config{}, fmt.Errorf("%s has %d bytes, want a config.json of at most %d", path, info.Size(), limit)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return shapes.Config{}, err
	}
	c, err := shapes.ParseConfig(data)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// writeOut hands write the standard output or, with a path, a file that appears under its name only when it is complete.
func writeOut(cmd *cobra.Command, path string, write func(io.Writer) error) error {
	if path == "" {
		return write(cmd.OutOrStdout())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// isTerminal says whether progress can be shown on w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
