package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
)

// checkFlags are the flags of check.
type checkFlags struct {
	reportFlags
	engine, pattern, class, golden, checkpoint string
	models, modes                              []string
	failFast                                   bool
	timeout                                    time.Duration
}

func checkCommand(find finder) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Test an engine node by node",
		Long: `Check runs an engine on the prompts of golden sets and looks at every node that it exposes twice:

  accumulated   the node against the truth of the whole model. The limit is three noise floors: three times the
                error of the unmodified model in the same number format, and more for an f32 engine that sums
                in fewer than 16 accumulators
  local         the node against its own true value on the engine's own inputs. The limit follows from the
                operation: what rounding can do in that many steps, and what it does by chance

If local fails, that node is wrong. If local holds everywhere but accumulated jumps, it is wiring, order or state.
If both are smooth but above the floor, the precision class is lower than declared. The first node to diverge is
named, with the entries that differ most. Known bugs (docs/known-bugs.md) are tried in the place of a node that fails,
on the engine's own inputs: those that reproduce its values are named, with where to look.

The end-to-end sets, ` + strings.Join(endtoend.Names(), " and ") + `, are conversations: the engine's own list of parameters, the pixels that it
makes of the pictures, the ids that it makes of the words and the tokens that it chooses are held against those of
transformers. A dump has them in answer.json, pixel_values.npy and inventory.json; what is not there is skipped.

Without --golden the sets that come with the program are run: ` + strings.Join(append(defaultSets(), endtoend.Names()...), ", ") + `; --model chooses
among all of them (llavaref case list). Their weights are synthetic and made on the fly. A set that was made with a
checkpoint needs it: --checkpoint DIR; its fingerprint is held against the set's.

--engine dir:PATH judges dumps: folders of .npy, .npz or .safetensors files with a manifest.json (docs/dump-format.md),
PATH itself or one a case below it. --engine exec:'COMMAND' runs a program that writes one for each case
(docs/protocol.md). What a dump does not have is skipped with its reason.

One run gives several outputs: --format goes to the standard output or to --out, each --report FORMAT=PATH to a file.
html is one page that needs no network, and github makes annotations of GitHub Actions. levels says of each of six
levels of an engine, from the inventory to the generated tokens, whether it passes, fails or was not tested, and badge
counts them for shields.io (docs/result-format.md). llavaref badge puts the levels of several runs together.

--engine logits:FILE judges an engine of which nothing is known but its logits, or its most probable tokens, and how many
tokens a prompt has (docs/black-box.md). Where that is wrong, every known bug is run through the reference, alone and
in likely pairs, and the one that gives the engine's output is named.

A node that the engine does not expose is skipped and never passes. In the output, drift and local are errors over
their limits: above 1 fails. Output follows from the engine's values alone, byte for byte.

Where all that differs follows another published rule, such as the original LLaVA's canvas, the verdict is "other
convention" with its name and what it changes, and the exit code is 4; --allow-convention makes it 0 (docs/ci.md has
their names). One bug beside it, and the engine is not conformant.

Exit codes: 0 conformant, 1 not conformant, 2 wrong usage, 3 could not test, 4 another convention.`,
		Example: `  llavaref check --model tiny-1.5
  llavaref check --model tiny-1.6 --case 'text-*' --mode local
  llavaref check --model tiny-1.5 --case text --format junit --out check.xml
  llavaref check --model tiny-1.5 --case text --format svg --out drift.svg
  llavaref check --model tiny-1.5 --case text --report html=check.html --report junit=check.xml --report badge=badge.json
  llavaref check --engine dir:DUMP --model tiny-1.5 --case text
  llavaref check --engine dir:DUMP --model tiny-1.5 --case text --allow-convention K11`,
		Args: noArgs,
	}
	fs := cmd.Flags()
	fs.StringVar(&f.engine, "engine", "ref", "engine to test: "+strings.Join(engines.Names(), ", ")+" of the program; dir:PATH for dumps of any engine, exec:'COMMAND' for a program that writes them, logits:FILE for what comes out of one")
	fs.StringSliceVar(&f.models, "model", nil, "sets to run, separated by commas (default the tiny ones and the conversations)")
	fs.StringVar(&f.pattern, "case", "", "only the cases whose name matches this pattern ('text-*')")
	fs.StringSliceVar(&f.modes, "mode", []string{"local", "accumulated"}, "how to look at each node: local, accumulated or both")
	fs.StringVar(&f.class, "class", "", "judge as f32, f16 or bf16 (default what the engine declares)")
	fs.StringVar(&f.golden, "golden", "", "a folder with a golden set, instead of those that come with the program")
	fs.StringVar(&f.checkpoint, "checkpoint", "", "the checkpoint that the --golden set was made with")
	f.reportFlags.add(cmd, "text", "json", "junit", "markdown", "svg", "html", "github", "badge", "levels")
	fs.StringArrayVar(&f.allowed, "allow-convention", nil, "a published rule that may be followed, by its name or its id (P01); may be given several times")
	fs.BoolVar(&f.failFast, "fail-fast", false, "stop after the first case that fails or could not be tested")
	fs.DurationVar(&f.timeout, "timeout", engines.DefaultTimeout, "how long an exec: command may take for a case")
	cmd.AddCommand(checkIDsCommand())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd, find) }
	return cmd
}

