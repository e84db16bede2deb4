// Package profile says where the fast engine's time goes: it reads CPU profiles whose samples the engine has labelled by layer and
// operation, adds them up, and holds two of them against each other.
package profile

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/pprof/profile"
)

// Cell is where a sample belongs: a layer, such as "text.17", "projector" or "lm_head", and an operation of it, the leaf of a node's name.
// What no label says has the layer "" and the name of the function that ran.
type Cell struct{ Layer, Op string }

// Profile is the processor time of every cell.
type Profile struct {
	Row    string // what ran, a row of llavaref bench; empty if the profile does not say
	Passes int    // how often; 0 if the profile does not say
	Cells  map[Cell]float64
	Limits float64 // seconds that the measurement of limits took, which are in no cell
}

// The comments that Record leaves in a profile.
const (
	rowComment    = "llavaref row "
	passesComment = "llavaref passes "
)

// Record runs something under the CPU profiler and writes the profile, with a note of what ran and how often.
func Record(w io.Writer, row string, run func() (passes int, err error)) error {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	passes, err := run()
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	p, err := profile.Parse(&b)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	p.Comments = append(p.Comments, rowComment+row, passesComment+strconv.Itoa(passes))
	return p.Write(w)
}

// Limits on a profile from outside. A second of two threads is some hundred samples, of a hundred bytes each.
const (
	maxFile     = 4 << 20
	maxUnpacked = 8 << 20
	maxName     = 1024
	maxCells    = 100_000
)

// ReadFile reads a CPU profile.
func ReadFile(path string) (Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return Profile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Profile{}, err
	}
	if !info.Mode().IsRegular() {
		return Profile{}, fmt.Errorf("profile: %s: not a regular file, want a CPU profile", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Profile{}, err
	}
	p, err := parse(data)
	if err != nil {
		return Profile{}, fmt.Errorf("profile: %s: %w", path, err)
	}
	return p, nil
}

func parse(data []byte) (Profile, error) {
	if len(data) > maxFile {
		return Profile{}, fmt.Errorf("longer than %d bytes", maxFile)
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return Profile{}, fmt.Errorf("not a profile: %w", err)
		}
		if data, err = io.ReadAll(io.LimitReader(z, maxUnpacked+1)); err != nil {
			return Profile{}, fmt.Errorf("not a profile: %w", err)
		}
	}
	if len(data) > maxUnpacked {
		return Profile{}, fmt.Errorf("longer than %d bytes when unpacked", maxUnpacked)
	}
	if len(data) == 0 {
		return Profile{}, fmt.Errorf("not a profile: it is empty")
	}
	raw, err := profile.ParseUncompressed(data)
	if err != nil {
		return Profile{}, fmt.Errorf("not a profile: %w", err)
	}
	if err := raw.CheckValid(); err != nil {
		return Profile{}, fmt.Errorf("not a profile: %w", err)
	}
	return sum(raw)
}

// sum adds the samples of a profile up.
func sum(raw *profile.Profile) (Profile, error) {
	p := Profile{Cells: map[Cell]float64{}}
	at := slices.IndexFunc(raw.SampleType, func(t *profile.ValueType) bool { return t.Type == "cpu" && t.Unit == "nanoseconds" })
	if at < 0 {
		return p, fmt.Errorf("not a CPU profile: it has no samples of cpu in nanoseconds")
	}
	for _, c := range raw.Comments {
		if row, ok := strings.CutPrefix(c, rowComment); ok {
			p.Row = clean(row)
		}
		if n, ok := strings.CutPrefix(c, passesComment); ok {
			if v, err := strconv.Atoi(n); err == nil && v > 0 {
				p.Passes = v
			}
		}
	}
	for _, s := range raw.Sample {
		v := s.Value[at]
		if v < 0 || v > 1e18 {
			return p, fmt.Errorf("a sample of %d nanoseconds", v)
		}
		seconds := float64(v) / 1e9
		if measuresLimits(s) {
			p.Limits += seconds
			continue
		}
		c := Cell{label(s, "layer"), label(s, "op")}
		if c.Op == "" {
			c = Cell{Op: leaf(s)}
		}
		p.Cells[c] += seconds
		if len(p.Cells) > maxCells {
			return p, fmt.Errorf("more than %d layers and operations", maxCells)
		}
	}
	if len(p.Cells) == 0 {
		return p, fmt.Errorf("no samples: nothing ran, or not for long enough")
	}
	return p, nil
}

func label(s *profile.Sample, key string) string {
	if v := s.Label[key]; len(v) > 0 {
		return clean(v[0])
	}
	return ""
}

// clean makes a name one that a table can hold.
func clean(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// leaf is the function that ran; the runtime's are one.
func leaf(s *profile.Sample) string {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function == nil {
				continue
			}
			name := line.Function.Name
			if strings.HasPrefix(name, "runtime.") || strings.HasPrefix(name, "runtime/") || strings.HasPrefix(name, "internal/runtime") {
				return "(Go's runtime)"
			}
			return clean(name[strings.LastIndex(name, "/")+1:])
		}
	}
	return "(no function)"
}

// measuresLimits says whether a sample is of the loops that llavaref bench measures the machine with.
func measuresLimits(s *profile.Sample) bool {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil && strings.HasSuffix(line.Function.Name, "kernel.(*Pool).reach") {
				return true
			}
		}
	}
	return false
}

// Total is the processor time of all cells, in seconds.
func (p Profile) Total() float64 {
	total := 0.0
	for _, c := range slices.SortedFunc(maps.Keys(p.Cells), order) { // a sum in one order
		total += p.Cells[c]
	}
	return total
}

func order(a, b Cell) int { return cmp.Or(natural(a.Layer, b.Layer), cmp.Compare(a.Op, b.Op)) }

// natural orders text.2 before text.10.
func natural(a, b string) int {
	stem := func(s string) (string, int) {
		if i := strings.LastIndexByte(s, '.'); i >= 0 {
			if n, err := strconv.Atoi(s[i+1:]); err == nil {
				return s[:i], n
			}
		}
		return s, -1
	}
	sa, na := stem(a)
	sb, nb := stem(b)
	return cmp.Or(cmp.Compare(sa, sb), cmp.Compare(na, nb), cmp.Compare(a, b))
}

// Merge adds up the layers of a kind: text.0, text.1, ... become text.*.
func (p Profile) Merge() Profile {
	m := Profile{p.Row, p.Passes, map[Cell]float64{}, p.Limits}
	for _, c := range slices.SortedFunc(maps.Keys(p.Cells), order) {
		m.Cells[Cell{kindOf(c.Layer), c.Op}] += p.Cells[c]
	}
	return m
}

// kindOf is the layer's name without its number.
func kindOf(layer string) string {
	if i := strings.LastIndexByte(layer, '.'); i >= 0 {
		if _, err := strconv.Atoi(layer[i+1:]); err == nil {
			return layer[:i] + ".*"
		}
	}
	return layer
}
