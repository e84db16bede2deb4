package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/llavaref/llavaref/conformance"
)

// Markdown writes the result as a page: for each set a table of cases and stages, under it what is wrong.
func Markdown(w io.Writer, r conformance.Run) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "**%s**\n\n%s; %s. Each cell has the worst drift and the worst local error of the stage, over their limits: above 1 fails.\n", Verdict(r), engine(r), views(r))
	for _, s := range r.Sets {
		fmt.Fprintf(b, "\n## %s\n", s.Name)
		if s.Digest != "" {
			fmt.Fprintf(b, "\nWeights `%s`.\n", s.Digest)
		}
		if s.Reason != "" {
			fmt.Fprintf(b, "\nError: %s\n", s.Reason)
		}
		if len(s.Cases) > 0 {
			fmt.Fprintf(b, "\n%s\n", markdownTable(s))
		}
		for _, c := range s.Cases {
			lines := findings(c)
			if c.Reason != "" {
				lines = append(lines, "not run: "+c.Reason)
			}
			if len(lines) == 0 {
				continue
			}
			fmt.Fprintf(b, "\n### %s: %s\n\n```\n%s\n```\n", c.Name, c.Status(), strings.Join(lines, "\n"))
		}
	}
	return b.Flush()
}

func markdownTable(s conformance.Set) string {
	t := table.NewWriter()
	header := table.Row{"case", "verdict", "nodes"}
	stages := setStages(s)
	for _, stage := range stages {
		header = append(header, stage)
	}
	t.AppendHeader(header)
	for _, c := range s.Cases {
		k := c.Coverage()
		line := table.Row{c.Name, c.Status().String(), fmt.Sprintf("%d/%d", k.Checked, k.Expected)}
		for _, name := range stages {
			cell := ""
			for _, stage := range c.Stages {
				if stage.Name == name {
					r := stageRow(stage)
					cell = fmt.Sprintf("%s, %s", ratio(r.drift), ratio(r.local))
					if r.status > conformance.Pass {
						cell = fmt.Sprintf("%s: %s", r.status, cell)
					}
				}
			}
			line = append(line, cell)
		}
		t.AppendRow(line)
	}
	return t.RenderMarkdown()
}
