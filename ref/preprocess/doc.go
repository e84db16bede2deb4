// Package preprocess turns images into what the model sees, and says how many image tokens the prompt needs for them. The
// integers are exact: which canvas, which size, which padding, which count. So are the pixels, byte for byte, and the
// normalised values, bit for bit, of a named library.
//
// In the order of execution: decode.go, png.go and exif.go read a file as RGB; anyres.go chooses canvas and size; resize.go
// scales; pad.go and tiles.go put the result on the canvas and cut it; normalize.go makes float32 of it. processor.go calls
// them, for LLaVA-1.6 and for LLaVA-1.5, config.go reads the parameters from the model's folder, and variants.go names the
// libraries whose arithmetic can be followed.
//
// The rules that the comments cite by number are those of docs/preprocessing.md (I) and docs/spec.md (S).
//
// Sizes are shapes.Size, height first. Positions count from 0, from the top left.
package preprocess
