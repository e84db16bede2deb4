package tokenizer

import (
	"fmt"
	"slices"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// Processor says how many image tokens stand for an image: LlavaNextProcessor and LlavaProcessor of transformers 5.23.
type Processor struct {
	ModelType      string        // shapes.LlavaNext or shapes.Llava
	ImageToken     string        // "<image>"
	PatchSize      int           // pixels along one side of a patch
	SelectStrategy string        // shapes.SelectDefault or shapes.SelectFull
	Additional     int           // num_additional_image_tokens: positions of the tower besides the patches, 1 for CLIP's class token
	Tile           shapes.Size   // pixels of what goes into the tower
	GridPinpoints  []shapes.Size // canvases, in pixels; LLaVA-1.6 only

	additionalFrom string // where Additional was found, for errors
}

// maxImageSide bounds the pixels along a side of an image.
const maxImageSide = 1 << 20

// ImageTokens is the number of image tokens for an image of this size in pixels: _get_number_of_features, and for LLaVA-1.5
// the same line in LlavaProcessor.replace_image_token.
//
// The strategy "default" takes one off for the class token, whether or not num_additional_image_tokens put one on: with 0 in
// place of 1 the count is one short, 1175 instead of 1176 for a picture of 336x336, and the model refuses the prompt. Check
// says whether that is so.
func (p *Processor) ImageTokens(image shapes.Size) (int, error) {
	if min(image.H, image.W) < 1 || max(image.H, image.W) > maxImageSide {
		return 0, fmt.Errorf("tokenizer: an image of %dx%d pixels (height x width), want 1 to %d a side", image.H, image.W, maxImageSide)
	}
	patches := shapes.Size{H: p.Tile.H / p.PatchSize, W: p.Tile.W / p.PatchSize} // [P, P]
	n := patches.Area() + p.Additional
	if p.SelectStrategy == shapes.SelectDefault {
		n--
	}
	if p.ModelType == shapes.LlavaNext {
		canvas := preprocess.SelectBestResolution(image, p.GridPinpoints)
		grid := shapes.Size{H: canvas.H / p.Tile.H * patches.H, W: canvas.W / p.Tile.W * patches.W} // [Gh*P, Gw*P]
		_, kept := preprocess.Unpad(image, grid)
		n += kept.Area() + kept.H // a newline a row
	}
	if n < 1 {
		return 0, fmt.Errorf("tokenizer: %d image tokens for an image of %dx%d pixels (height x width), want at least 1", n, image.H, image.W)
	}
	return n, nil
}

// Counts are the numbers of image tokens of several images, in order.
func (p *Processor) Counts(images []shapes.Size) ([]int, error) {
	var counts []int
	for i, size := range images {
		n, err := p.ImageTokens(size)
		if err != nil {
			return nil, fmt.Errorf("%w: image %d of %d", err, i+1, len(images))
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// Check holds the processor against the model: both must count the same rows for a tile, patch by patch.
func (p *Processor) Check(c shapes.Config) error {
	side := c.Vision.PatchesPerSide()
	switch {
	case p.ModelType != c.ModelType:
		return fmt.Errorf("tokenizer: the processor is that of a %s, the model is a %s", p.ModelType, c.ModelType)
	case p.PatchSize != c.Vision.PatchSize:
		return fmt.Errorf("tokenizer: processor: patch_size %d, but the model's is %d", p.PatchSize, c.Vision.PatchSize)
	case p.Tile.H != c.Vision.ImageSize || p.Tile.W != c.Vision.ImageSize:
		return fmt.Errorf("tokenizer: processor: images of %dx%d pixels, but the model's image_size is %d", p.Tile.H, p.Tile.W, c.Vision.ImageSize)
	case p.SelectStrategy != c.SelectStrategy:
		return fmt.Errorf("tokenizer: processor: vision_feature_select_strategy %q, but the model's is %q", p.SelectStrategy, c.SelectStrategy)
	case p.ModelType == shapes.LlavaNext && !slices.Equal(p.GridPinpoints, c.GridPinpoints):
		return fmt.Errorf("tokenizer: processor: image_grid_pinpoints %v, but the model's are %v", p.GridPinpoints, c.GridPinpoints)
	case p.Additional != 1:
		less := 0
		if p.SelectStrategy == shapes.SelectDefault {
			less = 1
		}
		return fmt.Errorf("tokenizer: processor: num_additional_image_tokens %d (%s): %d image tokens for a tile, but the model has %d rows for it; it must be 1",
			p.Additional, p.additionalFrom, side*side+p.Additional-less, c.FeaturesPerTile())
	}
	return nil
}

// parseProcessor reads what a checkpoint says of its processor: processor_config.json, the image processor's fields in it or
// in preprocessor_config.json, and for what an old checkpoint does not say there, config.json.
//
// Up to transformers 4.44 nothing says patch_size, vision_feature_select_strategy and num_additional_image_tokens; 4.45 and
// 4.46 do not write the last one and count as if it were 1, and 4.48 and later take 0 for it, with which the model refuses
// every prompt. Here it is 1 where it is not written.
func parseProcessor(processor, image, model object, modelType string) (*Processor, error) {
	r := &reader{path: "processor_config.json"}
	p := &Processor{ModelType: modelType, ImageToken: r.str(processor, "image_token", "<image>")}
	p.additionalFrom = "processor_config.json"
	if !processor.has("num_additional_image_tokens") {
		p.additionalFrom = "not written anywhere"
	}
	p.Additional = r.integer(processor, "num_additional_image_tokens", 1, 0, 1<<10)
	p.PatchSize = r.integer(processor, "patch_size", 0, 1, 1<<14)
	p.SelectStrategy = r.str(processor, "vision_feature_select_strategy", "")
	if nested := r.object(processor, "image_processor"); nested != nil {
		image = nested
		r.path = "processor_config.json: image_processor"
	} else {
		r.path = "preprocessor_config.json"
	}
	if image == nil {
		r.fail("it is missing: the image processor stands in it, or from transformers 5 on in processor_config.json under image_processor")
		return nil, r.err
	}
	p.Tile = r.tile(image, modelType)
	if modelType == shapes.LlavaNext {
		p.GridPinpoints = r.pinpoints(image)
	}
	r.path = "config.json"
	if p.PatchSize == 0 {
		vision := r.object(model, "vision_config")
		p.PatchSize = r.integer(vision, "patch_size", 0, 1, 1<<14)
		if p.PatchSize == 0 {
			r.fail("patch_size is neither in processor_config.json nor in vision_config here")
		}
	}
	if p.SelectStrategy == "" {
		p.SelectStrategy = r.str(model, "vision_feature_select_strategy", shapes.SelectDefault)
	}
	if p.SelectStrategy != shapes.SelectDefault && p.SelectStrategy != shapes.SelectFull {
		r.fail("vision_feature_select_strategy %q, want %q or %q", p.SelectStrategy, shapes.SelectDefault, shapes.SelectFull)
	}
	if r.err == nil && (p.PatchSize > p.Tile.H || p.PatchSize > p.Tile.W) {
		r.fail("patch_size %d, but images of %dx%d pixels", p.PatchSize, p.Tile.H, p.Tile.W)
	}
	for _, pin := range p.GridPinpoints {
		if r.err == nil && (pin.H%p.Tile.H != 0 || pin.W%p.Tile.W != 0) {
			r.fail("image_grid_pinpoints: %dx%d is not made of whole tiles of %dx%d pixels", pin.H, pin.W, p.Tile.H, p.Tile.W)
		}
	}
	return p, r.err
}

// tile is the size of pixel_values: crop_size, to which a LlavaNextImageProcessor resizes each tile before the crop as well.
// Absent fields have the defaults of the classes: 224, a classic trap, which Check catches.
func (r *reader) tile(image object, modelType string) shapes.Size {
	side := func(key string) shapes.Size {
		if !image.has(key) {
			return shapes.Size{H: 224, W: 224}
		}
		var n int
		if r.value(image, key, &n, "a number, or an object") && n > 0 {
			return shapes.Size{H: n, W: n}
		}
		return shapes.Size{}
	}
	read := func(key string) shapes.Size {
		if len(image[key]) == 0 || image[key][0] != '{' {
			return side(key)
		}
		o := r.object(image, key)
		if o.has("shortest_edge") {
			n := r.integer(o, "shortest_edge", 0, 1, 1<<14)
			return shapes.Size{H: n, W: n}
		}
		return shapes.Size{H: r.integer(o, "height", 0, 1, 1<<14), W: r.integer(o, "width", 0, 1, 1<<14)}
	}
	if !r.boolean(image, "do_resize", true) || !r.boolean(image, "do_center_crop", true) {
		r.fail("do_resize or do_center_crop false is not supported, want true")
	}
	size, crop := read("size"), read("crop_size")
	if r.err == nil && (size != crop || size.H != size.W || size.H < 1 || size.H > 1<<14) {
		r.fail("size %v and crop_size %v, want the same number of pixels on all sides, up to %d", size, crop, 1<<14)
	}
	return crop
}

// pinpoints reads image_grid_pinpoints, pairs of height and width.
func (r *reader) pinpoints(image object) []shapes.Size {
	if !image.has("image_grid_pinpoints") {
		return []shapes.Size{{H: 336, W: 672}, {H: 672, W: 336}, {H: 672, W: 672}, {H: 1008, W: 336}, {H: 336, W: 1008}}
	}
	var pairs [][]int
	r.value(image, "image_grid_pinpoints", &pairs, "pairs [height, width]")
	var pins []shapes.Size
	for i, p := range pairs {
		if len(p) != 2 || min(p[0], p[1]) < 1 || max(p[0], p[1]) > maxImageSide || len(pairs) > 1<<10 {
			r.fail("image_grid_pinpoints[%d]: %v, want a pair [height, width]", i, p)
			return nil
		}
		pins = append(pins, shapes.Size{H: p[0], W: p[1]})
	}
	if len(pins) == 0 {
		r.fail("image_grid_pinpoints is empty")
	}
	return pins
}
