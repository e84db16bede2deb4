// Package ref is LLaVA written to be read: the model from pixel values and token ids to logits, as plain loops.
//
// Open llava.go first; its Forward is the whole model on one page. vision.go, projector.go, pack.go and llama.go hold
// the modules, in the order in which they run; ops.go holds what several of them share. S1, S2, ... are the rules of
// docs/spec.md that a function implements. Types are named after the classes
// of transformers, fields after the parameters in the checkpoint, and a comment gives the shape of every tensor that is
// made, in the letters of package shapes.
//
// Tensors are float32. Inside of one node everything is float64: a sum runs in index order, and the result is rounded to
// float32 once, at the node's output. The product of two float32 is exact in float64, so whether a compiler fuses the
// multiplication with the addition cannot change a bit; where a product of other factors is added to something, it stands
// in float64(...), which forbids the fusion. Hence the same bits on every processor.
//
// What this package deliberately does not do: batches of several prompts, dropout, training, attention in blocks, other
// number formats, speed beyond what plain loops on all cores give. Weights are read layer by layer and dropped again, so
// the memory is that of the largest layer and of the activations.
package ref
