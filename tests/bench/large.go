package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	largeNamespace = "large"
	largeObjects   = 100_000
	// largeRate is how many objects the stand-in sends in a second, 7 MB. At 20 MB/s on a busy machine
	// the list was not recorded.
	largeRate = 2000
)

// large measures the memory of sidecars while a list of 100,000 pods passes, 340 MB, with a stand-in
// for the API server that makes the list while it sends it, at 7 MB/s.
func (b *bench) large(ctx context.Context) (err error) {
	objects := largeObjects
	if b.short {
		objects /= 10
	}
	s := &stage{binary: b.sidecar}
	if s.directory, err = os.MkdirTemp("", "rockpool-large-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.directory)) }()
	if s.binary == "" {
		if s.binary, err = buildSidecar(ctx, s.directory); err != nil {
			return err
		}
	}
	api, err := newLargeAPI(objects)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.account(s); err != nil {
		return err
	}
	var peak, private [2]float64
	for i := range 2 {
		if peak[i], private[i], err = s.largeList(ctx, api, i == 1, objects); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("LIST %d pods, JSON, %.0f MB", objects, float64(objects*len(api.item))/1e6)
	b.report.note(what, "largest RSS over that of the idle sidecar", "MiB", peak[0], peak[1])
	b.report.note(what, "largest RssAnon over that of the idle sidecar", "MiB", private[0], private[1]).atMost(24, ofOn)
	return nil
}

// largeList lists once through a new sidecar, and returns by how many MiB its RSS and its RssAnon
// were above those before the list, at most. Pages of the program's file that a list uses are in RSS
// alone.
func (s *stage) largeList(ctx context.Context, api *largeAPI, record bool, objects int) (peak, private float64, err error) {
	c, err := s.startSidecar(ctx, sidecarOptions{
		name: fmt.Sprintf("large-%v", record), record: record, upstream: strings.TrimPrefix(api.URL, "https://"),
		settings: []string{"--cache.max-size", "2Gi"},
	})
	if err != nil {
		return 0, 0, err
	}
	defer c.stop()
	if err := until(ctx, c.started.Add(3*time.Second)); err != nil {
		return 0, 0, err
	}
	idle, err := memoryOf(c.pid())
	if err != nil {
		return 0, 0, err
	}
	// Linux starts VmHWM again from the present RSS (proc(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.pid()), []byte("5"), 0); err != nil {
		return 0, 0, err
	}
	listed := make(chan error, 1)
	go func() { listed <- api.list(ctx, c, objects) }()
	var most memory
	recorded := !record
	err = wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 3*time.Minute, true, func(ctx context.Context) (bool, error) {
		now, err := memoryOf(c.pid())
		if err != nil {
			return false, err
		}
		most.peak, most.anon = now.peak, max(most.anon, now.anon)
		select {
		case err := <-listed:
			if err != nil || !record {
				return true, err
			}
			listed = nil
		default:
		}
		if listed == nil && !recorded {
			count, err := c.sql(ctx, "SELECT count(*) FROM object o JOIN collection c ON c.id = o.collection_id WHERE c.state = 'complete'")
			recorded = count == fmt.Sprint(objects)
			return recorded, err
		}
		return false, nil
	})
	if err != nil {
		err = fmt.Errorf("list of %d pods: %w\n%s", objects, err, c.log())
	}
	return mib(most.peak - idle.rss), mib(most.anon - idle.anon), err
}

// largeAPI is an API server that has one list of pods.
type largeAPI struct {
	*httptest.Server
	item    string // one of them, with a verb for its number
	objects int
	token   string
}

func newLargeAPI(objects int) (*largeAPI, error) {
	one := pod(0)
	one.Namespace, one.UID = largeNamespace, "2f5f1a0e-8a0c-4e53-9d5e-0c3a4f6f9e11"
	one.Name, one.ResourceVersion = "NAME", "VERSION"
	one.Annotations["example.com/padding"] = strings.Repeat("0123456789abcdef", 160) // 3.4 KB, as a pod of an API server
	text, err := json.Marshal(one)
	if err != nil {
		return nil, err
	}
	claims, err := json.Marshal(map[string]any{
		"sub": "system:serviceaccount:" + largeNamespace + ":default", "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		return nil, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	a := &largeAPI{
		item:    strings.NewReplacer("NAME", "pod-%06[1]d", "VERSION", "%[1]d").Replace(string(text)),
		objects: objects,
		token:   encode([]byte(`{"alg":"RS256"}`)) + "." + encode(claims) + "." + encode([]byte("signature")),
	}
	a.Server = httptest.NewUnstartedServer(a)
	a.EnableHTTP2 = true
	a.StartTLS()
	return a, nil
}

// account makes a service-account directory.
func (a *largeAPI) account(s *stage) error {
	s.account, s.token = filepath.Join(s.directory, "account"), a.token
	if err := os.Mkdir(s.account, 0o700); err != nil {
		return err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	for name, content := range map[string]string{"token": a.token, "ca.crt": string(ca), "namespace": largeNamespace} {
		if err := os.WriteFile(filepath.Join(s.account, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (a *largeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Audit-Id", "7d0f3c1e-54a1-4a2e-9c43-6b3d0a9a5e02")
	w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", "f2f8d7a2-5c0e-4a8b-9a43-4f7f1e0f6f01")
	w.Header().Set("X-Kubernetes-Pf-Prioritylevel-Uid", "0a9c7be1-7d55-4a58-a3ee-4f5e9e9b6c02")
	switch r.URL.Path {
	case podsPath(largeNamespace):
		out := bufio.NewWriterSize(w, 64<<10)
		fmt.Fprintf(out, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[`, a.objects+1)
		began := time.Now()
		for i := range a.objects {
			if i > 0 {
				_ = out.WriteByte(',')
			}
			if i%200 == 0 && until(r.Context(), began.Add(time.Duration(i)*time.Second/largeRate)) != nil {
				return
			}
			fmt.Fprintf(out, a.item, i+1)
		}
		fmt.Fprint(out, "]}\n")
		_ = out.Flush() // a client that has gone says so itself
	case "/api/v1/namespaces/kube-system":
		fmt.Fprint(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"5a0f7e9c-0f63-4f3b-a0b5-6f2a1f3f7f10","resourceVersion":"4"}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","code":404}`)
	}
}

// list reads the list through a sidecar, and counts its pods.
func (a *largeAPI) list(ctx context.Context, c *sidecar, objects int) error {
	ca, err := c.ca()
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.address+podsPath(largeNamespace), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Accept", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	body := bufio.NewReaderSize(response.Body, 64<<10)
	n := 0
	for {
		_, err := body.ReadSlice('}') // no padding: the end of an object of a pod
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n++
	}
	if want := objects * strings.Count(a.item, "}"); n < want {
		return fmt.Errorf("the list has %d closing braces, want %d", n, want)
	}
	return nil
}
