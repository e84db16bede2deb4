package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

func tokensCommand() *cobra.Command {
	var of imageFlags
	var format, sizes string
	cmd := &cobra.Command{
		Use:   "tokens WIDTH HEIGHT",
		Short: "Say what becomes of an image of a size, and how many tokens it takes",
		Long: `Tokens says what a model makes of an image of WIDTH x HEIGHT pixels: its canvas and tiles, its new size and padding,
the feature cells that are kept, and the number of image tokens that the prompt needs. No pixel is looked at.

The text format says it in words, json has every number by its name. The tsv format has one line an image, numbers with
a tab in between:

  width height canvas_h canvas_w resized_h resized_w pad_top pad_bottom pad_left pad_right tiles unpad_h unpad_w tokens

LLaVA-1.5 crops, so its padding is negative: that much of the resized image is cut off.

With --sizes FILE the sizes are read from a file, one WIDTH HEIGHT a line ("-" is the standard input), and the output is
tsv, a line each: millions in seconds.

The tokens are the rows of features that the model makes, 1176 for 336 x 336. transformers' processor counts them from
num_additional_image_tokens in processor_config.json, which has to be 1: it takes off a literal 1 for the class token,
so with 0, the default, it writes 1175, and the model fails. What the processor of a folder would write is said, too.`,
		Example: `  llavaref tokens 640 480
  llavaref tokens 1000 300 --format json
  llavaref tokens 336 336 --model llava-1.5-7b --format tsv`,
	}
	of.add(cmd)
	cmd.Flags().StringVar(&format, "format", "text", "text, json or tsv")
	cmd.Flags().StringVar(&sizes, "sizes", "", `a file with a WIDTH HEIGHT a line, "-" for the standard input; the output is tsv`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf("format", format, "text", "json", "tsv"); err != nil {
			return err
		}
		if sizes == "" && len(args) != 2 || sizes != "" && len(args) != 0 {
			return usage("%s takes a width and a height, or --sizes and neither; got %d arguments", cmd.CommandPath(), len(args))
		}
		name, p, err := of.processor()
		if err != nil {
			return err
		}
		if sizes != "" {
			if format == "json" || format == "text" && cmd.Flags().Changed("format") {
				return usage("--sizes writes tsv, not %s", format)
			}
			return planFile(cmd, p, sizes)
		}
		size, err := parseWidthHeight(args[0], args[1])
		if err != nil {
			return usage("%w", err)
		}
		l, err := p.Plan(size)
		if err != nil {
			return usage("%w", err)
		}
		w := cmd.OutOrStdout()
		switch format {
		case "json":
			return writeJSON(w, planJSON(name, p, l))
		case "tsv":
			_, err := w.Write(appendPlan(nil, l))
			return err
		}
		planText(w, name, p, l)
		return nil
	}
	return cmd
}

// imageFlags choose how images are preprocessed: as a model that comes with the project wants it, or as a folder says.
type imageFlags struct {
	model, dir string
	cmd        *cobra.Command
}

func (f *imageFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.model, "model", "llava-1.6-llama3-8b", "a model that comes with the project ("+strings.Join(shapes.ModelNames(), ", ")+"), or a folder")
	cmd.Flags().StringVar(&f.dir, "model-dir", "", "a model's folder: config.json, preprocessor_config.json, processor_config.json")
}

// processor returns the preprocessing and the name that it goes by in output.
func (f *imageFlags) processor() (string, preprocess.Processor, error) {
	if f.dir != "" && f.cmd.Flags().Changed("model") {
		return "", preprocess.Processor{}, usage("want one of --model and --model-dir")
	}
	dir := f.dir
	if dir == "" && slices.Contains(shapes.ModelNames(), f.model) {
		c, err := shapes.Model(f.model)
		return f.model, preprocess.Processor{Config: preprocess.DefaultConfig(c)}, err
	}
	if dir == "" {
		dir = f.model
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", preprocess.Processor{}, usage("--model %q is neither a folder nor one of %s", f.model, strings.Join(shapes.ModelNames(), ", "))
		}
	}
	c, err := preprocess.ReadConfig(dir)
	return dir, preprocess.Processor{Config: c}, err
}

