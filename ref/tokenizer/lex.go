package tokenizer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// lex cuts a template into gonja's tokens. What stands between tags, and how much of its white space goes, is found here:
// Lexer.tokeniter of Jinja 3.1 with trim_blocks and lstrip_blocks, and without keep_trailing_newline. gonja's own lexer takes
// the white space between two tags of one line for the start of a line and drops it. It reads the inside of the tags.
func lex(text string) ([]*tokens.Token, error) {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	text = strings.TrimSuffix(text, "\n")
	var out []*tokens.Token
	lineStart := true // whether the last tag took a line break with it
	for text != "" {
		at := nextTag(text)
		data, rest := text[:at], text[at:]
		if rest == "" {
			out = appendData(out, data)
			break
		}
		t, err := readTag(rest)
		if err != nil {
			return nil, err
		}
		out = appendData(out, t.before(data, lineStart))
		lineStart = strings.HasSuffix(t.source, "\n")
		if t.kind != '#' {
			inside, err := t.tokens()
			if err != nil {
				return nil, err
			}
			out = append(out, inside...)
		}
		text = rest[len(t.source):]
	}
	return append(out, &tokens.Token{Type: tokens.EOF}), nil
}

func appendData(list []*tokens.Token, data string) []*tokens.Token {
	if data == "" {
		return list
	}
	return append(list, &tokens.Token{Type: tokens.Data, Val: data})
}

// nextTag is where the first {{, {% or {# stands; the length of text if there is none.
func nextTag(text string) int {
	for i := 0; i+1 < len(text); i++ {
		if text[i] == '{' && strings.IndexByte("{%#", text[i+1]) >= 0 {
			return i
		}
	}
	return len(text)
}

// tag is {{ ... }}, {% ... %} or {# ... #}.
type tag struct {
	kind   byte   // '{', '%' or '#'
	sign   byte   // '-', '+' or 0, after the opening
	inside string // without signs
	source string // all of it, with the white space after it that goes with it
}

// readTag reads the tag at the start of text.
func readTag(text string) (tag, error) {
	t := tag{kind: text[1]}
	body := text[2:]
	if body != "" && (body[0] == '-' || body[0] == '+' && t.kind != '{') {
		t.sign, body = body[0], body[1:]
	}
	length, end := t.end(body)
	if length < 0 {
		return t, fmt.Errorf("a tag without its end: %.40q", text)
	}
	t.inside = body[:length]
	rest := body[length+len(end):]
	switch {
	case end[0] == '-': // all white space goes
		rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
	case end[0] == '+', t.kind == '{':
	default: // trim_blocks: one line break goes
		rest = strings.TrimPrefix(rest, "\n")
	}
	t.source = text[:len(text)-len(rest)]
	return t, nil
}

// end is the length of a tag's inside and the end that follows; -1 if there is none. Ends in string literals and within
// brackets do not count.
func (t tag) end(body string) (length int, end string) {
	closing := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[t.kind]
	brackets := 0
	for i := 0; i < len(body); i++ {
		for _, sign := range []string{"-", "+", ""} {
			if brackets == 0 && strings.HasPrefix(body[i:], sign+closing) && !(sign == "+" && t.kind == '{') {
				return i, sign + closing
			}
		}
		if t.kind == '#' {
			continue
		}
		switch body[i] {
		case '\'', '"':
			n := literal(body[i:])
			if n < 0 {
				return -1, ""
			}
			i += n - 1
		case '(', '[', '{':
			brackets++
		case ')', ']', '}':
			brackets--
		}
	}
	return -1, ""
}

// literal is the length of the string literal at the start of text; -1 if it has no end.
func literal(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return i + 1
		}
	}
	return -1
}

// before is what the tag leaves of the text in front of it.
func (t tag) before(data string, lineStart bool) string {
	switch {
	case t.sign == '-':
		return strings.TrimRightFunc(data, unicode.IsSpace)
	case t.sign == '+', t.kind == '{':
		return data
	}
	line := strings.LastIndexByte(data, '\n') + 1
	if (line > 0 || lineStart) && strings.TrimFunc(data[line:], unicode.IsSpace) == "" { // lstrip_blocks
		return data[:line]
	}
	return data
}

// badEscape are escapes in string literals that gonja resolves otherwise than Python.
var badEscape = regexp.MustCompile(`\\[^nrt'"]`)

// tokens are gonja's tokens of the tag.
func (t tag) tokens() ([]*tokens.Token, error) {
	if at := badEscape.FindStringIndex(t.inside); at != nil {
		return nil, fmt.Errorf("the escape %q is not supported", t.inside[at[0]:at[1]])
	}
	opening, closing := "{"+string(t.kind), map[byte]string{'{': "}}", '%': "%}"}[t.kind]
	stream := tokens.LexAll(opening+" "+t.inside+" "+closing, config.New())
	var out []*tokens.Token
	for !stream.End() { // at the end of the tag, or at what gonja cannot read
		out = append(out, stream.Next())
	}
	if stream.IsError() {
		return nil, errors.New(stream.Current().Val)
	}
	return keepGroups(out), nil
}

// group is the name of a function that stands for brackets around an expression. gonja's parser forgets brackets, and it groups
// some operators otherwise than Jinja, so that only the brackets tell what was meant. No name in a template can be this one.
const group = "("

// keepGroups writes every bracket that opens neither a call nor the arguments of a filter or test as a call of group.
func keepGroups(list []*tokens.Token) []*tokens.Token {
	var out []*tokens.Token
	for i, t := range list {
		if t.Type == tokens.LeftParenthesis && !mayCall(list[i-1]) {
			out = append(out, &tokens.Token{Type: tokens.Name, Val: group, Pos: t.Pos, Line: t.Line, Col: t.Col})
		}
		out = append(out, t)
	}
	return out
}

// mayCall says whether a bracket after this token is that of a call.
func mayCall(t *tokens.Token) bool {
	switch t.Type {
	case tokens.Name:
		return t.Val != "if" && t.Val != "elif" && t.Val != "else"
	case tokens.RightParenthesis, tokens.RightBracket:
		return true
	}
	return false
}
