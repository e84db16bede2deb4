package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// narrow rounds the values of src to the dtype, to nearest with ties to even, and stores them little-endian in dst.
// A NaN becomes a quiet one with the upper bits of its payload. It is an error if a finite value would become infinite
// and, where exact is set, if a value would change; at is the index of the first such value.
// len(dst) is len(src) values of the dtype, which must be F32, F16 or BF16.
func narrow(d DType, dst []byte, src []float32, exact bool) (at int, err error) {
	switch d {
	case F32:
		dst = dst[:4*len(src)]
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
	case F16:
		dst = dst[:2*len(src)]
		values := halves()
		for i, x := range src {
			h := float16.Fromfloat32(x).Bits()
			if err := checkNarrow(d, x, values[h], exact); err != nil {
				return i, err
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	case BF16:
		dst = dst[:2*len(src)]
		for i, x := range src {
			h := narrowBF16(x)
			if err := checkNarrow(d, x, math.Float32frombits(uint32(h)<<16), exact); err != nil {
				return i, err
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	default:
		panic("checkpoint: narrow: dtype " + string(d) + ", want F32, F16 or BF16")
	}
	return 0, nil
}

// narrowBF16 rounds to the upper half: adding half a unit, less one unless the last bit that stays is odd, carries exactly
// where rounding to nearest even goes up, into the exponent too. A NaN must not go that way: the carry could reach its sign.
func narrowBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// checkNarrow compares a value with what its rounding to a narrower dtype reads as.
func checkNarrow(d DType, x, y float32, exact bool) error {
	if math.Float32bits(x) == math.Float32bits(y) {
		return nil
	}
	if exact {
		return fmt.Errorf("%v (bits %08x) is no value of %s", x, math.Float32bits(x), d)
	}
	if y-y != 0 && x-x == 0 { // y is infinite, x is not
		return fmt.Errorf("%v is beyond the range of %s", x, d)
	}
	return nil
}
