package main

import (
	"context"
	"crypto/tls"
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

	"rockpool.dev/injector/certificate"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/lookup"
	"rockpool.dev/injector/publish"
	"rockpool.dev/injector/settings"
	"rockpool.dev/injector/webhook"
	sidecar "rockpool.dev/sidecar/config"
)

func newServeCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the admission webhook",
		Long: `Serves the admission webhook at ` + webhook.Path + ` until SIGTERM.

Every flag can also be given as an environment variable: --log-level as ` + envName("log-level") + `.
A flag on the command line wins.`,
		Example: `  # As in the cluster, with CA and certificate of its own
  rockpool-injector serve --sidecar-image=registry.example.com/rockpool:v1 --upstream=https://api.example.com:6443

  # All that holds for pods is in the ConfigMap rockpool-cfg
  rockpool-injector serve

  # With the certificate from a mounted Secret, as of cert-manager
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
	var lookups webhook.Cluster
	if config == nil {
		log.Warn("no service-account token and no --kubeconfig: namespaces and nodes are not looked up, settings do not reach running pods")
	} else if lookups, err = lookup.New(config, nil); err != nil {
		return err
	}
	now := source{params: webhook.Always(params)}
	if following {
		if now, err = o.follow(config, params, log); err != nil {
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
	log.Info("serving", zap.String("version", params.Version), zap.Stringer("listen", listener.Addr()), zap.String("metrics", o.metricsListen))
	server := webhook.New(webhook.Options{
		Params: now.params, Injected: now.injected, Cluster: lookups, Certificate: serving.get, Trusted: serving.trusted, Log: log,
		ShutdownDelay: o.shutdownDelay, ShutdownGrace: o.shutdownGrace,
	})

	// What is behind the webhook, and the probes, which tell of it, end after it: the last pods
	// need it. When one fails, all end.
	group, ctx := errgroup.WithContext(ctx)
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, run := range append(now.run, serving.run) {
		group.Go(func() error {
			run(behind)
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

// source is where the settings of pods come from, and whom to tell of pods that have them.
type source struct {
	params   func() (inject.Params, error)
	injected func(namespace string)
	run      []func(context.Context) // until the context ends
}

// follow takes them from a ConfigMap over those of the flags, and publishes them to the
// namespaces of pods.
func (o *options) follow(config *rest.Config, flags inject.Params, log *zap.Logger) (source, error) {
	follower, err := settings.NewFollower(config, o.objects.Namespace, o.configMap, flags, log)
	if err != nil {
		return source{}, err
	}
	publisher, err := publish.New(publish.Options{
		Config: config, Name: inject.ConfigMapName, Key: sidecar.FileName, Changed: follower.Changed(), Log: log,
		Content: func() (string, error) {
			params, err := follower.Params()
			return settings.File(params.Settings), err
		},
	})
	if err != nil {
		return source{}, err
	}
	return source{params: follower.Params, injected: publisher.Add, run: []func(context.Context){follower.Run, publisher.Run}}, nil
}

// certificates are where the serving certificate comes from.
type certificates struct {
	get     func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	trusted func() error
	run     func(context.Context) // keeps them until the context ends
}

// certificates chooses: files, or a Secret of our own. config may be nil.
func (o *options) certificates(config *rest.Config, log *zap.Logger) (certificates, error) {
	if (o.certFile == "") != (o.keyFile == "") {
		return certificates{}, errors.New("--tls-cert-file, --tls-key-file: give both, or neither for a certificate of the injector's own")
	}
	if o.certFile != "" {
		files, err := certificate.LoadFiles(o.certFile, o.keyFile, log)
		if err != nil {
			return certificates{}, fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		// They are read at each handshake, so there is nothing to run.
		return certificates{get: files.Get, run: func(context.Context) {}}, nil
	}
	if config == nil {
		return certificates{}, errors.New("a certificate of the injector's own needs a service-account token or --kubeconfig; or give --tls-cert-file and --tls-key-file")
	}
	rotator, err := certificate.NewRotator(config, o.objects, certificate.DefaultPolicy(o.objects.Service, o.objects.Namespace), log, nil)
	if err != nil {
		return certificates{}, err
	}
	return certificates{get: rotator.Get, trusted: rotator.Ready, run: rotator.Run}, nil
}

// clusterConfig is how to reach the API server; nil where there is no way, outside of a cluster or
// without a token.
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

// probeHandler serves /metrics and /healthz (the process answers). Whether the webhook takes reviews
// is asked where it takes them, at webhook.ReadyPath.
func probeHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
