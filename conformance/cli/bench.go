package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/fast/bench"
	"github.com/llavaref/llavaref/fast/profile"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// benchFormats are the forms of a result of bench.
var benchFormats = []string{"text", "json", "go", "markdown", "svg"}

// benchFlags are the flags of bench.
type benchFlags struct {
	model             modelFlags
	rows, format, out string
	profile           string
	threads           int
	synthetic         bool
	quick, list, mark bool
}

func benchCommand(find finder) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the fast engine against the machine's limits",
		Long: `Bench measures the fast engine and its kernels. Every sample stands between two measurements of the limit that the
work should reach, with the same number of threads, and is reported in percent of it:

  fma    float32 fused multiply-adds of the widest vectors, GFLOP/s
  dot    products of bfloat16 pairs, GFLOP/s; where the processor has none, fma stands in
  read   bytes read from memory in four streams a thread, GB/s

Speed in percent of the limit can be compared between minutes in which the clock or the neighbours differ, and
speed alone cannot. The figures are medians; ± is half the interquartile range, n the samples that count: those
with the same limit on either side (within 3 percent), if there are at least three.

Rows are named kind/what/key=value/...; --rows chooses others than the standard ones by pattern, and --list lists
them. Before anything is measured the engine is checked on an embedded prompt of tiny-1.6, in the arithmetic of
every class; a program that does not pass is refused, or with --mark measured and marked in every output.

Rows of the whole engine run on synthetic weights, which are made in memory; a model of real size needs --synthetic
to say that this is meant, has its own rows in the bf16 class as the standard ones, and is refused beforehand, with
numbers, where memory will not do. --cpuprofile FILE profiles the one row that --rows chooses, with the engine's
labels on every thread: llavaref profile reads it.

Formats: text, json (docs/performance.md has the keys), go (Go's benchmark format, for benchstat), markdown, and
svg, the roofline. llavaref bench show makes any of them out of the JSON.

Exit codes: 0 measured, 1 the check failed, 2 wrong usage, 3 could not measure.`,
		Example: `  llavaref bench --list --rows 'gemm/*/M=1'
  llavaref bench --quick --model tiny-1.6 --rows '*M=8' --format json --out bench.json
  llavaref bench show bench.json --format svg --out roofline.svg`,
		Args: noArgs,
	}
	f.model.add(cmd, "wide")
	fs := cmd.Flags()
	fs.StringVar(&f.rows, "rows", "", "patterns of rows, separated by commas; * stands for anything")
	fs.IntVar(&f.threads, "threads", 0, "threads (default all that the program may have)")
	fs.BoolVar(&f.synthetic, "synthetic", false, "make the weights of a model of real size in memory")
	fs.StringVar(&f.profile, "cpuprofile", "", "profile the one row of --rows, into this file")
	fs.BoolVar(&f.quick, "quick", false, "few and short samples: shows that the rows run")
	fs.BoolVar(&f.list, "list", false, "list the rows and measure nothing")
	fs.BoolVar(&f.mark, "mark", false, "measure an engine that does not conform, and mark the result")
	fs.StringVar(&f.format, "format", "text", strings.Join(benchFormats, ", "))
	fs.StringVar(&f.out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	cmd.AddCommand(benchCompareCommand(), benchShowCommand(), benchWorkerCommand(find))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd, find) }
	return cmd
}

func (f *benchFlags) run(cmd *cobra.Command, find finder) error {
	if err := oneOf("format", f.format, benchFormats...); err != nil {
		return err
	}
	if f.threads < 0 || f.threads > 1<<10 {
		return usage("--threads %d, want 1 to %d", f.threads, 1<<10)
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	names, err := bench.Names(o)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usage("--rows %q matches no row; --list --rows '*' lists all", f.rows)
	}
	if f.list {
		return writeOut(cmd, f.out, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, strings.Join(names, "\n"))
			return err
		})
	}
	if f.profile != "" {
		if len(names) != 1 {
			return usage("--cpuprofile profiles one row, but --rows %q matches %d of them", f.rows, len(names))
		}
		o.Around = func(row string, measure func() (int, error)) error {
			return writeOut(cmd, f.profile, func(w io.Writer) error { return profile.Record(w, row, measure) })
		}
	}
	if o.Conformance, err = checkBeforeBench(cmd, find); err != nil {
		return err
	}
	if !o.Conformance.Passed && !f.mark {
		fmt.Fprintf(cmd.ErrOrStderr(), "llavaref: nothing was measured: %s; --mark measures all the same\n", o.Conformance.Text)
		return exitError{code: exitNotConformant}
	}
	b := newStepsBar(cmd.ErrOrStderr(), "bench")
	var weights *bar // while a model is made, it is in the other's place
	o.Progress = func(done, total int, _ string) {
		if weights != nil {
			weights.close()
			weights, b = nil, newStepsBar(cmd.ErrOrStderr(), "bench")
		}
		b.set(int64(done), int64(total))
	}
	o.Loading = func(done, total int64) {
		if weights == nil {
			b.close()
			weights = newStepsBar(cmd.ErrOrStderr(), "making weights")
		}
		weights.set(done, total)
	}
	r, err := bench.Run(cmd.Context(), o)
	b.close()
	if weights != nil {
		weights.close()
	}
	if err != nil {
		return err
	}
	if err := writeOut(cmd, f.out, func(w io.Writer) error { return renderBench(w, r, f.format) }); err != nil {
		return err
	}
	if !o.Conformance.Passed {
		return exitError{code: exitNotConformant}
	}
	return nil
}

