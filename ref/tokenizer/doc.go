// Package tokenizer turns text into token ids and back, renders the chat template, and makes room for images in a prompt.
//
// It reads what a checkpoint's folder holds: the pipeline of tokenizer.json, the chat template, the ids that begin and end a
// text and stand for an image. Load is the way in; encode.go shows the whole pipeline on one page, and the files beside it hold its stages in
// the order in which they run: added.go finds added tokens in the text, normalize.go and pretokenize.go cut what is left,
// bpe.go makes ids of the pieces, post.go adds the begin-of-text token. decode.go and stream.go are the way back.
// template.go and expand.go make a prompt of messages and images; how many image
// tokens an image takes is counted in package preprocess.
//
// Three pipelines are known, each as the Rust library "tokenizers" 0.22 runs it (transformers 4.57; what 0.19 and 0.23 do
// otherwise is said where it happens):
//
//	byte-level   Llama-3 (LLaVA-1.6): split by the pattern of tiktoken, then BPE over bytes
//	prepend      Llama-2 (LLaVA-1.5): the normaliser puts "▁" in front of every stretch of text and in place of every space,
//	             then BPE over the whole stretch, with <0xNN> tokens for characters that the vocabulary lacks
//	metaspace    the same model behind the pre-tokenizer that transformers 5 builds in place of that normaliser
//
// Any other component of a tokenizer.json is refused by its name, because a tokenizer that is nearly right is wrong.
//
// What this package deliberately does not do: training, pairs of texts, offsets, truncation and padding (transformers
// ignores what tokenizer.json says of both unless it is asked), SentencePiece's own files (tokenizer.model), and
// clean_up_tokenization_spaces: decoded text is what the decoder gives, which is what transformers 5.23 gives too.
package tokenizer
