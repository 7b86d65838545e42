package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/upstream"
)

const (
	accessReviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	tokenReviews  = "/apis/authentication.k8s.io/v1/tokenreviews"
)

// answerReviews makes the API server answer reviews, after the failures. An answer repeats the
// question, as in Kubernetes.
func (g *harness) answerReviews(failures ...error) {
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		raw, err := io.ReadAll(r.Body)
		if len(failures) > 0 {
			err, failures = failures[0], failures[1:]
		}
		return textResponse(201, reviewAnswer(string(raw))), errors.Join(err)
	})
}

func reviewAnswer(question string) string { return `{"asked":` + question + `,"allowed":true}` }

func newReviewHarness(t *testing.T) *harness {
	t.Helper()
	g := newHarness(t)
	g.ReviewLifetime = time.Minute
	g.answerReviews()
	return g
}

func TestARecordedReviewIsAnsweredOffline(t *testing.T) {
	const question = `{"resource":"planted-name"}`
	g := newReviewHarness(t)
	if code, body := g.do(g.post(accessReviews, question)); code != 201 || body != reviewAnswer(question) {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.Cut()
	resp, err := g.RoundTrip(g.post(accessReviews, question))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 201 || string(raw) != reviewAnswer(question) || resp.Header.Get("Cache-Status") == "" || resp.Header.Get("Age") == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("offline: %d %s %v %v", resp.StatusCode, raw, resp.Header, err)
	}
	change := func(f func(*http.Request)) *http.Request {
		r := g.post(accessReviews, question)
		f(r)
		return r
	}
	for name, r := range map[string]*http.Request{
		"another question":               g.post(accessReviews, `{"resource":"other"}`),
		"another resource":               g.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", question),
		"another principal":              change(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token("other")) }),
		"another content type":           change(func(r *http.Request) { r.Header.Set("Content-Type", "application/yaml") }),
		"another form":                   change(func(r *http.Request) { r.Header.Set("Accept", "application/cbor") }),
		"impersonation":                  change(func(r *http.Request) { r.Header.Set("Impersonate-User", "root") }),
		"a dry run":                      g.post(accessReviews+"?dryRun=All", question),
		"another resource than a review": g.post(path, question),
		"a body that is too large":       g.post(accessReviews, strings.Repeat(" ", maxBody)+question),
	} {
		if code, body := g.do(r); code != 503 {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	forged := change(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token("forged")) })
	if code, body := g.do(forged); code != 401 {
		t.Errorf("with a forged token: %d %s", code, body)
	}
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(g.db.Path() + suffix)
		if err != nil || bytes.Contains(raw, []byte("planted-name")) {
			t.Errorf("%s%s can be read: %v", g.db.Path(), suffix, err)
		}
	}
	g.ReviewLifetime = time.Nanosecond
	if code, body := g.do(g.post(accessReviews, question)); code != 503 || !strings.Contains(body, "more than") {
		t.Errorf("after its lifetime: %d %s", code, body)
	}
	g.ReviewLifetime = time.Minute
	g.reviews = newReviewSealer() // as a restart does
	if code, body := g.do(g.post(accessReviews, question)); code != 503 {
		t.Errorf("after a restart: %d %s", code, body)
	}
}

func TestAnAnswerIsSealedForItsReview(t *testing.T) {
	s := newReviewSealer()
	g := newHarness(t)
	decide := func(contentType, question string) *exchange {
		r := g.post(accessReviews, question)
		r.Header.Set("Content-Type", contentType)
		x, err := g.decide(r)
		if err != nil {
			t.Fatal(err)
		}
		x.body.bytes = []byte(question)
		return x
	}
	one, err1 := s.seal(decide("application/json", "one"))
	two, err2 := s.seal(decide("application/json", "two"))
	if err1 != nil || err2 != nil || one.name == two.name {
		t.Fatal(err1, err2)
	}
	sealed := one.close([]byte("answer"))
	if raw, err := one.open(sealed); err != nil || string(raw) != "answer" {
		t.Fatalf("%s %v", raw, err)
	}
	if raw, err := two.open(sealed); !errors.Is(err, errSealed) || len(raw) > 0 {
		t.Errorf("the key of another review opens it: %s %v", raw, err)
	}
	sealed[len(sealed)-1]++
	if _, err := one.open(sealed); !errors.Is(err, errSealed) {
		t.Errorf("a damaged answer opens: %v", err)
	}
	shifted, err := s.seal(decide("application/jsono", "ne"))
	if err != nil || shifted.name == one.name {
		t.Error("two reviews have one name")
	}
}

