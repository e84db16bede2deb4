package cli

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/x448/float16"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/golden/npy"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/shapes"
)

// engineValues are the pixel_values of an engine.
type engineValues struct {
	shapes.Tensor // [N, 3, px, px]
	half          bool
}

type identifyDoc struct {
	File     string   `json:"file"`
	Shape    []int    `json:"shape"`
	Variants []string `json:"variants"` // those whose values they are, all of them
	Bugs     []bugDoc `json:"bugs"`     // known bugs that make the same values

	Status     string `json:"status"`               // pass, convention or fail
	Convention string `json:"convention,omitempty"` // the published rule that is followed in the place of the variant that was asked for
	Effect     string `json:"effect,omitempty"`     // what it changes of this image, in tokens and pixels

	Distance []distantDoc `json:"distance"` // from each variant, if it is none of them
}

type bugDoc struct {
	ID      string `json:"id"`
	What    string `json:"what"`
	Variant string `json:"variant"` // on whose arithmetic

	Convention string `json:"convention,omitempty"`
}

// distantDoc is how far the values are from a variant's.
type distantDoc struct {
	Variant   string  `json:"variant"`
	Shape     []int   `json:"shape"`
	Different int     `json:"different"` // values
	Largest   float64 `json:"largest"`   // difference
	Levels    int     `json:"levels"`    // pixels that are another of the 256 levels
	LevelsMax int     `json:"levels_max"`
	First     []int   `json:"first,omitempty"` // tile, channel, row, column
}

// recognise says whose pixel_values a file has.
func (f *preprocessFlags) recognise(cmd *cobra.Command, p preprocess.Processor, m preprocess.Image) error {
	have, err := readValues(f.identify, p)
	if err != nil {
		return err
	}
	d := identifyDoc{File: f.identify, Shape: have.Shape, Variants: []string{}, Bugs: []bugDoc{}, Distance: []distantDoc{}, Status: conformance.Fail.String()}
	right, _, err := p.Image(m)
	if err != nil {
		return err
	}
	plan, err := p.Plan(m.Size)
	if err != nil {
		return err
	}
	counts := plan.Features
	asked := p.Variant
	for _, v := range preprocess.Variants() {
		p.Variant = v
		want, _, err := p.Image(m)
		if err != nil {
			return err
		}
		if have.equal(want) {
			d.Variants = append(d.Variants, string(v))
		}
		d.Distance = append(d.Distance, have.distance(p, want))
	}
	p.Variant = asked
	switch {
	case slices.Contains(d.Variants, string(asked)):
		d.Status = conformance.Pass.String()
	case len(d.Variants) > 0:
		d.Convention = d.Variants[0]
	default:
		if d.Convention, err = have.onWhite(p, f.image); err != nil {
			return err
		}
		if d.Convention != "" {
			break
		}
		if d.Bugs, err = have.bugs(p, m); err != nil {
			return err
		}
		for _, b := range bugs.Of(p.ModelType) {
			if !slices.ContainsFunc(d.Bugs, func(k bugDoc) bool { return k.ID == b.ID && k.Convention != "" && k.Convention == b.Convention }) {
				continue
			}
			d.Convention = b.Convention
			other, err := b.Plan(p, m.Size)
			if err != nil {
				return err
			}
			counts = other.Features
			break
		}
	}
	if d.Convention != "" {
		d.Status = conformance.Convention.String()
		d.Effect = have.effect(p, right, counts, plan.Features)
	}
	if len(d.Variants) > 0 || d.Convention != "" {
		d.Distance = []distantDoc{}
	}
	if f.format == "json" {
		err = writeJSON(cmd.OutOrStdout(), d)
	} else {
		identifyText(cmd.OutOrStdout(), d)
	}
	switch {
	case err != nil:
		return err
	case d.Convention != "":
		return exitError{code: exitConvention}
	case len(d.Variants) == 0:
		return exitError{code: exitNotConformant}
	}
	return nil
}

