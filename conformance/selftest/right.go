package selftest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/ref"
	"github.com/llavaref/llavaref/shapes"
)

// Right is a right engine on one prompt. Anything but a pass is a false alarm.
type Right struct {
	Name   string  `json:"name"`
	Set    string  `json:"set"`
	Case   string  `json:"case"`
	Class  string  `json:"class"`
	Status string  `json:"status"`
	Worst  float64 `json:"worst"` // the largest error over its limit, of any check
	First  string  `json:"first,omitempty"`
}

// tryRight runs the whole suite on right engines of all sorts, or on those of some names.
func tryRight(ctx context.Context, t conformance.Target, name string, only func(engine string) bool) ([]Right, error) {
	var out []Right
	for _, e := range append(kernels(), equivalents()...) {
		if only != nil && !only(e.name) {
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		run := conformance.Suite{Targets: []conformance.Target{t}, Cases: name}.Run(ctx, e.open)
		r := Right{Name: e.name, Set: t.Set.Manifest.Model, Case: name, Class: string(run.Class), Status: run.Status().String()}
		for _, set := range run.Sets {
			for _, c := range set.Cases {
				if c.First != nil {
					r.First = c.First.Node + ": " + c.First.Explanation
				}
				for _, p := range c.Problems {
					if p.Level > conformance.Pass {
						r.First = p.Text
					}
				}
				for _, stage := range c.Stages {
					for _, n := range stage.Nodes {
						for _, k := range n.Checks {
							r.Worst = max(r.Worst, k.Ratio)
						}
					}
				}
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// rightEngine is one that the suite must let through.
type rightEngine struct {
	name string
	open conformance.Opener
}

// walker is an engine that evaluates the graph in its own arithmetic, and shows what keep lets through.
type walker struct {
	c     shapes.Config
	w     shapes.Weights
	info  conformance.Info
	eval  func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error)
	shows func(n shapes.Node) bool
}

// prompt is what an engine has of the prompt at hand.
type prompt struct {
	*walker
	in     shapes.Inputs
	replay *replay.Evaluator
}

func (e *walker) Info() conformance.Info { return e.info }

func (e *walker) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	r, err := replay.New(e.c, e.w, in)
	if err != nil {
		return shapes.Tensor{}, err
	}
	p := &prompt{walker: e, in: in, replay: r}
	values := map[string]shapes.Tensor{}
	dims := shapes.DimsOf(e.c, in)
	for _, n := range shapes.Nodes(e.c) {
		if !n.Present(dims) {
			continue
		}
		inputs := make([]shapes.Tensor, len(n.Inputs))
		for i, name := range n.Inputs {
			inputs[i] = values[name]
		}
		y, err := e.eval(p, n, inputs)
		if err != nil {
			return shapes.Tensor{}, err
		}
		values[n.Name] = y
		if e.shows == nil || e.shows(n) {
			probe(n.Name, y)
		}
	}
	return values[shapes.LMHead], nil
}

// kernels are engines with other orders of additions, in every class.
func kernels() []rightEngine {
	var out []rightEngine
	for _, class := range compare.Classes() {
		for _, k := range []arithmetic{
			{lanes: 1}, {lanes: 1, fused: true}, {lanes: 16, fused: true}, {lanes: 16}, {lanes: 64, fused: true}, {lanes: 16, fused: true, block: 8},
		} {
			k.class = class
			out = append(out, rightEngine{name: k.String(), open: func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
				return &walker{c: c, w: w, eval: k.eval, info: conformance.Info{Name: k.String(), Arithmetic: compare.Arithmetic{Class: class, Lanes: compare.Lanes(k.lanes)}}}, nil
			}})
		}
	}
	return out
}

// arithmetic is how an engine in float32 adds up, and how it stores.
type arithmetic struct {
	class compare.Class
	lanes int
	fused bool // multiplies and adds with one rounding
	block int  // keys at a time in a softmax of one pass; 0 is all of them
}

func (k arithmetic) String() string {
	s := fmt.Sprintf("%s, %d lanes", k.class, k.lanes)
	if k.lanes == 1 {
		s = fmt.Sprintf("%s, 1 accumulator", k.class)
	}
	if k.fused {
		s += ", FMA"
	}
	if k.block > 0 {
		s += fmt.Sprintf(", softmax in blocks of %d", k.block)
	}
	return s
}

// dot sums products in float32: every lanes-th term in one partial sum, those added up in a tree.
func (k arithmetic) dot(a, b []float32) float32 {
	var s [64]float32
	for i, x := range a {
		l := i % k.lanes
		if k.fused {
			s[l] = float32(float64(x)*float64(b[i]) + float64(s[l]))
		} else {
			s[l] = float32(x*b[i]) + s[l]
		}
	}
	for n := k.lanes; n > 1; n /= 2 {
		for i := range n / 2 {
			s[i] += s[i+n/2]
		}
	}
	return s[0]
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

// eval computes a node in this arithmetic. Kinds that only move values, and the rotary tables, are the reference's.
func (k arithmetic) eval(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
	y := shapes.NewTensor(n.Concrete(shapes.DimsOf(p.c, p.in))...)
	params := make([][]float32, len(n.Params))
	if f := k.node(p, n, in, y); f != nil {
		for i, name := range n.Params {
			size := 0
			for _, q := range shapes.Params(p.c) {
				if q.Name == name {
					size = q.Count()
				}
			}
			params[i] = make([]float32, size)
			if err := p.w.Read(name, 0, params[i]); err != nil {
				return y, err
			}
		}
		f(params)
	} else {
		var err error
		if y, err = p.replay.Eval(n, in); err != nil {
			return y, err
		}
		y.Data = slices.Clone(y.Data)
	}
	for i, v := range y.Data {
		if !math.IsInf(float64(v), 0) {
			y.Data[i] = k.class.Round(v)
		}
	}
	return y, nil
}

// node is how a kind is computed into y, given its parameters; nil for those that are left to the reference.
func (k arithmetic) node(p *prompt, n shapes.Node, in []shapes.Tensor, y shapes.Tensor) func(w [][]float32) {
	each := func(f func(x float32) float32) func(w [][]float32) {
		return func([][]float32) {
			for i, v := range in[0].Data {
				y.Data[i] = f(v)
			}
		}
	}
	ones := slices.Repeat([]float32{1}, 1+len(y.Data)/max(y.Rows(), 1))
	switch n.Kind {
	case shapes.Linear:
		return func(w [][]float32) {
			k0 := in[0].Cols()
			for r := range y.Rows() {
				for o := range y.Cols() {
					v := k.dot(in[0].Row(r), w[0][o*k0:][:k0])
					if len(w) > 1 {
						v += w[1][o]
					}
					y.Row(r)[o] = v
				}
			}
		}
	case shapes.LayerNorm:
		return func(w [][]float32) {
			for r := range y.Rows() {
				x := in[0].Row(r)
				mean := k.dot(x, ones[:len(x)]) / float32(len(x))
				d := make([]float32, len(x))
				for j, v := range x {
					d[j] = v - mean
				}
				scale := 1 / float32(math.Sqrt(float64(k.dot(d, d)/float32(len(x))+float32(n.Eps))))
				for j := range d {
					y.Row(r)[j] = d[j]*scale*w[0][j] + w[1][j]
				}
			}
		}
	case shapes.RMSNorm:
		return func(w [][]float32) {
			for r := range y.Rows() {
				x := in[0].Row(r)
				scale := 1 / float32(math.Sqrt(float64(k.dot(x, x)/float32(len(x))+float32(n.Eps))))
				for j, v := range x {
					y.Row(r)[j] = v * scale * w[0][j]
				}
			}
		}
	case shapes.Scores:
		return func([][]float32) { k.scores(n, in, y) }
	case shapes.Softmax:
		return func([][]float32) { k.softmax(n, in[0], y) }
	case shapes.Context:
		return func([][]float32) { k.context(n, in, y) }
	case shapes.QuickGELU:
		return each(func(x float32) float32 { return x / (1 + exp32(-1.702*x)) })
	case shapes.SiLU:
		return each(func(x float32) float32 { return x / (1 + exp32(-x)) })
	case shapes.GELU:
		return each(func(x float32) float32 {
			return x * 0.5 * (1 + float32(math.Erf(float64(x*float32(1/math.Sqrt2)))))
		})
	}
	return nil
}

func (k arithmetic) scores(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) {
	q, keys := y.Shape[len(y.Shape)-2], y.Cols()
	for r := range y.Rows() {
		h, i, tile := r/q%n.Heads, r%q, 0
		if !n.Causal {
			tile = r / q / n.Heads
		}
		a := headOf(in[0], n.Causal, tile*q+i, n.Heads, h)
		scale := float32(1 / math.Sqrt(float64(len(a))))
		for j := range keys {
			if n.Causal && j > i+keys-q {
				y.Row(r)[j] = float32(math.Inf(-1))
				continue
			}
			y.Row(r)[j] = k.dot(a, headOf(in[1], n.Causal, tile*keys+j, n.KVHeads, h/(n.Heads/n.KVHeads))) * scale
		}
	}
}

// headOf is head h of one position: x is [N, S, heads*Dh] in the tower, [T, heads, Dh] or [T, heads*Dh] in the text.
func headOf(x shapes.Tensor, text bool, position, heads, h int) []float32 {
	per := x.Cols()
	if text && len(x.Shape) == 3 {
		per *= x.Shape[1]
	}
	width := per / heads
	return x.Data[position*per+h*width:][:width]
}

func (k arithmetic) softmax(n shapes.Node, x, y shapes.Tensor) {
	q := y.Shape[len(y.Shape)-2]
	for r := range y.Rows() {
		count := y.Cols()
		if n.Causal {
			count = r%q + 1 + y.Cols() - q
		}
		in, out := x.Row(r)[:count], y.Row(r)[:count]
		block := k.block
		if block == 0 {
			block = count
		}
		top, sum := float32(math.Inf(-1)), float32(0)
		for b := 0; b < count; b += block {
			part := in[b:min(b+block, count)]
			before := top
			top = max(top, slices.Max(part))
			sum *= exp32(before - top)
			for _, v := range part {
				sum += exp32(v - top)
			}
		}
		for j, v := range in {
			out[j] = exp32(v-top) / sum
		}
	}
}

func (k arithmetic) context(n shapes.Node, in []shapes.Tensor, y shapes.Tensor) {
	probs := in[0]
	q, keys := probs.Shape[len(probs.Shape)-2], probs.Cols()
	column := make([]float32, keys)
	for r := range probs.Rows() {
		h, i, tile := r/q%n.Heads, r%q, 0
		if !n.Causal {
			tile = r / q / n.Heads
		}
		out := headOf(y, n.Causal, tile*q+i, n.Heads, h)
		count := keys
		if n.Causal {
			count = i + 1 + keys - q
		}
		for d := range out {
			for j := range count {
				column[j] = headOf(in[1], n.Causal, tile*keys+j, n.KVHeads, h/(n.Heads/n.KVHeads))[d]
			}
			out[d] = k.dot(probs.Row(r)[:count], column[:count])
		}
	}
}

// exact evaluates as the reference does.
func exact(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
	return p.replay.Eval(n, in)
}

// equivalents are engines that do something else that changes nothing that they show.
func equivalents() []rightEngine {
	engine := func(name string, shows func(n shapes.Node) bool, eval func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error)) rightEngine {
		return rightEngine{name: name, open: func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
			return &walker{c: c, w: w, eval: eval, shows: shows, info: conformance.Info{Name: name, Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: lanes}}}, nil
		}}
	}
	hides := func(leaves ...string) func(n shapes.Node) bool {
		return func(n shapes.Node) bool {
			return !slices.ContainsFunc(leaves, func(l string) bool { return strings.HasSuffix(n.Name, l) })
		}
	}
	reorder := func(x shapes.Tensor, order func(width, j int) int) shapes.Tensor {
		y := shapes.NewTensor(x.Shape...)
		for r := range y.Rows() {
			for j := range y.Cols() {
				y.Row(r)[j] = x.Row(r)[order(x.Cols(), j)]
			}
		}
		return y
	}
	return []rightEngine{
		engine("the tower's key bias left out, its attention in one piece", func(n shapes.Node) bool {
			return !strings.HasPrefix(n.Name, shapes.VisionTower) || hides(".k_proj", ".scores")(n)
		}, func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
			if strings.HasPrefix(n.Name, shapes.VisionTower) && strings.HasSuffix(n.Name, ".k_proj") {
				n.Params = n.Params[:1]
			}
			return exact(p, n, in)
		}),
		engine("q and k in GGUF's order, neighbouring channels paired", hides(".q_proj", ".k_proj", ".rope_q", ".rope_k"), func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
			y, err := exact(p, n, in)
			if err != nil || n.Kind != shapes.Rope {
				return y, err
			}
			// What the interleaved kernel gives on reordered rows: the right channels, in the reordered places. q k^T does not see the order.
			return reorder(y, func(width, j int) int { return j%2*(width/2) + j/2 }), nil
		}),
		engine("the hidden units of every MLP in the reverse order", hides(".fc1", ".activation_fn", ".gate_proj", ".up_proj", ".act_fn", ".gated"), func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
			back := func(width, j int) int { return width - 1 - j }
			switch {
			case strings.HasSuffix(n.Name, ".fc1"), strings.HasSuffix(n.Name, ".gate_proj"), strings.HasSuffix(n.Name, ".up_proj"):
				y, err := exact(p, n, in)
				return reorder(y, back), err
			case strings.HasSuffix(n.Name, ".fc2"), strings.HasSuffix(n.Name, ".down_proj"):
				return exact(p, n, []shapes.Tensor{reorder(in[0], back)})
			}
			return exact(p, n, in)
		}),
		engine("queries scaled before the product with the keys", nil, func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
			if n.Kind != shapes.Scores {
				return exact(p, n, in)
			}
			width := p.c.Vision.HeadDim()
			if n.Causal {
				width = p.c.Text.HeadDim
			}
			q := shapes.Tensor{Shape: in[0].Shape, Data: slices.Clone(in[0].Data)}
			for i := range q.Data {
				q.Data[i] *= float32(1 / math.Sqrt(float64(width)))
			}
			y := shapes.NewTensor(n.Concrete(shapes.DimsOf(p.c, p.in))...)
			k := arithmetic{class: compare.F32, lanes: 16, fused: true}
			k.scores(n, []shapes.Tensor{q, in[1]}, y)
			for i := range y.Data {
				y.Data[i] *= float32(math.Sqrt(float64(width)))
			}
			return y, nil
		}),
		engine("nothing behind the feature layer, which the logits do not need", func(n shapes.Node) bool { return n.Reach != shapes.Dead }, func(p *prompt, n shapes.Node, in []shapes.Tensor) (shapes.Tensor, error) {
			if n.Reach == shapes.Dead {
				return shapes.NewTensor(n.Concrete(shapes.DimsOf(p.c, p.in))...), nil
			}
			return exact(p, n, in)
		}),
		{name: "the text in chunks of 7 positions through a cache", open: func(c shapes.Config, w shapes.Weights) (conformance.Engine, error) {
			return chunked{c, w, 7}, nil
		}},
	}
}

