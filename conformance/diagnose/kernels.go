package diagnose

import (
	"fmt"
	"math"
	"slices"

	"github.com/llavaref/llavaref/shapes"
)

// kernels are the bugs of single kernels: A.
func kernels() []Bug {
	matrices := kinds(shapes.Linear)
	dropped := func(id, name, text, look string, drop func(k, width int) bool) Bug {
		return Bug{ID: id, Name: name, Text: text, Look: look, Kinds: matrices, Make: func(s *Site) (*Alternative, error) {
			return s.weighted(0, func(shape []int, w []float32) {
				for i := range w {
					if drop(i%shape[1], shape[1]) {
						w[i] = 0
					}
				}
			})
		}}
	}
	var bugs []Bug
	for _, tail := range []int{1, 4, 8, 16, 32} {
		bugs = append(bugs, dropped("A01", fmt.Sprintf("last %d terms", tail), fmt.Sprintf("the last %d terms of every sum are left out", tail), "the tail of the loop over the inner dimension",
			func(k, width int) bool { return k >= width-tail && width > tail }))
	}
	for _, block := range []int{16, 32, 64} {
		bugs = append(bugs, dropped("A01", fmt.Sprintf("beyond blocks of %d", block), fmt.Sprintf("terms beyond the last whole block of %d are left out", block), "the tail of the loop over the inner dimension",
			func(k, width int) bool { return k >= width/block*block }))
	}
	for _, lanes := range []int{8, 16} {
		for lane := range lanes {
			bugs = append(bugs, dropped("A04", fmt.Sprintf("lane %d of %d", lane, lanes), fmt.Sprintf("lane %d of %d is left out of every sum", lane, lanes), "the horizontal sum",
				func(k, _ int) bool { return k%lanes == lane }))
		}
	}
	blank := func(name, text, look string, at func(row, rows, column, columns int) bool) Bug {
		return Bug{ID: "A01", Name: name, Text: text, Look: look, Kinds: matrices, Make: func(s *Site) (*Alternative, error) {
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			y := shapes.Tensor{Shape: a.Want.Shape, Data: slices.Clone(a.Want.Data)}
			for i := range y.Data {
				if at(i/y.Cols(), y.Rows(), i%y.Cols(), y.Cols()) {
					y.Data[i] = 0
				}
			}
			return s.value(y)
		}}
	}
	bugs = append(bugs,
		blank("last row", "the last row is not computed", "the tail of the loop over the rows", func(row, rows, _, _ int) bool { return row == rows-1 && rows > 1 }),
		blank("last column", "the last column is not computed", "the tail of the loop over the columns", func(_, _, column, columns int) bool { return column == columns-1 }),
		Bug{ID: "A05", Text: "exp is 0 below -10", Look: "the range of the exponential", Kinds: kinds(shapes.Softmax), Make: func(s *Site) (*Alternative, error) {
			a, err := s.right()
			if err != nil {
				return nil, err
			}
			y := shapes.NewTensor(a.Want.Shape...)
			changed := false
			for r := range y.Rows() {
				in, out, want := s.Inputs[0].Row(r), y.Row(r), a.Want.Row(r)
				top, sum := math.Inf(-1), 0.0
				for j, v := range in {
					if want[j] > 0 {
						top = max(top, float64(v))
					}
				}
				e := make([]float64, len(in))
				for j, v := range in {
					if want[j] == 0 {
						continue
					}
					if d := float64(v) - top; d >= -10 {
						e[j] = math.Exp(d)
					} else {
						changed = true
					}
					sum += e[j]
				}
				for j := range out {
					out[j] = float32(e[j] / sum)
				}
			}
			if !changed {
				return nil, nil
			}
			return s.value(y)
		}},
		Bug{ID: "A10", Text: "every row is computed from the one before", Look: "the stride between rows", Kinds: matrices, Make: func(s *Site) (*Alternative, error) {
			x := s.Inputs[0]
			n := x.Rows()
			return s.reading(append([]shapes.Tensor{rows(x, x.Cols(), count(n, func(i int) int { return (i + n - 1) % n }))}, s.Inputs[1:]...)...)
		}},
	)
	return bugs
}
