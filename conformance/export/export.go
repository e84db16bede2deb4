package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// Names of the files and folders of an exported case.
const (
	CaseFile   = "case.json"
	ReadmeFile = "README.txt"
	NodesFile  = "nodes.tsv"
	ModelDir   = "model"
	ImagesDir  = "images"
	GGUFDir    = "gguf"
)

// Options says how the model is written.
type Options struct {
	DType  checkpoint.DType // F32, F16 or BF16. A value that it cannot hold is an error: another number is another model
	Scheme shapes.Scheme    // whose names the tensors have; empty is OnDisk
	GGUF   bool             // the model as GGUF too, for llama.cpp: gguf/model.gguf and gguf/mmproj.gguf
	// Progress, if not nil, is told how many bytes of values are written, of how many.
	Progress func(done, total int64)
}

// Description is case.json.
type Description struct {
	Format  int      `json:"format"` // 1
	Set     string   `json:"set"`
	Case    string   `json:"case"`
	Why     string   `json:"why"`
	DType   string   `json:"dtype"`  // of the checkpoint: f32, f16 or bf16
	Naming  string   `json:"naming"` // of the checkpoint
	Weights string   `json:"weights_sha256"`
	GGUF    bool     `json:"gguf"`   // whether gguf/ is there
	Images  []string `json:"images"` // files in images/, in the order of the prompt; empty where the case begins at pixel_values
}

// Write writes one case of a set with its model into a folder, which appears under its name when it is complete. The folder must
// not be there, or be empty. w must be the set's own weights (conformance.OpenTarget).
func Write(ctx context.Context, dir string, set *golden.Set, w shapes.Weights, name string, opt Options) error {
	c, err := set.Case(name)
	if err != nil {
		return err
	}
	return atomically(dir, func(tmp string) error {
		if err := Model(ctx, filepath.Join(tmp, ModelDir), set.Config, set.ConfigJSON, w, opt); err != nil {
			return err
		}
		if opt.GGUF {
			if err := writeGGUF(ctx, filepath.Join(tmp, GGUFDir), set, w, opt); err != nil {
				return err
			}
		}
		if err := Inputs(tmp, c.Inputs); err != nil {
			return err
		}
		return describe(tmp, set, c, opt)
	})
}

// Prompt writes one case of a set as Write does, but without its model, which opt describes.
func Prompt(dir string, set *golden.Set, name string, opt Options) error {
	c, err := set.Case(name)
	if err != nil {
		return err
	}
	return atomically(dir, func(tmp string) error {
		if err := Inputs(tmp, c.Inputs); err != nil {
			return err
		}
		return describe(tmp, set, c, opt)
	})
}

// Model writes a model alone: config.json and a checkpoint in one file. The folder is made; files in it are not replaced.
// No more than a chunk of values is in memory.
func Model(ctx context.Context, dir string, cfg shapes.Config, configJSON []byte, w shapes.Weights, opt Options) error {
	sources, err := checkpoint.Sources(cfg, opt.scheme(), w)
	if err != nil {
		return err
	}
	config, err := checkpoint.ConfigWithDType(configJSON, opt.DType)
	if err != nil {
		return err
	}
	if err := checkpoint.Write(ctx, dir, sources, checkpoint.Options{DType: opt.DType, Exact: true, Progress: opt.Progress}); err != nil {
		return err
	}
	return write(dir, "config.json", config)
}

// writeGGUF writes the two files that llama.cpp reads. They are of the same dtype, but vectors in them are float32.
func writeGGUF(ctx context.Context, dir string, set *golden.Set, w shapes.Weights, opt Options) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	gguf := checkpoint.GGUFOptions{DType: opt.DType, Exact: true, Progress: opt.Progress}
	return checkpoint.WriteGGUF(ctx, filepath.Join(dir, "model.gguf"), filepath.Join(dir, "mmproj.gguf"), set.Manifest.Model, set.Config, w, gguf)
}

