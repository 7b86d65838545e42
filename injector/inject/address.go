package inject

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// listenPort is the default port of the sidecar. Its metrics are on the next port.
const listenPort = 10268

// loopback returns the IP address of the sidecar for the containers of its pod.
func loopback(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// ownLoopback returns an address of a pod's own in 127.0.0.0/8, for pods that share the node's network:
// two pods of a rolling update can then use the same port on one node. Each of 16 million addresses
// is as likely; 127.0.0.0/16 is left out, where programs of nodes listen.
func ownLoopback(review string) netip.Addr {
	digest := sha256.Sum256([]byte(review))
	return netip.AddrFrom4([4]byte{127, 1 + digest[0]%254, digest[1], 1 + digest[2]%254})
}

// addressEnv returns the variables that the kubelet sets in every container for the Service
// "kubernetes", but with the sidecar's address. The names with 443 are for clients that expect
// the Service's usual port number.
func addressEnv(sidecar netip.AddrPort) []corev1.EnvVar {
	host, port := sidecar.Addr().String(), strconv.Itoa(int(sidecar.Port()))
	url := "tcp://" + sidecar.String()
	env := []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: host},
		{Name: "KUBERNETES_SERVICE_PORT", Value: port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: port},
		{Name: "KUBERNETES_PORT", Value: url},
	}
	for _, family := range []string{port, "443"} {
		prefix := "KUBERNETES_PORT_" + family + "_TCP"
		env = append(env,
			corev1.EnvVar{Name: prefix, Value: url},
			corev1.EnvVar{Name: prefix + "_PROTO", Value: "tcp"},
			corev1.EnvVar{Name: prefix + "_PORT", Value: port},
			corev1.EnvVar{Name: prefix + "_ADDR", Value: host},
		)
	}
	return env
}

// setsOwnAddress reports whether env has one of our variables with another value. An address
// that the pod's author has written takes precedence.
func setsOwnAddress(env, ours []corev1.EnvVar) bool {
	return slices.ContainsFunc(env, func(e corev1.EnvVar) bool {
		i := slices.IndexFunc(ours, func(our corev1.EnvVar) bool { return our.Name == e.Name })
		return i >= 0 && (e.Value != ours[i].Value || e.ValueFrom != nil)
	})
}

// missingFrom returns the variables in ours that env does not have.
func missingFrom(env, ours []corev1.EnvVar) []corev1.EnvVar {
	var missing []corev1.EnvVar
	for _, our := range ours {
		if !slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.Name == our.Name }) {
			missing = append(missing, our)
		}
	}
	return missing
}
