package preprocess

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/llavaref/llavaref/shapes"
)

// Resize scales an image to a size with the bicubic filter, whatever that does to its proportions.
//
// image [H, W, 3] -> [h, w, 3]. Image.resize of Pillow with Resampling.BICUBIC, or torchvision's resize with
// InterpolationMode.BICUBIC and antialias on a uint8 tensor; the same bytes as those on x86-64. Both go over the image
// twice, once along each axis, and round to 8 bits in between, so the order matters: rowsFirst says which it is.
func Resize(m Image, to shapes.Size, v Variant) (Image, error) {
	return ResizeWindow(m, to, Box{Size: to}, v)
}

// ResizeWindow is the part of Resize(m, to, v) that lies in window; nothing outside of it is computed. A strip of
// 1x6000 pixels scaled to a short side of 336 has 2 016 000 columns, of which a crop keeps 336.
func ResizeWindow(m Image, to shapes.Size, window Box, v Variant) (Image, error) {
	if err := m.check(); err != nil {
		return Image{}, err
	}
	if window.Top < 0 || window.Left < 0 || window.Size.H < 1 || window.Size.W < 1 || window.Top > to.H-window.Size.H || window.Left > to.W-window.Size.W {
		return Image{}, fmt.Errorf("preprocess: resize to %v: window of %v at %d, %d is not within", to, window.Size, window.Top, window.Left)
	}
	if m.Size == to {
		return Crop(m, window), nil
	}
	columns, err := newAxis(m.Size.W, to.W, window.Left, window.Size.W, v)
	if err != nil {
		return Image{}, err
	}
	rows, err := newAxis(m.Size.H, to.H, window.Top, window.Size.H, v)
	if err != nil {
		return Image{}, err
	}
	if rowsFirst(m.Size, to, v) {
		m = resample(m, wholeAxis(m.Size.W), rows)            // [h, W, 3]
		return resample(m, columns, wholeAxis(m.Size.H)), nil // [h, w, 3]
	}
	return resample(m, columns, rows), nil // [h, w, 3]
}

// rowsFirst says whether the rows are combined before the columns are. It makes a difference only if both sizes change.
//
// Pillow up to 12.1.1 and torchvision never do it. Image.resize of Pillow 12.2 does it for images more than 100 times as
// tall as wide that lose height; Pillow 13.0 wherever the image loses more than twice as much height as width. A
// difference of widths is negative for an image that grows wider.
func rowsFirst(from, to shapes.Size, v Variant) bool {
	switch v {
	case Pillow122:
		return to.H < from.H && from.H > 100*from.W
	case Pillow13:
		return to.H < from.H && from.H-to.H > 2*(from.W-to.W)
	default:
		return false
	}
}

// axis is how one axis of an image is resampled: output i is the sum over j of weights[i][j] * input[first[i]+j], in
// fixed point with shift bits behind the point. Both first[i] and the end of the weights never decrease with i.
type axis struct {
	shift   int
	first   []int
	weights [][]int32
}

// newAxis makes count outputs, the first of them number from, of the resampling of n inputs to m outputs.
//
// precompute_coeffs and normalize_coeffs_8bpc in Pillow's Resample.c, compute_index_ranges_int16_weights in torch. Everything
// is float64 and rounded after each operation: a processor that fuses a multiplication with an addition would differ in
// the last bit. Along an axis that keeps its length both libraries copy.
func newAxis(n, m, from, count int, v Variant) (axis, error) {
	if n == m {
		return part(wholeAxis(n), from, count), nil
	}
	taps := 2*int(math.Ceil(2*max(float64(n)/float64(m), 1))) + 1
	if m > math.MaxInt32/(taps*8) {
		return axis{}, fmt.Errorf("preprocess: resize of an axis from %d to %d pixels needs %d weights an output, more than Pillow can allocate", n, m, taps)
	}
	a := axis{shift: 32 - 8 - 2}
	if v == Torchvision {
		a.shift = torchShift(n, m)
	}
	for i := from; i < from+count; i++ {
		first, w := weights(n, m, i, v)
		fixed := make([]int32, len(w))
		for j := range w {
			fixed[j] = fixedPoint(w[j], a.shift)
		}
		a.first = append(a.first, first)
		a.weights = append(a.weights, fixed)
	}
	return a, nil
}

// weights are the filter's weights for output i, and the input that the first of them belongs to. Where the filter hangs
// over the edge it is cut off, and what is left is divided by its sum.
func weights(n, m, i int, v Variant) (first int, w []float64) {
	length := float64(n)
	if v != Torchvision {
		length = float64(float32(n)) // Pillow hands the box of the image around in float32
	}
	scale := length / float64(m)
	stretch := max(scale, 1) // the filter grows when the image shrinks: antialiasing
	support := 2 * stretch
	inverse := 1 / stretch
	center := float64((float64(i) + 0.5) * scale)
	first = max(int(center-support+0.5), 0)
	end := min(int(center+support+0.5), n)
	w = make([]float64, 0, end-first)
	sum := 0.0
	for j := first; j < end; j++ {
		f := bicubic(float64((float64(j) - center + 0.5) * inverse))
		w = append(w, f)
		sum += f
	}
	for j := range w {
		w[j] /= sum
	}
	return first, w
}

