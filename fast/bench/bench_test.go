package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

func tiny(t testing.TB, rows string) Options {
	c, err := shapes.Model("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	return Options{Name: "tiny-1.6", Config: c, Rows: rows, Threads: 2, Quick: true, Conformance: Conformance{Passed: true, Text: "a test"}}
}

// quickly measures rows once, in milliseconds.
func quickly(t testing.TB, rows string) Result {
	t.Helper()
	r, err := Run(context.Background(), tiny(t, rows))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryRowRunsOnTinyShapes(t *testing.T) {
	rows := "*"
	if testing.Short() || kernel.Active() == "generic" { // one of each kind: slow processors are not what the others are for
		rows = "gemm/W=128x*/M=1,gemm/W=128x*/M=8,attention/vision*,attention/decode*,layer/vision/tiles=1*,layer/decoder/T=64*,prefill/T=64/*,decode/context=64/*"
	}
	r := quickly(t, rows)
	names, err := Names(tiny(t, rows))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(names) || len(names) < 30 {
		t.Fatalf("%d rows, want the %d that are listed, and at least 30", len(r.Rows), len(names))
	}
	limits := map[string]bool{}
	for _, l := range r.Limits {
		limits[l.Name] = true
		if !(l.Least > 0 && l.Least <= l.Median && l.Median <= l.Most) || l.Count == 0 {
			t.Errorf("limit %+v", l)
		}
	}
	if !limits["fma"] || !limits["read"] {
		t.Errorf("limits %v, want fma and read among them", limits)
	}
	for i, row := range r.Rows {
		if row.Name != names[i] {
			t.Errorf("row %d: %s, want %s", i, row.Name, names[i])
		}
		if !(row.Seconds() > 0) {
			t.Errorf("%s: %g seconds", row.Name, row.Seconds())
		}
		if limits[row.Limit] {
			if p := median(row.Percents()); !(p > 0) {
				t.Errorf("%s: %g percent of the limit", row.Name, p)
			}
		}
	}
}

func TestPatternsChooseRows(t *testing.T) {
	for pattern, want := range map[string]bool{
		"*": true, "gemm/*": true, "*M=8": true, "gemm*/M=?": true, "x,*class=float32/M=8": true,
		"gemm": false, "M=8": false, "gemm/*/M=.": false, "*M=88": false, "": false,
	} {
		matches, err := matcher(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := matches(&work{name: "gemm/W=128x64/type=f32/class=float32/M=8"}); got != want {
			t.Errorf("%q: %v, want %v", pattern, got, want)
		}
	}
	if _, err := Run(context.Background(), tiny(t, "no such row")); err == nil || !strings.Contains(err.Error(), `no row matches "no such row"`) {
		t.Errorf("got %v, want an error that names the pattern", err)
	}
}

// A product that leaves something out is fast, and must not become a figure.
func TestAWrongProductIsNotMeasured(t *testing.T) {
	m, err := newMeter(2, quick)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	g := &gemmGroup{matrix: matrix{n: 96, k: 64}, typ: kernel.F32}
	w := &work{name: "w", flop: 2 * 96 * 64 * 8, bytes: 96 * 64 * 4}
	closed, err := g.open(m, []*work{w})
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	if err := g.check(kernel.Float32, 8); err != nil {
		t.Fatal(err)
	}
	right := g.x[7*64+63]
	g.x[7*64+63] += 0.5 // the product is of this x, and what is checked
	if err := g.check(kernel.Float32, 8); err != nil {
		t.Errorf("of another x: %v", err)
	}
	g.x[7*64+63] = right
	other := kernel.Matrix{Type: kernel.F32, N: 96, K: 64, F32: make([]float32, 96*64)}
	for i := range other.F32 {
		if other.F32[i] = value(i); i%64 == 63 {
			other.F32[i] = 0 // as if the last term of every sum were left out
		}
	}
	mem, free, err := kernel.Alloc(kernel.PackedSize(other))
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	g.copies = []*kernel.Weights{m.pool.Pack(mem, other, kernel.Float32)}
	if err := g.check(kernel.Float32, 8); err == nil || !strings.Contains(err.Error(), "not measured") {
		t.Errorf("the last term is left out: got %v, want an error", err)
	}
}

func TestValuesAreExactInFloat16(t *testing.T) {
	for _, v := range values {
		h := halfOf(v)
		sign, exp, frac := 1.0, int(h>>10&31), float64(h&1023)
		if h>>15 == 1 {
			sign = -1
		}
		got := 0.0
		if h&0x7fff != 0 {
			got = sign * math.Ldexp(1+frac/1024, exp-15)
		}
		if got != float64(v) || math.Float32bits(v)&0xffff != 0 {
			t.Fatalf("%g as float16 %04x is %g", v, h, got)
		}
	}
}

func TestFormatsParse(t *testing.T) {
	r := quickly(t, "gemm/W=128x*/M=8,gemm/W=128x*/M=1")
	var b bytes.Buffer
	if err := r.WriteGo(&b); err != nil {
		t.Fatal(err)
	}
	reader, lines, units := benchfmt.NewReader(&b, "go"), 0, map[string]bool{}
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.Result:
			lines++
			if got, base := rec.GetConfig("conformance"), string(rec.Name.Base()); got != "passed" || base != "Gemm" {
				t.Errorf("conformance %q, name %q", got, base)
			}
			for _, v := range rec.Values {
				units[v.Unit] = true
				if !(v.Value > 0) {
					t.Errorf("%s: %g %s", rec.Name, v.Value, v.Unit)
				}
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if err := reader.Err(); err != nil {
		t.Error(err)
	}
	samples := 0
	for _, row := range r.Rows {
		samples += len(row.Counted())
	}
	if lines != samples || !units["sec/op"] || len(units) < 3 {
		t.Errorf("%d lines with the units %v, want %d", lines, units, samples)
	}

	b.Reset()
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Count(text, "%") < 2*len(r.Rows) || !strings.Contains(text, "conformance  passed: a test") || !strings.Contains(text, "QUICK") {
		t.Errorf("the table has no percentages or no verdict:\n%s", text)
	}
	b.Reset()
	if err := r.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), "\n| gemm/"); got != len(r.Rows) {
		t.Errorf("%d rows in Markdown, want %d", got, len(r.Rows))
	}

	b.Reset()
	if err := r.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(&b)
	for {
		if _, err := dec.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the drawing: %v", err)
		}
	}
}

func TestAFailedCheckIsInEveryOutput(t *testing.T) {
	r := known()
	r.Conformance = Conformance{false, "the projector is wrong"}
	for name, write := range map[string]func(io.Writer) error{"text": r.WriteText, "markdown": r.WriteMarkdown, "go": r.WriteGo, "json": r.WriteJSON, "svg": r.WriteSVG} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if s := b.String(); !strings.Contains(s, "NOT CONFORMANT") && !strings.Contains(s, "conformance: FAILED") && !strings.Contains(s, `"passed": false`) {
			t.Errorf("%s does not say so:\n%s", name, s)
		}
	}
}

