package conformance

import (
	"fmt"
	"sync"

	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
	"github.com/llavaref/llavaref/shapes/checkpoint"
)

// OpenTarget finds the weights of a golden set, made from its seed or read from the checkpoint in dir, and holds their fingerprint against
// the set's: a set is worth nothing with other weights than its own. progress, which may be nil, is told how many
// values have been read for the fingerprint. The caller calls close when the target is no longer needed.
func OpenTarget(set *golden.Set, dir string, progress func(done, total int64)) (t Target, close func() error, err error) {
	want := set.Manifest.Weights
	if want.Kind == golden.Synthetic {
		if dir != "" {
			return t, nil, fmt.Errorf("golden set %s has synthetic weights of its own, and takes no checkpoint", set.Manifest.Model)
		}
		w := checkpoint.Synthetic(set.Config, *want.Seed)
		have, err := syntheticDigest(set, w, progress)
		if err == nil && have != want.SHA256 {
			err = fmt.Errorf("golden set %s was made with weights of sha256 %s, the synthetic weights of seed %d are %s: one of the two was made by another version", set.Manifest.Model, want.SHA256, *want.Seed, have)
		}
		return Target{set, w}, func() error { return nil }, err
	}
	if dir == "" {
		return t, nil, fmt.Errorf("golden set %s needs the checkpoint that it was made with, sha256 %s", set.Manifest.Model, want.SHA256)
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		return t, nil, err
	}
	w, err := c.Bind(set.Config)
	if err == nil {
		var have string
		if have, err = checkpoint.Digest(set.Config, w, progress); err == nil && have != want.SHA256 {
			err = fmt.Errorf("golden set %s was made with weights of sha256 %s, the checkpoint in %s is %s", set.Manifest.Model, want.SHA256, dir, have)
		}
	}
	if err != nil {
		c.Close()
		return t, nil, err
	}
	return Target{set, w}, c.Close, nil
}

// digests remembers the fingerprints of synthetic weights, which follow from configuration and seed.
var digests sync.Map

func syntheticDigest(set *golden.Set, w shapes.Weights, progress func(done, total int64)) (string, error) {
	type key struct {
		config string
		seed   uint64
	}
	k := key{string(set.ConfigJSON), *set.Manifest.Weights.Seed}
	if d, ok := digests.Load(k); ok {
		return d.(string), nil
	}
	d, err := checkpoint.Digest(set.Config, w, progress)
	if err == nil {
		digests.Store(k, d)
	}
	return d, err
}
