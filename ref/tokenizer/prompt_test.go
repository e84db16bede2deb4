package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/shapes"
)

type templateVector struct {
	Name     string          `json:"name"`
	Template string          `json:"template"` // the first line of a name has its text, and nothing else
	Messages json.RawMessage `json:"messages"`
	Generate bool            `json:"generate"`
	Want     *string         `json:"want"` // nil where Jinja raised an error
}

// refusals are what Jinja renders and this package does not, by the template's name and a part of the error.
var refusals = map[string]string{"adjacent strings": "expected here"}

func TestTemplatesAreRenderedAsJinjaDoes(t *testing.T) {
	toks := map[string]*Tokenizer{}
	rendered, raised := map[string]int{}, map[string]int{}
	for _, v := range readLines[templateVector](t, "templates.json.gz") {
		if v.Template != "" {
			chat, err := parseTemplate(v.Template)
			toks[v.Name] = &Tokenizer{chat: chat, noChat: err, named: map[string]string{"bos_token": "<|begin_of_text|>"}}
			continue
		}
		messages, err := ParseMessages(v.Messages)
		if err != nil {
			t.Fatal(err)
		}
		got, err := toks[v.Name].Template(messages, v.Generate)
		switch {
		case v.Want == nil && err == nil:
			t.Errorf("%s: %s renders as %q, but Jinja raises an error", v.Name, v.Messages, got)
		case v.Want == nil:
			raised[v.Name]++
		case err != nil && refusals[v.Name] != "" && strings.Contains(err.Error(), refusals[v.Name]):
		case err != nil || got != *v.Want:
			t.Errorf("%s: %s, generate %v: %v\n got %q\nwant %q", v.Name, v.Messages, v.Generate, err, got, *v.Want)
		default:
			rendered[v.Name]++
		}
	}
	t.Logf("rendered %v, raised %v", rendered, raised)
	for _, name := range []string{"llama3", "llama2"} {
		if rendered[name] < 100 {
			t.Errorf("%s: %d renderings, want at least 100", name, rendered[name])
		}
	}
}

type promptVector struct {
	Family   string            `json:"family"`
	Messages json.RawMessage   `json:"messages"`
	Sizes    [][2]int          `json:"sizes"` // height, width
	Text     string            `json:"text"`
	IDs      []json.RawMessage `json:"ids"` // an id, or [image token, times]
	MS       []json.RawMessage `json:"ms"`
	ML       []json.RawMessage `json:"ml"`
}

// runs are ids with their runs of image tokens written out.
func runs(t testing.TB, from []json.RawMessage) []int {
	var ids []int
	for _, raw := range from {
		var run [2]int
		if raw[0] != '[' {
			run[1] = 1
			if err := json.Unmarshal(raw, &run[0]); err != nil {
				t.Fatal(err)
			}
		} else if err := json.Unmarshal(raw, &run); err != nil {
			t.Fatal(err)
		}
		for range run[1] {
			ids = append(ids, run[0])
		}
	}
	return ids
}

func (v promptVector) images() []shapes.Size {
	var sizes []shapes.Size
	for _, s := range v.Sizes {
		sizes = append(sizes, shapes.Size{H: s[0], W: s[1]})
	}
	return sizes
}

// prompter is a small tokenizer with the real templates and the real counting.
func prompter(t testing.TB, family string) (*Tokenizer, preprocess.Processor) {
	tok := small(t, family)
	c := preprocess.Config{ModelType: shapes.Llava, Edge: 336, Crop: 336, PatchSize: 14, SelectStrategy: shapes.SelectDefault,
		Expansion: &preprocess.Expansion{AdditionalTokens: 1, SelectStrategy: shapes.SelectDefault}}
	tok.named["bos_token"] = "<s>"
	if family == "llama3" {
		c.ModelType = shapes.LlavaNext
		c.Pinpoints = []shapes.Size{{H: 336, W: 672}, {H: 672, W: 336}, {H: 672, W: 672}, {H: 1008, W: 336}, {H: 336, W: 1008}}
		tok.named["bos_token"] = "<|begin_of_text|>"
	}
	tok.image, tok.noImage = tok.added.byContent["<image>"], nil
	for _, v := range readLines[templateVector](t, "templates.json.gz") {
		if v.Name == family && v.Template != "" {
			tok.chat, tok.noChat = parseTemplate(v.Template)
		}
	}
	return tok, preprocess.Processor{Config: c}
}

// counts are the image tokens that transformers' processor writes for images.
func counts(p preprocess.Processor, images []shapes.Size) ([]int, error) {
	var out []int
	for _, size := range images {
		plan, err := p.Plan(size)
		if err != nil {
			return nil, err
		}
		n, _ := p.Expanded(plan)
		out = append(out, n)
	}
	return out, nil
}

