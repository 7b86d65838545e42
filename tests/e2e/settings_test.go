package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/tests/edge"
)

const (
	injectorNamespace = "rockpool-system"
	clusterSettings   = "rockpool-cfg"
	podSettings       = "rockpool-sidecar"
)

// newConfiguredSite returns a site of a cluster whose injector follows its ConfigMap.
func newConfiguredSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	cluster.StopInjector()
	if err := cluster.StartInjector(s.ctx, "--config-map", clusterSettings); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cluster.StopInjector()
		if err := cluster.StartInjector(context.WithoutCancel(s.ctx)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// setClusterSettings replaces the cluster's settings until the end of the test.
func (s *site) setClusterSettings(data map[string]string) {
	s.t.Helper()
	api := cluster.Client().CoreV1().ConfigMaps(injectorNamespace)
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: clusterSettings}, Data: data}
	_, err := api.Create(s.ctx, object, metav1.CreateOptions{})
	if err == nil {
		s.t.Cleanup(func() {
			if err := api.Delete(context.WithoutCancel(s.ctx), clusterSettings, metav1.DeleteOptions{}); err != nil {
				s.t.Error(err)
			}
		})
	}
	if apierrors.IsAlreadyExists(err) {
		_, err = api.Update(s.ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// awaitSettings waits until the settings in the namespace contain all words.
func (s *site) awaitSettings(words ...string) {
	s.t.Helper()
	s.until("the namespace has the settings", func() bool {
		object, err := cluster.Client().CoreV1().ConfigMaps(s.namespace).Get(s.ctx, podSettings, metav1.GetOptions{})
		if err != nil {
			return false
		}
		text := object.Data["rockpool.yaml"]
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

// syncVolumes updates the pod's volumes, as the kubelet does periodically.
func (p *testPod) syncVolumes() {
	p.site.t.Helper()
	if err := p.RotateTokens(p.site.ctx); err != nil {
		p.site.t.Fatal(err)
	}
}

// annotate sets an annotation of the running pod. A nil value removes it.
func (p *testPod) annotate(name string, value any) {
	p.site.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"rockpool.dev/" + name: value}}})
	if err != nil {
		p.site.t.Fatal(err)
	}
	if _, err := cluster.Client().CoreV1().Pods(p.site.namespace).Patch(p.site.ctx, p.Pod().Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		p.site.t.Fatal(err)
	}
	p.syncVolumes()
}

func TestTheClustersSettingsReachRunningPods(t *testing.T) {
	const another = "203.0.113.10:6444"
	s := newConfiguredSite(t)
	s.linkAt(another, cluster.Address())
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	s.awaitSettings("servers: https://" + edge.PublicAddress)

	// Change three settings of a running pod at once.
	started := time.Now()
	s.setClusterSettings(map[string]string{"cache_agents": "*,!kubectl", "log_level": "debug", "upstreams": "https://" + another + "\n"})
	s.awaitSettings("https://"+another, "level: debug", "'*,!kubectl'")
	t.Logf("published %s after the change", time.Since(started))
	p.syncVolumes()
	p.sidecarSays(`changed settings are in effect","keys":["upstream.servers","cache.agents","log.level"]`)
	s.Link.Cut() // this link is no longer in use
	s.configMap("greeting", "over the other link")
	p.sees("updated", "over the other link")
	p.kubectl("get", "services", "-o", "name")
	p.sidecarSays(`"msg":"request","verb":"list","resource":"v1/services"`)
	changed := s.configMap("greeting", "recorded after kubectl has read")
	s.until("the informer's read is recorded", func() bool {
		return s.sql("SELECT resource_version FROM v_object WHERE name = 'greeting'") == changed.ResourceVersion
	})
	if n := s.sql("SELECT count(*) FROM collection WHERE resource = 'services'"); n != "0" {
		t.Errorf("%s lists of kubectl were recorded, want none", n)
	}

	// A new pod has the settings from the start, before its namespace has a ConfigMap.
	created, err := cluster.Client().CoreV1().Pods(s.namespace).Create(s.ctx, edge.Pod(s.namespace, "next"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if env := fmt.Sprint(created.Spec.InitContainers[1].Env); !strings.Contains(env, "ROCKPOOL_DEFAULT_LOG_LEVEL debug") || !strings.Contains(env, "https://"+another) {
		t.Errorf("the variables of a new pod: %s", env)
	}

	// Invalid settings change nothing, and an Event reports them.
	s.setClusterSettings(map[string]string{"cache_agents": "*", "log_level": "loud"})
	s.until("there is an Event about the ConfigMap", func() bool {
		events, err := cluster.Client().CoreV1().Events(injectorNamespace).List(s.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + clusterSettings})
		return err == nil && len(events.Items) == 1 && events.Items[0].Reason == "InvalidConfiguration" &&
			strings.Contains(events.Items[0].Message, `log_level: "loud" is unknown; allowed are debug, info, warn, error`)
	})
	s.awaitSettings("https://"+another, "level: debug", "'*,!kubectl'")
	if _, err := cluster.Client().CoreV1().Pods(s.namespace).Create(s.ctx, edge.Pod(s.namespace, "next"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("pods are refused: %v", err)
	}

	// The program may write ConfigMaps, but not that of the settings.
	refused := p.run("/kubectl", "patch", "configmap", podSettings, "-p", `{"data":{"rockpool.yaml":"upstream: {servers: 'https://192.0.2.1'}"}}`)
	if refused.ExitCode == 0 || !strings.Contains(refused.Stderr, "this ConfigMap is written by rockpool-injector") {
		t.Errorf("a program of the pod may change the settings: %+v", refused)
	}
	if n := p.restarts("rockpool-sidecar"); n != 0 {
		t.Errorf("the sidecar was restarted %d times", n)
	}
}

func TestAnnotationsOfARunningPodTakeEffect(t *testing.T) {
	s := newConfiguredSite(t)
	s.configMap("greeting", "hello")
	p := s.pod(func(p *corev1.Pod) { p.Annotations["rockpool.dev/cache-agents"] = "informer" })
	p.sees("synced")
	p.kubectl("get", "services", "-o", "name")
	p.annotate("cache-agents", "*")
	p.sidecarSays(`changed settings are in effect","keys":["cache.agents"]`)
	p.kubectl("get", "services", "-o", "name")
	s.until("kubectl's read is recorded", func() bool { return s.sql("SELECT count(*) FROM collection WHERE resource = 'services'") == "1" })

	// The pod's annotation has precedence over the cluster's setting.
	p.annotate("log-level", "debug")
	p.sidecarSays(`changed settings are in effect","keys":["log.level"]`)
	s.setClusterSettings(map[string]string{"log_level": "error", "upstream_probe_interval": "1s"})
	s.awaitSettings("level: error")
	p.syncVolumes()
	p.sidecarSays(`changed settings are in effect","keys":["upstream.probe-interval"]`)

	p.annotate("log-level", "loud")
	p.sidecarSays(`log.level: \"loud\" is unknown; allowed are debug, info, warn, error (from annotation rockpool.dev/log-level)`)
	s.until("the metric counts the problem", func() bool { return p.metric("rockpool_config_problems") == 1 })
	p.kubectl("get", "events", "-o", "name")
	p.sidecarSays(`"resource":"v1/events"`) // still debug

	// After a restart there are no earlier settings, and the invalid annotation must not be fatal.
	p.restart("rockpool-sidecar")
	p.kubectl("get", "services", "-o", "name")
	p.annotate("log-level", nil)
	s.until("the metric counts no problem", func() bool { return p.metric("rockpool_config_problems") == 0 })
	if n := p.restarts("rockpool-sidecar"); n != 1 {
		t.Errorf("the sidecar was restarted %d times", n)
	}
}
