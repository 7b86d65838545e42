package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"rockpool.dev/tests/bed/link"
)

var thinMatrix = flag.Bool("thin", false, "test all thin links, with lists of 20 seconds")

// thinLink is a link whose queue a list fills for some seconds.
type thinLink struct {
	kbit, queue int
	roundTrip   time.Duration
	list        time.Duration
}

// thinLinks returns the links to test by their names.
func thinLinks() map[string]thinLink {
	if !*thinMatrix {
		return map[string]thinLink{
			"megabit":        {1000, 64 << 10, 40 * time.Millisecond, 6 * time.Second},
			"half a megabit": {512, 256 << 10, 400 * time.Millisecond, 6 * time.Second},
		}
	}
	all := map[string]thinLink{}
	for _, kbit := range []int{64, 256, 1000} {
		for _, queue := range []int{64 << 10, 256 << 10} {
			for _, ms := range []time.Duration{40, 400, 1200} {
				name := fmt.Sprintf("%d kbit, %d KiB, %d ms", kbit, queue>>10, ms)
				all[name] = thinLink{kbit, queue, ms * time.Millisecond, 20 * time.Second}
			}
		}
	}
	return all
}

// On a full link all answers are late. Only silence says that a link is down.
func TestAFullThinLinkIsNotTakenForADeadOne(t *testing.T) {
	for name, thin := range thinLinks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.configMap("greeting", "hello")
			p := s.pod()
			p.sees("synced")
			s.bulk(int(float64(thin.kbit) * 1000 / 8 * thin.list.Seconds()))
			p.linkIs("online")
			changes := s.sql("SELECT count(*) FROM v_link")

			shape := link.Shape{Rate: thin.kbit * 1000 / 8, Queue: thin.queue, RoundTrip: thin.roundTrip}
			s.Link.SetShape(shape, shape)
			direct := s.directList(shape)
			stop := s.change("greeting", 100*time.Millisecond)
			r := p.ask(get(s.secrets()))[0]
			stop()
			t.Logf("the list took %.1f s, and directly %.1f s", r.Seconds, direct.Seconds())
			var whole corev1.SecretList
			if err := json.Unmarshal([]byte(r.Body), &whole); err != nil || r.Status != http.StatusOK || r.Headers["Cache-Status"] != "" {
				t.Errorf("the list: %d, %d bytes, %v %v", r.Status, len(r.Body), r.Headers, err)
			}
			if r.Seconds > 1.5*direct.Seconds()+2 { // the watch's events share the link
				t.Errorf("the list took %.1f s, and directly %.1f s", r.Seconds, direct.Seconds())
			}
			for _, result := range []string{"resumed", "compared", "gone"} {
				if n := p.metric(`rockpool_watch_resumptions_total{result="` + result + `"}`); n != 0 {
					t.Errorf("%d watches were cut (%s)", n, result)
				}
			}
			if got := s.sql("SELECT count(*) FROM v_link"); got != changes {
				t.Errorf("the state of the link has changed: %s", s.sql("SELECT * FROM v_link"))
			}

			s.Link.BlackHole()
			first := p.ask(get(s.configMaps() + "/greeting"))[0]
			t.Logf("a black hole is told after %.1f s", first.Seconds)
			bound := 10.0 // with the race detector, on a busy machine
			if thin.roundTrip > 300*time.Millisecond {
				bound = 30
			}
			if first.Status != http.StatusOK || first.Headers["Cache-Status"] == "" || first.Seconds > bound {
				t.Errorf("in a black hole: %d after %.1f s, %v", first.Status, first.Seconds, first.Headers)
			}
			p.linkIs("offline")
		})
	}
}

// secrets is the path of the namespace's Secrets, which no informer of the pod reads.
func (s *site) secrets() string { return "/api/v1/namespaces/" + s.namespace + "/secrets" }

// bulk creates Secrets that do not compress, about size bytes as they are sent.
func (s *site) bulk(size int) {
	s.t.Helper()
	const each = 32 << 10 // in base64
	for i := range max(1, size/each) {
		data := make([]byte, each*3/4)
		_, _ = rand.Read(data)
		object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bulk-%d", i)}, Data: map[string][]byte{"random": data}}
		if _, err := cluster.Client().CoreV1().Secrets(s.namespace).Create(s.ctx, object, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// directList is how long the list of Secrets takes over a link of the same shape without a sidecar.
func (s *site) directList(shape link.Shape) time.Duration {
	s.t.Helper()
	direct, err := link.New(cluster.Address())
	if err != nil {
		s.t.Fatal(err)
	}
	defer direct.Close()
	direct.SetShape(shape, shape)
	config := cluster.Config()
	config.Host = "https://" + direct.Address()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		s.t.Fatal(err)
	}
	started := time.Now()
	resp, err := client.Get(config.Host + s.secrets())
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		s.t.Fatal(err)
	}
	return time.Since(started)
}

// change changes a ConfigMap at an interval until stop is called.
func (s *site) change(name string, interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				s.configMap(name, base64.StdEncoding.EncodeToString(fmt.Append(nil, i)))
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); done.Wait() }
}
