// Command rockpool-injector is the admission webhook that adds the Rockpool sidecar to pods that
// ask for it. Its commands inject and uninject do the same to manifests. Package main only reads
// flags and environment and connects the parts: package inject decides on the changes, package
// webhook serves them, and package manifest writes them into manifests.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rockpool-injector:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rockpool-injector",
		Short: "Add the Rockpool sidecar to pods that ask for it",
		Long: `rockpool-injector is the admission webhook of Rockpool. It changes pods with the
annotation rockpool.dev/inject: "true" so that they talk to the Kubernetes API through a
sidecar, which still answers when the link to the API server is down. In a cluster without
the webhook, the command inject does the same to manifests, and uninject undoes it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newServeCommand(), newInjectCommand(), newUninjectCommand(), newStatusCommand(), newUpgradeCommand(), newDoctorCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
			return err
		},
	})
	return root
}

// buildVersion returns the version set by the linker, or else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
