package golden

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

func TestAValidSetIsRead(t *testing.T) {
	s := newToy(t)
	set, err := OpenFS(s.fsys, "toy")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.files, set.Manifest); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	if string(set.ConfigJSON) != toyConfig || set.Config.Text.VocabSize != 16 {
		t.Errorf("config %+v", set.Config)
	}
	c, err := set.Case("image")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 3, 15, 15, 15, 15, 15, 15, 15, 4, 5, 6}, c.Inputs.InputIDs); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	if got := c.Inputs.PixelValues.Shape; !slices.Equal(got, []int{3, 3, 4, 4}) || c.Inputs.ImageSizes[0] != (shapes.Size{H: 3, W: 6}) {
		t.Errorf("pixels %v of images %v", got, c.Inputs.ImageSizes)
	}
	d := shapes.DimsOf(set.Config, c.Inputs)
	entries, massive := 0, 0
	for i, n := range shapes.Nodes(set.Config) {
		truth, ok := c.Node(n.Name)
		if !ok || truth != &c.Nodes[i] || truth.Name != n.Name || !slices.Equal(truth.Shape, n.Concrete(d)) {
			t.Fatalf("node %d: %+v, want %s", i, truth, n.Name)
		}
		if len(truth.Values) != truth.Sample.Entries() || len(truth.RowRMS) != truth.Sample.Rows() || len(truth.Floors) != 3 {
			t.Errorf("%s: %d values, %d rows, %d floors", n.Name, len(truth.Values), len(truth.RowRMS), len(truth.Floors))
		}
		entries += len(truth.Values)
		massive += len(truth.Massive)
	}
	if entries*4+128 != len(s.fsys["image/values.npy"].Data) || massive == 0 {
		t.Errorf("%d entries, %d massive columns", entries, massive)
	}
	head, _ := c.Node(shapes.LMHead)
	if diff := cmp.Diff(Gather(c.Logits, head.Sample), head.Values); diff != "" {
		t.Errorf("logits (-whole +kept):\n%s", diff)
	}
	if _, ok := c.Node("none"); ok {
		t.Error("a node called none")
	}
	floors, err := npy.Parse("floors", s.fsys["image/floors.npy"].Data)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := floors.Float64s()
	if got, want := c.Nodes[1].Floors[BF16], (Floor{f[15], f[16], f[17]}); got != want {
		t.Errorf("bf16 floor of node 1: %v, want %v", got, want)
	}
	text, err := set.Case("text")
	if err != nil {
		t.Fatal(err)
	}
	if text.Inputs.PixelValues.Shape != nil || len(text.Nodes) >= len(c.Nodes) {
		t.Errorf("the case without an image has pixels %v and %d nodes", text.Inputs.PixelValues.Shape, len(text.Nodes))
	}
	if err := Verify(set, nil).Err(); err != nil {
		t.Error(err)
	}
	if _, err := set.Case("../text"); err == nil || !strings.Contains(err.Error(), `case "../text" is not known`) {
		t.Errorf("error %v", err)
	}
}

