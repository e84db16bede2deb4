package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// Reader is an open dump: its manifest and the headers of its arrays. Values are read node by node.
type Reader struct {
	Manifest Manifest
	dir      string
	arrays   map[string]*array
	names    []string // sorted
	closers  []io.Closer
}

// Open opens a dump and reads its manifest and the headers of its arrays, each held against the size of its file.
func Open(dir string) (*Reader, error) {
	r := &Reader{dir: dir, arrays: map[string]*array{}}
	err := r.open()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("dump: %s: %w", dir, err)
	}
	return r, nil
}

func (r *Reader) open() error {
	info, err := os.Stat(r.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s, want a folder", kindOf(info.Mode()))
	}
	if r.Manifest, err = readManifest(r.dir); err != nil {
		return err
	}
	if err := r.scan(); err != nil {
		return err
	}
	slices.Sort(r.names)
	for _, n := range r.Manifest.Nodes {
		a := r.arrays[n.Name]
		if a == nil {
			return fmt.Errorf("%s lists %s, which is not there: was the dump cut off?", ManifestFile, quote(n.Name))
		}
		if !slices.Equal(a.shape, n.Shape) {
			return fmt.Errorf("%s: shape %s, but %s says %s", quote(n.Name), list(a.shape), ManifestFile, list(n.Shape))
		}
	}
	return nil
}

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// IsDump says whether a folder has a manifest.
func IsDump(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ManifestFile))
	return err == nil
}

// Info is what the dump declares about its engine.
func (r *Reader) Info() conformance.Info {
	m := r.Manifest
	info := conformance.Info{Name: m.Engine, Version: m.Version, Arithmetic: compare.Arithmetic{Class: compare.Class(m.Class), Lanes: compare.Lanes(m.Lanes)}}
	for _, c := range m.Classes {
		info.Classes = append(info.Classes, conformance.NodeClass{Nodes: c.Nodes, Class: compare.Class(c.Class)})
	}
	return info
}

// Array is what is known of an array without reading it.
type Array struct {
	Name, File, DType string
	Shape             []int
}

// Arrays lists the arrays of the dump by name, the inputs included.
func (r *Reader) Arrays() []Array {
	var out []Array
	for _, name := range r.names {
		a := r.arrays[name]
		out = append(out, Array{a.name, a.file, a.dtype, slices.Clone(a.shape)})
	}
	return out
}

// inputNames are the arrays that are no nodes.
var inputNames = []string{shapes.InInputIDs, shapes.InPositionIDs, shapes.InPixelValues, shapes.InImageSizes}

// CheckInputs holds the inputs that the dump has against a prompt. A difference says that the dump is of another one.
func (r *Reader) CheckInputs(in shapes.Inputs) error {
	if err := r.checkInputs(in); err != nil {
		return fmt.Errorf("dump: %s: %w", r.dir, err)
	}
	return nil
}

func (r *Reader) checkInputs(in shapes.Inputs) error {
	for _, c := range []struct {
		name string
		want []int
	}{{shapes.InInputIDs, in.InputIDs}, {shapes.InPositionIDs, in.PositionIDs}} {
		if err := r.checkIDs(c.name, c.want); err != nil {
			return fmt.Errorf("%s: %w: the dump is of another prompt", c.name, err)
		}
	}
	if err := r.checkSizes(in.ImageSizes); err != nil {
		return fmt.Errorf("%s: %w", shapes.InImageSizes+".json", err)
	}
	return r.checkPixels(in.PixelValues)
}

func (r *Reader) checkIDs(name string, want []int) error {
	a := r.arrays[name]
	if a == nil {
		return nil
	}
	if a.ints == nil {
		return fmt.Errorf("dtype %s, want integers", a.dtype)
	}
	if a.count() != len(want) {
		return fmt.Errorf("shape %s, want [%d]", list(a.shape), len(want))
	}
	got, err := a.ints()
	if err != nil {
		return err
	}
	for i, v := range got {
		if v != int64(want[i]) {
			return fmt.Errorf("position %d has %d, want %d", i, v, want[i])
		}
	}
	return nil
}

