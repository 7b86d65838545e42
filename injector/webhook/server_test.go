package webhook

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
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

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/injector/inject"
)

// pair makes a self-signed certificate for name and its key, in PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// served is a running server and the means to end it.
type served struct {
	*Server
	address string
	stop    context.CancelFunc
	done    chan error
}

func start(t *testing.T, options Options, change func(*Server)) *served {
	t.Helper()
	if options.Certificate == nil {
		dir := t.TempDir()
		cert, key := pair(t, "injector")
		write(t, dir+"/crt", cert)
		write(t, dir+"/key", key)
		var err error
		if options.Certificate, err = LoadCertificate(dir+"/crt", dir+"/key", zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	options.Params, options.Log = testParams, zap.NewNop()
	options.ShutdownGrace = cmp.Or(options.ShutdownGrace, 10*time.Second)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{Server: New(options), address: listener.Addr().String(), stop: cancel, done: make(chan error, 1)}
	if change != nil {
		change(s.Server)
	}
	go func() { s.done <- s.Serve(ctx, listener) }()
	waitFor(t, s.Ready)
	return s
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("the condition did not come true in 10 s")
		case <-time.After(time.Millisecond):
		}
	}
}

func client(t *testing.T) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func (s *served) review(c *http.Client) (int, error) {
	response, err := c.Post("https://"+s.address+Path, "application/json", strings.NewReader(reviewOf(plainPod(""))))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// servedName is the name in the certificate that a new connection gets.
func (s *served) servedName(t *testing.T) string {
	t.Helper()
	conn, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestTheCertificateFollowsItsFiles(t *testing.T) {
	// The layout of a Secret volume: files are links into ..data, which is swapped.
	dir := t.TempDir()
	certA, keyA := pair(t, "a")
	certB, keyB := pair(t, "b")
	for name, data := range map[string][2][]byte{"a": {certA, keyA}, "b": {certB, keyB}, "torn": {certB, keyA}} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "tls.crt"), data[0])
		write(t, filepath.Join(dir, name, "tls.key"), data[1])
	}
	swap := func(to string) {
		next, data := filepath.Join(dir, "..next"), filepath.Join(dir, "..data")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, data); err != nil {
			t.Fatal(err)
		}
	}
	swap("a")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.WarnLevel)
	certificate, err := LoadCertificate(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Certificate: certificate}, nil)
	expect := func(when, want string) {
		t.Helper()
		if got := s.servedName(t); got != want {
			t.Errorf("%s: certificate of %q, want %q", when, got, want)
		}
	}
	expect("at first", "a")
	failures := testutil.ToFloat64(reloadFailures)
	swap("torn")
	expect("while certificate and key do not fit", "a")
	expect("still", "a")
	if logs.Len() != 1 || testutil.ToFloat64(reloadFailures) != failures+2 {
		t.Errorf("%d warnings, %v failures counted; want one and two", logs.Len(), testutil.ToFloat64(reloadFailures)-failures)
	}
	swap("b")
	expect("after the swap", "b")
	if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	expect("when a file is gone", "b")
	s.stop()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestLoadCertificateNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, "a")
	_, other := pair(t, "b")
	for name, data := range map[string][]byte{"crt": cert, "key": key, "other": other, "junk": []byte("x")} {
		write(t, filepath.Join(dir, name), data)
	}
	tests := []struct{ name, cert, key, want string }{
		{"a missing certificate", "none", "key", "/none: no such file"},
		{"a missing key", "crt", "none", "/none: no such file"},
		{"a key of another certificate", "crt", "other", "/other: tls: private key does not match"},
		{"no PEM", "junk", "key", "/junk with "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := LoadCertificate(filepath.Join(dir, test.cert), filepath.Join(dir, test.key), zap.NewNop())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// blocking lets a test hold a review under way.
func blocking(entered chan<- struct{}, release <-chan struct{}) func(*Server) {
	return func(s *Server) {
		s.http.Handler = &handler{params: testParams, log: zap.NewNop(), inject: func(pod *corev1.Pod, facts inject.Facts, p inject.Params) (*corev1.Pod, inject.Result) {
			entered <- struct{}{}
			<-release
			return inject.Inject(pod, facts, p)
		}}
	}
}

func TestShutdownServesOnForTheDelayAndLetsReviewsEnd(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	fake := clocktesting.NewFakeClock(time.Now())
	s := start(t, Options{ShutdownDelay: 5 * time.Second, Clock: fake}, blocking(entered, release))
	c := client(t)
	status := make(chan int, 2)
	ask := func() {
		code, err := s.review(c)
		if err != nil {
			t.Error(err)
		}
		status <- code
	}
	go ask()
	<-entered
	s.stop()
	waitFor(t, fake.HasWaiters)
	if s.Ready() {
		t.Error("ready during the shutdown delay")
	}
	go ask() // an API server that has not yet noticed
	<-entered
	fake.Step(5 * time.Second)
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-s.done:
		t.Fatalf("ended with reviews under way: %v", err)
	default:
	}
	close(release)
	for range 2 {
		if code := <-status; code != http.StatusOK {
			t.Errorf("HTTP %d for a review under way", code)
		}
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestShutdownGivesUpAfterTheGrace(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	s := start(t, Options{ShutdownGrace: time.Millisecond}, blocking(entered, release))
	failed := make(chan error, 1)
	c := client(t)
	go func() {
		_, err := s.review(c)
		failed <- err
	}()
	<-entered
	s.stop()
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "still under way after 1ms") {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-failed; err == nil {
		t.Error("the review that was cut off has got an answer")
	}
}

func TestOnlyTLSAndOnlyThePathAreServed(t *testing.T) {
	s := start(t, Options{}, nil)
	c := client(t)
	if code, err := s.review(c); code != http.StatusOK || err != nil {
		t.Errorf("HTTP %d, %v", code, err)
	}
	response, err := c.Get("https://" + s.address + "/")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNotFound || response.ProtoMajor != 2 {
		t.Errorf("HTTP/%d %d for another path; want HTTP/2 404", response.ProtoMajor, response.StatusCode)
	}
	if _, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	s.stop()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if _, err := s.review(c); err == nil {
		t.Error("served after the end")
	}
}
