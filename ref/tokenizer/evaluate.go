package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	controlstructures "github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/tokens"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// A template's values are string, int, bool, []any, map[string]any, and undefined, for what has none. Their operations are
// Python's, under the rules of Jinja 3.1. What is not known here (other filters, tests, functions, floating point numbers,
// None) is an error when the template comes to it, so that a branch that no conversation reaches does no harm.
type undefined struct{}

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
		return e.write(data(n))
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

// data is text outside of tags, whose white space a neighbouring {%- or -%} takes away. What trim_blocks and lstrip_blocks
// take is gone already.
func data(n *nodes.Data) string {
	const blank = " \r\n\t"
	s := n.Data.Val
	if n.RemoveFirstLineReturn {
		s = strings.TrimPrefix(s, "\n")
	}
	if n.Trim.Left {
		s = strings.TrimLeft(s, blank)
	}
	if n.Trim.Right {
		s = strings.TrimRight(s, blank)
	}
	return s
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
	}
	return false // undefined
}

// eval returns the value of an expression.
func (e *evaluation) eval(n nodes.Node) (any, error) {
	if err := e.step(0); err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *nodes.String:
		return n.Val, e.step(len(n.Val))
	case *nodes.Integer:
		return n.Val, nil
	case *nodes.Bool:
		return n.Val, nil
	case *nodes.List:
		return e.list(n.Val)
	case *nodes.Name:
		return e.name(n.Name.Val)
	case *nodes.GetItem:
		return e.item(n)
	case *nodes.GetAttribute:
		if n.Attribute == "" {
			return nil, errors.New("an index after a dot is not supported")
		}
		of, err := e.eval(n.Node)
		if err != nil {
			return nil, err
		}
		return attribute(of, n.Attribute)
	case *nodes.GetSlice:
		return e.slice(n)
	case *nodes.Call:
		return e.call(n)
	case *nodes.Negation:
		yes, err := e.truth(n.Term)
		return !yes, err
	case *nodes.UnaryExpression:
		v, err := e.eval(n.Term)
		i, ok := v.(int)
		if err == nil && !ok {
			err = fmt.Errorf("a sign before %s is not supported", kind(v))
		}
		if n.Negative {
			i = -i
		}
		return i, err
	case *nodes.BinaryExpression:
		return e.binary(n)
	case *nodes.FilteredExpression:
		v, err := e.eval(n.Expression)
		for _, f := range n.Filters {
			if err != nil {
				return nil, err
			}
			v, err = e.filter(v, f)
		}
		return v, err
	case *nodes.TestExpression:
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
	return nil, fmt.Errorf("%T is not supported", n)
}

