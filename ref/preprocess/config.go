package preprocess

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Config is what a model's folder says about images, defaults filled in as transformers fills them.
type Config struct {
	ModelType   string        // shapes.LlavaNext or shapes.Llava
	PadToSquare bool          // LLaVA-1.5 as it was trained: the image is first put on a square of the mean colour
	Edge        int           // px; the side of a tile of LLaVA-1.6, the short side of LLaVA-1.5's resized image
	Crop        int           // px; the side of what the model sees, one tile
	Pinpoints   []shapes.Size // the canvases of LLaVA-1.6, in px

	RescaleFactor float64    // 1/255
	Mean, Std     [3]float64 // red, green, blue, of values 0..1

	PatchSize      int    // px
	SelectStrategy string // shapes.SelectDefault or shapes.SelectFull: whether the class token becomes a feature

	// Expansion is how transformers' processor repeats the image token; nil if the folder is so old (up to 4.44) that the
	// model did it.
	Expansion *Expansion
}

// Expansion is the part of processor_config.json that decides how many image tokens transformers' processor writes.
type Expansion struct {
	AdditionalTokens int    // num_additional_image_tokens, 0 if absent
	SelectStrategy   string // vision_feature_select_strategy; empty if absent, which takes off nothing
}

// Limits on what a file may ask for.
const (
	maxFile   = 1 << 20 // bytes of a JSON file
	maxSide   = 1 << 14 // px of a tile
	maxPixels = 178_956_970
	maxPins   = 1 << 10
)

// ReadConfig reads config.json, preprocessor_config.json and processor_config.json of a model's folder.
func ReadConfig(dir string) (Config, error) {
	read := func(name string, missing bool) ([]byte, error) {
		path := filepath.Join(dir, name)
		f, err := os.Open(path)
		if missing && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("preprocess: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if err != nil {
			return nil, fmt.Errorf("preprocess: %w", err)
		}
		if len(data) > maxFile {
			return nil, fmt.Errorf("preprocess: %s: more than %d bytes, want a JSON file of a few KiB", path, maxFile)
		}
		return data, nil
	}
	text, err := read("config.json", false)
	if err != nil {
		return Config{}, err
	}
	model, err := shapes.ParseConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("preprocess: %s: %w", dir, err)
	}
	preprocessor, err := read("preprocessor_config.json", true)
	if err != nil {
		return Config{}, err
	}
	processor, err := read("processor_config.json", true)
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(model, preprocessor, processor)
	if err != nil {
		return Config{}, fmt.Errorf("preprocess: %s: %w", dir, err)
	}
	return c, nil
}

// ParseConfig reads preprocessor_config.json and processor_config.json; nil stands for a file that is not there.
//
// transformers up to 4.57 keeps the image processor in the first, from 5.0 on in the second under image_processor; where
// both have it, 4.x takes the first and 5.x the second, so they must agree. A field that is absent or null gets the
// default of transformers' own class, 224 pixels included. What would make another preprocessing of it is refused by name
// and value, and so is what contradicts the model's config.json.
func ParseConfig(model shapes.Config, preprocessor, processor []byte) (Config, error) {
	var found []Config
	var from []string
	outer, err := parseObject(processor)
	if err != nil {
		return Config{}, fmt.Errorf("processor_config.json: %w", err)
	}
	if raw, has := outer["image_processor"]; has {
		c, err := parseImageProcessor(model, raw)
		if err != nil {
			return Config{}, fmt.Errorf("processor_config.json: image_processor: %w", err)
		}
		found, from = append(found, c), append(from, "processor_config.json")
	}
	if preprocessor != nil {
		c, err := parseImageProcessor(model, preprocessor)
		if err != nil {
			return Config{}, fmt.Errorf("preprocessor_config.json: %w", err)
		}
		found, from = append(found, c), append(from, "preprocessor_config.json")
	}
	switch {
	case len(found) == 0:
		return Config{}, errors.New("neither preprocessor_config.json nor an image_processor in processor_config.json")
	case len(found) == 2 && !found[0].sameImages(found[1]):
		return Config{}, fmt.Errorf("%s and %s disagree about images; transformers 4.x reads one, 5.x the other", from[0], from[1])
	}
	c := found[0]
	if err := c.matchModel(model); err != nil {
		return Config{}, fmt.Errorf("%s: %w", from[0], err)
	}
	if c.Expansion, err = parseExpansion(model, outer); err != nil {
		return Config{}, fmt.Errorf("processor_config.json: %w", err)
	}
	return c, nil
}

