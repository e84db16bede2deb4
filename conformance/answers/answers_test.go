package answers_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/golden/vectors/endtoend"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/ref/tokenizer"
	"github.com/llavaref/llavaref/shapes"
)

func open(t *testing.T, name string) *answers.Target {
	t.Helper()
	target, release, err := answers.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release() })
	return target
}

// parrot answers what transformers answered, changed.
type parrot struct {
	target *answers.Target
	class  compare.Class
	change func(a *answers.Answer, c endtoend.Case)
}

func (p parrot) Answer(_ context.Context, c endtoend.Case, _ bool) (answers.Answer, error) {
	in, err := p.target.Inputs(c)
	if err != nil {
		return answers.Answer{}, err
	}
	class := p.class
	if class == "" {
		class = compare.F32
	}
	a := answers.Answer{
		Info:       conformance.Info{Name: "parrot", Arithmetic: compare.Arithmetic{Class: class, Lanes: 16}},
		ImageSizes: c.ImageSizes(), ImageTokens: slices.Clone(c.ImageTokens), Prompt: &c.Prompt, InputIDs: c.InputIDs(), NewIDs: slices.Clone(c.NewIDs), Text: &c.Text,
		Pixels:     func(int) (shapes.Tensor, error) { return in.PixelValues, nil },
		Parameters: func() ([]shapes.Param, error) { return slices.Clone(p.target.Stored), nil },
	}
	if p.change != nil {
		p.change(&a, c)
	}
	return a, nil
}

// ask runs one case, or with an empty name all of them.
func ask(p parrot, name string) conformance.Run {
	return answers.Run(context.Background(), []*answers.Target{p.target}, answers.Options{Cases: name}, func(*answers.Target) (answers.Engine, error) { return p, nil })
}

// parts are those of a case that have a status, in order.
func parts(c conformance.Case, status conformance.Status) []string {
	var out []string
	for _, s := range c.Stages {
		for _, n := range s.Nodes {
			if n.Status() == status {
				out = append(out, n.Name)
			}
		}
	}
	return out
}

func TestTransformersAnswersPass(t *testing.T) {
	for _, name := range endtoend.Names() {
		target := open(t, name)
		run := ask(parrot{target: target}, "")
		if run.Status() != conformance.Pass || len(run.Sets[0].Cases) != len(target.Set.Cases) || !run.Sets[0].EndToEnd {
			t.Fatalf("%s: %v, %d cases, want pass in %d", name, run.Status(), len(run.Sets[0].Cases), len(target.Set.Cases))
		}
		for i, c := range run.Sets[0].Cases {
			want := []string{"parameters", "image_sizes", "pixel_values", "prompt", "image_tokens", "input_ids", "new_ids", "text"}
			if len(target.Set.Cases[i].Images) == 0 {
				want = []string{"parameters", "prompt", "input_ids", "new_ids", "text"}
			}
			if got := parts(c, conformance.Pass); !slices.Equal(got, want) {
				t.Errorf("%s/%s: passes are %v, want %v", name, c.Name, got, want)
			}
		}
	}
}

// pixelsOf changes the pixels that an engine gives.
func pixelsOf(change func(x shapes.Tensor) shapes.Tensor) func(a *answers.Answer, c endtoend.Case) {
	return func(a *answers.Answer, _ endtoend.Case) {
		read := a.Pixels
		a.Pixels = func(most int) (shapes.Tensor, error) {
			x, err := read(most)
			return change(shapes.Tensor{Shape: slices.Clone(x.Shape), Data: slices.Clone(x.Data)}), err
		}
	}
}

