package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func weightsCommand() *cobra.Command {
	var of modelFlags
	var out, dtype, shardSize, naming string
	var seed uint64
	var force bool
	cmd := &cobra.Command{
		Use:   "weights --out DIR",
		Short: "Write a checkpoint of synthetic weights",
		Long: `Weights writes a checkpoint with synthetic weights, in the files and with the headers that transformers writes, and
its config.json. The values follow from the model, the seed and the tensor's name alone: the same on every machine, and
exact in f32, f16 and bf16, so that an engine may load any of the three.

It is all or nothing: the files appear when all of them are complete. A folder that is not empty is refused; with
--force the files of a checkpoint in it (config.json, *.safetensors and their index) are replaced.`,
		Example: `  llavaref weights --model tiny-1.6 --out tiny
  llavaref weights --model tiny-1.5 --out tiny-sharded --dtype f16 --shard-size 2MB --naming lite-llama`,
		Args: noArgs,
	}
	of.add(cmd, "tiny-1.6")
	cmd.Flags().StringVar(&out, "out", "", "the folder to write, made if it is not there")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "another seed is another model")
	cmd.Flags().StringVar(&dtype, "dtype", "f32", "f32, f16 or bf16")
	cmd.Flags().StringVar(&shardSize, "shard-size", "", "most bytes of values in a file: 500MB, 2GB, 1GiB, or a plain number (default one file)")
	cmd.Flags().StringVar(&naming, "naming", string(shapes.OnDisk), "naming scheme: "+joinSchemes())
	cmd.Flags().BoolVar(&force, "force", false, "replace the checkpoint that the folder holds")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usage("--out is missing, want the folder to write")
		}
		d, err := parseDType(dtype)
		if err != nil {
			return err
		}
		size, err := parseSize(shardSize)
		if err != nil {
			return usage("--shard-size %q: %w", shardSize, err)
		}
		scheme, err := shapes.ParseScheme(naming)
		if err != nil {
			return usage("--naming: %w", err)
		}
		_, cfg, err := of.config()
		if err != nil {
			return err
		}
		sources, err := checkpoint.Sources(cfg, scheme, checkpoint.Synthetic(cfg, seed))
		if err != nil {
			return usage("--naming: %w", err)
		}
		config, err := of.json(d)
		if err != nil {
			return err
		}
		if err := mayWrite(out, force); err != nil {
			return err
		}
		bar := newBytesBar(cmd.ErrOrStderr(), "writing "+out)
		defer bar.close()
		opt := checkpoint.Options{DType: d, Exact: true, ShardSize: size, Progress: bar.set}
		if err := writeCheckpoint(cmd.Context(), out, sources, opt, config); err != nil {
			return err
		}
		bar.close()
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", out, totalLine(shapes.Params(cfg)))
		return nil
	}
	return cmd
}

// parseSize reads a number of bytes; 0 for the empty string.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	units := []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/u.bytes {
			return 0, errNoSize
		}
		return n * u.bytes, nil
	}
	return 0, errNoSize
}

// json is the chosen config.json with the dtype of the weights that go with it.
func (f *modelFlags) json(d checkpoint.DType) ([]byte, error) {
	var text []byte
	var err error
	if f.file != "" {
		text, err = os.ReadFile(f.file)
	} else {
		text, err = shapes.ModelJSON(f.model)
	}
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	key := "torch_dtype"
	if _, has := fields["dtype"]; has {
		key = "dtype"
		delete(fields, "torch_dtype")
	}
	fields[key] = json.RawMessage(strconv.Quote(torchNames[d]))
	text, err = json.MarshalIndent(fields, "", "  ")
	return append(text, '\n'), err
}

// mayWrite refuses a folder that holds anything, unless it may be replaced.
func mayWrite(dir string, force bool) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0 && !force:
		return fmt.Errorf("%s is not empty, it holds %s; choose another folder, or --force to replace the checkpoint in it", dir, entries[0].Name())
	}
	return nil
}

// writeCheckpoint writes beside the folder and moves the files in when all are complete.
func writeCheckpoint(ctx context.Context, dir string, sources []checkpoint.Source, opt checkpoint.Options, config []byte) error {
	dir = filepath.Clean(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := checkpoint.Write(ctx, tmp, sources, opt); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "config.json"), config, 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"config.json", "*.safetensors", "*.safetensors.index.json"} {
		old, err := filepath.Glob(filepath.Join(escapeGlob(dir), pattern))
		if err != nil {
			return err
		}
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	files, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Rename(filepath.Join(tmp, f.Name()), filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// escapeGlob makes a path match itself only.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
