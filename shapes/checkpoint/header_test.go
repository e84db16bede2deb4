package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	peer "github.com/nlpodyssey/safetensors"
)

// fileOf is a safetensors file of this header and so many bytes of values.
func fileOf(header string, data int) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), make([]byte, data)...)
}

// entry is one tensor of a header.
func entry(name, dtype, shape string, begin, end int) string {
	return fmt.Sprintf(`"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, begin, end)
}

// jsonObject is a header of these entries.
func jsonObject(entries ...string) string { return "{" + strings.Join(entries, ",") + "}" }

func open(file []byte) (*File, error) {
	return newFile("f.safetensors", bytes.NewReader(file), int64(len(file)))
}

func TestHeaderIsRead(t *testing.T) {
	header := jsonObject(
		`"__metadata__":{"format":"pt","":"é"}`,
		entry("late", "BF16", "[2, 3]", 4, 16),
		entry("scalar", "F32", "[]", 0, 4),
		entry("none", "F64", "[0,9223372036854775807]", 16, 16),
		entry("packed", "F6_E2M3", "[4]", 16, 19),
		entry(`\u00e9\ud83d\ude00\\ud800`, "BOOL", "[1]", 19, 20),
	) + " \n\t\r "
	f, err := open(fileOf(header, 20))
	if err != nil {
		t.Fatal(err)
	}
	start := int64(8 + len(header))
	want := []Info{
		{"scalar", F32, nil, "f.safetensors", start, start + 4},
		{"late", BF16, []int{2, 3}, "f.safetensors", start + 4, start + 16},
		{"none", "F64", []int{0, math.MaxInt64}, "f.safetensors", start + 16, start + 16},
		{"packed", "F6_E2M3", []int{4}, "f.safetensors", start + 16, start + 19},
		{`é😀\ud800`, "BOOL", []int{1}, "f.safetensors", start + 19, start + 20},
	}
	if diff := cmp.Diff(want, f.Tensors()); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt", "": "é"}, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestAFileOfNoTensorsIsRead(t *testing.T) {
	f, err := open(fileOf("{}", 0))
	if err != nil || len(f.Tensors()) != 0 || f.Metadata() != nil {
		t.Errorf("%v, %v", f, err)
	}
}

// malformed holds one file for each way to break a rule.
var malformed = []struct {
	name string
	file []byte
	want string // the error after "checkpoint: f.safetensors: "
}{
	{"empty file", nil, "0 bytes, want at least the 8 of the header's length"},
	{"shorter than the length", []byte("1234567"), "7 bytes, want at least the 8 of the header's length"},
	{"header longer than the limit", binary.LittleEndian.AppendUint64(nil, maxHeader+1), "a header of 100000001 bytes, want at most 100000000"},
	{"header of 2^64-1 bytes", binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "a header of 18446744073709551615 bytes, want at most 100000000"},
	{"header longer than the file", append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...), "a header of 3 bytes in a file of 10"},
	{"empty header", fileOf("", 0), `the JSON begins with "", want {`},
	{"space before the brace", fileOf(" {}", 0), `the JSON begins with " ", want {`},
	{"array", fileOf("[]", 0), `the JSON begins with "[", want {`},
	{"byte order mark", fileOf("\ufeff{}", 0), `the JSON begins with "\xef", want {`},
	{"not UTF-8", fileOf("{\"\xff\":"+entry("a", "F32", "[1]", 0, 4)[4:]+"}", 4), "the JSON is not valid UTF-8"},
	{"not JSON", fileOf("{,}", 0), "not valid JSON: invalid character ',' looking for beginning of object key string"},
	{"cut JSON", fileOf("{", 0), "not valid JSON: unexpected end of JSON input"},
	{"two values", fileOf("{}{}", 0), "not valid JSON: invalid character '{' after top-level value"},
	{"zero bytes as padding", fileOf("{}\x00", 0), "not valid JSON: invalid character '\\x00' after top-level value"},
	{"half a surrogate pair", fileOf(jsonObject(entry(`\ud800`, "F32", "[1]", 0, 4)), 4), `the JSON has half a surrogate pair in a \u escape`},
	{"the other half", fileOf(jsonObject(entry(`\udc00`, "F32", "[1]", 0, 4)), 4), `the JSON has half a surrogate pair in a \u escape`},
	{"two first halves", fileOf(jsonObject(entry(`\ud800\ud800`, "F32", "[1]", 0, 4)), 4), `the JSON has half a surrogate pair in a \u escape`},
	{"the same name twice", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 4, 8)), 8), "key a is there twice"},
	{"the same name twice, once escaped", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry(`\u0061`, "F32", "[1]", 4, 8)), 8), "key a is there twice"},
	{"metadata twice", fileOf(`{"__metadata__":{},"__metadata__":{}}`, 0), "key __metadata__ is there twice"},
	{"the same metadata key twice", fileOf(`{"__metadata__":{"a":"1","a":"2"}}`, 0), "__metadata__: key a is there twice"},
	{"metadata is a string", fileOf(`{"__metadata__":"pt"}`, 0), `__metadata__: "pt", want "{"`},
	{"metadata is null", fileOf(`{"__metadata__":null}`, 0), `__metadata__: <nil>, want "{"`},
	{"metadata holds a number", fileOf(`{"__metadata__":{"a":1}}`, 0), "__metadata__: a: 1, want a string"},
	{"tensor is a list", fileOf(`{"a":[]}`, 0), `a: [, want "{"`},
	{"dtype twice", fileOf(`{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "a: key dtype is there twice"},
	{"no dtype", fileOf(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4), "a: 2 keys, want dtype, shape and data_offsets"},
	{"no shape", fileOf(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "a: 2 keys, want dtype, shape and data_offsets"},
	{"no data_offsets", fileOf(`{"a":{"dtype":"F32","shape":[0]}}`, 0), "a: 2 keys, want dtype, shape and data_offsets"},
	{"one key too many", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}}`, 4), "a: key strides, want dtype, shape and data_offsets"},
	{"unknown dtype", fileOf(jsonObject(entry("a", "F31", "[1]", 0, 4)), 4), "a: dtype F31 is not one of the format"},
	{"dtype in small letters", fileOf(jsonObject(entry("a", "f32", "[1]", 0, 4)), 4), "a: dtype f32 is not one of the format"},
	{"dtype is a number", fileOf(`{"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}`, 4), "a: 32, want a string"},
	{"shape is a number", fileOf(jsonObject(entry("a", "F32", "1", 0, 4)), 4), `a: 1, want "["`},
	{"shape holds a string", fileOf(jsonObject(entry("a", "F32", `["1"]`, 0, 4)), 4), `a: "1", want a number`},
	{"negative axis", fileOf(jsonObject(entry("a", "F32", "[-1,-1]", 0, 4)), 4), "a: -1, want a whole number from 0 of at most 63 bits"},
	{"axis with a point", fileOf(jsonObject(entry("a", "F32", "[1.0]", 0, 4)), 4), "a: 1.0, want a whole number from 0 of at most 63 bits"},
	{"axis with an exponent", fileOf(jsonObject(entry("a", "F32", "[1e0]", 0, 4)), 4), "a: 1e0, want a whole number from 0 of at most 63 bits"},
	{"axis of 2^63", fileOf(jsonObject(entry("a", "F32", "[0,9223372036854775808]", 0, 0)), 0), "a: 9223372036854775808, want a whole number from 0 of at most 63 bits"},
	{"product beyond 64 bits, come round to 4", fileOf(jsonObject(entry("a", "U8", "[4294967297,4294967297,4294967297,4]", 0, 4)), 4), "a: shape [4294967297 4294967297 4294967297 4] has more values than can be counted"},
	{"product of 2^64, come round to 0", fileOf(jsonObject(entry("a", "U8", "[4294967296,4294967296]", 0, 0)), 0), "a: shape [4294967296 4294967296] has more values than can be counted"},
	{"zero after an overflow", fileOf(jsonObject(entry("a", "F32", "[4611686018427387904,4,0]", 0, 0)), 0), "a: shape [4611686018427387904 4 0] has more values than can be counted"},
	{"zero after 2^63 values", fileOf(jsonObject(entry("a", "U8", "[4294967296,2147483648,0]", 0, 0)), 0), "a: shape [4294967296 2147483648 0] has more values than can be counted"},
	{"bits beyond 64 bits, come round to 0", fileOf(jsonObject(entry("a", "F32", "[4611686018427387904]", 0, 0)), 0), "a: shape [4611686018427387904] of F32 has more bits than can be counted"},
	{"half a byte", fileOf(jsonObject(entry("a", "F4", "[3]", 0, 1)), 1), "a: shape [3] of F4 is not a whole number of bytes"},
	{"one offset", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, 4), "a: data_offsets has 1 numbers, want 2"},
	{"three offsets", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4), "a: data_offsets has 3 numbers, want 2"},
	{"negative offset", fileOf(jsonObject(entry("a", "F32", "[1]", -4, 0)), 4), "a: -4, want a whole number from 0 of at most 63 bits"},
	{"offsets the wrong way round", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 4, 0)), 4), "b: data_offsets [4 0], want a begin of 4, where the bytes before it end"},
	{"more bytes than the shape", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 8)), 8), "a: data_offsets [0 8] are 8 bytes, want 4 for F32 [1]"},
	{"fewer bytes than the shape", fileOf(jsonObject(entry("a", "F32", "[2]", 0, 4)), 4), "a: data_offsets [0 4] are 4 bytes, want 8 for F32 [2]"},
	{"first tensor not at 0", fileOf(jsonObject(entry("a", "F32", "[1]", 4, 8)), 8), "a: data_offsets [4 8], want a begin of 0, where the bytes before it end"},
	{"hole between tensors", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 8, 12)), 12), "b: data_offsets [8 12], want a begin of 4, where the bytes before it end"},
	{"two tensors share bytes", fileOf(jsonObject(entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[1]", 4, 8)), 8), "b: data_offsets [4 8], want a begin of 8, where the bytes before it end"},
	{"two tensors are the same bytes", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 0, 4)), 4), "b: data_offsets [0 4], want a begin of 4, where the bytes before it end"},
	{"bytes after the last tensor", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4)), 5), "the tensors take 4 bytes, the file has 5 after its header"},
	{"cut in the last tensor", fileOf(jsonObject(entry("a", "F32", "[1]", 0, 4)), 3), "the tensors take 4 bytes, the file has 3 after its header"},
	{"bytes without tensors", fileOf("{}", 1), "the tensors take 0 bytes, the file has 1 after its header"},
	{"a name that would write on the terminal", fileOf(`{"\u001b[2J`+strings.Repeat("x", 300)+`":1}`, 0), `"\x1b[2J` + strings.Repeat("x", 196) + `"...: 1, want "{"`},
}

