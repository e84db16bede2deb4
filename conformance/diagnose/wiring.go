package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/conformance/replay"
	"github.com/llavaref/llavaref/shapes"
)

// This file explains nodes that are wrong against the truth where the engine shows nothing that they could be judged by: a dump of the residual
// stream alone, or of the features and the logits. First the engine's tensor is held against the truth of every other node of its shape, and
// with its rows in other orders: that needs no arithmetic and works with what a golden set keeps. Then layers are left out, repeated and
// exchanged, and the bugs of the catalogue tried, from the last right value that the engine shows.

const (
	maxBlind = 8       // wrong nodes that are explained
	maxShift = 4       // by how many layers hidden states may be counted off
	tells    = 3       // by how much nearer than the right model a wrong one must be
	maxWork  = 1 << 33 // products in one evaluation of what lies between a wrong node and the right ones before it: seconds
	someRows = 4       // rows that must be compared for an order of rows to be one
)

// blind explains the wrong nodes whose inputs the engine does not show: causes by node, and of the whole prompt.
func (d *doctor) blind(ctx context.Context) (map[string][]conformance.Cause, []conformance.Cause) {
	found := map[string][]conformance.Cause{}
	if d.Truth == nil || len(d.Blind) == 0 {
		return found, nil
	}
	if causes := d.shifted(); causes != nil {
		return found, causes
	}
	for i, f := range d.Blind[:min(len(d.Blind), maxBlind)] {
		causes, inDump := d.shows(f)
		if len(causes) == 0 {
			causes, inDump = d.reordered(f)
		}
		if len(causes) == 0 && i == 0 { // those behind read what is wrong already
			causes = d.between(ctx, f)
		}
		if len(causes) > 0 {
			found[f.Node.Name] = causes
		}
		if !inDump || ctx.Err() != nil {
			break
		}
	}
	return found, nil
}

// stream is the residual stream of the tower or of the text model: what its first layer reads, then each layer's output. Its number, and the place
// of a node in it; -1 if the node is not in one.
func (d *doctor) stream(node string) ([]string, int) {
	tower, text := []string{shapes.VisionTower + ".pre_layrnorm"}, []string{shapes.NodeMerge}
	for i := range d.Config.Vision.NumHiddenLayers {
		tower = append(tower, shapes.VisionLayer(i))
	}
	for i := range d.Config.Text.NumHiddenLayers {
		text = append(text, shapes.TextLayer(i))
	}
	for _, s := range [][]string{tower, text} {
		if i := slices.Index(s, node); i >= 0 {
			return s, i
		}
	}
	return nil, -1
}

func same(row int) int { return row }

// shifted recognises hidden states that are counted from another number: every wrong one is the truth of another layer, so many before or behind.
func (d *doctor) shifted() []conformance.Cause {
	for _, f := range d.Blind {
		s, first := d.stream(f.Node.Name)
		if first < 0 || f.View != conformance.Accumulated {
			continue
		}
		for by := 1; by <= maxShift; by++ {
			for _, by := range []int{-by, by} {
				if c, ok := d.shiftedBy(s, first, by); ok {
					return []conformance.Cause{c}
				}
			}
		}
		return nil
	}
	return nil
}

func (d *doctor) shiftedBy(s []string, first, by int) (conformance.Cause, bool) {
	fit, worst, last := 0, 0.0, first
	for i := first; i < len(s); i++ {
		drift, judged := d.Drifts[s[i]]
		if !judged {
			continue
		}
		last = i
		if i+by < 0 || i+by >= len(s) {
			continue // what stands beyond an end is another node's value
		}
		got, shown := d.Shown[s[i]]
		ratio, _, ok := 0.0, 0, false
		if shown && drift > 1 {
			ratio, _, ok = d.Truth.Against(s[i+by], got, same)
		}
		if !ok || ratio > 1 {
			return conformance.Cause{}, false
		}
		fit, worst = fit+1, max(worst, ratio)
	}
	if fit < 2 {
		return conformance.Cause{}, false
	}
	where := "before"
	if by > 0 {
		where = "behind"
	}
	which := "the one"
	if by*by > 1 {
		which = fmt.Sprintf("the one %d", max(by, -by))
	}
	text := fmt.Sprintf("%s shows the truth's %s, and so on up to %s, %d arrays that each show %s %s: hidden states counted from another number", s[first], s[first+by], s[last], fit, which, where)
	switch right, wrong := d.behind(s[last], s...); {
	case right != "":
		text += fmt.Sprintf("; %s behind them is right, so the dump's names are off and not the engine", right)
	case wrong != "":
		text += fmt.Sprintf("; %s behind them is wrong as well", wrong)
	default:
		text += "; nothing behind them is shown"
	}
	return conformance.Cause{ID: "W02", Text: text, Look: "transformers' hidden_states[0] is what the first layer reads, hidden_states[i+1] the output of layer i", Ratio: worst}, true
}

