package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/fast/bench"
	"github.com/llavaref/llavaref/shapes"
)

// A program whose engine computes something else is not measured, or what is measured says so.
func TestBenchRefusesAnEngineThatDoesNotConform(t *testing.T) {
	planted := func(bad string) finder {
		return func(name string) (conformance.Opener, error) {
			open, err := engines.Find(name)
			if name != bad {
				return open, err
			}
			return func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
				c.Text.RopeTheta /= 2
				return open(c, w)
			}, err
		}
	}
	for _, bad := range benchEngines {
		var out, errs bytes.Buffer
		args := []string{"bench", "--quick", "--model", "tiny-1.6", "--rows", "gemm/W=128x128/type=f32/class=float32/M=8"}
		if code := run(context.Background(), args, &out, &errs, planted(bad)); code != exitNotConformant || out.Len() > 0 || !strings.Contains(errs.String(), "nothing was measured: not conformant: "+bad+" ") {
			t.Errorf("%s is wrong: exit code %d, output %q, errors %q, want 1, nothing and a refusal", bad, code, out.String(), errs.String())
		}
		out.Reset()
		if code := run(context.Background(), append(args, "--mark"), &out, &errs, planted(bad)); code != exitNotConformant || !strings.Contains(out.String(), "conformance  NOT CONFORMANT") || !strings.Contains(out.String(), "M=8 ") {
			t.Errorf("%s is wrong, --mark: exit code %d, output\n%s", bad, code, out.String())
		}
	}
}

// result writes a result of one row at so many percent of its limit.
func result(t *testing.T, name string, percent float64, change func(r *bench.Result)) string {
	r := bench.Result{Format: bench.Format, Machine: bench.Machine{CPU: "Test"}, Threads: 2, Model: "wide", Conformance: bench.Conformance{Passed: true}}
	row := bench.Row{Name: "gemm/M=8", Limit: "fma", FLOP: 1e9}
	for i := range 9 {
		row.Samples = append(row.Samples, bench.Sample{Seconds: 1 / (percent + 0.05*float64(i-4)), Limit: 100})
	}
	r.Rows = []bench.Row{row}
	if change != nil {
		change(&r)
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchCompareExitCodes(t *testing.T) {
	old := result(t, "old.json", 80, nil)
	noisy := func(r *bench.Result) {
		for i := range r.Rows[0].Samples {
			r.Rows[0].Samples[i].Seconds *= 1 + 0.3*float64(i%3)
		}
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"the same", []string{old, old}, exitConformant, "1 the same"},
		{"a little slower", []string{old, result(t, "new", 79, nil)}, exitConformant, "1 the same"},
		{"slower", []string{old, result(t, "new", 74, nil)}, exitNotConformant, "slower"},
		{"slower, but less than is asked for", []string{old, result(t, "new", 74, nil), "--threshold", "10"}, exitConformant, "1 the same"},
		{"faster", []string{old, result(t, "new", 90, nil)}, exitConformant, "faster"},
		{"a wrong program", []string{old, result(t, "new", 90, func(r *bench.Result) { r.Conformance = bench.Conformance{Text: "the norm is wrong"} })}, exitNotConformant, "the norm is wrong"},
		{"noise", []string{result(t, "old", 80, noisy), result(t, "new", 78, noisy)}, exitUntested, "unclear"},
		{"as different from itself", []string{old, result(t, "new", 74, nil), "--again", result(t, "again", 73, nil)}, exitUntested, "unclear"},
		{"another machine", []string{old, result(t, "new", 80, func(r *bench.Result) { r.Machine.CPU = "Other" })}, exitUntested, "processor"},
		{"a row less", []string{old, result(t, "new", 80, func(r *bench.Result) { r.Rows = nil })}, exitUntested, "no row gemm/M=8"},
		{"no file", []string{old, "no such file"}, exitUntested, "no such file"},
		{"one file", []string{old}, exitUsage, "two arguments"},
		{"a threshold of 0", []string{old, old, "--threshold", "0"}, exitUsage, "--threshold 0"},
	} {
		var out bytes.Buffer
		code := run(context.Background(), append([]string{"bench", "compare"}, c.args...), &out, &out, engines.Find)
		if code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d, and output with %q, got\n%s", c.name, code, c.code, c.want, out.String())
		}
	}
}
