package inject

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/config"
)

// Containers that are added to a pod.
const (
	// ContainerPrepare creates the pod's cache directory on the node, and ends.
	ContainerPrepare = "rockpool-prepare"
	// ContainerSidecar is the native sidecar.
	ContainerSidecar = "rockpool-sidecar"
)

// configPath is where the sidecar mounts [VolumeConfig].
const configPath = "/etc/rockpool"

// binary is the sidecar's program in the image.
const binary = "/rockpool-sidecar"

// sidecarID is the user and group of the sidecar, and the owner of its cache directory.
const sidecarID = 65532

// sidecar has the values that differ from pod to pod.
type sidecar struct {
	image      string
	pullPolicy corev1.PullPolicy
	directory  string // below the root of the cache volume; "" = the volume is this pod's alone
	account    string // the original service-account volume
	address    netip.AddrPort
	hostPorts  bool // the pod uses the node's ports
	// publicMetrics: the metrics are at the pod's addresses.
	publicMetrics bool
	selinuxType   string
	assignedUser  bool // the namespace assigns the container's user
	env           []corev1.EnvVar
	resources     corev1.ResourceRequirements
}

// ownContainer reports whether a container of this name is one of ours.
func ownContainer(name string) bool {
	return name == ContainerPrepare || name == ContainerSidecar
}

// prepareContainer runs as root, because only root can create a directory for another user in
// a hostPath volume. CHOWN is for that. DAC_OVERRIDE is for looking into the caches of the node, to
// keep them within bounds: they belong to the sidecars' user. With CHOWN alone root could do the
// same, but would take the caches away from the pods that use them.
func (s *sidecar) prepareContainer() corev1.Container {
	id := strconv.Itoa(sidecarID)
	security := s.restrictedContext()
	security.RunAsUser = ptr.To[int64](0)
	security.RunAsGroup = ptr.To[int64](0)
	security.RunAsNonRoot = ptr.To(false)
	security.Capabilities.Add = []corev1.Capability{"CHOWN", "DAC_OVERRIDE"}
	return corev1.Container{
		Name:            ContainerPrepare,
		Image:           s.image,
		ImagePullPolicy: s.pullPolicy,
		Command:         []string{binary, "prepare"},
		Args:            []string{"--root=/cache", "--directory=" + s.directory, "--uid=" + id, "--gid=" + id},
		Resources:       *s.resources.DeepCopy(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: VolumeCache, MountPath: "/cache"},
			// Empty while this container runs. Without a mount at this path, the ServiceAccount
			// admission plugin would mount the token, which this container does not need.
			{Name: VolumeAccount, MountPath: accountPath, ReadOnly: true},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          security,
	}
}

// container returns the native sidecar. It mounts only its own directory of the cache volume,
// and the original service-account volume.
func (s *sidecar) container() corev1.Container {
	security := s.restrictedContext()
	security.RunAsNonRoot = ptr.To(true)
	if !s.assignedUser {
		security.RunAsUser = ptr.To[int64](sidecarID)
		security.RunAsGroup = ptr.To[int64](sidecarID)
	}
	return corev1.Container{
		Name:            ContainerSidecar,
		Image:           s.image,
		ImagePullPolicy: s.pullPolicy,
		Command:         []string{binary, "run"},
		Ports:           s.ports(),
		Env:             s.env,
		Resources:       *s.resources.DeepCopy(),
		RestartPolicy:   ptr.To(corev1.ContainerRestartPolicyAlways),
		// The kubelet starts the next container when this hook returns. There is no readiness
		// probe: a pod is ready even if its link is down.
		Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{binary, "wait"}},
		}},
		VolumeMounts: []corev1.VolumeMount{
			{Name: VolumeCache, MountPath: "/var/lib/rockpool", SubPath: s.directory},
			{Name: VolumePrivate, MountPath: "/var/run/rockpool/private"},
			{Name: VolumeAccount, MountPath: "/var/run/rockpool/serviceaccount"},
			{Name: s.account, MountPath: accountPath, ReadOnly: true},
			{Name: VolumeConfig, MountPath: configPath, ReadOnly: true},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          security,
	}
}

// portMetrics is the name of the port of public metrics, by which Prometheus finds it.
const portMetrics = "rockpool-prom"

