package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func verifyCommand() *cobra.Command {
	var config string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Hold a checkpoint against the model's inventory",
		Long: `Verify opens a checkpoint, DIR/model.safetensors or the shards that DIR/model.safetensors.index.json names, and holds
the headers against the inventory: parameters that are missing, tensors that are no parameter, wrong shapes, dtypes
that cannot be read. The values are not looked at, so it takes no longer for 16 GB than for one.

The naming scheme is found from the names. Buffers that old writers saved (position_ids, inv_freq) are counted and
are no fault. The configuration is DIR/config.json unless --config names another.

Exit codes: 0 complete, 1 something differs, 2 wrong usage, 3 the checkpoint or its configuration cannot be read.`,
		Example: `  llavaref weights --model tiny-1.6 --out tiny --dtype bf16 --shard-size 1MB
  llavaref params verify tiny`,
		Args: oneArg("the folder of a checkpoint"),
	}
	cmd.Flags().StringVar(&config, "config", "", "the model's config.json (default DIR/config.json)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every difference and every file, however many")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := args[0]
		read := func() (shapes.Config, error) { return checkpointConfig(dir) }
		if config != "" {
			read = func() (shapes.Config, error) { return readConfig(config) }
		}
		cfg, err := read()
		if err != nil {
			return err
		}
		c, err := checkpoint.Open(dir)
		if err != nil {
			return err
		}
		defer c.Close()
		r := c.Verify(cfg)
		verifyText(cmd.OutOrStdout(), dir, cfg, r, verbose)
		if r.Err() != nil {
			return exitError{code: exitNotConformant}
		}
		return nil
	}
	return cmd
}

// verifyText writes the findings, the differences first, one line for the verdict last.
func verifyText(w io.Writer, dir string, cfg shapes.Config, r checkpoint.Report, all bool) {
	var shape, dtype []string
	for _, t := range r.WrongShape {
		shape = append(shape, fmt.Sprintf("%s: %s, want %s", t.Name, shapeText(t.Shape), shapeText(t.Want)))
	}
	for _, t := range r.WrongDType {
		dtype = append(dtype, fmt.Sprintf("%s: %s, want F32, F16 or BF16", t.Name, t.DType))
	}
	var shards []string
	for _, s := range r.Shards {
		shards = append(shards, fmt.Sprintf("%s  %d tensors, %d bytes", s.Name, s.Tensors, s.Bytes))
	}
	list(w, "files", shards, all)
	list(w, "missing", r.Missing, all)
	list(w, "no parameter of the model", r.Unexpected, all)
	list(w, "wrong shape", shape, all)
	list(w, "wrong dtype", dtype, all)
	list(w, "buffers, not read", r.Ignored, all)

	scheme := string(r.Scheme)
	if scheme == "" {
		scheme = "none"
	}
	want := shapes.Params(cfg)
	tensors, values := shapes.Total(want)
	fmt.Fprintf(w, "naming scheme  %s\n", scheme)
	fmt.Fprintf(w, "found          %d tensors, %d parameters\n", r.Tensors, r.Parameters)
	fmt.Fprintf(w, "wanted         %d tensors, %d parameters (%s)\n", tensors, values, cfg.ModelType)
	var dtypes []string
	for _, d := range r.DTypes {
		dtypes = append(dtypes, fmt.Sprintf("%s %d tensors, %d bytes", d.DType, d.Tensors, d.Bytes))
	}
	fmt.Fprintf(w, "stored as      %s\n", strings.Join(dtypes, "; "))
	if r.IndexSize >= 0 && r.IndexSize != r.Bytes {
		fmt.Fprintf(w, "note           the index claims a total_size of %d bytes, the parameters have %d\n", r.IndexSize, r.Bytes)
	}
	if r.Err() == nil {
		fmt.Fprintf(w, "\n%s is complete: every parameter is there, in its shape, and nothing else.\n", dir)
		return
	}
	fmt.Fprintf(w, "\n%s differs: %d missing, %d unexpected, %d of a wrong shape, %d of a dtype that cannot be read.\n",
		dir, len(r.Missing), len(r.Unexpected), len(r.WrongShape), len(r.WrongDType))
}

// list writes a heading and the lines under it; nothing if there is none.
func list(w io.Writer, heading string, lines []string, all bool) {
	if len(lines) == 0 {
		return
	}
	const most = 10
	fmt.Fprintf(w, "%s (%d)\n", heading, len(lines))
	for i, line := range lines {
		if i == most && !all && len(lines) > most+1 {
			fmt.Fprintf(w, "  and %d more, -v lists them\n", len(lines)-most)
			break
		}
		fmt.Fprintf(w, "  %s\n", line)
	}
	fmt.Fprintln(w)
}
