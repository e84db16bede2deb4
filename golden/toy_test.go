package golden

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// toyConfig is the smallest model with every kind of node: 4 px tiles of 2x2 patches, one head layer each.
const toyConfig = `{"model_type": "llava_next", "image_token_index": 15, "image_grid_pinpoints": [[4, 8], [8, 4]],
 "vision_config": {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 4, "patch_size": 2},
 "text_config": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16}}`

// toySample keeps the small nodes of the toy whole and samples the others.
const toySample = 64

// toy is a valid set in memory, made of random numbers, that a test spoils.
type toy struct {
	t     testing.TB
	fsys  fstest.MapFS
	files Manifest
}

// firstToy is the one that newToy copies.
var firstToy *toy

// newToy gives a set of two cases, one of them with an image.
func newToy(t testing.TB) *toy {
	t.Helper()
	if firstToy == nil {
		firstToy = makeToy(t)
	}
	s := &toy{t: t, fsys: fstest.MapFS{}}
	for file, f := range firstToy.fsys {
		s.put(file, bytes.Clone(f.Data))
	}
	if err := json.Unmarshal(s.fsys[manifestFile].Data, &s.files); err != nil {
		t.Fatal(err)
	}
	return s
}

func makeToy(t testing.TB) *toy {
	cfg, err := shapes.ParseConfig([]byte(toyConfig))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(0)
	digest, err := checkpoint.Digest(cfg, checkpoint.Synthetic(cfg, seed), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &toy{t: t, fsys: fstest.MapFS{}, files: Manifest{
		Format: 1, Model: "toy", Weights: Weights{Synthetic, &seed, digest}, Sample: toySample, Classes: Classes(),
		Generator: map[string]string{"generator": "1", "python": "3.13", "numpy": "2.4", "pillow": "12.1.1"},
		Witnesses: []Witness{{Transformers: "4.51.3", Torch: "2.6.0"}, {Transformers: "5.23.0", Torch: "2.15.0", MaxDifference: 1e-13}},
		Cases:     []string{"image", "text"},
	}}
	s.put(configFile, []byte(toyConfig))
	s.addCase(cfg, "image", []shapes.Size{{H: 3, W: 6}}, 1, 3, 15, 15, 15, 15, 15, 15, 15, 4, 5, 6)
	s.addCase(cfg, "text", nil, 1, 3, 2, 7, 7, 9, 11, 14, 0, 4, 5, 6) // as long as the other, so that files can be exchanged
	s.sign()
	return s
}

// put writes a file of the set.
func (s *toy) put(file string, data []byte) { s.fsys[file] = &fstest.MapFile{Data: data} }

// sign writes the manifest over the files as they are.
func (s *toy) sign() {
	s.files.Files = map[string]File{}
	for file, f := range s.fsys {
		if file != manifestFile {
			sum := sha256.Sum256(f.Data)
			s.files.Files[file] = File{hex.EncodeToString(sum[:]), int64(len(f.Data))}
		}
	}
	s.putJSON(manifestFile, s.files)
}

func (s *toy) putJSON(file string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	s.put(file, data)
}

func put[T npy.Element](s *toy, file string, data []T, shape ...int) {
	s.t.Helper()
	var buf bytes.Buffer
	if err := npy.Write(&buf, shape, data); err != nil {
		s.t.Fatal(err)
	}
	s.put(file, buf.Bytes())
}

func (s *toy) addCase(cfg shapes.Config, name string, images []shapes.Size, ids ...int64) {
	rng := rand.New(rand.NewPCG(1, uint64(len(images))))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	in := shapes.Inputs{ImageSizes: images}
	for _, id := range ids {
		in.InputIDs = append(in.InputIDs, int(id))
	}
	j := caseJSON{Name: name, Why: "A toy.", Catches: []string{"C01"}, ImageSizes: [][2]int{}, Images: []string{}, Nodes: []nodeJSON{}}
	if len(images) > 0 {
		tiles := 3 * len(images)
		in.PixelValues = shapes.Tensor{Shape: []int{tiles, 3, 4, 4}, Data: random(tiles * 48)}
		put(s, path.Join(name, pixelFile), in.PixelValues.Data, in.PixelValues.Shape...)
	}
	for _, size := range images {
		j.ImageSizes = append(j.ImageSizes, [2]int{size.H, size.W})
		j.Images = append(j.Images, "a drawing")
	}
	positions := make([]int64, len(ids))
	for i := range positions {
		positions[i] = int64(i * (1 + len(images)))
	}
	put(s, path.Join(name, inputIDsFile), ids, len(ids))
	put(s, path.Join(name, positionIDsFile), positions, len(ids))

	d := shapes.DimsOf(cfg, in)
	var values, rms []float32
	for _, n := range shapes.Nodes(cfg) {
		if !n.Present(d) {
			continue
		}
		shape := n.Concrete(d)
		x := shapes.Tensor{Shape: shape, Data: random(shapes.Product(shape))}
		if channels(n.Kind) && x.Cols() > 4 {
			for r := range x.Rows() {
				x.Row(r)[2] *= 100
			}
		}
		if causal(n) {
			for r := range x.Rows() {
				for c := 1 + r%shape[len(shape)-2]; c < x.Cols(); c++ {
					x.Row(r)[c] = 0
					if n.Kind == shapes.Scores {
						x.Row(r)[c] = float32(math.Inf(-1))
					}
				}
			}
		}
		sample := SampleOf(n, d, s.files.Sample)
		values = append(values, Gather(x, sample)...)
		for i := range sample.Rows() {
			sum, w := 0.0, sample.Width(sample.Row(i))
			for _, v := range x.Row(sample.Row(i))[:w] {
				sum += float64(v) * float64(v)
			}
			rms = append(rms, float32(math.Sqrt(sum/float64(w))))
		}
		j.Nodes = append(j.Nodes, nodeJSON{n.Name, shape, sample.Entries(), sample.Rows(), massiveOf(n, x)})
		if n.Name == shapes.LMHead {
			put(s, path.Join(name, logitsFile), x.Data, shape...)
		}
	}
	floors := make([]float32, len(j.Nodes)*9)
	for i := range floors {
		if i%3 < 2 || len(j.Nodes[i/9].Massive) > 0 {
			floors[i] = rng.Float32()
		}
	}
	s.putJSON(path.Join(name, caseFile), j)
	put(s, path.Join(name, valuesFile), values, len(values))
	put(s, path.Join(name, rowRMSFile), rms, len(rms))
	put(s, path.Join(name, floorsFile), floors, len(j.Nodes), 3, 3)
}

// massiveOf finds the massive columns of a whole tensor.
func massiveOf(n shapes.Node, x shapes.Tensor) []int {
	found := []int{}
	if !channels(n.Kind) {
		return found
	}
	rms := make([]float64, x.Cols())
	for i, v := range x.Data {
		rms[i%x.Cols()] += float64(v) * float64(v)
	}
	for c := range rms {
		rms[c] = math.Sqrt(rms[c])
	}
	sorted := slices.Sorted(slices.Values(rms))
	for c, v := range rms {
		if v > 6*(sorted[(len(rms)-1)/2]+sorted[len(rms)/2])/2 {
			found = append(found, c)
		}
	}
	return found
}

// edit decodes a JSON file of the set, changes it and writes it back, unsigned.
func edit[T any](s *toy, file string, change func(*T)) {
	s.t.Helper()
	var v T
	if err := json.Unmarshal(s.fsys[file].Data, &v); err != nil {
		s.t.Fatal(err)
	}
	change(&v)
	s.putJSON(file, v)
}

// load opens the set and reads all cases; the first error.
func (s *toy) load() error {
	set, err := OpenFS(s.fsys, "toy")
	if err != nil {
		return err
	}
	for _, name := range set.Cases() {
		if _, err := set.Case(name); err != nil {
			return err
		}
	}
	return nil
}