// defaultSets are the embedded sets that are run unless others are asked for.
func defaultSets() []string {
	var names []string
	for _, name := range golden.Names() {
		if strings.HasPrefix(name, "tiny-") {
			names = append(names, name)
		}
	}
	return names
}

func (f *checkFlags) run(cmd *cobra.Command, find finder) error {
	if err := exclusive(cmd, "model", "golden"); err != nil {
		return err
	}
	if file, ok := f.logitsFile(); ok {
		return f.runLogits(cmd, file)
	}
	outs, err := f.outputs()
	if err != nil {
		return err
	}
	suite, err := f.suite()
	if err != nil {
		return err
	}
	open, err := find(f.engine)
	if command, ok := strings.CutPrefix(f.engine, "exec:"); ok {
		open, err = engines.OpenExec(command, f.timeout)
	}
	if err != nil {
		return usage("--engine: %w", err)
	}
	sets, err := f.sets()
	if err != nil {
		return err
	}
	for _, set := range sets {
		b := newStepsBar(cmd.ErrOrStderr(), "fingerprint of the weights of "+set.Manifest.Model)
		target, release, err := conformance.OpenTarget(set, f.checkpoint, b.set)
		b.close()
		if err != nil {
			return err
		}
		defer release()
		suite.Targets = append(suite.Targets, target)
	}
	asked, ask, err := f.conversations()
	if err != nil {
		return err
	}
	run := runWithBar(cmd.Context(), cmd.ErrOrStderr(), suite, open)
	if !f.failFast || !failed(run) {
		answered, err := f.ask(cmd, asked, ask, len(sets) == 0)
		if err != nil {
			return err
		}
		run = conformance.Join(run, answered)
	}
	run.Allowed = f.allowed
	if err := f.write(cmd, outs, run); err != nil {
		return err
	}
	return exitOf(run)
}

// suite is the suite that the flags ask for, without its targets.
func (f *checkFlags) suite() (conformance.Suite, error) {
	s := conformance.Suite{Cases: f.pattern, FailFast: f.failFast, Diagnose: diagnose.Diagnose}
	if _, err := path.Match(f.pattern, ""); err != nil {
		return s, usage("--case %q: %w", f.pattern, err)
	}
	for _, mode := range f.modes {
		v := conformance.View(mode)
		if !slices.Contains(conformance.Views(), v) {
			return s, usage("--mode %q, want local, accumulated or both", mode)
		}
		s.Views = append(s.Views, v)
	}
	if f.class != "" {
		class, err := compare.ParseClass(f.class)
		if err != nil {
			return s, usage("--class %q, want f32, f16 or bf16", f.class)
		}
		s.Class = class
	}
	return s, nil
}

