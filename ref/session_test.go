package ref_test

import (
	"slices"
	"testing"

	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// cut splits a prompt before row n. Images stand in the part that holds their tokens, all of them in the first or in the second.
func cut(c shapes.Config, in shapes.Inputs, n int) (shapes.Inputs, shapes.Inputs) {
	a := shapes.Inputs{InputIDs: in.InputIDs[:n], PositionIDs: in.PositionIDs[:n]}
	b := shapes.Inputs{InputIDs: in.InputIDs[n:], PositionIDs: in.PositionIDs[n:]}
	with := &b
	if slices.Contains(a.InputIDs, c.ImageTokenID) {
		with = &a
	}
	with.PixelValues, with.ImageSizes = in.PixelValues, in.ImageSizes
	return a, b
}

// A sequence that grows in parts has the logits of the whole, bit for bit: every row is computed by itself, from the same keys and values.
func TestASequenceGrowsInPartsAsInOne(t *testing.T) {
	for _, test := range []struct {
		name, model string
		sizes       []shapes.Size
	}{
		{"text only", "tiny-1.6", nil},
		{"one image", "tiny-1.6", []shapes.Size{{H: 90, W: 61}}},
		{"two images", "tiny-1.6", []shapes.Size{{H: 50, W: 170}, {H: 33, W: 20}}},
		{"LLaVA-1.5, two images", "tiny-1.5", []shapes.Size{{H: 56, W: 56}, {H: 56, W: 56}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(t, test.model)
			in := prompt(t, c, test.sizes...)
			for _, id := range []int{7, 11, 200} { // text behind the last image
				in.InputIDs, in.PositionIDs = append(in.InputIDs, id), append(in.PositionIDs, len(in.InputIDs))
			}
			m := ref.New(c, checkpoint.Synthetic(c, 0))
			whole, err := m.Forward(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			last := len(in.InputIDs) - 1
			for _, at := range []struct {
				name  string
				parts []int // where the sequence is cut
			}{
				{"the last token by itself", []int{last}},
				{"three tokens one by one", []int{last - 2, last - 1, last}},
				{"text before the images by itself", []int{3}},
			} {
				s, rest, begin := m.NewSession(), in, 0
				for i := 0; i <= len(at.parts); i++ {
					part := rest
					if i < len(at.parts) {
						part, rest = cut(c, rest, at.parts[i]-begin)
						begin = at.parts[i]
					}
					logits, err := s.Extend(part, 0, nil)
					if err != nil {
						t.Fatalf("%s: part %d: %v", at.name, i, err)
					}
					first := part.PositionIDs[0]
					for r := range logits.Rows() {
						if !sameBits(logits.Row(r), whole.Row(first+r)) {
							t.Fatalf("%s: part %d: position %d has other logits than in one pass", at.name, i, first+r)
						}
					}
				}
			}
		})
	}
}

// The last rows alone are those of all rows.
func TestExtendKeepsTheLastRows(t *testing.T) {
	c := config(t, "tiny-1.6")
	in := prompt(t, c)
	m := ref.New(c, checkpoint.Synthetic(c, 0))
	whole, err := m.Forward(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int{1, 2, whole.Rows(), whole.Rows() + 5} {
		got, err := m.NewSession().Extend(in, keep, nil)
		want := min(keep, whole.Rows())
		if err != nil || got.Rows() != want || !sameBits(got.Data, whole.Data[(whole.Rows()-want)*whole.Cols():]) {
			t.Errorf("keep %d: %d rows, error %v, want the last %d of the whole", keep, got.Rows(), err, want)
		}
	}
}
