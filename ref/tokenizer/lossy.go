package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Lossy replaces what is not UTF-8 by U+FFFD, one for each maximal ill-formed subpart, and leaves the rest alone.
//
// Rust's String::from_utf8_lossy, Python's bytes.decode(errors="replace") and the WHATWG decoder agree on this; Go's own
// conversions replace byte by byte, which gives more of them. A maximal subpart is the longest beginning of a well-formed
// sequence that is not whole (Unicode 16.0, section 3.9, table 3-7 and D93b).
func Lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		if r, n := utf8.DecodeRuneInString(s); r != utf8.RuneError || n > 1 {
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		b.WriteRune(utf8.RuneError)
		s = s[subpart(s):]
	}
	return b.String()
}

// subpart is the length of the maximal ill-formed subpart at the start of s, which does not start with a character.
func subpart(s string) int {
	want, lo, hi := sequence(s[0])
	n := 1
	for n < want && n < len(s) && lo <= s[n] && s[n] <= hi {
		n++
		lo, hi = 0x80, 0xbf
	}
	return n
}

// sequence says how long the sequence is that begins with this byte, and in which range its second byte lies.
// The length is 1 for a byte that begins none.
func sequence(first byte) (length int, lo, hi byte) {
	switch {
	case 0xc2 <= first && first <= 0xdf:
		return 2, 0x80, 0xbf
	case first == 0xe0:
		return 3, 0xa0, 0xbf
	case first == 0xed:
		return 3, 0x80, 0x9f // no surrogates
	case 0xe1 <= first && first <= 0xef:
		return 3, 0x80, 0xbf
	case first == 0xf0:
		return 4, 0x90, 0xbf
	case 0xf1 <= first && first <= 0xf3:
		return 4, 0x80, 0xbf
	case first == 0xf4:
		return 4, 0x80, 0x8f
	}
	return 1, 0, 0
}

// incomplete is the number of bytes at the end of s that begin a character and do not finish it.
func incomplete(s []byte) int {
	for n := 1; n <= min(3, len(s)); n++ {
		tail := s[len(s)-n:]
		if want, _, _ := sequence(tail[0]); want > n && subpart(string(tail)) == n {
			return n
		}
	}
	return 0
}
