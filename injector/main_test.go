package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run executes the command like a shell, and returns its output.
func run(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

// certificateFiles makes a self-signed pair for 127.0.0.1.
func certificateFiles(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestErrorsNameTheFlag(t *testing.T) {
	cert, key := certificateFiles(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	missing := filepath.Join(t.TempDir(), "none.crt")
	good := []string{"serve", "--log-level=error", "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--sidecar-image=rockpool:dev", "--tls-cert-file=" + cert, "--tls-key-file=" + key}
	tests := []struct {
		name string
		args []string // after the good ones, which they override
		env  map[string]string
		want []string
	}{
		{"no image", []string{"--sidecar-image="}, nil, []string{"--sidecar-image: no image is named"}},
		{"a bad upstream among good ones", []string{"--upstream=https://a,http://b"}, nil, []string{`--upstream: entry 2: url: "http://b" is not https`}},
		{"several errors at once", []string{"--upstream=x", "--cache-host-path=/"}, nil, []string{"--upstream:", "--cache-host-path:"}},
		{"a bad quantity", []string{"--sidecar-memory-limit=lots"}, nil, []string{`--sidecar-memory-limit: "lots" is not a quantity`}},
		{"a request above its limit", []string{"--sidecar-memory-request=1Gi"}, nil, []string{"--sidecar-*-request", "memory: the request 1Gi is above the limit 192Mi"}},
		{"a key without its certificate", []string{"--tls-cert-file="}, nil, []string{"--tls-cert-file, --tls-key-file: give both, or neither"}},
		{"neither files nor a cluster", []string{"--tls-cert-file=", "--tls-key-file="}, nil, []string{"needs a service-account token or --kubeconfig", "--tls-cert-file"}},
		{"a missing kubeconfig", []string{"--tls-cert-file=", "--tls-key-file=", "--kubeconfig=" + missing}, nil, []string{"--kubeconfig: ", missing}},
		{"a missing certificate", []string{"--tls-cert-file=" + missing}, nil, []string{"--tls-cert-file", missing, "no such file"}},
		{"the port of the webhook in use", []string{"--listen=" + taken.Addr().String()}, nil, []string{"--listen: ", taken.Addr().String(), "address already in use"}},
		{"the port of the metrics in use", []string{"--metrics-listen=" + taken.Addr().String()}, nil, []string{"--metrics-listen: ", "address already in use"}},
		{"a missing kubeconfig with certificate files", []string{"--kubeconfig=" + missing}, nil, []string{"--kubeconfig: ", missing}},
		{"an unknown kind of cache volume", []string{"--cache-volume=ram"}, nil, []string{`--cache-volume: "ram" is not hostPath or emptyDir`}},
		{"an unknown choice of names", []string{"--api-names=yes"}, nil, []string{`--api-names: "yes" is not auto, true or false`}},
		{"an unknown pull policy", []string{"--sidecar-image-pull-policy=always"}, nil, []string{`--sidecar-image-pull-policy: "always" is not IfNotPresent, Always or Never`}},
		{"a pull secret with a bad name", []string{"--sidecar-image-pull-secret=a,B"}, nil, []string{`--sidecar-image-pull-secret: "B" is not the name of a Secret`}},
		{"a bad stay", []string{"--stay=1d"}, nil, []string{`--stay: "1d" is not a duration like 24h, forever or default`}},
		{"no seconds", []string{"--default-toleration-seconds=0"}, nil, []string{"--default-toleration-seconds: "}},
		{"a bad SELinux type", []string{"--sidecar-selinux-type=spc"}, nil, []string{`--sidecar-selinux-type: "spc" is not an SELinux type`}},
		{"a missing CA of clients", []string{"--client-ca-file=" + missing}, nil, []string{"--client-ca-file: ", missing}},
		{"a CA of clients that is none", []string{"--client-ca-file=" + key}, nil, []string{"--client-ca-file: ", "has no certificate in PEM"}},
		{"names of clients without a CA", []string{"--client-names=kube-apiserver"}, nil, []string{"--client-names: needs --client-ca-file"}},
		{"a bad log level", []string{"--log-level=loud"}, nil, []string{`--log-level: "loud"`}},
		{"a bad log format", []string{"--log-format=xml"}, nil, []string{`--log-format: "xml"`}},
		{"a bad environment variable", nil, map[string]string{"ROCKPOOL_INJECTOR_SHUTDOWN_GRACE": "soon"}, []string{"ROCKPOOL_INJECTOR_SHUTDOWN_GRACE", `"soon"`}},
		{"an environment variable for a flag", nil, map[string]string{"ROCKPOOL_INJECTOR_UPSTREAM": "https://a,b"}, []string{`--upstream: entry 2: url: "b"`}},
		{"an unknown flag", []string{"--upstreams=https://a"}, nil, []string{"unknown flag: --upstreams"}},
		{"an argument", []string{"now"}, nil, []string{"unknown command", "now"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := run(ctx, append(append([]string{}, good...), test.args...)...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

func TestTheCommandLineOverridesTheEnvironment(t *testing.T) {
	t.Setenv("ROCKPOOL_INJECTOR_LOG_LEVEL", "from-env")
	t.Setenv("ROCKPOOL_INJECTOR_LOG_FORMAT", "")
	t.Setenv("ROCKPOOL_INJECTOR_PORT", "tcp://10.0.0.1:443") // the kubelet sets it for a Service
	if _, err := run(t.Context(), "serve", "--log-level=from-flag"); err == nil || !strings.Contains(err.Error(), "from-flag") {
		t.Errorf("got %v", err)
	}
	if _, err := run(t.Context(), "serve"); err == nil || !strings.Contains(err.Error(), "from-env") {
		t.Errorf("got %v", err)
	}
}

func TestVersionAndUnknownCommands(t *testing.T) {
	defer func(old string) { version = old }(version)
	version = "v9.9.9"
	if out, err := run(t.Context(), "version"); err != nil || out != "v9.9.9\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := run(t.Context(), "sreve"); err == nil || !strings.Contains(err.Error(), `unknown command "sreve"`) {
		t.Errorf("got %v", err)
	}
}

func TestServeFromStartToShutdown(t *testing.T) {
	cert, key := certificateFiles(t)
	address, probes := freeAddress(t), freeAddress(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, "serve", "--log-level=error", "--listen="+address, "--metrics-listen="+probes, "--sidecar-image=rockpool:dev",
			"--tls-cert-file="+cert, "--tls-key-file="+key, "--shutdown-delay=1s", "--upstream=https://192.0.2.1")
		done <- err
	}()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	c := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	get := func(url string) (int, string) {
		response, err := c.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return 0, err.Error()
		}
		return response.StatusCode, string(body)
	}
	until(t, func() bool { code, _ := get("https://" + address + "/readyz"); return code == http.StatusOK })
	if code, body := get("http://" + probes + "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, body := get("http://" + probes + "/metrics"); code != http.StatusOK || !strings.Contains(body, "rockpool_injector_certificate_expiry_timestamp_seconds") {
		t.Errorf("metrics: %d %.200s", code, body)
	}
	if code, _ := get("https://" + address + "/inject"); code != http.StatusMethodNotAllowed {
		t.Errorf("webhook: %d", code)
	}
	cancel()
	until(t, func() bool {
		code, _ := get("https://" + address + "/readyz")
		return code == http.StatusServiceUnavailable
	})
	if code, _ := get("https://" + address + "/inject"); code != http.StatusMethodNotAllowed {
		t.Errorf("webhook during the shutdown delay: %d", code)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("the condition did not come true in 10 s")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
