package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/bed/pod"
	projects "rockpool.dev/tests/bed/programs"
)

// servers chooses real servers, which take minutes to build once.
var servers = flag.String("servers", "", "comma-separated servers of other projects to test: coredns, traefik")

// A realServer is a server of another project whose answers tell which endpoints it sees.
type realServer struct {
	program projects.Program
	args    []string
	files   map[string]string // from testdata, by their paths in the container
	filters string            // the pod's annotation; empty: it has none
	// ask is a Python script that prints the endpoints that the server in its pod answers, or sends
	// requests to. %s is the namespace of the Service web.
	ask string
}

var realServers = []realServer{
	{ // servicetopology applies to it by its User-Agent
		program: projects.CoreDNS, args: []string{"-conf", "/Corefile"}, files: map[string]string{"/Corefile": "Corefile"},
		ask: `
import socket, struct
def after(name):
    while packet[name]:
        if packet[name] >= 0xc0:
            return name + 2
        name += packet[name] + 1
    return name + 1
packet = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0)
for label in "web.%s.svc.cluster.local".split("."):
    packet += bytes([len(label)]) + label.encode()
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.sendto(packet + b"\0" + struct.pack(">2H", 1, 1), ("127.0.0.1", 1053))
packet = client.recv(4096)
at, found = after(12) + 4, set()
for _ in range(struct.unpack(">H", packet[6:8])[0]):
    at = after(at)
    kind, _, _, size = struct.unpack(">HHIH", packet[at:at+10])
    at += 10 + size
    if kind == 1:
        found.add(socket.inet_ntoa(packet[at-4:at]))
print(*sorted(found))`,
	},
	{
		program: projects.Traefik, filters: "servicetopology", args: []string{
			"--providers.kubernetesingress", "--entrypoints.web.address=:8000", "--global.checknewversion=false", "--global.sendanonymoususage=false",
		},
		// It takes the endpoints in turn.
		ask: `
import urllib.request
request = urllib.request.Request("http://127.0.0.1:8000/", headers={"Host": "%s.example"})
print(*sorted({urllib.request.urlopen(request, timeout=5).read().decode() for _ in range(8)}))`,
	},
}

func (r *realServer) chosen() bool {
	return slices.Contains(strings.Split(*servers, ","), r.program.Name)
}

// serverImages builds the chosen servers and returns their images.
func serverImages(ctx context.Context, progress io.Writer) (map[string]pod.Image, error) {
	images := map[string]pod.Image{}
	for _, server := range realServers {
		if !server.chosen() {
			continue
		}
		name := server.program.Name
		path, err := server.program.Build(ctx, progress)
		if err != nil {
			return nil, err
		}
		files := map[string]string{"/" + name: path}
		for to, from := range server.files {
			if files[to], err = filepath.Abs(filepath.Join("testdata", from)); err != nil {
				return nil, err
			}
		}
		images[name+":real"] = pod.Image{Entrypoint: []string{"/" + name}, Files: files}
	}
	return images, nil
}

func TestRealServersUseTheEndpointsOfTheirNode(t *testing.T) {
	for _, server := range realServers {
		t.Run(server.program.Name, func(t *testing.T) {
			if !server.chosen() {
				t.Skip("-servers does not name it")
			}
			t.Parallel()
			usesTheEndpointsOfItsNode(t, server)
		})
	}
}

func usesTheEndpointsOfItsNode(t *testing.T, server realServer) {
	s := newSite(t)
	s.allowEverywhere(
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services", "endpoints", "secrets", "nodes", "namespaces", "pods"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses", "ingressclasses"}, Verbs: []string{"get", "list", "watch"}},
	)
	const here, both = "10.1.0.1", "10.1.0.1 10.1.0.2"
	for address := range strings.FieldsSeq(both) {
		endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, address) }))
		t.Cleanup(endpoint.Close)
		s.linkAt(address+":80", endpoint.Listener.Addr().String())
	}
	s.servedByName("web")
	s.topology("web", hostname)
	s.endpoints("web-1", "web")

	p := s.pod(func(p *corev1.Pod) {
		if server.filters != "" {
			p.Annotations["rockpool.dev/filters"] = server.filters
		}
		p.Spec.Containers[0].Image, p.Spec.Containers[0].Args = server.program.Name+":real", server.args
	})
	uses := func(when, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		last := ""
		for ctx.Err() == nil {
			result, err := p.Exec(ctx, "shell", "/usr/bin/python3", "-c", fmt.Sprintf(server.ask, s.namespace))
			if last = strings.TrimSpace(result.Stdout + result.Stderr); err == nil && last == want {
				return
			}
		}
		t.Fatalf("%s: it uses %q, want %q", when, last, want)
	}
	uses("online", here)
	s.topology("web", "")
	uses("with a Service that has no annotation", both)
	s.topology("web", hostname)
	uses("with the annotation again", here)

	p.offline()
	uses("offline", here)
	p.restart("app")
	uses("restarted offline", here)
	p.restart("rockpool-sidecar")
	p.restart("app")
	uses("restarted offline, with the sidecar", here)

	s.topology("web", "")
	uses("offline, after a change in the cloud", here)
	p.online()
	uses("online, after a change in the cloud", both)

	p.offline()
	uses("offline again", both)
	s.topology("web", hostname)
	p.online()
	uses("online, after the annotation came back in the cloud", here)
}

// servedByName creates a Service without an address of its own, and an Ingress for it with the host
// NAMESPACE.example.
func (s *site) servedByName(name string) {
	s.t.Helper()
	_, err := cluster.Client().CoreV1().Services(s.namespace).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	s.must(err)
	_, err = cluster.Client().NetworkingV1().Ingresses(s.namespace).Create(s.ctx, &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: s.namespace + ".example",
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix),
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}},
			}}}},
		}}},
	}, metav1.CreateOptions{})
	s.must(err)
}
