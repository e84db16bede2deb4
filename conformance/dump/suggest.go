package dump

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// Limits of what is proposed.
const (
	// alike is the error, over the rms of the node, up to which an array may be a node at all: an engine in bfloat16 with a small bug is still
	// this near to its own node, and two nodes of a model are further apart unless they are the same.
	alike = 0.1
	// muchWorse is by how much worse the second best reading must be: what is nearer fits as well.
	muchWorse = 10
	// exact is an error at which two readings are not told apart by the better of them.
	exact = 1e-6
)

// Proposal is a map for arrays that a manifest does not explain.
type Proposal struct {
	Arrays    int // that the manifest does not explain
	Explained int
	Rules     []Rule
	Open      []string // what is said of arrays with no reading or with several
}

// Fragment is the rules as they stand in a manifest; empty without any.
func (p Proposal) Fragment() string {
	if len(p.Rules) == 0 {
		return ""
	}
	lines := make([]string, len(p.Rules))
	for i, r := range p.Rules {
		text, err := json.Marshal(r)
		if err != nil {
			return ""
		}
		lines[i] = "  " + string(text)
	}
	return "\"map\": [\n" + strings.Join(lines, ",\n") + "\n]"
}

// reading is one way to read an array.
type reading struct {
	rule Rule // of one node or of several side by side, numbers filled in
	err  float64
}

// Suggest tries every array that is no node as every node that the dump lacks and truth has, in every order of axes. What allows only one reading by
// shape and values becomes a rule.
func Suggest(r *Reader, b *Binding, c shapes.Config, in shapes.Inputs, truth func(node string) (shapes.Tensor, bool)) Proposal {
	s := suggester{reader: r, config: c, dims: shapes.DimsOf(c, in), truth: map[string]shapes.Tensor{}, norms: map[string]norms{}}
	for _, n := range shapes.Nodes(c) {
		if !n.Present(s.dims) || b.Has(n.Name) {
			continue
		}
		if t, ok := truth(n.Name); ok && slices.Equal(t.Shape, n.Concrete(s.dims)) {
			s.nodes = append(s.nodes, n)
			s.truth[n.Name], s.norms[n.Name] = t, normsOf(t.Data)
		}
	}
	p := Proposal{}
	var found []reading
	var alone []*array              // that are no node by themselves
	claims := map[string][]string{} // node -> arrays
	for _, name := range r.names {
		unknown := slices.Contains(b.Unused, name)
		for node, text := range b.wrong { // an array with the right name and the wrong layout is not explained either
			unknown = unknown || strings.HasPrefix(text, "array "+quote(name)+" ") && b.wrong[node] != ""
		}
		if !unknown {
			continue
		}
		p.Arrays++
		best := s.best(r.arrays[name])
		switch {
		case len(best) == 0 && s.summand(r.arrays[name]):
			alone = append(alone, r.arrays[name])
		case len(best) == 0:
			p.Open = append(p.Open, fmt.Sprintf("%s %s: no reading fits a node that is still without an array", quote(name), list(r.arrays[name].shape)))
		case len(best) > 1:
			text := fmt.Sprintf("%s %s: several readings fit, and which is meant cannot be told:", quote(name), list(r.arrays[name].shape))
			for _, k := range best[:min(len(best), 5)] {
				line, _ := json.Marshal(k.rule)
				text += "\n  " + string(line)
			}
			p.Open = append(p.Open, text)
		default:
			for _, node := range best[0].rule.Node {
				claims[node] = append(claims[node], name)
			}
			found = append(found, best[0])
		}
	}
	pairs, left := s.sums(alone)
	for _, k := range pairs {
		for _, node := range k.rule.Node {
			claims[node] = append(claims[node], k.rule.Sum[0])
		}
		found = append(found, k)
	}
	for _, a := range left {
		p.Open = append(p.Open, fmt.Sprintf("%s %s: no reading fits a node that is still without an array", quote(a.name), list(a.shape)))
	}
	said := map[string]bool{}
	found = slices.DeleteFunc(found, func(k reading) bool { // what two arrays claim is nobody's
		lost := false
		for _, node := range k.rule.Node {
			if c := claims[node]; len(c) > 1 {
				if lost = true; !said[node] {
					p.Open = append(p.Open, fmt.Sprintf("%s and %s are both %s; which is meant cannot be told", quote(c[0]), quote(c[1]), node))
				}
				said[node] = true
			}
		}
		return lost
	})
	for _, k := range found {
		p.Explained += max(1, len(k.rule.Sum))
	}
	p.Rules = joinLayers(found)
	return p
}

