package ref_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func config(t testing.TB, name string) shapes.Config {
	t.Helper()
	c, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// prompt makes a prompt with images of the given sizes, text before, between and after them.
func prompt(t testing.TB, c shapes.Config, sizes ...shapes.Size) shapes.Inputs {
	t.Helper()
	r := rand.New(rand.NewPCG(5, uint64(len(sizes))))
	in := shapes.Inputs{ImageSizes: sizes}
	text := func(n int) {
		for range n {
			in.InputIDs = append(in.InputIDs, r.IntN(c.ImageTokenID))
		}
	}
	text(5)
	tiles := 0
	for _, s := range sizes {
		rows := c.FeaturesPerTile()
		if c.ModelType == shapes.LlavaNext {
			grid := ref.TileGrid(c, s)
			features := ref.Tensor{Shape: []int{1 + grid.Area(), c.FeaturesPerTile(), 1}, Data: make([]float32, (1+grid.Area())*c.FeaturesPerTile())}
			packed, err := ref.PackImageFeatures(c, features, shapes.NewTensor(1), []shapes.Size{s})
			if err != nil {
				t.Fatal(err)
			}
			rows = packed.Rows()
			tiles += grid.Area()
		}
		tiles++
		in.InputIDs = append(in.InputIDs, slices.Repeat([]int{c.ImageTokenID}, rows)...)
		text(3)
	}
	if tiles > 0 {
		in.PixelValues = shapes.NewTensor(tiles, 3, c.Vision.ImageSize, c.Vision.ImageSize)
		for i := range in.PixelValues.Data {
			in.PixelValues.Data[i] = float32(r.IntN(4096)-2048) / 1024
		}
	}
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	return in
}

// run returns every node that Forward shows.
func run(t testing.TB, c shapes.Config, w shapes.Weights, in shapes.Inputs) map[string]ref.Tensor {
	t.Helper()
	nodes := map[string]ref.Tensor{}
	_, err := ref.New(c, w).Forward(in, func(name string, v ref.Tensor) {
		nodes[name] = ref.Tensor{Shape: slices.Clone(v.Shape), Data: slices.Clone(v.Data)}
	})
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// Forward shows the nodes of the graph, all of them, in its order and with its shapes.
func TestForwardShowsTheGraph(t *testing.T) {
	for _, test := range []struct {
		name, model string
		sizes       []shapes.Size
	}{
		{"text only", "tiny-1.6", nil},
		{"one image", "tiny-1.6", []shapes.Size{{H: 90, W: 61}}},
		{"two images", "tiny-1.6", []shapes.Size{{H: 50, W: 170}, {H: 33, W: 20}}},
		{"LLaVA-1.5", "tiny-1.5", []shapes.Size{{H: 56, W: 56}, {H: 56, W: 56}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(t, test.model)
			in := prompt(t, c, test.sizes...)
			dims := shapes.DimsOf(c, in)
			var want, got []string
			for _, n := range shapes.Nodes(c) {
				if n.Present(dims) {
					want = append(want, fmt.Sprint(n.Name, n.Concrete(dims)))
				}
			}
			_, err := ref.New(c, checkpoint.Synthetic(c, 0)).Forward(in, func(name string, v ref.Tensor) {
				got = append(got, fmt.Sprint(name, v.Shape))
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Fatalf("node %d of %d: want %v, got %v", i, len(want), want[min(i, len(want)-1):][:1], got[min(i, len(got)-1):][:1])
				}
			}
		})
	}
}

// The digests in testdata/bits.txt were made on amd64; the arm64 run must find the same ones. UPDATE_BITS=1 writes them anew.
func TestBitsAreTheSameOnEveryProcessor(t *testing.T) {
	var lines []string
	for _, model := range []string{"tiny-1.6", "tiny-1.5"} {
		c := config(t, model)
		in := prompt(t, c, shapes.Size{H: 90, W: 61})
		for i := range in.PositionIDs {
			in.PositionIDs[i] += i / 20 * 1500 // gaps, into the thousands
		}
		nodes := run(t, c, checkpoint.Synthetic(c, 0), in)
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			h := sha256.New()
			if err := binary.Write(h, binary.LittleEndian, nodes[name].Data); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s", hex.EncodeToString(h.Sum(nil)[:8]), model, name))
		}
	}
	const file = "testdata/bits.txt"
	if os.Getenv("UPDATE_BITS") != "" {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(want) != len(lines) {
		t.Fatalf("%d digests, %s has %d", len(lines), file, len(want))
	}
	bad := 0
	for i := range want {
		if want[i] != lines[i] {
			bad++
			t.Logf("got %s, want %s", lines[i], want[i])
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d nodes have other bits", runtime.GOARCH, bad, len(want))
	}
}

func TestTheNumberOfCoresChangesNoBit(t *testing.T) {
	c := config(t, "tiny-1.6")
	in := prompt(t, c, shapes.Size{H: 50, W: 170})
	all := run(t, c, checkpoint.Synthetic(c, 0), in)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, v := range run(t, c, checkpoint.Synthetic(c, 0), in) {
		if !sameBits(v.Data, all[name].Data) {
			t.Errorf("%s", name)
		}
	}
}

// A tile does not see its neighbours, an image not the other one.
func TestATileAloneIsTheTileInABatch(t *testing.T) {
	c := config(t, "tiny-1.5")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 56, W: 56}, shapes.Size{H: 56, W: 56}, shapes.Size{H: 56, W: 56})
	batch := run(t, c, w, in)
	one := prompt(t, c, shapes.Size{H: 56, W: 56})
	per := len(in.PixelValues.Data) / 3
	copy(one.PixelValues.Data, in.PixelValues.Data[per:2*per])
	for name, v := range run(t, c, w, one) {
		if strings.HasPrefix(name, "vision_tower") || strings.HasPrefix(name, "multi_modal") {
			if n := len(v.Data); !sameBits(v.Data, batch[name].Data[n:2*n]) {
				t.Errorf("%s: tile 1 of 3 differs from the tile alone", name)
			}
		}
	}
}

func TestAPrefixIsComputedAsInTheWhole(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c)
	whole := run(t, c, w, in)
	in.InputIDs, in.PositionIDs = in.InputIDs[:3], in.PositionIDs[:3]
	prefix := run(t, c, w, in)
	for _, name := range []string{shapes.LMHead, shapes.TextLayer(31)} {
		if v := prefix[name]; !sameBits(v.Data, whole[name].Data[:len(v.Data)]) {
			t.Errorf("%s: the first 3 positions depend on what comes after them", name)
		}
	}
}

