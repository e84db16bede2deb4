package checkpoint

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/llavaref/llavaref/shapes"
)

// File is one open safetensors file: its header in memory, its values on disk. All methods but Close may be called concurrently.
type File struct {
	name     string // base name, for errors
	r        io.ReaderAt
	close    func() error
	tensors  []Info
	index    map[string]int // name -> position in tensors
	metadata map[string]string
}

// OpenFile opens a safetensors file and reads its header, nothing more. It is an error if the header breaks any rule of the format.
func OpenFile(path string) (*File, error) {
	// Looked at before it is opened: opening a named pipe would wait for its writer.
	if fi, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("checkpoint: %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	file, err := newFile(filepath.Base(path), f, fi.Size())
	if err != nil {
		f.Close()
		return nil, err
	}
	file.close = f.Close
	return file, nil
}

// notFetched is an error if r begins as a Git LFS pointer, whose text would be read as the length of a header.
func notFetched(r io.ReaderAt, size int64) error {
	start := make([]byte, min(size, 64))
	if err := readFull(r, start, 0); err != nil {
		return err
	}
	return shapes.NotFetched(start)
}

// newFile reads the header of a safetensors file of size bytes.
func newFile(name string, r io.ReaderAt, size int64) (*File, error) {
	fail := func(format string, args ...any) (*File, error) {
		return nil, fmt.Errorf("checkpoint: %s: %w", name, fmt.Errorf(format, args...))
	}
	var length [8]byte
	if size < int64(len(length)) {
		return fail("%d bytes, want at least the 8 of the header's length", size)
	}
	if err := readFull(r, length[:], 0); err != nil {
		return fail("length of the header: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		if err := notFetched(r, size); err != nil {
			return fail("%w", err)
		}
		return fail("a header of %d bytes, want at most %d", n, maxHeader)
	}
	start := int64(len(length)) + int64(n)
	if start > size {
		return fail("a header of %d bytes in a file of %d", n, size)
	}
	header := make([]byte, n)
	if err := readFull(r, header, int64(len(length))); err != nil {
		return fail("header: %w", err)
	}
	tensors, metadata, err := parseHeader(header, size-start)
	if err != nil {
		return fail("%w", err)
	}
	f := &File{name: name, r: r, close: func() error { return nil }, tensors: tensors, metadata: metadata, index: map[string]int{}}
	for i := range tensors {
		t := &tensors[i]
		t.File, t.Begin, t.End = name, t.Begin+start, t.End+start
		f.index[t.Name] = i
	}
	return f, nil
}

// Close closes the file. Nothing can be read after it.
func (f *File) Close() error { return f.close() }

// Tensors lists the tensors in the order of their bytes. The caller must not change the list.
func (f *File) Tensors() []Info { return f.tensors }

// Metadata is the header's __metadata__; nil if it has none. The caller must not change it.
func (f *File) Metadata() map[string]string { return f.metadata }

// Tensor is what the header says of the named tensor.
func (f *File) Tensor(name string) (Info, bool) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, false
	}
	return f.tensors[i], true
}

// Read fills dst with consecutive values of the named tensor in row-major order, the first of them value number from, widened
// to float32 without rounding. It is an error if the tensor is not there, if its dtype is not F32, F16 or BF16,
// if the range ends past its end, and if the file has been cut since it was opened.
func (f *File) Read(name string, from int, dst []float32) error {
	t, err := f.locate(name, from, len(dst))
	if err != nil {
		return err
	}
	if !t.DType.Readable() {
		return fmt.Errorf("checkpoint: %s: %s: dtype %s, want F32, F16 or BF16", f.name, show(name), t.DType)
	}
	size := t.DType.Bits() / 8
	buf := chunks.Get().(*[chunkBytes]byte)
	defer chunks.Put(buf)
	for at := t.Begin + int64(from)*int64(size); len(dst) > 0; {
		n := min(len(dst), chunkBytes/size)
		raw := buf[:n*size]
		if err := f.readAt(t, raw, at); err != nil {
			return err
		}
		widen(t.DType, dst[:n], raw)
		dst, at = dst[n:], at+int64(len(raw))
	}
	return nil
}

// ReadRaw fills dst with the bytes of consecutive values as they are in the file, little-endian, the first of them value
// number from. It is an error if the tensor is not there, if a value is not a whole number of bytes, if dst is not a whole
// number of values, if the range ends past the tensor's end, and if the file has been cut since it was opened.
func (f *File) ReadRaw(name string, from int, dst []byte) error {
	t, ok := f.Tensor(name)
	if !ok {
		return fmt.Errorf("checkpoint: %s: %s: no such tensor", f.name, show(name))
	}
	size := t.DType.Bits() / 8
	if t.DType.Bits()%8 != 0 || len(dst)%size != 0 {
		return fmt.Errorf("checkpoint: %s: %s: %d bytes are not whole values of %s", f.name, show(name), len(dst), t.DType)
	}
	if _, err := f.locate(name, from, len(dst)/size); err != nil {
		return err
	}
	return f.readAt(t, dst, t.Begin+int64(from)*int64(size))
}

// locate finds the named tensor and checks that it has n values from value number from.
func (f *File) locate(name string, from, n int) (Info, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return t, fmt.Errorf("checkpoint: %s: %s: no such tensor", f.name, show(name))
	}
	if count := t.Count(); from < 0 || from > count || n > count-from {
		return t, fmt.Errorf("checkpoint: %s: %s: %d values from number %d, want them inside its %d", f.name, show(name), n, from, count)
	}
	return t, nil
}

// readAt reads bytes of one tensor.
func (f *File) readAt(t Info, dst []byte, at int64) error {
	if err := readFull(f.r, dst, at); err != nil {
		return fmt.Errorf("checkpoint: %s: %s: %w", f.name, show(t.Name), err)
	}
	return nil
}

// readFull fills dst from byte at on. The size was checked when the file was opened: an end before that is news.
func readFull(r io.ReaderAt, dst []byte, at int64) error {
	n, err := r.ReadAt(dst, at)
	if n == len(dst) {
		return nil // io.EOF may come with the last byte
	}
	if err == io.EOF {
		return fmt.Errorf("the file has been cut to %d bytes since it was opened, want %d at least", at+int64(n), at+int64(len(dst)))
	}
	return err
}

// chunkBytes is how much is read at once. From 32 KiB to 1 MiB the time is the same (BenchmarkRead).
const chunkBytes = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}
