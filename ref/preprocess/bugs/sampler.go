package bugs

import (
	"math"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

// sampler is a resampler in two passes with everything that can be wrong about one. Values are float64 that hold integers
// as long as nothing is wrong about that.
type sampler struct {
	filter       func(x float64) float64
	support      float64
	center       func(i, n, m int) float64 // of output i, pixel j reaching from j to j+1
	noAntialias  bool
	replicate    bool                    // the edge goes on beyond the border
	rowsFirst    bool                    //
	between, end func(v float64) float64 // rounding after the first and after the second pass
}

// bicubic is Pillow's.
func bicubic() sampler {
	return sampler{filter: cubic(-0.5), support: 2, center: halfPixel, between: roundClip8, end: roundClip8}
}

// cubic is Keys' filter.
func cubic(a float64) func(x float64) float64 {
	return func(x float64) float64 {
		x = math.Abs(x)
		switch {
		case x < 1:
			return float64((float64((a+2)*x)-(a+3))*x*x) + 1
		case x < 2:
			return (float64((float64((x-5)*x)+8)*x) - 4) * a
		}
		return 0
	}
}

func triangle(x float64) float64 { return max(0, 1-math.Abs(x)) }

func lanczos(x float64) float64 {
	sinc := func(x float64) float64 {
		if x == 0 {
			return 1
		}
		return math.Sin(x*math.Pi) / (x * math.Pi)
	}
	if math.Abs(x) >= 3 {
		return 0
	}
	return sinc(x) * sinc(x/3)
}

func halfPixel(i, n, m int) float64 { return (float64(i) + 0.5) * (float64(n) / float64(m)) }

// topLeft lays the corners of the images on each other where it should be their pixels' corners.
func topLeft(i, n, m int) float64 { return float64(i)*(float64(n)/float64(m)) + 0.5 }

// alignCorners lays the first and the last pixels on each other.
func alignCorners(i, n, m int) float64 {
	return float64(i)*(float64(n-1)/float64(max(m-1, 1))) + 0.5
}

const one = 1 << 22 // a weight of one

func round8(v float64) float64 { return math.Floor((v + one/2) / one) }
func clip8(v float64) float64  { return max(0, min(v, 255)) }

// roundClip8 is what Pillow does after each pass.
func roundClip8(v float64) float64 { return clip8(round8(v)) }

// image resamples an image.
func (s sampler) image(m preprocess.Image, to shapes.Size) preprocess.Image {
	data := make([]float64, len(m.Pix)) // [H, W, 3]
	for i, v := range m.Pix {
		data[i] = float64(v)
	}
	data = s.floats(data, m.Size, to) // [h, w, 3]
	out := preprocess.NewImage(to)
	for i, v := range data {
		out.Pix[i] = uint8(int64(v))
	}
	return out
}

// floats resamples [H, W, 3] to [h, w, 3].
func (s sampler) floats(data []float64, from, to shapes.Size) []float64 {
	if s.rowsFirst {
		data = s.pass(data, from.H, to.H, 1, from.W*3, s.between)
		return s.pass(data, from.W, to.W, to.H, 3, s.end)
	}
	data = s.pass(data, from.W, to.W, from.H, 3, s.between)
	return s.pass(data, from.H, to.H, 1, to.W*3, s.end)
}

// pass resamples the middle axis of [outer, n, inner] to m. An axis that keeps its length is left alone.
func (s sampler) pass(data []float64, n, m, outer, inner int, round func(float64) float64) []float64 {
	if n == m {
		return data
	}
	out := make([]float64, outer*m*inner)
	for i := range m {
		first, w := s.weights(i, n, m)
		for o := range outer {
			for k := range inner {
				sum := 0.0
				for j := range w {
					at := max(0, min(first+j, n-1))
					sum += w[j] * data[(o*n+at)*inner+k]
				}
				out[(o*m+i)*inner+k] = round(sum)
			}
		}
	}
	return out
}

// weights are those of output i, times 2^22 and rounded.
func (s sampler) weights(i, n, m int) (first int, w []float64) {
	stretch := max(float64(n)/float64(m), 1)
	if s.noAntialias {
		stretch = 1
	}
	center, support := s.center(i, n, m), s.support*stretch
	first, end := int(math.Floor(center-support+0.5)), int(math.Floor(center+support+0.5))
	if !s.replicate {
		first, end = max(first, 0), min(end, n)
	}
	sum := 0.0
	for j := first; j < end; j++ {
		w = append(w, s.filter((float64(j)-center+0.5)*(1/stretch)))
		sum += w[len(w)-1]
	}
	for j := range w {
		w[j] = math.Trunc(w[j]/sum*one + math.Copysign(0.5, w[j]))
	}
	return first, w
}

// nearest takes the pixel that lies at the centre of the output.
func nearest(m preprocess.Image, to shapes.Size) preprocess.Image {
	out := preprocess.NewImage(to)
	for y := range to.H {
		from := m.Row(int(halfPixel(y, m.Size.H, to.H)))
		for x := range to.W {
			copy(out.Row(y)[3*x:3*x+3], from[3*int(halfPixel(x, m.Size.W, to.W)):])
		}
	}
	return out
}
