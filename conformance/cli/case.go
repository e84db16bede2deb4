package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/export"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/shapes"
)

func caseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "case",
		Short: "List the cases of golden sets, and write one as files for an engine",
		Long: `A case is one prompt of a golden set. Its model has synthetic weights, so that everything an engine needs to run it can
be written as files: the checkpoint, the ids, the positions and the pixels.`,
		Example: `  llavaref case list --model tiny-1.5`,
		Args:    groupArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(caseListCommand(), caseExportCommand())
	return cmd
}

func caseListCommand() *cobra.Command {
	var models []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the cases that come with the program",
		Long: `List prints one line a case: the set, the case, how many tokens, tiles and images it has, and which known bugs it is
there to catch (docs/known-bugs.md). A text is the simplest to begin with. The cases of the end-to-end sets, the last in
the list, are conversations: an engine answers them with its own tokenizer and image processor.`,
		Example: `  llavaref case list
  llavaref case list --model tiny-1.6`,
		Args: noArgs,
	}
	cmd.Flags().StringSliceVar(&models, "model", nil, "sets, separated by commas (default all): "+strings.Join(allSets(), ", "))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(models) == 0 {
			models = allSets()
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "%-10s %-20s %6s %5s %6s  %s\n", "set", "case", "tokens", "tiles", "images", "catches")
		for _, name := range models {
			if err := oneOf("model", name, allSets()...); err != nil {
				return err
			}
			if slices.Contains(endtoend.Names(), name) {
				set, err := endtoend.Open(name)
				if err != nil {
					return err
				}
				for _, c := range set.Cases {
					fmt.Fprintf(w, "%-10s %-20s %6d %5d %6d\n", name, c.Name, len(c.InputIDs()), c.Tiles, len(c.Images))
				}
				continue
			}
			set, err := golden.Embedded(name)
			if err != nil {
				return err
			}
			for _, id := range set.Cases() {
				c, err := set.Case(id)
				if err != nil {
					return err
				}
				d := shapes.DimsOf(set.Config, c.Inputs)
				fmt.Fprintf(w, "%-10s %-20s %6d %5d %6d  %s\n", name, id, d.T, d.N, len(c.Inputs.ImageSizes), strings.Join(c.Catches, " "))
			}
		}
		return nil
	}
	return cmd
}

// exportFlags are the flags of case export.
type exportFlags struct {
	name, out, model, golden, checkpoint, dtype, naming string
	gguf                                                bool
}

func caseExportCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export --case CASE --out DIR",
		Short: "Write a case as files: checkpoint, ids, positions, pixels, and what to do",
		Long: `Export writes everything that an engine needs to run one case: the model with its synthetic weights as a safetensors
checkpoint with config.json, input_ids, position_ids and pixel_values as .npy files, image_sizes.json, the pictures that
the pixels were made of, nodes.tsv with the name and the shape of every node, and README.txt, which says what to save
and which command gives the verdict. With --gguf the same model comes as two GGUF files too, for llama.cpp.

A case of an end-to-end set comes as a conversation: messages.json, the pictures, and the checkpoint with tokenizer, chat
template and image processor, as transformers saved it.

The folder appears when it is complete, and must not be there, or be empty. The values of the weights are exact in f32,
f16 and bf16. A --golden set that was made with a checkpoint needs it: --checkpoint DIR.`,
		Example: `  llavaref case export --case text --model tiny-1.5 --out text
  llavaref case export --case photo-2x2-rows --out photo --dtype bf16 --naming original
  llavaref case export --case photo-1x3 --out photo-gguf --dtype f16 --gguf
  llavaref case export --case image --model llava-next --out image`,
		Args: noArgs,
	}
	fs := cmd.Flags()
	fs.StringVar(&f.name, "case", "", "the case (llavaref case list)")
	fs.StringVar(&f.out, "out", "", "the folder to write, made if it is not there")
	fs.StringVar(&f.model, "model", "", "its set, if more than one has a case of that name: "+strings.Join(allSets(), ", "))
	fs.StringVar(&f.golden, "golden", "", "a folder with a golden set, instead of those that come with the program")
	fs.StringVar(&f.checkpoint, "checkpoint", "", "the checkpoint that the --golden set was made with")
	fs.StringVar(&f.dtype, "dtype", "f32", "of the checkpoint: f32, f16 or bf16")
	fs.StringVar(&f.naming, "naming", string(shapes.OnDisk), "naming scheme of the checkpoint: "+joinSchemes())
	fs.BoolVar(&f.gguf, "gguf", false, "write gguf/model.gguf and gguf/mmproj.gguf too, of the same dtype")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
	return cmd
}

