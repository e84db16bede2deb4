package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// mutant is an engine with bugs of the catalogue. An image has as many rows as the bug makes of it; the prompt has as many image tokens as it is given.
type mutant struct {
	config  shapes.Config
	weights shapes.Weights
	bugs    []diagnose.Bug
	shows   func(n shapes.Node) bool // nil is all
}

func (m mutant) Info() conformance.Info {
	return conformance.Info{Name: "mutant", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 16}}
}

func (m mutant) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	model, err := diagnose.NewModel(m.config, m.weights, in, compare.F32)
	if err != nil {
		return shapes.Tensor{}, err
	}
	values, err := model.Run(m.bugs, nil)
	if err != nil {
		return shapes.Tensor{}, err
	}
	for _, n := range model.Nodes() {
		if m.shows == nil || m.shows(n) {
			probe(n.Name, values[n.Name])
		}
	}
	return values[shapes.LMHead], nil
}

// ownPrompt is an engine that packs one prompt by a bug of the catalogue and makes as many image tokens of it as there are rows, whatever it is given.
type ownPrompt struct {
	mutant
	prompt shapes.Inputs
	swap   func(n shapes.Node) shapes.Node // evaluates this node in the place of n, behind the packing
	hides  string                          // a node that it does not show
}

func (o ownPrompt) Forward(_ shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	model, err := diagnose.NewModel(o.config, o.weights, o.prompt, compare.F32)
	if err != nil {
		return shapes.Tensor{}, err
	}
	values, err := model.Run(o.bugs, nil)
	if err != nil {
		return shapes.Tensor{}, err
	}
	in, image := o.prompt, o.config.ImageTokenID
	first := slices.Index(in.InputIDs, image)
	text := slices.DeleteFunc(slices.Clone(in.InputIDs), func(id int) bool { return id == image })
	in.InputIDs, in.PositionIDs = slices.Insert(text, first, slices.Repeat([]int{image}, values[shapes.NodePack].Rows())...), nil
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	eval, err := replay.New(o.config, o.weights, in)
	if err != nil {
		return shapes.Tensor{}, err
	}
	behind := false
	for _, n := range model.Nodes() {
		if behind {
			inputs := make([]shapes.Tensor, len(n.Inputs))
			for i, name := range n.Inputs {
				inputs[i] = values[name]
			}
			as := n
			if o.swap != nil {
				as = o.swap(n)
			}
			if values[n.Name], err = eval.Eval(as, inputs); err != nil {
				return shapes.Tensor{}, err
			}
		}
		behind = behind || n.Name == shapes.NodePack
		if n.Name != o.hides {
			probe(n.Name, values[n.Name])
		}
	}
	return values[shapes.LMHead], nil
}

// mutated opens an engine with bugs of the catalogue, by their keys.
func mutated(t *testing.T, shows func(n shapes.Node) bool, keys ...string) conformance.Opener {
	t.Helper()
	m := mutant{shows: shows}
	all := diagnose.Catalogue()
	for _, key := range keys {
		i := slices.IndexFunc(all, func(b diagnose.Bug) bool { return b.Key() == key })
		if i < 0 {
			t.Fatalf("no bug %s in the catalogue", key)
		}
		m.bugs = append(m.bugs, all[i])
	}
	return func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
		e := m
		e.config, e.weights = c, w
		return e, nil
	}
}

