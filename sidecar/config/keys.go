package config

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/filters"
)

// EnvPrefix begins the name of every environment variable of the sidecar.
const EnvPrefix = "ROCKPOOL_"

// defaultPrefix begins the name of each variable that replaces a default.
const defaultPrefix = EnvPrefix + "DEFAULT_"

// ConfigFlag names the flag with the path of the optional YAML file, or of a directory with
// that file and the pod's annotations. Its variable is ROCKPOOL_CONFIG. It is not a key: a
// file cannot name another.
const ConfigFlag = "config"

// Key is one setting: a row of the table that flags, environment variables, validation and
// the documentation are made from.
type Key struct {
	Name    string // in a file, and as a flag: upstream.probe-interval
	Type    string // address, duration, size, number, servers, path, name, or the allowed words
	Default string // as a person writes it; "" = off or empty
	// Runtime means that a change of the key in the file takes effect while the sidecar
	// runs. The other keys configure parts that are built once, at the start.
	Runtime bool
	Usage   string // one sentence

	set func(c *Config, value string) error // parses, checks and stores
}

// Flag is the key's flag, without the dashes: the key itself, so that a search for one name
// finds a setting in a command line, a file and the documentation.
func (k Key) Flag() string { return k.Name }

// Env is the key's environment variable: upper case, with "_" for "." and "-".
func (k Key) Env() string { return envName(k.Name) }

// DefaultEnv is the environment variable that replaces the key's default. Every other origin
// of the key overrides it.
func (k Key) DefaultEnv() string { return defaultPrefix + strings.TrimPrefix(k.Env(), EnvPrefix) }

// Check returns an error that says what is wrong with a value, and what is allowed.
func (k Key) Check(value string) error { return k.set(&Config{}, value) }

// typeServers is the type of a list whose entries may be mappings in a file.
const typeServers = "servers"