// bicubic is Keys' cubic convolution with a = -1/2. float64(...) forbids fusing a product with the sum that it goes into.
func bicubic(x float64) float64 {
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64((float64(1.5*x)-2.5)*x*x) + 1
	case x < 2:
		return (float64((float64((x-5)*x)+8)*x) - 4) * -0.5
	default:
		return 0
	}
}

// fixedPoint rounds a weight to shift binary places, halves away from zero.
func fixedPoint(w float64, shift int) int32 {
	scaled := float64(w * float64(int64(1)<<shift))
	if w < 0 {
		return int32(scaled - 0.5)
	}
	return int32(scaled + 0.5)
}

// resample applies one axis to the columns and then one to the rows, rounding to 8 bits after each.
//
// image [H, W, 3] -> [len(rows), len(columns), 3]. ImagingResampleHorizontal_8bpc and ..Vertical_8bpc in Pillow. The
// intermediate image is never whole in memory: a row of it is added to the output rows that it counts in, and dropped.
// Sums of integers do not depend on the order.
func resample(m Image, columns, rows axis) Image {
	out := NewImage(shapes.Size{H: len(rows.first), W: len(columns.first)}) // [h, w, 3]
	bands(out.Size.H, func(from, to int) {
		narrow := make([]uint8, out.Size.W*3)         // [w, 3], a row of the intermediate image
		sums := make([]int32, (to-from)*out.Size.W*3) // [to-from, w, 3]
		open := from                                  // the first output row that is not complete yet
		for y := rows.first[from]; y < rows.end(to-1); y++ {
			resampleRow(narrow, m.Row(y), columns)
			for i := open; i < to && rows.first[i] <= y; i++ {
				sum := sums[(i-from)*len(narrow):][:len(narrow)]
				if j := y - rows.first[i]; j < len(rows.weights[i]) {
					addRow(sum, narrow, rows.weights[i][j])
				}
				if i == open && y+1 >= rows.end(i) {
					clipRow(out.Row(i), sum, rows.shift)
					open++
				}
			}
		}
	})
	return out
}

func (a axis) end(i int) int { return a.first[i] + len(a.weights[i]) }

// resampleRow is one row of the horizontal pass: in [W, 3] -> out [len(columns), 3].
func resampleRow(out, in []uint8, columns axis) {
	half := int32(1) << (columns.shift - 1)
	for x, w := range columns.weights {
		px := in[columns.first[x]*3:][:len(w)*3]
		r, g, b := half, half, half
		for j, k := range w {
			r += k * int32(px[3*j])
			g += k * int32(px[3*j+1])
			b += k * int32(px[3*j+2])
		}
		out[3*x] = clip8(r >> columns.shift)
		out[3*x+1] = clip8(g >> columns.shift)
		out[3*x+2] = clip8(b >> columns.shift)
	}
}

// addRow is sum += k * row, a row's part in one output row of the vertical pass.
func addRow(sum []int32, row []uint8, k int32) {
	for x, v := range row {
		sum[x] += k * int32(v)
	}
}

// clipRow ends the vertical pass of one row: rounds to 8 bits.
func clipRow(out []uint8, sum []int32, shift int) {
	half := int32(1) << (shift - 1)
	for x, v := range sum {
		out[x] = clip8((v + half) >> shift)
	}
}

// clip8 limits a value to 0..255: the filter overshoots at edges.
func clip8(v int32) uint8 {
	return uint8(max(0, min(v, 255)))
}

// wholeAxis copies n inputs.
func wholeAxis(n int) axis {
	a := axis{shift: 1, first: make([]int, n), weights: make([][]int32, n)}
	for i := range n {
		a.first[i], a.weights[i] = i, []int32{2}
	}
	return a
}

// torchShift is how many binary places torch gives the weights of an axis: as many as an int16 has room for, but not more
// than Pillow. The largest weight decides, over all outputs.
func torchShift(n, m int) int {
	largest := 0.0
	for i := range m {
		_, w := weights(n, m, i, Torchvision)
		largest = max(largest, slices.Max(w))
	}
	shift := 0
	for shift < 32-8-2 && int(0.5+largest*float64(int(1)<<(shift+1))) < 1<<15 {
		shift++
	}
	return shift
}

// part is count outputs of an axis, the first of them number from.
func part(a axis, from, count int) axis {
	return axis{a.shift, a.first[from : from+count], a.weights[from : from+count]}
}

// bands splits n rows over the processors.
func bands(n int, do func(from, to int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { do(i*n/workers, (i+1)*n/workers) })
	}
	wg.Wait()
}
