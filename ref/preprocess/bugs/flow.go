// Package bugs holds the known ways to get the preprocessing wrong, each as a working alternative: it recognises the bug of
// an engine by making the same pixels or the same count, and it proves that the vectors catch it.
//
// Everything here is wrong on purpose, and nothing but the diagnosis uses it. The ids are those of docs/known-bugs.md, with
// a letter where there is more than one way.
package bugs

import (
	"fmt"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// Bug is one way to get it wrong.
type Bug struct {
	ID, What string
	// Convention is the published rule that it is, where it is no bug of the engine's own.
	Convention string

	model  string // shapes.LlavaNext or shapes.Llava, if the other model cannot have it
	mutate func(*flow)
}

// Of lists the bugs that a type of model can have, in the order of the stages.
func Of(modelType string) []Bug {
	var of []Bug
	for _, b := range All() {
		if b.model == "" || b.model == modelType {
			of = append(of, b)
		}
	}
	return of
}

// Pixels is what an engine with the bug makes of an image, [N, 3, px, px], if it otherwise does what the processor does.
func (b Bug) Pixels(p preprocess.Processor, m preprocess.Image) (shapes.Tensor, error) {
	f, err := b.flow(p, m.Size)
	if err != nil {
		return shapes.Tensor{}, err
	}
	if _, err := preprocess.Resize(m, m.Size, p.Variant); err != nil {
		return shapes.Tensor{}, err // an image whose size is not that of its pixels
	}
	y := f.pixels(m)
	return y, f.err
}

// Plan is what an engine with the bug makes of the size of an image: canvas, size, padding and count.
func (b Bug) Plan(p preprocess.Processor, original shapes.Size) (preprocess.Plan, error) {
	f, err := b.flow(p, original)
	if err != nil {
		return preprocess.Plan{}, err
	}
	return f.plan(original), nil
}

func (b Bug) flow(p preprocess.Processor, original shapes.Size) (*flow, error) {
	if b.model != "" && p.ModelType != b.model {
		return nil, fmt.Errorf("bugs: %s is a bug of %s, not of %s", b.ID, b.model, p.ModelType)
	}
	if _, err := p.Plan(original); err != nil {
		return nil, err
	}
	f := correct(p)
	b.mutate(f)
	return f, nil
}

// flow is the preprocessing with every stage exchangeable.
type flow struct {
	p       preprocess.Processor
	edge    func(original shapes.Size, px int) shapes.Size  // of LLaVA-1.5, as is the next
	corner  func(resized, crop shapes.Size) (top, left int) //
	choose  func(original shapes.Size, pinpoints []shapes.Size) shapes.Size
	fit     func(original, canvas shapes.Size) shapes.Size
	resize  func(m preprocess.Image, to shapes.Size) preprocess.Image
	padding func(resized, canvas shapes.Size) preprocess.Padding
	colour  [3]uint8
	whole   func(s stages) preprocess.Image
	cut     func(canvas preprocess.Image, px int) []preprocess.Image
	order   func(whole preprocess.Image, tiles []preprocess.Image) []preprocess.Image
	values  func(pieces []preprocess.Image, s stages) shapes.Tensor
	unpad   func(original, cells shapes.Size) (kept shapes.Size)
	count   func(base int, kept shapes.Size) int
	err     error // a size that no image can be given
}

// stages is what the later stages may look at.
type stages struct {
	px             int
	image          preprocess.Image
	scaled, padded preprocess.Image
	padding        preprocess.Padding
}

// correct is the flow without a bug.
func correct(p preprocess.Processor) *flow {
	f := &flow{p: p}
	f.edge = preprocess.FitEdge
	f.corner = func(resized, crop shapes.Size) (top, left int) {
		return (resized.H - crop.H) / 2, (resized.W - crop.W) / 2
	}
	f.choose = preprocess.SelectBestResolution
	f.fit = preprocess.FitCanvas
	f.resize = func(m preprocess.Image, to shapes.Size) preprocess.Image {
		return f.resizeWindow(m, to, preprocess.Box{Size: to})
	}
	f.padding = preprocess.Center
	f.whole = func(s stages) preprocess.Image { return f.resize(s.image, shapes.Size{H: s.px, W: s.px}) }
	f.cut = preprocess.CutTiles
	f.order = func(whole preprocess.Image, tiles []preprocess.Image) []preprocess.Image {
		return append([]preprocess.Image{whole}, tiles...)
	}
	f.values = func(pieces []preprocess.Image, _ stages) shapes.Tensor { return f.normalize(pieces, f.normal) }
	f.unpad = func(original, cells shapes.Size) shapes.Size {
		_, kept := preprocess.Unpad(original, cells)
		return kept
	}
	f.count = func(base int, kept shapes.Size) int { return base + kept.Area() + kept.H }
	return f
}

// resizeWindow is the part of a resized image; black, and an error of the flow, if it cannot be made.
func (f *flow) resizeWindow(m preprocess.Image, to shapes.Size, window preprocess.Box) preprocess.Image {
	r, err := preprocess.ResizeWindow(m, to, window, f.p.Variant)
	if err != nil {
		f.err = err
		return preprocess.NewImage(window.Size)
	}
	return r
}

// pixels runs the flow.
func (f *flow) pixels(m preprocess.Image) shapes.Tensor {
	if f.p.ModelType == shapes.Llava {
		return f.values([]preprocess.Image{f.cropped(m)}, stages{px: f.p.Crop, image: m})
	}
	px := f.p.Crop
	canvas := f.choose(m.Size, f.p.Pinpoints)
	s := stages{px: px, image: m}
	s.scaled = f.resize(m, f.fit(m.Size, canvas)) // [h, w, 3]
	s.padding = f.padding(s.scaled.Size, canvas)
	s.padded = preprocess.Pad(s.scaled, s.padding, f.colour) // [Gh*px, Gw*px, 3]
	return f.values(f.order(f.whole(s), f.cut(s.padded, px)), s)
}

// cropped is the one tile of LLaVA-1.5.
func (f *flow) cropped(m preprocess.Image) preprocess.Image {
	to := f.edge(m.Size, f.p.Edge)
	crop := preprocess.Box{Size: shapes.Size{H: f.p.Crop, W: f.p.Crop}}
	crop.Top, crop.Left = f.corner(to, crop.Size)
	const whole = 1 << 24 // px that are worth scaling for the sake of a crop
	if to.H > whole/to.W {
		return f.resizeWindow(m, to, crop)
	}
	return preprocess.Crop(f.resize(m, to), crop)
}

// plan is what the stages make of a size.
func (f *flow) plan(original shapes.Size) preprocess.Plan {
	if f.p.ModelType == shapes.Llava {
		return f.cropPlan(original)
	}
	side := f.p.Crop / f.p.PatchSize // P
	l := preprocess.Plan{Original: original, Canvas: f.choose(original, f.p.Pinpoints)}
	l.Resized = f.fit(original, l.Canvas)
	l.Padding = f.padding(l.Resized, l.Canvas)
	l.Grid = shapes.Size{H: l.Canvas.H / f.p.Crop, W: l.Canvas.W / f.p.Crop}
	l.Tiles = 1 + l.Grid.Area()
	l.Cells = shapes.Size{H: l.Grid.H * side, W: l.Grid.W * side}
	l.Kept = f.unpad(original, l.Cells)
	l.Offset = shapes.Size{H: (l.Cells.H - l.Kept.H) / 2, W: (l.Cells.W - l.Kept.W) / 2}
	l.Features = f.count(side*side, l.Kept)
	return l
}

// cropPlan is the plan of LLaVA-1.5; its count does not depend on the size.
func (f *flow) cropPlan(original shapes.Size) preprocess.Plan {
	l := preprocess.Plan{Original: original, Canvas: shapes.Size{H: f.p.Crop, W: f.p.Crop}, Grid: shapes.Size{H: 1, W: 1}, Tiles: 1}
	l.Resized = f.edge(original, f.p.Edge)
	top, left := f.corner(l.Resized, l.Canvas)
	l.Padding = preprocess.Padding{Top: -top, Bottom: l.Canvas.H - l.Resized.H + top, Left: -left, Right: l.Canvas.W - l.Resized.W + left}
	side := f.p.Crop / f.p.PatchSize // P
	l.Cells = shapes.Size{H: side, W: side}
	l.Kept, l.Features = l.Cells, side*side
	return l
}

// normal is one value of one channel, normalised.
func (f *flow) normal(u uint8, channel int) float32 {
	if f.p.Variant == preprocess.Torchvision {
		whole := float32(1 / f.p.RescaleFactor)
		return (float32(u) - float32(f.p.Mean[channel])*whole) / (float32(f.p.Std[channel]) * whole)
	}
	x := float32(float64(u) * f.p.RescaleFactor)
	return (x - float32(f.p.Mean[channel])) / float32(f.p.Std[channel])
}

// normalize makes [N, 3, px, px] of N pieces.
func (f *flow) normalize(pieces []preprocess.Image, normal func(u uint8, channel int) float32) shapes.Tensor {
	px := pieces[0].Size
	y := shapes.NewTensor(len(pieces), 3, px.H, px.W) // [N, 3, px, px]
	for n, piece := range pieces {
		for c := range 3 {
			for i := range px.Area() {
				y.Data[(n*3+c)*px.Area()+i] = normal(piece.Pix[3*i+c], c)
			}
		}
	}
	return y
}
