package kernel

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// implementation is one complete set of operations. A new kind of operation adds its table to ops, and fills it for
// every implementation that archImplementations of an architecture lists; what it leaves nil is generic.
type implementation struct {
	name    string
	needs   []string // names without which this one is off, too
	runs    bool     // this processor has the instructions
	enabled bool     // and nobody has switched it off
	ops
}

// ops are the operations of one implementation.
type ops struct {
	matmul matmulOps
	vector vectorOps
	limits limitOps
}

// Implementation describes one of the sets of operations that this build holds.
type Implementation struct {
	Name      string
	Available bool // the processor has the instructions
	Enabled   bool // Available, and not named by LLAVAREF_DISABLE
}

// known are the names of all implementations of all builds, so that one setting serves all machines.
var known = []string{"avx512bf16", "avx512", "avx2", "neon", "generic"}

// implementations are those of this build, the best first; active is the first that is enabled.
var (
	implementations = register(archImplementations(), os.Getenv("LLAVAREF_DISABLE"))
	active          = implementations[slices.IndexFunc(implementations, func(m *implementation) bool { return m.enabled })]
)

// register completes the list with the generic implementation and switches off what disable names.
func register(list []*implementation, disable string) []*implementation {
	off := nameList("LLAVAREF_DISABLE", disable)
	if slices.Contains(off, "generic") {
		panic("kernel: LLAVAREF_DISABLE: generic is what is left when all others are off, it cannot be disabled")
	}
	list = append(list, &implementation{name: "generic", runs: true, ops: ops{matmul: genericMatmul}})
	for _, m := range list {
		m.enabled = m.runs && !slices.Contains(off, m.name) && !slices.ContainsFunc(m.needs, func(n string) bool { return slices.Contains(off, n) })
		m.matmul.complete()
		m.vector.complete()
	}
	return list
}

// nameList splits the value of an environment variable and refuses names that no build has.
func nameList(variable, value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.Contains(known, name) {
			panic(fmt.Sprintf("kernel: %s: no implementation is called %q, want some of %s", variable, name, strings.Join(known, ",")))
		}
		names = append(names, name)
	}
	return names
}

// Implementations lists the implementations of this build, the best first.
func Implementations() []Implementation {
	var list []Implementation
	for _, m := range implementations {
		list = append(list, Implementation{m.name, m.runs, m.enabled})
	}
	return list
}

// Active is the name of the implementation that is used.
func Active() string { return active.name }
