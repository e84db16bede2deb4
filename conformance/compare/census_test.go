package compare

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/llavaref/llavaref/shapes"
)

// context is a node of two positions, four heads of eight channels.
var context = shapes.Node{Name: "context", Kind: shapes.Context, Heads: 4, KVHeads: 2, Shape: []shapes.Dim{{Letter: "T"}, {Letter: "H*Dh"}}}

// made is a budget of one roundoff for each entry, and the truth itself as the engine's tensor.
func made(node shapes.Node, shape ...int) (Budget, shapes.Tensor) {
	r := newRand(4)
	b := Budget{Want: shapes.NewTensor(shape...), Class: F32, Acc: make([]float32, shapes.Product(shape)), AccRMS: make([]float32, shapes.Product(shape))}
	for i := range b.Want.Data {
		b.Want.Data[i] = float32(1 + r.Float64()/2)
		b.Acc[i], b.AccRMS[i] = unit, unit
	}
	return b, shapes.Tensor{Shape: shape, Data: slices.Clone(b.Want.Data)}
}

func TestCensus(t *testing.T) {
	for _, test := range []struct {
		name      string
		spoil     func(y shapes.Tensor)
		bad       int
		first     []int
		narrowest *Axis
	}{
		{"nothing", func(y shapes.Tensor) {}, 0, nil, nil},
		{"one entry", func(y shapes.Tensor) { y.Data[70] += 1 }, 1, []int{2, 6}, &Axis{Letter: "H*Dh", Length: 32, Index: 6}},
		{"one row", func(y shapes.Tensor) {
			for j := range 32 {
				y.Row(4)[j] += 1
			}
		}, 32, []int{4, 0}, &Axis{Letter: "T", Length: 6, Index: 4}},
		{"one channel", func(y shapes.Tensor) {
			for i := range 6 {
				y.Row(i)[9] -= 0.5
			}
		}, 6, []int{0, 9}, &Axis{Letter: "H*Dh", Length: 32, Index: 9}},
		{"one head", func(y shapes.Tensor) {
			for i := range 6 {
				for j := range 8 {
					y.Row(i)[16+j] *= 2
				}
			}
		}, 48, []int{0, 16}, &Axis{Letter: "H", Length: 4, Index: 2}},
		{"everything", func(y shapes.Tensor) {
			for i := range y.Data {
				y.Data[i] *= 2
			}
		}, 192, []int{0, 0}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, y := made(context, 6, 32)
			test.spoil(y)
			c := TakeCensus(b, context, y, 3)
			if c.Entries != 192 || c.Bad != test.bad || len(c.Worst) != min(3, test.bad) {
				t.Errorf("%d entries, %d bad, %d worst", c.Entries, c.Bad, len(c.Worst))
			}
			if (c.First == nil) != (test.first == nil) || c.First != nil && !slices.Equal(c.First.Index, test.first) {
				t.Errorf("first %v, want %v", c.First, test.first)
			}
			if n := c.Narrowest; n != nil {
				if n.RMS <= 0 || n.Share < concentrated {
					t.Errorf("rms %v, share %v", n.RMS, n.Share)
				}
				n.RMS, n.Share = 0, 0
			}
			if diff := cmp.Diff(test.narrowest, c.Narrowest); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCensusCountsWhatIsNoNumber(t *testing.T) {
	b, y := made(context, 6, 32)
	y.Data[40], y.Data[41], y.Data[50] = float32(math.NaN()), float32(math.NaN()), float32(math.Inf(1))
	y.Data[60] += 0.25
	c := TakeCensus(b, context, y, 10)
	if c.NaN != 2 || c.Inf != 1 || c.Bad != 4 || c.Worst[0].Excess != Worse || !slices.Equal(c.Worst[3].Index, []int{1, 28}) {
		t.Errorf("%+v", c)
	}
	if c := TakeCensus(b, context, shapes.NewTensor(2, 2), 3); c.Entries != 0 {
		t.Errorf("another shape: %+v", c)
	}
}

// TestLocalRefuses: shapes that differ and data that do not fill their shape are compared with nothing, and fail.
func TestLocalRefuses(t *testing.T) {
	b, _ := made(context, 6, 32)
	for _, y := range []shapes.Tensor{{}, shapes.NewTensor(32, 6), {Shape: []int{6, 32}}, {Shape: []int{6, 32}, Data: make([]float32, 191)}} {
		if r := Local(b, context, y); r.Pass || r.Criterion != Shape {
			t.Errorf("shape %v, %d values: %v", y.Shape, len(y.Data), r)
		}
	}
	if r := Local(Budget{}, context, shapes.Tensor{}); r.Pass {
		t.Errorf("nothing against nothing: %v", r)
	}
}

// TestLocalAcceptsOverflow: a truth beyond float16's range is an infinity there.
func TestLocalAcceptsOverflow(t *testing.T) {
	b, y := made(context, 6, 32)
	b.Class = F16
	for i := range y.Data {
		y.Data[i] = F16.Round(b.Want.Data[i])
	}
	b.Want.Data[3], y.Data[3] = 7e4, float32(math.Inf(1))
	if r := Local(b, context, y); !r.Pass {
		t.Error(r)
	}
	y.Data[3] = float32(math.Inf(-1))
	if r := Local(b, context, y); r.Pass || r.Criterion != NonFinite {
		t.Error(r)
	}
}

func TestExact(t *testing.T) {
	for _, test := range []struct {
		want, got        []int
		different, first int
	}{
		{[]int{1, 2, 3}, []int{1, 2, 3}, 0, -1},
		{[]int{1, 2, 3}, []int{1, 5, 4}, 2, 1},
		{[]int{1, 2, 3}, []int{1, 2}, 1, 2},
		{nil, []int{7}, 1, 0},
		{nil, nil, 0, -1},
	} {
		r := Exact(test.want, test.got)
		if r.Different != test.different || r.First != test.first || r.Pass != (test.different == 0) {
			t.Errorf("%v and %v: %+v", test.want, test.got, r)
		}
	}
}

func TestVerdictOfNothingFails(t *testing.T) {
	if v := verdict(nil); v.Pass || v.String() == "" {
		t.Error(v)
	}
	c := check(RMS, math.NaN(), 1, nil)
	if v := verdict([]Check{c}); v.Pass || v.Ratio != Worse {
		t.Error(v)
	}
	c = check(Drifted, 1, 0, nil)
	if v := verdict([]Check{c}); v.Pass || math.IsInf(v.Ratio, 0) {
		t.Error(v)
	}
}
