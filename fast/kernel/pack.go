package kernel

import (
	"fmt"
	"unsafe"
)

// The layout of packed weights. A panel is 32 rows of W over all of K, one panel after the other; rows that W does not
// have are zeros. Inside of a panel:
//
//	F32   [K][32] float32
//	F16   [K][32] float16
//	BF16  [K/2][32][2] bfloat16: two consecutive k of a row in one dword, low half first, which is what VDPBF16PS takes,
//	      and what a shift and a mask widen
//
// All implementations and both classes read the same layout, so packed weights may be kept.

// PackedSize is the number of bytes that Pack needs for the weights, a multiple of 128.
func PackedSize(m Matrix) int { return ceilDiv(m.N, panelWidth) * panelBytes(m.K, m.Type) }

func panelBytes(k int, t Type) int { return even(k) * panelWidth * t.Size() }

// Pack lays the weights out in mem and returns them. mem must be PackedSize(m) bytes long and aligned to 64; Alloc makes
// such memory, in huge pages where there are any. It must stay as it is, and stay mapped, as long as the weights are used.
// m is not needed afterwards.
func (p *Pool) Pack(mem []byte, m Matrix, class Class) *Weights {
	m.check(class)
	if len(mem) != PackedSize(m) || uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%64 != 0 {
		panic(fmt.Sprintf("kernel: Pack: %d bytes at %p, want %d at a multiple of 64", len(mem), unsafe.SliceData(mem), PackedSize(m)))
	}
	w := &Weights{Type: m.Type, Class: class, N: m.N, K: m.K, packed: mem}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.job = job{w: w, direct: m}
	p.phases = append(p.phases[:0], phase{kind: packWeights, tasks: ceilDiv(m.N, panelWidth)})
	p.run()
	return w
}

// Packed are weights that Pack has laid out in mem before, in whole or a multiple of 32 rows at a time, one part behind the other.
// What holds of Pack's mem holds of this one.
func Packed(mem []byte, t Type, n, k int, class Class) *Weights {
	m := Matrix{Type: t, N: n, K: k}
	switch {
	case n <= 0 || k <= 0:
		panic(fmt.Sprintf("kernel: Packed: weights [%d %d], want neither of them 0", n, k))
	case class == BFloat16 && t != BF16:
		panic(fmt.Sprintf("kernel: Packed: weights of %v have no bf16 class", t))
	case len(mem) != PackedSize(m) || uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%64 != 0:
		panic(fmt.Sprintf("kernel: Packed: %d bytes at %p, want %d at a multiple of 64", len(mem), unsafe.SliceData(mem), PackedSize(m)))
	}
	return &Weights{Type: t, Class: class, N: n, K: k, packed: mem}
}

// packPanel lays out k values, from k0, of 32 rows of W, from row n0, at dst.
func (o *matmulOps) packPanel(c *packing, dst unsafe.Pointer, m *Matrix, n0, k0, k int) {
	done := 0
	size := m.Type.Size()
	if f := o.packW[m.Type]; f != nil && n0+panelWidth <= m.N {
		c.blocks, c.rows, c.stride = min(k, m.K-k0)*size/64, 16, m.K*size
		done = c.blocks * 64 / size
		for half := 0; half < 2 && done > 0; half++ {
			c.src = unsafe.Add(m.data(), ((n0+16*half)*m.K+k0)*size)
			c.dst = unsafe.Add(dst, half*16*halfStep(m.Type))
			f(c)
		}
	}
	packPanelGeneric(dst, m, n0, k0+done, k-done, done)
}

// halfStep is how many bytes of a panel one column takes.
func halfStep(t Type) int {
	if t == F16 {
		return 2
	}
	return 4
}

// packPanelGeneric lays out k values, from k0, of the rows from n0, where dst already has room for done values before them.
// Values past the end of W become zeros.
func packPanelGeneric(dst unsafe.Pointer, m *Matrix, n0, k0, k, done int) {
	if k == 0 {
		return
	}
	end := min(k0+k, m.K)
	rows := min(panelWidth, m.N-n0)
	clear(unsafe.Slice((*byte)(unsafe.Add(dst, done*panelWidth*m.Type.Size())), k*panelWidth*m.Type.Size()))
	for r := range rows {
		row := (n0 + r) * m.K
		switch m.Type {
		case F32:
			to := unsafe.Slice((*float32)(dst), (done+k)*panelWidth)
			for i, v := range m.F32[row+k0 : row+end] {
				to[(done+i)*panelWidth+r] = v
			}
		case F16:
			to := unsafe.Slice((*uint16)(dst), (done+k)*panelWidth)
			for i, v := range m.U16[row+k0 : row+end] {
				to[(done+i)*panelWidth+r] = v
			}
		case BF16:
			to := unsafe.Slice((*uint16)(dst), (done+k)*panelWidth)
			for i, v := range m.U16[row+k0 : row+end] {
				at := done + i
				to[(at/2*panelWidth+r)*2+at%2] = v
			}
		}
	}
}

// packTile lays rows of x, k values from k0 (of width in all), out for the tile: [k][rows] float32, or for dot
// [k/2][rows][2] bfloat16. A k past the end of x becomes zeros.
func (o *matmulOps) packTile(c *packing, dst unsafe.Pointer, x []float32, width, row0, rows, k0, k int, class Class) {
	dot := class == BFloat16 && o.dot != nil
	f, values := o.packX, o.xValues
	switch {
	case dot:
		f, values = o.packDot, 32
	case class == BFloat16:
		f = o.rounded
	}
	if !dot && f != nil && !o.xRows(rows) {
		f = nil
	}
	done := 0
	if inside := min(k, width-k0); f != nil && (inside >= values || o.tails) {
		c.blocks, c.rows, c.stride, c.tail = inside/values, rows, width*4, 0
		c.src, c.dst = unsafe.Pointer(&x[row0*width+k0]), dst
		done = c.blocks * values
		if o.tails {
			c.tail, done = inside%values, k
		}
		f(c)
		if done == k {
			return
		}
	}
	end := min(k0+k, width)
	switch {
	case dot:
		to := unsafe.Slice((*uint16)(dst), k*rows)
		for i := range rows {
			for j := done; j < k; j++ {
				var v uint16
				if k0+j < end {
					v = roundBF16(x[(row0+i)*width+k0+j])
				}
				to[(j/2*rows+i)*2+j%2] = v
			}
		}
	default:
		to := unsafe.Slice((*float32)(dst), k*rows)
		for i := range rows {
			at := (row0 + i) * width
			from := x[at+k0+done : at+end]
			if class == BFloat16 {
				for j, v := range from {
					to[(done+j)*rows+i] = widenBF16(roundBF16(v))
				}
			} else {
				for j, v := range from {
					to[(done+j)*rows+i] = v
				}
			}
			for j := end - k0; j < k; j++ {
				to[j*rows+i] = 0
			}
		}
	}
}