// ports declares the ports if they are the node's: the scheduler then puts two pods with the
// same port and address on different nodes. An address of the pod's own is no obstacle. It also
// declares the port of public metrics.
func (s *sidecar) ports() (ports []corev1.ContainerPort) {
	port := int32(s.address.Port())
	metrics := corev1.ContainerPort{ContainerPort: port + 1, Protocol: corev1.ProtocolTCP}
	if s.publicMetrics {
		metrics.Name = portMetrics
	}
	if s.hostPorts {
		var ip string
		if a := s.address.Addr(); a != loopback(false) && a != loopback(true) {
			ip = a.String()
		}
		ports = append(ports, corev1.ContainerPort{ContainerPort: port, HostPort: port, HostIP: ip, Protocol: corev1.ProtocolTCP})
		if metrics.HostPort = port + 1; !s.publicMetrics {
			metrics.HostIP = ip
		}
	}
	if s.hostPorts || s.publicMetrics {
		ports = append(ports, metrics)
	}
	return ports
}

// restrictedContext is the security context of both containers, before each adds its user. It
// complies with the restricted Pod Security level, unless it has an SELinux type.
func (s *sidecar) restrictedContext() *corev1.SecurityContext {
	var selinux *corev1.SELinuxOptions
	if s.selinuxType != "" {
		selinux = &corev1.SELinuxOptions{Type: s.selinuxType}
	}
	return &corev1.SecurityContext{
		SELinuxOptions:           selinux,
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// sidecarEnv returns the sidecar's fixed configuration: where it listens, and where the
// changeable configuration is. The present settings follow as defaults, for the time until the
// pod's ConfigMap exists. Annotations are not included: the sidecar reads them itself, and a
// variable would override them.
func sidecarEnv(settings map[string]string, address netip.AddrPort, names, publicMetrics bool) []corev1.EnvVar {
	var env []corev1.EnvVar
	listen := func(variable string, port uint16) {
		env = append(env, corev1.EnvVar{Name: variable, Value: netip.AddrPortFrom(address.Addr(), port).String()})
	}
	if address != defaultAddress {
		listen(envListen, address.Port())
	}
	switch {
	case publicMetrics: // at IPv4 and IPv6
		env = append(env, corev1.EnvVar{Name: envMetrics, Value: ":" + strconv.Itoa(int(address.Port())+1)})
	case address != defaultAddress:
		listen(envMetrics, address.Port()+1)
	}
	if names {
		listen("ROCKPOOL_LISTEN_SERVICE_ADDRESS", servicePort)
	}
	env = append(env, corev1.EnvVar{Name: "ROCKPOOL_CONFIG", Value: configPath}, corev1.EnvVar{
		// A default, because a sidecar of an older image ignores defaults that it does not know.
		Name:      config.Key{Name: "node.name"}.DefaultEnv(),
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}},
	})
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		env = append(env, corev1.EnvVar{Name: config.Key{Name: key}.DefaultEnv(), Value: settings[key]})
	}
	return env
}

const (
	// envListen has the sidecar's address when it is not the default.
	envListen = "ROCKPOOL_LISTEN_ADDRESS"
	// envMetrics likewise has the address of its metrics.
	envMetrics = "ROCKPOOL_METRICS_ADDRESS"
)

// defaultAddress is the sidecar's address unless envListen has another.
var defaultAddress = netip.AddrPortFrom(loopback(false), listenPort)

// addressOf returns the address of the pod's sidecar, if it has one.
func addressOf(spec *corev1.PodSpec) netip.AddrPort {
	for _, c := range spec.InitContainers {
		for _, v := range c.Env {
			if address, err := netip.ParseAddrPort(v.Value); c.Name == ContainerSidecar && v.Name == envListen && err == nil {
				return address
			}
		}
	}
	return defaultAddress
}

// restore resets those fields of our container that it needs to work. It keeps legitimate
// changes of other admission plugins: a mirrored image, default resources, more variables, a
// stricter security context.
func restore(have, want corev1.Container) corev1.Container {
	have.Command, have.Args, have.Ports = want.Command, want.Args, want.Ports
	have.RestartPolicy, have.Lifecycle = want.RestartPolicy, want.Lifecycle
	for _, m := range want.VolumeMounts {
		if at := mountAt(have.VolumeMounts, m.MountPath); at != nil {
			*at = m
		} else {
			have.VolumeMounts = append(have.VolumeMounts, m)
		}
	}
	return have
}
