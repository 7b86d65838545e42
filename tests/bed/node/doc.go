// Package node runs a real node on this machine: containerd, runc and a kubelet, which run pods as
// in any cluster. The control plane is that of package cluster, with controllers and a scheduler.
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
//	│  │ (CNI plugin ptp)  │  by ptp: there is no route to 10.96.0.1       │
//	│  └───────────────────┘                                               │
//	└──────────────────────────────────────────────────────────────────────┘
//
// The kubelet and the pods reach the API server only over the Link, so a cut affects both, as an
// outage does. A cut does not affect connections from the API server, to webhooks in pods and to
// the kubelet's logs and exec, because tests need those. There is no kube-proxy, so Service
// addresses do not work.
//
// Everything ends with the test, however that ends: the kernel kills the processes in the
// namespaces and removes mounts and network interfaces. Nothing outside the node's directory is
// written. If the test is killed by SIGKILL, that directory and empty control groups remain.
package node
