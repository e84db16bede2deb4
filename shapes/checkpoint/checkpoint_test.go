package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/llavaref/llavaref/shapes"
)

// folder writes files into a new folder.
func folder(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func openCheckpoint(t testing.TB, path string) *Checkpoint {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var (
	shardA = fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("b", "F16", "[2]", 4, 8)), 8)
	shardC = fileOf(jsonObject(entry("c", "BF16", "[1]", 0, 2)), 2)
)

const goodIndex = `{"metadata":{"total_size":10},"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}}`

func TestOpenShards(t *testing.T) {
	dir := folder(t, map[string][]byte{indexFile: []byte(goodIndex), "1.safetensors": shardA, "2.safetensors": shardC, "other.safetensors": nil})
	c := openCheckpoint(t, dir)
	var got []string
	for _, info := range c.Tensors() {
		got = append(got, fmt.Sprintf("%s %s %v in %s", info.Name, info.DType, info.Shape, info.File))
	}
	want := []string{"a F32 [1] in 1.safetensors", "b F16 [2] in 1.safetensors", "c BF16 [1] in 2.safetensors"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
	if c.IndexSize != 10 || c.Path() != dir || len(c.Files()) != 2 {
		t.Errorf("index size %d, path %s, %d files", c.IndexSize, c.Path(), len(c.Files()))
	}
	if err := c.Read("c", 0, make([]float32, 1)); err != nil {
		t.Error(err)
	}
	if err := c.ReadRaw("c", 0, make([]byte, 2)); err != nil {
		t.Error(err)
	}
	want = []string{fmt.Sprintf("checkpoint: %s: d: no such tensor", dir)}
	for _, err := range []error{c.Read("d", 0, nil), c.ReadRaw("d", 0, nil)} {
		if err == nil || err.Error() != want[0] {
			t.Errorf("error %v, want %s", err, want[0])
		}
	}
	if _, ok := c.Tensor("d"); ok {
		t.Error("tensor d is there")
	}
}

func TestOpenASingleFile(t *testing.T) {
	dir := folder(t, map[string][]byte{singleFile: shardA, "any-name.safetensors": shardC})
	if c := openCheckpoint(t, dir); len(c.Tensors()) != 2 || c.IndexSize != -1 {
		t.Errorf("%d tensors, index size %d", len(c.Tensors()), c.IndexSize)
	}
	if c := openCheckpoint(t, filepath.Join(dir, "any-name.safetensors")); len(c.Tensors()) != 1 {
		t.Errorf("%d tensors", len(c.Tensors()))
	}
}

func TestOpenRefusesWhatIsNoCheckpoint(t *testing.T) {
	index := func(s string) map[string][]byte {
		return map[string][]byte{indexFile: []byte(s), "1.safetensors": shardA, "2.safetensors": shardC}
	}
	with := func(files map[string][]byte, name string, content []byte) map[string][]byte {
		files = maps.Clone(files)
		files[name] = content
		return files
	}
	good := index(goodIndex)
	twice := fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("c", "F32", "[1]", 4, 8)), 8)
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string // DIR stands for the folder
	}{
		{"an empty folder", nil, "DIR: holds neither model.safetensors nor model.safetensors.index.json"},
		{"both a file and an index", with(good, singleFile, shardA), "DIR: holds both model.safetensors and model.safetensors.index.json, want one of them"},
		{"a broken file", map[string][]byte{singleFile: shardA[:20]}, "model.safetensors: a header of 107 bytes in a file of 20"},
		{"an empty index", index(""), `model.safetensors.index.json: the JSON begins with "", want {`},
		{"an index that is not JSON", index("{"), "model.safetensors.index.json: not valid JSON: unexpected end of JSON input"},
		{"an index that is not UTF-8", index("{\"\xff\":1}"), "model.safetensors.index.json: the JSON is not valid UTF-8"},
		{"no weight_map", index("{}"), "model.safetensors.index.json: no weight_map"},
		{"weight_map twice", index(`{"weight_map":{},"weight_map":{}}`), "model.safetensors.index.json: key weight_map is there twice"},
		{"the same tensor twice in the index", index(`{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}`), "model.safetensors.index.json: weight_map: key a is there twice"},
		{"a key twice in the metadata", index(`{"metadata":{"x":[{"y":1,"y":2}]},"weight_map":{}}`), "model.safetensors.index.json: metadata: key y is there twice"},
		{"metadata that is a list", index(`{"metadata":[],"weight_map":{}}`), `model.safetensors.index.json: metadata: [, want "{"`},
		{"a key twice in something else", index(`{"else":{"x":1,"x":2},"weight_map":{}}`), "model.safetensors.index.json: else: key x is there twice"},
		{"a shard that is a number", index(`{"weight_map":{"a":1}}`), "model.safetensors.index.json: weight_map: a: 1, want a string"},
		{"a shard in a folder", index(`{"weight_map":{"a":"x/1.safetensors"}}`), "model.safetensors.index.json: shard x/1.safetensors, want the plain name of a .safetensors file beside the index"},
		{"a shard in the folder above", index(`{"weight_map":{"a":"../1.safetensors"}}`), "model.safetensors.index.json: shard ../1.safetensors, want the plain name of a .safetensors file beside the index"},
		{"a shard with a backslash", index(`{"weight_map":{"a":"x\\1.safetensors"}}`), `model.safetensors.index.json: shard x\1.safetensors, want the plain name of a .safetensors file beside the index`},
		{"a shard at the root", index(`{"weight_map":{"a":"/etc/passwd"}}`), "model.safetensors.index.json: shard /etc/passwd, want the plain name of a .safetensors file beside the index"},
		{"a shard on a drive", index(`{"weight_map":{"a":"C:1.safetensors"}}`), "model.safetensors.index.json: shard C:1.safetensors, want the plain name of a .safetensors file beside the index"},
		{"a shard with two dots", index(`{"weight_map":{"a":"1..safetensors"}}`), "model.safetensors.index.json: shard 1..safetensors, want the plain name of a .safetensors file beside the index"},
		{"a shard of another kind", index(`{"weight_map":{"a":"pytorch_model.bin"}}`), "model.safetensors.index.json: shard pytorch_model.bin, want the plain name of a .safetensors file beside the index"},
		{"a shard without a name", index(`{"weight_map":{"a":""}}`), `model.safetensors.index.json: shard "", want the plain name of a .safetensors file beside the index`},
		{"a broken shard", with(good, "2.safetensors", shardC[:4]), "2.safetensors: 4 bytes, want at least the 8 of the header's length"},
		{"a tensor in two shards", with(good, "2.safetensors", twice), "2.safetensors: a: is also in 1.safetensors"},
		{"a tensor that the index does not have", with(good, indexFile, []byte(strings.Replace(goodIndex, `"a":"1.safetensors",`, "", 1))), "1.safetensors: a: is not in model.safetensors.index.json"},
		{"a tensor in another shard", with(good, indexFile, []byte(strings.Replace(goodIndex, `"a":"1`, `"a":"2`, 1))), "1.safetensors: a: model.safetensors.index.json has it in 2.safetensors"},
		{"a tensor in no shard", with(good, indexFile, []byte(strings.Replace(goodIndex, `"a"`, `"z":"1.safetensors","a"`, 1))), "1.safetensors: z: is not there, though model.safetensors.index.json says so"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, c.files)
			want := "checkpoint: " + strings.ReplaceAll(c.want, "DIR", dir)
			if _, err := Open(dir); err == nil || err.Error() != want {
				t.Errorf("error\n%v, want\n%s", err, want)
			}
		})
	}
	delete(good, "2.safetensors")
	if _, err := Open(folder(t, good)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "2.safetensors") {
		t.Errorf("a shard that is not there: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, indexFile), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.HasSuffix(err.Error(), "not a regular file") {
		t.Errorf("an index that is a folder: %v", err)
	}
}

