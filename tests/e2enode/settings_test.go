package e2enode

import (
	"testing"
	"time"
)

// The kubelet updates the volumes of ConfigMap and annotations periodically, on this node every ten
// seconds.
func TestSettingsReachARunningPod(t *testing.T) {
	s := newSite(t, "settings")
	s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app=web")
	web := s.pod("web")
	web.sees("app", "synced")
	before := web.pid("rockpool-sidecar")

	began := time.Now()
	set := func(level string) {
		s.admin("-n", "rockpool-system", "patch", "configmap", "rockpool-cfg", "-p", `{"data":{"log_level":"`+level+`"}}`)
	}
	set("debug")
	t.Cleanup(func() { set("") })
	web.sees("rockpool-sidecar", "changed settings are in effect", "log.level")
	t.Logf("the ConfigMap was in effect after %s", time.Since(began).Round(time.Second))

	began = time.Now()
	s.kubectl("annotate", "pod", web.Name, "rockpool.dev/cache-agents=informer")
	web.sees("rockpool-sidecar", "changed settings are in effect", "cache.agents")
	t.Logf("the annotation was in effect after %s", time.Since(began).Round(time.Second))

	s.kubectl("annotate", "--overwrite", "pod", web.Name, "rockpool.dev/cache-agents=a/b")
	web.sees("rockpool-sidecar", "invalid settings are ignored", "annotation rockpool.dev/cache-agents")
	if now := web.pid("rockpool-sidecar"); now != before {
		t.Errorf("the sidecar is process %d, was %d", now, before)
	}

	// Offline, containers can restart with the same volumes.
	testEnv.node.Link.Cut()
	web.linkIs("offline")
	web.kill("app")
	web.sees("app", "synced")
	web.kill("rockpool-sidecar")
	web.sees("rockpool-sidecar", "invalid settings are ignored", "annotation rockpool.dev/cache-agents")
}
