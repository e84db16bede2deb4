package bench

import (
	"bufio"
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// serve gives requests to Serve on tiny shapes, and returns its answers without the first line.
func serve(t *testing.T, requests ...string) ([]answer, error) {
	t.Helper()
	var out strings.Builder
	err := Serve(strings.NewReader(strings.Join(requests, "\n")), &out, tiny(t, ""))
	var answers []answer
	lines := bufio.NewScanner(strings.NewReader(out.String()))
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) == 0 || !strings.Contains(answers[0].Version, kernel.Active()) {
		t.Fatalf("answers %+v, want the version and %s first", answers, kernel.Active())
	}
	return answers[1:], err
}

func TestAWorkerAnswersEveryRequest(t *testing.T) {
	answers, err := serve(t,
		`{"limit": "fma", "warm": 0.001, "time": 0.001}`,
		`{"m": 8, "n": 128, "k": 64, "type": "f32", "class": "float32", "time": 0.001}`,
		`{"m": 1, "n": 128, "k": 64, "type": "bf16", "class": "bf16", "warm": 0.001, "time": 0.002}`,
		`{"row": "prefill/T=64", "type": "bf16", "class": "bf16"}`,
		`{"row": "decode/context=64", "type": "f16", "class": "float32", "time": 0.02}`,
		`{"limit": "read"}`,
	)
	if err != nil || len(answers) != 6 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, a := range answers {
		if limit := i == 0 || i == 5; limit != (a.Rate > 0) || limit == (a.Seconds > 0) || limit == (a.Passes > 0) {
			t.Errorf("answer %d: %+v", i, a)
		}
	}
	if p := answers[2].Passes; float64(p)*answers[2].Seconds < 0.002 {
		t.Errorf("%d passes of %g seconds, want them to fill the time", p, answers[2].Seconds)
	}
	c := tiny(t, "").Config
	if got, want := answers[3].FLOP, promptFLOP(c.Text, 64); got != want {
		t.Errorf("a prompt of %g FLOP, want %g", got, want)
	}
	if got, want := answers[4].Bytes, (&model{config: c}).decoderBytes(64); got != want {
		t.Errorf("a token of %g bytes, want %g", got, want)
	}
}

func TestAWorkerRefusesWhatItDoesNotKnow(t *testing.T) {
	for request, want := range map[string]string{
		`{`:                  "request",
		`{"limit": "light"}`: `limit "light", want fma, dot, read`,
		`{"m": 8}`:           "want a limit, a row, or a product",
		`{"m": 8, "n": 8, "k": 8, "type": "f64", "class": "float32"}`:                   `weights of "f64"`,
		`{"m": 8, "n": 8, "k": 8, "type": "f32", "class": "float32", "time": 1e9}`:      "seconds from 0 to",
		`{"m": 8, "n": 8, "k": 8, "type": "f32", "class": "float32", "warm": -1}`:       "seconds from 0 to",
		`{"row": "prefill/T=64", "type": "f32", "class": "float32"}`:                    "want f16 or bf16",
		`{"row": "prefill/T=64/class=bf16", "type": "bf16", "class": "bf16"}`:           "without its class",
		`{"m": 1048576, "n": 1048576, "k": 1048576, "type": "f32", "class": "float32"}`: "want a limit, a row, or a product",
	} {
		if answers, err := serve(t, request); err == nil || !strings.Contains(err.Error(), want) || len(answers) > 0 {
			t.Errorf("%s: %+v, %v, want an error with %q", request, answers, err, want)
		}
	}
}

// A warm sample begins after a pass that does not count, and work that wants to be made ready is made ready as often as it says.
func TestWarmPassesDoNotCount(t *testing.T) {
	runs, befores := 0, 0
	w := &work{loops: 4, before: func() error { befores++; return nil }, run: func() error { runs++; return nil }}
	a, err := timed(request{Warm: 0, Time: 0}, w)
	if err != nil || runs != 2 || befores != 2 || a.Passes != 1 {
		t.Fatalf("%d runs, %d befores, %+v, %v, want one run that counts and one before it", runs, befores, a, err)
	}
	runs, befores = 0, 0
	a, err = timed(request{Warm: 0, Time: 0.001}, w)
	if err != nil || a.Passes != runs-1 || befores < (a.Passes+3)/4+1 {
		t.Errorf("%d runs after %d befores, %+v, %v, want at most 4 runs after each", runs, befores, a, err)
	}
	if _, err := timed(request{}, &work{run: func() error { return io.ErrUnexpectedEOF }}); err != io.ErrUnexpectedEOF {
		t.Errorf("a run that fails: %v", err)
	}
}

// Float16 weights are the values of the bfloat16 ones, so that only the type differs.
func TestHalvesHaveTheSameValues(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	c := tiny(t, "").Config
	same := checkpoint.Synthetic(c, 0)
	w := halves{same, pool}
	for _, p := range shapes.Params(c) {
		info, err := w.Info(p.Name)
		if err != nil || info.DType != checkpoint.F16 {
			t.Fatalf("%s: %+v, %v", p.Name, info, err)
		}
		n := min(p.Count(), 4096)
		want, raw := make([]float32, n), make([]byte, 2*n)
		if err := same.Read(p.Name, p.Count()-n, want); err != nil {
			t.Fatal(err)
		}
		if err := w.ReadRaw(p.Name, p.Count()-n, raw); err != nil {
			t.Fatal(err)
		}
		for i, v := range want {
			h := uint32(raw[2*i]) | uint32(raw[2*i+1])<<8
			sign, exponent, fraction := 1-2*float64(h>>15), int(h>>10&31), float64(h&1023)
			got := sign * fraction * 0x1p-24
			if exponent > 0 {
				got = sign * (1024 + fraction) * math.Pow(2, float64(exponent-25))
			}
			if got != float64(v) {
				t.Fatalf("%s: value %d is %g, want %g", p.Name, i, got, v)
			}
		}
	}
	if err := w.ReadRaw("nobody", 0, make([]byte, 2)); err == nil {
		t.Error("a parameter that the model does not have: no error")
	}
}
