package bench

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unsafe"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// work is a row before it is measured.
type work struct {
	name     string
	limit    kernel.Limit
	flop     float64
	bytes    float64
	standard bool         // measured without being asked for
	check    func() error // holds its result against plain Go, at some places; may be nil
	before   func() error // of every sample, not timed; may be nil
	run      func() error
	loops    int // of one sample, at most; 0 is as many as fill its time
}

// group is works that share memory, which open makes and the function that it returns gives back.
type group struct {
	works []*work
	open  func(m *meter, works []*work) (closed func(), err error) // for some of its works
}

// matcher makes a function of patterns, separated by commas, in which * stands for any text and ? for one character.
// No pattern takes the standard works.
func matcher(patterns string) (func(w *work) bool, error) {
	if patterns == "" {
		return func(w *work) bool { return w.standard }, nil
	}
	if len(patterns) > maxText {
		return nil, fmt.Errorf("bench: patterns of %d bytes, want at most %d", len(patterns), maxText)
	}
	var any []string
	for p := range strings.SplitSeq(patterns, ",") {
		p = regexp.QuoteMeta(strings.TrimSpace(p))
		any = append(any, strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(p))
	}
	re, err := regexp.Compile("^(?:" + strings.Join(any, "|") + ")$")
	if err != nil {
		return nil, err
	}
	return func(w *work) bool { return re.MatchString(w.name) }, nil
}

// arena is memory that a group gives back as a whole.
type arena struct{ frees []func() error }

// bytes is memory for packed weights, every page of it touched.
func (a *arena) bytes(n int) ([]byte, error) {
	mem, free, err := kernel.Alloc(n)
	if err != nil {
		return nil, err
	}
	a.frees = append(a.frees, free)
	for i := 0; i < n; i += 4096 {
		mem[i] = 0
	}
	return mem, nil
}

// floats is memory for so many float32.
func (a *arena) floats(n int) ([]float32, error) {
	mem, err := a.bytes(4 * n)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mem))), n), nil
}

func (a *arena) close() {
	for _, free := range a.frees {
		_ = free() // unmapping what was mapped does not fail
	}
	a.frees = nil
}

// mul is a kind of product: the type of the weights and the class of arithmetic.
type mul struct {
	typ   kernel.Type
	class kernel.Class
}

var muls = []mul{{kernel.F32, kernel.Float32}, {kernel.F16, kernel.Float32}, {kernel.BF16, kernel.Float32}, {kernel.BF16, kernel.BFloat16}}

func (m mul) limit() kernel.Limit {
	if m.class == kernel.BFloat16 {
		return kernel.Dot
	}
	return kernel.FMA
}

// matrix is the shape of a W, [N, K].
type matrix struct {
	n, k   int
	vision bool // it is multiplied with tiles, not with tokens
}

