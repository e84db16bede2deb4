// Package checkpoint reads, checks, writes and makes the weights of a model.
//
// A checkpoint is one safetensors file, or several with a model.safetensors.index.json that says which tensor is in which:
//
//	c, err := checkpoint.Open(dir)   // headers only, whatever the size
//	report := c.Verify(cfg)          // what is there, held against the model's inventory
//	w, err := c.Bind(cfg)            // a shapes.Weights: reads any range of values by on-disk name
//
// The names in the files may follow any of the schemes of package shapes; the values may be F32, F16 or BF16 and are widened
// to float32 without rounding. [Synthetic] makes weights where no checkpoint is at hand, [Write] saves any weights,
// [Digest] is the fingerprint of a model's weights, the same for every dtype that holds them exactly, every sharding and every scheme.
//
// Files come from outside, so every rule of the format is enforced, the limits before anything is allocated, and an error names
// file, tensor, have and want. Values are read with ReadAt into the caller's memory. A mapping was tried and left out: on an
// amd64 machine of two cores it took as long as ReadAt (the widening costs more than the copy; BenchmarkRead compares them),
// and a file that shrinks under a mapping kills the process with SIGBUS where ReadAt returns an error.
package checkpoint
