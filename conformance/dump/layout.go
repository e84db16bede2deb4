package dump

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// A layout says how the axes of an array are those of a node.
type layout struct {
	node  []atom  // the node's axes, as far apart as the array has them, in the node's order
	array [][]int // for each axis of the array the atoms that it holds, slowest first; none for an axis of length 1
	own   bool    // the array's axes are the node's
}

// atom is an axis, or a part of one, that an array has in one piece.
type atom struct {
	letter string
	length int
}

// Letters that only stand in layouts.
const (
	headWidth = "Dh"
	inPairs   = "Dh~" // the two halves of a head in pairs
	halfWidth = "Dh/2"
	twoHalves = "2"
	lastAxis  = "_"
)

// newLayout reads the axes of an array: letters with spaces between them, "*" between those that are one axis.
// shape is the node's own for the prompt. heads and width are those of the part of the model that the node is in.
func newLayout(n shapes.Node, shape []int, axes string, heads, width int) (layout, error) {
	letters := make([]string, len(n.Shape))
	for a, d := range n.Shape {
		letters[a] = d.Letter
	}
	fail := func(format string, args ...any) (layout, error) {
		return layout{}, fmt.Errorf("axes %s: %s; the node has %s", quote(axes), fmt.Sprintf(format, args...), n.Symbolic())
	}
	own := strings.Join(letters, " ")
	if axes == "" {
		axes = own
	}
	var tokens [][]string
	fields := strings.Fields(axes)
	if len(fields) > 12 {
		return fail("%d axes, want at most 12", len(fields))
	}
	split, paired := false, false
	for _, field := range fields {
		var token []string
		for _, letter := range strings.Split(field, "*") {
			if letter == "1" {
				continue
			}
			if letter == lastAxis {
				token = append(token, strings.Split(letters[len(letters)-1], "*")...)
				continue
			}
			split = split || letter == "H" || strings.HasPrefix(letter, headWidth)
			paired = paired || letter == inPairs
			token = append(token, letter)
		}
		tokens = append(tokens, token)
	}
	l := layout{own: slices.Equal(fields, letters)}
	for a, letter := range letters {
		parts := []atom{{letter, shape[a]}}
		switch {
		case letter == "D" && split:
			parts = []atom{{"H", heads}, {headWidth, width}}
		case strings.HasSuffix(letter, "*"+headWidth):
			parts = []atom{{strings.TrimSuffix(letter, "*"+headWidth), shape[a] / width}, {headWidth, width}}
		}
		if last := parts[len(parts)-1]; paired && last.letter == headWidth {
			if last.length%2 != 0 {
				return fail("a head of %d has no halves", last.length)
			}
			parts = append(parts[:len(parts)-1], atom{twoHalves, 2}, atom{halfWidth, last.length / 2})
		}
		l.node = append(l.node, parts...)
	}
	used := make([]bool, len(l.node))
	take := func(letter string) bool {
		for k, a := range l.node {
			if a.letter == letter && !used[k] {
				used[k] = true
				l.array[len(l.array)-1] = append(l.array[len(l.array)-1], k)
				return true
			}
		}
		return false
	}
	for _, token := range tokens {
		l.array = append(l.array, nil)
		for _, letter := range token {
			want := []string{letter}
			if letter == inPairs {
				want = []string{halfWidth, twoHalves}
			}
			for _, w := range want {
				if !take(w) {
					return fail("there is no %s left", letter)
				}
			}
		}
	}
	for k, ok := range used {
		if !ok && !(k == 0 && l.node[0].letter == "N") { // an array of one tile may go without its axis, if tiles are joined
			return fail("%s is missing", l.node[k].letter)
		}
	}
	return l, nil
}

// piece is what one array must look like to be a node or a part of one, and where it goes.
type piece struct {
	layout
	lengths []int // of the node's atoms in this array
	first   []int // where they begin in the node
	actual  []int // lengths of the array's axes
	from    []int // where on the array's axes the piece begins
}

// tile says that the array leaves the axis of tiles out.
func (l layout) tile() bool {
	return len(l.node) > 0 && l.node[0].letter == "N" && !slices.ContainsFunc(l.array, func(atoms []int) bool { return slices.Contains(atoms, 0) })
}

// axis finds the array's axis that is the atom of a letter and nothing else; -1 if there is none.
func (l layout) axis(letter string) (axis, atom int) {
	for a, atoms := range l.array {
		if len(atoms) == 1 && l.node[atoms[0]].letter == letter {
			return a, atoms[0]
		}
	}
	return -1, -1
}

// whole is the piece that is the whole node.
func (l layout) whole() piece {
	p := piece{layout: l, lengths: make([]int, len(l.node)), first: make([]int, len(l.node)), from: make([]int, len(l.array))}
	for k, a := range l.node {
		p.lengths[k] = a.length
	}
	if l.tile() {
		p.lengths[0] = 1
	}
	p.actual = p.want()
	return p
}

