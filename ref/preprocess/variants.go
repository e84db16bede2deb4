package preprocess

import (
	"fmt"
	"strings"
)

// Variant names the library whose arithmetic is followed. Which canvas, which size and which padding are the same for all
// of them; the pixels of a resized image and the last bits of a normalised one are not.
type Variant string

// Variants. Pillow is the canonical one: the model was trained with it and transformers' processors used it up to 4.x.
const (
	Pillow      Variant = "pillow"      // Pillow up to 12.1.1: columns first, then rows
	Pillow122   Variant = "pillow-12.2" // Pillow 12.2 and 12.3: rows first for very tall images
	Pillow13    Variant = "pillow-13"   // Pillow 13.0: rows first where that is less work
	Torchvision Variant = "torchvision" // torchvision on uint8 tensors: 16-bit weights, and rescale and normalise in one step
)

// Variants lists them, the canonical one first.
func Variants() []Variant { return []Variant{Pillow, Pillow122, Pillow13, Torchvision} }

// ParseVariant is the variant of a name.
func ParseVariant(name string) (Variant, error) {
	var names []string
	for _, v := range Variants() {
		if name == string(v) {
			return v, nil
		}
		names = append(names, string(v))
	}
	return "", fmt.Errorf("variant %q is not known, want one of %s", name, strings.Join(names, ", "))
}
