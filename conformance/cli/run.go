package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/ref/generate"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// runFlags are the flags of run.
type runFlags struct {
	model, prompt, messages, engine, dump, variant string
	images                                         []string
	maxNewTokens                                   int
	json                                           bool
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run --model DIR --prompt TEXT",
		Short: "Ask a checkpoint about images, as transformers would answer",
		Long: `Run takes a checkpoint's folder as transformers saves it (config.json, safetensors, tokenizer.json and the processor's
files) and answers: pixels, token ids, chat template, greedy choice and stopping rules are those of transformers.

Each --image is one image of the question, in order; all of them stand before its text, where the chat template puts
them. --messages FILE takes a whole conversation instead, [{"role": "user", "content": [{"type": "image"}, {"type":
"text", "text": "..."}]}], whose images are the --image files in order.

The engine is the optimized one: fast, which widens weights exactly, or fast-bf16 for weights in bfloat16, which rounds
what enters a product to bfloat16, too. ref is the reference.

The text comes on the standard output as it is made. --dump DIR keeps the nodes of the prompt's pass that the engine
shows: NODE.npy under its on-disk name, the inputs, and a manifest. --json prints one object on one line at the end
instead of the text: ids, text, sizes, what ended it.`,
		Example: `  llavaref run --model DIR --image photo.png --prompt 'What is this?' --max-new-tokens 32`,
		Args:    noArgs,
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "model", "", "the folder of a checkpoint")
	fs.StringArrayVar(&f.images, "image", nil, "an image file, PNG, BMP, GIF, JPEG or lossless WebP; may be given several times")
	fs.StringVar(&f.prompt, "prompt", "", "the question")
	fs.StringVar(&f.messages, "messages", "", "a file with a conversation, instead of --prompt")
	fs.IntVar(&f.maxNewTokens, "max-new-tokens", 128, "stop after as many tokens, if no end-of-sequence comes before")
	fs.StringVar(&f.engine, "engine", "fast", "engine to run: "+strings.Join(engines.Generators(), ", "))
	fs.StringVar(&f.variant, "variant", string(preprocess.Pillow), "whose resize: "+variantNames())
	fs.StringVar(&f.dump, "dump", "", "a folder to be made, for every node of the prompt's pass")
	fs.BoolVar(&f.json, "json", false, "print one JSON object at the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
	return cmd
}

func variantNames() string {
	s := ""
	for i, v := range preprocess.Variants() {
		if i > 0 {
			s += ", "
		}
		s += string(v)
	}
	return s
}

// answer is what --json prints.
type answer struct {
	ImageSizes  [][2]int `json:"image_sizes"`  // height, width in pixels
	ImageTokens []int    `json:"image_tokens"` // of each image
	Prompt      string   `json:"prompt"`       // as the chat template renders it, one image token an image
	InputIDs    []int    `json:"input_ids"`
	NewIDs      []int    `json:"new_ids"`
	EndedBy     string   `json:"ended_by"` // "eos" or "max_new_tokens"
	Text        string   `json:"text"`
}

func (f *runFlags) run(cmd *cobra.Command) error {
	if f.model == "" {
		return usage("--model is missing, want the folder of a checkpoint")
	}
	if (f.prompt == "") == (f.messages == "") {
		return usage("want one of --prompt and --messages")
	}
	if f.maxNewTokens < 1 {
		return usage("--max-new-tokens %d, want at least 1", f.maxNewTokens)
	}
	if err := engines.KnowsGenerator(f.engine); err != nil {
		return usage("--engine: %w", err)
	}
	variant, err := preprocess.ParseVariant(f.variant)
	if err != nil {
		return usage("--variant: %w", err)
	}
	cfg, err := checkpointConfig(f.model)
	if err != nil {
		return err
	}
	words, err := tokenizer.Load(f.model)
	if err != nil {
		return err
	}
	stop, err := words.Stop()
	if err != nil {
		return fmt.Errorf("%s: %w", f.model, err)
	}
	in, a, err := f.inputs(cmd, cfg, words, variant)
	if err != nil {
		return err
	}
	engine, release, err := f.open(cfg, len(in.InputIDs)+f.maxNewTokens)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		if cmd.Context().Err() == nil { // else a pass may still be under way
			engine.Close()
		}
	}()
	s := &promptSession{Session: engine.Session(), quick: engine.Quick, bar: newStepsBar(cmd.ErrOrStderr(), "prompt"), nodes: len(shapes.Nodes(cfg))}
	if f.dump != "" {
		if s.dump, err = dump.Create(f.dump, engine.Info, in); err != nil {
			return err
		}
		defer s.dump.Abort()
	}
	if err := f.generate(cmd, s, words, in, stop, &a); err != nil {
		return err
	}
	if f.json {
		a.EndedBy = "max_new_tokens"
		if slices.Contains(stop, a.NewIDs[len(a.NewIDs)-1]) {
			a.EndedBy = "eos"
		}
		enc := json.NewEncoder(cmd.OutOrStdout()) // on one line: a prompt with an image has thousands of ids
		enc.SetEscapeHTML(false)
		return enc.Encode(a)
	}
	return nil
}

// open opens the engine on the weights in the folder, in the engine's own layout if there is a file in it. The caller calls release at the end.
func (f *runFlags) open(cfg shapes.Config, positions int) (g engines.Generator, release func() error, err error) {
	if engines.HasFast(f.engine, f.model) {
		g, err = engines.OpenFastGenerator(f.engine, f.model, cfg, positions)
		return g, func() error { return nil }, err
	}
	c, err := checkpoint.Open(f.model)
	if err != nil {
		return g, nil, err
	}
	weights, err := c.Bind(cfg)
	if err == nil {
		g, err = engines.OpenGenerator(f.engine, cfg, weights, positions)
	}
	if err != nil {
		c.Close()
		return g, nil, err
	}
	return g, c.Close, nil
}

