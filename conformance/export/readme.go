package export

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/llavaref/llavaref/golden"
	"github.com/llavaref/llavaref/shapes"
)

//go:embed readme.txt.tmpl
var readmeText string

var readmeTemplate = template.Must(template.New(ReadmeFile).Parse(readmeText))

// readme tells the author of an engine what to do with the folder.
func readme(set *golden.Set, c *golden.Case, d Description) []byte {
	dims := shapes.DimsOf(set.Config, c.Inputs)
	torch := map[string]string{"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
	var sizes []string
	for _, s := range c.Inputs.ImageSizes {
		sizes = append(sizes, fmt.Sprintf("[%d, %d]", s.H, s.W))
	}
	present := 0
	for _, n := range shapes.Nodes(set.Config) {
		if n.Present(dims) {
			present++
		}
	}
	var b bytes.Buffer
	err := readmeTemplate.Execute(&b, map[string]any{
		"Set": d.Set, "Case": d.Case, "Why": d.Why, "DType": d.DType, "Torch": torch[d.DType], "Naming": d.Naming, "Images": d.Images, "GGUF": d.GGUF,
		"T": dims.T, "N": dims.N, "R": dims.R, "V": set.Config.Text.VocabSize, "PX": set.Config.Vision.ImageSize, "ImageID": set.Config.ImageTokenID,
		"Channels": set.Config.Vision.NumChannels, "Sizes": strings.Join(sizes, ", "), "Nodes": present, "Next": set.Config.ModelType == shapes.LlavaNext,
		"Class": d.DType, "Head": shapes.LMHead, "Far": far(c.Inputs.PositionIDs),
	})
	if err != nil {
		panic(err) // the template and its fields are ours
	}
	return b.Bytes()
}

// far says whether the positions are others than 0, 1, 2, ...
func far(ids []int) bool {
	for i, id := range ids {
		if i != id {
			return true
		}
	}
	return false
}
