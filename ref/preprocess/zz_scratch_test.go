package preprocess

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"github.com/llavaref/llavaref/shapes"
	"os"
	"testing"
)

func TestScratch(t *testing.T) {
	for _, v := range Variants() {
		f, err := os.Open("/tmp/rz/" + string(v) + ".txt")
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		bad, n := 0, 0
		for sc.Scan() {
			var h, w, nh, nw, kind int
			var s uint64
			var sum string
			fmt.Sscan(sc.Text(), &h, &w, &nh, &nw, &s, &kind, &sum)
			m := NewImage(shapes.Size{H: h, W: w})
			for i := range m.Pix {
				z := s + uint64(i+1)*0x9E3779B97F4A7C15
				z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
				z = (z ^ (z >> 27)) * 0x94D049BB133111EB
				z ^= z >> 31
				a := uint8(z >> 56)
				if kind == 1 {
					if a > 127 {
						a = 255
					} else {
						a = 0
					}
				}
				if kind == 2 {
					a = a>>6 + 120
				}
				m.Pix[i] = a
			}
			r, err := Resize(m, shapes.Size{H: nh, W: nw}, v)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if fmt.Sprintf("%x", sha256.Sum256(r.Pix)) != sum {
				bad++
				if bad < 10 {
					t.Errorf("%s %s", v, sc.Text())
				}
			}
		}
		t.Logf("%s: %d of %d bad", v, bad, n)
	}
}
