package conformance

import (
	"regexp"
	"strings"
	"sync"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// NodeClass is the class of the nodes that a pattern fits, where an engine declares another one for them than for the rest.
type NodeClass struct {
	Nodes string // an on-disk name; * stands for any characters, {i} for a number
	Class compare.Class
}

// ClassOf is the class that an engine declares for a node: that of the first pattern that fits, or the engine's own.
func ClassOf(info Info, node string) compare.Class {
	for _, c := range info.Classes {
		if MatchNode(c.Nodes, node) {
			return c.Class
		}
	}
	return info.Class
}

var patterns sync.Map // pattern -> *regexp.Regexp

// MatchNode says whether a node's name fits a pattern.
func MatchNode(pattern, node string) bool {
	re, ok := patterns.Load(pattern)
	if !ok {
		s := strings.NewReplacer(`\*`, `.*`, `\{i\}`, `[0-9]+`).Replace(regexp.QuoteMeta(pattern))
		re, _ = patterns.LoadOrStore(pattern, regexp.MustCompile(`^`+s+`$`))
	}
	return re.(*regexp.Regexp).MatchString(node)
}

// classes gives each node its own class and the coarsest one on any way to it, itself included: what has been rounded to few digits upstream
// cannot be expected to agree with the truth in more of them.
func classes(nodes []shapes.Node, of func(node string) compare.Class) (own, met map[string]compare.Class) {
	own, met = map[string]compare.Class{}, map[string]compare.Class{}
	for _, n := range nodes { // inputs stand before their readers
		own[n.Name] = of(n.Name)
		met[n.Name] = own[n.Name]
		for _, in := range n.Inputs {
			if c, ok := met[in]; ok {
				met[n.Name] = coarser(met[n.Name], c)
			}
		}
	}
	return own, met
}
