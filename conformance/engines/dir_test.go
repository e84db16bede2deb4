package engines_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/engines"
	"github.com/llavaref/llavaref/conformance/internal/enginetest"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/shapes"
)

// values is what an engine shows for one prompt of the small set.
type values map[string]shapes.Tensor

// compute runs an engine on a case of the small set.
func compute(t *testing.T, g enginetest.Graph, name string) values {
	t.Helper()
	target := enginetest.Target()
	c, err := target.Set.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	e, err := g.Opener()(target.Set.Config, target.Weights)
	if err != nil {
		t.Fatal(err)
	}
	out := values{}
	if _, err := e.Forward(c.Inputs, func(node string, v shapes.Tensor) { out[node] = v }); err != nil {
		t.Fatal(err)
	}
	return out
}

// shaped gives the same values another shape.
func shaped(v shapes.Tensor, shape ...int) shapes.Tensor {
	if shapes.Product(shape) != len(v.Data) {
		panic(fmt.Sprintf("%v is not %v", v.Shape, shape))
	}
	return shapes.Tensor{Shape: shape, Data: v.Data}
}

// turned is numpy's transpose: axis a of the result is axis order[a] of v.
func turned(v shapes.Tensor, order ...int) shapes.Tensor {
	shape := make([]int, len(order))
	for a, o := range order {
		shape[a] = v.Shape[o]
	}
	out := shapes.NewTensor(shape...)
	index := make([]int, len(shape))
	for i := range out.Data {
		rest := i
		for a := len(shape) - 1; a >= 0; a-- {
			index[a] = rest % shape[a]
			rest /= shape[a]
		}
		at := 0
		for b, n := range v.Shape {
			at = at*n + index[slices.Index(order, b)]
		}
		out.Data[i] = v.Data[at]
	}
	return out
}

// beside puts matrices side by side.
func beside(list ...shapes.Tensor) shapes.Tensor {
	width := 0
	for _, v := range list {
		width += v.Cols()
	}
	out := shapes.Tensor{Shape: append(slices.Clone(list[0].Shape[:len(list[0].Shape)-1]), width)}
	for r := range list[0].Rows() {
		for _, v := range list {
			out.Data = append(out.Data, v.Row(r)...)
		}
	}
	return out
}

// rows are rows from a to b along the first axis.
func rows(v shapes.Tensor, a, b int) shapes.Tensor {
	n := len(v.Data) / v.Shape[0]
	return shapes.Tensor{Shape: append([]int{b - a}, v.Shape[1:]...), Data: v.Data[a*n : b*n]}
}

// permuted is what llama.cpp's converter makes of the rows of q and k, here of columns: reshape(heads, 2, width/2).swapaxes(1, 2).
func permuted(v shapes.Tensor, heads int) shapes.Tensor {
	shape := v.Shape
	n, width := shapes.Product(shape[:1]), len(v.Data)/shape[0]/heads
	return shaped(turned(shaped(v, n, heads, 2, width/2), 0, 1, 3, 2), shape...)
}

// dumped is a dump under construction.
type dumped struct {
	manifest map[string]any
	arrays   map[string]shapes.Tensor
	dtype    string // f32, f64, f16, bf16
	fortran  bool
}

// plainDump has all values under their own names.
func plainDump(v values) *dumped {
	return &dumped{manifest: map[string]any{"format": 1, "engine": "test", "class": "f32", "lanes": 16}, arrays: maps.Clone(v), dtype: "f32"}
}

// move takes an array out under another name.
func (d *dumped) move(from, to string, change func(shapes.Tensor) shapes.Tensor) {
	v, ok := d.arrays[from]
	if !ok {
		panic(from + " is not there")
	}
	delete(d.arrays, from)
	if change != nil {
		v = change(v)
	}
	d.arrays[to] = v
}

func (d *dumped) rule(rule map[string]any) {
	list, _ := d.manifest["map"].([]any)
	d.manifest["map"] = append(list, rule)
}