// behind says what has become of the first nodes that read a node and are shown: the name of one that is right, or of one that is wrong; none of either if there are none.
func (d *doctor) behind(node string, but ...string) (right, wrong string) {
	reads := map[string]bool{node: true}
	for _, n := range d.graph.order {
		for _, in := range n.Inputs {
			reads[n.Name] = reads[n.Name] || reads[in]
		}
		drift, judged := d.Drifts[n.Name]
		if n.Name == node || !reads[n.Name] || !judged || slices.Contains(but, n.Name) {
			continue
		}
		if drift <= 1 {
			return n.Name, ""
		}
		return "", n.Name
	}
	return "", ""
}

// shows looks for another node whose truth the engine's tensor is. inDump says that what stands behind is right, so that only the dump is wrong.
func (d *doctor) shows(f conformance.Failure) (causes []conformance.Cause, inDump bool) {
	if f.View != conformance.Accumulated {
		return nil, false
	}
	at := slices.IndexFunc(d.graph.order, func(n shapes.Node) bool { return n.Name == f.Node.Name })
	type match struct {
		node  string
		ratio float64
		away  int
	}
	var all []match
	for i, n := range d.graph.order {
		if i == at || !slices.Equal(d.Truth.Shape(n.Name), f.Got.Shape) {
			continue
		}
		if ratio, _, ok := d.Truth.Against(n.Name, f.Got, same); ok && ratio <= 1 {
			all = append(all, match{n.Name, ratio, max(i-at, at-i)})
		}
	}
	if f.Node.Kind == shapes.SelectFeatures {
		if c, inDump, ok := d.tapped(f); ok {
			return []conformance.Cause{c}, inDump
		}
	}
	if len(all) == 0 {
		return nil, false
	}
	best := slices.MinFunc(all, func(a, b match) int { return cmp.Or(cmp.Compare(a.ratio, b.ratio), cmp.Compare(a.away, b.away)) })
	for _, m := range all { // in a coarse class two layers may both be near; of them the nearer place
		if m.ratio <= 2*best.ratio && m.away < best.away {
			best = m
		}
	}
	c := conformance.Cause{ID: "W03", Ratio: best.ratio, Text: fmt.Sprintf("%s shows the truth's %s", f.Node.Name, best.node), Look: "which value was written under this name"}
	right, wrong := d.behind(f.Node.Name)
	s, here := d.stream(f.Node.Name)
	there := slices.Index(s, best.node)
	switch {
	case right != "":
		c.Text += fmt.Sprintf("; %s behind it is right, so the dump is wrong and not the engine", right)
		if best.node == shapes.TextModel+".norm" {
			c.Look = "transformers' last hidden state stands behind the last norm"
		}
		return []conformance.Cause{c}, true
	case wrong == "":
		c.Text += "; nothing behind it is shown that could tell whether the engine is wrong or only its dump"
	case there >= 0 && there < here:
		layers := fmt.Sprintf("layer %d is", here-1)
		if here-there > 1 {
			layers = fmt.Sprintf("layers %d to %d are", there, here-1)
		}
		c.ID, c.Look = "W04", "the loop over the layers"
		c.Text += fmt.Sprintf(", and %s behind it is wrong: %s skipped", wrong, layers)
	default:
		c.ID, c.Look = "W01", "which value is handed on here"
		c.Text += fmt.Sprintf(", and %s behind it is wrong: that is handed on in its place", wrong)
	}
	return []conformance.Cause{c}, false
}

