package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	tiny "github.com/llavaref/llavaref/golden/vectors/tokenizer"
	"github.com/llavaref/llavaref/ref/tokenizer"
)

// wordsFlags choose a tokenizer.
type wordsFlags struct{ model, variant string }

func (f *wordsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.model, "model", "", "the folder of a checkpoint, or a model that comes with the program: "+strings.Join(tiny.Models(), ", "))
	cmd.Flags().StringVar(&f.variant, "variant", "", "cut text as another version does: prepend, metaspace, metaspace-legacy")
}

// load reads the tokenizer. A folder comes before a model of the same name.
func (f *wordsFlags) load() (*tokenizer.Tokenizer, error) {
	if f.model == "" {
		return nil, usage("--model is missing, want the folder of a checkpoint")
	}
	var t *tokenizer.Tokenizer
	var err error
	if info, statErr := os.Stat(f.model); statErr != nil || !info.IsDir() {
		if folder := tiny.Folder(f.model); folder != nil {
			t, err = tokenizer.LoadFS(folder)
		}
	}
	if t == nil && err == nil {
		t, err = tokenizer.Load(f.model)
	}
	if err != nil || f.variant == "" {
		return t, err
	}
	if t, err = t.As(tokenizer.Variant(f.variant)); err != nil {
		return nil, usage("--variant: %w", err)
	}
	return t, nil
}

// tokenizeFlags are the flags of tokenize.
type tokenizeFlags struct {
	words                                        wordsFlags
	lines, identify                              string
	json, pieces, noSpecial, decode, skipSpecial bool
}

