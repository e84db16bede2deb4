package conformance

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

// Limits of what a result carries.
const (
	maxSites = 3  // entries in a census
	maxNotes = 10 // unknown names that are listed
	maxHeat  = 8  // nodes of a prompt with heat maps, the first that fail
	// maxRereads is for how many failing nodes of a prompt other readings are tried.
	maxRereads = 30
	// maxDerived is through how many nodes that the engine does not expose the suite evaluates the graph itself, to judge
	// one behind them: enough for a whole attention or MLP in one piece. Each of them widens what rounding may have done.
	maxDerived = 4
)

// judge holds what an engine says about one prompt against what it should say. Nodes may come in any order, from any goroutine.
type judge struct {
	suite    Suite
	target   Target
	as       compare.Arithmetic // what the engine is judged by, but for the class of a node
	own, met map[string]compare.Class
	info     Info
	told     *retold // the prompt, where it is not the golden one but as a convention makes it
	truth    *golden.Case
	replay   *replay.Evaluator
	progress func(nodes int)
	reread   Rereader // nil if there is one reading only
	rereads  int
	placed   int // failing checks for which it was looked where they are wrong

	nodes   []shapes.Node // that the prompt has
	byName  map[string]shapes.Node
	known   map[string]bool // every node of the model, in this prompt or not
	readers map[string][]string
	dims    shapes.Dims
	longest int // terms of the model's longest sum

	mu      sync.Mutex
	closed  bool
	results map[string]*Node
	held    map[string]shapes.Tensor // values that a local verdict still needs
	uses    map[string]int           // how many local verdicts that is, by node
	arrived map[string]bool
	judged  map[string]bool // locally
	unknown []string
	faults  []Problem

	kept       map[string]shapes.Tensor // for the diagnosis
	keptValues int
	blamed     int // values of failures
	failures   []Failure
	causes     []Cause // of the whole prompt
	parameters *Stage  // of the engine's list; nil if it has none
}

func newJudge(t Target, c *golden.Case, s Suite, as Info) (*judge, error) {
	j := &judge{suite: s, target: t, info: as, kept: map[string]shapes.Tensor{}, as: as.Arithmetic, truth: c, dims: shapes.DimsOf(t.Set.Config, c.Inputs), longest: longestSum(t.Set.Config, len(c.Inputs.InputIDs)), progress: func(int) {},
		byName: map[string]shapes.Node{}, known: map[string]bool{}, readers: map[string][]string{},
		results: map[string]*Node{}, held: map[string]shapes.Tensor{}, uses: map[string]int{}, arrived: map[string]bool{}, judged: map[string]bool{}}
	var err error
	if j.replay, err = replay.New(t.Set.Config, t.Weights, c.Inputs); err != nil {
		return nil, err
	}
	j.own, j.met = classes(shapes.Nodes(t.Set.Config), func(node string) compare.Class { return ClassOf(as, node) })
	for _, n := range shapes.Nodes(t.Set.Config) {
		j.known[n.Name] = true
		if !n.Present(j.dims) {
			continue
		}
		j.nodes = append(j.nodes, n)
		j.byName[n.Name] = n
		j.results[n.Name] = &Node{Name: n.Name, Kind: n.Kind, Shape: n.Concrete(j.dims), Reach: n.Reach}
		j.uses[n.Name]++ // for itself
		for _, in := range distinct(n.Inputs) {
			if _, ok := j.byName[in]; ok {
				j.uses[in]++
				j.readers[in] = append(j.readers[in], n.Name)
			}
		}
	}
	j.uses[shapes.LMHead]++ // Forward returns it once more
	return j, nil
}

// longestSum is how many terms the longest sum of a prompt has: a row of a matrix times its input, or the keys of the last query.
func longestSum(c shapes.Config, positions int) int {
	longest := positions
	for _, p := range shapes.Params(c) {
		longest = max(longest, shapes.Product(p.Shape[1:]))
	}
	return longest
}

