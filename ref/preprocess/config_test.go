package preprocess

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/llavaref/llavaref/shapes"
)

func model(t testing.TB, name string) shapes.Config {
	t.Helper()
	c, err := shapes.Model(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// official is preprocessor_config.json of llava-hf/llama3-llava-next-8b-hf: 736 bytes.
const official = `{
  "crop_size": {
    "height": 336,
    "width": 336
  },
  "do_center_crop": true,
  "do_convert_rgb": true,
  "do_normalize": true,
  "do_pad": true,
  "do_rescale": true,
  "do_resize": true,
  "image_grid_pinpoints": [
    [
      336,
      672
    ],
    [
      672,
      336
    ],
    [
      672,
      672
    ],
    [
      1008,
      336
    ],
    [
      336,
      1008
    ]
  ],
  "image_mean": [
    0.48145466,
    0.4578275,
    0.40821073
  ],
  "image_processor_type": "LlavaNextImageProcessor",
  "image_std": [
    0.26862954,
    0.26130258,
    0.27577711
  ],
  "processor_class": "LlavaNextProcessor",
  "resample": 3,
  "rescale_factor": 0.00392156862745098,
  "size": {
    "shortest_edge": 336
  }
}
`

const processorJSON = `{"image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 14, "processor_class": "LlavaNextProcessor", "vision_feature_select_strategy": "default"}`

// with replaces and adds fields of a JSON object; null takes one away.
func with(t testing.TB, object, changes string) []byte {
	t.Helper()
	var o, c map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &o); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(changes), &c); err != nil {
		t.Fatal(err)
	}
	for key, v := range c {
		o[key] = v
		if string(v) == `"absent"` {
			delete(o, key)
		}
	}
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestConfigOfEachLayoutIsTheSame(t *testing.T) {
	if n := len(official); n != 736 {
		t.Errorf("the official file has %d bytes, want 736", n)
	}
	next := model(t, "llava-1.6-llama3-8b")
	want := DefaultConfig(next)
	nested := with(t, processorJSON, `{"image_processor": `+official+`}`)
	old := want
	old.Expansion = nil
	unaware := want
	unaware.Expansion = &Expansion{SelectStrategy: "default"}
	for _, c := range []struct {
		name                    string
		preprocessor, processor []byte
		want                    Config
	}{
		{"4.45 to 4.57: two files", []byte(official), []byte(processorJSON), want},
		{"5.0 on: one file", nil, nested, want},
		{"both, the same", []byte(official), nested, want},
		{"up to 4.44: no processor_config.json", []byte(official), nil, old},
		{"4.45 and 4.46: no num_additional_image_tokens", []byte(official), with(t, processorJSON, `{"num_additional_image_tokens": "absent"}`), unaware},
		{"the class of the torchvision library", with(t, official, `{"image_processor_type": "LlavaNextImageProcessorFast"}`), []byte(processorJSON), want},
		{"the class of 5.4 on", with(t, official, `{"image_processor_type": "LlavaNextImageProcessorPil"}`), []byte(processorJSON), want},
		{"no class", with(t, official, `{"image_processor_type": "absent"}`), []byte(processorJSON), want},
		{"null means the default", with(t, official, `{"resample": null, "rescale_factor": null, "image_mean": null, "image_std": null, "image_grid_pinpoints": null, "do_resize": null, "pad_size": null}`), []byte(processorJSON), want},
		{"absent means the default", []byte(`{"size": 336, "crop_size": 336}`), []byte(processorJSON), want},
		{"fields that choose nothing", with(t, official, `{"data_format": "channels_first", "device": null, "return_tensors": null, "do_pad": false, "aspect_ratio_setting": "anyres"}`), []byte(processorJSON), want},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseConfig(next, c.preprocessor, c.processor)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error("-want +got:\n" + d)
			}
		})
	}
}

