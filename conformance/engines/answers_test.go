package engines_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/shapes"
)

func openTarget(t *testing.T, name string) *answers.Target {
	t.Helper()
	target, release, err := answers.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release() })
	return target
}

// asked runs the cases of a set that a pattern chooses.
func asked(t *testing.T, engine string, target *answers.Target, cases string, only bool) conformance.Run {
	t.Helper()
	open, ok, err := engines.FindAnswers(engine, time.Minute)
	if err != nil || !ok {
		t.Fatalf("FindAnswers(%s): %v, %v", engine, ok, err)
	}
	return answers.Run(context.Background(), []*answers.Target{target}, answers.Options{Cases: cases, Only: only}, open)
}

func TestTheProjectsEnginesAnswerAsTransformers(t *testing.T) {
	for _, name := range endtoend.Names() {
		target := openTarget(t, name)
		for _, engine := range engines.Generators() {
			t.Run(name+"/"+engine, func(t *testing.T) {
				run := asked(t, engine, target, "", true)
				if run.Status() != conformance.Pass || run.Coverage().Skipped > 0 || len(run.Sets[0].Cases) != len(target.Set.Cases) {
					t.Errorf("%v, %+v, want all to pass", run.Status(), run.Coverage())
				}
				for _, c := range run.Sets[0].Cases {
					if c.First != nil || len(c.Problems) > 0 {
						t.Errorf("%s: %+v %+v", c.Name, c.First, c.Problems)
					}
				}
			})
		}
	}
}

