module github.com/llavaref/llavaref

go 1.26
