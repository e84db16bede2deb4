package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Templates drawn at random by tools/gen-golden/tokenizer_template_fuzz.py, and what Jinja makes of them: those of the
// vectors, and those of a file in LLAVAREF_TEMPLATES. What this package refuses by name is no difference; what it renders
// must be what Jinja renders.
func TestRandomTemplatesAreRenderedAsJinjaDoes(t *testing.T) {
	files := []string{"random.json.gz"}
	if path := os.Getenv("LLAVAREF_TEMPLATES"); path != "" {
		relative, err := filepath.Rel(vectors, path)
		if abs, errAbs := filepath.Abs(vectors); errAbs == nil && filepath.IsAbs(path) {
			relative, err = filepath.Rel(abs, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, relative)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { randomTemplates(t, readLines[[]json.RawMessage](t, name)) })
	}
}

func randomTemplates(t *testing.T, lines [][]json.RawMessage) {
	var conversations [][]Message
	for _, raw := range lines[0] {
		messages, err := ParseMessages(raw)
		if err != nil {
			t.Fatal(err)
		}
		conversations = append(conversations, messages)
	}
	same, refused, both, differ := 0, 0, 0, 0
	for _, line := range lines[1:] {
		var text string
		var which int
		var generate bool
		var want *string
		scan(t, line, &text, &which, &generate, &want)
		var got string
		chat, err := parseTemplate(text)
		if err == nil {
			got, err = (&Tokenizer{chat: chat, named: map[string]string{"bos_token": "<s>"}}).Template(conversations[which], generate)
		}
		switch {
		case err != nil && want == nil:
			both++
		case err != nil:
			refused++
		case want == nil || got != *want:
			if differ++; differ <= 20 {
				jinja := "an error"
				if want != nil {
					jinja = *want
				}
				t.Errorf("%q on conversation %d:\n got %q\nwant %q", text, which, got, jinja)
			}
		default:
			same++
		}
	}
	if same == 0 {
		t.Error("none rendered")
	}
	t.Logf("%d rendered alike, %d errors to both, %d refused here only, %d differences", same, both, refused, differ)
}
