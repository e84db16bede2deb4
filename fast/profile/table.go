package profile

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"unicode/utf8"
)

// per is what times are divided by, and how they are called then.
func (p Profile) per() (float64, string) {
	if p.Passes > 0 {
		return 1e3 / float64(p.Passes), "ms a pass"
	}
	return 1, "s"
}

// WriteText writes a profile as a table: operations down, the most expensive first, kinds of layers across, and the share of each.
func (p Profile) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	m := p.Merge()
	scale, unit := p.per()
	p.heading(b)
	var kinds []string
	byOp, byKind := map[string]float64{}, map[string]float64{}
	for c, s := range m.Cells {
		byOp[c.Op] += s
		if byKind[c.Layer] == 0 {
			kinds = append(kinds, c.Layer)
		}
		byKind[c.Layer] += s
	}
	slices.SortFunc(kinds, natural)
	kinds = slices.Compact(kinds)
	ops := slices.SortedFunc(maps.Keys(byOp), func(a, b string) int { return cmp.Or(cmp.Compare(byOp[b], byOp[a]), cmp.Compare(a, b)) })
	width := widest("operation", ops)
	fmt.Fprintf(b, "%-*s", width, unit)
	for _, k := range kinds {
		fmt.Fprintf(b, " %10s", head(k))
	}
	fmt.Fprintf(b, " %10s %7s\n", "all", "share")
	total := p.Total()
	line := func(name string, value func(kind string) float64, all float64) {
		fmt.Fprintf(b, "%-*s", width, name)
		for _, k := range kinds {
			if v := value(k); v > 0 {
				fmt.Fprintf(b, " %10.2f", v*scale)
			} else {
				fmt.Fprintf(b, " %10s", "")
			}
		}
		fmt.Fprintf(b, " %10.2f %6.1f%%\n", all*scale, 100*all/total)
	}
	for _, op := range ops {
		line(op, func(k string) float64 { return m.Cells[Cell{k, op}] }, byOp[op])
	}
	line("all", func(k string) float64 { return byKind[k] }, total)
	return b.Flush()
}

// WriteLayers writes every layer by itself: layers down in their order, their operations across.
func (p Profile) WriteLayers(w io.Writer) error {
	b := bufio.NewWriter(w)
	scale, unit := p.per()
	p.heading(b)
	byKind := map[string][]string{}
	for c := range p.Cells {
		if k := kindOf(c.Layer); !slices.Contains(byKind[k], c.Layer) {
			byKind[k] = append(byKind[k], c.Layer)
		}
	}
	for i, k := range slices.SortedFunc(maps.Keys(byKind), natural) {
		layers := byKind[k]
		slices.SortFunc(layers, natural)
		byOp := map[string]float64{}
		for c, s := range p.Cells {
			if kindOf(c.Layer) == k {
				byOp[c.Op] += s
			}
		}
		ops := slices.SortedFunc(maps.Keys(byOp), func(a, b string) int { return cmp.Or(cmp.Compare(byOp[b], byOp[a]), cmp.Compare(a, b)) })
		if i > 0 {
			fmt.Fprintln(b)
		}
		fmt.Fprintf(b, "%-*s", 12, unit)
		for _, op := range ops {
			fmt.Fprintf(b, " %*s", max(8, utf8.RuneCountInString(op)), op)
		}
		fmt.Fprintf(b, " %9s\n", "all")
		for _, layer := range layers {
			fmt.Fprintf(b, "%-12s", head(layer))
			all := 0.0
			for _, op := range ops {
				v := p.Cells[Cell{layer, op}]
				all += v
				fmt.Fprintf(b, " %*.2f", max(8, utf8.RuneCountInString(op)), v*scale)
			}
			fmt.Fprintf(b, " %9.2f\n", all*scale)
		}
	}
	return b.Flush()
}

func (p Profile) heading(w io.Writer) {
	if p.Row != "" {
		fmt.Fprintf(w, "%s, %d passes\n", p.Row, p.Passes)
	}
	fmt.Fprintf(w, "processor time of all threads, %.2f s; the limits beside it took %.2f s\n\n", p.Total(), p.Limits)
}

// head is a layer's name at the head of a column.
func head(layer string) string {
	if layer == "" {
		return "no label"
	}
	return layer
}

func widest(least string, names []string) int {
	n := utf8.RuneCountInString(least)
	for _, name := range names {
		n = max(n, utf8.RuneCountInString(name))
	}
	return n
}

// Change is how much the processor time of a cell has changed between two profiles.
type Change struct {
	Cell
	Old, New float64 // in the unit of the difference
}

// Difference is two profiles held against each other, the largest change first.
type Difference struct {
	Row                string
	Unit               string
	OldTotal, NewTotal float64
	Changes            []Change
}

// Compare says where the difference between two profiles lies: in ms of processor time a pass if both say how often the same row ran, else, which
// tells less, in percent of each profile's total.
func Compare(old, new Profile) (Difference, error) {
	if old.Row != new.Row {
		return Difference{}, fmt.Errorf("profile: the old one is of %q and the new one of %q: not the same work", old.Row, new.Row)
	}
	a, b := old.Merge(), new.Merge()
	d := Difference{Row: old.Row, Unit: "ms a pass"}
	scaleA, scaleB := 100/old.Total(), 100/new.Total()
	if old.Passes > 0 && new.Passes > 0 {
		scaleA, scaleB = 1e3/float64(old.Passes), 1e3/float64(new.Passes)
	} else {
		d.Unit = "% of the total"
	}
	if math.IsInf(scaleA, 0) || math.IsInf(scaleB, 0) {
		return d, fmt.Errorf("profile: no time was spent")
	}
	d.OldTotal, d.NewTotal = old.Total()*scaleA, new.Total()*scaleB
	seen := map[Cell]bool{}
	for _, p := range []Profile{a, b} {
		for c := range p.Cells {
			if !seen[c] {
				seen[c] = true
				d.Changes = append(d.Changes, Change{c, a.Cells[c] * scaleA, b.Cells[c] * scaleB})
			}
		}
	}
	slices.SortFunc(d.Changes, func(x, y Change) int {
		return cmp.Or(cmp.Compare(math.Abs(y.New-y.Old), math.Abs(x.New-x.Old)), order(x.Cell, y.Cell))
	})
	return d, nil
}

// WriteText writes the changes, the largest first.
func (d Difference) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	if d.Row != "" {
		fmt.Fprintf(b, "%s\n\n", d.Row)
	}
	var names, layers []string
	for _, c := range d.Changes {
		names, layers = append(names, c.Op), append(layers, head(c.Layer))
	}
	op, layer := widest("operation", names), widest("layer", layers)
	line := func(l, o string, old, new float64) {
		relative := "new"
		if old > 0 {
			relative = fmt.Sprintf("%+.1f%%", 100*(new-old)/old)
		}
		fmt.Fprintf(b, "%-*s %-*s %10.2f %10.2f %+10.2f %9s\n", layer, l, op, o, old, new, new-old, relative)
	}
	fmt.Fprintf(b, "%-*s %-*s %10s %10s %10s   %s\n", layer, "layer", op, "operation", "old", "new", "change", d.Unit)
	for _, c := range d.Changes {
		line(head(c.Layer), c.Op, c.Old, c.New)
	}
	line("all", "", d.OldTotal, d.NewTotal)
	return b.Flush()
}