// npyBytes is an array in numpy's format, in any order and dtype, written without the package that reads it.
func (d *dumped) npyBytes(v shapes.Tensor) []byte {
	descr := map[string]string{"f32": "<f4", "f64": "<f8", "f16": "<f2", "bf16": "<u2"}[d.dtype]
	var words []string
	for _, n := range v.Shape {
		words = append(words, fmt.Sprint(n)+",")
	}
	order := "False"
	if d.fortran {
		order = "True"
		axes := make([]int, len(v.Shape))
		for a := range axes {
			axes[a] = len(axes) - 1 - a
		}
		v = turned(v, axes...)
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, order, strings.Join(words, " "))
	header += strings.Repeat(" ", (64-(len(header)+11)%64)%64) + "\n"
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	binary.Write(&b, binary.LittleEndian, uint16(len(header)))
	b.WriteString(header)
	b.Write(d.raw(v.Data))
	return b.Bytes()
}

func (d *dumped) raw(data []float32) []byte {
	var b bytes.Buffer
	for _, x := range data {
		switch d.dtype {
		case "f32":
			binary.Write(&b, binary.LittleEndian, x)
		case "f64":
			binary.Write(&b, binary.LittleEndian, float64(x))
		case "bf16":
			binary.Write(&b, binary.LittleEndian, uint16(math.Float32bits(x)>>16))
		case "f16":
			binary.Write(&b, binary.LittleEndian, half(x))
		}
	}
	return b.Bytes()
}

// half is the float16 that a float32 which is one has.
func half(x float32) uint16 {
	sign := uint16(math.Float32bits(x) >> 16 & 0x8000)
	a := math.Abs(float64(x))
	switch {
	case math.IsNaN(float64(x)):
		return 0x7e00
	case a > 65504:
		return sign | 0x7c00
	case a < 0x1p-14:
		return sign | uint16(a*0x1p24)
	}
	m, e := math.Frexp(a) // m in [0.5, 1)
	return sign | uint16(e+14)<<10 | uint16((m*2-1)*1024)
}

func (d *dumped) manifestBytes() []byte {
	data, err := json.Marshal(d.manifest)
	if err != nil {
		panic(err)
	}
	return data
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// write writes the dump as .npy files, an .npz ("stored" or "deflated") or a .safetensors.
func (d *dumped) write(dir, container string) {
	must(os.MkdirAll(dir, 0o755))
	must(os.WriteFile(filepath.Join(dir, "manifest.json"), d.manifestBytes(), 0o644))
	names := slices.Sorted(maps.Keys(d.arrays))
	switch container {
	case "npy":
		for _, name := range names {
			must(os.WriteFile(filepath.Join(dir, name+".npy"), d.npyBytes(d.arrays[name]), 0o644))
		}
	case "stored", "deflated":
		f, err := os.Create(filepath.Join(dir, "all.npz"))
		must(err)
		defer f.Close()
		z := zip.NewWriter(f)
		for _, name := range names {
			method := zip.Store
			if container == "deflated" {
				method = zip.Deflate
			}
			w, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: method})
			must(err)
			_, err = w.Write(d.npyBytes(d.arrays[name]))
			must(err)
		}
		must(z.Close())
	case "safetensors":
		header, at := map[string]any{}, 0
		var data []byte
		for _, name := range names {
			raw := d.raw(d.arrays[name].Data)
			header[name] = map[string]any{"dtype": strings.ToUpper(d.dtype), "shape": d.arrays[name].Shape, "data_offsets": []int{at, at + len(raw)}}
			at += len(raw)
			data = append(data, raw...)
		}
		text, err := json.Marshal(header)
		must(err)
		var b bytes.Buffer
		binary.Write(&b, binary.LittleEndian, uint64(len(text)))
		b.Write(text)
		b.Write(data)
		must(os.WriteFile(filepath.Join(dir, "x.safetensors"), b.Bytes(), 0o644))
	default:
		panic(container)
	}
}

// judged runs the suite on a folder for one case of the small set.
func judged(t *testing.T, path, name string) (conformance.Run, string) {
	t.Helper()
	s := conformance.Suite{Targets: []conformance.Target{enginetest.Target()}, Cases: name}
	open, err := engines.Find("dir:" + path)
	if err != nil {
		t.Fatal(err)
	}
	run := s.Run(context.Background(), open)
	var text bytes.Buffer
	if err := report.Text(&text, run, false); err != nil {
		t.Fatal(err)
	}
	return run, text.String()
}

