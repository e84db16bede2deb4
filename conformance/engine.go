package conformance

import (
	"context"

	"github.com/llavaref/llavaref/conformance/compare"
	"github.com/llavaref/llavaref/shapes"
)

// An Engine is one implementation of one model with its weights. If it is an io.Closer, the suite closes it behind the last prompt.
type Engine interface {
	// Info says what the engine is and what it declares about its arithmetic. It is judged by what it declares.
	Info() Info

	// Forward computes the logits [T, V] of one prompt and calls probe, if it is not nil, with each node of shapes.Nodes
	// that it can expose, in any order, at most once each. The engine may reuse t.Data after probe returns, and must not
	// keep the inputs. It is called for one prompt at a time.
	Forward(in shapes.Inputs, probe shapes.Probe) (shapes.Tensor, error)
}

// Info is what an engine declares about itself.
type Info struct {
	Name    string
	Version string
	compare.Arithmetic
	Classes []NodeClass // of nodes that are stored in another class than the engine's; the first that fits counts
}

// CaseEngine is an Engine that must know which prompt it is asked for and not only its inputs: a folder of dumps, a command. The suite
// calls ForCase before each prompt, and Info and Forward of what that returns.
type CaseEngine interface {
	Engine

	// ForCase is the engine for one prompt of the target; only says that the suite runs no other. If the engine has nothing for the
	// prompt, the error is a NotRun. If what it returns is an io.Closer, it is closed behind the prompt.
	ForCase(ctx context.Context, t Target, name string, only bool) (Engine, error)
}

// NotRun is the error of a CaseEngine that has nothing for a prompt, which is skipped then. The text is the reason.
type NotRun string

// Error is the reason.
func (e NotRun) Error() string { return string(e) }

// Reporter is an Engine that knows more of its nodes than their values. Report is called after Forward.
type Reporter interface {
	Report() Report
}

// Rereader is an Engine whose values may have been declared wrongly. Where a node fails by its own inputs, the suite looks whether another
// reading of the same array holds, and says so; it judges by none of them.
type Rereader interface {
	Reread(node string) []Reading
}

// Reading is another way to read a node's array.
type Reading struct {
	Words string // how it would have to be declared
	Value shapes.Tensor
}

// Report is what an engine says of the prompt that it has run.
type Report struct {
	Missing map[string]string // by node: why it has no value
	Wrong   map[string]string // by node: what is wrong with the value that it has, which fails
	Notes   []string          // on the whole prompt
	// Odd are values of nodes in Wrong that have another shape than the node. They are no values of the graph, and are looked at for a cause only.
	Odd map[string]shapes.Tensor
	// LastRows says that the logits which Forward returned are those of the last positions, as many as there are rows. An engine that
	// returns none at all says in Missing or in Wrong why.
	LastRows bool
}

// Opener makes an engine of a model with its weights.
type Opener func(c shapes.Config, w shapes.Weights) (Engine, error)
