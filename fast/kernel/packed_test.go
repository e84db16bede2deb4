package kernel

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// Weights that are packed 32 rows or a multiple at a time are those that are packed at once.
func TestPartsThatArePackedAreTheWhole(t *testing.T) {
	const n, k = 161, 70
	r := rand.New(rand.NewPCG(3, 4))
	m := Matrix{Type: BF16, N: n, K: k, U16: make([]uint16, n*k)}
	for i := range m.U16 {
		m.U16[i] = uint16(math.Float32bits(r.Float32()) >> 16)
	}
	p := NewPool(2)
	defer p.Close()
	alloc := func(size int) []byte {
		mem, free, err := Alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { free() })
		return mem
	}
	whole, parts := alloc(PackedSize(m)), alloc(PackedSize(m))
	want := p.Pack(whole, m, BFloat16)
	at := 0
	for _, rows := range [][2]int{{0, 64}, {64, 96}, {96, 161}} {
		part := Matrix{Type: BF16, N: rows[1] - rows[0], K: k, U16: m.U16[rows[0]*k : rows[1]*k]}
		p.Pack(parts[at:][:PackedSize(part)], part, Float32)
		at += PackedSize(part)
	}
	if at != len(parts) || !bytes.Equal(parts, whole) {
		t.Fatalf("%d bytes of parts, the same %t; want the %d bytes of the whole", at, bytes.Equal(parts, whole), len(whole))
	}
	x := make([]float32, 3*k)
	for i := range x {
		x[i] = r.Float32() - 0.5
	}
	y, z := make([]float32, 3*n), make([]float32, 3*n)
	p.Gemm(y, x, 3, want, nil)
	p.Gemm(z, x, 3, Packed(parts, BF16, n, k, BFloat16), nil)
	for i := range y {
		if math.Float32bits(y[i]) != math.Float32bits(z[i]) {
			t.Fatalf("product of the parts: value %d is %v, of the whole %v", i, z[i], y[i])
		}
	}
}

func TestPackedRefuses(t *testing.T) {
	mem, free, err := Alloc(32 * 2 * 4)
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	for name, f := range map[string]func(){
		"a size that is not that of the weights": func() { Packed(mem, F32, 33, 2, Float32) },
		"memory that is not aligned":             func() { Packed(mem[4:][:32*2*2], BF16, 32, 2, Float32) },
		"float16 in the bf16 class":              func() { Packed(mem[:32*2*2], F16, 32, 2, BFloat16) },
		"no rows":                                func() { Packed(nil, F32, 0, 2, Float32) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// The labels of a pool are on all of its threads, the caller's too, and a new label replaces the old one.
func TestLabelsAreOnEveryThread(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	defer pprof.SetGoroutineLabels(context.Background())
	y := make([]float32, 1<<16)
	w := Direct(Matrix{Type: F32, N: 1 << 12, K: 64, F32: make([]float32, 1<<18)}, Float32)
	for _, op := range []string{"first", "second"} {
		p.Label(pprof.WithLabels(context.Background(), pprof.Labels("op", op)))
		labelled := 0
		for deadline := time.Now().Add(20 * time.Second); labelled < 3 && time.Now().Before(deadline); {
			p.Gemm(y, make([]float32, 16*64), 16, w, nil) // a helper may sleep through a job
			labelled = 0
			var text strings.Builder
			if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
				t.Fatal(err)
			}
			for entry := range strings.SplitSeq(text.String(), "\n\n") {
				if strings.Contains(entry, `"op":"`+op+`"`) {
					labelled += count(entry)
				}
			}
		}
		if labelled != 3 {
			t.Errorf("label %q is on %d goroutines, want 3", op, labelled)
		}
	}
}

// count is how many goroutines an entry of the profile stands for: "2 @ 0x...".
func count(entry string) int {
	n := 0
	for line := range strings.Lines(entry) {
		if digits, _, ok := strings.Cut(line, " @ "); ok {
			for _, d := range digits {
				if d >= '0' && d <= '9' {
					n = 10*n + int(d-'0')
				}
			}
			return n
		}
	}
	return n
}
