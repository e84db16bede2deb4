package preprocess

import (
	"testing"

	"github.com/llavaref/llavaref/shapes"
)

func BenchmarkImage(b *testing.B) {
	for _, name := range []string{"photo-640x480", "photo-1920x1080", "photo-4000x3000"} {
		m := testImage(b, name)
		for _, model := range []string{"llava-1.6", "llava-1.5"} {
			p := testProcessor(b, model, Pillow)
			b.Run(model+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if _, _, err := p.Image(m); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	p := testProcessor(b, "llava-1.6", Pillow)
	size := shapes.Size{H: 480, W: 640}
	for b.Loop() {
		size.W = size.W%2000 + 1
		if p.planCanvas(size).Features == 0 {
			b.Fatal("no features")
		}
	}
}
