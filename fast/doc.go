// Package fast is the engine that is meant to be quick: the graph of package shapes on the loops of fast/kernel.
//
// llava.go has the model and its sequences, vision.go, projector.go, pack.go and llama.go the modules in the order in which they run,
// under the names of package ref where the node is the same. layout.go says how weights lie in memory, load.go brings them there from
// any checkpoint, file.go from a file of that very layout. memory.go counts what all of it takes before any of it is taken.
//
// There are two classes of arithmetic, those of fast/kernel: with [kernel.Float32] the weights are widened exactly, and everything is float32; with
// [kernel.BFloat16] the weights must be bfloat16, and what enters a product with them is rounded to bfloat16, there and nowhere else. Attention,
// norms and activations are float32 in both.
//
// The logits of a position follow from the sequence up to it, the weights, the class and the implementation of the kernels, bit for bit: not from
// the number of threads, from how the sequence was cut into parts, or from what ran before.
//
// Scores, probabilities and SiLU's output never stand in memory and are not shown to a probe. Layers of the tower behind the one that
// the features are taken from run only for a probe.
package fast