func TestPromptsAreThoseOfTheProcessors(t *testing.T) {
	toks, processors := map[string]*Tokenizer{}, map[string]preprocess.Processor{}
	for _, family := range []string{"llama3", "llama2"} {
		toks[family], processors[family] = prompter(t, family)
	}
	variants, differ := 0, 0
	for _, v := range readLines[promptVector](t, "prompts.json.gz") {
		tok := toks[v.Family]
		messages, err := ParseMessages(v.Messages)
		if err != nil {
			t.Fatal(err)
		}
		text, err := tok.Template(messages, true)
		if err != nil || text != v.Text {
			t.Errorf("Template(%s) = %q, %v, want %q", v.Messages, text, err, v.Text)
		}
		counts, err := counts(processors[v.Family], v.images())
		if err != nil {
			t.Fatal(err)
		}
		got, err := tok.Prompt(messages, true, counts)
		if want := runs(t, v.IDs); err != nil || !slices.Equal(got, want) {
			t.Errorf("Prompt(%s): %v\n got %v\nwant %v", v.Messages, err, CollapseImages(got, tok.image), CollapseImages(want, tok.image))
		}
		for variant, from := range map[Variant][]json.RawMessage{Metaspace: v.MS, MetaspaceLegacy: v.ML} {
			if from == nil {
				continue
			}
			variants++
			want := runs(t, from)
			got, err := as(t, tok, variant).Prompt(messages, true, counts)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: Prompt(%s): %v\n got %v\nwant %v", variant, v.Messages, err, CollapseImages(got, tok.image), CollapseImages(want, tok.image))
			}
			if !slices.Equal(want, runs(t, v.IDs)) {
				differ++
			}
		}
	}
	t.Logf("%d prompts of transformers 5's variants, %d of them other ids than the canonical", variants, differ)
	if differ == 0 {
		t.Error("no prompt tells the variants apart")
	}
}

// transformers repeats "<image>" in the text before it makes ids of it; here ids are repeated. They must come to the same,
// whatever stands around the image and in every variant.
func TestExpansionOnIDsIsExpansionOnText(t *testing.T) {
	for variant, tok := range variants(t) {
		image := tok.added.byContent["<image>"]
		texts := 0
		for _, line := range readLines[stringVector](t, "strings.jsonl.gz") {
			places := strings.Count(line.Text, "<image>")
			if places == 0 {
				continue
			}
			texts++
			counts := make([]int, places)
			parts := strings.Split(line.Text, "<image>")
			expanded := parts[0]
			for i := range counts {
				counts[i] = 1 + (i+len(line.Text))%5
				expanded += strings.Repeat("<image>", counts[i]) + parts[i+1]
			}
			got, err := ExpandImages(tok.Encode(line.Text, true), image, counts)
			if want := tok.Encode(expanded, true); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, %v: %v\n got %v\nwant %v", variant, line.Text, counts, err, got, want)
			}
		}
		if texts < 100 {
			t.Errorf("%s: %d texts with images", variant, texts)
		}
	}
}

type countVector struct {
	Family     string   `json:"family"`
	Tile       int      `json:"tile"`
	Patch      int      `json:"patch"`
	Strategy   string   `json:"strategy"`
	Additional int      `json:"additional"`
	Pinpoints  [][2]int `json:"pinpoints"`
	Counts     [][3]int `json:"counts"` // height, width, image tokens
}

func TestCountsAreThoseOfTheProcessors(t *testing.T) {
	n := 0
	for _, v := range readLines[countVector](t, "counts.json.gz") {
		if v.Family == "llama3" && v.Strategy == shapes.SelectFull {
			continue // a LLaVA-1.6 model of that kind is refused
		}
		p := preprocess.Processor{Config: preprocess.Config{ModelType: shapes.Llava, Edge: v.Tile, Crop: v.Tile, PatchSize: v.Patch, SelectStrategy: v.Strategy,
			Expansion: &preprocess.Expansion{AdditionalTokens: v.Additional, SelectStrategy: v.Strategy}}}
		if v.Family == "llama3" {
			p.ModelType = shapes.LlavaNext
		}
		for _, pin := range v.Pinpoints {
			p.Pinpoints = append(p.Pinpoints, shapes.Size{H: pin[0], W: pin[1]})
		}
		for _, c := range v.Counts {
			n++
			if got, err := counts(p, []shapes.Size{{H: c[0], W: c[1]}}); err != nil || got[0] != c[2] {
				t.Errorf("%s, tile %d, %s, additional %d: %dx%d (height x width): %d image tokens, %v, want %d",
					v.Family, v.Tile, v.Strategy, v.Additional, c[0], c[1], got, err, c[2])
			}
		}
	}
	t.Logf("%d counts", n)
}

func TestExpandImagesWantsAnImageForEachPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		want   string
	}{
		{"too few images", []int{2}, "2 image tokens (id 9) in the prompt, but 1 images"},
		{"too many images", []int{2, 2, 2}, "2 image tokens (id 9) in the prompt, but 3 images"},
		{"none", nil, "2 image tokens (id 9) in the prompt, but 0 images"},
		{"an image of no rows", []int{2, 0}, "image 2 of 2 takes 0 image tokens"},
		{"a negative count", []int{-1, 1}, "image 1 of 2 takes -1 image tokens"},
		{"more than there is room for", []int{1 << 40, 1}, "image 1 of 2 takes 1099511627776 image tokens"},
		{"more than there is room for in all", []int{1 << 24, 1 << 24}, "image 2 of 2 takes 16777216 image tokens"},
	} {
		if _, err := ExpandImages([]int{1, 9, 2, 9}, 9, c.counts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
	}
	got, err := ExpandImages([]int{1, 9, 2, 9}, 9, []int{3, 1})
	if err != nil || !slices.Equal(got, []int{1, 9, 9, 9, 2, 9}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got := CollapseImages(got, 9); !slices.Equal(got, []int{1, 9, 2, 9}) {
		t.Errorf("collapsed: %v", got)
	}
}
