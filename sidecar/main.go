// Command rockpool-sidecar serves one pod's Kubernetes API traffic. While the link is up, it
// forwards requests to an API server that the node can reach. While the link is down, it
// answers from its recordings.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/pod/wait"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	serve, err := execute(ctx)
	if err == nil && serve != nil {
		err = serve(ctx)
	}
	stop()
	if err == nil {
		return
	}
	status := 1
	if exit := (*exitError)(nil); errors.As(err, &exit) {
		status, err = exit.status, exit.err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rockpool-sidecar:", err)
	}
	os.Exit(status)
}

// execute runs the command that the arguments name. If that is to serve, it returns how: the tree of
// commands with their flags is garbage by then, instead of taking 0.1 MB as long as the pod lives.
func execute(ctx context.Context) (serve func(context.Context) error, err error) {
	err = command(&serve).ExecuteContext(ctx)
	return serve, err
}

// exitError ends the program with a status. Without an err it says nothing.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }

// command makes the tree of commands. The command run sets serve instead of serving.
func command(serve *func(context.Context) error) *cobra.Command {
	root := &cobra.Command{
		Use:   "rockpool-sidecar",
		Short: "Serve the Kubernetes API to one pod, also while the link to the cloud is down",
		Long: `rockpool-sidecar sits between the applications of one pod and the kube-apiserver.
It listens on the pod's loopback, forwards requests to an API server that answers, and
records the objects that applications read in SQLite. The link is down while no API
server can be reached: then the sidecar answers from its recordings.

The injector adds the sidecar to pods; there is rarely a reason to start it by hand.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(runCommand(serve), waitCommand(), prepareCommand(), janitorCommand(), cacheCommand(), doctorCommand(), statusCommand(), versionCommand())
	return root
}

func runCommand(serve *func(context.Context) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve the pod's API traffic until SIGTERM",
		Long: `Serve the pod's API traffic until SIGTERM.

Each setting is a flag, an environment variable (in brackets below) or a key of the YAML
file that --config names, in this order of precedence. An unknown setting is an error.
The sidecar watches the file: a change of a setting marked "also at run time" takes
effect without a restart.

In a pod, --config names a directory with the cluster's settings and the pod's
annotations; an annotation overrides the cluster's setting.

The link is the connection to the API servers; it is down while none can be reached.`,
		Example: `  # with the address of an API server
  ROCKPOOL_UPSTREAM_SERVERS=https://203.0.113.10:6443 rockpool-sidecar run

  # show the recorded collections
  sqlite3 -readonly /var/lib/rockpool/0/rockpool.db 'SELECT * FROM v_collection'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags())
			if err != nil {
				return fmt.Errorf("invalid configuration:\n%w", err)
			}
			flags := cmd.Flags()
			*serve = func(ctx context.Context) error { return run(ctx, cfg, flags) }
			return nil
		},
	}
	config.Register(cmd.Flags())
	return cmd
}

func waitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the sidecar is ready for the pod's applications",
		Long: `Wait until the sidecar is ready: it has written the copy of the service-account
directory, and its listener presents a certificate that the ca.crt there trusts. Ready
does not mean that the link to the API servers is up. The injector sets this command as
the sidecar's postStart hook, so that no other container starts earlier.

The flags are those of "rockpool-sidecar run", so that both find the same settings.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags())
			if err != nil {
				return fmt.Errorf("invalid configuration:\n%w", err)
			}
			return wait.Ready(cmd.Context(), wait.Options{
				Mirror: cfg.Account.Mirror, Address: cfg.Listen.Address, Timeout: timeout,
				Progress: func(missing error) { fmt.Fprintln(cmd.ErrOrStderr(), "waiting:", missing) },
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", wait.DefaultTimeout, "Longest time to wait.")
	config.Register(cmd.Flags())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), describe())
		},
	}
}
