// Command rockpool-sidecar carries one pod's Kubernetes API traffic: to an API
// server that the edge can reach while the link is up, and out of what it has
// recorded while the link is down.
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
	"rockpool.dev/sidecar/pod/prepare"
	"rockpool.dev/sidecar/pod/wait"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rockpool-sidecar:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "rockpool-sidecar",
		Short: "Keeps the Kubernetes API for one pod when the link to the cloud goes out",
		Long: `rockpool-sidecar stands between the programs of one pod and the kube-apiserver.
It listens on the pod's loopback, passes requests on to the first API server that
answers, and records what is read in SQLite. While no API server can be reached it
answers from there.

The injector adds it to pods; there is seldom a reason to start it by hand.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(runCommand(), waitCommand(), prepareCommand(), janitorCommand(), versionCommand())
	return root
}

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve the pod's API traffic until SIGTERM",
		Long: `Serve the pod's API traffic until SIGTERM.

Each setting is a flag, an environment variable (in brackets below) or a key of
the YAML file given by --config, in this order of precedence. A setting that is
not known is an error. The file is followed while the sidecar runs; what is marked
"also at run time" then changes without a restart.

In a pod that the injector has made, --config is a directory, with the settings of the
cluster and the pod's annotations, which come before them.`,
		Example: `  # as the injector starts it
  ROCKPOOL_UPSTREAM_SERVERS=https://203.0.113.10:6443 rockpool-sidecar run

  # look at what it has recorded
  sqlite3 -readonly /var/lib/rockpool/0/rockpool.db 'SELECT * FROM v_collection'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags())
			if err != nil {
				return fmt.Errorf("bad configuration:\n%w", err)
			}
			return run(cmd.Context(), cfg, cmd.Flags())
		},
	}
	config.Register(cmd.Flags())
	return cmd
}

func waitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the sidecar is ready for the pod's programs",
		Long: `Wait until the sidecar is ready: the service-account directory is written and its
listener answers with a certificate that the directory's ca.crt trusts. Ready does
not mean that the link is up. The injector calls this as the sidecar's postStart
hook, so that no other container starts before.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags())
			if err != nil {
				return fmt.Errorf("bad configuration:\n%w", err)
			}
			return wait.Ready(cmd.Context(), wait.Options{
				Mirror: cfg.Account.Mirror, Address: cfg.Listen.Address, Timeout: timeout,
				Progress: func(missing error) { fmt.Fprintln(cmd.ErrOrStderr(), "waiting:", missing) },
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", wait.DefaultTimeout, "How long to wait.")
	config.Register(cmd.Flags())
	return cmd
}

func prepareCommand() *cobra.Command {
	var opts prepare.Options
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Make the pod's directory in the node's cache volume",
		Long: `Make the pod's directory in the node's cache volume, owned by the sidecar's user
and closed to all others. It needs root and CAP_CHOWN, which is why it runs as an
init container of its own.`,
		Example: `  rockpool-sidecar prepare --root=/cache --directory=shop/default/deployment.web --uid=65532 --gid=65532`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if opts.Root == "" || opts.Directory == "" {
				return errors.New("prepare: --root and --directory are needed")
			}
			return prepare.Directory(opts)
		},
	}
	cmd.Flags().StringVar(&opts.Root, "root", "", "Where the volume is mounted.")
	cmd.Flags().StringVar(&opts.Directory, "directory", "", "The directory to make, relative to --root.")
	cmd.Flags().IntVar(&opts.UID, "uid", 65532, "The user who gets the directory.")
	cmd.Flags().IntVar(&opts.GID, "gid", 65532, "The group that gets the directory.")
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
