// Package config reads the sidecar's settings: flags before ROCKPOOL_*
// environment variables before a YAML file before defaults.
//
// Every problem is found in one run and told with the key, the value, where it
// came from and what is allowed. A setting that nobody knows is a problem too:
// a misspelt key that is silently ignored is found months later, at an edge
// site, when the link is down.
//
// It is not where defaults of other packages live: what is not a key here is
// not for the user to set.
package config

import (
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/agent"
)

type d = time.Duration

// Log formats.
const (
	FormatJSON    = "json"
	FormatConsole = "console"
)

// Config holds the sidecar's settings, nested as the keys are: the key
// upstream.probe-interval is Config.Upstream.ProbeInterval. Keys documents each.
type Config struct {
	Listen   Listen
	Connect  Connect
	Metrics  Metrics
	Upstream Upstream
	Account  Account
	Private  Private
	Cache    Cache
	Offline  Offline
	Log      Log
	Shutdown Shutdown
}

// Listen is the HTTPS listener for the pod's applications.
type Listen struct {
	Address string // host:port; host is 127.0.0.1, ::1 or localhost
}

// Connect is the forward proxy for applications that use HTTPS_PROXY.
type Connect struct {
	Address string // host:port on loopback; empty = off
}

// Metrics is the plain HTTP listener for Prometheus.
type Metrics struct {
	Address string // host:port, the host may be empty for all addresses; empty = off
}

// Ways to choose among servers that are well.
const (
	ModePriority   = "priority"
	ModeRoundRobin = "round-robin"
)

// Upstream is the way to the API server.
type Upstream struct {
	Servers          []Server // in order, each once; see Config.UpstreamServers for the full list
	TLSServerName    string   // for those of Servers without one; empty = the host of each URL
	Mode             string   // ModePriority or ModeRoundRobin
	ProbeInterval    time.Duration
	ProbeTimeout     time.Duration
	ConnectTimeout   time.Duration
	FailureThreshold int
	SuccessThreshold int
}

// Account is the service-account directory and its copy.
type Account struct {
	Source string // absolute path
	Mirror string // absolute path
}

// Private is where keys are kept.
type Private struct {
	Directory string // absolute path, outside Cache.Directory
}

// Cache is where recordings are kept.
type Cache struct {
	Directory     string // absolute path
	MaxSize       int64  // bytes
	Agents        agent.Selector
	MemoryOnly    []schema.GroupResource
	MemoryMaxSize int64 // bytes
}

// Offline is what holds while the link is down.
type Offline struct {
	TokenGrace time.Duration // 0 = an expired token is refused
	// ReviewLifetime is from the recording of an answer; 0 = none is given. The default is
	// twice the longest time, five minutes, that API server and kubelet keep the answers of
	// such webhooks: a program that asks anew when its own copy is that old still finds one.
	ReviewLifetime time.Duration
	Events         bool // they are queued
	EventsMaxCount int
	EventsMaxAge   time.Duration
	Leases         bool // those that are held are renewed
}

// Log is how the sidecar logs.
type Log struct {
	Level  zapcore.Level
	Format string // FormatJSON or FormatConsole
}

// Shutdown is how the sidecar ends.
type Shutdown struct {
	Grace time.Duration
}