var (
	vision = "vision_tower.vision_model.encoder.layers.{i}"
	text   = "language_model.model.layers.{i}"
)

// layers fills in the numbers of the small model's layers.
func layers(pattern string) []string {
	n := 2
	if strings.HasPrefix(pattern, "vision") {
		n = 3
	}
	var out []string
	for i := range n {
		out = append(out, strings.ReplaceAll(pattern, "{i}", fmt.Sprint(i)))
	}
	return out
}

// each changes the array of a node in every layer, and adds a rule with axes for it.
func (d *dumped) each(pattern string, rule map[string]any, change func(shapes.Tensor) shapes.Tensor) {
	for i, name := range layers(pattern) {
		d.move(name, strings.ReplaceAll(rule["tensor"].(string), "{i}", fmt.Sprint(i)), change)
	}
	rule["node"] = pattern
	d.rule(rule)
}

// Sizes of the small model: 3 tiles, 17 vision positions.
const (
	tiles, positions, vHeads, vWidth, heads, kvHeads, width = 3, 17, 2, 16, 4, 2, 16
)

// layouts are ways to lay a dump out that are all declared rightly.
var layouts = []struct {
	name   string
	change func(d *dumped)
}{
	{"as it is", func(d *dumped) {}},
	{"float64", func(d *dumped) { d.dtype = "f64" }},
	{"Fortran order", func(d *dumped) { d.fortran = true }},
	{"a batch axis in the language model", func(d *dumped) {
		d.manifest["batch"] = true
		for name, v := range d.arrays {
			if strings.HasPrefix(name, "language_model") || name == "merge_embeddings" {
				d.arrays[name] = shaped(v, append([]int{1}, v.Shape...)...)
			}
		}
	}},
	{"shapes as ggml writes them", func(d *dumped) {
		d.manifest["axis_order"] = "ne"
		for name, v := range d.arrays {
			s := slices.Clone(v.Shape)
			slices.Reverse(s)
			d.arrays[name] = shaped(v, s...)
		}
	}},
	{"transposed", func(d *dumped) {
		d.each(text+".mlp.down_proj", map[string]any{"tensor": "d{i}", "axes": "C T"}, func(v shapes.Tensor) shapes.Tensor { return turned(v, 1, 0) })
	}},
	{"heads apart and in front", func(d *dumped) {
		d.each(text+".self_attn.q_proj", map[string]any{"tensor": "q{i}", "axes": "1 H T Dh"}, func(v shapes.Tensor) shapes.Tensor {
			v = turned(shaped(v, v.Shape[0], heads, width), 1, 0, 2)
			return shaped(v, append([]int{1}, v.Shape...)...)
		})
		d.each(text+".self_attn.v_proj", map[string]any{"tensor": "v{i}", "axes": "K T Dh"}, func(v shapes.Tensor) shapes.Tensor {
			return turned(shaped(v, v.Shape[0], kvHeads, width), 1, 0, 2)
		})
		d.each(text+".self_attn.rope_k", map[string]any{"tensor": "rk{i}", "axes": "T K*Dh"}, func(v shapes.Tensor) shapes.Tensor {
			return shaped(v, v.Shape[0], kvHeads*width)
		})
		if d.arrays[strings.ReplaceAll(vision, "{i}", "0")].Shape != nil {
			d.each(vision+".self_attn.q_proj", map[string]any{"tensor": "vq{i}", "axes": "N H S Dh"}, func(v shapes.Tensor) shapes.Tensor {
				return turned(shaped(v, tiles, positions, vHeads, vWidth), 0, 2, 1, 3)
			})
		}
	}},
	{"several axes in one", func(d *dumped) {
		e := "vision_tower.vision_model.embeddings"
		if d.arrays[e].Shape == nil {
			return
		}
		d.move(e+".patch_embedding", "patches", func(v shapes.Tensor) shapes.Tensor {
			return shaped(turned(v, 0, 2, 3, 1), tiles, positions-1, vHeads*vWidth)
		})
		d.rule(map[string]any{"node": e + ".patch_embedding", "tensor": "patches", "axes": "N P*P D"})
		d.move(e, "e", func(v shapes.Tensor) shapes.Tensor { return shaped(v, tiles*positions, vHeads*vWidth) })
		d.rule(map[string]any{"node": e, "tensor": "e", "axes": "N*S D"})
	}},
	{"fused", func(d *dumped) {
		for i, l := range layers(text) {
			a := l + ".self_attn."
			d.arrays[fmt.Sprintf("qkv%d", i)] = beside(d.arrays[a+"q_proj"], d.arrays[a+"k_proj"], d.arrays[a+"v_proj"])
			gu := beside(d.arrays[l+".mlp.gate_proj"], d.arrays[l+".mlp.up_proj"])
			d.arrays[fmt.Sprintf("gu%d", i)] = turned(shaped(gu, 1, gu.Shape[0], gu.Shape[1]), 0, 2, 1)
			for _, n := range []string{a + "q_proj", a + "k_proj", a + "v_proj", l + ".mlp.gate_proj", l + ".mlp.up_proj"} {
				delete(d.arrays, n)
			}
		}
		a := text + ".self_attn."
		d.rule(map[string]any{"node": []string{a + "q_proj", a + "k_proj", a + "v_proj"}, "tensor": "qkv{i}"})
		d.rule(map[string]any{"node": []string{text + ".mlp.gate_proj", text + ".mlp.up_proj"}, "tensor": "gu{i}", "axes": "1 _ T"})
	}},
	{"hidden and residual", func(d *dumped) { // what the layer adds up
		for _, l := range layers(text) {
			d.arrays[l+".h"], d.arrays[l+".r"] = d.arrays[l+".mlp.down_proj"], d.arrays[l+".residual_attn"]
			delete(d.arrays, l)
		}
		d.rule(map[string]any{"node": text, "sum": []string{text + ".h", text + ".r"}})
	}},
	{"in parts along the text", func(d *dumped) {
		for i, l := range layers(text) {
			v := d.arrays[l+".self_attn.rope_q"]
			n := v.Shape[0]
			delete(d.arrays, l+".self_attn.rope_q")
			for k, p := range []shapes.Tensor{rows(v, 0, 3), rows(v, 3, n-1), rows(v, n-1, n)} {
				d.arrays[fmt.Sprintf("r%d#%d", i, k)] = turned(p, 1, 0, 2)
			}
		}
		d.rule(map[string]any{"node": text + ".self_attn.rope_q", "tensor": "r{i}#{part}", "axes": "H T Dh", "join": "T"})
	}},
	{"tile by tile", func(d *dumped) {
		if d.arrays[layers(vision)[0]].Shape == nil {
			return
		}
		for i, l := range layers(vision) {
			v := d.arrays[l]
			delete(d.arrays, l)
			for k := range tiles {
				d.arrays[fmt.Sprintf("l%d#%d", i, k)] = turned(shaped(rows(v, k, k+1), positions, vHeads*vWidth), 1, 0)
			}
		}
		d.rule(map[string]any{"node": vision, "tensor": "l{i}#{part}", "axes": "D S", "join": "N"})
	}},
	{"padded and not scaled", func(d *dumped) {
		for i, l := range layers(text) {
			v := d.arrays[l+".self_attn.scores"]
			delete(d.arrays, l+".self_attn.scores")
			h, n := v.Shape[0], v.Shape[1]
			out := shapes.NewTensor(h, n, n+9)
			for r := range h * n {
				for j := range n + 9 {
					x := float32(math.NaN())
					if j >= 5 && j < 5+n {
						x = v.Data[r*n+j-5] * 4 // sqrt(Dh)
					}
					out.Data[r*(n+9)+j] = x
				}
			}
			d.arrays[fmt.Sprintf("kq-%d", i)] = out
		}
		d.rule(map[string]any{"node": text + ".self_attn.scores", "tensor": "kq-{i}", "padded": "L", "from": 5, "scale": "1/sqrt(Dh)"})
	}},
	{"the last logits only", func(d *dumped) {
		d.move("language_model.lm_head", "logits", func(v shapes.Tensor) shapes.Tensor { return rows(v, v.Shape[0]-2, v.Shape[0]) })
		d.rule(map[string]any{"node": "language_model.lm_head", "tensor": "logits", "rows": "last"})
	}},
}

