package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

// socketRequest is a watch over WebSocket that tests/programs/socket opens.
type socketRequest struct {
	Target    string   `json:"target"`
	Accept    string   `json:"accept"`
	Origin    string   `json:"origin"`
	Protocols []string `json:"protocols"`
	Anonymous bool     `json:"anonymous"`
}

// happening is what a socket's client sees: the answer to the handshake, a message, or the end.
type happening struct {
	Question, Status, Kind, Closed int
	Protocol, Type, Error          string
	Body                           []byte
}

// sockets opens watches over WebSocket from inside the pod, until they end or stop is called.
func (p *testPod) sockets(ctx context.Context, requests []socketRequest, args ...string) (*output, chan struct{}) {
	p.site.t.Helper()
	raw, err := json.Marshal(requests)
	if err != nil {
		p.site.t.Fatal(err)
	}
	out, ended := &output{}, make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.ExecStream(ctx, "shell", pod.ExecOptions{
			Argv: append([]string{"/socket"}, args...), Stdin: bytes.NewReader(raw), Stdout: out, Stderr: out,
		})
	}()
	return out, ended
}

// openSocket opens one watch over WebSocket, and returns when it is open.
func (p *testPod) openSocket(target string) (out *output, stop func()) {
	p.site.t.Helper()
	ctx, cancel := context.WithCancel(p.site.ctx)
	out, ended := p.sockets(ctx, []socketRequest{{Target: target, Origin: "https://" + edge.PublicAddress}})
	p.site.until("the socket opens", func() bool { return strings.Contains(out.String(), `"status":101`) })
	return out, func() { cancel(); <-ended }
}

// happenings are what the clients of sockets saw, by request.
func (p *testPod) happenings(requests []socketRequest, args ...string) [][]happening {
	p.site.t.Helper()
	ctx, cancel := context.WithTimeout(p.site.ctx, patience)
	defer cancel()
	out, ended := p.sockets(ctx, requests, args...)
	<-ended
	seen := make([][]happening, len(requests))
	for line := range strings.Lines(out.String()) {
		var h happening
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			p.site.t.Fatalf("socket: %v: %s", err, line)
		}
		seen[h.Question] = append(seen[h.Question], h)
	}
	return seen
}

