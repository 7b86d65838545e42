package dispatch

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/zap/zaptest"

	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/sidecar/write/lease"
)

const leasePath = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/web"

func heldLease(version string, second int) string {
	return fmt.Sprintf(`{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":%q},"spec":{"holderIdentity":"a","leaseDurationSeconds":3600,"renewTime":"2024-01-01T00:00:%02d.000000Z"}}`, version, second)
}

// newLeasesHarness returns a harness whose client holds a Lease at resourceVersion 2.
func newLeasesHarness(t *testing.T) *harness {
	t.Helper()
	g := newHarness(t)
	g.Acceptors = []write.Acceptor{lease.New(lease.Options{Leases: true, Logger: zaptest.NewLogger(t)})}
	g.answerAll(200, heldLease("2", 1))
	if code, body := g.do(g.write("PUT", leasePath, heldLease("1", 1))); code != 200 || body != heldLease("2", 1) {
		t.Fatalf("%d %s", code, body)
	}
	return g
}

func TestAHeldLeaseIsRenewedOffline(t *testing.T) {
	for name, cut := range map[string]func(*harness){
		"once the link is known to be down": func(g *harness) { g.link.Cut() },
		"at the first request that fails":   func(g *harness) { g.failAll(upstreamtest.ErrDown) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newLeasesHarness(t)
			cut(g)
			for second := 10; second < 13; second++ {
				want := fmt.Sprintf(`:%d.000000Z"`, second)
				if code, body := g.do(g.write("PUT", leasePath, heldLease("2", second))); code != 200 || !strings.Contains(body, want) {
					t.Fatalf("%d %s", code, body)
				}
				if code, body := g.do(g.request("GET", leasePath)); code != 200 || !strings.Contains(body, want) || !strings.Contains(body, `"resourceVersion":"2"`) {
					t.Fatalf("%d %s", code, body)
				}
			}
			for _, tt := range []struct {
				name, subject string
				r             *http.Request
				code          int
			}{
				{"another holder", "web", g.write("PUT", leasePath, strings.Replace(heldLease("2", 20), `"a"`, `"b"`, 1)), 503},
				{"another version", "web", g.write("PUT", leasePath, heldLease("1", 20)), 409},
				{"another principal", "other", g.write("PUT", leasePath, heldLease("2", 20)), 503},
				{"a GET by another principal", "other", g.request("GET", leasePath), 503},
				{"a forged token", "forged", g.write("PUT", leasePath, heldLease("2", 20)), 401},
				{"a dry-run update", "web", g.write("PUT", leasePath+"?dryRun=All", heldLease("2", 20)), 503},
				{"an update of more than 64 KiB", "web", g.write("PUT", leasePath, heldLease("2", 20)+strings.Repeat(" ", maxBody)), 503},
				{"a deletion", "web", g.write("DELETE", leasePath, ""), 503},
			} {
				tt.r.Header.Set("Authorization", "Bearer "+token(tt.subject))
				if code, body := g.do(tt.r); code != tt.code {
					t.Errorf("%s: %d %s", tt.name, code, body)
				}
			}

			g.link.Restore()
			conflict := `{"kind":"Status","code":409}`
			g.answerAll(409, conflict)
			if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 30))); code != 409 || body != conflict {
				t.Fatalf("the API server's conflict: %d %s", code, body)
			}
			g.link.Cut()
			if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 31))); code != 503 {
				t.Errorf("a lost Lease is renewed: %d %s", code, body)
			}
		})
	}
}

func TestAnInterruptedRenewalGets504AndTheNextIsAccepted(t *testing.T) {
	g := newLeasesHarness(t)
	g.failAll(errInterrupted)
	if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 10))); code != 504 {
		t.Errorf("%d %s", code, body)
	}
	g.link.Cut()
	if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 11))); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

func TestALeaseThatIsNotHeldIsAnsweredFromTheCache(t *testing.T) {
	g := newHarness(t)
	g.Acceptors = []write.Acceptor{lease.New(lease.Options{Leases: true, Logger: zaptest.NewLogger(t)})}
	g.answerAll(200, heldLease("2", 1))
	g.do(g.request("GET", leasePath))
	g.link.Cut()
	if code, body := g.do(g.request("GET", leasePath)); code != 200 || body != heldLease("2", 1) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 9))); code != 503 || !strings.Contains(body, "not held") {
		t.Errorf("%d %s", code, body)
	}
}

func TestADryRunDeletionKeepsALeaseHeld(t *testing.T) {
	g := newLeasesHarness(t)
	g.answerAll(200, heldLease("2", 1))
	if code, body := g.do(g.write("DELETE", leasePath, `{"dryRun":["All"]}`)); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	g.link.Cut()
	if code, body := g.do(g.write("PUT", leasePath, heldLease("2", 9))); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

func TestARenewalWhoseAnswerBreaksOffGets504(t *testing.T) {
	g := newLeasesHarness(t)
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
		return response(200, io.NopCloser(io.MultiReader(strings.NewReader(heldLease("3", 2)[:40]), iotest.ErrReader(upstreamtest.ErrDown)))), nil
	})
	if code, message := g.do(g.write("PUT", leasePath, heldLease("2", 2))); code != 504 || !strings.Contains(message, "may have been carried out") {
		t.Errorf("%d %s", code, message)
	}
}
