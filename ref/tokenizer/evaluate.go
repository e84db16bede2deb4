package tokenizer

import (
	"errors"
	"fmt"
	"strings"

	controlstructures "github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/nodes"
)

// A template's values are string, int, bool, []any, map[string]any, *generator, and undefined, for what has none. Their operations are
// Python's, under the rules of Jinja 3.1. What is not known here (other filters, tests, functions, floating point numbers,
// None) is an error when the template comes to it, so that a branch that no conversation reaches does no harm.
type undefined struct{}

// generator is what selectattr and rejectattr give: it can be gone over once, is true, and has no length.
type generator struct{ items []any }

// take returns the next n items, which are gone then.
func (g *generator) take(n int) []any {
	taken := g.items[:n:n]
	g.items = g.items[n:]
	return taken
}

// evaluation is one rendering.
type evaluation struct {
	scopes []map[string]any // innermost last
	out    strings.Builder
	steps  int
}

var (
	errSteps  = fmt.Errorf("it takes more than %d steps", maxSteps)
	errOutput = fmt.Errorf("it writes more than %d bytes", maxRendered)
)

// render evaluates the template with these names.
func (t *chatTemplate) render(names map[string]any) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("tokenizer: chat template: %v", p)
		}
	}()
	e := &evaluation{scopes: []map[string]any{names}}
	if err := e.run(t.nodes); err != nil {
		return "", fmt.Errorf("tokenizer: chat template: %w", err)
	}
	return e.out.String(), nil
}

func (e *evaluation) step(n int) error {
	if e.steps += 1 + n; e.steps > maxSteps {
		return errSteps
	}
	return nil
}

func (e *evaluation) write(s string) error {
	if e.out.Len()+len(s) > maxRendered {
		return errOutput
	}
	e.out.WriteString(s)
	return e.step(len(s))
}

// run executes statements in order.
func (e *evaluation) run(list []nodes.Node) error {
	for _, n := range list {
		if err := e.statement(n); err != nil {
			return err
		}
	}
	return nil
}

// within executes statements in a scope of their own.
func (e *evaluation) within(names map[string]any, list []nodes.Node) error {
	e.scopes = append(e.scopes, names)
	defer func() { e.scopes = e.scopes[:len(e.scopes)-1] }()
	return e.run(list)
}

func (e *evaluation) statement(n nodes.Node) error {
	if err := e.step(0); err != nil {
		return err
	}
	switch n := n.(type) {
	case nil, *nodes.Comment:
		return nil
	case *nodes.Data:
		return e.write(n.Data.Val)
	case *nodes.Output:
		return e.output(n)
	case *nodes.ControlStructureBlock:
		switch s := n.ControlStructure.(type) {
		case *controlstructures.ForControlStructure:
			return e.forLoop(s)
		case *controlstructures.IfControlStructure:
			return e.ifElse(s)
		case *generationStatement:
			return e.within(map[string]any{}, s.body.Nodes)
		case *setStatement:
			v, err := e.eval(s.value)
			if err == nil {
				e.scopes[len(e.scopes)-1][s.name] = v
			}
			return err
		}
	}
	return fmt.Errorf("%T is not supported", n)
}

// output is {{ value }} or {{ value if condition else other }}.
func (e *evaluation) output(n *nodes.Output) error {
	chosen := n.Expression
	if n.Condition != nil {
		yes, err := e.truth(n.Condition)
		if err != nil {
			return err
		}
		if !yes {
			chosen = n.Alternative
		}
	}
	if chosen == nil {
		return nil
	}
	v, err := e.eval(chosen)
	if err != nil {
		return err
	}
	s, err := printed(v)
	if err != nil {
		return err
	}
	return e.write(s)
}

func (e *evaluation) ifElse(s *controlstructures.IfControlStructure) error {
	for i, condition := range s.Conditions {
		yes, err := e.truth(condition)
		if err != nil {
			return err
		}
		if yes {
			return e.run(s.Wrappers[i].Nodes)
		}
	}
	if len(s.Wrappers) > len(s.Conditions) {
		return e.run(s.Wrappers[len(s.Conditions)].Nodes)
	}
	return nil
}

func (e *evaluation) forLoop(s *controlstructures.ForControlStructure) error {
	if s.Value != "" || s.Recursive {
		return errors.New("for with two names, or recursive, is not supported")
	}
	over, err := e.eval(s.ObjectEvaluator)
	if err != nil {
		return err
	}
	items, err := e.items(over)
	if err != nil {
		return err
	}
	if s.IfCondition != nil {
		var kept []any
		for _, item := range items {
			e.scopes = append(e.scopes, map[string]any{s.Key: item})
			yes, err := e.truth(s.IfCondition)
			e.scopes = e.scopes[:len(e.scopes)-1]
			if err != nil {
				return err
			}
			if yes {
				kept = append(kept, item)
			}
		}
		items = kept
	}
	if len(items) == 0 && s.EmptyWrapper != nil {
		return e.run(s.EmptyWrapper.Nodes)
	}
	for i, item := range items {
		if err := e.step(32); err != nil { // what its two scopes cost
			return err
		}
		loop := map[string]any{"index": i + 1, "index0": i, "first": i == 0, "last": i == len(items)-1, "length": len(items),
			"revindex": len(items) - i, "revindex0": len(items) - i - 1}
		if err := e.within(map[string]any{s.Key: item, "loop": loop}, s.BodyWrapper.Nodes); err != nil {
			return err
		}
	}
	return nil
}

// items are what a loop or a filter goes over; what is undefined has none.
func (e *evaluation) items(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, e.step(len(v))
	case *generator:
		taken := v.take(len(v.items))
		return taken, e.step(len(taken))
	case undefined:
		return nil, nil
	case string:
		if err := e.step(len(v)); err != nil {
			return nil, err
		}
		var chars []any
		for _, r := range v {
			chars = append(chars, string(r))
		}
		return chars, nil
	}
	return nil, fmt.Errorf("going over %s is not supported", kind(v))
}

func (e *evaluation) truth(n nodes.Node) (bool, error) {
	v, err := e.eval(n)
	return err == nil && truth(v), err
}

func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case int:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case *generator:
		return true
	}
	return false // undefined
}

// printed is Python's str.
func printed(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int:
		return fmt.Sprint(v), nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case undefined:
		return "", nil
	}
	return "", fmt.Errorf("printing %s is not supported", kind(v))
}

// kind names a value's type for errors.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int:
		return "an int"
	case bool:
		return "a bool"
	case []any:
		return "a list"
	case map[string]any:
		return "a dict"
	case *generator:
		return "a generator"
	}
	return "what is undefined"
}
