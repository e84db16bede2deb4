package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// Format is the version of the schema that WriteJSON writes; docs/performance.md describes it.
const Format = 1

// Result is one run of the benchmarks.
type Result struct {
	Format         int         `json:"format"`
	Date           string      `json:"date"` // RFC 3339, when the run began
	Program        Program     `json:"program"`
	Machine        Machine     `json:"machine"`
	Implementation string      `json:"implementation"` // of the kernels, as kernel.Active names it
	Threads        int         `json:"threads"`
	Model          string      `json:"model"`
	Quick          bool        `json:"quick"` // few and short samples: figures that say only that the rows run
	Conformance    Conformance `json:"conformance"`
	PeakMemory     int64       `json:"peak_memory"` // of the process, bytes; 0 where the system does not say
	Loads          []Load      `json:"loads"`
	Limits         []Limit     `json:"limits"`
	Rows           []Row       `json:"rows"`
}

// Program is what was measured.
type Program struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // of the source; empty if the build did not record it
	Modified bool   `json:"modified"` // with local changes
	Go       string `json:"go"`
}

// Machine is where it ran.
type Machine struct {
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	CPU      string `json:"cpu"`      // the processor's name as the system gives it
	Features string `json:"features"` // vector extensions
	Cores    int    `json:"cores"`
	Memory   int64  `json:"memory"` // bytes; 0 where the system does not say
}

// Conformance is the verdict of the check that ran before anything was measured.
type Conformance struct {
	Passed bool   `json:"passed"`
	Text   string `json:"text"` // what was checked, or what was wrong
}

// Limit sums up all measurements of one limit in the run.
type Limit struct {
	Name   string  `json:"name"` // fma, dot or read
	Unit   string  `json:"unit"` // GFLOP/s or GB/s
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Count  int     `json:"count"`
}

// Load is a model that was brought into memory.
type Load struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // to make its synthetic weights and to lay them out
	Memory  string  `json:"memory"`  // what it takes, in words
}

// Row is one piece of work.
type Row struct {
	Name    string   `json:"name"`   // kind/what/..., as --rows matches it
	Limit   string   `json:"limit"`  // which limit it is held against; its unit is the row's
	FLOP    float64  `json:"flop"`   // of the work done once
	Bytes   float64  `json:"bytes"`  // that the work cannot do without reading from memory once: weights, and keys and values
	Passes  int      `json:"passes"` // how often it ran in all, samples and what came before them
	Samples []Sample `json:"samples"`
}

// Sample is one measurement of a row.
type Sample struct {
	Seconds   float64 `json:"seconds"`   // for the work once
	Limit     float64 `json:"limit"`     // mean of the limit before and after, in the row's unit; 0 if there is none
	Disturbed bool    `json:"disturbed"` // the two differ by more than 3 percent: somebody else had the machine
}

// Unit is the unit of the row's rate.
func (r Row) Unit() string { return unitOf(r.Limit) }

func unitOf(limit string) string {
	if limit == "read" {
		return "GB/s"
	}
	return "GFLOP/s"
}

// Amount is the work in 10^9 of what the row's unit counts.
func (r Row) Amount() float64 {
	if r.Limit == "read" {
		return r.Bytes / 1e9
	}
	return r.FLOP / 1e9
}

// Counted are the samples that count: the undisturbed ones, if there are as many as three, and else all.
func (r Row) Counted() []Sample {
	var quiet []Sample
	for _, s := range r.Samples {
		if !s.Disturbed {
			quiet = append(quiet, s)
		}
	}
	if len(quiet) >= min(3, len(r.Samples)) {
		return quiet
	}
	return r.Samples
}

// Percents are the rates of the samples that count in percent of the limit beside each; none if the limit is not known.
func (r Row) Percents() []float64 {
	var out []float64
	for _, s := range r.Counted() {
		if s.Limit > 0 {
			out = append(out, 100*r.Amount()/s.Seconds/s.Limit)
		}
	}
	return out
}