// The true values of a model, laid out in every way that can be declared, are conformant, and every node of them is looked at.
func TestEveryLayoutIsRead(t *testing.T) {
	for _, prompt := range []string{"image", "text"} {
		v := compute(t, enginetest.Graph{}, prompt)
		for i, l := range layouts {
			t.Run(prompt+", "+l.name, func(t *testing.T) {
				d := plainDump(v)
				l.change(d)
				dir := t.TempDir()
				d.write(dir, []string{"npy", "stored", "deflated"}[i%3])
				conformant(t, dir, prompt, len(v))
			})
		}
	}
}

func conformant(t *testing.T, dir, prompt string, nodes int) {
	t.Helper()
	run, text := judged(t, dir, prompt)
	if run.Status() != conformance.Pass {
		t.Errorf("%v, want pass:\n%s", run.Status(), text)
	}
	if c := run.Coverage(); c.Checked != nodes || c.Local != nodes {
		t.Errorf("%d nodes checked, %d by their own inputs, want %d:\n%s", c.Checked, c.Local, nodes, text)
	}
}

func TestEveryContainerAndDtypeIsRead(t *testing.T) {
	for _, class := range compare.Classes() {
		g := enginetest.Graph{Change: enginetest.Rounded(class)}
		v := compute(t, g, "text")
		for _, container := range []string{"npy", "stored", "deflated", "safetensors"} {
			for _, dtype := range []string{string(class), "f32", "f64"} {
				t.Run(fmt.Sprint(class, " as ", dtype, " in ", container), func(t *testing.T) {
					d := plainDump(v)
					d.manifest["class"], d.dtype = class, dtype
					dir := t.TempDir()
					d.write(dir, container)
					conformant(t, dir, "text", len(v))
				})
			}
		}
	}
}

