package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/ref/tokenizer"
)

func checkIDsCommand() *cobra.Command {
	var words wordsFlags
	cmd := &cobra.Command{
		Use:   "ids FILE --model DIR",
		Short: "Test an engine's token ids",
		Long: `Ids holds token ids that an engine made against those of a checkpoint's tokenizer. FILE has one JSON object a line, as
llavaref tokenize --json prints them: {"text": "...", "ids": [1, 2, 3]}; other fields are not looked at, and "-" is the
standard input. Expanded image tokens count as one, and begin-of-text may be there or not.

LLaVA-1.5's tokenizer.json as it stands is canonical. Where all ids are those of another published way to cut text, the
verdict is "other convention" and its name: metaspace is the pipeline that transformers 5 rebuilds.

Exit codes: 0 conformant, 1 not conformant, 2 wrong usage, 3 could not test, 4 another convention.`,
		Example: `  llavaref tokenize --model tiny-1.5 --json 'USER: <image> What?' > ids.jsonl
  llavaref check ids ids.jsonl --model tiny-1.5`,
		Args: oneArg(`a file with a text and its ids a line, "-" for the standard input`),
	}
	words.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := words.load()
		if err != nil {
			return err
		}
		v := idsVerdict{t: t, fits: map[tokenizer.Variant]int{}}
		if err := eachText(cmd, nil, args[0], v.line); err != nil {
			return err
		}
		return v.print(cmd)
	}
	return cmd
}

// idsVerdict counts which variants make an engine's ids.
type idsVerdict struct {
	t     *tokenizer.Tokenizer
	texts int
	ids   [2]int // the engine's, and the tokenizer's own; an image counts as one
	fits  map[tokenizer.Variant]int
	first string // the first text that the canonical variant cuts otherwise, with both lists of ids
}

func (v *idsVerdict) line(line string) error {
	if line == "" {
		return nil
	}
	var doc struct {
		Text *string `json:"text"`
		IDs  []int   `json:"ids"`
	}
	if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.Text == nil || doc.IDs == nil {
		return fmt.Errorf("text %d: want an object with text and ids a line: %w", v.texts+1, errors.Join(err, fmt.Errorf("%q", shortLine(line))))
	}
	v.texts++
	found, want := v.t.Identify(*doc.Text, doc.IDs), v.t.Encode(*doc.Text, true)
	have := doc.IDs
	if image, err := v.t.ImageToken(); err == nil && found == nil {
		have = tokenizer.CollapseImages(doc.IDs, image)
		found = v.t.Identify(*doc.Text, have)
	}
	if bos, ok := v.t.BOS(); ok && len(want) > 0 && want[0] == bos && (len(have) == 0 || have[0] != bos) {
		want = want[1:] // as the engine leaves it out
	}
	v.ids[0], v.ids[1] = v.ids[0]+len(have), v.ids[1]+len(want)
	for _, variant := range found {
		v.fits[variant]++
	}
	if !slices.Contains(found, v.t.Variant()) && v.first == "" {
		v.first = fmt.Sprintf("text %d, %q: ids %s, want %s", v.texts, *doc.Text, joinIDs(doc.IDs), joinIDs(v.t.Encode(*doc.Text, true)))
	}
	return nil
}

func (v *idsVerdict) print(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	if v.texts == 0 {
		return errors.New("the file has no texts, nothing was compared")
	}
	canonical := v.t.Variant()
	if v.fits[canonical] == v.texts {
		fmt.Fprintf(w, "conformant: the ids of %d texts are the tokenizer's (%s).\n", v.texts, canonical)
		return nil
	}
	fmt.Fprintln(w, v.first)
	for _, variant := range v.t.Variants() {
		if v.fits[variant] == v.texts {
			fmt.Fprintf(w, "other convention: %s. %d of %d texts have other ids than the tokenizer's own (%s): %d ids for %d in all.\n", variant, v.texts-v.fits[canonical], v.texts, canonical, v.ids[0], v.ids[1])
			return exitError{code: exitConvention}
		}
	}
	fmt.Fprintf(w, "not conformant: %d of %d texts have other ids than the tokenizer's (%s), and no other convention makes all of them.\n", v.texts-v.fits[canonical], v.texts, canonical)
	return exitError{code: exitNotConformant}
}
