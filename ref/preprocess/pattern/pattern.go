// Package pattern makes test images that every language can make: all arithmetic is on integers, and each pixel is a
// function of the image's name and of its position alone. docs/preprocessing.md is the definition;
// tools/gen-golden/preprocess_images.py is the other implementation.
package pattern

import (
	"fmt"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Kinds lists the patterns.
func Kinds() []string {
	return []string{"photo", "noise", "binary", "gradient", "checker1", "checker3", "checker8", "dots", "flat"}
}

// maxPixels is the largest image that is made, Pillow's limit.
const maxPixels = 178_956_970

// Parse takes a name apart: the kind, and width x height in pixels, as in photo-640x480.
func Parse(name string) (kind string, size shapes.Size, err error) {
	kind, sides, _ := strings.Cut(name, "-")
	known := false
	for _, k := range Kinds() {
		known = known || k == kind
	}
	n, err := fmt.Sscanf(sides, "%dx%d", &size.W, &size.H)
	if !known || n != 2 || err != nil || name != fmt.Sprintf("%s-%dx%d", kind, size.W, size.H) {
		return "", shapes.Size{}, fmt.Errorf("pattern %q, want KIND-WIDTHxHEIGHT with a kind of %s", name, strings.Join(Kinds(), ", "))
	}
	if size.W < 1 || size.H < 1 || size.H > maxPixels/size.W {
		return "", shapes.Size{}, fmt.Errorf("pattern %q, want sides of at least 1 and at most %d pixels", name, maxPixels)
	}
	return kind, size, nil
}

// Make makes the image of a name: [H, W, 3], red, green, blue.
func Make(name string) (shapes.Size, []uint8, error) {
	kind, size, err := Parse(name)
	if err != nil {
		return shapes.Size{}, nil, err
	}
	pix := make([]uint8, size.Area()*3) // [H, W, 3]
	key := fnv1a64(name)
	switch kind {
	case "photo":
		photo(pix, size, key)
	case "noise", "binary":
		noise(pix, key, kind == "binary")
	case "gradient":
		each(pix, size, func(y, x, c int) int { return gradient(y, x, c, size) })
	case "checker1":
		each(pix, size, checker(1))
	case "checker3":
		each(pix, size, checker(3))
	case "checker8":
		each(pix, size, checker(8))
	case "dots":
		each(pix, size, dots)
	case "flat":
		each(pix, size, func(_, _, c int) int { return [3]int{200, 30, 123}[c] })
	}
	return size, pix, nil
}

// each sets every value to f of its row, column and channel.
func each(pix []uint8, size shapes.Size, f func(y, x, c int) int) {
	for i := range pix {
		pix[i] = uint8(f(i/3/size.W, i/3%size.W, i%3))
	}
}

// gradient: red runs right, green runs down, blue runs up the diagonal, each over 0..255.
func gradient(y, x, c int, size shapes.Size) int {
	right, down := max(size.W-1, 1), max(size.H-1, 1)
	switch c {
	case 0:
		return x * 255 / right
	case 1:
		return y * 255 / down
	default:
		return (x + size.H - 1 - y) * 255 / max(size.W+size.H-2, 1)
	}
}

// checker: cells of n pixels, black and white, in each third diagonal with green inverted.
func checker(n int) func(y, x, c int) int {
	return func(y, x, c int) int {
		cy, cx := y/n, x/n
		white := (cx + cy) % 2
		if c == 1 && (cx+2*cy)%3 == 0 {
			white = 1 - white
		}
		return white * 255
	}
}

// dots: single pixels on black, one in each 5 x 7, of one channel in turn.
func dots(y, x, c int) int {
	if y%5 == 2 && x%7 == 3 && (y/5+x/7)%3 == c {
		return 255
	}
	return 0
}

// noise: value i is the high byte of 16-bit word i of the generator; binary: its highest bit as 0 or 255.
func noise(pix []uint8, key uint64, binary bool) {
	var word uint64
	for i := range pix {
		if i%4 == 0 {
			word = mix(key, uint64(i/4))
		}
		pix[i] = uint8(word >> (16*(i%4) + 8))
		if binary {
			pix[i] = pix[i] >> 7 * 255
		}
	}
}

// octaves of a photo: cells of these sizes, with these weights.
var octaves = []struct{ cell, weight int }{{64, 16}, {32, 8}, {16, 4}, {8, 2}, {4, 1}}

// photo: smooth blobs over smaller ones, with contours: where the red of the coarsest octave is bright, the image is a darkened
// negative.
func photo(pix []uint8, size shapes.Size, key uint64) {
	sums := make([]int, size.W*3)
	coarse := make([]int, size.W*3)
	for y := range size.H {
		clear(sums)
		for number, o := range octaves {
			lattice(coarse, key, number, y, o.cell)
			for i, v := range coarse {
				sums[i] += v * o.weight
			}
		}
		lattice(coarse, key, 0, y, octaves[0].cell)
		row := pix[y*size.W*3:][:size.W*3]
		for i, sum := range sums {
			v := max(0, min(2*sum/(31*64)-128, 255))
			if coarse[i-i%3] > 150*64 {
				v = 255 - v/2
			}
			row[i] = uint8(v)
		}
	}
}

// lattice is one row of an octave: random bytes at the corners of the cells, 64 times their bilinear interpolation in between.
func lattice(out []int, key uint64, octave, y, cell int) {
	corner := func(c, gy, gx int) int {
		return int(mix(key, uint64(octave*3+c)<<40+uint64(gy)<<20+uint64(gx)) >> 56)
	}
	gy, fy := y/cell, y%cell
	var left, right [3]int
	for x := 0; 3*x < len(out); x++ {
		gx, fx := x/cell, x%cell
		for c := range 3 {
			if fx == 0 {
				left[c] = corner(c, gy, gx)*(cell-fy) + corner(c, gy+1, gx)*fy
				right[c] = corner(c, gy, gx+1)*(cell-fy) + corner(c, gy+1, gx+1)*fy
			}
			out[3*x+c] = (left[c]*(cell-fx) + right[c]*fx) * 64 / (cell * cell)
		}
	}
}

// fnv1a64 is FNV-1a of the bytes of a name.
func fnv1a64(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return h
}

// mix is output j of splitmix64 started at key.
func mix(key, j uint64) uint64 {
	z := key + (j+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
