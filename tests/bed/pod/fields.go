package pod

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// field returns a field of the pod as the downward API does
// (https://kubernetes.io/docs/concepts/workloads/pods/downward-api/).
func (p *Runner) field(path string) (string, error) {
	if name, key, found := strings.Cut(path, "['"); found && strings.HasSuffix(key, "']") {
		key = strings.TrimSuffix(key, "']")
		switch name {
		case "metadata.annotations":
			return p.metadata.Load().Annotations[key], nil
		case "metadata.labels":
			return p.metadata.Load().Labels[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return p.pod.Name, nil
	case "metadata.namespace":
		return p.pod.Namespace, nil
	case "metadata.uid":
		return string(p.pod.UID), nil
	case "metadata.annotations":
		return quotedLines(p.metadata.Load().Annotations), nil
	case "metadata.labels":
		return quotedLines(p.metadata.Load().Labels), nil
	case "spec.nodeName":
		return p.pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return p.options.PodIP, nil
	case "status.hostIP", "status.hostIPs":
		return p.options.HostIP, nil
	}
	return "", fmt.Errorf("field %q is not supported", path)
}

// quotedLines formats a map as in files of the downward API.
func quotedLines(m map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", key, m[key]))
	}
	return strings.Join(lines, "\n")
}

// resource returns a container's limit or request in units of the divisor, rounded up. A limit that
// is not set is that of the machine.
func (p *Runner) resource(ref *corev1.ResourceFieldSelector, own *corev1.Container) (string, error) {
	c := own
	if ref.ContainerName != "" {
		for _, other := range p.containers {
			if other.spec.Name == ref.ContainerName {
				c = other.spec
			}
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %q: no container", ref.Resource)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	quantity, found := list[corev1.ResourceName(name)]
	if !found && kind == "limits" {
		var machine unix.Sysinfo_t
		if err := unix.Sysinfo(&machine); err != nil {
			return "", err
		}
		switch corev1.ResourceName(name) {
		case corev1.ResourceCPU:
			quantity = *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI)
		case corev1.ResourceMemory:
			quantity = *resource.NewQuantity(int64(machine.Totalram)*int64(machine.Unit), resource.BinarySI)
		default:
			return "", fmt.Errorf("resource %q is not supported", ref.Resource)
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, unit := quantity.Value(), divisor.Value()
	if corev1.ResourceName(name) == corev1.ResourceCPU {
		value, unit = quantity.MilliValue(), divisor.MilliValue()
	}
	return strconv.FormatInt((value+unit-1)/unit, 10), nil
}

// ownedBy changes the owner of a path. It does nothing in a user namespace, which has one user and
// one group.
func ownedBy(path string, uid, gid int) error {
	if singleUser() {
		return nil
	}
	return os.Lchown(path, uid, gid)
}
