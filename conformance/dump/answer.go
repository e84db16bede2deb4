package dump

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Files of a dump that say what lies around the graph.
const (
	AnswerFile    = "answer.json"    // what the engine makes of a conversation
	InventoryFile = "inventory.json" // which parameters it has
)

// Bounds on what is read of them, far above what a prompt or a model of this family needs.
const (
	maxAnswer     = 16 << 20 // bytes of either file
	maxIDs        = 1 << 20
	maxDimensions = 16
)

// Answer is what an engine made of a conversation; docs/dump-format.md has its keys, which are those of llavaref run --json.
type Answer struct {
	ImageSizes  [][]int `json:"image_sizes,omitempty"`  // [[height, width], ...]
	ImageTokens []int   `json:"image_tokens,omitempty"` // of each image
	Prompt      *string `json:"prompt,omitempty"`       // as the chat template renders it
	InputIDs    []int   `json:"input_ids,omitempty"`
	NewIDs      []int   `json:"new_ids,omitempty"`
	EndedBy     *string `json:"ended_by,omitempty"` // "eos" or "max_new_tokens"; not judged, new_ids says it
	Text        *string `json:"text,omitempty"`
}

// Sizes are the sizes of the images.
func (a Answer) Sizes() []shapes.Size {
	var out []shapes.Size
	for _, s := range a.ImageSizes {
		out = append(out, shapes.Size{H: s[0], W: s[1]})
	}
	return out
}

// Answer reads the dump's answer; false if it has none.
func (r *Reader) Answer() (Answer, bool, error) {
	var a Answer
	data, err := r.small(AnswerFile)
	if data == nil {
		return a, false, err
	}
	if err := strict(data, &a); err != nil {
		return a, false, fmt.Errorf("dump: %s: %s: %w", r.dir, AnswerFile, err)
	}
	if err := a.check(); err != nil {
		return a, false, fmt.Errorf("dump: %s: %s: %w", r.dir, AnswerFile, err)
	}
	return a, true, nil
}

func (a Answer) check() error {
	for i, s := range a.ImageSizes {
		if len(s) != 2 {
			return fmt.Errorf("image_sizes[%d] is %s, want [height, width]", i, list(s[:min(len(s), maxDimensions)]))
		}
	}
	for _, l := range []struct {
		name string
		ids  []int
	}{{"image_tokens", a.ImageTokens}, {"input_ids", a.InputIDs}, {"new_ids", a.NewIDs}} {
		if len(l.ids) > maxIDs {
			return fmt.Errorf("%s: %d numbers, want at most %d", l.name, len(l.ids), maxIDs)
		}
	}
	return nil
}

// Inventory reads the dump's list of parameters; false if it has none.
func (r *Reader) Inventory() ([]shapes.Param, bool, error) {
	data, err := r.small(InventoryFile)
	if data == nil {
		return nil, false, err
	}
	var of map[string]struct {
		Shape []int  `json:"shape"`
		DType string `json:"dtype"` // not judged: a model may be kept in any
	}
	if err := strict(data, &of); err != nil {
		return nil, false, fmt.Errorf("dump: %s: %s: want {NAME: {\"shape\": [...]}, ...}: %w", r.dir, InventoryFile, err)
	}
	out := []shapes.Param{}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		p := of[name]
		if len(name) > maxName {
			return nil, false, fmt.Errorf("dump: %s: %s: a name of %d bytes, want at most %d", r.dir, InventoryFile, len(name), maxName)
		}
		if p.Shape == nil || len(p.Shape) > maxDimensions {
			return nil, false, fmt.Errorf("dump: %s: %s: %s: want a shape of at most %d numbers", r.dir, InventoryFile, quote(name), maxDimensions)
		}
		out = append(out, shapes.Param{Name: name, Shape: p.Shape})
	}
	return out, true, nil
}

// small reads a small file of the dump; nil if it is not there.
func (r *Reader) small(name string) ([]byte, error) {
	path := filepath.Join(r.dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %s, want a file", name, kindOf(info.Mode()))
	}
	var data []byte
	if err == nil {
		data, err = readLimited(path, maxAnswer)
	}
	if err == nil && len(data) == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	if err != nil {
		return nil, fmt.Errorf("dump: %s: %w", r.dir, err)
	}
	return data, nil
}

// strict reads a JSON object; unknown and repeated keys are errors.
func strict(data []byte, v any) error {
	if err := checkKeys(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: %s, want %s", cmp.Or(t.Field, fmt.Sprintf("at byte %d", t.Offset)), t.Value, inJSON(t.Type.Kind()))
	}
	if err != nil && strings.Contains(err.Error(), "unknown field") {
		return fmt.Errorf("%s, docs/dump-format.md has those that there are", strings.TrimPrefix(err.Error(), "json: "))
	}
	if err != nil {
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// inJSON is what a value of a Go kind is called in JSON.
func inJSON(k reflect.Kind) string {
	switch k {
	case reflect.Int:
		return "a whole number of at most 64 bits"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// Pixels reads the engine's own pixel_values, at most so many values; false if the dump has none.
func (r *Reader) Pixels(most int) (shapes.Tensor, bool, error) {
	a := r.arrays[shapes.InPixelValues]
	if a == nil {
		return shapes.Tensor{}, false, nil
	}
	err := func() error {
		switch n := a.count(); {
		case a.values == nil:
			return fmt.Errorf("dtype %s, want floats", a.dtype)
		case n < 1 || n > most || len(a.shape) > maxDimensions:
			return fmt.Errorf("shape %s, want [N, 3, height, width]", list(a.shape[:min(len(a.shape), maxDimensions)]))
		}
		return nil
	}()
	var values []float32
	if err == nil {
		values, err = a.values()
	}
	if err != nil {
		return shapes.Tensor{}, false, fmt.Errorf("dump: %s: %s: %w", r.dir, shapes.InPixelValues, err)
	}
	return shapes.Tensor{Shape: slices.Clone(a.shape), Data: values}, true, nil
}

// HasPixels says whether the dump has pixel_values.
func (r *Reader) HasPixels() bool { return r.arrays[shapes.InPixelValues] != nil }