// TestASpoiledFileIsNamed spoils every file of a set in every way that keeps the manifest: the error names the file.
func TestASpoiledFileIsNamed(t *testing.T) {
	files := sortedKeys(newToy(t).files.Files)
	if len(files) != 16 {
		t.Fatalf("%d files: %v", len(files), files)
	}
	for _, file := range files {
		for name, spoil := range map[string]func(b []byte) []byte{
			"first byte flipped":  func(b []byte) []byte { b[0] ^= 1; return b },
			"middle byte flipped": func(b []byte) []byte { b[len(b)/2] ^= 0x80; return b },
			"last byte flipped":   func(b []byte) []byte { b[len(b)-1] ^= 4; return b },
			"last byte cut":       func(b []byte) []byte { return b[:len(b)-1] },
			"a byte added":        func(b []byte) []byte { return append(b, 0) },
			"emptied":             func(b []byte) []byte { return nil },
		} {
			t.Run(file+" "+name, func(t *testing.T) {
				s := newToy(t)
				s.put(file, spoil(bytes.Clone(s.fsys[file].Data)))
				wantError(t, s.load(), "golden: toy: "+file+": ", "want")
			})
		}
		t.Run(file+" missing", func(t *testing.T) {
			s := newToy(t)
			delete(s.fsys, file)
			wantError(t, s.load(), "golden: toy: "+file+": ", "not in the folder")
		})
		t.Run(file+" a folder", func(t *testing.T) {
			s := newToy(t)
			s.fsys[file] = &fstest.MapFile{Mode: fs.ModeDir}
			wantError(t, s.load(), "golden: toy: "+file+": a folder, want a file")
		})
		t.Run(file+" a link", func(t *testing.T) {
			s := newToy(t)
			s.fsys[file] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("case.json")}
			wantError(t, s.load(), "golden: toy: "+file+": a symbolic link, want a file")
		})
	}
	t.Run("manifest cut at every byte", func(t *testing.T) {
		whole := newToy(t).fsys[manifestFile].Data
		s := newToy(t)
		for n := range len(whole) {
			s.put(manifestFile, whole[:n])
			if err := s.load(); err == nil || !strings.HasPrefix(err.Error(), "golden: toy: manifest.json: ") {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	})
}

func TestExchangedFilesAreNamed(t *testing.T) {
	s := newToy(t)
	exchanged := 0
	files := sortedKeys(s.files.Files)
	for i, a := range files {
		for _, b := range files[:i] {
			fa, fb := s.fsys[a], s.fsys[b]
			if len(fa.Data) != len(fb.Data) {
				continue
			}
			exchanged++
			s.fsys[a], s.fsys[b] = fb, fa
			if err := s.load(); err == nil || !strings.Contains(err.Error(), a+": sha256") && !strings.Contains(err.Error(), b+": sha256") {
				t.Errorf("%s and %s exchanged: %v", a, b, err)
			}
			s.fsys[a], s.fsys[b] = fa, fb
		}
	}
	if exchanged < 5 {
		t.Errorf("%d pairs of one size, want at least 5: the toy has changed", exchanged)
	}
}

// values changes the values of an array of the set.
func values(file string, change func(v []float32)) func(*toy) {
	return func(s *toy) {
		a, err := npy.Parse(file, s.fsys[file].Data)
		if err != nil {
			s.t.Fatal(err)
		}
		v, err := a.Float32s()
		if err != nil {
			s.t.Fatal(err)
		}
		change(v)
		put(s, file, v, a.Shape...)
		s.sign()
	}
}

// find is the index of the first node whose name ends so.
func find(j *caseJSON, suffix string) int {
	return slices.IndexFunc(j.Nodes, func(n nodeJSON) bool { return strings.HasSuffix(n.Name, suffix) })
}

// TestRules spoils one rule each, digests kept right, so that only the rule can object.
func TestRules(t *testing.T) {
	manifest := func(change func(*Manifest)) func(*toy) {
		return func(s *toy) { edit(s, manifestFile, change) } // not signed again: the manifest is the edited one
	}
	about := func(change func(*caseJSON)) func(*toy) {
		return func(s *toy) { edit(s, "image/case.json", change); s.sign() }
	}
	raw := func(file, old, new string) func(*toy) {
		return func(s *toy) {
			data := strings.Replace(string(s.fsys[file].Data), old, new, 1)
			if data == string(s.fsys[file].Data) {
				s.t.Fatalf("%s: no %s", file, old)
			}
			s.put(file, []byte(data))
			if file != manifestFile {
				s.sign()
			}
		}
	}
	ids := func(file string, ids ...int64) func(*toy) {
		return func(s *toy) { put(s, file, ids, len(ids)); s.sign() }
	}
	good := []int64{1, 3, 15, 15, 15, 15, 15, 15, 15, 4, 5, 6}
	idsBut := func(i int, v int64) []int64 { c := slices.Clone(good); c[i] = v; return c }
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name  string
		spoil func(s *toy)
		want  []string // all in the error
	}{
		{"another format", manifest(func(m *Manifest) { m.Format = 2 }), []string{manifestFile, "format 2, want 1"}},
		{"no name", manifest(func(m *Manifest) { m.Model = "" }), []string{manifestFile, "model"}},
		{"a negative sample", manifest(func(m *Manifest) { m.Sample = -1 }), []string{manifestFile, "sample -1"}},
		{"a huge sample", manifest(func(m *Manifest) { m.Sample = 1 << 40 }), []string{manifestFile, "sample 1099511627776"}},
		{"classes in another order", manifest(func(m *Manifest) { m.Classes = []Class{F16, F32, BF16} }), []string{manifestFile, "classes"}},
		{"no cases", manifest(func(m *Manifest) { m.Cases = []string{} }), []string{manifestFile, "0 cases"}},
		{"a case twice", manifest(func(m *Manifest) { m.Cases = []string{"text", "text"} }), []string{manifestFile, `"text" twice`}},
		{"a case outside of the set", manifest(func(m *Manifest) { m.Cases[0] = "../image" }), []string{manifestFile, `cases: "../image"`}},
		{"a case at the root", manifest(func(m *Manifest) { m.Cases[0] = "." }), []string{manifestFile, `cases: "."`}},
		{"a case of no name", manifest(func(m *Manifest) { m.Cases[0] = "" }), []string{manifestFile, `cases: ""`}},
		{"a case with a backslash", manifest(func(m *Manifest) { m.Cases[0] = `a\b` }), []string{manifestFile, `cases: `}},
		{"a case called config.json", manifest(func(m *Manifest) { m.Cases[0] = configFile }), []string{manifestFile, `cases: "config.json"`}},
		{"a case that is not listed", manifest(func(m *Manifest) { m.Cases = m.Cases[1:] }), []string{manifestFile, `files: "image/case.json" is no file of a set`}},
		{"a case that is not there", manifest(func(m *Manifest) { m.Cases = append(m.Cases, "more") }), []string{manifestFile, "files: more/case.json is not listed"}},
		{"a file outside of the set", manifest(func(m *Manifest) { m.Files["../x"] = m.Files[configFile] }), []string{manifestFile, `files: "../x" is no file of a set`}},
		{"a file outside of the set, hidden", manifest(func(m *Manifest) { m.Files["text/../../x.npy"] = m.Files[configFile] }), []string{manifestFile, `"text/../../x.npy" is no file of a set`}},
		{"an absolute file", manifest(func(m *Manifest) { m.Files["/etc/passwd"] = m.Files[configFile] }), []string{manifestFile, `"/etc/passwd" is no file of a set`}},
		{"the manifest in itself", manifest(func(m *Manifest) { m.Files[manifestFile] = m.Files[configFile] }), []string{manifestFile, `"manifest.json" is no file of a set`}},
		{"a file of no size", manifest(func(m *Manifest) { m.Files[configFile] = File{m.Files[configFile].SHA256, 0} }), []string{manifestFile, "config.json: 0 bytes"}},
		{"a digest that is none", manifest(func(m *Manifest) { m.Files[configFile] = File{"00", 5} }), []string{manifestFile, "config.json: sha256", "64 hexadecimal"}},
		{"a digest in upper case", manifest(func(m *Manifest) { m.Weights.SHA256 = strings.ToUpper(m.Weights.SHA256) }), []string{manifestFile, "weights: sha256"}},
		{"weights of another kind", manifest(func(m *Manifest) { m.Weights.Kind = "random" }), []string{manifestFile, `kind "random"`}},
		{"synthetic weights without a seed", manifest(func(m *Manifest) { m.Weights.Seed = nil }), []string{manifestFile, "no seed"}},
		{"a checkpoint with a seed", manifest(func(m *Manifest) { m.Weights.Kind = Checkpoint }), []string{manifestFile, "seed 0 of a checkpoint"}},
		{"a witness that is off by less than nothing", manifest(func(m *Manifest) { m.Witnesses[1].MaxDifference = -1 }), []string{manifestFile, "witnesses[1]"}},
		{"an unknown key", raw(manifestFile, `{"format"`, `{"extra":1,"format"`), []string{manifestFile, `key "extra" is not known`}},
		{"an unknown key further in", raw(manifestFile, `{"kind"`, `{"extra":[[{}]],"kind"`), []string{manifestFile, `weights: key "extra" is not known`}},
		{"a key in other letters", raw(manifestFile, `"format"`, `"Format"`), []string{manifestFile, `key "Format" is not known`}},
		{"a key missing", raw(manifestFile, `"format":1,`, ``), []string{manifestFile, `no key "format"`}},
		{"a key twice", raw(manifestFile, `{"format"`, `{"format":1,"format"`), []string{manifestFile, `key "format" twice`}},
		{"a file twice", raw(manifestFile, `"files":{`, `"files":{"config.json":{"sha256":"","bytes":1},`), []string{manifestFile, `files: key "config.json" twice`}},
		{"a null", raw(manifestFile, `"format":1`, `"format":null`), []string{manifestFile, "format: null"}},
		{"a fraction", raw(manifestFile, `"format":1`, `"format":1.5`), []string{manifestFile, "format: number 1.5"}},
		{"a string for a number", raw(manifestFile, `"format":1`, `"format":"1"`), []string{manifestFile, "format: string"}},
		{"an array for an object", raw(manifestFile, `"format":1`, `"format":[1]`), []string{manifestFile, "format: an array"}},
		{"more behind", raw(manifestFile, `{"format"`, `{} {"format"`), []string{manifestFile, "no key"}},
		{"deep nesting", raw(manifestFile, `"format":1`, `"format":`+strings.Repeat("[", 100000)), []string{manifestFile, "format: an array"}},
		{"deep nesting where arrays are", raw(manifestFile, `"cases":[`, `"cases":[`+strings.Repeat("[", 100000)), []string{manifestFile, "cases[0]: an array"}},
		{"a very long key", raw(manifestFile, `{"format"`, `{"`+strings.Repeat("k", 1<<20)+`":1,"format"`), []string{manifestFile, `kkk"... is not known`}},

		{"a file too many", func(s *toy) { s.put("notes.txt", nil) }, []string{"notes.txt: in the folder, but not in the manifest"}},
		{"a file too many, the last", func(s *toy) { s.put("zzz", nil) }, []string{"zzz: in the folder, but not in the manifest"}},
		{"a file too many in a case, the last", func(s *toy) { s.put("text/zzz", nil) }, []string{"text/zzz: in the folder, but not in the manifest"}},
		{"a file too many in a case", func(s *toy) { s.put("text/notes.txt", nil) }, []string{"text/notes.txt: in the folder, but not in the manifest"}},
		{"pixels too many", func(s *toy) { s.fsys["text/pixel_values.npy"] = s.fsys["image/pixel_values.npy"] }, []string{"text/pixel_values.npy: in the folder"}},
		{"a folder too many", func(s *toy) { s.put("more/x", nil) }, []string{"more: in the folder, but not in the manifest"}},
		{"many files too many", func(s *toy) {
			for i := range 1000 {
				s.put(fmt.Sprintf("image/%03d", i), nil)
			}
		}, []string{"in the folder, but not in the manifest"}},

		{"a config that is none", func(s *toy) { s.put(configFile, []byte("{}")); s.sign() }, []string{configFile, "model_type"}},
		{"a config of another model", raw(configFile, `"hidden_size": 8`, `"hidden_size": 16`), []string{"image/case.json", "multi_modal_projector.linear_1", "shape"}},
		{"a config with another image token", raw(configFile, `15`, `9`), []string{"image/input_ids.npy: 0 image tokens (id 9), want 4 for 1 images"}},

		{"another name", about(func(j *caseJSON) { j.Name = "text" }), []string{"image/case.json", `name "text", want the folder's, "image"`}},
		{"no reason", about(func(j *caseJSON) { j.Why = "" }), []string{"image/case.json", "why"}},
		{"a bug that is none", about(func(j *caseJSON) { j.Catches = []string{"C 1"} }), []string{"image/case.json", `catches: "C 1"`}},
		{"an image too many", about(func(j *caseJSON) { j.Images = append(j.Images, "x") }), []string{"image/case.json", "images: 2"}},
		{"an image of no size", about(func(j *caseJSON) { j.ImageSizes[0] = [2]int{0, 5} }), []string{"image/case.json", "image_sizes[0]"}},
		{"an image of three sizes", raw("image/case.json", `[[3,6]]`, `[[3,6,1]]`), []string{"image/case.json", "image_sizes[0]: 3 elements, want 2"}},
		{"an image of one size", raw("image/case.json", `[[3,6]]`, `[[3]]`), []string{"image/case.json", "image_sizes[0]: 1 elements, want 2"}},
		{"pixels without an image", about(func(j *caseJSON) { j.ImageSizes, j.Images = [][2]int{}, []string{} }), []string{"image/case.json", "0 images", "pixel_values.npy"}},
		{"an unknown key in a case", raw("image/case.json", `{"name"`, `{"tolerance":1e-3,"name"`), []string{"image/case.json", `key "tolerance" is not known`}},
		{"an unknown key in a node", raw("image/case.json", `"entries"`, `"kind":"Add","entries"`), []string{"image/case.json", `nodes[0]: key "kind" is not known`}},

		{"a node missing at the end", about(func(j *caseJSON) { j.Nodes = j.Nodes[:len(j.Nodes)-1] }), []string{"image/case.json", "language_model.lm_head next"}},
		{"a node missing at the start", about(func(j *caseJSON) { j.Nodes = j.Nodes[1:] }), []string{"image/case.json", `nodes[0]: name "vision_tower.vision_model.embeddings"`, "patch_embedding"}},
		{"a node too many", about(func(j *caseJSON) {
			j.Nodes = append(j.Nodes, nodeJSON{Name: "extra", Shape: []int{1}, Massive: []int{}})
		}), []string{"image/case.json", `"extra" is not in the graph`}},
		{"two nodes exchanged", about(func(j *caseJSON) { j.Nodes[3], j.Nodes[4] = j.Nodes[4], j.Nodes[3] }), []string{"image/case.json", "nodes[3]: name"}},
		{"a node of another shape", about(func(j *caseJSON) { slices.Reverse(j.Nodes[1].Shape) }), []string{"image/case.json", "nodes[1]", "shape [4 5 3], want [3 5 4]"}},
		{"an entry too few", about(func(j *caseJSON) { j.Nodes[1].Entries-- }), []string{"image/case.json", "59 entries and 15 rows, want 60 and 15"}},
		{"a row too many", about(func(j *caseJSON) { j.Nodes[1].Rows++ }), []string{"image/case.json", "60 entries and 16 rows, want 60 and 15"}},
		{"a massive column that is not there", about(func(j *caseJSON) { j.Nodes[1].Massive = []int{4} }), []string{"image/case.json", "massive[0] is 4"}},
		{"a massive column below zero", about(func(j *caseJSON) { j.Nodes[1].Massive = []int{-1} }), []string{"image/case.json", "massive[0] is -1"}},
		{"a massive column twice", about(func(j *caseJSON) { j.Nodes[1].Massive = []int{2, 2} }), []string{"image/case.json", "massive[1] is 2"}},
		{"another sample", func(s *toy) { s.files.Sample = 32; s.sign() }, []string{"image/case.json", "entries"}},

		{"an id past the vocabulary", ids("image/input_ids.npy", idsBut(1, 16)...), []string{"image/input_ids.npy: value 1 is 16, want 0 to 15"}},
		{"an id below zero", ids("image/input_ids.npy", idsBut(1, -200)...), []string{"image/input_ids.npy: value 1 is -200, want 0 to 15"}},
		{"no ids", ids("image/input_ids.npy"), []string{"image/input_ids.npy: shape [0]"}},
		{"ids of two axes", func(s *toy) { put(s, "image/input_ids.npy", good, 1, 12); s.sign() }, []string{"image/input_ids.npy: shape [1 12]"}},
		{"ids as int32", func(s *toy) { put(s, "image/input_ids.npy", make([]int32, 12), 12); s.sign() }, []string{"image/input_ids.npy: dtype <i4, want <i8"}},
		{"ids as floats", func(s *toy) { put(s, "image/input_ids.npy", make([]float64, 12), 12); s.sign() }, []string{"image/input_ids.npy: dtype <f8, want <i8"}},
		{"image tokens too few", ids("image/input_ids.npy", 1, 15, 15, 15, 1, 1, 1, 1, 1, 1, 1, 1), []string{"image/input_ids.npy: 3 image tokens", "want 4 for 1 images"}},
		{"image tokens without an image", ids("text/input_ids.npy", 1, 15, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), []string{"text/input_ids.npy: 1 image tokens", "want 0 for 0 images"}},
		{"another number of image tokens", ids("image/input_ids.npy", idsBut(1, 15)...), []string{"image/case.json", "pack_image_features: shape [7 8], want [8 8]"}},
		{"another number of ids", func(s *toy) {
			put(s, "text/input_ids.npy", make([]int64, 11), 11)
			put(s, "text/position_ids.npy", make([]int64, 11), 11)
			s.sign()
		}, []string{"text/case.json", "embed_tokens: shape [12 8], want [11 8]"}},
		{"a position too few", ids("image/position_ids.npy", 1, 2, 3), []string{"image/position_ids.npy: shape [3], want [12]"}},
		{"a position below zero", ids("image/position_ids.npy", idsBut(3, -1)...), []string{"image/position_ids.npy: value 3 is -1"}},

		{"pixels of another size", func(s *toy) { put(s, "image/pixel_values.npy", make([]float32, 144), 3, 3, 2, 8); s.sign() }, []string{"image/pixel_values.npy: shape [3 3 2 8], want [N 3 4 4]"}},
		{"a tile too few", func(s *toy) { put(s, "image/pixel_values.npy", make([]float32, 48), 1, 3, 4, 4); s.sign() }, []string{"image/pixel_values.npy: 320 bytes", "2 to 3 tiles"}},
		{"tiles too many", func(s *toy) { put(s, "image/pixel_values.npy", make([]float32, 48*400), 400, 3, 4, 4); s.sign() }, []string{"image/pixel_values.npy: 76928 bytes", "2 to 3 tiles"}},
		{"another number of tiles", func(s *toy) { put(s, "image/pixel_values.npy", make([]float32, 96), 2, 3, 4, 4); s.sign() }, []string{"image/case.json", "nodes[0]", "shape [3 4 2 2], want [2 4 2 2]"}},
		{"pixels that are not finite", values("image/pixel_values.npy", func(v []float32) { v[7] = inf }), []string{"image/pixel_values.npy: value 7 is +Inf"}},

		{"a value too few", func(s *toy) { put(s, "image/values.npy", make([]float32, 100), 100); s.sign() }, []string{"image/values.npy: 528 bytes, want"}},
		{"values of two axes", func(s *toy) {
			put(s, "image/values.npy", make([]float32, len(s.fsys["image/values.npy"].Data)/4-32), 1, len(s.fsys["image/values.npy"].Data)/4-32)
			s.sign()
		}, []string{"image/values.npy: shape [1 "}},
		{"values of double precision", func(s *toy) { put(s, "image/row_rms.npy", make([]float64, 16), 16); s.sign() }, []string{"image/row_rms.npy: 256 bytes, want"}},
		{"values in version 2.0", func(s *toy) {
			b := bytes.Clone(s.fsys["image/values.npy"].Data)
			b = slices.Concat([]byte("\x93NUMPY\x02\x00\x76\x00\x00\x00"), b[10:])
			s.put("image/values.npy", b)
			s.sign()
		}, []string{"image/values.npy: version 2.0, want 1.0"}},
		{"values in Fortran order", raw("image/floors.npy", "'fortran_order': False", "'fortran_order': True "), []string{"image/floors.npy: Fortran order"}},
		{"values that are no array", raw("image/values.npy", "NUMPY", "NUMPI"), []string{"npy: toy/image/values.npy: starts with"}},
		{"a value that is no number", values("image/values.npy", func(v []float32) { v[3] = nan }), []string{"image/values.npy: vision_tower.vision_model.embeddings.patch_embedding: row 1, column 1 is NaN"}},
		{"an infinite value", values("image/values.npy", func(v []float32) { v[48] = -inf }), []string{"image/values.npy: vision_tower.vision_model.embeddings: row 0, column 0 is -Inf"}},
		{"a row norm below zero", values("image/row_rms.npy", func(v []float32) { v[3] = -1 }), []string{"image/row_rms.npy: value 3 is -1"}},
		{"a row norm that is no number", values("image/row_rms.npy", func(v []float32) { v[3] = nan }), []string{"image/row_rms.npy: value 3 is NaN"}},
		{"a floor below zero", values("image/floors.npy", func(v []float32) { v[10] = -1 }), []string{"image/floors.npy: vision_tower.vision_model.embeddings: f32: "}},
		{"a floor without end", values("image/floors.npy", func(v []float32) { v[10] = inf }), []string{"image/floors.npy: value 10 is +Inf"}},
		{"floors of another shape", func(s *toy) {
			n := (len(s.fsys["image/floors.npy"].Data) - 128) / 4
			put(s, "image/floors.npy", make([]float32, n), n/9, 9)
			s.sign()
		}, []string{"image/floors.npy: shape", "3 3]"}},
		{"logits the other way round", func(s *toy) { put(s, "image/logits.npy", make([]float32, 192), 16, 12); s.sign() }, []string{"image/logits.npy: shape [16 12], want [12 16]"}},
		{"a logit that is no number", values("image/logits.npy", func(v []float32) { v[0] = nan }), []string{"image/logits.npy: value 0 is NaN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newToy(t)
			c.spoil(s)
			wantError(t, s.load(), c.want...)
		})
	}
}

