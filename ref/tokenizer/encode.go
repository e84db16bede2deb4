package tokenizer

// Piece is a part of a text that is turned into ids without regard to its neighbours.
type Piece struct {
	Text   string   // what stands in the text, in its normalised form; for begin-of-text, which stands nowhere, the token
	IDs    []int    // none if the vocabulary lacks all of it
	Tokens []string // the ids' tokens, as the vocabulary spells them
	Added  bool     // an added token, found in the text or put around it
}

// Encode returns the ids of a text, with addSpecial those that the post-processor puts around it (begin-of-text) included.
//
// What is no UTF-8 in text counts as U+FFFD, one for each maximal ill-formed subpart (see Lossy): the string that Python
// would have made of the bytes with errors="replace" before the library saw it.
func (t *Tokenizer) Encode(text string, addSpecial bool) []int {
	ids := []int{}
	for _, p := range t.Split(text, addSpecial) {
		ids = append(ids, p.IDs...)
	}
	return ids
}

// Split returns the pieces that Encode makes ids of.
func (t *Tokenizer) Split(text string, addSpecial bool) []Piece {
	var pieces []Piece
	if addSpecial {
		pieces = t.put(pieces, t.around.before)
	}
	for _, s := range t.added.extract(Lossy(text), t.norm) {
		if s.id != none {
			pieces = append(pieces, Piece{Text: s.text, IDs: []int{s.id}, Tokens: t.Tokens([]int{s.id}), Added: true})
			continue
		}
		for _, cut := range t.pre.cut(s.text, s.first) {
			ids := t.encodePiece(cut)
			pieces = append(pieces, Piece{Text: cut, IDs: ids, Tokens: t.Tokens(ids)})
		}
	}
	if addSpecial {
		pieces = t.put(pieces, t.around.after)
	}
	return pieces
}

// put appends tokens that stand nowhere in the text.
func (t *Tokenizer) put(pieces []Piece, ids []int) []Piece {
	for _, id := range ids {
		tokens := t.Tokens([]int{id})
		pieces = append(pieces, Piece{Text: tokens[0], IDs: []int{id}, Tokens: tokens, Added: true})
	}
	return pieces
}

// encodePiece returns the ids of a piece that the pre-tokenizer cut.
func (p *pipeline) encodePiece(piece string) []int {
	switch {
	case p.pre.kind != llama3Split:
		return p.model.encode(piece)
	case p.core != nil && len(piece) <= maxCorePiece:
		return p.core.encode(piece)
	}
	return p.model.encode(spellBytes(piece))
}

// Tokens spells ids as the vocabulary does; "" for an id that it does not have.
func (t *Tokenizer) Tokens(ids []int) []string {
	tokens := make([]string, len(ids))
	for i, id := range ids {
		tokens[i], _ = t.token(id)
	}
	return tokens
}
