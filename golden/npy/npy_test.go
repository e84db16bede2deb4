package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	npyio "github.com/sbinet/npyio/npy"
	"github.com/x448/float16"
)

// file makes a file: a preamble of the given version around a header text, then payload bytes of zeros.
func file(version byte, text string, payload int) []byte {
	b := append([]byte(magic), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	}
	return append(append(b, text...), make([]byte, payload)...)
}

func read1(t *testing.T, name string) *Array {
	t.Helper()
	a, err := ReadFile(filepath.Join("testdata", name+".npy"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWhatNumpyWrites(t *testing.T) {
	var signed, unsigned []float64
	for i := range 24 {
		signed, unsigned = append(signed, float64(i-12)), append(unsigned, float64(i))
	}
	for _, dtype := range []string{"<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"} {
		t.Run(dtype, func(t *testing.T) {
			a := read1(t, dtype[1:])
			want := signed
			if dtype[1] == 'u' {
				want = unsigned
			}
			if a.DType != dtype || a.Version != 1 || a.Offset != 128 || a.Fortran {
				t.Errorf("header %+v, want version 1, dtype %s, offset 128, C order", a.Header, dtype)
			}
			if diff := cmp.Diff([]int{2, 3, 4}, a.Shape); diff != "" {
				t.Errorf("shape (-want +got):\n%s", diff)
			}
			if f64, err := a.Float64s(); err == nil {
				if diff := cmp.Diff(want, f64); diff != "" {
					t.Errorf("Float64s (-want +got):\n%s", diff)
				}
			} else if dtype != "<i8" && dtype != "<u8" {
				t.Error(err)
			}
			if f32, err := a.Float32s(); err == nil {
				for i, v := range f32 {
					if float64(v) != want[i] {
						t.Errorf("Float32s: value %d is %v, want %v", i, v, want[i])
					}
				}
			} else if slices := []string{"<f8", "<i4", "<i8", "<u4", "<u8"}; !strings.Contains(fmt.Sprint(slices), dtype) {
				t.Error(err)
			}
			if i64, err := a.Int64s(); err == nil {
				for i, v := range i64 {
					if float64(v) != want[i] {
						t.Errorf("Int64s: value %d is %v, want %v", i, v, want[i])
					}
				}
			} else if dtype[1] != 'f' {
				t.Error(err)
			}
		})
	}
	t.Run("booleans", func(t *testing.T) {
		got, err := read1(t, "b1").Int64s()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if (v == 1) != (i%3 == 0) {
				t.Errorf("value %d is %d", i, v)
			}
		}
	})
	t.Run("every version has the same values", func(t *testing.T) {
		for v, name := range []string{"v1", "v2", "v3"} {
			a := read1(t, name)
			got, err := a.Float32s()
			if err != nil || a.Version != v+1 || len(got) != 24 || got[23] != 23 {
				t.Errorf("%s: version %d, %v, %v", name, a.Version, got, err)
			}
		}
	})
	t.Run("a single number, a single element and nothing", func(t *testing.T) {
		for name, want := range map[string]struct {
			shape  []int
			values []float32
		}{
			"scalar":   {[]int{}, []float32{7.5}},
			"one":      {[]int{1}, []float32{7.5}},
			"empty":    {[]int{0}, []float32{}},
			"empty-2d": {[]int{3, 0}, []float32{}},
		} {
			a := read1(t, name)
			got, err := a.Float32s()
			if err != nil || !reflect.DeepEqual(a.Shape, want.shape) || !reflect.DeepEqual(got, want.values) {
				t.Errorf("%s: shape %v, values %v, %v, want %v, %v", name, a.Shape, got, err, want.shape, want.values)
			}
		}
	})
	t.Run("Fortran order comes out in C order", func(t *testing.T) {
		a := read1(t, "fortran")
		got, err := a.Float32s()
		if err != nil || !a.Fortran {
			t.Fatalf("Fortran %v, %v", a.Fortran, err)
		}
		for i, v := range got {
			if v != float32(i) {
				t.Fatalf("value %d is %v, want %d: %v", i, v, i, got)
			}
		}
		ints, err := read1(t, "fortran-2d").Int64s()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range ints {
			if v != int64(i) {
				t.Fatalf("value %d is %v, want %d: %v", i, v, i, ints)
			}
		}
	})
	t.Run("float16 at its ends is widened exactly", func(t *testing.T) {
		got, err := read1(t, "special-f2").Float32s()
		want := []float32{0, float32(math.Copysign(0, -1)), 0x1p-24, 1023 * 0x1p-24, 65504, float32(math.Inf(1)), float32(math.Inf(-1)), 0x1.554p-2}
		if err != nil || len(got) != len(want) {
			t.Fatal(got, err)
		}
		for i := range want {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				t.Errorf("value %d is %v, want %v", i, got[i], want[i])
			}
		}
	})
}

func TestRefusedDTypes(t *testing.T) {
	for name, want := range map[string]string{
		"big-endian": "big-endian",
		"structured": "structured",
		"object":     "pickle",
		"strings":    "strings",
		"bytes":      "strings",
		"complex":    "complex",
		"void":       "bfloat16",
		"dates":      `dtype "<M8[s]" is not supported`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".npy")
			if a, err := ReadFile(path); err == nil {
				t.Fatalf("read as %+v", a.Header)
			} else if !strings.HasPrefix(err.Error(), "npy: "+path+": ") || !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want the path and %q", err, want)
			}
		})
	}
}