// TestAnotherConventionIsNoBug: an engine that follows a published rule gets a verdict and an exit code of its own, with what the rule changes; one bug
// beside it, and the engine is not conformant.
func TestAnotherConventionIsNoBug(t *testing.T) {
	partly := func(n shapes.Node) bool { // no value of the two layers behind the image
		return !strings.HasPrefix(n.Name, shapes.TextLayer(0)) && !strings.HasPrefix(n.Name, shapes.TextLayer(1))
	}
	for _, c := range []struct {
		name, at string
		bugs     []string
		shows    func(n shapes.Node) bool
		allow    string
		code     int
		verdict  string // how it begins
		says     []string
	}{
		{"the original LLaVA's canvas", "photo-1x2-portrait", []string{"P01"}, nil, "", exitConvention, "other convention: the original LLaVA's canvas. mutant",
			[]string{"other convention: the original LLaVA's canvas: ", "(P01)", "or likely cause: of two canvases that are equally good the later one is taken (P03)", "In tiny-1.6/photo-1x2-portrait: 46 image tokens for 36."}},
		{"packing of transformers before 4.47", "photo-1x3", []string{"K11"}, nil, "", exitConvention, "other convention: transformers before 4.47. mutant", []string{"In tiny-1.6/photo-1x3: 42 image tokens for 68."}},
		{"one that is allowed by its name", "photo-1x3", []string{"K11"}, nil, "transformers before 4.47", exitConformant, "other convention: transformers before 4.47. mutant", []string{"It is allowed here."}},
		{"one that is allowed by its id", "photo-1x3", []string{"K11"}, nil, "K11", exitConformant, "other convention: transformers before 4.47. mutant", []string{"It is allowed here."}},
		{"another one is allowed", "photo-1x3", []string{"K11"}, nil, "P01", exitConvention, "other convention: transformers before 4.47. mutant", nil},
		{"a bug behind it", "photo-1x2-portrait", []string{"P01", "C02/1e-06"}, nil, "", exitNotConformant, "not conformant: ", []string{"(C02)", "besides, another convention: pack_image_features"}},
		{"a bug before it", "photo-1x2-portrait", []string{"J01/GELU with tanh", "P01"}, nil, "", exitNotConformant, "not conformant: ", []string{"(J01)", "besides, another convention: pack_image_features"}},
		{"a bug behind it, and the convention is allowed", "photo-1x2-portrait", []string{"P01", "C02/1e-06"}, nil, "P01", exitNotConformant, "not conformant: ", []string{"(C02)"}},
		{"what is behind it is not exposed", "photo-1x2-portrait", []string{"P01"}, partly, "", exitConvention, "other convention: ", []string{"whether there is a bug as well cannot be told"}},
		{"another way to pack that is a bug", "photo-1x3", []string{"K01"}, nil, "", exitNotConformant, "not conformant: ", []string{"(K01)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			args := []string{"check", "--model", "tiny-1.6", "--case", c.at, "--engine", "planted"}
			if c.allow != "" {
				args = append(args, "--allow-convention", c.allow)
			}
			code := run(t.Context(), args, &out, &errs, func(string) (conformance.Opener, error) { return mutated(t, c.shows, c.bugs...), nil })
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if code != c.code || !strings.HasPrefix(lines[len(lines)-1], c.verdict) || errs.Len() > 0 {
				t.Errorf("exit code %d, want %d; stderr %q\n%s", code, c.code, errs.String(), out.String())
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}

// TestAConventionThatMakesAnotherPrompt: an engine that goes by another number of image tokens has tensors of other shapes in every node behind them. They
// are judged on the prompt as the convention makes it, by their own inputs, whether the engine is asked or has left a dump.
func TestAConventionThatMakesAnotherPrompt(t *testing.T) {
	eps := func(n shapes.Node) shapes.Node {
		if n.Kind == shapes.RMSNorm {
			n.Eps = 1e-6
		}
		return n
	}
	dumped := func(t *testing.T, e conformance.Engine, c *golden.Case, dir string) {
		w, err := dump.Create(dir, e.Info(), c.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		w.Of("tiny-1.6", c.Name)
		if _, err := e.Forward(c.Inputs, w.Probe); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	set, err := golden.Embedded("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, at string
		bug      string
		swap     func(n shapes.Node) shapes.Node
		dump     bool
		hides    string // a node that the engine does not show
		lists    string // inventory.json
		code     int
		says     []string
	}{
		{"asked", "photo-1x2-portrait", "P01", nil, false, "", "", exitConvention, []string{"other convention: the original LLaVA's canvas. mutant", "928 of 928 nodes checked", "46 image tokens for 36"}},
		{"a dump", "photo-1x3", "K11", nil, true, "", "", exitConvention, []string{"other convention: transformers before 4.47. mutant", "928 of 928 nodes checked", "42 image tokens for 68"}},
		{"a dump, and a bug behind", "photo-1x3", "K11", eps, true, "", "", exitNotConformant, []string{"not conformant", "(C02)", "besides, another convention: pack_image_features"}},
		{"a node behind is not shown", "photo-1x3", "K11", nil, true, shapes.TextLayer(3), "", exitConvention, []string{"927 of 928 nodes checked"}},
		{"a bug that makes another prompt", "photo-1x3", "K01", nil, true, "", "", exitNotConformant, []string{"not conformant", "(K01)"}},
		{"a dump, and a wrong list of parameters", "photo-1x3", "K11", nil, true, "", `{"x": {"shape": [1]}}`, exitNotConformant, []string{"not conformant", "First at parameters, in", "none of 1 names"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opened, err := mutated(t, nil, c.bug)(set.Config, checkpoint.Synthetic(set.Config, *set.Manifest.Weights.Seed))
			if err != nil {
				t.Fatal(err)
			}
			truth, err := set.Case(c.at)
			if err != nil {
				t.Fatal(err)
			}
			e := ownPrompt{opened.(mutant), truth.Inputs, c.swap, c.hides}
			engine, find := "planted", finder(func(string) (conformance.Opener, error) {
				return func(shapes.Config, shapes.Weights) (conformance.Engine, error) { return e, nil }, nil
			})
			if c.dump {
				dir := filepath.Join(t.TempDir(), "dump")
				dumped(t, e, truth, dir)
				engine, find = "dir:"+dir, engines.Find
				if c.lists != "" {
					if err := os.WriteFile(filepath.Join(dir, dump.InventoryFile), []byte(c.lists), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"check", "--model", "tiny-1.6", "--case", c.at, "--engine", engine}, &out, &errs, find)
			if code != c.code || errs.Len() > 0 {
				t.Errorf("exit code %d, want %d; stderr %q\n%s", code, c.code, errs.String(), out.String())
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
			t.Log(out.String())
		})
	}
}

func TestWhatIsNoConventionCannotBeAllowed(t *testing.T) {
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"check", "--model", "tiny-1.5", "--case", "text", "--allow-convention", "K01"}, &out, &errs, nil)
	if code != exitUsage || !strings.Contains(errs.String(), `--allow-convention "K01" is no convention, want one of`) {
		t.Errorf("exit code %d, want %d: %s", code, exitUsage, errs.String())
	}
}

// Every id under which a check shows a convention can be allowed, and so can its name.
func TestConventionsAreAllowedByNameAndById(t *testing.T) {
	for _, name := range []string{"P01", "K11", "P11b", "P45a", "P23", "P34", "M16", "pillow-13", "torchvision", "metaspace", "the original LLaVA's canvas"} {
		if err := knownConventions([]string{name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := knownConventions([]string{""}); err == nil {
		t.Error("no name at all is allowed")
	}
}
