package inject

import (
	"maps"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/sidecar/config"
)

// Containers that are added to a pod.
const (
	// ContainerPrepare makes the pod's cache directory on the node and ends.
	ContainerPrepare = "rockpool-prepare"
	// ContainerSidecar is the native sidecar.
	ContainerSidecar = "rockpool-sidecar"
)

// configPath is where the sidecar has [VolumeConfig].
const configPath = "/etc/rockpool"

// binary is the sidecar's program in the image.
const binary = "/rockpool-sidecar"

// sidecarID is the user and group of the sidecar, and the owner of its cache directory.
const sidecarID = 65532

// sidecar is what differs between the sidecars of two pods.
type sidecar struct {
	image     string
	directory string // below the root of the cache volume; "": the volume is this pod's alone
	account   string // the original service-account volume
	port      int32
	hostPorts bool // the node's ports are the pod's
	anyUser   bool // the namespace gives the container its user
	env       []corev1.EnvVar
	resources corev1.ResourceRequirements
}

// ownContainer tells whether a container of this name is one of ours.
func ownContainer(name string) bool {
	return name == ContainerPrepare || name == ContainerSidecar
}

// prepareContainer runs as root, which alone can make a directory for another user in a
// hostPath volume, and may do that and nothing else.
func (s *sidecar) prepareContainer() corev1.Container {
	id := strconv.Itoa(sidecarID)
	security := confined()
	security.RunAsUser = ptr.To[int64](0)
	security.RunAsGroup = ptr.To[int64](0)
	security.RunAsNonRoot = ptr.To(false)
	security.Capabilities.Add = []corev1.Capability{"CHOWN"}
	return corev1.Container{
		Name:      ContainerPrepare,
		Image:     s.image,
		Command:   []string{binary, "prepare"},
		Args:      []string{"--root=/cache", "--directory=" + s.directory, "--uid=" + id, "--gid=" + id},
		Resources: *s.resources.DeepCopy(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: VolumeCache, MountPath: "/cache"},
			// Empty while it runs. With nothing there the ServiceAccount admission plugin would
			// mount the token, for which this container has no use.
			{Name: VolumeAccount, MountPath: accountPath, ReadOnly: true},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          security,
	}
}

// container is the native sidecar. Of the cache volume it sees its own directory only; of
// the service account, the original volume.
func (s *sidecar) container() corev1.Container {
	security := confined()
	security.RunAsNonRoot = ptr.To(true)
	if !s.anyUser {
		security.RunAsUser = ptr.To[int64](sidecarID)
		security.RunAsGroup = ptr.To[int64](sidecarID)
	}
	return corev1.Container{
		Name:          ContainerSidecar,
		Image:         s.image,
		Command:       []string{binary, "run"},
		Ports:         s.ports(),
		Env:           s.env,
		Resources:     *s.resources.DeepCopy(),
		RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
		// The kubelet starts the next container when this has returned. There is no
		// readiness probe: a pod whose link is down is as ready as any.
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

// ports are declared where they are the node's, so that the scheduler keeps two pods with
// the same apart.
func (s *sidecar) ports() []corev1.ContainerPort {
	if !s.hostPorts {
		return nil
	}
	return []corev1.ContainerPort{
		{ContainerPort: s.port, HostPort: s.port, Protocol: corev1.ProtocolTCP},
		{ContainerPort: s.port + 1, HostPort: s.port + 1, Protocol: corev1.ProtocolTCP},
	}
}

// confined is what both containers may do: nothing that the restricted Pod Security
// level forbids, before each adds its user.
func confined() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// sidecarEnv is the sidecar's configuration as far as it cannot change: where it listens, and
// where it finds what can. What holds now is noted below that, for as long as the pod's
// ConfigMap is not there. Annotations are not in it, because the sidecar reads them itself
// and a variable would come before them.
func sidecarEnv(settings map[string]string, port int32) []corev1.EnvVar {
	var env []corev1.EnvVar
	if port != 0 {
		env = append(env,
			corev1.EnvVar{Name: envListen, Value: net.JoinHostPort(loopback, strconv.Itoa(int(port)))},
			corev1.EnvVar{Name: "ROCKPOOL_METRICS_ADDRESS", Value: net.JoinHostPort(loopback, strconv.Itoa(int(port)+1))})
	}
	env = append(env, corev1.EnvVar{Name: "ROCKPOOL_CONFIG", Value: configPath})
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		env = append(env, corev1.EnvVar{Name: config.Key{Name: key}.DefaultEnv(), Value: settings[key]})
	}
	return env
}

// envListen has the sidecar's address when it is not the default.
const envListen = "ROCKPOOL_LISTEN_ADDRESS"

// portOf returns where a sidecar listens.
func portOf(c *corev1.Container) int32 {
	for _, v := range c.Env {
		if _, port, err := net.SplitHostPort(v.Value); v.Name == envListen && err == nil {
			if n, err := strconv.ParseInt(port, 10, 32); err == nil {
				return int32(n)
			}
		}
	}
	return listenPort
}

// restore brings a container of ours that is already in the pod back to what makes it
// work, and keeps what other admission plugins may rightly have changed: a mirrored
// image, default resources, more variables, a stricter security context.
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