func TestMalformedFilesAreRefused(t *testing.T) {
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			want := "checkpoint: f.safetensors: " + c.want
			if _, err := open(c.file); err == nil || err.Error() != want {
				t.Errorf("error\n%v, want\n%s", err, want)
			}
		})
	}
}

func TestAClaimCostsNothing(t *testing.T) {
	deep := strings.Repeat("[", 1<<20)
	for name, file := range map[string][]byte{
		"header of 100 MB in a file of 10 bytes": append(binary.LittleEndian.AppendUint64(nil, maxHeader), "{}"...),
		"shape of 2^62 values":                   fileOf(jsonObject(entry("a", "I8", "[2147483648,2147483648]", 0, 4)), 4),
		"offsets of 2^62 bytes":                  fileOf(jsonObject(entry("a", "I8", "[4611686018427387904]", 0, 1<<62)), 4),
		"an axis of 2^62 times 0":                fileOf(jsonObject(entry("a", "I8", "[0,4611686018427387904]", 0, 0)), 0),
	} {
		t.Run(name, func(t *testing.T) {
			if got := allocated(func() { open(file) }); got > 64<<10 {
				t.Errorf("%d bytes allocated", got)
			}
		})
	}
	t.Run("a million brackets", func(t *testing.T) {
		file := fileOf(`{"a":`+deep+`}`, 0)
		if got := allocated(func() { open(file) }); got > 8*uint64(len(file)) {
			t.Errorf("%d bytes allocated", got)
		}
	})
}

