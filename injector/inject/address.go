package inject

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Where the sidecar listens, by its own defaults: API traffic, and metrics.
const (
	listenPort  = 10268
	metricsPort = 10269
)

// addressEnv is what the kubelet sets in every container for the Service "kubernetes",
// with the sidecar's address in place of the Service's. The 443 family is there for
// clients that read the variables by the Service's usual port number.
var addressEnv = func() []corev1.EnvVar {
	const host = "127.0.0.1"
	port := strconv.Itoa(listenPort)
	url := "tcp://" + host + ":" + port
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
}()

// setsOwnAddress tells whether env gives one of the variables another value than ours.
// Whoever has written an address into the pod means that address, so it wins.
func setsOwnAddress(env []corev1.EnvVar) bool {
	return slices.ContainsFunc(env, func(e corev1.EnvVar) bool {
		i := slices.IndexFunc(addressEnv, func(ours corev1.EnvVar) bool { return ours.Name == e.Name })
		return i >= 0 && (e.Value != addressEnv[i].Value || e.ValueFrom != nil)
	})
}

// withAddress returns env with the missing variables before it: a variable can refer only
// to those before it, and $(KUBERNETES_SERVICE_HOST) in the application's own must
// mean the sidecar.
func withAddress(env []corev1.EnvVar) []corev1.EnvVar {
	var missing []corev1.EnvVar
	for _, ours := range addressEnv {
		if !slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.Name == ours.Name }) {
			missing = append(missing, ours)
		}
	}
	return slices.Concat(missing, env)
}
