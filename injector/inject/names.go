package inject

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"rockpool.dev/sidecar/config"
)

// servicePort is the port of the API server's Service.
const servicePort = 443

// portSysctl is the lowest port that a process without privileges can listen on. It is in the
// safe set of Pod Security: it concerns the pod's own network namespace.
// https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/
const portSysctl = "net.ipv4.ip_unprivileged_port_start"

// Names is what a pod has got so that the sidecar answers at the names of the API server's
// Service, and at port 443, see [APINames]. Nil: nothing.
type Names struct {
	// Hosts are the host names that mean the sidecar.
	Hosts []string `json:"hosts,omitempty"`
	// Sysctl means that portSysctl was added.
	Sysctl bool `json:"sysctl,omitempty"`
	// SecurityContext means that the pod had no security context before.
	SecurityContext bool `json:"securityContext,omitempty"`
}

// chooseNames decides whether the sidecar answers at the Service's names. It returns a notice for
// each container that seems to need that, and does not get it. left are the containers that do not
// use the sidecar.
func chooseNames(spec *corev1.PodSpec, choice APINames, settings map[string]string, left []string) (*Names, []Notice) {
	domain := cmp.Or(settings["cluster.domain"], "cluster.local")
	seen := seekNames(spec, domain)
	i := slices.IndexFunc(seen, func(s sighting) bool { return slices.Contains(left, s.container) })
	obstacle := obstacleToNames(spec, domain, settings["upstream.servers"])
	switch {
	case obstacle != "":
	case choice == APINamesOff:
		obstacle = "api-names is false"
	case choice == APINamesOn:
	case i >= 0:
		obstacle = fmt.Sprintf("container %q, which does not use the sidecar, has %s as well", seen[i].container, seen[i].text)
	case !slices.ContainsFunc(seen, func(s sighting) bool { return s.written }):
		obstacle = "api-names is auto, and no command, argument or variable says so"
	}
	if obstacle == "" {
		return newNames(spec, domain), nil
	}
	var notices []Notice
	for _, s := range seen {
		if !slices.Contains(left, s.container) {
			notices = append(notices, Notice{Reason: ReasonAPINames, Detail: fmt.Sprintf("container %q has %s, but %s", s.container, s.text, obstacle)})
		}
	}
	if len(notices) == 0 && choice == APINamesOn {
		notices = []Notice{{Reason: ReasonAPINames, Detail: "api-names is true, but " + obstacle}}
	}
	return nil, notices
}

// obstacleToNames returns why the sidecar cannot answer at the names in this pod, or "".
func obstacleToNames(spec *corev1.PodSpec, domain, upstreams string) string {
	if spec.HostNetwork {
		return "the pod uses the node's network"
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, p := range c.Ports {
			if p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP && (p.ContainerPort == servicePort || p.HostPort == servicePort) {
				return fmt.Sprintf("container %q has the port %d", c.Name, servicePort)
			}
		}
	}
	if start := sysctl(spec); start != nil {
		if lowest, err := strconv.Atoi(start.Value); err != nil || lowest > servicePort {
			return fmt.Sprintf("the pod sets %s to %s", portSysctl, start.Value)
		}
	}
	// The sidecar would find itself at that name.
	for _, name := range config.APINames(domain) {
		if regexp.MustCompile(`//` + regexp.QuoteMeta(name) + `(?:[:/;,]|$)`).MatchString(upstreams) {
			return fmt.Sprintf("upstream.servers has %s", name)
		}
	}
	return ""
}

// sighting is a sign that a container looks for the API server at a name or at port 443.
type sighting struct {
	container string
	text      string // such as "kubernetes.default.svc"; for messages
	written   bool   // in the container's command, arguments or variables
}

// fluentBit has https://kubernetes.default.svc:443 as the default of its Kubernetes filter.
// https://docs.fluentbit.io/manual/pipeline/filters/kubernetes
var fluentBit = regexp.MustCompile(`(?:^|/)[^/]*fluent-bit[^/]*$`)

