package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGenerated holds that the assembly in the repository is what the generator writes.
func TestGenerated(t *testing.T) {
	all := map[string]func() ([]byte, error){}
	for name, fill := range files {
		all[name] = func() ([]byte, error) { return generate(fill) }
	}
	for name, text := range texts {
		all[name] = func() ([]byte, error) { return text(), nil }
	}
	for name, generate := range all {
		t.Run(name, func(t *testing.T) {
			want, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join("..", name))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs from what the generator writes: run `go run .` here", name)
			}
		})
	}
}

// TestEVEX compares the encoder with what the GNU assembler makes of the same instructions.
func TestEVEX(t *testing.T) {
	for _, c := range []struct {
		name            string
		pp, opcode      byte
		dst, src1, src2 int
		want            [6]byte
	}{
		{"vdpbf16ps zmm0, zmm28, zmm30", 2, 0x52, 0, 28, 30, [6]byte{0x62, 0x92, 0x1e, 0x40, 0x52, 0xc6}},
		{"vdpbf16ps zmm27, zmm29, zmm30", 2, 0x52, 27, 29, 30, [6]byte{0x62, 0x02, 0x16, 0x40, 0x52, 0xde}},
		{"vdpbf16ps zmm5, zmm30, zmm31", 2, 0x52, 5, 30, 31, [6]byte{0x62, 0x92, 0x0e, 0x40, 0x52, 0xef}},
		{"vcvtne2ps2bf16 zmm0, zmm31, zmm30", 3, 0x72, 0, 31, 30, [6]byte{0x62, 0x92, 0x07, 0x40, 0x72, 0xc6}},
		{"vcvtne2ps2bf16 zmm15, zmm31, zmm30", 3, 0x72, 15, 31, 30, [6]byte{0x62, 0x12, 0x07, 0x40, 0x72, 0xfe}},
	} {
		if got := evex(c.pp, c.opcode, c.dst, c.src1, c.src2); got != c.want {
			t.Errorf("%s: % x, want % x", c.name, got, c.want)
		}
	}
}
