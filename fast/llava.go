package fast

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// Options are how a model runs.
type Options struct {
	Class         kernel.Class // of the products with weights
	Threads       int          // 0 is runtime.GOMAXPROCS
	ContextLength int          // positions that a sequence may have; 0 is max_position_embeddings, but at most 4096
	Labels        bool         // pprof labels "layer" and "op" on every thread, for a profile by layer and operation; see Session.Extend
	Progress      func(done, total int64)
}

const defaultContext = 4096

func (o Options) complete(c shapes.Config) Options {
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.ContextLength == 0 {
		o.ContextLength = min(c.Text.MaxPositionEmbeddings, defaultContext)
	}
	return o
}

// maxHead is the widest attention head that the kernels take.
const maxHead = 1024

// check refuses what no model can run as.
func check(c shapes.Config, o Options) error {
	for name, dim := range map[string]int{"vision": c.Vision.HeadDim(), "text": c.Text.HeadDim} {
		if dim%2 != 0 || dim > maxHead {
			return fmt.Errorf("fast: %s: attention heads of width %d, want an even one of at most %d", name, dim, maxHead)
		}
	}
	// In float64: the products of a hostile config do not fit an integer.
	t := c.Text
	features := float64(mostTiles(c)) * float64(c.FeaturesPerTile()) * float64(t.HiddenSize)
	past := float64(t.NumHiddenLayers) * float64(o.ContextLength) * float64(t.NumKeyValueHeads) * float64(t.HeadDim)
	if most := max(features, past); most > maxBytes/16 {
		return fmt.Errorf("fast: config: %.3g image features of a prompt and %.3g keys, want at most %d values each", features, past, maxBytes/16)
	}
	if o.Threads < 1 || o.Threads > 1<<12 {
		return fmt.Errorf("fast: threads: %d, want 1 to %d", o.Threads, 1<<12)
	}
	if o.ContextLength < 1 || o.ContextLength > 1<<24 {
		return fmt.Errorf("fast: context length: %d positions, want 1 to %d", o.ContextLength, 1<<24)
	}
	return nil
}

// Llava is LlavaNextForConditionalGeneration (LLaVA-1.6), or LlavaForConditionalGeneration (LLaVA-1.5) where the configuration says so.
// One call of a Llava or of its sessions runs at a time; others wait.
type Llava struct {
	mu      sync.Mutex
	config  shapes.Config
	options Options
	memory  Memory
	pool    *kernel.Pool
	arena   arena
	labels  *labels
	closed  bool

	weights      []byte // all parameters, as layout says
	free         func() error
	vision       visionTower
	projector    projector
	newline      []float32 // [C]
	text         languageModel
	spare        []cache // of sessions that were closed
	tilesAtATime int
	chunk        int
}

// How much runs at a time. No result depends on it.
const (
	tileGroup = 8   // tiles through the tower: the rows of five fill every core, and more only take memory
	chunkRows = 512 // positions through the decoder
)

// Memory is what the model takes.
func (m *Llava) Memory() Memory { return m.memory }

// Class is the arithmetic of the products with weights.
func (m *Llava) Class() kernel.Class { return m.options.Class }

// Config is the model's configuration.
func (m *Llava) Config() shapes.Config { return m.config }

// Close stops the model's threads and gives its memory back. Neither the model nor its sessions can be used any more: they return an error. Keys and
// values go back when Go's collector sees that nobody refers to them, those of a session that is not closed not before the session itself is dropped.
func (m *Llava) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.pool.Close()
	err := m.arena.release()
	m.weights, m.spare = nil, nil
	if e := m.free(); err == nil {
		err = e
	}
	return err
}

// Forward computes the logits [T, V] of one prompt and calls probe, if it is not nil, with every node of shapes.Nodes that the prompt
// has and that stands in memory, in that order. It is an error if the inputs do not fit the model or each other.
func (m *Llava) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	s := m.newSession(max(len(in.InputIDs), 1))
	defer s.Close()
	return s.Extend(in, 0, probe)
}

// cache is the keys and values of one sequence.
type cache struct {
	layers   []*kernel.KV
	capacity int // positions
}

// Session is one sequence of tokens that grows.
type Session struct {
	model    *Llava
	past     cache // empty before the first part, and when it is closed
	capacity int   // positions
	len      int
	broken   bool
	closed   bool
	logits   []float32 // what Extend returned last
	shape    [2]int
}

// NewSession begins a sequence of at most ContextLength positions.
func (m *Llava) NewSession() *Session { return m.newSession(m.options.ContextLength) }

func (m *Llava) newSession(capacity int) *Session { return &Session{model: m, capacity: capacity} }

// Len is the number of positions of the sequence.
func (s *Session) Len() int { return s.len }

