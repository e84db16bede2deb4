package conformance

import (
	"regexp"

	"github.com/llavaref/llavaref/shapes"
)

var layerNumber = regexp.MustCompile(`\.layers\.[0-9]+`)

// assumptions lists the classes that nodes behave like without having been declared: those that fail by their own inputs and would pass in a
// coarser class. Nodes of equal layers are one pattern, most nodes of the model are all.
func assumptions(nodes []shapes.Node, results map[string]*Node) []Assumption {
	var out []Assumption
	all := Assumption{Nodes: "*", Exact: true} // if most nodes fail, and each would pass so, it is the engine's class and not theirs
	at := map[string]int{}
	judged := 0
	for _, n := range nodes {
		c, ok := results[n.Name].Check(Local)
		if ok && c.Result.compared() {
			judged++
		}
		if !ok || c.Result != Fail || c.Fits == "" {
			continue
		}
		all.Count++
		all.Class = coarser(all.Class, c.Fits)
		all.Exact = all.Exact && c.Holds != ""
		pattern := layerNumber.ReplaceAllString(n.Name, ".layers.{i}")
		key := pattern + " " + string(c.Fits)
		i, known := at[key]
		if !known {
			i = len(out)
			at[key] = i
			out = append(out, Assumption{Nodes: pattern, Class: c.Fits, Exact: true})
		}
		out[i].Count++
		out[i].Exact = out[i].Exact && c.Holds == c.Fits
	}
	if judged > 1 && float64(all.Count) >= broad*float64(judged) {
		return []Assumption{all}
	}
	return out
}