func (r *Reader) checkSizes(want []shapes.Size) error {
	got, err := r.sizes()
	if err != nil || got == nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d images, want %d: the dump is of another prompt", len(got), len(want))
	}
	for i, s := range got {
		if s != want[i] {
			return fmt.Errorf("image %d is [%d, %d], want [%d, %d] (height, width): the dump is of another prompt", i, s.H, s.W, want[i].H, want[i].W)
		}
	}
	return nil
}

// sizes reads the sizes of the images; nil if the dump does not have them.
func (r *Reader) sizes() ([]shapes.Size, error) {
	path := filepath.Join(r.dir, shapes.InImageSizes+".json")
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s, want a file", kindOf(info.Mode()))
	}
	data, err := readLimited(path, 1<<20)
	if err != nil {
		return nil, err
	}
	var pairs [][]int
	if err := json.Unmarshal(data, &pairs); err != nil {
		return nil, fmt.Errorf("want [[height, width], ...]: %v", err)
	}
	out := []shapes.Size{}
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("image %d is %v, want [height, width]", i, p)
		}
		out = append(out, shapes.Size{H: p[0], W: p[1]})
	}
	return out, nil
}

// checkPixels lets an engine round the pixels to its class.
func (r *Reader) checkPixels(want shapes.Tensor) error {
	a := r.arrays[shapes.InPixelValues]
	if a == nil {
		return nil
	}
	if a.values == nil {
		return fmt.Errorf("%s: dtype %s, want floats", shapes.InPixelValues, a.dtype)
	}
	if want.Data == nil && want.Shape == nil && a.count() == 0 {
		return nil
	}
	if !slices.Equal(a.shape, want.Shape) {
		return fmt.Errorf("%s: shape %s, want %s: the dump is of another prompt", shapes.InPixelValues, list(a.shape), list(want.Shape))
	}
	if want.Data == nil { // of a prompt of which no more than the shape is known
		return nil
	}
	got, err := a.values()
	if err != nil {
		return err
	}
	class := compare.Class(r.Manifest.Class)
	for i, v := range got {
		w := float64(want.Data[i])
		if v != want.Data[i] && !(math.Abs(float64(v)-w) <= class.HalfStep(w)) {
			return fmt.Errorf("%s: value %d is %v, want %v: the engine has other pixels than the case gives it (judge them apart: llavaref preprocess)", shapes.InPixelValues, i, v, want.Data[i])
		}
	}
	return nil
}

// Binding says which array of a dump is which node of one prompt.
type Binding struct {
	Unused []string // arrays that are no node, by name
	Hint   string   // what of the manifest is likely to be wrong; may be empty

	reader *Reader
	plans  map[string]*plan
	wrong  map[string]string // node -> what is wrong with its array
	reason map[string]string // node -> why there is none
	odd    map[string]odd    // nodes with an array of another shape
}

// odd is an array that is not of its node's shape, and the shape that it has without leading ones.
type odd struct {
	array *array
	shape []int
}

// plan is how a node is read.
type plan struct {
	node  shapes.Node
	shape []int // of the node, or of the rows that there are
	whole int   // rows of the whole node
	terms [][]part
	total []int // lengths of the node's atoms
	scale float32
	round func(float32) float32 // of a sum

	rule         Rule
	heads, width int // of the attention
	fused        int // axis on which nodes lie side by side
	fusedNames   []string
	fusedLens    []int
}

// part is an array and what it must look like.
type part struct {
	piece
	values *array
}

// Bind finds the arrays of the nodes of a prompt. What the map says that no node can be is an error; an array that does not fit its node is
// that node's failure.
func (r *Reader) Bind(c shapes.Config, in shapes.Inputs) (*Binding, error) {
	b, err := r.bind(c, in)
	if err != nil {
		return nil, fmt.Errorf("dump: %s: %s: %w", r.dir, ManifestFile, err)
	}
	return b, nil
}

