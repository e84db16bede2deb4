package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGenerated holds that the assembly in the repository is what the generator writes.
func TestGenerated(t *testing.T) {
	for name, fill := range files {
		t.Run(name, func(t *testing.T) {
			want, err := generate(fill)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join("..", name))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs from what the generator writes: run `go run .` here", name)
			}
		})
	}
}
