package webhook

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/injector/inject"
	"rockpool.dev/tests/eventually"
)

// selfSigned makes a certificate for name.
func selfSigned(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// served is a running server.
type served struct {
	*Server
	address string
	stop    context.CancelFunc
	done    chan error
}

func start(t *testing.T, options Options, change func(*Server)) *served {
	t.Helper()
	if options.Certificate == nil {
		cert := selfSigned(t, "injector")
		options.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	}
	if options.Params == nil {
		options.Params = Always(testParams)
	}
	options.Log = zap.NewNop()
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
	eventually.True(t, "the server serves", s.serving.Load)
	return s
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

// probe asks whether the server is ready, like the kubelet.
func (s *served) probe(c *http.Client) (int, string) {
	response, err := c.Get("https://" + s.address + ReadyPath)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

func TestTheServerIsReadyWhenAPIServersCanUseIt(t *testing.T) {
	cert := selfSigned(t, "injector")
	var have, known, trusted atomic.Bool
	s := start(t, Options{
		Params: func() (inject.Params, error) {
			if !known.Load() {
				return inject.Params{}, errors.New("no settings yet")
			}
			return testParams, nil
		},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !have.Load() {
				return nil, errors.New("no certificate yet")
			}
			return cert, nil
		},
		Trusted: func() error {
			if !trusted.Load() {
				return errors.New("the caBundle is not set")
			}
			return nil
		},
	}, nil)
	c := client(t)
	if code, text := s.probe(c); code != 0 {
		t.Errorf("without a certificate: %d %s, want no handshake", code, text)
	}
	have.Store(true)
	if code, text := s.probe(c); code != http.StatusServiceUnavailable || !strings.Contains(text, "no settings yet") {
		t.Errorf("without settings: %d %s", code, text)
	}
	known.Store(true)
	if code, text := s.probe(c); code != http.StatusServiceUnavailable || !strings.Contains(text, "the caBundle is not set") {
		t.Errorf("without trust: %d %s", code, text)
	}
	trusted.Store(true)
	if code, text := s.probe(c); code != http.StatusOK {
		t.Errorf("with all: %d %s", code, text)
	}
	s.stop()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if code, _ := s.probe(c); code != 0 {
		t.Errorf("after the end: %d", code)
	}
}

// blocking lets a test keep a review in progress.
func blocking(entered chan<- struct{}, release <-chan struct{}) func(*Server) {
	return func(s *Server) {
		mux := http.NewServeMux()
		mux.HandleFunc(ReadyPath, s.serveReady)
		s.http.Handler = mux
		h := NewHandler(Options{Params: Always(testParams), Log: zap.NewNop()}).(*handler)
		h.inject = func(pod *corev1.Pod, facts inject.Facts, p inject.Params) (*corev1.Pod, inject.Result) {
			entered <- struct{}{}
			<-release
			return inject.Inject(pod, facts, p)
		}
		mux.Handle(Path, h)
	}
}

func TestShutdownServesForTheDelayAndLetsReviewsEnd(t *testing.T) {
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
	eventually.True(t, "the server waits for the shutdown delay", fake.HasWaiters)
	if code, text := s.probe(c); code != http.StatusServiceUnavailable || !strings.Contains(text, "shutting down") {
		t.Errorf("probe during the shutdown delay: %d %s", code, text)
	}
	go ask() // an API server that has not noticed yet
	<-entered
	fake.Step(5 * time.Second)
	eventually.True(t, "the listener is closed", func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-s.done:
		t.Fatalf("ended with reviews in progress: %v", err)
	default:
	}
	close(release)
	for range 2 {
		if code := <-status; code != http.StatusOK {
			t.Errorf("HTTP %d for a review in progress", code)
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
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "still in progress after 1ms") {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-failed; err == nil {
		t.Error("the interrupted review has an answer")
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
	if response.StatusCode != http.StatusNotFound || response.ProtoMajor != 1 {
		t.Errorf("HTTP/%d %d for another path; want HTTP/1 404, as API servers call webhooks", response.ProtoMajor, response.StatusCode)
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
