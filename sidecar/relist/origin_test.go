package relist

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/store"
)

const (
	configMaps = "/api/v1/namespaces/shop/configmaps"
	oneObject  = `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`
)

func TestAPageInPlaceOfAListIsNotRecorded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	db, err := store.Open(ctx, t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	recorded := cache.New(db, "relist", zaptest.NewLogger(t))
	done := make(chan error)
	go func() { done <- recorded.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	credentials := principal.NewCredentials(func() (string, error) { return "", errors.New("none") }, nil)
	credentials.Remember(http.Header{"Authorization": {"Bearer x"}}, "web")
	link := upstreamtest.NewLink()
	r := Refresher{Upstream: link, Credentials: credentials, Logger: zaptest.NewLogger(t), Clock: clock.RealClock{}}
	answers := func(status int, contentType, body string) {
		link.SetAnswer(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				Status: http.StatusText(status), StatusCode: status, Header: http.Header{"Content-Type": {contentType}},
				Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1,
			}, nil
		})
	}
	to := collection{principal: "web", path: configMaps, accept: "application/json"}
	answers(200, "application/json", oneObject) // without an Audit-Id, but with a kind
	if err := r.relist(ctx, to, recorded); err != nil {
		t.Fatal(err)
	}
	for name, page := range map[string]struct {
		status            int
		contentType, body string
	}{
		"a login page":                {200, "text/html", "<html>" + oneObject},
		"a login page that says JSON": {200, "application/json", "<html>" + oneObject},
		"a gateway's JSON":            {200, "application/json", `{"metadata":{"resourceVersion":"11"},"items":[]}`},
		"a page that denies":          {403, "text/html", "<html>"},
		"a page that is gone":         {410, "text/html", "<html>"},
	} {
		answers(page.status, page.contentType, page.body)
		if err := r.relist(ctx, to, recorded); !errors.Is(err, origin.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
		if err := recorded.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		asked := httptest.NewRequest(http.MethodGet, configMaps, http.NoBody)
		resp, err := recorded.Answer(ctx, replay.Request{Principal: "web", Info: request.Parse(asked), Path: configMaps})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || !strings.Contains(string(raw), `"name":"a"`) {
			t.Errorf("%s: %s %v", name, raw, err)
		}
	}
}
