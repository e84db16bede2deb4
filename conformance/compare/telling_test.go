package compare

import (
	"math/rand/v2"
	"testing"
)

// What was planted is found again, in few words, and chance is not called a pattern.
func TestTelling(t *testing.T) {
	const rows, heads, width = 40, 8, 16
	coordinates := []Coordinate{
		{One: "row", Many: "rows", Length: rows, Of: func(e int) int { return e / (heads * width) }},
		{Names: []string{"text rows", "newline rows"}, Length: 2, Of: func(e int) int {
			if e/(heads*width)%9 == 8 {
				return 1
			}
			return 0
		}},
		{One: "channel", Many: "channels", Length: heads * width, Of: func(e int) int { return e % (heads * width) }},
		{One: "head", Many: "heads", Length: heads, Of: func(e int) int { return e % (heads * width) / width }},
		{One: "channel of its head", Many: "channels of their heads", Length: width, Of: func(e int) int { return e % width }},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		bad  func(row, channel int) bool
		want string
		size int
	}{
		{"one row", func(row, _ int) bool { return row == 17 }, "row 17", 128},
		{"the last rows", func(row, _ int) bool { return row >= 30 }, "rows from 30 on", 1280},
		{"the first rows", func(row, _ int) bool { return row < 5 }, "rows up to 4", 640},
		{"every second row", func(row, _ int) bool { return row%2 == 1 }, "every second row, from 1 on", 2560},
		{"every fifth row", func(row, _ int) bool { return row%5 == 3 }, "every 5th row, from 3 on", 1024},
		{"newlines", func(row, _ int) bool { return row%9 == 8 }, "newline rows", 512},
		{"all but the first row", func(row, _ int) bool { return row > 0 }, "all but row 0", 4992},
		{"two rows", func(row, _ int) bool { return row == 3 || row == 30 }, "rows 3 and 30", 256},
		{"four heads", func(_, ch int) bool { return ch/width >= 4 }, "heads from 4 on", 2560},
		{"a part of a head", func(_, ch int) bool { return ch >= 35 && ch <= 43 }, "channels 35 to 43", 360},
		{"the last channels of every head", func(_, ch int) bool { return ch%width >= 12 }, "channels of their heads from 12 on", 1280},
		{"a head in some rows", func(row, ch int) bool { return row >= 20 && ch/width == 3 }, "head 3, there rows from 20 on", 320},
		{"most of a row", func(row, _ int) bool { return row == 4 && r.IntN(10) > 0 || r.IntN(500) == 0 }, "row 4", 128},
		{"everything", func(int, int) bool { return true }, "", 0},
		{"nothing", func(int, int) bool { return false }, "", 0},
		{"one entry", func(row, ch int) bool { return row == 7 && ch == 7 }, "", 0},
		{"half of the entries, by chance", func(int, int) bool { return r.IntN(2) == 0 }, "", 0},
		{"a few entries, by chance", func(int, int) bool { return r.IntN(200) == 0 }, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var entries []int
			var bad []bool
			all := 0
			for e := range rows * heads * width {
				entries, bad = append(entries, e), append(bad, c.bad(e/(heads*width), e%(heads*width)))
				if bad[e] {
					all++
				}
			}
			s, ok := Telling(coordinates, entries, bad)
			if ok != (c.want != "") || s.Text != c.want || ok && (s.Size != c.size || s.AllBad != all || s.All != len(entries)) {
				t.Errorf("%+v, want %q of %d entries, %d wrong", s, c.want, c.size, all)
			}
		})
	}
}
