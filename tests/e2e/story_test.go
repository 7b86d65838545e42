package e2e

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
)

//go:embed testdata/work.py
var workScript string

// maxStory is how many lines the log of an outage has at most.
const maxStory = 15

// storyLine is a line of the sidecar's log.
type storyLine struct {
	Level, Msg, From, To, Reason, Lasted, Verb, Resource, ID, Age, OldestAnswer, Error string
	Status, Count, Answered, Accepted, Refused, Watches, Waiting                       int
	Results                                                                            map[string]int
}

// story reads lines of the sidecar's log.
func story(t *testing.T, text string) (all []storyLine) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l storyLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// TestTheLogOfAnOutageTellsItsStory cuts the link under an informer and a program that reads and
// writes five times a second. A person who reads the log afterwards finds out what has happened, in
// a dozen lines and in their order.
func TestTheLogOfAnOutageTellsItsStory(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSite(t)
	s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}})
	s.configMap("greeting", "hello")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "key"}, StringData: map[string]string{"password": "correct-horse-battery-staple"}}
	_, err := cluster.Client().CoreV1().Secrets(s.namespace).Create(s.ctx, secret, metav1.CreateOptions{})
	s.must(err)
	p := s.pod(func(p *corev1.Pod) { p.Annotations["rockpool.dev/offline-events"] = "true" })
	p.sees(`"event":"synced"`)
	p.ask(get(s.configMaps()+"/greeting"), get("/api/v1/namespaces/"+s.namespace+"/secrets/key"))

	begun := len(mustLogs(t, p, "rockpool-sidecar"))
	working := make(chan pod.ExecResult, 1)
	go func() {
		result, err := p.Exec(s.ctx, "shell", "/usr/bin/python3", "-c", workScript, s.namespace, "20")
		if err != nil {
			t.Error(err)
		}
		working <- result
	}()
	p.offline()
	p.restart("app") // reads from the cache
	p.sees(`"event":"synced"`)
	away := time.NewTimer(14 * time.Second) // longer than the least time between two lines that are alike
	<-away.C
	p.online()
	p.sidecarSays("caught up after an outage")
	p.sidecarSays("queued Events are delivered")
	result := <-working
	var worked struct {
		Statuses map[string]map[string]int
		Refused  map[string]string
	}
	if err := json.Unmarshal([]byte(result.Stdout), &worked); err != nil {
		t.Fatalf("%v\n%s%s", err, result.Stdout, result.Stderr)
	}
	text := mustLogs(t, p, "rockpool-sidecar")[begun:]
	lines := story(t, text)
	t.Logf("the program has seen %v; the log of the outage:\n%s", worked.Statuses, text)
	if len(lines) > maxStory {
		t.Errorf("%d lines, want %d at most", len(lines), maxStory)
	}
	last := -1
	find := func(what string, is func(storyLine) bool) (found storyLine) {
		t.Helper()
		i := slices.IndexFunc(lines, is)
		switch {
		case i < 0:
			t.Errorf("no line: %s", what)
			return found
		case i < last:
			t.Errorf("too early: %s", what)
		}
		last = i
		return lines[i]
	}
	if l := find("the first answer of the cache", func(l storyLine) bool { return l.Msg == "answering from the cache" }); l.Age == "" || l.Verb == "" || l.Resource == "" {
		t.Errorf("which answer, and how old: %+v", l)
	}
	last = -1 // requests may show that the link is down before that is sure
	if l := find("the link is lost", func(l storyLine) bool { return l.Msg == "link state changed" && l.To == "offline" }); !strings.Contains(l.Reason, "203.0.113.10:6443") {
		t.Errorf("no evidence of the lost link: %+v", l)
	}
	back := find("the link is back", func(l storyLine) bool { return l.Msg == "link state changed" && l.To == "online" })
	if lasted, err := time.ParseDuration(back.Lasted); err != nil || lasted < 13*time.Second || lasted > patience {
		t.Errorf("the link was away for %q", back.Lasted)
	}
	last = -1 // these lines come in any order
	caught := find("all has caught up", func(l storyLine) bool { return l.Msg == "caught up after an outage" })
	if caught.Lasted == "" || caught.OldestAnswer == "" || caught.Watches < 1 || caught.Waiting != 0 ||
		caught.Answered < worked.Statuses["read"]["200"]/2 || caught.Refused < worked.Statuses["write"]["503"] || caught.Accepted < 10 {
		t.Errorf("what an outage was like: %+v, and the program has seen %v", caught, worked.Statuses)
	}
	last = -1
	if delivered := find("the queued Events", func(l storyLine) bool { return l.Msg == "queued Events are delivered" }); delivered.Results["delivered"] < 10 {
		t.Errorf("delivered Events: %v", delivered.Results)
	}
	last = -1
	for name, verb := range map[string]string{"write": "patch", "unknown": "get"} {
		first := func(l storyLine) bool { return l.Msg == "request" && l.Verb == verb && l.Status == 503 && l.Count == 0 }
		if l := find("the first refusal of "+name, first); l.ID == "" || l.ID != worked.Refused[name] || l.Error == "" {
			t.Errorf("the program has the id %q of its refused %s, the log has %+v", worked.Refused[name], name, l)
		}
		last = -1
		counted := func(l storyLine) bool { return l.Msg == "request" && l.Verb == verb && l.Status == 503 && l.Count > 0 }
		if l, want := find("the number of refusals of "+name, counted), worked.Statuses[name]["503"]; l.Count > want || l.Count < want-2 {
			t.Errorf("%d refusals of %s in the log, the program has seen %d", l.Count, name, want)
		}
		last = -1
	}
	token := p.run("/bin/cat", "/var/run/secrets/kubernetes.io/serviceaccount/token").Stdout
	parts := strings.Split(strings.TrimSpace(token), ".")
	for _, private := range append(parts, "correct-horse-battery-staple", "Bearer", fmt.Sprintf("%x", "correct-horse")) {
		if private == "" || strings.Contains(text, private) {
			t.Errorf("the log has %.20q", private)
		}
	}
}