func (r *Reader) bind(c shapes.Config, in shapes.Inputs) (*Binding, error) {
	b := &Binding{reader: r, plans: map[string]*plan{}, wrong: map[string]string{}, reason: map[string]string{}, odd: map[string]odd{}}
	bind := binder{Binding: b, config: c, dims: shapes.DimsOf(c, in), used: map[string]bool{}, nodes: map[string]shapes.Node{}}
	all := shapes.Nodes(c)
	for _, n := range all {
		bind.nodes[n.Name] = n
	}
	bind.mapped = newRuleSet(r.Manifest.Map)
	bind.named = newRuleSet(r.naming(c))
	for i, rule := range bind.mapped.list {
		for k, p := range rule.patterns {
			if !slices.ContainsFunc(all, func(n shapes.Node) bool { _, ok := p.match(n.Name); return ok }) {
				return nil, fmt.Errorf("map[%d]: %s fits no node of the model (llavaref nodes lists them)", i, quote(rule.Node[k]))
			}
		}
	}
	for i, c := range r.Manifest.Classes {
		p := newPattern(c.Nodes, true)
		if !slices.ContainsFunc(all, func(n shapes.Node) bool { _, ok := p.match(n.Name); return ok }) {
			return nil, fmt.Errorf("classes[%d]: %s fits no node of the model (llavaref nodes lists them)", i, quote(c.Nodes))
		}
	}
	for _, n := range all {
		if err := bind.node(n); err != nil {
			return nil, err
		}
	}
	for _, name := range r.names {
		if !bind.used[name] && !slices.Contains(inputNames, name) {
			b.Unused = append(b.Unused, name)
		}
	}
	if len(b.Unused) > 0 {
		b.Hint = r.betterNaming(c)
	}
	return b, nil
}

// naming is the rules of the manifest's naming.
func (r *Reader) naming(c shapes.Config) []Rule {
	rules := Rules(r.Manifest.Naming, c)
	if !r.Manifest.Batch {
		return rules
	}
	nodes := map[string]shapes.Node{}
	for _, n := range shapes.Nodes(c) {
		nodes[n.Name] = n
	}
	for i, rule := range rules {
		name, _ := fill(rule.Node[0], 0)
		n, ok := nodes[name]
		if !ok || n.Shape[0].Letter == "N" || n.Shape[0].Letter == "R" {
			continue
		}
		if rule.Axes == "" {
			var letters []string
			for _, d := range n.Shape[:len(n.Shape)-1] {
				letters = append(letters, d.Letter)
			}
			rules[i].Axes = strings.Join(append(letters, lastAxis), " ")
		}
		rules[i].Axes = "1 " + rules[i].Axes
	}
	return rules
}

// compiled is a rule with the patterns of its nodes.
type compiled struct {
	Rule
	patterns []pattern
}

func compile(rules []Rule) []compiled {
	out := make([]compiled, len(rules))
	for i, r := range rules {
		out[i].Rule = r
		for _, name := range r.Node {
			out[i].patterns = append(out[i].patterns, newPattern(name, false))
		}
	}
	return out
}

// ruleSet finds the rules about a node without looking at all of them: a naming of modules has one for every node.
type ruleSet struct {
	list  []compiled
	exact map[string][]about // by the node's name
	open  []about            // rules with a number in the node's name
}

// about is a rule that may be about a node.
type about struct {
	rule, part int // number of the rule, and of the name among the rule's
	i          int // number of the layer
}

func newRuleSet(rules []Rule) ruleSet {
	s := ruleSet{list: compile(rules), exact: map[string][]about{}}
	for r, rule := range s.list {
		for k, p := range rule.patterns {
			if p.re == nil {
				s.exact[p.exact] = append(s.exact[p.exact], about{rule: r, part: k})
			} else {
				s.open = append(s.open, about{rule: r, part: k})
			}
		}
	}
	return s
}

// about lists the rules about a node, in their own order.
func (s ruleSet) about(node string) []about {
	out := slices.Clone(s.exact[node])
	for _, a := range s.open {
		if i, ok := s.list[a.rule].patterns[a.part].match(node); ok {
			a.i = i
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b about) int { return a.rule - b.rule })
	return out
}

