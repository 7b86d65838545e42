// Command leader is an ordinary in-cluster program that leads while it holds a Lease, as most
// controllers do, or a lock in an annotation, as older ones do. It reports its actions as Events. It
// uses rest.InClusterConfig, and the leader election and the recorders of client-go. It knows nothing
// of Rockpool.
//
// Each line on standard output is a JSON object: {"event":"leading"} when it starts to lead,
// {"event":"stopped"} when it has lost the lock, after which it exits with 1, and
// {"event":"tick","count":N} for each pair of Events: one with the reason TickN, and one that is
// the same each time, so that the recorder counts it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/record"
)

type settings struct {
	lease, lock, identity, contentType string
	duration, renew, retry, tick       time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.lease, "lease", "", "name of the Lease, or other object with the lock; empty: no leader election")
	flag.StringVar(&s.lock, "lock", "leases", "kind of object that has the lock: leases, configmaps or endpoints")
	flag.StringVar(&s.identity, "identity", "edge", "holder's name")
	flag.StringVar(&s.contentType, "content-type", "", "content type of requests; empty: client-go's default")
	flag.DurationVar(&s.duration, "lease-duration", 15*time.Second, "as in leaderelection.LeaderElectionConfig")
	flag.DurationVar(&s.renew, "renew-deadline", 10*time.Second, "likewise")
	flag.DurationVar(&s.retry, "retry-period", 2*time.Second, "likewise")
	flag.DurationVar(&s.tick, "tick", 0, "interval of Events; 0: none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

func printLine(event string, count int) {
	raw, err := json.Marshal(map[string]any{"event": event, "count": count})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(raw))
}

func run(ctx context.Context, s settings) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.ContentType = s.contentType
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	namespace := strings.TrimSpace(string(raw))
	if s.tick > 0 {
		go ticks(ctx, s.tick, client, namespace)
	}
	if s.lease == "" {
		<-ctx.Done()
		return nil
	}
	lock, err := newLock(s, client, namespace)
	if err != nil {
		return err
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: s.duration, RenewDeadline: s.renew, RetryPeriod: s.retry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { printLine("leading", 0) },
			OnStoppedLeading: func() {
				if ctx.Err() == nil {
					printLine("stopped", 0)
				}
			},
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	if ctx.Err() == nil {
		return fmt.Errorf("lost the lock %s", s.lease)
	}
	return nil
}

// ticks writes Events with both recorders of client-go, until ctx ends.
func ticks(ctx context.Context, every time.Duration, client kubernetes.Interface, namespace string) {
	// The default burst of the recorder would end the Events of one object after 25.
	older := record.NewBroadcaster(record.WithContext(ctx), record.WithSleepDuration(time.Second), record.WithCorrelatorOptions(record.CorrelatorOptions{BurstSize: 100_000}))
	older.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := older.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "leader"})
	newer := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	if err := newer.StartRecordingToSinkWithContext(ctx); err != nil {
		log.Fatal(err)
	}
	clock := &corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: "clock"}
	other := newer.NewRecorder(scheme.Scheme, "leader")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		recorder.Eventf(clock, corev1.EventTypeNormal, fmt.Sprintf("Tick%d", n), "this is tick %d", n)
		recorder.Event(clock, corev1.EventTypeNormal, "Beat", "the clock beats")
		other.Eventf(clock, nil, corev1.EventTypeNormal, fmt.Sprintf("Tock%d", (n+1)/2), "Tick", "the clock has ticked twice")
		printLine("tick", n)
	}
}
