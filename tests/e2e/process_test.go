package e2e

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
)

func TestAnUpstreamThatIsNotTheClusterIsReportedAndSkipped(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("intercepted")) })
	plain, stranger := httptest.NewServer(answer), httptest.NewUnstartedServer(answer)
	stranger.TLS = selfSigned(t, "203.0.113.21")
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0) // it would log each handshake
	stranger.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(stranger.Close)
	for address, server := range map[string]*httptest.Server{"203.0.113.20:6443": plain, "203.0.113.21:6443": stranger} {
		s.linkAt(address, server.Listener.Addr().String())
	}
	p := s.pod(func(p *corev1.Pod) {
		p.Annotations["rockpool.dev/upstreams"] = "https://203.0.113.20:6443,https://203.0.113.21:6443,https://203.0.113.10:6443"
	})
	p.sees("present", "greeting", "hello")
	p.sees("synced")
	if out := p.kubectl("get", "configmap", "greeting", "-o", "jsonpath={.data.value}"); out != "hello" {
		t.Errorf("kubectl: %q", out)
	}
	for server, reason := range map[string]string{"https://203.0.113.20:6443": "does not speak TLS", "https://203.0.113.21:6443": "is not signed by a CA"} {
		s.until(server+" is logged with the reason", func() bool {
			for line := range strings.Lines(mustLogs(t, p, "rockpool-sidecar")) {
				if strings.Contains(line, "API server does not answer") && strings.Contains(line, `"server":"`+server+`"`) && strings.Contains(line, reason) {
					return true
				}
			}
			return false
		})
	}
	s.configMap("greeting", "hello again")
	p.sees("updated", "hello again")
}

// selfSigned is for a server with the right name and the wrong CA.
func selfSigned(t *testing.T, host string) *tls.Config {
	t.Helper()
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func TestASidecarThatCannotRunLogsTheReason(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	run := "/rockpool-sidecar run "
	for name, tt := range map[string]struct{ line, says string }{
		"a port in use":        {run, "listen.address: port of 127.0.0.1:10268 is taken"},
		"another port in use":  {run + "--listen.address=127.0.0.1:11000", "metrics.address: port of 127.0.0.1:10269 is taken"},
		"an unknown variable":  {"ROCKPOOL_UPSTREAM_SERVRS=https://203.0.113.10 " + run, "ROCKPOOL_UPSTREAM_SERVRS: unknown environment variable"},
		"an unknown key":       {"echo 'upstream: {servrs: x}' | " + run + "--config=/dev/stdin", "upstream.servrs: unknown key"},
		"an unknown flag":      {run + "--upstream.servrs=x", "--upstream.servrs"},
		"a bad value":          {run + "--cache.max-size=much", "cache.max-size"},
		"a missing file":       {run + "--config=/nowhere.yaml", "/nowhere.yaml"},
		"no API server at all": {"unset KUBERNETES_SERVICE_HOST ROCKPOOL_CONFIG ROCKPOOL_DEFAULT_UPSTREAM_SERVERS; " + run, "upstream.servers is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := p.Exec(t.Context(), "rockpool-sidecar", "/bin/sh", "-c", tt.line)
			if err != nil || result.ExitCode == 0 || !strings.Contains(result.Stderr, tt.says) {
				t.Errorf("%+v %v, want a failure with %q", result, err, tt.says)
			}
		})
	}
	t.Run("these attempts do not affect the running sidecar", func(t *testing.T) {
		p := p.in(t)
		s.configMap("greeting", "hello again")
		p.sees("updated", "hello again")
	})

	ca := p.shell("shell", "cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
	kill := func(t *testing.T, p *testPod) {
		before := p.restarts("rockpool-sidecar")
		if err := p.KillContainer("rockpool-sidecar", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitRestarted(t.Context(), "rockpool-sidecar", before+1); err != nil {
			t.Fatal(err)
		}
		if now := p.shell("shell", "cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"); now != ca {
			t.Error("ca.crt has changed, but running programs have read the old one")
		}
	}
	t.Run("after a kill online, the app continues without a restart", func(t *testing.T) {
		p := p.in(t)
		kill(t, p)
		s.configMap("greeting", "after the kill")
		p.sees("updated", "after the kill")
		s.until("the change is recorded", func() bool {
			// The kill may have lost an event, so that the collection must be listed again first.
			return s.sql("SELECT count(*) FROM object o JOIN collection c ON c.id = o.collection_id WHERE c.state = 'complete' AND instr(o.payload, 'after the kill')") != "0"
		})
	})
	t.Run("after a kill offline, the cache answers", func(t *testing.T) {
		p := p.in(t)
		p.offline()
		kill(t, p)
		p.restart("app")
		p.sees("present", "greeting", "after the kill")
		p.online()
		s.configMap("greeting", "back online")
		p.sees("updated", "back online")
	})
}

func TestThePodStartsWithItsCacheAfterAPowerLoss(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	changed := s.configMap("greeting", "hello again")
	s.until("the change is recorded", func() bool {
		return s.sql("SELECT resource_version FROM v_object WHERE name = 'greeting'") == changed.ResourceVersion
	})
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	s.deletePod("web")
	s.Link.Cut()
	p = s.pod()
	p.sidecarSays(`"cache is open","path":"/var/lib/rockpool/0/rockpool.db"`)
	p.sees("present", "greeting", "hello again")
	p.sees("synced", `"count":2`)
}
