package fast

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// New makes the model of a configuration, and brings its weights into memory, a part at a time: there is never a second copy of them.
// A matrix is stored in the type of its source, or as bfloat16 where a float32 source holds nothing else; with [kernel.BFloat16] every matrix
// must be bfloat16. It is an error, before anything is read, if the memory will not do. The caller closes the model.
func New(c shapes.Config, w shapes.Weights, o Options) (*Llava, error) {
	o = o.complete(c)
	if err := check(c, o); err != nil {
		return nil, err
	}
	types, err := storedTypes(c, w, o)
	if err != nil {
		return nil, err
	}
	l, err := newLayout(c, func(name string) kernel.Type { return types[name] })
	if err != nil {
		return nil, err
	}
	return open(c, l, o, func(mem []byte, pool *kernel.Pool) error {
		ld := newLoader(w, pool)
		_, total := shapes.Total(shapes.Params(c))
		done := int64(0)
		for _, b := range l.blocks {
			for _, p := range b.parts() {
				if err := ld.fill(mem[b.at+p.at:][:p.size], b, p); err != nil {
					return err
				}
				done += int64(p.rows * b.k)
				if o.Progress != nil {
					o.Progress(done, int64(total))
				}
			}
		}
		return nil
	})
}

// open makes a model whose memory fill fills.
func open(c shapes.Config, l layout, o Options, fill func(mem []byte, pool *kernel.Pool) error) (*Llava, error) {
	m := &Llava{config: c, options: o, memory: memoryOf(c, l, o), tilesAtATime: tileGroup, chunk: chunkRows}
	available, known := availableMemory()
	if err := enough(m.memory, available, known); err != nil {
		return nil, err
	}
	var err error
	if m.weights, m.free, err = kernel.Alloc(l.size); err != nil {
		return nil, fmt.Errorf("fast: weights: %w", err)
	}
	m.pool = kernel.NewPool(o.Threads)
	if err := fill(m.weights, m.pool); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if o.Labels {
		m.labels = newLabels(m.pool)
	}
	m.bind(l)
	return m, nil
}

// narrowest is a source that knows how narrow a dtype holds all values of a parameter.
type narrowest interface {
	Narrowest(name string) checkpoint.DType
}

// rawWeights is a source whose bytes can be had: *checkpoint.Weights.
type rawWeights interface {
	Info(name string) (checkpoint.Info, error)
	ReadRaw(name string, from int, dst []byte) error
}

// storedTypes chooses the types of matrices and embedding.
func storedTypes(c shapes.Config, w shapes.Weights, o Options) (map[string]kernel.Type, error) {
	types := map[string]kernel.Type{}
	for _, p := range shapes.Params(c) {
		f := formOf(p)
		if f == vector {
			continue
		}
		t, why, err := storedType(w, p, o.Threads)
		if err != nil {
			return nil, err
		}
		if f == panels && o.Class == kernel.BFloat16 && t != kernel.BF16 {
			return nil, fmt.Errorf("fast: %s: %s, want bfloat16: the bf16 class takes no other weights, the float32 class takes all", p.Name, why)
		}
		types[p.Name] = t
	}
	return types, nil
}

// storedType is the narrowest type that holds a parameter without rounding, as far as that is cheap to tell: float16 only where the source is.
// why says what the source holds.
func storedType(w shapes.Weights, p shapes.Param, threads int) (t kernel.Type, why string, err error) {
	d := checkpoint.F32
	if n, ok := w.(narrowest); ok {
		d = n.Narrowest(p.Name)
	} else if raw, ok := w.(rawWeights); ok {
		info, err := raw.Info(p.Name)
		if err != nil {
			return 0, "", err
		}
		d = info.DType
	}
	switch d {
	case checkpoint.BF16:
		return kernel.BF16, "bfloat16", nil
	case checkpoint.F16:
		return kernel.F16, "float16", nil
	}
	at, err := firstInexact(w, p, threads)
	if err != nil || at < 0 {
		return kernel.BF16, "bfloat16", err
	}
	return kernel.F32, fmt.Sprintf("float32 whose value number %d is no bfloat16", at), nil
}

