package conformance

import "fmt"

// Status is the outcome of a check and of everything above it. The order is the order of badness:
// a parent is its worst child, so that passing and skipped children make a parent that passes.
type Status int

// The statuses, from best to worst.
const (
	Skip       Status = iota // nothing was compared, and a reason says why
	Pass                     // what was compared holds
	Convention               // what does not hold follows another published rule, and nothing else is wrong
	Fail                     // something that was compared does not hold
	Error                    // the question could not be answered
)

var statusNames = [...]string{Skip: "skip", Pass: "pass", Convention: "convention", Fail: "fail", Error: "error"}

// String is the status in lower case: "pass".
func (s Status) String() string {
	if s < Skip || s > Error {
		return fmt.Sprintf("Status(%d)", int(s))
	}
	return statusNames[s]
}

// compared says whether something was held against what it should be, and what came of it.
func (s Status) compared() bool { return s == Pass || s == Convention || s == Fail }

// worst is the status of a parent; Skip if it has no children.
func worst[T interface{ Status() Status }](children []T) Status {
	s := Skip
	for _, c := range children {
		s = max(s, c.Status())
	}
	return s
}
