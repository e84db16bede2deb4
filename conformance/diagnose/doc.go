// Package diagnose says what a failure comes from. Every known bug of docs/known-bugs.md that lives in the graph is written down as an
// alternative: what a port with that bug would make of a node's inputs. Where an engine's node fails by its own inputs, each alternative of
// its kind is evaluated on those inputs, and those that reproduce the engine's tensor within the local limit are the likely causes.
//
// The same alternatives, run from the pixels to the logits, are engines with a bug: Mutant. The suite measures itself with them, and an engine
// of which nothing is known but its logits is held against them.
package diagnose