// want is the array's shape if nothing is padded.
func (p piece) want() []int {
	shape := make([]int, len(p.array))
	for a, atoms := range p.array {
		shape[a] = 1
		for _, k := range atoms {
			shape[a] *= p.lengths[k]
		}
	}
	return shape
}

// letters is the array's axes in words: "[1, T, H*Dh]".
func (l layout) letters() string {
	var words []string
	for _, atoms := range l.array {
		var parts []string
		for _, k := range atoms {
			parts = append(parts, l.node[k].letter)
		}
		word := strings.Join(parts, "*")
		if word == "" {
			word = "1"
		}
		words = append(words, word)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// atomsOf is how many atoms an axis of the node has come apart into.
func (l layout) atomsOf(letter string) int {
	heads, paired := false, false
	for _, a := range l.node {
		heads = heads || a.letter == "H" || a.letter == "K"
		paired = paired || a.letter == halfWidth
	}
	n := 1
	width := letter == headWidth
	if letter == "D" && heads || strings.HasSuffix(letter, "*"+headWidth) {
		n, width = 2, true
	}
	if width && paired {
		n++
	}
	return n
}

// place copies the piece's values from the array into the node, whose atoms have the given lengths altogether.
func (p piece) place(dst, src []float32, total []int) {
	axisStride := make([]int, len(p.actual))
	s := 1
	for a := len(p.actual) - 1; a >= 0; a-- {
		axisStride[a] = s
		s *= p.actual[a]
	}
	in, out := make([]int, len(p.node)), make([]int, len(p.node))
	at := 0
	for a, atoms := range p.array {
		s := axisStride[a]
		for j := len(atoms) - 1; j >= 0; j-- {
			in[atoms[j]] = s
			s *= p.lengths[atoms[j]]
		}
		at += p.from[a] * axisStride[a]
	}
	s, to := 1, 0
	for k := len(total) - 1; k >= 0; k-- {
		out[k] = s
		to += p.first[k] * s
		s *= total[k]
	}
	if shapes.Product(p.lengths) == 0 {
		return
	}
	index := make([]int, len(p.lengths))
	last := len(p.lengths) - 1
	for {
		for j := range p.lengths[last] {
			dst[to+j] = src[at+j*in[last]]
		}
		k := last - 1
		for ; k >= 0; k-- {
			index[k]++
			at += in[k]
			to += out[k]
			if index[k] < p.lengths[k] {
				break
			}
			at -= in[k] * p.lengths[k]
			to -= out[k] * p.lengths[k]
			index[k] = 0
		}
		if k < 0 {
			return
		}
	}
}

// readings lists the axes by which an array of this shape could be the node, in the order of how usual they are.
func readings(n shapes.Node, want, shape []int, heads, width int) []string {
	letters := make([]string, len(n.Shape))
	for a, d := range n.Shape {
		letters[a] = d.Letter
	}
	var candidates []string
	own := strings.Join(letters, " ")
	add := func(s string) {
		for _, c := range []string{s, "1 " + s} {
			if !slices.Contains(candidates, c) {
				candidates = append(candidates, c)
			}
		}
	}
	apart := strings.Fields(strings.ReplaceAll(own, "*", " "))
	if i := slices.Index(apart, "D"); i >= 0 && len(apart) == 3 && apart[0] == "N" && apart[1] == "S" {
		apart = []string{"N", "S", "H", headWidth}
	}
	add(own)
	for _, base := range [][]string{letters, apart} {
		permutations(base, func(p []string) { add(strings.Join(p, " ")) })
	}
	for _, base := range [][]string{apart} { // heads moved, then put together
		if len(base) == len(letters) && len(base) >= 3 {
			joined := append(slices.Clone(base[:len(base)-2]), base[len(base)-2]+"*"+base[len(base)-1])
			permutations(joined, func(p []string) { add(strings.Join(p, " ")) })
		}
	}
	if slices.Equal(letters, []string{"N", "D", "P", "P"}) {
		for _, s := range []string{"N P*P D", "N D P*P", "N*P*P D"} {
			add(s)
		}
	}
	if len(letters) == 3 && letters[0] == "N" {
		add("N*" + letters[1] + " " + letters[2])
	}
	var out []string
	for _, axes := range candidates {
		for _, order := range []string{axes, strings.ReplaceAll(axes, headWidth, inPairs)} {
			l, err := newLayout(n, want, order, heads, width)
			if err != nil || l.tile() || slices.Contains(out, order) {
				continue
			}
			if slices.Equal(l.whole().actual, shape) {
				out = append(out, order)
			}
		}
	}
	return out
}

// permutations calls f with every order of words, the given one first.
func permutations(words []string, f func([]string)) {
	var step func(done, rest []string)
	step = func(done, rest []string) {
		if len(rest) == 0 {
			f(done)
		}
		for i := range rest {
			left := append(slices.Clone(rest[:i]), rest[i+1:]...)
			step(append(slices.Clone(done), rest[i]), left)
		}
	}
	step(nil, words)
}

// list is a shape in words: "[1, 48, 128]".
func list(shape []int) string {
	words := make([]string, len(shape))
	for i, n := range shape {
		words[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(words, ", ") + "]"
}