// suggester tries readings.
type suggester struct {
	reader *Reader
	config shapes.Config
	dims   shapes.Dims
	nodes  []shapes.Node // that have no array yet
	truth  map[string]shapes.Tensor
	norms  map[string]norms
}

// norms do not depend on the order of values.
type norms struct{ count, mean, abs, rms float64 }

func normsOf(x []float32) norms {
	n := norms{}
	for _, v := range x {
		if f := float64(v); f-f == 0 {
			n.count++
			n.mean += f
			n.abs += math.Abs(f)
			n.rms += f * f
		}
	}
	k := max(n.count, 1)
	n.mean, n.abs, n.rms = n.mean/k, n.abs/k, math.Sqrt(n.rms/k)
	return n
}

// near says whether two tensors can be alike in some order.
func (n norms) near(m norms) bool {
	return math.Abs(n.rms-m.rms) <= 2*alike*m.rms && math.Abs(n.abs-m.abs) <= 2*alike*m.rms && math.Abs(n.mean-m.mean) <= 2*alike*m.rms
}

// best lists the readings of an array that fit, or nothing.
func (s *suggester) best(a *array) []reading {
	if a.values == nil || a.count() == 0 || !s.possible(a) {
		return nil
	}
	values, err := a.values()
	if err != nil || len(values) != a.count() {
		return nil
	}
	have := normsOf(values)
	var all []reading
	for _, n := range s.nodes {
		all = append(all, s.single(a, n, values, have)...)
	}
	all = append(all, s.fused(a, values)...)
	lowest := math.Inf(1)
	for _, k := range all {
		lowest = min(lowest, k.err)
	}
	return slices.DeleteFunc(all, func(k reading) bool { return k.err > max(muchWorse*lowest, exact) })
}

// possible says whether an array has as many values as some node, or as several side by side.
func (s *suggester) possible(a *array) bool {
	for _, n := range s.nodes {
		want := n.Concrete(s.dims)
		if k := shapes.Product(want); k == a.count() || n.Name == shapes.LMHead && a.count()%want[1] == 0 && a.count() < k {
			return true
		}
	}
	for _, group := range s.groups() {
		if s.sizeOf(group) == a.count() {
			return true
		}
	}
	return false
}

