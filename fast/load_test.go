package fast

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// silent is a source that says nothing of its dtypes, and may change values.
type silent struct {
	from   shapes.Weights
	change func(name string, from int, dst []float32)
}

func (s silent) Read(name string, from int, dst []float32) error {
	err := s.from.Read(name, from, dst)
	if s.change != nil {
		s.change(name, from, dst)
	}
	return err
}

// liar says bfloat16 of all.
type liar struct{ silent }

func (liar) Narrowest(string) checkpoint.DType { return checkpoint.BF16 }

// saved is the model as a checkpoint of a dtype.
func saved(t testing.TB, c shapes.Config, d checkpoint.DType) *checkpoint.Weights {
	t.Helper()
	sources, err := checkpoint.Sources(c, shapes.OnDisk, checkpoint.Synthetic(c, 0))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := checkpoint.Write(context.Background(), dir, sources, checkpoint.Options{DType: d, Exact: true}); err != nil {
		t.Fatal(err)
	}
	ck, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	w, err := ck.Bind(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const gate = "language_model.model.layers.1.mlp.gate_proj.weight"

// Whatever dtype holds the weights, and however they are stored, the float32 class gives the same bits.
func TestTheSourceDoesNotChangeABit(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c, portrait)
	synthetic := checkpoint.Synthetic(c, 0)
	want := forward(t, model(t, c, Options{Threads: 2}), in, nil)
	for _, s := range []struct {
		name  string
		w     shapes.Weights
		types map[kernel.Type]bool
	}{
		{"a source that says nothing", silent{from: synthetic}, map[kernel.Type]bool{kernel.BF16: true}},
		{"float32", saved(t, c, checkpoint.F32), map[kernel.Type]bool{kernel.BF16: true}},
		{"float16", saved(t, c, checkpoint.F16), map[kernel.Type]bool{kernel.F16: true}},
		{"bfloat16", saved(t, c, checkpoint.BF16), map[kernel.Type]bool{kernel.BF16: true}},
	} {
		m, err := New(c, s.w, Options{Threads: 3})
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if types := map[kernel.Type]bool{m.text.lmHead.weight.Type: true, m.text.embedTokens.typ: true, m.vision.patchEmbedding.weight.Type: true}; fmt.Sprint(types) != fmt.Sprint(s.types) {
			t.Errorf("%s: stored as %v, want %v", s.name, types, s.types)
		}
		differ(t, s.name, forward(t, m, in, nil).Data, want.Data)
		m.Close()
	}
}

// One value that bfloat16 cannot hold makes its matrix float32, and that value is used as it is.
func TestAValueThatIsNoBFloat16IsKept(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c)
	base := forward(t, model(t, c, Options{Threads: 2}), in, nil)
	w := silent{checkpoint.Synthetic(c, 0), func(name string, from int, dst []float32) {
		if at := 300*1 + 17 - from; name == gate && at >= 0 && at < len(dst) {
			dst[at] += 0x1p-13
		}
	}}
	m, err := New(c, w, Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := m.text.layers[1].gateProj.weight.Type; got != kernel.F32 {
		t.Errorf("the matrix is stored as %v, want F32", got)
	}
	if got := m.text.layers[1].upProj.weight.Type; got != kernel.BF16 {
		t.Errorf("its neighbour is stored as %v, want BF16", got)
	}
	if sameBits(forward(t, m, in, nil).Data, base.Data) {
		t.Error("the value makes no difference")
	}
	if _, err := New(c, w, Options{Class: kernel.BFloat16}); err == nil || !strings.Contains(err.Error(), gate+": float32 whose value number 317 is no bfloat16") {
		t.Errorf("bf16 class: error %v", err)
	}
	if _, err := New(c, liar{w}, Options{}); err == nil || !strings.Contains(err.Error(), gate+": value number 317") {
		t.Errorf("a source that says bfloat16: error %v", err)
	}
}

func TestTheBF16ClassTakesNoFloat16(t *testing.T) {
	c := small(t, "tiny-1.5")
	if _, err := New(c, saved(t, c, checkpoint.F16), Options{Class: kernel.BFloat16}); err == nil || !strings.Contains(err.Error(), "float16, want bfloat16") {
		t.Errorf("error %v", err)
	}
}

func TestOptionsAndConfigsThatCannotBe(t *testing.T) {
	c := small(t, "tiny-1.6")
	for _, test := range []struct {
		want   string
		change func(c *shapes.Config, o *Options)
	}{
		{"threads: -1", func(c *shapes.Config, o *Options) { o.Threads = -1 }},
		{"context length: -5", func(c *shapes.Config, o *Options) { o.ContextLength = -5 }},
		{"heads of width 2048", func(c *shapes.Config, o *Options) { c.Text.HeadDim = 2048 }},
		{"heads of width 1,", func(c *shapes.Config, o *Options) { c.Vision.NumAttentionHeads = c.Vision.HiddenSize }},
		{"image features", func(c *shapes.Config, o *Options) {
			c.Vision.ImageSize, c.Vision.PatchSize, c.GridPinpoints = 1, 1, []shapes.Size{{H: 1 << 20, W: 1 << 20}}
		}},
	} {
		c, o := c, Options{}
		test.change(&c, &o)
		if _, err := MemoryOf(c, kernel.BF16, o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	c.Text.NumAttentionHeads, c.Text.HeadDim, c.Text.NumKeyValueHeads = 1<<24, 1024, 1
	c.Text.HiddenSize = 1 << 24
	if _, err := MemoryOf(c, kernel.F32, Options{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v, want one that says that the model is too large", err)
	}
}

// The whole model in bfloat16 with a context of 4096 positions takes less than 22 GB, and where there is less the refusal says so in numbers.
func TestTheWholeModelFits22GB(t *testing.T) {
	c := config(t, "llava-1.6-llama3-8b")
	m, err := MemoryOf(c, kernel.BF16, Options{ContextLength: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(m)
	_, values := shapes.Total(shapes.Params(c))
	if m.Weights < 2*values || m.Weights > 2*values+100<<20 {
		t.Errorf("weights of %d bytes for %d values", m.Weights, values)
	}
	if want := 32 * 4096 * 8 * 128 * 2 * 4; m.KV != want {
		t.Errorf("keys and values of %d bytes, want %d", m.KV, want)
	}
	if all := m.Total() + reserve; all > 22e9 {
		t.Errorf("%d bytes in all", all)
	}
	if err := enough(m, m.Total()+reserve, true); err != nil {
		t.Errorf("enough is refused: %v", err)
	}
	err = enough(m, 8_000_000_000, true)
	if err == nil {
		t.Fatal("8 GB are taken for enough")
	}
	for _, want := range []string{gigabytes(m.Total()), "weights 16.7", "keys and values 1.07 GB", "8.00 GB are available"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	if err := enough(m, 0, false); err != nil {
		t.Errorf("a system that does not say is refused: %v", err)
	}
}

// A model that does not fit is refused before a value is read, from a checkpoint and from a file.
func TestAModelThatDoesNotFitIsNotOpened(t *testing.T) {
	c, o := config(t, "tiny-1.6"), Options{Threads: 1, ContextLength: 1 << 24}
	need, err := MemoryOf(c, kernel.BF16, o)
	if err != nil {
		t.Fatal(err)
	}
	if available, known := availableMemory(); !known || available > need.Total() {
		t.Skipf("%d bytes are available (known: %t), and the largest context takes only %d", available, known, need.Total())
	}
	w := silent{checkpoint.Synthetic(c, 0), func(string, int, []float32) { t.Error("values are read") }}
	path, _ := written(t, "tiny-1.6")
	for name, open := range map[string]func() (*Llava, error){
		"checkpoint": func() (*Llava, error) { return New(c, liar{w}, o) },
		"file": func() (*Llava, error) {
			o := o
			o.Progress = func(int64, int64) { t.Error("values are read") }
			return OpenFile(path, o)
		},
	} {
		if m, err := open(); err == nil || !strings.HasPrefix(err.Error(), "fast: memory: the model takes") {
			t.Errorf("%s: error %v, want one about memory", name, err)
			if err == nil {
				m.Close()
			}
		}
	}
}

// What is counted beforehand is what is taken.
func TestMemoryIsCountedRight(t *testing.T) {
	c := small(t, "tiny-1.6")
	m := model(t, c, Options{Threads: 1, ContextLength: 777})
	s := m.NewSession()
	if _, err := s.Extend(prompt(t, c, shapes.Size{H: 112, W: 112}), 1, nil); err != nil {
		t.Fatal(err)
	}
	kv := 0
	for _, layer := range s.past.layers {
		kv += layer.Bytes()
	}
	if kv != m.Memory().KV || len(m.weights) != m.Memory().Weights || 4*(len(m.arena.mem)+cap(s.logits)) > m.Memory().Scratch {
		t.Errorf("weights %d, keys and values %d, scratch %d bytes, but counted as %+v", len(m.weights), kv, 4*(len(m.arena.mem)+cap(s.logits)), m.Memory())
	}
	if used := m.arena.used; used > len(m.arena.mem) {
		t.Errorf("%d of %d", used, len(m.arena.mem))
	}
}

func TestMemInfo(t *testing.T) {
	for _, test := range []struct {
		text  string
		bytes int
		known bool
	}{
		{"MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:    2000 kB\n", 2048000, true},
		{"MemTotal: 5 kB\n", 0, false},
		{"MemAvailable: lots\n", 0, false},
		{"MemAvailable:", 0, false},
		{"", 0, false},
	} {
		if bytes, known := parseMeminfo(test.text); bytes != test.bytes || known != test.known {
			t.Errorf("%q: %d, %t, want %d, %t", test.text, bytes, known, test.bytes, test.known)
		}
	}
}

// written is the file of a model in a folder of the test, and its bytes.
func written(t testing.TB, name string) (path string, data []byte) {
	t.Helper()
	text, err := shapes.ModelJSON(name)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "model.fast")
	if err := WriteFile(context.Background(), path, text, checkpoint.Synthetic(config(t, name), 0), Options{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// A model from its file is the model from its checkpoint, bit for bit, in both classes.
func TestAFileIsTheModel(t *testing.T) {
	for _, name := range []string{"tiny-1.6", "tiny-1.5"} {
		path, _ := written(t, name)
		for _, class := range classes {
			c := config(t, name)
			in := prompt(t, c, square)
			want := forward(t, model(t, c, Options{Class: class, Threads: 2}), in, nil)
			done, total := int64(0), int64(1)
			m, err := OpenFile(path, Options{Class: class, Threads: 3, Progress: func(d, n int64) { done, total = d, n }})
			if err != nil {
				t.Fatal(err)
			}
			if done == 0 || done > total || done < total*9/10 {
				t.Errorf("progress ended at %d of %d bytes", done, total)
			}
			if fmt.Sprint(m.Config()) != fmt.Sprint(c) {
				t.Errorf("config %+v, want %+v", m.Config(), c)
			}
			differ(t, fmt.Sprint(name, " ", class), forward(t, m, in, nil).Data, want.Data)
			m.Close()
		}
	}
}

// resum makes the checksum of the header right again.
func resum(data []byte) []byte {
	n := binary.LittleEndian.Uint32(data[12:])
	binary.LittleEndian.PutUint32(data[16:], crc32.Checksum(data[fileStart:fileStart+int(n)], castagnoli))
	return data
}

// rehead replaces text in the header by text of the same length.
func rehead(t testing.TB, data []byte, old, new string) []byte {
	t.Helper()
	n := fileStart + int(binary.LittleEndian.Uint32(data[12:]))
	if len(old) != len(new) || !bytes.Contains(data[:n], []byte(old)) {
		t.Fatalf("%q is not in the header, or not as long as %q", old, new)
	}
	copy(data, bytes.Replace(data[:n], []byte(old), []byte(new), 1))
	return resum(data)
}

func TestFilesThatAreNotWhole(t *testing.T) {
	path, good := written(t, "tiny-1.5")
	for _, test := range []struct {
		name, want string
		change     func(d []byte) []byte
	}{
		{"empty", "0 bytes", func(d []byte) []byte { return nil }},
		{"cut in the head", "want at least the 24", func(d []byte) []byte { return d[:23] }},
		{"cut in the header", "a header of", func(d []byte) []byte { return d[:100] }},
		{"one byte short", "bytes, want", func(d []byte) []byte { return d[:len(d)-1] }},
		{"one byte more", "bytes, want", func(d []byte) []byte { return append(d, 0) }},
		{"another kind of file", "begins with", func(d []byte) []byte { d[0] = 'l'; return d }},
		{"another version", "version 2, want 1", func(d []byte) []byte { d[8] = 2; return d }},
		{"bytes that must be zero", "bytes 20 to 23", func(d []byte) []byte { d[20] = 1; return d }},
		{"a header of 4 GB", "a header of 4294967295 bytes", func(d []byte) []byte { copy(d[12:], "\xff\xff\xff\xff"); return d }},
		{"a flipped bit in the header", "header: CRC-32C", func(d []byte) []byte { d[fileStart+50] ^= 4; return d }},
		{"a flipped bit in the first value", "CRC-32C", func(d []byte) []byte { d[len(d)-1<<20] ^= 1; return d }},
		{"a flipped bit in the last matrix", "language_model.lm_head.weight: CRC-32C", func(d []byte) []byte { d[len(d)-100] ^= 1; return d }},
		{"a header that is no JSON", "header: ", func(d []byte) []byte { d[fileStart] = '['; return resum(d) }},
		{"a field that is not known", "unknown field", func(d []byte) []byte { return rehead(t, d, `"crc"`, `"src"`) }},
		{"a type that is not known", `type "BF17"`, func(d []byte) []byte { return rehead(t, d, `"BF16"`, `"BF17"`) }},
		{"a matrix of float32 in the place of one of bfloat16", "bytes, want", func(d []byte) []byte { return rehead(t, d, `"type":"BF16"`, `"type": "F32"`) }},
		{"another name", "want vision_tower", func(d []byte) []byte { return rehead(t, d, `class_embedding`, `glass_embedding`) }},
		{"a config of another model", "config: ", func(d []byte) []byte { return rehead(t, d, `"llava"`, `"lavla"`) }},
		{"a wider model", "bytes, want", func(d []byte) []byte { return rehead(t, d, `"vocab_size":384`, `"vocab_size":984`) }},
		{"more layers", "parameters, want", func(d []byte) []byte { return rehead(t, d, `"num_hidden_layers":32`, `"num_hidden_layers":33`) }},
		{"a checksum that is no number", "eight hexadecimal digits", func(d []byte) []byte { d[bytes.Index(d, []byte(`"crc":"`))+7] = 'x'; return resum(d) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, test.change(bytes.Clone(good)), 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := OpenFile(path, Options{Threads: 2})
			if err == nil {
				m.Close()
				t.Fatal("it is opened")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "fast: model.fast: ") {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := OpenFile(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: error %v", err)
	}
}

// A file appears whole or not at all.
func TestAFileThatIsNotFinishedDoesNotAppear(t *testing.T) {
	text, err := shapes.ModelJSON("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, "tiny-1.5")
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	stop := silent{checkpoint.Synthetic(c, 0), func(name string, from int, dst []float32) {
		if name == shapes.LMHead+".weight" {
			cancel()
		}
	}}
	if err := WriteFile(ctx, filepath.Join(dir, "a"), text, stop, Options{Threads: 1}); err == nil {
		t.Error("a write that was cancelled ends well")
	}
	inexact := liar{silent{checkpoint.Synthetic(c, 0), func(name string, from int, dst []float32) { dst[0] = math.Pi }}}
	if err := WriteFile(context.Background(), filepath.Join(dir, "b"), text, inexact, Options{Threads: 1}); err == nil {
		t.Error("values that the type cannot hold are written")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, error %v", left, err)
	}
}

func FuzzHeader(f *testing.F) {
	_, good := written(f, "tiny-1.5")
	n := alignUp(fileStart + int(binary.LittleEndian.Uint32(good[12:])))
	f.Add(good[fileStart:n], int64(len(good)))
	f.Add([]byte(`{"config":{},"params":[]}`), int64(4096))
	f.Fuzz(func(t *testing.T, text []byte, size int64) {
		text = bytes.TrimRight(text, "\x00")
		head := make([]byte, fileStart)
		copy(head, fileMagic)
		head[8] = fileVersion
		binary.LittleEndian.PutUint32(head[12:], uint32(len(text)))
		data := resum(append(head, text...))
		_, l, sums, start, err := readHeader(bytes.NewReader(data), max(size, int64(len(data))))
		if err != nil {
			return
		}
		if len(sums) != len(l.blocks) || start+int64(l.size) != size || l.size < 0 || l.size > maxBytes+maxBytes/4 {
			t.Errorf("%d checksums, %d blocks, %d bytes from %d on in a file of %d", len(sums), len(l.blocks), l.size, start, size)
		}
		at := 0
		for _, b := range l.blocks {
			if b.at < at || b.size <= 0 || b.at+b.size > l.size {
				t.Errorf("%s lies from %d to %d of %d", b.Name, b.at, b.at+b.size, l.size)
			}
			at = b.at + b.size
		}
	})
}
