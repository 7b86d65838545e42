package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deleteConfigMap deletes a ConfigMap past the sidecar.
func (s *site) deleteConfigMap(name string) {
	s.t.Helper()
	if err := cluster.Client().CoreV1().ConfigMaps(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// fluentd's Ruby client lists, and then watches by the deprecated paths only.
func TestADeprecatedWatchPathIsAWatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	s.configMap("other", "unchanged")
	p := s.pod(withDebugLog)
	p.sees("synced")
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(p.ask(get(s.configMaps()))[0].Body), &list); err != nil {
		t.Fatal(err)
	}
	all := "/api/v1/watch/namespaces/" + s.namespace + "/configmaps"
	from := "?resourceVersion=" + list.ResourceVersion
	many, stop := p.kubectlStreams("get", "--raw", all+from)
	defer stop()
	one, stop := p.kubectlStreams("get", "--raw", all+"/greeting"+from)
	defer stop()

	s.configMap("new", "made online")
	s.until("the watch tells of a new object", func() bool { return strings.Contains(many.String(), `"made online"`) })
	p.offline()
	s.configMap("greeting", "good morning")
	s.deleteConfigMap("other")
	p.online()
	s.until("the watch goes on after the outage", func() bool {
		return strings.Contains(many.String(), `"good morning"`) && strings.Contains(many.String(), `"DELETED"`)
	})
	s.until("the watch of one object goes on after the outage", func() bool { return strings.Contains(one.String(), `"good morning"`) })
	if strings.Contains(one.String(), `"new"`) || strings.Contains(one.String(), `"other"`) {
		t.Errorf("the watch of one object tells of others: %s", one)
	}
	if strings.Contains(mustLogs(t, p, "rockpool-sidecar"), `"path":"`+all) {
		t.Error("a watch has ended, so that its client had to begin again")
	}

	p.offline()
	p.restart("rockpool-sidecar")
	for name, want := range map[string]int{"greeting": http.StatusOK, "new": http.StatusOK, "other": http.StatusNotFound} {
		if r := p.ask(get(s.configMaps() + "/" + name))[0]; r.Status != want {
			t.Errorf("offline: %s is %d %s", name, r.Status, r.Body)
		}
	}
	many, stop = p.kubectlStreams("get", "--raw", all)
	defer stop()
	s.until("the watch opens offline, with the present state", func() bool {
		return strings.Contains(many.String(), `"good morning"`) && strings.Contains(many.String(), `"made online"`)
	})
	s.configMap("late", "made offline")
	p.online()
	s.until("the watch that was opened offline goes on", func() bool { return strings.Contains(many.String(), `"made offline"`) })
}