func distinct(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// view says whether a view is to be taken.
func (j *judge) view(v View) bool { return slices.Contains(j.suite.views(), v) }

// problem notes what concerns the whole prompt.
func (j *judge) problem(level Status, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault(level, format, args...)
}

func (j *judge) fault(level Status, format string, args ...any) {
	if !j.closed {
		j.faults = append(j.faults, Problem{level, fmt.Sprintf(format, args...)})
	}
}

// forward runs the engine. Its panics end the prompt, not the suite.
func (j *judge) forward(engine Engine, in shapes.Inputs) {
	defer func() {
		if p := recover(); p != nil {
			j.problem(Error, "the engine panicked: %v (%s)", p, panicSite())
		}
	}()
	j.reread, _ = engine.(Rereader)
	logits, err := engine.Forward(in, j.probe)
	if err != nil {
		j.problem(Error, "the engine returned an error: %v", err)
		return
	}
	var report Report
	if r, ok := engine.(Reporter); ok {
		report = r.Report()
	}
	switch silent := report.Missing[shapes.LMHead] != "" || report.Wrong[shapes.LMHead] != ""; {
	case report.LastRows:
		j.lastRows(logits)
	case !silent || logits.Shape != nil:
		j.returned(logits)
	}
	j.report(report)
	j.judgeDerived()
}

// panicSite is the function and line that panicked, called while the panic is being recovered.
func panicSite() string {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s, line %d", f.Function, f.Line)
		}
		if !more {
			return "at an unknown place"
		}
	}
}

// probe takes in one node. It copies what a later verdict needs.
func (j *judge) probe(name string, t shapes.Tensor) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	n, ok := j.byName[name]
	switch {
	case !ok && !j.known[name]:
		j.unknown = append(j.unknown, name)
		return
	case !ok && shapes.Product(t.Shape) == 0:
		return // an empty tensor of a node that the prompt does not have
	case !ok:
		j.fault(Skip, "%s: shape %v, but this prompt has no such node; not judged", name, t.Shape)
		return
	case j.arrived[name]:
		j.fault(Error, "%s came twice; which of the two is meant cannot be known", name)
		return
	}
	j.arrived[name] = true
	j.take(n, t)
	j.progress(len(j.arrived))
}

// take judges a node and whatever waited for it.
func (j *judge) take(n shapes.Node, t shapes.Tensor) {
	r := j.results[n.Name]
	if want := n.Concrete(j.dims); !slices.Equal(t.Shape, want) || len(t.Data) != shapes.Product(want) {
		text := fmt.Sprintf("shape %v, want %s = %v", t.Shape, n.Symbolic(), want)
		if slices.Equal(t.Shape, want) {
			text = fmt.Sprintf("shape %v with %d values, want %d", t.Shape, len(t.Data), shapes.Product(want))
		}
		r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: text})
		j.blameShape(n, t, want)
		return
	}
	switch {
	case j.told != nil && j.told.at == n.Name:
		r.Checks = append(r.Checks, j.told.check)
		j.judged[n.Name] = true
	case j.view(Accumulated):
		r.Checks = append(r.Checks, j.accumulated(n, t))
	}
	if !j.view(Local) && n.Name != shapes.LMHead && j.suite.Diagnose == nil {
		return
	}
	t = shapes.Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
	j.keep(n.Name, t)
	if j.view(Local) || n.Name == shapes.LMHead {
		j.held[n.Name] = t
	}
	if !j.view(Local) {
		return
	}
	for _, name := range append([]string{n.Name}, j.readers[n.Name]...) {
		if inputs, ok := j.inputs(j.byName[name]); ok && !j.judged[name] {
			j.local(j.byName[name], inputs, nil)
		}
	}
}

// inputs gathers the engine's own inputs of a node that it has exposed; false if one is not there.
func (j *judge) inputs(n shapes.Node) ([]shapes.Tensor, bool) {
	if _, ok := j.held[n.Name]; !ok {
		return nil, false
	}
	inputs := make([]shapes.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		if _, isNode := j.byName[name]; !isNode {
			continue // the prompt's own, or a node that the prompt does not have
		}
		t, ok := j.held[name]
		if !ok {
			return nil, false
		}
		inputs[i] = t
	}
	return inputs, true
}

