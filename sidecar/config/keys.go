package config

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rockpool.dev/sidecar/api/agent"
)

// EnvPrefix begins the name of every environment variable of the sidecar.
const EnvPrefix = "ROCKPOOL_"

// defaultPrefix begins the variables that replace defaults.
const defaultPrefix = EnvPrefix + "DEFAULT_"

// ConfigFlag names the flag with the path of the optional YAML file, or of a
// directory with one and with the pod's annotations. Its variable is
// ROCKPOOL_CONFIG. It is not a key: a file cannot name another.
const ConfigFlag = "config"

// Key is one setting: the row of the table from which flags, environment
// variables, validation and the documentation are made.
type Key struct {
	Name    string // as in a file, and as a flag: upstream.probe-interval
	Type    string // address, duration, size, number, servers, path, name, or the allowed words
	Default string // as a person writes it; "" = off or empty
	// Runtime tells that a change of the key in the file takes effect while the sidecar
	// runs. The others are for what is built once, at the start.
	Runtime bool
	Usage   string // one sentence

	set func(c *Config, value string) error // parses, checks and stores
}

// Flag is the key's flag, without the dashes: the key itself, so that one name
// finds a setting in a command line, a file and the documentation.
func (k Key) Flag() string { return k.Name }

// Env is the key's environment variable: upper case, with "." and "-" as "_".
func (k Key) Env() string { return envName(k.Name) }

// DefaultEnv is the environment variable that replaces the key's default, and so comes
// after everything else that sets it.
func (k Key) DefaultEnv() string { return defaultPrefix + strings.TrimPrefix(k.Env(), EnvPrefix) }

// Check tells what is wrong with a value, and what is allowed.
func (k Key) Check(value string) error { return k.set(&Config{}, value) }

// typeServers is a list whose entries may be mappings in a file.
const typeServers = "servers"

