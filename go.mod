module github.com/llavaref/llavaref

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/nlpodyssey/safetensors v0.0.0-20250209183917-bfb01cc25f7c // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
