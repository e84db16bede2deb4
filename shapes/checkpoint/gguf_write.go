package checkpoint

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/llavaref/llavaref/shapes"
)

// The Go modules that write GGUF either hold the whole file in memory or come with an inference server; the ones that are kept
// well only read. The format is a header and aligned arrays, so it is written here.

// Numbers of the GGUF format, version 3, little-endian.
const (
	ggufMagic     = "GGUF"
	ggufVersion   = 3
	ggufAlignment = 32
)

// Types of metadata values.
const (
	ggufUint8   = 0
	ggufInt8    = 1
	ggufUint16  = 2
	ggufInt16   = 3
	ggufUint32  = 4
	ggufInt32   = 5
	ggufFloat32 = 6
	ggufBool    = 7
	ggufString  = 8
	ggufArray   = 9
	ggufUint64  = 10
	ggufInt64   = 11
	ggufFloat64 = 12
)

// ggufTypes are ggml's numbers for the dtypes that are written and read.
var ggufTypes = map[DType]uint32{F32: 0, F16: 1, BF16: 30}

// ggufFileTypes is general.file_type: what most matrices are.
var ggufFileTypes = map[DType]uint32{F32: 0, F16: 1, BF16: 32}

// GGUFOptions says how WriteGGUF stores the tensors.
type GGUFOptions struct {
	DType  DType // of matrices and the patch kernel; vectors are F32 in every file, as ggml needs them
	Exact  bool  // it is an error if a value would have to be rounded
	Legacy bool  // the tower's names as LLaVA's first projector files have them: ffn_up and ffn_down exchanged
	// Progress, if not nil, is told how many bytes of values are written, of how many.
	Progress func(done, total int64)
}

// WriteGGUF writes a model as llama.cpp reads it, the text model into one file and the tower with the projector into another.
// Both appear under their names when both are complete; it is an error if one is already there.
// No more than a chunk of values is in memory.
func WriteGGUF(ctx context.Context, text, vision, name string, cfg shapes.Config, w shapes.Weights, opt GGUFOptions) (err error) {
	if err := shapes.GGUFUnsupported(cfg); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if !opt.DType.Readable() {
		return fmt.Errorf("checkpoint: dtype %q, want F32, F16 or BF16", opt.DType)
	}
	for _, path := range []string{text, vision} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("checkpoint: %s: is already there, and nothing is replaced", path)
		}
	}
	g := ggufWriter{ctx: ctx, w: w, opt: opt}
	files := []ggufFile{
		g.layOut(text, shapes.GGUFTextMetadata(cfg, name), shapes.GGUFText(cfg)),
		g.layOut(vision, shapes.GGUFVisionMetadata(cfg, name), shapes.GGUFVision(cfg, opt.Legacy)),
	}
	var made []string
	defer func() {
		for _, path := range made {
			if err != nil {
				os.Remove(path)
			}
		}
	}()
	for i := range files {
		tmp, err := g.file(&files[i])
		if tmp != "" {
			made = append(made, tmp)
		}
		if err != nil {
			return fmt.Errorf("checkpoint: %s: %w", filepath.Base(files[i].path), err)
		}
	}
	for i, f := range files {
		if err := os.Rename(made[i], f.path); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		made[i] = f.path
	}
	return nil
}

// ggufFile is one file to be.
type ggufFile struct {
	path    string
	kv      []shapes.GGUFValue
	tensors []shapes.GGUFTensor
	dtypes  []DType
	offsets []int64 // from the first byte of values
}

// ggufWriter is one WriteGGUF under way.
type ggufWriter struct {
	ctx         context.Context
	w           shapes.Weights
	opt         GGUFOptions
	done, total int64
}

func (g *ggufWriter) layOut(path string, kv []shapes.GGUFValue, tensors []shapes.GGUFTensor) ggufFile {
	f := ggufFile{path: path, tensors: tensors}
	f.kv = append(append(f.kv, kv...), shapes.GGUFValue{Key: "general.file_type", Value: ggufFileTypes[g.opt.DType]})
	at := int64(0)
	for _, t := range tensors {
		d := F32
		if len(t.Shape) > 1 {
			d = g.opt.DType
		}
		size := int64(shapes.Product(t.Shape)) * int64(d.Bits()/8)
		f.dtypes, f.offsets = append(f.dtypes, d), append(f.offsets, at)
		at = alignGGUF(at + size)
		g.total += size
	}
	return f
}