// namings are ways to name a dump, each written out here once more by hand.
var namings = []struct {
	name   string
	missed []string // nodes that the naming has no name for
	change func(d *dumped)
}{
	{"hf-4.52", nil, renamed("language_model.model", "model.language_model", "language_model.lm_head", "lm_head", "vision_tower", "model.vision_tower", "multi_modal_projector", "model.multi_modal_projector")},
	{"hf-5.6", nil, renamed("language_model.model", "model.language_model", "language_model.lm_head", "lm_head", "vision_tower.vision_model", "model.vision_tower", "multi_modal_projector", "model.multi_modal_projector")},
	{"hf-from-config", nil, renamed("vision_tower.vision_model", "vision_tower")},
	{"original", nil, renamed("language_model.model", "model", "language_model.lm_head", "lm_head", "vision_tower.vision_model", "model.vision_tower.vision_tower.vision_model",
		"multi_modal_projector.linear_1", "model.mm_projector.0", "multi_modal_projector.act", "model.mm_projector.1", "multi_modal_projector.linear_2", "model.mm_projector.2")},
	{"lite-llama", nil, func(d *dumped) {
		renamed("language_model.model", "language_model")(d)
		for name := range maps.Clone(d.arrays) {
			to := name
			for _, p := range [][2]string{{"self_attn.q_proj", "attention.wq"}, {"self_attn.k_proj", "attention.wk"}, {"self_attn.v_proj", "attention.wv"}, {"self_attn.o_proj", "attention.wo"}, {"self_attn", "attention"}, {"mlp", "feed_forward"}} {
				if strings.HasPrefix(name, "language_model.layers") && strings.Contains(name, p[0]) {
					to = strings.Replace(name, p[0], p[1], 1)
					break
				}
			}
			d.move(name, to, nil)
		}
	}},
	{"gguf", nil, ggufNames("ffn_up", "ffn_down")},
	{"gguf-legacy", nil, ggufNames("ffn_down", "ffn_up")},
	{"llama.cpp", []string{".patch_embedding", ".embeddings", ".scores", ".probs", ".pooled", ".post_layernorm", "select_features", "pack_image_features", "multi_modal_projector.linear_1", ".act", ".linear_2",
		".embed_tokens", ".cos", ".sin", ".act_fn"}, llamaNames},
	{"vllm", []string{".act_fn"}, vllmNames},
}

