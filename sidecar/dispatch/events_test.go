package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/sidecar/write/outbox"
	"rockpool.dev/tests/eventually"
)

const (
	eventsPath = "/api/v1/namespaces/shop/events"
	namedEvent = `{"kind":"Event","apiVersion":"v1","metadata":{"name":"a","namespace":"shop"},"count":1}`
)

// eventsHarness is a harness that queues Events.
type eventsHarness struct {
	*harness
	outbox *outbox.Outbox
}

func newEventsHarness(t *testing.T) *eventsHarness {
	t.Helper()
	g := &eventsHarness{harness: newHarness(t)}
	g.outbox = outbox.New(outbox.Options{Store: g.db, MaxCount: 10, MaxAge: time.Hour, Logger: zaptest.NewLogger(t)})
	g.Acceptors = []write.Acceptor{g.outbox}
	return g
}

// errInterrupted is the error of a request that may have arrived before the link broke.
var errInterrupted = &upstream.LinkError{Sent: true}

// restoreAndDeliver restores the link and delivers the queue. It returns the requests as
// METHOD path body authorization.
func (g *eventsHarness) restoreAndDeliver(answer func(r *http.Request, body string) (int, string)) (got []string) {
	g.t.Helper()
	var mu sync.Mutex
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, strings.Join([]string{r.Method, r.URL.Path, string(raw), r.Header.Get("Authorization")}, " "))
		code, body := answer(r, string(raw))
		return textResponse(code, body), nil
	})
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error, 1)
	go func() { done <- g.outbox.Run(ctx, g.Dispatcher) }()
	g.link.Restore()
	eventually.True(g.t, "the outbox is empty", func() bool {
		rows, err := g.db.Outbox(ctx)
		return err == nil && len(rows) == 0
	})
	cancel()
	if err := <-done; err != nil {
		g.t.Fatal(err)
	}
	return got
}

func created(_ *http.Request, body string) (int, string) { return 201, body }

func TestARefusedOfflineWriteStatesTheReason(t *testing.T) {
	g := newHarness(t)
	g.link.Cut()
	for _, r := range []*http.Request{g.write("POST", eventsPath, namedEvent), g.write("PUT", leasePath, heldLease("1", 1)), g.write("PATCH", path+"/a", `{}`)} {
		_, err := g.RoundTrip(r)
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Fatal(err)
		}
		if s := status.Status(); s.Code != 503 || s.Reason != metav1.StatusReasonServiceUnavailable || s.Details != nil ||
			s.Message != "rockpool: the link to the API server is down: nothing is written while the link is down; try again later" {
			t.Errorf("%s %s: %+v", r.Method, r.URL, s)
		}
	}
}

func TestEventsAreQueuedOfflineAndDelivered(t *testing.T) {
	g := newEventsHarness(t)
	g.link.Cut()
	r := g.write("POST", eventsPath, namedEvent)
	r = r.WithContext(WithTrace(r.Context()))
	if code, body := g.do(r); code != 201 || !strings.Contains(body, `"name":"a"`) || !TraceOf(r.Context()).Offline {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := g.do(g.write("PATCH", eventsPath+"/a", `{"count":2}`)); code != 200 || !strings.Contains(body, `"count":2`) {
		t.Fatalf("%d %s", code, body)
	}
	for name, r := range map[string]*http.Request{
		"an update":                    g.write("PUT", eventsPath+"/a", namedEvent),
		"a dry-run create":             g.write("POST", eventsPath+"?dryRun=All", namedEvent),
		"a patch of another Event":     g.write("PATCH", eventsPath+"/b", `{"count":2}`),
		"an Event of more than 64 KiB": g.write("POST", eventsPath, namedEvent+strings.Repeat(" ", maxBody)),
		"a list, which lacks it":       g.request("GET", eventsPath),
	} {
		if code, body := g.do(r); code != 503 {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	for subject, want := range map[string]int{"forged": 401, "other": 503} {
		r := g.write("PATCH", eventsPath+"/a", `{"count":3}`)
		r.Header.Set("Authorization", "Bearer "+token(subject))
		if code, body := g.do(r); code != want {
			t.Errorf("%s: %d %s", subject, code, body)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(g.db.Path() + suffix)
		if err != nil || bytes.Contains(raw, []byte(token("web"))) {
			t.Errorf("a token is on the disk: %v", err)
		}
	}
	g.podToken = token("web") + "-renewed" // as the kubelet renews it
	got := g.restoreAndDeliver(created)
	want := "POST " + eventsPath + ` {"apiVersion":"v1","count":2,"kind":"Event","metadata":{"name":"a","namespace":"shop"}} Bearer ` + g.podToken
	if len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q", got, want)
	}
	g.link.Cut()
	if code, body := g.do(g.request("GET", eventsPath+"/a")); code != 200 || !strings.Contains(body, `"count":2`) {
		t.Errorf("the delivered Event is not recorded: %d %s", code, body)
	}
}

func TestAnotherPrincipalsEventsAreSentWithItsToken(t *testing.T) {
	g := newEventsHarness(t)
	g.link.Cut()
	for _, subject := range []string{"other", "web"} {
		r := g.write("POST", eventsPath, namedEvent)
		r.Header.Set("Authorization", "Bearer "+token(subject))
		if code, body := g.do(r); code != 201 {
			t.Fatalf("%d %s", code, body)
		}
	}
	got := g.restoreAndDeliver(created)
	if len(got) != 2 || !strings.HasSuffix(got[0], token("other")) || !strings.HasSuffix(got[1], token("web")) {
		t.Errorf("%q", got)
	}
}

func TestAnInterruptedCreateOfAnEvent(t *testing.T) {
	for _, tt := range []struct {
		name, method, path, body string
		code                     int
	}{
		{"with a name is queued", "POST", eventsPath, namedEvent, 201},
		{"with a generateName gets 504, as it might be created twice", "POST", eventsPath, `{"metadata":{"generateName":"a-"}}`, 504},
		{"that is malformed gets 504", "POST", eventsPath, `{`, 504},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newEventsHarness(t)
			g.failAll(errInterrupted)
			if code, body := g.do(g.write(tt.method, tt.path, tt.body)); code != tt.code {
				t.Fatalf("%d %s", code, body)
			}
			if rows, err := g.db.Outbox(t.Context()); err != nil || (len(rows) == 1) != (tt.code == 201) {
				t.Errorf("queued are %v, %v", rows, err)
			}
		})
	}
}

func TestOnlineEventsAreAnsweredByTheAPIServer(t *testing.T) {
	g := newEventsHarness(t)
	for _, code := range []int{201, 400, 403, 409, 422, 429, 500} {
		body := fmt.Sprintf(`{"kind":"Status","code":%d}`, code)
		g.answerAll(code, body)
		if got, answer := g.do(g.write("POST", eventsPath, namedEvent)); got != code || answer != body {
			t.Errorf("%d became %d %s", code, got, answer)
		}
	}
	g.failAll(context.Canceled)
	if _, err := g.RoundTrip(g.write("POST", eventsPath, namedEvent)); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled request returned %v", err)
	}
	if rows, err := g.db.Outbox(t.Context()); err != nil || len(rows) != 0 {
		t.Errorf("queued are %v, %v", rows, err)
	}
}

