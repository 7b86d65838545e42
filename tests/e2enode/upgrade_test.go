package e2enode

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"rockpool.dev/injector/fleet"
)

func TestTheSidecarIsUpgradedAndRolledBackInPlace(t *testing.T) {
	s := newSite(t, "upgrade")
	const image, next = "docker.io/library/rockpool:dev", "docker.io/library/rockpool:next"
	if _, err := testEnv.node.Ctr(s.ctx, "images", "tag", image, next); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	s.kubectl("apply", "-f", "testdata/upgrade.yaml")
	p := s.pod("upgraded")
	p.sees("app", "synced")
	app := p.pid("app")
	config, err := clientcmd.BuildConfigFromFlags("", testEnv.Kubeconfig())
	s.try(err)
	client, err := fleet.NewClient(config)
	s.try(err)

	for _, to := range []string{next, image} {
		sidecars, err := client.List(s.ctx, s.namespace, "")
		s.try(err)
		if len(sidecars) != 1 || sidecars[0].Problem != "" {
			t.Fatalf("sidecars: %+v", sidecars)
		}
		u := fleet.Upgrade{
			Pods: client, Image: to, AtOnce: 1, Timeout: time.Minute, Clock: clock.RealClock{},
			Report: func(pod *fleet.Sidecar, step string) { t.Logf("%s %s", pod, step) },
		}
		began := time.Now()
		if n, err := u.Run(s.ctx, sidecars); n != 1 || err != nil {
			t.Fatalf("to %s: %d upgraded, %v", to, n, err)
		}
		t.Logf("upgraded to %s after %s", to, time.Since(began).Round(100*time.Millisecond))
		s.configMap("with " + to)
		p.sees("app", "updated", "with "+to)
		after, err := lines(p.Pod, "rockpool-sidecar")
		s.try(err)
		for _, l := range after {
			if strings.Contains(l.Text, `"verb":"list"`) {
				t.Errorf("the informer lists again: %s", l.Text)
			}
		}
	}

	now := s.pod("upgraded")
	if now.UID != p.UID || now.pid("app") != app || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the app is process %d of %s with %d restarts, was %d of %s",
			now.pid("app"), now.UID, now.Status.ContainerStatuses[0].RestartCount, app, p.UID)
	}
	if n := now.Status.InitContainerStatuses[1].RestartCount; n != 2 {
		t.Errorf("the sidecar was restarted %d times, want 2", n)
	}
}

func TestAnUpgradeToAnImageThatDoesNotStartIsTakenBack(t *testing.T) {
	s := newSite(t, "downgrade")
	s.kubectl("apply", "-f", "testdata/upgrade.yaml")
	p := s.pod("upgraded")
	p.sees("app", "synced")
	config, err := clientcmd.BuildConfigFromFlags("", testEnv.Kubeconfig())
	s.try(err)
	client, err := fleet.NewClient(config)
	s.try(err)
	sidecars, err := client.List(s.ctx, s.namespace, "")
	s.try(err)
	u := fleet.Upgrade{
		Pods: client, Image: "docker.io/library/programs:dev", AtOnce: 1, Timeout: 10 * time.Second, Clock: clock.RealClock{},
		Report: func(pod *fleet.Sidecar, step string) { t.Logf("%s %s", pod, step) },
	}
	if n, err := u.Run(s.ctx, sidecars); n != 0 || err == nil {
		t.Errorf("%d upgraded, %v", n, err)
	}
	s.configMap("hello again")
	p.sees("app", "updated", "hello again")
}
