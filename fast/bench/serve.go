package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/llavaref/llavaref/fast/kernel"
)

// request is one line that Serve reads: a product to run for some time, or a limit to measure.
type request struct {
	Limit string  `json:"limit"` // fma, dot or read; empty for a product
	M     int     `json:"m"`
	N     int     `json:"n"`
	K     int     `json:"k"`
	Type  string  `json:"type"`  // of the weights: f32, f16 or bf16
	Class string  `json:"class"` // float32 or bf16
	Time  float64 `json:"time"`  // seconds, at least
	Warm  int     `json:"warm"`  // runs before that
}

// answer is the line that Serve writes back: seconds of one product, or GFLOP/s or GB/s of a limit; 0 if there is no such thing here.
type answer struct {
	Version string  `json:"version,omitempty"` // in the first line
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"`
}

// Serve is our side of tools/bench-peers: it runs products and measures limits as it is told, a line of JSON each, so that ours and the peers'
// can take turns.
func Serve(in io.Reader, out io.Writer, threads int) error {
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	m, err := newMeter(threads, thorough)
	if err != nil {
		return err
	}
	defer m.close()
	enc := json.NewEncoder(out)
	if err := enc.Encode(answer{Version: thisProgram().Version + " " + kernel.Active()}); err != nil {
		return err
	}
	s := server{meter: m}
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
	meter  *meter
	held   request
	group  *gemmGroup
	closed func()
}

func (s *server) close() {
	if s.closed != nil {
		s.closed()
	}
	s.closed, s.group = nil, nil
}

func (s *server) answer(r request) (answer, error) {
	for _, l := range []kernel.Limit{kernel.FMA, kernel.Dot, kernel.Read} {
		if r.Limit == l.String() {
			return answer{Rate: s.meter.limit(l)}, nil
		}
	}
	const most = 1 << 20
	if r.Limit != "" || min(r.M, r.N, r.K) < 1 || max(r.M, r.N, r.K) > most || r.N*r.K > 1<<31 || r.M*max(r.N, r.K) > 1<<31 || !(r.Time >= 0 && r.Time <= 60) || r.Warm < 0 || r.Warm > 1000 {
		return answer{}, fmt.Errorf("bench: request %+v, want a limit, or a product of sizes up to %d", r, most)
	}
	for _, v := range muls {
		if strings.ToLower(v.typ.String()) != r.Type || v.class.String() != r.Class {
			continue
		}
		if same := s.held; s.group == nil || same.M != r.M || same.N != r.N || same.K != r.K || same.Type != r.Type {
			s.close()
			s.group = &gemmGroup{matrix: matrix{n: r.N, k: r.K}, typ: v.typ}
			var err error
			if s.closed, err = s.group.open(s.meter, []*work{{flop: 2 * float64(r.M) * float64(r.N) * float64(r.K)}}); err != nil {
				return answer{}, err
			}
			if err := s.group.check(v.class, r.M); err != nil {
				return answer{}, err
			}
		}
		s.held = r
		for range r.Warm {
			s.group.run(v.class, r.M)
		}
		begin, loops := time.Now(), 0
		for loops == 0 || time.Since(begin).Seconds() < r.Time {
			s.group.run(v.class, r.M)
			loops++
		}
		return answer{Seconds: time.Since(begin).Seconds() / float64(loops)}, nil
	}
	return answer{}, fmt.Errorf("bench: weights of %q in class %q, want f32, f16 or bf16 in float32, or bf16 in bf16", r.Type, r.Class)
}
