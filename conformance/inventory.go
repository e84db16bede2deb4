package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// An Inventoried engine says which parameters it has: the names of any scheme of package shapes, and shapes. Inventory is called after Forward;
// without ok the engine does not say.
type Inventoried interface {
	Inventory() (parameters []shapes.Param, ok bool, err error)
}

// NodeParameters is the name under which an engine's list of parameters is judged.
const NodeParameters = "parameters"

// InventoryStage holds the parameters that an engine has against the model's. err is why its list could not be read.
func InventoryStage(c shapes.Config, have []shapes.Param, err error) Stage {
	k := Check{View: Exact, Result: Pass}
	want := shapes.Params(c)
	if err != nil {
		k.Result, k.Reason = Error, err.Error()
	} else if text := inventory(c, have, &k); text != "" {
		k.Result, k.Reason, k.Ratio = Fail, text, compare.Worse
	}
	return Stage{Name: StageInventory, Nodes: []Node{{Name: NodeParameters, Shape: []int{len(want)}, Reach: shapes.Reaches, Checks: []Check{k}}}}
}

// inventory says what is wrong with a list of parameters; empty if nothing is. What an engine leaves out because the logits do not need it is noted in k.
func inventory(c shapes.Config, have []shapes.Param, k *Check) string {
	var names []string
	shape := map[string][]int{}
	for _, p := range have {
		if _, twice := shape[p.Name]; twice {
			return fmt.Sprintf("%s is listed twice", quote(p.Name))
		}
		names, shape[p.Name] = append(names, p.Name), p.Shape
	}
	slices.Sort(names)
	m := shapes.MatchNames(c, names)
	if len(m.Disk) == 0 {
		return fmt.Sprintf("none of %d names is a parameter of the model, such as %s; want those of one of the schemes %s", len(names), example(names), schemes())
	}
	found := map[string]string{} // on-disk name -> name as found
	for name, disk := range m.Disk {
		found[disk] = name
	}
	var missing, wrong []string
	left := 0
	for _, p := range shapes.Params(c) {
		name, ok := found[p.Name]
		switch {
		case !ok && p.Reach == shapes.Dead:
			left++
		case !ok:
			missing = append(missing, fmt.Sprintf("%s %v", m.Scheme.FromDisk(p.Name), p.Shape))
		case !slices.Equal(shape[name], p.Shape):
			text := fmt.Sprintf("%s has shape %v, want %v", name, shape[name], p.Shape)
			if turned := slices.Clone(p.Shape); len(turned) > 1 {
				if slices.Reverse(turned); slices.Equal(shape[name], turned) {
					text += " (transposed)"
				}
			}
			wrong = append(wrong, text)
		}
	}
	if left > 0 {
		k.Reason = fmt.Sprintf("without %d parameters that the logits do not need", left)
	}
	var out []string
	for _, l := range []struct {
		what string
		list []string
	}{{"missing", missing}, {"of another shape", wrong}, {"no parameter of the model", m.Unexpected}} {
		if len(l.list) > 0 {
			out = append(out, fmt.Sprintf("%d %s: %s", len(l.list), l.what, few(l.list)))
		}
	}
	return strings.Join(out, "; ")
}

func schemes() string {
	var names []string
	for _, s := range shapes.Schemes() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func example(names []string) string {
	if len(names) == 0 {
		return "(there are none)"
	}
	return quote(names[0])
}

// few lists the first of many.
func few(list []string) string {
	const most = 3
	short := make([]string, 0, most)
	for _, s := range list[:min(most, len(list))] {
		short = append(short, cut(s))
	}
	text := strings.Join(short, ", ")
	if over := len(list) - most; over > 0 {
		text += fmt.Sprintf(" and %d more", over)
	}
	return text
}

// cut shortens what an engine says.
func cut(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}

func quote(s string) string { return fmt.Sprintf("%q", cut(s)) }
