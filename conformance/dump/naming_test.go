package dump

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/shapes"
)

// Every rule of every naming is about some node of both models, and no array is meant for two nodes unless they lie side by side in it.
func TestNamingsFitTheModels(t *testing.T) {
	has := map[string]int{} // nodes of tiny-1.6 that a naming has a name for
	for _, naming := range Namings() {
		for _, model := range []string{"tiny-1.6", "tiny-1.5"} {
			c, err := shapes.Model(model)
			if err != nil {
				t.Fatal(err)
			}
			nodes := shapes.Nodes(c)
			meant := map[string]string{} // array -> rule
			named := map[string]bool{}
			for _, r := range compile(Rules(naming, c)) {
				fits := false
				for k, p := range r.patterns {
					for _, n := range nodes {
						i, ok := p.match(n.Name)
						if !ok {
							continue
						}
						fits, named[n.Name] = true, true
						heads, width := headsOf(c, n)
						shape := n.Concrete(shapes.Dims{N: 1, R: 3, T: 5, L: 5})
						if _, err := newLayout(n, shape, r.Axes, heads, width); err != nil {
							t.Errorf("%s, %s: %s: %v", naming, model, n.Name, err)
						}
						for _, name := range r.tensors() {
							name, ok := fill(name, i)
							by := strings.Join(r.Node, ", ") + " " + r.Node[k][:0]
							if other := meant[name]; ok && other != "" && other != by && len(r.Sum) == 0 {
								t.Errorf("%s, %s: array %s is meant for %s and for %s", naming, model, name, other, by)
							}
							meant[name] = by
						}
					}
				}
				if !fits && !(model == "tiny-1.5" && r.Node[0] == shapes.NodePack) {
					t.Errorf("%s, %s: %v fits no node", naming, model, r.Node)
				}
			}
			if model == "tiny-1.6" {
				has[naming] = len(named)
			}
		}
	}
	for naming, want := range map[string]int{"hf": 928, "hf-4.52": 928, "hf-5.6": 928, "hf-from-config": 928, "original": 928, "lite-llama": 928, "gguf": 928, "gguf-legacy": 928,
		// per vision layer all but scores and probs, and pre_layrnorm; per text layer all but act_fn, and merge, norm, head
		"llama.cpp": 24*12 + 1 + 32*17 + 3, "vllm": 928 - 32, "none": 0} {
		if has[naming] != want {
			t.Errorf("%s has names for %d nodes of tiny-1.6, want %d", naming, has[naming], want)
		}
	}
}

// Patterns: what stands in the places of numbers is a number, and the same one.
func TestNumbersInNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		i             int
		ok            bool
	}{
		{"a.{i}.b", "a.12.b", 12, true},
		{"a.{i}.b", "a.x.b", 0, false},
		{"a.{i}.b", "a.1.b.c", 0, false},
		{"a.{i}.{i}", "a.3.3", 3, true},
		{"a.{i}.{i}", "a.3.4", 0, false},
		{"a.{i}", "a.99999999999999999999", 0, false},
		{"a.b", "a.b", 0, true},
		{"a.b", "aXb", 0, false},
	} {
		if i, ok := newPattern(c.pattern, false).match(c.name); i != c.i || ok != c.ok {
			t.Errorf("%s on %s: %d, %v, want %d, %v", c.pattern, c.name, i, ok, c.i, c.ok)
		}
	}
	for _, c := range []struct {
		name string
		i    int
		want string
		ok   bool
	}{
		{"x{i}", 3, "x3", true}, {"x{i+1}.{i}", 3, "x4.3", true}, {"x{i-1}", 3, "x2", true}, {"x{i-1}", 0, "", false}, {"x{j}", 3, "x{j}", true},
	} {
		if got, ok := fill(c.name, c.i); ok != c.ok || ok && got != c.want {
			t.Errorf("%s with %d: %s, %v, want %s, %v", c.name, c.i, got, ok, c.want, c.ok)
		}
	}
}

// hidden + residual: added up in float32, then rounded as the engine that adds them would store them.
func TestASumIsRoundedToItsClass(t *testing.T) {
	c, in := prompt(t)
	node := shapes.TextModel + ".norm"
	for class, want := range map[string]float32{"f32": 1 + 0x1p-9, "bf16": 1, "f16": 1 + 0x1p-9} {
		dir := t.TempDir()
		write(t, dir, ManifestFile, []byte(`{"format": 1, "engine": "x", "class": "`+class+`", "map": [{"node": "`+node+`", "sum": ["a", "b"]}]}`))
		for name, v := range map[string]float32{"a": 1, "b": 0x1p-9} {
			data := make([]float32, len(in.InputIDs)*c.Text.HiddenSize)
			for i := range data {
				data[i] = v
			}
			if err := npy.WriteFile(filepath.Join(dir, name+".npy"), []int{len(in.InputIDs), c.Text.HiddenSize}, data); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Bind(c, in)
		if err != nil {
			t.Fatal(err)
		}
		v, err := b.Read(node)
		r.Close()
		if err != nil || slices.Min(v.Data) != want || slices.Max(v.Data) != want {
			t.Errorf("%s: %v to %v, %v, want %v", class, slices.Min(v.Data), slices.Max(v.Data), err, want)
		}
	}
}

// A dump is opened and bound without its values, and a node is read alone.
func TestOneNodeIsInMemoryAtATime(t *testing.T) {
	c, err := shapes.Model("tiny-1.5")
	if err != nil {
		t.Fatal(err)
	}
	var in shapes.Inputs
	for i := range 1000 {
		in.InputIDs, in.PositionIDs = append(in.InputIDs, 1), append(in.PositionIDs, i)
	}
	dir := t.TempDir()
	write(t, dir, ManifestFile, []byte(`{"format": 1, "engine": "x", "class": "f32"}`))
	const nodes = 20 // of 4 MB each
	for i := range nodes {
		if err := npy.WriteFile(filepath.Join(dir, shapes.TextLayer(i)+".self_attn.scores.npy"), []int{1, 1000, 1000}, make([]float32, 1e6)); err != nil {
			t.Fatal(err)
		}
	}
	c.Text.NumAttentionHeads, c.Text.NumKeyValueHeads, c.Text.HeadDim = 1, 1, c.Text.HiddenSize
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	var r *Reader
	var b *Binding
	if used := allocated(func() {
		if r, err = Open(dir); err == nil {
			b, err = r.Bind(c, in)
		}
	}); err != nil || used > 8<<20 {
		t.Fatalf("opening: %v, %d MiB allocated, want at most 8 for a dump of %d MB", err, used>>20, 4*nodes)
	}
	defer r.Close()
	for i := range nodes {
		if used := allocated(func() { _, err = b.Read(shapes.TextLayer(i) + ".self_attn.scores") }); err != nil || used > 10<<20 {
			t.Errorf("a node of 4 MB: %v, %d MiB allocated, want at most 10", err, used>>20)
		}
	}
}
