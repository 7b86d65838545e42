// Package settings reads what an administrator has decided for all pods of a cluster: a
// ConfigMap, of which changes take effect at once, over the flags of the command.
//
// It is where the names of the ConfigMap's keys are; what they mean is in packages inject
// and sidecar/config, which check the values.
package settings
