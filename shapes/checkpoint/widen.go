package checkpoint

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/x448/float16"
)

// widen converts the little-endian values in src to float32, without rounding. A NaN keeps its sign and its payload;
// one of F16 also becomes quiet, as every processor's own conversion makes it, one of BF16 or F32 keeps all its bits.
// len(src) is len(dst) values of the dtype, which must be readable.
func widen(d DType, dst []float32, src []byte) {
	switch d {
	case F32:
		src = src[:4*len(dst)]
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case BF16:
		src = src[:2*len(dst)]
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case F16:
		src = src[:2*len(dst)]
		values := halves()
		for i := range dst {
			dst[i] = values[binary.LittleEndian.Uint16(src[2*i:])]
		}
	default:
		panic("checkpoint: widen: dtype " + string(d) + ", want F32, F16 or BF16")
	}
}

// halves are all values of F16 by their bits. Looking one up takes less than half the time of working it out (BenchmarkWiden).
var halves = sync.OnceValue(func() *[1 << 16]float32 {
	values := new([1 << 16]float32)
	for h := range values {
		values[h] = float16.Frombits(uint16(h)).Float32()
	}
	return values
})