// TestHeaders holds single forms of the header's text: what writers in the wild write, and what is no header.
func TestHeaders(t *testing.T) {
	type header struct {
		dtype   string
		fortran bool
		shape   []int
	}
	for _, c := range []struct {
		name, text string
		payload    int
		want       header
		err        string // part of the error; empty if the header is good
	}{
		{"as numpy writes it", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24, header{"<f4", false, []int{2, 3}}, ""},
		{"no trailing comma", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}\n", 24, header{"<f4", false, []int{2, 3}}, ""},
		{"no newline", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 24, header{"<f4", false, []int{2, 3}}, ""},
		{"newlines and tabs between", "{\n\t'descr':'<f4',\n\t'fortran_order':False,\n\t'shape':(2,3)\n}\n", 24, header{"<f4", false, []int{2, 3}}, ""},
		{"other order of keys", "{'shape': (2, 3), 'fortran_order': True, 'descr': '<i8'}", 48, header{"<i8", true, []int{2, 3}}, ""},
		{"double quotes", `{"descr": "<f4", "fortran_order": False, "shape": (2, 3)}`, 24, header{"<f4", false, []int{2, 3}}, ""},
		{"odd length of the header", "{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}  ", 3, header{"|u1", false, []int{3}}, ""},
		{"byte order of a byte", "{'descr': '<u1', 'fortran_order': False, 'shape': (3,)}", 3, header{"|u1", false, []int{3}}, ""},
		{"comma at the end of the tuple", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3,)}", 24, header{"<f4", false, []int{2, 3}}, ""},
		{"a single number", "{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, header{"<f4", false, []int{}}, ""},
		{"an axis of zero", "{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}", 0, header{"<f4", false, []int{0}}, ""},
		{"Python 2 long numbers", "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L)}", 24, header{"<f4", false, []int{2, 3}}, ""},

		{"empty", "", 0, header{}, `the end, want "{"`},
		{"a number for a tuple", "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}", 12, header{}, "(3) is a number, want a tuple: (3,)"},
		{"a bare number", "{'descr': '<f4', 'fortran_order': False, 'shape': 3}", 12, header{}, "want a tuple"},
		{"a list for a tuple", "{'descr': '<f4', 'fortran_order': False, 'shape': [3]}", 12, header{}, "want a tuple"},
		{"a comma alone", "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 4, header{}, "want the length of an axis"},
		{"two commas", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,1)}", 4, header{}, "want the length of an axis"},
		{"no comma", "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}", 4, header{}, `want "," or ")"`},
		{"a negative axis", "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4, header{}, "want the length of an axis"},
		{"an axis with leading zeros", "{'descr': '<f4', 'fortran_order': False, 'shape': (01,)}", 4, header{}, "want the length of an axis"},
		{"an axis past int64", "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 4, header{}, "axis length"},
		{"a fraction", "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}", 4, header{}, `want "," or ")"`},
		{"33 axes", "{'descr': '<f4', 'fortran_order': False, 'shape': (" + strings.Repeat("1,", 33) + ")}", 4, header{}, "more than 32 axes"},
		{"tuple not closed", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,", 4, header{}, "the end, want the length"},
		{"dict not closed", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", 4, header{}, `the end, want "}"`},
		{"string not closed", "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}", 4, header{}, "not supported"},
		{"string over two lines", "{'descr': '<f\n4', 'fortran_order': False, 'shape': (1,)}", 4, header{}, "want a string that ends"},
		{"an escape", `{'des\x63r': '<f4', 'fortran_order': False, 'shape': (1,)}`, 4, header{}, "want a string that ends"},
		{"a key twice", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (2,)}", 4, header{}, `key "shape" twice`},
		{"a key too many", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'order': 'C'}", 4, header{}, `"order": not known`},
		{"a key missing", "{'descr': '<f4', 'shape': (1,)}", 4, header{}, `no key "fortran_order"`},
		{"a boolean as a number", "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", 4, header{}, "want True or False"},
		{"another literal behind", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} {}", 4, header{}, "after the dict"},
		{"no byte order", "{'descr': 'f4', 'fortran_order': False, 'shape': (1,)}", 4, header{}, "without a byte order"},
		{"native byte order", "{'descr': '|f4', 'fortran_order': False, 'shape': (1,)}", 4, header{}, "without a byte order"},
		{"big-endian", "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", 4, header{}, "big-endian"},
		{"an object array", "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", 8, header{}, "pickle"},
		{"a structured dtype", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4, header{}, "structured"},
		{"a subarray dtype", "{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1,)}", 8, header{}, "structured"},
		{"a byte too few", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 23, header{}, "shape [2 3] of <f4"},
		{"a byte too many", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 25, header{}, "shape [2 3] of <f4"},
		{"a byte behind nothing", "{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}", 1, header{}, "want"},
		{"a huge axis", "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", 4, header{}, "want at most"},
		{"a product past int64", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 0, header{}, "more values than can be counted"},
		{"a product past int64 hidden by a zero", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 0, 4294967296)}", 0, header{}, "more values than can be counted"},
		{"a product that wraps to the file's size", "{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693953,)}", 8, header{}, "more values than can be counted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for version := byte(1); version <= 3; version++ {
				a, err := Parse("a.npy", file(version, c.text, c.payload))
				if c.err != "" {
					if err == nil {
						t.Fatalf("read as %+v, want an error with %q", a.Header, c.err)
					}
					if !strings.HasPrefix(err.Error(), "npy: a.npy: ") || !strings.Contains(err.Error(), c.err) {
						t.Errorf("error %q, want %q in it", err, c.err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := (header{a.DType, a.Fortran, a.Shape}); !reflect.DeepEqual(got, c.want) {
					t.Errorf("%+v, want %+v", got, c.want)
				}
			}
		})
	}
}

func TestPreamble(t *testing.T) {
	good := file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n", 8)
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want string
	}{
		{"another magic", func(b []byte) []byte { b[0] = 'P'; return b }, "starts with"},
		{"version 0.0", func(b []byte) []byte { b[6] = 0; return b }, "version 0.0"},
		{"version 4.0", func(b []byte) []byte { b[6] = 4; return b }, "version 4.0"},
		{"version 1.1", func(b []byte) []byte { b[7] = 1; return b }, "version 1.1"},
		{"a header past the end", func(b []byte) []byte { b[8] = 200; return b }, "header of 200 bytes in a file of"},
		{"a header of 4 GiB", func(b []byte) []byte { return file(2, strings.Repeat(" ", 1), 0)[:8:8] }, "want 10"},
		{"nothing", func(b []byte) []byte { return nil }, "0 bytes, want 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse("a.npy", c.edit(bytes.Clone(good))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("a header of 64 KiB and no more", func(t *testing.T) {
		text := "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"
		if _, err := Parse("a.npy", file(2, text+strings.Repeat(" ", maxHeader-len(text)), 8)); err != nil {
			t.Error(err)
		}
		if _, err := Parse("a.npy", file(2, text+strings.Repeat(" ", maxHeader-len(text)+1), 8)); err == nil || !strings.Contains(err.Error(), "want at most 65536") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a claimed header of 4 GiB", func(t *testing.T) {
		b := append(file(2, "", 0)[:8], 0xff, 0xff, 0xff, 0xff)
		if got := allocated(func() {
			if _, err := Parse("a.npy", b); err == nil || !strings.Contains(err.Error(), "header of 4294967295 bytes") {
				t.Errorf("error %v", err)
			}
		}); got > 64<<10 {
			t.Errorf("%d bytes allocated", got)
		}
	})
}

// TestCut cuts files at every byte and adds one: each is an error through every way of reading.
func TestCut(t *testing.T) {
	for _, name := range []string{"f4", "v2", "fortran", "scalar", "i8"} {
		whole, err := os.ReadFile(filepath.Join("testdata", name+".npy"))
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) {
			cut := whole[:n]
			if _, err := Parse("a.npy", cut); err == nil {
				t.Errorf("%s cut to %d bytes: Parse gives no error", name, n)
			}
			for _, claimed := range []int{n, len(whole)} {
				if _, err := Read("a.npy", bytes.NewReader(cut), int64(claimed)); err == nil {
					t.Errorf("%s cut to %d bytes, %d claimed: Read gives no error", name, n, claimed)
				}
			}
		}
		longer := append(bytes.Clone(whole), 0)
		for _, claimed := range []int{len(whole), len(longer)} {
			if _, err := Read("a.npy", bytes.NewReader(longer), int64(claimed)); err == nil {
				t.Errorf("%s with a byte more, %d claimed: Read gives no error", name, claimed)
			}
		}
	}
}

// allocated is what f allocates, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestMemoryIsBoundedByTheFile(t *testing.T) {
	huge := func(shape string) []byte {
		return file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': "+shape+"}\n", 0)
	}
	t.Run("a claimed shape", func(t *testing.T) {
		for _, shape := range []string{"(1099511627776,)", "(1073741824,)", "(1048576, 1048576)", "(536870912,)"} {
			if got := allocated(func() {
				if _, err := Parse("a.npy", huge(shape)); err == nil {
					t.Errorf("%s: no error", shape)
				}
			}); got > 32<<10 {
				t.Errorf("%s: %d bytes allocated for a file of %d", shape, got, len(huge(shape)))
			}
		}
	})
	t.Run("a claimed size", func(t *testing.T) {
		b := huge("(536870912,)") // 2 GiB, and so says the caller
		if got := allocated(func() {
			_, err := Read("a.npy", bytes.NewReader(b), int64(len(b))+4*536870912)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v, want an unexpected EOF", err)
			}
		}); got > 4<<20 {
			t.Errorf("%d bytes allocated for a file of %d", got, len(b))
		}
	})
	t.Run("a true size, piece by piece", func(t *testing.T) {
		b := file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (5000001,)}\n", 5000001)
		b[len(b)-1] = 7
		a, err := Read("a.npy", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Int64s(); err != nil || got[5000000] != 7 || got[4999999] != 0 {
			t.Error("wrong values", err)
		}
	})
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"a folder": dir, "what is not there": filepath.Join(dir, "none.npy"), "a device": os.DevNull} {
		t.Run(name, func(t *testing.T) {
			for _, f := range []func(string) error{
				func(p string) error { _, err := ReadFile(p); return err },
				func(p string) error { _, err := Stat(p); return err },
			} {
				if err := f(path); err == nil || !strings.HasPrefix(err.Error(), "npy: "+path+": ") || strings.Count(err.Error(), path) != 1 {
					t.Errorf("error %v", err)
				}
			}
		})
	}
	if _, err := ReadFile(filepath.Join(dir, "none.npy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not os.ErrNotExist", err)
	}
}