// Close ends the sequence; the next one uses its memory. What Extend returned last stays.
func (s *Session) Close() {
	m := s.model
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.past.layers != nil && !m.closed && len(m.spare) < 2 {
		m.spare = append(m.spare, s.past)
	}
	s.past, s.closed = cache{}, true
}

// begin takes the memory of a sequence that has ended, if it is large enough, or makes some.
func (s *Session) begin() {
	m, t := s.model, s.model.config.Text
	for i, c := range m.spare {
		if c.capacity >= s.capacity {
			s.past = c
			m.spare = slices.Delete(m.spare, i, i+1)
			for _, layer := range c.layers {
				layer.Reset()
			}
			return
		}
	}
	s.past.capacity = s.capacity
	for range t.NumHiddenLayers {
		s.past.layers = append(s.past.layers, kernel.NewKV(s.capacity, t.NumKeyValueHeads, t.HeadDim))
	}
}

// Extend adds a prompt, or a part of one, to the sequence and returns the logits of its last logitsToKeep positions,
// [logitsToKeep, V]; of all of them, [T, V], for 0. The tensor is the session's: its next Extend overwrites it. Positions that the sequence has already are
// seen by the new ones. The images of a part stand in that part whole. As in transformers, an image token in a later part without pixel
// values, such as one that the model itself has written, is embedded like any other.
// Inputs that do not fit are refused before anything is computed, and the sequence stays as it is.
// With Options.Labels the calling goroutine has no pprof labels afterwards: its own cannot be read back, so a caller that has some sets them again.
func (s *Session) Extend(in shapes.Inputs, logitsToKeep int, probe shapes.Probe) (shapes.Tensor, error) {
	m := s.model
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed || s.closed:
		return shapes.Tensor{}, fmt.Errorf("fast: session: closed")
	case s.broken:
		return shapes.Tensor{}, fmt.Errorf("fast: session: an earlier part of the sequence failed")
	}
	image, err := m.plan(in, s.len == 0)
	if err != nil {
		return shapes.Tensor{}, err
	}
	if positions := len(in.InputIDs); positions > s.capacity-s.len {
		return shapes.Tensor{}, fmt.Errorf("fast: context length: %d positions and %d more, want at most %d", s.len, positions, s.capacity)
	}
	keep := len(in.InputIDs)
	if logitsToKeep > 0 {
		keep = min(keep, logitsToKeep)
	}
	r := run{Llava: m, probe: probe, in: in, image: image, group: m.tilesAtATime, chunk: m.chunk}
	if probe != nil { // a probe is shown whole tensors
		r.group, r.chunk = max(image.tiles, 1), len(in.InputIDs)
	}
	if err := m.arena.reserve(scratchOf(m.config, image.tiles, r.group, min(r.chunk, len(in.InputIDs)))); err != nil {
		return shapes.Tensor{}, err
	}
	if s.past.layers == nil {
		s.begin()
	}
	if n := keep * m.config.Text.VocabSize; cap(s.logits) < n {
		s.logits = make([]float32, n)
	} else {
		s.logits = s.logits[:n]
	}
	s.broken = true // until all of it is done: a probe may panic
	r.forward(s, keep)
	s.broken = false
	s.len += len(in.InputIDs)
	s.shape = [2]int{keep, m.config.Text.VocabSize}
	return shapes.Tensor{Shape: s.shape[:], Data: s.logits}, nil
}

// run is one Extend under way.
type run struct {
	*Llava
	probe    shapes.Probe
	in       shapes.Inputs
	image    imagePlan
	group    int       // tiles at a time
	chunk    int       // positions at a time
	features []float32 // [N*(S-1), C]
	nextRow  int       // of the image's rows, that no image token has taken
}

// see shows a node to the probe.
func (r *run) see(node string, data []float32, shape ...int) {
	if r.probe != nil {
		r.probe(node, shapes.Tensor{Shape: shape, Data: data})
	}
}

// forward is the whole model: pixels to features, chunk after chunk through the decoder, logits of the last keep positions.
func (r *run) forward(s *Session, keep int) {
	if r.image.tiles > 0 {
		r.imageFeatures()
	}
	positions := len(r.in.InputIDs)
	base := r.arena.used
	for from := 0; from < positions; from += r.chunk {
		to := min(from+r.chunk, positions)
		r.arena.used = base
		r.decode(s, from, to, positions-keep)
	}
	r.labels.clear()
}

// scratchOf is how many values of scratch a run takes at the most: the features, which stay, and above them
// a group of tiles or a chunk of positions.
func scratchOf(c shapes.Config, tiles, group, chunk int) int {
	features := piece(tiles * c.FeaturesPerTile() * c.Text.HiddenSize)
	return features + max(visionScratch(c, min(group, tiles)), textScratch(c, chunk))
}
