package shapes_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/llavaref/llavaref/shapes"
)

func model(t *testing.T, name string) shapes.Config {
	t.Helper()
	c, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines reads a listing from testdata.
func lines(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		out = append(out, s.Text())
	}
	return out
}

func listing(ps []shapes.Param) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Name+"\t"+strings.ReplaceAll(fmt.Sprint(p.Shape), " ", ", "))
	}
	return out
}

func TestInventory(t *testing.T) {
	for _, test := range []struct {
		model           string
		tensors, values int
	}{
		{"llava-1.6-llama3-8b", 687, 8_355_276_800},
		{"llava-1.5-7b", 686, 7_063_427_072},
	} {
		t.Run(test.model, func(t *testing.T) {
			tensors, values := shapes.Total(shapes.Params(model(t, test.model)))
			if tensors != test.tensors || values != test.values {
				t.Errorf("%d tensors and %d values, want %d and %d", tensors, values, test.tensors, test.values)
			}
		})
	}
}

func TestInventoryLineByLine(t *testing.T) {
	for _, test := range []struct {
		name, model, listing string
		scheme               shapes.Scheme
		before               []string // what stands before the listing
	}{
		{"LLaVA-1.6", "llava-1.6-llama3-8b", "llava-1.6-llama3-8b", shapes.OnDisk, []string{"image_newline\t[4096]"}},
		{"LLaVA-1.5", "llava-1.5-7b", "llava-1.5-7b", shapes.OnDisk, nil},
		{"LLaVA-1.5 under lite_llama's names", "llava-1.5-7b", "llava-1.5-7b.lite-llama", shapes.LiteLlama, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := append(test.before, lines(t, test.listing)...)
			if diff := cmp.Diff(want, listing(shapes.ParamsIn(model(t, test.model), test.scheme))); diff != "" {
				t.Errorf("inventory (-listing +ours):\n%s", diff)
			}
		})
	}
}

// The seed of the project states a total of 8355.28M and lists 686 tensors that add up to less: image_newline is the difference.
func TestTheListedTensorsAloneMissTheTotal(t *testing.T) {
	ps := shapes.Params(model(t, "llava-1.6-llama3-8b"))
	if _, values := shapes.Total(ps[1:]); ps[0].Name != shapes.ImageNewline || values != 8_355_272_704 {
		t.Errorf("first %s, the others %d values, want image_newline and 8355272704", ps[0].Name, values)
	}
}

func TestTinyModelsHaveEveryNameOfTheBigOnes(t *testing.T) {
	names := func(model string) []string {
		c, _ := shapes.Model(model)
		var out []string
		for _, p := range shapes.Params(c) {
			out = append(out, p.Name)
		}
		return out
	}
	for tiny, big := range map[string]string{"tiny-1.6": "llava-1.6-llama3-8b", "tiny-1.5": "llava-1.5-7b"} {
		if diff := cmp.Diff(names(big), names(tiny)); diff != "" {
			t.Errorf("%s and %s differ (-big +tiny):\n%s", big, tiny, diff)
		}
	}
}

func TestReach(t *testing.T) {
	counts := map[shapes.Reach]int{}
	dead := 0
	for _, p := range shapes.Params(model(t, "llava-1.6-llama3-8b")) {
		counts[p.Reach]++
		if p.Reach == shapes.Dead {
			dead += p.Count()
		}
	}
	want := map[shapes.Reach]int{shapes.Dead: 18, shapes.Inert: 23, shapes.Reaches: 687 - 18 - 23}
	if diff := cmp.Diff(want, counts); diff != "" || dead != 12_598_272 {
		t.Errorf("%d dead values, want 12598272; (-want +got):\n%s", dead, diff)
	}
}

