package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Load reads the text side of a checkpoint's folder, in any layout that transformers 4.39 to 5.23 writes. Only
// tokenizer.json has to be there; what else is missing is an error of the method that needs it, and says which files would
// hold it.
func Load(dir string) (*Tokenizer, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("tokenizer: %s is no folder, want that of a checkpoint", dir)
	}
	t, err := LoadFS(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, dir)
	}
	return t, nil
}

// LoadFS is Load of a folder that need not be on disk.
func LoadFS(dir fs.FS) (*Tokenizer, error) {
	data, err := readFile(dir, "tokenizer.json", maxTokenizerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingTokenizer(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, err
	}
	var files [5]object
	for i, name := range []string{"tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json", "processor_config.json"} {
		if files[i], err = readObject(dir, name); err != nil {
			return nil, err
		}
	}
	config, specials, model, generation, processor := files[0], files[1], files[2], files[3], files[4]
	if err := t.configure(config, specials); err != nil {
		return nil, err
	}
	if t.chat, t.noChat, err = loadTemplate(dir, config, processor); err != nil {
		return nil, err
	}
	if t.stop, t.noStop, err = stopIDs(generation, model); err != nil {
		return nil, err
	}
	t.image, t.noImage = t.imageToken(processor, model)
	return t, nil
}

// missingTokenizer says what is there instead of tokenizer.json.
func missingTokenizer(dir fs.FS) error {
	hint := "it holds the vocabulary and the merges, and transformers writes it when it saves a fast tokenizer"
	if _, err := fs.Stat(dir, "tokenizer.model"); err == nil {
		hint += "; tokenizer.model, which is there, is the same vocabulary in a form that is not read here"
	}
	return fmt.Errorf("tokenizer: tokenizer.json is missing: %s", hint)
}

// configure applies tokenizer_config.json: its special tokens, added tokens that tokenizer.json lacks, and whether
// begin-of-text is added. Where transformers 4 and 5 would make different ids of it, the checkpoint is refused.
func (t *Tokenizer) configure(config, specials object) error {
	r := &reader{path: "tokenizer_config.json"}
	if r.boolean(config, "split_special_tokens", false) {
		r.fail("split_special_tokens true is not supported, want false")
	}
	more := t.missingTokens(r, config)
	if r.err != nil {
		return r.err
	}
	if len(more) > 0 {
		p, err := t.with(more)
		if err != nil {
			return fmt.Errorf("tokenizer: tokenizer_config.json: added_tokens_decoder: %w", err)
		}
		t.pipeline = p
	}
	for _, name := range []string{"bos_token", "eos_token", "unk_token", "pad_token", "image_token"} {
		for _, o := range []object{config, specials} {
			if token := r.token(o, name); token != "" && t.named[name] == "" {
				t.named[name] = token
			}
		}
		if token := t.named[name]; token != "" {
			if _, ok := t.id(token); !ok {
				r.fail("%s %q is not in tokenizer.json", name, token)
			}
		}
	}
	t.checkBOS(r, config)
	return r.err
}

// token reads a special token: a string, or an object with its content.
func (r *reader) token(o object, name string) string {
	if !o.has(name) {
		return ""
	}
	if o[name][0] == '{' {
		return r.str(r.object(o, name), "content", "")
	}
	return r.str(o, name, "")
}

// missingTokens are the tokens of added_tokens_decoder that tokenizer.json does not list, by id. One that it does list must
// be the same there: the versions of the library make different things of two that differ.
func (t *Tokenizer) missingTokens(r *reader, config object) []AddedToken {
	listed := r.object(config, "added_tokens_decoder")
	if len(listed) > maxAddedTokens {
		r.fail("added_tokens_decoder: %d tokens, want at most %d", len(listed), maxAddedTokens)
		return nil
	}
	var more []AddedToken
	for _, key := range slices.Sorted(maps.Keys(listed)) {
		id, err := strconv.Atoi(key)
		if err != nil || id < 0 || id > maxID {
			r.fail("added_tokens_decoder: %q is no id", key)
			return nil
		}
		token := r.addedToken(r.object(listed, key), id)
		if have, ok := t.added.byContent[token.Content]; !ok {
			more = append(more, token)
		} else if t.added.byID[have] != token {
			r.fail("added_tokens_decoder: %q is %+v, but in tokenizer.json %+v", token.Content, token, t.added.byID[have])
			return nil
		}
	}
	slices.SortFunc(more, func(a, b AddedToken) int { return a.ID - b.ID })
	return more
}

// checkBOS holds add_bos_token and add_eos_token against what tokenizer.json puts around a text. The class LlamaTokenizer
// follows the former, in 4.x with begin-of-text where nothing is said; every other class follows tokenizer.json in 4.x and
// an explicit setting in 5.x.
func (t *Tokenizer) checkBOS(r *reader, config object) {
	class := strings.TrimSuffix(r.str(config, "tokenizer_class", ""), "Fast")
	for _, is := range []struct {
		key, token string
		there      []int
		def        bool // of LlamaTokenizer in 4.x
	}{
		{"add_bos_token", "bos_token", t.around.before, true},
		{"add_eos_token", "eos_token", t.around.after, false},
	} {
		if !config.has(is.key) && class != "LlamaTokenizer" {
			continue
		}
		want := []int{}
		if r.boolean(config, is.key, is.def) {
			id, ok := t.id(t.named[is.token])
			if !ok {
				r.fail("%s is true, but there is no %s", is.key, is.token)
			}
			want = append(want, id)
		}
		if !slices.Equal(want, is.there) {
			r.fail("%s asks for ids %v around a text, but the post_processor of tokenizer.json puts %v there: versions of transformers differ on which of them counts", is.key, want, is.there)
		}
	}
}

// loadTemplate finds the chat template as processors do: chat_template.json (4.43 to 4.51) before chat_template.jinja (from
// 4.52), then what the configuration of the processor (4.42) or of the tokenizer (before) holds. missing says where it was
// looked for if there is none.
func loadTemplate(dir fs.FS, config, processor object) (t *chatTemplate, missing, err error) {
	text, found := "", false
	old, err := readObject(dir, "chat_template.json")
	if err != nil {
		return nil, nil, err
	}
	r := &reader{path: "chat_template.json"}
	if old != nil {
		text, found = r.templateIn(old)
		if !found {
			r.fail("chat_template is missing")
		}
	}
	if !found {
		raw, err := readFile(dir, "chat_template.jinja", maxTemplate)
		if err == nil {
			text, found = string(raw), true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("tokenizer: %w", err)
		}
	}
	for _, in := range []struct {
		name string
		o    object
	}{{"processor_config.json", processor}, {"tokenizer_config.json", config}} {
		if !found {
			r.path = in.name
			text, found = r.templateIn(in.o)
		}
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	if !found {
		return nil, fmt.Errorf("tokenizer: there is no chat template: it stands in chat_template.json, in chat_template.jinja, or under chat_template in processor_config.json or tokenizer_config.json"), nil
	}
	t, err = parseTemplate(text)
	return t, nil, err
}

// templateIn reads chat_template: a string, or a list of named ones, of which the one named default counts.
func (r *reader) templateIn(o object) (string, bool) {
	if !o.has("chat_template") {
		return "", false
	}
	if o["chat_template"][0] != '[' {
		return r.str(o, "chat_template", ""), true
	}
	for _, named := range r.objects(o, "chat_template") {
		if r.str(named, "name", "") == "default" {
			return r.str(named, "template", ""), true
		}
	}
	r.fail("chat_template: none of the list is named \"default\"")
	return "", false
}

// stopIDs reads eos_token_id. Without a generation_config.json transformers makes one of config.json, where the text model's
// id counts if the whole has none, and LlamaConfig's own, 2, if that has none either.
func stopIDs(generation, model object) (ids []int, missing, err error) {
	r := &reader{path: "generation_config.json"}
	if generation != nil {
		if ids = r.idOrIDs(generation, "eos_token_id"); ids == nil && r.err == nil {
			return nil, fmt.Errorf("tokenizer: generation_config.json has no eos_token_id"), nil
		}
		return ids, nil, r.err
	}
	if model == nil {
		return nil, fmt.Errorf("tokenizer: neither generation_config.json nor config.json is there to say eos_token_id"), nil
	}
	r.path = "config.json"
	if ids = r.idOrIDs(model, "eos_token_id"); ids == nil {
		if ids = r.idOrIDs(r.object(model, "text_config"), "eos_token_id"); ids == nil {
			ids = []int{2}
		}
	}
	return ids, nil, r.err
}

// idOrIDs reads an id or a list of them; nil if there is none.
func (r *reader) idOrIDs(o object, key string) []int {
	if !o.has(key) {
		return nil
	}
	if o[key][0] == '[' {
		return r.ids(o, key)
	}
	return []int{r.integer(o, key, 0, 0, maxID)}
}

// imageToken finds the image token by its text and holds its id against config.json's: a prompt with the placeholder of
// another family (32000, -200) would look up the embedding of some other token.
func (t *Tokenizer) imageToken(processor, model object) (int, error) {
	if model == nil {
		return none, fmt.Errorf("tokenizer: config.json is missing: it says which id stands for an image")
	}
	r := &reader{path: "processor_config.json"}
	text := r.str(processor, "image_token", "<image>")
	if named := t.named["image_token"]; named != "" {
		text = named // of the tokenizer, which comes first
	}
	r.path = "config.json"
	key := "image_token_index"
	if !model.has(key) {
		key = "image_token_id"
	}
	want := r.integer(model, key, 32000, 0, maxID)
	if r.err != nil {
		return none, r.err
	}
	id, ok := t.added.byContent[text]
	if !ok {
		return none, fmt.Errorf("tokenizer: the image token %q is not among the added tokens of tokenizer.json", text)
	}
	if id != want {
		return none, fmt.Errorf("tokenizer: the image token %q has id %d in tokenizer.json, but %s is %d in config.json", text, id, key, want)
	}
	if token := t.added.byID[id]; token.Normalized || token.SingleWord {
		return none, fmt.Errorf("tokenizer: the image token %q is normalized or single_word: repeated in the text it would not give as many ids", text)
	}
	for content := range t.added.byContent {
		if content != text && strings.Contains(content, text) {
			return none, fmt.Errorf("tokenizer: the added token %q holds the image token %q: repeated in the text it would not give as many ids", content, text)
		}
	}
	return id, nil
}
