package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"unicode/utf8"

	"github.com/llavaref/llavaref/shapes"
)

// Limits on what is read. A file claims nothing: whatever is allocated follows from the bytes that are there.
const (
	maxTokenizerFile = 64 << 20 // Llama-3's tokenizer.json has 9 MB, with pairs 17 MB
	maxConfigFile    = 4 << 20  // special tokens listed one by one make 50 KB
	maxTokens        = 1 << 20
	maxMerges        = 1 << 22
	maxAddedTokens   = 1 << 16
	maxAddedLength   = 1 << 12 // bytes of one added token
	maxAddedBytes    = 1 << 20 // of all of them
)

// readFile reads a file of a checkpoint's folder. An error wraps fs.ErrNotExist if there is no such file.
func readFile(dir fs.FS, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// object is a JSON object whose values are read one by one. Keys are exact, unlike those of struct fields.
type object map[string]json.RawMessage

// parseObject reads one JSON object and nothing after it. It refuses what Go's decoder would repair in silence: bytes that
// are no UTF-8 and escapes of half a surrogate pair, two of which could become one token.
func parseObject(data []byte) (object, error) {
	if err := shapes.NotFetched(data); err != nil {
		return nil, err
	}
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if at := halfSurrogate(data); at >= 0 {
		return nil, fmt.Errorf("half a surrogate pair at byte %d", at)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var o object
	if err := dec.Decode(&o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if o == nil {
		return nil, errors.New("null, want a JSON object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more data after the JSON object")
	}
	return o, nil
}

// readObject reads a JSON file of the folder; nil and no error if it is not there.
func readObject(dir fs.FS, name string) (object, error) {
	data, err := readFile(dir, name, maxConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", name, err)
	}
	return o, nil
}

// halfSurrogate is where a \uD800 to \uDFFF stands without its other half; -1 if nowhere. Outside of strings a backslash
// is a syntax error, which is the decoder's business.
func halfSurrogate(data []byte) int {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		high, ok := unicodeEscape(data[i:])
		if !ok {
			i++ // the escaped character, which may be a backslash
			continue
		}
		if high < 0xd800 || 0xdfff < high {
			continue
		}
		low, ok := unicodeEscape(data[min(i+6, len(data)):])
		if high > 0xdbff || !ok || low < 0xdc00 || 0xdfff < low {
			return i
		}
		i += 6
	}
	return -1
}

// unicodeEscape reads \uXXXX at the start of data.
func unicodeEscape(data []byte) (code int, ok bool) {
	if len(data) < 6 || data[1] != 'u' {
		return 0, false
	}
	for _, c := range data[2:6] {
		switch {
		case '0' <= c && c <= '9':
			code = code<<4 | int(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			code = code<<4 | int(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return code, true
}

// reader reads values of objects and keeps the first error. Its path, for errors, is that of the object at hand.
type reader struct {
	path string
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("tokenizer: "+r.path+": "+format, args...)
	}
}

// has says whether key is there and not null.
func (o object) has(key string) bool {
	raw, has := o[key]
	return has && string(raw) != "null"
}

// value decodes o[key] into dst; false if it is absent or null.
func (r *reader) value(o object, key string, dst any, want string) bool {
	if !o.has(key) {
		return false
	}
	if err := json.Unmarshal(o[key], dst); err != nil {
		r.fail("%s %s, want %s", key, shorten(o[key]), want)
		return false
	}
	return true
}

func (r *reader) str(o object, key, def string) string {
	v := def
	r.value(o, key, &v, "a string")
	return v
}

func (r *reader) boolean(o object, key string, def bool) bool {
	v := def
	r.value(o, key, &v, "true or false")
	return v
}

func (r *reader) integer(o object, key string, def, lo, hi int) int {
	v := def
	if r.value(o, key, &v, "an integer") && (v < lo || v > hi) {
		r.fail("%s %d, want %d to %d", key, v, lo, hi)
		return def
	}
	return v
}

func (r *reader) object(o object, key string) object {
	var v object
	r.value(o, key, &v, "an object")
	return v
}

func (r *reader) objects(o object, key string) []object {
	var v []object
	r.value(o, key, &v, "a list of objects")
	for i, e := range v {
		if e == nil {
			r.fail("%s[%d] is null, want an object", key, i)
		}
	}
	return v
}

// typeOf is the name of a component.
func (r *reader) typeOf(o object) string { return r.str(o, "type", "") }

func shorten(raw []byte) string {
	if len(raw) > 60 {
		return fmt.Sprintf("%q...", raw[:57])
	}
	return string(raw)
}
