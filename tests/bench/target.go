package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"rockpool.dev/tests/bed/link"
)

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
)

// target is an endpoint of the API.
type target struct {
	name    string
	sidecar *sidecar // nil: direct access, or nginx
	nginx   *nginx   // nil: direct access, or a sidecar
	config  *rest.Config
	client  *http.Client
	agent   string // User-Agent; empty: Go's own
}

// directTarget is the API server itself.
func (s *stage) directTarget() *target {
	config := &rest.Config{Host: "https://" + s.plane.Address(), TLSClientConfig: rest.TLSClientConfig{CAData: s.plane.CA()}}
	return &target{name: "direct", config: config}
}

// target is access through a sidecar.
func (s *stage) target(name string, c *sidecar) *target {
	return &target{name: name, sidecar: c, config: &rest.Config{Host: "https://" + c.address}}
}

// nginxTarget is access through nginx.
func (s *stage) nginxTarget(n *nginx) *target {
	return &target{name: "nginx", nginx: n, config: &rest.Config{Host: "https://" + n.address, TLSClientConfig: rest.TLSClientConfig{CAData: n.ca}}}
}

// startRemote starts a sidecar that records and that reaches the API server over a link, and
// connects a target to it. The caller stops the sidecar.
func (s *stage) startRemote(ctx context.Context, name string, over *link.Link, settings ...string) (*target, error) {
	c, err := s.startSidecar(ctx, sidecarOptions{name: name, record: true, upstream: over.Address(), settings: settings})
	if err != nil {
		return nil, err
	}
	t := s.target("on", c)
	if err := s.connect(ctx, t); err != nil {
		c.stop()
		return nil, err
	}
	return t, nil
}

// zipped returns the target with a client that asks for gzip, as those of client-go do.
func (t *target) zipped() (*target, error) {
	z := *t
	z.config = rest.CopyConfig(t.config)
	z.config.DisableCompression = false
	var err error
	z.client, err = z.fresh()
	return &z, err
}

// ready connects the targets.
func (b *bench) ready(ctx context.Context) error {
	for _, t := range b.targets(0) {
		if err := b.connect(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// connect creates a target's client and waits until it gets an answer: a sidecar first has to reach
// its API server.
func (s *stage) connect(ctx context.Context, t *target) (err error) {
	t.config.BearerToken = s.token
	t.config.DisableCompression = true // the measured work is to carry bytes, not to compress them
	if t.sidecar != nil {
		if t.config.CAData, err = t.sidecar.ca(); err != nil {
			return err
		}
	}
	if t.client, err = t.fresh(); err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		_, last = t.fetch(ctx, t.client, smallPath, asJSON, nil)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w: %w", t.name, err, last)
	}
	return nil
}

// fresh returns a client with its own connection. client-go shares connections between equal
// configurations, unless they have their own Dial.
func (t *target) fresh() (*http.Client, error) {
	config := rest.CopyConfig(t.config)
	config.Dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return rest.HTTPClientFor(config)
}

// open sends a GET and returns the answer, which must have status 200.
func (t *target) open(ctx context.Context, client *http.Client, path, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.config.Host+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if t.agent != "" {
		req.Header.Set("User-Agent", t.agent)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // the status is enough
		return nil, errors.Join(fmt.Errorf("%s: GET %s: %s: %s", t.name, path, resp.Status, text), resp.Body.Close())
	}
	if resp.ProtoMajor != 2 {
		return nil, errors.Join(fmt.Errorf("%s: GET %s: answered over %s, want HTTP/2", t.name, path, resp.Proto), resp.Body.Close())
	}
	return resp, nil
}

// fetch reads an answer up to its last byte and returns its size. into, if not nil, receives it.
func (t *target) fetch(ctx context.Context, client *http.Client, path, accept string, into *bytes.Buffer) (size int64, err error) {
	resp, err := t.open(ctx, client, path, accept)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if into != nil {
		return into.ReadFrom(resp.Body)
	}
	return io.Copy(io.Discard, resp.Body)
}

// timed is fetch with its duration.
func (t *target) timed(ctx context.Context, path, accept string) (took time.Duration, size int64, err error) {
	start := time.Now()
	size, err = t.fetch(ctx, t.client, path, accept, nil)
	return time.Since(start), size, err
}

// body returns a complete answer.
func (t *target) body(ctx context.Context, path, accept string) ([]byte, error) {
	var into bytes.Buffer
	_, err := t.fetch(ctx, t.client, path, accept, &into)
	return into.Bytes(), err
}

// sameItems compares two lists without their beginning, which has the resourceVersion.
func sameItems(a, b []byte) bool {
	const head = 256
	n := min(len(a), len(b)) - head
	if n < 0 || max(len(a), len(b))-head > n+16 {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(a[len(a)-n:], b[len(b)-n:])
}
