package inject

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var (
	// proxyVariables send a client's HTTPS requests through a proxy.
	proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}
	// exemptVariables list the exceptions. Clients differ in which of the two they read first,
	// so one alone would hide the other.
	exemptVariables = []string{"NO_PROXY", "no_proxy"}
)

// exemption keeps a container from sending requests for the sidecar to its proxy: not all
// clients exempt loopback addresses by themselves.
type exemption struct {
	added   []corev1.EnvVar
	exempt  []string // variables that had the sidecar's address before
	unknown bool     // a list has a valueFrom, so nothing could be added
}

// exemptFromProxy adds the sidecar's address to the container's lists, in place. If the
// container has no list, it returns both.
func exemptFromProxy(c *corev1.Container, sidecar netip.Addr) exemption {
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
		case exempts(v.Value, sidecar):
			e.exempt = append(e.exempt, v.Name)
		default:
			v.Value += "," + sidecar.String()
		}
		found = true
	}
	if !found {
		for _, name := range exemptVariables {
			e.added = append(e.added, corev1.EnvVar{Name: name, Value: sidecar.String()})
		}
	}
	return e
}

// restoreProxy undoes exemptFromProxy, except for the variables in keep.
func restoreProxy(env []corev1.EnvVar, sidecar netip.Addr, keep []string) []corev1.EnvVar {
	if !setsProxy(env) {
		return env
	}
	ours := func(v *corev1.EnvVar) bool {
		return slices.Contains(exemptVariables, v.Name) && v.ValueFrom == nil && !slices.Contains(keep, v.Name)
	}
	env = slices.DeleteFunc(env, func(v corev1.EnvVar) bool { return ours(&v) && v.Value == sidecar.String() })
	for i := range env {
		if ours(&env[i]) {
			env[i].Value = strings.TrimSuffix(env[i].Value, ","+sidecar.String())
		}
	}
	return env
}

func setsProxy(env []corev1.EnvVar) bool {
	return slices.ContainsFunc(env, func(v corev1.EnvVar) bool {
		return slices.Contains(proxyVariables, v.Name) && (v.Value != "" || v.ValueFrom != nil)
	})
}

// exempts reports whether a list exempts the sidecar's address, or all addresses.
func exempts(list string, sidecar netip.Addr) bool {
	return slices.ContainsFunc(splitList(list), func(entry string) bool {
		network, err := netip.ParsePrefix(entry)
		return entry == sidecar.String() || entry == "*" || err == nil && network.Contains(sidecar)
	})
}
