package shapes

import (
	"slices"
	"strings"
	"testing"
)

func names(ts []GGUFTensor) (out []string) {
	for _, t := range ts {
		out = append(out, t.Name)
	}
	return out
}

func TestGGUFHasEveryParameterThatTheLogitsNeed(t *testing.T) {
	for _, model := range []string{"llava-1.6-llama3-8b", "llava-1.5-7b", "tiny-1.6", "tiny-1.5", "wide"} {
		c, err := Model(model)
		if err != nil {
			t.Fatal(err)
		}
		for _, legacy := range []bool{false, true} {
			have := map[string]int{}
			files := [][]GGUFTensor{GGUFText(c), GGUFVision(c, legacy)}
			for _, file := range files {
				seen := map[string]bool{}
				for _, x := range file {
					if have[x.Param]++; seen[x.Name] || x.Name == "" || strings.Contains(x.Name, "..") {
						t.Errorf("%s: %q for %s, want a name of its own", model, x.Name, x.Param)
					}
					seen[x.Name] = true
				}
			}
			for _, p := range Params(c) {
				if want := map[bool]int{true: 0, false: 1}[p.Reach == Dead]; have[p.Name] != want {
					t.Errorf("%s: %s is there %d times, want %d", model, p.Name, have[p.Name], want)
				}
			}
		}
	}
}

// The counts are those of llama.cpp's converters: 291 text tensors, and 23 blocks of 16 tensors with 5 around them, 4 of the projector and the newline.
func TestGGUFOfTheRealModel(t *testing.T) {
	c, err := Model("llava-1.6-llama3-8b")
	if err != nil {
		t.Fatal(err)
	}
	text, vision, legacy := GGUFText(c), GGUFVision(c, false), GGUFVision(c, true)
	if len(text) != 291 || len(vision) != 23*16+5+4+1 || len(legacy) != len(vision) {
		t.Errorf("%d and %d tensors, want 291 and %d", len(text), len(vision), 23*16+5+4+1)
	}
	for _, want := range []string{"token_embd.weight", "output.weight", "output_norm.weight", "blk.31.attn_output.weight", "blk.0.ffn_norm.weight", "blk.7.ffn_gate.weight"} {
		if !slices.Contains(names(text), want) {
			t.Errorf("no %s in the text model", want)
		}
	}
	for _, want := range []string{"v.class_embd", "v.patch_embd.weight", "v.position_embd.weight", "v.pre_ln.bias", "v.blk.22.attn_out.bias", "v.blk.0.ln1.weight", "v.blk.0.ffn_up.bias", "mm.0.weight", "mm.2.bias", "v.image_newline"} {
		if !slices.Contains(names(vision), want) {
			t.Errorf("no %s in the projector's file", want)
		}
	}
	if slices.Contains(names(vision), "v.blk.23.ln1.weight") || slices.Contains(names(vision), "v.post_ln.weight") {
		t.Error("a block past the feature layer, or post_layernorm, is in the file")
	}
	shape := func(ts []GGUFTensor, name string) []int { return ts[slices.Index(names(ts), name)].Shape }
	if got := shape(vision, "v.blk.3.ffn_up.weight"); !slices.Equal(got, []int{4096, 1024}) {
		t.Errorf("ffn_up is %v, want fc1, [4096 1024]", got)
	}
	if got := shape(legacy, "v.blk.3.ffn_down.weight"); !slices.Equal(got, []int{4096, 1024}) {
		t.Errorf("legacy ffn_down is %v, want fc1, [4096 1024]", got)
	}
	if !slices.Contains(names(legacy), "model.image_newline") {
		t.Error("no model.image_newline in a legacy file")
	}
	for _, x := range text {
		want := 0
		if strings.Contains(x.Name, "attn_q") {
			want = 32
		} else if strings.Contains(x.Name, "attn_k") {
			want = 8
		}
		if x.Heads != want {
			t.Errorf("%s: rows of %d heads are moved, want %d", x.Name, x.Heads, want)
		}
	}
	for _, x := range vision {
		if x.Heads != 0 {
			t.Errorf("%s: rows are moved, want none in the tower", x.Name)
		}
	}
}

func TestGGUFRow(t *testing.T) {
	var got []int
	for r := range 16 {
		got = append(got, GGUFRow(8, r))
	}
	if want := []int{0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15}; !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}
