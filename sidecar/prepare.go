package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	quantity "k8s.io/apimachinery/pkg/api/resource"

	"rockpool.dev/sidecar/pod/janitor"
	"rockpool.dev/sidecar/pod/prepare"
)

func prepareCommand() *cobra.Command {
	var (
		opts   prepare.Options
		bounds janitor.Options
		size   string
	)
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Create the pod's directory in the node's cache volume",
		Long: `Create the pod's directory in the node's cache volume, owned by the sidecar's user and
closed to other users. The command needs root and CAP_CHOWN, so the injector runs it in
an init container of its own.

With CAP_DAC_OVERRIDE it then keeps the volume within --max-slots and --max-size, at most
once an hour and for at most two seconds. Beyond them it removes the caches that were
unused for the longest time, but none that a pod holds or has used within the last hour,
none of the pod's own workload, and none in the hour after the node has booted. It never
fails because of that.`,
		Example: `  rockpool-sidecar prepare --root=/cache --directory=shop/default/deployment.web --uid=65532 --gid=65532`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Warn = func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "warning:", err) }
			if opts.Root == "" || opts.Directory == "" {
				return errors.New("prepare: --root and --directory are required")
			}
			if _, err := parseDiskSize(size, ""); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
			if err := prepare.Directory(opts); err != nil {
				return err
			}
			bounds.Root, bounds.Spare = opts.Root, opts.Directory
			removed, err := tidy(cmd, bounds, size)
			if err != nil { // one line is enough: there may be one for each directory
				first, _, _ := strings.Cut(err.Error(), "\n")
				opts.Warn(fmt.Errorf("cannot keep the caches of the node within their bounds: %s", first))
			}
			if removed.Removed > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "removed %d of the caches that were unused for the longest time, %d bytes\n", removed.Removed, removed.Freed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&opts.Root, "root", "", "Mount `path` of the cache volume.")
	cmd.Flags().StringVar(&opts.Directory, "directory", "", "The `path` of the directory to create, relative to --root.")
	cmd.Flags().IntVar(&opts.UID, "uid", 65532, "User ID of the directory's owner.")
	cmd.Flags().IntVar(&opts.GID, "gid", 65532, "Group ID of the directory's owner.")
	registerBounds(cmd, &bounds, &size)
	return cmd
}

func tidy(cmd *cobra.Command, o janitor.Options, size string) (round janitor.Round, err error) {
	if o.MaxBytes, err = parseDiskSize(size, o.Root); err != nil {
		return round, err
	}
	uptime, err := janitor.Uptime()
	if err != nil {
		return round, err
	}
	return janitor.Tidy(cmd.Context(), o, uptime)
}

// registerBounds registers the flags that bound all caches of a node.
func registerBounds(cmd *cobra.Command, o *janitor.Options, size *string) {
	cmd.Flags().IntVar(&o.MaxSlots, "max-slots", janitor.DefaultMaxSlots, "How many caches may stay on the node; the ones unused for the longest time go first, "+
		"but none that a pod holds or has used within the last hour. 0 = any number.")
	cmd.Flags().StringVar(size, "max-size", "", "How much of the disk the caches may take, likewise, as a Kubernetes `quantity`; 0 = any amount; empty = a quarter of the file system.")
}

// parseDiskSize returns a size in bytes. For an empty one it is the default for the file system that
// has the directory, or 0 without a directory.
func parseDiskSize(size, directory string) (int64, error) {
	if size == "" && directory == "" {
		return 0, nil
	}
	if size == "" {
		return janitor.DefaultMaxBytes(directory)
	}
	q, err := quantity.ParseQuantity(size)
	if err != nil || q.Sign() < 0 {
		return 0, fmt.Errorf("--max-size=%q: is not a size; a Kubernetes quantity such as 2Gi is allowed", size)
	}
	return q.Value(), nil
}
