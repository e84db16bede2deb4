package kernel

import (
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Pool runs products and the other operations on a fixed number of threads, the caller's among them. Its calls exclude each other; two pools do
// not. A pool owns goroutines and scratch memory until Close.
type Pool struct {
	mu      sync.Mutex
	ops     *matmulOps
	vector  *vectorOps
	limits  *limitOps
	workers []*worker
	helpers sync.WaitGroup

	job    job
	phases []phase
	total  int64  // tasks of all phases
	xs     []byte // packed x, from Alloc
	freeXs func() error
	x      unsafe.Pointer // xs, or a row of x that needs no packing

	next    atomic.Int64  // the first task that nobody has taken
	done    atomic.Int64  // tasks that have run
	round   atomic.Uint64 // counts jobs; odd while one runs
	inside  atomic.Int64  // helpers that may be looking at the job
	closed  bool
	crowded bool            // more threads than processors
	labels  context.Context // for the threads of the next job; nil before the first Label

	sleep    sync.Mutex // for threads that have waited too long for done
	awake    *sync.Cond
	sleepers atomic.Int64
}

// worker is what one thread needs for itself.
type worker struct {
	tile    tile
	packing packing
	vector  vector
	attend  attendScratch
	sums    [16]float32 // of the softmax of the rows of a tile
	probe   probe
	x       unsafe.Pointer // packed x of this thread's own, from Alloc
	xSize   int            // bytes of it
	freeX   func() error
	xIsRow  bool                     // x has the only row of this job
	edge    [16 * panelWidth]float32 // a tile at the right border of y
	panel   []float32                // a block of a panel of weights that are not packed
	wake    chan struct{}
	parked  atomic.Bool
	labels  context.Context // that the thread has on
	_       [64]byte
}

// NewPool starts a pool of so many threads for the active implementation. Most callers want runtime.GOMAXPROCS(0).
func NewPool(threads int) *Pool { return newPool(threads, active) }

func newPool(threads int, m *implementation) *Pool {
	if threads < 1 {
		panic(fmt.Sprintf("kernel: NewPool: %d threads, want at least 1", threads))
	}
	p := &Pool{ops: &m.matmul, vector: &m.vector, limits: &m.limits, crowded: threads > runtime.GOMAXPROCS(0)}
	p.awake = sync.NewCond(&p.sleep)
	for i := range threads {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		if i > 0 {
			p.helpers.Add(1)
			go p.help(w)
		}
	}
	return p
}

// Close stops the pool's goroutines and waits for them. The pool must not be used again.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.job.stop = true
	p.round.Add(1)
	p.wakeHelpers()
	p.helpers.Wait()
	p.free()
	for _, w := range p.workers {
		w.free()
	}
}

// Label puts the pprof labels of a context on the calling goroutine, and on the pool's threads from the next job on. A context that comes again
// costs next to nothing; a pool that was never labelled pays nothing.
func (p *Pool) Label(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.labels = ctx
	pprof.SetGoroutineLabels(ctx)
}

// Threads is the number of threads of the pool.
func (p *Pool) Threads() int { return len(p.workers) }

// patience is how long a thread looks for what it waits for before it sleeps: a helper for a job, a thread for the tasks of others. To wake a thread
// takes some 80 microseconds, so it has to outlast what one thread does alone inside of a layer: the last task of a
// job, and what stands between two jobs. To look for longer would take the processor from other work. Tests change it.
var patience = 500 * time.Microsecond

// spins is how often a thread looks before it looks at the clock, and how often in all where there are more threads than processors:
// there the thread that is waited for may need the processor of the one that waits.
const spins = 2000

// until looks at f until it holds, or for as long as patience says. It returns what f said last.
func (p *Pool) until(f func() bool) bool {
	var begin time.Time
	for {
		for range spins {
			if f() {
				return true
			}
		}
		switch now := time.Now(); {
		case p.crowded:
			return false
		case begin.IsZero():
			begin = now
		case now.Sub(begin) >= patience:
			return f()
		}
	}
}