// DefaultConfig is what the checkpoints of these models say, for a model that comes without a folder: tiles of the
// tower's own size, CLIP's mean and deviation, one additional token.
func DefaultConfig(model shapes.Config) Config {
	return Config{
		ModelType:      model.ModelType,
		Edge:           model.Vision.ImageSize,
		Crop:           model.Vision.ImageSize,
		Pinpoints:      model.GridPinpoints,
		RescaleFactor:  1.0 / 255,
		Mean:           clipMean,
		Std:            clipStd,
		PatchSize:      model.Vision.PatchSize,
		SelectStrategy: model.SelectStrategy,
		Expansion:      &Expansion{AdditionalTokens: 1, SelectStrategy: model.SelectStrategy},
	}
}

// OPENAI_CLIP_MEAN and OPENAI_CLIP_STD.
var (
	clipMean = [3]float64{0.48145466, 0.4578275, 0.40821073}
	clipStd  = [3]float64{0.26862954, 0.26130258, 0.27577711}
)

// sameImages says whether two configurations make the same pixels.
func (c Config) sameImages(d Config) bool {
	pins := slices.Equal(c.Pinpoints, d.Pinpoints)
	return pins && c.PadToSquare == d.PadToSquare && c.Edge == d.Edge && c.Crop == d.Crop && c.RescaleFactor == d.RescaleFactor && c.Mean == d.Mean && c.Std == d.Std
}

// matchModel refuses images that the model cannot take.
func (c Config) matchModel(model shapes.Config) error {
	if c.Crop != model.Vision.ImageSize {
		return fmt.Errorf("crop_size %d, but config.json has vision_config.image_size %d (a file without crop_size means 224)", c.Crop, model.Vision.ImageSize)
	}
	if c.ModelType == shapes.LlavaNext && !slices.Equal(c.Pinpoints, model.GridPinpoints) {
		return fmt.Errorf("image_grid_pinpoints %v, but config.json has %v", c.Pinpoints, model.GridPinpoints)
	}
	return nil
}

// parseImageProcessor reads the fields of an image processor, in whichever file they stand.
//
// LlavaNextImageProcessor, CLIPImageProcessor and LlavaImageProcessor of transformers 4.39 to 5.23, with the suffix Fast
// or Pil or none, which chooses a library (a Variant) and not a rule.
func parseImageProcessor(model shapes.Config, data []byte) (Config, error) {
	o, err := parseObject(data)
	if err != nil {
		return Config{}, err
	}
	r := fields{o: o}
	class := r.class(model.ModelType)
	for _, key := range []string{"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"} {
		if !r.boolean(key, true) {
			r.fail("%s false, only true is supported", key)
		}
	}
	for _, key := range []string{"default_to_square", "use_square_size"} {
		if r.boolean(key, false) {
			r.fail("%s true, only false is supported", key)
		}
	}
	for _, key := range []string{"pad_size", "auto_map"} {
		if r.has(key) {
			r.fail("%s %s is not supported", key, shorten(o[key]))
		}
	}
	if resample := r.integer("resample", 3, 0, 100); resample != 3 {
		r.fail("resample %d, only 3 (bicubic) is supported", resample)
	}
	pad := r.boolean("do_pad", class == "LlavaNextImageProcessor") // of LLaVA-1.6, and of CLIP: whether to make a batch of one length
	c := Config{
		ModelType:      model.ModelType,
		PadToSquare:    pad && class == "LlavaImageProcessor",
		Edge:           r.edge("size", 224),
		Crop:           r.square("crop_size", 224),
		RescaleFactor:  r.number("rescale_factor", 1.0/255),
		Mean:           r.channels("image_mean", clipMean),
		Std:            r.channels("image_std", clipStd),
		PatchSize:      model.Vision.PatchSize,
		SelectStrategy: model.SelectStrategy,
	}
	if c.Edge < c.Crop || class == "LlavaNextImageProcessor" && c.Edge != c.Crop {
		r.fail("size %d with crop_size %d is not supported", c.Edge, c.Crop)
	}
	if class == "LlavaNextImageProcessor" {
		c.Pinpoints = r.pinpoints(c.Crop)
	}
	if c.RescaleFactor <= 0 {
		r.fail("rescale_factor %v, want a positive number", c.RescaleFactor)
	}
	for i := range 3 {
		if c.PadToSquare && (c.Mean[i] < 0 || c.Mean[i] > 1) {
			r.fail("image_mean[%d] %v, want 0 to 1 where it is the colour of the padding (do_pad)", i, c.Mean[i])
		}
		if s := c.Std[i]; s <= 0 {
			r.fail("image_std[%d] %v, want a positive number", i, s)
		}
	}
	return c, r.err
}

