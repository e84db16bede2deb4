package bugs

import (
	"math"
	"strconv"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// All lists the bugs in the order of the stages.
func All() []Bug {
	var all []Bug
	add := func(model string, bugs []Bug) {
		for _, b := range bugs {
			b.model = model
			all = append(all, b)
		}
	}
	add(shapes.LlavaNext, canvasBugs())
	add(shapes.LlavaNext, sizeBugs())
	add(shapes.LlavaNext, paddingBugs())
	add(shapes.LlavaNext, tileBugs())
	add(shapes.Llava, cropBugs())
	add("", resizeBugs())
	add(shapes.LlavaNext, floatBugs())
	add("", valueBugs())
	add(shapes.LlavaNext, unpadBugs())
	add(shapes.LlavaNext, countBugs())
	return all
}

func canvasBugs() []Bug {
	return []Bug{
		{ID: "P01", What: "pinpoints read as (width, height)", Convention: "the original LLaVA's canvas", mutate: func(f *flow) {
			f.choose = func(original shapes.Size, pinpoints []shapes.Size) shapes.Size {
				var swapped []shapes.Size
				for _, p := range pinpoints {
					swapped = append(swapped, shapes.Size{H: p.W, W: p.H})
				}
				return preprocess.SelectBestResolution(original, swapped)
			}
		}},
		{ID: "P03", What: "the later of two equal canvases", mutate: func(f *flow) {
			f.choose = choice{later: true}.choose
		}},
		{ID: "P04", What: "effective pixels limited by the canvas and not by the image", mutate: func(f *flow) {
			f.choose = choice{limit: func(_, canvas shapes.Size) int { return canvas.Area() }}.choose
		}},
		{ID: "P05a", What: "effective pixels not limited", mutate: func(f *flow) {
			f.choose = choice{limit: func(_, _ shapes.Size) int { return math.MaxInt }}.choose
		}},
		{ID: "P05b", What: "waste ignored", mutate: func(f *flow) {
			f.choose = choice{ignoreWaste: true}.choose
		}},
		{ID: "P06", What: "canvas chosen in float32", mutate: func(f *flow) {
			f.choose = choice{scaled: func(original, canvas shapes.Size) shapes.Size {
				scale := min(float32(canvas.W)/float32(original.W), float32(canvas.H)/float32(original.H))
				return shapes.Size{H: int(float32(original.H) * scale), W: int(float32(original.W) * scale)}
			}}.choose
		}},
		{ID: "P07", What: "scaled sizes rounded and not truncated when the canvas is chosen", mutate: func(f *flow) {
			f.choose = choice{scaled: func(original, canvas shapes.Size) shapes.Size {
				scale := min(float64(canvas.W)/float64(original.W), float64(canvas.H)/float64(original.H))
				return shapes.Size{H: int(math.RoundToEven(float64(original.H) * scale)), W: int(math.RoundToEven(float64(original.W) * scale))}
			}}.choose
		}},
	}
}

// choice is select_best_resolution with its decisions exchangeable.
type choice struct {
	scaled             func(original, canvas shapes.Size) shapes.Size
	limit              func(original, canvas shapes.Size) int
	later, ignoreWaste bool
}

func (c choice) choose(original shapes.Size, pinpoints []shapes.Size) shapes.Size {
	var best shapes.Size
	bestEffective, bestWaste := 0, math.MaxInt
	for _, canvas := range pinpoints {
		scale := min(float64(canvas.W)/float64(original.W), float64(canvas.H)/float64(original.H))
		scaled := shapes.Size{H: int(float64(original.H) * scale), W: int(float64(original.W) * scale)}
		if c.scaled != nil {
			scaled = c.scaled(original, canvas)
		}
		limit := original.Area()
		if c.limit != nil {
			limit = c.limit(original, canvas)
		}
		effective := min(scaled.Area(), limit)
		waste := canvas.Area() - effective
		less := waste < bestWaste || c.later && waste == bestWaste
		if c.ignoreWaste {
			less = best == shapes.Size{}
		}
		if effective > bestEffective || effective == bestEffective && less {
			best, bestEffective, bestWaste = canvas, effective, waste
		}
	}
	return best
}

func sizeBugs() []Bug {
	fit := func(round func(original, target, originalOther, targetOther int) int) func(f *flow) {
		return func(f *flow) {
			f.fit = func(original, canvas shapes.Size) shapes.Size {
				if float64(canvas.W)/float64(original.W) < float64(canvas.H)/float64(original.H) {
					return shapes.Size{H: max(1, min(round(original.H, canvas.W, original.W, canvas.H), canvas.H)), W: canvas.W}
				}
				return shapes.Size{H: canvas.H, W: max(1, min(round(original.W, canvas.H, original.H, canvas.W), canvas.W))}
			}
		}
	}
	return []Bug{
		{ID: "P08a", What: "new size truncated", mutate: fit(func(side, target, other, _ int) int {
			return int(float64(side) * (float64(target) / float64(other)))
		})},
		{ID: "P08b", What: "new size rounded to the nearest", mutate: fit(func(side, target, other, _ int) int {
			return int(math.RoundToEven(float64(side) * (float64(target) / float64(other))))
		})},
		{ID: "P09a", What: "new size rounded up in exact arithmetic", mutate: fit(func(side, target, other, _ int) int {
			return (side*target + other - 1) / other
		})},
		{ID: "P09b", What: "new size rounded up in float32", mutate: fit(func(side, target, other, _ int) int {
			return int(math.Ceil(float64(float32(side) * (float32(target) / float32(other)))))
		})},
		{ID: "P09c", What: "new size multiplied before it is divided", mutate: fit(func(side, target, other, _ int) int {
			return int(math.Ceil(float64(side*target) / float64(other)))
		})},
	}
}

func paddingBugs() []Bug {
	return []Bug{
		{ID: "P10", What: "padding at the bottom and at the right only", mutate: func(f *flow) {
			f.padding = func(resized, canvas shapes.Size) preprocess.Padding {
				return preprocess.Padding{Bottom: canvas.H - resized.H, Right: canvas.W - resized.W}
			}
		}},
		{ID: "P11a", What: "the odd pixel of padding at the top or at the left", mutate: func(f *flow) {
			f.padding = func(resized, canvas shapes.Size) preprocess.Padding {
				p := preprocess.Center(resized, canvas)
				return preprocess.Padding{Top: p.Bottom, Bottom: p.Top, Left: p.Right, Right: p.Left}
			}
		}},
		{ID: "P11b", What: "the odd pixel of padding lost, the last tile scaled up (transformers up to 4.51)", Convention: "padding of transformers up to 4.51", mutate: func(f *flow) {
			f.padding = func(resized, canvas shapes.Size) preprocess.Padding {
				p := preprocess.Center(resized, canvas)
				return preprocess.Padding{Top: p.Top, Bottom: p.Top, Left: p.Left, Right: p.Left}
			}
			f.cut = f.cutShort
		}},
		{ID: "P12", What: "padding of the mean colour", mutate: func(f *flow) { f.colour = [3]uint8{122, 116, 104} }},
		{ID: "P13", What: "padding with 0 after the normalisation", mutate: func(f *flow) {
			f.values = func(pieces []preprocess.Image, s stages) shapes.Tensor {
				y := f.normalize(pieces, f.normal)
				inside := preprocess.NewImage(s.scaled.Size)
				for i := range inside.Pix {
					inside.Pix[i] = 1
				}
				tiles := preprocess.CutTiles(preprocess.Pad(inside, s.padding, [3]uint8{}), s.px)
				for n, tile := range tiles {
					for i := range s.px * s.px {
						for c := range 3 {
							if tile.Pix[3*i] == 0 {
								y.Data[((1+n)*3+c)*s.px*s.px+i] = 0
							}
						}
					}
				}
				return y
			}
		}},
	}
}

// cutShort cuts a canvas that may lack a row or a column; a short tile goes through the resize to the shortest edge and the
// centre crop that leave the others as they are.
func (f *flow) cutShort(canvas preprocess.Image, px int) []preprocess.Image {
	var tiles []preprocess.Image
	for y := 0; y < canvas.Size.H; y += px {
		for x := 0; x < canvas.Size.W; x += px {
			size := shapes.Size{H: min(px, canvas.Size.H-y), W: min(px, canvas.Size.W-x)}
			tile := preprocess.Crop(canvas, preprocess.Box{Top: y, Left: x, Size: size})
			tiles = append(tiles, f.edgeCrop(tile, px))
		}
	}
	return tiles
}

// edgeCrop scales the short side to px and takes the middle.
func (f *flow) edgeCrop(m preprocess.Image, px int) preprocess.Image {
	to := preprocess.FitEdge(m.Size, px)
	box := preprocess.Box{Top: (to.H - px) / 2, Left: (to.W - px) / 2, Size: shapes.Size{H: px, W: px}}
	return f.resizeWindow(m, to, box)
}

func tileBugs() []Bug {
	return []Bug{
		{ID: "P14", What: "the whole image scaled by its short side and cropped", mutate: func(f *flow) {
			f.whole = func(s stages) preprocess.Image { return f.edgeCrop(s.image, s.px) }
		}},
		{ID: "P15a", What: "the whole image put on a black square", mutate: func(f *flow) {
			f.whole = func(s stages) preprocess.Image { return f.squareFit(s, [3]uint8{}) }
		}},
		{ID: "P15b", What: "the whole image put on a square of the mean colour", mutate: func(f *flow) {
			f.whole = func(s stages) preprocess.Image { return f.squareFit(s, [3]uint8{122, 116, 104}) }
		}},
		{ID: "P16a", What: "the whole image made of the padded canvas", mutate: func(f *flow) {
			f.whole = func(s stages) preprocess.Image { return f.resize(s.padded, shapes.Size{H: s.px, W: s.px}) }
		}},
		{ID: "P16b", What: "the whole image made of the scaled one", mutate: func(f *flow) {
			f.whole = func(s stages) preprocess.Image { return f.resize(s.scaled, shapes.Size{H: s.px, W: s.px}) }
		}},
		{ID: "P17", What: "the whole image behind the tiles", mutate: func(f *flow) {
			f.order = func(whole preprocess.Image, tiles []preprocess.Image) []preprocess.Image { return append(tiles, whole) }
		}},
		{ID: "P18", What: "tiles column by column", mutate: func(f *flow) {
			f.cut = func(canvas preprocess.Image, px int) []preprocess.Image {
				var tiles []preprocess.Image
				for x := 0; x < canvas.Size.W; x += px {
					for y := 0; y < canvas.Size.H; y += px {
						tiles = append(tiles, preprocess.Crop(canvas, preprocess.Box{Top: y, Left: x, Size: shapes.Size{H: px, W: px}}))
					}
				}
				return tiles
			}
		}},
	}
}

// squareFit scales the image to fit into a tile and centres it there.
func (f *flow) squareFit(s stages, colour [3]uint8) preprocess.Image {
	tile := shapes.Size{H: s.px, W: s.px}
	m := f.resize(s.image, preprocess.FitCanvas(s.image.Size, tile))
	return preprocess.Pad(m, preprocess.Center(m.Size, tile), colour)
}

func cropBugs() []Bug {
	rounded := func(round func(float64) float64) func(*flow) {
		return func(f *flow) {
			f.edge = func(original shapes.Size, px int) shapes.Size {
				if original.W <= original.H {
					return shapes.Size{H: int(round(float64(px*original.H) / float64(original.W))), W: px}
				}
				return shapes.Size{H: px, W: int(round(float64(px*original.W) / float64(original.H)))}
			}
		}
	}
	return []Bug{
		{ID: "P41a", What: "long side rounded to the nearest", mutate: rounded(math.RoundToEven)},
		{ID: "P41b", What: "long side rounded up", mutate: rounded(math.Ceil)},
		{ID: "P42", What: "image squeezed into a square, not cropped", mutate: func(f *flow) {
			f.edge = func(_ shapes.Size, px int) shapes.Size { return shapes.Size{H: px, W: px} }
		}},
		{ID: "P43a", What: "crop rounded half to even (the torchvision processor of transformers 4.52)", mutate: func(f *flow) {
			f.corner = func(resized, crop shapes.Size) (top, left int) {
				return int(math.RoundToEven(float64(resized.H-crop.H) / 2)), int(math.RoundToEven(float64(resized.W-crop.W) / 2))
			}
		}},
		{ID: "P43b", What: "the odd pixel cut off at the top or at the left", mutate: func(f *flow) {
			f.corner = func(resized, crop shapes.Size) (top, left int) {
				return (resized.H - crop.H + 1) / 2, (resized.W - crop.W + 1) / 2
			}
		}},
		{ID: "P44", What: "crop at the top left", mutate: func(f *flow) {
			f.corner = func(_, _ shapes.Size) (top, left int) { return 0, 0 }
		}},
		{ID: "P45a", What: "image put on a square of the mean colour (the original LLaVA-1.5; LlavaImageProcessor with do_pad)", Convention: "the original LLaVA-1.5's square", mutate: func(f *flow) {
			f.squared([3]uint8{122, 116, 104})
		}},
		{ID: "P45b", What: "image put on a black square", mutate: func(f *flow) { f.squared([3]uint8{}) }},
	}
}

// squared puts the image on a square before anything else.
func (f *flow) squared(colour [3]uint8) {
	resize := f.resize
	f.edge = func(_ shapes.Size, px int) shapes.Size { return shapes.Size{H: px, W: px} }
	f.resize = func(m preprocess.Image, to shapes.Size) preprocess.Image {
		side := max(m.Size.H, m.Size.W)
		return resize(preprocess.Pad(m, preprocess.Center(m.Size, shapes.Size{H: side, W: side}), colour), to)
	}
}

func resizeBugs() []Bug {
	with := func(change func(*sampler)) func(*flow) {
		return func(f *flow) {
			s := bicubic()
			change(&s)
			f.resize = s.image
		}
	}
	return []Bug{
		{ID: "P19a", What: "bilinear", mutate: with(func(s *sampler) { s.filter, s.support = triangle, 1 })},
		{ID: "P19b", What: "Lanczos", mutate: with(func(s *sampler) { s.filter, s.support = lanczos, 3 })},
		{ID: "P19c", What: "nearest pixel", mutate: func(f *flow) { f.resize = nearest }},
		{ID: "P20", What: "bicubic with a = -0.75", mutate: with(func(s *sampler) { s.filter = cubic(-0.75) })},
		{ID: "P21", What: "no antialiasing where the image shrinks", mutate: with(func(s *sampler) { s.noAntialias = true })},
		{ID: "P22", What: "no rounding to 8 bits between the passes", mutate: with(func(s *sampler) {
			s.between = func(v float64) float64 { return v / one }
		})},
		{ID: "P23", What: "rows before columns, always", mutate: with(func(s *sampler) { s.rowsFirst = true })},
		{ID: "P24a", What: "no half pixel at the centre", mutate: with(func(s *sampler) { s.center = topLeft })},
		{ID: "P24b", What: "corners aligned", mutate: with(func(s *sampler) { s.center = alignCorners })},
		{ID: "P25", What: "border replicated where the weights should be scaled up", mutate: with(func(s *sampler) { s.replicate = true })},
		{ID: "P26a", What: "truncation where rounding should be", mutate: with(func(s *sampler) {
			s.between = func(v float64) float64 { return clip8(math.Floor(v / one)) }
			s.end = s.between
		})},
		{ID: "P26b", What: "overshoot that wraps around", mutate: with(func(s *sampler) {
			s.between = func(v float64) float64 { return float64(uint8(int64(round8(v)))) }
			s.end = s.between
		})},
	}
}

func floatBugs() []Bug {
	return []Bug{
		{ID: "P27", What: "resized in float after the normalisation", mutate: func(f *flow) { f.values = f.floatValues }},
	}
}

// floatValues resamples normalised values, without rounding and without limits; black is put around them.
func (f *flow) floatValues(_ []preprocess.Image, s stages) shapes.Tensor {
	exact := bicubic()
	exact.between = func(v float64) float64 { return v / one }
	exact.end = exact.between
	data := make([]float64, len(s.image.Pix)) // [H, W, 3]
	for i, u := range s.image.Pix {
		data[i] = float64(f.normal(u, i%3))
	}
	tile := shapes.Size{H: s.px, W: s.px}
	whole := exact.floats(data, s.image.Size, tile)           // [px, px, 3]
	scaled := exact.floats(data, s.image.Size, s.scaled.Size) // [h, w, 3]
	grid := shapes.Size{H: s.padded.Size.H / s.px, W: s.padded.Size.W / s.px}
	y := shapes.NewTensor(1+grid.Area(), 3, s.px, s.px) // [N, 3, px, px]
	for c := range 3 {
		for i := range tile.Area() {
			y.Data[c*tile.Area()+i] = float32(whole[3*i+c])
			for n := range grid.Area() {
				row := n/grid.W*s.px + i/s.px - s.padding.Top
				column := n%grid.W*s.px + i%s.px - s.padding.Left
				v := f.normal(0, c)
				if 0 <= row && row < s.scaled.Size.H && 0 <= column && column < s.scaled.Size.W {
					v = float32(scaled[(row*s.scaled.Size.W+column)*3+c])
				}
				y.Data[((1+n)*3+c)*tile.Area()+i] = v
			}
		}
	}
	return y
}

func valueBugs() []Bug {
	with := func(normal func(f *flow, u uint8, c int) float32) func(*flow) {
		return func(f *flow) {
			f.values = func(pieces []preprocess.Image, _ stages) shapes.Tensor {
				return f.normalize(pieces, func(u uint8, c int) float32 { return normal(f, u, c) })
			}
		}
	}
	fixed := func(mean, std [3]float32) func(*flow) {
		return with(func(f *flow, u uint8, c int) float32 {
			return (float32(float64(u)*f.p.RescaleFactor) - mean[c]) / std[c]
		})
	}
	return []Bug{
		{ID: "P28", What: "blue, green, red", mutate: func(f *flow) {
			f.values = func(pieces []preprocess.Image, _ stages) shapes.Tensor {
				var swapped []preprocess.Image
				for _, p := range pieces {
					m := preprocess.NewImage(p.Size)
					for i, u := range p.Pix {
						m.Pix[i-i%3+2-i%3] = u
					}
					swapped = append(swapped, m)
				}
				return f.normalize(swapped, f.normal)
			}
		}},
		{ID: "P29a", What: "mean and deviation of ImageNet", mutate: fixed([3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225})},
		{ID: "P29b", What: "mean and deviation of SigLIP", mutate: fixed([3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5})},
		{ID: "P46", What: "mean and deviation of the first channel for all three", mutate: with(func(f *flow, u uint8, _ int) float32 {
			return (float32(float64(u)*f.p.RescaleFactor) - float32(f.p.Mean[0])) / float32(f.p.Std[0])
		})},
		{ID: "P30", What: "variance taken for deviation", mutate: with(func(f *flow, u uint8, c int) float32 {
			std := float32(f.p.Std[c])
			return (float32(float64(u)*f.p.RescaleFactor) - float32(f.p.Mean[c])) / (std * std)
		})},
		{ID: "P31a", What: "rescaling missing", mutate: with(func(f *flow, u uint8, c int) float32 {
			return (float32(u) - float32(f.p.Mean[c])) / float32(f.p.Std[c])
		})},
		{ID: "P31b", What: "rescaling twice", mutate: with(func(f *flow, u uint8, c int) float32 {
			return (float32(float64(u)*f.p.RescaleFactor*f.p.RescaleFactor) - float32(f.p.Mean[c])) / float32(f.p.Std[c])
		})},
		{ID: "P31c", What: "no normalisation, values 0..1", mutate: with(func(f *flow, u uint8, _ int) float32 {
			return float32(float64(u) * f.p.RescaleFactor)
		})},
		{ID: "P32", What: "height x width x channels fed as channels first", mutate: func(f *flow) {
			f.values = func(pieces []preprocess.Image, _ stages) shapes.Tensor {
				y := f.normalize(pieces, f.normal)
				for n, p := range pieces {
					for i, u := range p.Pix {
						y.Data[n*len(p.Pix)+i] = f.normal(u, i%3)
					}
				}
				return y
			}
		}},
		{ID: "P33", What: "division by 256", mutate: with(func(f *flow, u uint8, c int) float32 {
			return (float32(u)/256 - float32(f.p.Mean[c])) / float32(f.p.Std[c])
		})},
		{ID: "P34a", What: "rescaling and normalisation in one step, as torchvision does", mutate: with(func(f *flow, u uint8, c int) float32 {
			whole := float32(1 / f.p.RescaleFactor)
			return (float32(u) - float32(f.p.Mean[c])*whole) / (float32(f.p.Std[c]) * whole)
		})},
		{ID: "P34b", What: "normalisation in float64, rounded once", mutate: with(func(f *flow, u uint8, c int) float32 {
			return float32((float64(u)*f.p.RescaleFactor - f.p.Mean[c]) / f.p.Std[c])
		})},
		{ID: "P34c", What: "multiplication by the reciprocal of the deviation", mutate: with(func(f *flow, u uint8, c int) float32 {
			return (float32(float64(u)*f.p.RescaleFactor) - float32(f.p.Mean[c])) * (1 / float32(f.p.Std[c]))
		})},
		{ID: "P36", What: "tiles of 224 pixels, the class default", mutate: func(f *flow) {
			f.p.Crop, f.p.Edge = f.p.Crop*2/3, f.p.Edge*2/3
			f.cut = f.cutShort
		}},
	}
}

// unpadAxis cuts one axis as unpad_image does, with the kept length computed by keep.
func unpadAxis(original, cells shapes.Size, wide bool, keep func(side, cells, other int) int) shapes.Size {
	kept := cells
	if wide {
		kept.H -= (cells.H - keep(original.H, cells.W, original.W)) / 2 * 2
	} else {
		kept.W -= (cells.W - keep(original.W, cells.H, original.H)) / 2 * 2
	}
	return kept
}

// isWide is the comparison that decides which axis is cut.
func isWide(original, cells shapes.Size) bool {
	return float64(original.W)/float64(original.H) > float64(cells.W)/float64(cells.H)
}

// keepRounded is int(round(side * (cells / other), 7)).
func keepRounded(side, cells, other int) int {
	return round7(float64(side) * (float64(cells) / float64(other)))
}

func round7(v float64) int {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 7, 64), 64) // a number that was just formatted can be parsed
	return int(r)
}