// local judges a node by its inputs, and lets go of what nothing else needs.
func (j *judge) local(n shapes.Node, inputs []shapes.Tensor, derived []*compare.Budget) {
	r := j.results[n.Name]
	r.Checks = append(r.Checks, j.localCheck(n, inputs, derived))
	j.judged[n.Name] = true
	j.release(n.Name)
	for _, in := range distinct(n.Inputs) {
		if _, ok := j.byName[in]; ok {
			j.release(in)
		}
	}
}

func (j *judge) release(name string) {
	if j.uses[name]--; j.uses[name] == 0 {
		delete(j.held, name)
	}
}

func (j *judge) localCheck(n shapes.Node, inputs []shapes.Tensor, derived []*compare.Budget) Check {
	c := Check{View: Local}
	if derived == nil {
		derived = make([]*compare.Budget, len(inputs))
	}
	for i, d := range derived {
		if d != nil {
			c.Derived = append(c.Derived, n.Inputs[i])
		}
	}
	got := j.held[n.Name]
	want, err := j.replay.Eval(n, inputs)
	if err != nil {
		return failed(c, err)
	}
	rows := func(b compare.Budget) compare.Budget { return b }
	if len(got.Shape) > 0 && got.Shape[0] < want.Shape[0] { // logits of the last positions
		rows = func(b compare.Budget) compare.Budget { return lastOf(b, got.Shape[0]) }
	}
	budget := func(class compare.Class) (compare.Budget, error) {
		b, err := j.replay.BudgetDerived(n, inputs, derived, want, compare.Arithmetic{Class: class, Lanes: j.as.Lanes})
		return rows(b), err
	}
	b, err := budget(j.own[n.Name])
	if err != nil {
		return failed(c, err)
	}
	j.decide(&c, j.own[n.Name], compare.Local(b, n, got).Verdict, func(class compare.Class) bool {
		b, err := budget(class)
		return err == nil && compare.Local(b, n, got).Pass
	})
	if c.Result == Fail && j.reread != nil && j.rereads < maxRereads {
		j.rereads++
		for _, r := range j.reread.Reread(n.Name) {
			if compare.Local(b, n, r.Value).Pass {
				c.Reason += "; it would hold with " + r.Words
				break
			}
		}
	}
	if c.Fits != "" && holds(c.Fits, got) {
		c.Holds = c.Fits
	}
	if c.Result == Fail {
		census := compare.TakeCensus(b, n, got, maxSites)
		c.Census = &census
		if slices.Equal(got.Shape, want.Shape) {
			c.Where = j.tell(n, got.Shape, upTo(len(got.Data)), func() []float64 { return compare.Excess(b, n, got) })
		}
		j.blame(Failure{Node: n, View: Local, Inputs: inputs, Derived: derived, Got: got, Ratio: c.Ratio})
	}
	return c
}

// failed is a check that the reference could not make.
func failed(c Check, err error) Check {
	c.Result, c.Reason = Error, fmt.Sprintf("the reference could not evaluate it: %v", err)
	return c
}

// holds says whether all values of a tensor are numbers of a class.
func holds(class compare.Class, t shapes.Tensor) bool {
	for _, v := range t.Data {
		if class.Round(v) != v && v == v {
			return false
		}
	}
	return true
}

// lastOf is the budget of the last rows of a matrix.
func lastOf(b compare.Budget, rows int) compare.Budget {
	from := len(b.Want.Data) - rows*b.Want.Cols()
	cut := func(x []float32) []float32 {
		if x == nil {
			return nil
		}
		return x[from:]
	}
	b.Want = shapes.Tensor{Shape: []int{rows, b.Want.Cols()}, Data: b.Want.Data[from:]}
	b.Acc, b.AccRMS, b.Sto, b.StoRMS = cut(b.Acc), cut(b.AccRMS), cut(b.Sto), cut(b.StoRMS)
	return b
}

