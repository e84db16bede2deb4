package engines_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// behave says what the test binary does when it is started as an engine.
const behave = "LLAVAREF_TEST_ENGINE"

func TestMain(m *testing.M) {
	if how := os.Getenv(behave); how != "" {
		os.Exit(actAsEngine(how, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// actAsEngine is a program of the protocol, around the reference. It reads nothing but the files that it is given.
func actAsEngine(how string, args []string) int {
	if how != "plain" && how != "wrong" {
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprintln(os.Stderr, "about to", how)
	}
	switch how {
	case "fail":
		return 5
	case "nothing":
		return 77
	case "silent":
		return 0
	case "hang":
		time.Sleep(time.Hour)
	case "leave a child":
		child := exec.Command("sleep", "3600")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr // holds the pipe open
		must(child.Start())
		time.Sleep(time.Hour)
	}
	if len(args) != 6 || args[0] != "--model" || args[2] != "--case" || args[4] != "--out" {
		fmt.Fprintln(os.Stderr, "arguments", args)
		return 9
	}
	model, prompt, out := args[1], args[3], args[5]
	if how == "no manifest" {
		must(os.Mkdir(out, 0o755))
		return 0
	}
	config, err := os.ReadFile(filepath.Join(model, "config.json"))
	must(err)
	cfg, err := shapes.ParseConfig(config)
	must(err)
	c, err := checkpoint.Open(model)
	must(err)
	weights, err := c.Bind(cfg)
	must(err)
	var in shapes.Inputs
	for name, ids := range map[string]*[]int{"input_ids": &in.InputIDs, "position_ids": &in.PositionIDs} {
		a, err := npy.ReadFile(filepath.Join(prompt, name+".npy"))
		must(err)
		v, err := a.Int64s()
		must(err)
		for _, id := range v {
			*ids = append(*ids, int(id))
		}
	}
	if a, err := npy.ReadFile(filepath.Join(prompt, "pixel_values.npy")); err == nil {
		v, err := a.Float32s()
		must(err)
		in.PixelValues = shapes.Tensor{Shape: a.Shape, Data: v}
	}
	sizes, err := os.ReadFile(filepath.Join(prompt, "image_sizes.json"))
	must(err)
	var pairs [][2]int
	must(json.Unmarshal(sizes, &pairs))
	for _, p := range pairs {
		in.ImageSizes = append(in.ImageSizes, shapes.Size{H: p[0], W: p[1]})
	}
	w, err := dump.Create(out, conformance.Info{Name: "around the reference", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: 16}}, in)
	must(err)
	_, err = ref.New(cfg, weights).Forward(in, func(node string, v shapes.Tensor) {
		if how == "wrong" && node == shapes.TextModel+".norm" {
			v = shapes.Tensor{Shape: v.Shape, Data: append([]float32{v.Data[0] + 1}, v.Data[1:]...)}
		}
		w.Probe(node, v)
	})
	must(err)
	must(w.Close())
	return 0
}

// commanded runs the suite on the test binary.
func commanded(t *testing.T, ctx context.Context, how, command string, timeout time.Duration) (conformance.Run, string) {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv(behave, how)
	if command == "" {
		command = fmt.Sprintf("%q", os.Args[0])
	}
	open, err := engines.OpenExec(command, timeout)
	if err != nil {
		t.Fatal(err)
	}
	run := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}}.Run(ctx, open)
	var text bytes.Buffer
	if err := report.Text(&text, run, false); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("%v left in the temporary folder, %v", left, err)
	}
	return run, text.String()
}

func TestACommandIsTested(t *testing.T) {
	for _, c := range []struct {
		how    string
		status conformance.Status
		want   []string
	}{
		{"plain", conformance.Pass, []string{"conformant: around the reference holds as f32 in 2 cases of 1 set, 136 of 136 nodes checked."}},
		{"wrong", conformance.Fail, []string{"first diverging node: language_model.model.norm\n"}},
		{"fail", conformance.Error, []string{"exit status 5; it said last: first line | about to fail"}},
		{"silent", conformance.Error, []string{"exited with code 0 and made no folder --out; it said last: first line | about to silent"}},
		{"no manifest", conformance.Error, []string{"the dump that", "no manifest.json, want one with at least format, engine and class"}},
		{"nothing", conformance.Error, []string{"image and 1 more: skip, ", "has nothing for it (exit code 77); it said last: first line | about to nothing", "could not test: no case was run"}},
	} {
		t.Run(c.how, func(t *testing.T) {
			run, text := commanded(t, t.Context(), c.how, "", time.Minute)
			if run.Status() != c.status {
				t.Errorf("%v, want %v", run.Status(), c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		})
	}
}

func TestACommandThatHangsIsEnded(t *testing.T) {
	for _, how := range []string{"hang", "leave a child"} {
		t.Run(how, func(t *testing.T) {
			began := time.Now()
			_, text := commanded(t, t.Context(), how, "", 500*time.Millisecond)
			if !strings.Contains(text, "took more than 500ms for the case and was stopped") {
				t.Error(text)
			}
			if d := time.Since(began); d > 9*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		run, text := commanded(t, ctx, "hang", "", time.Hour)
		if run.Status() != conformance.Error || !strings.Contains(text, "interrupted") {
			t.Error(text)
		}
	})
}

func TestACommandLineIsSplitIntoWords(t *testing.T) {
	for command, want := range map[string]string{
		"":                     "has no command",
		"  ":                   "has no command",
		"''":                   "has no command",
		`a "b`:                 "a quote is not closed",
		"/nowhere/engine --on": "no such file",
	} {
		open, err := engines.OpenExec(command, 0)
		if err == nil {
			_, err = open(shapes.Config{}, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", command, err, want)
		}
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "my engine")
	must(os.WriteFile(script, []byte("#!/bin/sh\nfor a in \"$@\"; do echo \"<$a>\"; done; exit 1\n"), 0o755))
	_, text := commanded(t, t.Context(), "plain", fmt.Sprintf(`'%s' --a "b  c"' d' ""  e`, script), time.Minute)
	if !strings.Contains(text, "<--a> | <b  c d> | <> | <e> | <--model> | <") {
		t.Error(text)
	}
}
