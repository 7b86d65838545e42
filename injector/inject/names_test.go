package inject

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestSeekNames(t *testing.T) {
	tests := []struct {
		name, text, want string // want is "" if nothing is seen
	}{
		{"the URL of the Service", "https://kubernetes.default.svc", `"kubernetes.default.svc"`},
		{"with port and path", "curl https://kubernetes.default.svc:443/version", `"kubernetes.default.svc:"`},
		{"the full name", "--server=https://kubernetes.default.svc.cluster.local/api", `"kubernetes.default.svc.cluster.local"`},
		{"the name without a scheme", "kubernetes.default", `"kubernetes.default"`},
		{"the shortest name in a URL", "https://kubernetes/api", `"kubernetes"`},
		{"in a script of several lines", "set -e\nopen kubernetes.default.svc\n", `"kubernetes.default.svc"`},
		{"the address without a port", "curl https://$KUBERNETES_SERVICE_HOST/version", `"$KUBERNETES_SERVICE_HOST"`},
		{"the address in braces, at the end", "https://${KUBERNETES_SERVICE_HOST}", `"${KUBERNETES_SERVICE_HOST}"`},
		{"the address as the kubelet expands it, with the port", "https://$(KUBERNETES_SERVICE_HOST):443/", `"$(KUBERNETES_SERVICE_HOST):443"`},
		{"the address of the port", "$KUBERNETES_PORT_443_TCP_ADDR:443", `"$KUBERNETES_PORT_443_TCP_ADDR:443"`},
		{"the address with the variable of its port", "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/", ""},
		{"likewise in braces", "https://${KUBERNETES_SERVICE_HOST}:${KUBERNETES_SERVICE_PORT}/", ""},
		{"address and port as arguments", "nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT", ""},
		{"another variable", "https://$KUBERNETES_SERVICE_HOSTNAME/", ""},
		{"another Service", "https://kubernetes.default.svc.other.domain https://kubernetes-dashboard/ https://metrics.kubernetes.default", ""},
		{"the word alone", "--provider=kubernetes", ""},
		{"a path", "/var/run/secrets/kubernetes.io/serviceaccount", ""},
		{"documentation", "https://kubernetes.io/docs", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for where, c := range map[string]corev1.Container{
				"command":  {Command: []string{"sh", tt.text}},
				"argument": {Args: []string{"-c", tt.text}},
				"variable": {Env: []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "URL", Value: tt.text}}},
			} {
				var want []sighting
				if tt.want != "" {
					want = []sighting{{text: tt.want, written: true}}
				}
				got := seekNames(&corev1.PodSpec{Containers: []corev1.Container{c}}, "cluster.local")
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(sighting{})); diff != "" {
					t.Errorf("as a %s (-want +got):\n%s", where, diff)
				}
			}
		})
	}
}

func TestFluentBitIsKnownByItsImage(t *testing.T) {
	for image, want := range map[string]bool{
		"fluent/fluent-bit":                                     true,
		"cr.fluentbit.io/fluent/fluent-bit:3.2":                 true,
		"public.ecr.aws/aws-observability/aws-for-fluent-bit:2": true,
		"registry.example.com/fluent-bit/exporter:v1":           false,
		"fluent/fluentd":                                        false,
	} {
		if got := len(seekNames(&corev1.PodSpec{Containers: []corev1.Container{{Image: image}}}, "cluster.local")) == 1; got != want {
			t.Errorf("%s: %v, want %v", image, got, want)
		}
	}
}

