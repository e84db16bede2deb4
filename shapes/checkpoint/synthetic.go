package checkpoint

import (
	"fmt"
	"math"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Synthetic makes the weights of a model out of the names of its parameters and a seed, as docs/synthetic-weights.md defines
// them: every value is a small integer over a power of two, exact in F32, F16 and BF16, and depends on its parameter's name
// and shape, its index and the seed only. Any range can be read without making the rest, from any number of goroutines.
func Synthetic(cfg shapes.Config, seed uint64) shapes.Weights {
	w := synthetic{}
	for _, p := range shapes.Params(cfg) {
		w[p.Name] = newStream(p, seed)
	}
	return w
}

// synthetic is the streams of a model's parameters by on-disk name.
type synthetic map[string]*stream

// Read fills dst with consecutive values of the named parameter in row-major order, the first of them value number from. It is
// an error to ask for a name that the model does not have or for values past its end.
func (w synthetic) Read(name string, from int, dst []float32) error {
	s := w[name]
	if s == nil {
		return fmt.Errorf("checkpoint: synthetic weights: %s: the model has no such parameter", show(name))
	}
	if from < 0 || from > s.count || len(dst) > s.count-from {
		return fmt.Errorf("checkpoint: synthetic weights: %s: %d values from number %d, want them inside its %d", name, len(dst), from, s.count)
	}
	s.read(from, dst)
	return nil
}

// Narrowest is the dtype in which a parameter takes the least room without rounding; F16 would do as well.
func (w synthetic) Narrowest(name string) DType { return BF16 }

// law is how the values of one kind of parameter are spread.
type law struct {
	prefix, suffix string // of the on-disk name
	half           float64
	gain           float64 // if half is 0, the half-width is gain * sqrt(3 / fan-in)
	rows           rows
}

// rows are the rows of a matrix, those number r with r mod period == phase, whose values are multiplied by a power of two.
type rows struct {
	period, phase int
	factor        float32
}

var (
	allRows  = rows{}
	loudRows = rows{128, 5, 4}       // the residual stream gets massive columns, as trained models have them
	softRows = rows{8, 3, 1.0 / 16.} // tokens whose embedding almost vanishes
)

// laws are the kinds of parameters but norms' weights; the first that fits is taken.
var laws = []law{
	{"", shapes.ImageNewline, 1, 0, allRows},
	{shapes.VisionTower, ".class_embedding", 0.05, 0, allRows},
	{shapes.VisionTower, ".position_embedding.weight", 0.05, 0, allRows},
	{shapes.VisionTower, ".patch_embedding.weight", 0, 0.03, allRows},
	{shapes.VisionTower, "norm.bias", 0.2, 0, allRows},
	{shapes.VisionTower, "norm1.bias", 0.2, 0, allRows},
	{shapes.VisionTower, "norm2.bias", 0.2, 0, allRows},
	{shapes.VisionTower, ".q_proj.bias", 0.8, 0, allRows},
	{shapes.VisionTower, ".k_proj.bias", 0.8, 0, allRows},
	{"", ".bias", 0.1, 0, allRows},
	{shapes.VisionTower, ".q_proj.weight", 0, 1.6, allRows},
	{shapes.VisionTower, ".k_proj.weight", 0, 1.6, allRows},
	{shapes.VisionTower, ".v_proj.weight", 0, 1, allRows},
	{shapes.VisionTower, ".out_proj.weight", 0, 0.2, loudRows},
	{shapes.VisionTower, ".fc1.weight", 0, 1.5, allRows},
	{shapes.VisionTower, ".fc2.weight", 0, 0.2, loudRows},
	{shapes.Projector, ".linear_1.weight", 0, 0.5, allRows},
	{shapes.Projector, ".linear_2.weight", 0, 1, allRows},
	{shapes.TextModel, ".embed_tokens.weight", 0.25, 0, softRows},
	{shapes.TextModel, ".q_proj.weight", 0, 1.6, allRows},
	{shapes.TextModel, ".k_proj.weight", 0, 1.6, allRows},
	{shapes.TextModel, ".v_proj.weight", 0, 1, allRows},
	{shapes.TextModel, ".o_proj.weight", 0, 0.2, loudRows},
	{shapes.TextModel, ".gate_proj.weight", 0, 1.5, allRows},
	{shapes.TextModel, ".up_proj.weight", 0, 1, allRows},
	{shapes.TextModel, ".down_proj.weight", 0, 0.2, loudRows},
	{shapes.LMHead, ".weight", 0, 3, allRows},
}

// isNormWeight says whether a parameter is the weight of a LayerNorm or RMSNorm: (pre_layr|post_layer|layer_|input_layer|...)norm.
func isNormWeight(name string) bool {
	for _, suffix := range []string{"norm.weight", "norm1.weight", "norm2.weight"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// stream is one parameter's values.
type stream struct {
	key   uint64
	count int
	cols  int    // values in a row, the product of all axes but the first
	span  uint64 // 2K+1, how many different integers there are
	rows  rows
	// values are the integers -K..K over 2^s (plus 1 for a norm's weight), the one that the draw picks: 2K+1 <= 511 of them.
	values [512]float32
}

// newStream is the law of a parameter, worked out.
func newStream(p shapes.Param, seed uint64) *stream {
	s := &stream{key: fnv1a64(p.Name) ^ seed*golden, count: p.Count(), cols: shapes.Product(p.Shape[1:])}
	k, scale, base := 64, 1.0/128, 1.0 // a norm's weight
	if !isNormWeight(p.Name) {
		l := lawOf(p.Name)
		k, scale = grid(l.halfWidth(s.cols))
		base, s.rows = 0, l.rows
	}
	s.span = uint64(2*k + 1)
	for i := range 2*k + 1 {
		s.values[i] = float32(base + float64(i-k)*scale)
	}
	return s
}

func lawOf(name string) law {
	for _, l := range laws {
		if strings.HasPrefix(name, l.prefix) && strings.HasSuffix(name, l.suffix) {
			return l
		}
	}
	panic("checkpoint: synthetic weights: no law for " + name)
}

// halfWidth is the largest value that the law asks for, before special rows; fanIn is the number of columns.
func (l law) halfWidth(fanIn int) float64 {
	if l.half != 0 {
		return l.half
	}
	return l.gain * math.Sqrt(3/float64(fanIn))
}

// grid is K and 2^-s: s the smallest from 0 with half * 2^s >= 128, K = floor(half * 2^s), so 128 <= K <= 255.
func grid(half float64) (k int, scale float64) {
	scale = 1
	for half/scale < 128 {
		scale /= 2
	}
	return int(half / scale), scale
}

// golden is 2^64 over the golden ratio, made odd: splitmix64's step.
const golden = 0x9e3779b97f4a7c15

// fnv1a64 is the 64-bit FNV-1a hash of a name.
func fnv1a64(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}

// draw is splitmix64's word number j of the stream: four values.
func draw(key, j uint64) uint64 {
	z := key + (j+1)*golden
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// read makes the values from number from on.
func (s *stream) read(from int, dst []float32) {
	s.drawValues(from, dst)
	if s.rows.period == 0 {
		return
	}
	for at := 0; at < len(dst); { // row by row, the first and the last perhaps in part
		row, col := (from+at)/s.cols, (from+at)%s.cols
		n := min(s.cols-col, len(dst)-at)
		if row%s.rows.period == s.rows.phase {
			for i := at; i < at+n; i++ {
				dst[i] *= s.rows.factor
			}
		}
		at += n
	}
}

// drawValues is read before the special rows.
func (s *stream) drawValues(from int, dst []float32) {
	pick := func(u uint64) float32 { return s.values[(u&0xffff)*s.span>>16&511] }
	for len(dst) > 0 && (from%4 != 0 || len(dst) < 4) {
		dst[0] = pick(draw(s.key, uint64(from/4)) >> (16 * (from % 4)))
		dst, from = dst[1:], from+1
	}
	j := uint64(from / 4)
	for ; len(dst) >= 4; dst = dst[4:] {
		u := draw(s.key, j)
		dst[0], dst[1], dst[2], dst[3] = pick(u), pick(u>>16), pick(u>>32), pick(u>>48)
		j++
	}
	for i := range dst {
		dst[i] = pick(draw(s.key, j) >> (16 * i))
	}
}