func TestConfigOfLlava15(t *testing.T) {
	llava := model(t, "llava-1.5-7b")
	const clip = `{"crop_size": {"height": 336, "width": 336}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
		"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711],
		"processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 336}}`
	want := DefaultConfig(llava)
	square := want
	square.PadToSquare = true
	larger := want
	larger.Edge = 400
	for _, c := range []struct {
		name, changes string
		want          Config
	}{
		{"as it is", `{}`, want},
		{"LlavaImageProcessor without do_pad", `{"image_processor_type": "LlavaImageProcessor"}`, want},
		{"LlavaImageProcessor with do_pad", `{"image_processor_type": "LlavaImageProcessorFast", "do_pad": true}`, square},
		{"CLIP with do_pad, which pads to the largest of a batch", `{"do_pad": true}`, want},
		{"an old feature extractor", `{"image_processor_type": "absent", "feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336}`, want},
		{"a larger short side", `{"size": {"shortest_edge": 400}}`, larger},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseConfig(llava, with(t, clip, c.changes), []byte(processorJSON))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error("-want +got:\n" + d)
			}
		})
	}
}

func TestConfigIsRefusedByNameAndValue(t *testing.T) {
	next := model(t, "llava-1.6-llama3-8b")
	for _, c := range []struct{ changes, want string }{
		{`{"resample": 2}`, "resample 2, only 3 (bicubic)"},
		{`{"resample": "bicubic"}`, `resample "bicubic", want an integer`},
		{`{"do_resize": false}`, "do_resize false"},
		{`{"do_center_crop": false}`, "do_center_crop false"},
		{`{"do_rescale": false}`, "do_rescale false"},
		{`{"do_normalize": false}`, "do_normalize false"},
		{`{"do_convert_rgb": false}`, "do_convert_rgb false"},
		{`{"do_resize": 1}`, "do_resize 1, want true or false"},
		{`{"default_to_square": true}`, "default_to_square true"},
		{`{"use_square_size": true}`, "use_square_size true"},
		{`{"pad_size": {"height": 1, "width": 2}}`, "pad_size {"},
		{`{"auto_map": {"AutoImageProcessor": "x.Y"}}`, "auto_map {"},
		{`{"size": {"height": 336, "width": 336}}`, `size {"height":336,"width":336}, only {"shortest_edge": n}`},
		{`{"size": {"shortest_edge": 336, "longest_edge": 672}}`, "only"},
		{`{"size": [336, 336]}`, "size [336,336]"},
		{`{"size": 0}`, "size 0, want 1 to"},
		{`{"size": -336}`, "size -336"},
		{`{"size": 1000000}`, "size 1000000"},
		{`{"size": {"shortest_edge": 224}}`, "size 224 with crop_size 336"},
		{`{"size": "absent"}`, "size 224 with crop_size 336"},
		{`{"crop_size": {"height": 336, "width": 224}}`, `crop_size {"height":336,"width":224}, only`},
		{`{"crop_size": "absent"}`, "size 336 with crop_size 224"},
		{`{"size": "absent", "crop_size": "absent"}`, "image_grid_pinpoints[0] [336 672], want [height, width] of whole 224 pixel tiles"},
		{`{"size": 112, "crop_size": 112}`, "crop_size 112, but config.json has vision_config.image_size 336"},
		{`{"image_mean": [0.5, 0.5]}`, "image_mean [0.5,0.5], want three numbers"},
		{`{"image_mean": "x"}`, `image_mean "x"`},
		{`{"image_std": [0.5, 0, 0.5]}`, "image_std[1] 0, want a positive number"},
		{`{"image_std": -1}`, "image_std[0] -1"},
		{`{"image_std": [1e300, 1, 1]}`, "float32"},
		{`{"rescale_factor": 0}`, "rescale_factor 0, want a positive number"},
		{`{"rescale_factor": 1e400}`, "rescale_factor 1e400, want a number"},
		{`{"image_processor_type": "CLIPImageProcessor"}`, `image_processor_type "CLIPImageProcessor", a llava_next takes LlavaNextImageProcessor`},
		{`{"image_processor_type": "LlavaOnevisionImageProcessor"}`, "LlavaOnevisionImageProcessor"},
		{`{"image_grid_pinpoints": []}`, "image_grid_pinpoints []"},
		{`{"image_grid_pinpoints": [[336]]}`, "image_grid_pinpoints[0] [336]"},
		{`{"image_grid_pinpoints": [[336, 500]]}`, "whole 336 pixel tiles"},
		{`{"image_grid_pinpoints": [[336, -336]]}`, "image_grid_pinpoints[0]"},
		{`{"image_grid_pinpoints": [[336000, 336000]]}`, "at most 178956970 pixels"},
		{`{"image_grid_pinpoints": [[672, 336], [336, 672], [672, 672], [1008, 336], [336, 1008]]}`, "but config.json has"},
		{`{"image_grid_pinpoints": "anyres"}`, `image_grid_pinpoints "anyres"`},
	} {
		_, err := ParseConfig(next, with(t, official, c.changes), []byte(processorJSON))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "preprocessor_config.json") {
			t.Errorf("%s: error %v, want one of preprocessor_config.json with %q", c.changes, err, c.want)
		}
	}
	for _, c := range []struct{ processor, want string }{
		{string(with(t, processorJSON, `{"patch_size": 16}`)), "patch_size 16, but config.json has vision_config.patch_size 14"},
		{string(with(t, processorJSON, `{"vision_feature_select_strategy": "full"}`)), `vision_feature_select_strategy "full", but config.json has "default"`},
		{string(with(t, processorJSON, `{"vision_feature_select_strategy": "cls"}`)), `vision_feature_select_strategy "cls"`},
		{string(with(t, processorJSON, `{"num_additional_image_tokens": -1}`)), "num_additional_image_tokens -1"},
		{string(with(t, processorJSON, `{"image_processor": `+string(with(t, official, `{"image_mean": 0.5}`))+`}`)), "disagree"},
		{string(with(t, processorJSON, `{"image_processor": 3}`)), "image_processor: not a JSON object"},
		{`[]`, "not a JSON object"},
		{`null`, "null, want a JSON object"},
		{"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer and not the file"},
		{`{} {}`, "more data"},
		{``, "not a JSON object"},
	} {
		_, err := ParseConfig(next, []byte(official), []byte(c.processor))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.processor, err, c.want)
		}
	}
	if _, err := ParseConfig(next, nil, []byte(processorJSON)); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("without an image processor: error %v", err)
	}
	bright := with(t, official, `{"image_processor_type": "LlavaImageProcessor", "do_pad": true, "image_mean": [0.5, 2, 0.5]}`)
	if _, err := ParseConfig(model(t, "llava-1.5-7b"), bright, nil); err == nil || !strings.Contains(err.Error(), "image_mean[1] 2, want 0 to 1") {
		t.Errorf("a mean that is no colour: error %v", err)
	}
}

func TestReadConfigReadsAFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadConfig(dir); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("an empty folder: error %v", err)
	}
	config, err := shapes.ModelJSON("llava-1.6-llama3-8b")
	if err != nil {
		t.Fatal(err)
	}
	write("config.json", string(config))
	if _, err := ReadConfig(dir); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("only config.json: error %v", err)
	}
	write("preprocessor_config.json", official)
	write("processor_config.json", processorJSON)
	got, err := ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(DefaultConfig(model(t, "llava-1.6-llama3-8b")), got); d != "" {
		t.Error("-want +got:\n" + d)
	}
	write("preprocessor_config.json", strings.Repeat(" ", maxFile+1))
	if _, err := ReadConfig(dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file of a MiB: error %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	next, err := shapes.Model("llava-1.6-llama3-8b")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(official), []byte(processorJSON))
	f.Add([]byte(`{"size": 336, "crop_size": 336}`), []byte(`{"image_processor": {"size": {"shortest_edge": 336}}}`))
	f.Add([]byte(`{"image_grid_pinpoints": [[336, 672]]}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, preprocessor, processor []byte) {
		c, err := ParseConfig(next, preprocessor, processor)
		if err != nil {
			return
		}
		p := Processor{Config: c}
		if _, _, err := p.Image(NewImage(shapes.Size{H: 3, W: 5})); err != nil {
			t.Errorf("a configuration that was accepted does not work: %v", err)
		}
	})
}