// A clone without git lfs pull has a few lines of text under the name of every large file.
func TestAGitLFSPointerIsNamed(t *testing.T) {
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 4976698672\n"
	const want = "is a Git LFS pointer and not the file: fetch it with git lfs pull"
	for name, files := range map[string]map[string][]byte{
		singleFile:      {singleFile: []byte(pointer)},
		indexFile:       {indexFile: []byte(pointer)},
		"1.safetensors": {indexFile: []byte(`{"weight_map":{"a":"1.safetensors"}}`), "1.safetensors": []byte(pointer)},
		"model.gguf":    {"model.gguf": []byte(pointer)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, files)
			_, err := Open(dir)
			if name == "model.gguf" {
				_, err = OpenGGUF(filepath.Join(dir, name))
			}
			if err == nil || !strings.HasPrefix(err.Error(), "checkpoint: "+name+": "+want) {
				t.Errorf("%v, want %s: %s", err, name, want)
			}
		})
	}
	if _, err := open([]byte("version https://git-lfs")); err == nil || !strings.Contains(err.Error(), "a header of 2336927755350992246 bytes") {
		t.Errorf("a text that begins as one: %v", err)
	}
}

func TestAnIndexLongerThanTheLimitIsNotRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, indexFile)
	sparse(t, path, []byte("{"), maxHeader+1)
	var err error
	if got := allocated(func() { _, err = Open(dir) }); got > 1<<20 {
		t.Errorf("%d bytes allocated", got)
	}
	const want = "checkpoint: model.safetensors.index.json: 100000001 bytes, want at most 100000000"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestTotalSizeOfTheIndex(t *testing.T) {
	for metadata, want := range map[string]int64{
		`{"total_size": 10}`:                       10,
		`{"total_size": 10.0}`:                     10,
		`{"total_size": 1.671055360e10, "x": [1]}`: 16710553600,
		`{"x": {"total_size": 10}}`:                -1,
		`{"total_size": "10"}`:                     -1,
		`{"total_size": -10}`:                      -1,
		`{"total_size": 1.5}`:                      -1,
		`{"total_size": 1e300}`:                    -1,
		`{"total_size": {}}`:                       -1,
		`{}`:                                       -1,
	} {
		_, got, err := parseIndex([]byte(`{"metadata":` + metadata + `,"weight_map":{}}`))
		if err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", metadata, got, err, want)
		}
	}
}

