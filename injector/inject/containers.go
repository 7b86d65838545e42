package inject

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// Containers that are added to a pod.
const (
	// ContainerPrepare makes the pod's cache directory on the node and ends.
	ContainerPrepare = "rockpool-prepare"
	// ContainerSidecar is the native sidecar.
	ContainerSidecar = "rockpool-sidecar"
)

// binary is the sidecar's program in the image.
const binary = "/rockpool-sidecar"

// sidecarID is the user and group of the sidecar, and the owner of its cache directory.
const sidecarID = 65532

// ownContainer tells whether a container of this name is one of ours.
func ownContainer(name string) bool {
	return name == ContainerPrepare || name == ContainerSidecar
}

// prepareContainer runs as root, which alone can make a directory for another user in a
// hostPath volume, and may do that and nothing else.
func prepareContainer(image, directory string, resources corev1.ResourceRequirements) corev1.Container {
	id := strconv.Itoa(sidecarID)
	security := confined()
	security.RunAsUser = ptr.To[int64](0)
	security.RunAsGroup = ptr.To[int64](0)
	security.RunAsNonRoot = ptr.To(false)
	security.Capabilities.Add = []corev1.Capability{"CHOWN"}
	return corev1.Container{
		Name:                     ContainerPrepare,
		Image:                    image,
		Command:                  []string{binary, "prepare"},
		Args:                     []string{"--root=/cache", "--directory=" + directory, "--uid=" + id, "--gid=" + id},
		Resources:                resources,
		VolumeMounts:             []corev1.VolumeMount{{Name: VolumeCache, MountPath: "/cache"}},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          security,
	}
}

// sidecarContainer is the native sidecar. Of the cache volume it sees its own directory
// only; of the service account, the original volume. An empty directory means that the
// volume belongs to this pod alone and needs none.
func sidecarContainer(image, directory, account string, env []corev1.EnvVar, resources corev1.ResourceRequirements) corev1.Container {
	security := confined()
	security.RunAsUser = ptr.To[int64](sidecarID)
	security.RunAsGroup = ptr.To[int64](sidecarID)
	security.RunAsNonRoot = ptr.To(true)
	return corev1.Container{
		Name:          ContainerSidecar,
		Image:         image,
		Command:       []string{binary, "run"},
		Env:           env,
		Resources:     resources,
		RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
		// The kubelet starts the next container when this has returned. There is no
		// readiness probe: a pod whose link is down is as ready as any.
		Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{binary, "wait"}},
		}},
		VolumeMounts: []corev1.VolumeMount{
			{Name: VolumeCache, MountPath: "/var/lib/rockpool", SubPath: directory},
			{Name: VolumePrivate, MountPath: "/var/run/rockpool/private"},
			{Name: VolumeAccount, MountPath: "/var/run/rockpool/serviceaccount"},
			{Name: account, MountPath: accountPath, ReadOnly: true},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          security,
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

// sidecarEnv is the sidecar's configuration: what differs from its own defaults.
func sidecarEnv(upstreams []string, ask Annotations) (env []corev1.EnvVar) {
	for _, v := range []corev1.EnvVar{
		{Name: "ROCKPOOL_UPSTREAM_SERVERS", Value: strings.Join(upstreams, ",")},
		{Name: "ROCKPOOL_LOG_LEVEL", Value: ask.LogLevel},
		{Name: "ROCKPOOL_OFFLINE_EVENTS", Value: ask.OfflineEvents},
		{Name: "ROCKPOOL_OFFLINE_LEASES", Value: ask.OfflineLeases},
	} {
		if v.Value != "" {
			env = append(env, v)
		}
	}
	return env
}

// restore brings a container of ours that is already in the pod back to what makes it
// work, and keeps what other admission plugins may rightly have changed: a mirrored
// image, default resources, more variables, a stricter security context.
//
// The ServiceAccount admission plugin runs again after us and mounts the token wherever
// there is nothing at that path. The prepare container is root and has no use for it.
func restore(have, want corev1.Container) corev1.Container {
	have.VolumeMounts = slices.DeleteFunc(have.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.MountPath == accountPath && mountAt(want.VolumeMounts, accountPath) == nil
	})
	have.Command, have.Args = want.Command, want.Args
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
