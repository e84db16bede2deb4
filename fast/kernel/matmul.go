package kernel

import (
	"fmt"
	"unsafe"
)

// Letters of this package: x [M, K], W [N, K], y [M, N]. K is rounded up to even in all layouts, by one zero.

// Type is the type of a weight in memory.
type Type uint8

// The types of weights.
const (
	F32 Type = iota
	F16
	BF16
)

// String is the type's name.
func (t Type) String() string { return [...]string{"F32", "F16", "BF16"}[t] }

// Size is the number of bytes of one weight.
func (t Type) Size() int {
	if t == F32 {
		return 4
	}
	return 2
}

// Class is the arithmetic of a product.
type Class uint8

// The classes, described at the head of the package.
const (
	Float32 Class = iota
	BFloat16
)

// String is the class's name.
func (c Class) String() string { return [...]string{"float32", "bf16"}[c] }

// Matrix is W as a checkpoint holds it: [N, K], row-major, in F32 if Type is F32, else the bits of its values in U16.
type Matrix struct {
	Type Type
	N, K int
	F32  []float32
	U16  []uint16
}

// data is the address of the first weight.
func (m *Matrix) data() unsafe.Pointer {
	if m.Type == F32 {
		return unsafe.Pointer(unsafe.SliceData(m.F32))
	}
	return unsafe.Pointer(unsafe.SliceData(m.U16))
}

func (m *Matrix) check(class Class) {
	have := len(m.U16)
	if m.Type == F32 {
		have = len(m.F32)
	}
	switch {
	case m.N <= 0 || m.K <= 0 || have != m.N*m.K:
		panic(fmt.Sprintf("kernel: Matrix: %d weights of %v, want [%d %d], neither of them 0", have, m.Type, m.N, m.K))
	case class == BFloat16 && m.Type != BF16:
		panic(fmt.Sprintf("kernel: Matrix: weights of %v have no bf16 class", m.Type))
	}
}

// Weights are the W of a product, packed or where they lie, and its class. They are read-only and may serve any
// number of pools at a time.
type Weights struct {
	Type  Type
	Class Class
	N, K  int

	packed []byte // panels of 32 rows of W, or none
	direct Matrix
}

// WithClass is the same weights, in the same memory, for products of another class.
func (w *Weights) WithClass(class Class) *Weights {
	c := *w
	c.Class = class
	if class == BFloat16 && w.Type != BF16 {
		panic(fmt.Sprintf("kernel: Weights: weights of %v have no bf16 class", w.Type))
	}
	return &c
}

// Packed says whether the weights have been packed; those of Direct have not.
func (w *Weights) Packed() bool { return w.packed != nil }

// Direct makes weights of W where it lies, a mapped checkpoint for example: m's slice must stay mapped and unchanged as
// long as the weights are used. Each product then lays W out for itself, in pieces that fit the cache. That costs little
// where many rows of x share it and much where there is one row (BenchmarkGemm, sub-benchmarks direct).
func Direct(m Matrix, class Class) *Weights {
	m.check(class)
	return &Weights{Type: m.Type, Class: class, N: m.N, K: m.K, direct: m}
}

// panelWidth is how many rows of W one panel holds.
const panelWidth = 32

// Sizes of a block of k, in values. A longer block spreads the cost of a tile's end over more products; a shorter one makes
// a better sum, and its part of x and of a panel must stay in the second-level cache.
const (
	blockFloat32  = 1024
	blockBFloat16 = 2048
)

// blocks cuts k (even) into equal blocks of an even size, but for the last, which may be smaller.
func blocks(k int, class Class) (count, size int) {
	most := blockFloat32
	if class == BFloat16 {
		most = blockBFloat16
	}
	count = ceilDiv(k, most)
	size = even(ceilDiv(k, count))
	return ceilDiv(k, size), size
}

func even(n int) int { return (n + 1) &^ 1 }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// tile is the argument of the inner loops: one block of k of some rows of y, all columns of one to four panels of W
// (or the 16 columns of half a panel).
//
//	for each panel p, row i, column j:
//		sum = 0
//		for k in the block, in order: sum = fma(x[k, i], w[p][k, j], sum)
//		dst[p][i, j] = src[p][i, j] + sum
//
// The assembly knows the offsets of these fields.
type tile struct {
	steps                int               // two k each
	rows, panels         int               // a pair that the implementation has a loop for
	ahead                uintptr           // where something starts that will be needed soon; may point anywhere
	aheadStride          int               // bytes from one to the next of the lines of it that one step prefetches
	aheadStep            int               // bytes from step to step
	aheadRows, aheadWrap int               // after so many steps so many bytes more; 0 steps are never over
	srcStride, dstStride int               // bytes from row to row
	x                    unsafe.Pointer    // [k][rows] float32, or [k/2][rows][2] bfloat16
	w                    [4]unsafe.Pointer // panels, from the block's first k
	src, dst             [4]unsafe.Pointer // in the panel's first column
}

// aheadLines is how many lines one step of a tile of one panel prefetches: as many as it reads of the panel.
func (t Type) aheadLines() int { return t.Size() }

// prefetch sets how the tile, whose steps are set, prefetches its part of so many bytes that count tiles share, and returns how large a part is.
func (t *tile) prefetch(bytes, count int, typ Type) (share int) {
	share = ceilDiv(bytes, count)
	t.aheadStride = ceilDiv(share, t.steps*typ.aheadLines())
	t.aheadStep = t.aheadStride * typ.aheadLines()
	t.aheadRows, t.aheadWrap = 0, 0
	return share
}

// prefetchRows lets the tile prefetch as many bytes of each of some rows as it needs to be packed, some lines of a row in every step.
func (t *tile) prefetchRows(from unsafe.Pointer, rows, stride int, typ Type) {
	t.ahead, t.aheadStride, t.aheadStep = uintptr(from), 64, stride
	t.aheadRows, t.aheadWrap = rows, 64*typ.aheadLines()-rows*stride
}

// packing is the argument of the loops that rearrange rows: blocks of 64 bytes (or what the function says) of some rows.
// The assembly knows the offsets of these fields.
type packing struct {
	blocks   int
	rows     int
	stride   int // bytes from row to row
	src, dst unsafe.Pointer
	tail     int // values of each row after the blocks, for packX and packDot where there are tails
}

// matmulOps are the inner loops of one implementation.
type matmulOps struct {
	rows    int                 // the most rows of a tile of one panel
	columns int                 // columns of a tile of one panel: 32, or 16 for half a panel
	streams func(rows int) int  // how many panels to take at a time when all of y is this many rows; nil is 1
	tile    [3]func(*tile)      // by type of the weights, float32 class; nil is generic
	dot     func(*tile)         // bf16 class; nil: x is rounded, and tile does the rest
	packW   [3]func(*packing)   // 16 rows of W, 64 bytes of each a block, into half a panel; nil: plain Go does it all
	packX   func(*packing)      // rows of x into a tile; nil: plain Go does it all
	xValues int                 // values of each row that a block of packX holds
	xRows   func(rows int) bool // which numbers of rows packX takes
	packDot func(*packing)      // rows of x into a tile for dot, 32 values of each a block
	tails   bool                // packX and packDot take less than a block at the end
	rounded func(*packing)      // packX of the bf16 class where there is no dot: rounds x, too; nil: plain Go does it all
}

// complete fills in what an implementation leaves to plain Go.
func (o *matmulOps) complete() {
	for t, f := range o.tile {
		if f == nil {
			o.tile[t] = genericMatmul.tile[t]
		}
	}
	if o.streams == nil {
		o.streams = func(int) int { return 1 }
	}
}
