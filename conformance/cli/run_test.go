package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/ref/generate"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// The checkpoints in golden/vectors/endtoend are what transformers saved, and the files beside them what it answered; see
// tools/gen-golden/endtoend.py.
var (
	endToEnd       = filepath.Join("..", "..", "golden", "vectors", "endtoend")
	endToEndModels = []string{"llava-next", "llava"}
)

// recorded is the file of one checkpoint.
type recorded struct {
	dir            string
	EOS            []int        `json:"eos"`
	TwinRows       []int        `json:"twin_rows"`
	StepLogitEvery int          `json:"step_logits_every"`
	Cases          []answerCase `json:"cases"`
	first          [][]float32  // by case, [V]
	later          [][]float32  // by case and step from the second on, [V/16]
}

// answerCase is one case.
type answerCase struct {
	Name         string          `json:"name"`
	Messages     json.RawMessage `json:"messages"`
	Images       []string        `json:"images"`
	MaxNewTokens int             `json:"max_new_tokens"`
	Prompt       string          `json:"prompt"`
	ImageSizes   [][2]int        `json:"image_sizes"`
	ImageTokens  []int           `json:"image_tokens"`
	Tiles        int             `json:"tiles"`
	Pixels       string          `json:"pixels_sha256"`
	Runs         []idRun         `json:"input_ids"`
	NewIDs       []int           `json:"new_ids"`
	Text         string          `json:"text"`
	Ties         []int           `json:"ties"`
	RMS          []float32       `json:"rms"`    // of the true logits, by step
	Floors       []float64       `json:"floors"` // rms of the error of transformers' float32 logits over that
	at           int             // first row of later
}

// idRun is an id, or [id, times].
type idRun struct{ id, times int }

func (r *idRun) UnmarshalJSON(data []byte) error {
	r.times = 1
	if data[0] != '[' {
		return json.Unmarshal(data, &r.id)
	}
	var pair [2]int
	err := json.Unmarshal(data, &pair)
	r.id, r.times = pair[0], pair[1]
	return err
}

func (g answerCase) inputIDs() []int {
	var ids []int
	for _, r := range g.Runs {
		ids = append(ids, slices.Repeat([]int{r.id}, r.times)...)
	}
	return ids
}

func readAnswers(t *testing.T, model string) recorded {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(endToEnd, model+".json"))
	if err != nil {
		t.Fatal(err)
	}
	a := recorded{dir: filepath.Join(endToEnd, model)}
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	a.first = rowsOf(t, model+".prompt-logits.npy")
	a.later = rowsOf(t, model+".step-logits.npy")
	at := 0
	for i := range a.Cases {
		a.Cases[i].at = at
		at += len(a.Cases[i].NewIDs) - 1
	}
	if len(a.first) != len(a.Cases) || len(a.later) != at || at < 90 {
		t.Fatalf("%s: logits of %d prompts and %d steps, want %d and %d", model, len(a.first), len(a.later), len(a.Cases), at)
	}
	return a
}

func rowsOf(t *testing.T, name string) [][]float32 {
	t.Helper()
	array, err := npy.ReadFile(filepath.Join(endToEnd, name))
	if err != nil {
		t.Fatal(err)
	}
	values, err := array.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]float32
	for width := array.Shape[1]; len(values) > 0; values = values[width:] {
		rows = append(rows, values[:width])
	}
	return rows
}

