package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// made is a CPU profile with these seconds in every cell, as the runtime writes it.
func made(t testing.TB, row string, passes string, cells map[Cell]float64) []byte {
	t.Helper()
	work := &profile.Function{ID: 1, Name: "github.com/llavaref/llavaref/fast/kernel.work"}
	reach := &profile.Function{ID: 2, Name: "github.com/llavaref/llavaref/fast/kernel.(*Pool).reach"}
	gc := &profile.Function{ID: 3, Name: "runtime.gcBgMarkWorker"}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7,
		Function: []*profile.Function{work, reach, gc},
		Location: []*profile.Location{{ID: 1, Line: []profile.Line{{Function: work}}}, {ID: 2, Line: []profile.Line{{Function: reach}}}, {ID: 3, Line: []profile.Line{{Function: gc}}}},
	}
	add := func(loc int, labels map[string][]string, seconds float64) {
		p.Sample = append(p.Sample, &profile.Sample{Location: p.Location[loc : loc+1], Label: labels, Value: []int64{1, int64(seconds * 1e9)}})
	}
	for c, s := range cells {
		add(0, map[string][]string{"layer": {c.Layer}, "op": {c.Op}}, s)
	}
	add(1, nil, 3)
	add(2, nil, 0.25)
	if row != "" {
		p.Comments = []string{rowComment + row, passesComment + passes}
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, data []byte) Profile {
	t.Helper()
	p, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var usual = map[Cell]float64{{"vision.0", "mlp.fc1"}: 1, {"vision.10", "mlp.fc1"}: 2, {"vision.2", "attention"}: 4, {"text.1", "attention"}: 0.5, {"lm_head", "lm_head"}: 0.25}

func TestTimesAreAddedUpByLayerAndOperation(t *testing.T) {
	p := read(t, made(t, "prefill", "2", usual))
	if p.Row != "prefill" || p.Passes != 2 {
		t.Errorf("%q, %d passes", p.Row, p.Passes)
	}
	if got := p.Total(); got != 8 { // and the runtime's 0.25, without the limits' 3
		t.Errorf("total %g, want 8", got)
	}
	if p.Limits != 3 {
		t.Errorf("limits %g, want 3", p.Limits)
	}
	m := p.Merge()
	for c, want := range map[Cell]float64{{"vision.*", "mlp.fc1"}: 3, {"vision.*", "attention"}: 4, {"text.*", "attention"}: 0.5, {"lm_head", "lm_head"}: 0.25, {"", "(Go's runtime)"}: 0.25} {
		if m.Cells[c] != want {
			t.Errorf("%v: %g, want %g", c, m.Cells[c], want)
		}
	}
	var b bytes.Buffer
	if err := p.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prefill, 2 passes", "attention ", "2250.00", "56.2%", "100.0%"} { // 4.5 s in 2 passes, of 8
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := p.WriteLayers(&b); err != nil {
		t.Fatal(err)
	}
	two, ten := strings.Index(b.String(), "vision.2 "), strings.Index(b.String(), "vision.10 ")
	if two < 0 || ten < two {
		t.Errorf("vision.2 does not stand before vision.10:\n%s", b.String())
	}
}

func TestCompareSaysWhereARegressionComesFrom(t *testing.T) {
	worse := map[Cell]float64{}
	for c, s := range usual {
		worse[c] = 2 * s // in twice as many passes: the same
	}
	worse[Cell{"text.1", "attention"}] = 3 // three times as much
	d, err := Compare(read(t, made(t, "prefill", "2", usual)), read(t, made(t, "prefill", "4", worse)))
	if err != nil {
		t.Fatal(err)
	}
	if c := d.Changes[0]; c.Cell != (Cell{"text.*", "attention"}) || c.Old != 250 || c.New != 750 {
		t.Errorf("the largest change is %+v, want attention of text from 250 to 750 ms", c)
	}
	for _, c := range d.Changes[2:] {
		if c.Old != c.New {
			t.Errorf("%+v has not changed", c)
		}
	}
	var b bytes.Buffer
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "+200.0%") {
		t.Errorf("got\n%s", b.String())
	}
	if _, err := Compare(read(t, made(t, "prefill", "2", usual)), read(t, made(t, "decode", "2", usual))); err == nil {
		t.Error("two rows were compared as if they were one")
	}
	if d, err = Compare(read(t, made(t, "", "", usual)), read(t, made(t, "", "", usual))); err != nil || d.Unit != "% of the total" {
		t.Errorf("without passes: %+v, %v", d, err)
	}
}

// What is recorded here has the labels that were on, and comes back.
func TestRecordKeepsLabelsAndPasses(t *testing.T) {
	var b bytes.Buffer
	sum := 0.0
	err := Record(&b, "a row", func() (int, error) {
		pprof.Do(context.Background(), pprof.Labels("layer", "text.3", "op", "spin"), func(context.Context) {
			for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
				for i := range 100_000 {
					sum += float64(i)
				}
			}
		})
		return 7, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cpu.prof")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if p.Row != "a row" || p.Passes != 7 || p.Cells[Cell{"text.3", "spin"}] == 0 {
		t.Errorf("%+v (%g)", p, sum)
	}
	if err := Record(io.Discard, "", func() (int, error) { return 0, io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("got %v, want the error of what ran", err)
	}
}

func TestHostileProfilesAreRefused(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, zeros{}, 1<<26); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	heap := &profile.Profile{SampleType: []*profile.ValueType{{Type: "alloc_space", Unit: "bytes"}}}
	var other bytes.Buffer
	if err := heap.Write(&other); err != nil {
		t.Fatal(err)
	}
	whole := made(t, "r", "1", usual)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "empty"},
		"text":              {[]byte("not a profile at all"), "not a profile"},
		"cut":               {whole[:len(whole)/2], "not a profile"},
		"a gzip bomb":       {bomb.Bytes(), "when unpacked"},
		"long":              {make([]byte, maxFile+1), "longer than"},
		"of another kind":   {other.Bytes(), "not a CPU profile"},
		"a negative sample": {made(t, "r", "1", map[Cell]float64{{"a", "b"}: -1}), "a sample of -1000000000"},
	} {
		if _, err := parse(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := parse(bomb.Bytes()); err == nil {
		t.Error("a gzip bomb is taken for a profile")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
		t.Errorf("a file of %d bytes took %d bytes", bomb.Len(), n)
	}
	p := read(t, made(t, "r\x1b[2J\n", "-3", map[Cell]float64{{"text.1\n", strings.Repeat("o", 5000)}: 1}))
	var b bytes.Buffer
	if err := p.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if p.Passes != 0 || strings.ContainsAny(b.String(), "\x1b\r") || b.Len() > 20_000 {
		t.Errorf("%d passes, %d bytes: %.200q", p.Passes, b.Len(), b.String())
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzParse(f *testing.F) {
	f.Add(made(f, "r", "1", usual))
	var plain bytes.Buffer
	p, err := profile.ParseData(made(f, "r", "1", usual))
	if err != nil {
		f.Fatal(err)
	}
	if err := p.WriteUncompressed(&plain); err != nil {
		f.Fatal(err)
	}
	f.Add(plain.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parse(data)
		if err != nil {
			return
		}
		if err := p.WriteText(io.Discard); err != nil {
			t.Fatal(err)
		}
		if err := p.WriteLayers(io.Discard); err != nil {
			t.Fatal(err)
		}
		if d, err := Compare(p, p); err == nil {
			if err := d.WriteText(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
	})
}