// tapped recognises features that are those of another layer of the tower, whether the class token was cut off or the last position.
func (d *doctor) tapped(f conformance.Failure) (c conformance.Cause, inDump, ok bool) {
	if len(f.Got.Shape) != 3 {
		return c, false, false
	}
	s, _ := d.stream(shapes.VisionTower + ".pre_layrnorm")
	kept, positions := f.Got.Shape[1], d.Config.Vision.Positions()
	feature := d.Config.FeatureLayer()
	for _, first := range []int{positions - kept, 0} {
		if first < 0 || first > 1 {
			continue
		}
		for i, layer := range s {
			ratio, rows, ok := d.Truth.Against(layer, f.Got, func(r int) int {
				if p := r%positions - first; p >= 0 && p < kept {
					return r/positions*kept + p
				}
				return -1
			})
			if !ok || ratio > 1 || rows < someRows {
				continue
			}
			c = conformance.Cause{ID: "W03", Ratio: ratio, Look: "vision_feature_layer, and which layers are run", Text: fmt.Sprintf("the features are the truth's %s", layer)}
			switch {
			case i == feature && first == 0:
				c.ID, c.Look = "V09", "the class token is position 0"
				c.Text += ", with the last position dropped and not the class token"
			case i == len(s)-1:
				c.ID = "C04"
				c.Text += ", the last layer, as vision_feature_layer -1 would have it"
			case i == feature-1:
				c.ID = "C05"
				c.Text += ", one layer too early"
			case i == feature+1:
				c.ID = "C06"
				c.Text += ", one layer more than the features need"
			}
			right, _ := d.behind(f.Node.Name)
			if right != "" {
				c.Text += fmt.Sprintf("; %s behind them is right, so the dump is wrong and not the engine", right)
			}
			return c, right != "", true
		}
	}
	return c, false, false
}

// order is one order in which an engine may have a node's rows: from gives the engine's row for each row of the node, -1 for none.
type order struct {
	bug  Bug
	from func(row int) int
}

// reordered looks for an order of the engine's rows in which they are the node's truth.
func (d *doctor) reordered(f conformance.Failure) (causes []conformance.Cause, inDump bool) {
	shape := d.Truth.Shape(f.Node.Name)
	if shape == nil || len(f.Got.Shape) == 0 {
		return nil, false
	}
	total := shapes.Product(shape[:len(shape)-1])
	for _, o := range d.orders(f) {
		moved := false
		for r := range total {
			moved = moved || o.from(r) != r
		}
		ratio, rows, ok := d.Truth.Against(f.Node.Name, f.Got, o.from)
		if !ok || !moved || ratio > 1 || rows < someRows || len(causes) == maxCauses {
			continue
		}
		c := o.bug.cause(ratio, nil)
		right, _ := d.behind(f.Node.Name)
		if inDump = right != ""; inDump {
			c.Text += fmt.Sprintf("; %s behind it is right, so that is the dump's order, or undone there", right)
		}
		causes = append(causes, c)
	}
	return causes, inDump
}

// orders lists the orders of rows that are tried at a node.
func (d *doctor) orders(f conformance.Failure) []order {
	var out []order
	add := func(id, text, look string, from func(row int) int) {
		out = append(out, order{Bug{ID: id, Text: f.Node.Name + " " + text, Look: look}, from})
	}
	letters := make([]string, len(f.Node.Shape))
	for i, s := range f.Node.Shape {
		letters[i] = s.Letter
	}
	shape := d.Truth.Shape(f.Node.Name)
	total := shapes.Product(shape[:len(shape)-1])
	switch {
	case len(shape) == 3 && letters[0] == "N":
		d.tileOrders(f, add)
	case len(shape) == 2 && (letters[0] == "T" || letters[0] == "R"):
		add("W07", "has its rows in the reverse order", "the axis of the positions", func(r int) int { return total - 1 - r })
		add("W07", "has its rows one place late", "where the rows are written", func(r int) int { return r + 1 })
		add("W07", "has its rows one place early", "where the rows are written", func(r int) int { return r - 1 })
	}
	if f.Node.Name != shapes.NodePack && f.Node.Name != shapes.NodeMerge {
		return out
	}
	images := count(total, same)
	if f.Node.Name == shapes.NodeMerge {
		images = nil
		for at, id := range d.Inputs.InputIDs {
			if id == d.Config.ImageTokenID {
				images = append(images, at)
			}
		}
		if len(images) > 0 {
			place := map[int]int{}
			for i, at := range images {
				place[at] = images[len(images)-1-i]
			}
			add("M11", "has the image rows in the reverse order", "the order in which rows are put to the image tokens", func(r int) int {
				if to, is := place[r]; is {
					return to
				}
				return r
			})
		}
	}
	return append(out, d.packings(f, images)...)
}

