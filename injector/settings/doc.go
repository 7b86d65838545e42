// Package settings reads the administrator's settings for all pods of a cluster from a
// ConfigMap. They override the flags of the command, and changes take effect at once.
//
// The package defines the keys of the ConfigMap. Packages inject and sidecar/config define
// their meaning and check the values.
package settings