// scheme is whose names the tensors have.
func (o Options) scheme() shapes.Scheme {
	if o.Scheme == "" {
		return shapes.OnDisk
	}
	return o.Scheme
}

// Inputs writes a prompt into a folder that is there: ids, positions, sizes and, if there is an image, pixel values.
func Inputs(dir string, in shapes.Inputs) error {
	sizes := [][2]int{}
	for _, s := range in.ImageSizes {
		sizes = append(sizes, [2]int{s.H, s.W})
	}
	text, err := json.Marshal(sizes)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := write(dir, shapes.InImageSizes+".json", append(text, '\n')); err != nil {
		return err
	}
	for name, ids := range map[string][]int{shapes.InInputIDs: in.InputIDs, shapes.InPositionIDs: in.PositionIDs} {
		wide := make([]int64, len(ids))
		for i, id := range ids {
			wide[i] = int64(id)
		}
		if err := npy.WriteFile(filepath.Join(dir, name+".npy"), []int{len(ids)}, wide); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	if in.PixelValues.Shape == nil {
		return nil
	}
	if err := npy.WriteFile(filepath.Join(dir, shapes.InPixelValues+".npy"), in.PixelValues.Shape, in.PixelValues.Data); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// describe writes all but the model and the prompt.
func describe(dir string, set *golden.Set, c *golden.Case, opt Options) error {
	d := Description{
		Format: 1, Set: set.Manifest.Model, Case: c.Name, Why: c.Why, Weights: set.Manifest.Weights.SHA256,
		DType: strings.ToLower(string(opt.DType)), Naming: string(opt.scheme()), GGUF: opt.GGUF, Images: []string{},
	}
	pictures := pictures(c)
	if len(pictures) > 0 {
		if err := os.Mkdir(filepath.Join(dir, ImagesDir), 0o755); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	for i, p := range pictures {
		file := fmt.Sprintf("%s/%d-%s", ImagesDir, i, path.Base(c.Images[i]))
		d.Images = append(d.Images, file)
		if err := write(dir, filepath.FromSlash(file), p); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := write(dir, CaseFile, append(text, '\n')); err != nil {
		return err
	}
	if err := write(dir, NodesFile, nodeTable(set.Config, c)); err != nil {
		return err
	}
	return write(dir, ReadmeFile, readme(set, c, d))
}

// pictures are the image files of a case: all of them, or none where one is said in words only, or is another set's own.
// Then the case begins at pixel_values.
func pictures(c *golden.Case) [][]byte {
	var out [][]byte
	for _, name := range c.Images {
		data, err := golden.Image(name)
		if err != nil {
			return nil
		}
		out = append(out, data)
	}
	return out
}

// nodeTable lists the nodes that the prompt has, one a line: name, shape for this prompt, shape in letters, what it is.
func nodeTable(cfg shapes.Config, c *golden.Case) []byte {
	var b strings.Builder
	b.WriteString("node\tshape\taxes\tkind\tneeded for logits\n")
	dims := shapes.DimsOf(cfg, c.Inputs)
	for _, n := range shapes.Nodes(cfg) {
		if !n.Present(dims) {
			continue
		}
		needed := "yes"
		if n.Reach == shapes.Dead {
			needed = "no"
		}
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", n.Name, strings.ReplaceAll(fmt.Sprint(n.Concrete(dims)), " ", ","), n.Symbolic(), n.Kind, needed)
	}
	return []byte(b.String())
}

// atomically has fill write into a folder beside dir and gives it its name when it is complete.
func atomically(dir string, fill func(tmp string) error) error {
	dir = filepath.Clean(dir)
	entries, err := os.ReadDir(dir)
	if len(entries) > 0 {
		return fmt.Errorf("export: %s is not empty, it holds %s; want a folder to be made", dir, entries[0].Name())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("export: %w", err)
	}
	there := err == nil
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer os.RemoveAll(tmp) // fails after the rename, as it should
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if there {
		if err := os.Remove(dir); err != nil { // fails if something has come into it meanwhile
			return fmt.Errorf("export: %w", err)
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func write(dir, name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}