// seekNames returns the first sign of each container of the application.
func seekNames(spec *corev1.PodSpec, domain string) (seen []sighting) {
	spelling := regexp.MustCompile(
		// A name of the Service. The bare word "kubernetes" is a name only in a URL.
		`(?:^|[^\w.-])kubernetes\.default(?:\.svc(?:\.` + regexp.QuoteMeta(domain) + `)?)?(?:[^\w.-]|\.?$)|//kubernetes(?:[:/"'\s]|$)` +
			// The Service's address, with port 443 or in a URL without a port.
			`|//` + serviceAddress + `(?:[^\w:)}]|$)|` + serviceAddress + `:443(?:\D|$)`)
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if ownContainer(c.Name) {
			continue
		}
		texts := slices.Concat(c.Command, c.Args)
		for _, v := range c.Env {
			texts = append(texts, v.Value)
		}
		i := slices.IndexFunc(texts, spelling.MatchString)
		switch {
		case i >= 0:
			text := strings.Trim(spelling.FindString(texts[i]), ` "'=,;/`+"\n\t")
			seen = append(seen, sighting{container: c.Name, text: strconv.Quote(text), written: true})
		case fluentBit.MatchString(c.Image):
			seen = append(seen, sighting{container: c.Name, text: "the image of Fluent Bit, which uses kubernetes.default.svc by default"})
		}
	}
	return seen
}

// serviceAddress matches the variables with the Service's address, as a shell or the kubelet expands them.
const serviceAddress = `\$[({]?(?:KUBERNETES_SERVICE_HOST|KUBERNETES_PORT_443_TCP_ADDR)[)}]?`

// newNames returns what the pod lacks. A name to which the pod gives another address stays as it is.
func newNames(spec *corev1.PodSpec, domain string) *Names {
	n := &Names{Sysctl: sysctl(spec) == nil}
	n.SecurityContext = n.Sysctl && spec.SecurityContext == nil
	for _, name := range config.APINames(domain) {
		if !slices.ContainsFunc(spec.HostAliases, func(a corev1.HostAlias) bool { return slices.Contains(a.Hostnames, name) }) {
			n.Hosts = append(n.Hosts, name)
		}
	}
	return n
}

// apply adds to the pod what it does not have yet.
func (n *Names) apply(spec *corev1.PodSpec, sidecar netip.Addr) {
	if n == nil {
		return
	}
	if n.Sysctl && sysctl(spec) == nil {
		if spec.SecurityContext == nil {
			spec.SecurityContext = &corev1.PodSecurityContext{}
		}
		spec.SecurityContext.Sysctls = append(spec.SecurityContext.Sysctls, corev1.Sysctl{Name: portSysctl, Value: "0"})
	}
	if len(n.Hosts) == 0 {
		return
	}
	// Each address has one entry: server-side apply of a template accepts no second one.
	own := aliasOf(spec, sidecar)
	if own < 0 {
		own = len(spec.HostAliases)
		spec.HostAliases = append(spec.HostAliases, corev1.HostAlias{IP: sidecar.String()})
	}
	for _, name := range n.Hosts {
		if !slices.Contains(spec.HostAliases[own].Hostnames, name) {
			spec.HostAliases[own].Hostnames = append(spec.HostAliases[own].Hostnames, name)
		}
	}
}

// undo is the reverse of apply.
func (n *Names) undo(spec *corev1.PodSpec, sidecar netip.Addr) {
	if n == nil {
		return
	}
	if i := aliasOf(spec, sidecar); i >= 0 && len(n.Hosts) > 0 {
		alias := &spec.HostAliases[i]
		alias.Hostnames = slices.DeleteFunc(alias.Hostnames, func(name string) bool { return slices.Contains(n.Hosts, name) })
		if len(alias.Hostnames) == 0 {
			spec.HostAliases = slices.Delete(spec.HostAliases, i, i+1)
		}
	}
	if n.Sysctl && spec.SecurityContext != nil {
		spec.SecurityContext.Sysctls = slices.DeleteFunc(spec.SecurityContext.Sysctls, func(s corev1.Sysctl) bool { return s.Name == portSysctl })
		if n.SecurityContext && equality.Semantic.DeepEqual(spec.SecurityContext, &corev1.PodSecurityContext{}) {
			spec.SecurityContext = nil
		}
	}
}

func aliasOf(spec *corev1.PodSpec, address netip.Addr) int {
	return slices.IndexFunc(spec.HostAliases, func(a corev1.HostAlias) bool { return a.IP == address.String() })
}

// sysctl returns the pod's own choice of the ports that need no root.
func sysctl(spec *corev1.PodSpec) *corev1.Sysctl {
	if spec.SecurityContext == nil {
		return nil
	}
	i := slices.IndexFunc(spec.SecurityContext.Sysctls, func(s corev1.Sysctl) bool { return s.Name == portSysctl })
	if i < 0 {
		return nil
	}
	return &spec.SecurityContext.Sysctls[i]
}