func TestTypedAccess(t *testing.T) {
	var buf bytes.Buffer
	parse := func(err error) *Array {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		a, err := Parse("a.npy", bytes.Clone(buf.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		buf.Reset()
		return a
	}
	t.Run("float64 is rounded to nearest even, and only where asked", func(t *testing.T) {
		a := parse(Write(&buf, []int{3}, []float64{1 + 0x1p-24, 1 + 0x3p-24, 1e300}))
		if _, err := a.Float32s(); err == nil || !strings.Contains(err.Error(), "Rounded32s") {
			t.Errorf("Float32s of <f8: error %v", err)
		}
		got, err := a.Rounded32s()
		if want := []float32{1, 1 + 0x1p-22, float32(math.Inf(1))}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Rounded32s: %v, %v, want %v", got, err, want)
		}
	})
	t.Run("integers that do not fit are refused", func(t *testing.T) {
		a := parse(Write(&buf, []int{2}, []uint64{1, 1 << 63}))
		if _, err := a.Int64s(); err == nil || !strings.Contains(err.Error(), "value 1 is 9223372036854775808") {
			t.Errorf("Int64s: error %v", err)
		}
		if _, err := a.Float64s(); err == nil {
			t.Error("Float64s of <u8: no error")
		}
		if _, err := parse(Write(&buf, []int{1}, []int32{1})).Float32s(); err == nil {
			t.Error("Float32s of <i4: no error")
		}
		if _, err := parse(Write(&buf, []int{1}, []float32{1})).Int64s(); err == nil {
			t.Error("Int64s of <f4: no error")
		}
	})
	t.Run("NaN payloads survive", func(t *testing.T) {
		nan := math.Float32frombits(0x7fc12345)
		got, err := parse(Write(&buf, []int{1}, []float32{nan})).Float32s()
		if err != nil || math.Float32bits(got[0]) != 0x7fc12345 {
			t.Errorf("%x, %v", math.Float32bits(got[0]), err)
		}
	})
}

// TestWriteMatchesNumpy holds the writer's bytes against numpy's.
func TestWriteMatchesNumpy(t *testing.T) {
	check := func(name string, write func(w io.Writer) error) {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", name+".npy"))
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("got\n%q\nwant\n%q", got.Bytes(), want)
			}
		})
	}
	check("f2", func(w io.Writer) error {
		var d []float16.Float16
		for _, v := range count[float32](-12) {
			d = append(d, float16.Fromfloat32(v))
		}
		return Write(w, []int{2, 3, 4}, d)
	})
	check("f4", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[float32](-12)) })
	check("f8", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[float64](-12)) })
	check("i1", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[int8](-12)) })
	check("i2", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[int16](-12)) })
	check("i4", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[int32](-12)) })
	check("i8", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[int64](-12)) })
	check("u1", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[uint8](0)) })
	check("u2", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[uint16](0)) })
	check("u4", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[uint32](0)) })
	check("u8", func(w io.Writer) error { return Write(w, []int{2, 3, 4}, count[uint64](0)) })
	check("scalar", func(w io.Writer) error { return Write(w, nil, []float32{7.5}) })
	check("one", func(w io.Writer) error { return Write(w, []int{1}, []float32{7.5}) })
	check("empty", func(w io.Writer) error { return Write(w, []int{0}, []float32(nil)) })
	check("empty-2d", func(w io.Writer) error { return Write(w, []int{3, 0}, []float32{}) })
}

