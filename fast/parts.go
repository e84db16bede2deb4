package fast

import (
	"fmt"

	"github.com/llavaref/llavaref/fast/kernel"
)

// Parts of the model by themselves, for measuring them: the code of Extend on inputs that the caller makes up. What they compute is dropped.

// RunTower runs n tiles through the layers of the tower that reach the features: pixels [n, 3, px, px].
func (m *Llava) RunTower(pixels []float32, n int) error {
	v := m.config.Vision
	if want := n * v.NumChannels * v.ImageSize * v.ImageSize; n < 1 || len(pixels) != want {
		return fmt.Errorf("fast: tower: %d values for %d tiles, want %d and at least one tile", len(pixels), n, want)
	}
	return m.part(visionScratch(m.config, n), func(r *run) { r.tower(pixels, n) })
}

// RunEncoderLayer runs one layer of the tower on x [n, S, D].
func (m *Llava) RunEncoderLayer(i int, x []float32, n int) error {
	v := m.config.Vision
	size := n * v.Positions() * v.HiddenSize
	if i < 0 || i >= len(m.vision.layers) || n < 1 || len(x) != size {
		return fmt.Errorf("fast: encoder layer %d: %d values for %d tiles, want one of %d layers and %d values", i, len(x), n, len(m.vision.layers), size)
	}
	return m.part(visionScratch(m.config, n), func(r *run) {
		y, h := r.arena.take(size), r.arena.take(size)
		copy(y, x)
		r.encoderLayer(&m.vision.layers[i], i, y, h, n)
	})
}

// RunDecoderLayer runs one layer of the decoder on the first positions of a sequence, x [T, C].
func (m *Llava) RunDecoderLayer(i int, x []float32) error {
	t := m.config.Text
	rows := len(x) / t.HiddenSize
	if i < 0 || i >= len(m.text.layers) || rows < 1 || len(x) != rows*t.HiddenSize {
		return fmt.Errorf("fast: decoder layer %d: %d values, want one of %d layers and rows of %d", i, len(x), len(m.text.layers), t.HiddenSize)
	}
	past := kernel.NewKV(rows, t.NumKeyValueHeads, t.HeadDim)
	positions := make([]int, rows)
	for p := range positions {
		positions[p] = p
	}
	return m.part(textScratch(m.config, rows), func(r *run) {
		y, h := r.arena.take(len(x)), r.arena.take(len(x))
		cos, sin := r.arena.take(rows*t.HeadDim), r.arena.take(rows*t.HeadDim)
		copy(y, x)
		rotary(cos, sin, positions, m.text.frequencies)
		r.decoderLayer(&m.text.layers[i], i, 0, y, h, cos, sin, past)
	})
}

// part runs something on so many values of scratch.
func (m *Llava) part(scratch int, f func(r *run)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("fast: model: closed")
	}
	if err := m.arena.reserve(scratch); err != nil {
		return err
	}
	f(&run{Llava: m})
	m.labels.clear()
	return nil
}
