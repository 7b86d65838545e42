package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"rockpool.dev/injector/certificate"
	"rockpool.dev/injector/lookup"
	"rockpool.dev/injector/webhook"
)

func newServeCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the admission webhook",
		Long: `Serve the admission webhook at ` + webhook.Path + ` until SIGTERM.

Every flag can also be an environment variable, for example ` + envName("log-level") + ` for
--log-level. A flag overrides its variable.`,
		Example: `  # In the cluster, with CA and certificate of its own
  rockpool-injector serve --sidecar-image=registry.example.com/rockpool:v1 --upstream=https://api.example.com:6443

  # With all settings for pods in the ConfigMap rockpool-cfg
  rockpool-injector serve

  # With a certificate from a mounted Secret, for example of cert-manager
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

// serve runs the webhook and its probes until ctx ends. It reports invalid options before it
// opens a port.
func serve(ctx context.Context, o *options) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	config, err := o.clusterConfig()
	if err != nil {
		return err
	}
	following := config != nil && o.configMap != ""
	params, err := o.params(!following)
	if err != nil {
		return err
	}
	serving, err := o.certificates(config, log)
	if err != nil {
		return err
	}
	clients, err := o.clients()
	if err != nil {
		return err
	}
	var lookups webhook.Lookup
	if config == nil {
		log.Warn("no service-account token and no --kubeconfig; " +
			"injecting without facts about namespaces and nodes, and not publishing settings for running pods")
	} else if lookups, err = lookup.New(config, nil); err != nil {
		return err
	}
	settingsSource := source{params: webhook.Always(params)}
	if following {
		if settingsSource, err = o.follow(config, params, log); err != nil {
			return err
		}
	}
	listener, err := listen(ctx, "--listen", o.listen)
	if err != nil {
		return err
	}
	probes := &http.Server{Handler: probeHandler(), ErrorLog: zap.NewStdLog(log.Named("probes")), ReadHeaderTimeout: 5 * time.Second}
	var metricsListener net.Listener
	if o.metricsListen != "" {
		if metricsListener, err = listen(ctx, "--metrics-listen", o.metricsListen); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	log.Info("serving", zap.String("version", params.Version), zap.Stringer("listen", listener.Addr()),
		zap.String("metrics", o.metricsListen))
	server := webhook.New(webhook.Options{
		Params: settingsSource.params, Injected: settingsSource.injected, Lookup: lookups,
		ExcludedNamespaces: o.excluded, Clients: clients,
		Certificate: serving.get, Trusted: serving.trusted, Log: log,
		ShutdownDelay: o.shutdownDelay, ShutdownGrace: o.shutdownGrace,
	})

	// The background parts and the probes end after the webhook, because its last reviews need
	// them. If one part fails, all end.
	group, ctx := errgroup.WithContext(ctx)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, run := range append(settingsSource.run, serving.run) {
		group.Go(func() error {
			run(background)
			return nil
		})
	}
	group.Go(func() error {
		defer stop()
		err := server.Serve(ctx, listener)
		return errors.Join(err, probes.Close())
	})
	if metricsListener != nil {
		group.Go(func() error {
			if err := probes.Serve(metricsListener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve metrics on %s: %w", metricsListener.Addr(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// clients returns the callers of the webhook, or nil for everybody.
func (o *options) clients() (*webhook.Clients, error) {
	if o.clientCAFile == "" {
		if len(o.clientNames) > 0 {
			return nil, errors.New("--client-names: needs --client-ca-file as well")
		}
		return nil, nil
	}
	text, err := os.ReadFile(o.clientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	clients, err := webhook.ParseClients(text, o.clientNames)
	if err != nil {
		return nil, fmt.Errorf("--client-ca-file: %s: %w", o.clientCAFile, err)
	}
	return clients, nil
}

// certificates provides the serving certificate.
type certificates struct {
	get     func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	trusted func() error
	run     func(context.Context) // runs until the context ends
}

// certificates returns the certificate in the files, or the one in the injector's own Secret.
// config may be nil.
func (o *options) certificates(config *rest.Config, log *zap.Logger) (certificates, error) {
	if (o.certFile == "") != (o.keyFile == "") {
		return certificates{}, errors.New("--tls-cert-file, --tls-key-file: give both, or neither for the injector's own certificate")
	}
	if o.certFile != "" {
		files, err := certificate.LoadFiles(o.certFile, o.keyFile, log)
		if err != nil {
			return certificates{}, fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		// Each handshake reads the files, so there is nothing to run.
		return certificates{get: files.Get, run: func(context.Context) {}}, nil
	}
	if config == nil {
		return certificates{}, errors.New("the injector's own certificate needs a service-account token or --kubeconfig; " +
			"alternatively, give --tls-cert-file and --tls-key-file")
	}
	rotator, err := certificate.NewRotator(config, o.objects, certificate.DefaultPolicy(o.objects.Service, o.objects.Namespace), log, nil)
	if err != nil {
		return certificates{}, err
	}
	return certificates{get: rotator.Get, trusted: rotator.Ready, run: rotator.Run}, nil
}

// clusterConfig returns the configuration of the API server's client. It is nil outside a
// cluster or without a token, unless --kubeconfig is set.
func (o *options) clusterConfig() (*rest.Config, error) {
	var config *rest.Config
	var err error
	if o.kubeconfig != "" {
		if config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	} else {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) || errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("in-cluster configuration: %w", err)
		}
	}
	config.UserAgent = "rockpool-injector/" + buildVersion()
	return config, nil
}

func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return listener, nil
}

// probeHandler serves /metrics and /healthz, which only says that the process answers. Whether
// the webhook accepts reviews is answered on its own port, at webhook.ReadyPath.
func probeHandler() http.Handler {
	mux := http.NewServeMux()
	build := prometheus.NewRegistry()
	build.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rockpool_build_info", Help: "1, with the version of the program.",
		ConstLabels: prometheus.Labels{"component": "injector", "version": buildVersion()},
	}, func() float64 { return 1 }))
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, build}, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
