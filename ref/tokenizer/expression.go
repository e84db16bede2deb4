package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/tokens"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

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
		return e.attribute(n)
	case *nodes.GetSlice:
		return e.slice(n)
	case *nodes.Call:
		return e.call(n)
	case *nodes.Negation:
		yes, err := e.truth(n.Term)
		return !yes, err
	case *nodes.UnaryExpression:
		return e.signed(n)
	case *nodes.BinaryExpression:
		return e.binary(n)
	case *nodes.FilteredExpression:
		return e.filtered(n)
	case *nodes.TestExpression:
		return e.tested(n)
	}
	return nil, fmt.Errorf("%T is not supported", n)
}

// signed is +x or -x.
func (e *evaluation) signed(n *nodes.UnaryExpression) (any, error) {
	v, err := e.eval(n.Term)
	i, ok := v.(int)
	if err == nil && !ok {
		err = fmt.Errorf("a sign before %s is not supported", kind(v))
	}
	if n.Negative {
		i = -i
	}
	return i, err
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
func (e *evaluation) attribute(n *nodes.GetAttribute) (any, error) {
	if n.Attribute == "" {
		return nil, errors.New("an index after a dot is not supported")
	}
	of, err := e.eval(n.Node)
	if err != nil {
		return nil, err
	}
	switch of := of.(type) {
	case map[string]any:
		if slices.Contains(dictMethods, n.Attribute) {
			return nil, fmt.Errorf("the method %s of a dict is not supported", n.Attribute)
		}
		if v, ok := of[n.Attribute]; ok {
			return v, nil
		}
	case undefined:
		return nil, fmt.Errorf("%s of what is undefined", n.Attribute)
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
		if b, ok := key.(bool); ok && b {
			key = 1
		} else if ok {
			key = 0
		}
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

// call is a method of a string, raise_exception(message), or brackets around an expression.
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
		if f.Name.Val == group && len(args) == 1 {
			return args[0], nil
		}
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

// errAmbiguous is for what gonja groups in another way than Jinja: several comparisons in a row, a test or "in" beside one, a
// test behind an operator, a filter behind a test.
var errAmbiguous = errors.New("a test, \"in\" or a comparison beside another one without brackets is not supported")

// compares says whether a node is ==, !=, <, <=, > or >=.
func compares(n nodes.Node) bool {
	b, ok := n.(*nodes.BinaryExpression)
	if !ok {
		return false
	}
	switch b.Operator.Token.Type {
	case tokens.Equals, tokens.Ne, tokens.GreaterThan, tokens.GreaterThanOrEqual, tokens.LowerThan, tokens.LowerThanOrEqual:
		return true
	}
	return false
}

// isTest says whether a node is a test, negated or not.
func isTest(n nodes.Node) bool {
	if not, ok := n.(*nodes.Negation); ok {
		return isTest(not.Term)
	}
	_, ok := n.(*nodes.TestExpression)
	return ok
}

func (e *evaluation) binary(n *nodes.BinaryExpression) (any, error) {
	op := n.Operator.Token
	if compares(n) && (compares(n.Left) || isTest(n.Left)) {
		return nil, errAmbiguous
	}
	left, err := e.eval(n.Left)
	if err != nil {
		return nil, err
	}
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
