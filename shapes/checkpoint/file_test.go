package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

// numbered is a file with one tensor of each readable dtype, its values 0, 1, 2, ... up to count, and one of I64.
func numbered(t testing.TB, count int) string {
	t.Helper()
	var infos []Info
	var at int64
	for _, d := range []DType{F32, F16, BF16, "I64"} {
		end := at + int64(count*d.Bits()/8)
		infos = append(infos, Info{Name: strings.ToLower(string(d)), DType: d, Shape: []int{count}, Begin: at, End: end})
		at = end
	}
	file, err := formatHeader(infos)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, count)
	for i := range values {
		values[i] = float32(i)
	}
	for _, d := range []DType{F32, F16, BF16} {
		raw := make([]byte, count*d.Bits()/8)
		if _, err := narrow(d, raw, values, true); err != nil {
			t.Fatal(err)
		}
		file = append(file, raw...)
	}
	for i := range count {
		file = binary.LittleEndian.AppendUint64(file, uint64(i))
	}
	path := filepath.Join(t.TempDir(), "n.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func openFile(t testing.TB, path string) *File {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestReadAnyRange(t *testing.T) {
	const count = 200
	f := openFile(t, numbered(t, count))
	for _, name := range []string{"f32", "f16", "bf16"} {
		for from := 0; from <= count; from += 13 {
			for _, n := range []int{0, 1, 2, 37, count - from} {
				if from+n > count {
					continue
				}
				dst := make([]float32, n+1)
				dst[n] = -1
				if err := f.Read(name, from, dst[:n]); err != nil {
					t.Fatal(err)
				}
				for i, x := range dst[:n] {
					if x != float32(from+i) {
						t.Fatalf("%s: value %d is %v", name, from+i, x)
					}
				}
				if dst[n] != -1 {
					t.Fatalf("%s: wrote past the end of dst", name)
				}
			}
		}
	}
}

func TestReadRawIsTheBytes(t *testing.T) {
	f := openFile(t, numbered(t, 200))
	raw := make([]byte, 16)
	if err := f.ReadRaw("i64", 7, raw); err != nil {
		t.Fatal(err)
	}
	if a, b := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:]); a != 7 || b != 8 {
		t.Errorf("%d %d, want 7 8", a, b)
	}
}

func TestReadRefusesWhatIsNotThere(t *testing.T) {
	f := openFile(t, numbered(t, 200))
	for _, c := range []struct {
		name    string
		from, n int
		want    string
	}{
		{"none", 0, 1, "none: no such tensor"},
		{"i64", 0, 1, "i64: dtype I64, want F32, F16 or BF16"},
		{"f16", -1, 1, "f16: 1 values from number -1, want them inside its 200"},
		{"f16", 200, 1, "f16: 1 values from number 200, want them inside its 200"},
		{"f16", 190, 11, "f16: 11 values from number 190, want them inside its 200"},
		{"f16", math.MaxInt, 2, "f16: 2 values from number 9223372036854775807, want them inside its 200"},
	} {
		want := "checkpoint: n.safetensors: " + c.want
		if err := f.Read(c.name, c.from, make([]float32, c.n)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, c := range []struct {
		name    string
		from, n int
		want    string
	}{
		{"none", 0, 8, "none: no such tensor"},
		{"i64", 0, 12, "i64: 12 bytes are not whole values of I64"},
		{"i64", 199, 16, "i64: 2 values from number 199, want them inside its 200"},
		{"i64", -1, 8, "i64: 1 values from number -1, want them inside its 200"},
	} {
		want := "checkpoint: n.safetensors: " + c.want
		if err := f.ReadRaw(c.name, c.from, make([]byte, c.n)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestReadRawRefusesPackedValues(t *testing.T) {
	f, err := open(fileOf(jsonObject(entry("a", "F4", "[2]", 0, 1)), 1))
	if err != nil {
		t.Fatal(err)
	}
	const want = "checkpoint: f.safetensors: a: 1 bytes are not whole values of F4"
	if err := f.ReadRaw("a", 0, make([]byte, 1)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestAFileCutAfterItWasOpenedIsAnError(t *testing.T) {
	path := numbered(t, 200)
	f := openFile(t, path)
	info, _ := f.Tensor("bf16")
	if err := os.Truncate(path, info.Begin+100); err != nil {
		t.Skipf("an open file cannot be cut on this system: %v", err)
	}
	if err := f.Read("bf16", 0, make([]float32, 50)); err != nil {
		t.Errorf("the part that is left: %v", err)
	}
	want := fmt.Sprintf("checkpoint: n.safetensors: bf16: the file has been cut to %d bytes since it was opened, want %d at least", info.Begin+100, info.End)
	if err := f.Read("bf16", 0, make([]float32, 200)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if err := f.ReadRaw("bf16", 0, make([]byte, 400)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestReadTakesTheSameMemoryWhateverItReads(t *testing.T) {
	const count = 2 << 20 // more than one chunk of any dtype, more than the 2048 that F16 counts to
	path := filepath.Join(t.TempDir(), "z.safetensors")
	header, err := formatHeader([]Info{{Name: "z", DType: F16, Shape: []int{count}, End: 2 * count}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(header, make([]byte, 2*count)...), 0o666); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path)
	dst := make([]float32, count)
	read := func() {
		if err := f.Read("z", 0, dst); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if got := allocated(read); got > 2*chunkBytes {
		t.Errorf("%d bytes allocated to read %d values", got, count)
	}
}

func TestReadIsSafeForConcurrentUse(t *testing.T) {
	f := openFile(t, numbered(t, 200))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dst := make([]float32, 150)
			for from := range 50 {
				if err := f.Read("f16", from, dst); err != nil || dst[0] != float32(from) || dst[149] != float32(from+149) {
					t.Error(from, dst[0], err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkRead compares ReadAt with a mapping of the same file: what package comment says of the two is measured here.
func BenchmarkRead(b *testing.B) {
	const count = 16 << 20
	for _, d := range []DType{F32, F16, BF16} {
		path := filepath.Join(b.TempDir(), "z.safetensors")
		size := count * d.Bits() / 8
		header, err := formatHeader([]Info{{Name: "z", DType: d, Shape: []int{count}, End: int64(size)}})
		if err != nil {
			b.Fatal(err)
		}
		raw := make([]byte, size)
		values := make([]float32, count)
		newStream(shapes.Param{Name: shapes.LMHead + ".weight", Shape: []int{4096, count / 4096}}, 0).read(0, values)
		if _, err := narrow(d, raw, values, true); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, slices.Concat(header, raw), 0o666); err != nil {
			b.Fatal(err)
		}
		f := openFile(b, path)
		b.Run(string(d)+"/ReadAt", func(b *testing.B) {
			b.SetBytes(count) // MB/s is millions of values a second
			for b.Loop() {
				if err := f.Read("z", 0, values); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(d)+"/mapped", func(b *testing.B) {
			mapped, unmap := mapFile(b, path)
			defer unmap()
			b.SetBytes(count)
			for b.Loop() {
				widen(d, values, mapped[len(header):])
			}
		})
		b.Run(string(d)+"/mapped anew", func(b *testing.B) { // every page for the first time, as a loader sees them
			b.SetBytes(count)
			for b.Loop() {
				mapped, unmap := mapFile(b, path)
				widen(d, values, mapped[len(header):])
				unmap()
			}
		})
	}
}
