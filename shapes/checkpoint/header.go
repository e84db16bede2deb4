package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxHeader is the format's own limit on the header, in bytes.
const maxHeader = 100_000_000

// metadataKey is the one key of a header that is no tensor.
const metadataKey = "__metadata__"

// Info is what a header says of one tensor.
type Info struct {
	Name  string // as in the file
	DType DType
	Shape []int
	File  string // base name of the file
	Begin int64  // first byte of the values, from the start of the file
	End   int64  // the byte after the last
}

// Count is the number of values.
func (t Info) Count() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// parseHeader reads a safetensors header, the JSON between the length and the values. data is the number of bytes that
// follow the header. The tensors come back in the order of their bytes, Begin and End counted from the end of the header.
func parseHeader(header []byte, data int64) (tensors []Info, metadata map[string]string, err error) {
	if err := checkJSON(header); err != nil {
		return nil, nil, err
	}
	dec := newDecoder(header)
	err = object(dec, func(key string) (err error) {
		if key == metadataKey {
			metadata, err = stringMap(dec)
		} else {
			var t Info
			t, err = parseInfo(dec, key)
			tensors = append(tensors, t)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", show(key), err)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := checkLayout(tensors, data); err != nil {
		return nil, nil, err
	}
	return tensors, metadata, nil
}

// parseInfo reads the object {"dtype", "shape", "data_offsets"} of one tensor; no other key, each once.
func parseInfo(dec *json.Decoder, name string) (Info, error) {
	t := Info{Name: name}
	found := 0
	err := object(dec, func(key string) error {
		found++
		switch key {
		case "dtype":
			s, err := str(dec)
			if err != nil {
				return err
			}
			if t.DType = DType(s); t.DType.Bits() == 0 {
				return fmt.Errorf("dtype %s is not one of the format", show(s))
			}
		case "shape":
			return array(dec, func() error {
				d, err := natural(dec, strconv.IntSize-1)
				t.Shape = append(t.Shape, int(d))
				return err
			})
		case "data_offsets":
			var offsets []int64
			err := array(dec, func() error {
				d, err := natural(dec, 63)
				offsets = append(offsets, d)
				return err
			})
			if err != nil {
				return err
			}
			if len(offsets) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, want 2", len(offsets))
			}
			t.Begin, t.End = offsets[0], offsets[1]
		default:
			return fmt.Errorf("key %s, want dtype, shape and data_offsets", show(key))
		}
		return nil
	})
	if err == nil && found != 3 {
		err = fmt.Errorf("%d keys, want dtype, shape and data_offsets", found)
	}
	return t, err
}

// checkLayout sorts tensors by their bytes and holds the format's rule: each begins where the one before ends, the first at 0,
// the last ends with the file, and each is as long as its dtype and shape say.
func checkLayout(tensors []Info, data int64) error {
	slices.SortFunc(tensors, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	var at int64
	for _, t := range tensors {
		if t.Begin != at || t.End < t.Begin {
			return fmt.Errorf("%s: data_offsets [%d %d], want a begin of %d, where the bytes before it end", show(t.Name), t.Begin, t.End, at)
		}
		size, err := sizeOf(t.DType, t.Shape)
		if err != nil {
			return fmt.Errorf("%s: %w", show(t.Name), err)
		}
		if t.End-t.Begin != size {
			return fmt.Errorf("%s: data_offsets [%d %d] are %d bytes, want %d for %s %v",
				show(t.Name), t.Begin, t.End, t.End-t.Begin, size, t.DType, t.Shape)
		}
		at = t.End
	}
	if at != data {
		return fmt.Errorf("the tensors take %d bytes, the file has %d after its header", at, data)
	}
	return nil
}

// sizeOf is the number of bytes of a tensor. The product is checked axis by axis, as the format's own reader does it:
// a zero after an overflow does not save the shape.
func sizeOf(d DType, shape []int) (int64, error) {
	values := uint64(1)
	for _, dim := range shape {
		hi, lo := bits.Mul64(values, uint64(dim))
		if dim < 0 || hi != 0 || lo > math.MaxInt {
			return 0, fmt.Errorf("shape %v has more values than can be counted", shape)
		}
		values = lo
	}
	hi, size := bits.Mul64(values, uint64(d.Bits()))
	if hi != 0 {
		return 0, fmt.Errorf("shape %v of %s has more bits than can be counted", shape, d)
	}
	if size%8 != 0 {
		return 0, fmt.Errorf("shape %v of %s is not a whole number of bytes", shape, d)
	}
	return int64(size / 8), nil
}

// checkJSON holds what every JSON text here must be: an object from its first byte, valid UTF-8, valid JSON,
// and without half a surrogate pair, which would turn two different names into the same one.
func checkJSON(text []byte) error {
	switch {
	case len(text) == 0 || text[0] != '{':
		return fmt.Errorf("the JSON begins with %q, want {", text[:min(1, len(text))])
	case !utf8.Valid(text):
		return errors.New("the JSON is not valid UTF-8")
	case !json.Valid(text):
		return fmt.Errorf("not valid JSON: %w", json.Unmarshal(text, new(json.RawMessage)))
	case loneSurrogate(text):
		return errors.New(`the JSON has half a surrogate pair in a \u escape`)
	}
	return nil
}

// loneSurrogate says whether valid JSON has a \u escape of one half of a surrogate pair without the other.
func loneSurrogate(text []byte) bool {
	unit := func(i int) uint64 { // the code unit of the escape at i, or one that is no surrogate
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return 0
		}
		u, _ := strconv.ParseUint(string(text[i+2:i+6]), 16, 16) // json.Valid has seen four digits
		return u
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if u := unit(i); u >= 0xdc00 && u < 0xe000 {
			return true
		} else if u >= 0xd800 && u < 0xdc00 {
			if low := unit(i + 6); low < 0xdc00 || low >= 0xe000 {
				return true
			}
			i += 6
		}
		i++ // the escaped character
	}
	return false
}

func newDecoder(text []byte) *json.Decoder {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec
}

// object reads the JSON object that comes next and calls field after each key, to read the value.
// A repeated key is an error: encoding/json would keep the last in silence.
func object(dec *json.Decoder, field func(key string) error) error {
	if err := delim(dec, '{'); err != nil {
		return err
	}
	return fields(dec, field)
}

// fields is object after its opening brace.
func fields(dec *json.Decoder, field func(key string) error) error {
	seen := map[string]bool{}
	for dec.More() {
		key, err := str(dec)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %s is there twice", show(key))
		}
		seen[key] = true
		if err := field(key); err != nil {
			return err
		}
	}
	return delim(dec, '}')
}

