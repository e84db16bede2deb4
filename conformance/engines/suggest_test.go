package engines_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/dump"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/shapes"
)

// suggested asks for a map of a dump in a folder.
func suggested(t *testing.T, dir string, truth values) dump.Proposal {
	t.Helper()
	target := enginetest.Target()
	c, err := target.Set.Case("image")
	if err != nil {
		t.Fatal(err)
	}
	r, err := dump.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := r.Bind(target.Set.Config, c.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	return dump.Suggest(r, b, target.Set.Config, c.Inputs, func(node string) (shapes.Tensor, bool) {
		v, ok := truth[node]
		return v, ok
	})
}

// What a dump's manifest says of its layout is taken out, and comes back by shapes and values alone: with what is proposed the dump is conformant, all of it.
func TestALayoutIsFoundAgain(t *testing.T) {
	cannot := map[string]bool{ // each needs to be told: parts and their order, padding
		"in parts along the text": true, "tile by tile": true, "padded and not scaled": true,
	}
	v := compute(t, enginetest.Graph{}, "image")
	noisy := compute(t, enginetest.Graph{Change: enginetest.Rounded(compare.BF16)}, "image")
	for _, l := range layouts {
		if cannot[l.name] {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			d := plainDump(v)
			l.change(d)
			for _, key := range []string{"map", "axis_order", "batch"} {
				delete(d.manifest, key)
			}
			dir := t.TempDir()
			d.write(dir, "stored")
			for _, truth := range []values{v, noisy} { // its own values, and another precision's
				p := suggested(t, dir, truth)
				if p.Explained != p.Arrays || len(p.Open) > 0 {
					t.Fatalf("%d of %d arrays explained:\n%s\n%s", p.Explained, p.Arrays, p.Fragment(), strings.Join(p.Open, "\n"))
				}
				d := *d
				if text := p.Fragment(); text != "" {
					if err := json.Unmarshal([]byte("{"+text+"}"), &d.manifest); err != nil {
						t.Fatal(err)
					}
				}
				again := t.TempDir()
				d.write(again, "stored")
				run, text := judged(t, again, "image")
				if c := run.Coverage(); run.Status().String() != "pass" || c.Checked != len(v) {
					t.Errorf("with\n%s\n%s", p.Fragment(), text)
				}
				delete(d.manifest, "map")
			}
		})
	}
}

func TestWhatCannotBeToldIsNotProposed(t *testing.T) {
	v := compute(t, enginetest.Graph{}, "image")
	at := layers(text)[0]
	for _, c := range []struct {
		name   string
		change func(d *dumped, truth values)
		want   string
	}{
		{"two nodes with the same values", func(d *dumped, truth values) {
			truth[at+".mlp.up_proj"] = truth[at+".mlp.gate_proj"]
			d.arrays["x"] = d.arrays[at+".mlp.gate_proj"]
			delete(d.arrays, at+".mlp.gate_proj")
			delete(d.arrays, at+".mlp.up_proj")
		}, `"x" [59, 96]: several readings fit, and which is meant cannot be told:` + "\n" + `  {"node":"` + at + `.mlp.gate_proj","tensor":"x"}` + "\n" + `  {"node":"` + at + `.mlp.up_proj","tensor":"x"}`},
		{"two nodes that are nearer to each other than the dump to either", func(d *dumped, truth values) {
			up, x := shapes.Tensor{Shape: []int{59, 96}}, shapes.Tensor{Shape: []int{59, 96}}
			for _, v := range truth[at+".mlp.gate_proj"].Data {
				up.Data, x.Data = append(up.Data, v*(1+0x1p-9)), append(x.Data, compare.BF16.Round(v))
			}
			truth[at+".mlp.up_proj"], d.arrays["x"] = up, x
			delete(d.arrays, at+".mlp.gate_proj")
			delete(d.arrays, at+".mlp.up_proj")
		}, `"x" [59, 96]: several readings fit, and which is meant cannot be told:`},
		{"two arrays with the same values", func(d *dumped, truth values) {
			d.arrays["x"], d.arrays["y"] = d.arrays[at+".mlp.gate_proj"], d.arrays[at+".mlp.gate_proj"]
			delete(d.arrays, at+".mlp.gate_proj")
		}, `"x" and "y" are both ` + at + `.mlp.gate_proj; which is meant cannot be told`},
		{"two pairs that add up to the same node", func(d *dumped, truth values) {
			half := func(f float32) shapes.Tensor {
				y := shapes.Tensor{Shape: truth[at].Shape}
				for _, v := range truth[at].Data {
					y.Data = append(y.Data, v*f)
				}
				return y
			}
			d.arrays["a"], d.arrays["b"], d.arrays["c"], d.arrays["d"] = half(0.25), half(0.75), half(0.5), half(0.5)
			delete(d.arrays, at)
		}, `"a" [59, 64]: no reading fits`},
		{"another node's values", func(d *dumped, truth values) {
			d.arrays["x"] = d.arrays[at+".mlp.gate_proj"]
			delete(d.arrays, at+".mlp.up_proj")
		}, `"x" [59, 96]: no reading fits a node that is still without an array`},
		{"a shape that no node has", func(d *dumped, truth values) {
			d.arrays["x"] = shapes.NewTensor(7, 11)
			delete(d.arrays, at+".mlp.up_proj")
		}, `"x" [7, 11]: no reading fits`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, truth := plainDump(v), values{}
			for name, t := range v {
				truth[name] = t
			}
			c.change(d, truth)
			dir := t.TempDir()
			d.write(dir, "npy")
			p := suggested(t, dir, truth)
			if p.Explained != 0 || len(p.Rules) != 0 || !slices.ContainsFunc(p.Open, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("%d explained, rules %v, open %q, want %q", p.Explained, p.Rules, p.Open, c.want)
			}
		})
	}
}
