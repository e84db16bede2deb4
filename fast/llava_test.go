package fast

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

func TestMain(m *testing.M) {
	fmt.Printf("fast: kernels of %s\n", kernel.Active())
	os.Exit(m.Run())
}

func config(t testing.TB, name string) shapes.Config {
	t.Helper()
	c, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// small is a tiny model of few layers, for tests in which their number does not count.
func small(t testing.TB, name string) shapes.Config {
	c := config(t, name)
	c.Vision.NumHiddenLayers, c.Text.NumHiddenLayers = 3, 3
	return c
}

func model(t testing.TB, c shapes.Config, o Options) *Llava {
	t.Helper()
	m, err := New(c, checkpoint.Synthetic(c, 0), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
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
		n := 1
		if c.ModelType == shapes.LlavaNext {
			n += ref.TileGrid(c, s).Area()
			packed, err := packImageFeatures(c, []shapes.Size{s}, n)
			if err != nil {
				t.Fatal(err)
			}
			rows = len(packed)
		}
		tiles += n
		in.InputIDs = append(in.InputIDs, slices.Repeat([]int{c.ImageTokenID}, rows)...)
		text(3)
	}
	text(30)
	for i := range in.InputIDs {
		in.PositionIDs = append(in.PositionIDs, i)
	}
	if tiles > 0 {
		in.PixelValues = shapes.NewTensor(tiles, c.Vision.NumChannels, c.Vision.ImageSize, c.Vision.ImageSize)
		for i := range in.PixelValues.Data {
			in.PixelValues.Data[i] = float32(r.NormFloat64())
		}
	}
	return in
}

func forward(t testing.TB, m *Llava, in shapes.Inputs, probe shapes.Probe) shapes.Tensor {
	t.Helper()
	logits, err := m.Forward(in, probe)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// differ fails if two tensors of logits are not the same bits, and says where the first difference is.
func differ(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s: value %d of %d: got %v, want %v", what, i, len(want), got[i], want[i])
			return
		}
	}
}

var classes = []kernel.Class{kernel.Float32, kernel.BFloat16}

var (
	portrait = shapes.Size{H: 90, W: 61}
	strip    = shapes.Size{H: 50, W: 170}
	square   = shapes.Size{H: 56, W: 56}
)

// Every node of the prompt that stands in memory is shown once, in order and in its shape: all but scores, probabilities and SiLU's output.
func TestTheProbeSeesTheGraph(t *testing.T) {
	for _, test := range []struct {
		name, model string
		sizes       []shapes.Size
	}{
		{"text only", "tiny-1.6", nil},
		{"two images", "tiny-1.6", []shapes.Size{portrait, strip}},
		{"LLaVA-1.5", "tiny-1.5", []shapes.Size{square, square}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := small(t, test.model)
			m, in := model(t, c, Options{Threads: 2}), prompt(t, c, test.sizes...)
			var want, got []string
			for _, n := range shapes.Nodes(c) {
				hidden := n.Kind == shapes.Scores || n.Kind == shapes.Softmax || n.Kind == shapes.SiLU
				if dims := shapes.DimsOf(c, in); n.Present(dims) && !hidden {
					want = append(want, fmt.Sprint(n.Name, n.Concrete(dims)))
				}
			}
			logits := forward(t, m, in, func(name string, v shapes.Tensor) {
				if len(v.Data) != shapes.Product(v.Shape) {
					t.Errorf("%s: %d values of shape %v", name, len(v.Data), v.Shape)
				}
				got = append(got, fmt.Sprint(name, v.Shape))
			})
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Fatalf("node %d of %d, got %d: want %v, got %v", i, len(want), len(got), want[min(i, len(want)-1)], got[min(i, len(got)-1)])
				}
			}
			differ(t, "without a probe", forward(t, m, in, nil).Data, logits.Data)
		})
	}
}

