package tokenizer

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// Real vocabularies are not committed: their licences stand against it. With the path of a tokenizer.json in the variable,
// and beside it the vectors that tools/gen-golden/tokenizer_fuzz.py made of it with the library, every one must agree.
func TestFuzzedVectorsOfRealVocabularies(t *testing.T) {
	for _, variable := range []string{"LLAVAREF_TOKENIZER_JSON_LLAMA3", "LLAVAREF_TOKENIZER_JSON_LLAMA2"} {
		t.Run(variable, func(t *testing.T) {
			path := os.Getenv(variable)
			if path == "" {
				t.Skipf("%s is not set, want the path of a tokenizer.json", variable)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path + ".vectors.gz")
			if err != nil {
				t.Fatalf("%v: make it with tools/gen-golden/tokenizer_fuzz.py", err)
			}
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(z)
			lines.Buffer(nil, 16<<20)
			texts, lists, differ := 0, 0, 0
			for lines.Scan() {
				var v []json.RawMessage
				var text *string
				var ids []int
				var plain, skipped string
				for i, dst := range []any{&v, &text, &ids, &plain, &skipped} {
					from := lines.Bytes()
					if i > 0 {
						from = v[i-1]
					}
					if err := json.Unmarshal(from, dst); err != nil {
						t.Fatal(err)
					}
				}
				if text == nil {
					lists++
				} else {
					texts++
					if got := tok.Encode(*text, true); !slices.Equal(got, ids) {
						differ++
						t.Errorf("Encode(%q) = %v\nwant %v", *text, got, ids)
					}
				}
				for skip, want := range map[bool]string{false: plain, true: skipped} {
					if got := tok.Decode(ids, skip); got != want {
						differ++
						t.Errorf("Decode(%v, %v) = %q\nwant %q", ids, skip, got, want)
					}
				}
				if differ > 20 {
					t.Fatal("and more")
				}
			}
			if lines.Err() != nil || texts < 1000 {
				t.Fatalf("%d texts, %v", texts, lines.Err())
			}
			t.Logf("%s: %d texts and %d lists of ids, %d differences", strings.TrimPrefix(variable, "LLAVAREF_TOKENIZER_JSON_"), texts, lists, differ)
		})
	}
}
