package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/shapes"
)

func paramsCommand() *cobra.Command {
	var of modelFlags
	var naming, format string
	var total bool
	cmd := &cobra.Command{
		Use:   "params",
		Short: "List the parameters of a model",
		Long: `Params lists every parameter of a model in the order of its checkpoint: name, shape, and whether it can change
the logits at all. Nothing is read but the configuration.

The text format writes equal layers once. It marks what no end-to-end test can see:

  inert   computed, but it cancels before the logits: a key bias of the vision tower adds the same
          number to every score of a query
  dead    the logits are computed without it: vision layers past the feature layer, post_layernorm

The tsv format has one parameter a line, a tab between name and shape, nothing else; json has all of it.
With --naming the names are those of another world: ` + joinSchemes() + `.`,
		Example: `  llavaref params
  llavaref params --total
  llavaref params --model llava-1.5-7b --naming lite-llama
  llavaref params --model tiny-1.6 --format tsv`,
		Args: noArgs,
	}
	of.add(cmd, "llava-1.6-llama3-8b")
	cmd.Flags().StringVar(&naming, "naming", string(shapes.OnDisk), "naming scheme")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or tsv")
	cmd.Flags().BoolVar(&total, "total", false, "print the totals only")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf("format", format, "text", "json", "tsv"); err != nil {
			return err
		}
		scheme, err := shapes.ParseScheme(naming)
		if err != nil {
			return usage("--naming: %w", err)
		}
		name, cfg, err := of.config()
		if err != nil {
			return err
		}
		if scheme == shapes.LiteLlama && cfg.ModelType != shapes.Llava {
			return usage("--naming %s names LLaVA-1.5 only, and %s is a %s", scheme, name, cfg.ModelType)
		}
		w := cmd.OutOrStdout()
		ps := shapes.ParamsIn(cfg, scheme)
		switch {
		case total:
			fmt.Fprintln(w, totalLine(ps))
			return nil
		case format == "tsv":
			for _, p := range ps {
				fmt.Fprintf(w, "%s\t%s\n", p.Name, shapeText(p.Shape))
			}
			return nil
		case format == "json":
			return writeJSON(w, paramsJSON(name, scheme, ps))
		}
		paramsText(w, name, scheme, ps)
		return nil
	}
	cmd.AddCommand(verifyCommand())
	return cmd
}

func joinSchemes() string {
	var names []string
	for _, s := range shapes.Schemes() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// totalLine is the model's size in one line: "687 tensors, 8355276800 parameters (8355.28M)".
func totalLine(ps []shapes.Param) string {
	tensors, values := shapes.Total(ps)
	return fmt.Sprintf("%d tensors, %d parameters (%.2fM)", tensors, values, float64(values)/1e6)
}

// shapeText is a shape as Python writes it: "[4096, 1024]".
func shapeText(shape []int) string {
	words := make([]string, len(shape))
	for i, d := range shape {
		words[i] = strconv.Itoa(d)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

type paramsDoc struct {
	Model      string     `json:"model"`
	Naming     string     `json:"naming"`
	Tensors    int        `json:"tensors"`
	Parameters int        `json:"parameters"`
	Params     []paramDoc `json:"params"`
}

type paramDoc struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	Count int    `json:"count"`
	Reach string `json:"reach"`
}

func paramsJSON(model string, scheme shapes.Scheme, ps []shapes.Param) paramsDoc {
	d := paramsDoc{Model: model, Naming: string(scheme)}
	d.Tensors, d.Parameters = shapes.Total(ps)
	for _, p := range ps {
		d.Params = append(d.Params, paramDoc{p.Name, p.Shape, p.Count(), string(p.Reach)})
	}
	return d
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// paramsText writes one line a parameter, and a run of layers that differ in their number only once.
func paramsText(w io.Writer, model string, scheme shapes.Scheme, ps []shapes.Param) {
	blocks := paramBlocks(ps)
	width := 0
	for _, b := range blocks {
		for _, p := range b.params {
			width = max(width, len(b.indent())+len(p.Name))
		}
	}
	fmt.Fprintf(w, "%s, names of scheme %s\n\n", model, scheme)
	marked := false
	for _, b := range blocks {
		if b.path != "" {
			fmt.Fprintf(w, "%s.N, %s\n", b.path, b.layers())
		}
		for _, p := range b.params {
			mark := ""
			if p.Reach != shapes.Reaches {
				mark, marked = string(p.Reach), true
			}
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s%-*s  %-18s %s", b.indent(), width-len(b.indent()), p.Name, shapeText(p.Shape), mark), " "))
		}
	}
	fmt.Fprintf(w, "\n%s\n", totalLine(ps))
	if marked {
		fmt.Fprintln(w, "inert: cancels before the logits; dead: the logits are computed without it")
	}
}

// block is a run of parameters under one heading: those of one or more equal layers, or some outside of any layer.
type block struct {
	path        string // module path before the layer's number; empty outside of layers
	first, last int    // layer numbers
	params      []shapes.Param
}

func (b block) indent() string {
	if b.path == "" {
		return ""
	}
	return "  "
}

func (b block) layers() string {
	n := fmt.Sprintf("%d tensors", len(b.params))
	if b.first == b.last {
		return fmt.Sprintf("N = %d, %s", b.first, n)
	}
	return fmt.Sprintf("N = %d to %d, %s each", b.first, b.last, n)
}

// paramBlocks cuts the list into blocks and joins neighbouring layers whose parameters are the same.
func paramBlocks(ps []shapes.Param) []block {
	var blocks []block
	for _, p := range ps {
		path, layer, leaf := cutLayer(p.Name)
		p.Name = leaf
		if n := len(blocks); n > 0 && blocks[n-1].path == path && blocks[n-1].last == layer {
			blocks[n-1].params = append(blocks[n-1].params, p)
			continue
		}
		blocks = append(blocks, block{path, layer, layer, []shapes.Param{p}})
	}
	var out []block
	for _, b := range blocks {
		if n := len(out); n > 0 && b.path != "" && out[n-1].path == b.path && out[n-1].last+1 == b.first && sameParams(out[n-1].params, b.params) {
			out[n-1].last = b.last
			continue
		}
		out = append(out, b)
	}
	return out
}

// cutLayer splits a.layers.7.b.c into a.layers, 7 and b.c; a name outside of layers comes back whole.
func cutLayer(name string) (path string, layer int, leaf string) {
	const mark = ".layers."
	i := strings.Index(name, mark)
	if i < 0 {
		return "", 0, name
	}
	number, leaf, _ := strings.Cut(name[i+len(mark):], ".")
	layer, err := strconv.Atoi(number)
	if err != nil {
		return "", 0, name
	}
	return name[:i+len(mark)-1], layer, leaf
}

func sameParams(a, b []shapes.Param) bool {
	return slices.EqualFunc(a, b, func(x, y shapes.Param) bool {
		return x.Name == y.Name && x.Reach == y.Reach && slices.Equal(x.Shape, y.Shape)
	})
}
