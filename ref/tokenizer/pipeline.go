package tokenizer

import "fmt"

// pipeline is one tokenizer.json: the components that text runs through, in their order, and the way back.
type pipeline struct {
	added   *addedTokens
	norm    normalizer
	pre     preTokenizer
	model   *bpe
	core    *core // nil unless the model is byte-level and tiktoken does the same
	around  affixes
	decoder decoder
}

// parsePipeline reads a tokenizer.json as tokenizers' TokenizerImpl is deserialised, tokenizer/serialization.rs.
// What it says of truncation and padding is left alone: transformers switches both off unless a call asks for them.
func parsePipeline(data []byte) (*pipeline, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.json: %w", err)
	}
	r := &reader{}
	at := func(key string) object {
		r.path = "tokenizer.json"
		part := r.object(o, key)
		r.path = "tokenizer.json: " + key
		return part
	}
	r.path = "tokenizer.json"
	if v := r.str(o, "version", "1.0"); v != "1.0" {
		r.fail("version %q, want \"1.0\"", v)
	}
	p := &pipeline{}
	p.norm = r.normalizer(at("normalizer"))
	p.pre = r.preTokenizer(at("pre_tokenizer"))
	if len(p.norm) > 0 && p.pre.kind != wholeStretch {
		r.fail("with a normalizer it is not supported")
	}
	p.around = r.postProcessor(at("post_processor"))
	p.decoder = r.decoder(at("decoder"))
	if (p.pre.kind == llama3Split) != p.decoder.byteLevel {
		r.fail("a ByteLevel decoder goes with a ByteLevel pre_tokenizer, and no other")
	}
	p.model = r.bpe(at("model"))
	if r.err != nil {
		return nil, r.err
	}
	r.path = "tokenizer.json"
	list := r.addedTokens(r.objects(o, "added_tokens"))
	if r.err != nil {
		return nil, r.err
	}
	if err := p.add(list); err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.json: %w", err)
	}
	if p.pre.kind == llama3Split {
		p.core = newCore(p.model)
	}
	return p, nil
}

// addedTokens reads the list in tokenizer.json, all of whose fields are required.
func (r *reader) addedTokens(list []object) []AddedToken {
	if len(list) > maxAddedTokens {
		r.fail("added_tokens: %d of them, want at most %d", len(list), maxAddedTokens)
		return nil
	}
	var out []AddedToken
	for i, o := range list {
		for _, key := range []string{"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"} {
			if !o.has(key) {
				r.fail("added_tokens[%d] lacks %s", i, key)
			}
		}
		out = append(out, r.addedToken(o, r.integer(o, "id", 0, 0, maxID)))
	}
	return out
}

// addedToken reads the content and the flags of one added token, with the defaults of transformers' AddedToken.
func (r *reader) addedToken(o object, id int) AddedToken {
	t := AddedToken{
		Content:    r.str(o, "content", ""),
		ID:         id,
		SingleWord: r.boolean(o, "single_word", false),
		LStrip:     r.boolean(o, "lstrip", false),
		RStrip:     r.boolean(o, "rstrip", false),
		Special:    r.boolean(o, "special", false),
	}
	t.Normalized = r.boolean(o, "normalized", !t.Special)
	if t.Content == "" || len(t.Content) > maxAddedLength {
		r.fail("added_tokens: the token with id %d has %d bytes, want 1 to %d", id, len(t.Content), maxAddedLength)
	}
	return t
}

// add gives the pipeline its added tokens. The library pays no heed to the ids that are written down: a token that the
// model's vocabulary has keeps that id, any other gets the next free one, counted from the size of the vocabulary. An id
// that is not the one written down is an error here, and only a warning there.
func (p *pipeline) add(list []AddedToken) error {
	next := len(p.model.vocab)
	size := 0
	for _, t := range list {
		want, ok := p.model.vocab[t.Content]
		if !ok {
			want = next
		}
		if t.ID != want {
			return fmt.Errorf("added_tokens: %q has id %d, but the library gives it %d", t.Content, t.ID, want)
		}
		if next = max(next, t.ID+1); size > maxAddedBytes {
			return fmt.Errorf("added_tokens: more than %d bytes in all", maxAddedBytes)
		}
		size += len(t.Content)
	}
	var err error
	p.added, err = newAddedTokens(list, p.norm)
	return err
}

// with returns the pipeline with further added tokens.
func (p *pipeline) with(more []AddedToken) (*pipeline, error) {
	all := append(p.added.list(), more...)
	out := *p
	return &out, out.add(all)
}

// token returns the text of a token as the vocabulary spells it.
func (p *pipeline) token(id int) (string, bool) {
	if t, ok := p.added.byID[id]; ok {
		return t.Content, true
	}
	s, ok := p.model.tokens[id]
	return s, ok
}

// id returns the id of a token.
func (p *pipeline) id(token string) (int, bool) {
	if id, ok := p.added.byContent[token]; ok {
		return id, true
	}
	id, ok := p.model.vocab[token]
	return id, ok
}
