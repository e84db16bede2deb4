package golden

import (
	"bytes"
	"image/png"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	npyio "github.com/sbinet/npyio/npy"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

func open(t *testing.T, name string) *Set {
	t.Helper()
	s, err := Embedded(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEmbeddedSets(t *testing.T) {
	page, err := os.ReadFile("../docs/known-bugs.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			s := open(t, name)
			if s.Manifest.Model != name {
				t.Errorf("model %q", s.Manifest.Model)
			}
			want, err := shapes.ModelJSON(name)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := shapes.ParseConfig(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(cfg, s.Config); diff != "" {
				t.Errorf("configuration (-shapes/models +set):\n%s", diff)
			}
			if c := s.provenance(); c.Err != nil {
				t.Error(c.Err)
			}
			for _, name := range s.Cases() {
				c, err := s.Case(name)
				if err != nil {
					t.Fatal(err)
				}
				if check := s.checkCase(c); check.Err != nil {
					t.Error(check.Err)
				}
				checkImages(t, c)
				checkCatches(t, c, page)
			}
			if _, values := shapes.Total(shapes.Params(cfg)); values < 1e7 { // wide's weights take too long here: golden verify makes them
				if c := s.weights(nil); c.Err != nil || c.Skip != "" {
					t.Error(c.Skip, c.Err)
				}
			}
		})
	}
}

// checkImages holds the pictures against the sizes that the case gives them.
func checkImages(t *testing.T, c *Case) {
	for i, image := range c.Images {
		data, err := Image(image)
		if err != nil {
			t.Error(err)
			continue
		}
		cfg, err := png.DecodeConfig(bytes.NewReader(data))
		if got := (shapes.Size{H: cfg.Height, W: cfg.Width}); err != nil || got != c.Inputs.ImageSizes[i] {
			t.Errorf("%s: %s: %v, %v, want %v", c.Name, image, got, err, c.Inputs.ImageSizes[i])
		}
	}
}

// checkCatches holds the ids of the case against the page that explains them.
func checkCatches(t *testing.T, c *Case, page []byte) {
	if len(c.Catches) == 0 {
		t.Errorf("%s catches nothing", c.Name)
	}
	for _, id := range c.Catches {
		if !regexp.MustCompile(`\b` + id + `\b`).Match(page) {
			t.Errorf("%s: %s is not in docs/known-bugs.md", c.Name, id)
		}
	}
}

func TestWhatIsNotEmbedded(t *testing.T) {
	for _, name := range []string{"images/../tiny-1.6/manifest.json", "tiny-1.6/manifest.json", "/images/x", "images/none.png", "images", ""} {
		if _, err := Image(name); err == nil {
			t.Errorf("Image(%q): no error", name)
		}
	}
	if _, err := Embedded("../tiny"); err == nil || !strings.Contains(err.Error(), `set "../tiny" is not known`) {
		t.Errorf("error %v", err)
	}
}

// TestEmbeddedArraysAgainstNpyio reads every array of a case with the other reader.
func TestEmbeddedArraysAgainstNpyio(t *testing.T) {
	for file, f := range inMemory(t, "tiny-1.6") {
		if path.Dir(file) != "two-images" || path.Ext(file) != ".npy" {
			continue
		}
		a, err := npy.Parse(file, f.Data)
		if err != nil {
			t.Fatal(err)
		}
		if a.DType == "<i8" {
			compareArrays(t, file, f.Data, a.Int64s)
		} else {
			compareArrays(t, file, f.Data, a.Float32s)
		}
	}
}

func compareArrays[T comparable](t *testing.T, file string, data []byte, read func() ([]T, error)) {
	t.Helper()
	ours, err := read()
	if err != nil {
		t.Fatal(err)
	}
	var theirs []T
	if err := npyio.Read(bytes.NewReader(data), &theirs); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ours, theirs) {
		t.Errorf("%s: npyio has other values", file)
	}
}

// inMemory is a copy of an embedded set that a test may spoil.
func inMemory(t *testing.T, name string) fstest.MapFS {
	t.Helper()
	sub, err := fs.Sub(embedded, "data/"+name)
	if err != nil {
		t.Fatal(err)
	}
	m := fstest.MapFS{}
	if err := fs.WalkDir(sub, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(sub, p)
		m[p] = &fstest.MapFile{Data: data}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestASpoiledEmbeddedSet flips one bit in one file of each kind, exchanges files of the same size, and sees the file named.
func TestASpoiledEmbeddedSet(t *testing.T) {
	m := inMemory(t, "tiny-1.6")
	s, err := OpenFS(m, "tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	load := func(c string) error { // files that change after Open are as wrong as those before
		_, err := s.Case(c)
		return err
	}
	const name = "photo-2x2-rows"
	if err := load(name); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{configFile, path.Join(name, valuesFile)} {
		whole := m[file]
		spoilt := bytes.Clone(whole.Data)
		spoilt[len(spoilt)/3] ^= 1
		m[file] = &fstest.MapFile{Data: spoilt}
		reopened, err := OpenFS(m, "tiny-1.6")
		if err == nil {
			_, err = reopened.Case(name)
		}
		wantError(t, err, "golden: tiny-1.6: "+file+": sha256")
		m[file] = whole
	}
	files := []string{path.Join(name, pixelFile)}
	for _, f := range caseFiles {
		files = append(files, path.Join(name, f))
	}
	for _, file := range files {
		whole := m[file].Data
		for _, at := range []int{0, len(whole) / 2, len(whole) - 1} {
			spoilt := bytes.Clone(whole)
			spoilt[at] ^= 0x10
			m[file] = &fstest.MapFile{Data: spoilt}
			wantError(t, load(name), "golden: tiny-1.6: "+file+": sha256")
		}
		for _, spoilt := range [][]byte{whole[:len(whole)-1], append(bytes.Clone(whole), 0)} {
			m[file] = &fstest.MapFile{Data: spoilt}
			wantError(t, load(name), "golden: tiny-1.6: "+file+": ", "bytes, want")
		}
		m[file] = &fstest.MapFile{Data: whole}
	}
	t.Run("files of one size exchanged", func(t *testing.T) {
		a := path.Join(name, inputIDsFile)
		for _, b := range []string{path.Join(name, positionIDsFile), "text-far-positions/values.npy"} {
			if b[0] == 't' {
				a = "text-small-norms/values.npy"
			}
			if len(m[a].Data) != len(m[b].Data) {
				t.Fatalf("%s and %s have different sizes", a, b)
			}
			m[a], m[b] = m[b], m[a]
			wantError(t, load(path.Dir(a)), "golden: tiny-1.6: "+a+": sha256")
			m[a], m[b] = m[b], m[a]
		}
	})
}

// TestEveryCaseHasItsOwnInputs: two cases with the same inputs would count one observation twice.
func TestEveryCaseHasItsOwnInputs(t *testing.T) {
	for _, name := range Names() {
		s := open(t, name)
		seen := map[string]string{}
		for _, name := range s.Cases() {
			key := s.Manifest.Files[name+"/"+inputIDsFile].SHA256 + s.Manifest.Files[name+"/"+positionIDsFile].SHA256 + s.Manifest.Files[name+"/"+pixelFile].SHA256
			if other, twice := seen[key]; twice {
				t.Errorf("%s and %s have the same inputs", other, name)
			}
			seen[key] = name
		}
	}
	for _, name := range []string{"tiny-1.5", "tiny-1.6"} {
		if !slices.Contains(Names(), name) {
			t.Errorf("sets %v, want %s among them", Names(), name)
		}
	}
}

func BenchmarkCase(b *testing.B) {
	s, err := Embedded("tiny-1.6")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Case("photo-2x2-rows"); err != nil {
			b.Fatal(err)
		}
	}
}
