package npy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const magic = "\x93NUMPY"

// checkSize holds the header against the file's size and against the limits.
func (h Header) checkSize(size int64) error {
	item := int64(itemSize[h.DType])
	n := int64(1) // of the axes that are not 0, so that a 0 hides no overflow
	empty := false
	for _, d := range h.Shape {
		if d == 0 {
			empty = true
			continue
		}
		if int64(d) > math.MaxInt64/item/n {
			return fmt.Errorf("shape %v: more values than can be counted, want at most %d bytes", h.Shape, int64(maxPayload))
		}
		n *= int64(d)
	}
	if empty {
		n = 0
	}
	if n > maxPayload/item {
		return fmt.Errorf("shape %v of %s: %d bytes, want at most %d", h.Shape, h.DType, n*item, int64(maxPayload))
	}
	if want := h.Offset + n*item; size != want {
		return fmt.Errorf("%d bytes, want %d (%d of header, shape %v of %s)", size, want, h.Offset, h.Shape, h.DType)
	}
	return nil
}

// parseHeader reads the text of a header into h: a Python dict of exactly three keys, in any order, written as a literal.
func (h *Header) parseHeader(text string) error {
	p := &literal{text: text}
	if err := p.token("{"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for !p.try("}") {
		key, err := p.str()
		if err != nil {
			return fmt.Errorf("key of the dict: %w", err)
		}
		if seen[key] {
			return fmt.Errorf("key %q twice, want it once", key)
		}
		seen[key] = true
		if err := p.token(":"); err != nil {
			return err
		}
		switch key {
		case "descr":
			err = h.parseDescr(p)
		case "fortran_order":
			h.Fortran, err = p.boolean()
		case "shape":
			h.Shape, err = p.tuple()
		default:
			err = fmt.Errorf("not known, want descr, fortran_order and shape")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		if !p.try(",") {
			if err := p.token("}"); err != nil {
				return err
			}
			break
		}
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return fmt.Errorf("no key %q, want descr, fortran_order and shape", key)
		}
	}
	if p.skip(); p.at < len(p.text) {
		return fmt.Errorf("%s after the dict, want spaces and a newline", p.rest())
	}
	return nil
}

// parseDescr reads the dtype and says of those that are refused what they are.
func (h *Header) parseDescr(p *literal) error {
	p.skip()
	if strings.HasPrefix(p.text[p.at:], "[") || strings.HasPrefix(p.text[p.at:], "(") {
		return fmt.Errorf("a structured dtype, want one of %s", dtypes)
	}
	s, err := p.str()
	if err != nil {
		return err
	}
	if len(s) == 3 && s[0] == '<' && s[2] == '1' {
		s = "|" + s[1:] // a byte has no byte order, though a header may state one
	}
	if _, known := itemSize[s]; known {
		h.DType = s
		return nil
	}
	what := "not supported"
	kind := strings.TrimLeft(s, "<>|=")
	switch {
	case strings.HasPrefix(kind, "O"):
		what = "an object array (pickle)"
	case strings.HasPrefix(s, ">"):
		what = "big-endian"
	case strings.HasPrefix(kind, "V"):
		what = "void, which is how numpy writes bfloat16 and structures"
	case strings.HasPrefix(kind, "U"), strings.HasPrefix(kind, "S"), strings.HasPrefix(kind, "a"):
		what = "strings"
	case strings.HasPrefix(kind, "c"):
		what = "complex"
	case itemSize["<"+kind] > 0:
		what = "without a byte order"
	}
	return fmt.Errorf("dtype %s is %s, want one of %s", quote(s), what, dtypes)
}

// literal is a cursor in the text of a Python literal.
type literal struct {
	text string
	at   int
}

// skip passes over white space.
func (p *literal) skip() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// rest is what follows, for errors.
func (p *literal) rest() string {
	if p.skip(); p.at == len(p.text) {
		return "the end"
	}
	return quote(p.text[p.at:])
}

// try takes a token if it comes next.
func (p *literal) try(token string) bool {
	p.skip()
	if strings.HasPrefix(p.text[p.at:], token) {
		p.at += len(token)
		return true
	}
	return false
}

func (p *literal) token(token string) error {
	if !p.try(token) {
		return fmt.Errorf("%s, want %q", p.rest(), token)
	}
	return nil
}

// str reads a string in either kind of quotes. numpy needs no escapes for what it writes here, so none are read.
func (p *literal) str() (string, error) {
	for _, mark := range []string{"'", `"`} {
		if !p.try(mark) {
			continue
		}
		n := strings.IndexAny(p.text[p.at:], mark+"\\\n")
		if n < 0 || p.text[p.at+n] != mark[0] {
			return "", fmt.Errorf("%s, want a string that ends", p.rest())
		}
		s := p.text[p.at : p.at+n]
		p.at += n + 1
		return s, nil
	}
	return "", fmt.Errorf("%s, want a string", p.rest())
}

func (p *literal) boolean() (bool, error) {
	if p.try("True") {
		return true, nil
	}
	if p.try("False") {
		return false, nil
	}
	return false, fmt.Errorf("%s, want True or False", p.rest())
}

// tuple reads a tuple of axis lengths: (), (3,), (3, 4), (3, 4,). (3) is a number to Python, and to numpy an error.
func (p *literal) tuple() ([]int, error) {
	if !p.try("(") {
		return nil, fmt.Errorf("%s, want a tuple", p.rest())
	}
	shape, comma := []int{}, true
	for !p.try(")") {
		if !comma {
			return nil, fmt.Errorf(`%s, want "," or ")"`, p.rest())
		}
		d, err := p.length()
		if err != nil {
			return nil, err
		}
		if shape = append(shape, d); len(shape) > maxAxes {
			return nil, fmt.Errorf("more than %d axes", maxAxes)
		}
		comma = p.try(",")
	}
	if len(shape) == 1 && !comma {
		return nil, fmt.Errorf("(%d) is a number, want a tuple: (%d,)", shape[0], shape[0])
	}
	return shape, nil
}

// length reads one axis length, Python 2's long ones (3L) included.
func (p *literal) length() (int, error) {
	p.skip()
	n := 0
	for p.at+n < len(p.text) && '0' <= p.text[p.at+n] && p.text[p.at+n] <= '9' {
		n++
	}
	digits := p.text[p.at : p.at+n]
	if n == 0 || n > 1 && digits[0] == '0' {
		return 0, fmt.Errorf("%s, want the length of an axis", p.rest())
	}
	d, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("axis length %s, want at most %d", quote(digits), math.MaxInt)
	}
	p.at += n
	p.try("L")
	return d, nil
}

// quote quotes what a file says, shortened.
func quote(s string) string {
	if len(s) > 40 {
		return strconv.Quote(s[:37]) + "..."
	}
	return strconv.Quote(s)
}

// text is the header's dict as numpy writes it, without the padding.
func (h Header) text() string {
	shape := "("
	for i, d := range h.Shape {
		if i > 0 {
			shape += ", "
		}
		shape += strconv.Itoa(d)
	}
	if len(h.Shape) == 1 {
		shape += ","
	}
	fortran := "False"
	if h.Fortran {
		fortran = "True"
	}
	return "{'descr': '" + h.DType + "', 'fortran_order': " + fortran + ", 'shape': " + shape + "), }"
}
