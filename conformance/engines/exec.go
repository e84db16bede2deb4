package engines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/export"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// DefaultTimeout is how long a command may take for one case.
const DefaultTimeout = 10 * time.Minute

const (
	exitNothing = 77               // of a command that has nothing for the case
	tailBytes   = 4 << 10          // of what a command writes that are kept
	tailLines   = 12               // that an error shows
	waitDelay   = 10 * time.Second // for what a killed command has started and that holds its output open
)

// OpenExec makes engines of a command that follows docs/protocol.md: it is given a model and a case as files, and writes a dump.
// The command is split into words at spaces; quotes of either kind keep them together. No shell is involved.
func OpenExec(command string, timeout time.Duration) (conformance.Opener, error) {
	p, err := newProgram(command, timeout)
	if err != nil {
		return nil, err
	}
	return func(shapes.Config, shapes.Weights) (conformance.Engine, error) {
		if _, err := exec.LookPath(p.words[0]); err != nil {
			return nil, err
		}
		return &execEngine{caseOnly: caseOnly{"exec:" + p.words[0]}, program: p}, nil
	}, nil
}

// program is a command that follows docs/protocol.md.
type program struct {
	words   []string
	timeout time.Duration
}

func newProgram(command string, timeout time.Duration) (program, error) {
	words, err := splitWords(command)
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return program{words, timeout}, err
}

// splitWords splits a command line.
func splitWords(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, c := range command {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("command %q: a quote is not closed", command)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("exec: has no command, want exec:COMMAND, a program that writes dumps (docs/protocol.md)")
	}
	return words, nil
}

// execEngine runs a command for each case. The model is written once.
type execEngine struct {
	caseOnly
	program

	tmp   string // "" before the first case
	cases int
}

var execOptions = export.Options{DType: checkpoint.F32}

// ForCase writes the case, runs the command, and opens the dump that it has made.
func (e *execEngine) ForCase(ctx context.Context, t conformance.Target, name string, _ bool) (conformance.Engine, error) {
	if e.tmp == "" {
		tmp, err := os.MkdirTemp("", "llavaref-exec-*")
		if err != nil {
			return nil, err
		}
		e.tmp = tmp
		if err := export.Model(ctx, filepath.Join(tmp, export.ModelDir), t.Set.Config, t.Set.ConfigJSON, t.Weights, execOptions); err != nil {
			return nil, err
		}
	}
	e.cases++
	dir := filepath.Join(e.tmp, fmt.Sprint(e.cases))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := e.run(ctx, t, name, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &execDump{d, dir}, nil
}

func (e *execEngine) run(ctx context.Context, t conformance.Target, name, dir string) (*dumpEngine, error) {
	prompt, out := filepath.Join(dir, "case"), filepath.Join(dir, "out")
	if err := export.Prompt(prompt, t.Set, name, execOptions); err != nil {
		return nil, err
	}
	if err := e.program.run(ctx, filepath.Join(e.tmp, export.ModelDir), prompt, out); err != nil {
		return nil, err
	}
	opened, err := openDump(out, t, name, false)
	if err != nil {
		return nil, e.ofDump(err, out)
	}
	d := opened.(*dumpEngine)
	d.out = out
	return d, nil
}

// ofDump is an error of the dump in out.
func (p program) ofDump(err error, out string) error {
	return fmt.Errorf("the dump that %s has made: %s", p.words[0], strings.ReplaceAll(err.Error(), out, "--out"))
}

// run runs the command for one case. Without an error there is a folder out.
func (p program) run(ctx context.Context, model, prompt, out string) error {
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	args := append(p.words[1:len(p.words):len(p.words)], "--model", model, "--case", prompt, "--out", out)
	cmd := exec.CommandContext(limited, p.words[0], args...)
	var said tail
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &said, &said, waitDelay
	inGroup(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%s took more than %v for the case and was stopped%s", p.words[0], p.timeout, said.said())
	case errors.As(err, &exit) && exit.ExitCode() == exitNothing:
		return conformance.NotRun(fmt.Sprintf("%s has nothing for it (exit code %d)%s", p.words[0], exitNothing, said.said()))
	case err != nil:
		return fmt.Errorf("%s: %v%s", p.words[0], err, said.said())
	}
	if info, err := os.Lstat(out); err != nil || !info.IsDir() {
		return fmt.Errorf("%s exited with code 0 and made no folder --out%s", p.words[0], said.said())
	}
	return nil
}

// Close takes the model away.
func (e *execEngine) Close() error {
	if e.tmp == "" {
		return nil
	}
	return os.RemoveAll(e.tmp)
}

// execDump is a dump in a folder that goes away with it.
type execDump struct {
	*dumpEngine
	dir string
}

// Close takes the folder away.
func (e *execDump) Close() error { return errors.Join(e.dumpEngine.Close(), os.RemoveAll(e.dir)) }

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
	cut bool
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p[max(0, len(p)-tailBytes):]...)
	if over := len(t.end) - tailBytes; over > 0 {
		t.end, t.cut = append([]byte(nil), t.end[over:]...), true
	}
	return len(p), nil
}

// said is the end of the output, to be put behind an error.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.end), "?"))
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return "; it said last: " + strings.Join(lines, " | ")
}
