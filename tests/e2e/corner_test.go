package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// corner is a namespace that only one client reads, in its own way: all that the pod knows of its
// objects is what that client was told.
type corner struct {
	*survival
	client     string
	single     string // the only object that the client reads; empty: all
	violations map[string]*violation
}

// violation is something that the contract forbids, and how often it was seen.
type violation struct {
	count int
	first string
}

// corners creates the namespaces of clients that do not list and watch as client-go does, with the
// RBAC rules that these clients need.
func corners(s *site, random *rand.Rand) []*corner {
	s.t.Helper()
	all := []*corner{{client: "python"}, {client: "ruby"}, {client: "single", single: changing(0)}}
	for _, c := range all {
		own := *s
		own.namespace = s.namespace + "-" + c.client
		s.must(cluster.CreateNamespace(s.ctx, own.namespace))
		rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "watch"}}
		names := 6
		if c.single != "" {
			rule.Verbs, rule.ResourceNames = []string{"get", "watch"}, []string{c.single}
			names = 2
		}
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: c.client}, Rules: []rbacv1.PolicyRule{rule}}
		_, err := cluster.Client().RbacV1().Roles(own.namespace).Create(s.ctx, role, metav1.CreateOptions{})
		s.must(err)
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: c.client},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: c.client},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}},
		}
		_, err = cluster.Client().RbacV1().RoleBindings(own.namespace).Create(s.ctx, binding, metav1.CreateOptions{})
		s.must(err)
		c.violations = map[string]*violation{}
		c.survival = newSurvival(&own, random, names, map[string]string{c.client: ""})
		if c.single != "" {
			c.shadows[""] = own.shadow(metav1.ListOptions{FieldSelector: "metadata.name=" + c.single})
		}
	}
	return all
}

// withCorners adds the clients of the corners to the pod of a watcher.
func withCorners(all []*corner) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		command := []string{"/watcher"}
		for _, c := range all {
			switch c.client {
			case "python":
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
					Name: c.client, Image: "shell:dev", Command: []string{"/usr/bin/python3", "/client.py", "follow", c.namespace},
				})
			case "ruby":
				command = append(command, "-ruby="+c.namespace)
			case "single":
				command = append(command, "-single="+c.namespace+"/"+c.single)
			}
		}
		p.Spec.Containers[0].Command = command
	}
}

// container is the container of the client.
func (c *corner) container() string {
	if c.client == "python" {
		return "python"
	}
	return "app"
}

// listOnce has another program of the pod list the objects, once and for all: the client that
// watches without a list tells all that changes after that.
func (c *corner) listOnce() {
	c.t.Helper()
	if c.client != "python" {
		return
	}
	if r := c.pod.send([]getRequest{{Target: c.configMaps(), Accept: acceptJSON}})[0]; r.Status != http.StatusOK {
		c.t.Fatalf("%s: %d %s", c.configMaps(), r.Status, r.text())
	}
}

func (c *corner) violated(what, format string, args ...any) {
	if c.violations[what] == nil {
		c.violations[what] = &violation{first: fmt.Sprintf(format, args...)}
	}
	c.violations[what].count++
}

// askOffline asks for all objects of the corner with the link down. The client has the state of the
// server: an answer is that state, or 503.
func (c *corner) askOffline() {
	c.t.Helper()
	want := c.state[c.client]
	names := slices.Sorted(maps.Keys(want))
	if c.single == "" {
		names = names[:0]
		for i := range c.names {
			names = append(names, changing(i))
		}
	} else if len(names) == 0 {
		names = []string{c.single}
	}
	var requests []getRequest
	for _, name := range names {
		requests = append(requests, getRequest{Target: c.configMaps() + "/" + name, Accept: acceptJSON})
	}
	if c.single == "" {
		requests = append(requests, getRequest{Target: c.configMaps(), Accept: acceptJSON})
	}
	for i, r := range c.pod.send(requests) {
		told := fmt.Sprintf("%s was told %v; %s: %d %s", c.client, want, requests[i].Target, r.Status, r.text())
		switch {
		case r.Status == http.StatusServiceUnavailable:
		case r.Status == http.StatusOK && i == len(names):
			if have := objectsOf(r.Body); !maps.Equal(have, want) {
				c.violated("an offline list is not what the client was told", "%s", told)
			}
		case r.Status == http.StatusNotFound && i < len(names):
			if want[names[i]] != "" {
				c.violated("an offline GET of an object that the client was told of is 404", "%s", told)
			}
		case r.Status == http.StatusOK:
			var o metav1.PartialObjectMetadata
			if err := json.Unmarshal(r.Body, &o); err != nil || string(o.UID)+"/"+o.ResourceVersion != want[names[i]] {
				c.violated("an offline GET is older than what the client was told", "%s", told)
			}
		default:
			c.violated("an offline answer is neither the state nor 503", "%s", told)
		}
	}
}

// objectsOf are the objects of a list, UID/resourceVersion by name.
func objectsOf(body []byte) map[string]string {
	var list metav1.PartialObjectMetadataList
	if json.Unmarshal(body, &list) != nil {
		return nil
	}
	objects := map[string]string{}
	for _, o := range list.Items {
		objects[o.Name] = string(o.UID) + "/" + o.ResourceVersion
	}
	return objects
}

// streams counts the streams that the client has opened, and how many of them have ended with 410.
// settled reports whether the last one can outlive the link: without a version nobody knows where the
// initial state ends before another event than ADDED has come.
func (c *corner) streams() (opened, expired int, settled bool) {
	for _, l := range c.received[c.client] {
		switch l.Event {
		case "gone":
			expired++
		case "watch":
			opened++
			settled = l.ResourceVersion != ""
		case "MODIFIED", "DELETED":
			settled = true
		}
	}
	return opened, expired, settled
}

// outage cuts the link while nobody writes, and has the pod read what its clients were told. Their
// streams must outlive it, unless the server has forgotten their version.
func (v *survival) outage() {
	v.t.Helper()
	v.settle()
	before := map[*corner][2]int{}
	for _, c := range v.corners {
		if opened, expired, settled := c.streams(); settled {
			before[c] = [2]int{opened, expired}
		}
	}
	v.pod.offline()
	for _, c := range v.corners {
		c.askOffline()
	}
	v.pod.online()
	v.write(10)
	v.settle()
	for c, n := range before {
		if opened, expired, _ := c.streams(); expired == n[1] && opened != n[0] {
			c.violated("a stream has not outlived the link", "%s has opened %d streams, %d before the outage", c.client, opened, n[0])
		}
	}
}

// check checks all events of the client, and reports what was seen offline.
func (c *corner) check() {
	c.t.Helper()
	c.survival.check()
	for _, what := range slices.Sorted(maps.Keys(c.violations)) {
		v := c.violations[what]
		c.t.Errorf("%s, %d times: %s; the first time: %s", c.client, v.count, what, v.first)
	}
}

// refusedLists is how many LISTs of ConfigMaps the API server has refused.
func (s *site) refusedLists() (n int) {
	s.t.Helper()
	raw, err := cluster.Client().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(s.ctx)
	s.must(err)
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `code="403"`) ||
			!strings.Contains(line, `resource="configmaps"`) || !strings.Contains(line, `verb="LIST"`) {
			continue
		}
		var count int
		if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &count); err != nil {
			s.t.Fatal(err)
		}
		n += count
	}
	return n
}
