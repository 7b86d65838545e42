package main

import (
	"context"
	"os"
	"sync"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/publish"
	"rockpool.dev/injector/settings"
	sidecar "rockpool.dev/sidecar/config"
)

// source provides the settings for pods, and publishes them to namespaces with injected pods.
type source struct {
	params   func() (inject.Params, error)
	injected func(namespace string)
	run      []func(context.Context) // each runs until the context ends
}

// follow returns a source that reads a ConfigMap, which overrides the flags, and publishes the
// settings to the namespaces of pods.
func (o *options) follow(config *rest.Config, flags inject.Params, log *zap.Logger) (source, error) {
	follower, err := settings.NewFollower(config, o.objects.Namespace, o.configMap, flags, log)
	if err != nil {
		return source{}, err
	}
	election, err := publish.NewElection(config, o.objects.Namespace, publisherLease, replicaName(), log)
	if err != nil {
		return source{}, err
	}
	var secrets *publish.PullSecrets
	publisher, err := publish.New(publish.Options{
		Elect: func(ctx context.Context, lead func(context.Context)) {
			election.Run(ctx, func(ctx context.Context) {
				var copying sync.WaitGroup
				if o.copySecrets {
					copying.Go(func() { secrets.Run(ctx) })
				}
				lead(ctx)
				copying.Wait()
			})
		},
		Config: config, Name: inject.ConfigMapName, Key: sidecar.FileName, Changed: follower.Changed(), Log: log,
		Content: func() (string, error) {
			params, err := follower.Params()
			return settings.File(params.Settings), err
		},
	})
	if err != nil {
		return source{}, err
	}
	secrets = publisher.PullSecrets(o.objects.Namespace, func() []string {
		params, err := follower.Params()
		if err != nil {
			return nil // the follower reports the error
		}
		return params.ImagePullSecrets
	})
	return source{params: follower.Params, injected: publisher.Add, run: []func(context.Context){follower.Run, publisher.Run}}, nil
}

// publisherLease is the Lease of the replica that writes a change of the settings to all namespaces.
const publisherLease = "rockpool-injector-publisher"

// replicaName is different for each process, also for those of one pod.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "rockpool-injector"
	}
	return host + "_" + string(uuid.NewUUID())
}
