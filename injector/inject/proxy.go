package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var (
	// proxyVariables send a client's HTTPS requests through a proxy.
	proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}
	// exemptVariables list what it does not send there. Clients differ in which of the
	// two they read first, so one alone would hide the other.
	exemptVariables = []string{"NO_PROXY", "no_proxy"}
)

// exemption is how a container that uses a proxy is kept from sending it what is meant for
// the sidecar: not all clients exempt loopback addresses by themselves.
type exemption struct {
	added   []corev1.EnvVar
	exempt  []string // variables that said so before
	unknown bool     // the list comes from elsewhere, nothing could be added
}

// exemptFromProxy adds the sidecar's address to the lists that the container has, in
// place, or returns both lists when it has none.
func exemptFromProxy(c *corev1.Container) exemption {
	var e exemption
	if !setsProxy(c.Env) {
		return e
	}
	found := false
	for i := range c.Env {
		v := &c.Env[i]
		switch {
		case !slices.Contains(exemptVariables, v.Name):
			continue
		case v.ValueFrom != nil:
			e.unknown = true
		case exempts(v.Value):
			e.exempt = append(e.exempt, v.Name)
		default:
			v.Value += "," + loopback
		}
		found = true
	}
	if !found {
		for _, name := range exemptVariables {
			e.added = append(e.added, corev1.EnvVar{Name: name, Value: loopback})
		}
	}
	return e
}

// withProxyAgain undoes exemptFromProxy for the variables that are not in keep.
func withProxyAgain(env []corev1.EnvVar, keep []string) []corev1.EnvVar {
	if !setsProxy(env) {
		return env
	}
	ours := func(v *corev1.EnvVar) bool {
		return slices.Contains(exemptVariables, v.Name) && v.ValueFrom == nil && !slices.Contains(keep, v.Name)
	}
	env = slices.DeleteFunc(env, func(v corev1.EnvVar) bool { return ours(&v) && v.Value == loopback })
	for i := range env {
		if ours(&env[i]) {
			env[i].Value = strings.TrimSuffix(env[i].Value, ","+loopback)
		}
	}
	return env
}

func setsProxy(env []corev1.EnvVar) bool {
	return slices.ContainsFunc(env, func(v corev1.EnvVar) bool {
		return slices.Contains(proxyVariables, v.Name) && (v.Value != "" || v.ValueFrom != nil)
	})
}

// exempts tells whether a list has the sidecar's address, or everything.
func exempts(list string) bool {
	return slices.ContainsFunc(splitList(list), func(entry string) bool {
		return entry == loopback || entry == "*" || entry == "127.0.0.0/8"
	})
}