func TestNamingIsLossless(t *testing.T) {
	for _, m := range []string{"llava-1.6-llama3-8b", "llava-1.5-7b", "tiny-1.6"} {
		c := model(t, m)
		for _, s := range shapes.Schemes() {
			if s == shapes.LiteLlama && c.ModelType != shapes.Llava {
				continue
			}
			t.Run(m+" "+string(s), func(t *testing.T) {
				var names []string
				for _, p := range shapes.ParamsIn(c, s) {
					names = append(names, p.Name)
				}
				match := shapes.MatchNames(c, names)
				if match.Scheme != s || len(match.Missing)+len(match.Unexpected) > 0 {
					t.Fatalf("found scheme %s, %d missing, %d unexpected", match.Scheme, len(match.Missing), len(match.Unexpected))
				}
				for _, p := range shapes.Params(c) {
					if got := match.Disk[s.FromDisk(p.Name)]; got != p.Name {
						t.Errorf("%s -> %s -> %s", p.Name, s.FromDisk(p.Name), got)
					}
				}
			})
		}
	}
}

func TestNamesOfOtherWorlds(t *testing.T) {
	for _, test := range []struct {
		scheme     shapes.Scheme
		disk, want string
	}{
		{shapes.Transformers452, "language_model.model.norm.weight", "model.language_model.norm.weight"},
		{shapes.Transformers452, "language_model.lm_head.weight", "lm_head.weight"},
		{shapes.Transformers452, "image_newline", "model.image_newline"},
		{shapes.Transformers452, "vision_tower.vision_model.pre_layrnorm.bias", "model.vision_tower.vision_model.pre_layrnorm.bias"},
		{shapes.Transformers56, "vision_tower.vision_model.pre_layrnorm.bias", "model.vision_tower.pre_layrnorm.bias"},
		{shapes.TransformersNew, "vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias", "vision_tower.encoder.layers.3.mlp.fc1.bias"},
		{shapes.TransformersNew, "language_model.model.norm.weight", "language_model.model.norm.weight"},
		{shapes.Original, "multi_modal_projector.linear_2.bias", "model.mm_projector.2.bias"},
		{shapes.Original, "vision_tower.vision_model.post_layernorm.weight", "model.vision_tower.vision_tower.vision_model.post_layernorm.weight"},
		{shapes.Original, "language_model.model.layers.7.mlp.up_proj.weight", "model.layers.7.mlp.up_proj.weight"},
		{shapes.LiteLlama, "language_model.model.layers.7.mlp.up_proj.weight", "language_model.layers.7.feed_forward.up_proj.weight"},
		{shapes.LiteLlama, "language_model.model.layers.7.self_attn.rope_q", "language_model.layers.7.attention.rope_q"},
		{shapes.LiteLlama, "language_model.model.norm.weight", "language_model.norm_weight"},
	} {
		if got := test.scheme.FromDisk(test.disk); got != test.want {
			t.Errorf("%s: %s -> %s, want %s", test.scheme, test.disk, got, test.want)
		}
	}
}

func TestNothingIsLeftOutInSilence(t *testing.T) {
	c := model(t, "tiny-1.6")
	var names []string
	for _, p := range shapes.ParamsIn(c, shapes.Transformers56)[2:] {
		names = append(names, p.Name)
	}
	names = append(names, "language_model.model.norm.weight", "model.vision_tower.embeddings.position_ids", "model.language_model.rotary_emb.inv_freq", "other")
	m := shapes.MatchNames(c, names)
	if diff := cmp.Diff([]string{"model.image_newline", "model.vision_tower.embeddings.class_embedding"}, m.Missing); diff != "" {
		t.Error("missing:", diff)
	}
	if diff := cmp.Diff([]string{"language_model.model.norm.weight", "other"}, m.Unexpected); diff != "" {
		t.Error("unexpected:", diff)
	}
	if len(m.Disk)+len(m.Unexpected)+len(m.Buffers) != len(names) || len(m.Buffers) != 2 {
		t.Errorf("%d + %d + %d of %d names", len(m.Disk), len(m.Unexpected), len(m.Buffers), len(names))
	}
}

