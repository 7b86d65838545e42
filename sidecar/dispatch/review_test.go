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

// asks is a review as a client sends it.
func (g *harness) asks(url, body string) *http.Request {
	r := g.request("POST", url)
	r.Header.Set("Content-Type", "application/json")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

// decides makes upstream answer reviews; the answer repeats the question, as the server's does.
func (g *harness) decides(failures ...error) {
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		raw, err := io.ReadAll(r.Body)
		if len(failures) > 0 {
			err, failures = failures[0], failures[1:]
		}
		return response(201, io.NopCloser(strings.NewReader(decided(string(raw))))), errors.Join(err)
	})
}

func decided(question string) string { return `{"asked":` + question + `,"allowed":true}` }

func newReviewHarness(t *testing.T) *harness {
	t.Helper()
	g := newHarness(t)
	g.ReviewLifetime = time.Minute
	g.decides()
	return g
}

func TestAQuestionIsAnsweredOfflineAsItWasOnline(t *testing.T) {
	const question = `{"resource":"planted-name"}`
	g := newReviewHarness(t)
	if code, body := g.do(g.asks(accessReviews, question)); code != 201 || body != decided(question) {
		t.Fatalf("online: %d %s", code, body)
	}
	g.link.Cut()
	resp, err := g.RoundTrip(g.asks(accessReviews, question))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 201 || string(raw) != decided(question) || resp.Header.Get("Cache-Status") == "" || resp.Header.Get("Age") == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("offline: %d %s %v %v", resp.StatusCode, raw, resp.Header, err)
	}
	change := func(f func(*http.Request)) *http.Request {
		r := g.asks(accessReviews, question)
		f(r)
		return r
	}
	for name, r := range map[string]*http.Request{
		"another question":      g.asks(accessReviews, `{"resource":"other"}`),
		"another resource":      g.asks("/apis/authorization.k8s.io/v1/subjectaccessreviews", question),
		"another principal":     change(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token("other")) }),
		"in other words":        change(func(r *http.Request) { r.Header.Set("Content-Type", "application/yaml") }),
		"in another form":       change(func(r *http.Request) { r.Header.Set("Accept", "application/cbor") }),
		"for somebody else":     change(func(r *http.Request) { r.Header.Set("Impersonate-User", "root") }),
		"that is only tried":    g.asks(accessReviews+"?dryRun=All", question),
		"that is no question":   g.asks(path, question),
		"too large to remember": g.asks(accessReviews, strings.Repeat(" ", maxBody)+question),
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
	if code, body := g.do(g.asks(accessReviews, question)); code != 503 || !strings.Contains(body, "more than") {
		t.Errorf("behind its lifetime: %d %s", code, body)
	}
	g.ReviewLifetime = time.Minute
	g.reviews = newReviewSealer() // as after a restart
	if code, body := g.do(g.asks(accessReviews, question)); code != 503 {
		t.Errorf("by a sidecar that has forgotten: %d %s", code, body)
	}
}

func TestAnAnswerIsSealedForItsQuestion(t *testing.T) {
	s := newReviewSealer()
	g := newHarness(t)
	asks := func(contentType, question string) *exchange {
		r := g.asks(accessReviews, question)
		r.Header.Set("Content-Type", contentType)
		x, err := g.decide(r)
		if err != nil {
			t.Fatal(err)
		}
		x.body.bytes = []byte(question)
		return x
	}
	one, err1 := s.seal(asks("application/json", "one"))
	two, err2 := s.seal(asks("application/json", "two"))
	if err1 != nil || err2 != nil || one.name == two.name {
		t.Fatal(err1, err2)
	}
	sealed := one.close([]byte("answer"))
	if raw, err := one.open(sealed); err != nil || string(raw) != "answer" {
		t.Fatalf("%s %v", raw, err)
	}
	if raw, err := two.open(sealed); !errors.Is(err, errSealed) || len(raw) > 0 {
		t.Errorf("another question opens it: %s %v", raw, err)
	}
	sealed[len(sealed)-1]++
	if _, err := one.open(sealed); !errors.Is(err, errSealed) {
		t.Errorf("a damaged answer: %v", err)
	}
	shifted, err := s.seal(asks("application/jsono", "ne"))
	if err != nil || shifted.name == one.name {
		t.Error("two questions have one name")
	}
}