// matrices lists the different weights of the models that are multiplied with, as shapes.Params has them.
func matrices(configs ...shapes.Config) []matrix {
	var out []matrix
	for _, c := range configs {
		for _, p := range shapes.Params(c) {
			if len(p.Shape) < 2 || strings.Contains(p.Name, "embed") && !strings.Contains(p.Name, "patch_embedding") {
				continue // vectors, and tables that rows are taken from
			}
			m := matrix{p.Shape[0], shapes.Product(p.Shape[1:]), strings.HasPrefix(p.Name, shapes.VisionTower) || strings.HasPrefix(p.Name, shapes.Projector)}
			if !slices.ContainsFunc(out, func(o matrix) bool { return o.n == m.n && o.k == m.k }) {
				out = append(out, m)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b matrix) int { return cmp.Or(cmp.Compare(a.n*a.k, b.n*b.k), cmp.Compare(a.n, b.n)) })
	return out
}

// rows that products are measured at: one token, a few, a block, a tile of the real models, five, and prompts with an image.
func rowCounts(m matrix, c shapes.Config) []int {
	counts := []int{1, 8, 64, 577, 1176, 2340, 2928}
	if tile := c.Vision.Positions(); m.vision {
		counts = append(counts, tile, 5*tile)
	}
	slices.Sort(counts)
	return slices.Compact(counts)
}

// gemms are the products of the models' weights.
func gemms(c shapes.Config, also ...shapes.Config) []group {
	var out []group
	tile := c.Vision.Positions()
	for _, mat := range matrices(append([]shapes.Config{c}, also...)...) {
		for _, typ := range []kernel.Type{kernel.F32, kernel.F16, kernel.BF16} {
			g := &gemmGroup{matrix: mat, typ: typ}
			var works []*work
			for _, v := range muls {
				if v.typ != typ {
					continue
				}
				for _, rows := range rowCounts(mat, c) {
					w := &work{
						name:  fmt.Sprintf("gemm/W=%dx%d/type=%s/class=%s/M=%d", mat.n, mat.k, strings.ToLower(typ.String()), v.class, rows),
						limit: v.limit(),
						flop:  2 * float64(rows) * float64(mat.n) * float64(mat.k),
						bytes: float64(mat.n) * float64(mat.k) * float64(typ.Size()),
					}
					if rows == 1 {
						w.limit = kernel.Read
					}
					w.standard = standardGemm(mat, v, rows, c, tile)
					w.run = func() error { g.run(v.class, rows); return nil }
					w.check = func() error { return g.check(v.class, rows) }
					works = append(works, w)
				}
			}
			out = append(out, group{works: works, open: g.open})
		}
	}
	return out
}

// standardGemm chooses the products that are measured without being asked for: every number of rows for the square matrix of the
// decoder, fewer for the wide ones, and one and five tiles for those of the tower.
func standardGemm(m matrix, v mul, rows int, c shapes.Config, tile int) bool {
	own := v.typ == kernel.F32 || v.class == kernel.BFloat16 // the two that the engine's classes come to
	t := c.Text
	switch {
	case m.n == t.HiddenSize && m.k == t.HiddenSize:
		return true
	case m.vision:
		return own && (rows == tile || rows == 5*tile)
	case m.n == t.IntermediateSize && m.k == t.HiddenSize:
		return own && slices.Contains([]int{1, 8, 64, 577, 2340}, rows) || rows == 1
	case m.n == t.HiddenSize && m.k == t.IntermediateSize:
		return own && slices.Contains([]int{1, 577}, rows)
	default:
		return own && rows == 1
	}
}

// gemmGroup is one W in one type, in as many copies as a row needs to find it in memory and not in a cache.
type gemmGroup struct {
	matrix
	typ    kernel.Type
	pool   *kernel.Pool
	copies []*kernel.Weights // in class Float32
	x, y   []float32
	next   int
}

// Memory for the copies of W: many times the last cache, as in a model, where one layer's weights follow another's.
const (
	copiesBytes = 512 << 20
	mostCopies  = 256
)

func (g *gemmGroup) open(m *meter, works []*work) (func(), error) {
	var a, raw arena
	defer raw.close()
	fail := func(err error) (func(), error) { a.close(); return nil, err }
	g.pool, g.next = m.pool, 0
	bytes := g.n * g.k * g.typ.Size()
	mem, err := raw.bytes(bytes)
	if err != nil {
		return fail(err)
	}
	w := kernel.Matrix{Type: g.typ, N: g.n, K: g.k}
	if g.typ == kernel.F32 {
		w.F32 = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mem))), g.n*g.k)
	} else {
		w.U16 = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(mem))), g.n*g.k)
	}
	for i := range g.n * g.k {
		switch v := value(i); g.typ {
		case kernel.F32:
			w.F32[i] = v
		case kernel.F16:
			w.U16[i] = halfOf(v)
		case kernel.BF16:
			w.U16[i] = uint16(math.Float32bits(v) >> 16)
		}
	}
	count := 1
	if m.policy != quick {
		count = max(1, min(mostCopies, copiesBytes/bytes))
	}
	size := kernel.PackedSize(w)
	packed, err := a.bytes(size * count)
	if err != nil {
		return fail(err)
	}
	g.copies = nil
	for i := range count {
		g.copies = append(g.copies, m.pool.Pack(packed[i*size:][:size:size], w, kernel.Float32))
	}
	most := 0
	for _, w := range works {
		most = max(most, int(w.flop/2/float64(g.n)/float64(g.k)))
	}
	if g.x, err = a.floats(most * g.k); err != nil {
		return fail(err)
	}
	if g.y, err = a.floats(most * g.n); err != nil {
		return fail(err)
	}
	for i := range g.x {
		g.x[i] = value(i + 7)
	}
	return func() { a.close(); *g = gemmGroup{matrix: g.matrix, typ: g.typ} }, nil
}

func (g *gemmGroup) run(class kernel.Class, rows int) {
	w := g.copies[g.next%len(g.copies)].WithClass(class)
	g.next++
	g.pool.Gemm(g.y[:rows*g.n], g.x[:rows*g.k], rows, w, nil)
}

// values are what weights and activations are filled with: exact in every type, both signs, none like its neighbours.
var values = func() (v [4093]float32) {
	state := uint32(1)
	for i := range v {
		state = state*1664525 + 1013904223
		v[i] = float32(int32(state>>25)-64) / 128 // -0.5 to 0.49 in steps of 1/128
	}
	return v
}()

func value(i int) float32 { return values[i%len(values)] }

// halfOf is the float16 of one of values, which are 0 or have an exponent that float16 has.
func halfOf(v float32) uint16 {
	b := math.Float32bits(v)
	if b<<1 == 0 {
		return uint16(b >> 16)
	}
	return uint16(b>>16&0x8000 | (b>>23&0xff-112)<<10 | b>>13&0x3ff)
}

// check computes the product and holds some of it, its corners among it, against float64. It is no proof of conformance; it says
// that the work that is timed is done.
func (g *gemmGroup) check(class kernel.Class, rows int) error {
	clear(g.y[:rows*g.n])
	g.run(class, rows)
	for probe := range 64 {
		i, j := probe*7919%rows, probe*104729%g.n
		if probe == 0 {
			i, j = rows-1, g.n-1
		}
		want, scale := 0.0, 0.0
		for k := range g.k {
			p := float64(g.x[i*g.k+k]) * float64(value(j*g.k+k))
			want, scale = want+p, scale+math.Abs(p)
		}
		got := float64(g.y[i*g.n+j])
		// A sum of K rounded terms is off by some sqrt(K) roundoffs of the sum of their sizes.
		if limit := 8 * math.Sqrt(float64(g.k)) * scale * 0x1p-24; !(math.Abs(got-want) <= limit) {
			return fmt.Errorf("y[%d, %d] is %g, want %g within %g: a product that is wrong is not measured", i, j, got, want, limit)
		}
	}
	return nil
}
