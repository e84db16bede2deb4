package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder makes text of tokens. There are two of them: ByteLevel, whose tokens are bytes, and the Sequence that goes with
// Llama-2's tokens: Replace, ByteFallback, Fuse, Strip, in this order, Replace and Strip where they are wanted.
type decoder struct {
	byteLevel bool

	from, to string // Replace: every from in a token becomes to; from is "" for none
	strip    string // Strip: one character, taken off the front
	most     int    // so many times
}

// decoder reads tokenizer.json's "decoder".
func (r *reader) decoder(o object) decoder {
	if o == nil {
		r.fail("it is missing, want ByteLevel, or a Sequence of Replace, ByteFallback, Fuse and Strip")
		return decoder{}
	}
	switch typ := r.typeOf(o); typ {
	case "ByteLevel":
		return decoder{byteLevel: true}
	case "Sequence":
		return r.decoders(r.objects(o, "decoders"))
	default:
		r.fail("%q is not supported, want ByteLevel, or a Sequence of Replace, ByteFallback, Fuse and Strip", typ)
		return decoder{}
	}
}

func (r *reader) decoders(parts []object) decoder {
	var d decoder
	var types []string
	for _, p := range parts {
		types = append(types, r.typeOf(p))
	}
	switch names := strings.Join(types, " "); names {
	case "Replace ByteFallback Fuse Strip", "Replace ByteFallback Fuse", "ByteFallback Fuse":
	default:
		r.fail("a Sequence of %q is not supported, want Replace, ByteFallback, Fuse and Strip", types)
		return d
	}
	for _, p := range parts {
		switch r.typeOf(p) {
		case "Replace":
			d.from, d.to = r.pattern(p), r.str(p, "content", "")
		case "Strip":
			d.strip, d.most = r.str(p, "content", ""), r.integer(p, "start", 0, 0, maxID)
			if utf8.RuneCountInString(d.strip) != 1 {
				r.fail("Strip: content %q, want one character", d.strip)
			}
			if stop := r.integer(p, "stop", 0, 0, maxID); stop != 0 {
				r.fail("Strip: stop %d is not supported, want 0", stop)
			}
		}
	}
	return d
}

// Decode makes text of ids: TokenizerImpl::decode. Ids without a token give nothing, and with skipSpecial neither do special
// tokens.
//
// Bytes that are no UTF-8 become U+FFFD: with ByteLevel one for each maximal ill-formed subpart (see Lossy), with
// ByteFallback one for every byte token of the run that they stand in, the well-formed ones of it included.
// Spaces are left as they are, which transformers calls clean_up_tokenization_spaces=False.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string {
	s := t.NewStream(skipSpecial)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// byteToken reads <0xNN>, as ByteFallback of tokenizers' decoders/byte_fallback.rs does: u8::from_str_radix takes digits of
// either case, and a plus sign.
func byteToken(token string) (byte, bool) {
	if len(token) != 6 || !strings.HasPrefix(token, "<0x") || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(strings.TrimPrefix(token[3:5], "+"), 16, 8)
	return byte(b), err == nil
}