// In the reference a position's sums do not depend on what is computed beside it, so this holds to the last bit.
func TestPartsOfASequenceAreTheWhole(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 90, W: 61}) // 5 tokens, the image, 3 tokens
	whole, err := ref.New(c, w).Forward(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := len(in.InputIDs)
	for _, test := range []struct {
		name string
		cuts []int
	}{
		{"prefill and three single steps", []int{n - 3, n - 2, n - 1}},
		{"text, then image and text", []int{5}},
		{"in chunks", []int{2, 5, n - 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := ref.New(c, w).NewSession()
			from := 0
			for _, to := range append(test.cuts, n) {
				part := shapes.Inputs{InputIDs: in.InputIDs[from:to], PositionIDs: in.PositionIDs[from:to]}
				if from <= 5 && to > 5 {
					part.PixelValues, part.ImageSizes = in.PixelValues, in.ImageSizes
				}
				got, err := s.Extend(part, 0, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !sameBits(got.Data, whole.Data[from*c.Text.VocabSize:to*c.Text.VocabSize]) {
					t.Errorf("positions %d to %d have other logits than in the whole", from, to-1)
				}
				from = to
			}
		})
	}
	last, err := ref.New(c, w).NewSession().Extend(in, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !sameBits(last.Data, whole.Data[(n-2)*c.Text.VocabSize:]) || last.Shape[0] != 2 {
		t.Errorf("logits_to_keep 2: shape %v, or other values than the whole's last two rows", last.Shape)
	}
}

// scaled multiplies the parameters that pick chooses.
type scaled struct {
	shapes.Weights
	pick func(name string) bool
	by   float32
}

func (s scaled) Read(name string, from int, dst []float32) error {
	err := s.Weights.Read(name, from, dst)
	if s.pick(name) {
		for i := range dst {
			dst[i] *= s.by
		}
	}
	return err
}

func TestReachOfParametersIsTrue(t *testing.T) {
	c := config(t, "tiny-1.6")
	w := checkpoint.Synthetic(c, 0)
	in := prompt(t, c, shapes.Size{H: 90, W: 61})
	truth := run(t, c, w, in)[shapes.LMHead]
	reach := map[string]shapes.Reach{}
	for _, p := range shapes.Params(c) {
		reach[p.Name] = p.Reach
	}
	for _, test := range []struct {
		kind     shapes.Reach
		low, top float64 // bounds on the rms of the change at the logits, whose own rms is 3.4
	}{
		{shapes.Dead, 0, 0},
		{shapes.Inert, 1e-9, 1e-4}, // rounding alone
		{shapes.Reaches, 0.1, 100},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			got := run(t, c, scaled{w, func(name string) bool { return reach[name] == test.kind }, 1.25}, in)[shapes.LMHead]
			sum := 0.0
			for i := range got.Data {
				d := float64(got.Data[i]) - float64(truth.Data[i])
				sum += d * d
			}
			if rms := math.Sqrt(sum / float64(len(got.Data))); rms < test.low || rms > test.top {
				t.Errorf("changes the logits by %.3g, want %g to %g", rms, test.low, test.top)
			}
		})
	}
}