// known is a result with figures that can be calculated by hand: 50 percent of 200 GFLOP/s, and 80 percent of 50 GB/s.
func known() Result {
	r := Result{Format: Format, Machine: Machine{CPU: "Test", Arch: "amd64", OS: "linux", Cores: 2}, Threads: 2, Model: "m", Conformance: Conformance{Passed: true}}
	r.Limits = []Limit{{"fma", "GFLOP/s", 200, 190, 210, 9}, {"read", "GB/s", 50, 49, 51, 9}}
	a, b := Row{Name: "gemm/a", Limit: "fma", FLOP: 1e9, Bytes: 1e6}, Row{Name: "gemm/b", Limit: "read", FLOP: 1e6, Bytes: 4e8}
	for _, jitter := range []float64{0, 0.002, -0.002, 0.001, -0.001, 0, 0.001} {
		a.Samples = append(a.Samples, Sample{Seconds: 0.01 * (1 + jitter), Limit: 200})
		b.Samples = append(b.Samples, Sample{Seconds: 0.01 * (1 + jitter), Limit: 50})
	}
	r.Rows = []Row{a, b}
	return r
}

func TestPercentIsOfTheLimitMeasuredBeside(t *testing.T) {
	r := known()
	if got := median(r.Rows[0].Percents()); got != 50 {
		t.Errorf("got %g percent of fma, want 50", got)
	}
	if got := median(r.Rows[1].Percents()); got != 80 {
		t.Errorf("got %g percent of read, want 80", got)
	}
	// The whole machine at half its clock: other times, the same percentage.
	for i := range r.Rows[0].Samples {
		r.Rows[0].Samples[i].Seconds *= 2
		r.Rows[0].Samples[i].Limit /= 2
	}
	if got := median(r.Rows[0].Percents()); got != 50 {
		t.Errorf("at half the clock: got %g percent, want 50", got)
	}
}