// planted are engines with one thing wrong: which parts fail, which are not judged for it, and what is named.
var planted = []struct {
	name, set, of string
	change        func(target *answers.Target) func(a *answers.Answer, c endtoend.Case)
	fails, skips  []string
	cause         string // id of the first cause, "-" where none is known
	says          string
	convention    bool // it follows another published rule
}{
	{"a parameter of another shape", "llava-next", "image", parameters(func(have []shapes.Param) []shapes.Param {
		have[3].Shape = append(slices.Clone(have[3].Shape), 1)
		return have
	}), []string{"parameters"}, nil, "-", "1 of another shape", false},
	{"a matrix transposed", "llava", "image", parameters(func(have []shapes.Param) []shapes.Param {
		at := slices.IndexFunc(have, func(p shapes.Param) bool { return strings.HasSuffix(p.Name, "layers.1.mlp.fc1.weight") })
		have[at].Shape = []int{have[at].Shape[1], have[at].Shape[0]}
		return have
	}), []string{"parameters"}, nil, "-", "(transposed)", false},
	{"a parameter missing", "llava", "image", parameters(func(have []shapes.Param) []shapes.Param {
		return slices.DeleteFunc(have, func(p shapes.Param) bool { return strings.HasSuffix(p.Name, "lm_head.weight") })
	}), []string{"parameters"}, nil, "-", "1 missing: language_model.lm_head.weight", false},
	{"a parameter too many", "llava", "image", parameters(func(have []shapes.Param) []shapes.Param {
		return append(have, shapes.Param{Name: "language_model.model.layers.0.self_attn.q_proj.bias", Shape: []int{64}})
	}), []string{"parameters"}, nil, "-", "1 no parameter of the model", false},
	{"a parameter twice", "llava", "image", parameters(func(have []shapes.Param) []shapes.Param { return append(have, have[0]) }), []string{"parameters"}, nil, "-", "twice", false},
	{"width and height exchanged", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) {
		a.ImageSizes = []shapes.Size{{H: 100, W: 75}}
	}), []string{"image_sizes"}, nil, "P02", "[100, 75], want [75, 100]", false},
	{"an image too few", "llava-next", "two-images", answer(func(a *answers.Answer, _ endtoend.Case) { a.ImageSizes = a.ImageSizes[:1] }), []string{"image_sizes"}, nil, "-", "1 images, want 2", false},
	{"BGR", "llava-next", "image", bgr, []string{"pixel_values"}, nil, "P28", "another grey level", false},
	{"BGR, of the small model", "llava", "image", bgr, []string{"pixel_values"}, nil, "P28", "another grey level", false},
	{"the pixels of Pillow 13", "llava-next", "conversation", variant(preprocess.Pillow13), []string{"pixel_values"}, nil, "P23", "another grey level", true},
	{"the pixels of torchvision", "llava-next", "image", variant(preprocess.Torchvision), []string{"pixel_values"}, nil, "P34", "another grey level", true},
	{"the square of the original LLaVA-1.5", "llava", "image", like("P45a"), []string{"pixel_values"}, nil, "P45a", "another grey level", true},
	{"a black square", "llava", "image", like("P45b"), []string{"pixel_values"}, nil, "P45b", "another grey level", false},
	{"a tile missing", "llava-next", "image", always(pixelsOf(func(x shapes.Tensor) shapes.Tensor {
		n := shapes.Product(x.Shape[1:])
		return shapes.Tensor{Shape: []int{x.Shape[0] - 1, 3, x.Shape[2], x.Shape[3]}, Data: x.Data[n:]}
	})), []string{"pixel_values"}, nil, "-", "shape [4 3 56 56], want [5 3 56 56]", false},
	{"a pixel that is NaN", "llava", "image", always(pixelsOf(func(x shapes.Tensor) shapes.Tensor {
		x.Data[7] = float32(nan())
		return x
	})), []string{"pixel_values"}, nil, "-", "another grey level", false},
	{"pixels rounded to float16 in float32", "llava", "image", always(pixelsOf(func(x shapes.Tensor) shapes.Tensor {
		for i, v := range x.Data {
			x.Data[i] = compare.F16.Round(v)
		}
		return x
	})), []string{"pixel_values"}, nil, "-", "normalised otherwise", false},
	{"another template", "llava", "image", answer(func(a *answers.Answer, c endtoend.Case) {
		other := strings.Replace(c.Prompt, "USER", "HUMAN", 1)
		a.Prompt = &other
	}), []string{"prompt"}, nil, "-", `from byte 0 on it is "HUMAN`, false},
	{"a row of image features too few", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) {
		a.ImageTokens, a.InputIDs = []int{69}, slices.Delete(a.InputIDs, 8, 9)
	}), []string{"image_tokens"}, nil, "K05", "[69], want [70]", false},
	{"not unpadded", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.ImageTokens, a.InputIDs = []int{88}, nil }), []string{"image_tokens"}, []string{"input_ids"}, "K10", "[88], want [70]", false},
	{"image_tokens and ids that say two things", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.ImageTokens = []int{71} }), []string{"image_tokens"}, nil, "-", "but input_ids has 70", false},
	{"the numbers of image tokens exchanged in the ids", "llava-next", "conversation", func(target *answers.Target) func(*answers.Answer, endtoend.Case) {
		return func(a *answers.Answer, _ endtoend.Case) {
			image, _ := target.Words.ImageToken()
			at := slices.Index(a.InputIDs, image)
			a.InputIDs = slices.Delete(a.InputIDs, at, at+8) // 76 and 68
			for at = len(a.InputIDs); a.InputIDs[at-1] != image; at-- {
			}
			a.InputIDs = slices.Insert(a.InputIDs, at, slices.Repeat([]int{image}, 8)...)
		}
	}, []string{"image_tokens"}, nil, "-", "but input_ids has [68 76]", false},
	{"one image token for two images side by side", "llava-next", "two-images", func(target *answers.Target) func(*answers.Answer, endtoend.Case) {
		return func(a *answers.Answer, _ endtoend.Case) {
			image, _ := target.Words.ImageToken()
			a.InputIDs = tokenizer.CollapseImages(a.InputIDs, image)
		}
	}, []string{"input_ids"}, nil, "-", "ids, want", false},
	{"begin-of-text twice", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) {
		a.InputIDs = append([]int{a.InputIDs[0]}, a.InputIDs...)
	}), []string{"input_ids"}, nil, "M05", "twice", false},
	{"begin-of-text missing", "llava", "text-only", answer(func(a *answers.Answer, _ endtoend.Case) { a.InputIDs = a.InputIDs[1:] }), []string{"input_ids"}, nil, "M05", "missing", false},
	{"ids cut as transformers 5 cuts them", "llava", "image", recut, []string{"input_ids"}, nil, "M16", "metaspace", true},
	{"no words that begin the answer", "llava-next", "text-only", unprompted, []string{"input_ids"}, nil, "M15", "begin the answer", false},
	{"a placeholder of its own", "llava", "image", answer(func(a *answers.Answer, _ endtoend.Case) {
		for i, id := range a.InputIDs {
			if id == 3263 {
				a.InputIDs[i] = -200
			}
		}
		a.ImageTokens = nil
	}), []string{"input_ids"}, []string{"image_tokens"}, "M03", "3263", false},
	{"an end-of-sequence id that is not known", "llava-next", "eos-second-of-list", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs = append(a.NewIDs, 7, 8, 9) }), []string{"new_ids"}, nil, "G01", "goes on", false},
	{"an end-of-sequence id left out", "llava", "eos", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs = a.NewIDs[:len(a.NewIDs)-1] }), []string{"new_ids"}, nil, "G01", "left out", false},
	{"an end too early", "llava", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs = a.NewIDs[:5] }), []string{"new_ids"}, nil, "G05", "5 ids, want 12", false},
	{"beyond max_new_tokens", "llava", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs = append(a.NewIDs, 7) }), []string{"new_ids"}, nil, "G05", "goes on", false},
	{"a tie to the higher id", "llava", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs[1] = 3327 }), []string{"new_ids"}, nil, "G02", "number 1 is 3327, want 2416", false},
	{"another id", "llava", "image", answer(func(a *answers.Answer, _ endtoend.Case) { a.NewIDs[3] = 5 }), []string{"new_ids"}, nil, "-", "number 3 is 5, want 3048", false},
	{"a text with special tokens", "llava", "eos", answer(func(a *answers.Answer, _ endtoend.Case) {
		other := *a.Text + "</s>"
		a.Text = &other
	}), []string{"text"}, nil, "-", "of the same ids", false},
	{"other ids behind a wrong prompt", "llava-next", "image", answer(func(a *answers.Answer, _ endtoend.Case) {
		a.InputIDs, a.NewIDs = append([]int{a.InputIDs[0]}, a.InputIDs...), []int{1, 2, 3}
	}), []string{"input_ids"}, []string{"new_ids"}, "M05", "twice", false},
}