func count[T Element](from int) []T {
	var out []T
	for i := range 24 {
		out = append(out, T(float64(i+from)))
	}
	return out
}

func TestWriteRefuses(t *testing.T) {
	for name, shape := range map[string][]int{
		"too few values":  {3},
		"too many values": {1},
		"a negative axis": {-1, -2},
		"a product that wraps to the right number": {1 << 62, 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Write(io.Discard, shape, []float32{1, 2}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.npy")
	only := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
	if err := WriteFile(path, []int{2}, []float32{1}); err == nil {
		t.Error("two values of one: no error")
	}
	only()
	for _, values := range [][]float32{{1, 2}, {3, 4, 5}} { // the second replaces the first
		if err := WriteFile(path, []int{len(values)}, values); err != nil {
			t.Fatal(err)
		}
		a, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Float32s(); err != nil || !reflect.DeepEqual(got, values) {
			t.Errorf("read %v, %v, want %v", got, err, values)
		}
	}
	h, err := Stat(path)
	if want := (Header{Version: 1, DType: "<f4", Shape: []int{3}, Offset: 128}); err != nil || !reflect.DeepEqual(h, want) {
		t.Errorf("Stat: %+v, %v, want %+v", h, err, want)
	}
	if h.Len() != 3 || h.Bytes() != 12 {
		t.Errorf("%d values of %d bytes, want 3 of 12", h.Len(), h.Bytes())
	}
	if err := WriteFile(path, []int{4}, []float32{1}); err == nil {
		t.Error("four values of one: no error")
	}
	if a, err := ReadFile(path); err != nil || a.Len() != 3 {
		t.Error("a failed write touched the file", err)
	}
	only("a.npy")
	if err := WriteFile(filepath.Join(dir, "none", "a.npy"), []int{1}, []float32{1}); err == nil {
		t.Error("a folder that is not there: no error")
	}
}

// npyioHeader is npyio's reading of a header; ok is false where it panics or gives up.
func npyioHeader(data []byte) (h npyio.Header, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	r, err := npyio.NewReader(bytes.NewReader(data))
	if err != nil {
		return h, false
	}
	return r.Header, true
}

// TestAgainstNpyio holds header and values of every file of numpy's that npyio reads against npyio.
func TestAgainstNpyio(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.npy")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Parse(path, data)
		h, ok := npyioHeader(data)
		if err != nil || !ok {
			continue
		}
		if h.Descr.Type != a.DType || h.Descr.Fortran != a.Fortran || int(h.Major) != a.Version || fmt.Sprint(h.Descr.Shape) != fmt.Sprint(a.Shape) {
			t.Errorf("%s: %+v, npyio has %v", path, a.Header, h)
		}
		if a.DType != "<f4" || a.Fortran || a.Len() == 0 { // npyio ignores the order of the axes
			continue
		}
		var theirs []float32
		if err := npyio.Read(bytes.NewReader(data), &theirs); err != nil {
			t.Errorf("%s: npyio: %v", path, err)
		}
		if ours, err := a.Float32s(); err != nil || !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: %v, %v, npyio has %v", path, ours, err, theirs)
		}
		compared++
	}
	if compared < 4 {
		t.Errorf("values of %d files compared, want at least 4", compared)
	}
}

// FuzzParse reads anything: no panic, no memory beyond a multiple of the data, and what is read is consistent.
// Where npyio v0.6.0 reads a header as well, in the one spelling that it knows, the two agree.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.npy")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(file(1, "{'shape': (2, 3), 'fortran_order': True, 'descr': '<i8'}", 48))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Parse("a.npy", data)
		if err != nil {
			return
		}
		if int64(len(data)) != a.Offset+a.Bytes() || len(a.data) != int(a.Bytes()) {
			t.Fatalf("%d bytes, %+v", len(data), a.Header)
		}
		b, err := Read("a.npy", bytes.NewReader(data), int64(len(data)))
		if err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("Read and Parse differ: %v", err)
		}
		h, err := ReadHeader("a.npy", bytes.NewReader(data), int64(len(data)))
		if err != nil || !reflect.DeepEqual(h, a.Header) {
			t.Fatalf("ReadHeader and Parse differ: %v", err)
		}
		for _, n := range []int{values(a.Rounded32s()), values(a.Float64s()), values(a.Int64s())} {
			if n >= 0 && n != a.Len() {
				t.Fatalf("%d values, want %d", n, a.Len())
			}
		}
		again := append(file(2, a.text(), 0), a.data...)
		if a.Fortran {
			return
		}
		c, err := Parse("a.npy", again)
		if err != nil || !bytes.Equal(c.data, a.data) || fmt.Sprint(c.Shape) != fmt.Sprint(a.Shape) {
			t.Fatalf("written and read again: %v", err)
		}
		if h, ok := npyioHeader(file(1, a.text()+"\n", 0)); ok {
			if h.Descr.Type != a.DType || h.Descr.Fortran != a.Fortran || fmt.Sprint(h.Descr.Shape) != fmt.Sprint(a.Shape) {
				t.Fatalf("%+v, npyio has %v", a.Header, h)
			}
		} else {
			t.Fatalf("npyio does not read %q", a.text())
		}
	})
}

func values[T any](s []T, err error) int {
	if err != nil {
		return -1
	}
	return len(s)
}

// FuzzHeader is FuzzParse over the text of headers alone.
func FuzzHeader(f *testing.F) {
	f.Add("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }")
	f.Add(`{"shape": (1, 1L,), 'descr': '|u1', "fortran_order": True}`)
	f.Add("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}")
	f.Fuzz(func(t *testing.T, text string) {
		h := Header{Offset: 10}
		if h.parseHeader(text) != nil {
			return
		}
		again := Header{Offset: 10}
		if err := again.parseHeader(h.text()); err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("%q read as %+v, written %q and read as %+v, %v", text, h, h.text(), again, err)
		}
		if err := h.checkSize(10); err == nil && h.Len() != 0 {
			t.Fatalf("%+v fits a file without values", h)
		}
	})
}

func BenchmarkFloat32s(b *testing.B) {
	var buf bytes.Buffer
	if err := Write(&buf, []int{1 << 20}, make([]float32, 1<<20)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 << 20)
	for b.Loop() {
		a, err := Parse("a.npy", buf.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.Float32s(); err != nil {
			b.Fatal(err)
		}
	}
}
