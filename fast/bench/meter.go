package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/llavaref/llavaref/fast/kernel"
)

// limitNames are the limits by the names that results have for them, in the order in which they are listed.
var limitNames = []string{kernel.FMA.String(), kernel.Dot.String(), kernel.Read.String()}

// Sizes of a measurement of a limit.
const (
	limitTime   = 3 * time.Millisecond // about as long as the machine's state stays as it is
	readRegion  = 512 << 20            // bytes, read a part at a time
	readPart    = 128 << 20            // bytes of one measurement
	disturbance = 1.03
)

// meter measures work between two measurements of a limit.
type meter struct {
	pool    *kernel.Pool
	region  []byte // for kernel.Read: so large that a third-level cache keeps nothing of a part until its turn comes again
	part    int    // bytes of it that one measurement reads
	at      int    // where the next one begins
	free    func() error
	steps   [2]int // for kernel.FMA and kernel.Dot: how many take limitTime
	history map[kernel.Limit][]float64
	policy
}

// policy is how much is measured.
type policy struct {
	time    time.Duration // of one sample, at least; the work is repeated to fill it
	budget  time.Duration // for all samples of a row
	fewest  int           // samples, unless one alone takes longer than patience
	most    int
	patient time.Duration
}

var (
	thorough = policy{time: 20 * time.Millisecond, budget: 1200 * time.Millisecond, fewest: 5, most: 25, patient: 10 * time.Second}
	quick    = policy{time: time.Millisecond, budget: 10 * time.Millisecond, fewest: 2, most: 2, patient: time.Second}
)

func newMeter(threads int, p policy) (*meter, error) {
	m := &meter{policy: p, part: readPart, history: map[kernel.Limit][]float64{}}
	size := readRegion
	if p == quick {
		size = 8 << 20
		m.part = size
	}
	var err error
	if m.region, m.free, err = kernel.Alloc(size); err != nil {
		return nil, err
	}
	for i := 0; i < len(m.region); i += 4096 {
		m.region[i] = 1 // a page that was never written is the one page of zeros
	}
	m.pool = kernel.NewPool(threads)
	for _, l := range []kernel.Limit{kernel.FMA, kernel.Dot} {
		m.steps[l] = 100
		for range 3 {
			seconds, amount := m.reach(l)
			if amount == 0 {
				break
			}
			m.steps[l] = max(100, min(10_000_000, int(float64(m.steps[l])*limitTime.Seconds()/seconds)))
		}
	}
	return m, nil
}

func (m *meter) close() error {
	m.pool.Close()
	return m.free()
}

func (m *meter) reach(l kernel.Limit) (seconds, amount float64) {
	steps := 0
	part := m.region[m.at:][:m.part]
	if l == kernel.Read {
		m.at = (m.at + m.part) % len(m.region)
	} else {
		steps = m.steps[l]
	}
	begin := time.Now()
	if amount = m.pool.Reach(l, steps, part); amount == 0 {
		begin = time.Now()
		amount = plainReach(l, m.pool.Threads(), steps, part)
	}
	return time.Since(begin).Seconds(), amount
}

// limit measures a limit: GFLOP/s or GB/s, or 0 if this implementation has no loop for it.
func (m *meter) limit(l kernel.Limit) float64 {
	seconds, amount := m.reach(l)
	if amount == 0 {
		return 0
	}
	rate := amount / seconds / 1e9
	m.history[l] = append(m.history[l], rate)
	return rate
}

// stand is the limit that stands in for one that the implementation does not have: where bfloat16 products are made of
// fused multiply-adds, those are the limit.
func (m *meter) stand(l kernel.Limit) kernel.Limit {
	if l == kernel.Dot && len(m.history[kernel.Dot]) == 0 && m.limit(kernel.Dot) == 0 {
		return kernel.FMA
	}
	return l
}

// sampler collects the samples of one row.
type sampler struct {
	row   *Row
	work  *work
	limit kernel.Limit
	loops int
	spent time.Duration
	done  bool
}

func (m *meter) sampler(w *work) *sampler {
	l := m.stand(w.limit)
	return &sampler{row: &Row{Name: w.name, Limit: l.String(), FLOP: w.flop, Bytes: w.bytes}, work: w, limit: l}
}

// warm runs the work until it takes the same code and memory as it will when it is measured, and finds how often one sample repeats it.
// Work that takes longer than all samples may is measured here, and once only.
func (m *meter) warm(s *sampler) error {
	s.loops = 1
	if err := m.sample(s); err != nil || s.spent >= m.patient {
		return err
	}
	first := s.row.Samples[0].Seconds
	s.row.Samples, s.spent, s.done = nil, 0, false
	if first >= m.time.Seconds() {
		return nil
	}
	for {
		took, err := s.once()
		most := 1 << 20
		if s.work.loops > 0 {
			most = s.work.loops
		}
		if err != nil || took >= m.time || s.loops >= most {
			return err
		}
		s.loops = min(most, max(s.loops+1, min(8*s.loops, int(1.2*float64(s.loops)*float64(m.time)/float64(max(took, 1))))))
	}
}

// once runs the work as often as a sample does.
func (s *sampler) once() (time.Duration, error) {
	if s.work.before != nil {
		if err := s.work.before(); err != nil {
			return 0, err
		}
	}
	s.row.Passes += s.loops
	begin := time.Now()
	for range s.loops {
		if err := s.work.run(); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// sample measures once more, and says when it was enough.
func (m *meter) sample(s *sampler) error {
	begin := time.Now()
	before := m.limit(s.limit)
	took, err := s.once()
	if err != nil {
		return err
	}
	after := m.limit(s.limit)
	if took <= 0 {
		return fmt.Errorf("bench: %s: the clock did not move in %d rounds", s.row.Name, s.loops)
	}
	s.row.Samples = append(s.row.Samples, Sample{
		Seconds:   took.Seconds() / float64(s.loops),
		Limit:     (before + after) / 2,
		Disturbed: before > disturbance*after || after > disturbance*before,
	})
	s.spent += time.Since(begin)
	n := len(s.row.Samples)
	s.done = n >= m.most || n >= m.fewest && s.spent >= m.budget || s.spent >= m.patient
	return nil
}

// measure takes the samples of works that share their memory, in turns, so that what moves the machine moves all of them.
func (m *meter) measure(ctx context.Context, works []*work, told func(name string)) ([]Row, error) {
	var all []*sampler
	for _, w := range works {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		told(w.name)
		s := m.sampler(w)
		if err := m.warm(s); err != nil {
			return nil, fmt.Errorf("bench: %s: %w", w.name, err)
		}
		all = append(all, s)
	}
	for open := true; open; {
		open = false
		for _, s := range all {
			if s.done {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			told(s.row.Name)
			if err := m.sample(s); err != nil {
				return nil, fmt.Errorf("bench: %s: %w", s.row.Name, err)
			}
			open = true
		}
	}
	var rows []Row
	for _, s := range all {
		rows = append(rows, *s.row)
	}
	return rows, nil
}

// limits sums up what was measured of the limits.
func (m *meter) limits() []Limit {
	var out []Limit
	for _, l := range []kernel.Limit{kernel.FMA, kernel.Dot, kernel.Read} {
		if h := m.history[l]; len(h) > 0 {
			out = append(out, Limit{Name: l.String(), Unit: unitOf(l.String()), Median: median(h), Least: quantile(h, 0), Most: quantile(h, 1), Count: len(h)})
		}
	}
	return out
}