func nan() float64 { zero := 0.0; return zero / zero }

func always(change func(*answers.Answer, endtoend.Case)) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return func(*answers.Target) func(*answers.Answer, endtoend.Case) { return change }
}

func answer(change func(*answers.Answer, endtoend.Case)) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return always(change)
}

func parameters(change func([]shapes.Param) []shapes.Param) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return always(func(a *answers.Answer, _ endtoend.Case) {
		read := a.Parameters
		a.Parameters = func() ([]shapes.Param, error) {
			have, err := read()
			return change(have), err
		}
	})
}

// bgr exchanges the first and the last channel before they are normalised.
func bgr(target *answers.Target) func(*answers.Answer, endtoend.Case) {
	p := target.Processor
	return pixelsOf(func(x shapes.Tensor) shapes.Tensor {
		out, area := slices.Clone(x.Data), x.Shape[2]*x.Shape[3]
		for i := range out {
			c := i / area % 3
			from := 2 - c
			v := float64(x.Data[i+(from-c)*area])
			out[i] = float32((v*p.Std[from] + p.Mean[from] - p.Mean[c]) / p.Std[c])
		}
		return shapes.Tensor{Shape: x.Shape, Data: out}
	})
}

func variant(v preprocess.Variant) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return madeBy(func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
		p.Variant = v
		y, _, err := p.Image(m)
		return y, err
	})
}