// binder is a Binding under construction.
type binder struct {
	*Binding
	config        shapes.Config
	dims          shapes.Dims
	nodes         map[string]shapes.Node
	mapped, named ruleSet
	used          map[string]bool
}

// hit is a rule that fits a node and whose arrays are there.
type hit struct {
	rule  compiled
	i     int        // number of the layer
	part  int        // place of the node among the rule's
	names [][]string // of the arrays: terms of a sum, each of one or more parts
}

// node plans how a node is read.
func (b *binder) node(n shapes.Node) error {
	hits, spoken := b.hits(b.mapped, n)
	if len(hits) > 1 {
		return fmt.Errorf("map: two rules have an array for %s: %s and %s", n.Name, quote(hits[0].names[0][0]), quote(hits[1].names[0][0]))
	}
	if len(hits) == 0 {
		more, named := b.hits(b.named, n)
		hits, spoken = more, spoken || named
	}
	if len(hits) == 0 {
		b.reason[n.Name] = "the dump has no array for it"
		if !spoken {
			b.reason[n.Name] = fmt.Sprintf("naming %s has no name for it, and the map no rule", b.reader.Manifest.Naming)
		}
		return nil
	}
	h := hits[0]
	for _, term := range h.names {
		for _, name := range term {
			b.used[name] = true
		}
	}
	if !n.Present(b.dims) {
		return nil
	}
	p, fault, err := b.plan(n, h)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	if fault != "" {
		b.wrong[n.Name] = fault
		b.keepOdd(n, h)
		return nil
	}
	b.plans[n.Name] = p
	return nil
}

// keepOdd notes the one array of a node that no rule says more of than its name: its shape is then the engine's own.
func (b *binder) keepOdd(n shapes.Node, h hit) {
	r := h.rule
	order := r.AxisOrder
	if order == "" {
		order = b.reader.Manifest.AxisOrder
	}
	if len(h.names) != 1 || len(h.names[0]) != 1 || len(r.Node) != 1 || r.Axes != "" || r.Join != "" || r.Padded != "" || r.Scale != nil || order == NE {
		return
	}
	a := b.reader.arrays[h.names[0][0]]
	if a.values == nil {
		return
	}
	shape := slices.Clone(a.shape)
	for len(shape) > len(n.Shape) && shape[0] == 1 {
		shape = shape[1:]
	}
	b.odd[n.Name] = odd{a, shape}
}

// hits lists the rules that have arrays for a node; spoken says whether any rule is about it.
func (b *binder) hits(rules ruleSet, n shapes.Node) (hits []hit, spoken bool) {
	for _, a := range rules.about(n.Name) {
		rule := rules.list[a.rule]
		spoken = true
		h := hit{rule: rule, i: a.i, part: a.part}
		for _, name := range rule.tensors() {
			parts := b.parts(name, a.i, rule.Join != "")
			if parts == nil {
				h.names = nil
				break
			}
			h.names = append(h.names, parts)
		}
		if h.names != nil {
			hits = append(hits, h)
		}
	}
	return hits, spoken
}

// parts fills in the numbers in an array's name; nil if it is not there.
func (b *binder) parts(name string, i int, joined bool) []string {
	name, ok := fill(name, i)
	if !ok {
		return nil
	}
	if !joined {
		if b.reader.arrays[name] == nil {
			return nil
		}
		return []string{name}
	}
	var parts []string
	for k := 0; ; k++ {
		part := strings.ReplaceAll(name, partMark, strconv.Itoa(k))
		if b.reader.arrays[part] == nil {
			return parts
		}
		parts = append(parts, part)
	}
}