func TestTheTokenOfATokenReviewStaysInMemory(t *testing.T) {
	const question = `{"spec":{"token":"planted-token"}}`
	g := newReviewHarness(t)
	g.do(g.post(tokenReviews, question))
	g.link.Cut()
	if code, _ := g.do(g.post(tokenReviews, question)); code != 503 {
		t.Errorf("without a cache in memory: %d", code)
	}
	memory := newHarness(t)
	g.Caches.Memory = memory.Caches.Disk
	g.link.Restore()
	g.do(g.post(tokenReviews, question))
	g.link.Cut()
	if code, body := g.do(g.post(tokenReviews, question)); code != 201 || body != reviewAnswer(question) {
		t.Errorf("from memory: %d %s", code, body)
	}
	g.flush()
	for _, db := range []*harness{g, memory} {
		for _, suffix := range []string{"", "-wal"} {
			raw, err := os.ReadFile(db.db.Path() + suffix)
			if err != nil || bytes.Contains(raw, []byte("planted-token")) {
				t.Errorf("the token is on the disk: %v", err)
			}
		}
	}
	if raw, err := os.ReadFile(g.db.Path() + "-wal"); err != nil || bytes.Contains(raw, []byte("tokenreviews")) {
		t.Errorf("a TokenReview is on the disk: %v", err)
	}
}

func TestAReviewIsSentAgainWhenTheLinkBreaks(t *testing.T) {
	const question = `{"resource":"pods"}`
	interrupted := &upstream.LinkError{Sent: true}
	g := newReviewHarness(t)
	g.answerReviews(interrupted)
	if code, body := g.do(g.post(accessReviews, question)); code != 201 || body != reviewAnswer(question) {
		t.Fatalf("at the second address: %d %s", code, body)
	}
	g.answerReviews(interrupted, interrupted)
	if code, body := g.do(g.post(accessReviews, question)); code != 201 || body != reviewAnswer(question) {
		t.Fatalf("when all have failed, from the cache: %d %s", code, body)
	}
	if n := len(g.link.Requests()); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

func TestALargeReviewIsSentOnline(t *testing.T) {
	question := `"` + strings.Repeat("x", maxBody+1000) + `"`
	g := newReviewHarness(t)
	if code, body := g.do(g.post(accessReviews, question)); code != 201 || body != reviewAnswer(question) {
		t.Fatalf("%d, %d bytes", code, len(body))
	}
	g.failAll(&upstream.LinkError{Sent: true})
	if code, body := g.do(g.post(accessReviews, question)); code != 503 || !strings.Contains(body, "too large to be recorded") {
		t.Errorf("a review changes nothing, so it is never in doubt: %d %s", code, body)
	}
}

func TestOnlyDecisionsAreRecorded(t *testing.T) {
	const question = `{"resource":"pods"}`
	for name, change := range map[string]func(*harness){
		"a forbidden review": func(g *harness) { g.answerAll(403, `{"kind":"Status"}`) },
		"an invalid review":  func(g *harness) { g.answerAll(422, `{"kind":"Status"}`) },
		"without a lifetime": func(g *harness) { g.ReviewLifetime = 0 },
		"a huge answer":      func(g *harness) { g.answerAll(201, strings.Repeat("x", 1<<20)) },
		"without a cache":    func(g *harness) { g.Caches.Disk = &cache.Cache{} },
		"of a client that is not recorded": func(g *harness) {
			nobody, err := agent.Parse("nobody")
			if err != nil {
				g.t.Fatal(err)
			}
			g.Agents.Set(nobody)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newReviewHarness(t)
			change(g)
			g.do(g.post(accessReviews, question))
			g.link.Cut()
			if code, body := g.do(g.post(accessReviews, question)); code != 503 {
				t.Errorf("%d %.100s", code, body)
			}
		})
	}
}

func TestARefusedReviewInvalidatesItsRecordedAnswer(t *testing.T) {
	const question = `{"resource":"pods"}`
	for code, offline := range map[int]int{403: 503, 404: 503, 500: 503, 401: 201} {
		g := newReviewHarness(t)
		g.do(g.post(accessReviews, question))
		g.answerAll(code, `{"kind":"Status"}`)
		g.do(g.post(accessReviews, question))
		g.link.Cut()
		if got, body := g.do(g.post(accessReviews, question)); got != offline {
			t.Errorf("after a %d: %d %.100s", code, got, body)
		}
	}
}
