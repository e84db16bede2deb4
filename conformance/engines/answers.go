package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/export"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/ref/generate"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
)

// FindAnswers is the engine of a name as one that answers the conversations of end-to-end sets; false if there is none of that name that can. A
// command may take so long for one of them.
func FindAnswers(name string, timeout time.Duration) (open answers.Opener, ok bool, err error) {
	if path, ok := strings.CutPrefix(name, "dir:"); ok && path != "" {
		return func(t *answers.Target) (answers.Engine, error) { return dirAnswers{path, t.Set.Name}, nil }, true, nil
	}
	if command, ok := strings.CutPrefix(name, "exec:"); ok {
		p, err := newProgram(command, timeout)
		if err != nil {
			return nil, false, err
		}
		return func(t *answers.Target) (answers.Engine, error) {
			if _, err := exec.LookPath(p.words[0]); err != nil {
				return nil, err
			}
			return &execAnswers{program: p, target: t}, nil
		}, true, nil
	}
	if KnowsGenerator(name) != nil {
		return nil, false, nil
	}
	return func(t *answers.Target) (answers.Engine, error) { return openOwn(name, t) }, true, nil
}

// dirAnswers finds dumps of conversations in a folder.
type dirAnswers struct{ path, set string }

// Answer is what stands in the dump of a case: PATH/SET/CASE, PATH/CASE or PATH itself where the manifest says that it is of this set.
func (e dirAnswers) Answer(_ context.Context, c endtoend.Case, only bool) (answers.Answer, error) {
	if info, err := os.Stat(e.path); err != nil {
		return answers.Answer{}, err
	} else if !info.IsDir() {
		return answers.Answer{}, fmt.Errorf("%s is no folder, want one with a dump (docs/dump-format.md)", e.path)
	}
	var broken error // of a dump that does not say of which case it is
	for _, dir := range []string{filepath.Join(e.path, e.set, c.Name), filepath.Join(e.path, c.Name), e.path} {
		own := filepath.Dir(dir) == filepath.Join(e.path, e.set) // the folder says of which case it is
		if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 && dir != e.path {
			return answers.Answer{}, fmt.Errorf("%s is a symbolic link, want a folder", dir)
		}
		if !dump.IsDump(dir) {
			continue
		}
		r, err := dump.Open(dir)
		if err != nil && own {
			return answers.Answer{}, err
		}
		if err != nil {
			broken = err // it may be the dump of a golden case, or of another set
			continue
		}
		m := r.Manifest
		if (m.Set == e.set || m.Set == "" && own) && (m.Case == c.Name || m.Case == "" && dir != e.path) {
			return answerOf(r)
		}
		r.Close()
		if own {
			return answers.Answer{}, conformance.NotRun(fmt.Sprintf("the dump in %s is of set %s, case %s", dir, m.Set, m.Case))
		}
	}
	if only && broken != nil {
		return answers.Answer{}, broken
	}
	if only {
		return answers.Answer{}, fmt.Errorf("%s has no dump of it: want %s in it or in %s, and set and case in the manifest",
			e.path, dump.AnswerFile, filepath.Join(e.path, e.set, c.Name))
	}
	reason := "no dump of it in " + filepath.Join(e.path, e.set)
	if broken != nil {
		reason += fmt.Sprintf("; %v", broken)
	}
	return answers.Answer{}, conformance.NotRun(reason)
}

// answerOf is what a dump has of a conversation. The answer closes the dump.
func answerOf(r *dump.Reader) (a answers.Answer, err error) {
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	said, ok, err := r.Answer()
	if err != nil {
		return a, err
	}
	_, listed, err := r.Inventory()
	if err != nil {
		return a, err
	}
	if !ok && !listed {
		return a, conformance.NotRun(fmt.Sprintf("the dump has no %s", dump.AnswerFile))
	}
	a = answers.Answer{Info: r.Info(), ImageSizes: said.Sizes(), ImageTokens: said.ImageTokens, Prompt: said.Prompt, InputIDs: said.InputIDs, NewIDs: said.NewIDs, Text: said.Text, Close: r.Close}
	if ok && r.HasPixels() { // else they are what the engine was given
		a.Pixels = func(most int) (shapes.Tensor, error) {
			t, _, err := r.Pixels(most)
			return t, err
		}
	}
	if listed {
		a.Parameters = func() ([]shapes.Param, error) {
			have, _, err := r.Inventory()
			return have, err
		}
	}
	return a, nil
}

// execAnswers runs a command for each conversation.
type execAnswers struct {
	program
	target *answers.Target
}

