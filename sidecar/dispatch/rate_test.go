package dispatch

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/live"
)

// slowly takes a second of a clock.
type slowly struct {
	io.Reader
	clock *clocktesting.FakeClock
	part  int
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.part++; s.part == 2 {
		s.clock.Step(time.Second)
	}
	return n, err
}

// The rate of the link is that of the payloads, also where they pass compressed: a list that is
// faster than a proof stays one.
func TestACompressedListIsMeasuredByItsPayload(t *testing.T) {
	g := newHarness(t)
	clock := clocktesting.NewFakeClock(time.Now())
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	item := `{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"},"data":{"text":"` + hex.EncodeToString(noise) + strings.Repeat("x", 3_600_000) + `"}}`
	text := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[` + item + `]}`
	o := g.Options
	o.Live = live.New(live.Options{Save: true, Upstream: g.link, Credentials: o.Credentials, Linger: time.Minute, Rate: float64(len(text)), Logger: o.Logger, Clock: clock})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = o.Live.Run(ctx) }()
	g.t.Cleanup(func() { cancel(); <-ended })
	g.restart(o)
	g.answerZipped(text, func(raw []byte) io.Reader { return &slowly{Reader: bytes.NewReader(raw), clock: clock} })
	for range 8 {
		if code, _ := g.do(g.requestZipped(path)); code != http.StatusOK {
			t.Fatal(code)
		}
		g.flush()
	}
	for _, r := range g.link.Requests() {
		if r.URL.RawQuery != "" {
			t.Errorf("a proof was tried: %s", r.URL)
		}
	}
}

// The state of a watch is a list as well: where a program's informers only watch, nothing else
// tells that the link is fast.
func TestAWatchListThatPassesIsMeasured(t *testing.T) {
	g := newHarness(t)
	clock := clocktesting.NewFakeClock(time.Now())
	added := `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1",` + largeItem(5)[1:] + "}\n"
	end := `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"
	o := g.Options
	o.Live = live.New(live.Options{Save: true, Upstream: g.link, Credentials: o.Credentials, Linger: time.Minute, Rate: 1, Logger: o.Logger, Clock: clock})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = o.Live.Run(ctx) }()
	g.t.Cleanup(func() { cancel(); <-ended })
	g.restart(o)
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		s := newStream()
		context.AfterFunc(r.Context(), func() { _ = s.CloseWithError(r.Context().Err()) })
		body := struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&slowly{Reader: strings.NewReader(added + end), clock: clock}, s), s}
		return response(http.StatusOK, body), nil
	})
	for range 2 {
		watch := g.open(g.request("GET", savedWatch))
		watch.readFrame()
		if frame := watch.readFrame(); !strings.Contains(frame, "initial-events-end") {
			t.Fatalf("%.200s", frame)
		}
		g.flush()
	}
	for _, r := range g.link.Requests() {
		if r.URL.Query().Get("sendInitialEvents") == "" {
			t.Errorf("a proof was tried: %s", r.URL)
		}
	}
}

// The next start is to know the rate of each list that is the API server's. A gateway's page says
// nothing of the way to it.
func TestTheRateOfAnAPIServersListIsKept(t *testing.T) {
	text := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[` + largeItem(5) + `]}`
	for name, c := range map[string]struct {
		compressed, gateway bool
		request             string
		kept                bool
	}{
		"as it is":                        {request: path, kept: true},
		"compressed":                      {compressed: true, request: path, kept: true},
		"not recorded, for it is a page":  {request: path + "?continue=c", kept: true},
		"of a gateway":                    {gateway: true, request: path},
		"one object, which is not a list": {request: path + "/a"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			servers := []string{"https://192.0.2.1:6443"}
			o := g.Options
			o.Live = live.New(live.Options{Save: true, Upstream: g.link, Credentials: o.Credentials, Rates: g.Caches.Disk, Servers: servers, Logger: o.Logger})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = o.Live.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-ended })
			g.restart(o)
			request := g.request("GET", c.request)
			switch {
			case c.gateway:
				g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
					resp := textResponse(http.StatusOK, "<html>"+strings.Repeat("x", 400_000)+"</html>")
					resp.Header = http.Header{"Content-Type": {"text/html"}}
					return resp, nil
				})
			case c.compressed:
				request = g.requestZipped(c.request)
				g.answerZipped(text, nil)
			default:
				g.answerAll(http.StatusOK, text)
			}
			if code, _ := g.do(request); code != http.StatusOK {
				t.Fatal(code)
			}
			g.Caches.Disk.Link("online", "") // a group, in any case
			g.flush()
			rate, err := g.Caches.Disk.Rate(t.Context(), servers)
			if err != nil || (rate > 0) != c.kept {
				t.Errorf("a rate of %d, %v", rate, err)
			}
		})
	}
}
