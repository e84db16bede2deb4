package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/shapes"
)

// OpenDir makes engines of a folder with dumps: PATH is one dump, or has dumps under PATH/CASE or PATH/SET/CASE.
func OpenDir(path string) conformance.Opener {
	return func(c shapes.Config, _ shapes.Weights) (conformance.Engine, error) {
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s is no folder, want one with a dump (docs/dump-format.md)", path)
		}
		return dirEngine{caseOnly{"dir:" + path}, path, c}, nil
	}
}

// caseOnly is the part of a CaseEngine that cannot be asked without a case.
type caseOnly struct{ name string }

// Info is the name alone: what the engine declares stands in each dump.
func (e caseOnly) Info() conformance.Info { return conformance.Info{Name: e.name} }

// Forward is an error.
func (e caseOnly) Forward(shapes.Inputs, shapes.Probe) (shapes.Tensor, error) {
	return shapes.Tensor{}, errors.New("this engine answers for the cases of a golden set only")
}

type dirEngine struct {
	caseOnly
	path   string
	config shapes.Config
}

// ForCase finds the dump of a case.
func (e dirEngine) ForCase(_ context.Context, t conformance.Target, name string, only bool) (conformance.Engine, error) {
	set := t.Set.Manifest.Model
	for _, dir := range []string{filepath.Join(e.path, set, name), filepath.Join(e.path, name)} {
		if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("%s is a symbolic link, want a folder", dir)
		}
		if dump.IsDump(dir) {
			return openDump(dir, t, name, false)
		}
	}
	if dump.IsDump(e.path) {
		return openDump(e.path, t, name, !only)
	}
	if only {
		return nil, fmt.Errorf("%s has no %s, and neither has %s in it: want a dump, or dumps under %s or %s",
			e.path, dump.ManifestFile, name, filepath.Join(e.path, "CASE"), filepath.Join(e.path, "SET", "CASE"))
	}
	return nil, conformance.NotRun(fmt.Sprintf("no dump in %s", filepath.Join(e.path, name)))
}

// openDump opens the dump of a case. Where it may be the dump of another one, it must say of which it is.
func openDump(dir string, t conformance.Target, name string, ask bool) (conformance.Engine, error) {
	r, err := dump.Open(dir)
	if err != nil {
		return nil, err
	}
	e, err := bindDump(r, t, name, ask)
	if err != nil {
		r.Close()
		return nil, err
	}
	return e, nil
}

func bindDump(r *dump.Reader, t conformance.Target, name string, ask bool) (*dumpEngine, error) {
	set := t.Set.Manifest.Model
	for _, c := range []struct{ what, has, want string }{{"set", r.Manifest.Set, set}, {"case", r.Manifest.Case, name}} {
		if c.has != "" && c.has != c.want {
			return nil, conformance.NotRun(fmt.Sprintf("the dump is of %s %s", c.what, c.has))
		}
	}
	c, err := t.Set.Case(name)
	if err != nil {
		return nil, err
	}
	if err := r.CheckInputs(c.Inputs); err != nil {
		if ask {
			return nil, conformance.NotRun(err.Error())
		}
		return nil, err
	}
	if ask && r.Manifest.Case == "" && !r.HasIDs() {
		return nil, fmt.Errorf("the dump does not say of which case it is: choose it with --case, or write \"case\": %q into %s, or add input_ids.npy", name, dump.ManifestFile)
	}
	b, err := r.Bind(t.Set.Config, c.Inputs)
	if err != nil {
		return nil, err
	}
	return &dumpEngine{reader: r, binding: b, config: t.Set.Config}, nil
}

// maxOdd is of how many nodes arrays of another shape are kept for a diagnosis: a wrong number of image rows gives every node behind it another shape.
const maxOdd = 4

// dumpEngine replays one dump.
type dumpEngine struct {
	reader  *dump.Reader
	binding *dump.Binding
	config  shapes.Config
	broken  map[string]string        // nodes that could not be read
	odd     map[string]shapes.Tensor // nodes whose array has another shape
	out     string                   // of a command's dump: its folder, which goes away; errors call it --out
}

// named is an error of the dump without a path that is another one in each run.
func (e *dumpEngine) named(err error) error {
	if err == nil || e.out == "" {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), e.out, "--out"))
}

// Info is what the dump declares.
func (e *dumpEngine) Info() conformance.Info { return e.reader.Info() }

// Close closes the dump's files.
func (e *dumpEngine) Close() error { return e.reader.Close() }

// Forward shows the nodes in the order of execution, each read when it is shown.
func (e *dumpEngine) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	e.broken, e.odd = map[string]string{}, map[string]shapes.Tensor{}
	dims := shapes.DimsOf(e.config, in)
	var logits shapes.Tensor
	for _, n := range shapes.Nodes(e.config) {
		if !e.binding.Has(n.Name) {
			if len(e.odd) < maxOdd && n.Present(dims) {
				if t, ok := e.binding.Odd(n.Name, conformance.MostOdd(shapes.Product(n.Concrete(dims)))); ok {
					e.odd[n.Name] = t
				}
			}
			continue
		}
		t, err := e.binding.Read(n.Name)
		if err != nil {
			e.broken[n.Name] = e.named(err).Error()
			continue
		}
		if n.Name == shapes.LMHead {
			logits = t
			if t.Shape[0] < n.Concrete(dims)[0] {
				continue // the last rows are no node
			}
		}
		if probe != nil {
			probe(n.Name, t)
		}
	}
	return logits, nil
}

// Reprompt reads the same dump as that of another prompt.
func (e *dumpEngine) Reprompt(in shapes.Inputs) (conformance.Engine, error) {
	b, err := e.reader.Bind(e.config, in)
	if err != nil {
		return nil, err
	}
	return &dumpEngine{reader: e.reader, binding: b, config: e.config, out: e.out}, nil
}

// Inventory is the dump's list of parameters.
func (e *dumpEngine) Inventory() ([]shapes.Param, bool, error) {
	have, ok, err := e.reader.Inventory()
	return have, ok, e.named(err)
}

// Reread reads a node's array in other ways.
func (e *dumpEngine) Reread(node string) []conformance.Reading { return e.binding.Reread(node) }

// Report says what the dump does not have, and what of it is no node.
func (e *dumpEngine) Report() conformance.Report {
	r := conformance.Report{Missing: map[string]string{}, Wrong: map[string]string{}, Odd: e.odd, LastRows: e.binding.LastRows()}
	for _, n := range shapes.Nodes(e.config) {
		if text := e.binding.Wrong(n.Name); text != "" {
			r.Wrong[n.Name] = text
		} else if text := e.broken[n.Name]; text != "" {
			r.Wrong[n.Name] = text
		} else if text := e.binding.Missing(n.Name); text != "" {
			r.Missing[n.Name] = text
		}
	}
	if r.Wrong[shapes.LMHead] != "" {
		r.LastRows = false
	}
	if hint := e.binding.Hint; hint != "" {
		r.Notes = append(r.Notes, hint)
	}
	const most = 5
	if over := e.binding.Unused; len(over) > 0 {
		text := strings.Join(over[:min(most, len(over))], ", ")
		if len(over) > most {
			text += fmt.Sprintf(" and %d more", len(over)-most)
		}
		r.Notes = append(r.Notes, fmt.Sprintf("arrays of the dump that are no node under naming %s and the map: %s", e.reader.Manifest.Naming, text))
	}
	return r
}