// options are what bench measures for these flags.
func (f *benchFlags) options() (bench.Options, error) {
	name, c, err := f.model.config()
	if err != nil {
		return bench.Options{}, err
	}
	o := bench.Options{Name: name, Config: c, Rows: f.rows, Threads: f.threads, Quick: f.quick, Features: cpuFeatures()}
	o.Prompt, o.PromptName = func() (shapes.Inputs, error) { return benchPrompt(c) }, benchPicture.String()
	const large = 1 << 30 // parameters
	if _, values := shapes.Total(shapes.Params(c)); values > large {
		if !f.synthetic && !f.list {
			return o, usage("%s has %.2f billion parameters: --synthetic makes them in memory", name, float64(values)/1e9)
		}
		o.Whole = true
	}
	if name == "wide" { // the real widths; the products of the other real model, and the whole depth of the tower
		other, err := shapes.Model("llava-1.5-7b")
		if err != nil {
			return o, err
		}
		real, err := shapes.Model("llava-1.6-llama3-8b")
		if err != nil {
			return o, err
		}
		tower := c
		tower.Vision.NumHiddenLayers, tower.VisionFeatureLayer, tower.Text.NumHiddenLayers = real.Vision.NumHiddenLayers, real.VisionFeatureLayer, 1
		o.Also, o.Tower = append(o.Also, other), &tower
	}
	return o, nil
}

// benchPicture is the picture of the first token's row: in the real models five tiles.
var benchPicture = shapes.Size{H: 480, W: 640}

// benchPrompt is a picture and some words, from its pixels on.
func benchPrompt(c shapes.Config) (shapes.Inputs, error) {
	picture := preprocess.Image{Size: benchPicture, Pix: make([]uint8, 3*benchPicture.Area())}
	for i := range picture.Pix {
		picture.Pix[i] = uint8(i * i >> 8)
	}
	p := preprocess.Processor{Config: preprocess.DefaultConfig(c), Variant: preprocess.Pillow}
	tiles, size, err := p.Image(picture)
	if err != nil {
		return shapes.Inputs{}, err
	}
	const words = 16 // on either side of the picture
	in := shapes.Inputs{PixelValues: tiles, ImageSizes: []shapes.Size{size}}
	for i := range words + p.FeatureCount(size) + words {
		id := c.ImageTokenID
		if i < words || i >= words+p.FeatureCount(size) {
			id = 1 + i%words
		}
		in.InputIDs, in.PositionIDs = append(in.InputIDs, id), append(in.PositionIDs, i)
	}
	return in, nil
}

// benchEngines are the engines whose arithmetic bench measures.
var benchEngines = []string{"fast", "fast-bf16"}

// checkBeforeBench holds the engines against embedded prompts, one with an image and one without.
func checkBeforeBench(cmd *cobra.Command, find finder) (bench.Conformance, error) {
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		return bench.Conformance{}, err
	}
	target, release, err := conformance.OpenTarget(set, "", func(done, total int64) {})
	if err != nil {
		return bench.Conformance{}, err
	}
	defer release()
	var passed []string
	for _, name := range benchEngines {
		open, err := find(name)
		if err != nil {
			return bench.Conformance{}, err
		}
		suite := conformance.Suite{Targets: []conformance.Target{target}, Views: []conformance.View{conformance.Accumulated}, Cases: benchCases}
		run := suite.Run(cmd.Context(), open)
		if err := context.Cause(cmd.Context()); err != nil {
			return bench.Conformance{}, err
		}
		if run.Status() != conformance.Pass {
			return bench.Conformance{Text: report.Verdict(run)}, nil
		}
		passed = append(passed, name)
	}
	return bench.Conformance{Passed: true, Text: strings.Join(passed, " and ") + " on tiny-1.6, " + benchCases}, nil
}

// benchCases is the prompt of tiny-1.6 that bench checks: a picture of five tiles, some of which are cut where they are packed.
const benchCases = "photo-2x2-rows"

func renderBench(w io.Writer, r bench.Result, format string) error {
	switch format {
	case "json":
		return r.WriteJSON(w)
	case "go":
		return r.WriteGo(w)
	case "markdown":
		return r.WriteMarkdown(w)
	case "svg":
		return r.WriteSVG(w)
	default:
		return r.WriteText(w)
	}
}

