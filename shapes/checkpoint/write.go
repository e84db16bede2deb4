package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/llavaref/llavaref/shapes"
)

// Source is one tensor to be written.
type Source struct {
	Name  string // as it shall be in the file
	Shape []int
	// Read fills dst with consecutive values in row-major order, the first of them value number from.
	Read func(from int, dst []float32) error
}

// Sources are a model's parameters under a scheme's names and in that scheme's order, their values read from w.
// It is an error if the scheme does not name this model.
func Sources(cfg shapes.Config, scheme shapes.Scheme, w shapes.Weights) ([]Source, error) {
	if !slices.Contains(shapes.Schemes(), scheme) {
		return nil, fmt.Errorf("checkpoint: naming scheme %q is not known", scheme)
	}
	if scheme == shapes.LiteLlama && cfg.ModelType != shapes.Llava {
		return nil, fmt.Errorf("checkpoint: naming scheme %s does not name a model of type %s", scheme, cfg.ModelType)
	}
	disk := map[string]string{}
	for _, p := range shapes.Params(cfg) {
		disk[scheme.FromDisk(p.Name)] = p.Name
	}
	var sources []Source
	for _, p := range shapes.ParamsIn(cfg, scheme) {
		name := disk[p.Name]
		sources = append(sources, Source{p.Name, p.Shape, func(from int, dst []float32) error { return w.Read(name, from, dst) }})
	}
	return sources, nil
}

// Options says how Write stores the tensors.
type Options struct {
	DType     DType // F32, F16 or BF16. Values are rounded to nearest even; one that would become infinite is an error
	Exact     bool  // it is an error if a value would have to be rounded
	ShardSize int64 // most bytes of values in a file, unless one tensor alone has more; 0 puts all into one file
	// Progress, if not nil, is told how many bytes of values are written, of how many.
	Progress func(done, total int64)
}

// Write writes a checkpoint into a folder, which is made if it is not there: model.safetensors if one file is enough, else
// model-00001-of-0000N.safetensors and model.safetensors.index.json, the tensors dealt out to the shards in the order given,
// headers and index as transformers 4.51 writes them. No more than a chunk of values is in memory.
//
// It is all or nothing: every file is written under a temporary name beside its own (a dot in front, .tmp at the end), synced,
// and renamed when all are complete, the index last. On an error, or when ctx is cancelled, the folder is as it was.
// A process killed on the way leaves temporary files and perhaps shards, but no index and so no checkpoint.
// It is an error if one of the files is already there: Write replaces nothing.
func Write(ctx context.Context, dir string, tensors []Source, opt Options) (err error) {
	shards, total, err := planShards(tensors, opt)
	if err != nil {
		return err
	}
	w := writer{ctx: ctx, dir: dir, opt: opt, total: total, made: map[string]string{}}
	defer func() {
		if err != nil {
			w.undo()
		}
	}()
	if err := w.prepare(shards); err != nil {
		return err
	}
	for _, s := range shards {
		if err := w.shard(s); err != nil {
			return fmt.Errorf("checkpoint: %s: %w", s.file, err)
		}
	}
	if len(shards) > 1 {
		if err := w.index(shards); err != nil {
			return fmt.Errorf("checkpoint: %s: %w", indexFile, err)
		}
	}
	return w.commit()
}

// shard is one file to be: its tensors in the order of its bytes.
type shard struct {
	file    string
	tensors []Source
	infos   []Info // Begin and End from the end of the header
}

