package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// hardBits are float32 that rounding to half the bits may get wrong: NaNs whose payload is in the bits that go, both signs, signalling and
// quiet; ties to even and beside them; the last that is not an infinity; denormals.
var hardBits = []uint32{
	0x7f800001, 0xff800001, 0x7fc00001, 0xffffffff, 0x7f80ffff, 0x7f800000, 0xff800000, 0x7f7fffff, 0x7f7f8000, 0x7f7f7fff, 0xff7f8000,
	0x3f808000, 0x3f818000, 0x3f808001, 0x3f817fff, 0x3f80ffff, 0xbf808000, 0x00000001, 0x00008000, 0x00018000, 0x80008001, 0x80000000, 0x007fffff,
}

// TestPackTile holds that rows of x lie in a tile as pack.go says, for every number of rows that a tile has, both classes, lengths with
// and without tails, an odd width, in memory that ends at guard pages. What the bf16 class makes of every value is compared, hard ones too.
func TestPackTile(t *testing.T) {
	each(t, func(t *testing.T, m *implementation) {
		r := rand.New(rand.NewPCG(61, 62))
		for rows := 1; rows <= m.matmul.rows; rows++ {
			for _, width := range []int{1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 36, 63, 64, 65, 67, 131} {
				for _, first := range []int{0, 2} {
					for _, class := range []Class{Float32, BFloat16} {
						k := even(width - first)
						if k <= 0 {
							continue
						}
						x := guarded(t, (rows+1)*width)
						for i := range x {
							x[i] = float32(r.NormFloat64())
							if r.IntN(3) == 0 {
								x[i] = math.Float32frombits(hardBits[r.IntN(len(hardBits))])
							}
						}
						dot := class == BFloat16 && m.matmul.dot != nil
						size := k * rows
						if dot {
							size /= 2
						}
						y, check := newArena(t, size+16).place(size, 0)
						m.matmul.packTile(&packing{}, unsafe.Pointer(&y[0]), x, width, 1, rows, first, k, class)
						if err := check(); err != nil {
							t.Fatalf("%d rows of %d, %v: %v", rows, width, class, err)
						}
						for i := range rows {
							for j := range k {
								var v float32
								if first+j < width {
									v = x[(1+i)*width+first+j]
								}
								want, at := math.Float32bits(v), j*rows+i
								if class == BFloat16 {
									want = uint32(roundBF16(v)) << 16
								}
								got := uint32(0)
								if dot {
									at = (j/2*rows+i)*2 + j%2
									got = uint32(unsafe.Slice((*uint16)(unsafe.Pointer(&y[0])), k*rows)[at]) << 16
									if v != 0 && math.Abs(float64(v)) < 0x1p-126 {
										continue // VCVTNE2PS2BF16 takes denormals for 0, as the class says
									}
								} else {
									got = math.Float32bits(y[at])
								}
								if got != want {
									t.Fatalf("%d rows of %d from %d, %v: x[%d, %d] = %#x lies there as %#x, want %#x", rows, width, first, class, i, j, math.Float32bits(v), got, want)
								}
							}
						}
					}
				}
			}
		}
	})
}
