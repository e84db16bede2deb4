// Package answers judges what lies before and behind the graph: what an engine makes of images and conversations, and the tokens that it
// chooses. The truth is what transformers answered (golden/vectors/endtoend).
//
// An Engine gives an Answer for each end-to-end case, as much of it as it has: sizes and pixels of the images, image tokens, token ids, new
// ids, its parameters. Run judges each part by itself and puts the verdicts into the tree of package conformance, a case for each conversation,
// with the stages preprocessing, tokens and generation. What follows from a part that is wrong already is not judged.
//
// Package ref is used in three places, none of which is the truth: its pixels are compared only after their SHA-256 was found to be that of
// transformers' pixels, its known bugs and other published rules name the cause of a failure, and where an engine stores f16 or bf16, its
// logits say whether the choice between two tokens was closer than the noise of that class.
package answers
