package kernel

import (
	"fmt"
	"unsafe"
)

// job is what the threads of a pool work on.
type job struct {
	y, x, bias []float32
	w          *Weights
	direct     Matrix // W, where it is not packed
	stop       bool
	loop       func(*probe) // for Reach
	probe      probe

	inPlace         bool // x is one row that needs no packing
	ownRow          bool // x is one row that every thread packs for itself: that takes less than to wait for another to do it
	blocks, block   int  // of k, and values of one
	rowsBlock       int  // tiles of a row block, which share the second-level cache with a panel
	groups, columns int  // groups of panels, and panels of one
	parts           int  // of the tiles, where each is packed by the thread that multiplies it

	values valuesJob // for what is no product
	attend attendJob // for Append and Attend
}

// phase is a part of the job whose tasks may run at the same time. All tasks of a phase come before any of the next.
type phase struct {
	kind  kind
	first int64
	tasks int
	rows  rows // of x
}

type kind uint8

const (
	packWeights  kind = iota // a panel a task
	packX                    // a block of k of a tile a task
	multiplyRows             // a block of rows, which the thread packs for itself, against all panels a task
	multiply                 // a block of rows against a group of panels a task
	probeLimit               // a part of Reach a task
	multiplyFew              // one tile against some panels that lie far apart a task
	kindValues               // some values a task
	kindNorm                 // some rows a task
	kindRope                 // some positions a task
	kindAppend               // some key heads a task
	kindAttend               // some rows of a head, or all heads of a key head, a task
)

// rows is a range of rows of x, cut into tiles whose heights differ by at most one.
type rows struct{ from, count, tiles int }

// tile is the first row of tile i, counted from the range's first, and its height.
func (r rows) tile(i int) (row, height int) {
	base, more := r.count/r.tiles, r.count%r.tiles
	if i < more {
		return i * (base + 1), base + 1
	}
	return i*base + more, base
}

// Sizes of the work's parts. Tests change them; the results do not depend on them.
var (
	rowsBlockBytes = 560 << 10 // packed x of a block of k that stays in the second-level cache
	scratchBytes   = 64 << 20  // packed x at a time
	groupPanels    = 8         // panels that visit a block of rows one after the other
)

// Blocks of rows that threads pack for themselves: of so many rows at least, or every panel of W comes from memory for too little work, and so many
// blocks a thread, if that leaves so many rows, or a thread that is held up holds up the others.
const (
	leastRows  = 56
	rowsBlocks = 3
)

// farAhead is how far in front of a single tile W is prefetched, in bytes: some 300 ns at the speed of memory. At 2 KiB eight rows
// ran at 60 percent of what they do at 8 KiB.
const farAhead = 8 << 10

// Gemm computes y = x Wᵀ + bias, for m rows of x. bias may be nil. y must not overlap x, bias or W.
// Lengths are exact: x m*K, y m*N, bias N; Gemm panics at any other.
func (p *Pool) Gemm(y, x []float32, m int, w *Weights, bias []float32) {
	if m < 0 || len(x) != m*w.K || len(y) != m*w.N || bias != nil && len(bias) != w.N {
		panic(fmt.Sprintf("kernel: Gemm: y %d, x %d, bias %d values, want [%d %d], [%d %d], [%d] or none", len(y), len(x), len(bias), m, w.N, m, w.K, w.N))
	}
	if overlap(y, x) || overlap(y, bias) {
		panic("kernel: Gemm: y overlaps x or bias")
	}
	if m == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan(y, x, m, w, bias)
	p.run()
}

func overlap(a, b []float32) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	a0, b0 := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return a0 < b0+uintptr(4*len(b)) && b0 < a0+uintptr(4*len(a))
}