func TestATokenThatIsAskedAboutStaysInMemory(t *testing.T) {
	const question = `{"spec":{"token":"planted-token"}}`
	g := newReviewHarness(t)
	g.do(g.asks(tokenReviews, question))
	g.link.Cut()
	if code, _ := g.do(g.asks(tokenReviews, question)); code != 503 {
		t.Errorf("without a cache in memory: %d", code)
	}
	memory := newHarness(t)
	g.Caches.Memory = memory.Caches.Disk
	g.link.Restore()
	g.do(g.asks(tokenReviews, question))
	g.link.Cut()
	if code, body := g.do(g.asks(tokenReviews, question)); code != 201 || body != decided(question) {
		t.Errorf("from memory: %d %s", code, body)
	}
	g.flush()
	for _, db := range []*harness{g, memory} {
		for _, suffix := range []string{"", "-wal"} {
			raw, err := os.ReadFile(db.db.Path() + suffix)
			if err != nil || bytes.Contains(raw, []byte("planted-token")) {
				t.Errorf("the token can be read: %v", err)
			}
		}
	}
	if raw, err := os.ReadFile(g.db.Path() + "-wal"); err != nil || bytes.Contains(raw, []byte("tokenreviews")) {
		t.Errorf("a review of a token is on the disk: %v", err)
	}
}

func TestAQuestionMayBeAskedTwice(t *testing.T) {
	const question = `{"resource":"pods"}`
	broken := &upstream.LinkError{Sent: true}
	g := newReviewHarness(t)
	g.decides(broken)
	if code, body := g.do(g.asks(accessReviews, question)); code != 201 || body != decided(question) {
		t.Fatalf("at the second address: %d %s", code, body)
	}
	g.decides(broken, broken)
	if code, body := g.do(g.asks(accessReviews, question)); code != 201 || body != decided(question) {
		t.Fatalf("when all have failed, from the cache: %d %s", code, body)
	}
	if n := len(g.link.Requests()); n != 4 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestALargeQuestionPasses(t *testing.T) {
	question := `"` + strings.Repeat("x", maxBody+1000) + `"`
	g := newReviewHarness(t)
	if code, body := g.do(g.asks(accessReviews, question)); code != 201 || body != decided(question) {
		t.Fatalf("%d, %d bytes", code, len(body))
	}
}

func TestOnlyDecisionsAreRemembered(t *testing.T) {
	const question = `{"resource":"pods"}`
	for name, change := range map[string]func(*harness){
		"a refusal":              func(g *harness) { g.says(403, `{"kind":"Status"}`) },
		"an invalid question":    func(g *harness) { g.says(422, `{"kind":"Status"}`) },
		"when they are not kept": func(g *harness) { g.ReviewLifetime = 0 },
		"an answer that is huge": func(g *harness) { g.says(201, strings.Repeat("x", 1<<20)) },
		"without a cache at all": func(g *harness) { g.Caches.Disk = &cache.Cache{} },
		"of a client whose reading is not": func(g *harness) {
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
			g.do(g.asks(accessReviews, question))
			g.link.Cut()
			if code, body := g.do(g.asks(accessReviews, question)); code != 503 {
				t.Errorf("%d %.100s", code, body)
			}
		})
	}
}

func TestAnAnswerIsForgottenWhenTheServerDoesNotDecideAnyMore(t *testing.T) {
	const question = `{"resource":"pods"}`
	for code, offline := range map[int]int{403: 503, 404: 503, 500: 503, 401: 201} {
		g := newReviewHarness(t)
		g.do(g.asks(accessReviews, question))
		g.says(code, `{"kind":"Status"}`)
		g.do(g.asks(accessReviews, question))
		g.link.Cut()
		if got, body := g.do(g.asks(accessReviews, question)); got != offline {
			t.Errorf("behind a %d: %d %.100s", code, got, body)
		}
	}
}
