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
	)
	cmd := &cobra.Command{
		Use:   "janitor",
		Short: "Remove from the node's cache volume what no pod has used for long",
		Long: `Remove the caches of workloads that are long gone from the node's cache volume: those
whose files were last written before --max-age, and that no running pod holds. Files and
directories that Rockpool has not made are left alone. The API server is not asked.

It needs root, and CAP_DAC_OVERRIDE because the caches belong to the sidecars' user. The
age goes by the node's clock: what was written in the future stays, and a clock that is
years ahead makes all caches old that no pod holds.

Without --interval it looks once, and ends with an error if something could not be read or
removed.`,
		Example: `  # what would go, on a node
  rockpool-sidecar janitor --root=/var/lib/rockpool --dry-run

  # as the DaemonSet in manifests/overlays/janitor does it
  rockpool-sidecar janitor --root=/cache --max-age=720h --interval=6h --metrics-listen=:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case interval < 0:
				return fmt.Errorf("janitor: --interval %s: must not be negative", interval)
			case metrics != "" && interval == 0:
				return errors.New("janitor: --metrics-listen needs --interval")
			}
			return clean(cmd.Context(), opts, interval, metrics)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Root, "root", "", "Where the cache volume is mounted.")
	flags.DurationVar(&opts.MaxAge, "max-age", janitor.DefaultMaxAge, "How long ago a cache must have been used last to be removed.")
	flags.BoolVar(&opts.DryRun, "dry-run", false, "Only log what would be removed.")
	flags.DurationVar(&interval, "interval", 0, "Look again after this time, until SIGTERM; 0s = look once.")
	flags.StringVar(&metrics, "metrics-listen", "", "Where Prometheus metrics are served over plain HTTP, such as :8080; empty = nowhere.")
	return cmd
}

// clean looks once, or until ctx ends.
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
	log.Info("starting", zap.String("version", describe()), zap.String("root", opts.Root), zap.Duration("maxAge", opts.MaxAge), zap.Duration("interval", interval))
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