// firstInexact is the number of a value that bfloat16 cannot hold; -1 if it holds all.
func firstInexact(w shapes.Weights, p shapes.Param, threads int) (int, error) {
	const step = 1 << 18
	buffers := make([][]float32, threads)
	found := make([]int, threads)
	for from := 0; from < p.Count(); from += step * threads {
		err := parallel(threads, func(i int) error {
			found[i] = -1
			lo := min(from+i*step, p.Count())
			n := min(step, p.Count()-lo)
			if buffers[i] == nil {
				buffers[i] = make([]float32, min(step, p.Count()))
			}
			part := buffers[i][:n]
			if err := w.Read(p.Name, lo, part); err != nil {
				return err
			}
			for j, v := range part {
				if math.Float32bits(v)&0xffff != 0 {
					found[i] = lo + j
					break
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		for _, at := range found {
			if at >= 0 {
				return at, nil
			}
		}
	}
	return -1, nil
}

// rowsPart is a part of a block: some rows, a multiple of 32 of them but for the last part.
type rowsPart struct{ row, rows, at, size int }

// partValues is how many values are on their way at a time.
const partValues = 4 << 20

// parts cuts a block.
func (b block) parts() []rowsPart {
	step := max(partValues/b.k/32, 1) * 32
	var out []rowsPart
	at := 0
	for row := 0; row < b.n; row += step {
		n := min(step, b.n-row)
		size := n * b.k * b.typ.Size()
		if b.form == panels {
			size = kernel.PackedSize(kernel.Matrix{Type: b.typ, N: n, K: b.k})
		}
		out = append(out, rowsPart{row, n, at, size})
		at += size
	}
	return out
}

// loader brings parameters from a source into the layout.
type loader struct {
	weights shapes.Weights
	raw     rawWeights // nil if the source is none
	pool    *kernel.Pool
	f32     []float32
	u16     []uint16
}

func newLoader(w shapes.Weights, pool *kernel.Pool) *loader {
	l := &loader{weights: w, pool: pool}
	l.raw, _ = w.(rawWeights)
	return l
}

// fill makes one part of a block in dst.
func (l *loader) fill(dst []byte, b block, p rowsPart) error {
	from, count := p.row*b.k, p.rows*b.k
	if b.typ == kernel.F32 {
		values := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst)/4)
		if b.form == panels {
			l.f32 = grow(l.f32, count)
			values = l.f32[:count]
		}
		err := l.split(count, func(lo, hi int) error { return l.weights.Read(b.Name, from+lo, values[lo:hi]) })
		if err == nil && b.form == panels {
			l.pool.Pack(dst, kernel.Matrix{Type: kernel.F32, N: p.rows, K: b.k, F32: values}, kernel.Float32)
		}
		return err
	}
	values := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst)/2)
	if b.form == panels {
		l.u16 = grow(l.u16, count)
		values = l.u16[:count]
	}
	read, err := l.narrow(b)
	if err != nil {
		return err
	}
	if err := l.split(count, func(lo, hi int) error { return read(values[lo:hi], from+lo) }); err != nil {
		return err
	}
	if b.form == panels {
		l.pool.Pack(dst, kernel.Matrix{Type: b.typ, N: p.rows, K: b.k, U16: values}, kernel.Float32)
	}
	return nil
}

// narrow returns the function that reads 16-bit values of a block: their bytes as they are, or float32 values that bfloat16 holds.
func (l *loader) narrow(b block) (func(dst []uint16, from int) error, error) {
	if l.raw != nil {
		info, err := l.raw.Info(b.Name)
		if err != nil {
			return nil, err
		}
		if info.DType == checkpoint.BF16 && b.typ == kernel.BF16 || info.DType == checkpoint.F16 && b.typ == kernel.F16 {
			return func(dst []uint16, from int) error {
				if len(dst) == 0 {
					return nil
				}
				bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 2*len(dst))
				if err := l.raw.ReadRaw(b.Name, from, bytes); err != nil {
					return err
				}
				if bigEndian {
					for i, v := range dst {
						dst[i] = v>>8 | v<<8
					}
				}
				return nil
			}, nil
		}
	}
	if b.typ != kernel.BF16 {
		panic("fast: load: " + b.Name + ": float16 out of a source that is not")
	}
	return func(dst []uint16, from int) error {
		const step = 1 << 14 // stays in the cache
		var part [step]float32
		for len(dst) > 0 {
			n := min(step, len(dst))
			if err := l.weights.Read(b.Name, from, part[:n]); err != nil {
				return err
			}
			for i, v := range part[:n] {
				bits := math.Float32bits(v)
				if bits&0xffff != 0 {
					return fmt.Errorf("fast: %s: value number %d is %v, want a bfloat16, as the source says of itself", b.Name, from+i, v)
				}
				dst[i] = uint16(bits >> 16)
			}
			dst, from = dst[n:], from+n
		}
		return nil
	}, nil
}

