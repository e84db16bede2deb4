package tokenizer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"unicode/utf8"
)

// vectors is where the library's answers stand; README.md there says how they were made.
const vectors = "../../golden/vectors/tokenizer"

// read keeps what readLines has read.
var read sync.Map

// readLines reads a compressed file of one JSON value a line.
func readLines[T any](t testing.TB, name string) []T {
	t.Helper()
	if have, ok := read.Load(name); ok {
		return have.([]T)
	}
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var out []T
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s: line %d: %v", name, len(out)+1, err)
		}
		out = append(out, v)
	}
	if lines.Err() != nil || len(out) == 0 {
		t.Fatalf("%s: %d lines, %v", name, len(out), lines.Err())
	}
	read.Store(name, out)
	return out
}

// small is one of the committed tokenizers.
func small(t testing.TB, family string) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, family, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func as(t testing.TB, tok *Tokenizer, v Variant) *Tokenizer {
	t.Helper()
	out, err := tok.As(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type stringVector struct {
	Text string `json:"t"`
	L3   []int  `json:"l3"`
	L2   []int  `json:"l2"`
	MS   []int  `json:"ms"`
	ML   []int  `json:"ml"`
	Cuts []int  `json:"c"` // characters of each piece that Llama-3's pattern cuts
}

// want is the library's ids by the variant's name.
func (v stringVector) want(of Variant) []int {
	switch {
	case of == ByteLevel:
		return v.L3
	case of == Metaspace && v.MS != nil:
		return v.MS
	case of == MetaspaceLegacy && v.ML != nil:
		return v.ML
	}
	return v.L2
}

// variants are the tokenizers under test by the variant of the ids.
func variants(t testing.TB) map[Variant]*Tokenizer {
	two := small(t, "llama2")
	return map[Variant]*Tokenizer{
		ByteLevel: small(t, "llama3"), Prepend: two, Metaspace: as(t, two, Metaspace), MetaspaceLegacy: as(t, two, MetaspaceLegacy),
	}
}

func TestIDsAreThoseOfTheLibrary(t *testing.T) {
	lines := readLines[stringVector](t, "strings.jsonl.gz")
	for variant, tok := range variants(t) {
		t.Run(string(variant), func(t *testing.T) {
			if got := tok.Variant(); got != variant {
				t.Errorf("Variant() = %q", got)
			}
			wrong := 0
			for _, line := range lines {
				want := line.want(variant)
				if got := tok.Encode(line.Text, true); !slices.Equal(got, want) {
					if wrong++; wrong <= 3 {
						t.Errorf("Encode(%q)\n got %v\nwant %v", line.Text, got, want)
					}
				}
				if got := tok.Encode(line.Text, false); !slices.Equal(got, want[1:]) {
					t.Fatalf("Encode(%q, false) = %v, want %v", line.Text, got, want[1:])
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d differ", wrong, len(lines))
			}
		})
	}
}

// A vocabulary that was trained on pieces rarely has a token that reaches over a cut, so that ids do not show where the cuts
// are: the pieces do.
func TestCutsAreThoseOfTheLibrary(t *testing.T) {
	for _, line := range readLines[stringVector](t, "strings.jsonl.gz") {
		if got := lengths(splitLlama3(line.Text)); !slices.Equal(got, line.Cuts) {
			t.Errorf("%q: pieces of %v characters, want %v", line.Text, got, line.Cuts)
		}
	}
}

func lengths(pieces []string) []int {
	var out []int
	for _, p := range pieces {
		out = append(out, utf8.RuneCountInString(p))
	}
	return out
}

type decodeVector struct {
	Family  string  `json:"f"`
	IDs     []int   `json:"i"`
	Plain   string  `json:"p"`
	Skipped *string `json:"s"`
}

func (v decodeVector) skipped() string {
	if v.Skipped != nil {
		return *v.Skipped
	}
	return v.Plain
}

func TestTextIsThatOfTheLibrary(t *testing.T) {
	toks := map[string]*Tokenizer{"llama3": small(t, "llama3"), "llama2": small(t, "llama2")}
	for _, line := range readLines[decodeVector](t, "decode.jsonl.gz") {
		for skip, want := range map[bool]string{false: line.Plain, true: line.skipped()} {
			tok := toks[line.Family]
			if got := tok.Decode(line.IDs, skip); got != want {
				t.Errorf("%s: Decode(%v, %v)\n got %q\nwant %q", line.Family, line.IDs, skip, got, want)
			}
			if got := streamed(tok, line.IDs, skip); got != want {
				t.Errorf("%s: stream of %v, %v\n got %q\nwant %q", line.Family, line.IDs, skip, got, want)
			}
		}
	}
}

// streamed puts together what a stream returns.
func streamed(t *Tokenizer, ids []int, skip bool) string {
	s := t.NewStream(skip)
	var text string
	for _, id := range ids {
		text += s.Push(id)
	}
	return text + s.Flush()
}

type componentVector struct {
	Name      string              `json:"name"`
	Tokenizer json.RawMessage     `json:"tokenizer"`
	Texts     [][]json.RawMessage `json:"texts"`
	IDs       [][]json.RawMessage `json:"ids"`
}

func TestComponentsAreThoseOfTheLibrary(t *testing.T) {
	for _, c := range readLines[componentVector](t, "components.json.gz") {
		t.Run(c.Name, func(t *testing.T) {
			tok, err := Parse(c.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.Texts {
				var text string
				var with, without []int
				scan(t, line, &text, &with, &without)
				if got := tok.Encode(text, true); !slices.Equal(got, with) {
					t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, with)
				}
				if got := tok.Encode(text, false); !slices.Equal(got, without) {
					t.Errorf("Encode(%q, false)\n got %v\nwant %v", text, got, without)
				}
			}
			for _, line := range c.IDs {
				var ids []int
				var plain, skipped string
				scan(t, line, &ids, &plain, &skipped)
				for skip, want := range map[bool]string{false: plain, true: skipped} {
					if got := tok.Decode(ids, skip); got != want {
						t.Errorf("Decode(%v, %v)\n got %q\nwant %q", ids, skip, got, want)
					}
				}
			}
		})
	}
}

func scan(t testing.TB, from []json.RawMessage, into ...any) {
	t.Helper()
	for i, dst := range into {
		if err := json.Unmarshal(from[i], dst); err != nil {
			t.Fatal(err)
		}
	}
}