// like makes the pixels of a known bug.
func like(id string) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return madeBy(func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
		all := bugs.Of(p.ModelType)
		return all[slices.IndexFunc(all, func(b bugs.Bug) bool { return b.ID == id })].Pixels(p, m)
	})
}

// madeBy makes the pixels of each image in another way.
func madeBy(of func(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error)) func(*answers.Target) func(*answers.Answer, endtoend.Case) {
	return func(target *answers.Target) func(*answers.Answer, endtoend.Case) {
		return func(a *answers.Answer, c endtoend.Case) {
			a.Pixels = func(int) (shapes.Tensor, error) {
				var out shapes.Tensor
				for _, name := range c.Images {
					data, err := endtoend.Image(name)
					if err != nil {
						return out, err
					}
					picture, err := preprocess.DecodeImage(data)
					if err != nil {
						return out, err
					}
					y, err := of(target.Processor, picture.Image)
					if err != nil {
						return out, err
					}
					n := 0
					if out.Shape != nil {
						n = out.Shape[0]
					}
					out.Shape = append([]int{n + y.Shape[0]}, y.Shape[1:]...)
					out.Data = append(out.Data, y.Data...)
				}
				return out, nil
			}
		}
	}
}

func recut(target *answers.Target) func(*answers.Answer, endtoend.Case) {
	return func(a *answers.Answer, c endtoend.Case) {
		as, err := target.Words.As(tokenizer.Metaspace)
		if err != nil {
			panic(err)
		}
		a.InputIDs = as.EncodePrompt(c.Prompt)
	}
}

func unprompted(target *answers.Target) func(*answers.Answer, endtoend.Case) {
	return func(a *answers.Answer, c endtoend.Case) {
		messages, err := tokenizer.ParseMessages(c.Messages)
		if err != nil {
			panic(err)
		}
		text, err := target.Words.Template(messages, false)
		if err != nil {
			panic(err)
		}
		a.InputIDs = target.Words.EncodePrompt(text)
	}
}

func TestPlantedAnswersFailWhereTheyAreWrongAndNowhereElse(t *testing.T) {
	targets := map[string]*answers.Target{}
	for _, name := range endtoend.Names() {
		targets[name] = open(t, name)
	}
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			target := targets[p.set]
			run := ask(parrot{target: target, change: p.change(target)}, p.of)
			c := run.Sets[0].Cases[0]
			status := conformance.Fail
			if p.convention {
				status = conformance.Convention
			}
			wrong := parts(c, status)
			if c.Status() != status {
				t.Errorf("%v, want %v", c.Status(), status)
			}
			if !slices.Equal(wrong, p.fails) || !slices.Equal(parts(c, conformance.Skip), p.skips) {
				t.Fatalf("fails %v, skips %v, want %v and %v", wrong, parts(c, conformance.Skip), p.fails, p.skips)
			}
			if c.First == nil || c.First.Node != p.fails[0] {
				t.Errorf("first %+v, want %s", c.First, p.fails[0])
			}
			text, cause := "", "-"
			for _, s := range c.Stages {
				for _, n := range s.Nodes {
					for _, k := range n.Checks {
						text += k.Reason
						for _, of := range k.Causes {
							text += of.Text + of.Look
						}
						if len(k.Causes) > 0 && cause == "-" {
							cause = k.Causes[0].ID
						}
					}
				}
			}
			if cause != p.cause || !strings.Contains(text, p.says) {
				t.Errorf("names %s, want %s; says %q, want %q", cause, p.cause, text, p.says)
			}
		})
	}
}

