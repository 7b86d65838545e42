package e2e

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed testdata/ask.py
var askScript string

// question is a plain HTTP request that ask.py sends from inside the pod.
type question struct {
	Method  string            `json:"method"`
	Target  string            `json:"target"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body,omitempty"`
	Padding int               `json:"padding,omitempty"` // blanks after the body
}

// reply is the answer to a question.
type reply struct {
	Status  int
	Headers map[string]string
	Body    string
	Seconds float64
}

// status decodes the body, which is a Status in every error of the API.
func (r reply) status(t *testing.T) (s metav1.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Body), &s); err != nil || s.Kind != "Status" || int(s.Code) != r.Status {
		t.Errorf("the body of a %d is not its Status: %v %q", r.Status, err, r.Body)
	}
	return s
}

// get is a GET with the pod's own token.
func get(target string) question { return with("GET", target, nil) }

// with is a request with the pod's own token and further headers, which may replace the token. An
// empty header is not sent.
func with(method, target string, headers map[string]string) question {
	q := question{Method: method, Target: target, Headers: map[string]string{"Authorization": "Bearer {token}", "Accept": "application/json"}}
	for k, v := range headers {
		q.Headers[k] = v
		if v == "" {
			delete(q.Headers, k)
		}
	}
	return q
}

// ask sends requests from inside the pod, one by one.
func (p *testPod) ask(questions ...question) []reply {
	p.site.t.Helper()
	raw, err := json.Marshal(questions)
	if err != nil {
		p.site.t.Fatal(err)
	}
	result := p.run("/usr/bin/python3", "-c", askScript, string(raw))
	var replies []reply
	if err := json.Unmarshal([]byte(result.Stdout), &replies); err != nil || len(replies) != len(questions) {
		p.site.t.Fatalf("ask: %d %v\n%s%s", result.ExitCode, err, result.Stdout, result.Stderr)
	}
	return replies
}

// in returns the pod for a subtest: failures are those of t.
func (p *testPod) in(t *testing.T) *testPod {
	s := *p.site
	s.t, s.ctx = t, t.Context()
	q := *p
	q.site = &s
	return &q
}

// shell runs a shell command in a container and returns its output, which must not be empty.
func (p *testPod) shell(container, line string) string {
	p.site.t.Helper()
	result, err := p.Exec(p.site.ctx, container, "/bin/sh", "-c", line)
	if err != nil || result.ExitCode != 0 {
		p.site.t.Fatalf("%s in %s: %d %v\n%s%s", line, container, result.ExitCode, err, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// metric returns the value of a metric of the sidecar.
func (p *testPod) metric(name string) int {
	p.site.t.Helper()
	all, err := p.metrics()
	if err != nil {
		p.site.t.Fatal(err)
	}
	return all[name]
}

// metrics returns all metrics of the sidecar.
func (p *testPod) metrics() (map[string]int, error) {
	const script = `import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:10269/metrics").read().decode())`
	result, err := p.Exec(p.site.ctx, "shell", "/usr/bin/python3", "-c", script)
	if err == nil && result.ExitCode != 0 {
		err = errors.New(result.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("the sidecar's metrics: %w", err)
	}
	all := map[string]int{}
	for line := range strings.Lines(result.Stdout) {
		line = strings.TrimSpace(line)
		i := strings.LastIndex(line, " ")
		if i < 0 || line[0] == '#' {
			continue
		}
		n, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, err
		}
		all[line[:i]] = int(n)
	}
	return all, nil
}

// token is the pod's own token as the app sees it.
func (p *testPod) token() string {
	p.site.t.Helper()
	return strings.TrimSpace(p.shell("shell", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"))
}

// configMaps is the path of the namespace's ConfigMaps.
func (s *site) configMaps() string { return "/api/v1/namespaces/" + s.namespace + "/configmaps" }

// deletePod deletes a pod object at once, without a grace period.
func (s *site) deletePod(name string) {
	s.t.Helper()
	err := cluster.Client().CoreV1().Pods(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	if err != nil {
		s.t.Fatal(err)
	}
}

// core allows everything with resources of the core group.
func core(resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: resources, Verbs: []string{"*"}}
}

// revoke removes a resource from the namespace's role.
func (s *site) revoke(resource string) {
	s.t.Helper()
	api := cluster.Client().RbacV1().Roles(s.namespace)
	role, err := api.Get(s.ctx, "app", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range role.Rules {
		role.Rules[i].Resources = slices.DeleteFunc(role.Rules[i].Resources, func(r string) bool { return r == resource })
	}
	if _, err := api.Update(s.ctx, role, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}
