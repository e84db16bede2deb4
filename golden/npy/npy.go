// Package npy reads and writes NumPy's .npy files, trusting none of them.
//
// A file is a magic string, a version, the length of a header, the header (a Python dict with the keys descr, fortran_order and shape),
// and the values. Everything the header claims is held against the size of the file before memory is asked for: what is read
// takes up the file's own size (twice that while a Fortran-ordered array is put into C order), whatever the header says.
// A file that is shorter or longer than its header says is an error, never a short or padded array.
//
// Versions 1.0, 2.0 and 3.0 are read, version 1.0 is written, byte for byte as numpy 2 writes it.
// Booleans, integers and floats in little-endian order are read; big-endian, structured, object (pickle), string and complex arrays are refused by name.
//
// The header is parsed here and not by sbinet/npyio v0.6.0, which needs the keys in one order, panics on others and stops short of version 3.0.
// The tests hold the two against each other wherever npyio reads a file.
package npy

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/x448/float16"
)

// Limits. None of them is near what an array of this project needs.
const (
	maxHeader  = 64 << 10                 // bytes of header text
	maxPayload = min(16<<30, math.MaxInt) // bytes of values
	maxAxes    = 32
)

// Header is what a file says about its array.
type Header struct {
	Version int    // 1, 2 or 3
	DType   string // as numpy spells it: "<f4", "<i8", "|u1"
	Fortran bool   // the file has the first axis running fastest; an Array's values are in C order all the same
	Shape   []int  // empty for a single number
	Offset  int64  // where the values begin in the file
}

// Len is the number of values.
func (h Header) Len() int {
	n := 1
	for _, d := range h.Shape {
		n *= d
	}
	return n
}

// Bytes is the size of the values in the file.
func (h Header) Bytes() int64 { return int64(h.Len()) * int64(itemSize[h.DType]) }

// itemSize lists the dtypes that are read, with the bytes that a value of each takes.
var itemSize = map[string]int{
	"<f2": 2, "<f4": 4, "<f8": 8,
	"|i1": 1, "<i2": 2, "<i4": 4, "<i8": 8,
	"|u1": 1, "<u2": 2, "<u4": 4, "<u8": 8,
	"|b1": 1,
}

// dtypes are the keys of itemSize, sorted, for errors.
var dtypes = func() string {
	var names []string
	for name := range itemSize {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}()

// Array is an array as a file has it: values of its own dtype, in C order.
type Array struct {
	Header
	name string // of the file, for errors
	data []byte // little-endian, C order
}

// Float32s gives the values as float32 if its dtype holds in float32 without rounding: <f2, <f4, and integers of at most 16 bits.
func (a *Array) Float32s() ([]float32, error) {
	switch a.DType {
	case "<f2", "<f4", "|i1", "|u1", "<i2", "<u2", "|b1":
		return a.float32s(), nil
	case "<f8":
		return nil, a.errorf("dtype %s does not fit float32, want <f2 or <f4 (or Rounded32s, which rounds)", a.DType)
	}
	return nil, a.errorf("dtype %s does not fit float32, want <f2 or <f4", a.DType)
}

// Rounded32s gives the values of a float array as float32: <f2 and <f4 exactly, <f8 rounded once to the nearest, ties to even.
func (a *Array) Rounded32s() ([]float32, error) {
	if a.DType != "<f8" {
		return a.Float32s()
	}
	return a.float32s(), nil
}

func (a *Array) float32s() []float32 {
	out := make([]float32, a.Len())
	b := a.data
	switch a.DType {
	case "<f4":
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case "<f2":
		for i := range out {
			out[i] = float16.Frombits(binary.LittleEndian.Uint16(b[2*i:])).Float32()
		}
	default:
		for i, v := range a.float64s() {
			out[i] = float32(v)
		}
	}
	return out
}

// Float64s gives the values as float64 if the dtype holds in float64 without rounding: all but the 64-bit integers.
func (a *Array) Float64s() ([]float64, error) {
	if a.DType == "<i8" || a.DType == "<u8" {
		return nil, a.errorf("dtype %s does not fit float64, want a float or an integer of at most 32 bits", a.DType)
	}
	return a.float64s(), nil
}

func (a *Array) float64s() []float64 {
	out := make([]float64, a.Len())
	b := a.data
	switch a.DType {
	case "<f8":
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
	case "<f2", "<f4":
		for i, v := range a.float32s() {
			out[i] = float64(v)
		}
	default:
		for i := range out {
			out[i] = float64(a.integer(i))
		}
	}
	return out
}

// Int64s gives the values of an integer or boolean array. A value of <u8 past the int64s is an error.
func (a *Array) Int64s() ([]int64, error) {
	switch a.DType {
	case "<f2", "<f4", "<f8":
		return nil, a.errorf("dtype %s, want integers", a.DType)
	}
	out := make([]int64, a.Len())
	for i := range out {
		out[i] = a.integer(i)
		if out[i] < 0 && a.DType == "<u8" {
			return nil, a.errorf("value %d is %d, want at most %d", i, uint64(out[i]), int64(math.MaxInt64))
		}
	}
	return out, nil
}

// integer is value i of an integer or boolean array, <u8 wrapped.
func (a *Array) integer(i int) int64 {
	b := a.data
	switch a.DType {
	case "|i1":
		return int64(int8(b[i]))
	case "|u1", "|b1":
		return int64(b[i])
	case "<i2":
		return int64(int16(binary.LittleEndian.Uint16(b[2*i:])))
	case "<u2":
		return int64(binary.LittleEndian.Uint16(b[2*i:]))
	case "<i4":
		return int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
	case "<u4":
		return int64(binary.LittleEndian.Uint32(b[4*i:]))
	default: // "<i8", "<u8"
		return int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
}

func (a *Array) errorf(format string, args ...any) error { return fail(a.name, format, args...) }

// fail makes an error of the package about a file.
func fail(name, format string, args ...any) error {
	return fmt.Errorf("npy: %s: %w", name, fmt.Errorf(format, args...))
}

// reorder puts values whose first axis runs fastest into C order.
func reorder(data []byte, shape []int, size int) []byte {
	stride := make([]int, len(shape)) // bytes from one index of an axis to the next, in data
	s := size
	for i, d := range shape {
		stride[i] = s
		s *= d
	}
	out := make([]byte, 0, len(data))
	index, at := make([]int, len(shape)), 0
	for len(out) < len(data) {
		out = append(out, data[at:at+size]...)
		for axis := len(shape) - 1; axis >= 0; axis-- {
			index[axis]++
			at += stride[axis]
			if index[axis] < shape[axis] {
				break
			}
			at -= stride[axis] * shape[axis]
			index[axis] = 0
		}
	}
	return out
}