// decide turns a verdict by a class into a check. passes says whether another class would do.
func (j *judge) decide(c *Check, declared compare.Class, v compare.Verdict, passes func(compare.Class) bool) {
	c.Ratio, c.Limits = v.Ratio, v.Checks
	if v.Pass {
		c.Result = Pass
		return
	}
	c.Result, c.Reason = Fail, reason(v)
	finer := true
	for _, class := range compare.Classes() {
		if !finer && passes(class) {
			c.Fits = class
			return
		}
		if class == declared {
			finer = false
		}
	}
}

// reason is the criterion that went furthest beyond its limit, in words.
func reason(v compare.Verdict) string {
	for _, l := range v.Checks {
		if l.Criterion != v.Criterion || l.Ratio != v.Ratio {
			continue
		}
		text := fmt.Sprintf("%s %.3g, limit %.3g", l.Criterion, l.Value, l.Limit)
		if l.Criterion == compare.NonFinite {
			text = "NaN or an infinity where the truth has none, or none where it has one"
		}
		if len(l.Where) > 0 {
			text += fmt.Sprintf(", at %s", place(l.Where))
		}
		return text
	}
	return "nothing was compared"
}

// place is an index, a colon on the axes that a row or a slice runs over: "[:, 17]".
func place(at []int) string {
	words := make([]string, len(at))
	for i, k := range at {
		words[i] = fmt.Sprint(k)
		if k < 0 {
			words[i] = ":"
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// accumulated judges a node against the truth of the whole model.
func (j *judge) accumulated(n shapes.Node, t shapes.Tensor) Check { return j.drift(n, t, 0) }

// drift judges the rows of a node from one on, which are those that t has.
func (j *judge) drift(n shapes.Node, t shapes.Tensor, from int) Check {
	c := Check{View: Accumulated}
	truth, ok := j.truth.Node(n.Name)
	if !ok {
		c.Reason = "the golden set has no such node"
		return c
	}
	if text := j.untruth(n, truth.Shape); text != "" {
		c.Reason, c.Behind = text, j.told.at
		return c
	}
	first := 0 // kept row that is among them
	for first < truth.Sample.Rows() && truth.Sample.Row(first) < from {
		first++
	}
	if first == truth.Sample.Rows() {
		c.Reason = "the golden set keeps none of these rows"
		return c
	}
	in := compare.DriftInput{PerRow: truth.Sample.PerRow(), RowRMS: truth.RowRMS[first:], Want: truth.Values[first*truth.Sample.PerRow():], Massive: truth.Massive,
		Lanes: j.as.Lanes, Longest: j.longest}
	if from == 0 {
		in.Got = golden.Gather(t, truth.Sample)
	}
	for row, column := range truth.Sample.All() {
		if truth.Sample.Whole() && from == 0 {
			break
		}
		if row < from {
			continue
		}
		if from > 0 {
			in.Got = append(in.Got, t.Data[(row-from)*t.Cols()+column])
		}
		if !truth.Sample.Whole() {
			in.Columns = append(in.Columns, int32(column))
		}
	}
	as := func(class compare.Class) compare.Verdict {
		f := truth.Floors[golden.Class(class)]
		in.Class, in.Floors = class, compare.Floors{Whole: f.Whole, WorstRow: f.WorstRow, Massive: f.Massive}
		v := compare.Accumulated(in).Verdict
		for i := range v.Checks {
			v.Checks[i].Where = whereInNode(v.Checks[i], truth, first)
		}
		return v
	}
	v := as(j.met[n.Name])
	j.decide(&c, j.met[n.Name], v, func(class compare.Class) bool { return as(class).Pass })
	if c.Result == Fail && len(n.Shape) > 0 {
		as(j.met[n.Name]) // its limits again
		c.Where = j.tell(n, truth.Shape, kept(truth, first, len(in.Got)), func() []float64 { return compare.DriftExcess(in) })
	}
	return c
}

// kept are the places in a node of its kept entries, from a kept row on.
func kept(truth *golden.NodeTruth, first, entries int) []int {
	s := truth.Sample
	columns := truth.Shape[len(truth.Shape)-1]
	out := make([]int, entries)
	for i := range out {
		e := first*s.PerRow() + i
		out[i] = s.Row(e/s.PerRow())*columns + s.Column(e)
	}
	return out
}

// whereInNode turns the number of a kept row or a kept entry, counted from a first row on, into an index of the node.
func whereInNode(c compare.Check, truth *golden.NodeTruth, first int) []int {
	if len(c.Where) != 1 {
		return c.Where
	}
	row, column := 0, -1
	switch c.Criterion {
	case compare.RowDrift:
		row = truth.Sample.Row(first + c.Where[0])
	case compare.NonFinite:
		entry := first*truth.Sample.PerRow() + c.Where[0]
		row, column = truth.Sample.Row(entry/truth.Sample.PerRow()), truth.Sample.Column(entry)
	default:
		return c.Where
	}
	last := len(truth.Shape) - 1
	at := make([]int, last+1)
	at[last] = column
	for a := last - 1; a >= 0; a-- {
		at[a] = row % truth.Shape[a]
		row /= truth.Shape[a]
	}
	return at
}

// returned judges the logits that Forward returned. If the engine did not probe them, they stand for the last node as well.
func (j *judge) returned(logits shapes.Tensor) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	head := j.byName[shapes.LMHead]
	if !j.arrived[head.Name] {
		j.arrived[head.Name] = true
		j.take(head, logits)
	}
	r := j.results[head.Name]
	if c, ok := r.Check(Contract); ok && c.Result == Fail {
		return
	}
	if probed := j.held[head.Name]; !sameBits(probed, logits) {
		r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse,
			Reason: fmt.Sprintf("Forward returned other logits than it showed: shape %v, and shown %v", logits.Shape, probed.Shape)})
		return
	}
	if j.view(Accumulated) {
		r.Checks = append(r.Checks, j.logits(logits))
	}
	j.release(head.Name)
}

