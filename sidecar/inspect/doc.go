// Package inspect reads the cache of a pod for a person: what is recorded, each object as the
// program would get it while the link is down, and how that differs from another state.
//
// It attaches to the database and changes nothing, so that it may run beside the sidecar. The
// answers come from package replay. What the sidecar has only in memory is missing: Secrets, other
// resources in cache.memory-only, and the events of the last moment.
package inspect
