package kernel

import (
	"fmt"
	"math"
	"runtime"
	"unsafe"
)

// KV holds the keys and values of one layer of one sequence, as the inner loops of products read them. For each head:
//
//	keys    [capacity/32][dim][32]: 32 positions side by side, as a panel of weights of which they are rows
//	values  [dim/32][capacity][32]: 32 columns of all positions, as panels of the transposed values
//
// Capacity is rounded up to a multiple of 32, and the columns of values, too. The memory is given back when nothing refers to
// the KV any more. A KV serves one pool at a time.
type KV struct {
	capacity, kvHeads, dim int // capacity as asked for
	length                 int
	room                   int // positions, a multiple of 32
	columns                int // of values, a multiple of 32
	keys, values           []float32
	mem                    []byte
}

// NewKV makes room for so many positions of kvHeads heads of width dim, which must be even. See [KV.Bytes] for its size.
func NewKV(capacity, kvHeads, dim int) *KV {
	if capacity <= 0 || kvHeads <= 0 || dim <= 0 || dim%2 != 0 || dim > blockFloat32 {
		panic(fmt.Sprintf("kernel: NewKV: capacity %d, %d heads of %d, want positive numbers and an even width of at most %d", capacity, kvHeads, dim, blockFloat32))
	}
	kv := &KV{capacity: capacity, kvHeads: kvHeads, dim: dim, room: ceilDiv(capacity, panelWidth) * panelWidth, columns: ceilDiv(dim, panelWidth) * panelWidth}
	mem, free, err := Alloc(KVBytes(capacity, kvHeads, dim))
	if err != nil {
		panic(err) // as the Go heap does when memory is out
	}
	runtime.AddCleanup(kv, func(free func() error) { _ = free() }, free)
	all := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/4)
	keys := kvHeads * kv.room * dim
	kv.keys, kv.values, kv.mem = all[:keys:keys], all[keys:], mem
	return kv
}

// KVBytes is how much memory NewKV takes.
func KVBytes(capacity, kvHeads, dim int) int {
	return 4 * kvHeads * ceilDiv(capacity, panelWidth) * panelWidth * (dim + ceilDiv(dim, panelWidth)*panelWidth)
}

// Len is how many positions have been appended.
func (kv *KV) Len() int { return kv.length }

// Capacity is how many positions there is room for.
func (kv *KV) Capacity() int { return kv.capacity }

// Bytes is the memory that the KV takes.
func (kv *KV) Bytes() int { return len(kv.mem) }

// Reset forgets all positions. The memory stays.
func (kv *KV) Reset() { kv.Truncate(0) }

// Truncate forgets all positions but the first n.
func (kv *KV) Truncate(n int) {
	if n < 0 || n > kv.length {
		panic(fmt.Sprintf("kernel: KV: Truncate to %d positions, have %d", n, kv.length))
	}
	kv.setLength(n)
}

// setLength sees to it that a sum over an even number of positions adds nothing for one past the last.
func (kv *KV) setLength(n int) {
	kv.length = n
	if n%2 == 0 {
		return
	}
	for h := range kv.kvHeads {
		for c := 0; c < kv.columns; c += panelWidth {
			clear(kv.valuesAt(h, c, n)[:panelWidth])
		}
	}
}

// keysAt is the panel of head h that holds position n, a multiple of 32.
func (kv *KV) keysAt(h, n int) []float32 {
	return kv.keys[(h*kv.room+n)*kv.dim:][:panelWidth*kv.dim]
}

// valuesAt are the values of head h from position n on, in the panel of column c, a multiple of 32.
func (kv *KV) valuesAt(h, c, n int) []float32 {
	return kv.values[(h*kv.columns+c)*kv.room+n*panelWidth : (h*kv.columns+c+panelWidth)*kv.room]
}