// tileOrders are the orders of tiles, and of the positions within a tile, of a node [N, positions, width].
func (d *doctor) tileOrders(f conformance.Failure, add func(id, text, look string, from func(row int) int)) {
	shape := d.Truth.Shape(f.Node.Name)
	tiles, positions := shape[0], shape[1]
	side := d.Config.Vision.PatchesPerSide()
	class := positions - side*side // positions before the patches
	if class < 0 || class > 1 || len(f.Got.Shape) != 3 {
		return
	}
	own := f.Got.Shape[1]
	if own == positions+1 && f.Got.Shape[0] == tiles { // another shape: only one more
		add("V09", "has the class token among the features", "vision_feature_select_strategy default drops position 0", func(r int) int { return r/positions*own + 1 + r%positions })
		return
	}
	if !slices.Equal(shape, f.Got.Shape) {
		return
	}
	byTile := func(of func(tile int) int) func(int) int {
		return func(r int) int { return of(r/positions)*positions + r%positions }
	}
	within := func(of func(patch int) int) func(int) int {
		return func(r int) int {
			if p := r % positions; p >= class {
				return r - p + class + of(p-class)
			}
			return r
		}
	}
	reading := "tiles are the whole image, then the grid in reading order, image after image"
	add("W07", "has its tiles in the reverse order", reading, byTile(func(t int) int { return tiles - 1 - t }))
	for _, o := range []struct {
		text string
		at   func(tile int, grid shapes.Size) int // of an image's tiles, 0 the whole image
	}{
		{"has the whole image behind its tiles", func(t int, g shapes.Size) int { return (t + g.Area()) % (g.Area() + 1) }},
		{"has the tiles of the grid in the reverse order", func(t int, g shapes.Size) int { return (g.Area() + 1 - t) % (g.Area() + 1) }},
		{"has the tiles of the grid column by column", func(t int, g shapes.Size) int {
			if t == 0 {
				return 0
			}
			return 1 + (t-1)%g.W*g.H + (t-1)/g.W
		}},
	} {
		if place, ok := d.tiles(tiles, o.at); ok {
			add("W07", o.text, reading, byTile(func(t int) int { return place[t] }))
		}
	}
	if class == 1 {
		add("W07", "has the class token at the end", "the class token is position 0", func(r int) int { return r/positions*positions + (r%positions+positions-1)%positions })
	}
	cells := side * side
	look := "patches are in reading order"
	add("W07", "has its patches column by column", look, within(func(p int) int { return p%side*side + p/side }))
	add("W07", "has its patches in the reverse order", look, within(func(p int) int { return cells - 1 - p }))
	add("W07", "has its rows of patches upside down", look, within(func(p int) int { return (side-1-p/side)*side + p%side }))
	add("W07", "has its patches one place late, the last one first", look, within(func(p int) int { return (p + 1) % cells }))
	add("W07", "has its patches one place early, the first one last", look, within(func(p int) int { return (p + cells - 1) % cells }))
}

// tiles gives every tile of the prompt its place in another order within each image.
func (d *doctor) tiles(total int, at func(tile int, grid shapes.Size) int) ([]int, bool) {
	if d.Config.ModelType == shapes.Llava {
		return nil, false
	}
	var place []int
	for _, size := range d.Inputs.ImageSizes {
		canvas := canvasBy(false, false, false)(size, d.Config.GridPinpoints)
		g := shapes.Size{H: canvas.H / d.Config.Vision.ImageSize, W: canvas.W / d.Config.Vision.ImageSize}
		first := len(place)
		for t := range g.Area() + 1 {
			place = append(place, first+at(t, g))
		}
	}
	return place, len(place) == total
}

