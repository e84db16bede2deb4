// Command gonum is gonum's float32 product as a peer: one request a line on the standard input, one answer a line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

type request struct {
	M, N, K int
	Type    string
	Warm    float64 // seconds, at least, that are not counted
	Time    float64 // and that are
}

func main() {
	if threads, err := strconv.Atoi(os.Args[1]); err == nil {
		runtime.GOMAXPROCS(threads)
	}
	version := "gonum"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "gonum.org/v1/gonum" {
				version = d.Version
			}
		}
	}
	fmt.Printf("{\"version\": %q}\n", version)
	in := bufio.NewScanner(os.Stdin)
	var x, w, y blas32.General
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if r.Type != "f32" {
			fmt.Println(`{"seconds": 0}`)
			continue
		}
		if x.Rows != r.M || x.Cols != r.K || w.Rows != r.N {
			x, w, y = matrix(r.M, r.K), matrix(r.N, r.K), matrix(r.M, r.N)
		}
		seconds(r.Warm, x, w, y)
		fmt.Printf("{\"seconds\": %g}\n", seconds(r.Time, x, w, y))
	}
}

// seconds is how long one product takes, of as many as fill the time.
func seconds(least float64, x, w, y blas32.General) float64 {
	begin, passes := time.Now(), 0
	for passes == 0 || time.Since(begin).Seconds() < least {
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, x, w, 0, y)
		passes++
	}
	return time.Since(begin).Seconds() / float64(passes)
}

func matrix(rows, cols int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = float32(i*7919%128-64) / 128
	}
	return m
}
