package tokenizer

import (
	"strings"
	"testing"
	"time"
)

// A text may be as long as memory is: runs that take tiktoken n² steps (100 000 spaces 12 s) take n log n here.
func TestLongRunsTakeNoSquareOfTheirLength(t *testing.T) {
	const n = 1 << 18
	for _, family := range []string{"llama3", "llama2"} {
		tok := small(t, family)
		for _, unit := range []string{" ", "a", "\n", "ab", "=", "你", "\U0001f600", "<image>", "<|", "a "} {
			text := strings.Repeat(unit, n/len(unit))
			start := time.Now()
			ids := tok.Encode(text, false)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("%s: %d bytes of %q take %v", family, len(text), unit, took)
			}
			if family == "llama3" {
				if got := tok.Decode(ids, false); got != text {
					t.Errorf("%d bytes of %q come back as %d", len(text), unit, len(got))
				}
			}
		}
	}
}
