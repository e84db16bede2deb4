package bench

import (
	"fmt"
	"math"

	"github.com/llavaref/llavaref/fast/kernel"
	"github.com/llavaref/llavaref/shapes"
)

// contexts are the positions that a decoded token sees, and prompts the lengths of prompts that are measured.
var (
	contexts = []int{64, 2400}
	prompts  = []int{64, 512, 2340}
)

// attentions are the attention of a tile, of a prompt, and of one token, in one layer of the models.
func attentions(c shapes.Config) []group {
	v, t := c.Vision, c.Text
	tower := &attention{heads: v.NumAttentionHeads, kvHeads: v.NumAttentionHeads, dim: v.HeadDim(), queries: v.Positions(), length: v.Positions(), refill: true}
	out := []group{tower.group("attention/vision/tiles=1", kernel.FMA)}
	for _, n := range prompts {
		a := &attention{heads: t.NumAttentionHeads, kvHeads: t.NumKeyValueHeads, dim: t.HeadDim, queries: n, length: n, causal: true, refill: true}
		out = append(out, a.group(fmt.Sprintf("attention/prefill/T=%d", n), kernel.FMA))
	}
	for _, n := range contexts {
		a := &attention{heads: t.NumAttentionHeads, kvHeads: t.NumKeyValueHeads, dim: t.HeadDim, queries: 1, length: n, causal: true}
		out = append(out, a.group(fmt.Sprintf("attention/decode/context=%d", n), kernel.Read))
	}
	return out
}

// attention is the attention of some queries, in as many copies of keys and values as a row needs to find them in memory.
type attention struct {
	heads, kvHeads, dim int
	queries, length     int // length counts the queries' positions, too
	causal              bool
	refill              bool // keys and values are appended each time, as a layer does

	pool *kernel.Pool
	kvs  []*kernel.KV
	k, v []float32
	q, y []float32
	next int
}

func (a *attention) group(name string, limit kernel.Limit) group {
	seen := float64(a.queries) * float64(a.length)
	if a.causal {
		seen = float64(a.queries)*float64(a.length-a.queries) + float64(a.queries)*float64(a.queries+1)/2
	}
	w := &work{
		name: name, limit: limit, standard: true,
		flop:  4 * float64(a.heads*a.dim) * seen, // scores and context, two each
		bytes: 2 * 4 * float64(a.length) * float64(a.kvHeads*a.dim),
		run:   func() error { a.run(); return nil },
		check: a.check,
	}
	return group{works: []*work{w}, open: a.open}
}

func (a *attention) open(m *meter, _ []*work) (func(), error) {
	var mem arena
	fail := func(err error) (func(), error) { mem.close(); return nil, err }
	a.pool, a.next = m.pool, 0
	width := a.kvHeads * a.dim
	var err error
	for _, s := range []struct {
		to    *[]float32
		count int
	}{{&a.k, a.length * width}, {&a.v, a.length * width}, {&a.q, a.queries * a.heads * a.dim}, {&a.y, a.queries * a.heads * a.dim}} {
		if *s.to, err = mem.floats(s.count); err != nil {
			return fail(err)
		}
		for i := range *s.to {
			(*s.to)[i] = value(i)
		}
	}
	count := 1
	if !a.refill && m.policy != quick {
		count = max(1, min(mostCopies, copiesBytes/2/(2*4*a.length*width)))
	}
	a.kvs = nil
	for range count {
		kv := kernel.NewKV(a.length, a.kvHeads, a.dim)
		a.pool.Append(kv, a.k, a.v)
		a.kvs = append(a.kvs, kv)
	}
	return func() {
		mem.close()
		a.kvs, a.k, a.v, a.q, a.y = nil, nil, nil, nil, nil
	}, nil
}

func (a *attention) scale() float64 { return 1 / math.Sqrt(float64(a.dim)) }

func (a *attention) run() {
	kv := a.kvs[a.next%len(a.kvs)]
	a.next++
	if a.refill {
		kv.Reset()
		a.pool.Append(kv, a.k, a.v)
	}
	a.pool.Attend(a.y, a.q, kv, a.heads, float32(a.scale()), a.causal)
}

// check holds some of the result against float64.
func (a *attention) check() error {
	clear(a.y)
	a.run()
	width := a.kvHeads * a.dim
	for probe := range 8 {
		query, head := probe*7919%a.queries, probe*31%a.heads
		if probe == 0 {
			query, head = a.queries-1, a.heads-1
		}
		kvHead := head / (a.heads / a.kvHeads)
		limit := a.length
		if a.causal {
			limit = a.length - a.queries + query + 1
		}
		want, sum := make([]float64, a.dim), 0.0
		for j := range limit {
			dot := 0.0
			for d := range a.dim {
				dot += float64(a.q[(query*a.heads+head)*a.dim+d]) * float64(a.k[j*width+kvHead*a.dim+d])
			}
			p := math.Exp(dot * a.scale()) // scores of these values are small: nothing overflows
			sum += p
			for d := range a.dim {
				want[d] += p * float64(a.v[j*width+kvHead*a.dim+d])
			}
		}
		for d := range a.dim {
			got := float64(a.y[(query*a.heads+head)*a.dim+d])
			if !(math.Abs(got-want[d]/sum) <= 1e-5) { // of means of values of at most 1/2
				return fmt.Errorf("query %d, head %d, column %d is %g, want %g: an attention that is wrong is not measured", query, head, d, got, want[d]/sum)
			}
		}
	}
	return nil
}
