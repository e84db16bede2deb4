package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/llavaref/llavaref/shapes"
)

// model is the configuration of a model that comes with the project.
func model(t testing.TB, name string) shapes.Config {
	t.Helper()
	cfg, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// readAll is all values of a parameter.
func readAll(t testing.TB, w shapes.Weights, p shapes.Param) []float32 {
	t.Helper()
	values := make([]float32, p.Count())
	if err := w.Read(p.Name, 0, values); err != nil {
		t.Fatal(err)
	}
	return values
}

func TestSyntheticCheckValues(t *testing.T) {
	if got, want := fnv1a64("image_newline"), uint64(0xaac30b8b3687acdd); got != want {
		t.Errorf("fnv1a64(image_newline) = %#x, want %#x", got, want)
	}
	for _, c := range []struct {
		name  string
		shape []int
		k     int
		s     int
		first []int
		sum   int
	}{
		{"language_model.model.layers.0.self_attn.q_proj.weight", []int{64, 64}, 177, 9, []int{25, -7, -161, 128, -101, 43, -129, -92}, 2573},
		{"multi_modal_projector.linear_1.weight", []int{64, 32}, 156, 10, []int{-106, 26, 123, 85, 127, -49, 27, -54}, -7402},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStream(shapes.Param{Name: c.name, Shape: c.shape}, 0)
			if want := uint64(2*c.k + 1); s.span != want {
				t.Errorf("span %d, want %d", s.span, want)
			}
			values := make([]float32, s.count)
			s.read(0, values)
			var ints []int
			sum := 0
			for _, x := range values {
				k := math.Ldexp(float64(x), c.s)
				if k != math.Trunc(k) {
					t.Fatalf("%v is no multiple of 2^-%d", x, c.s)
				}
				ints = append(ints, int(k))
				sum += int(k)
			}
			if diff := cmp.Diff(c.first, ints[:len(c.first)]); diff != "" {
				t.Errorf("first values (-want +got):\n%s", diff)
			}
			if sum != c.sum {
				t.Errorf("sum %d, want %d", sum, c.sum)
			}
		})
	}
}

// The Python generator of the golden sets commits the SHA-256 of every tensor it makes; its last line, *, is the model's digest.
func TestSyntheticEqualsThePythonGenerators(t *testing.T) {
	for _, name := range []string{"tiny-1.6", "tiny-1.5", "wide"} {
		t.Run(name, func(t *testing.T) {
			if name == "wide" && testing.Short() {
				t.Skip("half a billion values")
			}
			cfg := model(t, name)
			w := Synthetic(cfg, 0)
			want := readSums(t, filepath.Join("..", "..", "tools", "gen-golden", "checksums", name+".tsv"))
			params := shapes.Params(cfg)
			if len(want) != len(params)+1 {
				t.Fatalf("%d checksums, want %d", len(want), len(params)+1)
			}
			digest := sha256.New()
			for i, p := range params {
				if want[i].name != p.Name {
					t.Fatalf("checksum %d is of %s, want %s", i, want[i].name, p.Name)
				}
				h := sha256.New()
				digest.Write(append([]byte(p.Name), 0))
				if err := writeValues(io.MultiWriter(h, digest), w, p, func(int) {}); err != nil {
					t.Fatal(err)
				}
				if got := hex.EncodeToString(h.Sum(nil)); got != want[i].sum {
					t.Errorf("%s: SHA-256 %s, want %s", p.Name, got, want[i].sum)
				}
			}
			last := want[len(params)]
			if got := hex.EncodeToString(digest.Sum(nil)); last.name != "*" || got != last.sum {
				t.Errorf("digest %s, want %s, that of %s", got, last.sum, last.name)
			}
			if name == "wide" {
				return
			}
			if got, err := Digest(cfg, w, nil); err != nil || got != last.sum {
				t.Errorf("Digest: %s, %v; want %s", got, err, last.sum)
			}
		})
	}
}

type sum struct{ name, sum string }

func readSums(t *testing.T, path string) (sums []sum) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, hash, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			t.Fatalf("%s: line %q", path, lines.Text())
		}
		sums = append(sums, sum{name, hash})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sums
}