// packings are the orders of rows that the known bugs of packing give: cells are numbered and packed rightly and wrongly. images are the rows of the
// node that are image rows.
func (d *doctor) packings(f conformance.Failure, images []int) []order {
	if d.Config.ModelType == shapes.Llava || len(d.Inputs.PixelValues.Shape) == 0 || len(f.Got.Shape) != 2 {
		return nil
	}
	side := d.Config.Vision.PatchesPerSide()
	cells := shapes.NewTensor(d.Inputs.PixelValues.Shape[0], side*side, 1)
	for i := range cells.Data {
		cells.Data[i] = float32(i)
	}
	newline := shapes.Tensor{Shape: []int{1}, Data: []float32{-1}}
	s := d.site(f)
	right, ok := packer{}.rows(s, cells, newline)
	if !ok || len(right) != len(images) {
		return nil
	}
	whole := f.Got.Rows()
	var out []order
	for _, b := range packing() {
		if b.packer == nil {
			continue
		}
		wrong, ok := b.packer.rows(s, cells, newline)
		if !ok || whole != len(wrong) && f.Node.Name == shapes.NodePack || len(wrong) != len(images) && f.Node.Name == shapes.NodeMerge {
			continue
		}
		place := map[float32]int{}
		for i, r := range wrong {
			place[r[0]] = i
		}
		to := map[int]int{}
		for i, at := range images {
			to[at] = -1
			if k, is := place[right[i][0]]; is {
				to[at] = k
				if f.Node.Name == shapes.NodeMerge {
					to[at] = images[k]
				}
			}
		}
		out = append(out, order{b, func(r int) int {
			if k, is := to[r]; is {
				return k
			}
			return r
		}})
	}
	return out
}

// between explains a wrong node by what lies between it and the right values that the engine shows: layers left out, run twice or in another order, and
// the bugs of the catalogue.
func (d *doctor) between(ctx context.Context, f conformance.Failure) []conformance.Cause {
	if f.Node.Kind != shapes.Scores && slices.ContainsFunc(f.Got.Data, func(v float32) bool { return v-v != 0 }) {
		return nil // NaN or an infinity is near to nothing, and that would be found out of every bug by itself
	}
	ctx, cancel := context.WithTimeout(ctx, patience/3) // an engine of another class than it declares is no known bug, and found out here
	defer cancel()
	m, err := d.segment(f)
	if err != nil || m == nil {
		return nil
	}
	right, ok := d.Truth.Near(f.Node.Name, m.values[f.Node.Name], f.Got)
	if ok && right <= 1 {
		return nil // right by what it reads
	}
	if !ok {
		right = compare.Worse
	}
	causes := d.layers(ctx, f, m, right)
	causes = append(causes, d.segmentBugs(ctx, f, m, right)...)
	slices.SortStableFunc(causes, func(a, b conformance.Cause) int { return cmp.Compare(a.Ratio, b.Ratio) })
	return causes[:min(len(causes), maxCauses)]
}

// segment is a model of the nodes between f and the right values that the engine shows, which it takes over; nil if that is too much to evaluate.
func (d *doctor) segment(f conformance.Failure) (*Model, error) {
	needed, preset := map[string]bool{f.Node.Name: true}, map[string]shapes.Tensor{}
	g := &table{nodes: d.graph.nodes, params: d.graph.params}
	dims := shapes.DimsOf(d.Config, d.Inputs)
	work := 0.0
	for _, n := range slices.Backward(d.graph.order) {
		if !needed[n.Name] || !n.Present(dims) {
			continue
		}
		g.order = append(g.order, n)
		if t, shown := d.Shown[n.Name]; shown && n.Name != f.Node.Name {
			if drift, judged := d.Drifts[n.Name]; judged && drift <= 1 {
				preset[n.Name] = t
				continue
			}
		}
		work += d.work(n, dims)
		for _, in := range n.Inputs {
			needed[in] = true
		}
	}
	slices.Reverse(g.order)
	if work > maxWork {
		return nil, nil
	}
	eval, err := replay.New(d.Config, d.Weights, d.Inputs)
	if err != nil {
		return nil, err
	}
	m := &Model{config: d.Config, weights: d.Weights, prompt: d.Inputs, graph: g, eval: eval, class: f.Class, dims: dims, preset: preset}
	m.values, err = m.Run(nil, nil)
	return m, err
}

// work is how many products a node takes.
func (d *doctor) work(n shapes.Node, dims shapes.Dims) float64 {
	shape := n.Concrete(dims)
	size := float64(shapes.Product(shape))
	switch n.Kind {
	case shapes.Linear, shapes.PatchEmbedding:
		return size * float64(shapes.Product(d.graph.params[n.Params[0]].Shape[1:]))
	case shapes.Scores, shapes.Context:
		in := d.graph.nodes[n.Inputs[0]].Concrete(dims)
		return size * float64(in[len(in)-1])
	}
	return size
}