// fabric8 opens each of its watches like this.
func TestAWatchOverWebSocketOutlivesTheLink(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod(withoutApp, withDebugLog)
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(p.ask(get(s.configMaps()))[0].Body), &list); err != nil {
		t.Fatal(err)
	}
	target := s.configMaps() + "?allowWatchBookmarks=true&watch=true&resourceVersion=" + list.ResourceVersion
	socket, stop := p.openSocket(target)
	defer stop()
	s.configMap("new", "made online")
	s.until("the event arrives", func() bool { return strings.Contains(socket.String(), `made online`) })
	s.until("the event is recorded", func() bool { return s.sql("SELECT name FROM v_object WHERE name = 'new'") == "new" })

	p.offline()
	h2c := with("GET", s.configMaps()+"/new", map[string]string{"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"})
	for i, r := range p.ask(get(s.configMaps()+"/new"), h2c) {
		if r.Status != 200 || !strings.Contains(r.Body, "made online") {
			t.Errorf("offline %d: %d %s", i, r.Status, r.Body)
		}
	}
	second, stop := p.openSocket(target)
	defer stop()
	initial, stop := p.openSocket(s.configMaps() + "?watch=true")
	defer stop()
	s.until("a watch without a version begins with the recorded state", func() bool {
		return strings.Contains(initial.String(), "made online") && strings.Contains(initial.String(), "hello")
	})
	s.configMap("greeting", "good morning")
	p.online()
	for name, out := range map[string]*output{"the socket goes on": socket, "the second goes on": second, "the third goes on": initial} {
		s.until(name, func() bool { return strings.Contains(out.String(), "good morning") })
		if text := out.String(); strings.Contains(text, `"closed"`) || strings.Contains(text, `"error"`) || strings.Count(text, "good morning") != 1 {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	if text := socket.String(); strings.Count(text, "made online") != 1 {
		t.Errorf("the event came twice:\n%s", text)
	}
	if token := p.token(); strings.Contains(mustLogs(t, p, "rockpool-sidecar"), token) {
		t.Error("the token is in the log")
	}
}

// moving matches what goes on by itself: the version of a bookmark or list, the age in a row of a
// Table, the oldest version that the API server still has.
var moving = regexp.MustCompile(`"BOOKMARK".*"resourceVersion":"\d+"|"metadata":{"resourceVersion":"\d+"}|"\d+s"|too old resource version: 1 \(\d+\)`)

// TestWatchesOverWebSocketAreTheAPIServers opens the same watches through the sidecar and at the
// API server itself, and compares what their clients see: the answer to the handshake, each
// message, and the close code. Messages are those of the HTTP watch.
func TestWatchesOverWebSocketAreTheAPIServers(t *testing.T) {
	s := newSite(t)
	s.allowEverywhere(rbacv1.PolicyRule{APIGroups: []string{"no.example"}, Resources: []string{"*"}, Verbs: []string{"*"}})
	s.configMap("greeting", "hello")
	p := s.pod(withoutApp)
	from := p.version()
	s.configMap("greeting", "hello ünï \u2028 <&>")
	s.configMap("other", strings.Repeat("x", 100_000))
	s.deleteConfigMap("other")

	const origin = "https://elsewhere.example"
	own := s.configMaps() + "?watch=true&timeoutSeconds=3&resourceVersion=" + from
	binaries := []string{"base64.binary.k8s.io"}
	requests := []socketRequest{
		{Target: own, Origin: origin},
		{Target: own, Origin: origin, Accept: acceptJSON},
		{Target: own, Origin: origin, Accept: acceptProtobuf},
		{Target: own, Origin: origin, Accept: acceptBoth},
		{Target: own, Origin: origin, Accept: acceptMetadata},
		{Target: own, Origin: origin, Accept: protobufMetadata},
		{Target: own, Origin: origin, Accept: "application/json;as=Table;g=meta.k8s.io;v=v1"},
		{Target: own, Origin: origin, Accept: "application/yaml"},
		{Target: own, Origin: origin, Accept: "application/cbor, application/json"},
		{Target: own + "&fieldSelector=metadata.name%3Dgreeting", Origin: origin},
		{Target: "/api/v1/watch/namespaces/" + s.namespace + "/configmaps/greeting?timeoutSeconds=3&resourceVersion=" + from, Origin: origin},
		{Target: s.configMaps() + "?watch=true&timeoutSeconds=3", Origin: origin},
		{Target: s.configMaps() + "?watch=true&timeoutSeconds=3&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", Origin: origin},
		{Target: s.configMaps() + "?watch=true&timeoutSeconds=3&resourceVersion=1", Origin: origin},
		{Target: own, Origin: origin, Protocols: binaries},
		{Target: own, Origin: origin, Protocols: []string{"a", "b"}},
		{Target: own, Origin: origin, Anonymous: true, Protocols: append([]string{"base64url.bearer.authorization.k8s.io.{token}"}, binaries...)},
		{Target: own, Origin: origin, Anonymous: true, Protocols: []string{"base64url.bearer.authorization.k8s.io.{token}", "a", "b"}},
		{Target: own, Origin: origin, Anonymous: true, Protocols: []string{"base64url.bearer.authorization.k8s.io.{token}"}},
		{Target: own, Origin: origin, Anonymous: true, Protocols: append([]string{"base64url.bearer.authorization.k8s.io.bm9uZQ"}, binaries...)},
		{Target: own, Origin: origin, Protocols: append([]string{"base64url.bearer.authorization.k8s.io.{token}"}, binaries...)},
		{Target: own, Origin: origin, Anonymous: true},
		{Target: own},
		{Target: own, Origin: "null"},
		{Target: s.configMaps() + "?watch=true&resourceVersion=abc", Origin: origin},
		{Target: s.configMaps() + "?watch=true&labelSelector=%21%21", Origin: origin},
		{Target: "/api/v1/namespaces/" + s.namespace + "/pods?watch=true", Origin: origin},
		{Target: "/api/v1/namespaces/" + s.namespace + "/nothings?watch=true", Origin: origin},
		{Target: "/apis/no.example/v1/things?watch=true", Origin: origin},
		{Target: s.configMaps(), Origin: origin},
		{Target: s.configMaps() + "/greeting?watch=true", Origin: origin},
	}
	direct := p.happenings(requests, "-server="+edge.PublicAddress)
	through := p.happenings(requests)
	statuses := map[int]int{}
	for i, q := range requests {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			for _, hs := range [][]happening{direct[i], through[i]} {
				for j := range hs {
					hs[j].Body = moving.ReplaceAll(hs[j].Body, nil)
				}
			}
			if !reflect.DeepEqual(direct[i], through[i]) || len(direct[i]) == 0 {
				t.Errorf("%+v (-API server +sidecar)\n%s", q, cmp.Diff(direct[i], through[i]))
			}
			if len(direct[i]) > 0 {
				statuses[direct[i][0].Status]++
			}
		})
	}
	t.Logf("answers to the handshakes: %v", statuses)
	if statuses[101] < 10 || statuses[400] == 0 || statuses[401] == 0 || statuses[403] == 0 || statuses[404] == 0 {
		t.Errorf("too few kinds of answers: %v", statuses)
	}

	t.Run("messages are the frames of the HTTP watch", func(t *testing.T) {
		for i, accept := range map[int]string{1: acceptJSON, 2: acceptProtobuf} {
			var body []byte
			for _, h := range through[i] {
				if accept == acceptProtobuf && h.Kind != 0 {
					body = binary.BigEndian.AppendUint32(body, uint32(len(h.Body)))
				}
				if h.Kind != 0 {
					body = append(body, h.Body...)
				}
			}
			want := p.sendDirectly([]getRequest{{Target: own, Accept: accept}})[0]
			if !slices.Equal(body, want.Body) || len(body) == 0 {
				t.Errorf("%s: %d bytes, want %d", accept, len(body), len(want.Body))
			}
		}
	})
}
