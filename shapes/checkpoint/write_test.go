package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/llavaref/llavaref/shapes"
)

// source is a tensor whose values count up from first in eighths.
func source(name string, first int, shape ...int) Source {
	return Source{name, shape, func(from int, dst []float32) error {
		for i := range dst {
			dst[i] = float32(first+from+i) / 8
		}
		return nil
	}}
}

// testdata/peer.py made these folders with the format's own writer and transformers' own sharding.
func TestWriteMakesTheBytesThatTransformersMakes(t *testing.T) {
	var sources []Source
	at := -16
	for _, c := range []struct {
		name  string
		shape []int
	}{{"b.weight", []int{2, 3}}, {"a.bias", []int{3}}, {"scalar", nil}, {"none", []int{0, 4}}, {"large.weight", []int{5, 4}}, {`<&>"\`, []int{1}}, {"z", []int{7}}} {
		sources = append(sources, source(c.name, at, c.shape...))
		at += shapes.Product(c.shape)
	}
	for _, d := range []DType{F32, F16, BF16} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			if err := Write(t.Context(), dir, sources, Options{DType: d, Exact: true, ShardSize: int64(10 * d.Bits() / 8)}); err != nil {
				t.Fatal(err)
			}
			want := contents(t, filepath.Join("testdata", strings.ToLower(string(d))))
			if len(want) != 4 {
				t.Fatalf("%d files in testdata, want 4", len(want))
			}
			if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// contents is the files of a folder.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files
}

func TestWriteOneFileWithoutAnIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var told []int64
	sources := []Source{source("b", 0, 3), source("a", 9, 2, 2)}
	opt := Options{DType: F32, Progress: func(done, total int64) { told = append(told, done, total) }}
	if err := Write(t.Context(), dir, sources, opt); err != nil {
		t.Fatal(err)
	}
	if files := contents(t, dir); len(files) != 1 || len(files[singleFile])%8 != 4 {
		t.Errorf("files %v", files)
	}
	if want := []int64{16, 28, 28, 28}; !slices.Equal(told, want) {
		t.Errorf("progress %v, want %v", told, want)
	}
	c := openCheckpoint(t, dir)
	if diff := cmp.Diff(map[string]string{"format": "pt"}, c.Files()[0].Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	for _, s := range sources {
		n := shapes.Product(s.Shape)
		got, want := make([]float32, n), make([]float32, n)
		if err := errors.Join(c.Read(s.Name, 0, got), s.Read(0, want)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v; %v", s.Name, got, want, err)
		}
	}
}

func TestWriteRoundsUnlessItMustNot(t *testing.T) {
	third := []Source{{"third", []int{2}, func(from int, dst []float32) error {
		copy(dst, []float32{1, 1.0 / 3}[from:])
		return nil
	}}}
	for d, want := range map[DType]float32{F32: 1.0 / 3, F16: 0.33325195, BF16: 0.33398438} {
		dir := t.TempDir()
		if err := Write(t.Context(), dir, third, Options{DType: d}); err != nil {
			t.Fatal(err)
		}
		var got [1]float32
		if err := openCheckpoint(t, dir).Read("third", 1, got[:]); err != nil || got[0] != want {
			t.Errorf("%s: %v, %v; want %v", d, got[0], err, want)
		}
	}
	dir := t.TempDir()
	err := Write(t.Context(), dir, third, Options{DType: BF16, Exact: true})
	const want = "checkpoint: model.safetensors: third: value number 1: 0.33333334 (bits 3eaaaaab) is no value of BF16"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if files := contents(t, dir); len(files) != 0 {
		t.Errorf("files left: %v", files)
	}
}

func TestWriteRefusesWhatItCannotWrite(t *testing.T) {
	ok := source("ok", 0, 1)
	huge := Source{"huge", []int{1<<60 - 1}, nil}
	for _, c := range []struct {
		name    string
		sources []Source
		d       DType
		want    string
	}{
		{"no tensors", nil, F32, "no tensors to write"},
		{"a dtype that holds other values", []Source{ok}, "I32", `dtype "I32", want F32, F16 or BF16`},
		{"no dtype", []Source{ok}, "", `dtype "", want F32, F16 or BF16`},
		{"a name twice", []Source{ok, ok}, F32, "ok: is there twice"},
		{"no name", []Source{source("", 0, 1)}, F32, `"": is no name for a tensor`},
		{"the metadata's name", []Source{source(metadataKey, 0, 1)}, F32, "__metadata__: is no name for a tensor"},
		{"a name that is not UTF-8", []Source{source("\xff", 0, 1)}, F32, `"\xff": is no name for a tensor`},
		{"a negative axis", []Source{source("a", 0, -1, -1)}, F32, "a: shape [-1 -1] has more values than can be counted"},
		{"a negative axis beside a zero", []Source{source("a", 0, 0, -1)}, F32, "a: shape [0 -1] has more values than can be counted"},
		{"a shape beyond 64 bits", []Source{source("a", 0, 1<<32, 1<<32)}, F32, "a: shape [4294967296 4294967296] has more values than can be counted"},
		{"a sum beyond 63 bits", []Source{huge, {"huge2", huge.Shape, nil}, {"huge3", huge.Shape, nil}, {"huge4", huge.Shape, nil}, {"huge5", huge.Shape, nil}}, F16, "huge5: the checkpoint has more bytes than can be counted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			err := Write(t.Context(), dir, c.sources, Options{DType: c.d})
			if want := "checkpoint: " + c.want; err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("the folder was made: %v", err)
			}
		})
	}
}

func TestWriteReplacesNothing(t *testing.T) {
	sources := []Source{source("a", 0, 4), source("b", 4, 4)}
	for _, there := range []string{singleFile, indexFile, "model-00002-of-00002.safetensors"} {
		dir := folder(t, map[string][]byte{there: []byte("mine")})
		err := Write(t.Context(), dir, sources, Options{DType: F32, ShardSize: 16})
		if want := fmt.Sprintf("checkpoint: %s: is already there, and nothing is replaced", filepath.Join(dir, there)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if diff := cmp.Diff(map[string]string{there: "mine"}, contents(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
	if err := Write(t.Context(), filepath.Join(folder(t, map[string][]byte{"file": nil}), "file"), sources, Options{DType: F32}); err == nil {
		t.Error("a file was taken for a folder")
	}
	if err := Write(t.Context(), filepath.Join(t.TempDir(), "no", "parent"), sources, Options{DType: F32}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder without a parent: %v", err)
	}
}

// A name that appears while Write is at work is not replaced either, and what was renamed before it is taken back.
func TestWriteDoesNotReplaceWhatAppearsMeanwhile(t *testing.T) {
	for _, late := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", indexFile} {
		dir := t.TempDir()
		opt := Options{DType: F32, ShardSize: 16, Progress: func(done, total int64) {
			if done == total {
				if err := os.WriteFile(filepath.Join(dir, late), []byte("mine"), 0o666); err != nil {
					t.Error(err)
				}
			}
		}}
		err := Write(t.Context(), dir, []Source{source("a", 0, 4), source("b", 4, 4)}, opt)
		if err == nil || !strings.Contains(err.Error(), "already there") {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff(map[string]string{late: "mine"}, contents(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
}

func TestInterruptedWriteLeavesTheFolderAsItWas(t *testing.T) {
	const steps = 4
	sources := func(fail int, err error) []Source {
		var s []Source
		for i := range steps {
			one := source(fmt.Sprint(i), i, 4)
			if read := one.Read; i == fail {
				one.Read = func(from int, dst []float32) error { return errors.Join(read(from, dst), err) }
			}
			s = append(s, one)
		}
		return s
	}
	broken := errors.New("the source broke")
	for _, shardSize := range []int64{0, 16} {
		for step := range steps {
			for name, run := range map[string]func(dir string) error{
				"a source that fails": func(dir string) error {
					return Write(t.Context(), dir, sources(step, broken), Options{DType: F32, ShardSize: shardSize})
				},
				"a cancelled context": func(dir string) error {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					n := 0
					return Write(ctx, dir, sources(-1, nil), Options{DType: F32, ShardSize: shardSize, Progress: func(int64, int64) {
						if n == step {
							cancel()
						}
						n++
					}})
				},
			} {
				t.Run(fmt.Sprintf("%s at step %d, shards of %d", name, step, shardSize), func(t *testing.T) {
					dir := folder(t, map[string][]byte{"config.json": []byte("{}")})
					if err := run(dir); !errors.Is(err, broken) && !errors.Is(err, context.Canceled) {
						t.Errorf("error %v", err)
					}
					if diff := cmp.Diff(map[string]string{"config.json": "{}"}, contents(t, dir)); diff != "" {
						t.Errorf("files (-want +got):\n%s", diff)
					}
					fresh := filepath.Join(dir, "new")
					if err := run(fresh); err == nil {
						t.Error("no error")
					}
					if _, err := os.Stat(fresh); !os.IsNotExist(err) {
						t.Errorf("the new folder was left: %v", err)
					}
				})
			}
		}
	}
}

// While Write is at work nothing has its final name, so a reader sees no half of a checkpoint.
func TestNothingHasItsNameBeforeAllIsWritten(t *testing.T) {
	dir := t.TempDir()
	opt := Options{DType: F32, ShardSize: 16, Progress: func(done, total int64) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".tmp") {
				t.Errorf("%s is there after %d of %d bytes", e.Name(), done, total)
			}
		}
	}}
	if err := Write(t.Context(), dir, []Source{source("a", 0, 4), source("b", 4, 4)}, opt); err != nil {
		t.Fatal(err)
	}
	if got := len(contents(t, dir)); got != 3 {
		t.Errorf("%d files, want 3", got)
	}
}

func TestWriteHoldsOneChunkInMemory(t *testing.T) {
	const count = 16 << 20
	zeros := []Source{{"zeros", []int{count}, func(int, []float32) error { return nil }}}
	dir := t.TempDir()
	got := allocated(func() {
		if err := Write(t.Context(), dir, zeros, Options{DType: F16}); err != nil {
			t.Fatal(err)
		}
	})
	if got > 4<<20 {
		t.Errorf("%d bytes allocated to write %d", got, 2*count)
	}
}

func TestSourcesRefuseASchemeThatDoesNotNameTheModel(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	for scheme, want := range map[shapes.Scheme]string{
		shapes.LiteLlama: "checkpoint: naming scheme lite-llama does not name a model of type llava_next",
		"nobody's":       `checkpoint: naming scheme "nobody's" is not known`,
	} {
		if _, err := Sources(cfg, scheme, nil); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// FuzzRoundTrip writes values of any bits and reads them again.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("12345678"), "name", uint8(1), uint16(0))
	f.Add([]byte{0, 0, 0x80, 0x7f, 1, 0, 0x80, 0x7f}, "\"\u2028é\\", uint8(2), uint16(4))
	f.Fuzz(func(t *testing.T, raw []byte, name string, which uint8, shardSize uint16) {
		d := []DType{F32, F16, BF16}[which%3]
		values := make([]float32, len(raw)*8/d.Bits())
		widen(d, values, raw[:len(values)*d.Bits()/8])
		read := func(from int, dst []float32) error { copy(dst, values[from:]); return nil }
		sources := []Source{{name, []int{len(values)}, read}, {name + "2", []int{1, len(values)}, read}}
		dir := t.TempDir()
		if err := Write(t.Context(), dir, sources, Options{DType: d, Exact: true, ShardSize: int64(shardSize)}); err != nil {
			if name == "" || name == metadataKey || strings.ToValidUTF8(name, "") != name || strings.Contains(err.Error(), "NaN") {
				return
			}
			t.Fatal(err)
		}
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, s := range sources {
			got := make([]float32, len(values))
			if err := c.Read(s.Name, 0, got); err != nil {
				t.Fatal(err)
			}
			a, b := make([]byte, 4*len(values)), make([]byte, 4*len(values))
			narrow(F32, a, values, false)
			if narrow(F32, b, got, false); !bytes.Equal(a, b) {
				t.Fatalf("%s: %x, want %x", s.Name, b, a)
			}
		}
	})
}
