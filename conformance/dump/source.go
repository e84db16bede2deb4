package dump

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// Limits of what a dump may hold. None of them is near what a model of this family needs.
const (
	maxArrays   = 1 << 17
	maxManifest = 16 << 20
	maxName     = 1000 // bytes
)

// An array is one tensor of a dump, on disk.
type array struct {
	name  string
	file  string // base name
	dtype string // as the container spells it
	shape []int
	// values reads all of them in C order, as float32; nil if the dtype is none of a node's.
	values func() ([]float32, error)
	ints   func() ([]int64, error) // nil if the dtype is not of integers
}

// count is the number of values. Containers have held it against their own size.
func (a *array) count() int { return shapes.Product(a.shape) }

// pickles are the endings of files that hold Python objects.
var pickles = []string{".pt", ".pth", ".bin", ".pkl", ".pickle"}

// scan lists the arrays of a folder without reading their values.
func (r *Reader) scan() error {
	d, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(maxArrays + 1)
	d.Close()
	if err != nil && err != io.EOF {
		return err
	}
	if len(entries) > maxArrays {
		return fmt.Errorf("more than %d files, want a folder with one dump", maxArrays)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	pickle := ""
	for _, e := range entries {
		name := e.Name()
		var open func(path, file string) error
		switch ext := strings.ToLower(filepath.Ext(name)); {
		case strings.HasPrefix(name, "."):
			continue
		case ext == ".npy":
			open = r.addNPY
		case ext == ".npz":
			open = r.addNPZ
		case ext == ".safetensors":
			open = r.addSafetensors
		case slices.Contains(pickles, ext):
			pickle = name
			continue
		default:
			continue
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s: %s, want a file", quote(name), kindOf(e.Type()))
		}
		if err := open(filepath.Join(r.dir, name), name); err != nil {
			return err
		}
	}
	around := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == AnswerFile || e.Name() == InventoryFile })
	switch {
	case len(r.arrays) > 0 || around:
		return nil
	case pickle != "":
		return fmt.Errorf("no array, and %s is a pickle, which is never read: save it with numpy.savez or safetensors", quote(pickle))
	}
	return fmt.Errorf("no array, want .npy, .npz or .safetensors files")
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a folder"
	case m.IsRegular():
		return "a file"
	}
	return "no regular file"
}

// add keeps an array, whose name must be new.
func (r *Reader) add(a *array) error {
	if len(a.name) == 0 || len(a.name) > maxName {
		return fmt.Errorf("%s: an array with a name of %d bytes, want 1 to %d", quote(a.file), len(a.name), maxName)
	}
	if old := r.arrays[a.name]; old != nil {
		return fmt.Errorf("%s is in %s and in %s; which of the two is meant cannot be known", quote(a.name), quote(old.file), quote(a.file))
	}
	if len(r.arrays) == maxArrays {
		return fmt.Errorf("more than %d arrays", maxArrays)
	}
	r.arrays[a.name] = a
	r.names = append(r.names, a.name)
	return nil
}

func (r *Reader) addNPY(path, file string) error {
	h, err := npy.Stat(path)
	if err != nil {
		return err
	}
	return r.add(npyArray(strings.TrimSuffix(file, filepath.Ext(file)), file, h, func() (*npy.Array, error) { return npy.ReadFile(path) }))
}