func (e *evaluation) list(exprs []nodes.Expression) (any, error) {
	out := []any{}
	for _, x := range exprs {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// name looks a variable up. none is Python's None in Jinja, and None is not among the values here.
func (e *evaluation) name(name string) (any, error) {
	for i := len(e.scopes) - 1; i >= 0; i-- {
		if v, ok := e.scopes[i][name]; ok {
			return v, nil
		}
	}
	switch name {
	case "none", "namespace", "range", "dict", "cycler", "joiner", "lipsum", "strftime_now", "tools", "documents":
		return nil, fmt.Errorf("%s is not supported", name)
	}
	return undefined{}, nil
}

// dictMethods are what a dict has besides its items; Jinja's dot finds them first.
var dictMethods = []string{"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"}

// attribute is of.name: the item of that name.
func attribute(of any, name string) (any, error) {
	switch of := of.(type) {
	case map[string]any:
		for _, m := range dictMethods {
			if m == name {
				return nil, fmt.Errorf("the method %s of a dict is not supported", name)
			}
		}
		if v, ok := of[name]; ok {
			return v, nil
		}
		return undefined{}, nil
	case undefined:
		return nil, fmt.Errorf("%s of what is undefined", name)
	}
	return undefined{}, nil
}

// item is of[key].
func (e *evaluation) item(n *nodes.GetItem) (any, error) {
	of, err := e.eval(n.Node)
	if err != nil {
		return nil, err
	}
	key, err := e.eval(n.Arg)
	if err != nil {
		return nil, err
	}
	switch of := of.(type) {
	case undefined:
		return nil, fmt.Errorf("%v of what is undefined", key)
	case map[string]any:
		if k, ok := key.(string); ok {
			if v, ok := of[k]; ok {
				return v, nil
			}
		}
	case []any:
		if i, ok := key.(int); ok {
			if i < 0 {
				i += len(of)
			}
			if 0 <= i && i < len(of) {
				return of[i], nil
			}
		}
	default:
		return nil, fmt.Errorf("an item of %s is not supported", kind(of))
	}
	return undefined{}, nil
}

// slice is of[start:end] of a list.
func (e *evaluation) slice(n *nodes.GetSlice) (any, error) {
	of, err := e.eval(n.Node)
	if err != nil {
		return nil, err
	}
	list, ok := of.([]any)
	if !ok || n.Step != nil {
		return nil, fmt.Errorf("a slice of %s, or one with a step, is not supported", kind(of))
	}
	bound := func(n nodes.Node, def int) (int, error) {
		if n == nil {
			return def, nil
		}
		v, err := e.eval(n)
		i, ok := v.(int)
		if err == nil && !ok {
			err = fmt.Errorf("the bound of a slice is %s, want an int", kind(v))
		}
		if i < 0 {
			i = max(i+len(list), 0)
		}
		return min(i, len(list)), err
	}
	start, err := bound(n.Start, 0)
	if err != nil {
		return nil, err
	}
	end, err := bound(n.End, len(list))
	if err != nil {
		return nil, err
	}
	return list[start:max(start, end)], nil
}

// call is a method of a string, or raise_exception(message).
func (e *evaluation) call(n *nodes.Call) (any, error) {
	v, err := e.list(n.Args)
	if err != nil {
		return nil, err
	}
	args := v.([]any)
	if len(n.Kwargs) > 0 {
		return nil, errors.New("an argument with a name is not supported")
	}
	switch f := n.Func.(type) {
	case *nodes.Name:
		if f.Name.Val == "raise_exception" && len(args) == 1 {
			return nil, fmt.Errorf("the template refuses the messages: %v", args[0])
		}
		return nil, fmt.Errorf("the function %s is not supported", f.Name.Val)
	case *nodes.GetAttribute:
		of, err := e.eval(f.Node)
		if err != nil {
			return nil, err
		}
		s, ok := of.(string)
		if !ok {
			return nil, fmt.Errorf("the method %s of %s is not supported", f.Attribute, kind(of))
		}
		return e.method(s, f.Attribute, args)
	}
	return nil, fmt.Errorf("calling %T is not supported", n.Func)
}

func (e *evaluation) method(s, name string, args []any) (any, error) {
	if err := e.step(len(s)); err != nil {
		return nil, err
	}
	if len(args) == 1 {
		with, ok := args[0].(string)
		switch {
		case ok && name == "startswith":
			return strings.HasPrefix(s, with), nil
		case ok && name == "endswith":
			return strings.HasSuffix(s, with), nil
		}
	}
	if len(args) == 0 {
		switch name {
		case "upper":
			return upperCase(s), nil
		case "lower":
			return lowerCase(s), nil
		case "strip":
			return strings.TrimFunc(s, isPythonSpace), nil
		case "lstrip":
			return strings.TrimLeftFunc(s, isPythonSpace), nil
		case "rstrip":
			return strings.TrimRightFunc(s, isPythonSpace), nil
		}
	}
	return nil, fmt.Errorf("the method %s of a string with %d arguments is not supported", name, len(args))
}

// Python's upper and lower use the full case mappings, by which one character can become two.
func upperCase(s string) string { return cases.Upper(language.Und).String(s) }
func lowerCase(s string) string { return cases.Lower(language.Und).String(s) }

// isPythonSpace is str.isspace of one character: White_Space and the four separators among the controls.
func isPythonSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

func (e *evaluation) binary(n *nodes.BinaryExpression) (any, error) {
	left, err := e.eval(n.Left)
	if err != nil {
		return nil, err
	}
	op := n.Operator.Token
	switch op.Type {
	case tokens.And:
		if !truth(left) {
			return left, nil
		}
		return e.eval(n.Right)
	case tokens.Or:
		if truth(left) {
			return left, nil
		}
		return e.eval(n.Right)
	}
	right, err := e.eval(n.Right)
	if err != nil {
		return nil, err
	}
	switch op.Type {
	case tokens.Tilde:
		a, err := printed(left)
		if err != nil {
			return nil, err
		}
		b, err := printed(right)
		if err != nil {
			return nil, err
		}
		return e.join(a, b)
	case tokens.Equals:
		return e.equal(left, right)
	case tokens.Ne:
		same, err := e.equal(left, right)
		return !same, err
	}
	switch a := left.(type) {
	case string:
		if b, ok := right.(string); ok && op.Type == tokens.Addition {
			return e.join(a, b)
		}
	case int:
		if b, ok := right.(int); ok {
			return arithmetic(op, a, b)
		}
	}
	return nil, fmt.Errorf("%s %s %s is not supported", kind(left), op.Val, kind(right))
}

// join is a + b, paid for before it is made.
func (e *evaluation) join(a, b string) (string, error) {
	if err := e.step(len(a) + len(b)); err != nil {
		return "", err
	}
	return a + b, nil
}

func arithmetic(op *tokens.Token, a, b int) (any, error) {
	switch op.Type {
	case tokens.Addition:
		return a + b, nil
	case tokens.Subtraction:
		return a - b, nil
	case tokens.Modulo:
		if b <= 0 {
			return nil, fmt.Errorf("modulo %d is not supported", b)
		}
		return ((a % b) + b) % b, nil
	case tokens.GreaterThan:
		return a > b, nil
	case tokens.GreaterThanOrEqual:
		return a >= b, nil
	case tokens.LowerThan:
		return a < b, nil
	case tokens.LowerThanOrEqual:
		return a <= b, nil
	}
	return nil, fmt.Errorf("%s between numbers is not supported", op.Val)
}

// equal is ==, of strings, numbers and booleans. True is 1 to Python; here they may not be compared.
func (e *evaluation) equal(a, b any) (bool, error) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y, e.step(min(len(x), len(y)))
	case int:
		if y, ok := b.(int); ok {
			return x == y, nil
		}
	case bool:
		if y, ok := b.(bool); ok {
			return x == y, nil
		}
	case undefined:
		_, ok := b.(undefined)
		return ok, nil
	}
	if kind(a) == kind(b) || kind(a) == "a bool" && kind(b) == "an int" || kind(a) == "an int" && kind(b) == "a bool" {
		return false, fmt.Errorf("comparing %s and %s is not supported", kind(a), kind(b))
	}
	return false, nil
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
		if l, ok := v.([]any); ok {
			switch f.Name {
			case "length", "count":
				return len(l), nil
			case "list":
				return l, nil
			case "first":
				if len(l) > 0 {
					return l[0], nil
				}
				return undefined{}, nil
			case "last":
				if len(l) > 0 {
					return l[len(l)-1], nil
				}
				return undefined{}, nil
			}
		}
	}
	return nil, fmt.Errorf("the filter %s of %s with %d arguments is not supported", f.Name, kind(v), len(args))
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
	return kept, nil
}

// test is "value is name", or "value in list".
func (e *evaluation) test(name string, v any, args []any) (bool, error) {
	_, isUndefined := v.(undefined)
	_, isString := v.(string)
	_, isDict := v.(map[string]any)
	_, isList := v.([]any)
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
			return isString || isDict || isList || isUndefined, nil
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
	}
	return "what is undefined"
}