// renamed puts other module paths in the places of some.
func renamed(pairs ...string) func(d *dumped) {
	return func(d *dumped) {
		for name := range maps.Clone(d.arrays) {
			for i := 0; i < len(pairs); i += 2 {
				if name == pairs[i] || strings.HasPrefix(name, pairs[i]+".") {
					d.move(name, pairs[i+1]+name[len(pairs[i]):], nil)
					break
				}
			}
		}
	}
}

func (d *dumped) named(pairs map[string]string) {
	for name := range maps.Clone(d.arrays) {
		for from, to := range pairs {
			re := regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(from), `\{i\}`, `(\d+)`) + `$`)
			if m := re.FindStringSubmatch(name); m != nil {
				if len(m) > 1 {
					to = strings.ReplaceAll(to, "{i}", m[1])
				}
				d.move(name, to, nil)
			}
		}
	}
}

// permuteQK puts q and k into GGUF's order of rows.
func (d *dumped) permuteQK() {
	for _, l := range layers(text) {
		for _, n := range []string{"q_proj", "rope_q"} {
			d.arrays[l+".self_attn."+n] = permuted(d.arrays[l+".self_attn."+n], heads)
		}
		for _, n := range []string{"k_proj", "rope_k"} {
			d.arrays[l+".self_attn."+n] = permuted(d.arrays[l+".self_attn."+n], kvHeads)
		}
	}
}

func ggufNames(fc1, fc2 string) func(d *dumped) {
	return func(d *dumped) {
		d.permuteQK()
		v := "vision_tower.vision_model."
		d.named(map[string]string{
			v + "embeddings.patch_embedding": "v.patch_embd", v + "embeddings": "v.embeddings", v + "pre_layrnorm": "v.pre_ln", v + "pooled": "v.pooled", v + "post_layernorm": "v.post_ln",
			vision: "v.blk.{i}", vision + ".layer_norm1": "v.blk.{i}.ln1", vision + ".layer_norm2": "v.blk.{i}.ln2",
			vision + ".self_attn.q_proj": "v.blk.{i}.attn_q", vision + ".self_attn.k_proj": "v.blk.{i}.attn_k", vision + ".self_attn.v_proj": "v.blk.{i}.attn_v",
			vision + ".self_attn.scores": "v.blk.{i}.scores", vision + ".self_attn.probs": "v.blk.{i}.probs", vision + ".self_attn.context": "v.blk.{i}.context",
			vision + ".self_attn.out_proj": "v.blk.{i}.attn_out", vision + ".residual_attn": "v.blk.{i}.residual_attn",
			vision + ".mlp.fc1": "v.blk.{i}." + fc1, vision + ".mlp.activation_fn": "v.blk.{i}.activation_fn", vision + ".mlp.fc2": "v.blk.{i}." + fc2,
			"multi_modal_projector.linear_1": "mm.0", "multi_modal_projector.act": "mm.1", "multi_modal_projector.linear_2": "mm.2",
			"language_model.model.embed_tokens": "token_embd", "language_model.model.rotary_emb.cos": "rope.cos", "language_model.model.rotary_emb.sin": "rope.sin",
			"language_model.model.norm": "output_norm", "language_model.lm_head": "output",
			text: "blk.{i}", text + ".input_layernorm": "blk.{i}.attn_norm", text + ".post_attention_layernorm": "blk.{i}.ffn_norm", text + ".residual_attn": "blk.{i}.residual_attn",
			text + ".self_attn.q_proj": "blk.{i}.attn_q", text + ".self_attn.k_proj": "blk.{i}.attn_k", text + ".self_attn.v_proj": "blk.{i}.attn_v", text + ".self_attn.o_proj": "blk.{i}.attn_output",
			text + ".self_attn.rope_q": "blk.{i}.rope_q", text + ".self_attn.rope_k": "blk.{i}.rope_k", text + ".self_attn.scores": "blk.{i}.scores", text + ".self_attn.probs": "blk.{i}.probs",
			text + ".self_attn.context": "blk.{i}.context", text + ".mlp.gate_proj": "blk.{i}.ffn_gate", text + ".mlp.up_proj": "blk.{i}.ffn_up", text + ".mlp.act_fn": "blk.{i}.act_fn",
			text + ".mlp.gated": "blk.{i}.gated", text + ".mlp.down_proj": "blk.{i}.ffn_down",
		})
	}
}

