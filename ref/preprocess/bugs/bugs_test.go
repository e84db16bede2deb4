package bugs

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/pattern"
	"github.com/llavaref/llavaref/shapes"
)

const vectors = "../../../golden/vectors/preprocess/"

var (
	update     = flag.Bool("update", false, "write catches.tsv anew")
	exhaustive = flag.Bool("exhaustive", false, "count for each bug at how many of 4 000 000 sizes it shows, which takes a minute")
)

func processor(t testing.TB, model string) preprocess.Processor {
	t.Helper()
	config := map[string]string{"llava-1.6": "llava-1.6-llama3-8b", "llava-1.6-reversed": "llava-1.6-llama3-8b", "llava-1.5": "llava-1.5-7b"}[model]
	if config == "" {
		config = model
	}
	c, err := shapes.Model(config)
	if err != nil {
		t.Fatal(err)
	}
	p := preprocess.Processor{Config: preprocess.DefaultConfig(c)}
	if model == "llava-1.6-reversed" {
		p.Pinpoints = slices.Clone(p.Pinpoints)
		slices.Reverse(p.Pinpoints)
	}
	return p
}

var images sync.Map // name -> preprocess.Image

// image is an image of the vectors; each is made once.
func image(t testing.TB, name string) preprocess.Image {
	t.Helper()
	m, ok := images.Load(name)
	if !ok {
		m = makeImage(t, name)
		images.Store(name, m)
	}
	return m.(preprocess.Image)
}

func makeImage(t testing.TB, name string) preprocess.Image {
	t.Helper()
	if strings.HasSuffix(name, ".png") {
		p, err := preprocess.ReadImage("../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Image
	}
	size, pix, err := pattern.Make(name)
	if err != nil {
		t.Fatal(err)
	}
	return preprocess.Image{Size: size, Pix: pix}
}

func table(t testing.TB, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile(vectors + name)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[1:] {
		rows = append(rows, strings.Split(line, "\t"))
	}
	return rows
}

func digest(y shapes.Tensor) string {
	b := make([]byte, 0, 4*len(y.Data))
	for _, v := range y.Data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// planRow is a line of sizes.tsv, from canvas_h to tokens.
func planRow(l preprocess.Plan) string {
	p := l.Padding
	var words []string
	for _, v := range []int{l.Canvas.H, l.Canvas.W, l.Resized.H, l.Resized.W, p.Top, p.Bottom, p.Left, p.Right, l.Tiles, l.Offset.H, l.Offset.W, l.Kept.H, l.Kept.W, l.Features} {
		words = append(words, strconv.Itoa(v))
	}
	return strings.Join(words, "\t")
}

// rows are the vectors of a file for the models that a bug can be in: of pixels.tsv the canonical ones of the small models.
func rows(t *testing.T, file string, b Bug) [][]string {
	var of [][]string
	for _, row := range table(t, file) {
		model := row[0]
		if file == "pixels.tsv" {
			model = row[1]
			if row[0] != "pillow" || !strings.HasPrefix(model, "tiny") {
				continue
			}
		}
		if b.model == "" || b.model == processor(t, model).ModelType {
			of = append(of, row)
		}
	}
	return of
}

func sizeOf(t *testing.T, row []string) shapes.Size {
	t.Helper()
	w, err := strconv.Atoi(row[1])
	if err != nil {
		t.Fatal(err)
	}
	h, err := strconv.Atoi(row[2])
	if err != nil {
		t.Fatal(err)
	}
	return shapes.Size{H: h, W: w}
}

// caught lists the vectors that differ with a bug: of sizes.tsv as model WIDTHxHEIGHT, of pixels.tsv as model image.
func caught(t *testing.T, b Bug) (sizes, pixels []string) {
	for _, row := range rows(t, "sizes.tsv", b) {
		l, err := b.Plan(processor(t, row[0]), sizeOf(t, row))
		if err != nil {
			t.Fatal(err)
		}
		if planRow(l) != strings.Join(row[3:17], "\t") {
			sizes = append(sizes, row[0]+" "+row[1]+"x"+row[2])
		}
	}
	for _, row := range rows(t, "pixels.tsv", b) {
		y, err := b.Pixels(processor(t, row[1]), image(t, row[2]))
		if err != nil {
			t.Fatal(err)
		}
		if digest(y) != row[6] {
			pixels = append(pixels, row[1]+" "+row[2])
		}
	}
	return sizes, pixels
}

func TestWithoutABugTheFlowIsTheProcessors(t *testing.T) {
	none := Bug{ID: "none", mutate: func(*flow) {}}
	sampled := Bug{ID: "sampler", mutate: func(f *flow) { s := bicubic(); f.resize = s.image }}
	chosen := Bug{ID: "choice", mutate: func(f *flow) { f.choose = choice{}.choose }}
	unpadded := Bug{ID: "unpad", mutate: func(f *flow) {
		f.unpad = func(original, cells shapes.Size) shapes.Size {
			return unpadAxis(original, cells, isWide(original, cells), keepRounded)
		}
	}}
	for _, b := range []Bug{none, sampled, chosen, unpadded} {
		if sizes, pixels := caught(t, b); len(sizes)+len(pixels) > 0 {
			t.Errorf("%s: differs at %v %v", b.ID, sizes, pixels)
		}
	}
}

// catches.tsv says of each bug which vectors catch it. Every bug has to be caught, by the vectors that the file names.
func TestEveryBugIsCaught(t *testing.T) {
	all := All()
	lines := make([]string, len(all))
	var wait sync.WaitGroup
	for i, b := range all {
		wait.Go(func() {
			sizes, pixels := caught(t, b)
			if len(sizes)+len(pixels) == 0 {
				t.Errorf("%s (%s): no vector catches it", b.ID, b.What)
			}
			lines[i] = strings.Join([]string{b.ID, b.What, strconv.Itoa(len(sizes)), strconv.Itoa(len(pixels)), first(sizes), first(pixels)}, "\t")
		})
	}
	wait.Wait()
	got := "bug\twhat\tsizes\tpixels\tof sizes.tsv\tof pixels.tsv\n" + strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(vectors+"catches.tsv", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectors + "catches.tsv")
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("catches.tsv differs; go test ./ref/preprocess/bugs -update writes:\n%s", got)
	}
}

// docs/preprocessing.md has a line for each bug, with the numbers of catches.tsv.
func TestTheBugsStandInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/preprocessing.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(docs), "\n")
	for _, row := range table(t, "catches.tsv") {
		var words []string
		for i, what := range []string{"size", "image"} {
			switch n := row[2+i]; n {
			case "0":
			case "1":
				words = append(words, n+" "+what)
			default:
				words = append(words, n+" "+what+"s")
			}
		}
		start, caught := fmt.Sprintf("| %s | %s | ", row[0], row[1]), fmt.Sprintf(" | %s | ", strings.Join(words, ", "))
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, start) && strings.Contains(line, caught) }) {
			t.Errorf("docs/preprocessing.md has no line %s...%s", start, caught)
		}
	}
}