// plan cuts the product into phases and tasks. Nothing in it changes the order of a sum.
func (p *Pool) plan(y, x []float32, m int, w *Weights, bias []float32) {
	o := p.ops
	j := &p.job
	*j = job{y: y, x: x, bias: bias, w: w, direct: w.direct}
	k := even(w.K)
	j.blocks, j.block = blocks(k, w.Class)
	j.inPlace = m == 1 && w.Class == Float32 && k == w.K
	panels := ceilDiv(w.N, panelWidth)
	p.phases = p.phases[:0]

	if m <= o.rows {
		r := rows{0, m, 1}
		switch {
		case j.inPlace:
			p.x = unsafe.Pointer(unsafe.SliceData(x))
		case m == 1:
			j.ownRow = true
			for _, w := range p.workers {
				w.room(k * p.xSize())
			}
		default:
			p.scratch(m * k)
			p.phases = append(p.phases, phase{kind: packX, tasks: j.blocks, rows: r})
		}
		j.columns = o.streams(m)
		if !w.Packed() {
			j.columns = 1
		}
		j.groups = ceilDiv(panels, j.columns)
		p.phases = append(p.phases, phase{kind: multiplyFew, tasks: j.groups, rows: r})
		return
	}

	threads, tiles := len(p.workers), ceilDiv(m, o.rows)
	if parts := tiles / (ceilDiv(leastRows, o.rows) * threads); parts > 0 {
		size := o.rows * j.block * p.xSize() // of a tile
		fit := max(1, rowsBlockBytes/size)
		j.parts = threads * max(min(parts, rowsBlocks), ceilDiv(tiles, fit*threads))
		for _, w := range p.workers {
			w.room(ceilDiv(tiles, j.parts) * size)
		}
		p.phases = append(p.phases, phase{kind: multiplyRows, tasks: j.parts, rows: rows{0, m, tiles}})
		return
	}

	j.columns = min(groupPanels, ceilDiv(panels, 4*threads))
	j.groups = ceilDiv(panels, j.columns)
	j.rowsBlock = max(1, rowsBlockBytes/(o.rows*j.block*p.xSize()))
	most := max(o.rows, scratchBytes/(4*k)) // rows at a time
	parts := ceilDiv(m, most)
	for i := range parts {
		from, count := rows{0, m, parts}.tile(i)
		r := rows{from, count, ceilDiv(count, o.rows)}
		p.scratch(count * k)
		p.phases = append(p.phases,
			phase{kind: packX, tasks: r.tiles * j.blocks, rows: r},
			phase{kind: multiply, tasks: ceilDiv(r.tiles, j.rowsBlock) * j.groups, rows: r})
	}
}

// xSize is the number of bytes of one packed value of x.
func (p *Pool) xSize() int {
	if p.job.w.Class == BFloat16 && p.ops.dot != nil {
		return 2
	}
	return 4
}

// xAt is where a tile's block of k starts in packed x: [block of k][tile][k][rows].
func (p *Pool) xAt(x unsafe.Pointer, r rows, row, block int) unsafe.Pointer {
	k0, k := p.blockRange(block)
	return unsafe.Add(x, (k0*r.count+k*row)*p.xSize())
}

func (p *Pool) blockRange(block int) (k0, k int) {
	k0 = block * p.job.block
	return k0, min(p.job.block, even(p.job.w.K)-k0)
}

// task runs task i of a phase.
func (p *Pool) task(w *worker, ph *phase, i int) {
	j := &p.job
	switch ph.kind {
	case packWeights:
		k := even(j.w.K)
		at := unsafe.Pointer(&j.w.packed[i*panelBytes(k, j.w.Type)])
		p.ops.packPanel(&w.packing, at, &j.direct, i*panelWidth, 0, k)
	case packX:
		row, height := ph.rows.tile(i % ph.rows.tiles)
		b := i / ph.rows.tiles
		k0, k := p.blockRange(b)
		p.ops.packTile(&w.packing, p.xAt(p.x, ph.rows, row, b), j.x, j.w.K, ph.rows.from+row, height, k0, k, j.w.Class)
	case probeLimit:
		p.reach(w, i)
	case multiplyRows:
		t0, count := rows{0, ph.rows.tiles, j.parts}.tile(i)
		p.multiply(w, ph, t0, t0+count, 0, ceilDiv(j.w.N, panelWidth))
	case multiply:
		block, group := i/j.groups, i%j.groups
		p.multiply(w, ph, block*j.rowsBlock, min((block+1)*j.rowsBlock, ph.rows.tiles),
			group*j.columns, min((group+1)*j.columns, ceilDiv(j.w.N, panelWidth)))
	case multiplyFew:
		p.multiplyFew(w, ph.rows, i)
	case kindValues:
		p.someValues(w, i)
	case kindNorm:
		p.someRows(w, i)
	case kindRope:
		p.someHeads(w, i)
	case kindAppend:
		p.append(w, i, ph.tasks)
	case kindAttend:
		p.attend(w, i)
	}
}

