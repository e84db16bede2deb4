package report

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/shapes"
)

// GraphSVG draws the graph of a model: tower, projector and decoder side by side, one layer of each in a frame that says
// how often it comes. Lines and labels outside of boxes have a grey that is legible on white and on black.
func GraphSVG(w io.Writer, c shapes.Config) error {
	d := newDrawing(c)
	d.place()
	b := bufio.NewWriter(w)
	d.draw(b)
	return b.Flush()
}

// GraphDOT writes the whole graph in the language of Graphviz, every layer of it.
func GraphDOT(w io.Writer, c shapes.Config) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "digraph llava {\n\tnode [shape=box, fontname=\"sans-serif\"]")
	for _, in := range []string{shapes.InPixelValues, shapes.InImageSizes, shapes.InInputIDs, shapes.InPositionIDs} {
		fmt.Fprintf(b, "\t%q [shape=oval]\n", in)
	}
	for _, n := range shapes.Nodes(c) {
		style := ""
		if n.Reach == shapes.Dead {
			style = ", style=dashed"
		}
		fmt.Fprintf(b, "\t%q [label=\"%s\\n%s %s\"%s]\n", n.Name, n.Name, n.Kind, n.Known(), style)
		for _, in := range n.Inputs {
			fmt.Fprintf(b, "\t%q -> %q\n", in, n.Name)
		}
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

// Geometry of the drawing, in pixels.
const (
	rowPitch  = 44.0
	boxHeight = 30.0
	gap       = 12.0 // between boxes of a row
	lane      = 14.0 // between a column's widest row and the line that runs beside it
	top       = 50.0 // centre of row 0
	grey      = "#7d8590"
)

// The columns of the drawing, and where their centres are.
const (
	towerColumn = iota
	middleColumn
	decoderColumn
)

var (
	centre = [...]float64{170, 413, 660}
	titles = [...]string{"vision tower", "projector", "decoder"}
	fills  = [...]string{"#d6e8fb", "#fbe7b2", "#d5f0d8"}
)

// box is a node, or an input of the graph, where it stands.
type box struct {
	name   string // as edges refer to it
	label  string
	shape  string
	column int
	row    float64
	x, w   float64 // centre and width
	input  bool
	dead   bool
	layer  bool // inside of the frame
}

func (b *box) y() float64      { return top + b.row*rowPitch }
func (b *box) left() float64   { return b.x - b.w/2 }
func (b *box) right() float64  { return b.x + b.w/2 }
func (b *box) top() float64    { return b.y() - b.h()/2 }
func (b *box) bottom() float64 { return b.y() + b.h()/2 }

func (b *box) h() float64 {
	if b.input {
		return 20
	}
	return boxHeight
}

// drawing is the graph with all layers but the first of each kind folded away.
type drawing struct {
	c      shapes.Config
	nodes  []shapes.Node
	boxes  []*box
	byName map[string]*box
}

func newDrawing(c shapes.Config) *drawing {
	d := &drawing{c: c, byName: map[string]*box{}}
	for _, n := range shapes.Nodes(c) {
		if i, ok := layerOf(n.Name); ok && i > 0 {
			continue
		}
		n.Inputs = slices.Clone(n.Inputs)
		for i, in := range n.Inputs {
			n.Inputs[i] = firstLayer(in)
		}
		d.nodes = append(d.nodes, n)
	}
	return d
}

// layerOf is the layer that a node belongs to.
func layerOf(name string) (int, bool) {
	var i int
	_, after, ok := strings.Cut(name, ".layers.")
	if !ok {
		return 0, false
	}
	_, err := fmt.Sscanf(after, "%d", &i)
	return i, err == nil
}

// firstLayer replaces the layer number of a name by 0.
func firstLayer(name string) string {
	before, after, ok := strings.Cut(name, ".layers.")
	if !ok {
		return name
	}
	if _, leaf, inside := strings.Cut(after, "."); inside {
		return before + ".layers.0." + leaf
	}
	return before + ".layers.0"
}

func columnOf(n shapes.Node) int {
	switch {
	case strings.HasPrefix(n.Name, shapes.VisionTower), n.Kind == shapes.SelectFeatures:
		return towerColumn
	case strings.HasPrefix(n.Name, shapes.Projector), n.Kind == shapes.PackImageFeatures, n.Kind == shapes.RotaryCos, n.Kind == shapes.RotarySin:
		return middleColumn
	}
	return decoderColumn
}

// labelOf is the last part of a node's name, and "layer" for the sum at the end of one.
func labelOf(name string) string {
	label := name[strings.LastIndexByte(name, '.')+1:]
	if label == "0" {
		return "layer (residual)"
	}
	return label
}

func (d *drawing) add(b *box) *box {
	b.w = max(58, 6.1*float64(max(len(b.label), len(b.shape)-3))+14)
	d.boxes = append(d.boxes, b)
	d.byName[b.name] = b
	return b
}

func (d *drawing) place() {
	for _, n := range d.nodes {
		_, layer := layerOf(n.Name)
		b := d.add(&box{name: n.Name, label: labelOf(n.Name), shape: n.Symbolic(), column: columnOf(n), layer: layer})
		b.dead = n.Reach == shapes.Dead && !layer
		if b.column != middleColumn {
			b.row = d.rank(n)
		}
	}
	d.placeRows(towerColumn)
	d.placeRows(decoderColumn)
	d.placeMiddle()
	d.placeInputs()
}

// rank is one more than the largest rank of the inputs in the same column.
func (d *drawing) rank(n shapes.Node) float64 {
	rank := 0.0
	for _, in := range n.Inputs {
		if b := d.byName[in]; b != nil && b.column == columnOf(n) {
			rank = max(rank, b.row+1)
		}
	}
	return rank
}

// placeRows spreads the boxes of each row around the column's centre; a box alone in its row whose one input stands aside stands under it.
func (d *drawing) placeRows(column int) {
	rows := map[float64][]*box{}
	last := 0.0
	for _, b := range d.boxes {
		if b.column == column {
			rows[b.row] = append(rows[b.row], b)
			last = max(last, b.row)
		}
	}
	for r := 0.0; r <= last; r++ {
		row := rows[r]
		slices.SortStableFunc(row, func(a, b *box) int { return deadFirst(a) - deadFirst(b) })
		total := gap * float64(len(row)-1)
		for _, b := range row {
			total += b.w
		}
		x := centre[column] - total/2
		for _, b := range row {
			b.x = x + b.w/2
			x += b.w + gap
		}
		for _, b := range row {
			if in := d.soleInput(b); in != nil && len(row) <= 2 && in.row == r-1 && in.layer == b.layer && in.dead == b.dead && len(rows[in.row]) > len(row) {
				b.x = in.x
			}
		}
	}
}

func deadFirst(b *box) int {
	if b.dead {
		return 0
	}
	return 1
}

// soleInput is the only box of the same column that a box takes, if there is just one.
func (d *drawing) soleInput(b *box) *box {
	var sole *box
	for _, in := range d.node(b.name).Inputs {
		if other := d.byName[in]; other != nil && other.column == b.column {
			if sole != nil {
				return nil
			}
			sole = other
		}
	}
	return sole
}

func (d *drawing) node(name string) shapes.Node {
	for _, n := range d.nodes {
		if n.Name == name {
			return n
		}
	}
	return shapes.Node{}
}

// placeMiddle puts the projector from the bottom up, between the end of the tower and the beginning of the decoder.
func (d *drawing) placeMiddle() {
	row := d.byName[shapes.NodeSelect].row - 2
	for _, b := range d.boxes {
		if b.column != middleColumn {
			continue
		}
		b.x = centre[middleColumn]
		switch b.name {
		case shapes.NodeCos:
			b.row, b.x = 2, b.x-(b.w+gap)/2
		case shapes.NodeSin:
			b.row, b.x = 2, b.x+(b.w+gap)/2
		default:
			b.row = row
			row -= 2
		}
	}
}

func (d *drawing) placeInputs() {
	above := func(name string, node string, rows float64) {
		if n := d.byName[node]; n != nil {
			b := d.add(&box{name: name, label: name, column: n.column, row: n.row - rows, input: true})
			b.x = n.x
		}
	}
	above(shapes.InPixelValues, d.nodes[0].Name, 1)
	above(shapes.InInputIDs, shapes.TextModel+".embed_tokens", 1)
	above(shapes.InImageSizes, shapes.NodePack, 1)
	above(shapes.InPositionIDs, shapes.NodeCos, 1)
	d.byName[shapes.InPositionIDs].x = centre[middleColumn]
}

func (d *drawing) draw(w io.Writer) {
	height, width := 0.0, centre[decoderColumn]+180
	for _, b := range d.boxes {
		height = max(height, b.bottom())
	}
	const head = 40 // above row 0: titles and the inputs of the graph
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 %d %.0f %.0f" font-family="Helvetica, Arial, sans-serif" font-size="11">`+"\n", -head, width, height+head+50)
	fmt.Fprintf(w, "<title>The node graph of a %s model</title>\n", d.c.ModelType)
	fmt.Fprintf(w, `<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0.5 L8 4 L0 7.5 Z" fill="%s"/></marker></defs>`+"\n", grey)
	for column, title := range titles {
		fmt.Fprintf(w, `<text x="%.0f" y="%d" text-anchor="middle" font-size="14" font-weight="bold" fill="%s">%s</text>`+"\n", centre[column], -head+16, grey, title)
	}
	d.frame(w, towerColumn, d.c.Vision.NumHiddenLayers, d.c.FeatureLayer())
	d.frame(w, decoderColumn, d.c.Text.NumHiddenLayers, d.c.Text.NumHiddenLayers)
	fmt.Fprintf(w, `<g fill="none" stroke="%s" stroke-width="1.2">`+"\n", grey)
	d.edges(w)
	fmt.Fprintln(w, "</g>")
	for _, b := range d.boxes {
		drawBox(w, b)
	}
	for _, column := range []int{towerColumn, decoderColumn} {
		fmt.Fprintf(w, `<text x="%.0f" y="%.0f" text-anchor="middle" fill="%s">%s</text>`+"\n", centre[column], height+26, grey, d.letters(column))
	}
	fmt.Fprintf(w, `<text x="%.0f" y="%.0f" text-anchor="middle" fill="%s">N tiles, T positions</text>`+"\n", centre[middleColumn], height+26, grey)
	fmt.Fprintln(w, "</svg>")
}

// letters says what the configuration decides of a column's letters.
func (d *drawing) letters(column int) string {
	var words []string
	seen := map[string]bool{}
	for _, n := range d.nodes {
		if columnOf(n) != column {
			continue
		}
		for _, dim := range n.Shape {
			if dim.Len > 0 && !seen[dim.Letter] && !strings.ContainsAny(dim.Letter, "*-") {
				seen[dim.Letter] = true
				words = append(words, fmt.Sprintf("%s = %d", dim.Letter, dim.Len))
			}
		}
	}
	return strings.Join(words, ", ")
}

// frame surrounds the boxes of one layer and says how many layers there are, and how many of them the logits need.
func (d *drawing) frame(w io.Writer, column, layers, needed int) {
	first, last := 1e9, 0.0
	for _, b := range d.boxes {
		if b.column == column && b.layer {
			first, last = min(first, b.top()), max(last, b.bottom())
		}
	}
	left, right := d.extent(column)
	fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="8" fill="none" stroke="%s" stroke-width="1.2" stroke-dasharray="5 4"/>`+"\n", left-2*lane, first-7, right-left+4*lane, last-first+14, grey)
	fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="end" font-size="15" font-weight="bold" fill="%s">× %d</text>`+"\n", right+2*lane-8, first+14, grey, layers)
	if needed < layers {
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="end" font-size="10" fill="%s">%d reach</text>`+"\n", right+2*lane-8, first+27, grey, needed)
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="end" font-size="10" fill="%s">the logits</text>`+"\n", right+2*lane-8, first+38, grey)
	}
}