// parseWidthHeight turns the order of the command line, width first, into a Size.
func parseWidthHeight(width, height string) (shapes.Size, error) {
	w, errW := strconv.Atoi(width)
	h, errH := strconv.Atoi(height)
	if errW != nil || errH != nil {
		return shapes.Size{}, fmt.Errorf("%q %q, want a width and a height in pixels", width, height)
	}
	return shapes.Size{H: h, W: w}, nil
}

// planFile writes a line for each line of a file.
func planFile(cmd *cobra.Command, p preprocess.Processor, path string) error {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
	err := planLines(out, in, p)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(err, out.Flush())
}

func planLines(out *bufio.Writer, in io.Reader, p preprocess.Processor) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), 1<<16)
	var row []byte
	number := 0
	for lines.Scan() {
		number++
		size, ok := cutSize(lines.Bytes())
		if !ok {
			return fmt.Errorf("line %d: %q, want WIDTH HEIGHT", number, shortLine(lines.Text()))
		}
		l, err := p.Plan(size)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		row = appendPlan(row[:0], l)
		if _, err := out.Write(row); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", number+1, err)
	}
	return nil
}

func shortLine(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}

// cutSize reads two numbers with spaces or tabs around them.
func cutSize(line []byte) (shapes.Size, bool) {
	var n [2]int
	at := 0
	space := func() {
		for at < len(line) && (line[at] == ' ' || line[at] == '\t' || line[at] == '\r') {
			at++
		}
	}
	for i := range n {
		space()
		from := at
		for at < len(line) && '0' <= line[at] && line[at] <= '9' && at-from < 10 {
			n[i] = n[i]*10 + int(line[at]-'0')
			at++
		}
		if at == from || at < len(line) && line[at] != ' ' && line[at] != '\t' && line[at] != '\r' {
			return shapes.Size{}, false
		}
	}
	space()
	return shapes.Size{H: n[1], W: n[0]}, at == len(line)
}

// appendPlan appends the line of a plan in the tsv format.
func appendPlan(b []byte, l preprocess.Plan) []byte {
	for _, v := range [...]int{
		l.Original.W, l.Original.H, l.Canvas.H, l.Canvas.W, l.Resized.H, l.Resized.W,
		l.Padding.Top, l.Padding.Bottom, l.Padding.Left, l.Padding.Right, l.Tiles, l.Kept.H, l.Kept.W,
	} {
		b = append(strconv.AppendInt(b, int64(v), 10), '\t')
	}
	return append(strconv.AppendInt(b, int64(l.Features), 10), '\n')
}

type planDoc struct {
	Model   string     `json:"model"`
	Image   sizeDoc    `json:"image"`
	Canvas  sizeDoc    `json:"canvas"`
	Resized sizeDoc    `json:"resized"`
	Padding paddingDoc `json:"padding"`
	Grid    sizeDoc    `json:"grid"`
	Tiles   int        `json:"tiles"`
	Cells   sizeDoc    `json:"cells"`
	Kept    cellsDoc   `json:"kept"`
	Tokens  int        `json:"tokens"`

	// What transformers' processor writes; absent if the folder does not let it count.
	Expanded *int `json:"transformers_tokens,omitempty"`
}

type sizeDoc struct {
	Height int `json:"height"`
	Width  int `json:"width"`
}

type paddingDoc struct {
	Top    int `json:"top"`
	Bottom int `json:"bottom"`
	Left   int `json:"left"`
	Right  int `json:"right"`
}

type cellsDoc struct {
	Top    int `json:"top"`
	Left   int `json:"left"`
	Height int `json:"height"`
	Width  int `json:"width"`
}

