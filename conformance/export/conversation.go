package export

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/shapes"
)

// MessagesFile is the conversation of an end-to-end case.
const MessagesFile = "messages.json"

// Conversation is case.json of an end-to-end case.
type Conversation struct {
	Format       int      `json:"format"` // 1
	Set          string   `json:"set"`
	Case         string   `json:"case"`
	Why          string   `json:"why"`
	Images       []string `json:"images"`   // files in images/, in the order of the conversation
	Messages     string   `json:"messages"` // MessagesFile
	MaxNewTokens int      `json:"max_new_tokens"`
}

// WriteConversation writes an end-to-end case with its checkpoint into a folder, which appears under its name when it is complete. in is what
// transformers gives the model for it.
func WriteConversation(dir string, set *endtoend.Set, c endtoend.Case, in shapes.Inputs) error {
	return atomically(dir, func(tmp string) error {
		if err := set.WriteCheckpoint(filepath.Join(tmp, ModelDir)); err != nil {
			return err
		}
		return conversation(tmp, set, c, in)
	})
}

// Ask writes an end-to-end case as WriteConversation does, but without its checkpoint.
func Ask(dir string, set *endtoend.Set, c endtoend.Case, in shapes.Inputs) error {
	return atomically(dir, func(tmp string) error { return conversation(tmp, set, c, in) })
}

func conversation(dir string, set *endtoend.Set, c endtoend.Case, in shapes.Inputs) error {
	d := Conversation{Format: 1, Set: set.Name, Case: c.Name, Why: c.Why, Images: []string{}, Messages: MessagesFile, MaxNewTokens: c.MaxNewTokens}
	if len(c.Images) > 0 {
		if err := os.Mkdir(filepath.Join(dir, ImagesDir), 0o755); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	for i, name := range c.Images {
		file := fmt.Sprintf("%s/%d-%s.png", ImagesDir, i, name)
		d.Images = append(d.Images, file)
		picture, err := endtoend.Image(name)
		if err != nil {
			return err
		}
		if err := write(dir, filepath.FromSlash(file), picture); err != nil {
			return err
		}
	}
	var messages bytes.Buffer
	if err := json.Indent(&messages, c.Messages, "", " "); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := write(dir, MessagesFile, append(messages.Bytes(), '\n')); err != nil {
		return err
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := write(dir, CaseFile, text.Bytes()); err != nil {
		return err
	}
	if err := Inputs(dir, in); err != nil {
		return err
	}
	return write(dir, ReadmeFile, conversationReadme(d, c, in))
}

//go:embed conversation.txt.tmpl
var conversationText string

var conversationTemplate = template.Must(template.New(ReadmeFile).Parse(conversationText))

// conversationReadme tells the author of an engine what to do with the folder.
func conversationReadme(d Conversation, c endtoend.Case, in shapes.Inputs) []byte {
	var sizes []string
	for _, s := range in.ImageSizes {
		sizes = append(sizes, fmt.Sprintf("[%d, %d]", s.H, s.W))
	}
	var b bytes.Buffer
	err := conversationTemplate.Execute(&b, map[string]any{
		"Set": d.Set, "Case": d.Case, "Why": d.Why, "Images": d.Images, "MaxNewTokens": d.MaxNewTokens,
		"T": len(in.InputIDs), "Pixels": strings.ReplaceAll(fmt.Sprint(in.PixelValues.Shape), " ", ", "), "Sizes": strings.Join(sizes, ", "),
	})
	if err != nil {
		panic(err) // the template and its fields are ours
	}
	return b.Bytes()
}
