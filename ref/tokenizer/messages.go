package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Limits on a conversation; a prompt has at most a few thousand positions.
const (
	maxMessages     = 1 << 12
	maxMessagesFile = 1 << 20 // bytes of JSON
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "user", "assistant", "system"
	Content []Part
}

// Part is an image or a text of a message. The template says where images go: LLaVA's put all of a message's images first.
type Part struct {
	Type string // "image" or "text"
	Text string
}

// User is a question about images, as many as the prompt is to have.
func User(text string, images int) Message {
	m := Message{Role: "user"}
	for range images {
		m.Content = append(m.Content, Part{Type: "image"})
	}
	m.Content = append(m.Content, Part{Type: "text", Text: text})
	return m
}

// Images is the number of images in a conversation.
func Images(messages []Message) int {
	n := 0
	for _, m := range messages {
		for _, p := range m.Content {
			if p.Type == "image" {
				n++
			}
		}
	}
	return n
}

// ParseMessages reads a conversation: [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}].
// Content that is a plain string, which LLaVA's templates render as no content at all without a word, is refused, and so
// are types other than image and text. Further fields of an image (where its file is) are not looked at.
func ParseMessages(data []byte) ([]Message, error) {
	if len(data) > maxMessagesFile {
		return nil, fmt.Errorf("tokenizer: messages: %d bytes, want at most %d", len(data), maxMessagesFile)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var list []object
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("tokenizer: messages: want a list of objects: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("tokenizer: messages: more data after the list")
	}
	r := &reader{}
	var out []Message
	for i, o := range list {
		r.path = fmt.Sprintf("messages[%d]", i)
		m := Message{Role: r.str(o, "role", "")}
		if !o.has("role") || !o.has("content") {
			r.fail("want role and content")
		}
		for k, p := range r.objects(o, "content") {
			r.path = fmt.Sprintf("messages[%d].content[%d]", i, k)
			part := Part{Type: r.str(p, "type", "")}
			switch part.Type {
			case "image":
			case "text":
				if part.Text = r.str(p, "text", ""); !p.has("text") {
					r.fail("want text")
				}
			default:
				r.fail("type %q, want \"image\" or \"text\"", part.Type)
			}
			m.Content = append(m.Content, part)
		}
		out = append(out, m)
	}
	if r.err != nil {
		return nil, r.err
	}
	return out, nil
}

// values is the conversation as a template sees it.
func values(messages []Message) []any {
	list := []any{}
	for _, m := range messages {
		content := []any{}
		for _, p := range m.Content {
			part := map[string]any{"type": p.Type}
			if p.Type == "text" {
				part["text"] = p.Text
			}
			content = append(content, part)
		}
		list = append(list, map[string]any{"role": m.Role, "content": content})
	}
	return list
}
