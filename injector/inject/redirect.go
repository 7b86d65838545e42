package inject

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// redirection points the containers of the application at the sidecar.
type redirection struct {
	sidecar netip.Addr
	env     []corev1.EnvVar // names the sidecar, see [addressEnv]
	account string          // the service-account volume, which only the sidecar will mount
	exclude []string        // names of containers to leave alone

	before  *Before  // what Uninject needs to know
	notices []Notice // about containers that are left alone
	left    []string // names of the containers that are left alone
	served  bool     // a container with the token is redirected
	// firstTime means that values like ours in a container come from its author.
	firstTime bool
}

func (r *redirection) apply(spec *corev1.PodSpec) {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if ownContainer(list[i].Name) {
				continue
			}
			notice := r.redirect(&list[i])
			if notice == nil {
				continue
			}
			r.notices = append(r.notices, *notice)
			if notice.Reason != ReasonProxy {
				r.left = append(r.left, list[i].Name)
			}
		}
	}
	for _, name := range r.exclude {
		if !hasContainer(spec, name) {
			r.notices = append(r.notices,
				Notice{Reason: ReasonNoSuchContainer, Detail: fmt.Sprintf("%q in %s", name, AnnotationExcludeContainers)})
		}
	}
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	return slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), func(c corev1.Container) bool { return c.Name == name })
}

// redirect changes one container: the variables that name the API server, and every mount of
// the service-account volume, whatever its path.
//
// It leaves a container with an address or a service-account volume of its own completely
// alone. Changing only one of the two would break the container, because only our volume has
// the CA for our address.
func (r *redirection) redirect(c *corev1.Container) *Notice {
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
	proxied := exemptFromProxy(c, r.sidecar)
	if r.firstTime || len(missing) > 0 {
		// The container has not been redirected before.
		for _, ours := range r.env {
			if !slices.ContainsFunc(missing, func(e corev1.EnvVar) bool { return e.Name == ours.Name }) {
				r.before.recordEnv(c.Name, ours.Name)
			}
		}
		for _, name := range proxied.exempt {
			r.before.recordEnv(c.Name, name)
		}
	}
	// Ours come first, because a variable can refer only to earlier ones:
	// $(KUBERNETES_SERVICE_HOST) in the application's variables must mean the sidecar.
	c.Env = slices.Concat(missing, proxied.added, c.Env)
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if m.Name == r.account {
			m.Name = VolumeAccount
			// The kubelet mounts a projected volume always read-only, but not an emptyDir:
			// containers must not be able to change the tokens.
			if !m.ReadOnly {
				r.before.recordWritable(c.Name, m.MountPath)
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