// multiply is the tiles from t0 to t1 against the panels from n0 to n1: for every block of k, every panel meets every tile. If the x of these
// tiles is the thread's own, it packs a block of k of it while the first panel passes, and has it in its second-level cache from then on.
// While a panel passes, the one after it comes into that cache, a part of it during each tile: memory is busy all of the time, but never all it can.
func (p *Pool) multiply(w *worker, ph *phase, t0, t1, n0, n1 int) {
	j, t, r, own := &p.job, &w.tile, ph.rows, ph.kind == multiplyRows
	row0, _ := r.tile(t0)
	for b := range j.blocks {
		k0, k := p.blockRange(b)
		p.setBlock(t, b)
		for n := n0; n < n1; n++ {
			panel := p.panel(w, n, b)
			next, share := p.panelAfter(ph, n, n0, n1, b), t.prefetch(p.panelBlock(b), t1-t0, j.w.Type)
			for i := t0; i < t1; i++ {
				row, height := r.tile(i)
				t.rows, t.ahead = height, next+uintptr((i-t0)*share)
				if own {
					t.x = unsafe.Add(w.x, (row-row0)*k*p.xSize())
					if n == n0 {
						p.ops.packTile(&w.packing, t.x, j.x, j.w.K, r.from+row, height, k0, k, j.w.Class)
						if i+1 < t1 {
							_, height := r.tile(i + 1)
							t.prefetchRows(unsafe.Pointer(&j.x[(r.from+row+t.rows)*j.w.K+k0]), height, 4*j.w.K, j.w.Type)
						} else {
							t.prefetch(p.panelBlock(b), 1, j.w.Type)
							t.ahead = next
						}
					}
				} else {
					t.x = p.xAt(p.x, r, row, b)
				}
				p.columns(w, panel, n, r.from+row, b)
			}
		}
	}
}

// panelAfter is where the panel is that comes after block b of panel n, of those from n0 to n1, or 0. After the last one it is the first of the task
// that is next to be taken: by this thread, as a rule.
func (p *Pool) panelAfter(ph *phase, n, n0, n1, b int) uintptr {
	switch {
	case !p.job.w.Packed():
	case n+1 < n1:
		return uintptr(p.panel(nil, n+1, b))
	case b+1 < p.job.blocks:
		return uintptr(p.panel(nil, n0, b+1))
	case ph.kind == multiply:
		if i := p.next.Load() - ph.first; i < int64(ph.tasks) {
			return uintptr(p.panel(nil, int(i)%p.job.groups*p.job.columns, 0))
		}
	}
	return 0
}

// panelBlock is how many bytes block b of a panel takes.
func (p *Pool) panelBlock(b int) int {
	_, k := p.blockRange(b)
	return k * panelWidth * p.job.w.Type.Size()
}