// failed says whether something does not hold or could not be tested.
func failed(r conformance.Run) bool {
	return slices.ContainsFunc(r.Sets, func(s conformance.Set) bool {
		return s.Reason != "" || slices.ContainsFunc(s.Cases, func(c conformance.Case) bool { return c.Status() > conformance.Convention })
	})
}

// sets opens the golden sets that the flags ask for, and wants at least one case, of them or of the end-to-end sets, to be chosen.
func (f *checkFlags) sets() ([]*golden.Set, error) {
	var sets []*golden.Set
	if f.golden != "" {
		s, err := golden.Open(f.golden)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	} else if f.checkpoint != "" {
		return nil, usage("--checkpoint goes with --golden: the sets that come with the program have weights of their own")
	}
	var all []string
	chosen := false
	for _, name := range f.names() {
		if slices.Contains(endtoend.Names(), name) {
			s, err := endtoend.Open(name)
			if err != nil {
				return nil, err
			}
			chosen = chosen || len(answers.Cases(s, f.pattern)) > 0
			for _, c := range s.Cases {
				all = append(all, c.Name)
			}
			continue
		}
		if err := oneOf("model", name, allSets()...); err != nil {
			return nil, fmt.Errorf("%w; or --golden DIR", err)
		}
		s, err := golden.Embedded(name)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	for _, s := range sets {
		for _, name := range s.Cases() {
			ok, _ := path.Match(f.pattern, name)
			chosen = chosen || ok || f.pattern == ""
			all = append(all, name)
		}
	}
	switch {
	case chosen:
		return sets, nil
	case len(all) == 0:
		return nil, errors.New("there is no set to run")
	}
	slices.Sort(all)
	return nil, usage("--case %q matches none of %s", f.pattern, strings.Join(slices.Compact(all), ", "))
}

// names are the sets of the program that the flags ask for.
func (f *checkFlags) names() []string {
	if f.golden != "" {
		return nil
	}
	if len(f.models) == 0 {
		return append(defaultSets(), endtoend.Names()...)
	}
	return f.models
}

// allSets are the sets that come with the program, the end-to-end ones last.
func allSets() []string { return append(golden.Names(), endtoend.Names()...) }

// conversations are the end-to-end sets to run, and how the engine is asked.
func (f *checkFlags) conversations() ([]string, answers.Opener, error) {
	var names []string
	for _, name := range f.names() {
		if slices.Contains(endtoend.Names(), name) {
			names = append(names, name)
		}
	}
	open, ok, err := engines.FindAnswers(f.engine, f.timeout)
	if err != nil || ok {
		return names, open, err
	}
	if len(f.models) > 0 && len(names) > 0 {
		return nil, nil, usage("--model %s is for engines that generate, and %s is none", strings.Join(names, ", "), f.engine)
	}
	return nil, nil, nil
}

// ask has the engine answer the conversations of the end-to-end sets. only says that no golden set is run.
func (f *checkFlags) ask(cmd *cobra.Command, names []string, open answers.Opener, only bool) (conformance.Run, error) {
	var targets []*answers.Target
	for _, name := range names {
		t, release, err := answers.Open(name)
		if err != nil {
			return conformance.Run{}, err
		}
		defer release()
		targets = append(targets, t)
	}
	b := newStepsBar(cmd.ErrOrStderr(), "conversations")
	defer b.close()
	opt := answers.Options{Class: compare.Class(f.class), Cases: f.pattern, Only: only, FailFast: f.failFast}
	opt.Progress = func(p conformance.Progress) { b.set(int64(p.Done), int64(p.Total)) }
	return answers.Run(cmd.Context(), targets, opt, open), nil
}

// runWithBar runs the suite with a bar on a terminal.
func runWithBar(ctx context.Context, stderr io.Writer, s conformance.Suite, open conformance.Opener) conformance.Run {
	b := newStepsBar(stderr, "nodes")
	defer b.close()
	s.Progress = func(p conformance.Progress) { b.set(int64(p.Done), int64(p.Total)) }
	return s.Run(ctx, open)
}