func unpadBugs() []Bug {
	with := func(unpad func(original, cells shapes.Size) shapes.Size) func(*flow) {
		return func(f *flow) { f.unpad = unpad }
	}
	return []Bug{
		{ID: "P02", What: "width and height of the image exchanged in the count", mutate: func(f *flow) {
			unpad := f.unpad
			f.unpad = func(original, cells shapes.Size) shapes.Size {
				swapped := shapes.Size{H: original.W, W: original.H}
				canvas := f.choose(swapped, f.p.Pinpoints)
				side := f.p.Crop / f.p.PatchSize
				return unpad(swapped, shapes.Size{H: canvas.H / f.p.Crop * side, W: canvas.W / f.p.Crop * side})
			}
		}},
		{ID: "K09", What: "rows and columns of the grid exchanged (transformers 4.41 to 4.43)", mutate: func(f *flow) {
			unpad := f.unpad
			f.unpad = func(original, cells shapes.Size) shapes.Size {
				return unpad(original, shapes.Size{H: cells.W, W: cells.H})
			}
		}},
		{ID: "K10", What: "padding not taken off", mutate: with(func(_, cells shapes.Size) shapes.Size { return cells })},
		{ID: "K11", What: "kept cells not rounded before they are truncated (transformers up to 4.46, with sizes as a list)", Convention: "transformers before 4.47", mutate: with(func(original, cells shapes.Size) shapes.Size {
			return unpadAxis(original, cells, isWide(original, cells), func(side, cells, other int) int {
				return int(float64(side) * (float64(cells) / float64(other)))
			})
		})},
		{ID: "K12", What: "kept cells in float32 (transformers up to 4.46, with sizes as a tensor)", mutate: with(func(original, cells shapes.Size) shapes.Size {
			wide := float32(original.W)/float32(original.H) > float32(cells.W)/float32(cells.H)
			return unpadAxis(original, cells, wide, func(side, cells, other int) int {
				return int(float32(side) * (float32(cells) / float32(other)))
			})
		})},
		{ID: "K13", What: "exactly the image's cells kept, an odd one of padding included in the cut", mutate: with(func(original, cells shapes.Size) shapes.Size {
			kept := cells
			if isWide(original, cells) {
				kept.H = keepRounded(original.H, cells.W, original.W)
			} else {
				kept.W = keepRounded(original.W, cells.H, original.H)
			}
			return kept
		})},
		{ID: "K14", What: "kept cells rounded up", mutate: with(func(original, cells shapes.Size) shapes.Size {
			return unpadAxis(original, cells, isWide(original, cells), func(side, cells, other int) int {
				return int(math.Ceil(float64(side) * (float64(cells) / float64(other))))
			})
		})},
		{ID: "K15", What: "comparison of the proportions reversed", mutate: with(func(original, cells shapes.Size) shapes.Size {
			return atLeast0(unpadAxis(original, cells, !isWide(original, cells), keepRounded), cells)
		})},
		{ID: "K16", What: "scale of the wrong axis", mutate: with(func(original, cells shapes.Size) shapes.Size {
			wide := isWide(original, cells)
			kept := cells
			if wide {
				kept.H -= (cells.H - keepRounded(original.H, cells.H, original.H)) / 2 * 2
			} else {
				kept.W -= (cells.W - keepRounded(original.W, cells.W, original.W)) / 2 * 2
			}
			return kept
		})},
		{ID: "K20", What: "proportions compared as height / width", mutate: with(func(original, cells shapes.Size) shapes.Size {
			wide := float64(original.H)/float64(original.W) > float64(cells.W)/float64(cells.H)
			return atLeast0(unpadAxis(original, cells, wide, keepRounded), cells)
		})},
		{ID: "K22", What: "cells unpadded by the padding in pixels, rounded down", mutate: func(f *flow) {
			f.unpad = func(original, cells shapes.Size) shapes.Size {
				canvas := f.choose(original, f.p.Pinpoints)
				p := f.padding(f.fit(original, canvas), canvas)
				return shapes.Size{H: cells.H - 2*(p.Top/f.p.PatchSize), W: cells.W - 2*(p.Left/f.p.PatchSize)}
			}
		}},
		{ID: "K26", What: "the end of the kept rows counted back from the width of the cells", mutate: with(func(original, cells shapes.Size) shapes.Size {
			kept := unpadAxis(original, cells, isWide(original, cells), keepRounded)
			if top := (cells.H - kept.H) / 2; top > 0 {
				kept.H = min(cells.W-top, cells.H) - top
			}
			return atLeast0(kept, cells)
		})},
	}
}

