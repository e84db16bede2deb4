package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"llavaref": func() { os.Exit(Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
		"exitcode": exitCode,
	})
}

// exitCode runs a command line and says how it ended: exitcode WANT llavaref ARG...
func exitCode() {
	got := Run(context.Background(), os.Args[3:], os.Stdout, os.Stderr)
	if fmt.Sprint(got) != os.Args[1] {
		fmt.Fprintf(os.Stderr, "exit code %d, want %s\n", got, os.Args[1])
		os.Exit(1)
	}
}

func params(dir string) testscript.Params {
	return testscript.Params{Dir: dir, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"mini": writeMini, "flip": flip, "grow": grow, "asked": writeAsked, "dumped": writeDumped, "substitute": substitute, "spoil": spoil, "removeglob": removeMatching,
	}}
}

func TestScripts(t *testing.T) { testscript.Run(t, params(filepath.Join("testdata", "script"))) }

// writeMini writes the small golden set: mini DIR, or mini -checkpoint DIR for one that says it was made with a checkpoint,
// or mini -wrong DIR for one whose truth has another activation in the projector.
func writeMini(ts *testscript.TestScript, neg bool, args []string) {
	fsys, dir := enginetest.FS(), args[len(args)-1]
	switch {
	case len(args) == 1:
	case args[0] == "-checkpoint":
		fsys = enginetest.WithCheckpoint()
	case args[0] == "-wrong":
		fsys = enginetest.WithWrongTruth()
	default:
		ts.Fatalf("mini %v", args)
	}
	ts.Check(enginetest.Write(ts.MkAbs(dir), fsys))
}

// writeAsked writes a small checkpoint that can be asked, with its tokenizer and processor, and an image: asked DIR IMAGE.
func writeAsked(ts *testscript.TestScript, neg bool, args []string) {
	dir, layout := ts.MkAbs(args[0]), filepath.Join("..", "..", "golden", "vectors", "tokenizer", "layouts", "llama3-4.51.3")
	if code := Run(context.Background(), []string{"weights", "--config", filepath.Join(layout, "config.json"), "--out", dir}, io.Discard, os.Stderr); code != 0 {
		ts.Fatalf("llavaref weights: exit code %d", code)
	}
	files, err := os.ReadDir(layout)
	ts.Check(err)
	for _, f := range files {
		if f.Name() == "config.json" {
			continue // the one that stands beside the weights already
		}
		data, err := os.ReadFile(filepath.Join(layout, f.Name()))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(dir, f.Name()), data, 0o644))
	}
	data, err := golden.Image("images/photo-100x75.png")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

// flip inverts the last bit of a file: flip FILE.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	data[len(data)-4] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// grow appends a byte to a file: grow FILE.
func grow(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append(data, 0), 0o644))
}

// TestTheExamplesInTheHelpWork runs every example of every command's help, in the order in which the help shows them, in one folder a command.
func TestTheExamplesInTheHelpWork(t *testing.T) {
	dir := t.TempDir()
	examples := 0
	for _, cmd := range allCommands(rootCommand(engines.Find)) {
		if cmd.Example == "" {
			t.Errorf("%s has no example in its help", cmd.CommandPath())
			continue
		}
		var script strings.Builder
		if strings.Contains(cmd.Example, "--model DIR") {
			fmt.Fprintln(&script, "asked DIR photo.png")
		}
		if strings.Contains(cmd.Example, "dir:DUMP") {
			fmt.Fprintln(&script, "dumped DUMP tiny-1.5 text")
		}
		if strings.Contains(cmd.Example, "diff A B") {
			fmt.Fprintln(&script, "dumped A tiny-1.5 text\ndumped B tiny-1.5 text")
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "llavaref ") {
				t.Errorf("%s: example %q is no command line of ours", cmd.CommandPath(), line)
			}
			command, file, redirected := strings.Cut(line, " > ")
			fmt.Fprintf(&script, "exec %s\n", command)
			if redirected {
				fmt.Fprintf(&script, "cp stdout %s\n", file)
			}
			fmt.Fprintln(&script, "! stderr .")
			examples++
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".txt"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if examples < 15 {
		t.Errorf("%d examples, want at least 15", examples)
	}
	testscript.Run(t, params(dir))
}

// allCommands lists a command and all below it.
func allCommands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		out = append(out, allCommands(sub)...)
	}
	return out
}

func TestHelpFitsATerminal(t *testing.T) {
	for _, cmd := range allCommands(rootCommand(engines.Find)) {
		if cmd.Long == "" || cmd.Short == "" {
			t.Errorf("%s has no manual", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Long+"\n"+cmd.Example, "\n") {
			if len([]rune(line)) > 122 {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), len([]rune(line)), line)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"": 0, "1": 1, "1000": 1000, "500MB": 500e6, "2GB": 2e9, "3KiB": 3072, "1GiB": 1 << 30, "7 MB": 7e6, "12B": 12} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"0", "-1", "x", "MB", "1.5GB", "1TB", "99999999999GB", "1mb"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}
