package shapes

import (
	"fmt"
	"regexp"
	"strings"
)

// Scheme is one world's way of naming the same tensors.
type Scheme string

// The schemes. OnDisk is the project's own; every other one translates to it and back without loss.
// GGUF is not among them: it also reorders rows, so it is a layout and not only a naming.
const (
	OnDisk          Scheme = "hf"             // checkpoints on the hub; transformers up to 4.51 in memory
	Transformers452 Scheme = "hf-4.52"        // transformers 4.52 to 5.5 in memory
	Transformers56  Scheme = "hf-5.6"         // transformers 5.6 and later in memory: the vision_model level is gone
	TransformersNew Scheme = "hf-from-config" // what transformers 5.23 writes for a model that was built from a config and never loaded
	Original        Scheme = "original"       // the LLaVA and LLaVA-NeXT repositories
	LiteLlama       Scheme = "lite-llama"     // lite_llama's LLaVA-1.5: wq, attention_norm_weight, feed_forward
)

// Schemes lists all schemes, OnDisk first.
func Schemes() []Scheme {
	return []Scheme{OnDisk, Transformers452, Transformers56, TransformersNew, Original, LiteLlama}
}

// ParseScheme finds a scheme by its name.
func ParseScheme(s string) (Scheme, error) {
	var names []string
	for _, scheme := range Schemes() {
		if string(scheme) == s {
			return scheme, nil
		}
		names = append(names, string(scheme))
	}
	return "", fmt.Errorf("naming scheme %q is not known, want one of %s", s, strings.Join(names, ", "))
}

// prefixes are the on-disk module paths that a scheme calls otherwise; the first that fits is taken.
var prefixes = map[Scheme][][2]string{
	OnDisk: {},
	Transformers452: {
		{TextModel, "model.language_model"},
		{LMHead, "lm_head"},
		{VisionTower, "model.vision_tower.vision_model"},
		{Projector, "model.multi_modal_projector"},
		{ImageNewline, "model.image_newline"},
	},
	Transformers56: {
		{TextModel, "model.language_model"},
		{LMHead, "lm_head"},
		{VisionTower, "model.vision_tower"},
		{Projector, "model.multi_modal_projector"},
		{ImageNewline, "model.image_newline"},
	},
	TransformersNew: {
		{VisionTower, "vision_tower"},
	},
	Original: {
		{TextModel, "model"},
		{LMHead, "lm_head"},
		{VisionTower, "model.vision_tower.vision_tower.vision_model"},
		{Projector + ".linear_1", "model.mm_projector.0"},
		{Projector + ".linear_2", "model.mm_projector.2"},
		{ImageNewline, "model.image_newline"},
	},
	LiteLlama: {
		{TextModel + ".norm.weight", "language_model.norm_weight"},
		{TextModel, "language_model"},
	},
}

// liteLlamaLeaves are the names that lite_llama gives inside a decoder layer.
var liteLlamaLeaves = [][2]string{
	{"input_layernorm.weight", "attention_norm_weight"},
	{"post_attention_layernorm.weight", "ffn_norm_weight"},
	{"self_attn.q_proj", "attention.wq"},
	{"self_attn.k_proj", "attention.wk"},
	{"self_attn.v_proj", "attention.wv"},
	{"self_attn.o_proj", "attention.wo"},
	{"self_attn", "attention"},
	{"mlp", "feed_forward"},
}

var textLayerPath = regexp.MustCompile(`^(language_model\.layers\.\d+\.)(.+)$`)

// FromDisk translates the on-disk name of a parameter, a module or a node.
func (s Scheme) FromDisk(name string) string {
	for _, p := range prefixes[s] {
		if rest, ok := cutPath(name, p[0]); ok {
			name = p[1] + rest
			break
		}
	}
	if s == LiteLlama {
		if m := textLayerPath.FindStringSubmatch(name); m != nil {
			for _, leaf := range liteLlamaLeaves {
				if rest, ok := cutPath(m[2], leaf[0]); ok {
					return m[1] + leaf[1] + rest
				}
			}
		}
	}
	return name
}

// cutPath cuts a leading module path: "a.b" from "a.b" and from "a.b.c", not from "a.bc".
func cutPath(name, path string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(name, path)
	return rest, ok && (rest == "" || rest[0] == '.')
}

// ParamsIn lists the model's parameters under a scheme's names, in the order in which that scheme's own model lists them.
func ParamsIn(c Config, s Scheme) []Param {
	ps := Params(c)
	if s == LiteLlama {
		ps = liteLlamaOrder(ps)
	}
	for i := range ps {
		ps[i].Name = s.FromDisk(ps[i].Name)
	}
	return ps
}

// liteLlamaOrder puts norms and matrices where lite_llama's modules declare them: bare parameters before submodules.
func liteLlamaOrder(ps []Param) []Param {
	rank := func(name string) int {
		switch {
		case strings.HasPrefix(name, TextModel+".layers."):
			return 4
		case strings.HasPrefix(name, LMHead):
			return 3
		case strings.HasPrefix(name, TextModel+".embed_tokens"):
			return 2
		case strings.HasPrefix(name, TextModel+".norm"):
			return 1
		}
		return 0
	}
	var out []Param
	for want := range 4 {
		for _, p := range ps {
			if rank(p.Name) == want {
				out = append(out, p)
			}
		}
	}
	var layer []Param // one decoder layer: the two norms come last on disk and first here
	for _, p := range ps {
		if rank(p.Name) != 4 {
			continue
		}
		layer = append(layer, p)
		if strings.HasSuffix(p.Name, "post_attention_layernorm.weight") {
			out = append(append(out, layer[len(layer)-2:]...), layer[:len(layer)-2]...)
			layer = layer[:0]
		}
	}
	return out
}

// Match is what the names found in a checkpoint are, held against the inventory.
type Match struct {
	Scheme     Scheme
	Disk       map[string]string // name as found -> on-disk name
	Missing    []string          // parameters that were not found, under the scheme's names
	Unexpected []string          // names that are no parameter of the model
	Buffers    []string          // names of buffers, computed and never learnt: not parameters, and not missed
}

// MatchNames finds the scheme under which most of the names are parameters of the model, and says what is missing and what is over.
// Nothing is left out in silence: every name found is in Disk, Unexpected or Buffers.
func MatchNames(c Config, names []string) Match {
	var best Match
	for _, s := range Schemes() {
		if s == LiteLlama && c.ModelType != Llava {
			continue // lite_llama names LLaVA-1.5 only
		}
		if m := matchScheme(c, s, names); best.Disk == nil || len(m.Disk) > len(best.Disk) {
			best = m
		}
	}
	return best
}

func matchScheme(c Config, s Scheme, names []string) Match {
	m := Match{Scheme: s, Disk: map[string]string{}}
	want := map[string]string{}
	for _, p := range Params(c) {
		want[s.FromDisk(p.Name)] = p.Name
	}
	for _, name := range names {
		if disk, ok := want[name]; ok {
			m.Disk[name] = disk
		} else if IsBuffer(name) {
			m.Buffers = append(m.Buffers, name)
		} else {
			m.Unexpected = append(m.Unexpected, name)
		}
	}
	for _, p := range ParamsIn(c, s) {
		if _, ok := m.Disk[p.Name]; !ok {
			m.Missing = append(m.Missing, p.Name)
		}
	}
	return m
}
