// Package inject turns a pod that asks for Rockpool into a pod that runs with it.
//
// [Inject] is a pure function from a pod, [Facts] about its surroundings and [Params] to a new
// pod and a [Result]; [Uninject] is its reverse. They use no I/O, no clock and no state, so
// that the admission webhook and the command return the same pod for the same input. The
// package does not deal with HTTP or JSON patches. Of the sidecar it knows only what it
// writes into the pod:
//
//	volumes          rockpool-cache    hostPath (or emptyDir): the sidecar's recordings
//	                 rockpool-private  memory: the pod's own CA and keys
//	                 rockpool-account  memory: the service-account directory as the app sees it
//	                 rockpool-config   settings and annotations, which may change at run time
//	init containers  rockpool-prepare  creates the pod's directory in the hostPath volume, ends
//	                 rockpool-sidecar  native sidecar: starts before all others, and keeps running
//	every other      environment that names the sidecar as the API server; its mounts of the
//	container        service-account volume show rockpool-account instead
//	annotations      the injector's changes, and hints for kubectl and the cluster autoscaler
//
// Injecting an injected pod changes nothing. If another webhook has added containers or moved
// ours, injecting again restores the state above.
package inject