func TestInputsThatDoNotFit(t *testing.T) {
	c := config(t, "tiny-1.6")
	for _, test := range []struct {
		name   string
		change func(in *shapes.Inputs)
		want   string
	}{
		{"no tokens", func(in *shapes.Inputs) { in.InputIDs, in.PositionIDs = nil, nil }, "input_ids: empty"},
		{"a position too few", func(in *shapes.Inputs) { in.PositionIDs = in.PositionIDs[1:] }, "position_ids: 79, want one for each of 80"},
		{"a negative position", func(in *shapes.Inputs) { in.PositionIDs[2] = -1 }, "position_ids[2]: -1"},
		{"an id past the vocabulary", func(in *shapes.Inputs) { in.InputIDs[1] = 384 }, "input_ids[1]: 384, want 0 to 383"},
		{"a negative id", func(in *shapes.Inputs) { in.InputIDs[1] = -200 }, "input_ids[1]: -200"},
		{"an image token too many", func(in *shapes.Inputs) { in.InputIDs[0] = 320 }, "73 image tokens (id 320), but 72 rows"},
		{"an image token too few", func(in *shapes.Inputs) { in.InputIDs[7] = 1 }, "71 image tokens (id 320), but 72 rows"},
		{"a tile too few", func(in *shapes.Inputs) {
			in.PixelValues.Shape[0]--
			in.PixelValues.Data = in.PixelValues.Data[3*56*56:]
		}, "4 tiles, but image 0 of 90x61 pixels ends at tile 5"},
		{"a tile too many", func(in *shapes.Inputs) {
			in.PixelValues.Shape[0]++
			in.PixelValues.Data = append(in.PixelValues.Data, in.PixelValues.Data[:3*56*56]...)
		}, "6 tiles, but the 1 images have 5"},
		{"tiles of another size", func(in *shapes.Inputs) { in.PixelValues.Shape = []int{3, 3, 28, 112} }, "pixel_values: shape [3 3 28 112]"},
		{"fewer values than the shape says", func(in *shapes.Inputs) { in.PixelValues.Data = in.PixelValues.Data[1:] }, "pixel_values: shape [5 3 56 56] with 47039 values"},
		{"no image sizes", func(in *shapes.Inputs) { in.ImageSizes = nil }, "image_sizes: none"},
		{"an empty image", func(in *shapes.Inputs) { in.ImageSizes[0].W = 0 }, "image_sizes[0]: 90x0"},
		{"sizes without pixels", func(in *shapes.Inputs) { in.PixelValues = ref.Tensor{} }, "image_sizes: 1 images, but no pixel_values"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := prompt(t, c, shapes.Size{H: 90, W: 61})
			test.change(&in)
			_, err := ref.New(c, checkpoint.Synthetic(c, 0)).Forward(in, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestAWeightThatCannotBeReadIsAnError(t *testing.T) {
	c := config(t, "tiny-1.6")
	in := prompt(t, c, shapes.Size{H: 90, W: 61})
	for _, p := range shapes.Params(c) {
		if strings.Contains(p.Name, ".layers.1.") || !strings.Contains(p.Name, ".layers.") {
			if _, err := ref.New(c, broken{checkpoint.Synthetic(c, 0), p.Name}).Forward(in, nil); err == nil || !strings.Contains(err.Error(), p.Name) {
				t.Errorf("without %s: error %v", p.Name, err)
			}
		}
	}
}

type broken struct {
	shapes.Weights
	name string
}

func (b broken) Read(name string, from int, dst []float32) error {
	if name == b.name {
		return fmt.Errorf("%s cannot be read", name)
	}
	return b.Weights.Read(name, from, dst)
}

// peak notes the largest heap that is seen while weights are read.
type peak struct {
	shapes.Weights
	bytes *uint64
}

func (p peak) Read(name string, from int, dst []float32) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	*p.bytes = max(*p.bytes, m.HeapInuse)
	return p.Weights.Read(name, from, dst)
}

// The model of real widths needs the memory of one layer, not of all: 0.9 GB instead of 2.0 GB for two layers, and no more
// for thirty-two.
func TestMemoryIsThatOfTheLargestLayer(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 2 GB of weights, too much for an emulator or the race detector; the whole test run has it")
	}
	c := config(t, "wide")
	runtime.GC()
	var used uint64
	if _, err := ref.New(c, peak{checkpoint.Synthetic(c, 0), &used}).Forward(prompt(t, c), nil); err != nil {
		t.Fatal(err)
	}
	layer, all := 0, 0
	for _, p := range shapes.Params(c) {
		all += 4 * p.Count()
		if strings.HasPrefix(p.Name, shapes.TextLayer(0)+".") {
			layer += 4 * p.Count()
		}
	}
	t.Logf("peak %d MB, largest layer %d MB, all weights %d MB", used>>20, layer>>20, all>>20)
	if limit := uint64(layer)*5/4 + 64<<20; used > limit {
		t.Errorf("peak %d MB, want at most %d MB", used>>20, limit>>20)
	}
}
