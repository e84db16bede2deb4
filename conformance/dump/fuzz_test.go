package dump

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// prompt is a text prompt of five tokens for the smallest of the models that come with the project.
func prompt(t testing.TB) (shapes.Config, shapes.Inputs) {
	c, err := shapes.Model("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	return c, shapes.Inputs{InputIDs: []int{1, 2, 3, 4, 5}, PositionIDs: []int{0, 1, 2, 3, 4}}
}

// readAll opens a dump and reads what can be read of it. What it is given may be anything: there may be errors, and no more.
func readAll(dir string, c shapes.Config, in shapes.Inputs) (nodes int, err error) {
	r, err := Open(dir)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	r.Arrays()
	r.Info()
	if err := r.CheckInputs(in); err != nil {
		return 0, err
	}
	b, err := r.Bind(c, in)
	if err != nil {
		return 0, err
	}
	dims := shapes.DimsOf(c, in)
	for _, n := range shapes.Nodes(c) {
		b.Wrong(n.Name)
		if !b.Has(n.Name) {
			continue
		}
		t, err := b.Read(n.Name)
		if err != nil {
			continue
		}
		want := n.Concrete(dims)
		if b.LastRows() && n.Name == shapes.LMHead {
			want[0] = t.Shape[0]
		}
		if len(t.Data) != shapes.Product(want) || shapes.Product(t.Shape) != len(t.Data) {
			panic(n.Name)
		}
		b.Reread(n.Name)
		nodes++
	}
	return nodes, nil
}

func write(t testing.TB, dir, name string, data []byte) {
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func npyBytes(t testing.TB, shape []int) []byte {
	var b bytes.Buffer
	if err := npy.Write(&b, shape, make([]float32, shapes.Product(shape))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func npzBytes(t testing.TB, name string, data []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func safetensorsBytes(header string, data int) []byte {
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, uint64(len(header)))
	b.WriteString(header)
	b.Write(make([]byte, data))
	return b.Bytes()
}

// Whatever lies in a folder that calls itself a dump: an error or values of the right shape, never a panic.
func FuzzDump(f *testing.F) {
	c, in := prompt(f)
	names := []string{"language_model.lm_head.npy", "a.npz", "a.safetensors", "input_ids.npy", "image_sizes.json"}
	manifest := `{"format": 1, "engine": "x", "class": "bf16", "batch": true, "classes": [{"nodes": "*", "class": "f16"}], "map": [` +
		`{"node": ["language_model.model.layers.{i}.mlp.gate_proj", "language_model.model.layers.{i}.mlp.up_proj"], "tensor": "g{i}", "axes": "1 _ T"},` +
		`{"node": "language_model.model.layers.{i}.self_attn.rope_q", "tensor": "q#{part}", "join": "T", "axes": "H T Dh~"},` +
		`{"node": "language_model.lm_head", "sum": ["a", "b"], "rows": "last", "scale": "1/sqrt(Dh)"},` +
		`{"node": "language_model.model.layers.{i}.self_attn.scores", "tensor": "kq{i+1}", "padded": "L", "from": 2, "axis_order": "ne"}]}`
	f.Add([]byte(`{"format": 1, "engine": "x", "class": "f32"}`), uint8(0), npyBytes(f, []int{5, 384}))
	f.Add([]byte(manifest), uint8(1), npzBytes(f, "q#0.npy", npyBytes(f, []int{8, 5, 16})))
	f.Add([]byte(manifest), uint8(1), npzBytes(f, "kq1.npy", npyBytes(f, []int{9, 5, 8})))
	f.Add([]byte(manifest), uint8(2), safetensorsBytes(`{"g0":{"dtype":"F32","shape":[1,512,5],"data_offsets":[0,10240]}}`, 10240))
	f.Add([]byte(manifest), uint8(3), npyBytes(f, []int{5}))
	f.Add([]byte(manifest), uint8(4), []byte(`[[1,2],[3]]`))
	f.Fuzz(func(t *testing.T, manifest []byte, kind uint8, data []byte) {
		dir := t.TempDir()
		write(t, dir, ManifestFile, manifest)
		write(t, dir, names[int(kind)%len(names)], data)
		if names[int(kind)%len(names)] != names[0] {
			write(t, dir, names[0], npyBytes(t, []int{5, 384}))
		}
		readAll(dir, c, in)
	})
}

// A dump may claim what it likes: memory follows from what its nodes can be.
func TestClaimsCostNothing(t *testing.T) {
	c, in := prompt(t)
	bomb := npzBytes(t, "language_model.lm_head.npy", npyBytes(t, []int{1 << 16, 384})) // 100 MB of zeros
	lying := bytes.ReplaceAll(npyBytes(t, []int{5, 384}), []byte("(5, 384)"), []byte("(9999999999, 384)"))
	wide := safetensorsBytes(`{"language_model.lm_head":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}`, 64)
	huge := npzBytes(t, "language_model.lm_head.npy", npyBytes(t, []int{5, 384}))
	copy(huge[bytes.LastIndex(huge, []byte("PK\x01\x02"))+24:], []byte{0xff, 0xff, 0xff, 0xf0}) // the directory's uncompressed size
	for name, file := range map[string]struct {
		name string
		data []byte
	}{
		"an archive that expands":        {"a.npz", bomb},
		"an array of 10 GB":              {"language_model.lm_head.npy", lying},
		"a tensor of 10 GB":              {"a.safetensors", wide},
		"an archive that claims 4 GB":    {"a.npz", huge},
		"a header of 2 GB":               {"language_model.lm_head.npy", append([]byte("\x93NUMPY\x02\x00\xff\xff\xff\x7f"), make([]byte, 100)...)},
		"a safetensors header of 100 TB": {"a.safetensors", []byte("\x00\x00\x00\x00\x00\x40\x00\x00{}")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, ManifestFile, []byte(`{"format": 1, "engine": "x", "class": "f32"}`))
			write(t, dir, file.name, file.data)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			nodes, err := readAll(dir, c, in)
			runtime.ReadMemStats(&after)
			if nodes != 0 {
				t.Errorf("%d nodes were read, want none (%v)", nodes, err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
				t.Errorf("%d MiB were allocated on the way, want at most 32", used>>20)
			}
		})
	}
}

func TestAManifestIsStrict(t *testing.T) {
	with := func(more string) string { return `{"format": 1, "engine": "x", "class": "f32"` + more + `}` }
	rule := func(r string) string { return with(`, "map": [` + r + `]`) }
	for name, c := range map[string]struct{ text, want string }{
		"a misspelt key":               {with(`, "classs": "f16"`), `unknown field "classs"`},
		"a key twice":                  {with(`, "class": "f16"`), `key "class" twice`},
		"more behind it":               {with("") + "{}", "more data after the JSON object"},
		"no object":                    {`[]`, "at byte 1: array, want an object"},
		"a word for a number":          {with(`, "lanes": "16"`), "lanes: string, want a whole number"},
		"half a number":                {with(`, "lanes": 1.5`), "lanes: number 1.5, want a whole number"},
		"a number for a word":          {`{"format": 1, "engine": 7, "class": "f32"}`, "engine: number, want a string"},
		"an object for a list":         {with(`, "nodes": {}`), "nodes: object, want a list"},
		"a word for a truth":           {with(`, "batch": "yes"`), "batch: string, want true or false"},
		"nothing":                      {``, "EOF"},
		"cut off":                      {`{"format": 1`, "unexpected EOF"},
		"a format of later":            {`{"format": 2, "engine": "x", "class": "f32"}`, "format 2, want 1"},
		"no engine":                    {`{"format": 1, "class": "f32"}`, `no engine, want its name: "engine": "my-engine"`},
		"no class":                     {`{"format": 1, "engine": "x"}`, `no class, so nothing can be judged. Say how the engine stores activations between operations: "class": "f32", "f16" or "bf16"`},
		"a class that is none":         {`{"format": 1, "engine": "x", "class": "fp8"}`, `class "fp8", want f32, f16 or bf16`},
		"a naming that is none":        {with(`, "naming": "mlx"`), `naming "mlx", want one of hf, hf-4.52`},
		"lanes below 0":                {with(`, "lanes": -1`), "lanes -1, want"},
		"an axis order that is none":   {with(`, "axis_order": "col"`), `axis_order "col", want row-major or ne`},
		"a class of a node":            {with(`, "classes": [{"nodes": "*", "class": "int8"}]`), `classes[0]: nodes "*", class "int8", want`},
		"a rule without a node":        {rule(`{"tensor": "x"}`), "map[0]: no node"},
		"a rule without an array":      {rule(`{"node": "x"}`), "want either a tensor or a sum"},
		"a rule with both":             {rule(`{"node": "x", "tensor": "a", "sum": ["b", "c"]}`), "want either a tensor or a sum"},
		"a sum of one":                 {rule(`{"node": "x", "sum": ["b"]}`), "a sum of 1 arrays, want 2 to 8"},
		"parts that are not joined":    {rule(`{"node": "x", "tensor": "a{part}"}`), "want {part} in the name where, and only where, arrays are joined"},
		"a join without parts":         {rule(`{"node": "x", "tensor": "a", "join": "T"}`), "want {part} in the name"},
		"from without padded":          {rule(`{"node": "x", "tensor": "a", "from": 3}`), "from without padded"},
		"from below 0":                 {rule(`{"node": "x", "tensor": "a", "padded": "T", "from": -3}`), "from -3, want 0 or more"},
		"last rows of another node":    {rule(`{"node": "x", "tensor": "a", "rows": "last"}`), "want last, for language_model.lm_head alone"},
		"last rows of the logits":      {rule(`{"node": "language_model.lm_head", "tensor": "a", "rows": "first"}`), `rows "first", want last`},
		"a scale of 0":                 {rule(`{"node": "x", "tensor": "a", "scale": 0}`), "scale 0, want a number that is not 0"},
		"a scale in words":             {rule(`{"node": "x", "tensor": "a", "scale": "root"}`), `want a number that is not 0, or "1/sqrt(Dh)"`},
		"a node that is a number":      {rule(`{"node": 3, "tensor": "a"}`), "want a name or a list of names"},
		"objects in objects in ... ":   {strings.Repeat(`{"a":`, 200), "nested more than 100 deep"},
		"an array order in the middle": {rule(`{"node": "x", "tensor": "a", "axis_order": "?"}`), `axis_order "?"`},
	} {
		if _, err := ParseManifest([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// float64 is rounded to float32 once, ties to even, in both containers.
func TestFloat64IsRoundedOnce(t *testing.T) {
	wide := []float64{1 + 0x1p-24, 1 + 3*0x1p-24, 1 + 0x1p-24 + 0x1p-50, -1 - 0x1p-24, 0x1p-150, 0x1.8p-150, 1e300, math.Inf(-1)}
	want := []float32{1, 1 + 0x1p-22, 1 + 0x1p-23, -1, 0, 0x1p-149, float32(math.Inf(1)), float32(math.Inf(-1))}
	var raw bytes.Buffer
	binary.Write(&raw, binary.LittleEndian, wide)
	header := `{"x":{"dtype":"F64","shape":[8],"data_offsets":[0,64]}}`
	tensors := append(safetensorsBytes(header, 0), raw.Bytes()...)
	for _, name := range []string{"x.npy", "a.safetensors"} {
		dir := t.TempDir()
		write(t, dir, ManifestFile, []byte(`{"format": 1, "engine": "x", "class": "f32"}`))
		if name == "x.npy" {
			if err := npy.WriteFile(filepath.Join(dir, name), []int{8}, wide); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, dir, name, tensors)
		}
		r, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.arrays["x"].values()
		r.Close()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
}