// llamaNames: three decode calls, one tower's graph a tile.
func llamaNames(d *dumped) {
	d.permuteQK()
	d.named(map[string]string{
		"merge_embeddings": "inp_embd", "language_model.model.norm": "result_norm", "language_model.lm_head": "result_output",
		text + ".input_layernorm": "attn_norm-{i}", text + ".self_attn.q_proj": "Qcur-{i}.MUL_MAT", text + ".self_attn.k_proj": "Kcur-{i}.MUL_MAT", text + ".self_attn.v_proj": "Vcur-{i}.MUL_MAT",
		text + ".self_attn.rope_q": "Qcur-{i}.ROPE", text + ".self_attn.rope_k": "Kcur-{i}.ROPE", text + ".self_attn.context": "kqv_out-{i}", text + ".self_attn.o_proj": "attn_out-{i}",
		text + ".residual_attn": "ffn_inp-{i}", text + ".post_attention_layernorm": "ffn_norm-{i}", text + ".mlp.gate_proj": "ffn_gate-{i}", text + ".mlp.up_proj": "ffn_up-{i}",
		text + ".mlp.gated": "ffn_swiglu-{i}", text + ".mlp.down_proj": "ffn_out-{i}", text: "l_out-{i}",
		"vision_tower.vision_model.pre_layrnorm": "v.pre_ln", vision + ".layer_norm1": "v.layer_inp_normed-{i}", vision + ".self_attn.q_proj": "v.Qcur-{i}", vision + ".self_attn.k_proj": "v.Kcur-{i}",
		vision + ".self_attn.v_proj": "v.Vcur-{i}", vision + ".self_attn.context": "v.kqv_out-{i}", vision + ".self_attn.out_proj": "v.attn_out-{i}", vision + ".residual_attn": "v.ffn_inp-{i}",
		vision + ".layer_norm2": "v.ffn_inp_normed-{i}", vision + ".mlp.fc1": "v.ffn_up_b-{i}", vision + ".mlp.activation_fn": "v.ffn_gelu_quick-{i}", vision + ".mlp.fc2": "v.ffn_out-{i}", vision: "v.layer_out-{i}",
	})
	for name, v := range maps.Clone(d.arrays) {
		switch {
		case strings.Contains(name, "."+"scores") || strings.Contains(name, ".probs") || strings.Contains(name, "_model") || strings.Contains(name, "_features") || strings.Contains(name, "multi_modal"):
			delete(d.arrays, name)
		case strings.HasPrefix(name, "v."):
			delete(d.arrays, name)
			for k := range tiles {
				d.arrays[fmt.Sprintf("%s#%d", name, k)] = shaped(rows(v, k, k+1), v.Shape[1:]...)
			}
		default:
			delete(d.arrays, name)
			n := v.Shape[0]
			for k, p := range []shapes.Tensor{rows(v, 0, 3), rows(v, 3, n-4), rows(v, n-4, n)} {
				d.arrays[fmt.Sprintf("%s#%d", name, k)] = p
			}
		}
	}
}