// imagePath finds one of the pictures of the cases.
func imagePath(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{filepath.Join(endToEnd, "images"), filepath.Join("..", "..", "golden", "data", "images")} {
		if path := filepath.Join(dir, name+".png"); exists(path) {
			return path
		}
	}
	t.Fatalf("no picture %s", name)
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// flags is the command line of a case.
func (g answerCase) flags(t *testing.T, dir string) []string {
	t.Helper()
	messages := filepath.Join(t.TempDir(), "messages.json")
	if err := os.WriteFile(messages, g.Messages, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "--model", dir, "--messages", messages, "--max-new-tokens", fmt.Sprint(g.MaxNewTokens)}
	for _, name := range g.Images {
		args = append(args, "--image", imagePath(t, name))
	}
	return args
}

// llavaref runs a command line that has to succeed and returns its output.
func llavaref(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Run(context.Background(), args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("llavaref %s: exit code %d, %s", strings.Join(args, " "), code, stderr.String())
	}
	return stdout.String()
}

func readNPY(t *testing.T, dir, name string) ([]int, []float32) {
	t.Helper()
	array, err := npy.ReadFile(filepath.Join(dir, name+".npy"))
	if err != nil {
		t.Fatal(err)
	}
	values, err := array.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return array.Shape, values
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func digest(values []float32) string {
	h := sha256.New()
	if err := binary.Write(h, binary.LittleEndian, values); err != nil {
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// judge holds logits of one position against the truth: the limit is that of conformance/compare for an engine that stores
// float32, and the floor the larger one of transformers 4.51 and 5.23 in float32 at this very step.
func judge(t *testing.T, what string, want, got []float32, rms float32, floor float64) float64 {
	t.Helper()
	d := compare.Accumulated(compare.DriftInput{
		Want: want, Got: got, PerRow: len(want), RowRMS: []float32{rms}, Class: compare.F32,
		Floors: compare.Floors{Whole: floor, WorstRow: floor},
	})
	if !d.Pass {
		t.Errorf("%s: the logits are off by %.3g of their rms, with a noise floor of %.3g: %v", what, d.Whole, floor, d.Verdict)
	}
	return d.Whole / floor
}

func TestRunAnswersAsTransformers(t *testing.T) {
	for _, model := range endToEndModels {
		a := readAnswers(t, model)
		worst := 0.0
		for i, g := range a.Cases {
			t.Run(model+"/"+g.Name, func(t *testing.T) {
				kept := filepath.Join(t.TempDir(), "dump")
				out := llavaref(t, append(g.flags(t, a.dir), "--json", "--dump", kept)...)
				var got answer
				if err := json.Unmarshal([]byte(out), &got); err != nil {
					t.Fatal(err)
				}
				want := answer{g.ImageSizes, g.ImageTokens, g.Prompt, g.inputIDs(), g.NewIDs, "max_new_tokens", g.Text}
				if len(g.NewIDs) < g.MaxNewTokens {
					want.EndedBy = "eos"
				}
				if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
					t.Errorf("got  %#v\nwant %#v", got, want)
				}
				if len(g.Images) > 0 {
					shape, pixels := readNPY(t, kept, shapes.InPixelValues)
					if shape[0] != g.Tiles || digest(pixels) != g.Pixels {
						t.Errorf("pixel_values %v, sha256 %s, want %d tiles, %s", shape, digest(pixels), g.Tiles, g.Pixels)
					}
				}
				shape, logits := readNPY(t, kept, shapes.LMHead)
				last := logits[(shape[0]-1)*shape[1]:]
				worst = max(worst, judge(t, "prompt", a.first[i], last, g.RMS[0], g.Floors[0]))
				if text := llavaref(t, g.flags(t, a.dir)...); text != g.Text+"\n" {
					t.Errorf("text %q, want %q and a newline", text, g.Text)
				}
			})
		}
		t.Logf("%s: the largest error at a prompt's end is %.2f of the floor, the limit 3", model, worst)
	}
}

// opened is a checkpoint as run opens it.
type opened struct {
	cfg     shapes.Config
	words   *tokenizer.Tokenizer
	weights shapes.Weights
	stop    []int
}

func open(t *testing.T, dir string) opened {
	t.Helper()
	var o opened
	var err error
	if o.cfg, err = readConfig(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	if o.words, err = tokenizer.Load(dir); err != nil {
		t.Fatal(err)
	}
	if o.stop, err = o.words.Stop(); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if o.weights, err = c.Bind(o.cfg); err != nil {
		t.Fatal(err)
	}
	return o
}

// inputs are those that run makes of a case.
func (o opened) inputs(t *testing.T, dir string, g answerCase, images []string) shapes.Inputs {
	t.Helper()
	f := runFlags{model: dir, messages: filepath.Join(t.TempDir(), "messages.json")}
	if err := os.WriteFile(f.messages, g.Messages, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range images {
		f.images = append(f.images, imagePath(t, name))
	}
	in, _, err := f.inputs(&cobra.Command{}, o.cfg, o.words, preprocess.Pillow)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// Every step of the decoding has transformers' logits: the key-value cache, the positions, the masks.
func TestDecodeStepsHaveTransformersLogits(t *testing.T) {
	for _, model := range endToEndModels {
		a := readAnswers(t, model)
		o := open(t, a.dir)
		worst := 0.0
		for _, g := range a.Cases {
			s := ref.New(o.cfg, o.weights).NewSession()
			next := o.inputs(t, a.dir, g, g.Images)
			position := len(next.InputIDs) - 1
			for step, id := range g.NewIDs {
				logits, err := s.Extend(next, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if step > 0 {
					var sample []float32
					for j := step % a.StepLogitEvery; j < len(logits.Data); j += a.StepLogitEvery {
						sample = append(sample, logits.Data[j])
					}
					worst = max(worst, judge(t, fmt.Sprintf("%s/%s: step %d", model, g.Name, step), a.later[g.at+step-1], sample, g.RMS[step], g.Floors[step]))
				}
				if slices.Contains(g.Ties, step) && math.Float32bits(logits.Data[a.TwinRows[0]]) != math.Float32bits(logits.Data[a.TwinRows[1]]) {
					t.Errorf("%s/%s: step %d: equal rows of the head give %g and %g", model, g.Name, step, logits.Data[a.TwinRows[0]], logits.Data[a.TwinRows[1]])
				}
				position++
				next = shapes.Inputs{InputIDs: []int{id}, PositionIDs: []int{position}}
			}
		}
		t.Logf("%s: the largest error of a step is %.2f of the floor, the limit 3", model, worst)
	}
}

// A dump has every node that the prompt has, and its files hold what the engine computed.
func TestADumpIsWhatTheEngineComputed(t *testing.T) {
	for _, model := range endToEndModels {
		a := readAnswers(t, model)
		o := open(t, a.dir)
		for _, name := range []string{"two-images", "text-only"} {
			g := a.Cases[slices.IndexFunc(a.Cases, func(g answerCase) bool { return g.Name == name })]
			dir := filepath.Join(t.TempDir(), "dump")
			llavaref(t, append(g.flags(t, a.dir), "--engine", "ref", "--dump", dir)...)
			in := o.inputs(t, a.dir, g, g.Images)
			var want []dump.Node
			_, err := ref.New(o.cfg, o.weights).Forward(in, func(node string, v shapes.Tensor) {
				want = append(want, dump.Node{Name: node, Shape: slices.Clone(v.Shape)})
				if shape, values := readNPY(t, dir, node); !slices.Equal(shape, v.Shape) || !sameBits(values, v.Data) {
					t.Errorf("%s/%s: %s is not what the engine computed", model, name, node)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			var m dump.Manifest
			data, err := os.ReadFile(filepath.Join(dir, dump.ManifestFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			if m.Format != 1 || m.Engine != "ref" || m.Class != "f32" || m.Naming != "hf" || fmt.Sprint(m.Nodes) != fmt.Sprint(want) {
				t.Errorf("%s/%s: manifest %+v, want %d nodes in the order of execution", model, name, m, len(want))
			}
			present := 0
			for _, n := range shapes.Nodes(o.cfg) {
				if n.Present(shapes.DimsOf(o.cfg, in)) {
					present++
				}
			}
			beside := 4 // manifest, ids, positions, sizes
			if len(g.Images) > 0 {
				beside++ // pixels
			}
			if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(want) != present || len(files) != present+beside {
				t.Errorf("%s/%s: %d files for %d nodes, the graph has %d: %v", model, name, len(files), len(want), present, err)
			}
		}
	}
}

// The same model under other names, in other dtypes and shards, gives the same bits.
func TestConvertedCheckpointsAnswerTheSame(t *testing.T) {
	for _, model := range endToEndModels {
		a := readAnswers(t, model)
		g := a.Cases[0]
		g.MaxNewTokens = 4
		answerOf := func(dir string) (string, []float32) {
			kept := filepath.Join(t.TempDir(), "dump")
			out := llavaref(t, append(g.flags(t, dir), "--json", "--dump", kept)...)
			_, logits := readNPY(t, kept, shapes.LMHead)
			return out, logits
		}
		wantOut, wantLogits := answerOf(a.dir)
		for i, scheme := range shapes.Schemes() {
			if scheme == shapes.LiteLlama && model == "llava-next" {
				var stderr bytes.Buffer
				code := Run(context.Background(), []string{"convert", a.dir, "--out", filepath.Join(t.TempDir(), "x"), "--naming", string(scheme)}, io.Discard, &stderr)
				if code != exitUsage || !strings.Contains(stderr.String(), "lite-llama does not name a model of type llava_next") {
					t.Errorf("%s as lite-llama: exit code %d, %s", model, code, stderr.String())
				}
				continue
			}
			dtype := []string{"f16", "f32", "bf16"}[i%3] // the weights are exact in all of them
			size := []string{"", "300KB"}[i%2]
			dir := filepath.Join(t.TempDir(), "converted")
			args := []string{"convert", a.dir, "--out", dir, "--naming", string(scheme), "--dtype", dtype}
			if size != "" {
				args = append(args, "--shard-size", size)
			}
			llavaref(t, args...)
			if out, logits := answerOf(dir); out != wantOut || !sameBits(logits, wantLogits) {
				t.Errorf("%s as %s in %s: another answer than before:\n%s", model, scheme, dtype, out)
			}
			back := filepath.Join(t.TempDir(), "back")
			llavaref(t, "convert", dir, "--out", back, "--dtype", "f16")
			if out, logits := answerOf(back); out != wantOut || !sameBits(logits, wantLogits) {
				t.Errorf("%s as %s in %s and back: another answer than before", model, scheme, dtype)
			}
		}
	}
}

// copyModel copies a checkpoint to change it.
func copyModel(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunRefuses(t *testing.T) {
	next, llava := filepath.Join(endToEnd, "llava-next"), filepath.Join(endToEnd, "llava")
	photo := imagePath(t, "photo-40x52")
	in := func(dir string, more ...string) []string {
		return append([]string{"run", "--model", dir, "--prompt", "What?", "--max-new-tokens", "1"}, more...)
	}
	without := func(from, name string) string {
		dir := copyModel(t, from)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	changed := func(from, name string, change func([]byte) []byte) string {
		dir := copyModel(t, from)
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	text := filepath.Join(t.TempDir(), "notes.png")
	if err := os.WriteFile(text, []byte("no image at all\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "messages.json")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full := t.TempDir()
	shard := "model-00002-of-00003.safetensors"
	for _, test := range []struct {
		name string
		args []string
		code int
		want []string // parts of the message
	}{
		{"no folder", in("nowhere"), exitUntested, []string{"nowhere", "config.json", "no such file"}},
		{"no tokenizer.json", in(without(next, "tokenizer.json")), exitUntested, []string{"model", "tokenizer.json is missing", "transformers writes it when it saves a fast tokenizer"}},
		{"no chat template", in(without(next, "chat_template.jinja")), exitUntested, []string{"model: ", "there is no chat template", "chat_template.jinja"}},
		{"no processor", in(without(llava, "preprocessor_config.json"), "--image", photo), exitUntested, []string{"preprocessor_config.json"}},
		{"no weights", in(without(without2(t, next), "model.safetensors.index.json")), exitUntested, []string{"holds neither model.safetensors nor model.safetensors.index.json"}},
		{"a shard that is missing", in(without(next, shard)), exitUntested, []string{shard, "no such file"}},
		{"a shard cut off", in(changed(next, shard, func(b []byte) []byte { return b[:len(b)-2] })), exitUntested, []string{shard}},
		{"a shard with a broken header", in(changed(next, shard, func(b []byte) []byte { b[9] = 'x'; return b })), exitUntested, []string{shard}},
		{"the configuration of another model", in(changed(next, "config.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"intermediate_size": 128`), []byte(`"intermediate_size": 192`), 1)
		})), exitUntested, []string{"model-0000", "mlp", "want"}},
		{"the configuration of another family", in(changed(next, "config.json", func([]byte) []byte {
			data, err := os.ReadFile(filepath.Join(llava, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			return data
		})), exitUntested, []string{`image token "<image>" has id 3011`, "3263 in config.json"}},
		{"no image there", in(next, "--image", "nowhere.png"), exitUntested, []string{"nowhere.png", "no such file"}},
		{"an image that is text", in(next, "--image", text), exitUntested, []string{"notes.png", "PNG"}},
		{"an image that is a folder", in(next, "--image", full), exitUntested, []string{full}},
		{"fewer images than the conversation has", []string{"run", "--model", next, "--messages", file(`[{"role":"user","content":[{"type":"image"},{"type":"image"},{"type":"text","text":"a"}]}]`), "--image", photo},
			exitUsage, []string{"the conversation has 2 images, but there are 1 --image files"}},
		{"more images than the conversation has", []string{"run", "--model", next, "--messages", file(`[{"role":"user","content":[{"type":"text","text":"a"}]}]`), "--image", photo},
			exitUsage, []string{"the conversation has 0 images, but there are 1 --image files"}},
		{"an image token in the text", in(next, "--prompt", "<image>", "--image", photo), exitUntested, []string{"2 image tokens", "1 images"}},
		{"content that is a string", []string{"run", "--model", next, "--messages", file(`[{"role":"user","content":"a"}]`)}, exitUntested, []string{"messages.json", "content"}},
		{"no conversation there", []string{"run", "--model", next, "--messages", "nowhere.json"}, exitUntested, []string{"nowhere.json"}},
		{"no tokens wanted", []string{"run", "--model", next, "--prompt", "a", "--max-new-tokens", "0"}, exitUsage, []string{"--max-new-tokens 0, want at least 1"}},
		{"no question", []string{"run", "--model", next}, exitUsage, []string{"want one of --prompt and --messages"}},
		{"two questions", in(next, "--messages", "x"), exitUsage, []string{"want one of --prompt and --messages"}},
		{"no model", []string{"run", "--prompt", "a"}, exitUsage, []string{"--model is missing"}},
		{"an engine that is not known", in(next, "--engine", "warp"), exitUsage, []string{`"warp"`, "ref"}},
		{"a variant that is not known", in(next, "--variant", "warp"), exitUsage, []string{"warp"}},
		{"a dump that is there", in(next, "--dump", full), exitUntested, []string{full, "is there already"}},
		{"a dump in a folder that is not there", in(next, "--dump", filepath.Join(full, "a", "b")), exitUntested, []string{"dump", "no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(context.Background(), test.args, &stdout, &stderr)
			if code != test.code || stdout.Len() > 0 {
				t.Errorf("exit code %d, output %q, want %d and none", code, stdout.String(), test.code)
			}
			for _, part := range test.want {
				if !strings.Contains(stderr.String(), part) {
					t.Errorf("says %q, want it to say %q", stderr.String(), part)
				}
			}
		})
	}
}

// without2 is a copy without shards.
func without2(t *testing.T, from string) string {
	dir := copyModel(t, from)
	shards, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range shards {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// onWrite calls f with the first byte that is written.
type onWrite struct {
	bytes.Buffer
	f func()
}

func (w *onWrite) Write(p []byte) (int, error) {
	w.f()
	return w.Buffer.Write(p)
}

func TestAnInterruptedRunLeavesNoDump(t *testing.T) {
	a := readAnswers(t, "llava-next")
	for _, test := range []struct {
		name string
		when func(cancel func()) (io.Writer, func()) // the output, and what is done before the run
	}{
		{"before it begins", func(cancel func()) (io.Writer, func()) { return io.Discard, cancel }},
		{"after the first token", func(cancel func()) (io.Writer, func()) { return &onWrite{f: cancel}, func() {} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stdout, before := test.when(cancel)
			parent := t.TempDir()
			g := a.Cases[0]
			g.MaxNewTokens = 5000
			args := append(g.flags(t, a.dir), "--dump", filepath.Join(parent, "dump"))
			before()
			var stderr bytes.Buffer
			if code := Run(ctx, args, stdout, &stderr); code != exitUntested || !strings.Contains(stderr.String(), "interrupted after ") {
				t.Errorf("exit code %d, %q, want %d and that it was interrupted", code, stderr.String(), exitUntested)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// planted is a bug that ports of this model have where prompt, model and tokens meet, in place of the right thing.
type planted struct {
	name     string
	prompt   func(o opened, in shapes.Inputs) shapes.Inputs
	images   func(names []string) []string
	position func(o opened, in shapes.Inputs) int // of the first new token
	frozen   bool                                 // the mask of a decode step begins at row 0: it sees the first key alone
	choose   func(o opened, logits []float32) int
	stop     func(stop []int) []int
	next     string // the cases of LLaVA-1.6 that show it
	llava    string // those of LLaVA-1.5
}

// every stands for all cases of a model, butText for those with an image.
const every, butText = "every case", "every case with an image"

// follow generates with a bug until the ids leave the golden ones. It says whether they did.
func (p planted) follow(t *testing.T, a recorded, o opened, g answerCase) (caught bool) {
	t.Helper()
	images, stop := g.Images, o.stop
	if p.images != nil {
		images = p.images(images)
	}
	in := o.inputs(t, a.dir, g, images)
	in.InputIDs = g.inputIDs() // for images in another order the ids stay
	if p.prompt != nil {
		in = p.prompt(o, in)
	}
	position := len(in.InputIDs)
	if p.position != nil {
		position = p.position(o, in)
	}
	if p.stop != nil {
		stop = p.stop(stop)
	}
	s := ref.New(o.cfg, o.weights).NewSession()
	next, ids := in, []int{}
	for len(ids) < g.MaxNewTokens {
		var logits shapes.Tensor
		var err error
		if p.frozen {
			logits, err = seesFirstKeyOnly(o, in, ids)
		} else {
			logits, err = s.Extend(next, 1, nil)
		}
		if err != nil {
			t.Fatalf("%s: %s: %v", p.name, g.Name, err)
		}
		row := logits.Row(logits.Rows() - 1)
		id := generate.ArgMax(row)
		if p.choose != nil {
			id = p.choose(o, row)
		}
		ids = append(ids, id)
		if len(ids) > len(g.NewIDs) || id != g.NewIDs[len(ids)-1] {
			return true
		}
		if slices.Contains(stop, id) {
			break
		}
		next = shapes.Inputs{InputIDs: []int{id}, PositionIDs: []int{position}}
		position++
	}
	return !slices.Equal(ids, g.NewIDs)
}

// seesFirstKeyOnly is one pass over prompt and new ids whose rows behind the prompt see the first key alone, as decode steps do if
// the mask of a step of one row is that of row 0.
func seesFirstKeyOnly(o opened, prompt shapes.Inputs, ids []int) (shapes.Tensor, error) {
	in, rows := prompt, len(prompt.InputIDs)
	in.InputIDs = append(slices.Clone(in.InputIDs), ids...)
	in.PositionIDs = nil
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	e, err := enginetest.Graph{Change: func(n shapes.Node, _ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
		if n.Causal && strings.HasSuffix(n.Name, ".probs") {
			keys := y.Cols()
			for i := range y.Rows() {
				if i%keys >= rows {
					clear(y.Row(i))
					y.Row(i)[0] = 1
				}
			}
		}
		return y
	}}.Opener()(o.cfg, o.weights)
	if err != nil {
		return shapes.Tensor{}, err
	}
	return e.Forward(in, func(string, shapes.Tensor) {})
}

func argMaxWhere(logits []float32, better func(v, best float32) bool) int {
	best := 0
	for i, v := range logits {
		if better(v, logits[best]) {
			best = i
		}
	}
	return best
}

func withIDs(in shapes.Inputs, ids []int) shapes.Inputs {
	in.InputIDs, in.PositionIDs = ids, nil
	for i := range ids {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	return in
}

var plantedRuns = []planted{
	{name: "none"},
	{name: "begin-of-text twice", next: "two-images text-only unicode-portrait strip eos-second-of-list padding-row writes-image-token", llava: every, prompt: func(_ opened, in shapes.Inputs) shapes.Inputs {
		return withIDs(in, append([]int{in.InputIDs[0]}, in.InputIDs...))
	}},
	{name: "begin-of-text missing", next: "image two-images text-only unicode-portrait strip tiny-image eos-second-of-list padding-row writes-image-token", llava: every, prompt: func(_ opened, in shapes.Inputs) shapes.Inputs { return withIDs(in, in.InputIDs[1:]) }},
	{name: "images in the wrong order", next: "two-images conversation", llava: "two-images conversation", images: func(names []string) []string {
		out := slices.Clone(names)
		slices.Reverse(out)
		return out
	}},
	{name: "new positions go on from the length of the text", next: butText, llava: butText, position: func(o opened, in shapes.Inputs) int {
		n := 0
		for _, id := range in.InputIDs {
			if id != o.cfg.ImageTokenID {
				n++
			}
		}
		return n
	}},
	{name: "new positions begin at 0", next: every, llava: every, position: func(opened, shapes.Inputs) int { return 0 }},
	{name: "mask without the offset of the cache", next: every, llava: every, frozen: true},
	{name: "a tie goes to the last", next: "image padding-row", llava: "image", choose: func(_ opened, logits []float32) int {
		return argMaxWhere(logits, func(v, best float32) bool { return v >= best })
	}},
	{name: "argmax over the tokenizer's ids", next: "padding-row writes-image-token", llava: "image two-images text-only padding-row", choose: func(o opened, logits []float32) int {
		n := o.cfg.ImageTokenID + 2 // the image token and the pad token are the last ones
		return generate.ArgMax(logits[:n])
	}},
	{name: "the image token is never chosen", next: "writes-image-token", llava: "", choose: func(o opened, logits []float32) int {
		row := slices.Clone(logits)
		row[o.cfg.ImageTokenID] = float32(math.Inf(-1))
		return generate.ArgMax(row)
	}},
	{name: "the first of several eos counts", next: "eos-second-of-list", llava: "", stop: func(stop []int) []int { return stop[:1] }},
	{name: "no eos", next: "eos-second-of-list", llava: "eos", stop: func([]int) []int { return nil }},
}

// Every bug leads to other tokens than transformers', in the cases that stand beside it and in no other.
func TestPlantedRunsAreCaught(t *testing.T) {
	for _, p := range plantedRuns {
		for _, model := range endToEndModels {
			a := readAnswers(t, model)
			o := open(t, a.dir)
			want := strings.Fields(map[string]string{"llava-next": p.next, "llava": p.llava}[model])
			if all := strings.Join(want, " "); all == every || all == butText {
				want = nil
				for _, g := range a.Cases {
					if all == every || len(g.Images) > 0 {
						want = append(want, g.Name)
					}
				}
			}
			for _, g := range a.Cases {
				if p.frozen && slices.Contains(g.NewIDs, o.cfg.ImageTokenID) {
					continue // in one pass a new image token would want an image
				}
				if got := p.follow(t, a, o, g); got != slices.Contains(want, g.Name) {
					t.Errorf("%s: %s/%s: caught: %t, want %t", p.name, model, g.Name, got, !got)
				}
			}
		}
	}
}

// TestTheRunningPageShowsWhatIsPrinted runs the command lines of docs/running.md in order, in a folder that has the golden files.
func TestTheRunningPageShowsWhatIsPrinted(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "running.md"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.CopyFS(filepath.Join("golden", "vectors", "endtoend"), os.DirFS(filepath.Join(root, "golden", "vectors", "endtoend"))); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join("golden", "data", "images"), os.DirFS(filepath.Join(root, "golden", "data", "images"))); err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(page); m == nil || os.WriteFile("messages.json", m[1], 0o644) != nil {
		t.Fatal("no conversation in the page")
	}
	blocks := regexp.MustCompile("(?s)```\n(\\$ .*?)```").FindAllSubmatch(page, -1)
	ran := 0
	for _, block := range blocks {
		for _, shown := range strings.Split(string(block[1]), "$ llavaref ")[1:] {
			line, want, _ := strings.Cut(shown, "\n")
			var args []string
			for i, part := range strings.Split(line, "'") {
				if i%2 == 1 {
					args = append(args, part)
				} else {
					args = append(args, strings.Fields(part)...)
				}
			}
			if got := llavaref(t, args...); got != want {
				t.Errorf("llavaref %s prints\n%s\nthe page has\n%s", line, got, want)
			}
			ran++
		}
	}
	if ran != 6 {
		t.Errorf("the page shows the output of %d command lines, want 6", ran)
	}
	shape, logits := readNPY(t, "dump", shapes.LMHead)
	if want := fmt.Sprintf("((%d, %d), np.int64(%d))", shape[0], shape[1], generate.ArgMax(logits[(shape[0]-1)*shape[1]:])); !bytes.Contains(page, []byte(want)) {
		t.Errorf("the page does not show %s of the dump", want)
	}
}

// A model in the engine's own layout answers as the checkpoint that it was made of.
func TestRunReadsTheEnginesOwnLayout(t *testing.T) {
	for _, model := range endToEndModels {
		a := readAnswers(t, model)
		own := filepath.Join(t.TempDir(), "own")
		if out := llavaref(t, "convert", a.dir, "--out", own, "--layout", "fast"); !strings.Contains(out, "model.fast: ") {
			t.Errorf("%s: convert says %q", model, out)
		}
		if exists(filepath.Join(own, "model.safetensors")) || !exists(filepath.Join(own, "tokenizer.json")) {
			t.Errorf("%s: want model.fast in the place of safetensors, and the tokenizer beside it", model)
		}
		g := a.Cases[slices.IndexFunc(a.Cases, func(g answerCase) bool { return g.Name == "two-images" })]
		if want, got := llavaref(t, append(g.flags(t, a.dir), "--json")...), llavaref(t, append(g.flags(t, own), "--json")...); got != want {
			t.Errorf("%s: got %s, want %s", model, got, want)
		}
		// It belongs to its config.
		text, err := os.ReadFile(filepath.Join(own, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		other := regexp.MustCompile(`"rms_norm_eps": [0-9.e-]+`).ReplaceAll(text, []byte(`"rms_norm_eps": 0.25`))
		if bytes.Equal(other, text) {
			t.Fatal("the config has no rms_norm_eps")
		}
		if err := os.WriteFile(filepath.Join(own, "config.json"), other, 0o644); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if code := Run(context.Background(), g.flags(t, own), &stdout, &stderr); code != exitUntested || !strings.Contains(stderr.String(), "not that of config.json") {
			t.Errorf("%s: another config: exit code %d, %s", model, code, stderr.String())
		}
	}
}