// npyArray is an array in numpy's format. An unsigned 16-bit number is the bits of a bfloat16, which numpy has no dtype for.
func npyArray(name, file string, h npy.Header, read func() (*npy.Array, error)) *array {
	a := &array{name: name, file: file, dtype: h.DType, shape: h.Shape}
	// What was listed and what is there now must be the same: the file may have been written anew.
	checked := func() (*npy.Array, error) {
		x, err := read()
		if err == nil && (!slices.Equal(x.Shape, h.Shape) || x.DType != h.DType) {
			err = fmt.Errorf("%s: changed while it was read", quote(file))
		}
		return x, err
	}
	switch h.DType {
	case "<f2", "<f4", "<f8":
		a.values = func() ([]float32, error) {
			x, err := checked()
			if err != nil {
				return nil, err
			}
			return x.Rounded32s()
		}
	case "<u2":
		a.values = func() ([]float32, error) {
			x, err := checked()
			if err != nil {
				return nil, err
			}
			v, err := x.Float32s() // 0 to 65535, exactly
			for i, bits := range v {
				v[i] = math.Float32frombits(uint32(bits) << 16)
			}
			return v, err
		}
	}
	if a.values == nil || h.DType == "<u2" {
		a.ints = func() ([]int64, error) {
			x, err := checked()
			if err != nil {
				return nil, err
			}
			return x.Int64s()
		}
	}
	return a
}

func (r *Reader) addNPZ(path, file string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%s: %w", quote(file), err)
	}
	r.closers = append(r.closers, z)
	for _, m := range z.File {
		name, isArray := strings.CutSuffix(m.Name, ".npy")
		if !isArray {
			continue
		}
		where := file + ": " + quote(m.Name)
		if m.UncompressedSize64 > math.MaxInt64 {
			return fmt.Errorf("%s: %d bytes, which is more than can be", where, m.UncompressedSize64)
		}
		size := int64(m.UncompressedSize64)
		f, err := m.Open()
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		h, err := npy.ReadHeader(where, f, size)
		f.Close()
		if err != nil {
			return err
		}
		err = r.add(npyArray(name, file, h, func() (*npy.Array, error) {
			f, err := m.Open()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			defer f.Close()
			return npy.Read(where, f, size)
		}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) addSafetensors(path, file string) error {
	f, err := checkpoint.OpenFile(path)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, f)
	for _, t := range f.Tensors() {
		a := &array{name: t.Name, file: file, dtype: string(t.DType), shape: t.Shape}
		switch {
		case t.DType.Readable():
			a.values = func() ([]float32, error) {
				v := make([]float32, t.Count())
				return v, f.Read(t.Name, 0, v)
			}
		case t.DType == "F64":
			a.values = func() ([]float32, error) { return narrowed(f, t) }
		case t.DType == "I64" || t.DType == "I32":
			a.ints = func() ([]int64, error) { return integers(f, t) }
		}
		if err := r.add(a); err != nil {
			return err
		}
	}
	return nil
}

// narrowed reads float64 values, each rounded once to the nearest float32, some at a time.
func narrowed(f *checkpoint.File, t checkpoint.Info) ([]float32, error) {
	v := make([]float32, t.Count())
	raw := make([]byte, 8<<10)
	for at := 0; at < len(v); {
		n := min(len(v)-at, len(raw)/8)
		if err := f.ReadRaw(t.Name, at, raw[:8*n]); err != nil {
			return nil, err
		}
		for i := range n {
			v[at+i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
		}
		at += n
	}
	return v, nil
}

func integers(f *checkpoint.File, t checkpoint.Info) ([]int64, error) {
	size := t.DType.Bits() / 8
	raw := make([]byte, t.Count()*size)
	if err := f.ReadRaw(t.Name, 0, raw); err != nil {
		return nil, err
	}
	v := make([]int64, t.Count())
	for i := range v {
		if size == 8 {
			v[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		} else {
			v[i] = int64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	}
	return v, nil
}

// readManifest reads the manifest, a regular file of a reasonable size.
func readManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("no %s, want one with at least format, engine and class (docs/dump-format.md)", ManifestFile)
	}
	if err != nil {
		return Manifest{}, err
	}
	if !info.Mode().IsRegular() {
		return Manifest{}, fmt.Errorf("%s: %s, want a file", ManifestFile, kindOf(info.Mode()))
	}
	data, err := readLimited(path, maxManifest)
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return m, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	return m, nil
}

// readLimited reads a file that must not be larger than limit.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", filepath.Base(path), limit)
	}
	return data, err
}
