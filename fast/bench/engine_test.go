package bench

import (
	"context"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// The operations of the models, counted here parameter by parameter: every matrix is multiplied with every row that goes through it.
func TestOperationsAreThoseOfTheMatrices(t *testing.T) {
	for _, name := range []string{"wide", "llava-1.6-llama3-8b", "llava-1.5-7b"} {
		c, err := shapes.Model(name)
		if err != nil {
			t.Fatal(err)
		}
		tower, layers := 0.0, 0.0
		for _, p := range shapes.Params(c) {
			switch {
			case len(p.Shape) < 2 || strings.Contains(p.Name, "position_embedding") || strings.Contains(p.Name, "embed_tokens") || strings.HasPrefix(p.Name, shapes.Projector):
			case strings.HasPrefix(p.Name, shapes.VisionTower):
				rows, layer := c.Vision.Positions(), -1
				if strings.Contains(p.Name, "patch_embedding") {
					rows--
				}
				for i := range c.Vision.NumHiddenLayers {
					if strings.HasPrefix(p.Name, shapes.VisionLayer(i)+".") {
						layer = i
					}
				}
				if layer < c.FeatureLayer() {
					tower += 2 * float64(rows) * float64(p.Count())
				}
			case p.Name == shapes.LMHead+".weight":
				layers += 2 * float64(p.Count())
			case strings.HasPrefix(p.Name, shapes.TextLayer(c.Text.NumHiddenLayers-1)+".") && !strings.Contains(p.Name, "k_proj") && !strings.Contains(p.Name, "v_proj"):
				layers += 2 * float64(p.Count())
			default:
				layers += 2 * 64 * float64(p.Count())
			}
		}
		v, text := c.Vision, c.Text
		attention := float64(c.FeatureLayer()) * 4 * float64(v.Positions()) * float64(v.Positions()) * float64(v.HiddenSize)
		if got, want := towerFLOP(c, 1), tower+attention; got != want {
			t.Errorf("%s: a tile takes %g, want %g", name, got, want)
		}
		attention = float64(text.NumHiddenLayers-1)*4*float64(text.NumAttentionHeads*text.HeadDim)*64*65/2 + 4*float64(text.NumAttentionHeads*text.HeadDim)*64
		if got, want := promptFLOP(text, 64), layers+attention; got != want {
			t.Errorf("%s: 64 tokens take %g, want %g", name, got, want)
		}
	}
}

// What a token reads of the 8.36 B model: 15 GB of layers and 1 GB of head, and 128 KiB of keys and values a position.
func TestBytesOfAToken(t *testing.T) {
	c, err := shapes.Model("llava-1.6-llama3-8b")
	if err != nil {
		t.Fatal(err)
	}
	m := &model{config: c, class: kernel.BFloat16}
	layer := 2*4096*4096 + 2*1024*4096 + 3*14336*4096
	want := 2.0 * float64(32*layer+128320*4096)
	if got := m.decoderBytes(0); got != want {
		t.Errorf("got %g, want %g", got, want)
	}
	if got := m.decoderBytes(100) - m.decoderBytes(0); got != 100*32*2*4*1024 {
		t.Errorf("100 positions: %g", got)
	}
}

// Decoding begins at the context that its name says, and goes on from the long prompt where that was measured before.
func TestDecodingBeginsAtItsContext(t *testing.T) {
	if testing.Short() || kernel.Active() == "generic" {
		t.Skip("2340 positions through 32 layers take minutes without vectors")
	}
	o := tiny(t, "")
	r := &runner{Options: o, threads: 1}
	m := &model{config: o.Config, class: kernel.Float32, run: r}
	meter, err := newMeter(1, quick)
	if err != nil {
		t.Fatal(err)
	}
	defer meter.close()
	closed, err := m.open(meter, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	if err := m.prefill(2340).run(); err != nil {
		t.Fatal(err)
	}
	w := m.decode(2400)
	for i := range 30 {
		if err := w.before(); err != nil {
			t.Fatal(err)
		}
		if n := m.deep[2400].Len(); n < 2400 || n+decodeLoops > 2400+decodeRoom || i == 0 && (n != 2400 || m.after != nil) {
			t.Fatalf("sample %d begins at %d positions", i, n)
		}
		for range decodeLoops {
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAProfileIsOfOneRow(t *testing.T) {
	o := tiny(t, "prefill/T=64/*")
	o.Around = func(string, func() (int, error)) error { return nil }
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "want one") {
		t.Errorf("two rows in one profile: got %v, want an error", err)
	}
	o.Rows = "prefill/T=64/class=float32"
	passes, name := 0, ""
	o.Around = func(row string, measure func() (int, error)) error {
		var err error
		name = row
		passes, err = measure()
		return err
	}
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if name != o.Rows || passes < 1 || passes != r.Rows[0].Passes || passes < len(r.Rows[0].Samples) {
		t.Errorf("%s, %d passes, row %+v", name, passes, r.Rows[0])
	}
}
