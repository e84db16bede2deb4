package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// decodeStrict decodes one JSON value into dst and refuses what encoding/json lets pass: unknown, missing, repeated and
// differently spelled keys, nulls, short arrays, more data behind the value. A field that may be absent has the option omitempty.
// The depth is that of dst's type.
func decodeStrict(data []byte, dst any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, reflect.TypeOf(dst).Elem(), ""); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more data after the JSON object")
	}
	if err := json.Unmarshal(data, dst); err != nil {
		if t, ok := err.(*json.UnmarshalTypeError); ok {
			return fmt.Errorf("%s: %s, want %s", t.Field, t.Value, t.Type)
		}
		return err
	}
	return nil
}

// walk reads one value and holds its structure against a type.
func walk(dec *json.Decoder, t reflect.Type, path string) error {
	token, err := dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return at(path, err)
	}
	switch token {
	case nil:
		return at(path, fmt.Errorf("null, want %s", t))
	case json.Delim('{'):
		if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			return at(path, fmt.Errorf("an object, want %s", t))
		}
		if err := walkObject(dec, t, path); err != nil {
			return err
		}
	case json.Delim('['):
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return at(path, fmt.Errorf("an array, want %s", t))
		}
		n := 0
		for ; dec.More(); n++ {
			if err := walk(dec, t.Elem(), fmt.Sprintf("%s[%d]", path, n)); err != nil {
				return err
			}
		}
		if t.Kind() == reflect.Array && n != t.Len() {
			return at(path, fmt.Errorf("%d elements, want %d", n, t.Len()))
		}
	default: // whether a string or a number fits its field is json.Unmarshal's to say
		return nil
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return at(path, err)
	}
	return nil
}

// walkObject reads the keys and values of an object, up to its closing brace.
func walkObject(dec *json.Decoder, t reflect.Type, path string) error {
	var fields map[string]reflect.Type
	var known, required []string
	if t.Kind() == reflect.Struct {
		fields = map[string]reflect.Type{}
		for i := range t.NumField() {
			name, option, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			fields[name] = t.Field(i).Type
			known = append(known, name)
			if option != "omitempty" {
				required = append(required, name)
			}
		}
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return at(path, err)
		}
		key, _ := token.(string) // nothing else stands there, or Token gives an error
		if seen[key] {
			return at(path, fmt.Errorf("key %s twice", quote(key)))
		}
		seen[key] = true
		of := t
		if fields == nil {
			of = t.Elem()
		} else if of = fields[key]; of == nil {
			slices.Sort(known)
			return at(path, fmt.Errorf("key %s is not known, want %s", quote(key), strings.Join(known, ", ")))
		}
		below := short(key)
		if path != "" {
			below = path + "." + short(key)
		}
		if err := walk(dec, of, below); err != nil {
			return err
		}
	}
	for _, name := range required {
		if !seen[name] {
			return at(path, fmt.Errorf("no key %q", name))
		}
	}
	return nil
}

// at puts a JSON path in front of an error.
func at(path string, err error) error {
	if path == "" {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
