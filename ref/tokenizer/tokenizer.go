package tokenizer

// Tokenizer is the text side of a checkpoint. It is not changed after it was made and may be used by several goroutines.
type Tokenizer struct {
	*pipeline
}

// Parse reads a tokenizer.json alone.
func Parse(data []byte) (*Tokenizer, error) {
	p, err := parsePipeline(data)
	if err != nil {
		return nil, err
	}
	return &Tokenizer{pipeline: p}, nil
}
