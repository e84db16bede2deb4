// Package endtoend carries two small checkpoints as transformers saved them, with tokenizer and processor, and what transformers answers to
// conversations about images: sizes, pixels, token ids, the tokens that it chooses. tools/gen-golden/endtoend.py writes all of it.
//
// A Set is one checkpoint, a Case one conversation. Of the pixels the SHA-256 is kept, and the logits are in files for tests alone.
package endtoend

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

//go:embed llava llava-next llava.json llava-next.json images
var files embed.FS

// Names lists the sets. Each is called like the folder of its checkpoint.
func Names() []string { return []string{"llava", "llava-next"} }

// Set is one checkpoint and the conversations that transformers had with it.
type Set struct {
	Name     string   `json:"model"`
	EOS      []int    `json:"eos"`       // ids that end an answer
	TwinRows []int    `json:"twin_rows"` // two ids whose rows of the head are the same, the one that is never chosen first
	Versions Versions `json:"saved_by"`
	Cases    []Case   `json:"cases"`
}

// Versions say what answered.
type Versions struct {
	Transformers string `json:"transformers"`
	Torch        string `json:"torch"`
}

// Case is one conversation and what transformers makes of it.
type Case struct {
	Name         string          `json:"name"`
	Why          string          `json:"why"`            // what it is there for, in one sentence
	Messages     json.RawMessage `json:"messages"`       // as apply_chat_template takes them
	Images       []string        `json:"images"`         // names for Image, in the order of the conversation
	MaxNewTokens int             `json:"max_new_tokens"` //
	Prompt       string          `json:"prompt"`         // as the chat template renders it, one image token an image
	Sizes        [][2]int        `json:"image_sizes"`    // height, width
	ImageTokens  []int           `json:"image_tokens"`   // of each image
	Tiles        int             `json:"tiles"`          // of all images
	PixelsSHA256 string          `json:"pixels_sha256"`  // of pixel_values [Tiles, 3, px, px], float32, little-endian
	Runs         []run           `json:"input_ids"`      //
	NewIDs       []int           `json:"new_ids"`        // that are chosen, an end-of-sequence id included
	Text         string          `json:"text"`           // of NewIDs, without special tokens
	Ties         []int           `json:"ties"`           // steps at which the twin rows have the largest logit
	RMS          []float64       `json:"rms"`            // of the true logits, by step
	Floors       []float64       `json:"floors"`         // rms of the error of transformers' float32 logits over that
}

// run is an id, or [id, times].
type run struct{ id, times int }

func (r *run) UnmarshalJSON(data []byte) error {
	r.times = 1
	if data[0] != '[' {
		return json.Unmarshal(data, &r.id)
	}
	var pair [2]int
	err := json.Unmarshal(data, &pair)
	r.id, r.times = pair[0], pair[1]
	return err
}

// InputIDs is what the model is given: each image token as often as its image has rows of features.
func (c Case) InputIDs() []int {
	var ids []int
	for _, r := range c.Runs {
		ids = append(ids, slices.Repeat([]int{r.id}, r.times)...)
	}
	return ids
}

// ImageSizes are the sizes of the images.
func (c Case) ImageSizes() []shapes.Size {
	var out []shapes.Size
	for _, s := range c.Sizes {
		out = append(out, shapes.Size{H: s[0], W: s[1]})
	}
	return out
}

// Open reads a set.
func Open(name string) (*Set, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("endtoend: set %q is not known, want one of %s", name, strings.Join(Names(), ", "))
	}
	data, err := files.ReadFile(name + ".json")
	if err != nil {
		return nil, fmt.Errorf("endtoend: %w", err)
	}
	s := &Set{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("endtoend: %s.json: %w", name, err)
	}
	return s, nil
}

// Case finds a case by its name.
func (s *Set) Case(name string) (Case, error) {
	var names []string
	for _, c := range s.Cases {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Case{}, fmt.Errorf("endtoend: set %s has no case %q, want one of %s", s.Name, name, strings.Join(names, ", "))
}

// WriteCheckpoint writes the checkpoint's folder, as transformers saved it. The folder is made.
func (s *Set) WriteCheckpoint(dir string) error {
	sub, err := fs.Sub(files, s.Name)
	if err == nil {
		err = os.CopyFS(dir, sub)
	}
	if err != nil {
		return fmt.Errorf("endtoend: %w", err)
	}
	// What is embedded cannot be written to, and so its copy is not either.
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			err = os.Chmod(filepath.Join(dir, e.Name()), 0o644)
		}
	}
	if err != nil {
		return fmt.Errorf("endtoend: %w", err)
	}
	return nil
}

// Image is one of the pictures, as a PNG file.
func Image(name string) ([]byte, error) {
	if data, err := files.ReadFile("images/" + name + ".png"); err == nil {
		return data, nil
	}
	return golden.Image("images/" + name + ".png")
}