// lastRows judges logits of the last positions, which stand for the last node as well.
func (j *judge) lastRows(logits shapes.Tensor) {
	j.mu.Lock()
	defer j.mu.Unlock()
	head := j.byName[shapes.LMHead]
	if j.closed || j.arrived[head.Name] {
		return
	}
	j.arrived[head.Name] = true
	r := j.results[head.Name]
	want := head.Concrete(j.dims)
	if s := logits.Shape; len(s) != 2 || s[0] < 1 || s[0] > want[0] || s[1] != want[1] || len(logits.Data) != shapes.Product(s) {
		r.Checks = append(r.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: fmt.Sprintf("shape %v, want the last of %s = %v", logits.Shape, head.Symbolic(), want)})
		return
	}
	from := want[0] - logits.Shape[0]
	j.fault(Skip, "the engine has the logits of %d of %d positions", logits.Shape[0], want[0])
	j.held[head.Name] = shapes.Tensor{Shape: slices.Clone(logits.Shape), Data: slices.Clone(logits.Data)}
	if j.view(Accumulated) {
		r.Checks = append(r.Checks, j.drift(head, logits, from), j.logits(logits))
	}
	if inputs, ok := j.inputs(head); ok && j.view(Local) {
		j.local(head, inputs, nil)
	}
	j.release(head.Name)
}

// report takes in what the engine says of its nodes.
func (j *judge) report(r Report) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, note := range r.Notes {
		j.fault(Skip, "%s", note)
	}
	if j.closed {
		return
	}
	for name, node := range j.results {
		if text := r.Wrong[name]; text != "" {
			j.arrived[name] = true // and is not replaced by a right one
			node.Checks = append(node.Checks, Check{View: Contract, Result: Fail, Ratio: compare.Worse, Reason: text})
			if n := j.byName[name]; r.Odd[name].Shape != nil {
				j.blameShape(n, r.Odd[name], n.Concrete(j.dims))
			}
		}
		if text := r.Missing[name]; text != "" && !j.arrived[name] {
			node.Reason = text
			if node.Reach == shapes.Dead {
				node.Reason += ", and the logits do not need it"
			}
		}
	}
}

