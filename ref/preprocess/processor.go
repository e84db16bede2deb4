package preprocess

import (
	"fmt"

	"github.com/llavaref/llavaref/shapes"
)

// Processor turns images into what the vision tower takes, and says how many rows of features come of them.
type Processor struct {
	Config
	Variant Variant // empty means Pillow
}

// Plan is everything that follows from the size of an image alone.
type Plan struct {
	Original shapes.Size // px
	Canvas   shapes.Size // px; of LLaVA-1.6 one of the pinpoints, of LLaVA-1.5 what the crop keeps
	Resized  shapes.Size // px; the image as it goes onto the canvas
	Padding  Padding     // px; LLaVA-1.5 crops, so there it is negative
	Grid     shapes.Size // G, tiles down and across the canvas
	Tiles    int         // N; LLaVA-1.6 puts the whole image, squeezed into one tile, in front of the canvas's
	Cells    shapes.Size // feature cells of the canvas
	Offset   shapes.Size // the first cell of the canvas that is the image's
	Kept     shapes.Size // the cells that are the image's
	Features int         // R, rows of image features; a prompt needs as many image tokens
}

// MaxSide is the longest side of an image that Plan takes.
const MaxSide = 1 << 30

// Plan says what becomes of an image of a size. It is an error if there is no such image.
func (p Processor) Plan(original shapes.Size) (Plan, error) {
	if original.H < 1 || original.W < 1 || original.H > MaxSide || original.W > MaxSide {
		return Plan{}, fmt.Errorf("preprocess: image of %v pixels, want sides of 1 to %d", original, MaxSide)
	}
	if p.ModelType == shapes.Llava {
		return p.planCrop(original), nil
	}
	return p.planCanvas(original), nil
}

// planCanvas is the plan of LLaVA-1.6. The number of features is that of pack_image_features: the cells of the whole
// image, then those that are kept of the canvas, and a newline after each of their rows.
func (p Processor) planCanvas(original shapes.Size) Plan {
	side := p.Crop / p.PatchSize // P
	l := Plan{Original: original}
	l.Canvas = SelectBestResolution(original, p.Pinpoints)
	l.Resized = FitCanvas(original, l.Canvas)
	l.Padding = Center(l.Resized, l.Canvas)
	l.Grid = shapes.Size{H: l.Canvas.H / p.Crop, W: l.Canvas.W / p.Crop}
	l.Tiles = 1 + l.Grid.Area()
	l.Cells = shapes.Size{H: l.Grid.H * side, W: l.Grid.W * side}
	l.Offset, l.Kept = Unpad(original, l.Cells)
	l.Features = side*side + l.Kept.Area() + l.Kept.H
	return l
}

// planCrop is the plan of LLaVA-1.5.
func (p Processor) planCrop(original shapes.Size) Plan {
	side := p.Crop / p.PatchSize // P
	l := Plan{Original: original, Canvas: shapes.Size{H: p.Crop, W: p.Crop}, Grid: shapes.Size{H: 1, W: 1}, Tiles: 1}
	if p.PadToSquare {
		original = shapes.Size{H: max(original.H, original.W), W: max(original.H, original.W)}
	}
	l.Resized = FitEdge(original, p.Edge)
	crop := centerCrop(l.Resized, l.Canvas)
	l.Padding = Padding{-crop.Top, l.Canvas.H - l.Resized.H + crop.Top, -crop.Left, l.Canvas.W - l.Resized.W + crop.Left}
	l.Cells = shapes.Size{H: side, W: side}
	l.Kept = l.Cells
	l.Features = side * side
	if p.SelectStrategy == shapes.SelectFull {
		l.Features++ // the class token
	}
	return l
}

// centerCrop is the middle of an image that is at least as large; of an odd number of surplus pixels one more is cut off at
// the bottom and at the right. center_crop in transformers' image_transforms.
func centerCrop(image, crop shapes.Size) Box {
	return Box{Top: (image.H - crop.H) / 2, Left: (image.W - crop.W) / 2, Size: crop}
}

// FeatureCount is how many rows of image features an image gives, which is how many image tokens the prompt needs; 0 if
// there is no image of that size.
func (p Processor) FeatureCount(original shapes.Size) int {
	l, err := p.Plan(original)
	if err != nil {
		return 0
	}
	return l.Features
}

