package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Paths in the node's namespaces.
const (
	containerdSocket = "/run/containerd/containerd.sock"
	podLogs          = "/var/log/pods"
	kubeletRoot      = "/var/lib/kubelet"
)

// SandboxImage is the image that holds a pod's namespaces. The archives given to Start have it.
const SandboxImage = "pause:dev"

// snapshotter returns overlayfs if the node's disk supports it, and otherwise native, which copies.
func snapshotter(directory string) string {
	trial := filepath.Join(directory, "overlay")
	defer os.RemoveAll(trial)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if os.MkdirAll(filepath.Join(trial, name), 0o755) != nil {
			return "native"
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", trial)
	merged := filepath.Join(trial, "merged")
	if unix.Mount("overlay", merged, "overlay", 0, options) != nil {
		return "native"
	}
	_ = unix.Unmount(merged, unix.MNT_DETACH)
	return "overlayfs"
}

// containerdConfig is the configuration of containerd
// (https://github.com/containerd/containerd/blob/main/docs/cri/config.md).
func containerdConfig(directory, snapshotter string) string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = %[3]q

[plugins."io.containerd.internal.v1.opt"]
path = "%[1]s/opt"

[plugins."io.containerd.cri.v1.images"]
snapshotter = %[2]q
pinned_images.sandbox = "docker.io/library/%[4]s"

[plugins."io.containerd.cri.v1.runtime"]
# Lowering a score needs CAP_SYS_RESOURCE, which some machines do not grant.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["%[1]s/bin"]
conf_dir = "%[1]s/cni"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options.BinaryName = "%[1]s/bin/runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%[5]s]
runtime_type = "io.containerd.runc.v2"
options.BinaryName = "%[1]s/bin/runc"
cni_conf_dir = "%[1]s/cni6"
`, directory, snapshotter, containerdSocket, SandboxImage, IPv6Handler)
}

// networkConfig is a CNI configuration: each pod gets a pair of interfaces, an address of the subnet
// and a route to the node.
func networkConfig(name, subnet, route string) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": %q,
  "plugins": [{
    "type": "ptp",
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": %q}]],
      "routes": [{"dst": %q}]
    }
  }]
}
`, name, subnet, route)
}

// kubeletConfig is a KubeletConfiguration
// (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/).
func kubeletConfig(directory, controlGroup string) ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address":        nodeIP,
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": false}, "x509": map[string]any{"clientCAFile": filepath.Join(directory, "ca.crt")}},
		// The API server has already authorized its clients. To ask it again, the kubelet would
		// need the link.
		"authorization":            map[string]any{"mode": "AlwaysAllow"},
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + controlGroup,
		"failCgroupV1":             false,
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"podLogsDir":               podLogs,
		"volumePluginDir":          filepath.Join(directory, "plugins"),
		"resolvConf":               filepath.Join(directory, "resolv.conf"),
		"makeIPTablesUtilChains":   false,
		"failSwapOn":               false,
		// The disk belongs to the machine, and how full it is must not matter to the tests.
		"evictionHard": map[string]string{
			"memory.available": "1Mi", "nodefs.available": "0.1%", "imagefs.available": "0.1%",
			"nodefs.inodesFree": "0.1%", "imagefs.inodesFree": "0.1%",
		},
		"imageGCHighThresholdPercent": 100,
		// Shorter than usual, so that tests are quicker: how often the kubelet updates volumes, reports
		// the node's state, and measures volumes.
		"syncFrequency":             "10s",
		"nodeStatusUpdateFrequency": "5s",
		"volumeStatsAggPeriod":      "10s",
		// Restart a container at once, also when it has been killed twice.
		"crashLoopBackOff": map[string]any{"maxContainerRestartPeriod": "1s"},
		"featureGates":     map[string]bool{"KubeletCrashLoopBackOffMax": true},
	}, "", "  ")
}