// inventory judges the engine's list of parameters, if it has one. Its panics end the list, not the suite.
func (j *judge) inventory(engine Engine) {
	defer func() {
		if p := recover(); p != nil {
			j.problem(Error, "the engine panicked: %v (%s)", p, panicSite())
		}
	}()
	of, ok := engine.(Inventoried)
	if !ok {
		return
	}
	have, ok, err := of.Inventory()
	if !ok && err == nil {
		return
	}
	s := InventoryStage(j.target.Set.Config, have, err)
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.parameters = &s
	}
}

func sameBits(a, b shapes.Tensor) bool {
	return slices.Equal(a.Shape, b.Shape) && slices.EqualFunc(a.Data, b.Data, func(x, y float32) bool {
		return math.Float32bits(x) == math.Float32bits(y)
	})
}

// logits judges the next-token distributions.
func (j *judge) logits(got shapes.Tensor) Check {
	c := Check{View: Logits}
	truth, ok := j.truth.Node(shapes.LMHead)
	if !ok {
		c.Reason = "the golden set has no floor for the logits"
		return c
	}
	if text := j.untruth(j.byName[shapes.LMHead], truth.Shape); text != "" {
		c.Reason, c.Behind = text, j.told.at
		return c
	}
	in := compare.LogitsInput{Truth: j.truth.Logits, Got: got}
	if k := len(in.Truth.Data) - len(got.Data); len(got.Shape) == 2 && k > 0 { // the last positions alone
		in.Truth = shapes.Tensor{Shape: slices.Clone(got.Shape), Data: in.Truth.Data[k:]}
	}
	for _, f := range truth.Floors {
		in.Coarsest = max(in.Coarsest, f.Whole)
	}
	as := func(class compare.Class) compare.LogitsResult {
		in.Class, in.Floor = class, truth.Floors[golden.Class(class)].Whole
		return compare.Logits(in)
	}
	r := as(j.met[shapes.LMHead])
	c.Tokens = r.Counts
	j.decide(&c, j.met[shapes.LMHead], r.Verdict, func(class compare.Class) bool { return as(class).Pass })
	return c
}

// judgeDerived judges, after Forward, the nodes that the engine has exposed without all of their inputs: the missing ones are evaluated
// from what it has exposed before them, a few nodes deep.
func (j *judge) judgeDerived() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || !j.view(Local) {
		return
	}
	d := deriver{judge: j, memo: map[string]derivation{}}
	for _, n := range j.nodes {
		if _, ok := j.held[n.Name]; !ok || j.judged[n.Name] {
			continue
		}
		inputs, budgets, missing := d.inputs(n, maxDerived)
		if missing != "" {
			r := j.results[n.Name]
			r.Checks = append(r.Checks, Check{View: Local, Reason: fmt.Sprintf("its input %s is not exposed, and cannot be told from what is", missing)})
			continue
		}
		j.local(n, inputs, budgets)
	}
}

// deriver evaluates nodes that an engine does not expose.
type deriver struct {
	*judge
	memo map[string]derivation
}

type derivation struct {
	value  shapes.Tensor
	budget *compare.Budget
}

// inputs gathers a node's inputs, derived where need be through at most depth nodes. missing is the first that cannot be had.
func (d *deriver) inputs(n shapes.Node, depth int) (inputs []shapes.Tensor, budgets []*compare.Budget, missing string) {
	inputs, budgets = make([]shapes.Tensor, len(n.Inputs)), make([]*compare.Budget, len(n.Inputs))
	for i, name := range n.Inputs {
		in, isNode := d.byName[name]
		if !isNode {
			continue
		}
		if t, ok := d.held[name]; ok {
			inputs[i] = t
			continue
		}
		v, ok := d.derive(in, depth)
		if !ok {
			return nil, nil, name
		}
		inputs[i], budgets[i] = v.value, v.budget
	}
	return inputs, budgets, ""
}

