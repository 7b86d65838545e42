package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// redirection points the containers of the application at the sidecar.
type redirection struct {
	env     []corev1.EnvVar // names the sidecar, see [addressEnv]
	account string          // the volume that the sidecar mounts in their place
	exclude []string        // names of containers to leave alone

	before  *Before  // what was there and could not be told afterwards
	notices []Notice // for containers that are left alone
	served  bool     // some container that has the token is redirected
	// firstTime: whatever looks like ours in a container is its author's.
	firstTime bool
}

func (r *redirection) all(spec *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if ownContainer(list[i].Name) {
				continue
			}
			if notice := r.container(&list[i]); notice != nil {
				r.notices = append(r.notices, *notice)
			}
		}
	}
	for _, name := range r.exclude {
		if !hasContainer(spec, name) {
			r.notices = append(r.notices, Notice{Reason: ReasonNoSuchContainer, Detail: fmt.Sprintf("%q in %s", name, AnnotationExcludeContainers)})
		}
	}
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	return slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), func(c corev1.Container) bool { return c.Name == name })
}

// container changes one: the variables that name the API server, and every mount of the
// service-account volume, whatever its path.
//
// A container with an address or a service-account volume of its own is left alone,
// altogether: half of the two would break it, since only our volume has the CA that our
// address needs.
func (r *redirection) container(c *corev1.Container) *Notice {
	notice := func(reason Reason) *Notice {
		return &Notice{Reason: reason, Detail: fmt.Sprintf("container %q", c.Name)}
	}
	if slices.Contains(r.exclude, c.Name) {
		return notice(ReasonExcluded)
	}
	if m := mountAt(c.VolumeMounts, accountPath); m != nil && m.Name != r.account && m.Name != VolumeAccount {
		return notice(ReasonOwnAccount)
	}
	if setsOwnAddress(c.Env, r.env) {
		return notice(ReasonOwnAddress)
	}
	missing := missingFrom(c.Env, r.env)
	proxied := exemptFromProxy(c)
	if r.firstTime || len(missing) > 0 {
		// It has not been redirected before.
		for _, ours := range r.env {
			if !slices.ContainsFunc(missing, func(e corev1.EnvVar) bool { return e.Name == ours.Name }) {
				r.before.keepEnv(c.Name, ours.Name)
			}
		}
		for _, name := range proxied.exempt {
			r.before.keepEnv(c.Name, name)
		}
	}
	// In front: a variable can refer only to those before it, and $(KUBERNETES_SERVICE_HOST)
	// in the application's own must mean the sidecar.
	c.Env = slices.Concat(missing, proxied.added, c.Env)
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if m.Name == r.account {
			m.Name = VolumeAccount
			// The kubelet mounts projected volumes read-only whatever the mount says, but
			// not an emptyDir: the tokens must stay out of the containers' reach.
			if !m.ReadOnly {
				r.before.keepWritable(c.Name, m.MountPath)
				m.ReadOnly = true
			}
		}
		r.served = r.served || m.Name == VolumeAccount
	}
	if proxied.unknown {
		return notice(ReasonProxy)
	}
	return nil
}