// array reads the JSON array that comes next and calls element for each value, to read it.
func array(dec *json.Decoder, element func() error) error {
	if err := delim(dec, '['); err != nil {
		return err
	}
	return elements(dec, element)
}

// elements is array after its opening bracket.
func elements(dec *json.Decoder, element func() error) error {
	for dec.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return delim(dec, ']')
}

// stringMap reads a JSON object whose values are strings.
func stringMap(dec *json.Decoder) (map[string]string, error) {
	m := map[string]string{}
	err := object(dec, func(key string) error {
		v, err := str(dec)
		if err != nil {
			return fmt.Errorf("%s: %w", show(key), err)
		}
		m[key] = v
		return nil
	})
	return m, err
}

// skip reads any JSON value and drops it; repeated keys are refused at every depth. checkJSON has bounded the depth.
func skip(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		return fields(dec, func(string) error { return skip(dec) })
	case json.Delim('['):
		return elements(dec, func() error { return skip(dec) })
	}
	return nil
}

func delim(dec *json.Decoder, want json.Delim) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok != want {
		return fmt.Errorf("%s, want %q", showToken(tok), want.String())
	}
	return nil
}

func str(dec *json.Decoder) (string, error) {
	tok, err := dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("%s, want a string", showToken(tok))
	}
	return s, nil
}

// natural reads a whole number from 0 that fits in so many bits, written without point or exponent.
func natural(dec *json.Decoder, size int) (int64, error) {
	tok, err := dec.Token()
	if err != nil {
		return 0, err
	}
	number, ok := tok.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%s, want a number", showToken(tok))
	}
	n, err := strconv.ParseUint(number.String(), 10, size)
	if err != nil {
		return 0, fmt.Errorf("%s, want a whole number from 0 of at most %d bits", show(number.String()), size)
	}
	return int64(n), nil
}

func showToken(tok json.Token) string {
	if s, ok := tok.(string); ok {
		return show(strconv.Quote(s))
	}
	return show(fmt.Sprint(tok))
}

// show is a name from outside as it may stand in an error: as it is if it is short and printable, else quoted and cut.
func show(name string) string {
	const longest = 200
	cut := len(name) > longest
	if cut {
		name = name[:longest]
	}
	printable := name != ""
	for _, r := range name {
		printable = printable && r != utf8.RuneError && strconv.IsPrint(r)
	}
	switch {
	case cut:
		return strconv.Quote(name) + "..."
	case !printable:
		return strconv.Quote(name)
	}
	return name
}
