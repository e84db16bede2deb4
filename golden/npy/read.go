package npy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadFile reads a file.
func ReadFile(path string) (*Array, error) {
	f, size, err := open(path)
	if err != nil {
		return nil, fail(path, "%w", cause(err))
	}
	defer f.Close()
	return read(path, f, size, true)
}

// Read reads an array from r, which is to hold size bytes: a member of an archive, or of an embedded file system.
// The size is what somebody claims; memory grows with what r really gives. The name is for errors.
func Read(name string, r io.Reader, size int64) (*Array, error) {
	return read(name, r, size, false)
}

// Parse reads an array from the bytes of a file. The array shares their memory.
func Parse(name string, data []byte) (*Array, error) {
	h, err := readHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fail(name, "%w", err)
	}
	return newArray(name, h, data[h.Offset:len(data):len(data)]), nil
}

// Stat reads the header of a file and holds it against the file's size.
func Stat(path string) (Header, error) {
	f, size, err := open(path)
	if err != nil {
		return Header{}, fail(path, "%w", cause(err))
	}
	defer f.Close()
	return ReadHeader(path, f, size)
}

// ReadHeader reads the header of an array from r, which is to hold size bytes, and holds it against that size.
func ReadHeader(name string, r io.Reader, size int64) (Header, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return Header{}, fail(name, "%w", err)
	}
	return h, nil
}

// open opens a regular file; to open a pipe would wait for its writer.
func open(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("not a regular file: %v", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err = f.Stat() // of what was opened, which another process may have put there since
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file: %v", info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// cause strips an error of the path that the package puts in front itself.
func cause(err error) error {
	if p, ok := err.(*fs.PathError); ok {
		return p.Err
	}
	return err
}

func read(name string, r io.Reader, size int64, sizeIsReal bool) (*Array, error) {
	h, err := readHeader(r, size)
	if err != nil {
		return nil, fail(name, "%w", err)
	}
	data, err := readPayload(r, size-h.Offset, sizeIsReal)
	if err != nil {
		return nil, fail(name, "values: %w", err)
	}
	return newArray(name, h, data), nil
}

func newArray(name string, h Header, data []byte) *Array {
	if h.Fortran {
		data = reorder(data, h.Shape, itemSize[h.DType])
	}
	return &Array{Header: h, name: name, data: data}
}

// readHeader reads what stands before the values and checks it against the size of the whole.
func readHeader(r io.Reader, size int64) (Header, error) {
	var h Header
	head := make([]byte, 12) // magic, version, and a length of 2 bytes in version 1.0, of 4 in later ones
	n := 10
	if err := readFull(r, head[:n]); err != nil {
		return h, fmt.Errorf("start of the file: %w", err)
	}
	if string(head[:6]) != magic {
		return h, fmt.Errorf("starts with %q, want %q", head[:6], magic)
	}
	major, minor := head[6], head[7]
	if major < 1 || major > 3 || minor != 0 {
		return h, fmt.Errorf("version %d.%d, want 1.0, 2.0 or 3.0", major, minor)
	}
	length := int64(binary.LittleEndian.Uint16(head[8:]))
	if major > 1 {
		n = 12
		if err := readFull(r, head[10:]); err != nil {
			return h, fmt.Errorf("start of the file: %w", err)
		}
		length = int64(binary.LittleEndian.Uint32(head[8:]))
	}
	if length > maxHeader {
		return h, fmt.Errorf("header of %d bytes, want at most %d", length, maxHeader)
	}
	if int64(n)+length > size {
		return h, fmt.Errorf("header of %d bytes in a file of %d", length, size)
	}
	text := make([]byte, length)
	if err := readFull(r, text); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	h.Version, h.Offset = int(major), int64(n)+length
	if err := h.parseHeader(string(text)); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	return h, h.checkSize(size)
}

// readFull is io.ReadFull with an error that says how much there was.
func readFull(r io.Reader, b []byte) error {
	n, err := io.ReadFull(r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%d bytes, want %d: %w", n, len(b), io.ErrUnexpectedEOF)
	}
	return err
}

// readPayload reads the n bytes that r holds. If n is only claimed, it asks for memory as the bytes come.
func readPayload(r io.Reader, n int64, sizeIsReal bool) ([]byte, error) {
	const first = 1 << 20
	var data []byte
	if sizeIsReal || n <= first {
		data = make([]byte, n)
		if err := readFull(r, data); err != nil {
			return nil, err
		}
	} else {
		for step := int64(first); int64(len(data)) < n; step = int64(len(data)) {
			have := len(data)
			data = append(data, make([]byte, min(step, n-int64(have)))...)
			if got, err := io.ReadFull(r, data[have:]); err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil, fmt.Errorf("%d bytes, want %d: %w", have+got, n, io.ErrUnexpectedEOF)
			} else if err != nil {
				return nil, err
			}
		}
	}
	var more [1]byte
	switch got, err := io.ReadFull(r, more[:]); {
	case got > 0:
		return nil, fmt.Errorf("more than %d bytes, want %d", n, n)
	case err != io.EOF:
		return nil, err
	}
	return data, nil
}
