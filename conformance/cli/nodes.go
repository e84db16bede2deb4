package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/shapes"
)

func nodesCommand() *cobra.Command {
	var of modelFlags
	var format, naming string
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of a model's graph",
		Long: `Nodes lists the graph of a model in the order of execution: every value that an engine can expose, under the name
by which it is compared, with its shape in letters and with the numbers that the configuration decides.

The text format writes equal layers once. json has every node with its inputs and parameters, tsv one node a line
(name, kind, shape in letters, shape in numbers, reach, inputs, parameters; lists separated by commas), dot the
whole graph for Graphviz, svg a drawing with one layer of each kind.

With --naming it lists instead how the arrays of a dump under that naming are found, as rules of a map would say it
(docs/dump-format.md), one a line; the first whose array is there is taken. {i} is the number of a layer.

The letters: N tiles, S vision positions, P patches along one side of a tile, D vision width, H heads, Dh head
width, F MLP width, R rows of image features, T text positions, L key positions, C text width, K key and value
heads, V vocabulary.`,
		Example: `  llavaref nodes
  llavaref nodes --model tiny-1.6 --format tsv
  llavaref nodes --naming llama.cpp
  llavaref nodes --format svg > graph.svg`,
		Args: noArgs,
	}
	of.add(cmd, "llava-1.6-llama3-8b")
	cmd.Flags().StringVar(&naming, "naming", "", "list the arrays of a dump: "+strings.Join(dump.Namings(), ", "))
	cmd.Flags().StringVar(&format, "format", "text", "text, json, tsv, svg or dot")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf("format", format, "text", "json", "tsv", "svg", "dot"); err != nil {
			return err
		}
		name, cfg, err := of.config()
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if naming != "" {
			if err := oneOf("naming", naming, dump.Namings()...); err != nil {
				return err
			}
			return namingText(w, dump.Rules(naming, cfg))
		}
		switch format {
		case "svg":
			return report.GraphSVG(w, cfg)
		case "dot":
			return report.GraphDOT(w, cfg)
		case "json":
			return writeJSON(w, nodesJSON(name, cfg))
		case "tsv":
			for _, n := range shapes.Nodes(cfg) {
				fmt.Fprintln(w, strings.Join([]string{n.Name, string(n.Kind), n.Symbolic(), n.Known(), string(n.Reach), strings.Join(n.Inputs, ","), strings.Join(n.Params, ",")}, "\t"))
			}
			return nil
		}
		nodesText(w, name, shapes.Nodes(cfg))
		return nil
	}
	return cmd
}

// namingText writes the rules of a naming as a map has them, those of equal layers once.
func namingText(w io.Writer, rules []dump.Rule) error {
	seen := map[string]bool{}
	for _, r := range rules {
		node, tensor := layerNumber.FindString(r.Node[0]), layerNumber.FindString(r.Tensor)
		if node != "" && node == tensor {
			r.Node, r.Tensor = dump.Names{strings.Replace(r.Node[0], node, "layers.{i}", 1)}, strings.Replace(r.Tensor, node, "layers.{i}", 1)
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if !seen[string(line)] {
			fmt.Fprintf(w, "%s\n", line)
		}
		seen[string(line)] = true
	}
	return nil
}

var layerNumber = regexp.MustCompile(`layers\.[0-9]+`)

type nodesDoc struct {
	Model string    `json:"model"`
	Nodes []nodeDoc `json:"nodes"`
}

type nodeDoc struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Letters []string `json:"letters"`
	Shape   []int    `json:"shape"` // 0 where the prompt decides
	Reach   string   `json:"reach"`
	Inputs  []string `json:"inputs"`
	Params  []string `json:"params"`
}

func nodesJSON(model string, c shapes.Config) nodesDoc {
	d := nodesDoc{Model: model}
	for _, n := range shapes.Nodes(c) {
		o := nodeDoc{Name: n.Name, Kind: string(n.Kind), Reach: string(n.Reach), Inputs: n.Inputs, Params: append([]string{}, n.Params...)}
		for _, dim := range n.Shape {
			o.Letters = append(o.Letters, dim.Letter)
			o.Shape = append(o.Shape, dim.Len)
		}
		d.Nodes = append(d.Nodes, o)
	}
	return d
}

// nodesText writes one line a node, runs of equal layers once.
func nodesText(w io.Writer, model string, nodes []shapes.Node) {
	groups, dead := nodeGroups(nodes), false
	fmt.Fprintf(w, "%s, %d nodes in the order of execution\n", model, len(nodes))
	for _, g := range groups {
		indent, width := "", 53
		if g.path == "" {
			fmt.Fprintln(w)
		} else {
			indent, width = "  ", 51
			fmt.Fprintf(w, "\n%s.N, N = %s%s\n", g.path, layerRange(g.first, g.last), deadMark(g.nodes[0].Reach))
		}
		for _, n := range g.nodes {
			mark := ""
			if g.path == "" {
				mark = deadMark(n.Reach)
			}
			dead = dead || n.Reach == shapes.Dead
			fmt.Fprintf(w, "%s%-*s  %-17s %-13s %s%s\n", indent, width, n.Name, n.Kind, n.Symbolic(), n.Known(), mark)
		}
	}
	if dead {
		fmt.Fprintln(w, "\ndead: the logits do not need it")
	}
}

func layerRange(first, last int) string {
	if first == last {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d to %d", first, last)
}

func deadMark(r shapes.Reach) string {
	if r == shapes.Dead {
		return "  dead"
	}
	return ""
}

// nodeGroup is a run of nodes outside of layers, or of equal layers.
type nodeGroup struct {
	path        string
	first, last int
	nodes       []shapes.Node // names without the layer's path
}

// nodeGroups cuts the graph at its layers and joins layers that differ in their number only.
func nodeGroups(nodes []shapes.Node) []nodeGroup {
	var cut []nodeGroup
	for _, n := range nodes {
		path, layer, leaf := cutLayer(n.Name)
		if leaf == "" {
			leaf = "(output of the layer)"
		}
		n.Name = leaf
		if k := len(cut); k > 0 && cut[k-1].path == path && cut[k-1].last == layer {
			cut[k-1].nodes = append(cut[k-1].nodes, n)
			continue
		}
		cut = append(cut, nodeGroup{path, layer, layer, []shapes.Node{n}})
	}
	var out []nodeGroup
	for _, g := range cut {
		if k := len(out); k > 0 && g.path != "" && out[k-1].path == g.path && out[k-1].last+1 == g.first && out[k-1].nodes[0].Reach == g.nodes[0].Reach {
			out[k-1].last = g.last
			continue
		}
		out = append(out, g)
	}
	return out
}
