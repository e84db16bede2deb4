package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/conformance"
	"github.com/llavaref/llavaref/conformance/answers"
	"github.com/llavaref/llavaref/conformance/diagnose"
	"github.com/llavaref/llavaref/conformance/report"
	"github.com/llavaref/llavaref/ref/preprocess"
	"github.com/llavaref/llavaref/ref/preprocess/bugs"
	"github.com/llavaref/llavaref/ref/tokenizer"
)

// reportFlags say in which formats a result is written, and where to.
type reportFlags struct {
	format, out, annotate string
	reports, formats      []string
	allowed               []string
	verbose, machine      bool
}

// add adds the flags; formats are those of --format and --report.
func (f *reportFlags) add(cmd *cobra.Command, formats ...string) {
	fs := cmd.Flags()
	f.formats = formats
	fs.StringVar(&f.format, "format", "text", strings.Join(formats[:len(formats)-1], ", ")+" or "+formats[len(formats)-1])
	fs.StringVar(&f.out, "out", "", "write there instead of to the standard output; the file appears when it is complete")
	fs.StringArrayVar(&f.reports, "report", nil, "one more output of the same run, FORMAT=PATH; may be given several times")
	fs.StringVar(&f.annotate, "annotate", "", "with the format github: the file of your repository that annotations point at")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "one line a node")
	fs.BoolVar(&f.machine, "machine", false, "say in json and html on which processor and system it ran")
}

// output is a format and the file that it goes to; an empty path is the standard output.
type output struct{ format, path string }

// outputs reads the flags. A folder that is not there is said before the suite runs and not after.
func (f *reportFlags) outputs() ([]output, error) {
	if err := oneOf("format", f.format, f.formats...); err != nil {
		return nil, err
	}
	if err := knownConventions(f.allowed); err != nil {
		return nil, err
	}
	outs := []output{{f.format, f.out}}
	for _, r := range f.reports {
		format, path, ok := strings.Cut(r, "=")
		if !ok || path == "" {
			return nil, usage("--report %q, want FORMAT=PATH", r)
		}
		if err := oneOf("report", format, f.formats...); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(outs, func(o output) bool { return o.path != "" && filepath.Clean(o.path) == filepath.Clean(path) }) {
			return nil, usage("--report %q: two outputs cannot go to one file", r)
		}
		outs = append(outs, output{format, path})
	}
	for _, o := range outs {
		if o.path == "" {
			continue
		}
		if err := writable(o.path); err != nil {
			return nil, err
		}
	}
	return outs, nil
}

// knownConventions refuses what is no convention, so that a slip of the pen does not make a run stricter than it was meant to be.
func knownConventions(names []string) error {
	var known []string
	add := func(name, id string) {
		text := fmt.Sprintf("%q (%s)", name, id)
		if name != "" && !slices.Contains(known, text) {
			known = append(known, text)
		}
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return name != "" && (n == name || n == id) })
	}
	for _, b := range diagnose.Catalogue() {
		add(b.Convention, b.ID)
	}
	for _, b := range bugs.All() {
		add(b.Convention, b.ID)
	}
	for _, v := range preprocess.Variants()[1:] {
		add(string(v), answers.ResizeID(v))
	}
	for _, v := range []tokenizer.Variant{tokenizer.Metaspace, tokenizer.MetaspaceLegacy} {
		add(string(v), answers.CutID)
	}
	if len(names) > 0 {
		return usage("--allow-convention %q is no convention, want one of %s", names[0], strings.Join(known, ", "))
	}
	return nil
}

// writable says why no file can appear at path: a file takes the place of what is there, which must not be a device or a folder.
func writable(path string) error {
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("%s cannot be written: there is no folder %s", path, filepath.Dir(path))
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() || strings.HasPrefix(filepath.Clean(path), "/dev/") {
		return fmt.Errorf("%s cannot be written: it is no file", path)
	}
	return nil
}

// write writes the result to every output, and the verdict to the standard output if nothing else stands there.
func (f *reportFlags) write(cmd *cobra.Command, outs []output, run conformance.Run) error {
	run.By.Llavaref = programVersion()
	if f.machine {
		run.By.Machine = machineName()
	}
	for _, o := range outs {
		if err := writeOut(cmd, o.path, func(w io.Writer) error { return f.render(w, o.format, run) }); err != nil {
			return err
		}
	}
	if f.out != "" {
		fmt.Fprintln(cmd.OutOrStdout(), report.Verdict(run))
	}
	return nil
}

func (f *reportFlags) render(w io.Writer, format string, run conformance.Run) error {
	switch format {
	case "json":
		return report.JSON(w, run)
	case "junit":
		return report.JUnit(w, run)
	case "markdown":
		return report.Markdown(w, run)
	case "svg":
		return report.SVG(w, run)
	case "html":
		return report.HTML(w, run)
	case "github":
		return report.GitHub(w, run, f.annotate)
	case "badge":
		return report.Badge(w, run)
	case "levels":
		return report.Levels(w, run)
	}
	return report.Text(w, run, f.verbose)
}

// programVersion is the program's version and source revision in a line.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	version, revision := buildVersion(info)
	return fmt.Sprintf("%s, revision %s", version, revision)
}

// machineName is the processor, as far as the system tells its name, and the system.
func machineName() string {
	name := fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return name
	}
	for line := range strings.Lines(string(data)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value) + ", " + name
		}
	}
	return name
}
