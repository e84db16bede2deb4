// Package golden reads golden sets: a model's true activations, node by node, with the noise floors that say how much of a
// difference is noise. docs/golden-format.md describes the files; tools/gen-golden writes them.
//
//	s, err := golden.Embedded("tiny-1.6") // or Open(dir), OpenFS(fsys, name)
//	c, err := s.Case("photo-2x2-rows")    // every file held against its digest, every rule of the format checked
//	truth, ok := c.Node("language_model.model.layers.31")
//	have := golden.Gather(t, truth.Sample) // the engine's values at the entries whose truth is kept
//
// A set comes from outside. A file is used only after its size and SHA-256 agree with the manifest, a file that the manifest does not
// list is an error, and what a set says about shapes, rows and entries has to be what its own configuration and inputs imply.
// Memory is bounded by the sizes of the files, which are held against those numbers before they are read.
package golden
