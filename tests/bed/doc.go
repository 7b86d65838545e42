// Package bed is the ground that tests stand on: a real API server, a link to it that can be broken,
// and a runner of pods. It knows nothing of what is tested: a pod comes in as the API server has
// admitted it, and runs as it says.
//
//	 this process (the test)                        a pod: namespaces of its own
//	┌──────────────────────────────┐               ┌───────────────────────────────────────┐
//	│ ControlPlane                 │               │ sandbox: holds network, IPC, UTS, PIDs│
//	│   etcd ◀── kube-apiserver    │               │   lo: 127.0.0.1, pod IP, 203.0.113.10 │
//	│              ▲  127.0.0.1:N  │               │   no other interface, no route        │
//	│              │               │   listening   │                                       │
//	│             Link ◀───────────┼── socket ─────┼── 203.0.113.10:6443 ◀──┐              │
//	│  Cut, BlackHole, Drop, Delay │  (SCM_RIGHTS) │                        │              │
//	│                              │               │  ┌──────────────┐ ┌────┴─────┐        │
//	│ PodRunner ── requests ───────┼── socketpair ─┼─▶│ container    │ │ container│        │
//	│   volumes, tokens, order,    │               │  │ own mounts,  │ │          │        │
//	│   restarts, hooks, exec      │               │  │ PIDs, user   │ │          │        │
//	└──────────────────────────────┘               │  └──────────────┘ └──────────┘        │
//	                                               └───────────────────────────────────────┘
//
// The sandbox is this same executable, started again under another name; see package
// internal/sandbox. It opens the listening sockets that a Link accepts from, so packets need no way out
// of the pod, and everything works for ordinary users too, in user namespaces: there all users of
// a pod are one.
//
// Containers see the host's /usr, /etc and so on, read-only, and what their Image adds. All
// processes end with the one that started them, however it ends.
//
//	plane, err := bed.Start(ctx, bed.Options{})
//	defer plane.Stop()
//	link, err := link.New(plane.Address())
//	defer link.Close()
//	pod, err := plane.Client().CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
//	runner, err := bed.RunPod(ctx, plane, pod, bed.RunOptions{
//		Links:  map[string]*link.Link{bed.DefaultPublicAddress: link},
//		Images: map[string]bed.Image{"app": {Entrypoint: []string{"/app"}, Files: map[string]string{"/app": "bin/app"}}},
//	})
//	defer runner.Stop()
//	err = runner.WaitRunning(ctx)
//	link.Cut()
//	err = runner.RestartContainer(ctx, "app")
//	result, err := runner.Exec(ctx, "app", "cat", "/etc/hostname")
package bed