// TestBeyondTheQuery spoils what stands above the diagonal of causal nodes that are kept whole.
func TestBeyondTheQuery(t *testing.T) {
	s := newToy(t)
	for file := range s.fsys {
		if strings.HasPrefix(file, "image/") || strings.HasPrefix(file, "text/") {
			delete(s.fsys, file)
		}
	}
	cfg, err := shapes.ParseConfig([]byte(toyConfig))
	if err != nil {
		t.Fatal(err)
	}
	s.files.Cases = []string{"text"}
	s.files.Sample = 12 * 16 * 2
	rebuild(s, cfg)
	set, err := OpenFS(s.fsys, "toy")
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.Case("text")
	if err != nil {
		t.Fatal(err)
	}
	at, spoilt := 0, 0
	for _, n := range c.Nodes {
		if n.kind == shapes.Scores || n.kind == shapes.Softmax {
			if !n.Sample.Whole() || n.Values[1] != n.beyond {
				t.Fatalf("%s: whole %v, %v beyond the query", n.Name, n.Sample.Whole(), n.Values[1])
			}
			for _, bad := range []float32{1, float32(math.NaN()), float32(math.Inf(1)), -1e30} {
				a, _ := npy.Parse("", s.fsys["text/values.npy"].Data)
				v, _ := a.Float32s()
				v[at+1] = bad
				spoiltSet := *s
				spoiltSet.fsys = fstest.MapFS{}
				for k, f := range s.fsys {
					spoiltSet.fsys[k] = f
				}
				put(&spoiltSet, "text/values.npy", v, len(v))
				spoiltSet.sign()
				wantError(t, spoiltSet.load(), "text/values.npy: "+n.Name+": row 0, column 1 is", "beyond the query")
				spoilt++
			}
		}
		at += len(n.Values)
	}
	if spoilt != 8 {
		t.Errorf("%d values spoilt, want 8", spoilt)
	}
	if err := Verify(set, nil).Err(); err != nil {
		t.Error(err)
	}
}

