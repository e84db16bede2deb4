package dump

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/shapes"
)

// Reread lists other ways to read a node that has been found wrong: its axes in another order of the same lengths, its place in a fused array,
// the scale of attention scores.
func (b *Binding) Reread(node string) []conformance.Reading {
	p := b.plans[node]
	if p == nil || p.whole != p.shape[0] {
		return nil
	}
	var out []conformance.Reading
	try := func(words string, q *plan) {
		if t, err := q.read(); err == nil {
			out = append(out, conformance.Reading{Words: words, Value: t})
		}
	}
	rule := p.rule
	if len(p.terms) == 1 && len(p.terms[0]) == 1 && rule.Padded == "" && len(rule.Node) == 1 {
		own := p.terms[0][0]
		reversed := slices.Clone(own.values.shape)
		if slices.Equal(reversed, own.actual) {
			slices.Reverse(reversed)
		}
		order := map[bool]string{true: NE, false: RowMajor}[slices.Equal(own.values.shape, own.actual)]
		for _, axes := range readings(p.node, p.shape, reversed, p.heads, p.width) {
			l, err := newLayout(p.node, p.shape, axes, p.heads, p.width)
			if err != nil || slices.Equal(reversed, own.actual) {
				continue
			}
			q := *p
			q.terms, q.total = [][]part{{{l.whole(), own.values}}}, l.whole().lengths
			try(fmt.Sprintf(`"axes": %q, "axis_order": %q`, axes, order), &q)
		}
		for _, axes := range readings(p.node, p.shape, own.actual, p.heads, p.width) {
			l, err := newLayout(p.node, p.shape, axes, p.heads, p.width)
			if err != nil || slices.EqualFunc(l.array, own.array, slices.Equal[[]int]) && len(l.node) == len(own.node) {
				continue
			}
			q := *p
			q.terms, q.total = [][]part{{{l.whole(), own.values}}}, l.whole().lengths
			try(fmt.Sprintf(`"axes": %q`, axes), &q)
		}
	}
	if len(rule.Node) > 1 {
		permutations(slices.Clone(p.fusedNames), func(order []string) {
			if slices.Equal(order, p.fusedNames) {
				return
			}
			from := 0
			for _, name := range order {
				if name == node {
					break
				}
				from += p.fusedLens[slices.Index(p.fusedNames, name)]
			}
			q := *p
			q.terms = slices.Clone(p.terms)
			for k, term := range q.terms {
				term = slices.Clone(term)
				for m := range term {
					if term[m].from[p.fused] == from {
						return
					}
					term[m].from = slices.Clone(term[m].from)
					term[m].from[p.fused] = from
				}
				q.terms[k] = term
			}
			text, _ := json.Marshal(order)
			try(fmt.Sprintf(`"node": %s`, text), &q)
		})
	}
	if p.node.Kind == shapes.Scores && p.scale == 1 {
		q := *p
		q.scale = float32(1 / math.Sqrt(float64(p.width)))
		try(fmt.Sprintf(`"scale": %q`, rootScale), &q)
	}
	return out
}

// betterNaming says which naming fits more arrays than the manifest's, where one fits many more.
func (r *Reader) betterNaming(c shapes.Config) string {
	all := shapes.Nodes(c)
	count := func(naming string) int {
		found := map[string]bool{}
		rules := newRuleSet(Rules(naming, c))
		for _, n := range all {
			for _, a := range rules.about(n.Name) {
				for _, name := range rules.list[a.rule].tensors() {
					if name, ok := fill(name, a.i); ok {
						if name = strings.ReplaceAll(name, partMark, "0"); r.arrays[name] != nil {
							found[name] = true
						}
					}
				}
			}
		}
		return len(found)
	}
	own, best, most := count(r.Manifest.Naming), "", 0
	for _, naming := range Namings() {
		if n := count(naming); n > most {
			best, most = naming, n
		}
	}
	if most <= own {
		return ""
	}
	return fmt.Sprintf("naming %s has names for %d arrays of the dump, naming %s for %d: is it \"naming\": %q?", r.Manifest.Naming, own, best, most, best)
}
