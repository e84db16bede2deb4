// Package compare says what "equal" means: it holds every limit of the suite, each beside the reason for it.
//
// A float is compared in one of three ways:
//
//   - Local judges one node by its own inputs. The caller gives the true output on those inputs and a Budget, the
//     magnitudes that rounding may touch on the way; errors are judged in units of it.
//   - Accumulated judges a node's drift from the truth of the whole model, in units of the noise floor that
//     the unmodified model has in the same number format.
//   - Logits judges the last node by what it does to the next token: the Kullback-Leibler divergence and the argmax.
//
// Integers are judged by Exact alone. TakeCensus describes a difference that is already known to be too large.
//
// Results are plain values. Each one says whether it passed, the ratio of error to limit of the criterion that came
// nearest to its limit or went furthest beyond it, which criterion that was and where. docs/numerics.md derives the limits and
// lists what they were measured to accept and to reject.
package compare
