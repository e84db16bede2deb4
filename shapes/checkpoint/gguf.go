package checkpoint

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// GGUF is one open GGUF file: its header in memory, its values on disk. All methods but Close may be called concurrently.
type GGUF struct {
	file     *File // its tensors, their shapes turned round into row-major
	metadata map[string]any
}

// Limits on what a header may claim, far above any model's.
const (
	maxGGUFHeader  = 64 << 20
	maxGGUFTensors = 1 << 16
	maxGGUFKeys    = 1 << 14
	maxGGUFString  = 1 << 24
)

// OpenGGUF opens a GGUF file of version 2 or 3, little-endian, and reads its header, nothing more. It is an error if the header
// breaks a rule of the format, if a tensor does not lie inside the file, or if two overlap. Quantised tensors are listed and cannot be read.
func OpenGGUF(path string) (*GGUF, error) {
	name := filepath.Base(path)
	if fi, err := os.Stat(path); err != nil { // before it is opened: opening a named pipe would wait for its writer
		return nil, fmt.Errorf("checkpoint: %w", err)
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("checkpoint: %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	fi, err := f.Stat()
	if err == nil {
		var g *GGUF
		if g, err = newGGUF(name, f, fi.Size()); err == nil {
			g.file.close = f.Close
			return g, nil
		}
	}
	f.Close()
	return nil, fmt.Errorf("checkpoint: %s: %w", name, err)
}

// newGGUF reads the header of a file of size bytes.
func newGGUF(name string, r io.ReaderAt, size int64) (*GGUF, error) {
	p := ggufReader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, min(size, maxGGUFHeader)), 1<<16), size: size}
	if magic := p.bytes(4); p.err == nil && string(magic) != ggufMagic {
		if err := notFetched(r, size); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("begins with %q, want %q", magic, ggufMagic)
	}
	if v := p.u32(); p.err == nil && v != 2 && v != 3 {
		return nil, fmt.Errorf("version %d, want 2 or 3, little-endian", v)
	}
	tensors, keys := p.count("tensors", maxGGUFTensors), p.count("keys", maxGGUFKeys)
	g := &GGUF{metadata: map[string]any{}}
	for range keys {
		key := p.str()
		v := p.value(p.u32(), 0)
		if p.err != nil {
			return nil, fmt.Errorf("metadata %s: %w", show(key), p.err)
		}
		if _, twice := g.metadata[key]; twice {
			return nil, fmt.Errorf("metadata %s: is there twice", show(key))
		}
		g.metadata[key] = v
	}
	f := &File{name: name, r: r, close: func() error { return nil }, index: map[string]int{}}
	for range tensors {
		t, err := p.tensor()
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", show(t.Name), err)
		}
		if _, twice := f.index[t.Name]; twice {
			return nil, fmt.Errorf("tensor %s: is there twice", show(t.Name))
		}
		f.index[t.Name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
	}
	if p.err != nil {
		return nil, p.err
	}
	align := int64(ggufAlignment)
	if a, ok := g.metadata["general.alignment"].(uint32); ok {
		if align = int64(a); a == 0 || a&(a-1) != 0 || a > 1<<20 {
			return nil, fmt.Errorf("general.alignment %d, want a power of two", a)
		}
	}
	start := (p.at + align - 1) / align * align
	if err := f.place(start, size, align); err != nil {
		return nil, err
	}
	for i, t := range f.tensors {
		f.index[t.Name] = i
	}
	g.file = f
	return g, nil
}

// place gives every tensor its bytes, which have to lie in the file and apart, and sorts by them.
func (f *File) place(start, size, align int64) error {
	slices.SortStableFunc(f.tensors, func(a, b Info) int { return int(min(max(a.Begin-b.Begin, -1), 1)) })
	at := int64(0)
	for i := range f.tensors {
		t := &f.tensors[i]
		switch {
		case t.Begin%align != 0:
			return fmt.Errorf("tensor %s: offset %d, want a multiple of %d", show(t.Name), t.Begin, align)
		case t.Begin < at:
			return fmt.Errorf("tensor %s: offset %d lies in the tensor before it, which ends at %d", show(t.Name), t.Begin, at)
		case t.Begin > size-start || t.End > size-start:
			return fmt.Errorf("tensor %s: bytes %d to %d, but the file has %d for values", show(t.Name), t.Begin, t.End, max(size-start, 0))
		}
		at = t.End
		t.File, t.Begin, t.End = f.name, t.Begin+start, t.End+start
	}
	return nil
}

// Close closes the file. Nothing can be read after it.
func (g *GGUF) Close() error { return g.file.Close() }

// Tensors lists the tensors in the order of their bytes, their shapes row-major. The caller must not change the list.
func (g *GGUF) Tensors() []Info { return g.file.tensors }

// Metadata is the value of a key: a bool, string, number of Go's type of that width, or a slice of one kind of them; nil if it is not there.
func (g *GGUF) Metadata(key string) any { return g.metadata[key] }