// sumOf is the SHA-256 of a parameter's values as little-endian float32.
func sumOf(t *testing.T, w shapes.Weights, p shapes.Param) string {
	t.Helper()
	h := sha256.New()
	if err := writeValues(h, w, p, func(int) {}); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestSyntheticValuesAreExactInEveryDType(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	w := Synthetic(cfg, 0)
	for _, p := range shapes.Params(cfg) {
		values := readAll(t, w, p)
		back := make([]float32, len(values))
		for _, d := range []DType{F32, F16, BF16} {
			raw := make([]byte, len(values)*d.Bits()/8)
			if at, err := narrow(d, raw, values, true); err != nil {
				t.Fatalf("%s: value %d: %v", p.Name, at, err)
			}
			if widen(d, back, raw); !slices.Equal(values, back) {
				t.Errorf("%s: not the same after %s", p.Name, d)
			}
		}
	}
}

// Where the widths are real ones the distributions are checked without making whole tensors.
func TestEveryParameterOfEveryModelHasALaw(t *testing.T) {
	for _, name := range shapes.ModelNames() {
		cfg := model(t, name)
		w := Synthetic(cfg, 1)
		for _, p := range shapes.Params(cfg) {
			values := make([]float32, min(p.Count(), 4096))
			if err := w.Read(p.Name, p.Count()-len(values), values); err != nil {
				t.Fatal(err)
			}
			raw := make([]byte, 2*len(values))
			for _, d := range []DType{F16, BF16} {
				if _, err := narrow(d, raw, values, true); err != nil {
					t.Errorf("%s: %s: %v", name, p.Name, err)
				}
			}
		}
	}
}

func TestSyntheticRangesAgreeWithTheWhole(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	w := Synthetic(cfg, 7)
	for _, p := range []shapes.Param{ // all rows alike; loud rows; soft rows; a norm's weight; a short row that no word of four divides
		{Name: "vision_tower.vision_model.embeddings.position_embedding.weight", Shape: []int{17, 64}},
		{Name: "vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight", Shape: []int{64, 128}},
		{Name: "language_model.model.embed_tokens.weight", Shape: []int{384, 128}},
		{Name: "language_model.model.norm.weight", Shape: []int{128}},
	} {
		whole := readAll(t, w, p)
		for from := 0; from < min(len(whole), 1200); from += 7 {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 131, len(whole) - from} {
				if from+n > len(whole) {
					continue
				}
				part := make([]float32, n)
				if err := w.Read(p.Name, from, part); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(part, whole[from:from+n]) {
					t.Fatalf("%s: values %d to %d differ from those of the whole", p.Name, from, from+n)
				}
			}
		}
	}
	odd := newStream(shapes.Param{Name: "language_model.model.embed_tokens.weight", Shape: []int{40, 7}}, 7)
	whole := make([]float32, odd.count)
	odd.read(0, whole)
	for from := range whole {
		part := make([]float32, min(11, len(whole)-from))
		if odd.read(from, part); !slices.Equal(part, whole[from:from+len(part)]) {
			t.Fatalf("rows of 7: values from %d differ from those of the whole", from)
		}
	}
}

func TestSyntheticSpecialRows(t *testing.T) {
	for _, c := range []struct {
		name           string
		period, phase  int
		factor         float32
		special, plain int // rows
	}{
		{"vision_tower.vision_model.encoder.layers.3.mlp.fc2.weight", 128, 5, 4, 133, 132},
		{"language_model.model.embed_tokens.weight", 8, 3, 1.0 / 16, 11, 12},
	} {
		s := newStream(shapes.Param{Name: c.name, Shape: []int{256, 64}}, 0)
		if s.rows != (rows{c.period, c.phase, c.factor}) {
			t.Errorf("%s: rows %v", c.name, s.rows)
		}
		row := make([]float32, 64)
		plain := make([]float32, 64)
		for r, factor := range map[int]float32{c.special: c.factor, c.plain: 1} {
			s.read(64*r, row)
			s.drawValues(64*r, plain)
			for i := range row {
				if row[i] != factor*plain[i] {
					t.Fatalf("%s: row %d column %d: %v, want %v times %v", c.name, r, i, row[i], factor, plain[i])
				}
			}
		}
	}
}

func TestSyntheticDependsOnNameAndSeed(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	params := shapes.Params(cfg)
	seen := map[string]string{}
	for seed := range uint64(3) {
		w := Synthetic(cfg, seed)
		for _, p := range params {
			id := fmt.Sprintf("%s, seed %d", p.Name, seed)
			h := sumOf(t, w, p)
			if other, ok := seen[h]; ok {
				t.Errorf("%s has the values of %s", id, other)
			}
			seen[h] = id
		}
	}
}

