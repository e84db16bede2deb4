package bench

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// WriteText writes the result as a table: for each row the median of its time and rate, the rate in percent of the limit measured
// beside it with half its interquartile range, and how many samples that comes from.
func (r Result) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, line := range r.heading() {
		fmt.Fprintln(b, line)
	}
	fmt.Fprintln(b)
	width := 10
	for _, row := range r.Rows {
		width = max(width, utf8.RuneCountInString(row.Name))
	}
	fmt.Fprintf(b, "%-*s %10s %9s %8s  %-11s %6s %4s\n", width, "row", "time", "GFLOP/s", "GB/s", "of the limit", "±", "n")
	for _, row := range r.Rows {
		fmt.Fprintln(b, strings.TrimRight(fmt.Sprintf("%-*s %10s %9s %8s  %7s %-4s %6s %4d", width, row.Name, duration(row.Seconds()), rate(row.FLOP, row.Seconds()), rate(row.Bytes, row.Seconds()),
			percent(median(row.Percents())), row.Limit, percent(spread(row.Percents())), len(row.Counted())), " "))
	}
	return b.Flush()
}

// heading says what was measured, and where.
func (r Result) heading() []string {
	lines := []string{
		fmt.Sprintf("machine      %s, %d cores, %.1f GiB, %s/%s", r.Machine.CPU, r.Machine.Cores, float64(r.Machine.Memory)/(1<<30), r.Machine.OS, r.Machine.Arch),
		fmt.Sprintf("program      llavaref %s, %s", r.Program.Version, r.Program.Go),
		fmt.Sprintf("kernels      %s, %d threads, model %s", r.Implementation, r.Threads, r.Model),
	}
	if r.Program.Revision != "" {
		modified := ""
		if r.Program.Modified {
			modified = " with local changes"
		}
		lines[1] += ", revision " + r.Program.Revision[:min(12, len(r.Program.Revision))] + modified
	}
	verdict := "NOT CONFORMANT: these figures are of a program that computes something else: "
	if r.Conformance.Passed {
		verdict = "passed: "
	}
	lines = append(lines, "conformance  "+verdict+r.Conformance.Text)
	if r.Quick {
		lines = append(lines, "QUICK: few and short samples, which show that the rows run and not how fast")
	}
	for _, l := range r.Limits {
		lines = append(lines, fmt.Sprintf("limit        %-4s %.1f %s, %.1f to %.1f in %d measurements", l.Name, l.Median, l.Unit, l.Least, l.Most, l.Count))
	}
	for _, l := range r.Loads {
		lines = append(lines, fmt.Sprintf("model        %s: made in %.1f s, %s", l.Name, l.Seconds, l.Memory))
	}
	if r.PeakMemory > 0 {
		lines = append(lines, fmt.Sprintf("peak memory  %.2f GiB", float64(r.PeakMemory)/(1<<30)))
	}
	return lines
}

// WriteMarkdown writes the same table for a page.
func (r Result) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "```\n%s\n```\n\n", strings.Join(r.heading(), "\n"))
	fmt.Fprint(b, "| row | time | GFLOP/s | GB/s | of the limit | ± | n |\n|---|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s %s | %s | %d |\n", row.Name, duration(row.Seconds()), rate(row.FLOP, row.Seconds()), rate(row.Bytes, row.Seconds()),
			percent(median(row.Percents())), row.Limit, percent(spread(row.Percents())), len(row.Counted()))
	}
	return b.Flush()
}

// WriteGo writes every sample as a line of Go's benchmark format, which benchstat reads.
func (r Result) WriteGo(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "goos: %s\ngoarch: %s\npkg: github.com/llavaref/llavaref/fast\ncpu: %s\n", r.Machine.OS, r.Machine.Arch, r.Machine.CPU)
	fmt.Fprintf(b, "implementation: %s\nmodel: %s\nconformance: %v\nquick: %v\n", r.Implementation, r.Model, map[bool]string{true: "passed", false: "FAILED"}[r.Conformance.Passed], r.Quick)
	fmt.Fprint(b, "Unit GFLOP/s better=higher\nUnit GB/s better=higher\n")
	for _, l := range limitNames {
		fmt.Fprintf(b, "Unit %%%s better=higher\n", l)
	}
	for _, row := range r.Rows {
		for _, s := range row.Counted() {
			fmt.Fprintf(b, "Benchmark%s-%d 1 %.0f ns/op %.6g %s", goName(row.Name), r.Threads, s.Seconds*1e9, row.Amount()/s.Seconds, row.Unit())
			if s.Limit > 0 {
				fmt.Fprintf(b, " %.4g %%%s", 100*row.Amount()/s.Seconds/s.Limit, row.Limit)
			}
			fmt.Fprintln(b)
		}
	}
	return b.Flush()
}

// goName is a row's name with a capital letter in front and no spaces, as Go names benchmarks.
func goName(name string) string {
	name = strings.ReplaceAll(name, " ", "_")
	return strings.ToUpper(name[:1]) + name[1:]
}

// spread is half the interquartile range.
func spread(v []float64) float64 {
	if len(v) < 2 {
		return math.NaN()
	}
	return (quantile(v, 0.75) - quantile(v, 0.25)) / 2
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", v)
}

// rate is an amount a second in 10^9.
func rate(amount, seconds float64) string {
	if amount == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", amount/seconds/1e9)
}

func duration(seconds float64) string {
	switch {
	case seconds < 1e-3:
		return fmt.Sprintf("%.2f µs", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.2f ms", seconds*1e3)
	default:
		return fmt.Sprintf("%.2f s", seconds)
	}
}