// effect says in tokens and pixels what a convention changes of an image, of which the right values are given.
func (e engineValues) effect(p preprocess.Processor, right shapes.Tensor, counts, should int) string {
	text := fmt.Sprintf("%d image tokens as it should be", counts)
	if counts != should {
		text = fmt.Sprintf("%d image tokens for %d", counts, should)
	}
	if !slices.Equal(e.Shape, right.Shape) {
		return fmt.Sprintf("%s, and pixel_values of shape %s for %s", text, shapeText(e.Shape), shapeText(right.Shape))
	}
	d := e.distance(p, right)
	if d.Levels == 0 {
		return fmt.Sprintf("%s, and the same grey levels: %d values differ, by at most %.2g", text, d.Different, d.Largest)
	}
	return fmt.Sprintf("%s, and at most %d of 255 grey levels at %.2g %% of the pixel values", text, d.LevelsMax, 100*float64(d.Levels)/float64(len(e.Data)))
}

// onWhite names the convention by which an image's alpha is put on white, as transformers does from 5.21 on with image objects, if the values are those;
// such an object keeps the orientation of its file. Of files only PNGs are looked at, whose alpha has 8 bits.
func (e engineValues) onWhite(p preprocess.Processor, file string) (string, error) {
	if strings.HasPrefix(file, "pattern:") || strings.HasSuffix(file, ".npy") {
		return "", nil
	}
	f, err := os.Open(file) // which has been read before, and found to be no larger than an image may be
	if err != nil {
		return "", err
	}
	defer f.Close()
	decoded, err := png.Decode(f)
	if err != nil {
		return "", nil // no PNG
	}
	switch decoded.(type) {
	case *image.NRGBA, *image.Paletted:
	default:
		return "", nil
	}
	size := decoded.Bounds().Size()
	m := preprocess.NewImage(shapes.Size{H: size.Y, W: size.X})
	for i := range m.Size.Area() {
		c, ok := color.NRGBAModel.Convert(decoded.At(i%size.X, i/size.X)).(color.NRGBA)
		if !ok {
			return "", nil
		}
		for k, v := range [3]uint8{c.R, c.G, c.B} {
			m.Pix[3*i+k] = uint8((int(v)*int(c.A) + 255*(255-int(c.A)) + 127) / 255)
		}
	}
	for _, v := range slices.Concat([]preprocess.Variant{p.Variant}, preprocess.Variants()) {
		asked := p.Variant
		p.Variant = v
		want, _, err := p.Image(m)
		if err != nil {
			return "", err
		}
		if e.equal(want) {
			name := "alpha on white"
			if v != asked {
				name += ", and " + string(v)
			}
			return name, nil
		}
		p.Variant = asked
	}
	return "", nil
}

// bugs lists the known bugs that make the same values, on the arithmetic of the first variant that gives any.
func (e engineValues) bugs(p preprocess.Processor, m preprocess.Image) ([]bugDoc, error) {
	found := []bugDoc{}
	for _, v := range []preprocess.Variant{preprocess.Pillow, preprocess.Pillow13, preprocess.Torchvision} {
		p.Variant = v
		for _, b := range bugs.Of(p.ModelType) {
			y, err := b.Pixels(p, m)
			if err != nil {
				return nil, err
			}
			if e.equal(y) {
				found = append(found, bugDoc{b.ID, b.What, string(v), b.Convention})
			}
		}
		if len(found) > 0 {
			break
		}
	}
	return found, nil
}

// readValues reads pixel_values: [N, 3, px, px], with an axis of 1 in front or not; zeros at the end fill up a batch.
func readValues(path string, p preprocess.Processor) (engineValues, error) {
	h, err := npy.Stat(path)
	if err != nil {
		return engineValues{}, err
	}
	shape := h.Shape
	for len(shape) > 4 && shape[0] == 1 {
		shape = shape[1:]
	}
	if len(shape) == 3 && p.ModelType == shapes.Llava {
		shape = append([]int{1}, shape...)
	}
	const most = 1 << 28 // values: more than any canvas has
	if len(shape) != 4 || h.Len() == 0 || h.Len() > most || h.DType != "<f4" && h.DType != "<f2" && h.DType != "<f8" {
		return engineValues{}, fmt.Errorf("%s: dtype %s, shape %v, want floats [tiles, 3, height, width]", path, h.DType, h.Shape)
	}
	a, err := npy.ReadFile(path)
	if err != nil {
		return engineValues{}, err
	}
	values, err := a.Rounded32s()
	if err != nil {
		return engineValues{}, err
	}
	e := engineValues{shapes.Tensor{Shape: slices.Clone(shape), Data: values}, h.DType == "<f2"}
	tile := shapes.Product(shape[1:])
	for e.Shape[0] > 1 && !slices.ContainsFunc(e.Data[len(e.Data)-tile:], func(v float32) bool { return v != 0 }) {
		e.Data = e.Data[:len(e.Data)-tile]
		e.Shape[0]--
	}
	return e, nil
}

