package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// llama3Pattern is the expression by which Llama-3's tokenizer.json cuts text, letter for letter. It is the only one known.
const llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// splitLlama3 cuts text into pieces, all of it, by llama3Pattern: at each place the first alternative that matches, as far
// as it reaches. text is valid UTF-8.
//
// The classes \p{L} and \p{N} are those of Unicode 16, as in tokenizers 0.22 and 0.23; 0.19 (transformers 4.44) has
// Unicode 13, to which 9272 letters and 120 digits are other characters.
func splitLlama3(text string) []string {
	var pieces []string
	for len(text) > 0 {
		n := llama3Piece(text)
		pieces = append(pieces, text[:n])
		text = text[n:]
	}
	return pieces
}

// llama3Piece is the length of the first piece of text.
func llama3Piece(text string) int {
	if n := contraction(text); n > 0 { // (?i:'s|'t|'re|'ve|'m|'ll|'d)
		return n
	}
	first, size := utf8.DecodeRuneInString(text)
	if n := letters(text); n > 0 { // \p{L}+
		return n
	}
	if first != '\r' && first != '\n' && !isDigit(first) { // [^\r\n\p{L}\p{N}]\p{L}+
		if n := letters(text[size:]); n > 0 {
			return size + n
		}
	}
	if n := span(text, 3, isDigit); n > 0 { // \p{N}{1,3}
		return n
	}
	start := 0 // " ?[^\s\p{L}\p{N}]+[\r\n]*"
	if first == ' ' {
		start = 1
	}
	if n := span(text[start:], len(text), isOther); n > 0 {
		return start + n + span(text[start+n:], len(text), isNewline)
	}
	return blank(text)
}

// blank is the length of the first piece of a text that starts with white space: \s*[\r\n]+|\s+(?!\S)|\s+
func blank(text string) int {
	run := span(text, len(text), unicode.IsSpace)
	for n := run; n > 0; n-- {
		if text[n-1] == '\r' || text[n-1] == '\n' {
			return n // up to the last line break of the run
		}
	}
	if run == len(text) {
		return run
	}
	if _, last := utf8.DecodeLastRuneInString(text[:run]); last < run {
		return run - last // the last space goes with what follows
	}
	return run
}

// contraction is the length of an English contraction at the start of text, letters of either case; 0 if there is none.
// Folding case in Unicode makes U+017F, the long s, an s.
func contraction(text string) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	switch lower(text[1]) {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(text) > 2 && lower(text[2]) == 'e' {
			return 3
		}
	case 'l':
		if len(text) > 2 && lower(text[2]) == 'l' {
			return 3
		}
	}
	const longS = "ſ"
	if len(text) > len(longS) && text[1:1+len(longS)] == longS {
		return 1 + len(longS)
	}
	return 0
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// span is the length of the beginning of text, at most most characters of it, that holds for is.
func span(text string, most int, is func(rune) bool) int {
	for i, r := range text {
		if most == 0 || !is(r) {
			return i
		}
		most--
	}
	return len(text)
}

func letters(text string) int { return span(text, len(text), isLetter) }

func isLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	return unicode.Is(letterClass, r)
}

func isDigit(r rune) bool {
	if r < utf8.RuneSelf {
		return '0' <= r && r <= '9'
	}
	return unicode.Is(numberClass, r)
}

func isNewline(r rune) bool { return r == '\r' || r == '\n' }

// isOther is [^\s\p{L}\p{N}]. White space is White_Space of Unicode, 25 characters, which is Go's too.
func isOther(r rune) bool { return !unicode.IsSpace(r) && !isLetter(r) && !isDigit(r) }
