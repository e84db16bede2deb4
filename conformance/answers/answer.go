package answers

import (
	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/shapes"
)

// Answer is what an engine makes of one conversation. What is nil was not given, and is not judged.
type Answer struct {
	Info conformance.Info

	// Pixels reads the engine's own pixel_values: [N, 3, px, px], the tiles of all images in order, or [images, tiles, 3, px, px] filled up with
	// zeros. More than so many values are an error.
	Pixels      func(most int) (shapes.Tensor, error)
	ImageSizes  []shapes.Size // of the images as the engine has read them
	ImageTokens []int         // how many image tokens stand for each image
	Prompt      *string       // what the engine's chat template makes of the conversation, one image token an image
	InputIDs    []int         // with one image token an image, or one for each row of image features
	NewIDs      []int         // that the engine chooses, greedily, an end-of-sequence id included
	Text        *string       // of NewIDs, without special tokens

	Parameters func() ([]shapes.Param, error) // reads the engine's list of parameters
	Close      func() error                   // called when nothing is read any more; may be nil
}
