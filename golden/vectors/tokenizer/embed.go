// Package tokenizer holds what transformers and its library "tokenizers" make of texts, for the tests of ref/tokenizer, and
// embeds the text side of the two tiny models, as a checkpoint's folder has it. README.md says what the files are.
package tokenizer

import (
	"embed"
	"io/fs"
)

//go:embed layouts/llama3-4.57.6 layouts/llama2-4.57.6
var folders embed.FS

// Folder is the text side of the model tiny-1.6 or tiny-1.5: tokenizer.json, the processor's files, the chat template. It is
// nil for any other name.
func Folder(model string) fs.FS {
	name := map[string]string{"tiny-1.6": "layouts/llama3-4.57.6", "tiny-1.5": "layouts/llama2-4.57.6"}[model]
	if name == "" {
		return nil
	}
	sub, err := fs.Sub(folders, name)
	if err != nil {
		return nil // the names above are valid
	}
	return sub
}

// Models are the names that Folder knows.
func Models() []string { return []string{"tiny-1.6", "tiny-1.5"} }
