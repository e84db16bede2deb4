package fast

import "github.com/llavaref/llavaref/shapes"

// projector is LlavaNextMultiModalProjector: linear_2(GELU(linear_1(x))).
type projector struct{ linear1, linear2 linear }

// imageFeatures runs the tower and the projector, some tiles at a time: pixel_values [N, 3, px, px] -> r.features [N*(S-1), C].
func (r *run) imageFeatures() {
	c, v := r.config, r.config.Vision
	cells, px := c.FeaturesPerTile(), v.NumChannels*v.ImageSize*v.ImageSize
	r.features = r.arena.take(r.image.tiles * cells * c.Text.HiddenSize)
	base := r.arena.used
	for from := 0; from < r.image.tiles; from += r.group {
		n := min(r.group, r.image.tiles-from)
		r.arena.used = base
		hidden := r.tower(r.in.PixelValues.Data[from*px:(from+n)*px], n)
		r.project(r.features[from*cells*c.Text.HiddenSize:][:n*cells*c.Text.HiddenSize], hidden, n)
	}
	r.arena.used = base
	if r.probe != nil && c.ModelType == shapes.LlavaNext {
		width := c.Text.HiddenSize
		packed := make([]float32, len(r.image.rows)*width)
		for i := range r.image.rows {
			copy(packed[i*width:], r.imageRow(i))
		}
		r.see(shapes.NodePack, packed, len(r.image.rows), width)
	}
}

// project: hidden [n, S, D] -> features [n, S-1, C].
func (r *run) project(features, hidden []float32, n int) {
	c := r.config
	positions, cells, width := c.Vision.Positions(), c.FeaturesPerTile(), c.Vision.HiddenSize
	selected := r.arena.take(n * cells * width) // [n, S-1, D]: without the class token, unless the strategy is "full"
	for i := range n {
		copy(selected[i*cells*width:][:cells*width], hidden[((i+1)*positions-cells)*width:])
	}
	r.see(shapes.NodeSelect, selected, n, cells, width)
	h := r.arena.take(n * cells * c.Text.HiddenSize) // [n, S-1, C]
	r.label(projectorLayer, 0, "linear_1")
	r.gemm(h, selected, n*cells, r.projector.linear1)
	r.see(shapes.Projector+".linear_1", h, n, cells, c.Text.HiddenSize)
	r.label(projectorLayer, 0, "act")
	r.pool.GELU(h, h)
	r.see(shapes.Projector+".act", h, n, cells, c.Text.HiddenSize)
	r.label(projectorLayer, 0, "linear_2")
	r.gemm(features, h, n*cells, r.projector.linear2)
	r.see(shapes.Projector+".linear_2", features, n, cells, c.Text.HiddenSize)
}

// imageRow is row i of the image features, [C].
func (r *run) imageRow(i int) []float32 {
	at := r.image.rows[i]
	if at == newlineRow {
		return r.newline
	}
	width := r.config.Text.HiddenSize
	return r.features[int(at)*width:][:width]
}