// single tries an array as one node.
func (s *suggester) single(a *array, n shapes.Node, values []float32, have norms) []reading {
	want := n.Concrete(s.dims)
	heads, width := headsOf(s.config, n)
	truth := s.truth[n.Name]
	var out []reading
	if v := want[len(want)-1]; n.Name == shapes.LMHead && len(values) < len(truth.Data) && len(values)%v == 0 && len(a.shape) > 0 && a.shape[len(a.shape)-1] == v {
		if e := apart(values, truth.Data[len(truth.Data)-len(values):]); e <= alike {
			rule := Rule{Node: Names{n.Name}, Tensor: a.name, Rows: "last"}
			if len(a.shape) != 2 {
				rule.Axes = strings.Repeat("1 ", max(len(a.shape)-2, 0)) + "T V"
				if len(a.shape) == 1 {
					return nil
				}
			}
			return []reading{{rule, e}}
		}
	}
	if len(values) != len(truth.Data) {
		return nil
	}
	scales := []*Scale{nil}
	if n.Kind == shapes.Scores {
		scales = append(scales, &Scale{Root: true})
	}
	for _, scale := range scales {
		times := 1.0
		if scale != nil {
			times = 1 / math.Sqrt(float64(width))
		}
		scaled := have
		scaled.mean, scaled.abs, scaled.rms = have.mean*times, have.abs*times, have.rms*times
		if n.Kind != shapes.Scores && !scaled.near(s.norms[n.Name]) {
			continue // behind a causal mask an engine may have anything
		}
		reversed := slices.Clone(a.shape)
		slices.Reverse(reversed)
		for _, order := range []string{"", NE} {
			shape := a.shape
			if order == NE {
				if shape = reversed; slices.Equal(shape, a.shape) {
					continue
				}
			}
			for _, axes := range readings(n, want, shape, heads, width) {
				l, err := newLayout(n, want, axes, heads, width)
				if err != nil {
					continue
				}
				p := l.whole()
				got := values
				if !l.own || order == NE {
					got = make([]float32, len(values))
					p.place(got, values, p.lengths)
				}
				if scale != nil {
					got = slices.Clone(got)
					for i := range got {
						got[i] *= float32(times)
					}
				}
				if e := apart(got, truth.Data); e <= alike && !slices.ContainsFunc(out, func(k reading) bool { return k.err == e && k.rule.AxisOrder == order }) {
					rule := Rule{Node: Names{n.Name}, Tensor: a.name, AxisOrder: order, Scale: scale}
					if !l.own {
						rule.Axes = axes
					}
					out = append(out, reading{rule, e})
				}
			}
		}
	}
	return out
}

// Limits of what is tried as a sum.
const (
	maxSummands = 256 // arrays
	probed      = 64  // entries that are looked at before all are
)

// summand says whether an array has the size of a node that lies in it as it is, or with a batch of one in front.
func (s *suggester) summand(a *array) bool {
	if a.values == nil {
		return false
	}
	return slices.ContainsFunc(s.nodes, func(n shapes.Node) bool { return s.plain(a, n) != nil })
}

// plain is the order of axes in which an array has a node's shape, without any change or with a batch of one in front; nil if it has not.
func (s *suggester) plain(a *array, n shapes.Node) *string {
	want, axes := n.Concrete(s.dims), ""
	if n.Kind != shapes.Add { // no engine hands on another node as two parts
		return nil
	}
	shape := a.shape
	if len(shape) == len(want)+1 && shape[0] == 1 {
		axes, shape = "1", shape[1:]
		for _, d := range n.Shape {
			axes += " " + d.Letter
		}
	}
	if !slices.Equal(shape, want) {
		return nil
	}
	return &axes
}

// sums tries every two arrays as a node of the residual stream: the hidden state and the residual that an engine adds up later. A pair is taken if it is the only
// one for its node and the node the only one for it; what is left is given back.
func (s *suggester) sums(alone []*array) (found []reading, left []*array) {
	if len(alone) > maxSummands {
		return nil, alone
	}
	values := make([][]float32, len(alone))
	for i, a := range alone {
		if v, err := a.values(); err == nil && len(v) == a.count() {
			values[i] = v
		}
	}
	type pair struct {
		a, b int
		reading
	}
	var all []pair
	for _, n := range s.nodes {
		truth := s.truth[n.Name].Data
		best := math.Inf(1)
		var fits []pair
		for i, a := range alone {
			axes := s.plain(a, n)
			if axes == nil || values[i] == nil {
				continue
			}
			for k := i + 1; k < len(alone); k++ {
				other := s.plain(alone[k], n)
				if other == nil || *other != *axes || values[k] == nil || !s.probe(values[i], values[k], truth) {
					continue
				}
				sum := make([]float32, len(truth))
				for e := range sum {
					sum[e] = values[i][e] + values[k][e]
				}
				if e := apart(sum, truth); e <= alike {
					best = min(best, e)
					fits = append(fits, pair{i, k, reading{Rule{Node: Names{n.Name}, Sum: []string{a.name, alone[k].name}, Axes: *axes}, e}})
				}
			}
		}
		fits = slices.DeleteFunc(fits, func(p pair) bool { return p.err > max(muchWorse*best, exact) })
		all = append(all, fits...)
	}
	claims, nodes := map[int]int{}, map[string]int{}
	for _, p := range all {
		claims[p.a]++
		claims[p.b]++
		nodes[p.rule.Node[0]]++
	}
	used := map[int]bool{}
	for _, p := range all {
		if claims[p.a] == 1 && claims[p.b] == 1 && nodes[p.rule.Node[0]] == 1 {
			found = append(found, p.reading)
			used[p.a], used[p.b] = true, true
		}
	}
	for i, a := range alone {
		if !used[i] {
			left = append(left, a)
		}
	}
	return found, left
}

