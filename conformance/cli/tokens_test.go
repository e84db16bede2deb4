package cli

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

func TestCutSize(t *testing.T) {
	for line, want := range map[string]shapes.Size{
		"640 480": {H: 480, W: 640}, " 1\t2 ": {H: 2, W: 1}, "7  8\r": {H: 8, W: 7}, "0 0": {}, "9999999999 1": {H: 1, W: 9999999999},
	} {
		if got, ok := cutSize([]byte(line)); !ok || got != want {
			t.Errorf("%q: %v, %v, want %v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "640", "640 ", "640x480", "640 480 3", "-1 5", "1.5 2", "a b", "99999999999 1", "640,480", "1 2x"} {
		if got, ok := cutSize([]byte(line)); ok {
			t.Errorf("%q: %v, want none", line, got)
		}
	}
}

func TestPlanLinesNamesTheLine(t *testing.T) {
	p := tinyProcessor(t, "tiny-1.6", preprocess.Pillow)
	for in, want := range map[string]string{
		"1 1\n2 2\n\n":                          `line 3: "", want WIDTH HEIGHT`,
		"1 1\n0 2\n":                            "line 2: ",
		strings.Repeat("1", 50):                 `line 1: "1111111111111111111111111111111111111...", want`,
		"1 1\n" + strings.Repeat("1 ", 100_000): "line 2: ",
	} {
		err := planLines(bufio.NewWriter(io.Discard), strings.NewReader(in), p)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want %q", in, err, want)
		}
	}
}

func FuzzPlanLines(f *testing.F) {
	for _, s := range []string{"640 480\n", "1 1\n2 2", "\t3 4 \r\n", "0 1\n", "9999999999 9999999999\n", ""} {
		f.Add([]byte(s))
	}
	c, err := shapes.Model("llava-1.6-llama3-8b")
	if err != nil {
		f.Fatal(err)
	}
	p := preprocess.Processor{Config: preprocess.DefaultConfig(c)}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		err := planLines(w, bytes.NewReader(in), p)
		if e := w.Flush(); e != nil {
			t.Fatal(e)
		}
		if lines := bytes.Count(out.Bytes(), []byte("\n")); err == nil && len(in) > 0 && lines == 0 {
			t.Errorf("%q: no line and no error", in)
		}
	})
}
