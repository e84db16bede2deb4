package kernel

import "unsafe"

// Limit is something that a machine can do so much of and no more.
type Limit uint8

// The limits that products are measured against.
const (
	FMA  Limit = iota // float32 fused multiply-adds of the widest vectors of the implementation, FLOP
	Dot               // products of bfloat16 pairs, FLOP
	Read              // bytes read from memory in four streams a thread, which is the most that DRAM gives
)

// String is the limit's name.
func (l Limit) String() string { return [...]string{"fma", "dot", "read"}[l] }

// limitOps are the loops of one implementation that do nothing but reach a limit.
type limitOps struct {
	fma, dot, read func(*probe)
	fmaStep        float64 // FLOP of one step
	dotStep        float64
}

// probe is the argument of these loops. The assembly knows the offsets of its fields.
type probe struct {
	steps int
	at    [4]unsafe.Pointer // for read: streams, 256 bytes of each a step
}

// probeTasks is into how many parts a measurement is cut, so that threads that are held up elsewhere do less.
const probeTasks = 32

// Reach makes all threads do as much as they can for a while, and returns how much they did: FLOP, or bytes. The caller
// takes the time. For FMA and Dot, steps says how long: 32*steps rounds of independent instructions. Read goes through mem once.
// It returns 0 if the pool's implementation has no such loop.
//
// A figure of speed means little on a shared machine, or on one whose clock moves; a ratio to the limit, measured in the
// same second by the same threads, does.
func (p *Pool) Reach(l Limit, steps int, mem []byte) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phases = append(p.phases[:0], phase{kind: probeLimit, tasks: probeTasks})
	o := p.limits
	p.job = job{probe: probe{steps: steps}}
	var amount float64
	switch l {
	case FMA:
		p.job.loop, amount = o.fma, o.fmaStep*float64(steps)*probeTasks
	case Dot:
		p.job.loop, amount = o.dot, o.dotStep*float64(steps)*probeTasks
	case Read:
		p.job.loop = o.read
		p.job.probe.steps = len(mem) / 4 / 256 / probeTasks
		for i := range p.job.probe.at {
			p.job.probe.at[i] = unsafe.Add(unsafe.Pointer(unsafe.SliceData(mem)), len(mem)/4*i)
		}
		amount = float64(p.job.probe.steps * 4 * 256 * probeTasks)
	}
	if p.job.loop == nil || p.job.probe.steps == 0 {
		p.job = job{}
		return 0
	}
	p.run()
	return amount
}

// reach runs one part of a measurement.
func (p *Pool) reach(w *worker, part int) {
	w.probe = p.job.probe
	for i := range w.probe.at {
		if w.probe.at[i] != nil {
			w.probe.at[i] = unsafe.Add(w.probe.at[i], part*w.probe.steps*256)
		}
	}
	p.job.loop(&w.probe)
}