// rebuild makes the case "text" again with the set's sample.
func rebuild(s *toy, cfg shapes.Config) {
	s.addCase(cfg, "text", nil, 1, 3, 2, 7, 7, 9, 11, 14, 0, 4, 5, 6)
	s.sign()
}

func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(s *toy)
		want  []string
	}{
		{"a generator without versions", func(s *toy) { delete(s.files.Generator, "pillow"); s.sign() }, []string{manifestFile, "no version of pillow"}},
		{"a generator without its own version", func(s *toy) { delete(s.files.Generator, "generator"); s.sign() }, []string{manifestFile, "no version of generator"}},
		{"one witness", func(s *toy) { s.files.Witnesses = s.files.Witnesses[:1]; s.sign() }, []string{manifestFile, "witnesses: 1, want at least 2"}},
		{"the same witness twice", func(s *toy) { s.files.Witnesses[1] = s.files.Witnesses[0]; s.sign() }, []string{manifestFile, "want two different ones"}},
		{"witnesses that disagree", func(s *toy) { s.files.Witnesses[1].MaxDifference = 1e-9; s.sign() }, []string{manifestFile, "witnesses[1]: max_difference 1e-09"}},
		{"other weights", func(s *toy) { *s.files.Weights.Seed = 7; s.sign() }, []string{manifestFile, "synthetic ones of seed 7"}},
		{"logits of another run", values("image/logits.npy", func(v []float32) {
			for i := range v {
				v[i]++
			}
		}), []string{"image/logits.npy"}},
		{"a row norm that is off", values("image/row_rms.npy", func(v []float32) { v[len(v)-1] *= 0.001 }), []string{"image", "language_model.lm_head: row 11, column", "too large for a row"}},
		{"a row norm of a whole node that is off by 1e-5", values("image/row_rms.npy", func(v []float32) { v[0] *= 1.00001 }), []string{"image", "patch_embedding: row 0 has an rms of"}},
		{"a massive column that is not listed", func(s *toy) {
			edit(s, "image/case.json", func(j *caseJSON) { j.Nodes[find(j, "pack_image_features")].Massive = []int{} })
			values("image/floors.npy", func(v []float32) { clear(v) })(s)
		}, []string{"image", "pack_image_features: column 2", "massive false, want true"}},
		{"a massive column that is none", func(s *toy) {
			edit(s, "image/case.json", func(j *caseJSON) { j.Nodes[find(j, "pooled")].Massive = []int{1} })
			s.sign()
		}, []string{"image", "pooled", "column 1"}},
		{"a massive column where columns are no channels", func(s *toy) {
			edit(s, "image/case.json", func(j *caseJSON) { j.Nodes[0].Massive = []int{1} })
			s.sign()
		}, []string{"image", "patch_embedding", "no channel axis"}},
		{"a file that Case refuses", func(s *toy) { s.fsys["text/values.npy"].Data[500] ^= 1 }, []string{"text/values.npy: sha256"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newToy(t)
			c.spoil(s)
			set, err := OpenFS(s.fsys, "toy")
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, Verify(set, nil).Err(), c.want...)
		})
	}
}

