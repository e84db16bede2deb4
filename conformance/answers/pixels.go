package answers

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/shapes"
)

// Names of what is judged, those of transformers.
const (
	nodeImageSizes  = shapes.InImageSizes
	nodePixelValues = shapes.InPixelValues
	nodePrompt      = "prompt"
	nodeImageTokens = "image_tokens"
	nodeInputIDs    = shapes.InInputIDs
	nodeNewIDs      = "new_ids"
	nodeText        = "text"
)

// preprocessing judges what became of the images.
func (j *judge) preprocessing() {
	if len(j.c.Images) == 0 {
		return
	}
	s := conformance.Stage{Name: conformance.StagePreprocessing}
	s.Nodes = append(s.Nodes, j.node(nodeImageSizes, []int{len(j.c.Images), 2}, j.answer.ImageSizes != nil, j.imageSizes))
	s.Nodes = append(s.Nodes, j.node(nodePixelValues, j.want.PixelValues.Shape, j.answer.Pixels != nil, j.pixelValues))
	j.stages = append(j.stages, s)
}

func (j *judge) imageSizes(k *conformance.Check) {
	have, want := j.answer.ImageSizes, j.want.ImageSizes
	if slices.Equal(have, want) {
		return
	}
	if len(have) != len(want) {
		fail(k, "%d images, want %d", len(have), len(want))
		return
	}
	swapped := true
	for i := range want {
		swapped = swapped && have[i] == shapes.Size{H: want[i].W, W: want[i].H}
	}
	for i, s := range have {
		if s != want[i] {
			fail(k, "image %d is [%d, %d], want [%d, %d] (height, width)", i, s.H, s.W, want[i].H, want[i].W)
			break
		}
	}
	if swapped {
		k.Causes = append(k.Causes, conformance.Cause{ID: "P02", Text: "width and height are exchanged", Look: "image_sizes is [[height, width], ...]"})
	}
}

// pixelValues holds the pixels against transformers'. They may be normalised in any order of float32 operations and rounded to the
// engine's class; a whole level of grey is four orders of magnitude more than float32 can do.
func (j *judge) pixelValues(k *conformance.Check) {
	have, err := j.answer.Pixels(4*len(j.c.Images)*len(j.want.PixelValues.Data) + 1<<16)
	if err != nil {
		k.Result, k.Reason = conformance.Error, err.Error()
		return
	}
	tiles, ok := j.unpadded(have)
	if !ok {
		fail(k, "shape %v, want %v: the tiles of all images in order", have.Shape, j.want.PixelValues.Shape)
		j.explainPixels(k, have)
		return
	}
	d := j.distance(tiles, j.want.PixelValues)
	k.Ratio = d.ratio
	k.Limits = []compare.Check{{Criterion: compare.Bound, Value: d.worst, Limit: d.limit, Ratio: d.ratio, Where: d.where}}
	if d.ratio <= 1 {
		if d.different > 0 {
			k.Reason = fmt.Sprintf("%d of %d values are rounded otherwise, by at most %.2g", d.different, len(tiles.Data), d.largest)
		}
		return
	}
	fail(k, "%s", d)
	k.Ratio = d.ratio
	j.explainPixels(k, tiles)
}

// unpadded is pixel values with axes of one taken off and the zeros dropped that fill up the tiles of several images, as transformers' processors
// return them; false if they are not of the conversation's shape.
func (j *judge) unpadded(have shapes.Tensor) (shapes.Tensor, bool) {
	want := j.want.PixelValues.Shape
	shape := have.Shape
	for len(shape) > 4 && shape[0] == 1 {
		shape = shape[1:]
	}
	if len(shape) == 5 && slices.Equal(shape[2:], want[1:]) && shape[0] == len(j.c.Images) {
		out := shapes.Tensor{Shape: []int{0, want[1], want[2], want[3]}}
		size := shapes.Product(want[1:])
		for i, n := range j.tilesOf() {
			of := have.Data[i*shape[1]*size : (i+1)*shape[1]*size]
			if n > shape[1] || slices.ContainsFunc(of[n*size:], func(v float32) bool { return v != 0 }) {
				return have, false
			}
			out.Shape[0] += n
			out.Data = append(out.Data, of[:n*size]...)
		}
		return out, slices.Equal(out.Shape, want)
	}
	have.Shape = shape
	if over := len(shape) == 4 && slices.Equal(shape[1:], want[1:]) && shape[0] > want[0]; over {
		keep := shapes.Product(want)
		if !slices.ContainsFunc(have.Data[keep:], func(v float32) bool { return v != 0 }) {
			return shapes.Tensor{Shape: want, Data: have.Data[:keep]}, true
		}
	}
	return have, slices.Equal(shape, want)
}