// Values of Key.Runtime, so that the table can be read.
const (
	atStart = false
	anytime = true
)

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// Keys gives all settings in the order of the documentation. The slice is the
// caller's.
func Keys() []Key {
	return []Key{
		{"listen.address", "address", "127.0.0.1:10268", atStart,
			"Where the applications of the pod reach the API over HTTPS; loopback only.",
			func(c *Config, v string) (err error) { c.Listen.Address, err = loopback(v); return }},
		{"connect.address", "address", "", atStart,
			"Where a forward proxy listens for applications that use HTTPS_PROXY; loopback only, empty = off.",
			func(c *Config, v string) (err error) { c.Connect.Address, err = optional(loopback, v); return }},
		{"metrics.address", "address", "127.0.0.1:10269", atStart,
			"Where Prometheus metrics are served over plain HTTP; empty = off.",
			func(c *Config, v string) (err error) { c.Metrics.Address, err = optional(address, v); return }},
		{"upstream.servers", typeServers, "", anytime,
			"HTTPS URLs of kube-apiservers that the node can reach, comma-separated, each perhaps with ;tls-server-name=NAME and ;ca-file=PATH behind it; the in-cluster address comes last by itself.",
			func(c *Config, v string) (err error) { c.Upstream.Servers, err = servers(v); return }},
		{"upstream.tls-server-name", "name", "", anytime,
			"The name to find in the certificates of those upstream.servers that have none of their own; empty = the host of each URL.",
			func(c *Config, v string) (err error) { c.Upstream.TLSServerName, err = optional(serverName, v); return }},
		{"upstream.mode", "priority|round-robin", "priority", anytime,
			"How one of several upstream.servers is chosen: the first that is well, or those that are well in turn.",
			func(c *Config, v string) (err error) {
				c.Upstream.Mode, err = word(v, ModePriority, ModeRoundRobin)
				return
			}},
		{"upstream.probe-interval", "duration", "2s", anytime,
			"How often the link to the API server is probed.",
			duration(minInterval, maxInterval, func(c *Config) *d { return &c.Upstream.ProbeInterval })},
		{"upstream.probe-timeout", "duration", "1s", anytime,
			"How long a probe may take before it counts as failed.",
			duration(minInterval, maxInterval, func(c *Config) *d { return &c.Upstream.ProbeTimeout })},
		{"upstream.connect-timeout", "duration", "2s", anytime,
			"How long one server may take to accept a connection, TLS handshake included.",
			duration(minInterval, maxInterval, func(c *Config) *d { return &c.Upstream.ConnectTimeout })},
		{"upstream.failure-threshold", "number", "2", anytime,
			"How many probes in succession have to fail before a server, or the link, counts as down.",
			number(1, maxThreshold, func(c *Config) *int { return &c.Upstream.FailureThreshold })},
		{"upstream.success-threshold", "number", "2", anytime,
			"How many probes in succession have to be answered before a link that was down counts as up.",
			number(1, maxThreshold, func(c *Config) *int { return &c.Upstream.SuccessThreshold })},
		{"account.source", "path", "/var/run/secrets/kubernetes.io/serviceaccount", atStart,
			"The service-account directory that the kubelet keeps for the pod.",
			func(c *Config, v string) (err error) { c.Account.Source, err = path(v); return }},
		{"account.mirror", "path", "/var/run/rockpool/serviceaccount", atStart,
			"The copy of account.source that the applications see, with the pod's own CA in ca.crt.",
			func(c *Config, v string) (err error) { c.Account.Mirror, err = path(v); return }},
		{"private.directory", "path", "/var/run/rockpool/private", atStart,
			"Where the pod's own CA and keys are kept; must be in memory.",
			func(c *Config, v string) (err error) { c.Private.Directory, err = path(v); return }},
		{"cache.directory", "path", "/var/lib/rockpool", atStart,
			"Where recordings are kept.",
			func(c *Config, v string) (err error) { c.Cache.Directory, err = path(v); return }},
		{"cache.max-size", "size", "256Mi", atStart,
			"How much disk the recordings may take, as a Kubernetes quantity.",
			func(c *Config, v string) (err error) { c.Cache.MaxSize, err = size(v); return }},
		{"cache.agents", "agents", "*", anytime,
			"Clients whose reading is recorded, comma-separated: the name of a User-Agent (what stands before its first slash), with wildcards, and ! before an exception.",
			func(c *Config, v string) (err error) { c.Cache.Agents, err = agent.Parse(v); return }},
		{"cache.memory-only", "resources", "secrets", atStart,
			"Resources that are recorded in memory only (below private.directory), comma-separated, each as RESOURCE or RESOURCE.GROUP; empty = all on the disk.",
			func(c *Config, v string) (err error) { c.Cache.MemoryOnly, err = resources(v); return }},
		{"cache.memory-max-size", "size", "8Mi", atStart,
			"How much memory the recordings of cache.memory-only may take, as a Kubernetes quantity.",
			func(c *Config, v string) (err error) { c.Cache.MemoryMaxSize, err = size(v); return }},
		{"offline.token-grace", "duration", "720h", atStart,
			"How long after its expiry a token is still accepted while the link is down; 0s = not at all.",
			duration(0, maxGrace, func(c *Config) *d { return &c.Offline.TokenGrace })},
		{"offline.review-lifetime", "duration", "10m", atStart,
			"How long the answer to a POST that only asks (SelfSubjectAccessReview, TokenReview and such) is given again while the link is down, from when it was recorded; 0s = not at all.",
			duration(0, maxReviewLifetime, func(c *Config) *d { return &c.Offline.ReviewLifetime })},
		{"offline.events", "true|false", "false", atStart,
			"Whether Events that are written while the link is down are accepted, and delivered when it is back.",
			func(c *Config, v string) (err error) { c.Offline.Events, err = boolean(v); return }},
		{"offline.events-max-count", "number", "1000", atStart,
			"How many Events wait for the link at most; the oldest are dropped.",
			number(1, maxEvents, func(c *Config) *int { return &c.Offline.EventsMaxCount })},
		{"offline.events-max-age", "duration", "24h", atStart,
			"How long an Event waits for the link at most.",
			duration(time.Minute, maxGrace, func(c *Config) *d { return &c.Offline.EventsMaxAge })},
		{"offline.leases", "true|false", "false", atStart,
			"Whether a Lease that a client of the pod held when the link went down can be renewed without it; somebody else may take it at the API server meanwhile.",
			func(c *Config, v string) (err error) { c.Offline.Leases, err = boolean(v); return }},
		{"log.level", "debug|info|warn|error", "info", anytime,
			"The least severe log line that is written; debug has one for each request, info only for those that failed.",
			func(c *Config, v string) (err error) { c.Log.Level, err = level(v); return }},
		{"log.format", "json|console", "json", atStart,
			"How log lines are written.",
			func(c *Config, v string) (err error) { c.Log.Format, err = word(v, FormatJSON, FormatConsole); return }},
		{"shutdown.grace", "duration", "10s", atStart,
			"How long requests in flight may go on after a termination signal.",
			duration(0, maxInterval, func(c *Config) *d { return &c.Shutdown.Grace })},
	}
}

// Register adds a flag for each key, and --config, to flags.
func Register(flags *pflag.FlagSet) {
	flags.String(ConfigFlag, "", "Path of a YAML file with these settings, or of a directory that may have one named "+FileName+" and the pod's annotations in one named "+AnnotationsFileName+"; flags and "+EnvPrefix+"* variables come before them.")
	for _, k := range Keys() {
		note := k.Env()
		if k.Runtime {
			note += ", also at run time"
		}
		flags.Var(&text{value: k.Default, kind: k.Type, list: slices.Contains([]string{typeServers, "agents", "resources"}, k.Type)}, k.Flag(), k.Usage+" ["+note+"]")
	}
}

// text is a flag's value as it was written: values are parsed in one place,
// wherever they came from, so that all problems can be told at once.
type text struct {
	value, kind string
	list        bool // a repeated flag adds to the list
	changed     bool
}

func (t *text) String() string { return t.value }
func (t *text) Type() string   { return t.kind }
func (t *text) Set(value string) error {
	if t.list && t.changed {
		value = t.value + "," + value
	}
	t.value, t.changed = value, true
	return nil
}