// The bits of every node are those of one thread, and of the run before.
func TestBitsDoNotDependOnThreads(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c, portrait)
	for _, class := range classes {
		var want map[string][]float32
		for _, threads := range []int{1, 2, 3, 7, 2} {
			m := model(t, c, Options{Class: class, Threads: threads})
			for again := range 2 {
				got := map[string][]float32{}
				forward(t, m, in, func(name string, v shapes.Tensor) { got[name] = slices.Clone(v.Data) })
				if want == nil {
					want = got
				}
				for name := range want {
					if !sameBits(got[name], want[name]) {
						t.Errorf("%v, %d threads, run %d: %s differs from one thread", class, threads, again, name)
					}
				}
			}
		}
	}
}

// cut splits a prompt before row n. Images stand in the part that holds their tokens, all of them in the first or in the second.
func cut(c shapes.Config, in shapes.Inputs, n int) (shapes.Inputs, shapes.Inputs) {
	a := shapes.Inputs{InputIDs: in.InputIDs[:n], PositionIDs: in.PositionIDs[:n]}
	b := shapes.Inputs{InputIDs: in.InputIDs[n:], PositionIDs: in.PositionIDs[n:]}
	with := &b
	if slices.Contains(a.InputIDs, c.ImageTokenID) {
		with = &a
	}
	with.PixelValues, with.ImageSizes = in.PixelValues, in.ImageSizes
	return a, b
}

// A prompt that is cut into parts, by the caller or by the engine into chunks and groups of tiles, has the logits of the whole, bit for bit.
func TestASequenceGrowsInPartsAsInOne(t *testing.T) {
	for _, test := range []struct {
		name, model string
		sizes       []shapes.Size
	}{
		{"text only", "tiny-1.6", nil},
		{"one image", "tiny-1.6", []shapes.Size{portrait}},
		{"two images", "tiny-1.6", []shapes.Size{strip, {H: 33, W: 20}}},
		{"LLaVA-1.5, two images", "tiny-1.5", []shapes.Size{square, square}},
	} {
		for _, class := range classes {
			t.Run(fmt.Sprint(test.name, ", ", class), func(t *testing.T) {
				c := small(t, test.model)
				in := prompt(t, c, test.sizes...)
				m := model(t, c, Options{Class: class, Threads: 2})
				m.arena.poison = true
				m.chunk, m.tilesAtATime = 1<<20, 1<<20
				whole := forward(t, m, in, nil)
				last := len(in.InputIDs) - 1
				for _, chunk := range []int{1, 7, 32, 33, 64} {
					m.chunk, m.tilesAtATime = chunk, 1+chunk%3
					differ(t, fmt.Sprintf("chunks of %d positions, %d tiles at a time", m.chunk, m.tilesAtATime), forward(t, m, in, nil).Data, whole.Data)
				}
				for _, at := range []struct {
					name  string
					parts []int // where the sequence is cut
				}{
					{"the last token by itself", []int{last}},
					{"three tokens one by one", []int{last - 2, last - 1, last}},
					{"text before the images by itself", []int{3}},
				} {
					m.chunk = 13
					s, rest, begin := m.NewSession(), in, 0
					for i := 0; i <= len(at.parts); i++ {
						part := rest
						if i < len(at.parts) {
							part, rest = cut(c, rest, at.parts[i]-begin)
							begin = at.parts[i]
						}
						logits, err := s.Extend(part, 0, nil)
						if err != nil {
							t.Fatalf("%s: part %d: %v", at.name, i, err)
						}
						first := part.PositionIDs[0]
						differ(t, fmt.Sprintf("%s: part %d", at.name, i), logits.Data, whole.Data[first*c.Text.VocabSize:][:len(logits.Data)])
					}
					s.Close()
				}
			})
		}
	}
}

