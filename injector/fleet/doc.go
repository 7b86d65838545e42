// Package fleet looks at the injected pods of a cluster, and changes the image of their sidecars
// while they run.
//
// A pod's spec cannot be changed, except for images. When that of a native sidecar changes, the
// kubelet (1.29 and newer) restarts this container alone: the application keeps running, its
// requests fail for the second or two that this takes, and its watches go on where they were.
//
//	[Look]            pods -> what is known of each sidecar: pure
//	[Summarize]       the same by image and version of the injector
//	[Upgrade.Run]     one image for all of them, a few at a time; it puts the old one back where the
//	                  new one does not start, and stops
package fleet
