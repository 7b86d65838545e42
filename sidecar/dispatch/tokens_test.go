package dispatch

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"rockpool.dev/sidecar/write"
	"rockpool.dev/sidecar/write/lease"
	tokens "rockpool.dev/sidecar/write/token"
)

const (
	tokenPath = "/api/v1/namespaces/shop/serviceaccounts/web/token"
	question  = `{"spec":{"audiences":["vault"]}}`
	secret    = "the-issued-token"
)

func TestATokenIsGivenAgainOfflineToItsCallerOnly(t *testing.T) {
	g := newHarness(t)
	var log bytes.Buffer
	o := g.Options
	o.Logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m"}), zapcore.AddSync(&log), zapcore.DebugLevel))
	o.Acceptors = []write.Acceptor{tokens.New(tokens.Options{})}
	o.WritePatience = time.Second
	g.restart(o)
	g.answerAll(201, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"audiences":["vault"]},"status":{"token":"`+secret+
		`","expirationTimestamp":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}}`)
	if code, body := g.do(g.write("POST", tokenPath, question)); code != 201 || !strings.Contains(body, secret) {
		t.Fatalf("%d %s", code, body)
	}
	g.link.Cut()
	for _, tt := range []struct {
		name, subject, body string
		code                int
	}{
		{"its caller", "web", question, 201},
		{"its caller, for another audience", "web", `{"spec":{"audiences":["bank"]}}`, 503},
		{"another caller", "other", question, 503},
		{"a forged token", "forged", question, 401},
		{"a request of more than 64 KiB", "web", question + strings.Repeat(" ", maxBody), 503},
	} {
		r := g.write("POST", tokenPath, tt.body)
		r.Header.Set("Authorization", "Bearer "+token(tt.subject))
		code, body := g.do(r)
		if code != tt.code || strings.Contains(body, secret) != (tt.code == 201) {
			t.Errorf("%s: %d %s", tt.name, code, body)
		}
	}
	r := g.write("POST", tokenPath, question)
	r.Header.Del("Authorization")
	if code, body := g.do(r); code != 401 {
		t.Errorf("without a token: %d %s", code, body)
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the token is in the log")
	}
	if err := filepath.Walk(g.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), secret) {
			t.Errorf("the token is in %s", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

const lockPath = "/api/v1/namespaces/shop/configmaps/a"

func lockObject(holder, version, second string) string {
	return `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"` + version +
		`","annotations":{"leader":"` + holder + `","ttl":"3600","renewTime":"` + second + `"}}}`
}

func TestALockInAnnotationsIsRenewedOffline(t *testing.T) {
	newHolder := func(t *testing.T) *harness {
		g := newHarness(t)
		o := g.Options
		o.Acceptors, o.WritePatience = []write.Acceptor{lease.New(lease.Options{Annotations: true, Logger: zaptest.NewLogger(t)})}, time.Second
		g.restart(o)
		g.answerAll(200, lockObject("me", "2", "01"))
		if code, body := g.do(g.write("PUT", lockPath, lockObject("me", "1", "01"))); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		return g
	}
	g := newHolder(t)
	g.link.Cut()
	if code, body := g.do(g.write("PUT", lockPath, lockObject("me", "2", "02"))); code != 200 || !strings.Contains(body, `"02"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := g.do(g.request("GET", lockPath)); code != 200 || !strings.Contains(body, `"02"`) {
		t.Errorf("%d %s", code, body)
	}
	for name, r := range map[string]*http.Request{
		"of more than the lock":        g.write("PUT", lockPath, strings.Replace(lockObject("me", "2", "03"), `"metadata"`, `"data":{"x":"y"},"metadata"`, 1)),
		"of an object without a lock":  g.write("PUT", strings.TrimSuffix(lockPath, "a")+"b", `{}`),
		"of another holder":            g.write("PUT", lockPath, lockObject("you", "2", "03")),
		"that creates":                 g.write("POST", strings.TrimSuffix(lockPath, "/a"), lockObject("me", "", "03")),
		"that deletes":                 g.write("DELETE", lockPath, ""),
		"of more than 64 KiB":          g.write("PUT", lockPath, lockObject("me", "2", "03")+strings.Repeat(" ", maxBody)),
		"that is only tried":           g.write("PUT", lockPath+"?dryRun=All", lockObject("me", "2", "03")),
		"of a kind that has no locks":  g.write("PUT", "/api/v1/namespaces/shop/pods/a", `{}`),
		"of the status of such a kind": g.write("PUT", "/api/v1/namespaces/shop/pods/a/status", `{}`),
	} {
		if code, body := g.do(r); code != 503 {
			t.Errorf("a write %s: %d %s", name, code, body)
		}
	}

	// What another request has shown of the object counts, too: somebody else has the lock.
	g = newHolder(t)
	g.answerAll(200, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[`+lockObject("you", "5", "02")+`]}`)
	if code, body := g.do(g.request("GET", strings.TrimSuffix(lockPath, "/a"))); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	g.link.Cut()
	if code, body := g.do(g.write("PUT", lockPath, lockObject("me", "2", "03"))); code != 503 {
		t.Errorf("a lock that was taken: %d %s", code, body)
	}
	if code, body := g.do(g.request("GET", lockPath)); code != 200 || !strings.Contains(body, `"you"`) {
		t.Errorf("%d %s", code, body)
	}
}