// multiplyFew is one tile, all of y's rows, against panels that lie as far apart as they can: i, i + groups, ...
func (p *Pool) multiplyFew(w *worker, r rows, i int) {
	j := &p.job
	t := &w.tile
	x := p.x
	if j.ownRow {
		x = w.x
		if !w.xIsRow {
			p.ops.packTile(&w.packing, x, j.x, j.w.K, 0, 1, 0, even(j.w.K), j.w.Class)
			w.xIsRow = true
		}
	}
	t.rows = r.count
	last := i + (j.columns-1)*j.groups
	if j.columns > 1 && (last+1)*panelWidth <= j.w.N {
		stride := j.w.N * 4
		t.panels, t.dstStride = j.columns, stride
		for b := range j.blocks {
			p.setBlock(t, b)
			t.x = p.xAt(x, r, 0, b)
			for c := range j.columns {
				n := i + c*j.groups
				t.w[c] = p.panel(w, n, b)
				t.dst[c] = unsafe.Pointer(&j.y[n*panelWidth])
				t.src[c], t.srcStride = t.dst[c], stride
				if b == 0 {
					t.src[c], t.srcStride = p.bias(n*panelWidth), 0
				}
			}
			p.inner()(t)
		}
		return
	}
	for n := i; n*panelWidth < j.w.N; n += j.groups {
		for b := range j.blocks {
			panel := p.panel(w, n, b)
			t.x = p.xAt(x, r, 0, b)
			p.setBlock(t, b)
			t.prefetch(p.panelBlock(b), 1, j.w.Type)
			t.ahead = uintptr(panel) + farAhead
			p.columns(w, panel, n, 0, b)
		}
	}
}

// panel is where block b of panel n lies, after packing it if the weights are not.
func (p *Pool) panel(w *worker, n, b int) unsafe.Pointer {
	j := &p.job
	k0, k := p.blockRange(b)
	if j.w.Packed() {
		return unsafe.Pointer(&j.w.packed[n*panelBytes(j.w.K, j.w.Type)+k0*panelWidth*j.w.Type.Size()])
	}
	if w.panel == nil {
		w.panel = make([]float32, blockFloat32*panelWidth+16)
	}
	at := aligned(w.panel)
	p.ops.packPanel(&w.packing, at, &j.direct, n*panelWidth, k0, k)
	return at
}

var zeros [panelWidth]float32

// bias is where the bias of column n starts, for 32 columns.
func (p *Pool) bias(n int) unsafe.Pointer {
	if p.job.bias == nil {
		return unsafe.Pointer(&zeros)
	}
	return unsafe.Pointer(&p.job.bias[n])
}

// inner is the loop for the job's class and type.
func (p *Pool) inner() func(*tile) {
	if p.job.w.Class == BFloat16 && p.ops.dot != nil {
		return p.ops.dot
	}
	return p.ops.tile[p.job.w.Type]
}

// setBlock sets what depends on the block of k alone.
func (p *Pool) setBlock(t *tile, b int) {
	_, k := p.blockRange(b)
	t.steps = k / 2
}

// columns runs one tile, whose x and rows are set, against one panel.
func (p *Pool) columns(w *worker, panel unsafe.Pointer, n, row, b int) {
	j, t := &p.job, &w.tile
	p.setBlock(t, b)
	t.panels = 1
	inner := p.inner()
	wide := p.ops.columns
	if p.xSize() == 2 {
		wide = panelWidth
	}
	stride := j.w.N * 4
	for c := 0; c < panelWidth; c += wide {
		n := n*panelWidth + c
		if n >= j.w.N {
			return
		}
		t.w[0] = unsafe.Add(panel, c*halfStep(j.w.Type))
		if n+wide <= j.w.N {
			t.dst[0], t.dstStride = unsafe.Pointer(&j.y[row*j.w.N+n]), stride
			t.src[0], t.srcStride = t.dst[0], stride
			if b == 0 {
				t.src[0], t.srcStride = p.bias(n), 0
			}
			inner(t)
			continue
		}
		// The right border of y: the tile is made beside it, and what y has of it is copied.
		for i := range t.rows {
			edge := w.edge[i*panelWidth:][:j.w.N-n]
			switch {
			case b > 0:
				copy(edge, j.y[(row+i)*j.w.N+n:])
			case j.bias != nil:
				copy(edge, j.bias[n:])
			default:
				clear(edge)
			}
		}
		t.dst[0], t.dstStride = unsafe.Pointer(&w.edge), panelWidth*4
		t.src[0], t.srcStride = t.dst[0], t.dstStride
		inner(t)
		for i := range t.rows {
			copy(j.y[(row+i)*j.w.N+n:][:j.w.N-n], w.edge[i*panelWidth:])
		}
	}
}
