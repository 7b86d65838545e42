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
				name := fmt.Sprintf("%dk %dK %dms", kbit, queue>>10, ms) // short, and of letters that a namespace may have
				all[name] = thinLink{kbit, queue, ms * time.Millisecond, 20 * time.Second}
			}
		}
	}
	return all
}

// On a full link all answers are late. Only silence says that a link is down.
func TestAFullThinLinkIsNotTakenForADeadOne(t *testing.T) {
	t.Parallel()
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
			s.keptLink(p, changes)

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

// withPassingReads has the API server answer lists while the link is up.
func withPassingReads(p *corev1.Pod) { p.Annotations["rockpool.dev/online-reads"] = "pass" }

// For ten minutes all answers are late, and so are those of PINGs.
func TestAFullThinLinkStaysOnlineForTenMinutes(t *testing.T) {
	if !*thinMatrix {
		t.Skip("takes ten minutes; make thin runs it")
	}
	for name, thin := range map[string]thinLink{
		"megabit":           {1000, 64 << 10, 40 * time.Millisecond, 20 * time.Second},
		"quarter a megabit": {256, 256 << 10, 400 * time.Millisecond, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.configMap("greeting", "hello")
			p := s.pod(withPassingReads) // each list is to fill the link
			p.sees("synced")
			s.bulk(int(float64(thin.kbit) * 1000 / 8 * thin.list.Seconds()))
			p.linkIs("online")
			changes := s.sql("SELECT count(*) FROM v_link")
			shape := link.Shape{Rate: thin.kbit * 1000 / 8, Queue: thin.queue, RoundTrip: thin.roundTrip}
			s.Link.SetShape(shape, shape)
			stop := s.change("greeting", 100*time.Millisecond)
			lists := 0
			for began := time.Now(); time.Since(began) < 10*time.Minute; lists++ {
				if r := p.ask(get(s.secrets()))[0]; r.Status != http.StatusOK || r.Headers["Cache-Status"] != "" {
					t.Errorf("list %d: %d after %.1f s, %v", lists, r.Status, r.Seconds, r.Headers)
				}
			}
			stop()
			t.Logf("%d lists", lists)
			s.keptLink(p, changes)
		})
	}
}

// A body that fills the link for 17 s delays all answers, and has no answer of its own meanwhile.
func TestAnUploadThatFillsAThinLinkPasses(t *testing.T) {
	t.Parallel()
	for name, queue := range map[string]int{"with a short queue": 64 << 10, "with a long queue": 256 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 2 << 20
			s := newSite(t)
			s.configMap("greeting", "hello")
			p := s.pod()
			p.sees("synced")
			p.linkIs("online")
			changes := s.sql("SELECT count(*) FROM v_link")
			shape := link.Shape{Rate: 1_000_000 / 8, Queue: queue, RoundTrip: 40 * time.Millisecond}
			s.Link.SetShape(shape, shape)
			stop := s.change("greeting", time.Second)
			write := func(method, target, value string, want int) {
				q := with(method, target, map[string]string{"Content-Type": "application/json"})
				q.Body, q.Padding = `{"metadata":{"name":"large"},"data":{"value":"`+value+`"}}`, size
				r := p.ask(q)[0]
				t.Logf("%s: %d after %.1f s", method, r.Status, r.Seconds)
				if r.Status != want {
					t.Errorf("%s: %d %s", method, r.Status, r.Body)
				}
			}
			write("POST", s.configMaps(), "posted", http.StatusCreated)
			write("PUT", s.configMaps()+"/large", "put", http.StatusOK)
			stop()
			got, err := cluster.Client().CoreV1().ConfigMaps(s.namespace).Get(s.ctx, "large", metav1.GetOptions{})
			if err != nil || got.Data["value"] != "put" {
				t.Errorf("the API server has %v, %v", got.Data, err)
			}
			s.keptLink(p, changes)
		})
	}
}

// keptLink tells that no watch was cut and the state of the link has not changed.
func (s *site) keptLink(p *testPod, changes string) {
	s.t.Helper()
	for _, result := range []string{"resumed", "compared", "gone"} {
		if n := p.metric(`rockpool_watch_resumptions_total{result="` + result + `"}`); n != 0 {
			s.t.Errorf("%d watches were cut (%s)", n, result)
		}
	}
	if got := s.sql("SELECT count(*) FROM v_link"); got != changes {
		s.t.Errorf("the state of the link has changed: %s", s.sql("SELECT * FROM v_link"))
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
