package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/llavaref/llavaref/fast/kernel"
)

// request is one line that Serve reads: a product or a row of the whole engine to run for some time, or a limit to measure.
type request struct {
	Limit string  `json:"limit"` // fma, dot or read
	Row   string  `json:"row"`   // of the engine, as bench names it, without its class; if this and Limit are empty: a product
	M     int     `json:"m"`
	N     int     `json:"n"`
	K     int     `json:"k"`
	Type  string  `json:"type"`  // of the weights: f32, f16 or bf16
	Class string  `json:"class"` // float32 or bf16
	Warm  float64 `json:"warm"`  // seconds, at least, in which it runs and is not counted, once at least
	Time  float64 `json:"time"`  // seconds, at least, in which it is, once at least
}

// answer is the line that Serve writes back: seconds of one product or row, or the median GFLOP/s or GB/s of a limit; 0 if there is no such thing here.
type answer struct {
	Version string  `json:"version,omitempty"` // in the first line
	Seconds float64 `json:"seconds"`
	Passes  int     `json:"passes,omitempty"` // that were counted
	FLOP    float64 `json:"flop,omitempty"`   // of a row
	Bytes   float64 `json:"bytes,omitempty"`
	Rate    float64 `json:"rate"`
}

// Serve is our side of tools/bench-peers: it runs products and rows and measures limits as it is told, a line of JSON each, so that ours and
// the peers' can take turns. Rows are those of the options' configuration.
func Serve(in io.Reader, out io.Writer, o Options) error {
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	p := thorough
	if o.Quick {
		p = quick
	}
	m, err := newMeter(o.Threads, p)
	if err != nil {
		return err
	}
	defer m.close()
	enc := json.NewEncoder(out)
	if err := enc.Encode(answer{Version: thisProgram().Version + " " + kernel.Active()}); err != nil {
		return err
	}
	s := server{meter: m, options: o}
	defer s.close()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("bench: request %q: %w", lines.Text(), err)
		}
		a, err := s.answer(r)
		if err != nil {
			return err
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// server holds the weights of the last request, for the next one may have the same.
type server struct {
	meter   *meter
	options Options
	held    request
	group   *gemmGroup
	works   []*work // of the engine, in one class
	closed  func()
}

func (s *server) close() {
	if s.closed != nil {
		s.closed()
	}
	s.closed, s.group, s.works = nil, nil, nil
}

// longest is how long one request may take, in seconds; whoever asks for more has mistaken the unit.
const longest = 60

func (s *server) answer(r request) (answer, error) {
	if !(r.Time >= 0 && r.Time <= longest && r.Warm >= 0 && r.Warm <= longest) {
		return answer{}, fmt.Errorf("bench: request %+v, want seconds from 0 to %d", r, longest)
	}
	switch {
	case r.Limit != "":
		return s.limit(r)
	case r.Row != "":
		return s.row(r)
	}
	return s.product(r)
}

// limit is the median of as many measurements as fill the time; a limit that begins after a pause has to warm up like any work.
func (s *server) limit(r request) (answer, error) {
	i := slices.Index(limitNames, r.Limit)
	if i < 0 {
		return answer{}, fmt.Errorf("bench: limit %q, want %s", r.Limit, strings.Join(limitNames, ", "))
	}
	var rates []float64
	for begin := time.Now(); time.Since(begin).Seconds() < r.Warm; {
		s.meter.limit(kernel.Limit(i))
	}
	for begin := time.Now(); len(rates) == 0 || time.Since(begin).Seconds() < r.Time; {
		rates = append(rates, s.meter.limit(kernel.Limit(i)))
	}
	return answer{Rate: median(rates)}, nil
}

// product is one of kernel's products.
func (s *server) product(r request) (answer, error) {
	const most = 1 << 20
	if min(r.M, r.N, r.K) < 1 || max(r.M, r.N, r.K) > most || r.N*r.K > 1<<31 || r.M*max(r.N, r.K) > 1<<31 {
		return answer{}, fmt.Errorf("bench: request %+v, want a limit, a row, or a product of sizes up to %d", r, most)
	}
	v, err := r.mul()
	if err != nil {
		return answer{}, err
	}
	if same := s.held; s.group == nil || same.M != r.M || same.N != r.N || same.K != r.K || same.Type != r.Type {
		s.close()
		s.group = &gemmGroup{matrix: matrix{n: r.N, k: r.K}, typ: v.typ}
		if s.closed, err = s.group.open(s.meter, []*work{{flop: product(r.M, r.N, r.K)}}); err != nil {
			return answer{}, err
		}
		if err := s.group.check(v.class, r.M); err != nil {
			return answer{}, err
		}
	}
	s.held = r
	return timed(r, &work{run: func() error { s.group.run(v.class, r.M); return nil }})
}

// mul is the kind of product that the request asks for.
func (r request) mul() (mul, error) {
	for _, v := range muls {
		if strings.ToLower(v.typ.String()) == r.Type && v.class.String() == r.Class {
			return v, nil
		}
	}
	return mul{}, fmt.Errorf("bench: weights of %q in class %q, want f32, f16 or bf16 in float32, or bf16 in bf16", r.Type, r.Class)
}

// row is a row of the whole engine, whose weights are bfloat16, or float16 with the same values.
func (s *server) row(r request) (answer, error) {
	v, err := r.mul()
	if err != nil {
		return answer{}, err
	}
	if v.typ == kernel.F32 {
		return answer{}, fmt.Errorf("bench: row %q with weights of %q, want f16 or bf16", r.Row, r.Type)
	}
	if same := s.held; s.works == nil || same.Type != r.Type || same.Class != r.Class {
		s.close()
		m := &model{name: s.options.Name, config: s.options.Config, class: v.class, half: v.typ == kernel.F16, run: &runner{Options: s.options, threads: s.options.Threads}}
		if s.closed, err = m.open(s.meter, nil); err != nil {
			return answer{}, err
		}
		s.works = m.works()
	}
	s.held = r
	for _, w := range s.works {
		if w.name == r.Row+"/class="+r.Class {
			a, err := timed(r, w)
			a.FLOP, a.Bytes = w.flop, w.bytes
			return a, err
		}
	}
	return answer{}, fmt.Errorf("bench: row %q of model %s, want one of llavaref bench --list, without its class", r.Row, s.options.Name)
}

// timed runs a work until it is warm, and then counts.
func timed(r request, w *work) (answer, error) {
	once := func(seconds float64) (answer, error) {
		var took time.Duration
		passes := 0
		for passes == 0 || took.Seconds() < seconds {
			if w.before != nil {
				if err := w.before(); err != nil {
					return answer{}, err
				}
			}
			begin := time.Now()
			for i := 0; i == 0 || i < w.loops && (took+time.Since(begin)).Seconds() < seconds; i++ { // as many as one call of before is good for
				if err := w.run(); err != nil {
					return answer{}, err
				}
				passes++
			}
			took += time.Since(begin)
		}
		return answer{Seconds: took.Seconds() / float64(passes), Passes: passes}, nil
	}
	if _, err := once(r.Warm); err != nil {
		return answer{}, err
	}
	return once(r.Time)
}
