package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/history"
)

// shadow watches ConfigMaps at the API server directly and records all events.
type shadow struct {
	*history.History
	site     *site
	selector metav1.ListOptions
	ended    chan struct{}
}

func (s *site) shadow(selector metav1.ListOptions) *shadow {
	s.t.Helper()
	h := &shadow{site: s, selector: selector}
	version, objects := h.list()
	h.History = history.New(objects)
	h.follow(version)
	return h
}

// list returns the objects of the server.
func (h *shadow) list() (version uint64, objects map[string]string) {
	t := h.site.t
	t.Helper()
	list, err := cluster.Client().CoreV1().ConfigMaps(h.site.namespace).List(h.site.ctx, h.selector)
	if err != nil {
		t.Fatal(err)
	}
	objects = map[string]string{}
	for _, o := range list.Items {
		objects[o.Name] = string(o.UID) + "/" + o.ResourceVersion
	}
	return history.Event{ResourceVersion: list.ResourceVersion}.Version(), objects
}

// follow watches from a version on until the stream ends.
func (h *shadow) follow(version uint64) {
	t := h.site.t
	t.Helper()
	options := h.selector
	options.ResourceVersion = fmt.Sprint(version)
	w, err := cluster.Client().CoreV1().ConfigMaps(h.site.namespace).Watch(h.site.ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	h.ended = make(chan struct{})
	t.Cleanup(w.Stop)
	go func() {
		defer close(h.ended)
		for event := range w.ResultChan() {
			o, ok := event.Object.(*corev1.ConfigMap)
			if !ok {
				return // an error; resume checks whether an event is missing
			}
			h.Append(history.Event{Event: string(event.Type), Name: o.Name, UID: string(o.UID), ResourceVersion: o.ResourceVersion})
		}
	}()
}

// sync waits until the shadow has all events, and returns the objects of the server. No one writes
// at the same time.
func (h *shadow) sync() map[string]string {
	h.site.t.Helper()
	version, want := h.list()
	h.site.until("the shadow has all events", func() bool { return maps.Equal(h.At(version), want) })
	return want
}

// resume follows again after a restart of the server, during which no one has written.
func (h *shadow) resume() {
	h.site.t.Helper()
	<-h.ended
	version, want := h.list()
	if have := h.At(version); !maps.Equal(have, want) {
		h.site.t.Fatalf("the shadow has missed an event: it has %v, the server has %v", have, want)
	}
	h.follow(version)
}

// catchUps are the differences in the sidecar's log that it has sent to watches of a namespace.
func catchUps(log, namespace string) (all []history.CatchUp) {
	for line := range strings.Lines(log) {
		var l struct{ Path, From, To string }
		if json.Unmarshal([]byte(line), &l) == nil && strings.Contains(l.Path, "/namespaces/"+namespace+"/") && l.To != "" {
			all = append(all, history.CatchUp{
				From: history.Event{ResourceVersion: l.From}.Version(), To: history.Event{ResourceVersion: l.To}.Version(),
			})
		}
	}
	return all
}

// tail reads a container's output, each line once.
type tail struct {
	pod       *testPod
	container string
	offset    int64
}

// next returns the lines since its last call. A line that is incomplete waits for the next call.
func (x *tail) next() []string {
	x.pod.site.t.Helper()
	text, err := x.pod.LogsFrom(x.container, x.offset)
	if err != nil {
		x.pod.site.t.Fatal(err)
	}
	text = text[:strings.LastIndex(text, "\n")+1]
	x.offset += int64(len(text))
	return strings.Split(text, "\n")
}
