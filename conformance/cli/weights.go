package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// checkpointFlags say where and how a checkpoint is written.
type checkpointFlags struct {
	out    string
	dtype  checkpoint.DType // empty if the flag is not set and has no default
	size   int64
	scheme shapes.Scheme
	force  bool

	dtypeText, sizeText, naming string
}

// add adds the flags; dtype is the default of --dtype, or words that say what its absence means.
func (f *checkpointFlags) add(cmd *cobra.Command, dtype string) {
	words := "f32, f16 or bf16"
	if _, err := parseDType(dtype); err != nil {
		words, dtype = words+" (default "+dtype+")", ""
	}
	cmd.Flags().StringVar(&f.out, "out", "", "the folder to write, made if it is not there")
	cmd.Flags().StringVar(&f.dtypeText, "dtype", dtype, words)
	cmd.Flags().StringVar(&f.sizeText, "shard-size", "", "most bytes of values in a file: 500MB, 2GB, 1GiB, or a plain number (default one file)")
	cmd.Flags().StringVar(&f.naming, "naming", string(shapes.OnDisk), "naming scheme: "+joinSchemes())
	cmd.Flags().BoolVar(&f.force, "force", false, "replace the checkpoint that the folder holds")
}

// parse holds the flags to what they may be.
func (f *checkpointFlags) parse() (err error) {
	if f.out == "" {
		return usage("--out is missing, want the folder to write")
	}
	if f.dtypeText != "" {
		if f.dtype, err = parseDType(f.dtypeText); err != nil {
			return err
		}
	}
	if f.size, err = parseSize(f.sizeText); err != nil {
		return usage("--shard-size %q: %w", f.sizeText, err)
	}
	if f.scheme, err = shapes.ParseScheme(f.naming); err != nil {
		return usage("--naming: %w", err)
	}
	return nil
}

// write writes the tensors, and other files by their names, with a progress bar if a person is watching.
func (f *checkpointFlags) write(cmd *cobra.Command, sources []checkpoint.Source, exact bool, files map[string][]byte) error {
	if err := mayWrite(f.out, f.force); err != nil {
		return err
	}
	bar := newBytesBar(cmd.ErrOrStderr(), "writing "+f.out)
	defer bar.close()
	opt := checkpoint.Options{DType: f.dtype, Exact: exact, ShardSize: f.size, Progress: bar.set}
	return writeCheckpoint(cmd.Context(), f.out, sources, opt, files)
}

func weightsCommand() *cobra.Command {
	var of modelFlags
	var to checkpointFlags
	var seed uint64
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
	to.add(cmd, "f32")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "another seed is another model")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := to.parse(); err != nil {
			return err
		}
		_, cfg, err := of.config()
		if err != nil {
			return err
		}
		sources, err := checkpoint.Sources(cfg, to.scheme, checkpoint.Synthetic(cfg, seed))
		if err != nil {
			return usage("--naming: %w", err)
		}
		text, err := of.json()
		if err != nil {
			return err
		}
		config, err := checkpoint.ConfigWithDType(text, to.dtype)
		if err != nil {
			return err
		}
		if err := to.write(cmd, sources, true, map[string][]byte{"config.json": config}); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", to.out, totalLine(shapes.Params(cfg)))
		return nil
	}
	return cmd
}

// parseDType reads a dtype as flags spell it: f32, f16 or bf16.
func parseDType(s string) (checkpoint.DType, error) {
	d := checkpoint.DType(strings.ToUpper(s))
	if !d.Readable() || s != strings.ToLower(s) {
		return "", usage("--dtype %q, want f32, f16 or bf16", s)
	}
	return d, nil
}

var errNoSize = errors.New("want bytes, or a number with KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024)")

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

// json is the chosen config.json.
func (f *modelFlags) json() ([]byte, error) {
	if f.file != "" {
		return os.ReadFile(f.file)
	}
	return shapes.ModelJSON(f.model)
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
func writeCheckpoint(ctx context.Context, dir string, sources []checkpoint.Source, opt checkpoint.Options, files map[string][]byte) error {
	return writeFolder(dir, files, func(tmp string) error { return checkpoint.Write(ctx, tmp, sources, opt) })
}

// writeFolder has write fill a folder beside the one that is meant, and moves what is in it, and files by their names, in when all is complete.
func writeFolder(dir string, files map[string][]byte, write func(tmp string) error) error {
	dir = filepath.Clean(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := write(tmp); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), data, 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"config.json", "*.safetensors", "*.safetensors.index.json", engines.FastFile} {
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
	written, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, f := range written {
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
