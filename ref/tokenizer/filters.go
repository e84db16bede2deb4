package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/nikolalohinski/gonja/v2/nodes"
)

// filtered is value | filter | filter.
func (e *evaluation) filtered(n *nodes.FilteredExpression) (any, error) {
	if isTest(n.Expression) {
		return nil, errAmbiguous
	}
	v, err := e.eval(n.Expression)
	for _, f := range n.Filters {
		if err != nil {
			return nil, err
		}
		v, err = e.filter(v, f)
	}
	return v, err
}

// tested is value is test, or value in list.
func (e *evaluation) tested(n *nodes.TestExpression) (any, error) {
	if _, operator := n.Expression.(*nodes.BinaryExpression); operator || isTest(n.Expression) {
		return nil, errAmbiguous
	}
	v, err := e.eval(n.Expression)
	if err != nil {
		return nil, err
	}
	args, err := e.list(n.Test.Args)
	if err != nil {
		return nil, err
	}
	return e.test(n.Test.Name, v, args.([]any))
}

func (e *evaluation) filter(v any, f *nodes.FilterCall) (any, error) {
	if len(f.Kwargs) > 0 {
		return nil, errors.New("an argument with a name is not supported")
	}
	list, err := e.list(f.Args)
	if err != nil {
		return nil, err
	}
	args := list.([]any)
	s, isString := v.(string)
	if _, is := v.(undefined); is {
		isString = true // these filters take its text, which is empty
	}
	switch {
	case f.Name == "selectattr" && len(args) == 3:
		return e.selectAttr(v, args, true)
	case f.Name == "rejectattr" && len(args) == 3:
		return e.selectAttr(v, args, false)
	case (f.Name == "trim" || f.Name == "upper" || f.Name == "lower") && len(args) == 0 && isString:
		return e.method(s, map[string]string{"trim": "strip", "upper": "upper", "lower": "lower"}[f.Name], nil)
	case (f.Name == "length" || f.Name == "count") && len(args) == 0 && isString: // 0 for undefined, too
		return utf8.RuneCountInString(s), e.step(len(s))
	case (f.Name == "default" || f.Name == "d") && len(args) == 1:
		if _, is := v.(undefined); is {
			return args[0], nil
		}
		return v, nil
	case len(args) == 0:
		if out, ok := listFilter(v, f.Name); ok {
			return out, nil
		}
	}
	return nil, fmt.Errorf("the filter %s of %s with %d arguments is not supported", f.Name, kind(v), len(args))
}

// listFilter is a filter of a list, or of a generator, without arguments.
func listFilter(v any, name string) (any, bool) {
	g, isGenerator := v.(*generator)
	l, isList := v.([]any)
	switch {
	case isGenerator && name == "list":
		return g.take(len(g.items)), true
	case isGenerator && name == "first" && len(g.items) > 0:
		return g.take(1)[0], true
	case isGenerator && name == "first", isList && len(l) == 0 && (name == "first" || name == "last"):
		return undefined{}, true
	case isList && (name == "length" || name == "count"):
		return len(l), true
	case isList && name == "list":
		return l, true
	case isList && name == "first":
		return l[0], true
	case isList && name == "last":
		return l[len(l)-1], true
	}
	return nil, false
}

// selectAttr keeps the items whose attribute holds for a test, or those for which it does not.
func (e *evaluation) selectAttr(v any, args []any, keep bool) (any, error) {
	items, err := e.items(v)
	if err != nil {
		return nil, err
	}
	name, ok := args[0].(string)
	check, ok2 := args[1].(string)
	if !ok || !ok2 || strings.Contains(name, ".") {
		return nil, errors.New("selectattr takes the name of an attribute, the name of a test and its argument")
	}
	kept := []any{}
	for _, item := range items {
		a := any(undefined{})
		if o, ok := item.(map[string]any); ok {
			if has, ok := o[name]; ok {
				a = has
			}
		}
		yes, err := e.test(check, a, args[2:])
		if err != nil {
			return nil, err
		}
		if yes == keep {
			kept = append(kept, item)
		}
	}
	return &generator{kept}, nil
}

// test is "value is name", or "value in list".
func (e *evaluation) test(name string, v any, args []any) (bool, error) {
	_, isUndefined := v.(undefined)
	_, isString := v.(string)
	_, isDict := v.(map[string]any)
	_, isList := v.([]any)
	_, isGenerator := v.(*generator)
	if len(args) == 0 {
		switch name {
		case "defined":
			return !isUndefined, nil
		case "undefined":
			return isUndefined, nil
		case "string":
			return isString, nil
		case "mapping":
			return isDict, nil
		case "sequence":
			return isString || isDict || isList || isUndefined, nil
		case "iterable":
			return isString || isDict || isList || isUndefined || isGenerator, nil
		}
	}
	if len(args) == 1 {
		switch name {
		case "equalto", "eq", "==":
			return e.equal(v, args[0])
		case "ne", "!=":
			same, err := e.equal(v, args[0])
			return !same, err
		case "in":
			return e.contains(args[0], v)
		}
	}
	return false, fmt.Errorf("the test %s with %d arguments is not supported", name, len(args))
}

// contains is "v in of".
func (e *evaluation) contains(of, v any) (bool, error) {
	switch of := of.(type) {
	case string:
		if s, ok := v.(string); ok {
			return strings.Contains(of, s), e.step(len(of) + len(s))
		}
	case map[string]any:
		if s, ok := v.(string); ok {
			_, has := of[s]
			return has, nil
		}
	case []any:
		for _, item := range of {
			if same, err := e.equal(item, v); same || err != nil {
				return same, err
			}
		}
		return false, nil
	}
	return false, fmt.Errorf("%s in %s is not supported", kind(v), kind(of))
}
