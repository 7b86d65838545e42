package e2e

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/sidecar/api/request"
)

// A rehearsed refusal, as doctor --rehearse prints it.
var refusal = regexp.MustCompile(`^([^:]+): ([A-Z]+) (\S+): `)

// Five clients ask, the sidecar rehearses, and then the link is cut: what fails is what the
// rehearsal has named, nothing more and nothing less.
func TestTheRehearsalNamesExactlyWhatFailsInACut(t *testing.T) {
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod(func(p *corev1.Pod) { p.Annotations["rockpool.dev/cache-agents"] = "*,!curl" })
	p.sees("synced")
	namespace := "/api/v1/namespaces/" + s.namespace + "/"

	kubectl := func(args ...string) func() bool {
		return func() bool { return p.run(append([]string{"/kubectl"}, args...)...).ExitCode == 0 }
	}
	python := func(args ...string) func() bool { return func() bool { return p.python(args...).Status != 503 } }
	asks := func(program, target string) func() bool {
		const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
		shell := fmt.Sprintf(`echo '[{"target":%q}]' | /asker`, target)
		if program == "curl" {
			shell = fmt.Sprintf(`curl -sS --cacert %sca.crt -H "Authorization: Bearer $(cat %stoken)" -w '"status":%%{http_code}' https://127.0.0.1:10268%s`, account, account, target)
		}
		return func() bool { return !strings.Contains(p.run("/bin/sh", "-c", shell).Stdout, `"status":503`) }
	}
	commands := []struct {
		agent, verb, resource, name string // of the request that decides
		succeeds                    func() bool
	}{
		{"kubectl", "list", "configmaps", "", kubectl("get", "configmaps", "-o", "name")},
		{"kubectl", "get", "configmaps", "greeting", kubectl("get", "configmap", "greeting", "-o", "name")},
		{"kubectl", "create", "configmaps", "", kubectl("create", "configmap", "by-kubectl")},
		{"OpenAPI-Generator", "list", "configmaps", "", python("list")},
		{"OpenAPI-Generator", "get", "configmaps", "greeting", python("get", "greeting")},
		{"OpenAPI-Generator", "create", "configmaps", "", python("create", "by-python")},
		{"asker", "get", "configmaps", "nope", asks("asker", namespace+"configmaps/nope")},
		{"asker", "list", "events", "", asks("asker", namespace+"events")},
		{"asker", "get", "", "/healthz", asks("asker", "/healthz")},
		{"curl", "list", "services", "", asks("curl", namespace+"services")},
		{"curl", "get", "configmaps", "greeting", asks("curl", namespace+"configmaps/greeting")},
	}
	for _, c := range commands {
		if !c.succeeds() {
			t.Fatalf("online, %s cannot %s %s %s", c.agent, c.verb, c.resource, c.name)
		}
	}
	key := func(agent, verb, resource, name string) string {
		return strings.Join([]string{agent, verb, resource, name}, " ")
	}
	var rehearsed []string
	for _, f := range p.rehearse() {
		m := refusal.FindStringSubmatch(f)
		if m == nil {
			t.Fatalf("a refusal is %q", f)
		}
		info := request.Parse(httptest.NewRequest(m[2], m[3], nil))
		if !info.IsResource {
			info.Name = info.Path
		}
		rehearsed = append(rehearsed, key(m[1], info.Verb, info.Resource, info.Name))
	}

	p.offline()
	var failed []string
	for _, c := range commands {
		if !c.succeeds() {
			failed = append(failed, key(c.agent, c.verb, c.resource, c.name))
		}
	}
	p.restart("app")
	p.sees("synced")
	slices.Sort(rehearsed)
	slices.Sort(failed)
	if !slices.Equal(rehearsed, failed) {
		t.Errorf("in the cut fail\n%q, and the rehearsal named\n%q", failed, rehearsed)
	}
	if len(failed) < 3 || len(failed) > len(commands)-3 {
		t.Errorf("%d of %d commands fail: the test says little", len(failed), len(commands))
	}
	p.online()
}

// rehearse returns the refusals that the sidecar's doctor names.
func (p *testPod) rehearse() (refusals []string) {
	p.site.t.Helper()
	result, err := p.Exec(p.site.ctx, "rockpool-sidecar", "/rockpool-sidecar", "doctor", "--rehearse", "--json")
	if err != nil {
		p.site.t.Fatal(err)
	}
	var findings []struct{ Level, Code, Fact string }
	if err := json.Unmarshal([]byte(result.Stdout), &findings); err != nil {
		p.site.t.Fatalf("%v: %s%s", err, result.Stdout, result.Stderr)
	}
	for _, f := range findings {
		p.site.t.Log(f)
		if f.Code == "would-be-refused" {
			refusals = append(refusals, f.Fact)
		}
		if f.Level == "FAIL" {
			p.site.t.Errorf("%s: %s", f.Code, f.Fact)
		}
	}
	return refusals
}