// plan holds the arrays against the node. fault is what is wrong with an array, err with the rule.
func (b *binder) plan(n shapes.Node, h hit) (p *plan, fault string, err error) {
	want := n.Concrete(b.dims)
	heads, width := headsOf(b.config, n)
	l, err := newLayout(n, want, h.rule.Axes, heads, width)
	if err != nil {
		return nil, "", err
	}
	p = &plan{node: n, shape: want, whole: want[0], scale: 1, rule: h.rule.Rule, heads: heads, width: width}
	if s := h.rule.Scale; s != nil {
		p.scale = float32(s.Number)
		if s.Root {
			p.scale = float32(1 / math.Sqrt(float64(width)))
		}
	}
	if len(h.names) > 1 {
		p.round = conformance.ClassOf(b.reader.Info(), n.Name).Round
	}
	p.total = l.whole().lengths
	if l.tile() {
		p.total[0] = want[0]
		if h.rule.Join != "N" && want[0] != 1 {
			return nil, "", fmt.Errorf("axes %s have no N, but the prompt has %d tiles; join them", l.letters(), want[0])
		}
	}
	f := fitter{binder: b, node: n, hit: h, layout: l, plan: p}
	if err := f.rule(); err != nil {
		return nil, "", err
	}
	for _, names := range h.names {
		parts, fault := f.term(names)
		if fault != "" {
			return nil, fault, nil
		}
		p.terms = append(p.terms, parts)
	}
	return p, "", nil
}

// headsOf is the number and the width of the attention heads of the part of the model that a node is in.
func headsOf(c shapes.Config, n shapes.Node) (heads, width int) {
	if n.Shape[0].Letter == "N" {
		return c.Vision.NumAttentionHeads, c.Vision.HiddenSize / c.Vision.NumAttentionHeads
	}
	return c.Text.NumAttentionHeads, c.Text.HeadDim
}

// fitter holds arrays against what a rule says of them.
type fitter struct {
	*binder
	node   shapes.Node
	hit    hit
	layout layout
	plan   *plan

	pad, padAtom   int // the padded axis; -1 if there is none
	join, joinAtom int // the axis along which parts are joined; -1 for tiles without an axis
	fused          int // the axis on which nodes lie side by side; -1 if there is one node only
	fusedFrom      int // where this node begins on it
	fusedLen       int // its length
}

// rule finds the axes that the rule speaks of.
func (f *fitter) rule() error {
	f.pad, f.padAtom, f.join, f.joinAtom, f.fused = -1, -1, -1, -1, -1
	r := f.hit.rule
	if r.Padded != "" {
		if f.pad, f.padAtom = f.layout.axis(r.Padded); f.pad < 0 {
			return fmt.Errorf("padded %s is no axis of %s", quote(r.Padded), f.layout.letters())
		}
	}
	if r.Join != "" {
		f.join, f.joinAtom = f.layout.axis(r.Join)
		if f.join < 0 && !(r.Join == "N" && f.layout.tile()) {
			return fmt.Errorf("join %s is no axis of %s", quote(r.Join), f.layout.letters())
		}
		if f.join < 0 {
			f.joinAtom = 0
		}
	}
	if len(r.Node) == 1 {
		return nil
	}
	lastAtoms := f.layout.atomsOf(f.node.Shape[len(f.node.Shape)-1].Letter)
	for a, atoms := range f.layout.array {
		if len(atoms) == lastAtoms && slices.Contains(atoms, len(f.layout.node)-1) {
			f.fused = a
		}
	}
	if f.plan.fused = f.fused; f.fused < 0 {
		return fmt.Errorf("%s has no axis that is the whole last axis of the node, on which nodes could lie side by side; write it as _", f.layout.letters())
	}
	for k, name := range r.Node {
		name, _ = fill(name, f.hit.i)
		n, ok := f.nodes[name]
		if !ok {
			return fmt.Errorf("%s is no node of the model", quote(name))
		}
		shape := n.Concrete(f.dims)
		f.plan.fusedNames, f.plan.fusedLens = append(f.plan.fusedNames, name), append(f.plan.fusedLens, shape[len(shape)-1])
		if k < f.hit.part {
			f.fusedFrom += shape[len(shape)-1]
		}
		f.fusedLen += shape[len(shape)-1]
	}
	return nil
}