// parseExpansion reads the fields of the processor itself, which stand beside image_processor.
func parseExpansion(model shapes.Config, o map[string]json.RawMessage) (*Expansion, error) {
	r := fields{o: o}
	patch := r.integer("patch_size", model.Vision.PatchSize, 1, maxSide)
	if patch != model.Vision.PatchSize {
		r.fail("patch_size %d, but config.json has vision_config.patch_size %d", patch, model.Vision.PatchSize)
	}
	e := Expansion{AdditionalTokens: r.integer("num_additional_image_tokens", 0, 0, maxSide)}
	if r.has("vision_feature_select_strategy") {
		e.SelectStrategy = r.oneOf("vision_feature_select_strategy", shapes.SelectDefault, shapes.SelectDefault, shapes.SelectFull)
		if e.SelectStrategy != model.SelectStrategy {
			r.fail("vision_feature_select_strategy %q, but config.json has %q", e.SelectStrategy, model.SelectStrategy)
		}
	}
	if !r.has("patch_size") {
		return nil, r.err // transformers' processor cannot count without it
	}
	return &e, r.err
}

// parseObject reads one JSON object; nothing at all is the empty object.
func parseObject(data []byte) (map[string]json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxFile)
	}
	if err := shapes.NotFetched(data); err != nil {
		return nil, err
	}
	var o map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more data after the JSON object")
	}
	if o == nil {
		return nil, errors.New("null, want a JSON object")
	}
	return o, nil
}

// fields reads the fields of an object with their defaults and keeps the first error.
type fields struct {
	o   map[string]json.RawMessage
	err error
}

func (r *fields) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// has says whether a field is there and not null; null means the default to transformers.
func (r *fields) has(key string) bool {
	raw, has := r.o[key]
	return has && string(raw) != "null"
}

// value decodes a field into dst; false if it is not there or something else.
func (r *fields) value(key string, dst any, want string) bool {
	if !r.has(key) {
		return false
	}
	if err := json.Unmarshal(r.o[key], dst); err != nil {
		r.fail("%s %s, want %s", key, shorten(r.o[key]), want)
		return false
	}
	return true
}

func (r *fields) boolean(key string, def bool) bool {
	v := def
	r.value(key, &v, "true or false")
	return v
}

func (r *fields) integer(key string, def, lo, hi int) int {
	v := def
	if r.value(key, &v, "an integer") && (v < lo || v > hi) {
		r.fail("%s %d, want %d to %d", key, v, lo, hi)
		return def
	}
	return v
}

// number reads a finite number; JSON has no others, but float64 has a largest one.
func (r *fields) number(key string, def float64) float64 {
	v := def
	r.value(key, &v, "a number")
	return v
}

func (r *fields) oneOf(key, def string, allowed ...string) string {
	v := def
	if r.value(key, &v, "a string") && !slices.Contains(allowed, v) {
		r.fail("%s %q, want %s", key, v, strings.Join(allowed, " or "))
	}
	return v
}

