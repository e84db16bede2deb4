package bench

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/llavaref/llavaref/fast"
	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// Room that a sequence has beyond the context at which decoding is measured: every sample makes it longer.
const (
	decodeRoom  = 128
	decodeLoops = 16 // tokens of one sample, at most
)

// model is the engine with synthetic weights in one class, and what its rows run.
type model struct {
	name   string
	config shapes.Config
	class  kernel.Class
	half   bool // the weights are float16, and not bfloat16
	run    *runner

	llava *fast.Llava
	after *fast.Session // of the last prompt of the greatest length: decoding goes on from there
	deep  map[int]*fast.Session
}

// runner is what models need to know of the run.
type runner struct {
	Options
	threads int
	loads   []Load
}

// limit is the arithmetic of the class.
func (m *model) limit() kernel.Limit { return mul{kernel.BF16, m.class}.limit() }

// engines are the rows of whole parts of the model: layers, tower, prompts, tokens, in both classes.
func engines(r *runner) []group {
	var out []group
	for _, class := range []kernel.Class{kernel.Float32, kernel.BFloat16} {
		m := &model{name: r.Name, config: r.Config, class: class, run: r}
		out = append(out, group{works: m.works(), open: m.open})
		if r.Tower != nil {
			t := &model{name: r.Name + ", whole tower", config: *r.Tower, class: class, run: r}
			out = append(out, group{works: t.towers(), open: t.open})
		}
	}
	return out
}

// works are the model's rows, the long prompt before the tokens behind it.
func (m *model) works() []*work {
	v, t := m.config.Vision, m.config.Text
	var out []*work
	add := func(w *work) {
		w.name += "/class=" + m.class.String()
		// The whole model does not fit twice, and its classes differ in the products alone: bf16 is measured without being asked for.
		w.standard = !m.run.Whole || m.class == kernel.BFloat16
		out = append(out, w)
	}
	for _, n := range []int{1, 5} {
		x := filled(n * v.Positions() * v.HiddenSize)
		add(&work{name: fmt.Sprintf("layer/vision/tiles=%d", n), limit: m.limit(), flop: encoderFLOP(v, n), bytes: m.matrixBytes(shapes.VisionLayer(0)),
			run: func() error { return m.llava.RunEncoderLayer(0, x(), n) }})
	}
	for _, n := range []int{64, 512} { // one token through one layer again and again would find it in the cache: tokens go through all layers
		x := filled(n * t.HiddenSize)
		add(&work{name: fmt.Sprintf("layer/decoder/T=%d", n), limit: m.limit(), flop: decoderFLOP(t, 0, n), bytes: m.matrixBytes(shapes.TextLayer(0)),
			run: func() error { return m.llava.RunDecoderLayer(0, x()) }})
	}
	if m.run.Tower == nil {
		for _, w := range m.towers() {
			w.name = strings.TrimSuffix(w.name, "/class="+m.class.String())
			add(w)
		}
	}
	for _, n := range prompts {
		add(m.prefill(n))
	}
	for _, n := range contexts {
		add(m.decode(n))
	}
	if m.run.Prompt != nil {
		add(m.answer("ttft/"+m.run.PromptName, 1))
		add(m.answer(fmt.Sprintf("answer/%s/tokens=%d", m.run.PromptName, answerTokens), answerTokens))
		out[len(out)-1].standard = false // ttft and decode tell the same
	}
	return out
}

// towers are tiles through all layers of the tower that reach the features.
func (m *model) towers() []*work {
	v := m.config.Vision
	var out []*work
	for _, n := range []int{1, 5} {
		pixels := filled(n * v.NumChannels * v.ImageSize * v.ImageSize)
		out = append(out, &work{
			name:  fmt.Sprintf("tower/layers=%d/tiles=%d/class=%s", m.config.FeatureLayer(), n, m.class),
			limit: m.limit(), standard: true, flop: towerFLOP(m.config, n), bytes: float64(m.config.FeatureLayer()) * m.matrixBytes(shapes.VisionLayer(0)),
			run: func() error { return m.llava.RunTower(pixels(), n) },
		})
	}
	return out
}

// filled is a slice of values that is made when it is first used.
func filled(n int) func() []float32 {
	var x []float32
	return func() []float32 {
		if x == nil {
			x = make([]float32, n)
			for i := range x {
				x[i] = value(i)
			}
		}
		return x
	}
}