func tokenizeCommand() *cobra.Command {
	var f tokenizeFlags
	cmd := &cobra.Command{
		Use:   "tokenize --model DIR [TEXT | --lines FILE]",
		Short: "Turn text into token ids, and back",
		Long: `Tokenize prints the ids of TEXT as transformers makes them, with the begin-of-text token that the checkpoint's
tokenizer.json asks for; --no-special leaves it out. Ids are numbers with spaces between, one line a text. With
--lines FILE every line of the file is a text of its own ("-" is the standard input).

--pieces shows the split instead, one piece a line: the piece, its ids, its tokens as the vocabulary spells them. A piece
is what is turned into ids without regard to its neighbours. --json prints an object a text: text, variant, ids, pieces.

--decode goes back: TEXT is ids (spaces, commas or a JSON list between them), the output is their text, and
--skip-special leaves special tokens out of it. Spaces are not cleaned up, as in transformers 5 and in 4 with
clean_up_tokenization_spaces=False.

LLaVA-1.5's vocabulary is cut in several ways. As its tokenizer.json stands (prepend), "<image>\nWhat" has a "▁" of its
own after the image; transformers 5 rebuilds the pipeline (metaspace) and has none. --variant chooses, and --identify IDS
says which of them makes IDS of TEXT: exit code 0 if that is the tokenizer's own or --variant's, 4 if it is another one,
1 if none does. Expanded image tokens count as one.

What is no UTF-8 in a text counts as U+FFFD, one for each maximal ill-formed subpart.`,
		Example: `  llavaref tokenize --model tiny-1.6 'What is shown here?'
  llavaref tokenize --model tiny-1.5 --pieces 'USER: <image> What?'
  llavaref tokenize --model tiny-1.5 --variant metaspace --json 'USER: <image> What?'
  llavaref tokenize --model tiny-1.6 --decode --skip-special '1 57 306 223 265 263 275 33 2'
  llavaref tokenize --model tiny-1.5 --identify '1 288 289 320 288 266' ' a<image>T'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("%s takes one text, got %d arguments; put quotes around it", cmd.CommandPath(), len(args))
			}
			return nil
		},
	}
	f.words.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.lines, "lines", "", `a file with a text a line, "-" for the standard input`)
	fs.BoolVar(&f.json, "json", false, "an object a text")
	fs.BoolVar(&f.pieces, "pieces", false, "show the split, a piece a line")
	fs.BoolVar(&f.noSpecial, "no-special", false, "without begin-of-text")
	fs.BoolVar(&f.decode, "decode", false, "from ids to text")
	fs.BoolVar(&f.skipSpecial, "skip-special", false, "with --decode: leave out special tokens")
	fs.StringVar(&f.identify, "identify", "", "say which variants make these ids of the text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, pair := range [][2]string{{"decode", "pieces"}, {"decode", "identify"}, {"decode", "no-special"}, {"pieces", "identify"}, {"pieces", "json"},
			{"json", "identify"}, {"lines", "identify"}, {"no-special", "identify"}} {
			if err := exclusive(cmd, pair[0], pair[1]); err != nil {
				return err
			}
		}
		if (len(args) == 1) == (f.lines != "") {
			return usage("want one of TEXT and --lines")
		}
		if f.skipSpecial && !f.decode {
			return usage("--skip-special goes with --decode")
		}
		t, err := f.words.load()
		if err != nil {
			return err
		}
		w := bufio.NewWriter(cmd.OutOrStdout())
		if err := eachText(cmd, args, f.lines, func(text string) error { return f.text(w, t, text) }); err != nil {
			return errors.Join(w.Flush(), err)
		}
		return w.Flush()
	}
	return cmd
}

// eachText calls do with the argument, or with every line of a file. A line may be long, but not without end.
func eachText(cmd *cobra.Command, args []string, path string, do func(string) error) error {
	if path == "" {
		return do(args[0])
	}
	const limit = 16 << 20
	in := io.Reader(cmd.InOrStdin())
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, limit)
	for n := 1; lines.Scan(); n++ {
		if err := do(lines.Text()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// tokenized is what --json prints.
type tokenized struct {
	Text    string            `json:"text"`
	Variant tokenizer.Variant `json:"variant,omitempty"`
	IDs     []int             `json:"ids"`
	Pieces  []pieceDoc        `json:"pieces,omitempty"`
}

type pieceDoc struct {
	Text   string   `json:"text"`
	IDs    []int    `json:"ids"`
	Tokens []string `json:"tokens"`
	Added  bool     `json:"added"`
}

// text does what the flags ask with one text.
func (f *tokenizeFlags) text(w io.Writer, t *tokenizer.Tokenizer, text string) error {
	switch {
	case f.decode:
		ids, err := parseIDs(text)
		if err != nil {
			return err
		}
		decoded := t.Decode(ids, f.skipSpecial)
		if f.json {
			return writeLine(w, tokenized{Text: decoded, IDs: ids})
		}
		_, err = fmt.Fprintln(w, decoded)
		return err
	case f.identify != "":
		return f.identified(w, t, text)
	}
	d := tokenized{Text: text, Variant: t.Variant(), IDs: []int{}}
	for _, p := range t.Split(text, !f.noSpecial) {
		d.IDs = append(d.IDs, p.IDs...)
		d.Pieces = append(d.Pieces, pieceDoc{p.Text, append([]int{}, p.IDs...), append([]string{}, p.Tokens...), p.Added})
	}
	switch {
	case f.json:
		return writeLine(w, d)
	case f.pieces:
		for _, p := range d.Pieces {
			if _, err := fmt.Fprintf(w, "%q\t%s\t%s\n", p.Text, joinIDs(p.IDs), strings.Join(p.Tokens, " ")); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := fmt.Fprintln(w, joinIDs(d.IDs))
	return err
}

// identified says which variants make the ids that --identify gives.
func (f *tokenizeFlags) identified(w io.Writer, t *tokenizer.Tokenizer, text string) error {
	ids, err := parseIDs(f.identify)
	if err != nil {
		return usage("--identify: %w", err)
	}
	found := t.Identify(text, ids)
	if image, err := t.ImageToken(); err == nil && found == nil {
		found = t.Identify(text, tokenizer.CollapseImages(ids, image))
	}
	if found == nil {
		fmt.Fprintln(w, "none of the variants makes these ids of the text")
		return exitError{code: exitNotConformant}
	}
	for _, v := range found {
		fmt.Fprintln(w, v)
	}
	if !slices.Contains(found, t.Variant()) {
		fmt.Fprintf(w, "other convention: %s. %s would make %s\n", found[0], t.Variant(), joinIDs(t.Encode(text, true)))
		return exitError{code: exitConvention}
	}
	return nil
}

// parseIDs reads ids with spaces or commas between them, in brackets or not.
func parseIDs(s string) ([]int, error) {
	ids := []int{}
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n,[]", r) }) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return nil, usage("%q is no id, want numbers with spaces or commas between them", word)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func joinIDs(ids []int) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = strconv.Itoa(id)
	}
	return strings.Join(words, " ")
}

// writeLine writes a value as JSON on one line, for output of many.
func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
