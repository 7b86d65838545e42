package settings

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	fakecache "k8s.io/client-go/tools/cache/testing"

	"rockpool.dev/injector/inject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// following is a running Follower, until the test ends. tests/e2e uses a real API server.
type following struct {
	*Follower
	t      *testing.T
	source *fakecache.FakeControllerSource
	logs   *observer.ObservedLogs

	mu     sync.Mutex
	events []corev1.Event
}

func (f *following) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event corev1.Event
	if err := json.NewDecoder(r.Body).Decode(&event); err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/rockpool-system/events" {
		f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(event)
}

func (f *following) recordedEvents() []corev1.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

func follow(t *testing.T, base inject.Params, before ...*corev1.ConfigMap) *following {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	f := &following{t: t, source: fakecache.NewFakeControllerSource(), logs: logs}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	for _, object := range before {
		f.source.Add(object)
	}
	var err error
	f.Follower, err = NewFollower(&rest.Config{Host: server.URL}, "rockpool-system", DefaultName, base, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	f.Follower.source = f.source
	if _, err := f.Params(); err == nil || !strings.Contains(err.Error(), "has not been read yet") {
		t.Errorf("before the first read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		f.source.Shutdown()
		if transport, ok := f.client.(*rest.RESTClient).Client.Transport.(interface{ CloseIdleConnections() }); ok {
			transport.CloseIdleConnections()
		}
	})
	return f
}

func (f *following) eventually(what string, condition func() bool) {
	f.t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			f.t.Fatalf("never: %s\n%v", what, f.logs.All())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (f *following) waitForLevel(want string) {
	f.t.Helper()
	f.eventually("log.level is "+want, func() bool {
		params, err := f.Params()
		return err == nil && params.Settings["log.level"] == want
	})
}

func configMap(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "rockpool-system", Name: DefaultName, UID: "u"}, Data: data}
}

func TestTheConfigMapIsFollowed(t *testing.T) {
	f := follow(t, flags())
	f.waitForLevel("") // without a ConfigMap
	<-f.Changed()
	f.source.Add(configMap(map[string]string{"log_level": "warn"}))
	f.waitForLevel("warn")
	<-f.Changed()
	f.source.Modify(configMap(map[string]string{"log_level": "debug"}))
	f.waitForLevel("debug")

	f.source.Modify(configMap(map[string]string{"log_level": "loud", "cache_agents": "a/b"}))
	f.eventually("an Event", func() bool { return len(f.recordedEvents()) == 1 })
	event := f.recordedEvents()[0]
	if event.Type != corev1.EventTypeWarning || event.InvolvedObject.UID != "u" || !strings.HasPrefix(event.Name, DefaultName+".") ||
		!strings.Contains(event.Message, "log_level:") || !strings.Contains(event.Message, "cache_agents:") {
		t.Errorf("%+v", event)
	}
	f.waitForLevel("debug")
	if n := f.logs.FilterMessageSnippet("keeping the settings in effect").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}

	f.source.Modify(configMap(map[string]string{"log_level": "error"}))
	f.waitForLevel("error")
	f.source.Delete(configMap(nil))
	f.waitForLevel("")
}

func TestAnInjectorThatStartsWithAnInvalidConfigMapHasNoSettings(t *testing.T) {
	f := follow(t, flags(), configMap(map[string]string{"upstreams": "http://a"}))
	f.eventually("the ConfigMap is found invalid", func() bool {
		_, err := f.Params()
		return err != nil && strings.Contains(err.Error(), `upstreams: entry 1: url: "http://a" is not https`)
	})
	f.source.Modify(configMap(map[string]string{"log_level": "warn"}))
	f.waitForLevel("warn")
}

func TestALongMessageIsTruncated(t *testing.T) {
	event := eventOf(configMap(nil), errUnread)
	if event.Message == "" {
		t.Error("no message")
	}
	_, err := Apply(flags(), map[string]string{strings.Repeat("x", 3000): "y"})
	if event = eventOf(configMap(nil), err); len(event.Message) != maxEventMessage {
		t.Errorf("%d bytes", len(event.Message))
	}
}