// Expanded is how many image tokens transformers' processor, 4.48 to 5.23, writes for an image of that plan; false if the
// folder does not let it count. It adds num_additional_image_tokens, meant for the class token, and takes off a literal 1
// if the strategy is "default", so the number is that of the features only if the folder says 1.
func (p Processor) Expanded(l Plan) (tokens int, counts bool) {
	if p.Expansion == nil {
		return 0, false
	}
	tokens = l.Features + p.Expansion.AdditionalTokens
	if p.SelectStrategy == shapes.SelectFull {
		tokens-- // the features have the class token already
	}
	if p.Expansion.SelectStrategy == shapes.SelectDefault {
		tokens--
	}
	return tokens, true
}

// Steps is an image at each stage of its preprocessing.
type Steps struct {
	Plan
	Square      *Image        // [s, s, 3], only if the image is put on a square first
	Scaled      Image         // [h, w, 3], the image as it goes onto the canvas; of LLaVA-1.5 the part that the crop keeps
	Padded      Image         // [Gh*px, Gw*px, 3], the canvas; of LLaVA-1.5 Scaled again
	Pieces      []Image       // N of [px, px, 3]
	PixelValues shapes.Tensor // [N, 3, px, px]
}

// Image is what the vision tower takes of one image, and the size that it had.
//
// image [H, W, 3], 0..255 -> [N, 3, px, px]. LlavaNextImageProcessor or CLIPImageProcessor of transformers, for one image:
// from several, transformers makes one array filled up with zeros, whose surplus the model drops again.
func (p Processor) Image(m Image) (shapes.Tensor, shapes.Size, error) {
	s, err := p.Steps(m)
	return s.PixelValues, m.Size, err
}

// Steps does what Image does and keeps what lies between.
func (p Processor) Steps(m Image) (Steps, error) {
	if err := m.check(); err != nil {
		return Steps{}, err
	}
	plan, err := p.Plan(m.Size)
	if err != nil {
		return Steps{}, err
	}
	s := Steps{Plan: plan}
	if p.ModelType == shapes.Llava {
		err = p.crop(&s, m)
	} else {
		err = p.canvas(&s, m)
	}
	if err != nil {
		return Steps{}, err
	}
	s.PixelValues = normalize(s.Pieces, p.normalTable(p.Variant)) // [N, 3, px, px]
	return s, nil
}

// canvas is the way of LLaVA-1.6: the image on its canvas, cut into tiles, behind the whole image as one tile, which is
// made of the original and loses its proportions.
func (p Processor) canvas(s *Steps, m Image) error {
	var err error
	if s.Scaled, err = Resize(m, s.Resized, p.Variant); err != nil { // [h, w, 3]
		return err
	}
	s.Padded = Pad(s.Scaled, s.Padding, [3]uint8{})                       // [Gh*px, Gw*px, 3]
	whole, err := Resize(m, shapes.Size{H: p.Edge, W: p.Edge}, p.Variant) // [px, px, 3]
	if err != nil {
		return err
	}
	s.Pieces = append([]Image{whole}, CutTiles(s.Padded, p.Crop)...) // N of [px, px, 3]
	return nil
}

// crop is the way of LLaVA-1.5: the image scaled by its short side, and the middle of it. Only the middle is computed.
func (p Processor) crop(s *Steps, m Image) error {
	if p.PadToSquare {
		side := max(m.Size.H, m.Size.W)
		if side > maxPixels/side {
			return fmt.Errorf("preprocess: image of %v pixels on a square of %dx%d, want at most %d pixels", m.Size, side, side, maxPixels)
		}
		m = Pad(m, square(m.Size), p.meanColour()) // [s, s, 3]
		s.Square = &m
	}
	var err error
	s.Scaled, err = ResizeWindow(m, s.Resized, centerCrop(s.Resized, s.Canvas), p.Variant) // [px, px, 3]
	if err != nil {
		return err
	}
	s.Padded = s.Scaled
	s.Pieces = []Image{s.Scaled} // 1 of [px, px, 3]
	return nil
}
