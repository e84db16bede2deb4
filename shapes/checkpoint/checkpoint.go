package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Names that transformers gives to the files of a checkpoint.
const (
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
)

// Checkpoint is the tensors of one model, in one safetensors file or in several. All methods but Close may be called concurrently.
type Checkpoint struct {
	path    string
	files   []*File // in the order of their names
	tensors []Info
	owner   map[string]*File // tensor -> its file
	// IndexSize is the total_size, in bytes, that the index claims; -1 if there is no index or no claim in it.
	// Writers differ in what they count, so it is information and not a rule.
	IndexSize int64
}

// Open opens the checkpoint in a folder, model.safetensors or the shards of model.safetensors.index.json, or a single
// safetensors file of any name, and reads the headers, nothing more. Other files of the folder are not looked at.
// It is an error if a header breaks a rule of the format, if the folder holds both or none of the two,
// if the index names a shard that is not there or is no plain file name, and if shards and index do not list exactly
// the same tensors in the same places.
func Open(path string) (*Checkpoint, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	c := &Checkpoint{path: path, owner: map[string]*File{}, IndexSize: -1}
	single, index := filepath.Join(path, singleFile), filepath.Join(path, indexFile)
	hasSingle, hasIndex := exists(single), exists(index)
	switch {
	case !fi.IsDir():
		err = c.add(path)
	case hasSingle && hasIndex:
		return nil, fmt.Errorf("checkpoint: %s: holds both %s and %s, want one of them", path, singleFile, indexFile)
	case hasSingle:
		err = c.add(single)
	case hasIndex:
		err = c.addShards(index)
	default:
		return nil, fmt.Errorf("checkpoint: %s: holds neither %s nor %s", path, singleFile, indexFile)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// add opens one more file. A tensor of an earlier one is refused.
func (c *Checkpoint) add(path string) error {
	f, err := OpenFile(path)
	if err != nil {
		return err
	}
	c.files = append(c.files, f)
	for _, t := range f.tensors {
		if other := c.owner[t.Name]; other != nil {
			return fmt.Errorf("checkpoint: %s: %s: is also in %s", f.name, show(t.Name), other.name)
		}
		c.owner[t.Name] = f
	}
	c.tensors = append(c.tensors, f.tensors...)
	return nil
}

// addShards opens every shard that an index names and holds them against it.
func (c *Checkpoint) addShards(path string) error {
	text, err := readIndex(path)
	if err != nil {
		return err
	}
	if err := shapes.NotFetched(text); err != nil {
		return fmt.Errorf("checkpoint: %s: %w", indexFile, err)
	}
	shardOf, total, err := parseIndex(text)
	if err != nil {
		return fmt.Errorf("checkpoint: %s: %w", indexFile, err)
	}
	c.IndexSize = total
	for _, shard := range slices.Sorted(maps.Keys(shardsOf(shardOf))) {
		if err := c.add(filepath.Join(filepath.Dir(path), shard)); err != nil {
			return err
		}
	}
	for _, t := range c.tensors {
		if want, ok := shardOf[t.Name]; !ok {
			return fmt.Errorf("checkpoint: %s: %s: is not in %s", t.File, show(t.Name), indexFile)
		} else if want != t.File {
			return fmt.Errorf("checkpoint: %s: %s: %s has it in %s", t.File, show(t.Name), indexFile, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shardOf)) {
		if c.owner[name] == nil {
			return fmt.Errorf("checkpoint: %s: %s: is not there, though %s says so", shardOf[name], show(name), indexFile)
		}
	}
	return nil
}

// readIndex reads the index, which may be as long as a header and no longer.
func readIndex(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("checkpoint: %s: not a regular file", path)
	}
	if fi.Size() > maxHeader {
		return nil, fmt.Errorf("checkpoint: %s: %d bytes, want at most %d", indexFile, fi.Size(), maxHeader)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHeader))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", indexFile, err)
	}
	return text, nil
}

// parseIndex reads {"metadata": {"total_size": bytes, ...}, "weight_map": {tensor: shard, ...}}. metadata and total_size may
// be missing (total is -1 then), and whatever else stands beside them is not looked at.
func parseIndex(text []byte) (shardOf map[string]string, total int64, err error) {
	if err := checkJSON(text); err != nil {
		return nil, -1, err
	}
	total = -1
	dec := newDecoder(text)
	err = object(dec, func(key string) (err error) {
		switch key {
		case "weight_map":
			shardOf, err = stringMap(dec)
		case "metadata":
			total, err = totalSize(dec)
		default:
			err = skip(dec)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", show(key), err)
		}
		return err
	})
	if err != nil {
		return nil, -1, err
	}
	if shardOf == nil {
		return nil, -1, errors.New("no weight_map")
	}
	for shard := range shardsOf(shardOf) {
		if !plainName(shard) {
			return nil, -1, fmt.Errorf("shard %s, want the plain name of a .safetensors file beside the index", show(shard))
		}
	}
	return shardOf, total, nil
}

// totalSize reads the index's metadata. Old transformers wrote total_size as a float: what is no whole number is no claim.
func totalSize(dec *json.Decoder) (int64, error) {
	total := int64(-1)
	err := object(dec, func(key string) error {
		if key != "total_size" {
			return skip(dec)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		if n, err := strconv.ParseFloat(string(raw), 64); err == nil && n >= 0 && n < 1<<53 && n == float64(int64(n)) {
			total = int64(n)
		}
		return nil
	})
	return total, err
}

// shardsOf is the set of the index's shards.
func shardsOf(shardOf map[string]string) map[string]bool {
	shards := map[string]bool{}
	for _, shard := range shardOf {
		shards[shard] = true
	}
	return shards
}

// plainName says whether an index may name this shard: a file beside the index on every system, so no separator of any.
func plainName(shard string) bool {
	return filepath.IsLocal(shard) && !strings.ContainsAny(shard, "/\\:\x00") && !strings.Contains(shard, "..") &&
		strings.HasSuffix(shard, ".safetensors") && len(shard) <= 255
}

// Close closes all files. Nothing can be read after it.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Path is what the checkpoint was opened as.
func (c *Checkpoint) Path() string { return c.path }

// Files lists the files in the order of their names.
func (c *Checkpoint) Files() []*File { return slices.Clone(c.files) }

// Tensors lists all tensors, file by file in the order of their bytes. The caller must not change the list.
func (c *Checkpoint) Tensors() []Info { return c.tensors }

// Tensor is what the headers say of the named tensor, by its name in the files.
func (c *Checkpoint) Tensor(name string) (Info, bool) {
	f := c.owner[name]
	if f == nil {
		return Info{}, false
	}
	return f.Tensor(name)
}

// Read is File.Read of the file that has the tensor.
func (c *Checkpoint) Read(name string, from int, dst []float32) error {
	f, err := c.fileOf(name)
	if err != nil {
		return err
	}
	return f.Read(name, from, dst)
}

// ReadRaw is File.ReadRaw of the file that has the tensor.
func (c *Checkpoint) ReadRaw(name string, from int, dst []byte) error {
	f, err := c.fileOf(name)
	if err != nil {
		return err
	}
	return f.ReadRaw(name, from, dst)
}

func (c *Checkpoint) fileOf(name string) (*File, error) {
	f := c.owner[name]
	if f == nil {
		return nil, fmt.Errorf("checkpoint: %s: %s: no such tensor", c.path, show(name))
	}
	return f, nil
}
