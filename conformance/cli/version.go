package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this program was built from and what it runs on",
		Long: `Version prints the program's version and source revision as far as the build recorded them, the Go version, and the
processor's features that matter for arithmetic. Put it into every report of a difference.`,
		Example: `  llavaref version`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				info = &debug.BuildInfo{}
			}
			versionText(cmd.OutOrStdout(), info)
			return nil
		},
	}
}

// buildVersion is the version and the source revision, as far as the build recorded them.
func buildVersion(info *debug.BuildInfo) (version, revision string) {
	setting := map[string]string{}
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	version, revision = info.Main.Version, setting["vcs.revision"]
	if version == "" {
		version = "(devel)"
	}
	if revision == "" {
		revision = "not recorded"
	}
	if setting["vcs.modified"] == "true" {
		revision += ", with local changes"
	}
	return version, revision
}

func versionText(w io.Writer, info *debug.BuildInfo) {
	version, revision := buildVersion(info)
	fmt.Fprintf(w, "llavaref  %s\n", version)
	fmt.Fprintf(w, "revision  %s\n", revision)
	fmt.Fprintf(w, "go        %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(w, "threads   %d\n", runtime.GOMAXPROCS(0))
	fmt.Fprintf(w, "cpu       %s\n", cpuFeatures())
}

// cpuFeatures names what the processor has of the vector extensions that engines use.
func cpuFeatures() string {
	var has []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA},
		{"AVX512F", cpu.X86.HasAVX512F}, {"AVX512BW", cpu.X86.HasAVX512BW}, {"AVX512DQ", cpu.X86.HasAVX512DQ}, {"AVX512VL", cpu.X86.HasAVX512VL},
		{"AVX512VNNI", cpu.X86.HasAVX512VNNI}, {"AVX512BF16", cpu.X86.HasAVX512BF16},
		{"ASIMD", cpu.ARM64.HasASIMD}, {"FPHP", cpu.ARM64.HasFPHP}, {"ASIMDHP", cpu.ARM64.HasASIMDHP}, {"ASIMDDP", cpu.ARM64.HasASIMDDP}, {"SVE", cpu.ARM64.HasSVE},
	} {
		if f.has {
			has = append(has, f.name)
		}
	}
	if len(has) == 0 {
		return "no vector extension that is known here"
	}
	return strings.Join(has, " ")
}