// wantError wants every part in an error.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error\n%v\nwant in it\n%s", err, p)
		}
	}
	if !strings.HasPrefix(err.Error(), "golden: ") || len(err.Error()) > 2000 {
		t.Errorf("error %.200q (%d bytes), want golden: in front and no more than 2000 bytes", err, len(err.Error()))
	}
}

// hugeFS claims and gives a manifest of 1 GB.
type hugeFS struct {
	fstest.MapFS
	claimed int64
	read    *int64
}

func (h hugeFS) Open(name string) (fs.File, error) {
	if name != manifestFile {
		return h.MapFS.Open(name)
	}
	return &hugeFile{h, h.claimed}, nil
}

func (h hugeFS) Lstat(name string) (fs.FileInfo, error) { return hugeInfo{h.claimed}, nil }

type hugeFile struct {
	h    hugeFS
	size int64
}

func (f *hugeFile) Stat() (fs.FileInfo, error) { return hugeInfo{f.size}, nil }
func (f *hugeFile) Close() error               { return nil }
func (f *hugeFile) Read(b []byte) (int, error) {
	*f.h.read += int64(len(b))
	for i := range b {
		b[i] = '['
	}
	return len(b), nil
}

type hugeInfo struct{ size int64 }

func (i hugeInfo) Name() string       { return manifestFile }
func (i hugeInfo) Size() int64        { return i.size }
func (i hugeInfo) Mode() fs.FileMode  { return 0o444 }
func (i hugeInfo) ModTime() time.Time { return time.Time{} }
func (i hugeInfo) IsDir() bool        { return false }
func (i hugeInfo) Sys() any           { return nil }

func TestMemoryIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		claimed int64
		read    int64 // at most
	}{
		"a manifest of 1 GB":                             {1 << 30, 0},
		"a manifest that claims little and does not end": {100, maxManifest + 1<<16},
	} {
		t.Run(name, func(t *testing.T) {
			read := int64(0)
			got := allocated(func() {
				_, err := OpenFS(hugeFS{fstest.MapFS{}, c.claimed, &read}, "toy")
				wantError(t, err, manifestFile, "want at most 16777216")
			})
			if read > c.read || got > 8*maxManifest {
				t.Errorf("%d bytes read, %d allocated", read, got)
			}
		})
	}
	t.Run("files that claim to be large", func(t *testing.T) {
		s := newToy(t)
		edit(s, manifestFile, func(m *Manifest) {
			f := m.Files["image/values.npy"]
			f.Bytes = 1 << 40
			m.Files["image/values.npy"] = f
		})
		if got := allocated(func() { wantError(t, s.load(), "image/values.npy", "want 1099511627776") }); got > 4<<20 {
			t.Errorf("%d bytes allocated", got)
		}
	})
	t.Run("a prompt that claims to be long", func(t *testing.T) {
		s := newToy(t)
		edit(s, "text/case.json", func(j *caseJSON) {
			for i := range j.Nodes {
				j.Nodes[i].Shape[0] = 1 << 40
			}
		})
		s.sign()
		if got := allocated(func() { wantError(t, s.load(), "text/case.json", "want [12 8]") }); got > 4<<20 {
			t.Errorf("%d bytes allocated", got)
		}
	})
	t.Run("a configuration that asks for much", func(t *testing.T) {
		s := newToy(t)
		config := strings.ReplaceAll(toyConfig, `"intermediate_size": 16`, `"intermediate_size": 16777216`)
		config = strings.ReplaceAll(config, `"vocab_size": 16`, `"vocab_size": 16777216`)
		s.put(configFile, []byte(config))
		s.sign()
		if got := allocated(func() { wantError(t, s.load(), "image/case.json", "gate_proj", "16777216]") }); got > 4<<20 {
			t.Errorf("%d bytes allocated", got)
		}
	})
	t.Run("a node past what can be counted", func(t *testing.T) {
		s := newToy(t)
		config := strings.ReplaceAll(toyConfig, `"image_size": 4, "patch_size": 2`, `"image_size": 16384, "patch_size": 1`)
		config = strings.ReplaceAll(config, `[[4, 8], [8, 4]]`, `[[16384, 32768]]`)
		s.put(configFile, []byte(config))
		s.sign()
		wantError(t, s.load(), "image/")
	})
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// write puts the set into a folder.
func (s *toy) write() string {
	s.t.Helper()
	dir := s.t.TempDir()
	if err := os.CopyFS(dir, s.fsys); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func TestOpenAFolder(t *testing.T) {
	dir := newToy(t).write()
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // the set keeps its folder open
	for _, name := range set.Cases() {
		if _, err := set.Case(name); err != nil {
			t.Error(err)
		}
	}
	if err := Verify(set, nil).Err(); err != nil {
		t.Error(err)
	}
	t.Run("a file that changes after Open", func(t *testing.T) {
		path := filepath.Join(dir, "text", "values.npy")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = set.Case("text")
		wantError(t, err, "golden: "+dir+": text/values.npy: sha256")
		if err := os.WriteFile(path, append(b, 0), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = set.Case("text")
		wantError(t, err, fmt.Sprintf("text/values.npy: %d bytes, want at most %d", len(b)+1, len(b)))
		if err := os.WriteFile(path, b[:len(b)-1], 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = set.Case("text")
		wantError(t, err, fmt.Sprintf("text/values.npy: %d bytes, want %d", len(b)-1, len(b)))
	})
	for _, name := range []string{manifestFile, configFile, "image/values.npy", "image"} {
		t.Run(name+" a link to a file outside", func(t *testing.T) {
			dir, outside := newToy(t).write(), t.TempDir()
			target := filepath.Join(outside, "target")
			if err := os.Rename(filepath.Join(dir, name), target); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			wantError(t, err, name+": a symbolic link, want a f")
		})
	}
	t.Run("a manifest of 1 GB", func(t *testing.T) {
		dir := newToy(t).write()
		if err := os.Truncate(filepath.Join(dir, manifestFile), 1<<30); err != nil {
			t.Fatal(err)
		}
		if got := allocated(func() {
			_, err := Open(dir)
			wantError(t, err, manifestFile, "1073741824 bytes, want at most 16777216")
		}); got > 1<<20 {
			t.Errorf("%d bytes allocated", got)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		_, err := Open(filepath.Join(dir, "none"))
		wantError(t, err, "none: no such file")
		_, err = Open(filepath.Join(dir, manifestFile))
		wantError(t, err, manifestFile)
	})
	t.Run("an empty folder", func(t *testing.T) {
		_, err := Open(t.TempDir())
		wantError(t, err, manifestFile, "no such file")
	})
}

// FuzzCase reads a set whose case.json is anything at all, with the right digest.
func FuzzCase(f *testing.F) {
	s := newToy(f)
	set, err := OpenFS(s.fsys, "toy")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.fsys["text/case.json"].Data)
	f.Add(s.fsys["image/case.json"].Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := sha256.Sum256(data)
		s.put("text/case.json", data)
		set.Manifest.Files["text/case.json"] = File{hex.EncodeToString(sum[:]), int64(len(data))}
		if c, err := set.Case("text"); err == nil && (c.Name != "text" || len(c.Nodes) == 0) {
			t.Errorf("%+v", c)
		}
	})
}

// FuzzManifest reads anything as a manifest.
func FuzzManifest(f *testing.F) {
	f.Add(newToy(f).fsys[manifestFile].Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		for path := range m.Files {
			if !fs.ValidPath(path) || strings.Contains(path, "..") && !caseName.MatchString(strings.Split(path, "/")[0]) {
				t.Errorf("path %q", path)
			}
		}
	})
}