// sparse makes a file of so many bytes of which only the first ones take room on disk.
func sparse(t testing.TB, path string, begin []byte, size int64) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a long file takes its whole room on this system")
	}
	if err := os.WriteFile(path, begin, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// headersOf writes the shards of a model with their real headers and holes instead of values. change may edit the headers.
func headersOf(t testing.TB, cfg shapes.Config, scheme shapes.Scheme, d DType, shardSize int64, change func(Info) (Info, bool)) string {
	t.Helper()
	sources, err := Sources(cfg, scheme, nil)
	if err != nil {
		t.Fatal(err)
	}
	shards, _, err := planShards(sources, Options{DType: d, ShardSize: shardSize})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	index := map[string]string{}
	for _, s := range shards {
		var infos []Info
		var at int64
		for _, info := range s.infos {
			if info, ok := change(info); ok {
				size, err := sizeOf(info.DType, info.Shape)
				if err != nil {
					t.Fatal(err)
				}
				info.Begin, info.End = at, at+size
				at += size
				infos = append(infos, info)
				index[info.Name] = s.file
			}
		}
		header, err := formatHeader(infos)
		if err != nil {
			t.Fatal(err)
		}
		sparse(t, filepath.Join(dir, s.file), header, int64(len(header))+at)
	}
	if len(shards) > 1 {
		text, err := marshal(map[string]any{"weight_map": index}, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, indexFile), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func unchanged(info Info) (Info, bool) { return info, true }

func TestVerifyOfThe16GBCheckpointTakesNoTimeAndNoMemory(t *testing.T) {
	cfg := model(t, "llava-1.6-llama3-8b")
	dir := headersOf(t, cfg, shapes.OnDisk, F16, 5e9, unchanged)
	var r Report
	begin := time.Now()
	bytes := allocated(func() {
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r = c.Verify(cfg)
	})
	took := time.Since(begin)
	t.Logf("%v, %d bytes allocated", took, bytes)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Tensors != 687 || r.Parameters != 8_355_276_800 || r.Bytes != 16_710_553_600 || len(r.Shards) != 4 {
		t.Errorf("%d tensors, %d parameters, %d bytes, %d shards", r.Tensors, r.Parameters, r.Bytes, len(r.Shards))
	}
	if took > time.Second {
		t.Errorf("took %v, want less than a second", took)
	}
	if bytes > 8<<20 {
		t.Errorf("%d bytes allocated", bytes)
	}
}

func TestVerifyReport(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	const layer = "language_model.model.layers.31."
	dir := headersOf(t, cfg, shapes.OnDisk, F16, 1<<20, func(info Info) (Info, bool) {
		switch info.Name {
		case "image_newline":
			info.Name = "image_newlines"
		case layer + "mlp.up_proj.weight":
			info.Shape = []int{info.Shape[1], info.Shape[0]}
		case layer + "mlp.down_proj.weight":
			info.DType = "F64"
		case layer + "input_layernorm.weight":
			info.DType = F32
		case "multi_modal_projector.linear_1.bias":
			info.Name, info.DType, info.Shape = "vision_tower.vision_model.embeddings.position_ids", "I64", []int{1, 17}
		}
		return info, true
	})
	r := openCheckpoint(t, dir).Verify(cfg)
	if r.Scheme != shapes.OnDisk || r.Tensors != 685 || r.IndexSize != -1 {
		t.Errorf("scheme %s, %d tensors, index size %d", r.Scheme, r.Tensors, r.IndexSize)
	}
	if diff := cmp.Diff([]string{"image_newline", "multi_modal_projector.linear_1.bias"}, r.Missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"image_newlines"}, r.Unexpected); diff != "" {
		t.Errorf("unexpected (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"vision_tower.vision_model.embeddings.position_ids"}, r.Ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	if len(r.WrongShape) != 1 || len(r.WrongDType) != 1 {
		t.Fatalf("%d wrong shapes, %d wrong dtypes, want 1 of each", len(r.WrongShape), len(r.WrongDType))
	}
	up, down := r.WrongShape[0], r.WrongDType[0]
	want := fmt.Sprintf("checkpoint: %s: %smlp.up_proj.weight: shape [128 256], want [256 128]\n", up.File, layer) +
		fmt.Sprintf("checkpoint: %s: %smlp.down_proj.weight: dtype F64, want F32, F16 or BF16\n", down.File, layer) +
		"checkpoint: image_newline: is missing\n" +
		"checkpoint: multi_modal_projector.linear_1.bias: is missing\n" +
		"checkpoint: image_newlines: is no parameter of the model"
	if err := r.Err(); err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	_, values := shapes.Total(shapes.Params(cfg))
	if want := values - 128 - 128; r.Parameters != want {
		t.Errorf("%d parameters, want %d", r.Parameters, want)
	}
	rest := r.Parameters - 128*256 - 128
	wantTypes := []DTypeCount{{F16, 683, rest, int64(2 * rest)}, {"F64", 1, 128 * 256, 8 * 128 * 256}, {F32, 1, 128, 512}}
	if diff := cmp.Diff(wantTypes, r.DTypes); diff != "" {
		t.Errorf("dtypes (-want +got):\n%s", diff)
	}
	var tensors int
	var bytes int64
	for _, s := range r.Shards {
		tensors += s.Tensors
		bytes += s.Bytes
	}
	if len(r.Shards) < 2 || tensors != 687 || bytes != r.Bytes+128*2+17*8 {
		t.Errorf("%d shards of %d tensors and %d bytes", len(r.Shards), tensors, bytes)
	}
}

func TestSeveralDTypesAreNoFault(t *testing.T) {
	cfg := model(t, "tiny-1.5")
	dir := headersOf(t, cfg, shapes.OnDisk, BF16, 0, func(info Info) (Info, bool) {
		if isNormWeight(info.Name) {
			info.DType = F32
		}
		return info, true
	})
	if _, err := openCheckpoint(t, dir).Bind(cfg); err != nil {
		t.Error(err)
	}
}

func TestManyFaultsAreCounted(t *testing.T) {
	cfg := model(t, "tiny-1.5")
	r := openCheckpoint(t, folder(t, map[string][]byte{singleFile: shardA})).Verify(cfg)
	lines := strings.Split(r.Err().Error(), "\n")
	if len(lines) != 9 || lines[0] != "checkpoint: no tensor has the name of a parameter, under any naming scheme" || lines[6] != "checkpoint: and 681 more are missing" {
		t.Errorf("error\n%v", r.Err())
	}
	if r.Scheme != "" || len(r.Missing) != 686 || len(r.Unexpected) != 2 {
		t.Errorf("scheme %q, %d missing, %d unexpected", r.Scheme, len(r.Missing), len(r.Unexpected))
	}
}

func TestBindReadsUnderEveryScheme(t *testing.T) {
	cfg := model(t, "tiny-1.5")
	want := Synthetic(cfg, 3)
	for i, scheme := range shapes.Schemes() {
		d := []DType{F32, F16, BF16}[i%3]
		t.Run(fmt.Sprintf("%s in %s", scheme, d), func(t *testing.T) {
			sources, err := Sources(cfg, scheme, want)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := Write(t.Context(), dir, sources, Options{DType: d, Exact: true, ShardSize: 3 << 20}); err != nil {
				t.Fatal(err)
			}
			c := openCheckpoint(t, dir)
			r := c.Verify(cfg)
			if r.Err() != nil || r.Scheme != scheme || len(r.DTypes) != 1 || r.DTypes[0].DType != d || r.IndexSize != r.Bytes {
				t.Errorf("%+v", r)
			}
			w, err := c.Bind(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range shapes.Params(cfg) {
				if !slices.Equal(readAll(t, w, p), readAll(t, want, p)) {
					t.Errorf("%s: other values than were written", p.Name)
				}
				info, err := w.Info(p.Name)
				if err != nil || info.Name != scheme.FromDisk(p.Name) {
					t.Errorf("%s: %+v, %v", p.Name, info, err)
				}
				raw := make([]byte, d.Bits()/8)
				if err := w.ReadRaw(p.Name, 0, raw); err != nil {
					t.Error(err)
				}
			}
			for _, err := range []error{w.Read("none", 0, nil), w.ReadRaw("none", 0, nil)} {
				if want := fmt.Sprintf("checkpoint: %s: none: the model has no such parameter", dir); err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
			}
		})
	}
}

func TestBindRefusesAnotherModel(t *testing.T) {
	dir := headersOf(t, model(t, "tiny-1.5"), shapes.OnDisk, F32, 0, unchanged)
	_, err := openCheckpoint(t, dir).Bind(model(t, "tiny-1.6"))
	if err == nil || !strings.Contains(err.Error(), "image_newline: is missing") {
		t.Errorf("error %v, want image_newline to be missing", err)
	}
}

func TestDigestDoesNotDependOnHowTheValuesAreStored(t *testing.T) {
	cfg := model(t, "tiny-1.5")
	want, err := Digest(cfg, Synthetic(cfg, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []DType{F32, F16, BF16} {
		sources, err := Sources(cfg, shapes.LiteLlama, Synthetic(cfg, 0))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := Write(t.Context(), dir, sources, Options{DType: d, ShardSize: 2 << 20}); err != nil {
			t.Fatal(err)
		}
		w, err := openCheckpoint(t, dir).Bind(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var last, total int64
		got, err := Digest(cfg, w, func(done, all int64) {
			if done <= last || all < done {
				t.Errorf("progress %d of %d after %d", done, all, last)
			}
			last, total = done, all
		})
		if err != nil || got != want || last != total {
			t.Errorf("%s: %s, %v, %d of %d; want %s", d, got, err, last, total, want)
		}
	}
	if other, err := Digest(cfg, Synthetic(cfg, 1), nil); err != nil || other == want {
		t.Errorf("seed 1 has the digest of seed 0, %v", err)
	}
}

func TestDigestPassesErrorsOn(t *testing.T) {
	_, err := Digest(model(t, "tiny-1.6"), Synthetic(model(t, "tiny-1.5"), 0), nil)
	const want = "checkpoint: digest: checkpoint: synthetic weights: image_newline: the model has no such parameter"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// FuzzIndex holds an index to what parseIndex promises of it.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(goodIndex))
	f.Add([]byte(`{"weight_map":{"a":"../x.safetensors"},"metadata":{"total_size":1e3,"x":[{"y":null}]}}`))
	f.Add([]byte(`{"weight_map":{"a":"1.safetensors","\u0061":"1.safetensors"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		shardOf, total, err := parseIndex(text)
		if err != nil {
			return
		}
		if total < -1 {
			t.Errorf("total size %d", total)
		}
		for name, shard := range shardOf {
			if filepath.Base(shard) != shard || strings.ContainsAny(shard, `/\`) || strings.Contains(shard, "..") {
				t.Errorf("%q is in %q", name, shard)
			}
			if !bytes.HasPrefix(text, []byte("{")) {
				t.Error("no object")
			}
		}
	})
}

// FuzzOpen opens a folder of an index and two shards, and reads all of it that can be read.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(goodIndex), shardA, shardC)
	f.Add([]byte(`{"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}}`), shardA, shardC)
	f.Add([]byte(`{"weight_map":{"c":"2.safetensors"}}`), []byte{}, shardC)
	f.Add([]byte(goodIndex), shardC, shardA)
	cfg := model(f, "tiny-1.5")
	f.Fuzz(func(t *testing.T, index, one, two []byte) {
		dir := folder(t, map[string][]byte{indexFile: index, "1.safetensors": one, "2.safetensors": two})
		c, err := Open(dir)
		if err != nil {
			return
		}
		defer c.Close()
		for _, info := range c.Tensors() {
			if info.Count() > math.MaxUint16*8 {
				t.Fatalf("%+v in files of %d bytes", info, len(one)+len(two))
			}
			err := c.Read(info.Name, 0, make([]float32, info.Count()))
			if info.DType.Readable() != (err == nil) {
				t.Fatalf("%+v: %v", info, err)
			}
		}
		if r := c.Verify(cfg); r.Err() == nil {
			t.Fatal("a model of 686 tensors out of so few bytes")
		}
	})
}