// extent is the left and the right border of a column's boxes.
func (d *drawing) extent(column int) (left, right float64) {
	left, right = 1e9, 0
	for _, b := range d.boxes {
		if b.column == column {
			left, right = min(left, b.left()), max(right, b.right())
		}
	}
	return left, right
}

func drawBox(w io.Writer, b *box) {
	fill, stroke, style, radius := fills[b.column], "#5b6570", "", 4.0
	if b.input {
		fill, radius = "#e9ecef", 10
	}
	if b.dead {
		fill, style = "#e9ecef", ` stroke-dasharray="3 3"`
	}
	fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.0f" fill="%s" stroke="%s"%s/>`, b.left(), b.top(), b.w, b.h(), radius, fill, stroke, style)
	y := b.y() - 2
	if b.input {
		y = b.y() + 4
	}
	fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#1f2328">%s</text>`, b.x, y, html.EscapeString(b.label))
	if b.shape != "" {
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="9" fill="#4b535d">%s</text>`, b.x, b.y()+10, html.EscapeString(b.shape))
	}
	fmt.Fprintln(w)
}

func (d *drawing) edges(w io.Writer) {
	line := func(format string, args ...any) {
		fmt.Fprintf(w, `<path marker-end="url(#arrow)" d="`+format+`"/>`+"\n", args...)
	}
	for _, n := range d.nodes {
		to := d.byName[n.Name]
		for i, in := range n.Inputs {
			from := d.byName[in]
			switch {
			case n.Kind == shapes.Rope && i > 0: // drawn once, as a bus
			case from.column == middleColumn && to.column == decoderColumn: // up, and into the decoder from the left
				left, _ := d.extent(to.column)
				x := left - 2*lane - 22
				line("M%.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f", from.right(), from.y(), x-8, x, from.y(), x, from.y()-8,
					to.y()+8, x, to.y(), x+8, to.y(), to.left())
			case from.column == towerColumn && to.column == middleColumn: // right, and up into the projector
				line("M%.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f", from.right(), from.y(), to.x-8, to.x, from.y(), to.x, from.y()-8, to.bottom())
			case from.row > to.row: // the projector runs upwards
				line("M%.1f %.1f V%.1f", from.x, from.top(), to.bottom())
			case to.row-from.row <= 1 || from.x == to.x && d.clear(from, to):
				mid := (from.bottom() + to.top()) / 2
				line("M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f", from.x, from.bottom(), from.x, mid, to.x, mid, to.x, to.top())
			case from.x > to.right()+8: // straight down beside the boxes between, and in from the right
				line("M%.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f", from.x, from.bottom(), to.y()-8, from.x, to.y(), from.x-8, to.y(), to.right())
			case from.input: // beside the first reader, on its right
				x := max(d.byName[d.firstReader(in)].right(), to.right()) + lane
				line("M%.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f", from.right(), from.y(), x-8, x, from.y(), x, from.y()+8,
					to.y()-8, x, to.y(), x-8, to.y(), to.right())
			default: // a residual, in the lane on the left
				left, _ := d.extent(to.column)
				x := left - lane
				line("M%.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f", from.left(), from.y(), x+8, x, from.y(), x, from.y()+8,
					to.y()-8, x, to.y(), x+8, to.y(), to.left())
			}
		}
	}
	d.bus(w, line)
}

// clear says whether no box stands between two of one column that are above each other.
func (d *drawing) clear(from, to *box) bool {
	for _, b := range d.boxes {
		if b.column == from.column && b.row > from.row && b.row < to.row && b.left() < from.x && from.x < b.right() {
			return false
		}
	}
	return true
}

func (d *drawing) firstReader(in string) string {
	for _, n := range d.nodes {
		if slices.Contains(n.Inputs, in) {
			return n.Name
		}
	}
	return ""
}

// bus is the line that takes cos and sin to every Rope.
func (d *drawing) bus(w io.Writer, line func(string, ...any)) {
	cos, sin := d.byName[shapes.NodeCos], d.byName[shapes.NodeSin]
	y := cos.bottom() + 8
	fmt.Fprintf(w, `<path d="M%.1f %.1f V%.1f H%.1f M%.1f %.1f V%.1f"/>`+"\n", cos.x, cos.bottom(), y, sin.x, sin.x, sin.bottom(), y)
	for _, n := range d.nodes {
		if n.Kind != shapes.Rope {
			continue
		}
		to := d.byName[n.Name]
		left, _ := d.extent(decoderColumn)
		x, above := left-2*lane-8, to.top()-7
		line("M%.1f %.1f H%.1f V%.1f H%.1f V%.1f", sin.x, y, x, above, to.x+16, to.top())
	}
}
