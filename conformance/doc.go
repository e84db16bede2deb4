// Package conformance holds an implementation of LLaVA against golden sets, node by node.
//
// An implementation is an Engine. A Suite runs it on the prompts of golden sets and looks at every node that it exposes twice:
//
//   - accumulated: the node against the truth of the whole model, in units of the noise floor of the declared precision class;
//   - local: the node against its own true value on the engine's own inputs, so that layer 20 is not blamed for layer 3.
//
// Local fails: that node is wrong. Local holds everywhere but accumulated jumps: wiring, order or state. Both are smooth but
// above the floor: a lower precision class than declared.
//
// The result is a tree of plain values, Run > Set > Case > Stage > Node > Check. A parent is its worst child; what was not compared
// is skipped with a reason and never passes; a case in which nothing was compared is an error. Package report renders it.
package conformance