// inputs makes a prompt of the images and the words.
func (f *runFlags) inputs(cmd *cobra.Command, cfg shapes.Config, words *tokenizer.Tokenizer, variant preprocess.Variant) (shapes.Inputs, answer, error) {
	in, a := shapes.Inputs{}, answer{ImageSizes: [][2]int{}, ImageTokens: []int{}}
	messages := []tokenizer.Message{tokenizer.User(f.prompt, len(f.images))}
	if f.messages != "" {
		data, err := readSmall(f.messages)
		if err != nil {
			return in, a, err
		}
		if messages, err = tokenizer.ParseMessages(data); err != nil {
			return in, a, fmt.Errorf("%s: %w", f.messages, err)
		}
	}
	if n := tokenizer.Images(messages); n != len(f.images) {
		return in, a, usage("the conversation has %d images, but there are %d --image files", n, len(f.images))
	}
	if len(f.images) > 0 {
		settings, err := preprocess.ReadConfig(f.model)
		if err != nil {
			return in, a, err
		}
		p := preprocess.Processor{Config: settings, Variant: variant}
		px := cfg.Vision.ImageSize
		in.PixelValues = shapes.Tensor{Shape: []int{0, cfg.Vision.NumChannels, px, px}}
		for _, path := range f.images {
			picture, err := preprocess.ReadImage(path)
			if err != nil {
				return in, a, err
			}
			if picture.Warning != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "llavaref: warning: %s: %s\n", path, picture.Warning)
			}
			tiles, size, err := p.Image(picture.Image)
			if err != nil {
				return in, a, fmt.Errorf("%s: %w", path, err)
			}
			in.PixelValues.Data = append(in.PixelValues.Data, tiles.Data...)
			in.PixelValues.Shape[0] += tiles.Shape[0]
			in.ImageSizes = append(in.ImageSizes, size)
			a.ImageSizes = append(a.ImageSizes, [2]int{size.H, size.W})
			a.ImageTokens = append(a.ImageTokens, p.FeatureCount(size))
		}
	}
	var err error
	if a.Prompt, err = words.Template(messages, true); err != nil {
		return in, a, fmt.Errorf("%s: %w", f.model, err)
	}
	if in.InputIDs, err = words.Prompt(messages, true, a.ImageTokens); err != nil {
		return in, a, fmt.Errorf("%s: %w", f.model, err)
	}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	a.InputIDs = in.InputIDs
	return in, a, nil
}

// generate streams the answer. When the context is cancelled it returns at once; what the engine still computes is dropped.
func (f *runFlags) generate(cmd *cobra.Command, s *promptSession, words *tokenizer.Tokenizer, in shapes.Inputs, stop []int, a *answer) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	text := io.Discard
	if !f.json {
		text = cmd.OutOrStdout()
	}
	type piece struct {
		text string
		id   int
	}
	pieces, done := make(chan piece), make(chan error, 1)
	go func() {
		stream := words.NewStream(true)
		_, err := generate.Greedy(ctx, s, in, f.maxNewTokens, stop, func(id int) {
			select {
			case pieces <- piece{stream.Push(id), id}:
			case <-ctx.Done():
			}
		})
		if err == nil {
			err = s.closeDump()
		}
		if err == nil {
			select {
			case pieces <- piece{stream.Flush(), -1}:
			case <-ctx.Done():
			}
		}
		done <- err
	}()
	for {
		select {
		case p := <-pieces:
			if p.id >= 0 {
				a.NewIDs = append(a.NewIDs, p.id)
			}
			a.Text += p.text
			fmt.Fprint(text, p.text)
		case err := <-done:
			if err == nil {
				fmt.Fprintln(text)
			}
			return err
		case <-ctx.Done():
			fmt.Fprintln(text)
			return fmt.Errorf("interrupted after %d tokens: %w", len(a.NewIDs), context.Cause(ctx))
		}
	}
}

// promptSession shows and keeps the nodes of the prompt's pass, which is the first.
type promptSession struct {
	generate.Session
	bar   *bar
	dump  *dump.Writer
	nodes int
	seen  int
	begun bool
	quick bool // no bar is worth what looking at nodes costs
}

func (s *promptSession) Extend(in shapes.Inputs, logitsToKeep int, _ shapes.Probe) (shapes.Tensor, error) {
	if s.begun {
		return s.Session.Extend(in, logitsToKeep, nil)
	}
	s.begun = true
	defer s.bar.close()
	if s.dump == nil && s.quick {
		return s.Session.Extend(in, logitsToKeep, nil)
	}
	if s.dump != nil {
		logitsToKeep = 0 // a dump has the logits of the whole prompt
	}
	return s.Session.Extend(in, logitsToKeep, func(node string, t shapes.Tensor) {
		s.seen++
		s.bar.set(int64(s.seen), int64(s.nodes))
		if s.dump != nil {
			s.dump.Probe(node, t)
		}
	})
}

func (s *promptSession) closeDump() error {
	if s.dump == nil {
		return nil
	}
	return s.dump.Close()
}

// readSmall reads a file that a person has written.
func readSmall(path string) ([]byte, error) {
	const limit = 1 << 24
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, errors.New(path + " is not a file of at most 16 MiB")
	}
	return os.ReadFile(path)
}
