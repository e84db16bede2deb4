package npy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/x448/float16"
)

// Element is a type whose values can be written.
type Element interface {
	float16.Float16 | float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64
}

// Write writes a version 1.0 file of values in C order.
func Write[T Element](w io.Writer, shape []int, data []T) error {
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/d {
			return fmt.Errorf("npy: write: shape %v, want %d values", shape, len(data))
		}
		n *= d
	}
	if n != len(data) {
		return fmt.Errorf("npy: write: shape %v of %d values, want %d values", shape, n, len(data))
	}
	if len(shape) > maxAxes {
		return fmt.Errorf("npy: write: %d axes, want at most %d", len(shape), maxAxes)
	}
	h := Header{Version: 1, DType: dtypeOf(data), Shape: shape}
	if _, err := io.WriteString(w, h.preamble()); err != nil {
		return err
	}
	return writeValues(w, data)
}

// WriteFile writes a file as a whole or not at all: it is written beside the path and takes its place at the end.
func WriteFile[T Element](path string, shape []int, data []T) error {
	dir, base := filepath.Split(path)
	tmp := filepath.Join(dir, fmt.Sprintf(".%s.%016x.tmp", base, rand.Uint64()))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fail(path, "%w", cause(err))
	}
	w := bufio.NewWriterSize(f, 1<<16)
	if err = Write(w, shape, data); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fail(path, "%w", err)
	}
	return nil
}

// preamble is what stands before the values: padded with spaces to a multiple of 64 bytes, and, as numpy does it,
// with room for the first axis to grow to 21 digits.
func (h Header) preamble() string {
	text := h.text()
	if len(h.Shape) > 0 {
		text += strings.Repeat(" ", 21-len(fmt.Sprint(h.Shape[0])))
	}
	const fixed = len(magic) + 4
	text += strings.Repeat(" ", 64-(fixed+len(text)+1)%64) + "\n"
	length := binary.LittleEndian.AppendUint16(nil, uint16(len(text)))
	return magic + "\x01\x00" + string(length) + text
}

func dtypeOf(data any) string {
	switch data.(type) {
	case []float16.Float16:
		return "<f2"
	case []float32:
		return "<f4"
	case []float64:
		return "<f8"
	case []int8:
		return "|i1"
	case []int16:
		return "<i2"
	case []int32:
		return "<i4"
	case []int64:
		return "<i8"
	case []uint8:
		return "|u1"
	case []uint16:
		return "<u2"
	case []uint32:
		return "<u4"
	default:
		return "<u8"
	}
}

// writeValues writes in pieces, so that a large array needs no second copy of itself.
func writeValues[T Element](w io.Writer, data []T) error {
	var buf []byte
	for piece := range slices.Chunk(data, 1<<13) {
		var err error
		if buf, err = binary.Append(buf[:0], binary.LittleEndian, piece); err != nil {
			return err
		}
		if _, err = w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}
