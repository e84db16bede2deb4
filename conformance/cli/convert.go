package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func convertCommand() *cobra.Command {
	var to checkpointFlags
	var round bool
	var layout string
	cmd := &cobra.Command{
		Use:   "convert DIR --out DIR",
		Short: "Write a checkpoint under other names, in another dtype or other shards",
		Long: `Convert reads the checkpoint in DIR, whose naming scheme it finds by itself, and writes the same model anew: under the
names of another scheme, in another dtype, in other shards. The files of the tokenizer and the processor are copied.

Values are never changed unasked: a dtype that cannot hold one of them is refused, unless --round says to round to nearest
even. No more than a chunk of values is in memory, and the new files appear when all of them are complete.

--layout fast writes ` + engines.FastFile + ` instead of safetensors: the weights as the optimized engine has them in memory, in
the types that they have in DIR, with a checksum for each. llavaref run reads it in place of a checkpoint, in fewer steps.`,
		Example: `  llavaref weights --model tiny-1.5 --out tiny
  llavaref convert tiny --out tiny-lite --naming lite-llama --dtype f16 --shard-size 2MB
  llavaref convert tiny --out tiny-fast --layout fast`,
		Args: oneArg("the folder of a checkpoint"),
	}
	to.add(cmd, "as in DIR")
	cmd.Flags().BoolVar(&round, "round", false, "round values that the dtype cannot hold")
	cmd.Flags().StringVar(&layout, "layout", "safetensors", "safetensors, or fast for the optimized engine's own")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := args[0]
		if err := to.parse(); err != nil {
			return err
		}
		if err := oneOf("layout", layout, "safetensors", "fast"); err != nil {
			return err
		}
		if layout == "fast" {
			for _, flag := range []string{"dtype", "shard-size", "naming", "round"} {
				if cmd.Flags().Changed(flag) {
					return usage("--%s does not go with --layout fast, which keeps types and has one file", flag)
				}
			}
			return convertFast(cmd, dir, to)
		}
		cfg, c, weights, err := openCheckpoint(dir)
		if err != nil {
			return err
		}
		defer c.Close()
		if to.dtype == "" {
			kinds := c.Verify(cfg).DTypes
			if len(kinds) != 1 {
				return usage("%s holds %d dtypes, want --dtype to say which one to write", dir, len(kinds))
			}
			to.dtype = kinds[0].DType
		}
		sources, err := checkpoint.Sources(cfg, to.scheme, weights)
		if err != nil {
			return usage("--naming: %w", err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			return err
		}
		files := map[string][]byte{}
		if files["config.json"], err = checkpoint.ConfigWithDType(text, to.dtype); err != nil {
			return err
		}
		if err := readCompanions(dir, files); err != nil {
			return err
		}
		if err := to.write(cmd, sources, !round, files); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, names of scheme %s\n", to.out, totalLine(shapes.Params(cfg)), to.scheme)
		return nil
	}
	return cmd
}

// openCheckpoint opens the checkpoint in dir and binds its parameters. The caller closes it.
func openCheckpoint(dir string) (shapes.Config, *checkpoint.Checkpoint, *checkpoint.Weights, error) {
	cfg, err := checkpointConfig(dir)
	if err != nil {
		return cfg, nil, nil, err
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		return cfg, nil, nil, err
	}
	weights, err := c.Bind(cfg)
	if err != nil {
		c.Close()
		return cfg, nil, nil, err
	}
	return cfg, c, weights, nil
}

// convertFast writes the optimized engine's own layout of the checkpoint in dir.
func convertFast(cmd *cobra.Command, dir string, to checkpointFlags) error {
	cfg, c, weights, err := openCheckpoint(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	files := map[string][]byte{}
	if files["config.json"], err = os.ReadFile(filepath.Join(dir, "config.json")); err != nil {
		return err
	}
	if err := readCompanions(dir, files); err != nil {
		return err
	}
	if err := mayWrite(to.out, to.force); err != nil {
		return err
	}
	bar := newStepsBar(cmd.ErrOrStderr(), "writing "+to.out)
	defer bar.close()
	err = writeFolder(to.out, files, func(tmp string) error {
		return engines.WriteFast(cmd.Context(), filepath.Join(tmp, engines.FastFile), files["config.json"], weights, bar.set)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, layout fast\n", filepath.Join(to.out, engines.FastFile), totalLine(shapes.Params(cfg)))
	return nil
}

// companions are the files that transformers saves beside the weights, which a conversion leaves as they are.
var companions = []string{
	"generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
	"tokenizer.model", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja",
}

// readCompanions reads those of them that the folder has.
func readCompanions(dir string, files map[string][]byte) error {
	const limit = 64 << 20 // Llama-3's tokenizer.json has 9 MB
	for _, name := range companions {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case !info.Mode().IsRegular() || info.Size() > limit:
			return fmt.Errorf("%s has %d bytes, want a file of at most %d", path, info.Size(), limit)
		}
		if files[name], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	return nil
}