func benchShowCommand() *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show a result of bench in another format",
		Long: `Show reads what llavaref bench --format json has written and writes it in another format. The file is held to what
bench makes: sizes, names and numbers that make no sense are refused.`,
		Example: `  llavaref bench --quick --model tiny-1.6 --rows 'gemm/W=128x*M=8' --format json --out bench.json
  llavaref bench show bench.json
  llavaref bench show bench.json --format go --out bench.txt`,
		Args: oneArg("a result of llavaref bench --format json"),
	}
	cmd.Flags().StringVar(&format, "format", "text", strings.Join(benchFormats, ", "))
	cmd.Flags().StringVar(&out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf("format", format, benchFormats...); err != nil {
			return err
		}
		r, err := bench.ReadFile(args[0])
		if err != nil {
			return err
		}
		return writeOut(cmd, out, func(w io.Writer) error { return renderBench(w, r, format) })
	}
	return cmd
}

func benchCompareCommand() *cobra.Command {
	var threshold float64
	var again string
	cmd := &cobra.Command{
		Use:   "compare OLD NEW",
		Short: "Say which rows of bench became slower",
		Long: `Compare holds two results of llavaref bench --format json against each other, row by row, in points of percent of the
limit that each sample was measured beside. A row is slower or faster if it changed by more than --threshold and by
more than the noise: what two runs of the same samples differ by in 19 of 20 cases, drawn from the samples of each
file. What differs between two runs of one program shows in no single file: --again OLD2 gives a second result of the
old program, and where the two differ by more, that is the noise.

A row whose noise is above the threshold and whose change is within the noise is unclear: nothing is known of it.
Results of different processors, threads or models are not compared, and a row that NEW lacks is an error.

Exit codes: 0 no row is slower, 1 a row is slower or NEW failed its conformance check, 2 wrong usage, 3 the files
cannot be compared, or a row is unclear.`,
		Example: `  llavaref bench --quick --model tiny-1.6 --rows 'gemm/W=128x*M=8' --format json --out old.json
  llavaref bench compare old.json old.json --again old.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage("%s takes two arguments, the old and the new result of llavaref bench --format json, got %d", cmd.CommandPath(), len(args))
			}
			return nil
		},
	}
	cmd.Flags().Float64Var(&threshold, "threshold", 3, "points of percent of the limit that a row may lose")
	cmd.Flags().StringVar(&again, "again", "", "a second result of the old program, to measure what runs of the same program differ by")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !(threshold > 0 && threshold <= 100) {
			return usage("--threshold %g, want more than 0 and at most 100", threshold)
		}
		old, err := bench.ReadFile(args[0])
		if err != nil {
			return err
		}
		now, err := bench.ReadFile(args[1])
		if err != nil {
			return err
		}
		var second *bench.Result
		if again != "" {
			r, err := bench.ReadFile(again)
			if err != nil {
				return err
			}
			second = &r
		}
		c, err := bench.Compare(&old, second, now, threshold)
		if err != nil {
			return err
		}
		if err := c.WriteText(cmd.OutOrStdout()); err != nil {
			return err
		}
		switch {
		case !now.Conformance.Passed:
			fmt.Fprintf(cmd.ErrOrStderr(), "llavaref: %s is of a program that failed its check: %s\n", args[1], now.Conformance.Text)
			return exitError{code: exitNotConformant}
		case c.Count(bench.Slower) > 0:
			return exitError{code: exitNotConformant}
		case c.Count(bench.Unclear) > 0:
			return errors.New("some rows are unclear: their noise is above the threshold; measure again on a quiet machine, or raise --threshold")
		}
		return nil
	}
	return cmd
}

// benchWorkerCommand is for tools/bench-peers alone.
func benchWorkerCommand(find finder) *cobra.Command {
	var threads int
	cmd := &cobra.Command{
		Use:    "worker",
		Short:  "Run products as the standard input says",
		Hidden: true,
		Long: `Worker reads requests from the standard input, a line of JSON each, and answers each with a line: the seconds of a
product or of a row of wide, or the rate of a limit. tools/bench-peers makes it and the peers take turns. The engine
is checked first, as by bench.`,
		Example: `  llavaref bench worker`,
		Args:    noArgs,
	}
	cmd.Flags().IntVar(&threads, "threads", 0, "threads (default all that the program may have)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if threads < 0 || threads > 1<<10 {
			return usage("--threads %d, want 1 to %d", threads, 1<<10)
		}
		c, err := shapes.Model("wide")
		if err != nil {
			return err
		}
		checked, err := checkBeforeBench(cmd, find)
		if err != nil {
			return err
		}
		if !checked.Passed {
			fmt.Fprintf(cmd.ErrOrStderr(), "llavaref: nothing is measured: %s\n", checked.Text)
			return exitError{code: exitNotConformant}
		}
		return bench.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), bench.Options{Name: "wide", Config: c, Threads: threads})
	}
	return cmd
}
