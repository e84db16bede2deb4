package blackbox

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden/npy"
)

// Bounds on what a file may hold.
const (
	maxFile    = 1 << 30
	maxPrompts = 1 << 10
	maxTop     = 1 << 12 // tokens at one position
)

// Output is what an engine gave.
type Output struct {
	Info       conformance.Info
	Resolution float64 // half of the last digit that log-probabilities were rounded to; 0 if they were not
	Prompts    []Prompt
}

// Prompt is what it gave for one prompt.
type Prompt struct {
	Set, Case string // Set may be empty: any
	Tokens    int    // of the prompt, the image's included; 0 if it does not say
	Rows      []Row  // of the last positions, in order
}

// Row is the distribution at one position.
type Row struct {
	Logits []float32 // all of them, up to a constant; nil if only the most probable are there
	IDs    []int     // the most probable
	Log    []float64 // their log-probabilities
}

// file is the JSON form.
type file struct {
	Format     int          `json:"format"`
	Engine     fileEngine   `json:"engine"`
	Resolution float64      `json:"resolution"`
	Prompts    []filePrompt `json:"prompts"`
}

type fileEngine struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Class   string `json:"class"`
	Lanes   int    `json:"lanes"`
}

type filePrompt struct {
	Set    string      `json:"set"`
	Case   string      `json:"case"`
	Tokens int         `json:"tokens"`
	Logits [][]float32 `json:"logits"`
	Top    [][]fileTop `json:"top"`
}

type fileTop struct {
	ID      int     `json:"id"`
	LogProb float64 `json:"logprob"`
}

// Read reads a file: .json, .npy with the logits of one prompt, or .npz with an array for each, named CASE or SET/CASE.
func Read(path string) (Output, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Output{}, err
	}
	if !info.Mode().IsRegular() {
		return Output{}, fmt.Errorf("blackbox: %s: not a regular file, want a .json, .npy or .npz file", path)
	}
	if info.Size() == 0 || info.Size() > maxFile {
		return Output{}, fmt.Errorf("blackbox: %s: %d bytes, want 1 to %d", path, info.Size(), maxFile)
	}
	out := Output{Info: conformance.Info{Name: filepath.Base(path), Arithmetic: compare.Arithmetic{Class: compare.F32}}}
	switch filepath.Ext(path) {
	case ".json":
		return readJSON(path, out)
	case ".npy":
		a, err := npy.ReadFile(path)
		if err != nil {
			return out, fmt.Errorf("blackbox: %w", err)
		}
		p, err := fromArray(a, "")
		out.Prompts = []Prompt{p}
		return out, err
	case ".npz":
		return readArchive(path, out)
	}
	return out, fmt.Errorf("blackbox: %s: want a .json, .npy or .npz file", path)
}

func readArchive(path string, out Output) (Output, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return out, fmt.Errorf("blackbox: %s: %w", path, err)
	}
	defer z.Close()
	if len(z.File) > maxPrompts {
		return out, fmt.Errorf("blackbox: %s: %d arrays, want at most %d", path, len(z.File), maxPrompts)
	}
	total := uint64(0)
	for _, f := range z.File {
		if total += f.UncompressedSize64; f.UncompressedSize64 > maxFile || total > maxFile {
			return out, fmt.Errorf("blackbox: %s: the arrays have more than %d bytes", path, maxFile)
		}
		r, err := f.Open()
		if err != nil {
			return out, fmt.Errorf("blackbox: %s: %s: %w", path, f.Name, err)
		}
		var data bytes.Buffer
		_, err = io.Copy(&data, io.LimitReader(r, int64(f.UncompressedSize64)))
		r.Close()
		if err != nil {
			return out, fmt.Errorf("blackbox: %s: %s: %w", path, f.Name, err)
		}
		a, err := npy.Parse(f.Name, data.Bytes())
		if err != nil {
			return out, fmt.Errorf("blackbox: %s: %w", path, err)
		}
		p, err := fromArray(a, strings.TrimSuffix(f.Name, ".npy"))
		if err != nil {
			return out, err
		}
		out.Prompts = append(out.Prompts, p)
	}
	return out, out.check(path)
}