func TestChooseNames(t *testing.T) {
	calls := func(name string) corev1.Container {
		return corev1.Container{Name: name, Args: []string{"--server=https://kubernetes.default.svc"}}
	}
	port := func(p corev1.ContainerPort) corev1.Container {
		return corev1.Container{Name: "web", Ports: []corev1.ContainerPort{p}}
	}
	start := func(value string) *corev1.PodSecurityContext {
		return &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: portSysctl, Value: value}}}
	}
	const has = `container "app" has "kubernetes.default.svc", but `
	tests := []struct {
		name     string
		spec     corev1.PodSpec
		choice   APINames
		settings map[string]string
		left     []string
		on       bool
		notice   string // its detail
	}{
		{name: "auto, and nothing is seen", spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}, choice: APINamesAuto},
		{name: "auto is the default", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app")}}, on: true},
		{name: "an init container has the name", spec: corev1.PodSpec{InitContainers: []corev1.Container{calls("app")}}, choice: APINamesAuto, on: true},
		{name: "the default of an image is only a hint", spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "log", Image: "fluent/fluent-bit"}}}, choice: APINamesAuto,
			notice: `container "log" has the image of Fluent Bit, which uses kubernetes.default.svc by default, but api-names is auto, and no command, argument or variable says so`},
		{name: "true needs no name", spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}, choice: APINamesOn, on: true},
		{name: "false", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app")}}, choice: APINamesOff, notice: has + "api-names is false"},
		{name: "a server on the port", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app"), port(corev1.ContainerPort{ContainerPort: 443})}}, choice: APINamesAuto,
			notice: has + `container "web" has the port 443`},
		{name: "a server on the port, against true", spec: corev1.PodSpec{Containers: []corev1.Container{port(corev1.ContainerPort{ContainerPort: 443})}}, choice: APINamesOn,
			notice: `api-names is true, but container "web" has the port 443`},
		{name: "a server on the node's port", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app"), port(corev1.ContainerPort{ContainerPort: 8443, HostPort: 443})}}, choice: APINamesAuto,
			notice: has + `container "web" has the port 443`},
		{name: "UDP does not matter", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app"), port(corev1.ContainerPort{ContainerPort: 443, Protocol: corev1.ProtocolUDP})}}, choice: APINamesAuto, on: true},
		{name: "the node's network", spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{calls("app")}}, choice: APINamesOn, notice: has + "the pod uses the node's network"},
		{name: "the pod opens the port itself", spec: corev1.PodSpec{SecurityContext: start("80"), Containers: []corev1.Container{calls("app")}}, choice: APINamesAuto, on: true},
		{name: "the pod closes the port", spec: corev1.PodSpec{SecurityContext: start("1024"), Containers: []corev1.Container{calls("app")}}, choice: APINamesAuto,
			notice: has + "the pod sets net.ipv4.ip_unprivileged_port_start to 1024"},
		{name: "a container that is left alone needs the real Service", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app"), calls("direct")}}, choice: APINamesAuto, left: []string{"direct"},
			notice: has + `container "direct", which does not use the sidecar, has "kubernetes.default.svc" as well`},
		{name: "only a container that is left alone has the name", spec: corev1.PodSpec{Containers: []corev1.Container{calls("direct")}}, choice: APINamesAuto, left: []string{"direct"}},
		{name: "the sidecar would find itself", spec: corev1.PodSpec{Containers: []corev1.Container{calls("app")}}, choice: APINamesAuto,
			settings: map[string]string{"upstream.servers": "https://203.0.113.7:6443,https://kubernetes.default.svc:443"}, notice: has + "upstream.servers has kubernetes.default.svc"},
		{name: "another cluster domain", spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Args: []string{"kubernetes.default.svc.edge.example"}}}}, choice: APINamesAuto,
			settings: map[string]string{"cluster.domain": "edge.example"}, on: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			names, notices := chooseNames(&tt.spec, tt.choice, tt.settings, tt.left)
			if (names != nil) != tt.on {
				t.Errorf("got %+v, want on: %v", names, tt.on)
			}
			var want []Notice
			if tt.notice != "" {
				want = []Notice{{Reason: ReasonAPINames, Detail: tt.notice}}
			}
			if diff := cmp.Diff(want, notices); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamesThatThePodHasAlready(t *testing.T) {
	spec := &corev1.PodSpec{HostAliases: []corev1.HostAlias{
		{IP: "192.0.2.1", Hostnames: []string{"kubernetes"}},
		{IP: "127.0.0.1", Hostnames: []string{"local", "kubernetes.default"}},
	}}
	before := spec.DeepCopy()
	names := newNames(spec, "edge.example")
	names.apply(spec, loopback(false))
	want := &corev1.PodSpec{
		HostAliases: []corev1.HostAlias{before.HostAliases[0],
			{IP: "127.0.0.1", Hostnames: []string{"local", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.edge.example"}}},
		SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: portSysctl, Value: "0"}}},
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if names.apply(spec, loopback(false)); !cmp.Equal(want, spec) {
		t.Error("applied again, it adds something")
	}
	names.undo(spec, loopback(false))
	if diff := cmp.Diff(before, spec); diff != "" {
		t.Errorf("it is not restored (-before +after):\n%s", diff)
	}
}
