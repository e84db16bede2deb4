package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// levelsFile is a run's levels as a file, with some statuses.
func levelsFile(t *testing.T, statuses string, change func(d *jsonLevels)) []byte {
	t.Helper()
	d := levelsDoc(six())
	for i, s := range strings.Fields(statuses) {
		d.Levels[i] = level{parts[i].name, s, "of " + statuses}
	}
	if change != nil {
		change(&d)
	}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLevelsOfSeveralRunsAreMerged(t *testing.T) {
	for _, c := range []struct{ name, a, b, want, status, badge string }{
		{"two halves", "untested untested pass pass pass untested", "pass pass untested untested untested pass", "pass pass pass pass pass pass", "pass", "f32: 6 of 6 levels pass"},
		{"the worse one counts", "pass fail pass partial error untested", "fail pass partial pass pass untested", "fail fail partial partial error untested", "fail", "f32: inventory fails"},
		{"what could not be tested", "pass pass pass pass error untested", "pass pass pass pass pass untested", "pass pass pass pass error untested", "error", "could not test"},
		{"another convention", "pass convention pass pass pass pass", "pass pass pass pass pass pass", "pass convention pass pass pass pass", "convention", "f32: other convention: a rule"},
		{"nothing", "untested untested untested untested untested untested", "untested untested untested untested untested untested", "untested untested untested untested untested untested", "error", "could not test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := func(d *jsonLevels) {
				if strings.Contains(c.a, "convention") {
					d.Conventions = []string{"a rule"}
				}
			}
			m, err := MergeLevels([]string{"a", "b"}, [][]byte{levelsFile(t, c.a, other), levelsFile(t, c.b, nil)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range m.doc.Levels {
				got = append(got, l.Status)
			}
			message, _ := badge(m.doc)
			if g := strings.Join(got, " "); g != c.want || m.Status() != c.status || message != c.badge {
				t.Errorf("%s, %s, %s, want %s, %s, %s", g, m.Status(), message, c.want, c.status, c.badge)
			}
			var b bytes.Buffer
			if err := m.Levels(&b); err != nil {
				t.Fatal(err)
			}
			if _, err := readLevels(b.Bytes()); err != nil {
				t.Errorf("what is written cannot be read: %v", err)
			}
		})
	}
}

func TestLevelsThatCannotBeMergedAreRefused(t *testing.T) {
	const all = "pass pass pass pass pass pass"
	for _, c := range []struct {
		name string
		data []byte
		says string
	}{
		{"another engine", levelsFile(t, all, func(d *jsonLevels) { d.Engine.Name = "other" }), "levels of one engine"},
		{"another version", levelsFile(t, all, func(d *jsonLevels) { d.Engine.Version = "2" }), "levels of one engine"},
		{"another class", levelsFile(t, all, func(d *jsonLevels) { d.Class = "bf16" }), "judged as bf16"},
		{"other weights", levelsFile(t, all, func(d *jsonLevels) { d.Sets[0].SHA256 = "00" }), "two sets"},
		{"a level too few", levelsFile(t, all, func(d *jsonLevels) { d.Levels = d.Levels[1:] }), "5 levels, want 6"},
		{"a status that is none", levelsFile(t, "great pass pass pass pass pass", nil), `status "great"`},
		{"another format", levelsFile(t, all, func(d *jsonLevels) { d.Format = 2 }), "format 2, want 1"},
		{"a run that was not tested", levelsFile(t, all, func(d *jsonLevels) { d.Engine = jsonEngine{} }), "could not be tested"},
		{"a badge", []byte(`{"schemaVersion": 1}`), "format 0"},
		{"no JSON", []byte("levels"), "no levels"},
		{"nothing", nil, "no levels"},
		{"a list", []byte(`[1]`), "no levels, as check --report levels=PATH writes them: array that does not belong"},
		{"a word for a number", []byte(`{"format": "1"}`), "string that does not belong at byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := MergeLevels([]string{"a.json", "b.json"}, [][]byte{levelsFile(t, all, nil), c.data})
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "b.json") {
				t.Errorf("%v, want b.json and %q", err, c.says)
			}
		})
	}
}

// A run that could not test something, but for which no level says so, such as a case in which nothing was compared, is not lost among others.
func TestARunThatCouldNotTestIsNotMergedAway(t *testing.T) {
	const all = "pass pass pass pass pass pass"
	untested := levelsFile(t, all, func(d *jsonLevels) { d.Status = "error" })
	for _, files := range [][][]byte{{untested}, {untested, levelsFile(t, all, nil)}, {levelsFile(t, all, nil), untested}} {
		m, err := MergeLevels([]string{"a", "b"}, files)
		if err != nil {
			t.Fatal(err)
		}
		if message, colour := badge(m.doc); m.Status() != "error" || message != "could not test" || colour != "lightgrey" {
			t.Errorf("%d files: %s, %s, %s, want error", len(files), m.Status(), message, colour)
		}
	}
}

func TestHostileLevelsAreRefusedSoon(t *testing.T) {
	many := func(d *jsonLevels) {
		for i := range maxListed + 1 {
			d.Sets = append(d.Sets, jsonLevelsSet{Name: fmt.Sprint(i)})
		}
	}
	const all = "pass pass pass pass pass pass"
	for _, c := range []struct {
		name   string
		change func(d *jsonLevels)
		says   string
	}{
		{"sets without end", many, "sets"},
		{"conventions without end", func(d *jsonLevels) { d.Conventions = make([]string, maxListed+1) }, "conventions"},
		{"a status that is none", func(d *jsonLevels) { d.Status = "great" }, `status "great"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := MergeLevels([]string{"a.json"}, [][]byte{levelsFile(t, all, c.change)}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
