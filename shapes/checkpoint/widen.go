package checkpoint

import (
	"encoding/binary"
	"math"

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
		for i := range dst {
			dst[i] = widenF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		panic("checkpoint: widen: dtype " + string(d) + ", want F32, F16 or BF16")
	}
}

// widenF16 is float16's conversion with a short way for the normal numbers: same significand, exponent counted from -127
// instead of -15.
func widenF16(h uint16) float32 {
	if e := h & 0x7c00; e != 0 && e != 0x7c00 {
		return math.Float32frombits(uint32(h&0x8000)<<16 | uint32(h&0x7fff)<<13 + (127-15)<<23)
	}
	return float16.Frombits(h).Float32()
}