func planJSON(model string, p preprocess.Processor, l preprocess.Plan) planDoc {
	d := planDoc{
		Model:   model,
		Image:   sizeDoc{l.Original.H, l.Original.W},
		Canvas:  sizeDoc{l.Canvas.H, l.Canvas.W},
		Resized: sizeDoc{l.Resized.H, l.Resized.W},
		Padding: paddingDoc{l.Padding.Top, l.Padding.Bottom, l.Padding.Left, l.Padding.Right},
		Grid:    sizeDoc{l.Grid.H, l.Grid.W},
		Tiles:   l.Tiles,
		Cells:   sizeDoc{l.Cells.H, l.Cells.W},
		Kept:    cellsDoc{l.Offset.H, l.Offset.W, l.Kept.H, l.Kept.W},
		Tokens:  l.Features,
	}
	if n, counts := p.Expanded(l); counts {
		d.Expanded = &n
	}
	return d
}

// planText says it in words. Sizes are height x width, as the line on top says.
func planText(w io.Writer, model string, p preprocess.Processor, l preprocess.Plan) {
	fmt.Fprintf(w, "%s, image %d wide and %d high; below, sizes are height x width\n", model, l.Original.W, l.Original.H)
	if p.ModelType == shapes.Llava {
		cropText(w, p, l)
	} else {
		canvasText(w, p, l)
	}
	tokens, counts := p.Expanded(l)
	switch {
	case !counts:
		fmt.Fprintln(w, "transformers  its processor cannot count: no patch_size in processor_config.json (up to 4.44 the model counts)")
	case tokens == l.Features:
		fmt.Fprintf(w, "transformers  its processor writes as many (num_additional_image_tokens %d)\n", p.Expansion.AdditionalTokens)
	default:
		fmt.Fprintf(w, "transformers  WRONG: its processor writes %d, and the model fails; num_additional_image_tokens is %d, want 1\n", tokens, p.Expansion.AdditionalTokens)
	}
}

func canvasText(w io.Writer, p preprocess.Processor, l preprocess.Plan) {
	pad := l.Padding
	fmt.Fprintf(w, "canvas        %v px, %v tiles of %d px, one of %d canvases\n", l.Canvas, l.Grid, p.Crop, len(p.Pinpoints))
	fmt.Fprintf(w, "resized       %v px\n", l.Resized)
	fmt.Fprintf(w, "padding       %d top, %d bottom, %d left, %d right\n", pad.Top, pad.Bottom, pad.Left, pad.Right)
	fmt.Fprintf(w, "tiles         %d: the whole image as one, then the canvas row by row\n", l.Tiles)
	fmt.Fprintf(w, "cells         %v on the canvas", l.Cells)
	switch {
	case l.Kept.Area() == 0:
		fmt.Fprintf(w, ", none of them kept: the strip is thinner than a cell\n")
	case l.Kept == l.Cells:
		fmt.Fprintf(w, ", all kept\n")
	case l.Kept.H < l.Cells.H:
		fmt.Fprintf(w, ", rows %d to %d kept: %v\n", l.Offset.H, l.Offset.H+l.Kept.H-1, l.Kept)
	default:
		fmt.Fprintf(w, ", columns %d to %d kept: %v\n", l.Offset.W, l.Offset.W+l.Kept.W-1, l.Kept)
	}
	fmt.Fprintf(w, "tokens        %d = %d for the whole image + %d for the cells + %d newlines, one after each row\n", l.Features, l.Features-l.Kept.Area()-l.Kept.H, l.Kept.Area(), l.Kept.H)
}

func cropText(w io.Writer, p preprocess.Processor, l preprocess.Plan) {
	cut := l.Padding
	if p.PadToSquare {
		fmt.Fprintln(w, "square        the image is put on a square of the mean colour first")
	}
	fmt.Fprintf(w, "resized       %v px, the short side to %d\n", l.Resized, p.Edge)
	fmt.Fprintf(w, "crop          %v px; cut off: %d top, %d bottom, %d left, %d right\n", l.Canvas, -cut.Top, -cut.Bottom, -cut.Left, -cut.Right)
	fmt.Fprintf(w, "tokens        %d, whatever the size", l.Features)
	if p.SelectStrategy == shapes.SelectFull {
		fmt.Fprint(w, ", the class token included")
	}
	fmt.Fprintln(w)
}