func TestAnInterruptedWriteThatCannotBeQueuedGets504(t *testing.T) {
	for name, r := range map[string]func(*harness) *http.Request{
		"a patch of an unknown Event": func(g *harness) *http.Request { return g.write("PATCH", eventsPath+"/b", `{"count":2}`) },
		"a patch with a list":         func(g *harness) *http.Request { return g.write("PATCH", eventsPath+"/b", `{"x":[1]}`) },
		"an Event of more than 64 KiB": func(g *harness) *http.Request {
			return g.write("PATCH", eventsPath+"/b", strings.Repeat(" ", maxBody)+"{}")
		},
		"an Event with a forged token": func(g *harness) *http.Request {
			r := g.write("POST", eventsPath, namedEvent)
			r.Header.Set("Authorization", "Bearer "+token("forged"))
			return r
		},
	} {
		g := newEventsHarness(t)
		g.failAll(errInterrupted)
		if code, message := g.do(r(g.harness)); code != http.StatusGatewayTimeout || !strings.Contains(message, "may have been carried out") {
			t.Errorf("%s: %d %s", name, code, message)
		}
	}
}

func TestARefusedPatchDoesNotReplaceAQueuedEvent(t *testing.T) {
	g := newEventsHarness(t)
	g.link.Cut()
	g.do(g.write("POST", eventsPath, namedEvent))
	g.link.Restore()
	g.answerAll(404, `{"kind":"Status","code":404}`)
	if code, _ := g.do(g.write("PATCH", eventsPath+"/a", `{"count":2}`)); code != 404 {
		t.Fatal(code)
	}
	if got := g.restoreAndDeliver(created); len(got) != 1 || !strings.HasPrefix(got[0], "POST "+eventsPath+" ") {
		t.Errorf("delivered: %q", got)
	}
}

func TestAnEventThatWasCreatedOnlineIsPatchedOffline(t *testing.T) {
	const recorded = `{"kind":"Event","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"7"},"count":1}`
	g := newEventsHarness(t)
	g.answerAll(201, recorded)
	if code, body := g.do(g.write("POST", eventsPath, namedEvent)); code != 201 || body != recorded {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.Cut()
	if code, body := g.do(g.write("PATCH", eventsPath+"/a", `{"count":2}`)); code != 200 || !strings.Contains(body, `"resourceVersion":"7"`) || !strings.Contains(body, `"count":2`) {
		t.Fatalf("offline: %d %s", code, body)
	}
	got := g.restoreAndDeliver(func(r *http.Request, _ string) (int, string) {
		if r.Method == "POST" {
			return 409, `{"kind":"Status","code":409,"reason":"AlreadyExists"}`
		}
		return 200, strings.NewReplacer(`"7"`, `"8"`, `"count":1`, `"count":2`).Replace(recorded)
	})
	bearer := " Bearer " + g.podToken
	if want := []string{"POST " + eventsPath + ` {"apiVersion":"v1","count":2,"kind":"Event","metadata":{"name":"a","namespace":"shop"}}` + bearer, "PATCH " + eventsPath + `/a {"count":2}` + bearer}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAQueuedEventIsDroppedWhenItsClientWritesItOnline(t *testing.T) {
	g := newEventsHarness(t)
	g.link.Cut()
	g.do(g.write("POST", eventsPath, namedEvent))
	g.link.Restore()
	g.answerAll(201, strings.Replace(namedEvent, `"count":1`, `"count":9`, 1))
	if code, body := g.do(g.write("POST", eventsPath, strings.Replace(namedEvent, `"count":1`, `"count":9`, 1))); code != 201 {
		t.Fatalf("%d %s", code, body)
	}
	if got := g.restoreAndDeliver(created); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
