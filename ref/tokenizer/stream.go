package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Stream makes text of ids that come one by one. What it returns, put together, is what Decode makes of all the ids, and no
// character is ever split: bytes wait until their character is whole, and byte tokens of a Llama-2 vocabulary until their
// run ends, because one bad byte in it changes what the others become.
type Stream struct {
	p           *pipeline
	skipSpecial bool
	bytes       []byte // held back
	stripped    int    // how many characters were taken off the front
	started     bool   // something else has come, so nothing more is taken off
}

// NewStream starts a text.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{p: t.pipeline, skipSpecial: skipSpecial}
}

// Push takes the next id and returns the text that is certain by now.
func (s *Stream) Push(id int) string {
	token, ok := s.p.token(id)
	if !ok {
		return ""
	}
	if t, added := s.p.added.byID[id]; added && t.Special && s.skipSpecial {
		return ""
	}
	if s.p.decoder.byteLevel {
		return s.pushBytes(token)
	}
	if d := s.p.decoder; d.from != "" {
		token = strings.ReplaceAll(token, d.from, d.to)
	}
	if b, ok := byteToken(token); ok {
		s.bytes = append(s.bytes, b)
		return ""
	}
	return s.strip(s.endRun() + token)
}

// Flush ends the text and returns what was held back. The stream may be used for another text.
func (s *Stream) Flush() string {
	var rest string
	if s.p.decoder.byteLevel {
		rest = Lossy(string(s.bytes))
	} else {
		rest = s.strip(s.endRun())
	}
	*s = Stream{p: s.p, skipSpecial: s.skipSpecial}
	return rest
}

// pushBytes takes a token of a ByteLevel vocabulary: decode_chain in tokenizers' pre_tokenizers/byte_level.rs. A token with a
// character that stands for no byte, which only added tokens can have, is its own text.
func (s *Stream) pushBytes(token string) string {
	bytes, ok := unspellBytes(token)
	if !ok {
		bytes = token
	}
	s.bytes = append(s.bytes, bytes...)
	whole := len(s.bytes) - incomplete(s.bytes)
	text := Lossy(string(s.bytes[:whole]))
	s.bytes = s.bytes[:copy(s.bytes, s.bytes[whole:])]
	return text
}

// endRun returns the text of a run of byte tokens: decode_chain in tokenizers' decoders/byte_fallback.rs.
func (s *Stream) endRun() string {
	text := string(s.bytes)
	if !utf8.ValidString(text) {
		text = strings.Repeat(string(utf8.RuneError), len(s.bytes))
	}
	s.bytes = s.bytes[:0]
	return text
}

// strip takes the decoder's character off the front of the whole text: tokenizers' decoders/strip.rs after Fuse.
func (s *Stream) strip(text string) string {
	d := s.p.decoder
	for !s.started && text != "" {
		if s.stripped == d.most || !strings.HasPrefix(text, d.strip) {
			s.started = true
			break
		}
		text = text[len(d.strip):]
		s.stripped++
	}
	return text
}
