// Package dump writes and reads what an engine computed for one prompt: a folder that any tool can read and write. docs/dump-format.md is the
// format. The Writer makes
//
//	DIR/manifest.json        which engine, how it stores and adds, the nodes with their shapes
//	DIR/pixel_values.npy     float32 [N, 3, px, px]; absent without an image
//	DIR/input_ids.npy        int64 [T]
//	DIR/position_ids.npy     int64 [T]
//	DIR/image_sizes.json     [[height, width], ...]
//	DIR/NODE.npy             float32, one file for every node of the graph, under its on-disk name
//
// The Reader takes other names, layouts, number formats and containers as well, trusts none of them, and holds one node in memory at a time.
package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// Writer writes a dump into a folder that appears under its name only when it is complete. Abort may be called while
// another goroutine is writing.
type Writer struct {
	dir, tmp string

	mu       sync.Mutex // of what follows, and of what is in tmp
	manifest Manifest
	err      error
}

// Create begins a dump; dir must not be there yet. The inputs are written at once.
func Create(dir string, info conformance.Info, in shapes.Inputs) (*Writer, error) {
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("dump: %s is there already, want a folder to be made", dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
	if err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	w := &Writer{dir: dir, tmp: tmp, manifest: Manifest{
		Format: Format, Engine: info.Name, Version: info.Version, Class: string(info.Class), Lanes: int(info.Lanes), Naming: string(shapes.OnDisk),
	}}
	w.inputs(in)
	if err := w.err; err != nil {
		w.Abort()
		return nil, fmt.Errorf("dump: %w", err)
	}
	return w, nil
}

func (w *Writer) inputs(in shapes.Inputs) {
	wide := func(ids []int) []int64 {
		out := make([]int64, len(ids))
		for i, id := range ids {
			out[i] = int64(id)
		}
		return out
	}
	sizes := [][2]int{}
	for _, s := range in.ImageSizes {
		sizes = append(sizes, [2]int{s.H, s.W})
	}
	w.do(npy.WriteFile(filepath.Join(w.tmp, shapes.InInputIDs+".npy"), []int{len(in.InputIDs)}, wide(in.InputIDs)))
	w.do(npy.WriteFile(filepath.Join(w.tmp, shapes.InPositionIDs+".npy"), []int{len(in.PositionIDs)}, wide(in.PositionIDs)))
	if px := in.PixelValues; px.Shape != nil {
		w.do(npy.WriteFile(filepath.Join(w.tmp, shapes.InPixelValues+".npy"), px.Shape, px.Data))
	}
	w.json(shapes.InImageSizes+".json", sizes)
}

// Of says of which golden case the dump is.
func (w *Writer) Of(set, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifest.Set, w.manifest.Case = set, name
}

// Probe writes one node; it is a shapes.Probe. An error is kept for Close.
func (w *Writer) Probe(node string, t shapes.Tensor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.do(npy.WriteFile(filepath.Join(w.tmp, node+".npy"), t.Shape, t.Data))
	w.manifest.Nodes = append(w.manifest.Nodes, Node{node, append([]int{}, t.Shape...)})
}

// Close completes the dump.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.json(ManifestFile, w.manifest)
	if w.err == nil {
		w.err = os.Chmod(w.tmp, 0o755)
	}
	if w.err == nil {
		w.err = os.Rename(w.tmp, w.dir)
	}
	if w.err != nil {
		os.RemoveAll(w.tmp)
		return fmt.Errorf("dump: %w", w.err)
	}
	w.err = errClosed
	return nil
}

var (
	errAborted = errors.New("given up")
	errClosed  = errors.New("closed already")
)

// Abort takes away what was written, and nothing more will be; after Close it does nothing.
func (w *Writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != errClosed {
		w.err = errAborted
		os.RemoveAll(w.tmp)
	}
}

func (w *Writer) json(name string, v any) {
	data, err := json.MarshalIndent(v, "", " ")
	w.do(err)
	if w.err == nil {
		w.do(os.WriteFile(filepath.Join(w.tmp, name), append(data, '\n'), 0o644))
	}
}

// do keeps the first error.
func (w *Writer) do(err error) {
	if w.err == nil {
		w.err = err
	}
}
