package enginetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing/fstest"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// configJSON is a LLaVA-1.6 of 3 + 2 layers.
const configJSON = `{
  "image_grid_pinpoints": [[56, 112], [112, 56]],
  "image_token_index": 60,
  "model_type": "llava_next",
  "text_config": {
    "head_dim": 16, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "vocab_size": 64, "model_type": "llama"
  },
  "torch_dtype": "float32",
  "vision_config": {
    "hidden_size": 32, "image_size": 56, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3,
    "patch_size": 14, "model_type": "clip_vision_model"
  },
  "vision_feature_layer": -2
}
`

// Config is the model of the small set.
func Config() shapes.Config {
	c, err := shapes.ParseConfig([]byte(configJSON))
	if err != nil {
		panic(err)
	}
	return c
}

// FS is the small golden set, called mini: a prompt with an image and one without. Its truth is the reference's own,
// so it shows what the suite does with differences and nothing about the reference.
func FS() fstest.MapFS { return miniFS() }

// Target is the small set with its weights.
func Target() conformance.Target {
	set, err := golden.OpenFS(FS(), "mini")
	if err != nil {
		panic(err)
	}
	return conformance.Target{Set: set, Weights: checkpoint.Synthetic(Config(), 0)}
}

// Write writes a set into a folder.
func Write(dir string, fsys fstest.MapFS) error {
	for path, f := range fsys {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// WithCheckpoint is the small set with its weights said to be those of a checkpoint instead of synthetic ones.
func WithCheckpoint() fstest.MapFS {
	m := maps.Clone(FS())
	var doc map[string]any
	if err := json.Unmarshal(m["manifest.json"].Data, &doc); err != nil {
		panic(err)
	}
	weights := doc["weights"].(map[string]any)
	weights["kind"] = golden.Checkpoint
	delete(weights, "seed")
	m["manifest.json"] = &fstest.MapFile{Data: marshal(doc)}
	return m
}

// WithWrongTruth is the small set as a model with QuickGELU in its projector would have it: the reference does not conform to it.
func WithWrongTruth() fstest.MapFS {
	return build(Graph{Swap: func(n shapes.Node) shapes.Node {
		if n.Kind == shapes.GELU {
			n.Kind = shapes.QuickGELU
		}
		return n
	}})
}

var miniFS = sync.OnceValue(func() fstest.MapFS { return build(Graph{}) })

// build makes the small set, the truth being what an engine shows.
func build(truth Graph) fstest.MapFS {
	c := Config()
	w := checkpoint.Synthetic(c, 0)
	digest, err := checkpoint.Digest(c, w, nil)
	if err != nil {
		panic(err)
	}
	b := builder{config: c, weights: w, truth: truth, files: fstest.MapFS{}, listed: map[string]any{}}
	b.add("config.json", []byte(configJSON))
	b.addCase("image", "A prompt with an image of 40x70 pixels.", imagePrompt(c))
	b.addCase("text", "A prompt without an image.", textPrompt())
	b.files["manifest.json"] = &fstest.MapFile{Data: marshal(map[string]any{
		"format": 1, "model": "mini", "weights": map[string]any{"kind": golden.Synthetic, "seed": 0, "sha256": digest},
		"sample": 300, "classes": golden.Classes(),
		"generator": map[string]string{"generator": "enginetest", "python": "none", "numpy": "none", "pillow": "none"},
		"witnesses": []golden.Witness{{Transformers: "none", Torch: "the reference"}, {Transformers: "none", Torch: "the reference again"}},
		"cases":     []string{"image", "text"}, "files": b.listed,
	})}
	return b.files
}

func imagePrompt(c shapes.Config) shapes.Inputs {
	size := shapes.Size{H: 40, W: 70}
	grid, side := ref.TileGrid(c, size), c.Vision.PatchesPerSide()
	_, kept := preprocess.Unpad(size, shapes.Size{H: grid.H * side, W: grid.W * side})
	rng := rand.New(rand.NewPCG(1, 2))
	px := shapes.NewTensor(1+grid.Area(), 3, c.Vision.ImageSize, c.Vision.ImageSize)
	for i := range px.Data {
		px.Data[i] = float32(rng.IntN(512)-256) / 128
	}
	in := shapes.Inputs{PixelValues: px, ImageSizes: []shapes.Size{size}, InputIDs: []int{1, 17, 5}}
	for range side*side + kept.H*(kept.W+1) {
		in.InputIDs = append(in.InputIDs, c.ImageTokenID)
	}
	in.InputIDs = append(in.InputIDs, 9, 31, 2, 44)
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	return in
}

func textPrompt() shapes.Inputs {
	in := shapes.Inputs{InputIDs: []int{1}}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 15 {
		in.InputIDs = append(in.InputIDs, 2+rng.IntN(50))
	}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	return in
}

// builder gathers the files of a set.
type builder struct {
	config  shapes.Config
	weights shapes.Weights
	truth   Graph
	files   fstest.MapFS
	listed  map[string]any
}

func (b *builder) add(path string, data []byte) {
	b.files[path] = &fstest.MapFile{Data: data}
	sum := sha256.Sum256(data)
	b.listed[path] = map[string]any{"sha256": hex.EncodeToString(sum[:]), "bytes": len(data)}
}

func addArray[T npy.Element](b *builder, path string, data []T, shape ...int) {
	var buf bytes.Buffer
	if err := npy.Write(&buf, shape, data); err != nil {
		panic(err)
	}
	b.add(path, buf.Bytes())
}

// dump runs an engine and keeps everything it shows.
func (b *builder) dump(g Graph, in shapes.Inputs) map[string]shapes.Tensor {
	values := map[string]shapes.Tensor{}
	e, _ := g.Opener()(b.config, b.weights)
	if _, err := e.Forward(in, func(name string, t shapes.Tensor) { values[name] = t }); err != nil {
		panic(err)
	}
	return values
}

func (b *builder) addCase(name, why string, in shapes.Inputs) {
	const sample = 300
	truth := b.dump(b.truth, in)
	rng := rand.New(rand.NewPCG(5, 6))
	noisy := func(_ shapes.Node, _ []shapes.Tensor, y shapes.Tensor) shapes.Tensor {
		for i, v := range y.Data {
			y.Data[i] = v + v*float32(rng.Float64()-0.5)*0x1p-22
		}
		return y
	}
	classes := []map[string]shapes.Tensor{
		b.dump(Graph{Swap: b.truth.Swap, Change: noisy}, in),
		b.dump(Graph{Swap: b.truth.Swap, Change: Rounded(compare.F16)}, in),
		b.dump(Graph{Swap: b.truth.Swap, Change: Rounded(compare.BF16)}, in),
	}
	var values, rowRMS, floors []float32
	var nodes []any
	dims := shapes.DimsOf(b.config, in)
	for _, n := range shapes.Nodes(b.config) {
		if !n.Present(dims) {
			continue
		}
		s := golden.SampleOf(n, dims, sample)
		want := golden.Gather(truth[n.Name], s)
		rms := rowsOf(truth[n.Name], s)
		values, rowRMS = append(values, want...), append(rowRMS, rms...)
		for _, class := range classes {
			floors = append(floors, floorOf(want, golden.Gather(class[n.Name], s), rms, s.PerRow())...)
		}
		nodes = append(nodes, map[string]any{"name": n.Name, "shape": n.Concrete(dims), "entries": s.Entries(), "rows": s.Rows(), "massive": []int{}})
	}
	sizes := [][2]int{}
	images := []string{}
	for _, size := range in.ImageSizes {
		sizes, images = append(sizes, [2]int{size.H, size.W}), append(images, "noise")
	}
	b.add(name+"/case.json", marshal(map[string]any{"name": name, "why": why, "catches": []string{}, "image_sizes": sizes, "images": images, "nodes": nodes}))
	if in.PixelValues.Shape != nil {
		addArray(b, name+"/pixel_values.npy", in.PixelValues.Data, in.PixelValues.Shape...)
	}
	addArray(b, name+"/input_ids.npy", int64s(in.InputIDs), len(in.InputIDs))
	addArray(b, name+"/position_ids.npy", int64s(in.PositionIDs), len(in.PositionIDs))
	addArray(b, name+"/values.npy", values, len(values))
	addArray(b, name+"/row_rms.npy", rowRMS, len(rowRMS))
	addArray(b, name+"/floors.npy", floors, len(nodes), 3, 3)
	logits := truth[shapes.LMHead]
	addArray(b, name+"/logits.npy", logits.Data, logits.Shape...)
}

// rowsOf is the root mean square of each kept row over the columns that exist in it.
func rowsOf(t shapes.Tensor, s golden.Sample) []float32 {
	var out []float32
	for i := range s.Rows() {
		sum, width := 0.0, s.Width(s.Row(i))
		for _, v := range t.Row(s.Row(i))[:width] {
			sum += float64(v) * float64(v)
		}
		out = append(out, float32(math.Sqrt(sum/float64(width))))
	}
	return out
}

// floorOf is the three floors of docs/golden-format.md; no column of this set is massive.
func floorOf(want, got, rowRMS []float32, perRow int) []float32 {
	var errs, vals float64
	n := 0
	rows := make([]float64, len(rowRMS))
	for r := range rows {
		sum, k := 0.0, 0
		for j := r * perRow; j < (r+1)*perRow; j++ {
			if math.IsInf(float64(want[j]), 0) {
				continue
			}
			d := float64(got[j]) - float64(want[j])
			sum += d * d
			errs += d * d
			vals += float64(want[j]) * float64(want[j])
			k++
		}
		n += k
		rows[r] = math.Sqrt(sum / float64(k))
	}
	whole, worst := math.Sqrt(vals/float64(n)), 0.0
	for r, e := range rows {
		worst = max(worst, e/max(float64(rowRMS[r]), whole/64))
	}
	return []float32{float32(math.Sqrt(errs / vals)), float32(worst), 0}
}

func int64s(x []int) []int64 {
	out := make([]int64, len(x))
	for i, v := range x {
		out[i] = int64(v)
	}
	return out
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprint("enginetest: ", err))
	}
	return data
}
