// Package engines has the engines that the llavaref command can test by name.
package engines

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// registry holds the engines that come with the project.
var registry = map[string]conformance.Opener{
	"ref":       OpenRef,
	"fast":      OpenFast,
	"fast-bf16": OpenFastBF16,
}

// Names lists the engines that Find knows.
func Names() []string { return sorted(registry) }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Find is the engine of a name.
func Find(name string) (conformance.Opener, error) {
	if path, ok := strings.CutPrefix(name, "dir:"); ok {
		if path == "" {
			return nil, errors.New("dir: has no path, want dir:PATH, the folder of a dump or of several (docs/dump-format.md)")
		}
		return OpenDir(path), nil
	}
	if name == "logits:" {
		return nil, errors.New("logits: has no file, want logits:FILE, a .json, .npy or .npz file (docs/black-box.md)")
	}
	if command, ok := strings.CutPrefix(name, "exec:"); ok {
		return OpenExec(command, DefaultTimeout)
	}
	open, ok := registry[name]
	if !ok {
		return nil, fmt.Errorf("engine %q is not known, want one of %s, dir:PATH, exec:COMMAND, logits:FILE", name, strings.Join(Names(), ", "))
	}
	return open, nil
}