// probe says whether a few entries of two arrays can add up to a node.
func (s *suggester) probe(a, b, truth []float32) bool {
	var diff, all float64
	n := min(probed, len(truth))
	for k := range n {
		e := k * len(truth) / n
		d := float64(a[e]) + float64(b[e]) - float64(truth[e])
		diff, all = diff+d*d, all+float64(truth[e])*float64(truth[e])
	}
	return diff <= 16*alike*alike*all // a few entries scatter
}

// groups are the nodes that engines fuse.
func (s *suggester) groups() [][]shapes.Node {
	left := map[string]shapes.Node{}
	for _, n := range s.nodes {
		left[n.Name] = n
	}
	var out [][]shapes.Node
	add := func(layer string, names ...string) {
		var group []shapes.Node
		for _, name := range names {
			n, ok := left[layer+name]
			if !ok {
				return
			}
			group = append(group, n)
		}
		out = append(out, group)
	}
	for i := range s.config.Vision.NumHiddenLayers {
		add(shapes.VisionLayer(i), ".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj")
	}
	for i := range s.config.Text.NumHiddenLayers {
		add(shapes.TextLayer(i), ".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj")
		add(shapes.TextLayer(i), ".mlp.gate_proj", ".mlp.up_proj")
	}
	return out
}

func (s *suggester) sizeOf(group []shapes.Node) int {
	size := 0
	for _, n := range group {
		size += shapes.Product(n.Concrete(s.dims))
	}
	return size
}

// fused tries an array as several nodes side by side, in every order.
func (s *suggester) fused(a *array, values []float32) []reading {
	var out []reading
	for _, group := range s.groups() {
		if s.sizeOf(group) != a.count() {
			continue
		}
		index := make([]string, len(group))
		for i := range group {
			index[i] = strconv.Itoa(i)
		}
		permutations(index, func(order []string) {
			rule := Rule{Tensor: a.name}
			for _, digits := range order {
				i, _ := strconv.Atoi(digits)
				rule.Node = append(rule.Node, group[i].Name)
			}
			for _, axes := range fusedAxes(group[0]) {
				rule := rule
				rule.Axes = axes
				if e, ok := s.fusedError(a, rule, values); ok {
					out = append(out, reading{rule, e})
					return
				}
			}
		})
	}
	return out
}

// fusedAxes are the layouts of a fused array that are tried.
func fusedAxes(n shapes.Node) []string {
	var before []string
	for _, d := range n.Shape[:len(n.Shape)-1] {
		before = append(before, d.Letter)
	}
	own := strings.Join(before, " ") + " " + lastAxis
	turned := lastAxis + " " + strings.Join(before, " ")
	return []string{"", "1 " + own, turned, "1 " + turned}
}