// tilesOf is the number of tiles of each image.
func (j *judge) tilesOf() []int {
	var out []int
	for _, s := range j.want.ImageSizes {
		p, _ := j.target.Processor.Plan(s) // the truth has been made of the same sizes
		out = append(out, p.Tiles)
	}
	return out
}

// apart is how far pixels are from others of their shape.
type apart struct {
	ratio, worst, limit, largest float64 // of the entry that is the most times its limit, and the largest difference of all
	where                        []int
	different, levels, levelsMax int // values that are not the same, and those that stand for another of the 256 levels, by at most so many
	total                        int
}

// String says it in words.
func (a apart) String() string {
	if a.levels == 0 {
		return fmt.Sprintf("the same pixels, normalised otherwise: %d of %d values differ, by at most %.2g", a.different, a.total, a.largest)
	}
	return fmt.Sprintf("%d of %d values are another grey level (%.2g %%), by at most %d of 255", a.levels, a.total, 100*float64(a.levels)/float64(a.total), a.levelsMax)
}

// normalisations is how many float32 roundings the normalisation of a pixel has at most: rescaling, difference, quotient, and the constants' own.
const normalisations = 6

// distance compares tiles of the same shape. An entry's limit is what so many roundings of float32 may do to (x/255 - mean)/std, and one rounding
// to the engine's class.
func (j *judge) distance(have, want shapes.Tensor) apart {
	p := j.target.Processor
	a := apart{total: len(want.Data), ratio: -1}
	area := want.Shape[2] * want.Shape[3]
	level := func(v float32, channel int) int {
		x := (float64(v)*p.Std[channel] + p.Mean[channel]) / p.RescaleFactor
		if math.IsNaN(x) {
			return -1000
		}
		return int(math.Round(max(-1000, min(x, 1000))))
	}
	for i, v := range have.Data {
		w := float64(want.Data[i])
		channel := i / area % 3
		limit := normalisations * compare.F32.Roundoff() * (math.Abs(w) + 2*p.Mean[channel]/p.Std[channel])
		if j.class != compare.F32 {
			limit += j.class.HalfStep(w)
		}
		diff := math.Abs(float64(v) - w)
		if !(diff <= math.MaxFloat32) {
			diff = math.MaxFloat32
		}
		if diff > 0 {
			a.different++
			if n := level(v, channel) - level(want.Data[i], channel); n != 0 {
				a.levels++
				a.levelsMax = max(a.levelsMax, n, -n)
			}
		}
		a.largest = max(a.largest, diff)
		if r := diff / limit; r > a.ratio {
			a.ratio, a.worst, a.limit = min(r, compare.Worse), diff, limit
			a.where = []int{i / area / 3, channel, i % area / want.Shape[3], i % want.Shape[3]}
		}
	}
	return a
}

// ResizeID is the id in docs/known-bugs.md of another published resize.
func ResizeID(v preprocess.Variant) string {
	if v == preprocess.Torchvision {
		return "P34"
	}
	return "P23"
}

// explainPixels names what makes the engine's pixels: another published rule, else a known bug, else images in another order.
func (j *judge) explainPixels(k *conformance.Check, have shapes.Tensor) {
	images, err := pictures(j.c)
	if err != nil {
		return
	}
	try := func(c conformance.Cause, of func(preprocess.Image) (shapes.Tensor, error), images []preprocess.Image) bool {
		y, err := pixels(images, of)
		if err != nil || !slices.Equal(y.Shape, have.Shape) {
			return false
		}
		d := j.distance(have, y)
		if d.ratio > 1 {
			return false
		}
		if c.Ratio = d.ratio; c.Convention != "" {
			c.Effect = k.Reason
		}
		k.Causes = append(k.Causes, c)
		return true
	}
	p := j.target.Processor
	for _, v := range preprocess.Variants()[1:] {
		p.Variant = v
		c := conformance.Cause{ID: ResizeID(v), Text: fmt.Sprintf("the pixels are those of the resize of %s", v), Convention: string(v)}
		if try(c, whole(p), images) {
			return
		}
	}
	p.Variant = preprocess.Pillow
	for _, b := range bugs.Of(p.ModelType) {
		try(conformance.Cause{ID: b.ID, Text: b.What, Look: "docs/known-bugs.md, image preprocessing", Convention: b.Convention}, func(m preprocess.Image) (shapes.Tensor, error) { return b.Pixels(p, m) }, images)
	}
	if len(k.Causes) == 0 && len(images) > 1 {
		images = slices.Clone(images)
		slices.Reverse(images)
		try(conformance.Cause{ID: "M02", Text: "the images are in the reverse order"}, whole(p), images)
	}
}

func whole(p preprocess.Processor) func(preprocess.Image) (shapes.Tensor, error) {
	return func(m preprocess.Image) (shapes.Tensor, error) {
		y, _, err := p.Image(m)
		return y, err
	}
}
