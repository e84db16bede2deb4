package fast

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// BenchmarkLoad brings the weights of wide, 469 million values, into memory: made from a seed, and read from a file of the engine's own layout.
// The unit is bytes of weights as they are stored.
func BenchmarkLoad(b *testing.B) {
	c := config(b, "wide")
	b.Run("synthetic", func(b *testing.B) {
		for b.Loop() {
			m, err := New(c, checkpoint.Synthetic(c, 0), Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(m.Memory().Weights))
			m.Close()
		}
	})
	b.Run("file", func(b *testing.B) {
		text, err := shapes.ModelJSON("wide")
		if err != nil {
			b.Fatal(err)
		}
		path := filepath.Join(b.TempDir(), "model.fast")
		if err := WriteFile(context.Background(), path, text, checkpoint.Synthetic(c, 0), Options{Threads: runtime.GOMAXPROCS(0)}); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			m, err := OpenFile(path, Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(m.Memory().Weights))
			m.Close()
		}
	})
}