func TestDisturbedSamplesDoNotCountWhereThereAreOthers(t *testing.T) {
	row := Row{Name: "r", Limit: "fma", FLOP: 1e9}
	for i := range 6 {
		row.Samples = append(row.Samples, Sample{Seconds: 1, Limit: 1, Disturbed: i%2 == 0})
	}
	if got := len(row.Counted()); got != 3 {
		t.Errorf("%d count, want the 3 that nobody disturbed", got)
	}
	row.Samples = row.Samples[:4]
	if got := len(row.Counted()); got != 4 {
		t.Errorf("%d count, want all 4: two are too few", got)
	}
}

func TestJSONComesBackAsItWas(t *testing.T) {
	want := quickly(t, "gemm/W=128x*/M=8")
	path := filepath.Join(t.TempDir(), "r.json")
	var b bytes.Buffer
	if err := want.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := got.WriteJSON(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("got\n%s\nwant\n%s", again.Bytes(), b.Bytes())
	}
}

func TestHostileFilesAreRefused(t *testing.T) {
	edit := func(f func(r *Result)) []byte {
		r := known()
		f(&r)
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                {nil, "not a result"},
		"no JSON":              {[]byte("BenchmarkX 1 1 ns/op\n"), "not a result"},
		"another format":       {edit(func(r *Result) { r.Format = 2 }), "format 2, want 1"},
		"other types":          {[]byte(`{"format":1,"rows":7}`), "not a result"},
		"a list":               {[]byte(`[]`), "not a result"},
		"no time":              {edit(func(r *Result) { r.Rows[0].Samples[1].Seconds = 0 }), "0 seconds"},
		"a negative time":      {edit(func(r *Result) { r.Rows[0].Samples[1].Seconds = -1 }), "-1 seconds"},
		"a denormal time":      {edit(func(r *Result) { r.Rows[0].Samples[1].Seconds = 1e-300 }), "1e-300 seconds"},
		"a negative limit":     {edit(func(r *Result) { r.Rows[0].Samples[1].Limit = -1 }), "limit of -1"},
		"no work":              {edit(func(r *Result) { r.Rows[0].FLOP = 0 }), "want work"},
		"negative bytes":       {edit(func(r *Result) { r.Rows[0].Bytes = -1 }), "want work"},
		"no samples":           {edit(func(r *Result) { r.Rows[0].Samples = nil }), "0 samples"},
		"two rows of one name": {edit(func(r *Result) { r.Rows[1].Name = r.Rows[0].Name }), "a name of its own"},
		"no name":              {edit(func(r *Result) { r.Rows[1].Name = "" }), "a name of its own"},
		"an unknown limit":     {edit(func(r *Result) { r.Rows[1].Limit = "luck" }), `limit "luck"`},
		"control characters":   {edit(func(r *Result) { r.Rows[1].Name = "a\x1b[2J" }), "control characters"},
		"a line in the CPU":    {edit(func(r *Result) { r.Machine.CPU = "a\nBenchmarkX 1 1 ns/op" }), "control characters"},
		"a long text":          {edit(func(r *Result) { r.Model = strings.Repeat("m", maxText+1) }), "want at most"},
		"too long":             {append(edit(func(*Result) {}), bytes.Repeat([]byte(" "), maxFile)...), "longer than"},
		"too many rows": {edit(func(r *Result) {
			for len(r.Rows) <= maxRows {
				r.Rows = append(r.Rows, Row{Samples: []Sample{}})
			}
		}), "10001 rows"},
	} {
		if _, err := parse(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := ReadFile(t.TempDir()); err == nil {
		t.Error("a folder is taken for a result")
	}
}

func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := known().WriteJSON(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"format":1,"rows":[{"name":"a","limit":"fma","flop":1e15,"samples":[{"seconds":1e-15}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil {
			return
		}
		for _, write := range []func(io.Writer) error{r.WriteText, r.WriteGo, r.WriteMarkdown, r.WriteJSON} {
			if err := write(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := Compare(&r, nil, r, 3); err == nil && c.Count(Slower)+c.Count(Faster) > 0 {
			t.Fatalf("differs from itself: %+v", c)
		}
	})
}

// scaled is known with its first row at so much of its speed.
func scaled(by float64) Result {
	r := known()
	for i := range r.Rows[0].Samples {
		r.Rows[0].Samples[i].Seconds /= by
	}
	return r
}

func TestCompareFindsWhatChanged(t *testing.T) {
	for _, c := range []struct {
		name string
		new  Result
		want Verdict
	}{
		{"nothing", known(), Same},
		{"a tenth slower", scaled(0.9), Slower}, // 45 percent of the limit, 5 points less
		{"a tenth faster", scaled(1.1), Faster},
		{"below the threshold", scaled(0.98), Same},
	} {
		old := known()
		got, err := Compare(&old, nil, c.new, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got.Rows[0].Verdict != c.want || got.Rows[1].Verdict != Same {
			t.Errorf("%s: %+v, want %s", c.name, got.Rows, c.want)
		}
	}
}

func TestCompareDoesNotTakeNoiseForChange(t *testing.T) {
	loud := func(by float64) Result {
		r := scaled(by)
		for i, f := range []float64{0.7, 1.4, 1, 0.8, 1.3, 1.5, 0.75} {
			r.Rows[0].Samples[i].Seconds *= f
		}
		return r
	}
	old := loud(1)
	got, err := Compare(&old, nil, loud(0.9), 3)
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows[0].Verdict != Unclear {
		t.Errorf("%+v, want unclear", got.Rows[0])
	}
	if got, err = Compare(&old, nil, loud(0.3), 3); err != nil || got.Rows[0].Verdict != Slower {
		t.Errorf("%+v, %v, want slower: no noise is as large", got.Rows[0], err)
	}
	// Samples that agree among themselves, in two runs of one program that do not.
	quiet, again := known(), scaled(0.92)
	if got, err = Compare(&quiet, &again, scaled(0.93), 3); err != nil || got.Rows[0].Verdict != Unclear {
		t.Errorf("%+v, %v, want unclear: the old program differs from itself by as much", got.Rows[0], err)
	}
	// One sample says nothing of its noise, two runs do.
	one := func(by float64) Result {
		r := scaled(by)
		r.Rows[0].Samples = r.Rows[0].Samples[:1]
		return r
	}
	quiet, again = one(1), one(1.001)
	if got, err = Compare(&quiet, nil, one(0.9), 3); err != nil || got.Rows[0].Verdict != Unclear {
		t.Errorf("%+v, %v, want unclear: one sample", got.Rows[0], err)
	}
	if got, err = Compare(&quiet, &again, one(0.9), 3); err != nil || got.Rows[0].Verdict != Slower {
		t.Errorf("%+v, %v, want slower", got.Rows[0], err)
	}
}

func TestWhatCannotBeComparedIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *Result)
		want   string
	}{
		"another processor": {func(r *Result) { r.Machine.CPU = "Other" }, "processor"},
		"other threads":     {func(r *Result) { r.Threads = 1 }, "threads"},
		"another model":     {func(r *Result) { r.Model = "n" }, "model"},
		"a row less":        {func(r *Result) { r.Rows = r.Rows[:1] }, "no row gemm/b"},
		"other work":        {func(r *Result) { r.Rows[0].FLOP *= 2 }, "not the same work"},
		"no limit":          {func(r *Result) { r.Rows[0].Samples = []Sample{{Seconds: 1}} }, "no limit was measured"},
	} {
		old, now := known(), known()
		c.change(&now)
		if _, err := Compare(&old, nil, now, 3); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	old := known()
	old.Rows = nil
	if _, err := Compare(&old, nil, known(), 3); err == nil {
		t.Error("nothing was compared, and that is no error")
	}
	if _, err := Compare(&old, nil, known(), math.NaN()); err == nil {
		t.Error("a threshold of NaN is none")
	}
}

func TestTheFormatHasAllKeys(t *testing.T) {
	var b bytes.Buffer
	if err := known().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"format", "date", "program", "machine", "implementation", "threads", "model", "quick", "conformance", "peak_memory", "limits", "rows"} {
		if _, ok := m[key]; !ok {
			t.Errorf("no key %q", key)
		}
	}
}

// What a third-level cache has kept of the last measurement must not be read by the next.
func TestPartsOfMemoryTakeTurns(t *testing.T) {
	m, err := newMeter(1, quick)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.part = len(m.region) / 4
	for i := range 8 {
		if want := i % 4 * m.part; m.at != want {
			t.Fatalf("measurement %d begins at byte %d of %d, want %d", i, m.at, len(m.region), want)
		}
		if rate := m.limit(kernel.Read); !(rate > 0) {
			t.Fatalf("measurement %d: %v GB/s", i, rate)
		}
		m.limit(kernel.FMA) // takes no turn
	}
	if readRegion%readPart != 0 || readRegion/readPart < 4 {
		t.Errorf("a region of %d bytes, of which a measurement reads %d", readRegion, readPart)
	}
}
