package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/ref/tokenizer"
)

func templateCommand() *cobra.Command {
	var words wordsFlags
	var messages, prompt string
	var images int
	var generate, asIDs bool
	cmd := &cobra.Command{
		Use:   "template --model DIR (--messages FILE | --prompt TEXT)",
		Short: "Render a checkpoint's chat template",
		Long: `Template prints a conversation as the checkpoint's chat template renders it, byte for byte, as apply_chat_template of
transformers without tokenising. No line break is added at the end. The template stands in chat_template.json, in
chat_template.jinja, or under chat_template in processor_config.json or tokenizer_config.json.

FILE is the conversation in JSON ("-" is the standard input), for example

  [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}]

--prompt TEXT is a conversation of one question instead, about as many images as --images says. With
--add-generation-prompt the start of the answer is added. --ids prints the token ids, one image token an image: how many
an image takes, llavaref tokens says.

A template is a program. What it may do here is a part of Jinja: for, if, set, generation, strings, lists, the filters and
tests that chat templates of these models use. It sees the messages and nothing else, and it is stopped when it takes too
many steps. What is not supported is refused by its name, when the template comes to it.`,
		Example: `  llavaref template --model tiny-1.6 --prompt 'What is shown?' --images 1 --add-generation-prompt
  llavaref template --model tiny-1.5 --prompt 'What is shown?' --images 2 --ids`,
		Args: noArgs,
	}
	words.add(cmd)
	cmd.Flags().StringVar(&messages, "messages", "", `a file with a conversation, "-" for the standard input`)
	cmd.Flags().StringVar(&prompt, "prompt", "", "a question, instead of --messages")
	cmd.Flags().IntVar(&images, "images", 0, "with --prompt: how many images the question is about")
	cmd.Flags().BoolVar(&generate, "add-generation-prompt", false, "end with the start of the answer")
	cmd.Flags().BoolVar(&asIDs, "ids", false, "print token ids")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (messages == "") == (prompt == "") {
			return usage("want one of --messages and --prompt")
		}
		if images < 0 || images > 1000 || images > 0 && prompt == "" {
			return usage("--images %d, want 0 to 1000, with --prompt", images)
		}
		list := []tokenizer.Message{tokenizer.User(prompt, images)}
		if messages != "" {
			var err error
			if list, err = readMessages(cmd.InOrStdin(), messages); err != nil {
				return err
			}
		}
		t, err := words.load()
		if err != nil {
			return err
		}
		text, err := t.Template(list, generate)
		if err != nil {
			return err
		}
		if asIDs {
			text = joinIDs(t.EncodePrompt(text)) + "\n"
		}
		_, err = io.Copy(cmd.OutOrStdout(), strings.NewReader(text))
		return err
	}
	return cmd
}

// readMessages reads a conversation from a file.
func readMessages(stdin io.Reader, path string) ([]tokenizer.Message, error) {
	const limit = 1 << 21 // ParseMessages takes less
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	list, err := tokenizer.ParseMessages(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