// ids is a prompt of text: every token another, none an image's.
func (m *model) ids(from, n int) shapes.Inputs {
	var in shapes.Inputs
	for i := range n {
		id := (from + i) * 7919 % m.config.Text.VocabSize
		if id == m.config.ImageTokenID {
			id = 0
		}
		in.InputIDs, in.PositionIDs = append(in.InputIDs, id), append(in.PositionIDs, from+i)
	}
	return in
}

// prefill is a prompt of text, to the logits of its last position.
func (m *model) prefill(n int) *work {
	return &work{
		name: fmt.Sprintf("prefill/T=%d", n), limit: m.limit(), flop: promptFLOP(m.config.Text, n), bytes: m.decoderBytes(0),
		run: func() error {
			s := m.llava.NewSession()
			if _, err := s.Extend(m.ids(0, n), 1, nil); err != nil {
				return err
			}
			if n == prompts[len(prompts)-1] && m.after == nil {
				m.after = s // kept: its end is the beginning of a long context
				return nil
			}
			s.Close()
			return nil
		},
	}
}

// decode is one token after a context, and a few after that one.
func (m *model) decode(context int) *work {
	return &work{
		name: fmt.Sprintf("decode/context=%d", context), limit: kernel.Read, flop: tokenFLOP(m.config.Text, context),
		bytes: m.decoderBytes(context), loops: decodeLoops,
		before: func() error { return m.reach(context) },
		run: func() error {
			s := m.deep[context]
			_, err := s.Extend(m.ids(s.Len(), 1), 1, nil)
			return err
		},
	}
}

// reach makes a sequence that is as long as the context, or a little longer, and has room for a sample.
func (m *model) reach(context int) error {
	s := m.deep[context]
	if s != nil && s.Len()+decodeLoops <= context+decodeRoom {
		return nil
	}
	if s != nil {
		s.Close()
	}
	s = m.llava.NewSession()
	if m.after != nil && m.after.Len() <= context {
		s.Close()
		s, m.after = m.after, nil
	}
	m.deep[context] = s
	if more := context - s.Len(); more > 0 {
		_, err := s.Extend(m.ids(s.Len(), more), 1, nil)
		return err
	}
	return nil
}

// answerTokens is the length of a whole answer.
const answerTokens = 32

// answer is a picture and a question, from the pixels of the file to so many tokens of the answer, the most probable one each.
func (m *model) answer(name string, tokens int) *work {
	in, err := m.run.Prompt()
	w := &work{name: name, limit: m.limit(), bytes: m.decoderBytes(0)}
	w.run = func() error {
		if err != nil {
			return err
		}
		in, err := m.run.Prompt() // preprocessing is part of the wait
		if err != nil {
			return err
		}
		s := m.llava.NewSession()
		defer s.Close()
		for range tokens {
			logits, err := s.Extend(in, 1, nil)
			if err != nil {
				return err
			}
			best := 0
			for i, v := range logits.Data {
				if v > logits.Data[best] {
					best = i
				}
			}
			in = shapes.Inputs{InputIDs: []int{best}, PositionIDs: []int{s.Len()}}
		}
		return nil
	}
	if err == nil {
		tiles := in.PixelValues.Shape[0]
		positions := len(in.InputIDs)
		w.flop = towerFLOP(m.config, tiles) + projectorFLOP(m.config, tiles) + promptFLOP(m.config.Text, positions)
		for n := positions; n < positions+tokens-1; n++ {
			w.flop += tokenFLOP(m.config.Text, n)
			w.bytes += m.decoderBytes(n)
		}
		w.bytes += float64(m.config.FeatureLayer()) * m.matrixBytes(shapes.VisionLayer(0))
	} else {
		w.flop = 1
	}
	return w
}

// open makes the model.
func (m *model) open(meter *meter, _ []*work) (func(), error) {
	begin := time.Now()
	longest := max(prompts[len(prompts)-1], contexts[len(contexts)-1]+decodeRoom)
	if m.run.Prompt != nil {
		in, err := m.run.Prompt()
		if err != nil {
			return nil, err
		}
		longest = max(longest, len(in.InputIDs)+answerTokens)
	}
	o := fast.Options{Class: m.class, Threads: m.run.threads, ContextLength: longest, Labels: m.run.Around != nil, Progress: m.run.Loading}
	var weights shapes.Weights = checkpoint.Synthetic(m.config, 0)
	if m.half {
		weights = halves{weights, meter.pool}
	}
	llava, err := fast.New(m.config, weights, o)
	if err != nil {
		return nil, err
	}
	m.llava, m.deep = llava, map[int]*fast.Session{}
	m.run.loads = append(m.run.loads, Load{Name: m.name + ", class " + m.class.String(), Seconds: time.Since(begin).Seconds(), Memory: llava.Memory().String()})
	return func() {
		_ = llava.Close() // unmapping what was mapped does not fail
		m.llava, m.after, m.deep = nil, nil, nil
	}, nil
}

