// Package config reads the sidecar's settings. Flags override ROCKPOOL_* environment
// variables, which override a YAML file, which overrides the defaults.
//
// One run reports every problem, each with the key, the value, its origin and the allowed
// values. An unknown setting is a problem too: a misspelt key that is silently ignored is
// found months later, at an edge site, when the link is down.
//
// Defaults of other packages do not live here: a user sets only the keys of this package.
package config

import (
	"net"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/filters"
)

// Log formats.
const (
	FormatJSON    = "json"
	FormatConsole = "console"
)

// Config holds the sidecar's settings, nested like the keys: the key
// upstream.probe-interval is Config.Upstream.ProbeInterval. Keys documents each.
type Config struct {
	Listen   Listen
	Connect  Connect
	Metrics  Metrics
	Upstream Upstream
	Cluster  Cluster
	Account  Account
	Private  Private
	Cache    Cache
	Online   Online
	Offline  Offline
	Node     Node
	Filters  filters.Settings
	Report   Report
	Log      Log
	Shutdown Shutdown
}

// Listen is the HTTPS listener for the pod's applications.
type Listen struct {
	Address        string // host:port; host is in 127.0.0.0/8, ::1 or localhost
	ServiceAddress string // likewise, with the Service's port; empty = off
}

// Host is the host of Address.
func (l Listen) Host() string {
	host, _, _ := net.SplitHostPort(l.Address)
	return host
}

// Connect is the forward proxy for applications that use HTTPS_PROXY.
type Connect struct {
	Address string // host:port on loopback; empty = off
}

// Metrics is the plain HTTP listener for Prometheus.
type Metrics struct {
	Address string // host:port; an empty host means all addresses; empty = off
}

// Values of Upstream.Mode.
const (
	ModePriority   = "priority"
	ModeRoundRobin = "round-robin"
)

// Upstream says where the API servers are and how they are reached.
type Upstream struct {
	Servers       []Server // in order, each once; see Config.UpstreamServers for the full list
	TLSServerName string   // for Servers without their own; empty = the host of each URL
	Mode          string   // ModePriority or ModeRoundRobin

	ConnectTimeout    time.Duration
	KeepaliveInterval time.Duration
	RetryInterval     time.Duration

	// For /readyz, which only chooses among several Servers.
	ProbeInterval    time.Duration
	ProbeTimeout     time.Duration
	FailureThreshold int
	SuccessThreshold int
}

// Cluster is the cluster that the pod belongs to.
type Cluster struct {
	Domain string // DNS domain, such as cluster.local
}

// APINames returns the names of the API server's Service in a cluster with this DNS domain.
func APINames(domain string) []string {
	return []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain}
}

// Account is the service-account directory and its copy.
type Account struct {
	Source string // absolute path
	Mirror string // absolute path
}

// Private says where the pod's keys are stored.
type Private struct {
	Directory string // absolute path, outside Cache.Directory
}

// Cache says what is recorded, and where.
type Cache struct {
	Directory     string // absolute path
	MaxSize       int64  // bytes
	Agents        agent.Selector
	Exclude       exclude.Rules
	MemoryOnly    []schema.GroupResource
	MemoryMaxSize int64 // bytes; 0 = by the container's memory limit
	WriteBudget   int64 // bytes in 24 hours; 0 = any number
	Linger        time.Duration
}

// Values of Online.Reads.
const (
	ReadsPass = "pass"
	ReadsSave = "save"
)

// Online says how reads are answered while the link is up.
type Online struct {
	Reads string // ReadsPass or ReadsSave
}

// Offline says which requests are accepted while the link is down.
type Offline struct {
	TokenGrace time.Duration // 0 = an expired token is refused
	// ReviewLifetime counts from the recording of an answer; 0 = no recorded answer is given.
	// API server and kubelet keep the answers of such webhooks for at most five minutes. The
	// default is twice that, so that a program whose own copy has expired still gets one.
	ReviewLifetime time.Duration
	WritePatience  time.Duration // 0 = a write does not wait for the link
	Events         bool          // Events are queued
	EventsMaxCount int
	EventsMaxAge   time.Duration
	Leases         bool // held Leases can be renewed
	// ElectionAnnotations means that held locks in annotations of ConfigMaps and Endpoints can be
	// renewed.
	ElectionAnnotations bool
	Tokens              bool // tokens that were issued before are given again
}

// Node is the node that the pod runs on.
type Node struct {
	Name string // empty = unknown
}

// Report says how the API server is told of an outage.
type Report struct{ Events, Condition bool }

// Log says what the sidecar logs, and in which format.
type Log struct {
	Level  zapcore.Level
	Format string // FormatJSON or FormatConsole
}

// Shutdown says how the sidecar stops.
type Shutdown struct {
	Grace time.Duration
}