func (f *exportFlags) run(cmd *cobra.Command) error {
	if f.name == "" {
		return usage("--case is missing, want the name of a case")
	}
	if f.out == "" {
		return usage("--out is missing, want the folder to write")
	}
	if err := exclusive(cmd, "model", "golden"); err != nil {
		return err
	}
	dtype, err := parseDType(f.dtype)
	if err != nil {
		return err
	}
	scheme, err := shapes.ParseScheme(f.naming)
	if err != nil {
		return usage("--naming: %w", err)
	}
	set, asked, err := f.set()
	if err != nil {
		return err
	}
	if asked != "" {
		return f.conversation(cmd, asked)
	}
	if scheme == shapes.LiteLlama && set.Config.ModelType != shapes.Llava {
		return usage("--naming: %s does not name a model of type %s", scheme, set.Config.ModelType)
	}
	b := newStepsBar(cmd.ErrOrStderr(), "fingerprint of the weights of "+set.Manifest.Model)
	target, release, err := conformance.OpenTarget(set, f.checkpoint, b.set)
	b.close()
	if err != nil {
		return err
	}
	defer release()
	b = newBytesBar(cmd.ErrOrStderr(), "writing "+f.out)
	defer b.close()
	opt := export.Options{DType: dtype, Scheme: scheme, GGUF: f.gguf, Progress: b.set}
	if err := export.Write(cmd.Context(), f.out, set, target.Weights, f.name, opt); err != nil {
		return err
	}
	b.close()
	fmt.Fprintf(cmd.OutOrStdout(), "%s: case %s of %s, %s in %s\nNext: %s/%s says what to save and which command gives the verdict.\n",
		f.out, f.name, set.Manifest.Model, totalLine(shapes.Params(set.Config)), f.dtype, strings.TrimRight(f.out, "/"), export.ReadmeFile)
	return nil
}

// conversation writes a case of an end-to-end set.
func (f *exportFlags) conversation(cmd *cobra.Command, set string) error {
	for _, flag := range []string{"dtype", "naming", "gguf"} {
		if cmd.Flags().Changed(flag) {
			return usage("--%s is for golden sets: the checkpoint of %s is written as transformers saved it, and llavaref convert writes it otherwise", flag, set)
		}
	}
	t, release, err := answers.Open(set)
	if err != nil {
		return err
	}
	defer release()
	c, err := t.Set.Case(f.name)
	if err != nil {
		return err
	}
	in, err := t.Inputs(c)
	if err != nil {
		return err
	}
	if err := export.WriteConversation(f.out, t.Set, c, in); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: conversation %s of %s, %s\nNext: %s/%s says what to save and which command gives the verdict.\n",
		f.out, f.name, set, totalLine(shapes.Params(t.Config)), strings.TrimRight(f.out, "/"), export.ReadmeFile)
	return nil
}

// set is the golden set that has the case, or the name of the end-to-end set.
func (f *exportFlags) set() (*golden.Set, string, error) {
	if f.golden != "" {
		set, err := golden.Open(f.golden)
		if err == nil && !slices.Contains(set.Cases(), f.name) {
			return nil, "", usage("--case %q: %s has no such case, want one of %s", f.name, f.golden, strings.Join(set.Cases(), ", "))
		}
		return set, "", err
	}
	names := allSets()
	if f.model != "" {
		if err := oneOf("model", f.model, names...); err != nil {
			return nil, "", err
		}
		names = []string{f.model}
	}
	var found *golden.Set
	var holders []string
	for _, name := range names {
		if slices.Contains(endtoend.Names(), name) {
			set, err := endtoend.Open(name)
			if err != nil {
				return nil, "", err
			}
			if slices.ContainsFunc(set.Cases, func(c endtoend.Case) bool { return c.Name == f.name }) {
				holders = append(holders, name)
			}
			continue
		}
		set, err := golden.Embedded(name)
		if err != nil {
			return nil, "", err
		}
		if slices.Contains(set.Cases(), f.name) {
			found, holders = set, append(holders, name)
		}
	}
	switch {
	case len(holders) == 0:
		return nil, "", usage("--case %q: no such case in %s; llavaref case list names them", f.name, strings.Join(names, ", "))
	case len(holders) > 1:
		return nil, "", usage("--case %q is in %s: say which with --model", f.name, strings.Join(holders, " and "))
	case found == nil:
		return nil, holders[0], nil
	}
	return found, "", nil
}