func alignGGUF(n int64) int64 { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }

// file writes one file under a temporary name.
func (g *ggufWriter) file(f *ggufFile) (tmp string, err error) {
	out, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+".*")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	b := bufio.NewWriterSize(out, 1<<16)
	if _, err := b.Write(f.header()); err != nil {
		return out.Name(), err
	}
	for i, t := range f.tensors {
		if err := g.values(b, t, f.dtypes[i]); err != nil {
			return out.Name(), fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	if err := b.Flush(); err != nil {
		return out.Name(), err
	}
	if err := out.Chmod(0o644); err != nil {
		return out.Name(), err
	}
	return out.Name(), out.Sync()
}

// header is everything before the values, padded.
func (f *ggufFile) header() []byte {
	b := append([]byte(ggufMagic), binary.LittleEndian.AppendUint32(nil, ggufVersion)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.kv)))
	for _, kv := range f.kv {
		b = appendGGUFValue(appendGGUFString(b, kv.Key), kv.Value)
	}
	for i, t := range f.tensors {
		b = appendGGUFString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Shape)))
		for k := len(t.Shape) - 1; k >= 0; k-- {
			b = binary.LittleEndian.AppendUint64(b, uint64(t.Shape[k]))
		}
		b = binary.LittleEndian.AppendUint32(b, ggufTypes[f.dtypes[i]])
		b = binary.LittleEndian.AppendUint64(b, uint64(f.offsets[i]))
	}
	return append(b, make([]byte, alignGGUF(int64(len(b)))-int64(len(b)))...)
}

func appendGGUFString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// appendGGUFValue appends the type and the value.
func appendGGUFValue(b []byte, v any) []byte {
	le := binary.LittleEndian
	array := func(typ uint32, n int) {
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, ggufArray), typ), uint64(n))
	}
	switch v := v.(type) {
	case bool:
		if b = le.AppendUint32(b, ggufBool); v {
			return append(b, 1)
		}
		return append(b, 0)
	case string:
		return appendGGUFString(le.AppendUint32(b, ggufString), v)
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, ggufUint32), v)
	case float32:
		return le.AppendUint32(le.AppendUint32(b, ggufFloat32), math.Float32bits(v))
	case []int32:
		array(ggufInt32, len(v))
		for _, x := range v {
			b = le.AppendUint32(b, uint32(x))
		}
		return b
	case []float32:
		array(ggufFloat32, len(v))
		for _, x := range v {
			b = le.AppendUint32(b, math.Float32bits(x))
		}
		return b
	case []string:
		array(ggufString, len(v))
		for _, x := range v {
			b = appendGGUFString(b, x)
		}
		return b
	}
	panic(fmt.Sprintf("checkpoint: a GGUF value of type %T", v))
}

// values writes one tensor, padded, row by row where rows are moved.
func (g *ggufWriter) values(out io.Writer, t shapes.GGUFTensor, d DType) error {
	count, cols := shapes.Product(t.Shape), 1
	chunk := min(count, 1<<16)
	if t.Heads > 0 {
		cols = count / t.Shape[0]
		chunk = cols
	}
	values := make([]float32, chunk)
	raw := make([]byte, chunk*d.Bits()/8)
	written := int64(0)
	for at := 0; at < count; at += chunk {
		if err := g.ctx.Err(); err != nil {
			return err
		}
		n, from := min(chunk, count-at), at
		if t.Heads > 0 {
			from = shapes.GGUFRow(t.Shape[0]/t.Heads, at/cols) * cols
		}
		if err := g.w.Read(t.Param, from, values[:n]); err != nil {
			return err
		}
		part := raw[:n*d.Bits()/8]
		if i, err := narrow(d, part, values[:n], g.opt.Exact); err != nil {
			return fmt.Errorf("value number %d: %w", at+i, err)
		}
		if _, err := out.Write(part); err != nil {
			return err
		}
		written += int64(len(part))
		g.done += int64(len(part))
		if g.opt.Progress != nil {
			g.opt.Progress(g.done, g.total)
		}
	}
	_, err := out.Write(make([]byte, alignGGUF(written)-written))
	return err
}
