package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// diffFlags are the flags of diff.
type diffFlags struct {
	reportFlags
	model, config, pattern, class string
	suggest                       bool
}

func diffCommand() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Hold two dumps against each other",
		Long: `Diff compares two dumps of one prompt node by node: two builds of one engine, two devices, two engines. B is held
against A; there is no truth, so it says that they differ and where, not who is right.

A node is judged by the coarser class of the two. The limit is what both may be off, in opposite directions. If the
prompt is one of a golden set of the program, the measured noise floors say how much that is; if not, the number of
operations that lie before the node, and a whole tensor is judged and no single row.

The model is that of the manifests' "set", of --model or of --config. The prompt is that of input_ids.npy, which one of
the dumps must have, or of --case.

With --suggest, B may have any names and layouts: arrays that its manifest does not explain are tried as every node
that A has and B lacks, in every order of their axes, and what allows only one reading is printed as rules for the map
of B's manifest. Where two readings fit, both are said and neither is proposed. Without B, the values of the reference
are taken for A's: "llavaref diff --suggest B".

Exit codes: 0 no difference, 1 they differ, 2 wrong usage, 3 could not compare. With --suggest: 0 if every array has
been explained, 1 if some have not.`,
		Example: `  llavaref diff A B
  llavaref diff A B --format json --out diff.json
  llavaref diff --suggest B`,
		Args: cobra.ArbitraryArgs,
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "model", "", "a model that comes with the project: "+strings.Join(shapes.ModelNames(), ", ")+" (default that of the manifests)")
	fs.StringVar(&f.config, "config", "", "a config.json instead of --model")
	fs.StringVar(&f.pattern, "case", "", "the case of the model's golden set that the dumps are of (default as their ids say)")
	fs.StringVar(&f.class, "class", "", "judge as f32, f16 or bf16 (default the coarser one of the two)")
	f.reportFlags.add(cmd, "text", "json", "junit", "markdown", "html", "github")
	fs.BoolVar(&f.suggest, "suggest", false, "propose a map for the last dump")
	cmd.RunE = f.run
	return cmd
}

// sides are the opened dumps of a diff with what both are of.
type sides struct {
	readers  []*dump.Reader
	bindings []*dump.Binding
	name     string // of the model
	config   shapes.Config
	set      *golden.Set // nil if the program has none of the model
	inputs   shapes.Inputs
	prompt   string       // name of the case
	truth    *golden.Case // nil if the prompt is none of the set
}

func (s *sides) close() {
	for _, r := range s.readers {
		r.Close()
	}
}

func (f *diffFlags) run(cmd *cobra.Command, args []string) error {
	if n := len(args); n != 2 && !(f.suggest && n == 1) {
		return usage("%s takes two arguments, the folders of two dumps, got %d", cmd.CommandPath(), n)
	}
	outs, err := f.outputs()
	if err != nil {
		return err
	}
	if f.class != "" {
		if _, err := compare.ParseClass(f.class); err != nil {
			return usage("--class %q, want f32, f16 or bf16", f.class)
		}
	}
	if err := exclusive(cmd, "model", "config"); err != nil {
		return err
	}
	s := &sides{}
	defer s.close()
	for _, dir := range args {
		r, err := dump.Open(dir)
		if err != nil {
			return err
		}
		s.readers = append(s.readers, r)
	}
	if err := f.about(s); err != nil {
		return err
	}
	for _, r := range s.readers {
		if err := r.CheckInputs(s.inputs); err != nil {
			return err
		}
		b, err := r.Bind(s.config, s.inputs)
		if err != nil {
			return err
		}
		s.bindings = append(s.bindings, b)
	}
	if f.suggest {
		return f.propose(cmd, s)
	}
	run := conformance.Diff{Config: s.config, Inputs: s.inputs, Set: s.name, Case: s.prompt, Truth: s.truth, A: s.bindings[0], B: s.bindings[1], Class: compare.Class(f.class)}.Run(cmd.Context())
	for i, b := range s.bindings {
		if b.Hint != "" {
			run.Sets[0].Cases[0].Problems = append(run.Sets[0].Cases[0].Problems, conformance.Problem{Level: conformance.Skip, Text: args[i] + ": " + b.Hint})
		}
	}
	if err := f.write(cmd, outs, run); err != nil {
		return err
	}
	return exitOf(run)
}

// about finds the model and the prompt.
func (f *diffFlags) about(s *sides) error {
	name := f.model
	for _, r := range s.readers {
		if set := r.Manifest.Set; name == "" && f.config == "" {
			name = set
		} else if set != "" && f.model == "" && f.config == "" && set != name {
			return fmt.Errorf("one dump is of set %s, the other of %s", name, set)
		}
	}
	var err error
	switch {
	case f.config != "":
		s.name = f.config
		s.config, err = readConfig(f.config)
	case name == "":
		return usage("neither manifest has a \"set\": choose the model with --model or --config")
	default:
		s.name = name
		s.config, err = shapes.Model(name)
		if err != nil {
			return usage("--model: %w", err)
		}
	}
	if err != nil {
		return err
	}
	if slices.Contains(golden.Names(), s.name) {
		if s.set, err = golden.Embedded(s.name); err != nil {
			return err
		}
	}
	if s.set != nil {
		for _, name := range s.set.Cases() {
			if f.pattern != "" && f.pattern != name {
				continue
			}
			c, err := s.set.Case(name)
			if err != nil {
				return err
			}
			if f.pattern != "" || s.isOf(c) {
				s.truth, s.prompt, s.inputs = c, name, c.Inputs
				return nil
			}
		}
	}
	if f.pattern != "" {
		return usage("--case %q is no case of a golden set of %s", f.pattern, s.name)
	}
	s.prompt = "prompt"
	var errs []error
	for _, r := range s.readers {
		in, err := r.Prompt(s.config)
		if err == nil {
			s.inputs = in
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("the prompt is not known: %w; or choose a golden case with --case", errors.Join(errs...))
}

// isOf says whether the dumps are of a golden case: one of them has its ids or names it.
func (s *sides) isOf(c *golden.Case) bool {
	named := false
	for _, r := range s.readers {
		if r.CheckInputs(c.Inputs) != nil || r.Manifest.Case != "" && r.Manifest.Case != c.Name {
			return false
		}
		named = named || r.HasIDs() || r.Manifest.Case != ""
	}
	return named
}