// Read is File.Read.
func (g *GGUF) Read(name string, from int, dst []float32) error { return g.file.Read(name, from, dst) }

// BindGGUF gives the values of a model's parameters, in their on-disk order, out of the two files of WriteGGUF or of llama.cpp's own
// converters. Whether ffn_up and ffn_down are exchanged is seen from the shape of ffn_down. Vision layers past the
// feature layer and post_layernorm are in no such file: to ask for them is an error, and no logit needs them.
func BindGGUF(cfg shapes.Config, text, vision *GGUF) (shapes.Weights, error) {
	if err := shapes.GGUFUnsupported(cfg); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	b := ggufWeights{}
	legacy := false
	if t, ok := vision.file.Tensor("v.blk.0.ffn_down.weight"); ok {
		legacy = slices.Equal(t.Shape, []int{cfg.Vision.IntermediateSize, cfg.Vision.HiddenSize})
	}
	if err := b.add(text, shapes.GGUFText(cfg)); err != nil {
		return nil, err
	}
	return b, b.add(vision, shapes.GGUFVision(cfg, legacy))
}

// ggufWeights is the tensors of a model by on-disk name.
type ggufWeights map[string]ggufParam

type ggufParam struct {
	shapes.GGUFTensor
	g *GGUF
}

// add finds the tensors of one file.
func (b ggufWeights) add(g *GGUF, tensors []shapes.GGUFTensor) error {
	for _, t := range tensors {
		have, ok := g.file.Tensor(t.Name)
		if !ok {
			for _, other := range []string{"model.image_newline", "v.image_newline"} { // both are found in files of either kind
				if t.Param == shapes.ImageNewline && !ok {
					t.Name = other
					have, ok = g.file.Tensor(other)
				}
			}
		}
		if !ok {
			return fmt.Errorf("checkpoint: %s: %s: is not there, but the model has %s", g.file.name, t.Name, t.Param)
		}
		if !slices.Equal(have.Shape, t.Shape) {
			return fmt.Errorf("checkpoint: %s: %s: shape %v (ne reversed), want %v", g.file.name, t.Name, have.Shape, t.Shape)
		}
		if !have.DType.Readable() {
			return fmt.Errorf("checkpoint: %s: %s: %s, want F32, F16 or BF16", g.file.name, t.Name, have.DType)
		}
		b[t.Param] = ggufParam{t, g}
	}
	return nil
}

// Read fills dst with consecutive values of the named parameter in row-major order, the first of them value number from.
func (b ggufWeights) Read(name string, from int, dst []float32) error {
	p, ok := b[name]
	if !ok {
		return fmt.Errorf("checkpoint: %s: is in no GGUF file of this model", show(name))
	}
	if p.Heads == 0 {
		return p.g.Read(p.Name, from, dst)
	}
	count, dim := shapes.Product(p.Shape), p.Shape[0]/p.Heads
	cols := count / p.Shape[0]
	if from < 0 || from > count || len(dst) > count-from {
		return fmt.Errorf("checkpoint: %s: %d values from number %d, want them inside its %d", show(name), len(dst), from, count)
	}
	for len(dst) > 0 {
		row, col := from/cols, from%cols
		n := min(cols-col, len(dst))
		if err := p.g.Read(p.Name, fileRow(dim, row)*cols+col, dst[:n]); err != nil {
			return err
		}
		dst, from = dst[n:], from+n
	}
	return nil
}

// fileRow is the inverse of shapes.GGUFRow: in which row of the file the parameter's row r stands.
func fileRow(dim, r int) int {
	head, i := r/dim, r%dim
	return head*dim + i%(dim/2)*2 + i/(dim/2)
}

// ggufReader reads a header and keeps the first error.
type ggufReader struct {
	r    *bufio.Reader
	at   int64
	size int64 // of the file
	err  error
}

// bytes reads n bytes. What is asked for was held against the file's size by the caller, or is a few bytes.
func (p *ggufReader) bytes(n int) []byte {
	if p.err != nil {
		return make([]byte, min(n, 8))
	}
	b := make([]byte, n)
	m, err := io.ReadFull(p.r, b)
	p.at += int64(m)
	if err != nil {
		p.err = fmt.Errorf("the header ends after %d bytes, or has more than %d", p.at, int64(maxGGUFHeader))
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			p.err = err
		}
	}
	return b
}

func (p *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(p.bytes(4)) }
func (p *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(p.bytes(8)) }

// count reads how many of something follow.
func (p *ggufReader) count(what string, limit uint64) int {
	n := p.u64()
	if p.err == nil && n > limit {
		p.err = fmt.Errorf("%d %s, want at most %d", n, what, limit)
	}
	if p.err != nil {
		return 0
	}
	return int(n)
}

func (p *ggufReader) str() string {
	n := p.u64()
	if p.err == nil && (n > maxGGUFString || int64(n) > p.size-p.at) {
		p.err = fmt.Errorf("a string of %d bytes at byte %d of %d", n, p.at, p.size)
	}
	if p.err != nil {
		return ""
	}
	return string(p.bytes(int(n)))
}

