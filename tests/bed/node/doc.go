// Package node runs a real node on this machine: containerd, runc and a kubelet, which run pods as
// those of any cluster do. The control plane is the bed's, with controllers and a scheduler.
//
//	 namespaces of their own: network, mounts, processes, host name (see Isolate)
//	┌──────────────────────────────────────────────────────────────────────┐
//	│ the test ── ControlPlane: etcd ◀── kube-apiserver ◀── controllers    │
//	│                │                   127.0.0.1:N                       │
//	│                │                      ▲      │ exec, logs, webhooks   │
//	│               Link ───────────────────┘      ▼                       │
//	│  lo:  203.0.113.10:6443 ◀── kubelet  203.0.113.20:10250              │
//	│                ▲               │                                     │
//	│                │           containerd ── shim ── runc                │
//	│  ┌─────────────┴─────┐                                               │
//	│  │ pod 10.244.0.N    │  in a network namespace of its own, routed    │
//	│  │ (CNI plugin ptp)  │  by ptp: there is no way to 10.96.0.1         │
//	│  └───────────────────┘                                               │
//	└──────────────────────────────────────────────────────────────────────┘
//
// The Link is the only way from the kubelet and from pods to the API server, so a cut takes it from
// both, as an outage does. The way back, by which the API server reaches webhooks in pods and the
// kubelet's logs and exec, is not cut: a test needs eyes. There is no kube-proxy, so Service
// addresses lead nowhere.
//
// All of it ends with the test, however that ends: the kernel ends what runs in the namespaces, and
// with them go mounts and network interfaces. Nothing outside the node's directory is written. Only who
// kills the test outright leaves that directory behind, and empty control groups.
package node
