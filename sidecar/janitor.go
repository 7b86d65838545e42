package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/pod/janitor"
)

func janitorCommand() *cobra.Command {
	var (
		opts     janitor.Options
		interval time.Duration
		metrics  string
		size     string
	)
	cmd := &cobra.Command{
		Use:   "janitor",
		Short: "Remove unused caches from the node's cache volume",
		Long: `Remove old caches from the node's cache volume, such as those of deleted workloads. A
cache is old if its files were last written more than --max-age ago. If there are more
caches than --max-slots, or they take more than --max-size, it removes those that were
unused for the longest time. The janitor skips caches that a running pod holds, and
leaves alone all files and directories that Rockpool did not create. It does not call the
API server.

The command needs root, and CAP_DAC_OVERRIDE because the caches belong to the sidecars'
user. The age depends on the node's clock: a cache with a time in the future stays, and
if the clock is years ahead, every cache that no pod holds is old.

Without --interval, the janitor scans the volume once, and ends with an error if it could
not read or remove a file.`,
		Example: `  # on a node: show the caches that would be removed
  rockpool-sidecar janitor --root=/var/lib/rockpool --dry-run

  # as in the DaemonSet in manifests/overlays/janitor
  rockpool-sidecar janitor --root=/cache --max-age=720h --interval=6h --metrics-listen=:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case opts.Root != "" && opts.MaxAge <= 0:
				return fmt.Errorf("janitor: --max-age %s: must be more than 0", opts.MaxAge)
			case interval < 0:
				return fmt.Errorf("janitor: --interval %s: must not be negative", interval)
			case metrics != "" && interval == 0:
				return errors.New("janitor: --metrics-listen needs --interval")
			}
			bytes, err := parseDiskSize(size, opts.Root)
			if err != nil {
				return fmt.Errorf("janitor: %w", err)
			}
			opts.MaxBytes = bytes
			return clean(cmd.Context(), opts, interval, metrics)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Root, "root", "", "Mount `path` of the cache volume.")
	flags.DurationVar(&opts.MaxAge, "max-age", janitor.DefaultMaxAge, "Remove caches that no pod has used for this long.")
	registerBounds(cmd, &opts, &size)
	flags.BoolVar(&opts.DryRun, "dry-run", false, "Only log what would be removed.")
	flags.DurationVar(&interval, "interval", 0, "Time between two scans, until SIGTERM; 0s = scan once.")
	flags.StringVar(&metrics, "metrics-listen", "",
		"The `address` of the plain HTTP listener for Prometheus metrics, such as :8080; empty = off.")
	return cmd
}

// clean scans the volume once, or every interval until ctx ends.
func clean(ctx context.Context, opts janitor.Options, interval time.Duration, metrics string) error {
	log, _, err := newLogger(config.Log{Level: zapcore.InfoLevel, Format: "json"})
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // stderr may not be syncable
	registry := prometheus.NewRegistry()
	opts.Logger, opts.Registerer = log, registry
	j, err := janitor.New(opts)
	if err != nil {
		return fmt.Errorf("janitor: --%w", err)
	}
	if interval == 0 {
		_, err := j.Once(ctx)
		return err
	}
	log.Info("starting", zap.String("version", describe()), zap.String("root", opts.Root),
		zap.Duration("maxAge", opts.MaxAge), zap.Duration("interval", interval))
	parts, ctx := errgroup.WithContext(ctx)
	if metrics != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", metrics)
		if err != nil {
			return fmt.Errorf("janitor: --metrics-listen: %w", err)
		}
		parts.Go(func() error { return serveMetrics(ctx, l, registry) })
	}
	parts.Go(func() error { j.Run(ctx, interval); return nil })
	return parts.Wait()
}