// chunked feeds the text part by part, and shows the nodes of all parts put together.
type chunked struct {
	c    shapes.Config
	w    shapes.Weights
	size int
}

func (chunked) Info() conformance.Info {
	return conformance.Info{Name: "chunks", Arithmetic: compare.Arithmetic{Class: compare.F32, Lanes: lanes}}
}

// Forward shows the first part with the image whole, since its rows stand in one part.
func (e chunked) Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error) {
	s := ref.New(e.c, e.w).NewSession()
	total := len(in.InputIDs)
	first := e.size
	for i, id := range in.InputIDs {
		if id == e.c.ImageTokenID {
			first = max(first, i+1)
		}
	}
	parts := map[string][]shapes.Tensor{}
	var order []string
	var logits shapes.Tensor
	for from := 0; from < total; {
		to := min(from+e.size, total)
		if from == 0 {
			to = min(first, total)
		}
		part := shapes.Inputs{InputIDs: in.InputIDs[from:to], PositionIDs: in.PositionIDs[from:to]}
		if from == 0 {
			part.PixelValues, part.ImageSizes = in.PixelValues, in.ImageSizes
		}
		y, err := s.Extend(part, 0, func(name string, t shapes.Tensor) {
			if parts[name] == nil {
				order = append(order, name)
			}
			parts[name] = append(parts[name], shapes.Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)})
		})
		if err != nil {
			return shapes.Tensor{}, err
		}
		logits = joined([]shapes.Tensor{logits, y})
		from = to
	}
	for _, name := range order {
		t := joined(parts[name])
		if strings.HasSuffix(name, ".scores") || strings.HasSuffix(name, ".probs") {
			if !strings.HasPrefix(name, shapes.TextModel) {
				t = parts[name][0]
			} else {
				t = squares(parts[name], total, strings.HasSuffix(name, ".scores"))
			}
		}
		probe(name, t)
	}
	return logits, nil
}

// joined puts the rows of parts one under the other.
func joined(parts []shapes.Tensor) shapes.Tensor {
	var y shapes.Tensor
	for _, p := range parts {
		if p.Shape == nil {
			continue
		}
		if y.Shape == nil {
			y.Shape = append([]int{0}, p.Shape[1:]...)
		}
		y.Shape[0] += p.Shape[0]
		y.Data = append(y.Data, p.Data...)
	}
	return y
}

// squares puts parts [H, t, L] together to [H, T, T], with what a causal mask leaves where a part did not reach.
func squares(parts []shapes.Tensor, total int, scores bool) shapes.Tensor {
	heads := parts[0].Shape[0]
	y := shapes.NewTensor(heads, total, total)
	if scores {
		for i := range y.Data {
			y.Data[i] = float32(math.Inf(-1))
		}
	}
	from := 0
	for _, p := range parts {
		for h := range heads {
			for i := range p.Shape[1] {
				copy(y.Row(h*total+from+i), p.Row(h*p.Shape[1]+i))
			}
		}
		from += p.Shape[1]
	}
	return y
}