// planShards checks what can be checked without values and deals the tensors out as transformers does: in order, a new shard
// where the next tensor would not fit, and a tensor that is too large for any shard in one of its own, before the open one.
func planShards(tensors []Source, opt Options) (shards []shard, total int64, err error) {
	if !opt.DType.Readable() {
		return nil, 0, fmt.Errorf("checkpoint: dtype %q, want F32, F16 or BF16", opt.DType)
	}
	if len(tensors) == 0 {
		return nil, 0, errors.New("checkpoint: no tensors to write")
	}
	seen := map[string]bool{}
	var open shard
	var used int64
	for _, t := range tensors {
		size, err := sizeOf(opt.DType, t.Shape)
		switch {
		case err != nil:
		case seen[t.Name]:
			err = errors.New("is there twice")
		case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
			err = errors.New("is no name for a tensor")
		case total+size < total:
			err = errors.New("the checkpoint has more bytes than can be counted")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("checkpoint: %s: %w", show(t.Name), err)
		}
		seen[t.Name] = true
		total += size
		if opt.ShardSize > 0 && size > opt.ShardSize {
			shards = append(shards, shard{tensors: []Source{t}})
			continue
		}
		if opt.ShardSize > 0 && used+size > opt.ShardSize {
			shards = append(shards, open)
			open, used = shard{}, 0
		}
		open.tensors = append(open.tensors, t)
		used += size
	}
	if len(open.tensors) > 0 {
		shards = append(shards, open)
	}
	for i := range shards {
		shards[i].layOut(opt.DType)
		shards[i].file = singleFile
		if len(shards) > 1 {
			shards[i].file = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
	}
	return shards, total, nil
}

// layOut puts the tensors of one dtype in the order of the format's own writer, by name.
func (s *shard) layOut(d DType) {
	slices.SortFunc(s.tensors, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	var at int64
	for _, t := range s.tensors {
		size, _ := sizeOf(d, t.Shape) // planShards has checked it
		s.infos = append(s.infos, Info{Name: t.Name, DType: d, Shape: t.Shape, Begin: at, End: at + size})
		at += size
	}
}

// formatHeader is the length and the header of a safetensors file, padded with spaces to a multiple of 8 as the format's own writer does.
// transformers refuses a file without the metadata.
func formatHeader(infos []Info) ([]byte, error) {
	header := []byte(`{"` + metadataKey + `":{"format":"pt"}`)
	for _, t := range infos {
		name, err := marshal(t.Name, "")
		if err != nil {
			return nil, err
		}
		shape, err := marshal(append([]int{}, t.Shape...), "") // [] and not null for a scalar
		if err != nil {
			return nil, err
		}
		header = fmt.Appendf(header, `,%s:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, t.DType, shape, t.Begin, t.End)
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	if len(header) > maxHeader {
		return nil, fmt.Errorf("a header of %d bytes, want at most %d", len(header), maxHeader)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), nil
}

// marshal is json.Marshal that leaves <, > and & alone.
func marshal(v any, indent string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// writer is one Write under way.
type writer struct {
	ctx         context.Context
	dir         string
	opt         Options
	done, total int64
	madeDir     bool
	order       []string          // files in the order of writing
	made        map[string]string // file -> temporary name, "" once it is renamed
}

// prepare makes the folder and refuses to replace a checkpoint.
func (w *writer) prepare(shards []shard) error {
	if err := os.Mkdir(w.dir, 0o777); err == nil {
		w.madeDir = true
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("checkpoint: %w", err)
	}
	for _, file := range append([]string{singleFile, indexFile}, fileNames(shards)...) {
		if err := w.free(file); err != nil {
			return err
		}
	}
	return nil
}

func fileNames(shards []shard) (names []string) {
	for _, s := range shards {
		names = append(names, s.file)
	}
	return names
}

// free is an error if the file is there.
func (w *writer) free(file string) error {
	if _, err := os.Lstat(filepath.Join(w.dir, file)); err == nil {
		return fmt.Errorf("checkpoint: %s: is already there, and nothing is replaced", filepath.Join(w.dir, file))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// create makes a file under a temporary name, calls fill to write it, and syncs it.
func (w *writer) create(file string, fill func(f *os.File) error) (err error) {
	tmp := filepath.Join(w.dir, fmt.Sprintf(".%s.%016x.tmp", file, rand.Uint64()))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	w.made[file] = tmp
	w.order = append(w.order, file)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := fill(f); err != nil {
		return err
	}
	return f.Sync()
}

// shard writes one safetensors file, a chunk of values at a time.
func (w *writer) shard(s shard) error {
	header, err := formatHeader(s.infos)
	if err != nil {
		return err
	}
	return w.create(s.file, func(f *os.File) error {
		if _, err := f.Write(header); err != nil {
			return err
		}
		for i, t := range s.tensors {
			if err := w.values(f, t, s.infos[i].Count()); err != nil {
				return fmt.Errorf("%s: %w", show(t.Name), err)
			}
		}
		return nil
	})
}

// values writes the count values of one tensor.
func (w *writer) values(f *os.File, t Source, count int) error {
	values := make([]float32, min(count, 1<<18))
	raw := make([]byte, len(values)*w.opt.DType.Bits()/8)
	for from := 0; from < count; from += len(values) {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n := min(len(values), count-from)
		part := raw[:n*w.opt.DType.Bits()/8]
		if err := t.Read(from, values[:n]); err != nil {
			return err
		}
		if at, err := narrow(w.opt.DType, part, values[:n], w.opt.Exact); err != nil {
			return fmt.Errorf("value number %d: %w", from+at, err)
		}
		if _, err := f.Write(part); err != nil {
			return err
		}
		w.done += int64(len(part))
		if w.opt.Progress != nil {
			w.opt.Progress(w.done, w.total)
		}
	}
	return nil
}

// index writes model.safetensors.index.json.
func (w *writer) index(shards []shard) error {
	type metadata struct {
		TotalSize int64 `json:"total_size"`
	}
	index := struct {
		Metadata  metadata          `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}{metadata{w.total}, map[string]string{}}
	for _, s := range shards {
		for _, t := range s.tensors {
			index.WeightMap[t.Name] = s.file
		}
	}
	text, err := marshal(index, "  ")
	if err != nil {
		return err
	}
	return w.create(indexFile, func(f *os.File) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
}

// commit gives every file its own name, in the order of writing: the index comes last.
func (w *writer) commit() error {
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	for _, file := range w.order {
		if err := w.free(file); err != nil {
			return err
		}
		if err := os.Rename(w.made[file], filepath.Join(w.dir, file)); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		w.made[file] = ""
	}
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	d, err := os.Open(w.dir)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// undo removes everything that this Write made. What cannot be removed stays under its temporary name.
func (w *writer) undo() {
	for file, tmp := range w.made {
		if tmp == "" {
			tmp = filepath.Join(w.dir, file)
		}
		os.Remove(tmp)
	}
	if w.madeDir {
		os.Remove(w.dir)
	}
}