func TestConfigOfBothSpellings(t *testing.T) {
	data, _ := shapes.ModelJSON("llava-1.6-llama3-8b")
	old, err := shapes.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	five := strings.NewReplacer(
		`"torch_dtype": "float16"`, `"dtype": "float16"`,
		`"image_token_index"`, `"image_token_id"`,
		`"rope_theta": 500000.0`, `"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}`,
	).Replace(string(data))
	got, err := shapes.ParseConfig([]byte(five))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old, got); diff != "" {
		t.Errorf("the spelling of 5.x reads as another model (-4.x +5.x):\n%s", diff)
	}
	if old.Text.RopeTheta != 500000 || old.Text.HiddenSize != 4096 || old.Text.HeadDim != 128 || old.Vision.LayerNormEps != 1e-5 {
		t.Errorf("defaults: %+v", old)
	}
}

// edit returns tiny-1.6's config with one value set (a path of keys) or removed (nil).
func edit(t *testing.T, value any, path ...string) []byte {
	t.Helper()
	data, _ := shapes.ModelJSON("tiny-1.6")
	var root map[string]any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	at := root
	for _, key := range path[:len(path)-1] {
		if at[key] == nil {
			at[key] = map[string]any{}
		}
		at = at[key].(map[string]any)
	}
	if last := path[len(path)-1]; value == nil {
		delete(at, last)
	} else {
		at[last] = value
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A field that is absent gets the default of transformers' class: LlamaConfig, CLIPVisionConfig, LlavaNextConfig.
func TestConfigDefaults(t *testing.T) {
	get := func(data []byte) shapes.Config {
		c, err := shapes.ParseConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, test := range []struct {
		path []string
		got  func(shapes.Config) any
		want any
	}{
		{[]string{"text_config", "rope_theta"}, func(c shapes.Config) any { return c.Text.RopeTheta }, 10000.0},
		{[]string{"text_config", "rms_norm_eps"}, func(c shapes.Config) any { return c.Text.RMSNormEps }, 1e-6},
		{[]string{"text_config", "num_key_value_heads"}, func(c shapes.Config) any { return c.Text.NumKeyValueHeads }, 8},
		{[]string{"text_config", "head_dim"}, func(c shapes.Config) any { return c.Text.HeadDim }, 16},
		{[]string{"text_config", "vocab_size"}, func(c shapes.Config) any { return c.Text.VocabSize }, 32000},
		{[]string{"text_config", "intermediate_size"}, func(c shapes.Config) any { return c.Text.IntermediateSize }, 11008},
		{[]string{"vision_config", "layer_norm_eps"}, func(c shapes.Config) any { return c.Vision.LayerNormEps }, 1e-5},
		{[]string{"vision_config", "num_hidden_layers"}, func(c shapes.Config) any { return c.Vision.NumHiddenLayers }, 12},
		{[]string{"vision_config", "intermediate_size"}, func(c shapes.Config) any { return c.Vision.IntermediateSize }, 3072},
		{[]string{"vision_feature_layer"}, func(c shapes.Config) any { return c.VisionFeatureLayer }, -2},
		{[]string{"vision_feature_select_strategy"}, func(c shapes.Config) any { return c.SelectStrategy }, shapes.SelectDefault},
	} {
		if got := test.got(get(edit(t, nil, test.path...))); !cmp.Equal(got, test.want) {
			t.Errorf("without %s: %v, want %v", strings.Join(test.path, "."), got, test.want)
		}
	}
	vit := get([]byte(`{"model_type": "llava", "text_config": {"vocab_size": 32064}}`))
	if vit.Vision.HiddenSize != 1024 || vit.Vision.PatchSize != 14 || vit.Text.HiddenSize != 4096 || vit.ImageTokenID != 32000 {
		t.Errorf("an empty llava config: %+v", vit)
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, test := range []struct {
		name  string
		value any
		path  []string
		want  string // in the error
	}{
		{"model type", "llava_onevision", []string{"model_type"}, `model_type "llava_onevision"`},
		{"text model", "mistral", []string{"text_config", "model_type"}, `text_config.model_type "mistral"`},
		{"vision model", "siglip_vision_model", []string{"vision_config", "model_type"}, `vision_config.model_type "siglip_vision_model"`},
		{"text activation", "gelu", []string{"text_config", "hidden_act"}, `text_config.hidden_act "gelu"`},
		{"vision activation", "gelu", []string{"vision_config", "hidden_act"}, `vision_config.hidden_act "gelu"`},
		{"projector activation", "gelu_new", []string{"projector_hidden_act"}, `projector_hidden_act "gelu_new"`},
		{"select strategy", "cls", []string{"vision_feature_select_strategy"}, `vision_feature_select_strategy "cls"`},
		{"full strategy with tiles", "full", []string{"vision_feature_select_strategy"}, `vision_feature_select_strategy "full"`},
		{"rope scaling of 4.x", map[string]any{"rope_type": "llama3", "factor": 8}, []string{"text_config", "rope_scaling"}, `rope_scaling.rope_type "llama3"`},
		{"rope scaling, old key", map[string]any{"type": "linear"}, []string{"text_config", "rope_scaling"}, `rope_scaling.type "linear"`},
		{"rope scaling of 5.x", map[string]any{"rope_type": "yarn"}, []string{"text_config", "rope_parameters"}, `rope_parameters.rope_type "yarn"`},
		{"two bases", map[string]any{"rope_theta": 1e6}, []string{"text_config", "rope_parameters"}, `rope_theta 500000, but rope_parameters.rope_theta 1e+06`},
		{"tied embeddings", true, []string{"tie_word_embeddings"}, `tie_word_embeddings true`},
		{"attention bias", true, []string{"text_config", "attention_bias"}, `text_config.attention_bias true`},
		{"several feature layers", []int{-2, -5}, []string{"vision_feature_layer"}, `vision_feature_layer [-2,-5], want an integer`},
		{"feature layer outside", -30, []string{"vision_feature_layer"}, `vision_feature_layer -30`},
		{"no projector bias", false, []string{"multimodal_projector_bias"}, `multimodal_projector_bias false`},
		{"zero width", 0, []string{"text_config", "hidden_size"}, `text_config.hidden_size 0`},
		{"a billion layers", 1 << 30, []string{"text_config", "num_hidden_layers"}, `text_config.num_hidden_layers 1073741824`},
		{"a text for a number", "64", []string{"text_config", "hidden_size"}, `text_config.hidden_size "64", want an integer`},
		{"heads that do not divide", 3, []string{"vision_config", "num_attention_heads"}, `hidden_size 64 is not a multiple of num_attention_heads 3`},
		{"key heads that do not divide", 3, []string{"text_config", "num_key_value_heads"}, `num_attention_heads 8 is not a multiple of num_key_value_heads 3`},
		{"odd head", 15, []string{"text_config", "head_dim"}, `head_dim 15 is odd`},
		{"image token outside of the vocabulary", 384, []string{"image_token_index"}, `image_token_index 384`},
		{"negative eps", -1, []string{"text_config", "rms_norm_eps"}, `text_config.rms_norm_eps -1`},
		{"pinpoint of broken tiles", [][]int{{56, 100}}, []string{"image_grid_pinpoints"}, `[56, 100]`},
		{"pinpoint of one number", [][]int{{56}}, []string{"image_grid_pinpoints"}, `image_grid_pinpoints[0]: 1 numbers`},
		{"text_config a list", []int{}, []string{"text_config"}, `text_config: `},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := shapes.ParseConfig(edit(t, test.value, test.path...))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestAConfigThatIsAGitLFSPointerIsNamed(t *testing.T) {
	_, err := shapes.ParseConfig([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "config: is a Git LFS pointer and not the file: fetch it with git lfs pull") {
		t.Error(err)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, name := range shapes.ModelNames() {
		data, _ := shapes.ModelJSON(name)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := shapes.ParseConfig(data)
		if err != nil {
			return
		}
		if c.Text.NumHiddenLayers+c.Vision.NumHiddenLayers < 200 {
			for _, n := range shapes.Nodes(c) {
				n.Concrete(shapes.Dims{N: 1, R: 1, T: 1, L: 1})
			}
		}
	})
}

func TestNodesStandInOrder(t *testing.T) {
	for _, name := range shapes.ModelNames() {
		t.Run(name, func(t *testing.T) {
			c := model(t, name)
			seen := map[string]bool{shapes.InPixelValues: true, shapes.InImageSizes: true, shapes.InInputIDs: true, shapes.InPositionIDs: true}
			used := map[string]bool{}
			for _, n := range shapes.Nodes(c) {
				if seen[n.Name] {
					t.Errorf("%s stands twice", n.Name)
				}
				for _, in := range n.Inputs {
					if !seen[in] {
						t.Errorf("%s reads %s, which does not stand before it", n.Name, in)
					}
				}
				for _, p := range n.Params {
					used[p] = true
				}
				seen[n.Name] = true
			}
			for _, p := range shapes.Params(c) {
				if !used[p.Name] {
					t.Errorf("no node uses %s", p.Name)
				}
				delete(used, p.Name)
			}
			for p := range used {
				t.Errorf("%s is no parameter", p)
			}
		})
	}
}

// A node is Dead exactly if no path leads from it to the logits.
func TestDeadNodes(t *testing.T) {
	for _, name := range shapes.ModelNames() {
		nodes := shapes.Nodes(model(t, name))
		alive := map[string]bool{shapes.LMHead: true}
		for _, n := range slices.Backward(nodes) {
			if alive[n.Name] {
				for _, in := range n.Inputs {
					alive[in] = true
				}
			}
			if alive[n.Name] != (n.Reach != shapes.Dead) {
				t.Errorf("%s: %s is %s, but a path to the logits: %t", name, n.Name, n.Reach, alive[n.Name])
			}
		}
	}
}

func TestNodeShapes(t *testing.T) {
	c := model(t, "llava-1.6-llama3-8b")
	d := shapes.Dims{N: 5, R: 2340, T: 2360, L: 2360}
	want := map[string][2]string{
		"vision_tower.vision_model.embeddings.patch_embedding":        {"[N, D, P, P]", "[5 1024 24 24]"},
		"vision_tower.vision_model.encoder.layers.22":                 {"[N, S, D]", "[5 577 1024]"},
		"vision_tower.vision_model.encoder.layers.0.self_attn.scores": {"[N, H, S, S]", "[5 16 577 577]"},
		"select_features":                                {"[N, S-1, D]", "[5 576 1024]"},
		"multi_modal_projector.act":                      {"[N, S-1, C]", "[5 576 4096]"},
		"pack_image_features":                            {"[R, C]", "[2340 4096]"},
		"language_model.model.rotary_emb.cos":            {"[T, Dh]", "[2360 128]"},
		"language_model.model.layers.0.self_attn.k_proj": {"[T, K*Dh]", "[2360 1024]"},
		"language_model.model.layers.0.self_attn.rope_q": {"[T, H, Dh]", "[2360 32 128]"},
		"language_model.model.layers.31.self_attn.probs": {"[H, T, L]", "[32 2360 2360]"},
		"language_model.lm_head":                         {"[T, V]", "[2360 128320]"},
	}
	for _, n := range shapes.Nodes(c) {
		if w, ok := want[n.Name]; ok {
			if got := [2]string{n.Symbolic(), fmt.Sprint(n.Concrete(d))}; got != w {
				t.Errorf("%s: %v, want %v", n.Name, got, w)
			}
			delete(want, n.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the graph: %v", want)
	}
}