// What a right engine may do otherwise passes.
func TestRightAnswersMayLieOtherwise(t *testing.T) {
	target := open(t, "llava-next")
	for _, c := range []struct {
		name   string
		class  compare.Class
		of     string
		change func(a *answers.Answer, c endtoend.Case)
	}{
		{"one image token an image", compare.F32, "two-images", func(a *answers.Answer, c endtoend.Case) { a.InputIDs = target.Words.EncodePrompt(c.Prompt) }},
		{"no counts of its own", compare.F32, "two-images", func(a *answers.Answer, _ endtoend.Case) { a.ImageTokens = nil }},
		{"a batch of one image", compare.F32, "image", pixelsOf(func(x shapes.Tensor) shapes.Tensor {
			x.Shape = append([]int{1}, x.Shape...)
			return x
		})},
		{"images filled up with tiles of zeros", compare.F32, "two-images", pixelsOf(func(x shapes.Tensor) shapes.Tensor {
			n := shapes.Product(x.Shape[1:])
			tiles := []int{3, 3} // of the two images
			out := shapes.Tensor{Shape: append([]int{2, 5}, x.Shape[1:]...), Data: make([]float32, 10*n)}
			for i, k := range tiles {
				copy(out.Data[i*5*n:], x.Data[:k*n])
				x.Data = x.Data[k*n:]
			}
			return out
		})},
		{"pixels in bfloat16", compare.BF16, "image", pixelsOf(func(x shapes.Tensor) shapes.Tensor {
			for i, v := range x.Data {
				x.Data[i] = compare.BF16.Round(v)
			}
			return x
		})},
		{"the normalisation in another order", compare.F32, "image", pixelsOf(func(x shapes.Tensor) shapes.Tensor {
			p, area := target.Processor, x.Shape[2]*x.Shape[3]
			for i, v := range x.Data {
				c := i / area % 3
				level := float32(int((float64(v)*p.Std[c]+p.Mean[c])*255 + 0.5))
				x.Data[i] = level*float32(1/(255*p.Std[c])) - float32(p.Mean[c]/p.Std[c])
			}
			return x
		})},
		{"no post_layernorm, which the logits do not need", compare.F32, "image", func(a *answers.Answer, _ endtoend.Case) {
			read := a.Parameters
			a.Parameters = func() ([]shapes.Param, error) {
				have, err := read()
				return slices.DeleteFunc(have, func(p shapes.Param) bool { return strings.Contains(p.Name, "post_layernorm") }), err
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := ask(parrot{target: target, class: c.class, change: c.change}, c.of)
			if k := run.Sets[0].Cases[0]; k.Status() != conformance.Pass || len(parts(k, conformance.Skip)) > 0 {
				t.Errorf("%v, fails %v, skips %v, first %+v", k.Status(), parts(k, conformance.Fail), parts(k, conformance.Skip), k.First)
			}
		})
	}
}

// In bf16 a choice may be closer than the class can tell; a choice that is not, and any in f32, is held to transformers' own.
func TestNearTiesEndTheComparisonInCoarseClasses(t *testing.T) {
	target := open(t, "llava")
	for _, c := range []struct {
		name  string
		class compare.Class
		id    int
		step  int
		want  conformance.Status
	}{
		{"the runner-up in bf16", compare.BF16, 0, 4, conformance.Pass},
		{"the runner-up in f32", compare.F32, 0, 4, conformance.Fail},
		{"the least likely one in bf16", compare.BF16, -1, 4, conformance.Fail},
		{"an id that does not exist in bf16", compare.BF16, 1 << 30, 4, conformance.Fail},
		{"the higher id of a tie in bf16", compare.BF16, 3327, 1, conformance.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			of := "image"
			id := c.id
			if id == 0 || id == -1 {
				of = "strip" // whose narrowest margin is the narrowest of the set
				step, runner, last := narrowest(t, target, of)
				c.step = step
				if id = runner; c.id == -1 {
					id = last
				}
			}
			run := ask(parrot{target: target, class: c.class, change: func(a *answers.Answer, _ endtoend.Case) { a.NewIDs[c.step] = id }}, of)
			k := run.Sets[0].Cases[0]
			if k.Status() != c.want {
				t.Errorf("%v, first %+v, want %v", k.Status(), k.First, c.want)
			}
		})
	}
}

func TestWhatAnEngineDoesNotGiveIsSkippedAndNothingIsAnError(t *testing.T) {
	target := open(t, "llava")
	run := ask(parrot{target: target, change: func(a *answers.Answer, _ endtoend.Case) {
		*a = answers.Answer{Info: a.Info, NewIDs: a.NewIDs}
	}}, "image")
	c := run.Sets[0].Cases[0]
	if c.Status() != conformance.Pass || !slices.Equal(parts(c, conformance.Skip), []string{"parameters", "image_sizes", "pixel_values", "image_tokens", "input_ids"}) {
		t.Errorf("%v, skips %v", c.Status(), parts(c, conformance.Skip))
	}
	run = ask(parrot{target: target, change: func(a *answers.Answer, _ endtoend.Case) { *a = answers.Answer{Info: a.Info} }}, "image")
	if c = run.Sets[0].Cases[0]; c.Status() != conformance.Error || len(c.Problems) != 1 {
		t.Errorf("%v, %+v, want an error", c.Status(), c.Problems)
	}
}

