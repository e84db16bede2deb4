package fast

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// writable is how many bytes of the process are mapped to be written, by Go's heap and by everything else.
func writable(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if mode[1] == 'w' {
			sum += int(to - from)
		}
	}
	return sum
}

// files is how many files the process has open.
func files(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// leak is what is taken for a leak, in bytes a model. Each piece of memory that the test means is larger; what Go's heap grows by is less.
const leak = 32 << 10

// A model that is closed, or that could not be opened, leaves no thread, no memory and no file behind, whatever its sessions did.
func TestNothingIsLeftOfAModel(t *testing.T) {
	c := small(t, "tiny-1.6")
	in := prompt(t, c)
	path, good := written(t, "tiny-1.6")
	broken := path + ".broken"
	bad := bytes.Clone(good)
	bad[len(bad)-100] ^= 1 // in the last matrix: all is in memory when it is seen
	if err := os.WriteFile(broken, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	text, err := shapes.ModelJSON("tiny-1.6")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Threads: 3, ContextLength: 4096}
	use := func(t *testing.T, m *Llava) {
		forward(t, m, in, nil)
		if least := min(len(m.weights), 4*len(m.arena.mem), kvBytes(c, o.ContextLength)); least <= leak {
			t.Fatalf("the smallest piece of memory has %d bytes, which the test cannot see", least)
		}
		closed, open := m.NewSession(), m.NewSession()
		for _, s := range []*Session{closed, open} {
			if _, err := s.Extend(in, 1, nil); err != nil {
				t.Fatal(err)
			}
		}
		closed.Close()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Many rounds are needed to tell a leak from Go's heap. The race detector, whose own memory grows, runs with -short; without vectors they take minutes.
	memory := !testing.Short() && kernel.Active() != "generic"
	for _, test := range []struct {
		name string
		once func(t *testing.T)
	}{
		{"from a checkpoint", func(t *testing.T) {
			m, err := New(c, checkpoint.Synthetic(c, 0), o)
			if err != nil {
				t.Fatal(err)
			}
			use(t, m)
		}},
		{"from a file", func(t *testing.T) {
			m, err := OpenFile(path, o)
			if err != nil {
				t.Fatal(err)
			}
			use(t, m)
		}},
		{"from a file that is damaged", func(t *testing.T) {
			if _, err := OpenFile(broken, o); err == nil {
				t.Fatal("it is opened")
			}
		}},
		{"from a checkpoint that cannot be read", func(t *testing.T) {
			w := silent{checkpoint.Synthetic(c, 0), func(_ string, _ int, dst []float32) { dst[0] += 0x1p-20 }}
			if _, err := New(c, liar{w}, o); err == nil {
				t.Fatal("it is opened")
			}
		}},
		{"written to a file", func(t *testing.T) {
			if err := WriteFile(context.Background(), path, text, checkpoint.Synthetic(config(t, "tiny-1.6"), 0), o); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.once(t) // Go's heap has grown to what it needs
			runtime.GC()
			goroutines, opened, before := runtime.NumGoroutine(), files(t), writable(t)
			rounds := 24
			if !memory {
				rounds = 2
			}
			for range rounds {
				test.once(t)
			}
			// One that has said its last word may still be on its way out.
			for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
				runtime.Gosched()
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%d goroutines, %d before", n, goroutines)
			}
			if n := files(t); n > opened {
				t.Errorf("%d files are open, %d before", n, opened)
			}
			if !memory {
				return
			}
			// Keys and values go when the collector has seen that nobody has them.
			grown := 0
			for range 100 {
				runtime.GC()
				if grown = writable(t) - before; grown < rounds*leak {
					return
				}
			}
			t.Errorf("%d bytes more than before, after %d models", grown, rounds)
		})
	}
}