// The last rows alone are those of all rows, whatever the chunks.
func TestExtendKeepsTheLastRows(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c)
	m := model(t, c, Options{Threads: 2})
	m.arena.poison = true
	whole := forward(t, m, in, nil)
	for _, chunk := range []int{1, 16, 1000} {
		m.chunk = chunk
		for _, probe := range []shapes.Probe{nil, func(string, shapes.Tensor) {}} {
			for _, keep := range []int{1, 2, 17, whole.Rows(), whole.Rows() + 5} {
				s := m.NewSession()
				got, err := s.Extend(in, keep, probe)
				want := min(keep, whole.Rows())
				if err != nil || got.Rows() != want {
					t.Fatalf("chunks of %d, keep %d: %v, error %v, want %d rows", chunk, keep, got.Shape, err, want)
				}
				differ(t, fmt.Sprintf("chunks of %d, keep %d, probe %t", chunk, keep, probe != nil), got.Data, whole.Data[(whole.Rows()-want)*whole.Cols():])
				s.Close()
			}
		}
		// Rows of the last layer that no logit needs are left out, but their keys and values are not.
		last := len(in.InputIDs) - 1
		first, rest := cut(c, in, last)
		s := m.NewSession()
		if _, err := s.Extend(first, 1, nil); err != nil {
			t.Fatal(err)
		}
		got, err := s.Extend(rest, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		differ(t, fmt.Sprintf("chunks of %d, a token behind a prompt", chunk), got.Data, whole.Data[last*whole.Cols():])
		s.Close()
	}
}