// bigEndian says whether the low byte of a number comes last in memory.
var bigEndian = func() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}()

// split does 0, ..., count-1 on all threads, in ranges that begin at a multiple of 4: a synthetic source draws four values at once.
func (l *loader) split(count int, f func(lo, hi int) error) error {
	n := l.pool.Threads()
	step := ((count+n-1)/n + 3) &^ 3
	return parallel(n, func(i int) error {
		lo := min(i*step, count)
		return f(lo, min(lo+step, count))
	})
}

// parallel calls f(0) ... f(n-1) side by side and returns the first error in that order.
func parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// bind finds the parameters in memory.
func (m *Llava) bind(l layout) {
	c := m.config
	values := func(name string) []float32 {
		b := l.block(name)
		return unsafe.Slice((*float32)(unsafe.Pointer(&m.weights[b.at])), b.n*b.k)
	}
	matrix := func(name string) *kernel.Weights {
		b := l.block(name)
		return kernel.Packed(m.weights[b.at:][:b.size], b.typ, b.n, b.k, m.options.Class)
	}
	biased := func(name string) linear { return linear{matrix(name + ".weight"), values(name + ".bias")} }
	plain := func(name string) linear { return linear{weight: matrix(name + ".weight")} }
	norm := func(name string) layerNorm { return layerNorm{values(name + ".weight"), values(name + ".bias")} }
	rms := func(name string) layerNorm { return layerNorm{weight: values(name + ".weight")} }

	v, name := c.Vision, shapes.VisionTower
	positions := values(name + ".embeddings.position_embedding.weight")
	m.vision = visionTower{
		patchEmbedding:    linear{weight: matrix(name + ".embeddings.patch_embedding.weight")},
		first:             make([]float32, v.HiddenSize),
		positionEmbedding: positions[v.HiddenSize:],
		preLayrnorm:       norm(name + ".pre_layrnorm"),
		postLayernorm:     norm(name + ".post_layernorm"),
		past:              kernel.NewKV(v.Positions(), v.NumAttentionHeads, v.HeadDim()),
	}
	m.pool.Add(m.vision.first, values(name+".embeddings.class_embedding"), positions[:v.HiddenSize])
	for i := range v.NumHiddenLayers {
		layer := shapes.VisionLayer(i)
		m.vision.layers = append(m.vision.layers, encoderLayer{
			name:       layer,
			layerNorm1: norm(layer + ".layer_norm1"), layerNorm2: norm(layer + ".layer_norm2"),
			qProj: biased(layer + ".self_attn.q_proj"), kProj: biased(layer + ".self_attn.k_proj"),
			vProj: biased(layer + ".self_attn.v_proj"), outProj: biased(layer + ".self_attn.out_proj"),
			fc1: biased(layer + ".mlp.fc1"), fc2: biased(layer + ".mlp.fc2"),
		})
	}
	m.projector = projector{biased(shapes.Projector + ".linear_1"), biased(shapes.Projector + ".linear_2")}
	if c.ModelType == shapes.LlavaNext {
		m.newline = values(shapes.ImageNewline)
	}

	t := c.Text
	e := l.block(shapes.TextModel + ".embed_tokens.weight")
	m.text = languageModel{
		embedTokens: embedding{typ: e.typ},
		frequencies: inverseFrequencies(t.HeadDim, t.RopeTheta),
		norm:        rms(shapes.TextModel + ".norm"),
		lmHead:      plain(shapes.LMHead),
	}
	if e.typ == kernel.F32 {
		m.text.embedTokens.f32 = values(e.Name)
	} else {
		m.text.embedTokens.u16 = unsafe.Slice((*uint16)(unsafe.Pointer(&m.weights[e.at])), e.n*e.k)
	}
	for i := range t.NumHiddenLayers {
		layer := shapes.TextLayer(i)
		m.text.layers = append(m.text.layers, decoderLayer{
			name:           layer,
			inputLayernorm: rms(layer + ".input_layernorm"), postAttentionLayernorm: rms(layer + ".post_attention_layernorm"),
			qProj: plain(layer + ".self_attn.q_proj"), kProj: plain(layer + ".self_attn.k_proj"),
			vProj: plain(layer + ".self_attn.v_proj"), oProj: plain(layer + ".self_attn.o_proj"),
			gateProj: plain(layer + ".mlp.gate_proj"), upProj: plain(layer + ".mlp.up_proj"), downProj: plain(layer + ".mlp.down_proj"),
		})
	}
}
