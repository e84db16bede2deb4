package tokenizer

import "strings"

// ByteLevel vocabularies spell a byte as a character that can be printed: bytes that are printable Latin-1 stand for
// themselves, the others get U+0100, U+0101, ... in the order of the bytes. bytes_to_unicode of GPT-2's encoder.py,
// bytes_char in tokenizers' pre_tokenizers/byte_level.rs.
var (
	byteRune [256]rune
	runeByte = map[rune]byte{}
)

func init() {
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r && r <= 0xff) {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = byte(b)
	}
}

// spellBytes writes each byte of s as its character.
func spellBytes(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(byteRune[s[i]])
	}
	return b.String()
}

// unspellBytes is the way back; false if s has a character that stands for no byte.
func unspellBytes(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		c, ok := runeByte[r]
		if !ok {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}