// run does the phases of the job on all threads and returns when all is done.
func (p *Pool) run() {
	p.total = 0
	for i := range p.phases {
		p.phases[i].first = p.total
		p.total += int64(p.phases[i].tasks)
	}
	p.next.Store(0)
	p.done.Store(0)
	if len(p.workers) == 1 || p.total == 1 {
		p.work(p.workers[0])
		p.job = job{}
		return
	}
	p.round.Add(1) // odd: open
	p.wakeHelpers()
	p.work(p.workers[0])
	p.await(p.total)
	p.round.Add(1) // even: closed
	// A helper that came too late may still be on its way out.
	for i := 0; p.inside.Load() != 0; i++ {
		if i > spins {
			runtime.Gosched()
		}
	}
	p.job = job{}
}

// await returns when so many tasks of the job have been done.
func (p *Pool) await(tasks int64) {
	if p.until(func() bool { return p.done.Load() >= tasks }) {
		return
	}
	p.sleep.Lock()
	p.sleepers.Add(1) // and then look again: finish counts first and looks for sleepers then
	for p.done.Load() < tasks {
		p.awake.Wait()
	}
	p.sleepers.Add(-1)
	p.sleep.Unlock()
}

// finish counts a task that has been done.
func (p *Pool) finish() {
	p.done.Add(1)
	if p.sleepers.Load() > 0 {
		p.sleep.Lock()
		p.awake.Broadcast()
		p.sleep.Unlock()
	}
}

func (p *Pool) wakeHelpers() {
	for _, w := range p.workers[1:] {
		if w.parked.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
}

// help is the life of one helper: it looks at round, joins every job that is open, and sleeps when there has been none for a while.
func (p *Pool) help(w *worker) {
	defer p.helpers.Done()
	var seen uint64
	for {
		var round uint64
		open := func() bool {
			round = p.round.Load()
			return round != seen && round%2 == 1
		}
		for !p.until(open) {
			w.parked.Store(true)
			// Someone who opened a job before this saw a helper awake: look once more.
			if !open() || !w.parked.CompareAndSwap(true, false) {
				<-w.wake
			}
		}
		seen = round
		p.inside.Add(1)
		// The job is only looked at while it is open, and it stays open while anybody is inside.
		if p.round.Load() == round {
			if p.job.stop {
				p.inside.Add(-1)
				return
			}
			if w.labels != p.labels {
				w.labels = p.labels
				pprof.SetGoroutineLabels(w.labels)
			}
			p.work(w)
		}
		p.inside.Add(-1)
	}
}

// work takes tasks until there are none left.
func (p *Pool) work(w *worker) {
	w.xIsRow = false
	at := 0
	for {
		t := p.next.Add(1) - 1
		if t >= p.total {
			return
		}
		for t >= p.phases[at].first+int64(p.phases[at].tasks) {
			at++
		}
		ph := &p.phases[at]
		// A phase needs what the phases before it have made. Their tasks have all been taken, so they will end.
		p.await(ph.first)
		p.task(w, ph, int(t-ph.first))
		p.finish()
	}
}

// scratch makes room for n packed values of x.
func (p *Pool) scratch(n int) {
	if len(p.xs) < 4*n {
		p.free()
		mem, free, err := Alloc(4 * n)
		if err != nil {
			panic(err) // as the Go heap does when memory is out
		}
		p.xs, p.freeXs = mem, free
	}
	p.x = unsafe.Pointer(unsafe.SliceData(p.xs))
}

// room makes room for so many bytes of x that the thread packs for itself: in a huge page at least, or the place of x in a cache is left to chance.
func (w *worker) room(bytes int) {
	if w.xSize >= bytes {
		return
	}
	w.free()
	mem, free, err := Alloc(max(bytes, 2<<20))
	if err != nil {
		panic(err) // as the Go heap does when memory is out
	}
	w.x, w.xSize, w.freeX = unsafe.Pointer(unsafe.SliceData(mem)), len(mem), free
}

func (w *worker) free() {
	if w.freeX == nil {
		return
	}
	if err := w.freeX(); err != nil {
		panic(err)
	}
	w.x, w.xSize, w.freeX = nil, 0, nil
}

func (p *Pool) free() {
	if p.freeXs == nil {
		return
	}
	if err := p.freeXs(); err != nil {
		panic(err)
	}
	p.xs, p.freeXs, p.x = nil, nil, nil
}

// aligned is the first multiple of 64 bytes in the slice, which must have 16 values to spare.
func aligned(s []float32) unsafe.Pointer {
	at := unsafe.Pointer(unsafe.SliceData(s))
	return unsafe.Add(at, -int(uintptr(at))&63)
}