// Sequences know nothing of each other: one after the other, or in turns, each has the logits that it has alone.
func TestSequencesDoNotLeak(t *testing.T) {
	for _, class := range classes {
		c := small(t, "tiny-1.6")
		long, short := prompt(t, c, portrait), prompt(t, c)
		alone := func(in shapes.Inputs) []float32 {
			return forward(t, model(t, c, Options{Class: class, Threads: 2}), in, nil).Data
		}
		wantLong, wantShort := alone(long), alone(short)
		m := model(t, c, Options{Class: class, Threads: 2})
		for i := range 2 {
			differ(t, fmt.Sprintf("%v, long prompt, round %d", class, i), forward(t, m, long, nil).Data, wantLong)
			differ(t, fmt.Sprintf("%v, short prompt after a long one, round %d", class, i), forward(t, m, short, nil).Data, wantShort)
		}
		if len(m.spare) != 1 {
			t.Errorf("%d sequences' memory is kept, want the one that was used again", len(m.spare))
		}
		// In turns, token by token.
		a, b := m.NewSession(), m.NewSession()
		for i := range short.InputIDs {
			one := func(in shapes.Inputs, i int) shapes.Inputs {
				return shapes.Inputs{InputIDs: in.InputIDs[i : i+1], PositionIDs: in.PositionIDs[i : i+1]}
			}
			got, err := a.Extend(one(short, i), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Extend(one(short, len(short.InputIDs)-1-i), 1, nil); err != nil {
				t.Fatal(err)
			}
			differ(t, fmt.Sprintf("%v, in turns, position %d", class, i), got.Data, wantShort[i*c.Text.VocabSize:][:c.Text.VocabSize])
		}
		a.Close()
		b.Close()
	}
}

// No scratch is read that was not written before: all of it is NaN when it is taken.
func TestNothingStaleIsRead(t *testing.T) {
	for _, name := range []string{"tiny-1.6", "tiny-1.5"} {
		c := small(t, name)
		in := prompt(t, c, square)
		m := model(t, c, Options{Threads: 2})
		want := forward(t, m, in, nil)
		m.arena.poison = true
		differ(t, name, forward(t, m, in, nil).Data, want.Data)
		forward(t, m, in, func(node string, v shapes.Tensor) {
			for i, x := range v.Data {
				if x != x {
					t.Fatalf("%s: %s: value %d is NaN", name, node, i)
				}
			}
		})
	}
}

// One token after the other takes no memory from the heap.
func TestDecodeAllocatesNothing(t *testing.T) {
	for _, class := range classes {
		c := small(t, "tiny-1.6")
		m := model(t, c, Options{Class: class, Threads: 2, ContextLength: 1000})
		s := m.NewSession()
		defer s.Close()
		if _, err := s.Extend(prompt(t, c), 1, nil); err != nil {
			t.Fatal(err)
		}
		ids, positions := []int{7}, []int{0}
		in := shapes.Inputs{InputIDs: ids, PositionIDs: positions}
		if n := testing.AllocsPerRun(200, func() {
			positions[0] = s.Len()
			if _, err := s.Extend(in, 1, nil); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations a token, want 0", class, n)
		}
	}
}

func TestInputsThatDoNotFitAreRefused(t *testing.T) {
	c := small(t, "tiny-1.6")
	m := model(t, c, Options{Threads: 1, ContextLength: 150})
	good := prompt(t, c, portrait)
	text := prompt(t, c)
	for _, test := range []struct {
		name, want string
		change     func(in *shapes.Inputs)
	}{
		{"no tokens", "input_ids: empty", func(in *shapes.Inputs) { *in = shapes.Inputs{} }},
		{"positions missing", "position_ids: ", func(in *shapes.Inputs) { in.PositionIDs = in.PositionIDs[1:] }},
		{"a negative position", "position_ids[2]: -1", func(in *shapes.Inputs) { in.PositionIDs[2] = -1 }},
		{"a position past the table", "position_ids[2]: ", func(in *shapes.Inputs) { in.PositionIDs[2] = 1<<20 + 1 }},
		{"an id past the vocabulary", "input_ids[1]: 384", func(in *shapes.Inputs) { in.InputIDs[1] = 384 }},
		{"a negative id", "input_ids[1]: -1", func(in *shapes.Inputs) { in.InputIDs[1] = -1 }},
		{"one image token too few", "image tokens", func(in *shapes.Inputs) { in.InputIDs[slices.Index(in.InputIDs, c.ImageTokenID)] = 3 }},
		{"one image token too many", "image tokens", func(in *shapes.Inputs) { in.InputIDs[0] = c.ImageTokenID }},
		{"image tokens without pixels", "image tokens", func(in *shapes.Inputs) { in.PixelValues, in.ImageSizes = shapes.Tensor{}, nil }},
		{"sizes without pixels", "image_sizes: 1 images", func(in *shapes.Inputs) { in.PixelValues = shapes.Tensor{} }},
		{"pixels without sizes", "image_sizes: none", func(in *shapes.Inputs) { in.ImageSizes = nil }},
		{"a size of nothing", "image_sizes[0]: 0x5", func(in *shapes.Inputs) { in.ImageSizes[0] = shapes.Size{H: 0, W: 5} }},
		{"another tile size", "pixel_values: shape", func(in *shapes.Inputs) { in.PixelValues.Shape[3]-- }},
		{"fewer pixels than the shape says", "pixel_values: shape", func(in *shapes.Inputs) { in.PixelValues.Data = in.PixelValues.Data[1:] }},
		{"a shape whose product overflows", "pixel_values: shape", func(in *shapes.Inputs) { in.PixelValues.Shape[0] = 1 << 61 }},
		{"sizes that ask for other tiles", "pixel_values: ", func(in *shapes.Inputs) { in.ImageSizes[0] = shapes.Size{H: 56, W: 112} }},
		{"two sizes for one image", "pixel_values: ", func(in *shapes.Inputs) { in.ImageSizes = append(in.ImageSizes, portrait) }},
		{"more positions than the context", "context length: ", func(in *shapes.Inputs) {
			for len(in.InputIDs) < 151 {
				in.InputIDs, in.PositionIDs = append(in.InputIDs, 1), append(in.PositionIDs, 5)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := shapes.Inputs{InputIDs: slices.Clone(good.InputIDs), PositionIDs: slices.Clone(good.PositionIDs), ImageSizes: slices.Clone(good.ImageSizes),
				PixelValues: shapes.Tensor{Shape: slices.Clone(good.PixelValues.Shape), Data: good.PixelValues.Data}}
			test.change(&in)
			s := m.NewSession()
			defer s.Close()
			_, err := s.Extend(in, 1, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "fast: ") {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			// The session is as it was.
			got, err := s.Extend(text, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			differ(t, "after the refusal", got.Data, forward(t, m, text, nil).Data)
		})
	}
}

// A probe that panics leaves no half sequence that would go on.
func TestASequenceEndsWithAPanic(t *testing.T) {
	c := small(t, "tiny-1.6")
	m, in := model(t, c, Options{Threads: 2}), prompt(t, c)
	want := forward(t, m, in, nil)
	s := m.NewSession()
	func() {
		defer func() { recover() }()
		s.Extend(in, 0, func(node string, _ shapes.Tensor) {
			if node == shapes.TextLayer(1) {
				panic("enough")
			}
		})
	}()
	if _, err := s.Extend(in, 0, nil); err == nil || !strings.Contains(err.Error(), "earlier part") {
		t.Errorf("error %v, want one that says that an earlier part failed", err)
	}
	s.Close()
	if _, err := s.Extend(in, 0, nil); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("error %v, want one that says closed", err)
	}
	differ(t, "another sequence", forward(t, m, in, nil).Data, want.Data)
}

func TestAClosedModelRefuses(t *testing.T) {
	c := small(t, "tiny-1.6")
	m, err := New(c, checkpoint.Synthetic(c, 0), Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Extend(prompt(t, c), 0, nil); err == nil {
		t.Error("a session of a closed model goes on")
	}
	s.Close()
}

// The rows of packed features are those of the reference, for all sorts of sizes.
func TestPackingIsTheReferences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := config(t, "llava-1.6-llama3-8b")
	side := c.Vision.PatchesPerSide()
	sizes := []shapes.Size{{H: 27, W: 72}, {H: 1211, W: 606}, {H: 1, W: 4000}, {H: 4000, W: 1}, {H: 336, W: 336}, {H: 480, W: 640}}
	for range 300 {
		sizes = append(sizes, shapes.Size{H: 1 + r.IntN(2000), W: 1 + r.IntN(2000)})
	}
	for _, size := range sizes {
		tiles := 1 + ref.TileGrid(c, size).Area()
		features := shapes.NewTensor(tiles, side*side, 1)
		for i := range features.Data {
			features.Data[i] = float32(i)
		}
		want, err := ref.PackImageFeatures(c, features, shapes.Tensor{Shape: []int{1}, Data: []float32{newlineRow}}, []shapes.Size{size})
		if err != nil {
			t.Fatal(err)
		}
		got, err := packImageFeatures(c, []shapes.Size{size}, tiles)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want.Data, func(a int32, b float32) bool { return float32(a) == b }) {
			t.Errorf("%v: %d rows that are not the reference's %d", size, len(got), len(want.Data))
		}
	}
}

// Cosine and sine are the reference's, to the bit.
func TestTheRotaryTableIsTheReferences(t *testing.T) {
	for _, name := range []string{"llava-1.6-llama3-8b", "tiny-1.5"} {
		c := config(t, name).Text
		var positions []int
		for p := 0; p <= 1<<20; p += 1 + p/5 {
			positions = append(positions, p, p+1)
		}
		positions = slices.DeleteFunc(positions, func(p int) bool { return p > maxPosition })
		cos, sin := make([]float32, len(positions)*c.HeadDim), make([]float32, len(positions)*c.HeadDim)
		rotary(cos, sin, positions, inverseFrequencies(c.HeadDim, c.RopeTheta))
		differ(t, name+": cos", cos, ref.RotaryCos(positions, c.HeadDim, c.RopeTheta).Data)
		differ(t, name+": sin", sin, ref.RotarySin(positions, c.HeadDim, c.RopeTheta).Data)
	}
}

// labelsNow are the pprof labels of the goroutine that calls it, as the profile of goroutines shows them.
func labelsNow(t testing.TB) map[string]string {
	t.Helper()
	var text strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(text.String(), "\n\n") {
		if !strings.Contains(entry, "fast.labelsNow") {
			continue
		}
		labels := map[string]string{}
		if _, list, ok := strings.Cut(entry, "# labels: "); ok {
			list, _, _ = strings.Cut(list, "\n")
			if err := json.Unmarshal([]byte(list), &labels); err != nil {
				t.Fatalf("%s: %v", list, err)
			}
		}
		return labels
	}
	t.Fatal("the profile has no goroutine that makes it")
	return nil
}

// Labels change nothing of the numbers, and while a node is made they name its layer and its operation: those of the table are the node's name.
func TestLabelsNameLayersAndOperations(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c, portrait)
	want := forward(t, model(t, c, Options{Threads: 2}), in, nil)
	m := model(t, c, Options{Threads: 2, Labels: true})
	differ(t, "with labels", forward(t, m, in, nil).Data, want.Data)
	if m.labels.known[label{visionLayer, 2, "q_proj"}] != nil {
		t.Error("the layer behind the features ran")
	}

	nodes := map[string][2]string{ // layer and op
		shapes.VisionTower + ".embeddings.patch_embedding": {"vision", "patch_embedding"},
		shapes.VisionTower + ".embeddings":                 {"vision", "embeddings"},
		shapes.VisionTower + ".pre_layrnorm":               {"vision", "pre_layrnorm"},
		shapes.Projector + ".linear_1":                     {"projector", "linear_1"},
		shapes.Projector + ".act":                          {"projector", "act"},
		shapes.Projector + ".linear_2":                     {"projector", "linear_2"},
		shapes.TextModel + ".embed_tokens":                 {"text", "embed_tokens"},
		shapes.NodeCos:                                     {"text", "rotary_emb"},
		shapes.TextModel + ".norm":                         {"text", "norm"},
		shapes.LMHead:                                      {"lm_head", "lm_head"},
	}
	for i := range 3 {
		for _, leaf := range []string{"layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.context", "self_attn.out_proj", "residual_attn", "layer_norm2", "mlp.fc1", "mlp.activation_fn", "mlp.fc2"} {
			nodes[shapes.VisionLayer(i)+"."+leaf] = [2]string{fmt.Sprintf("vision.%d", i), strings.TrimPrefix(leaf, "self_attn.")}
		}
		for _, leaf := range []string{"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.rope_q", "self_attn.rope_k", "self_attn.context", "self_attn.o_proj", "residual_attn", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.gated", "mlp.down_proj"} {
			nodes[shapes.TextLayer(i)+"."+leaf] = [2]string{fmt.Sprintf("text.%d", i), strings.TrimPrefix(leaf, "self_attn.")}
		}
		nodes[shapes.VisionLayer(i)] = [2]string{fmt.Sprintf("vision.%d", i), "residual_mlp"}
		nodes[shapes.TextLayer(i)] = [2]string{fmt.Sprintf("text.%d", i), "residual_mlp"}
	}
	together := map[string]string{"context": "attention", "rope_q": "rope", "rope_k": "rope"} // operations that make more than their node
	forward(t, m, in, func(node string, _ shapes.Tensor) {
		want, ok := nodes[node]
		if !ok {
			return // copies, and what only a probe sees
		}
		delete(nodes, node)
		if op, ok := together[want[1]]; ok {
			want[1] = op
		}
		if got := labelsNow(t); got["layer"] != want[0] || got["op"] != want[1] {
			t.Errorf("%s: labels %v, want layer %s, op %s", node, got, want[0], want[1])
		}
	})
	for node := range nodes {
		t.Errorf("%s is not shown", node)
	}
	if got := labelsNow(t); len(got) > 0 {
		t.Errorf("labels %v are left when all is done", got)
	}
}
