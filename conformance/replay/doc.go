// Package replay evaluates single nodes of the graph on given inputs, through ref.
//
// The inputs are an engine's own values: replay says what this node should have made of them (Eval) and how far rounding
// may have taken the engine from there (Budget), so that layer 20 is not blamed for layer 3. An input that the engine
// does not show, because it fused the node away, can be evaluated too; its own budget then widens the one of the
// node that reads it (BudgetDerived).
//
// Nothing is believed of the inputs: shapes are checked, and any bit pattern may stand in the data.
package replay