// same says whether a value is what the engine should have, in the engine's own precision. 0 and -0 are the same.
func (e engineValues) same(have, want float32) bool {
	if e.half {
		want = float16.Fromfloat32(want).Float32()
	}
	return have == want
}

func (e engineValues) equal(want shapes.Tensor) bool {
	if !slices.Equal(e.Shape, want.Shape) {
		return false
	}
	for i, v := range e.Data {
		if !e.same(v, want.Data[i]) {
			return false
		}
	}
	return true
}

// distance compares with a variant: the values, and the grey levels that they stand for.
func (e engineValues) distance(p preprocess.Processor, want shapes.Tensor) distantDoc {
	d := distantDoc{Variant: string(p.Variant), Shape: want.Shape}
	if !slices.Equal(e.Shape, want.Shape) {
		return d
	}
	area := want.Shape[2] * want.Shape[3]
	level := func(v float32, channel int) int {
		x := (float64(v)*p.Std[channel] + p.Mean[channel]) / p.RescaleFactor
		if math.IsNaN(x) {
			return -1000
		}
		return int(math.Round(max(-1000, min(x, 1000))))
	}
	for i, v := range e.Data {
		if e.same(v, want.Data[i]) {
			continue
		}
		channel := i / area % 3
		if d.Different++; d.Different == 1 {
			d.First = []int{i / area / 3, channel, i % area / want.Shape[3], i % want.Shape[3]}
		}
		diff := math.Abs(float64(v) - float64(want.Data[i]))
		if math.IsNaN(diff) || math.IsInf(diff, 0) {
			diff = math.MaxFloat32 // JSON has no word for more
		}
		d.Largest = max(d.Largest, diff)
		if n := level(v, channel) - level(want.Data[i], channel); n != 0 {
			d.Levels++
			d.LevelsMax = max(d.LevelsMax, n, -n)
		}
	}
	return d
}

func identifyText(w io.Writer, d identifyDoc) {
	for _, v := range d.Variants {
		fmt.Fprintf(w, "%s: the values of %s, all %d\n", d.File, v, shapes.Product(d.Shape))
	}
	for _, b := range d.Bugs {
		fmt.Fprintf(w, "%s: known bug %s on %s: %s\n", d.File, b.ID, b.Variant, b.What)
	}
	if d.Convention != "" {
		fmt.Fprintf(w, "other convention: %s. Of this image: %s.\n", d.Convention, d.Effect)
	}
	if len(d.Variants) > 0 || d.Convention != "" {
		return
	}
	if len(d.Bugs) == 0 {
		fmt.Fprintf(w, "%s: no variant, and no known bug alone\n", d.File)
	}
	for _, v := range d.Distance {
		switch {
		case !slices.Equal(v.Shape, d.Shape):
			fmt.Fprintf(w, "%-12s has shape %s, not %s\n", v.Variant, shapeText(v.Shape), shapeText(d.Shape))
		case v.Levels == 0:
			fmt.Fprintf(w, "%-12s has the same pixels, normalised otherwise: %d values differ, by at most %.2g\n", v.Variant, v.Different, v.Largest)
		default:
			fmt.Fprintf(w, "%-12s %d values differ, by at most %.3g; %d pixel values, by at most %d of 255; first in tile %d, channel %d, row %d, column %d\n",
				v.Variant, v.Different, v.Largest, v.Levels, v.LevelsMax, v.First[0], v.First[1], v.First[2], v.First[3])
		}
	}
}
