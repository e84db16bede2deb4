package cli

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/blackbox"
	"github.com/llavaref/llavaref/conformance/compare"
)

// logitsFile is the file of --engine logits:FILE.
func (f *checkFlags) logitsFile() (string, bool) {
	file, ok := strings.CutPrefix(f.engine, "logits:")
	return file, ok && file != ""
}

// runLogits judges an engine of which only the logits are known.
func (f *checkFlags) runLogits(cmd *cobra.Command, file string) error {
	if err := oneOf("format", f.format, "text", "json"); err != nil {
		return err
	}
	for _, flag := range []string{"report", "mode", "verbose", "fail-fast", "annotate", "machine"} {
		if cmd.Flags().Changed(flag) {
			return usage("--%s says nothing for an engine of which only the logits are known", flag)
		}
	}
	if err := knownConventions(f.allowed); err != nil {
		return err
	}
	if _, err := path.Match(f.pattern, ""); err != nil {
		return usage("--case %q: %w", f.pattern, err)
	}
	output, err := blackbox.Read(file)
	if err != nil {
		return err
	}
	if f.class != "" {
		if output.Info.Class, err = compare.ParseClass(f.class); err != nil {
			return usage("--class %q, want f32, f16 or bf16", f.class)
		}
	}
	sets, err := f.sets()
	if err != nil {
		return err
	}
	var targets []conformance.Target
	for _, set := range sets {
		b := newStepsBar(cmd.ErrOrStderr(), "fingerprint of the weights of "+set.Manifest.Model)
		target, release, err := conformance.OpenTarget(set, f.checkpoint, b.set)
		b.close()
		if err != nil {
			return err
		}
		defer release()
		targets = append(targets, target)
	}
	b := newStepsBar(cmd.ErrOrStderr(), "wrong models")
	r, err := blackbox.Judge(cmd.Context(), output, targets, func(name string) bool {
		ok, _ := path.Match(f.pattern, name)
		return ok || f.pattern == ""
	}, func(done, total int) { b.set(int64(done), int64(total)) })
	b.close()
	if err != nil {
		return err
	}
	err = writeOut(cmd, f.out, func(w io.Writer) error {
		if f.format == "json" {
			return blackbox.JSON(w, r)
		}
		return blackbox.Text(w, r)
	})
	if err != nil {
		return err
	}
	if f.out != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", r.Name, r.Status())
	}
	switch r.Status() {
	case conformance.Pass:
		return nil
	case conformance.Convention:
		if r.Accepted(f.allowed) {
			return nil
		}
		return exitError{code: exitConvention}
	case conformance.Fail:
		return exitError{code: exitNotConformant}
	}
	return exitError{code: exitUntested}
}