// vllmNames: fused projections, norms that carry the residual stream, logits of the last row.
func vllmNames(d *dumped) {
	a := d.arrays
	for _, l := range layers(vision) {
		a[l+".self_attn.qkv_proj"] = beside(a[l+".self_attn.q_proj"], a[l+".self_attn.k_proj"], a[l+".self_attn.v_proj"])
		for _, n := range []string{".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"} {
			delete(a, l+n)
		}
	}
	for i, l := range layers(text) {
		a[l+".self_attn.qkv_proj"] = beside(a[l+".self_attn.q_proj"], a[l+".self_attn.k_proj"], a[l+".self_attn.v_proj"])
		a[l+".mlp.gate_up_proj"] = beside(a[l+".mlp.gate_proj"], a[l+".mlp.up_proj"])
		a[l+".self_attn.rotary_emb.0"] = shaped(a[l+".self_attn.rope_q"], a[l].Shape[0], heads*width)
		a[l+".self_attn.rotary_emb.1"] = shaped(a[l+".self_attn.rope_k"], a[l].Shape[0], kvHeads*width)
		a[l+".self_attn.attn"] = a[l+".self_attn.context"]
		a[l+".post_attention_layernorm.0"], a[l+".post_attention_layernorm.1"] = a[l+".post_attention_layernorm"], a[l+".residual_attn"]
		a[l+".mlp.act_fn"] = a[l+".mlp.gated"]
		if i == 0 {
			a[strings.Replace(l, "0", "1", 1)+".input_layernorm.1"] = a[l]
		} else {
			a["language_model.model.norm.1"] = a[l]
			a[l+".input_layernorm.0"] = a[l+".input_layernorm"]
			delete(a, l+".input_layernorm")
		}
		for _, n := range []string{"", ".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj", ".self_attn.rope_q", ".self_attn.rope_k", ".self_attn.context", ".post_attention_layernorm",
			".residual_attn", ".mlp.gate_proj", ".mlp.up_proj", ".mlp.gated"} {
			delete(a, l+n)
		}
	}
	d.move("language_model.model.norm", "language_model.model.norm.0", nil)
	d.move("language_model.lm_head", "language_model.lm_head", func(v shapes.Tensor) shapes.Tensor { return rows(v, v.Shape[0]-1, v.Shape[0]) })
}

func TestEveryNamingIsRead(t *testing.T) {
	v := compute(t, enginetest.Graph{}, "image")
	for i, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			d := plainDump(v)
			d.manifest["naming"] = n.name
			n.change(d)
			dir := t.TempDir()
			d.write(dir, []string{"stored", "npy", "deflated", "safetensors"}[i%4])
			run, text := judged(t, dir, "image")
			if run.Status() != conformance.Pass || strings.Contains(text, "note: arrays") {
				t.Errorf("%v, want pass with every array used:\n%s", run.Status(), text)
			}
			want := 0
			for name := range v {
				if !slices.ContainsFunc(n.missed, func(s string) bool { return strings.HasSuffix(name, s) }) {
					want++
				}
			}
			if got := run.Coverage().Checked; got != want {
				t.Errorf("%d nodes checked, want %d:\n%s", got, want, text)
			}
		})
	}
}

// GGUF files hold the vision layers up to the feature layer: the last one is skipped, and nothing else.
func TestATowerWithoutItsLastLayer(t *testing.T) {
	v := compute(t, enginetest.Graph{}, "image")
	d := plainDump(v)
	d.manifest["naming"] = "gguf"
	ggufNames("ffn_up", "ffn_down")(d)
	for name := range maps.Clone(d.arrays) {
		if name == "v.blk.2" || strings.HasPrefix(name, "v.blk.2.") || name == "v.pooled" || name == "v.post_ln" {
			delete(d.arrays, name)
		}
	}
	dir := t.TempDir()
	d.write(dir, "npy")
	run, text := judged(t, dir, "image")
	const layer = 14 // nodes
	if c := run.Coverage(); run.Status() != conformance.Pass || c.Skipped != layer+2 || c.Checked != len(v)-layer-2 {
		t.Errorf("%v, %d skipped, want pass and %d skipped:\n%s", run.Status(), c.Skipped, layer+2, text)
	}
	if want := "the dump has no array for it, and the logits do not need it: vision_tower.vision_model.encoder.layers.2.layer_norm1 and 15 more"; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

// member is a file of an archive.
type member struct {
	name string
	data []byte
}

func archive(members ...member) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		w, err := z.Create(m.name)
		must(err)
		_, err = w.Write(m.data)
		must(err)
	}
	must(z.Close())
	return b.Bytes()
}