// writeDump writes what transformers answered as an engine's dump.
func writeDump(t *testing.T, dir string, target *answers.Target, name string) {
	t.Helper()
	c, err := target.Set.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	in, err := target.Inputs(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := dump.Answer{ImageTokens: c.ImageTokens, Prompt: &c.Prompt, InputIDs: c.InputIDs(), NewIDs: c.NewIDs, Text: &c.Text}
	for _, s := range c.Sizes {
		a.ImageSizes = append(a.ImageSizes, s[:])
	}
	writeJSON(t, filepath.Join(dir, dump.AnswerFile), a)
	writeJSON(t, filepath.Join(dir, dump.ManifestFile), dump.Manifest{Format: 1, Engine: "parrot", Class: "f32", Lanes: 16, Set: target.Set.Name, Case: name})
	list := map[string]any{}
	for _, p := range target.Stored {
		list[p.Name] = map[string]any{"shape": p.Shape, "dtype": "F16"}
	}
	writeJSON(t, filepath.Join(dir, dump.InventoryFile), list)
	if in.PixelValues.Shape != nil {
		if err := npy.WriteFile(filepath.Join(dir, "pixel_values.npy"), in.PixelValues.Shape, in.PixelValues.Data); err != nil {
			t.Fatal(err)
		}
	}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDumpsOfConversationsAreFound(t *testing.T) {
	target := openTarget(t, "llava-next")
	for _, c := range []struct {
		name, at string
		spoil    func(m *dump.Manifest)
		cases    string
		want     conformance.Status
		says     string
	}{
		{"SET/CASE", "llava-next/image", func(m *dump.Manifest) { m.Set, m.Case = "", "" }, "image", conformance.Pass, ""},
		{"CASE, which says its set", "image", func(m *dump.Manifest) { m.Case = "" }, "image", conformance.Pass, ""},
		{"the folder itself", ".", nil, "image", conformance.Pass, ""},
		{"the folder itself, of many cases", ".", nil, "", conformance.Pass, "no dump of it in"},
		{"CASE of another set", "image", func(m *dump.Manifest) { m.Set = "llava" }, "image", conformance.Error, "no dump of it"},
		{"CASE without a set, which may be of a golden case", "image", func(m *dump.Manifest) { m.Set = "" }, "image", conformance.Error, "no dump of it"},
		{"SET/CASE that says another one", "llava-next/image", func(m *dump.Manifest) { m.Case = "strip" }, "image", conformance.Error, "is of set llava-next, case strip"},
		{"none", "nowhere", nil, "image", conformance.Error, "no dump of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, c.at)
			writeDump(t, dir, target, "image")
			m := dump.Manifest{Format: 1, Engine: "parrot", Class: "f32", Lanes: 16, Set: "llava-next", Case: "image"}
			if c.spoil != nil {
				c.spoil(&m)
			}
			writeJSON(t, filepath.Join(dir, dump.ManifestFile), m)
			run := asked(t, "dir:"+root, target, c.cases, true)
			if run.Status() != c.want || !strings.Contains(said(run), c.says) {
				t.Errorf("%v, %q, want %v, %q", run.Status(), said(run), c.want, c.says)
			}
		})
	}
}

// said is all that a run says went wrong.
func said(run conformance.Run) string {
	var out []string
	for _, s := range run.Sets {
		out = append(out, s.Reason)
		for _, c := range s.Cases {
			out = append(out, c.Reason)
			for _, p := range c.Problems {
				out = append(out, p.Text)
			}
			for _, stage := range c.Stages {
				for _, n := range stage.Nodes {
					for _, k := range n.Checks {
						out = append(out, k.Reason)
					}
				}
			}
		}
	}
	return strings.Join(out, "\n")
}

// A dump that cannot be read, and may be of another case or set, is no error among others, but it is said.
func TestABrokenDumpThatMayBeOfAnotherSetIsNamed(t *testing.T) {
	target := openTarget(t, "llava")
	root := t.TempDir()
	writeDump(t, filepath.Join(root, "llava", "text-only"), target, "text-only")
	writeDump(t, filepath.Join(root, "image"), target, "image")
	if err := os.WriteFile(filepath.Join(root, "image", dump.ManifestFile), []byte(`{"format": 1, "engine": "x"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	run := asked(t, "dir:"+root, target, "", true)
	if c := run.Sets[0].Cases[0]; c.Name != "image" || c.Status() != conformance.Skip || !strings.Contains(c.Reason, "no class") {
		t.Errorf("%s: %v, %q, want a skip that says what is wrong with the dump", c.Name, c.Status(), c.Reason)
	}
}

// Every file of a dump may be anything: each has to end in a sentence about it.
func TestHostileAnswersAreErrors(t *testing.T) {
	target := openTarget(t, "llava")
	for _, c := range []struct {
		name, file, content string
		want                conformance.Status
		says                string
	}{
		{"no object", "answer.json", `[1, 2]`, conformance.Error, "answer.json"},
		{"cut off", "answer.json", `{"new_ids": [1, 2`, conformance.Error, "answer.json"},
		{"empty", "answer.json", ``, conformance.Error, "empty"},
		{"a key that is not known", "answer.json", `{"newids": [1]}`, conformance.Error, `unknown field "newids"`},
		{"a key twice", "answer.json", `{"new_ids": [1], "new_ids": [2]}`, conformance.Error, "twice"},
		{"ids that are no integers", "answer.json", `{"new_ids": [1.5]}`, conformance.Error, "answer.json: new_ids: number 1.5, want a whole number"},
		{"ids beyond any", "answer.json", `{"new_ids": [9223372036854775807, -9223372036854775808]}`, conformance.Fail, "number 0 is 9223372036854775807"},
		{"numbers too large", "answer.json", `{"new_ids": [99999999999999999999999]}`, conformance.Error, "answer.json"},
		{"nested too deep", "answer.json", strings.Repeat(`[`, 100000), conformance.Error, "nested"},
		{"ids without end", "answer.json", `{"new_ids": [` + strings.Repeat("7,", 1<<20) + `7]}`, conformance.Error, "1048577 numbers"},
		{"more than a file may have", "answer.json", `{"text": "` + strings.Repeat("7", 17<<20) + `"}`, conformance.Error, "more than"},
		{"sizes that are no pairs", "answer.json", `{"image_sizes": [[1, 2, 3]]}`, conformance.Error, "[height, width]"},
		{"nothing in it", "answer.json", `{}`, conformance.Pass, ""}, // the inventory is
		{"an inventory that is no object of objects", "inventory.json", `{"a": [1, 2]}`, conformance.Error, "array, want an object"},
		{"an inventory without shapes", "inventory.json", `{"a": {}}`, conformance.Error, "want a shape"},
		{"an empty inventory", "inventory.json", `{}`, conformance.Fail, "none of 0 names"},
		{"an inventory of strangers", "inventory.json", `{"a\u0000` + strings.Repeat("b", 500) + `": {"shape": [-1, 0]}}`, conformance.Fail, "none of 1 names"},
		{"a shape of many numbers", "inventory.json", `{"a": {"shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}}`, conformance.Error, "at most 16"},
		{"pixels that claim to be large", "pixel_values.npy", "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 3, 336, 336), }" + strings.Repeat(" ", 46) + "\n", conformance.Error, "pixel_values"},
		{"pixels cut off", "pixel_values.npy", "\x93NUMPY", conformance.Error, "pixel_values"},
		{"a manifest without a class", "manifest.json", `{"format": 1, "engine": "x"}`, conformance.Error, "no class"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "llava", "image")
			writeDump(t, dir, target, "image")
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			run := asked(t, "dir:"+root, target, "image", true)
			if run.Status() != c.want || !strings.Contains(said(run), c.says) {
				t.Errorf("%v, %.300q, want %v, %q", run.Status(), said(run), c.want, c.says)
			}
		})
	}
	t.Run("links", func(t *testing.T) {
		root := t.TempDir()
		dir := filepath.Join(root, "llava", "image")
		writeDump(t, dir, target, "image")
		if err := os.Rename(filepath.Join(dir, dump.AnswerFile), filepath.Join(root, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, "elsewhere"), filepath.Join(dir, dump.AnswerFile)); err != nil {
			if runtime.GOOS != "windows" {
				t.Fatal(err)
			}
			t.Skipf("links need a privilege on this system: %v", err)
		}
		if run := asked(t, "dir:"+root, target, "image", true); run.Status() != conformance.Error || !strings.Contains(said(run), "symbolic link") {
			t.Errorf("%v, %q, want an error", run.Status(), said(run))
		}
	})
}

// A dump without an answer is one of nodes: its pixels are those that the engine was given.
func TestADumpWithoutAnAnswerIsNotJudgedByItsPixels(t *testing.T) {
	target := openTarget(t, "llava")
	root := t.TempDir()
	dir := filepath.Join(root, "llava", "image")
	writeDump(t, dir, target, "image")
	for _, name := range []string{dump.AnswerFile, dump.InventoryFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	run := asked(t, "dir:"+root, target, "image", false)
	if c := run.Sets[0].Cases[0]; c.Reason != "the dump has no answer.json" {
		t.Errorf("%v, %q", c.Status(), c.Reason)
	}
}

// Beside a list of parameters alone pixels are what the engine was given as well.
func TestPixelsBesideAnInventoryAreNotJudged(t *testing.T) {
	target := openTarget(t, "llava")
	root := t.TempDir()
	dir := filepath.Join(root, "llava", "image")
	writeDump(t, dir, target, "image")
	if err := os.Remove(filepath.Join(dir, dump.AnswerFile)); err != nil {
		t.Fatal(err)
	}
	run := asked(t, "dir:"+root, target, "image", true)
	var compared []string
	for _, s := range run.Sets[0].Cases[0].Stages {
		for _, n := range s.Nodes {
			if n.Status() != conformance.Skip {
				compared = append(compared, n.Name+" "+n.Status().String())
			}
		}
	}
	if want := []string{"parameters pass"}; !slices.Equal(compared, want) {
		t.Errorf("%v, want %v; %s", compared, want, said(run))
	}
}

// What is wrong with several entries of a list is said of the same one each time.
func TestAHostileInventoryIsSaidAlike(t *testing.T) {
	dir := t.TempDir()
	list := map[string]any{}
	for i := range 50 {
		list[fmt.Sprintf("p%02d", i)] = map[string]any{}
	}
	writeJSON(t, filepath.Join(dir, dump.ManifestFile), dump.Manifest{Format: 1, Engine: "parrot", Class: "f32"})
	writeJSON(t, filepath.Join(dir, dump.InventoryFile), list)
	r, err := dump.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 20 {
		if _, _, err := r.Inventory(); err == nil || !strings.Contains(err.Error(), `"p00"`) {
			t.Fatalf("%v, want the first in the order of names", err)
		}
	}
}

// A command gets the conversation and the checkpoint as files, and its dump is judged as any other.
func TestACommandIsAskedConversations(t *testing.T) {
	target := openTarget(t, "llava")
	root := t.TempDir()
	for _, name := range []string{"image", "text-only"} {
		writeDump(t, filepath.Join(root, name), target, name)
	}
	script := filepath.Join(root, "engine.sh")
	// $2 model, $4 case, $6 out
	text := `#!/bin/sh
for f in "$2/tokenizer.json" "$2/generation_config.json" "$4/messages.json" "$4/case.json" "$4/input_ids.npy" "$4/README.txt"; do
  test -s "$f" || { echo "no $f"; exit 1; }
done
case=$(sed -n 's/^ "case": "\(.*\)",$/\1/p' "$4/case.json")
test "$case" = image && { test -s "$4/images/0-photo-100x75.png" || exit 2; }
test -d "` + root + `/$case" || { echo "nothing for $case"; exit 77; }
cp -R "` + root + `/$case" "$6"
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	run := asked(t, "exec:sh "+script, target, "", true)
	var got []string
	for _, c := range run.Sets[0].Cases {
		if c.Status() != conformance.Skip {
			got = append(got, c.Name+" "+c.Status().String())
		} else if !strings.Contains(c.Reason, "nothing for "+c.Name) {
			t.Errorf("%s: %q", c.Name, c.Reason)
		}
	}
	if want := []string{"image pass", "text-only pass"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v; %s", got, want, said(run))
	}
}

// What is wrong with the dump of a command is said without the temporary folder that it lay in: the same engine gives the same bytes.
func TestErrorsOfACommandsDumpHaveNoTemporaryPath(t *testing.T) {
	root := t.TempDir()
	made := filepath.Join(root, "made")
	script := filepath.Join(root, "engine.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncp -R '"+made+"' \"$6\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, run conformance.Run, says string) {
		if text := said(run); run.Status() != conformance.Error || !strings.Contains(text, says) || !strings.Contains(text, "--out") || strings.Contains(text, "llavaref-exec-") {
			t.Errorf("%v, %q, want an error with %q and --out", run.Status(), text, says)
		}
	}
	t.Run("pixels of a conversation", func(t *testing.T) {
		target := openTarget(t, "llava")
		writeDump(t, made, target, "image")
		if err := npy.WriteFile(filepath.Join(made, "pixel_values.npy"), []int{2}, []int64{1, 2}); err != nil {
			t.Fatal(err)
		}
		check(t, asked(t, "exec:sh "+script, target, "image", true), "want floats")
	})
	t.Run("parameters beside nodes", func(t *testing.T) {
		if err := os.RemoveAll(made); err != nil {
			t.Fatal(err)
		}
		plainDump(compute(t, enginetest.Graph{}, "text")).write(made, "npy")
		if err := os.WriteFile(filepath.Join(made, dump.InventoryFile), []byte(`{"a": {}}`), 0o644); err != nil {
			t.Fatal(err)
		}
		open, err := engines.OpenExec("sh "+script, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		s := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}, Cases: "text"}
		check(t, s.Run(context.Background(), open), "want a shape")
	})
}

func TestOtherEnginesAreNotAsked(t *testing.T) {
	for _, name := range []string{"logits:x.json", "unknown", "dir:"} {
		if _, ok, err := engines.FindAnswers(name, 0); ok || err != nil {
			t.Errorf("FindAnswers(%q): %v, %v, want none", name, ok, err)
		}
	}
	if _, _, err := engines.FindAnswers("exec:", 0); err == nil {
		t.Error("FindAnswers of no command: no error")
	}
}

// A list of parameters is no prompt: a dump whose names are all wrong is an error with one as well, and a dump of nodes has it beside them.
func TestAListOfParametersDoesNotStandForNodes(t *testing.T) {
	target := enginetest.Target()
	list := map[string]any{}
	for _, p := range shapes.Params(target.Set.Config) {
		list[p.Name] = map[string]any{"shape": p.Shape}
	}
	all := compute(t, enginetest.Graph{}, "text")
	for _, c := range []struct {
		name   string
		values values
		want   conformance.Status
		says   string
	}{
		{"all nodes", all, conformance.Pass, ""},
		{"one node", values{shapes.LMHead: all[shapes.LMHead]}, conformance.Pass, ""},
		{"names that are none", values{"head": all[shapes.LMHead]}, conformance.Error, "no node was compared"},
		{"the list alone", values{}, conformance.Error, "no node was compared"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			plainDump(c.values).write(dir, "npy")
			writeJSON(t, filepath.Join(dir, dump.InventoryFile), list)
			run, text := judged(t, dir, "text")
			if run.Status() != c.want || !strings.Contains(text, c.says) {
				t.Errorf("%v, want %v and %q:\n%s", run.Status(), c.want, c.says, text)
			}
			if s := run.Sets[0].Cases[0].Stages[0]; s.Name != conformance.StageInventory || s.Status() != conformance.Pass {
				t.Errorf("%s: %v, want the inventory to pass", s.Name, s.Status())
			}
		})
	}
}