// segmentBugs tries every bug of the catalogue wherever it lives in a segment.
func (d *doctor) segmentBugs(ctx context.Context, f conformance.Failure, m *Model, right float64) []conformance.Cause {
	var causes []conformance.Cause
	seen := map[string]bool{}
	for _, b := range Catalogue() {
		if ctx.Err() != nil {
			break
		}
		if seen[b.Key()] || !slices.ContainsFunc(m.graph.order, func(n shapes.Node) bool { return slices.Contains(b.Kinds, n.Kind) }) {
			continue
		}
		seen[b.Key()] = true
		values, err := m.Run([]Bug{b}, func(n shapes.Node) bool { _, taken := m.preset[n.Name]; return !taken })
		if err != nil {
			continue // a bug that cannot be run here is none
		}
		ratio, ok := d.Truth.Near(f.Node.Name, values[f.Node.Name], f.Got)
		if !ok || ratio > 1 || ratio*tells > right {
			continue
		}
		c := b.cause(ratio, nil)
		c.Text = fmt.Sprintf("between %s and what is right before it, which the engine does not show: %s", f.Node.Name, c.Text)
		causes = append(causes, c)
	}
	return causes
}

// layers tries other sequences of layers from the last right one that is shown up to a wrong one.
func (d *doctor) layers(ctx context.Context, f conformance.Failure, m *Model, right float64) []conformance.Cause {
	s, end := d.stream(f.Node.Name)
	if end < 1 || f.View != conformance.Accumulated {
		return nil
	}
	begin := end
	for begin > 0 {
		begin--
		if _, shown := m.preset[s[begin]]; shown {
			break
		}
	}
	states := []shapes.Tensor{m.values[s[begin]]} // behind so many layers of the right sequence
	for _, name := range s[begin+1 : end] {
		states = append(states, m.values[name])
	}
	sequence := count(end-begin, func(i int) int { return begin + i }) // layer l makes s[l+1]
	var causes []conformance.Cause
	try := func(layers []int, id, look, text string, args ...any) bool {
		k := 0
		for k < min(len(layers), len(states)-1) && layers[k] == sequence[k] {
			k++
		}
		x, ok := states[k], true
		for _, l := range layers[k:] {
			if ctx.Err() != nil {
				return false
			}
			if x, ok = d.layer(m, s, l, x); !ok {
				return false
			}
		}
		ratio, ok := d.Truth.Near(f.Node.Name, x, f.Got)
		if !ok || ratio > 1 || ratio*tells > right {
			return false
		}
		causes = append(causes, conformance.Cause{ID: id, Text: f.Node.Name + " is as if " + fmt.Sprintf(text, args...), Look: look, Ratio: ratio})
		return true
	}
	const loop = "the loop over the layers, and which parameters each of them gets"
	for i, l := range sequence {
		before, after := sequence[:i], sequence[i+1:]
		try(slices.Concat(before, after), "W04", loop, "layer %d were skipped", l)
		try(slices.Concat(before, []int{l, l}, after), "W05", loop, "layer %d were run twice", l)
		if len(after) > 0 {
			try(slices.Concat(before, []int{l + 1, l}, after[1:]), "W06", loop, "layers %d and %d were run in the other order", l, l+1)
		}
		for k := range len(s) - 1 {
			if k == l || len(sequence) > 1 && k != l-1 && k != l+1 {
				continue
			}
			id, text := "C20", "layer %d had the parameters of layer %d"
			if k == l+1 && len(after) == 0 && end+1 < len(s) { // and the next one is this?
				if next, shown := d.Shown[s[end+1]]; shown {
					if x, ok := d.layer(m, s, l, f.Got); ok {
						if ratio, ok := d.Truth.Near(s[end+1], x, next); ok && ratio <= 1 {
							id, text = "W06", "layers %d and %d were run in the other order"
						}
					}
				}
			}
			try(slices.Concat(before, []int{k}, after), id, loop, text, l, k)
		}
	}
	return causes
}

// layer runs layer l of a stream on an input.
func (d *doctor) layer(m *Model, s []string, l int, x shapes.Tensor) (shapes.Tensor, bool) {
	name := s[l+1]
	values := map[string]shapes.Tensor{s[l]: x}
	for _, n := range d.graph.order {
		if n.Name != name && !strings.HasPrefix(n.Name, name+".") {
			continue
		}
		in := make([]shapes.Tensor, len(n.Inputs))
		for i, name := range n.Inputs {
			t, own := values[name]
			if !own {
				t = m.values[name] // the tables of the rotation
			}
			in[i] = t
		}
		y, err := m.eval.Eval(n, in)
		if err != nil {
			return y, false
		}
		values[n.Name] = m.stored(y)
	}
	return values[name], true
}