// term holds the arrays of one term of a sum against the node.
func (f *fitter) term(names []string) (parts []part, fault string) {
	at := 0
	for _, name := range names {
		a := f.reader.arrays[name]
		if a.values == nil {
			return nil, fmt.Sprintf("array %s has dtype %s, want a float of 16, 32 or 64 bits, or the bits of a bfloat16 as uint16", quote(name), a.dtype)
		}
		p := f.layout.whole()
		shape := f.shapeOf(a)
		if fault := f.fit(&p, shape, at); fault != "" {
			return nil, fmt.Sprintf("array %s has shape %s, %s%s", quote(name), list(a.shape), fault, f.cure(a, shape))
		}
		parts = append(parts, part{p, a})
		if f.joinAtom >= 0 {
			at += p.lengths[f.joinAtom]
		}
	}
	if f.joinAtom >= 0 && at != f.plan.total[f.joinAtom] {
		return nil, fmt.Sprintf("the %d arrays %s ... have %d of %s together, want %d", len(names), quote(names[0]), at, f.layout.node[f.joinAtom].letter, f.plan.total[f.joinAtom])
	}
	return parts, ""
}

// shapeOf is an array's shape with the last axis the fastest.
func (f *fitter) shapeOf(a *array) []int {
	order := f.hit.rule.AxisOrder
	if order == "" {
		order = f.reader.Manifest.AxisOrder
	}
	shape := slices.Clone(a.shape)
	if order == NE {
		slices.Reverse(shape)
	}
	return shape
}

// fit fills in the piece for an array of a shape that begins at position at of the joined axis, or says what shape it wants.
func (f *fitter) fit(p *piece, shape []int, at int) string {
	want := p.want()
	words := fmt.Sprintf("want %s = %s", f.layout.letters(), list(want))
	if len(shape) != len(want) {
		return words
	}
	for a, n := range shape {
		switch {
		case a == f.fused:
			want[a] = f.fusedLen
			p.from[a] = f.fusedFrom
		case a == f.pad:
			p.from[a] = f.hit.rule.From
			if n >= want[a]+p.from[a] {
				want[a] = n
			}
		case a == f.join:
			p.lengths[f.joinAtom], p.first[f.joinAtom] = n, at
			want[a] = n
			if n > f.plan.total[f.joinAtom]-at {
				return fmt.Sprintf("want at most %d on axis %s behind %d of other parts", f.plan.total[f.joinAtom]-at, f.hit.rule.Join, at)
			}
		case f.hit.rule.Rows != "" && len(f.layout.array[a]) == 1 && f.layout.node[f.layout.array[a][0]].letter == "T":
			t := f.layout.array[a][0]
			if n >= 1 && n <= p.lengths[t] {
				p.lengths[t], want[a] = n, n
				f.plan.total, f.plan.shape = slices.Clone(f.plan.total), slices.Clone(f.plan.shape)
				f.plan.total[t], f.plan.shape[0] = n, n
			}
		}
	}
	if f.join < 0 && f.joinAtom >= 0 { // tiles without an axis
		p.first[f.joinAtom] = at
		if at >= f.plan.total[f.joinAtom] {
			return fmt.Sprintf("but the prompt has %d tiles only", f.plan.total[f.joinAtom])
		}
	}
	if !slices.Equal(shape, want) {
		if f.fused >= 0 {
			return fmt.Sprintf("want %s = %s for the %d nodes side by side", f.layout.letters(), list(want), len(f.hit.rule.Node))
		}
		if f.pad >= 0 {
			return fmt.Sprintf("%s, or more on axis %s from %d on", words, f.hit.rule.Padded, f.hit.rule.From)
		}
		return words
	}
	p.actual = shape
	return ""
}