// Seconds is the median time of the work once.
func (r Row) Seconds() float64 {
	var out []float64
	for _, s := range r.Counted() {
		out = append(out, s.Seconds)
	}
	return median(out)
}

// median is the middle value, or the mean of the two; NaN of nothing.
func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between the two values that it falls between.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// WriteJSON writes the whole result.
func (r Result) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// Limits on what ReadJSON takes from a file.
const (
	maxFile    = 16 << 20
	maxRows    = 10_000
	maxSamples = 1000
	maxText    = 4096
)

// ReadFile reads what WriteJSON has written. A file that is too long, that is of another format, or whose numbers make no
// sense is an error.
func ReadFile(path string) (Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Result{}, err
	}
	if !info.Mode().IsRegular() {
		return Result{}, fmt.Errorf("bench: %s: not a regular file, want a result of llavaref bench --format json", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Result{}, err
	}
	r, err := parse(data)
	if err != nil {
		return Result{}, fmt.Errorf("bench: %s: %w", path, err)
	}
	return r, nil
}

func parse(data []byte) (Result, error) {
	var r Result
	if len(data) > maxFile {
		return r, fmt.Errorf("longer than %d bytes", maxFile)
	}
	// The format first: a later one may have other types under the same keys.
	var head struct{ Format int }
	if err := json.Unmarshal(data, &head); err != nil {
		return r, fmt.Errorf("not a result of llavaref bench --format json: %w", err)
	}
	if head.Format != Format {
		return r, fmt.Errorf("format %d, want %d", head.Format, Format)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("not a result of llavaref bench --format json: %w", err)
	}
	return r, r.check()
}

// check holds what came from a file to what Run makes.
func (r Result) check() error {
	if len(r.Rows) > maxRows {
		return fmt.Errorf("%d rows, want at most %d", len(r.Rows), maxRows)
	}
	for _, text := range []string{r.Date, r.Program.Version, r.Program.Revision, r.Program.Go, r.Machine.OS, r.Machine.Arch, r.Machine.CPU, r.Machine.Features, r.Implementation, r.Model, r.Conformance.Text} {
		if err := plain(text); err != nil {
			return err
		}
	}
	if len(r.Loads) > maxRows {
		return fmt.Errorf("%d loads, want at most %d", len(r.Loads), maxRows)
	}
	for _, l := range r.Loads {
		if err := errors.Join(plain(l.Name), plain(l.Memory)); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, row := range r.Rows {
		if err := plain(row.Name); err != nil {
			return err
		}
		if row.Name == "" || seen[row.Name] {
			return fmt.Errorf("row %q: want a name of its own", row.Name)
		}
		seen[row.Name] = true
		if !slices.Contains(limitNames, row.Limit) {
			return fmt.Errorf("row %s: limit %q, want one of %v", row.Name, row.Limit, limitNames)
		}
		if !positive(row.Amount()) || row.FLOP < 0 || row.Bytes < 0 {
			return fmt.Errorf("row %s: %g FLOP and %g bytes, want work that %s measures", row.Name, row.FLOP, row.Bytes, row.Limit)
		}
		if len(row.Samples) == 0 || len(row.Samples) > maxSamples {
			return fmt.Errorf("row %s: %d samples, want 1 to %d", row.Name, len(row.Samples), maxSamples)
		}
		for i, s := range row.Samples {
			if !positive(s.Seconds) || s.Limit < 0 || s.Limit > 1e9 {
				return fmt.Errorf("row %s: sample %d: %g seconds and a limit of %g %s, want a time above 0 and a limit", row.Name, i, s.Seconds, s.Limit, row.Unit())
			}
		}
	}
	return nil
}

// positive says whether a number is one that a division by it leaves finite.
func positive(v float64) bool { return v >= 1e-15 && v <= 1e15 }

// plain refuses text that would break the lines of a table or the terminal.
func plain(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("a text of %d bytes, want at most %d", len(s), maxText)
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return fmt.Errorf("text %q, want no control characters", s)
		}
	}
	return nil
}