// allocated is how many bytes f allocates, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestOpenFileRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := OpenFile(dir); err == nil || !strings.HasSuffix(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
}

// stricter are our refusals of files that the peer takes: where the format's text forbids what its readers let pass, and
// where a shape with a zero in it would need more than 63 bits to count.
var stricter = []string{
	"is there twice",                      // encoding/json keeps the last
	"the JSON begins with",                // white space before the brace
	"not valid UTF-8",                     // encoding/json puts U+FFFD there
	"half a surrogate pair",               // and there
	`__metadata__: <nil>, want "{"`,       // a null map is an empty map to it
	"of at most 63 bits",                  // its axes have 64
	"has more values than can be counted", // and so have its counts
}

// FuzzFile holds the reader against an independent one, nlpodyssey/safetensors, and against its own promises.
func FuzzFile(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.file)
	}
	f.Add(fileOf("{}", 0))
	f.Add(fileOf(jsonObject(`"__metadata__":{"format":"pt"}`, entry("b", "F16", "[2,3]", 4, 16), entry("a", "F32", "[]", 0, 4), entry("c", "BF16", "[0]", 16, 16)), 16))
	f.Add(fileOf(jsonObject(entry("a", "F4", "[2]", 0, 1), entry("b", "F8_E8M0", "[1]", 1, 2), entry("c", "C64", "[1]", 2, 10)), 10))
	f.Fuzz(func(t *testing.T, file []byte) {
		ours, err := open(file)
		theirs, peerErr := peer.Deserialize(file)
		if err != nil {
			if peerErr == nil && !containsAny(err.Error(), stricter) {
				t.Fatalf("the peer takes it, we refuse it: %v", err)
			}
			return
		}
		onlyOurs := false // a dtype that the peer does not know
		at, names := int64(len(file)), map[string]bool{}
		if n := len(ours.tensors); n > 0 {
			at = ours.tensors[0].Begin
		}
		for _, tensor := range ours.tensors {
			if tensor.Begin != at || tensor.End < tensor.Begin || tensor.End > int64(len(file)) || names[tensor.Name] {
				t.Fatalf("%+v after byte %d of %d", tensor, at, len(file))
			}
			at, names[tensor.Name] = tensor.End, true
			if _, err := peer.ParseDType(string(tensor.DType)); err != nil {
				onlyOurs = true
			}
			if tensor.DType.Readable() {
				if err := ours.Read(tensor.Name, 0, make([]float32, tensor.Count())); err != nil {
					t.Fatal(err)
				}
			}
		}
		if at != int64(len(file)) {
			t.Fatalf("the tensors end at byte %d of %d", at, len(file))
		}
		if onlyOurs {
			return
		}
		if peerErr != nil {
			t.Fatalf("we take it, the peer refuses it: %v", peerErr)
		}
		if theirs.Len() != len(ours.tensors) {
			t.Fatalf("%d tensors, the peer has %d", len(ours.tensors), theirs.Len())
		}
		for _, tensor := range ours.tensors {
			view, ok := theirs.Tensor(tensor.Name)
			raw := make([]byte, tensor.End-tensor.Begin)
			if err := ours.ReadRaw(tensor.Name, 0, raw); err != nil {
				t.Fatal(err)
			}
			if !ok || view.DType().String() != string(tensor.DType) || fmt.Sprint(view.Shape()) != fmt.Sprint(tensor.Shape) || !bytes.Equal(view.Data(), raw) {
				t.Fatalf("%+v, the peer has %v %v %v", tensor, ok, view.DType(), view.Shape())
			}
		}
	})
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// FuzzHeader reaches deeper than FuzzFile: the length before the header is always right.
func FuzzHeader(f *testing.F) {
	for _, c := range malformed {
		if len(c.file) >= 8 {
			n := min(int(binary.LittleEndian.Uint64(c.file)), len(c.file)-8)
			if n >= 0 {
				f.Add(c.file[8:8+n], uint16(len(c.file)-8-n))
			}
		}
	}
	f.Fuzz(func(t *testing.T, header []byte, data uint16) {
		tensors, _, err := parseHeader(header, int64(data))
		_, peerErr := peer.Deserialize(fileOf(string(header), int(data)))
		if err != nil {
			if peerErr == nil && !containsAny(err.Error(), stricter) {
				t.Fatalf("the peer takes it, we refuse it: %v", err)
			}
			return
		}
		// What was read and is written again reads the same.
		again, err := formatHeader(tensors)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := parseHeader(again[8:], int64(data))
		if err != nil {
			t.Fatalf("%v in %s", err, again)
		}
		if diff := cmp.Diff(tensors, got); diff != "" {
			t.Fatalf("after writing and reading (-want +got):\n%s", diff)
		}
	})
}