// atLeast0 is a number of cells that is one: a slice in Python is empty at the least and not longer than the whole.
func atLeast0(kept, cells shapes.Size) shapes.Size {
	return shapes.Size{H: max(0, min(kept.H, cells.H)), W: max(0, min(kept.W, cells.W))}
}

func countBugs() []Bug {
	with := func(count func(base int, kept shapes.Size) int) func(*flow) {
		return func(f *flow) { f.count = count }
	}
	return []Bug{
		{ID: "K01", What: "no newline", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() })},
		{ID: "K27", What: "neither newlines nor unpadding", mutate: func(f *flow) {
			f.unpad = func(_, cells shapes.Size) shapes.Size { return cells }
			f.count = func(base int, kept shapes.Size) int { return base + kept.Area() }
		}},
		{ID: "K02", What: "one newline for the whole image", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() + 1 })},
		{ID: "K04", What: "newlines in the whole image too", mutate: with(func(base int, kept shapes.Size) int {
			return base + int(math.Sqrt(float64(base))) + kept.Area() + kept.H
		})},
		{ID: "K05", What: "no newline after the last row", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() + max(kept.H-1, 0) })},
		{ID: "K07", What: "the whole image left out", mutate: with(func(_ int, kept shapes.Size) int { return kept.Area() + kept.H })},
		{ID: "K18", What: "a newline a column", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() + kept.W })},
		{ID: "K19a", What: "one too few: num_additional_image_tokens 0", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() + kept.H - 1 })},
		{ID: "K19b", What: "one too many: the class token counted", mutate: with(func(base int, kept shapes.Size) int { return base + kept.Area() + kept.H + 1 })},
	}
}