// ggufSizes are the bytes of the plain types.
var ggufSizes = map[uint32]int{ggufUint8: 1, ggufInt8: 1, ggufBool: 1, ggufUint16: 2, ggufInt16: 2, ggufUint32: 4, ggufInt32: 4, ggufFloat32: 4, ggufUint64: 8, ggufInt64: 8, ggufFloat64: 8}

func (p *ggufReader) value(typ uint32, depth int) any {
	switch {
	case p.err != nil:
		return nil
	case typ == ggufString:
		return p.str()
	case typ == ggufArray && depth == 0:
		return p.array()
	case ggufSizes[typ] == 0:
		p.err = fmt.Errorf("a value of type %d at byte %d", typ, p.at)
		return nil
	}
	b := append(p.bytes(ggufSizes[typ]), make([]byte, 8)...)
	le := binary.LittleEndian
	switch typ {
	case ggufUint8:
		return b[0]
	case ggufInt8:
		return int8(b[0])
	case ggufBool:
		return b[0] != 0
	case ggufUint16:
		return le.Uint16(b)
	case ggufInt16:
		return int16(le.Uint16(b))
	case ggufUint32:
		return le.Uint32(b)
	case ggufInt32:
		return int32(le.Uint32(b))
	case ggufFloat32:
		return math.Float32frombits(le.Uint32(b))
	case ggufUint64:
		return le.Uint64(b)
	case ggufInt64:
		return int64(le.Uint64(b))
	}
	return math.Float64frombits(le.Uint64(b))
}

// array reads an array of plain values or strings. It grows with what comes, not with what was claimed.
func (p *ggufReader) array() any {
	typ, n := p.u32(), p.u64()
	least := int64(ggufSizes[typ])
	if typ == ggufString {
		least = 8
	}
	if p.err == nil && (least == 0 || n > uint64(p.size-p.at)/uint64(least)) {
		p.err = fmt.Errorf("an array of %d values of type %d at byte %d of %d", n, typ, p.at, p.size)
	}
	switch typ {
	case ggufString:
		return growGGUF[string](p, typ, n)
	case ggufUint8:
		return growGGUF[uint8](p, typ, n)
	case ggufInt8:
		return growGGUF[int8](p, typ, n)
	case ggufBool:
		return growGGUF[bool](p, typ, n)
	case ggufUint16:
		return growGGUF[uint16](p, typ, n)
	case ggufInt16:
		return growGGUF[int16](p, typ, n)
	case ggufUint32:
		return growGGUF[uint32](p, typ, n)
	case ggufInt32:
		return growGGUF[int32](p, typ, n)
	case ggufFloat32:
		return growGGUF[float32](p, typ, n)
	case ggufUint64:
		return growGGUF[uint64](p, typ, n)
	case ggufInt64:
		return growGGUF[int64](p, typ, n)
	}
	return growGGUF[float64](p, typ, n)
}

func growGGUF[T any](p *ggufReader, typ uint32, n uint64) []T {
	out := []T{}
	for range n {
		v := p.value(typ, 1)
		if p.err != nil {
			return nil
		}
		out = append(out, v.(T))
	}
	return out
}

// ggufBlocks are ggml's quantised types: values and bytes of a block. Their tensors are listed and not read.
var ggufBlocks = map[uint32][2]int64{
	2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 36}, 10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292},
}

// tensor reads one entry of the list; Begin and End are from the first byte of values.
func (p *ggufReader) tensor() (t Info, err error) {
	t.Name = p.str()
	dims := p.u32()
	if p.err == nil && (dims == 0 || dims > 4) {
		p.err = fmt.Errorf("%d dimensions, want 1 to 4", dims)
	}
	if p.err != nil {
		return t, p.err
	}
	for range dims {
		d := p.u64()
		if p.err == nil && (d == 0 || d > math.MaxInt32) {
			p.err = fmt.Errorf("a dimension of %d", d)
		}
		t.Shape = append(t.Shape, int(d))
	}
	slices.Reverse(t.Shape)
	typ, offset := p.u32(), p.u64()
	if p.err != nil {
		return t, p.err
	}
	var size int64
	block, quantised := ggufBlocks[typ]
	for d, n := range ggufTypes {
		if n == typ {
			t.DType = d
		}
	}
	switch {
	case t.DType != "":
		size, err = sizeOf(t.DType, t.Shape)
	case quantised:
		t.DType = DType(fmt.Sprintf("GGML-%d", typ))
		if size, err = sizeOf("U8", t.Shape); err == nil && size%block[0] != 0 {
			err = fmt.Errorf("shape %v is not whole blocks of %d", t.Shape, block[0])
		}
		size = size / block[0] * block[1]
	default:
		err = fmt.Errorf("ggml type %d", typ)
	}
	if err == nil && (size > p.size || offset > uint64(p.size)) {
		err = fmt.Errorf("%d bytes from %d, but the file has %d", size, offset, p.size)
	}
	t.Begin, t.End = int64(offset), int64(offset)+size
	return t, err
}