// first is at most four names.
func first(names []string) string {
	if len(names) > 4 {
		names = append(names[:4:4], "...")
	}
	return strings.Join(names, ", ")
}

// transformers up to 4.51 has P11b: these are its own values.
func TestTheOddPixelIsLostAsInOldTransformers(t *testing.T) {
	for _, row := range table(t, "older.tsv") {
		for _, b := range All() {
			if b.ID != "P11b" {
				continue
			}
			y, err := b.Pixels(processor(t, row[1]), image(t, row[2]))
			if err != nil {
				t.Fatal(err)
			}
			if digest(y) != row[3] {
				t.Errorf("%s: other values than %s", row[2], row[0])
			}
		}
	}
}

// With -exhaustive -v it prints at how many sizes up to 2000x2000 each bug shows, the numbers of docs/preprocessing.md.
func TestHowOftenBugsShow(t *testing.T) {
	if !*exhaustive {
		t.Skip("4 000 000 sizes for each bug take a minute: -exhaustive")
	}
	rare := map[string]int{"P05b": 0, "P06": 68, "P07": 3334, "P09a": 1586, "P09b": 4632, "P09c": 1586, "K11": 58, "K12": 118}
	p := processor(t, "llava-1.6")
	for _, b := range Of(p.ModelType) {
		t.Run(b.ID, func(t *testing.T) {
			t.Parallel()
			f, err := b.flow(p, shapes.Size{H: 1, W: 1})
			if err != nil {
				t.Fatal(err)
			}
			differ, firstOne := 0, shapes.Size{}
			for w := 1; w <= 2000; w++ {
				for h := 1; h <= 2000; h++ {
					size := shapes.Size{H: h, W: w}
					want, err := p.Plan(size)
					if err != nil {
						t.Fatal(err)
					}
					if f.plan(size) != want {
						if differ++; differ == 1 {
							firstOne = size
						}
					}
				}
			}
			t.Logf("%s: %d of 4 000 000 sizes, the first %dx%d", b.What, differ, firstOne.W, firstOne.H)
			if want, isRare := rare[b.ID]; isRare && differ != want {
				t.Errorf("%d sizes, want %d", differ, want)
			}
		})
	}
}

func TestBugsHaveTheirOwnIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range All() {
		if seen[b.ID] || b.ID == "" || b.What == "" {
			t.Errorf("%q (%s): twice, or nameless", b.ID, b.What)
		}
		seen[b.ID] = true
	}
}

// TestBugsStandInTheList: docs/known-bugs.md has every id, without the letter that tells variants apart.
func TestBugsStandInTheList(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "known-bugs.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range All() {
		if id := strings.TrimRight(b.ID, "abc"); !strings.Contains(string(list), "\n| "+id+" | ") {
			t.Errorf("docs/known-bugs.md does not have %s: %s", id, b.What)
		}
	}
}

func TestABugOfTheOtherModelIsRefused(t *testing.T) {
	for _, b := range All() {
		for model, of := range map[string]string{"tiny-1.6": shapes.LlavaNext, "tiny-1.5": shapes.Llava} {
			_, err := b.Plan(processor(t, model), shapes.Size{H: 9, W: 9})
			if refused := b.model != "" && b.model != of; (err != nil) != refused {
				t.Errorf("%s in %s: error %v", b.ID, model, err)
			}
		}
		if _, err := b.Plan(processor(t, "tiny-1.6"), shapes.Size{}); err == nil {
			t.Errorf("%s: no error for an image without pixels", b.ID)
		}
	}
	if n := len(Of(shapes.LlavaNext)) + len(Of(shapes.Llava)); n <= len(All()) {
		t.Errorf("%d bugs of the two models, of %d in all, some of both", n, len(All()))
	}
}

// A division by 255 in float32 is no bug: it gives the same 256 values as the product in float64.
func TestDivisionBy255IsTheSame(t *testing.T) {
	for u := range 256 {
		if a, b := float32(u)/255, float32(float64(u)*(1.0/255)); a != b {
			t.Errorf("%d: %v, and %v", u, a, b)
		}
	}
}
