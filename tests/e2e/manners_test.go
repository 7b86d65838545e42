package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// listVersion is the resourceVersion of a list itself, in JSON or YAML. Whatever changes in the
// cluster moves it on.
var listVersion = regexp.MustCompile(`(List",\s*"apiVersion": ?"[^"]*",\s*"metadata": ?\{\s*"resourceVersion": ?"|\nmetadata:\n  resourceVersion: ")\d+`)

// TestOfflineMannersAreTheServers sends the same requests online and offline. What the server
// refuses is refused in the same words, and what it formats has the same bytes.
func TestOfflineMannersAreTheServers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.customResources()
	s.allow(rbacv1.PolicyRule{APIGroups: []string{customGroup}, Resources: []string{"widgets"}, Verbs: []string{"get", "list", "watch"}})
	s.configMap("greeting", `<hello> & "good bye"`)
	s.widget("one", "1")
	p := s.pod(withoutApp)
	custom := "/apis/" + customGroup + "/v1/namespaces/" + s.namespace + "/widgets"
	curl := map[string]string{"User-Agent": "curl/8.14.1", "Accept": "*/*"}
	browser := map[string]string{"User-Agent": "Mozilla/5.0 (X11)", "Accept": "text/html,*/*;q=0.8"}
	yaml := map[string]string{"Accept": "application/yaml"}
	metadata := map[string]string{"Accept": "application/yaml;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}

	same := []question{
		with("HEAD", s.configMaps(), nil), with("HEAD", s.configMaps()+"/greeting", nil), with("HEAD", s.configMaps()+"/absent", nil),
		with("HEAD", custom, nil), with("HEAD", custom+"/one", nil),
		get(s.configMaps() + "/"), get(s.configMaps() + "/greeting/"), get(custom + "/one/"),
		with("GET", s.configMaps(), curl), with("GET", s.configMaps()+"/greeting", curl), with("GET", custom+"/one", curl),
		with("GET", s.configMaps()+"/absent", curl), with("GET", s.configMaps()+"/greeting", browser),
		with("GET", s.configMaps()+"/greeting?pretty=false", curl), get(s.configMaps() + "/greeting?pretty=true"),
		with("GET", s.configMaps()+"/greeting", map[string]string{"Accept": "application/json;pretty=1"}),
		with("GET", s.configMaps()+"/greeting", yaml), with("GET", s.configMaps(), yaml), with("GET", custom+"/one", yaml),
		with("GET", s.configMaps()+"/greeting", metadata),
	}
	for _, version := range []string{"abc", "-1", "99999999999999999999"} {
		for _, path := range []string{s.configMaps(), custom} {
			same = append(same, get(path+"?watch=true&timeoutSeconds=5&resourceVersion="+version), get(path+"?resourceVersion="+version), get(path+"/one?resourceVersion="+version))
		}
	}
	for _, path := range []string{s.configMaps(), custom} {
		for _, options := range []string{
			"resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan", "resourceVersionMatch=Exact&resourceVersion=0", "resourceVersionMatch=Newest&resourceVersion=9",
			"resourceVersionMatch=Exact&resourceVersion=9&continue=x", "sendInitialEvents=true", "sendInitialEvents=false", "watch=true&sendInitialEvents=true&timeoutSeconds=5",
			"watch=true&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=9&timeoutSeconds=5",
			"watch=true&resourceVersionMatch=NotOlderThan&resourceVersion=9&timeoutSeconds=5", "watch=true&sendInitialEvents=false&timeoutSeconds=5",
			"watch=true&resourceVersionMatch=Newest&continue=x&timeoutSeconds=5",
		} {
			same = append(same, get(path+"?"+options))
		}
	}
	unclean := []question{
		get("/" + s.configMaps()), get("/api//v1/namespaces/" + s.namespace + "/configmaps"), get(s.configMaps() + "//greeting"),
		get(s.configMaps() + "/./greeting"), get(s.configMaps() + "/../configmaps"), get("//version"), get("//api/v1"), get("/" + custom),
	}
	online := p.ask(slices.Concat(same, unclean)...)
	// The lists come last: nobody reads the version of an answer in YAML, so it makes those before doubtful.
	p.ask(get(s.configMaps()), get(custom))
	p.offline()
	offline := p.ask(slices.Concat(same, unclean)...)
	for i, q := range same {
		on, off := online[i], offline[i]
		body := func(r reply) string { return listVersion.ReplaceAllString(strings.TrimSpace(r.Body), "${1}0") }
		if on.Status != off.Status || body(on) != body(off) || (q.Method != "HEAD" && on.Headers["Content-Type"] != off.Headers["Content-Type"]) {
			t.Errorf("%s %s %v\nonline %d %s\n%.600s\noffline %d %s\n%.600s", q.Method, q.Target, q.Headers,
				on.Status, on.Headers["Content-Type"], on.Body, off.Status, off.Headers["Content-Type"], off.Body)
		}
	}
	for i, q := range unclean {
		on, off := online[len(same)+i], offline[len(same)+i]
		if on.Status < 400 || off.Status != 503 || !strings.Contains(off.status(t).Message, "an empty or a dot segment") {
			t.Errorf("%s: online %d %s, offline %d %s", q.Target, on.Status, on.Body, off.Status, off.Body)
		}
	}
}

//go:embed testdata/create.py
var createScript string

// TestWritesSurviveAFlappingLink has a program that never tries a write again. It gets no 503, and no
// write is carried out twice. What was on its way when the link broke gets 504.
func TestWritesSurviveAFlappingLink(t *testing.T) {
	t.Parallel() // it takes a minute and little processor time
	s := newSite(t)
	s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}})
	p := s.pod(withoutApp)
	p.ask(get(s.configMaps()))

	ctx, cancel := context.WithCancel(s.ctx)
	flaps := make(chan int, 1)
	go func() { flaps <- s.flap(ctx) }()
	result, err := p.Exec(s.ctx, "shell", "/usr/bin/python3", "-c", createScript, s.namespace, fmt.Sprint(flapping.Seconds()))
	cancel()
	n := <-flaps
	s.must(err)
	var got struct {
		Statuses map[string]int
		Longest  float64
	}
	if err := json.Unmarshal([]byte(result.Stdout), &got); err != nil {
		t.Fatalf("%v\n%s%s", err, result.Stdout, result.Stderr)
	}
	list, err := cluster.Client().CoreV1().ConfigMaps(s.namespace).List(s.ctx, metav1.ListOptions{})
	s.must(err)
	arrived := 0
	for _, cm := range list.Items {
		if strings.HasPrefix(cm.Name, "written-") {
			arrived++
		}
	}
	t.Logf("%d flaps: %v, the longest write took %s; %d have arrived", n, got.Statuses, time.Duration(got.Longest*float64(time.Second)).Round(time.Millisecond), arrived)
	created, unknown := got.Statuses["201"], got.Statuses["504"]
	if len(got.Statuses) > 2 || created+unknown == 0 || got.Statuses["503"] > 0 || unknown > n {
		t.Errorf("statuses of writes: %v, in %d flaps", got.Statuses, n)
	}
	if arrived < created || arrived > created+unknown {
		t.Errorf("%d writes have arrived, %d were answered and %d may have arrived", arrived, created, unknown)
	}
}
