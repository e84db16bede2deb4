package tokenizer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// Limits on a chat template, which is a program that comes with the checkpoint.
const (
	maxTemplate = 1 << 16 // bytes of it
	maxNesting  = 64      // of brackets and of blocks
	maxRendered = 1 << 21 // bytes that it may write
	maxSteps    = 1 << 23 // what it may do: a step for each node, each item of a list, each byte of a string
)

// chatTemplate is a Jinja template as transformers compiles it (_compile_jinja_template in utils/chat_template_utils.py):
// trim_blocks, lstrip_blocks, and {% generation %}, which renders its body.
//
// gonja reads the tags; the text between them is found in lex.go, and what the tags say is evaluated in evaluate.go,
// expression.go and filters.go, for three reasons: gonja's own renderer takes a value that is missing for an empty string
// where Jinja raises an error, it cannot be stopped, and it knows functions that open files. No template can see more than
// its messages here, and none runs longer than maxSteps.
type chatTemplate struct{ nodes []nodes.Node }

// parseTemplate compiles a template.
func parseTemplate(text string) (t *chatTemplate, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("tokenizer: chat template: it cannot be read: %v", p)
		}
	}()
	if err := mayParse(text); err != nil {
		return nil, fmt.Errorf("tokenizer: chat template: %w", err)
	}
	list, err := lex(text)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: chat template: %w", err)
	}
	root, err := parser.NewParser("chat template", tokens.NewStream(list), config.New(), noFiles{}, controlStructures()).Parse()
	if err != nil {
		return nil, fmt.Errorf("tokenizer: chat template: %w", err)
	}
	return &chatTemplate{root.Nodes}, nil
}

// mayParse holds a template to the limits within which gonja's parser, a recursive one, is safe.
func mayParse(text string) error {
	if len(text) > maxTemplate {
		return fmt.Errorf("%d bytes, want at most %d", len(text), maxTemplate)
	}
	brackets, blocks := 0, 0
	for i, c := range []byte(text) {
		switch c {
		case '(', '[', '{':
			brackets++
		case ')', ']', '}':
			brackets--
		}
		if rest := text[i:]; strings.HasPrefix(rest, "{%") {
			switch word := strings.TrimLeft(rest[2:], "-+ \t\n\r"); {
			case strings.HasPrefix(word, "for"), strings.HasPrefix(word, "if"), strings.HasPrefix(word, "generation"):
				blocks++
			case strings.HasPrefix(word, "end"):
				blocks--
			}
		}
		if brackets > maxNesting || blocks > maxNesting {
			return fmt.Errorf("nested more than %d deep at byte %d", maxNesting, i)
		}
	}
	return nil
}

// controlStructures are the tags that a template may have.
func controlStructures() *exec.ControlStructureSet {
	set := map[string]parser.ControlStructureParser{"set": parseSet, "generation": parseGeneration}
	for _, name := range []string{"for", "if"} {
		set[name], _ = builtins.ControlStructures.Get(name)
	}
	return exec.NewControlStructureSet(set)
}

// setStatement is {% set name = value %}.
type setStatement struct {
	at    *tokens.Token
	name  string
	value nodes.Expression
}

func (s *setStatement) Position() *tokens.Token { return s.at }
func (s *setStatement) String() string          { return "set " + s.name }

func parseSet(_ *parser.Parser, args *parser.Parser) (nodes.ControlStructure, error) {
	s := &setStatement{at: args.Current()}
	name := args.Match(tokens.Name)
	if name == nil || args.Match(tokens.Assign) == nil {
		return nil, args.Error("want {% set name = value %}", args.Current())
	}
	s.name = name.Val
	var err error
	if s.value, err = args.ParseExpression(); err != nil {
		return nil, err
	}
	if !args.End() {
		return nil, args.Error("more after the value of set", args.Current())
	}
	return s, nil
}

// generationStatement is {% generation %}: AssistantTracker in transformers' utils/chat_template_utils.py.
type generationStatement struct {
	at   *tokens.Token
	body *nodes.Wrapper
}

func (g *generationStatement) Position() *tokens.Token { return g.at }
func (g *generationStatement) String() string          { return "generation" }

func parseGeneration(p *parser.Parser, args *parser.Parser) (nodes.ControlStructure, error) {
	if !args.End() {
		return nil, args.Error("generation takes no arguments", args.Current())
	}
	g := &generationStatement{at: p.Current()}
	body, end, err := p.WrapUntil("endgeneration")
	if err != nil {
		return nil, err
	}
	if !end.End() {
		return nil, end.Error("endgeneration takes no arguments", nil)
	}
	g.body = body
	return g, nil
}

// noFiles is a loader that opens nothing.
type noFiles struct{}

var errNoFiles = errors.New("a chat template may open no other")

func (noFiles) Read(string) (io.Reader, error)         { return nil, errNoFiles }
func (noFiles) Resolve(string) (string, error)         { return "", errNoFiles }
func (noFiles) Inherit(string) (loaders.Loader, error) { return nil, errNoFiles }

// Template renders the checkpoint's chat template, apply_chat_template of transformers without tokenising. No begin-of-text
// is in it unless the template writes one: LLaVA's do not, and Encode adds it.
func (t *Tokenizer) Template(messages []Message, addGenerationPrompt bool) (string, error) {
	if t.chat == nil {
		return "", t.noChat
	}
	if len(messages) == 0 || len(messages) > maxMessages {
		return "", fmt.Errorf("tokenizer: chat template: %d messages, want 1 to %d", len(messages), maxMessages)
	}
	names := map[string]any{"messages": values(messages), "add_generation_prompt": addGenerationPrompt}
	for name, token := range t.named {
		names[name] = token
	}
	return t.chat.render(names)
}
