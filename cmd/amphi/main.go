// Command amphi is all of Amphi but the compositor: the node daemon, the one-process
// platform for development, the operator's CLI and the load generator.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/cli"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab"
)

func main() {
	ctx, stop := untilStopped()
	defer stop()
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "amphi:", err)
		stop()
		os.Exit(cli.ExitCode(err))
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "amphi",
		Short:         "Self-hosted live video with three circles of interactivity in one room",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(devCommand(), serveCommand())
	root.AddCommand(cli.Commands()...)
	root.AddCommand(lab.Command())
	return root
}

// version is what the Go toolchain stamped into the binary.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
