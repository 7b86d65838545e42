// Package inject turns a pod that asks for Rockpool into one that runs with it.
//
// It is one pure function, [Inject], from a pod, [Facts] about its surroundings and [Params]
// to a new pod and a [Result], and its reverse, [Uninject]: no I/O, no clock, no state, so
// that the admission webhook and the command get the same pod for the same input. It knows
// nothing of HTTP or of JSON patches, and nothing of how the sidecar works beyond what it
// must write into the pod:
//
//	volumes          rockpool-cache    hostPath (or emptyDir): what the sidecar records
//	                 rockpool-private  memory: the pod's own CA and keys
//	                 rockpool-account  memory: the service-account directory as the app sees it
//	                 rockpool-config   what may change while it runs: settings, annotations
//	init containers  rockpool-prepare  makes the pod's directory in the hostPath volume, ends
//	                 rockpool-sidecar  native sidecar: runs before and beside everything else
//	every other      environment that names the sidecar as the API server; its mounts of the
//	container        service-account volume show rockpool-account instead
//	annotations      what was done, and what kubectl and the cluster autoscaler should know
//
// Injecting an injected pod changes nothing; when another webhook has meanwhile added
// containers or moved ours, injecting again brings the pod back to the state above.
package inject
