package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"rockpool.dev/injector/cluster"
	"rockpool.dev/injector/webhook"
)

func newServeCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the admission webhook",
		Long: `Serves the admission webhook at ` + webhook.Path + ` until SIGTERM.

Every flag can also be given as an environment variable: --log-level as ` + envName("log-level") + `.
A flag on the command line wins.`,
		Example: `  # As in the cluster, with the certificate from a mounted Secret
  rockpool-injector serve --tls-cert-file=/etc/rockpool/tls/tls.crt --tls-key-file=/etc/rockpool/tls/tls.key \
    --sidecar-image=registry.example.com/rockpool:v1 --upstream=https://api.example.com:6443

  # Two addresses of the API server, readable logs
  rockpool-injector serve --tls-cert-file=tls.crt --tls-key-file=tls.key --sidecar-image=rockpool:dev \
    --upstream=https://10.0.0.1:6443,https://10.0.0.2:6443 --log-format=console`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			return setFromEnv(cmd.Flags())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), &o)
		},
	}
	o.addTo(cmd.Flags())
	return cmd
}

// serve runs the webhook and its probes until ctx ends. Whatever is wrong with the
// options is said before a port is opened.
func serve(ctx context.Context, o *options) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	params, err := o.params()
	if err != nil {
		return err
	}
	if o.certFile == "" || o.keyFile == "" {
		return errors.New("--tls-cert-file, --tls-key-file: both are required; scripts/webhook-certs.sh makes them")
	}
	certificate, err := webhook.LoadCertificate(o.certFile, o.keyFile, log)
	if err != nil {
		return fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
	}
	if len(params.Upstreams) == 0 {
		log.Warn("no --upstream: pods without the annotation rockpool.dev/upstreams reach the API server at the in-cluster address only")
	}
	lookups, err := lookups(o.kubeconfig)
	if err != nil {
		return err
	}
	if lookups == nil {
		log.Warn("no service-account token and no --kubeconfig: namespaces and nodes are not looked up")
	}
	listener, err := listen(ctx, "--listen", o.listen)
	if err != nil {
		return err
	}
	server := webhook.New(webhook.Options{
		Params: params, Cluster: lookups, Certificate: certificate, Log: log,
		ShutdownDelay: o.shutdownDelay, ShutdownGrace: o.shutdownGrace,
	})
	if o.metricsListen == "" {
		log.Info("serving", zap.String("version", params.Version), zap.Stringer("listen", listener.Addr()))
		return server.Serve(ctx, listener)
	}
	metricsListener, err := listen(ctx, "--metrics-listen", o.metricsListen)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	log.Info("serving", zap.String("version", params.Version), zap.Stringer("listen", listener.Addr()), zap.Stringer("metrics", metricsListener.Addr()))
	return serveWithProbes(ctx, server, listener, metricsListener, log)
}

// lookups returns how reviews learn about namespaces and nodes; nil where there is no way,
// outside of a cluster or without a token.
func lookups(kubeconfig string) (webhook.Cluster, error) {
	if kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
		return cluster.New(config, nil)
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("in-cluster configuration: %w", err)
	}
	return cluster.New(config, nil)
}

// serveWithProbes ends the probes after the webhook, so that they tell of its shutdown;
// when one of the two fails, the other ends as well.
func serveWithProbes(ctx context.Context, server *webhook.Server, listener, metricsListener net.Listener, log *zap.Logger) error {
	probes := &http.Server{Handler: probeHandler(server), ErrorLog: zap.NewStdLog(log.Named("probes")), ReadHeaderTimeout: 5 * time.Second}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := server.Serve(ctx, listener)
		return errors.Join(err, probes.Close())
	})
	group.Go(func() error {
		if err := probes.Serve(metricsListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics on %s: %w", metricsListener.Addr(), err)
		}
		return nil
	})
	return group.Wait()
}

func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return listener, nil
}

// probeHandler serves /metrics, /healthz (the process answers) and /readyz (the TLS
// listener takes reviews).
func probeHandler(server *webhook.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !server.Ready() {
			http.Error(w, "the webhook takes no reviews: starting or shutting down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
