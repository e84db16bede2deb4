package cli

import (
	"github.com/spf13/cobra"

	"github.com/llavaref/llavaref/fast/profile"
)

func profileCommand() *cobra.Command {
	var layers bool
	cmd := &cobra.Command{
		Use:   "profile FILE [NEW]",
		Short: "Say where the fast engine's time goes, or where a difference comes from",
		Long: `Profile reads a CPU profile of llavaref bench --cpuprofile and adds the samples up by the labels that the engine puts on
its threads: operations down, kinds of layers across, in ms of processor time for one pass of the row, all threads
together. --layers shows every layer by itself. What has no label, such as preprocessing and Go's runtime, stands
under the name of its function. The loops that measure the machine's limits are left out.

With two profiles of the same row it lists what changed, the largest change first: where a regression comes from.`,
		Example: `  llavaref bench --quick --model tiny-1.6 --rows 'prefill/T=512/class=float32' --cpuprofile cpu.prof --out bench.txt
  llavaref profile cpu.prof
  llavaref profile cpu.prof cpu.prof`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("%s takes one or two CPU profiles, got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "every layer by itself")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if layers && len(args) == 2 {
			return usage("--layers shows one profile, got two")
		}
		p, err := profile.ReadFile(args[0])
		if err != nil {
			return err
		}
		switch {
		case layers:
			return p.WriteLayers(cmd.OutOrStdout())
		case len(args) == 1:
			return p.WriteText(cmd.OutOrStdout())
		}
		now, err := profile.ReadFile(args[1])
		if err != nil {
			return err
		}
		d, err := profile.Compare(p, now)
		if err != nil {
			return err
		}
		return d.WriteText(cmd.OutOrStdout())
	}
	return cmd
}