// fromArray takes logits [V] of the last position or [n, V] of the last n.
func fromArray(a *npy.Array, name string) (Prompt, error) {
	p := Prompt{Case: name}
	if set, rest, ok := strings.Cut(name, "/"); ok {
		p.Set, p.Case = set, rest
	}
	values, err := a.Rounded32s()
	if err != nil {
		return p, fmt.Errorf("blackbox: %w", err)
	}
	shape := a.Shape
	if len(shape) == 3 && shape[0] == 1 {
		shape = shape[1:]
	}
	if len(shape) == 1 {
		shape = []int{1, shape[0]}
	}
	if len(shape) != 2 || shape[0] < 1 || shape[1] < 1 {
		return p, fmt.Errorf("blackbox: %s: shape %v, want [positions, vocabulary] or [vocabulary]", name, a.Shape)
	}
	for i := range shape[0] {
		p.Rows = append(p.Rows, Row{Logits: values[i*shape[1]:][:shape[1]]})
	}
	return p, nil
}

func readJSON(path string, out Output) (Output, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return out, err
	}
	var f file
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		text := strings.TrimPrefix(err.Error(), "json: ")
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			text = fmt.Sprintf("a %s does not belong to %s (byte %d)", t.Value, cmp.Or(t.Field, "the whole"), t.Offset)
		}
		return out, fmt.Errorf("blackbox: %s: not the JSON of docs/black-box.md: %s", path, text)
	}
	if _, err := dec.Token(); err != io.EOF {
		return out, fmt.Errorf("blackbox: %s: more data after the JSON object", path)
	}
	if f.Format != 1 {
		return out, fmt.Errorf("blackbox: %s: format %d, want 1", path, f.Format)
	}
	if f.Engine.Class != "" {
		if out.Info.Class, err = compare.ParseClass(f.Engine.Class); err != nil {
			return out, fmt.Errorf("blackbox: %s: engine: %w", path, err)
		}
	}
	if f.Engine.Lanes < 0 || f.Engine.Lanes > 1<<20 {
		return out, fmt.Errorf("blackbox: %s: engine: %d lanes, want 0 to %d", path, f.Engine.Lanes, 1<<20)
	}
	if f.Engine.Name != "" {
		out.Info.Name = f.Engine.Name
	}
	out.Info.Version, out.Info.Lanes = f.Engine.Version, compare.Lanes(f.Engine.Lanes)
	if out.Resolution = f.Resolution; !(f.Resolution >= 0 && f.Resolution < 1) {
		return out, fmt.Errorf("blackbox: %s: resolution %v, want 0 to 1 nat", path, f.Resolution)
	}
	for i, p := range f.Prompts {
		q := Prompt{Set: p.Set, Case: p.Case, Tokens: p.Tokens}
		if (len(p.Logits) > 0) == (len(p.Top) > 0) {
			return out, fmt.Errorf("blackbox: %s: prompt %d: want either logits or top", path, i)
		}
		for _, l := range p.Logits {
			q.Rows = append(q.Rows, Row{Logits: l})
		}
		for _, top := range p.Top {
			if len(top) == 0 || len(top) > maxTop {
				return out, fmt.Errorf("blackbox: %s: prompt %d: %d tokens at a position, want 1 to %d", path, i, len(top), maxTop)
			}
			var r Row
			for _, t := range top {
				if t.LogProb > 1e-6 || math.IsNaN(t.LogProb) {
					return out, fmt.Errorf("blackbox: %s: prompt %d: log-probability %v, want at most 0: natural logarithms", path, i, t.LogProb)
				}
				r.IDs, r.Log = append(r.IDs, t.ID), append(r.Log, t.LogProb)
			}
			q.Rows = append(q.Rows, r)
		}
		out.Prompts = append(out.Prompts, q)
	}
	return out, out.check(path)
}

func (o Output) check(path string) error {
	if len(o.Prompts) == 0 || len(o.Prompts) > maxPrompts {
		return fmt.Errorf("blackbox: %s: %d prompts, want 1 to %d", path, len(o.Prompts), maxPrompts)
	}
	for _, p := range o.Prompts {
		if p.Case == "" {
			return fmt.Errorf("blackbox: %s: a prompt without the name of its case", path)
		}
		if p.Tokens < 0 || p.Tokens > 1<<24 {
			return fmt.Errorf("blackbox: %s: %s: %d tokens, want 0 to %d", path, p.Case, p.Tokens, 1<<24)
		}
		if p.Tokens > 0 && len(p.Rows) > p.Tokens {
			return fmt.Errorf("blackbox: %s: %s: %d positions, but %d tokens", path, p.Case, len(p.Rows), p.Tokens)
		}
	}
	return nil
}
