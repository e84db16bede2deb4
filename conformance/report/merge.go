package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// Merged is what several runs of one engine say of its levels.
type Merged struct{ doc jsonLevels }

// levelOrder is which of two runs speaks for a level: the worse one, and any that tested it before one that did not.
var levelOrder = []string{levelUntested, levelPass, levelPartial, levelOther, levelError, levelFail}

// MergeLevels puts the levels of several runs together, each as Levels has written it, under the names of their files. They have to be of one
// engine, judged as one class, on the same weights.
func MergeLevels(names []string, files [][]byte) (Merged, error) {
	var out jsonLevels
	untested := false // something in a run could not be, though no level may say so
	for i, data := range files {
		d, err := readLevels(data)
		if err != nil {
			return Merged{}, fmt.Errorf("%s: %w", names[i], err)
		}
		untested = untested || d.Status == conformance.Error.String()
		if i == 0 {
			out = d
			continue
		}
		if !reflect.DeepEqual(d.Engine, out.Engine) || d.Class != out.Class {
			return Merged{}, fmt.Errorf("%s is of %s, judged as %s, and %s of %s, judged as %s: levels of one engine and class can be put together",
				names[0], inWords(out.Engine), out.Class, names[i], inWords(d.Engine), d.Class)
		}
		if err := out.sets(d.Sets); err != nil {
			return Merged{}, fmt.Errorf("%s: %w", names[i], err)
		}
		for k, l := range d.Levels {
			if slices.Index(levelOrder, l.Status) > slices.Index(levelOrder, out.Levels[k].Status) {
				out.Levels[k] = l
			}
		}
		for _, c := range d.Conventions {
			if !slices.Contains(out.Conventions, c) {
				out.Conventions = append(out.Conventions, c)
			}
		}
		if d.Llavaref != out.Llavaref {
			out.Llavaref = ""
		}
	}
	if out.Status = out.worst(); untested && out.Status != conformance.Fail.String() {
		out.Status = conformance.Error.String()
	}
	message, _ := badge(out)
	out.Verdict = fmt.Sprintf("%s of %s: %s.", count(len(files), "run"), out.Engine.Name, message)
	return Merged{out}, nil
}

// sets adds the sets of another run, and wants those that both have to be the same.
func (d *jsonLevels) sets(other []jsonLevelsSet) error {
	for _, s := range other {
		i := slices.IndexFunc(d.Sets, func(t jsonLevelsSet) bool { return t.Name == s.Name })
		switch {
		case i < 0:
			d.Sets = append(d.Sets, s)
		case d.Sets[i].SHA256 != s.SHA256:
			return fmt.Errorf("set %q has weights of sha256 %q, and %q in another file: they are two sets", s.Name, s.SHA256, d.Sets[i].SHA256)
		default:
			d.Sets[i].Run = max(d.Sets[i].Run, s.Run)
		}
	}
	return nil
}

// worst is the status of all levels together.
func (d *jsonLevels) worst() string {
	has := func(status string) bool {
		return slices.ContainsFunc(d.Levels, func(l level) bool { return l.Status == status })
	}
	switch {
	case has(levelFail):
		return conformance.Fail.String()
	case has(levelError):
		return conformance.Error.String()
	case has(levelOther):
		return conformance.Convention.String()
	case has(levelPass) || has(levelPartial):
		return conformance.Pass.String()
	}
	return conformance.Error.String()
}

// maxListed is how many sets or conventions a file may list, far above what there are: each is looked up among those of the other files.
const maxListed = 1000

// readLevels reads what Levels has written, and trusts nothing of it.
func readLevels(data []byte) (jsonLevels, error) {
	var d jsonLevels
	if err := json.Unmarshal(data, &d); err != nil {
		text := strings.TrimPrefix(err.Error(), "json: ")
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			text = fmt.Sprintf("%s that does not belong at byte %d", t.Value, t.Offset)
		}
		return d, fmt.Errorf("no levels, as check --report levels=PATH writes them: %s", text)
	}
	if d.Format != JSONFormat {
		return d, fmt.Errorf("format %d, want %d, as check --report levels=PATH writes it", d.Format, JSONFormat)
	}
	if !slices.ContainsFunc([]conformance.Status{conformance.Pass, conformance.Convention, conformance.Fail, conformance.Error}, func(s conformance.Status) bool { return s.String() == d.Status }) {
		return d, fmt.Errorf("status %.40q, want pass, convention, fail or error", d.Status)
	}
	if len(d.Sets) > maxListed || len(d.Conventions) > maxListed {
		return d, fmt.Errorf("%d sets and %d conventions, want at most %d of each", len(d.Sets), len(d.Conventions), maxListed)
	}
	if d.Engine.Name == "" || d.Class == "" {
		return d, fmt.Errorf("no engine or no class: its run could not be tested")
	}
	if len(d.Levels) != len(parts) {
		return d, fmt.Errorf("%d levels, want %d, as check --report levels=PATH writes them", len(d.Levels), len(parts))
	}
	for i, l := range d.Levels {
		if l.Name != parts[i].name || !slices.Contains(levelOrder, l.Status) {
			return d, fmt.Errorf("level %d is %.40q with status %.40q, want %s with one of %s", i, l.Name, l.Status, parts[i].name, strings.Join(levelOrder, ", "))
		}
	}
	return d, nil
}

func inWords(e jsonEngine) string {
	return strings.TrimSpace(fmt.Sprintf("%.80s %.80s", e.Name, e.Version)) + fmt.Sprintf(" (%.10s, %d lanes)", e.Class, e.Lanes)
}

// Badge writes the badge of all runs.
func (m Merged) Badge(w io.Writer) error { return writeBadge(w, m.doc) }

// Levels writes the levels of all runs.
func (m Merged) Levels(w io.Writer) error { return indented(w, m.doc) }

// Text writes a line for each level, and the verdict.
func (m Merged) Text(w io.Writer) error {
	for _, l := range m.doc.Levels {
		if _, err := fmt.Fprintf(w, "%-10s %-22s  %s\n", l.Status, l.Name, l.Note); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", m.doc.Verdict)
	return err
}

// Status is that of all levels together.
func (m Merged) Status() string { return m.doc.Status }
