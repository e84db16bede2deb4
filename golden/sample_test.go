package golden

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

// TestSampleEqualsTheGenerators holds every entry against the Python twin; testdata/sample.py writes the vectors.
func TestSampleEqualsTheGenerators(t *testing.T) {
	data, err := os.ReadFile("testdata/sample.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name          string
		Shape         []int
		Causal        bool
		Budget        int
		Rows, Entries int
		First, Last   [][2]int
		SHA256        string
	}
	if err := json.Unmarshal(data, &vectors); err != nil || len(vectors) < 20 {
		t.Fatal(len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(fmt.Sprintf("%s %v of %d", v.Name, v.Shape, v.Budget), func(t *testing.T) {
			s := NewSample(v.Name, v.Shape, v.Causal, v.Budget)
			if s.Rows() != v.Rows || s.Entries() != v.Entries {
				t.Fatalf("%d rows, %d entries, want %d and %d", s.Rows(), s.Entries(), v.Rows, v.Entries)
			}
			var pairs [][2]int
			h := sha256.New()
			for r, c := range s.All() {
				if j := len(pairs); s.Column(j) != c || s.Row(j/s.PerRow()) != r {
					t.Fatalf("entry %d: (%d, %d) one by one, (%d, %d) in a row", j, s.Row(j/s.PerRow()), s.Column(j), r, c)
				}
				pairs = append(pairs, [2]int{r, c})
				h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(r)), uint64(c)))
			}
			n := min(8, len(pairs))
			if !reflect.DeepEqual(pairs[:n], v.First) || !reflect.DeepEqual(pairs[len(pairs)-n:], v.Last) {
				t.Errorf("from %v to %v, want %v to %v", pairs[:n], pairs[len(pairs)-n:], v.First, v.Last)
			}
			if got := hex.EncodeToString(h.Sum(nil)); got != v.SHA256 {
				t.Errorf("sha256 of all entries %s, want %s", got, v.SHA256)
			}
		})
	}
}

func TestSampleSeesEveryRowAndColumn(t *testing.T) {
	for _, c := range []struct {
		shape  []int
		budget int
	}{{[]int{3, 17, 64}, 384}, {[]int{40, 128}, 384}, {[]int{65, 384}, 384}, {[]int{1, 1000}, 999}, {[]int{5, 618}, 1000}} {
		s := NewSample("a.b", c.shape, false, c.budget)
		rows, cols, seen := map[int]bool{}, map[int]bool{}, map[[2]int]bool{}
		for r, col := range s.All() {
			rows[r], cols[col], seen[[2]int{r, col}] = true, true, true
		}
		if want := shapes.Product(c.shape[:len(c.shape)-1]); len(rows) != want {
			t.Errorf("%v: %d rows seen, want %d", c.shape, len(rows), want)
		}
		if want := min(s.Entries(), c.shape[len(c.shape)-1]); len(cols) < want {
			t.Errorf("%v: %d columns seen, want %d", c.shape, len(cols), want)
		}
		if len(seen) != s.Entries() {
			t.Errorf("%v: %d different entries, want %d", c.shape, len(seen), s.Entries())
		}
	}
}

func TestSampleOfACausalNodeStaysBelowTheDiagonal(t *testing.T) {
	const h, q = 3, 50
	s := NewSample("a.scores", []int{h, q, q}, true, 1000)
	for r, c := range s.All() {
		if c > r%q {
			t.Fatalf("row %d: column %d, want at most %d", r, c, r%q)
		}
		if s.Width(r) != 1+r%q {
			t.Fatalf("row %d: width %d, want %d", r, s.Width(r), 1+r%q)
		}
	}
}

func TestGatherTakesWhatTheSampleNames(t *testing.T) {
	x := shapes.NewTensor(6, 10, 20)
	for i := range x.Data {
		x.Data[i] = float32(i)
	}
	for _, budget := range []int{0, 1200, 1199, 60, 59, 1} {
		s := NewSample("a.b", x.Shape, false, budget)
		got, j := Gather(x, s), 0
		for r, c := range s.All() {
			if got[j] != float32(20*r+c) {
				t.Fatalf("budget %d: entry %d is %v, want row %d, column %d", budget, j, got[j], r, c)
			}
			j++
		}
		if j != len(got) || j != s.Entries() {
			t.Errorf("budget %d: %d entries, want %d", budget, len(got), s.Entries())
		}
	}
	s := NewSample("a.b", x.Shape, false, 0)
	if got := Gather(x, s); &got[0] == &x.Data[0] {
		t.Error("the entries share the engine's memory, which it may reuse")
	}
}

func TestSampleOfTheGraph(t *testing.T) {
	cfg, err := shapes.Model("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	cut := map[string]bool{}
	d := shapes.Dims{N: 3, R: 20, T: 40, L: 40}
	for _, n := range shapes.Nodes(cfg) {
		s := SampleOf(n, d, 384)
		for i := range s.Rows() {
			if r := s.Row(i); s.Width(r) < n.Concrete(d)[len(n.Shape)-1] {
				cut[string(n.Kind)] = true
				break
			}
		}
	}
	if !reflect.DeepEqual(cut, map[string]bool{"Scores": true, "Softmax": true}) {
		t.Errorf("kinds with rows cut at the query: %v, want Scores and Softmax", cut)
	}
}

func TestSampleRefusesShapesThatAreNone(t *testing.T) {
	for name, f := range map[string]func(){
		"no axes":              func() { NewSample("a", nil, false, 1) },
		"an axis of zero":      func() { NewSample("a", []int{3, 0}, false, 1) },
		"a negative budget":    func() { NewSample("a", []int{3}, false, -1) },
		"a product that wraps": func() { NewSample("a", []int{1 << 40, 1 << 40}, false, 1) },
		"a causal vector":      func() { NewSample("a", []int{3}, true, 1) },
		"a tensor too small":   func() { Gather(shapes.NewTensor(2, 2), NewSample("a", []int{2, 3}, false, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func BenchmarkGather(b *testing.B) {
	x := shapes.NewTensor(762, 14336)
	s := NewSample("language_model.model.layers.0.mlp.gated", x.Shape, false, 4096)
	for b.Loop() {
		Gather(x, s)
	}
}
