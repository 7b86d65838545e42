package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/edge"
)

func TestTwoIdenticalInformersInAPodAreRecordedOnce(t *testing.T) {
	t.Parallel()
	const changes = 5
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod(func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "twin", Image: "informer:dev"})
	})
	twin := edge.NewOutput(p.Runner, "twin")
	both := func(words ...string) {
		t.Helper()
		p.sees(words...)
		if _, err := twin.Await(s.ctx, words...); err != nil {
			t.Fatal(err)
		}
	}
	both("synced")
	count := func() (applied, known int) {
		return p.metric(`rockpool_record_events_total{result="applied"}`), p.metric(`rockpool_record_events_total{result="known"}`)
	}
	applied, known := count()
	for i := range changes {
		value := fmt.Sprintf("hello %d", i)
		s.configMap("greeting", value)
		both("updated", "greeting", value)
	}
	s.until("the second informer's events are known", func() bool {
		_, k := count()
		return k >= known+changes
	})
	// The server may have sent a bookmark, which changes the version.
	if a, _ := count(); a > applied+changes+1 {
		t.Errorf("%d events were applied for %d changes", a-applied, changes)
	}
	if got := s.sql("SELECT count(*), sum(objects) FROM v_collection WHERE resource = 'v1/configmaps'"); got != "1|2" {
		t.Errorf("collections and objects: %s, want 1|2", got)
	}
}

// settings is the directory of the sidecar's configuration file, on the node and in its container.
const settings = "/etc/rockpool"

// configure replaces the sidecar's configuration file as an editor does.
func (s *site) configure(text string) {
	s.t.Helper()
	directory := filepath.Join(s.Root, settings)
	path := filepath.Join(directory, "rockpool.yaml")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

// configurable runs a pod whose sidecar reads its configuration from a directory of the node, not
// from the ConfigMap volume.
func (s *site) configurable() *testPod {
	s.t.Helper()
	spec, err := cluster.Client().CoreV1().Pods(s.namespace).Create(s.ctx, edge.Pod(s.namespace, "web"), metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range spec.Spec.Volumes {
		if v := &spec.Spec.Volumes[i]; v.Name == "rockpool-config" {
			v.VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: settings}}
		}
	}
	runner, err := s.Run(s.ctx, spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.started(runner)
}

func TestTheRecordedAgentsChangeAtRunTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	s.configure(`cache: {agents: "*,!kubectl"}`)
	p := s.configurable()
	p.sees("synced")

	services := func() string { return s.sql("SELECT count(*) FROM collection WHERE resource = 'services'") }
	p.kubectl("get", "services", "-o", "name")
	// The sidecar records requests in order: when the informer's later read is recorded, an earlier
	// one of kubectl would be too.
	changed := s.configMap("greeting", "hello again")
	s.until("the informer's read is recorded", func() bool {
		return s.sql("SELECT resource_version FROM v_object WHERE name = 'greeting'") == changed.ResourceVersion
	})
	if n := services(); n != "0" {
		t.Fatalf("%s lists of kubectl were recorded, want none", n)
	}

	s.configure(`cache: {agents: "*"}`)
	p.sidecarSays(`changed settings are in effect","keys":["cache.agents"]`)
	p.kubectl("get", "services", "-o", "name")
	s.until("kubectl's read is recorded", func() bool { return services() == "1" })
	if n := p.restarts("rockpool-sidecar"); n != 0 {
		t.Errorf("the sidecar was restarted %d times", n)
	}
	p.offline()
	p.kubectl("get", "services", "-o", "name")
}

func TestTheConfigurationFileMayAppearAfterTheStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.configurable()
	p.sees("synced")
	s.configure(`log: {level: loud}`)
	p.sidecarSays("invalid settings are ignored")
	s.configure(`log: {level: debug}`)
	p.sidecarSays(`changed settings are in effect","keys":["log.level"]`)
}

func TestExcludedResourcesLeaveTheDiskAtRunTime(t *testing.T) {
	s := newSite(t)
	s.configMap("greeting", "hush-hush")
	s.configure(``)
	p := s.configurable()
	p.sees("synced")
	rows := func() string {
		return s.sql("SELECT (SELECT count(*) FROM v_object WHERE name = 'greeting') + (SELECT count(*) FROM observation WHERE name = 'greeting')")
	}
	s.until("the ConfigMap is recorded", func() bool { return rows() != "0" })

	s.configure(`cache: {exclude: "configmaps"}`)
	s.until("it is deleted", func() bool { return rows() == "0" })
	s.configMap("greeting", "hush-hush again")
	p.sees("updated", "hush-hush again") // the watch goes on
	p.kubectl("get", "configmap", "greeting", "-o", "json")
	p.kubectl("get", "services", "-o", "name")
	s.until("a later read is recorded", func() bool { return s.sql("SELECT count(*) FROM collection WHERE resource = 'services'") != "0" })
	if n := rows(); n != "0" {
		t.Errorf("%s rows of an excluded ConfigMap", n)
	}
	if n := p.restarts("rockpool-sidecar"); n != 0 {
		t.Errorf("the sidecar has restarted %d times", n)
	}
}