// derive evaluates a node that was not exposed. One that came with a wrong shape is not replaced by a right one.
func (d *deriver) derive(n shapes.Node, depth int) (derivation, bool) {
	if v, ok := d.memo[n.Name]; ok {
		return v, true
	}
	if depth == 0 || d.arrived[n.Name] {
		return derivation{}, false
	}
	inputs, budgets, missing := d.inputs(n, depth-1)
	if missing != "" {
		return derivation{}, false
	}
	want, err := d.replay.Eval(n, inputs)
	if err != nil {
		return derivation{}, false
	}
	b, err := d.replay.BudgetDerived(n, inputs, budgets, want, compare.Arithmetic{Class: d.own[n.Name], Lanes: d.as.Lanes})
	if err != nil {
		return derivation{}, false
	}
	v := derivation{want, &b}
	d.memo[n.Name] = v
	return v, true
}

// result closes the judge and sums up. Whatever the engine still sends is dropped.
func (j *judge) result() Case {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.unknown) > 0 {
		slices.Sort(j.unknown)
		names := strings.Join(j.unknown[:min(maxNotes, len(j.unknown))], ", ")
		if over := len(j.unknown) - maxNotes; over > 0 {
			names += fmt.Sprintf(" and %d more", over)
		}
		j.fault(Skip, "not judged, since the model has no node of these names: %s", names)
	}
	j.closed = true
	for _, n := range j.nodes {
		j.finish(n)
	}
	settle(j.nodes, j.results)
	j.keepHeat()
	c := Case{Name: j.truth.Name, Why: j.truth.Why, Problems: j.faults, Causes: j.causes, First: diverge(j.nodes, j.results), Assumptions: assumptions(j.nodes, j.results)}
	if j.parameters != nil {
		c.Stages = append(c.Stages, *j.parameters)
		if k := j.parameters.Nodes[0].Checks[0]; k.Result == Fail && (c.First == nil || j.results[c.First.Node].Status() == Convention) {
			c.First = &Divergence{NodeParameters, Exact, k.Reason}
		}
	}
	for _, stage := range Stages() {
		s := Stage{Name: stage}
		for _, n := range j.nodes {
			if StageOf(n.Name) == stage {
				s.Nodes = append(s.Nodes, *j.results[n.Name])
			}
		}
		if len(s.Nodes) > 0 {
			c.Stages = append(c.Stages, s)
		}
	}
	if j.parameters != nil && sum(c.Stages[1:]).Checked == 0 {
		c.Problems = append(c.Problems, Problem{Error, "no node was compared, and a list of parameters alone says nothing of the prompt"})
	}
	return c
}

// keepHeat drops the heat maps of all but the first nodes that fail.
func (j *judge) keepHeat() {
	kept := 0
	for _, n := range j.nodes {
		for _, c := range j.results[n.Name].Checks {
			if c.Census == nil {
				continue
			}
			if kept++; kept > maxHeat {
				c.Census.Maps = nil
			}
		}
	}
}

// finish gives a reason to what was not compared, and puts the checks in order.
func (j *judge) finish(n shapes.Node) {
	r := j.results[n.Name]
	order := []View{Contract, Accumulated, Local, Logits}
	slices.SortStableFunc(r.Checks, func(a, b Check) int { return slices.Index(order, a.View) - slices.Index(order, b.View) })
	switch {
	case len(r.Checks) > 0:
		r.Reason = ""
	case r.Reason != "": // the engine's own
	case j.arrived[n.Name]:
		r.Reason = "the prompt ended before it could be judged"
	case n.Reach == shapes.Dead:
		r.Reason = "the engine does not expose it, and the logits do not need it"
	default:
		r.Reason = "the engine does not expose it"
	}
}
