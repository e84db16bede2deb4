package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// writeDumped writes a dump of a case: dumped DIR mini CASE has all nodes as the reference computes them, in bfloat16 with a fourth argument bf16;
// of another set it has the true logits alone.
func writeDumped(ts *testscript.TestScript, neg bool, args []string) {
	class := compare.F32
	if len(args) > 3 {
		class = compare.Class(args[3])
	}
	var in shapes.Inputs
	var nodes func(probe shapes.Probe)
	if args[1] == "mini" {
		target := enginetest.Target()
		c, err := target.Set.Case(args[2])
		ts.Check(err)
		in = c.Inputs
		nodes = func(probe shapes.Probe) {
			if class == compare.F32 {
				_, err := ref.New(target.Set.Config, target.Weights).Forward(in, probe)
				ts.Check(err)
				return
			}
			e, err := enginetest.Graph{Change: enginetest.Rounded(class)}.Opener()(target.Set.Config, target.Weights)
			ts.Check(err)
			_, err = e.Forward(in, probe)
			ts.Check(err)
		}
	} else {
		set, err := golden.Embedded(args[1])
		ts.Check(err)
		c, err := set.Case(args[2])
		ts.Check(err)
		in = c.Inputs
		nodes = func(probe shapes.Probe) { probe(shapes.LMHead, c.Logits) }
	}
	w, err := dump.Create(ts.MkAbs(args[0]), conformance.Info{Name: "test", Arithmetic: compare.Arithmetic{Class: class, Lanes: 16}}, in)
	ts.Check(err)
	if args[1] != "mini" {
		w.Of(args[1], args[2])
	}
	nodes(w.Probe)
	ts.Check(w.Close())
}

// spoil changes the last value of an array a great deal: spoil FILE.
func spoil(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	data[len(data)-1] ^= 4
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// substitute replaces text in a file: substitute FILE OLD NEW.
func substitute(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	if !strings.Contains(string(data), args[1]) {
		ts.Fatalf("no %q in %s", args[1], path)
	}
	ts.Check(os.WriteFile(path, []byte(strings.ReplaceAll(string(data), args[1], args[2])), 0o644))
}

// removeMatching removes files of a folder: removeglob PATTERN.
func removeMatching(ts *testscript.TestScript, neg bool, args []string) {
	paths, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(paths) == 0 {
		ts.Check(&fs.PathError{Op: "glob", Path: args[0], Err: fs.ErrNotExist})
	}
	for _, p := range paths {
		ts.Check(os.Remove(p))
	}
}