// Answer writes the conversation, runs the command, and reads the dump that it has made.
func (e *execAnswers) Answer(ctx context.Context, c endtoend.Case, _ bool) (a answers.Answer, err error) {
	dir, err := os.MkdirTemp("", "llavaref-exec-*")
	if err != nil {
		return a, err
	}
	defer func() {
		if a.Close == nil {
			os.RemoveAll(dir)
		}
	}()
	in, err := e.target.Inputs(c)
	if err != nil {
		return a, err
	}
	prompt, out := filepath.Join(dir, "case"), filepath.Join(dir, "out")
	if err := export.Ask(prompt, e.target.Set, c, in); err != nil {
		return a, err
	}
	if err := e.run(ctx, e.target.Dir, prompt, out); err != nil {
		return a, err
	}
	r, err := dump.Open(out)
	if err != nil {
		return a, e.ofDump(err, out)
	}
	m := r.Manifest
	if m.Set != "" && m.Set != e.target.Set.Name || m.Case != "" && m.Case != c.Name {
		r.Close()
		return a, e.ofDump(fmt.Errorf("it is of set %s, case %s", m.Set, m.Case), out)
	}
	read, err := answerOf(r)
	var not conformance.NotRun
	if errors.As(err, &not) {
		return a, err
	}
	if err != nil {
		return a, e.ofDump(err, out)
	}
	a = read
	if a.Pixels != nil {
		a.Pixels = func(most int) (shapes.Tensor, error) {
			t, err := read.Pixels(most)
			if err != nil {
				err = e.ofDump(err, out)
			}
			return t, err
		}
	}
	a.Close = func() error { return errors.Join(read.Close(), os.RemoveAll(dir)) }
	return a, nil
}

// own is one of the project's engines, with the project's preprocessing, tokenizer and generation.
type own struct {
	target *answers.Target
	engine Generator
	stop   []int
	listed bool // the parameters, in an earlier answer
}

func openOwn(name string, t *answers.Target) (answers.Engine, error) {
	positions := 0
	for _, c := range t.Set.Cases {
		positions = max(positions, len(c.InputIDs())+c.MaxNewTokens)
	}
	stop, err := t.Words.Stop()
	if err != nil {
		return nil, err
	}
	// The values are exact in f32, f16 and bf16, whatever the files store: the values alone are handed on.
	g, err := OpenGenerator(name, t.Config, struct{ shapes.Weights }{t.Weights}, positions)
	if err != nil {
		return nil, err
	}
	return &own{target: t, engine: g, stop: stop}, nil
}

// Close gives the engine's memory back.
func (e *own) Close() error { return e.engine.Close() }

// Answer answers a conversation, from its files to the last token.
func (e *own) Answer(ctx context.Context, c endtoend.Case, _ bool) (answers.Answer, error) {
	a := answers.Answer{Info: e.engine.Info}
	messages, err := tokenizer.ParseMessages(c.Messages)
	if err != nil {
		return a, err
	}
	var in shapes.Inputs
	for _, name := range c.Images {
		data, err := endtoend.Image(name)
		if err != nil {
			return a, err
		}
		picture, err := preprocess.DecodeImage(data)
		if err != nil {
			return a, err
		}
		tiles, size, err := e.target.Processor.Image(picture.Image) // [n, 3, px, px]
		if err != nil {
			return a, err
		}
		if in.PixelValues.Shape == nil {
			in.PixelValues.Shape = append([]int{0}, tiles.Shape[1:]...)
		}
		in.PixelValues.Shape[0] += tiles.Shape[0]
		in.PixelValues.Data = append(in.PixelValues.Data, tiles.Data...) // [N, 3, px, px]
		in.ImageSizes = append(in.ImageSizes, size)
		a.ImageTokens = append(a.ImageTokens, e.target.Processor.FeatureCount(size))
	}
	prompt, err := e.target.Words.Template(messages, true)
	if err != nil {
		return a, err
	}
	if in.InputIDs, err = e.target.Words.Prompt(messages, true, a.ImageTokens); err != nil {
		return a, err
	}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	a.Prompt, a.InputIDs, a.ImageSizes = &prompt, slices.Clone(in.InputIDs), slices.Clone(in.ImageSizes)
	if pixels := slices.Clone(in.PixelValues.Data); pixels != nil {
		a.Pixels = func(int) (shapes.Tensor, error) { return shapes.Tensor{Shape: in.PixelValues.Shape, Data: pixels}, nil }
	}
	if a.NewIDs, err = generate.Greedy(ctx, e.engine.Session(), in, c.MaxNewTokens, e.stop, nil); err != nil {
		return a, err
	}
	text := e.target.Words.Decode(a.NewIDs, true)
	a.Text = &text
	if !e.listed {
		e.listed = true
		a.Parameters = func() ([]shapes.Param, error) { return e.target.Stored, nil }
	}
	return a, nil
}