// Values of Key.Runtime, for a readable table.
const (
	atStart   = false
	atRunTime = true
)

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// Keys returns all settings in the order of the documentation. The caller owns the slice.
func Keys() []Key {
	return []Key{
		{"listen.address", "address", "127.0.0.1:10268", atStart,
			"Address of the HTTPS listener for the pod's applications; loopback only.",
			func(c *Config, v string) (err error) { c.Listen.Address, err = loopback(v); return }},
		{"listen.service-address", "address", "", atStart,
			"Second address of that listener, for programs that use the name and the port 443 of the API server's Service; loopback only; if its port is taken, the sidecar logs that and runs without it; empty = off.",
			func(c *Config, v string) (err error) { c.Listen.ServiceAddress, err = optional(loopback, v); return }},
		{"connect.address", "address", "", atStart,
			"Address of the forward proxy for applications that use HTTPS_PROXY; loopback only; empty = off.",
			func(c *Config, v string) (err error) { c.Connect.Address, err = optional(loopback, v); return }},
		{"metrics.address", "address", "127.0.0.1:10269", atStart,
			"Address of the plain HTTP listener for Prometheus metrics; empty = off.",
			func(c *Config, v string) (err error) { c.Metrics.Address, err = optional(address, v); return }},
		{"upstream.servers", typeServers, "", atRunTime,
			"HTTPS URLs of kube-apiservers that the node can reach, comma-separated; ;tls-server-name=NAME and ;ca-file=PATH may follow each URL. The in-cluster address is added as the last one.",
			func(c *Config, v string) (err error) { c.Upstream.Servers, err = servers(v); return }},
		{"upstream.tls-server-name", "name", "", atRunTime,
			"Name to verify in the certificates of those upstream.servers that have no tls-server-name of their own; empty = the host of each URL.",
			func(c *Config, v string) (err error) { c.Upstream.TLSServerName, err = optional(serverName, v); return }},
		{"upstream.mode", "priority|round-robin", "priority", atRunTime,
			"How to choose among several upstream.servers: priority takes the first healthy one, round-robin rotates over the healthy ones.",
			func(c *Config, v string) (err error) {
				c.Upstream.Mode, err = oneOf(v, ModePriority, ModeRoundRobin)
				return
			}},
		{"upstream.keepalive-interval", "duration", "30s", atRunTime,
			"Silence on a connection with open watches after which an HTTP/2 PING is sent.",
			duration(minInterval, maxInterval, func(c *Config) *time.Duration { return &c.Upstream.KeepaliveInterval })},
		{"upstream.retry-interval", "duration", "30s", atRunTime,
			"Longest time until a server that is down is tried again while no application asks; an application's request has it tried within 2s.",
			duration(minInterval, maxInterval, func(c *Config) *time.Duration { return &c.Upstream.RetryInterval })},
		{"upstream.probe-interval", "duration", "10s", atRunTime,
			"Time between two requests for /readyz, which only choose among several upstream.servers and are only sent while applications make requests.",
			duration(minInterval, maxInterval, func(c *Config) *time.Duration { return &c.Upstream.ProbeInterval })},
		{"upstream.probe-timeout", "duration", "5s", atRunTime,
			"Time after which an unanswered request for /readyz counts as failed.",
			duration(minInterval, maxInterval, func(c *Config) *time.Duration { return &c.Upstream.ProbeTimeout })},
		{"upstream.connect-timeout", "duration", "2.5s", atRunTime,
			"Longest wait for an answer to TCP, and again to TLS, while the round trip to a server is not known; three round trips afterwards.",
			duration(minInterval, maxInterval, func(c *Config) *time.Duration { return &c.Upstream.ConnectTimeout })},
		{"upstream.failure-threshold", "number", "2", atRunTime,
			"Number of consecutive failed requests for /readyz after which another server is preferred.",
			number(1, maxThreshold, func(c *Config) *int { return &c.Upstream.FailureThreshold })},
		{"upstream.success-threshold", "number", "2", atRunTime,
			"Number of consecutive successful requests for /readyz after which a server is preferred again.",
			number(1, maxThreshold, func(c *Config) *int { return &c.Upstream.SuccessThreshold })},
		{"cluster.domain", "name", "cluster.local", atStart,
			"DNS domain of the cluster; the pod's own certificate also names kubernetes.default.svc in this domain.",
			func(c *Config, v string) (err error) { c.Cluster.Domain, err = domain(v); return }},
		{"account.source", "path", "/var/run/secrets/kubernetes.io/serviceaccount", atStart,
			"Service-account directory that the kubelet writes for the pod.",
			func(c *Config, v string) (err error) { c.Account.Source, err = path(v); return }},
		{"account.mirror", "path", "/var/run/rockpool/serviceaccount", atStart,
			"Copy of account.source that the applications see; the first certificate in its ca.crt is the pod's own CA.",
			func(c *Config, v string) (err error) { c.Account.Mirror, err = path(v); return }},
		{"private.directory", "path", "/var/run/rockpool/private", atStart,
			"Directory for the pod's own CA and keys; it must be in memory.",
			func(c *Config, v string) (err error) { c.Private.Directory, err = path(v); return }},
		{"cache.directory", "path", "/var/lib/rockpool", atStart,
			"Directory for the recordings.",
			func(c *Config, v string) (err error) { c.Cache.Directory, err = path(v); return }},
		{"cache.max-size", "size", "256Mi", atStart,
			"Disk space limit for the recordings, as a Kubernetes quantity. While a list replaces the recorded one, they may take up to twice as much.",
			func(c *Config, v string) (err error) { c.Cache.MaxSize, err = size(v); return }},
		{"cache.agents", "agents", "*", atRunTime,
			"Clients whose reads are recorded, comma-separated: User-Agent names (the text before the first slash); * is a wildcard, and a leading ! excludes a client.",
			func(c *Config, v string) (err error) { c.Cache.Agents, err = agent.Parse(v); return }},
		{"cache.exclude", "exclusions", "", atRunTime,
			"Resources that are never recorded and get 503 offline, comma-separated, each as RESOURCE, RESOURCE.GROUP or *.GROUP, and the same or * after NAMESPACE/ for one namespace; lists of all namespaces are excluded with it. What was recorded of them is deleted.",
			func(c *Config, v string) (err error) { c.Cache.Exclude, err = exclude.Parse(v); return }},
		{"cache.memory-only", "resources", "secrets", atStart,
			"Resources to record in memory only (below private.directory), comma-separated, each as RESOURCE or RESOURCE.GROUP; empty = all on the disk.",
			func(c *Config, v string) (err error) { c.Cache.MemoryOnly, err = resources(v); return }},
		{"cache.memory-max-size", "size", "", atStart,
			"Memory limit for the recordings of cache.memory-only, as a Kubernetes quantity; twice as much while a list replaces another; empty = a quarter of the container's memory limit, from 8Mi to 64Mi.",
			func(c *Config, v string) (err error) {
				if c.Cache.MemoryMaxSize = 0; v != "" {
					c.Cache.MemoryMaxSize, err = size(v)
				}
				return
			}},
		{"cache.write-budget", "size", "", atStart,
			"Bytes that the sidecar may write to the disk in 24 hours, as a Kubernetes quantity; to stay below it, changes wait in memory, and those that wait are lost if the sidecar is killed; empty = any number.",
			func(c *Config, v string) (err error) {
				if c.Cache.WriteBudget = 0; v != "" {
					c.Cache.WriteBudget, err = size(v)
				}
				return
			}},
		{"cache.linger", "duration", "2m", atStart,
			"With online.reads=save, how long a list that was read is kept up to date after its last client has gone; 0s = not at all.",
			duration(0, maxInterval, func(c *Config) *time.Duration { return &c.Cache.Linger })},
		{"online.reads", "pass|save", "save", atStart,
			"How lists, and watches that begin with their state, are answered while the link is up: pass has the API server answer all; save answers from the cache what is recorded, once the API server has said that the caller may read it, and what has changed.",
			func(c *Config, v string) (err error) { c.Online.Reads, err = oneOf(v, ReadsPass, ReadsSave); return }},
		{"offline.token-grace", "duration", "720h", atStart,
			"How long a token is accepted after its expiry while the link is down; 0s = expired tokens are refused.",
			duration(0, maxGrace, func(c *Config) *time.Duration { return &c.Offline.TokenGrace })},
		{"offline.review-lifetime", "duration", "10m", atStart,
			"How long after its recording the answer to a review (SelfSubjectAccessReview, TokenReview and the like) is reused while the link is down; 0s = never.",
			duration(0, maxReviewLifetime, func(c *Config) *time.Duration { return &c.Offline.ReviewLifetime })},
		{"offline.write-patience", "duration", "2s", atStart,
			"How long a write that was not sent waits for the link before it gets 503; in an outage that has lasted longer, it gets 503 at once; 0s = never waits.",
			duration(0, maxWritePatience, func(c *Config) *time.Duration { return &c.Offline.WritePatience })},
		{"offline.events", "true|false", "false", atStart,
			"Whether to queue Events written while the link is down, and deliver them when it is back.",
			func(c *Config, v string) (err error) { c.Offline.Events, err = boolean(v); return }},
		{"offline.events-max-count", "number", "1000", atStart,
			"Largest number of Events to queue while the link is down; beyond it, the oldest are dropped.",
			number(1, maxEvents, func(c *Config) *int { return &c.Offline.EventsMaxCount })},
		{"offline.events-max-age", "duration", "24h", atStart,
			"Longest time that an Event stays queued.",
			duration(time.Minute, maxGrace, func(c *Config) *time.Duration { return &c.Offline.EventsMaxAge })},
		{"offline.leases", "true|false", "false", atStart,
			"Whether the pod can keep renewing a Lease that it held when the link went down; meanwhile another client may take the Lease at the API server.",
			func(c *Config, v string) (err error) { c.Offline.Leases, err = boolean(v); return }},
		{"offline.election-annotations", "true|false", "false", atStart,
			"The same for a leader's lock that stands in annotations of a ConfigMap or an Endpoints object, as older libraries and Patroni have it.",
			func(c *Config, v string) (err error) { c.Offline.ElectionAnnotations, err = boolean(v); return }},
		{"offline.tokens", "true|false", "false", atStart,
			"Whether requests for service-account tokens (TokenRequest) get the last token that was issued to the same caller for the same, while the link is down and the token is valid; tokens are in memory only.",
			func(c *Config, v string) (err error) { c.Offline.Tokens, err = boolean(v); return }},
		{"node.name", "name", "", atStart,
			"Name of the node that the pod runs on; the injector sets it by the downward API; empty = unknown.",
			func(c *Config, v string) (err error) { c.Node.Name, err = optional(domain, v); return }},
		{"filters.choice", "filters", "", atRunTime,
			"Response filters for all clients of the pod, comma-separated; - before a name takes the filter away from all clients.",
			func(c *Config, v string) (err error) { c.Filters.Choice, err = filters.ParseChoice(v); return }},
		filterAgents(filters.DiscardCloudService),
		filterAgents(filters.NodePortIsolation),
		filterAgents(filters.MasterService),
		filterAgents(filters.ForwardKubeSvcTraffic),
		filterAgents(filters.ServiceTopology),
		{"filters.keep", "rules", "", atRunTime,
			"Rules that say which objects clients see, one on a line: RESOURCE.GROUP: EXPRESSION in CEL, with the variables object and node; a line that begins with a space continues the one before.",
			func(c *Config, v string) (err error) { c.Filters.Rules, err = rules(v); return }},
		{"filters.drop-unknown", "true|false", "false", atRunTime,
			"Whether servicetopology drops endpoints of which it does not know whether they belong here, such as those without a node.",
			func(c *Config, v string) (err error) { c.Filters.DropUnknown, err = boolean(v); return }},
		{"filters.pool", "label", "", atRunTime,
			"Pool of the pod's node, where neither the Node nor a NodePool can be read; empty = unknown.",
			func(c *Config, v string) (err error) { c.Filters.Pool, err = optional(labelValue, v); return }},
		{"filters.zone", "label", "", atRunTime,
			"Zone of the pod's node, where the Node cannot be read; empty = unknown.",
			func(c *Config, v string) (err error) { c.Filters.Zone, err = optional(labelValue, v); return }},
		{"filters.pools", "pools", "", atRunTime,
			"Nodes of pools, where neither Nodes nor NodePools can be read: POOL=NODE,NODE;POOL=NODE, or a pool on each line; * and ? are wildcards in names of nodes.",
			func(c *Config, v string) (err error) { c.Filters.Pools, err = filters.ParsePools(v); return }},
		{"report.kinds", "reports", "none", atRunTime,
			"How to tell the API server of an outage once the link is back: none, or events (about the pod), condition (of the pod, rockpool.dev/LinkToCloud), or both with a comma between them; the pod's service account needs rights for that, see docs/rbac.md.",
			func(c *Config, v string) (err error) { c.Report, err = ParseReport(v); return }},
		{"log.level", "debug|info|warn|error", "info", atRunTime,
			"Lowest severity to log; debug logs every request; info the first of failed ones that are alike, then their count.",
			func(c *Config, v string) (err error) { c.Log.Level, err = level(v); return }},
		{"log.format", "json|console", "json", atStart,
			"Format of log lines.",
			func(c *Config, v string) (err error) { c.Log.Format, err = oneOf(v, FormatJSON, FormatConsole); return }},
		{"shutdown.grace", "duration", "10s", atStart,
			"Time for requests in flight to finish after a termination signal.",
			duration(0, maxInterval, func(c *Config) *time.Duration { return &c.Shutdown.Grace })},
	}
}

// Register adds a flag for each key, and --config, to flags.
func Register(flags *pflag.FlagSet) {
	flags.String(ConfigFlag, "", "The `path` of a YAML file with these settings, or of a directory with the optional files "+
		FileName+" (settings) and "+AnnotationsFileName+" (of the pod); flags and "+EnvPrefix+"* variables override both. ["+envName(ConfigFlag)+"]")
	for _, k := range Keys() {
		note := k.Env()
		if k.Runtime {
			note += ", also at run time"
		}
		flags.Var(&text{value: k.Default, kind: k.Type, list: slices.Contains([]string{typeServers, "agents", "resources"}, k.Type)}, k.Flag(), k.Usage+" ["+note+"]")
	}
}

// text is a flag's value, unparsed: values of every origin are parsed in one place, so that
// all problems are reported at once.
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
