// Package bed is the folder of the test bed: the parts from which tests build an edge site. None of
// them knows Rockpool.
//
//	cluster   a control plane: etcd and kube-apiserver, without nodes
//	link      the network link to it, which a test breaks and repairs
//	pod       a runner of single pods in namespaces of their own, for ordinary users too
//	node      a real node, with kubelet and containerd; needs root
//
// Imports run one way: cluster and link use none of the others, pod uses link, node uses cluster
// and link.
//
//	 this process (the test)                        a pod: namespaces of its own
//	┌──────────────────────────────┐               ┌───────────────────────────────────────┐
//	│ cluster.ControlPlane         │               │ sandbox: holds network, IPC, UTS, PIDs│
//	│   etcd ◀── kube-apiserver    │               │   lo: 127.0.0.1, pod IP, 203.0.113.10 │
//	│              ▲  127.0.0.1:N  │               │   no other interface, no route        │
//	│              │               │   listening   │                                       │
//	│        link.Link ◀───────────┼── socket ─────┼── 203.0.113.10:6443 ◀──┐              │
//	│  Cut, BlackHole, Drop, Delay │  (SCM_RIGHTS) │                        │              │
//	│                              │               │  ┌──────────────┐ ┌────┴─────┐        │
//	│ pod.Runner ─── requests ─────┼── socketpair ─┼─▶│ container    │ │ container│        │
//	│   volumes, tokens, order,    │               │  │ own mounts,  │ │          │        │
//	│   restarts, hooks, exec      │               │  │ PIDs, user   │ │          │        │
//	└──────────────────────────────┘               │  └──────────────┘ └──────────┘        │
//	                                               └───────────────────────────────────────┘
//
// The sandbox is the test's own executable, started again under another name: see package
// internal/sandbox. It opens the listening sockets that a Link accepts from, so packets need no
// way out of the pod. An ordinary user's pods run in user namespaces, where all users of a pod are
// that one user.
//
// Containers see the host's /usr, /etc and so on, read-only, and the files of their Image. Every
// process ends with the process that started it, however that ends.
//
//	plane, err := cluster.Start(ctx, cluster.Options{})
//	defer plane.Stop()
//	wan, err := link.New(plane.Address())
//	defer wan.Close()
//	created, err := plane.Client().CoreV1().Pods("default").Create(ctx, object, metav1.CreateOptions{})
//	runner, err := pod.Run(ctx, plane.Client(), created, pod.Options{
//		Links:  map[string]*link.Link{cluster.DefaultPublicAddress: wan},
//		Images: map[string]pod.Image{"app": {Entrypoint: []string{"/app"}, Files: map[string]string{"/app": "bin/app"}}},
//	})
//	defer runner.Stop()
//	err = runner.WaitRunning(ctx)
//	wan.Cut()
//	err = runner.RestartContainer(ctx, "app")
//	result, err := runner.Exec(ctx, "app", "cat", "/etc/hostname")
package bed