// fusedError reads all nodes of a rule, as they would be read from a dump.
func (s *suggester) fusedError(a *array, rule Rule, values []float32) (float64, bool) {
	r := &Reader{arrays: map[string]*array{a.name: {name: a.name, file: a.file, dtype: a.dtype, shape: a.shape, values: func() ([]float32, error) { return values, nil }}},
		Manifest: Manifest{Naming: NoNaming, Class: "f32"}}
	b := binder{Binding: &Binding{reader: r, plans: map[string]*plan{}, wrong: map[string]string{}, reason: map[string]string{}}, config: s.config, dims: s.dims,
		used: map[string]bool{}, nodes: map[string]shapes.Node{}, mapped: newRuleSet([]Rule{rule})}
	for _, n := range s.nodes {
		b.nodes[n.Name] = n
	}
	worst := 0.0
	for _, name := range rule.Node {
		if err := b.node(b.nodes[name]); err != nil || b.plans[name] == nil {
			return 0, false
		}
		t, err := b.plans[name].read()
		if err != nil {
			return 0, false
		}
		worst = max(worst, apart(t.Data, s.truth[name].Data))
	}
	return worst, worst <= alike
}

// apart is the root mean square of the difference over that of the truth, where the truth is finite; infinite if got is no number there.
func apart(got, want []float32) float64 {
	var diff, all float64
	for i, w := range want {
		if w-w != 0 {
			continue
		}
		d := float64(got[i]) - float64(w)
		diff += d * d
		all += float64(w) * float64(w)
	}
	if diff == 0 {
		return 0
	}
	if e := math.Sqrt(diff / all); e == e {
		return e
	}
	return math.Inf(1)
}

var number = regexp.MustCompile(`\d+`)

// joinLayers makes one rule of those that differ in the number of a layer only.
func joinLayers(found []reading) []Rule {
	var out []Rule
	at := map[string]int{}
	for _, k := range found {
		r, joined := k.rule, false
		if m := layerPath.FindStringSubmatch(r.Node[0]); m != nil {
			for _, general := range general(r, m[2]) {
				key, _ := json.Marshal(general)
				if i, ok := at[string(key)]; ok {
					out[i], joined = general, true
					break
				}
			}
			if joined {
				continue
			}
			for _, general := range general(r, m[2]) {
				key, _ := json.Marshal(general)
				at[string(key)] = len(out)
			}
		}
		out = append(out, r)
	}
	return out
}

var layerPath = regexp.MustCompile(`^(.*\.layers\.)(\d+)`)

// general lists the rules for all layers of which this one, for the given layer, may be a part: the number stands somewhere in the name of the array.
func general(r Rule, layer string) []Rule {
	i, err := strconv.Atoi(layer)
	if err != nil {
		return nil
	}
	if r.Sum != nil {
		return generalSum(r, i)
	}
	var out []Rule
	for _, place := range number.FindAllStringIndex(r.Tensor, -1) {
		n, err := strconv.Atoi(r.Tensor[place[0]:place[1]])
		if err != nil || n-i < -1 || n-i > 1 || strconv.Itoa(n) != r.Tensor[place[0]:place[1]] {
			continue
		}
		g := r
		mark := "{i}"
		if n != i {
			mark = fmt.Sprintf("{i%+d}", n-i)
		}
		g.Tensor = r.Tensor[:place[0]] + mark + r.Tensor[place[1]:]
		g.Node = nil
		for _, name := range r.Node {
			g.Node = append(g.Node, layerPath.ReplaceAllString(name, "${1}{i}"))
		}
		out = append(out, g)
	}
	return out
}

// generalSum is general for a sum: the number stands in the names of all of its arrays, at the first place where it does.
func generalSum(r Rule, layer int) []Rule {
	var out []Rule
	for by := -1; by <= 1; by++ {
		g := r
		g.Node, g.Sum = Names{layerPath.ReplaceAllString(r.Node[0], "${1}{i}")}, nil
		mark := "{i}"
		if by != 0 {
			mark = fmt.Sprintf("{i%+d}", by)
		}
		for _, name := range r.Sum {
			for _, place := range number.FindAllStringIndex(name, -1) {
				if name[place[0]:place[1]] == strconv.Itoa(layer+by) {
					g.Sum = append(g.Sum, name[:place[0]]+mark+name[place[1]:])
					break
				}
			}
		}
		if len(g.Sum) == len(r.Sum) {
			out = append(out, g)
		}
	}
	return out
}