func TestSyntheticRefusesWhatIsNotThere(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	w := Synthetic(cfg, 0)
	const newline = shapes.ImageNewline // 128 values
	for _, c := range []struct {
		name    string
		from, n int
		want    string
	}{
		{"no_such.weight", 0, 1, "checkpoint: synthetic weights: no_such.weight: the model has no such parameter"},
		{newline, -1, 1, "checkpoint: synthetic weights: image_newline: 1 values from number -1, want them inside its 128"},
		{newline, 120, 9, "checkpoint: synthetic weights: image_newline: 9 values from number 120, want them inside its 128"},
		{newline, math.MaxInt, 9, "checkpoint: synthetic weights: image_newline: 9 values from number 9223372036854775807, want them inside its 128"},
	} {
		if err := w.Read(c.name, c.from, make([]float32, c.n)); err == nil || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	if err := w.Read(newline, 128, nil); err != nil {
		t.Errorf("no values from the end: %v", err)
	}
}

func TestSyntheticIsSafeForConcurrentUse(t *testing.T) {
	cfg := model(t, "tiny-1.6")
	w := Synthetic(cfg, 0)
	p := shapes.Param{Name: "language_model.model.embed_tokens.weight", Shape: []int{384, 128}}
	whole := readAll(t, w, p)
	got := make([]float32, len(whole))
	var wg sync.WaitGroup
	for from := 0; from < len(whole); from += 1000 {
		wg.Go(func() {
			if err := w.Read(p.Name, from, got[from:min(from+1000, len(got))]); err != nil {
				t.Error(err)
			}
		})
	}
	if wg.Wait(); !slices.Equal(whole, got) {
		t.Error("values made in parallel differ")
	}
}

func BenchmarkSynthetic(b *testing.B) {
	for _, name := range []string{"language_model.model.layers.0.mlp.gate_proj.weight", "language_model.model.layers.0.mlp.down_proj.weight"} {
		b.Run(name[len("language_model.model.layers.0."):], func(b *testing.B) {
			s := newStream(shapes.Param{Name: name, Shape: []int{4096, 4096}}, 0)
			dst := make([]float32, 1<<16)
			b.SetBytes(int64(len(dst))) // MB/s is millions of values a second
			for b.Loop() {
				s.read(1<<20, dst)
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	cfg := model(b, "tiny-1.6")
	_, total := shapes.Total(shapes.Params(cfg))
	w := Synthetic(cfg, 0)
	b.SetBytes(4 * int64(total))
	for b.Loop() {
		if _, err := Digest(cfg, w, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// The page that defines the weights for other languages has check values of its own.
func TestSyntheticWeightsPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "synthetic-weights.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, digests := 0, 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		for i := range cells {
			cells[i] = strings.Trim(cells[i], " `")
		}
		_, notNumber := strconv.ParseUint(cells[min(2, len(cells)-1)], 10, 64)
		switch {
		case len(cells) == 8 && notNumber == nil: // the third cell is a seed
			rows++
			checkRow(t, cells)
		case len(cells) == 2 && len(cells[1]) == 64:
			digests++
			checkDigest(t, cells[0], cells[1])
		}
	}
	if rows != 14 || digests != 5 {
		t.Errorf("%d rows and %d digests on the page, want 14 and 5", rows, digests)
	}
	key := fnv1a64("language_model.model.layers.0.self_attn.q_proj.weight")
	for _, s := range []string{
		fmt.Sprintf("fnv1a64(\"image_newline\") = %#x", fnv1a64("image_newline")),
		fmt.Sprintf("(key %#x) is %#x; with seed 1 the key is %#x.", key, draw(key, 0), key^golden),
	} {
		if !strings.Contains(string(page), s) {
			t.Errorf("the page does not say %q", s)
		}
	}
}

// checkDigest holds a digest on the page to the checksums of the Python generator, or where it has none to the Go generator.
func checkDigest(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join("..", "..", "tools", "gen-golden", "checksums", name+".tsv")
	if _, err := os.Stat(path); err == nil {
		sums := readSums(t, path)
		if last := sums[len(sums)-1]; last.name != "*" || last.sum != want {
			t.Errorf("%s: digest %s, the checksums have %s", name, want, last.sum)
		}
		return
	}
	cfg := model(t, name) // a page that names no model fails here
	if !*full {
		t.Logf("%s: digest not made without -full", name)
		return
	}
	if got, err := Digest(cfg, Synthetic(cfg, 0), nil); err != nil || got != want {
		t.Errorf("%s: digest %s, %v; want %s", name, got, err, want)
	}
}

var full = flag.Bool("full", false, "make the digests of the full-size models, which takes minutes")

// checkRow holds the generator to one row of the page: name, shape, seed, K, s, t, first values and sum times 2^t.
func checkRow(t *testing.T, cells []string) {
	t.Helper()
	number := func(s string) int {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Errorf("%s: %v", cells[0], err)
		}
		return int(n)
	}
	var shape []int
	for _, d := range strings.Split(cells[1], "×") {
		shape = append(shape, number(d))
	}
	seed, err := strconv.ParseUint(cells[2], 10, 64)
	if err != nil {
		t.Error(err)
	}
	s := newStream(shapes.Param{Name: cells[0], Shape: shape}, seed)
	if want := 2*number(cells[3]) + 1; s.span != uint64(want) {
		t.Errorf("%s: 2K+1 = %d, want %d", cells[0], s.span, want)
	}
	if got, want := s.values[1]-s.values[0], float32(math.Ldexp(1, -number(cells[4]))); got != want {
		t.Errorf("%s: steps of %v, want %v", cells[0], got, want)
	}
	values := make([]float32, s.count)
	s.read(0, values)
	var first []string
	sum := 0.0
	for i, x := range values {
		k := math.Ldexp(float64(x), number(cells[5]))
		if sum += k; i < 8 {
			first = append(first, fmt.Sprint(k))
		}
	}
	if got := strings.Join(first, " "); got != cells[6] || sum != float64(number(cells[7])) {
		t.Errorf("%s: %s, sum %v; want %s, sum %s", cells[0], got, sum, cells[6], cells[7])
	}
}
