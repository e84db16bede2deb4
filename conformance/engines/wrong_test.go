package engines_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/shapes"
)

// wrongDeclarations are dumps of right values of which one thing is declared wrongly or not at all. The message says what would be right.
var wrongDeclarations = []struct {
	name   string
	change func(d *dumped)
	status conformance.Status
	want   []string
}{
	{"a batch axis that is not declared", func(d *dumped) {
		n := layers(text)[1] + ".mlp.down_proj"
		d.arrays[n] = shaped(d.arrays[n], append([]int{1}, d.arrays[n].Shape...)...)
	}, conformance.Fail, []string{"layers.1.mlp.down_proj", `has shape [1, 16, 64], want [T, C] = [16, 64]; if its axes are "1 T C", put this into the map: {"node":"language_model.model.layers.1.mlp.down_proj","tensor":"language_model.model.layers.1.mlp.down_proj","axes":"1 T C"}`}},
	{"a batch axis that is declared and not there", func(d *dumped) { d.manifest["batch"] = true }, conformance.Fail,
		[]string{`has shape [16, 64], want [1, T, C] = [1, 16, 64]; if its axes are "T C", put this`}},
	{"transposed", func(d *dumped) {
		n := layers(text)[0] + ".mlp.gated"
		d.arrays[n] = turned(d.arrays[n], 1, 0)
	}, conformance.Fail, []string{`want [T, F] = [16, 96]; if its axes are "F T"`}},
	{"heads apart", func(d *dumped) {
		n := layers(text)[0] + ".self_attn.q_proj"
		d.arrays[n] = turned(shaped(d.arrays[n], 16, heads, width), 1, 0, 2)
	}, conformance.Fail, []string{`has shape [4, 16, 16], want [T, H*Dh] = [16, 64]; if its axes are "H T Dh" (or "H Dh T", which its shape would fit as well)`}}, // there are as many positions as a head is wide
	{"axes that are another node's", func(d *dumped) {
		d.rule(map[string]any{"node": text + ".mlp.gated", "tensor": layers(text)[0] + ".mlp.gated", "axes": "T C"})
	}, conformance.Error, []string{`axes "T C": there is no C left; the node has [T, F]`}},
	{"axes that leave one out", func(d *dumped) {
		d.rule(map[string]any{"node": text + ".mlp.gated", "tensor": layers(text)[0] + ".mlp.gated", "axes": "F"})
	}, conformance.Error, []string{`axes "F": T is missing; the node has [T, F]`}},
	{"shapes of ggml", func(d *dumped) {
		n := layers(text)[0] + ".mlp.gated"
		d.arrays[n] = shaped(d.arrays[n], 96, 16)
	}, conformance.Fail, []string{`has shape [96, 16], want [T, F] = [16, 96]; if its axes are "F T", put this into the map: {`, `; or, if shapes are written with the fastest axis first, as ggml does, put "axis_order": "ne" into the manifest`}},
	{"shapes of ggml, taken for transposed", func(d *dumped) {
		d.each(text+".mlp.gated", map[string]any{"tensor": "g{i}", "axes": "F T"}, func(v shapes.Tensor) shapes.Tensor { return shaped(v, 96, 16) })
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0.mlp.gated", `it would hold with "axes": "T F", "axis_order": "ne"`}},
	{"GGUF's order of rows not declared", func(d *dumped) {
		for _, l := range layers(text) {
			d.arrays[l+".self_attn.q_proj"] = permuted(d.arrays[l+".self_attn.q_proj"], heads)
		}
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0.self_attn.q_proj", `it would hold with "axes": "T H*Dh~"`}},
	{"GGUF's order of rows declared and not there", func(d *dumped) {
		d.each(text+".self_attn.rope_q", map[string]any{"tensor": "rq{i}", "axes": "T H Dh~"}, nil)
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0.self_attn.rope_q", `it would hold with "axes": "T H Dh"`}},
	{"fused in another order", func(d *dumped) {
		for i, l := range layers(text) {
			d.arrays[fmt.Sprintf("qkv%d", i)] = beside(d.arrays[l+".self_attn.k_proj"], d.arrays[l+".self_attn.v_proj"], d.arrays[l+".self_attn.q_proj"])
			for _, n := range []string{"q", "k", "v"} {
				delete(d.arrays, l+".self_attn."+n+"_proj")
			}
		}
		a := text + ".self_attn."
		d.rule(map[string]any{"node": []string{a + "q_proj", a + "k_proj", a + "v_proj"}, "tensor": "qkv{i}"})
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0.self_attn.q_proj",
		`it would hold with "node": ["language_model.model.layers.0.self_attn.k_proj","language_model.model.layers.0.self_attn.v_proj","language_model.model.layers.0.self_attn.q_proj"]`}},
	{"fused and one of them forgotten", func(d *dumped) {
		l := layers(text)[0] + ".mlp."
		d.arrays["gu0"] = beside(d.arrays[l+"gate_proj"], d.arrays[l+"up_proj"])
		d.rule(map[string]any{"node": text + ".mlp.gate_proj", "tensor": "gu{i}"})
	}, conformance.Fail, []string{`has shape [16, 192], want [T, F] = [16, 96]; if other nodes lie beside it on the last axis (q, k and v; gate and up), give the rule a list of nodes`}},
	{"scores that were not scaled", func(d *dumped) {
		n := layers(text)[0] + ".self_attn.scores"
		v := shapes.Tensor{Shape: d.arrays[n].Shape}
		for _, x := range d.arrays[n].Data {
			v.Data = append(v.Data, x*4)
		}
		d.arrays[n] = v
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0.self_attn.scores", `it would hold with "scale": "1/sqrt(Dh)"`}},
	{"a part of the positions", func(d *dumped) {
		n := layers(text)[0] + ".mlp.gated"
		d.arrays[n] = rows(d.arrays[n], 3, 16)
	}, conformance.Fail, []string{`if the rest is in further arrays, call them NAME#0, NAME#1, ... and write "tensor": "NAME#{part}", "join": "T"`}},
	{"joined parts of which one is missing", func(d *dumped) {
		n := layers(text)[0] + ".mlp.gated"
		v := d.arrays[n]
		delete(d.arrays, n)
		d.arrays["g0#0"], d.arrays["g0#1"] = rows(v, 0, 4), rows(v, 4, 15)
		d.rule(map[string]any{"node": text + ".mlp.gated", "tensor": "g{i}#{part}", "join": "T"})
	}, conformance.Fail, []string{`the 2 arrays "g0#0" ... have 15 of T together, want 16`}},
	{"longer than the prompt", func(d *dumped) {
		n := layers(text)[0] + ".mlp.gated"
		d.arrays[n] = shapes.Tensor{Shape: []int{17, 96}, Data: append(d.arrays[n].Data[:16*96:16*96], make([]float32, 96)...)}
	}, conformance.Fail, []string{`if it is longer than the prompt, write "padded": "T" into its rule`}},
	{"padded by less than is said", func(d *dumped) {
		n := layers(text)[0] + ".self_attn.scores"
		v := d.arrays[n]
		delete(d.arrays, n)
		d.arrays["kq"] = shaped(beside(shaped(v, heads*16, 16), shapes.NewTensor(heads*16, 4)), heads, 16, 20)
		d.rule(map[string]any{"node": n, "tensor": "kq", "padded": "L", "from": 5})
	}, conformance.Fail, []string{`array "kq" has shape [4, 16, 20], want [H, T, L] = [4, 16, 16], or more on axis L from 5 on`}},
	{"the last logits not declared", func(d *dumped) {
		n := "language_model.lm_head"
		d.arrays[n] = shaped(rows(d.arrays[n], 15, 16), 1, 1, 64)
	}, conformance.Fail, []string{`if it has the last positions only, put this into the map: {"node":"language_model.lm_head","tensor":"language_model.lm_head","axes":"1 T V","rows":"last"}`}},
	{"another naming", func(d *dumped) {
		renamed("language_model.model", "model.language_model", "language_model.lm_head", "lm_head")(d)
	}, conformance.Pass, []string{`note: naming hf has names for 1 arrays of the dump, naming hf-4.52 for 42: is it "naming": "hf-4.52"?`, "1 of 42 nodes checked"}},
	{"the newer GGUF naming for the older", func(d *dumped) {
		d.manifest["naming"] = "gguf-legacy"
		d.permuteQK()
		v := vision + ".mlp."
		d.named(map[string]string{v + "fc1": "v.blk.{i}.ffn_up", v + "fc2": "v.blk.{i}.ffn_down"})
	}, conformance.Fail, []string{`files of older converters have the tower's ffn_up and ffn_down exchanged: gguf and gguf-legacy are two namings`}},
	{"two arrays for a node", func(d *dumped) {
		d.arrays["x"] = d.arrays[layers(text)[0]]
		d.rule(map[string]any{"node": layers(text)[0], "tensor": "x"})
		d.rule(map[string]any{"node": text, "tensor": text})
	}, conformance.Error, []string{`two rules have an array for language_model.model.layers.0: "x" and "language_model.model.layers.0"`}},
	{"a rule for no node", func(d *dumped) {
		d.rule(map[string]any{"node": "language_model.layers.{i}", "tensor": "x"})
	}, conformance.Error, []string{`map[0]: "language_model.layers.{i}" fits no node of the model (llavaref nodes lists them)`}},
	{"a class for no node", func(d *dumped) {
		d.manifest["classes"] = []any{map[string]string{"nodes": "vision.*", "class": "f16"}}
	}, conformance.Error, []string{`classes[0]: "vision.*" fits no node of the model`}},
	{"a sum of which one is missing", func(d *dumped) {
		d.rule(map[string]any{"node": text, "sum": []string{text + ".mlp.down_proj", text + ".mlp.down_proj"}})
	}, conformance.Fail, []string{"first diverging node: language_model.model.layers.0\n", "local fails"}},
}

func TestAWrongDeclarationIsSaid(t *testing.T) {
	for _, prompt := range []string{"text"} {
		v := compute(t, enginetest.Graph{}, prompt)
		image := compute(t, enginetest.Graph{}, "image")
		for _, c := range wrongDeclarations {
			t.Run(c.name, func(t *testing.T) {
				of, on := v, prompt
				if strings.Contains(c.name, "GGUF naming") {
					of, on = image, "image"
				}
				d := plainDump(of)
				c.change(d)
				dir := t.TempDir()
				d.write(dir, "npy")
				run, text := judged(t, dir, on)
				if run.Status() != c.status {
					t.Errorf("%v, want %v", run.Status(), c.status)
				}
				for _, want := range c.want {
					if !strings.Contains(text, want) {
						t.Errorf("no %s", want)
					}
				}
				if t.Failed() {
					t.Log(text)
				}
			})
		}
	}
}

// broken are dumps that are no dumps of the case, or whose values are wrong.
var broken = []struct {
	name   string
	change func(d *dumped, dir string) // dir has the dump already, as .npy files
	status conformance.Status
	want   string
}{
	{"the ids of another prompt", func(d *dumped, dir string) {
		d.arrays = values{"input_ids": {Shape: []int{16}, Data: make([]float32, 16)}}
		d.dtype = "bf16" // uint16, which are integers too
		d.write(dir, "npy")
	}, conformance.Error, "input_ids: position 0 has 0, want 1: the dump is of another prompt"},
	{"ids that are no integers", func(d *dumped, dir string) {
		d.arrays = values{"input_ids": {Shape: []int{16}, Data: make([]float32, 16)}}
		d.write(dir, "npy")
	}, conformance.Error, "input_ids: dtype <f4, want integers"},
	{"images of another size", func(d *dumped, dir string) {
		must(os.WriteFile(filepath.Join(dir, "image_sizes.json"), []byte("[[1, 2]]"), 0o644))
	}, conformance.Error, "image_sizes.json: 1 images, want 0"},
	{"all NaN", func(d *dumped, dir string) {
		for name, v := range d.arrays {
			c := shapes.NewTensor(v.Shape...)
			for i := range c.Data {
				c.Data[i] = float32(math.NaN())
			}
			d.arrays[name] = c
		}
		d.write(dir, "npy")
	}, conformance.Fail, "NaN or an infinity where the truth has none"},
	{"all zero", func(d *dumped, dir string) {
		for name, v := range d.arrays {
			d.arrays[name] = shapes.NewTensor(v.Shape...)
		}
		d.write(dir, "npy")
	}, conformance.Fail, "first diverging node: language_model.model.embed_tokens"},
	{"two nodes exchanged", func(d *dumped, dir string) {
		a, b := layers(text)[0]+".mlp.gate_proj", layers(text)[0]+".mlp.up_proj"
		d.arrays[a], d.arrays[b] = d.arrays[b], d.arrays[a]
		d.write(dir, "npy")
	}, conformance.Fail, "first diverging node: language_model.model.layers.0.mlp.gate_proj"},
	{"cut off", func(d *dumped, dir string) {
		path := filepath.Join(dir, "language_model.lm_head.npy")
		info, err := os.Stat(path)
		must(err)
		must(os.Truncate(path, info.Size()-7))
	}, conformance.Error, "language_model.lm_head.npy: "},
	{"an empty file", func(d *dumped, dir string) {
		must(os.WriteFile(filepath.Join(dir, "language_model.lm_head.npy"), nil, 0o644))
	}, conformance.Error, "start of the file: 0 bytes, want 10"},
	{"an array of no values", func(d *dumped, dir string) {
		d.arrays = values{"language_model.lm_head": {Shape: []int{0, 64}}}
		d.write(dir, "npy")
	}, conformance.Fail, "has shape [0, 64], want [T, V] = [16, 64]"},
	{"the same name in two files", func(d *dumped, dir string) { d.write(dir, "stored") }, conformance.Error, `is in "all.npz" and in "language_model.lm_head.npy"; which of the two is meant cannot be known`},
	{"the same name twice in one archive", func(d *dumped, dir string) {
		twice := archive(member{"language_model.lm_head.npy", d.npyBytes(shapes.NewTensor(16, 64))}, member{"language_model.lm_head.npy", d.npyBytes(shapes.NewTensor(16, 64))})
		clear(dir)
		must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
		must(os.WriteFile(filepath.Join(dir, "a.npz"), twice, 0o644))
	}, conformance.Error, `"language_model.lm_head" is in "a.npz" and in "a.npz"`},
	{"a header that claims 10 GB", func(d *dumped, dir string) {
		must(os.WriteFile(filepath.Join(dir, "language_model.lm_head.npy"), claims("(2500000000,)"), 0o644))
	}, conformance.Error, "bytes, want 10000000"},
	{"an archive that claims and holds more than a node can have", func(d *dumped, dir string) {
		big := shapes.NewTensor(1<<20, 64) // 256 MiB of zeros, 256 KiB deflated
		clear(dir)
		must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
		must(os.WriteFile(filepath.Join(dir, "a.npz"), archive(member{"language_model.lm_head.npy", d.npyBytes(big)}), 0o644))
	}, conformance.Fail, "has shape [1048576, 64], want [T, V] = [16, 64]"},
	{"an archive that is cut off", func(d *dumped, dir string) {
		clear(dir)
		d.write(dir, "deflated")
		path := filepath.Join(dir, "all.npz")
		info, err := os.Stat(path)
		must(err)
		must(os.Truncate(path, info.Size()/2))
	}, conformance.Error, "zip: not a valid zip file"},
	{"an archive with a flipped bit", func(d *dumped, dir string) {
		clear(dir)
		d.write(dir, "stored")
		path := filepath.Join(dir, "all.npz")
		data, err := os.ReadFile(path)
		must(err)
		data[len(data)/2] ^= 1
		must(os.WriteFile(path, data, 0o644))
	}, conformance.Fail, "zip: checksum error"},
	{"names that leave the folder", func(d *dumped, dir string) {
		clear(dir)
		must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
		must(os.WriteFile(filepath.Join(dir, "a.npz"), archive(member{"../../outside.npy", d.npyBytes(shapes.NewTensor(16, 64))}, member{"/etc/x.npy", d.npyBytes(shapes.NewTensor(1))}), 0o644))
	}, conformance.Error, "nothing was compared"},
	{"a symbolic link", func(d *dumped, dir string) {
		path := filepath.Join(dir, "language_model.lm_head.npy")
		must(os.Rename(path, filepath.Join(filepath.Dir(dir), "elsewhere.npy")))
		must(os.Symlink(filepath.Join(filepath.Dir(dir), "elsewhere.npy"), path))
	}, conformance.Error, `"language_model.lm_head.npy": a symbolic link, want a file`},
	{"a manifest that is a symbolic link", func(d *dumped, dir string) {
		must(os.Rename(filepath.Join(dir, "manifest.json"), filepath.Join(dir, "m")))
		must(os.Symlink("m", filepath.Join(dir, "manifest.json")))
	}, conformance.Error, "manifest.json: a symbolic link, want a file"},
	{"a folder in the place of a file", func(d *dumped, dir string) {
		must(os.Mkdir(filepath.Join(dir, "x.npy"), 0o755))
	}, conformance.Error, `"x.npy": a folder, want a file`},
	{"a pickle in a .npy", func(d *dumped, dir string) {
		must(os.WriteFile(filepath.Join(dir, "language_model.lm_head.npy"), []byte(strings.Replace(string(claims("(1,)")), "'<f4'", "'|O' ", 1)), 0o644))
	}, conformance.Error, "an object array (pickle)"},
	{"nothing but a pickle", func(d *dumped, dir string) {
		clear(dir)
		must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
		must(os.WriteFile(filepath.Join(dir, "all.pt"), []byte("PK"), 0o644))
	}, conformance.Error, `"all.pt" is a pickle, which is never read`},
	{"nothing but a manifest", func(d *dumped, dir string) {
		clear(dir)
		must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
	}, conformance.Error, "no array, want .npy, .npz or .safetensors files"},
	{"no manifest", func(d *dumped, dir string) { must(os.Remove(filepath.Join(dir, "manifest.json"))) }, conformance.Error, "has no manifest.json"},
	{"a safetensors file whose header lies", func(d *dumped, dir string) {
		clear(dir)
		d.write(dir, "safetensors")
		path := filepath.Join(dir, "x.safetensors")
		info, err := os.Stat(path)
		must(err)
		must(os.Truncate(path, info.Size()-1))
	}, conformance.Error, "x.safetensors"},
	{"a node of integers", func(d *dumped, dir string) {
		must(os.WriteFile(filepath.Join(dir, "language_model.lm_head.npy"), []byte(strings.Replace(string(claims("(1,)")), "'<f4'", "'<i4'", 1)+"1234"), 0o644))
	}, conformance.Fail, "has dtype <i4, want a float of 16, 32 or 64 bits"},
}

func clear(dir string) {
	files, err := os.ReadDir(dir)
	must(err)
	for _, f := range files {
		must(os.RemoveAll(filepath.Join(dir, f.Name())))
	}
}

// claims is the header of an array of a shape, with no values behind it.
func claims(shape string) []byte {
	d := &dumped{dtype: "f32"}
	head := string(d.npyBytes(shapes.Tensor{Shape: []int{9}}))
	more := len(shape) - len("(9,)")
	return []byte(strings.Replace(strings.Replace(head, "(9,)", shape, 1), strings.Repeat(" ", more)+"\n", "\n", 1))
}

func TestABrokenDumpIsSaid(t *testing.T) {
	v := compute(t, enginetest.Graph{}, "text")
	for _, c := range broken {
		t.Run(c.name, func(t *testing.T) {
			d := plainDump(v)
			dir := filepath.Join(t.TempDir(), "dump")
			d.write(dir, "npy")
			c.change(d, dir)
			run, text := judged(t, dir, "text")
			if run.Status() != c.status || !strings.Contains(text, c.want) {
				t.Errorf("%v, want %v with %s:\n%s", run.Status(), c.status, c.want, text)
			}
		})
	}
}

func TestAFinerClassThanItHasIsSaid(t *testing.T) {
	for _, class := range []compare.Class{compare.F16, compare.BF16} {
		d := plainDump(compute(t, enginetest.Graph{Change: enginetest.Rounded(class)}, "text"))
		dir := t.TempDir()
		d.write(dir, "npy")
		run, text := judged(t, dir, "text")
		want := fmt.Sprintf("assumption, not taken: the engine as a whole behaves like %s storage (", class)
		cure := fmt.Sprintf(`and all its values are numbers of that class. If that is meant, the manifest declares it: "class": %q`, class)
		if run.Status() != conformance.Fail || !strings.Contains(text, want) || !strings.Contains(text, cure) || strings.Count(text, "assumption") != 1 {
			t.Errorf("%v, want fail with %s, %s:\n%s", run.Status(), want, cure, text)
		}
	}
}
