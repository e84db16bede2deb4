package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

func writeGGUF(t *testing.T, model string, opt GGUFOptions) (cfg shapes.Config, w shapes.Weights, text, vision *GGUF) {
	t.Helper()
	cfg, err := shapes.Model(model)
	if err != nil {
		t.Fatal(err)
	}
	w = Synthetic(cfg, 0)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "model.gguf"), filepath.Join(dir, "mmproj.gguf")
	opt.Exact = true
	if err := WriteGGUF(context.Background(), a, b, model, cfg, w, opt); err != nil {
		t.Fatal(err)
	}
	for path, g := range map[string]**GGUF{a: &text, b: &vision} {
		if *g, err = OpenGGUF(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*g).Close() })
	}
	return cfg, w, text, vision
}

// values is a whole parameter.
func values(t *testing.T, w shapes.Weights, p shapes.Param) []float32 {
	t.Helper()
	out := make([]float32, p.Count())
	if err := w.Read(p.Name, 0, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGGUFRoundTrip(t *testing.T) {
	for _, c := range []struct {
		model string
		opt   GGUFOptions
	}{
		{"tiny-1.6", GGUFOptions{DType: F32}},
		{"tiny-1.6", GGUFOptions{DType: F16, Legacy: true}},
		{"tiny-1.5", GGUFOptions{DType: BF16}},
		{"tiny-1.5", GGUFOptions{DType: F16}},
	} {
		t.Run(fmt.Sprintf("%s %s legacy %v", c.model, c.opt.DType, c.opt.Legacy), func(t *testing.T) {
			cfg, w, text, vision := writeGGUF(t, c.model, c.opt)
			bound, err := BindGGUF(cfg, text, vision)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range shapes.Params(cfg) {
				if p.Reach == shapes.Dead {
					if err := bound.Read(p.Name, 0, make([]float32, 1)); err == nil || !strings.Contains(err.Error(), "in no GGUF file") {
						t.Errorf("%s: got %v, want an error that it is in no file", p.Name, err)
					}
					continue
				}
				if !slices.Equal(values(t, bound, p), values(t, w, p)) {
					t.Errorf("%s comes back changed", p.Name)
				}
			}
			for _, g := range []*GGUF{text, vision} {
				for _, x := range g.Tensors() {
					want := F32
					if len(x.Shape) > 1 {
						want = c.opt.DType
					}
					if x.DType != want || x.Begin%32 != 0 {
						t.Errorf("%s: %s from byte %d, want %s from a multiple of 32", x.Name, x.DType, x.Begin, want)
					}
				}
			}
		})
	}
}

// What a reader gets who forgets the layout has to differ from the parameter, or the round trip would not need it.
func TestGGUFReadAsItStandsIsAnotherModel(t *testing.T) {
	cfg, w, text, _ := writeGGUF(t, "tiny-1.6", GGUFOptions{DType: F32})
	for _, x := range shapes.GGUFText(cfg) {
		p := shapes.Param{Name: x.Param, Shape: x.Shape}
		raw := make([]float32, p.Count())
		if err := text.Read(x.Name, 0, raw); err != nil {
			t.Fatal(err)
		}
		if moved := !slices.Equal(raw, values(t, w, p)); moved != (x.Heads > 0) {
			t.Errorf("%s: rows moved %v, want %v", x.Name, moved, x.Heads > 0)
		}
	}
}

func TestGGUFRangesOfAMovedParameter(t *testing.T) {
	cfg, w, text, vision := writeGGUF(t, "tiny-1.6", GGUFOptions{DType: F32})
	bound, err := BindGGUF(cfg, text, vision)
	if err != nil {
		t.Fatal(err)
	}
	name := shapes.TextLayer(3) + ".self_attn.k_proj.weight"
	for _, r := range [][2]int{{0, 1}, {127, 2}, {5, 700}, {128 * 31, 128}, {128*32 - 1, 1}, {128 * 32, 0}} {
		got, want := make([]float32, r[1]), make([]float32, r[1])
		if err := w.Read(name, r[0], want); err != nil {
			t.Fatal(err)
		}
		if err := bound.Read(name, r[0], got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d values from %d: %v, %v", r[1], r[0], got[:min(3, len(got))], err)
		}
	}
	for _, r := range [][2]int{{-1, 1}, {128 * 32, 1}, {0, 128*32 + 1}} {
		if err := bound.Read(name, r[0], make([]float32, r[1])); err == nil {
			t.Errorf("%d values from %d: no error", r[1], r[0])
		}
	}
}

func TestGGUFMetadata(t *testing.T) {
	_, _, text, vision := writeGGUF(t, "tiny-1.6", GGUFOptions{DType: F16})
	for key, want := range map[string]any{
		"general.architecture": "llama", "llama.attention.head_count": uint32(8), "llama.attention.head_count_kv": uint32(2), "llama.rope.freq_base": float32(500000),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.attention.key_length": uint32(16), "llama.vocab_size": uint32(384), "general.file_type": uint32(1), "tokenizer.ggml.model": "none",
	} {
		if got := text.Metadata(key); got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	for key, want := range map[string]any{"general.architecture": "clip", "clip.projector_type": "mlp", "clip.use_gelu": false, "clip.vision.block_count": uint32(23), "clip.vision.image_size": uint32(56)} {
		if got := vision.Metadata(key); got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	if got := fmt.Sprint(vision.Metadata("clip.vision.feature_layer"), vision.Metadata("clip.vision.image_grid_pinpoints")); got != "[23] [56 112 112 56 112 112 168 56 56 168]" {
		t.Errorf("feature layer and pinpoints are %s", got)
	}
}

func TestWriteGGUFRefusesAndLeavesNothing(t *testing.T) {
	cfg, err := shapes.Model("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	full := cfg
	full.SelectStrategy = shapes.SelectFull
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		cfg  shapes.Config
		d    DType
		w    shapes.Weights
		want string
	}{
		{"interrupted", cancelled, cfg, F32, Synthetic(cfg, 0), "canceled"},
		{"a dtype that is none", context.Background(), cfg, "I8", Synthetic(cfg, 0), "want F32, F16 or BF16"},
		{"a class token", context.Background(), full, F32, Synthetic(full, 0), "class token"},
		{"values that the dtype cannot hold", context.Background(), cfg, F16, thirds{}, "is no value of F16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := WriteGGUF(c.ctx, filepath.Join(dir, "a"), filepath.Join(dir, "b"), "x", c.cfg, c.w, GGUFOptions{DType: c.d, Exact: true})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteGGUF(context.Background(), filepath.Join(dir, "a"), filepath.Join(dir, "b"), "x", cfg, Synthetic(cfg, 0), GGUFOptions{DType: F32}); err == nil || !strings.Contains(err.Error(), "already there") {
		t.Errorf("got %v, want an error that the file is there", err)
	}
}

// thirds is weights that are all a third.
type thirds struct{}

func (thirds) Read(_ string, _ int, dst []float32) error {
	for i := range dst {
		dst[i] = 1.0 / 3
	}
	return nil
}

// smallGGUF is a file of two tensors.
func smallGGUF() []byte {
	f := ggufFile{
		kv:      []shapes.GGUFValue{{Key: "general.architecture", Value: "x"}, {Key: "list", Value: []string{"a", "bc"}}, {Key: "n", Value: []int32{1, -2}}},
		tensors: []shapes.GGUFTensor{{Name: "a", Shape: []int{2, 3}}, {Name: "b", Shape: []int{5}}},
		dtypes:  []DType{F16, F32}, offsets: []int64{0, 32},
	}
	return append(f.header(), make([]byte, 32+20)...)
}

func parseGGUF(data []byte) (*GGUF, error) {
	return newGGUF("x.gguf", bytes.NewReader(data), int64(len(data)))
}

func TestGGUFHostileFiles(t *testing.T) {
	good := smallGGUF()
	g, err := parseGGUF(good)
	if err != nil || len(g.Tensors()) != 2 || !slices.Equal(g.Tensors()[0].Shape, []int{2, 3}) || fmt.Sprint(g.Metadata("list"), g.Metadata("n")) != "[a bc] [1 -2]" {
		t.Fatalf("got %v, %v", g, err)
	}
	put := func(at int, v uint64) []byte {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint64(b[at:], v)
		return b
	}
	tensor := bytes.Index(good, []byte("\x01\x00\x00\x00\x00\x00\x00\x00a\x02\x00\x00\x00\x03\x00")) // the list of tensors
	if tensor < 0 {
		t.Fatal("no list of tensors")
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "ends after 0 bytes"},
		{"another magic", append([]byte("GGML"), good[4:]...), `begins with "GGML"`},
		{"another version", append([]byte("GGUF\x00\x00\x00\x03"), good[8:]...), "version 50331648"},
		{"too many tensors", put(8, 1<<40), "1099511627776 tensors"},
		{"too many keys", put(16, math.MaxUint64), "keys"},
		{"a string past the end", put(24, 1<<62), "a string of 4611686018427387904 bytes"},
		{"a name past the end", put(tensor, 1<<20), "a string of 1048576 bytes"},
		{"a dimension of 2^62", put(tensor+13, 1<<62), "a dimension of"},
		{"a dimension of 0", put(tensor+13, 0), "a dimension of 0"},
		{"more values than the file has", put(tensor+13, 1<<30), "but the file has"},
		{"an offset past the end", put(tensor+33, 1<<50), "but the file has"},
		{"an offset that is not aligned", put(tensor+33, 4), "a multiple of 32"},
		{"two tensors in one place", put(tensor+33, 32), "lies in the tensor before it"},
		{"cut in the values", good[:len(good)-1], "but the file has"},
		{"cut in the header", good[:60], "the header ends after 60 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseGGUF(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	for n := range good {
		if _, err := parseGGUF(good[:n]); err == nil {
			t.Errorf("cut to %d bytes: no error", n)
		}
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(smallGGUF())
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := parseGGUF(data)
		if err != nil {
			return
		}
		for _, x := range g.Tensors() {
			if x.Begin < 0 || x.End > int64(len(data)) || x.Begin > x.End {
				t.Fatalf("%s: bytes %d to %d of %d", x.Name, x.Begin, x.End, len(data))
			}
			if x.DType.Readable() {
				if err := g.Read(x.Name, 0, make([]float32, x.Count())); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