// cure says which declaration would fit an array that does not.
func (f *fitter) cure(a *array, shape []int) string {
	r := f.hit.rule
	rule := Rule{Node: r.Node[f.hit.part : f.hit.part+1], Tensor: a.name}
	rule.Node = Names{f.node.Name}
	show := func(r Rule) string {
		text, err := json.Marshal(r)
		if err != nil {
			return ""
		}
		return string(text)
	}
	want := f.node.Concrete(f.dims)
	heads, width := headsOf(f.config, f.node)
	if naming := f.reader.Manifest.Naming; (naming == GGUF || naming == GGUFLegacy) && strings.Contains(f.node.Name, ".mlp.fc") {
		return fmt.Sprintf("; files of older converters have the tower's ffn_up and ffn_down exchanged: %s and %s are two namings", GGUF, GGUFLegacy)
	}
	var cures []string
	single := len(r.Node) == 1 && r.Join == "" && len(r.Sum) == 0
	if single {
		if fits := readings(f.node, want, shape, heads, width); len(fits) > 0 {
			rule.Axes = fits[0]
			also := ""
			for _, axes := range fits[1:] {
				if !strings.Contains(axes, inPairs) {
					also = fmt.Sprintf(" (or %s, which its shape would fit as well)", quote(axes))
					break
				}
			}
			cures = append(cures, fmt.Sprintf("if its axes are %s%s, put this into the map: %s", quote(fits[0]), also, show(rule)))
		}
		reversed := slices.Clone(shape)
		slices.Reverse(reversed)
		if !slices.Equal(reversed, shape) && len(readings(f.node, want, reversed, heads, width)) > 0 {
			cures = append(cures, fmt.Sprintf(`if shapes are written with the fastest axis first, as ggml does, put "axis_order": %q into the manifest`, NE))
		}
		if len(cures) > 0 {
			return "; " + strings.Join(cures, "; or, ")
		}
	}
	last := func(shape []int) int {
		if len(shape) == 0 {
			return 0
		}
		return shape[len(shape)-1]
	}
	if f.node.Name == shapes.LMHead && r.Rows == "" && last(shape) == want[1] && shapes.Product(shape)/max(want[1], 1) < want[0] {
		rule.Rows, rule.Axes = "last", strings.Repeat("1 ", max(len(shape)-2, 0))+"T V"
		return fmt.Sprintf("; if it has the last positions only, put this into the map: %s", show(rule))
	}
	if single && len(shape) == len(want) && last(shape) > last(want) {
		return "; if other nodes lie beside it on the last axis (q, k and v; gate and up), give the rule a list of nodes"
	}
	if single && len(shape) == len(want) && last(shape) == last(want) && want[0] > shape[0] && want[0] > 0 {
		return fmt.Sprintf(`; if the rest is in further arrays, call them NAME#0, NAME#1, ... and write "tensor": "NAME#{part}", "join": %q`, f.node.Shape[0].Letter)
	}
	if single && len(shape) == len(want) && last(shape) == last(want) {
		return fmt.Sprintf(`; if it is longer than the prompt, write "padded": %q into its rule`, f.node.Shape[0].Letter)
	}
	return ""
}

// Has says whether the dump has values of a node that can be read.
func (b *Binding) Has(node string) bool { return b.plans[node] != nil }

// Wrong says what is wrong with a node's array; empty if nothing is known to be.
func (b *Binding) Wrong(node string) string { return b.wrong[node] }

// Odd reads the array of a node that has another shape than the node, where the array is plain and has at most so many values. It is no
// value of the node, but may tell what the engine did instead.
func (b *Binding) Odd(node string, most int) (shapes.Tensor, bool) {
	o, ok := b.odd[node]
	if n := shapes.Product(o.shape); !ok || n < 1 || n > most {
		return shapes.Tensor{}, false
	}
	values, err := o.array.values()
	if err != nil || len(values) != shapes.Product(o.shape) {
		return shapes.Tensor{}, false
	}
	return shapes.Tensor{Shape: slices.Clone(o.shape), Data: values}, true
}

// Missing says why a node has no values.
func (b *Binding) Missing(node string) string { return b.reason[node] }

// Read reads a node. Logits of the last rows have as many rows as there are.
func (b *Binding) Read(node string) (shapes.Tensor, error) {
	p := b.plans[node]
	if p == nil {
		return shapes.Tensor{}, fmt.Errorf("dump: %s: %s: %s", b.reader.dir, node, b.reason[node])
	}
	t, err := p.read()
	if err != nil {
		return t, fmt.Errorf("dump: %s: %s: %w", b.reader.dir, node, err)
	}
	return t, nil
}