// class is the name of the image processor's class, without the suffix that says which library it uses.
func (r *fields) class(modelType string) string {
	name := ""
	key := "image_processor_type"
	if !r.value(key, &name, "a string") {
		key = "feature_extractor_type"
		r.value(key, &name, "a string")
	}
	base := strings.Replace(name, "FeatureExtractor", "ImageProcessor", 1)
	base = strings.TrimSuffix(strings.TrimSuffix(base, "Fast"), "Pil")
	want := []string{"LlavaNextImageProcessor"}
	if modelType == shapes.Llava {
		want = []string{"LlavaImageProcessor", "CLIPImageProcessor"}
	}
	if name == "" {
		return want[0] // as transformers' AutoImageProcessor chooses by the model's type
	}
	if !slices.Contains(want, base) {
		r.fail("%s %q, a %s takes %s", key, name, modelType, strings.Join(want, " or "))
	}
	return base
}

// edge reads size: a number or {"shortest_edge": n}.
func (r *fields) edge(key string, def int) int {
	if !r.has(key) {
		return def
	}
	var n int
	if json.Unmarshal(r.o[key], &n) != nil {
		var o map[string]int
		if json.Unmarshal(r.o[key], &o) != nil || len(o) != 1 || o["shortest_edge"] == 0 {
			r.fail(`%s %s, only {"shortest_edge": n} is supported`, key, shorten(r.o[key]))
			return def
		}
		n = o["shortest_edge"]
	}
	return r.side(key, n, def)
}

// square reads crop_size: a number or {"height": n, "width": n}.
func (r *fields) square(key string, def int) int {
	if !r.has(key) {
		return def
	}
	var n int
	if json.Unmarshal(r.o[key], &n) != nil {
		var o map[string]int
		if json.Unmarshal(r.o[key], &o) != nil || len(o) != 2 || o["height"] != o["width"] || o["height"] == 0 {
			r.fail(`%s %s, only {"height": n, "width": n} is supported`, key, shorten(r.o[key]))
			return def
		}
		n = o["height"]
	}
	return r.side(key, n, def)
}

func (r *fields) side(key string, n, def int) int {
	if n < 1 || n > maxSide {
		r.fail("%s %d, want 1 to %d pixels", key, n, maxSide)
		return def
	}
	return n
}

// channels reads a number for each of red, green and blue, or one for all.
func (r *fields) channels(key string, def [3]float64) [3]float64 {
	if !r.has(key) {
		return def
	}
	var one float64
	if json.Unmarshal(r.o[key], &one) == nil {
		return [3]float64{one, one, one}
	}
	var all []float64
	if json.Unmarshal(r.o[key], &all) != nil || len(all) != 3 {
		r.fail("%s %s, want three numbers", key, shorten(r.o[key]))
		return def
	}
	for _, v := range all {
		if math.Abs(v) > math.MaxFloat32 {
			r.fail("%s %s, want numbers that float32 can hold", key, shorten(r.o[key]))
		}
	}
	return [3]float64(all)
}

// pinpoints reads the canvases as pairs [height, width], each made of whole tiles.
func (r *fields) pinpoints(tile int) []shapes.Size {
	const key = "image_grid_pinpoints"
	if !r.has(key) {
		return []shapes.Size{{H: 336, W: 672}, {H: 672, W: 336}, {H: 672, W: 672}, {H: 1008, W: 336}, {H: 336, W: 1008}}
	}
	var pairs [][]int
	if json.Unmarshal(r.o[key], &pairs) != nil || len(pairs) < 1 || len(pairs) > maxPins {
		r.fail("%s %s, want 1 to %d pairs [height, width]", key, shorten(r.o[key]), maxPins)
		return nil
	}
	var pins []shapes.Size
	for i, p := range pairs {
		if len(p) != 2 || p[0] < 1 || p[1] < 1 || p[0] > maxPixels/p[1] || p[0]%tile != 0 || p[1]%tile != 0 {
			r.fail("%s[%d] %v, want [height, width] of whole %d pixel tiles, at most %d pixels", key, i, p, tile, maxPixels)
			return nil
		}
		pins = append(pins, shapes.Size{H: p[0], W: p[1]})
	}
	return pins
}

func shorten(raw []byte) string {
	if len(raw) > 60 {
		return string(raw[:57]) + "..."
	}
	return string(raw)
}
