package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"

	"github.com/llavaref/llavaref/shapes"
)

// Digest is the fingerprint of a model's weights that golden sets carry (docs/golden-format.md): SHA-256 in hexadecimal over all
// parameters in the order of shapes.Params, for each its on-disk name in UTF-8, a zero byte, and its values as little-endian
// float32. It does not depend on the dtype that holds the values, as long as it holds them exactly.
// progress, if not nil, is told how many values are done, of how many.
func Digest(cfg shapes.Config, w shapes.Weights, progress func(done, total int64)) (string, error) {
	params := shapes.Params(cfg)
	_, total := shapes.Total(params)
	done := int64(0)
	h := sha256.New()
	for _, p := range params {
		h.Write(append([]byte(p.Name), 0))
		err := writeValues(h, w, p, func(n int) {
			done += int64(n)
			if progress != nil {
				progress(done, int64(total))
			}
		})
		if err != nil {
			return "", fmt.Errorf("checkpoint: digest: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeValues writes a parameter's values as little-endian float32, a part at a time, and tells after each how many it had.
func writeValues(h io.Writer, w shapes.Weights, p shapes.Param, told func(n int)) error {
	values := make([]float32, min(p.Count(), 1<<16))
	raw := make([]byte, 4*len(values))
	for from, count := 0, p.Count(); from < count; from += len(values) {
		part := values[:min(len(values), count-from)]
		if err := w.Read(p.Name, from, part); err != nil {
			return err
		}
		for i, x := range part {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(x))
		}
		if _, err := h.Write(raw[:4*len(part)]); err != nil {
			return err
		}
		told(len(part))
	}
	return nil
}
