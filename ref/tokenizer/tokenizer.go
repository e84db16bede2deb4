package tokenizer

import "fmt"

// Tokenizer is the text side of a checkpoint. It is not changed after it was made and may be used by several goroutines.
type Tokenizer struct {
	*pipeline
	variant Variant

	named map[string]string // special tokens by what they are for: bos_token, eos_token, unk_token, pad_token, image_token

	chat    *chatTemplate // nil if there is none, and then
	noChat  error         // why
	stop    []int         // nil if nothing says them
	noStop  error
	image   int // id of the image token; none if nothing says it
	noImage error
}

// Parse reads a tokenizer.json alone: enough for Encode and Decode.
func Parse(data []byte) (*Tokenizer, error) {
	p, err := parsePipeline(data)
	if err != nil {
		return nil, err
	}
	alone := fmt.Errorf("tokenizer: tokenizer.json alone says nothing of it")
	t := &Tokenizer{pipeline: p, named: map[string]string{}, noChat: alone, noStop: alone, image: none, noImage: alone}
	t.variant = p.variant()
	return t, nil
}

// BOS is the token that Encode puts in front of a text; false if it puts none.
func (t *Tokenizer) BOS() (id int, ok bool) {
	if len(t.around.before) == 0 {
		return none, false
	}
	return t.around.before[0], true
}

// Stop are the ids after any of which generation ends: eos_token_id of generation_config.json, one number or a list.
func (t *Tokenizer) Stop() ([]int, error) {
	if t.noStop != nil {
		return nil, t.noStop
	}
	return append([]int{}, t.stop...), nil
}

// ImageToken is the id that stands for one row of image features.
func (t *Tokenizer) ImageToken() (int, error) { return t.image, t.noImage }

// ID is the id of a token as the vocabulary spells it.
func (t *Tokenizer) ID(token string) (id int, ok bool) { return t.id(token) }

// EncodePrompt is Encode of a rendered template: begin-of-text is added unless the template has written it, as in
// ProcessorMixin.apply_chat_template of transformers from 4.49 on.
func (t *Tokenizer) EncodePrompt(prompt string) []int {
	bos := t.named["bos_token"]
	return t.Encode(prompt, bos == "" || len(prompt) < len(bos) || prompt[:len(bos)] != bos)
}

// Prompt makes ids of a conversation: the template, its ids, and as many image tokens for each image, in the order in which
// they are spoken of, as the model makes rows of features of it (preprocess.Processor.FeatureCount).
func (t *Tokenizer) Prompt(messages []Message, addGenerationPrompt bool, counts []int) ([]int, error) {
	text, err := t.Template(messages, addGenerationPrompt)
	if err != nil {
		return nil, err
	}
	image, err := t.ImageToken()
	if err != nil {
		return nil, err
	}
	return ExpandImages(t.EncodePrompt(text), image, counts)
}
