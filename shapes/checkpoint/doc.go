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
// file, tensor, have and want. Values are read with ReadAt into the caller's memory. A mapping was tried and left out: where the
// file is cached it widens 12 to 35 % more values a second on two amd64 cores, and where it is not, the disk decides
// (go test -bench Read ./shapes/checkpoint compares the two); but a file that is cut under a mapping kills the process
// with SIGBUS, where ReadAt returns an error.
package checkpoint