func (p *plan) read() (shapes.Tensor, error) {
	out := shapes.Tensor{Shape: slices.Clone(p.shape)}
	for k, term := range p.terms {
		data, err := p.term(term)
		if err != nil {
			return out, err
		}
		if k == 0 {
			out.Data = data
			continue
		}
		for i, v := range data {
			out.Data[i] += v
		}
	}
	for i, v := range out.Data {
		if p.scale != 1 {
			v *= p.scale
		}
		if p.round != nil {
			v = p.round(v)
		}
		out.Data[i] = v
	}
	return out, nil
}

// term reads the arrays of one term and puts them together.
func (p *plan) term(parts []part) ([]float32, error) {
	var out []float32
	for _, part := range parts {
		values, err := part.values.values()
		if err != nil {
			return nil, err
		}
		if len(values) != shapes.Product(part.actual) {
			return nil, fmt.Errorf("array %s has %d values, want %s", quote(part.values.name), len(values), list(part.actual))
		}
		if len(parts) == 1 && part.own && len(values) == shapes.Product(p.shape) {
			return values, nil
		}
		if out == nil {
			out = make([]float32, shapes.Product(p.shape))
		}
		part.place(out, values, p.total)
	}
	return out, nil
}

// HasIDs says whether the dump has the token ids that the engine was given.
func (r *Reader) HasIDs() bool { return r.arrays[shapes.InInputIDs] != nil }

// LastRows says that the logits of the binding are those of the last positions only.
func (b *Binding) LastRows() bool {
	p := b.plans[shapes.LMHead]
	return p != nil && p.shape[0] < p.whole
}

// Info is what the dump declares about its engine.
func (b *Binding) Info() conformance.Info { return b.reader.Info() }

// Prompt is the prompt that the dump was made for, as far as the dump has it: ids, positions, sizes of the images, and the shape of the pixels
// without their values. It is an error if there are no ids.
func (r *Reader) Prompt(c shapes.Config) (shapes.Inputs, error) {
	in, err := r.prompt(c)
	if err != nil {
		err = fmt.Errorf("dump: %s: %w", r.dir, err)
	}
	return in, err
}

func (r *Reader) prompt(c shapes.Config) (shapes.Inputs, error) {
	var in shapes.Inputs
	a := r.arrays[shapes.InInputIDs]
	if a == nil || a.ints == nil {
		return in, fmt.Errorf("no integers %s.npy, want the ids that the engine was given", shapes.InInputIDs)
	}
	const most = 1 << 24
	if a.count() < 1 || a.count() > most {
		return in, fmt.Errorf("%s: %d ids, want 1 to %d", shapes.InInputIDs, a.count(), most)
	}
	ids, err := a.ints()
	if err != nil {
		return in, err
	}
	for i, id := range ids {
		if id < 0 || id >= int64(c.Text.VocabSize) {
			return in, fmt.Errorf("%s: position %d has %d, want 0 to %d", shapes.InInputIDs, i, id, c.Text.VocabSize-1)
		}
		in.InputIDs, in.PositionIDs = append(in.InputIDs, int(id)), append(in.PositionIDs, i)
	}
	if a := r.arrays[shapes.InPositionIDs]; a != nil && a.ints != nil && a.count() == len(ids) {
		at, err := a.ints()
		if err != nil {
			return in, err
		}
		for i, p := range at {
			in.PositionIDs[i] = int(p)
		}
	}
	if in.ImageSizes, err = r.sizes(); err != nil {
		return in, fmt.Errorf("%s.json: %w", shapes.InImageSizes, err)
	}
	px, tiles := c.Vision.ImageSize, 0
	if a := r.arrays[shapes.InPixelValues]; a != nil {
		if len(a.shape) != 4 || a.shape[1] != c.Vision.NumChannels || a.shape[2] != px || a.shape[3] != px {
			return in, fmt.Errorf("%s: shape %s, want [N, %d, %d, %d]", shapes.InPixelValues, list(a.shape), c.Vision.NumChannels, px, px)
		}
		tiles = a.shape[0]
	}
	if tiles > 0 {
		in.PixelValues.Shape = []int{tiles, c.Vision.NumChannels, px, px}
	}
	return in, nil
}