// attendJob is a job of the pool over the heads of a KV.
type attendJob struct {
	kv       *KV
	k, v     []float32 // to append: [n, kvHeads*dim]
	y, q     []float32 // [n, heads*dim]
	n        int       // positions to append, or queries
	heads    int
	scale    float32
	causal   bool
	together int // query heads of a key head that share a tile: all when there are few queries, or 1
	block    int // rows of a task, a multiple of the tile but for the last
	blocks   int // tasks of a head, or of a key head
	stride   int // values from row to row of the scores
}

// Append adds n positions, k and v [n, kvHeads*dim] each, after those that are there. There must be room.
func (p *Pool) Append(kv *KV, k, v []float32) {
	width := kv.kvHeads * kv.dim
	n := len(k) / width
	if len(k) != n*width || len(v) != len(k) || n > kv.capacity-kv.length {
		panic(fmt.Sprintf("kernel: Append: keys %d, values %d values, want the same number of positions of %d, at most %d of them", len(k), len(v), width, kv.capacity-kv.length))
	}
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.job = job{attend: attendJob{kv: kv, k: k, v: v, n: n}}
	tasks := kv.kvHeads
	if n*width < taskValues {
		tasks = 1
	}
	p.phases = append(p.phases[:0], phase{kind: kindAppend, tasks: tasks})
	p.run()
	kv.setLength(kv.length + n)
}

// append is task i of so many: the positions of some heads.
func (p *Pool) append(w *worker, i, tasks int) {
	j := &p.job.attend
	kv := j.kv
	width := kv.kvHeads * kv.dim
	for h := i; h < kv.kvHeads; h += tasks {
		p.appendKeys(w, h)
		for c := 0; c < kv.dim; c += panelWidth {
			to := kv.valuesAt(h, c, kv.length)
			from := j.v[h*kv.dim+c:]
			count := min(panelWidth, kv.dim-c)
			for r := range j.n {
				row := to[r*panelWidth:][:panelWidth]
				if count == panelWidth {
					*(*[panelWidth]float32)(row) = *(*[panelWidth]float32)(from[r*width:])
					continue
				}
				clear(row[copy(row, from[r*width:][:count]):])
			}
		}
	}
}

// appendKeys writes keys into their panels: groups of 16 positions as the implementation packs weights, the rest one by one.
func (p *Pool) appendKeys(w *worker, h int) {
	j := &p.job.attend
	kv := j.kv
	width := kv.kvHeads * kv.dim
	pack := p.ops.packW[F32]
	for r := 0; r < j.n; {
		at := kv.length + r
		panel := kv.keysAt(h, at/panelWidth*panelWidth)
		if pack != nil && at%16 == 0 && r+16 <= j.n && kv.dim%16 == 0 {
			c := &w.packing
			c.blocks, c.rows, c.stride = kv.dim/16, 16, 4*width
			c.src, c.dst = unsafe.Pointer(&j.k[r*width+h*kv.dim]), unsafe.Pointer(&panel[at%panelWidth])
			pack(c)
			r += 16
			continue
		}
		for d, v := range j.k[r*width+h*kv.dim:][:kv.dim] {
			panel[d*panelWidth+at%panelWidth] = v
		}
		r++
	}
}

// attendBytes are the scores that a task keeps, in the second-level cache; blockKeys is how many positions one sum of the context
// runs over before it is added to those before. Tests change the first; the results do not depend on it.
var attendBytes = 384 << 10

const blockKeys = blockFloat32

var negativeInf = float32(math.Inf(-1))