// halves are synthetic weights as a float16 source: the same values, which float16 holds, too.
type halves struct {
	shapes.Weights
	pool *kernel.Pool
}

// Info says what the engine asks a source with bytes for.
func (halves) Info(name string) (checkpoint.Info, error) {
	return checkpoint.Info{Name: name, DType: checkpoint.F16}, nil
}

// ReadRaw fills dst with consecutive values of a parameter, the first of them value number from.
func (w halves) ReadRaw(name string, from int, dst []byte) error {
	values := make([]float32, len(dst)/2)
	if err := w.Read(name, from, values); err != nil {
		return err
	}
	rounded := make([]uint16, len(values))
	w.pool.Round(rounded, values, kernel.F16)
	for i, v := range rounded {
		binary.LittleEndian.PutUint16(dst[2*i:], v)
	}
	return nil
}

// FLOP of a product: two for each weight and row.
func product(rows, n, k int) float64 { return 2 * float64(rows) * float64(n) * float64(k) }

// encoderFLOP is one layer of the tower on some tiles: four square products, two of the MLP, scores and context.
func encoderFLOP(v shapes.VisionConfig, tiles int) float64 {
	s, d, f := v.Positions(), v.HiddenSize, v.IntermediateSize
	return product(tiles*s, 4*d, d) + product(tiles*s, 2*f, d) + float64(tiles)*2*product(s, s, d)
}

func towerFLOP(c shapes.Config, tiles int) float64 {
	v := c.Vision
	patches := product(tiles*(v.Positions()-1), v.HiddenSize, v.NumChannels*v.PatchSize*v.PatchSize)
	return patches + float64(c.FeatureLayer())*encoderFLOP(v, tiles)
}

func projectorFLOP(c shapes.Config, tiles int) float64 {
	rows := tiles * c.FeaturesPerTile()
	return product(rows, c.Text.HiddenSize, c.Vision.HiddenSize) + product(rows, c.Text.HiddenSize, c.Text.HiddenSize)
}

// decoderFLOP is one layer of the decoder on n positions after others.
func decoderFLOP(t shapes.TextConfig, past, n int) float64 {
	q, kv := t.NumAttentionHeads*t.HeadDim, t.NumKeyValueHeads*t.HeadDim
	seen := float64(n)*float64(past) + float64(n)*float64(n+1)/2
	return product(n, 2*q+2*kv, t.HiddenSize) + product(n, 3*t.IntermediateSize, t.HiddenSize) + 4*float64(q)*seen
}

func headFLOP(t shapes.TextConfig) float64 { return product(1, t.VocabSize, t.HiddenSize) }

// promptFLOP is a prompt through the decoder, to the logits of its last position: of the last layer, the others only have keys and values.
func promptFLOP(t shapes.TextConfig, n int) float64 {
	kv := t.NumKeyValueHeads * t.HeadDim
	last := decoderFLOP(t, n-1, 1) + product(n-1, 2*kv, t.HiddenSize)
	return float64(t.NumHiddenLayers-1)*decoderFLOP(t, 0, n) + last + headFLOP(t)
}

// tokenFLOP is one more token behind some positions.
func tokenFLOP(t shapes.TextConfig, past int) float64 {
	return float64(t.NumHiddenLayers)*decoderFLOP(t, past, 1) + headFLOP(t)
}

// matrixBytes is how much memory the matrices take whose names begin with something. Synthetic weights are stored as bfloat16.
func (m *model) matrixBytes(prefix string) float64 {
	total := 0
	for _, p := range shapes.Params(m.config) {
		if rest, ok := strings.CutPrefix(p.Name, prefix); ok && strings.HasPrefix(rest, ".") && len(p.Shape) > 1 {
			total += p.Count()
		}
	}
	return float64(total * kernel.BF16.Size())
}

// decoderBytes is what a token reads: all layers, the head, and the keys and values of what comes before it.
func (m *model) decoderBytes(context int) float64 {
	t := m.config.Text
	layers := float64(t.NumHiddenLayers) * m.matrixBytes(shapes.TextLayer(0))
	head := float64(t.VocabSize*t.HiddenSize) * float64(kernel.BF16.Size())
	return layers + head + float64(context)*float64(t.NumHiddenLayers)*2*4*float64(t.NumKeyValueHeads*t.HeadDim)
}