// An inventory that is given once for a set is not missed in the other conversations, and one that is never given is missed once.
func TestTheInventoryIsAskedForOnceASet(t *testing.T) {
	target := open(t, "llava")
	for _, given := range []bool{true, false} {
		at := 0
		run := ask(parrot{target: target, change: func(a *answers.Answer, _ endtoend.Case) {
			if at++; !given || at != 3 {
				a.Parameters = nil
			}
		}}, "")
		pass, skip := 0, 0
		for _, c := range run.Sets[0].Cases {
			for _, s := range c.Stages {
				if s.Name != conformance.StageInventory {
					continue
				}
				if s.Status() == conformance.Pass {
					pass++
				} else {
					skip++
				}
			}
		}
		if want := 1; given && (pass != want || skip != 0) || !given && (pass != 0 || skip != want) {
			t.Errorf("given %v: %d inventories that pass, %d skipped", given, pass, skip)
		}
	}
}

// faulty panics, returns errors, or declares itself otherwise.
type faulty struct {
	parrot
	kind string
	n    *int
}

func (f faulty) Answer(ctx context.Context, c endtoend.Case, only bool) (answers.Answer, error) {
	*f.n++
	switch f.kind {
	case "panic":
		panic("out of cheese")
	case "error":
		return answers.Answer{}, errors.New("no cheese")
	case "nothing":
		return answers.Answer{}, conformance.NotRun("no cheese today")
	}
	a, err := f.parrot.Answer(ctx, c, only)
	if f.kind == "another" && *f.n == 2 {
		a.Info.Name = "cuckoo"
	}
	if f.kind == "classless" {
		a.Info.Class = ""
	}
	return a, err
}

func TestWhatGoesWrongIsInTheResult(t *testing.T) {
	target := open(t, "llava")
	for _, c := range []struct {
		kind, says string
		want       conformance.Status
	}{
		{"panic", "panicked: out of cheese", conformance.Error},
		{"error", "no cheese", conformance.Error},
		{"nothing", "no cheese today", conformance.Error}, // of the run: no case was run
		{"another", "otherwise than before", conformance.Error},
		{"classless", `declares class ""`, conformance.Error},
	} {
		t.Run(c.kind, func(t *testing.T) {
			n := 0
			run := answers.Run(context.Background(), []*answers.Target{target}, answers.Options{}, func(*answers.Target) (answers.Engine, error) {
				return faulty{parrot{target: target}, c.kind, &n}, nil
			})
			text := ""
			for _, k := range run.Sets[0].Cases {
				text += k.Reason
				for _, p := range k.Problems {
					text += p.Text
				}
			}
			if run.Status() != c.want || !strings.Contains(text, c.says) || len(run.Sets[0].Cases) != len(target.Set.Cases) {
				t.Errorf("%v, %q, %d cases, want %v, %q and all", run.Status(), text, len(run.Sets[0].Cases), c.want, c.says)
			}
		})
	}
}

// stopped interrupts the run in its second conversation, and answers it all the same.
type stopped struct {
	parrot
	stop context.CancelFunc
	n    *int
}

func (s stopped) Answer(ctx context.Context, c endtoend.Case, only bool) (answers.Answer, error) {
	if *s.n++; *s.n == 2 {
		s.stop()
	}
	return s.parrot.Answer(ctx, c, only)
}

func TestAnInterruptedRunDoesNotPass(t *testing.T) {
	target := open(t, "llava")
	ctx, stop := context.WithCancel(context.Background())
	n := 0
	run := answers.Run(ctx, []*answers.Target{target}, answers.Options{}, func(*answers.Target) (answers.Engine, error) {
		return stopped{parrot{target: target}, stop, &n}, nil
	})
	if cases := run.Sets[0].Cases; run.Status() != conformance.Error || len(cases) != 2 || len(cases[1].Problems) != 1 || !strings.Contains(cases[1].Problems[0].Text, "interrupted") {
		t.Errorf("%v, %d cases, want an error in the second: %+v", run.Status(), len(cases), cases[len(cases)-1].Problems)
	}
}