// Attend computes, for each query and each of its heads, softmax(scale q kᵀ) v over the positions that the query sees: y and q are
// [n, heads*dim], query i is at position kv.Len()-n+i and sees that position and those before it if causal, else all. Head h reads key head
// h/(heads/kvHeads). scale is positive. y must not overlap q.
//
// All in float32: one sum of products runs over dim in order, or over blocks of 1024 positions in order, block after block; the
// softmax subtracts the largest score, and its sum is as at lanes; y is divided by the sum last. The bits of a row therefore depend on its
// query and on what it sees, not on the other queries, on chunks, threads, or the implementation. Only: a NaN or an infinity among
// the values of a position that follows a query closely may make its row NaN.
func (p *Pool) Attend(y, q []float32, kv *KV, heads int, scale float32, causal bool) {
	n := 0
	if heads > 0 {
		n = len(q) / (heads * kv.dim)
	}
	if heads <= 0 || heads%kv.kvHeads != 0 || len(q) != n*heads*kv.dim || len(y) != len(q) || !(scale > 0) {
		panic(fmt.Sprintf("kernel: Attend: y %d, q %d values, %d heads over %d of width %d, scale %v, want whole rows of a multiple of heads, and a positive scale", len(y), len(q), heads, kv.kvHeads, kv.dim, scale))
	}
	if n == 0 {
		return
	}
	if kv.length == 0 || causal && n > kv.length {
		panic(fmt.Sprintf("kernel: Attend: %d queries, %d positions", n, kv.length))
	}
	if overlap(y, q) {
		panic("kernel: Attend: y overlaps q")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.planAttend(attendJob{kv: kv, y: y, q: q, n: n, heads: heads, scale: scale, causal: causal})
	p.run()
}

// planAttend cuts an attention into tasks: a block of queries of a head each, or one query of all heads that share a key head.
func (p *Pool) planAttend(j attendJob) {
	kv, o := j.kv, p.ops
	group := j.heads / kv.kvHeads
	padded := ceilDiv(kv.length, panelWidth) * panelWidth
	j.stride = padded
	if padded/16%2 == 0 { // rows a multiple of 4 KiB apart would share their places in the first-level cache
		j.stride += 16
	}
	var tasks int
	if j.n < o.rows && group > 1 {
		j.together, j.block, j.blocks = group, min(group, o.rows), j.n
		tasks = j.n * kv.kvHeads
	} else {
		tiles := ceilDiv(j.n, o.rows)
		fit := max(1, attendBytes/(4*j.stride*o.rows))     // tiles of a task by memory
		share := max(1, tiles*j.heads/(16*len(p.workers))) // and by the number of threads, which end together if tasks are short
		parts := ceilDiv(tiles, min(fit, share))           // of a head
		j.together, j.block, j.blocks = 1, ceilDiv(tiles, parts)*o.rows, 0
		j.blocks = ceilDiv(j.n, j.block)
		tasks = j.blocks * j.heads
	}
	rows := min(j.block, max(j.n, group))
	for _, w := range p.workers {
		w.attend.grow(rows, o.rows, j.stride, kv)
	}
	p.job = job{attend: j}
	p.phases = append(p.phases[:0], phase{kind: kindAttend, tasks: tasks})
}

// attendScratch is what one thread keeps of an attention.
type attendScratch struct {
	scores  []float32 // [rows of the task, stride]
	q       []float32 // packed, tile after tile: [dim][rows]
	p       []float32 // the probabilities of one block of positions of a tile, packed: [positions][rows]
	context []float32 // [rows of a tile, columns]
}

// grow makes room for a task. A tile's scores get room for all positions of the KV, so that a sequence that grows one by one allocates nothing.
func (s *attendScratch) grow(rows, tile, stride int, kv *KV) {
	for _, b := range []struct {
		to *[]float32
		n  int
	}{{&s.scores, max(rows*stride, tile*(kv.room+16))}, {&s.q, rows * kv.dim}, {&s.p, tile * blockKeys}, {&s.context, tile * kv.columns}} {
		if len(*b.to) < b.n+16 {
			*b.to = make([]float32, b.n+16)
		}
	}
}

// attend is task i: some rows of scores, their softmax, and the context.
func (p *Pool) attend(w *worker, i int) {
	j := &p.job.attend
	kv, o, s := j.kv, p.ops, &w.attend
	// Rows of q, seen as a matrix, and the key head that they read.
	var kvHead, rowFrom, rowCount, rowWidth, column int
	var query int // of the first row
	if j.together > 1 {
		kvHead, query = i%kv.kvHeads, i/kv.kvHeads
		rowFrom, rowCount, rowWidth = query*j.heads+kvHead*j.together, j.together, kv.dim
	} else {
		// The last block of a causal attention takes longest, so it goes first. Else the blocks of a head follow each other, so that
		// its keys and values stay in the second-level cache.
		head, block := i/j.blocks, i%j.blocks
		if j.causal {
			head, block = i%j.heads, j.blocks-1-i/j.heads
		}
		kvHead = head / (j.heads / kv.kvHeads)
		query = block * j.block
		rowFrom, rowCount, rowWidth, column = query, min(j.block, j.n-query), j.heads*kv.dim, head*kv.dim
	}
	for from := 0; from < rowCount; from += j.block {
		p.attendRows(w, o, s, kvHead, rows{rowFrom + from, min(j.block, rowCount-from), 0}, rowWidth, column, query)
	}
}

// sees is how many positions the query of a row sees; row counts from the first of a task, whose query is given.
func (j *attendJob) sees(query, row int) int {
	if !j.causal {
		return j.kv.length
	}
	if j.together == 1 {
		query += row
	}
	return j.kv.length - j.n + query + 1
}

// attendRows is the attention of rows r of q, a matrix of rows of the given width of which the head has dim columns from the given one.
func (p *Pool) attendRows(w *worker, o *matmulOps, s *attendScratch, kvHead int, r rows, width, column, query int) {
	j := &p.job.attend
	kv := j.kv
	r.tiles = ceilDiv(r.count, o.rows)
	scores, qs := aligned(s.scores), aligned(s.q)
	for t := range r.tiles {
		row, height := r.tile(t)
		o.packTile(&w.packing, unsafe.Add(qs, 4*row*kv.dim), j.q, width, r.from+row, height, column, kv.dim, Float32)
	}

	t := &w.tile
	t.steps = kv.dim / 2
	t.dstStride = 4 * j.stride
	most := j.sees(query, r.count-1)
	panels, keys := ceilDiv(most, panelWidth), 4*panelWidth*kv.dim
	if r.tiles == 1 {
		t.rows, t.x = r.count, qs
		first := unsafe.Pointer(unsafe.SliceData(kv.keysAt(kvHead, 0)))
		o.panels(t, first, keys, panels, scores, nil)
	} else {
		for n := range panels {
			panel := unsafe.Pointer(unsafe.SliceData(kv.keysAt(kvHead, n*panelWidth)))
			share := t.prefetch(keys, r.tiles, F32) // the next panel comes into the second-level cache
			for i := range r.tiles {
				row, height := r.tile(i)
				if j.sees(query, row+height-1) <= n*panelWidth {
					continue
				}
				t.rows, t.x, t.ahead = height, unsafe.Add(qs, 4*row*kv.dim), uintptr(panel)+uintptr(keys+i*share)
				o.columnsOf(t, panel, unsafe.Add(scores, 4*(row*j.stride+n*panelWidth)), nil)
			}
		}
	}

	for i := range r.tiles {
		row, height := r.tile(i)
		limit := j.sees(query, row+height-1) // of the tile
		p.softmaxRows(w, unsafe.Add(scores, 4*row*j.stride), height, limit, query, row)
		p.context(w, o, unsafe.Add(scores, 4*row*j.stride), kvHead, height, limit)
		for k := range height {
			v := &w.vector
			v.n, v.scale = kv.dim, w.sums[k]
			v.a, v.y = unsafe.Add(aligned(s.context), 4*k*kv.columns), unsafe.Pointer(&j.y[(r.from+row+k)*width+column])
			if kv.dim%lanes == 0 {
				p.vector.divide(v)
			} else {
				genericVector.divide(v)
			}
		}
	}
}

// softmaxRows turns the scores of a tile into exponentials, those that a row does not see into 0, up to the limit of the tile, and
// keeps the sums.
func (p *Pool) softmaxRows(w *worker, scores unsafe.Pointer, height, limit, query, row int) {
	j := &p.job.attend
	padded := ceilDiv(limit, panelWidth) * panelWidth
	for k := range height {
		at := unsafe.Add(scores, 4*k*j.stride)
		all := unsafe.Slice((*float32)(at), padded)
		sees := j.sees(query, row+k)
		whole := ceilDiv(sees, lanes) * lanes
		for i := sees; i < whole; i++ {
			all[i] = negativeInf
		}
		clear(all[whole:])
		w.vector = vector{n: whole, y: at, a: at, scale: j.scale}
		p.vector.softmax(&w.vector)
		w.sums[k] = w.vector.sum
	}
}

// context is the product of a tile's exponentials and the values, into the thread's scratch.
func (p *Pool) context(w *worker, o *matmulOps, scores unsafe.Pointer, kvHead, height, limit int) {
	j, s, t := &p.job.attend, &w.attend, &w.tile
	kv := j.kv
	x, y := aligned(s.p), aligned(s.context)
	from := unsafe.Slice((*float32)(scores), (height-1)*j.stride+ceilDiv(limit, panelWidth)*panelWidth)
	t.rows, t.x, t.dstStride = height, x, 4*kv.columns
	for k0 := 0; k0 < limit; k0 += blockKeys {
		k := min(blockKeys, even(limit)-k0)
		// Behind the limit the scores go on, with zeros, to the end of a panel: whole blocks are packed by the implementation's loop.
		o.packTile(&w.packing, x, from, j.stride, 0, height, k0, min(blockKeys, ceilDiv(k, panelWidth)*panelWidth), Float32)
		t.steps = k / 2
		var src unsafe.Pointer
		if k0 > 0 {
			src = y
		}
		o.panels(t, unsafe.Pointer(unsafe.SliceData(kv.valuesAt(kvHead, 0, k0))), 4*panelWidth*kv.room, kv.columns/panelWidth, y, src)
	}
}

// columnsOf runs a tile, whose rows and x are set, against one panel: dst = sums, or src + sums if there is a src (which is dst).
func (o *matmulOps) columnsOf(t *tile, panel, dst, src unsafe.Pointer) {
	t.panels = 1
	for c := 0; c < panelWidth; c += o.columns {
		t.w[0], t.dst[0] = unsafe.Add(panel, 4*c), unsafe.Add(dst, 4*c)
		t.src[0], t.srcStride = unsafe.Pointer(&zeros), 0
		if src != nil {
			t.src[0], t.srcStride = t.dst[0], t.dstStride
		}
		o.tile[F32](t)
	}
}

// panels runs a tile against count panels, size bytes apart, whose results are side by side from dst on: as many panels at a time as the
// implementation can, those far from each other, which is how memory is read fastest.
func (o *matmulOps) panels(t *tile, first unsafe.Pointer, size, count int, dst, src unsafe.Pointer) {
	together := o.streams(t.rows)
	groups := count / together
	if together == 1 {
		groups = 0
	}
	for g := range groups {
		t.panels = together
		for c := range together {
			n := g + c*groups
			t.w[c], t.dst[c] = unsafe.Add(first, n*size), unsafe.Add(dst, 4*panelWidth*n)
			t.src[c], t.srcStride = unsafe.Pointer(&zeros), 0
			if src != nil {
				t.src[c], t.srcStride = t.dst[c], t.dstStride
			}
		}
		o.tile[F32](t)
	}
	for n := groups * together; n < count; n++ {
		panel := unsafe.Add(first, n*size)
		t.prefetch(size, 1, F32)
		t.ahead = uintptr(panel) + farAhead
		at := unsafe.Add(dst, 4*panelWidth*n)
		if src != nil {
			src = at
		}
		o.columnsOf(t, panel, at, src)
	}
}
