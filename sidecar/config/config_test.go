package config

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/agent"
)

// load runs Load with arguments, environment and a file, like the command.
func load(t *testing.T, file string, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, EnvPrefix) {
			t.Setenv(name, value) // so that the test's end restores it
			os.Unsetenv(name)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	if file != "" {
		path := filepath.Join(t.TempDir(), "rockpool.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config="+path)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags)
}

func hosts(hosts ...string) (list []Server) {
	for _, h := range hosts {
		list = append(list, Server{URL: &url.URL{Scheme: "https", Host: h}})
	}
	return list
}

func agents(list string) agent.Selector {
	s, err := agent.Parse(list)
	if err != nil {
		panic(err)
	}
	return s
}

func defaults() Config {
	return Config{
		Listen:  Listen{Address: "127.0.0.1:10268"},
		Metrics: Metrics{Address: "127.0.0.1:10269"},
		Upstream: Upstream{
			Mode:           ModePriority,
			ConnectTimeout: 2500 * time.Millisecond, KeepaliveInterval: 30 * time.Second, RetryInterval: 30 * time.Second,
			ProbeInterval:    10 * time.Second,
			ProbeTimeout:     5 * time.Second,
			FailureThreshold: 2,
			SuccessThreshold: 2,
		},
		Cluster: Cluster{Domain: "cluster.local"},
		Account: Account{
			Source: "/var/run/secrets/kubernetes.io/serviceaccount",
			Mirror: "/var/run/rockpool/serviceaccount",
		},
		Private: Private{Directory: "/var/run/rockpool/private"},
		Cache: Cache{Linger: 2 * time.Minute,
			Directory: "/var/lib/rockpool", MaxSize: 256 << 20,
			Agents: agents("*"), MemoryOnly: []schema.GroupResource{{Resource: "secrets"}},
		},
		Online:   Online{Reads: "save"},
		Offline:  Offline{TokenGrace: 720 * time.Hour, ReviewLifetime: 10 * time.Minute, WritePatience: 2 * time.Second, EventsMaxCount: 1000, EventsMaxAge: 24 * time.Hour},
		Log:      Log{Level: zapcore.InfoLevel, Format: FormatJSON},
		Shutdown: Shutdown{Grace: 10 * time.Second},
	}
}

func TestLoad(t *testing.T) {
	tests := map[string]struct {
		file string
		env  map[string]string
		args []string
		want func(*Config)
	}{
		"without settings there are the defaults": {want: func(*Config) {}},
		"a file is read, nested or dotted": {
			file: "upstream:\n  probe-interval: 5s\n  servers: [https://b:6443, https://a:6443]\ncache.max-size: 1.5Gi\n",
			want: func(c *Config) {
				c.Upstream.ProbeInterval = 5 * time.Second
				c.Upstream.Servers = hosts("b:6443", "a:6443")
				c.Cache.MaxSize = 3 << 29
			},
		},
		"a size in a file may be a plain number": {
			file: "cache:\n  max-size: 8388608\n",
			want: func(c *Config) { c.Cache.MaxSize = 8 << 20 },
		},
		"an empty section in a file sets nothing": {file: "upstream:\n", want: func(*Config) {}},
		"an environment variable overrides the file": {
			file: "upstream:\n  probe-interval: 5s\n  probe-timeout: 3s\n",
			env:  map[string]string{"ROCKPOOL_UPSTREAM_PROBE_INTERVAL": "6s"},
			want: func(c *Config) {
				c.Upstream.ProbeInterval = 6 * time.Second
				c.Upstream.ProbeTimeout = 3 * time.Second
			},
		},
		"a flag overrides an environment variable and the file": {
			file: "log:\n  level: warn\n",
			env:  map[string]string{"ROCKPOOL_LOG_LEVEL": "error"},
			args: []string{"--log.level=debug"},
			want: func(c *Config) { c.Log.Level = zapcore.DebugLevel },
		},
		"an empty environment variable is a value": {
			env:  map[string]string{"ROCKPOOL_METRICS_ADDRESS": ""},
			want: func(c *Config) { c.Metrics.Address = "" },
		},
		"metrics may be reachable from outside": {
			args: []string{"--metrics.address=:9090"},
			want: func(c *Config) { c.Metrics.Address = ":9090" },
		},
		"servers from a comma-separated variable keep their order, each once": {
			env:  map[string]string{"ROCKPOOL_UPSTREAM_SERVERS": "https://B.example, https://[2001:db8::1]:6443/,https://b.example:443"},
			want: func(c *Config) { c.Upstream.Servers = hosts("b.example:443", "[2001:db8::1]:6443") },
		},
		"servers from repeated flags add up": {
			args: []string{"--upstream.servers=https://a:1,https://b:2", "--upstream.servers=https://c:3"},
			want: func(c *Config) { c.Upstream.Servers = hosts("a:1", "b:2", "c:3") },
		},
		"a server may have a name and a CA of its own": {
			env: map[string]string{"ROCKPOOL_UPSTREAM_SERVERS": "https://a; tls-server-name=kubernetes ;ca-file=/etc/edge/../ca.crt,https://b;ca-file=/b.crt,https://c"},
			want: func(c *Config) {
				c.Upstream.Servers = hosts("a:443", "b:443", "c:443")
				c.Upstream.Servers[0].TLSServerName, c.Upstream.Servers[0].CAFile = "kubernetes", "/etc/ca.crt"
				c.Upstream.Servers[1].CAFile = "/b.crt"
			},
		},
		"a server in a file may be a mapping": {
			file: "upstream:\n  mode: round-robin\n  servers:\n  - https://a;tls-server-name=kubernetes\n  - url: https://b:6443\n    ca-file: /b.crt\n    TLS-server-name: 10.0.0.1\n  - {url: https://c}\n",
			want: func(c *Config) {
				c.Upstream.Mode = ModeRoundRobin
				c.Upstream.Servers = hosts("a:443", "b:6443", "c:443")
				c.Upstream.Servers[0].TLSServerName = "kubernetes"
				c.Upstream.Servers[1].TLSServerName, c.Upstream.Servers[1].CAFile = "10.0.0.1", "/b.crt"
			},
		},
		"thresholds are numbers": {
			file: "upstream: {failure-threshold: 3, success-threshold: 1}\n",
			want: func(c *Config) { c.Upstream.FailureThreshold, c.Upstream.SuccessThreshold = 3, 1 },
		},
		"resources for memory only are named as kubectl names them": {
			file: "cache:\n  memory-only: [secrets, certificates.cert-manager.io, secrets]\n",
			want: func(c *Config) {
				c.Cache.MemoryOnly = []schema.GroupResource{{Resource: "secrets"}, {Group: "cert-manager.io", Resource: "certificates"}}
			},
		},
		"clients are chosen as with OpenYurt's cache_agents": {
			env:  map[string]string{"ROCKPOOL_CACHE_AGENTS": "kubelet,my-*,!my-test"},
			want: func(c *Config) { c.Cache.Agents = agents("kubelet,my-*,!my-test") },
		},
		"all resources may go to the disk": {
			args: []string{"--cache.memory-only="},
			want: func(c *Config) { c.Cache.MemoryOnly = nil },
		},
		"the grace may be zero": {
			args: []string{"--offline.token-grace=0s"},
			want: func(c *Config) { c.Offline.TokenGrace = 0 },
		},
		"writes while the link is down": {
			file: "offline: {events: true, leases: true, election-annotations: true, tokens: true, events-max-count: 7}\n",
			env:  map[string]string{"ROCKPOOL_OFFLINE_LEASES": "false", "ROCKPOOL_OFFLINE_EVENTS_MAX_AGE": "2h"},
			want: func(c *Config) {
				c.Offline.Events, c.Offline.EventsMaxCount, c.Offline.EventsMaxAge = true, 7, 2*time.Hour
				c.Offline.ElectionAnnotations, c.Offline.Tokens = true, true
			},
		},
		"the variables of a Service named rockpool are not settings": {
			env: map[string]string{
				"ROCKPOOL_SERVICE_HOST": "10.0.0.1", "ROCKPOOL_SERVICE_PORT": "443", "ROCKPOOL_SERVICE_PORT_HTTPS": "443",
				"ROCKPOOL_PORT": "tcp://10.0.0.1:443", "ROCKPOOL_PORT_443_TCP_ADDR": "10.0.0.1",
				"ROCKPOOL_INJECTOR_SERVICE_HOST": "10.0.0.2", "ROCKPOOL_INJECTOR_PORT_443_TCP": "tcp://10.0.0.2:443",
			},
			want: func(*Config) {},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := defaults()
			test.want(&want)
			got, err := load(t, test.file, test.env, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(agent.Selector{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadRejects(t *testing.T) {
	tests := map[string]struct {
		file string
		env  map[string]string
		args []string
		want []string // the error has each
		lack string   // the error does not have it
	}{
		"an unknown key in the file names it and the nearest key": {
			file: "upstream:\n  probe-intervall: 5s\n",
			want: []string{"upstream.probe-intervall: unknown key", `did you mean "upstream.probe-interval"`, "rockpool.yaml"},
		},
		"the end of a key is recognised": {
			file: "max-size: 1Gi\n", want: []string{`max-size: unknown key; did you mean "cache.max-size"?`},
		},
		"a key unlike any other gets no suggestion": {
			file: "colour: blue\n", want: []string{"colour: unknown key"}, lack: "did you mean",
		},
		"an unknown environment variable names it and the nearest one, not its value": {
			env:  map[string]string{"ROCKPOOL_UPSTREAM_SERVER": "hunter2"},
			want: []string{"ROCKPOOL_UPSTREAM_SERVER: unknown environment variable", `did you mean "ROCKPOOL_UPSTREAM_SERVERS"`},
			lack: "hunter2",
		},
		"a variable that only looks like one of a Service is unknown": {
			env: map[string]string{"ROCKPOOL_LISTEN_PORT": "1"}, want: []string{"ROCKPOOL_LISTEN_PORT: unknown"},
		},
		"a bad value from the environment": {
			env:  map[string]string{"ROCKPOOL_LOG_LEVEL": "loud"},
			want: []string{`log.level: "loud" is unknown; allowed are debug, info, warn, error (from environment variable ROCKPOOL_LOG_LEVEL)`},
		},
		"a bad value from a flag": {
			args: []string{"--log.format=xml"}, want: []string{`log.format: "xml" is unknown; allowed are json, console (from flag --log.format)`},
		},
		"a bad value from the file": {
			file: "upstream: {probe-timeout: 5}\n",
			want: []string{`upstream.probe-timeout: "5" is not a duration; a duration with its unit`, "(from file ", "rockpool.yaml)"},
		},
		"all problems at once": {
			file: "colour: blue\nlog: {level: loud}\n",
			env:  map[string]string{"ROCKPOOL_CACHE_MAX_SIZE": "lots", "ROCKPOOL_X": ""},
			args: []string{"--shutdown.grace=-1s"},
			want: []string{"colour:", "log.level:", "cache.max-size:", "ROCKPOOL_X:", "shutdown.grace:"},
		},
		"a section with a value": {
			file: "upstream: 5\n", want: []string{"upstream: a section cannot have a value"}, lack: "probe-interval",
		},
		"a value with keys below it": {file: "log:\n  level:\n    deep: 1\n", want: []string{"log.level.deep: unknown key", "log.level: has keys below it"}},
		"a missing file":             {args: []string{"--config=/no/such.yaml"}, want: []string{"/no/such.yaml"}},
		"a missing file that a variable names": {
			env: map[string]string{"ROCKPOOL_CONFIG": "/no/such.yaml"}, want: []string{"/no/such.yaml"},
		},
		"a file that is not YAML": {file: "a: [", want: []string{"rockpool.yaml", "configuration file"}},

		"a listener that is not on loopback":         {args: []string{"--listen.address=0.0.0.0:10268"}, want: []string{"listen.address:", "outside the pod"}},
		"a listener on all addresses":                {args: []string{"--listen.address=:10268"}, want: []string{"listen.address:", "only 127.0.0.0/8, [::1] and localhost"}},
		"a listener that the certificate is not for": {args: []string{"--listen.address=10.0.0.2:10268"}, want: []string{"listen.address:", "pod's certificate"}},
		"no listener":                             {args: []string{"--listen.address="}, want: []string{"listen.address: is empty"}},
		"a listener without port":                 {args: []string{"--listen.address=127.0.0.1"}, want: []string{"listen.address:", "host:port"}},
		"a listener on port 0":                    {args: []string{"--listen.address=127.0.0.1:0"}, want: []string{"1 to 65535"}},
		"a forward proxy that is not on loopback": {args: []string{"--connect.address=10.0.0.1:3128"}, want: []string{"connect.address:", "outside the pod"}},
		"metrics on an invalid host":              {args: []string{"--metrics.address=a_b:9090"}, want: []string{"metrics.address:", `"a_b"`}},
		"two listeners at one address":            {args: []string{"--metrics.address=localhost:10268"}, want: []string{"metrics.address:", "taken by listen.address"}},

		"a server that is not https":         {args: []string{"--upstream.servers=http://a"}, want: []string{"upstream.servers:", `"http://a" is not https`}},
		"a server without scheme":            {args: []string{"--upstream.servers=a:6443"}, want: []string{"upstream.servers:", "not https"}},
		"a server with a path":               {args: []string{"--upstream.servers=https://a/k8s"}, want: []string{"has a path"}},
		"a server with a query":              {args: []string{"--upstream.servers=https://a?x=1"}, want: []string{"has a query"}},
		"a server with a bad port":           {args: []string{"--upstream.servers=https://a:99999"}, want: []string{"1 to 65535"}},
		"a server with a password is hidden": {args: []string{"--upstream.servers=https://me:hunter2@a"}, want: []string{"user or password"}, lack: "hunter2"},
		"two bad servers are both reported":  {args: []string{"--upstream.servers=http://a,https://b/x"}, want: []string{"http://a", "https://b/x"}},
		"a server at the sidecar's service address": {
			args: []string{"--listen.service-address=127.0.0.1:443", "--upstream.servers=https://127.0.0.1"}, want: []string{"upstream.servers:", "own listener"},
		},
		"a server at a name that means the sidecar": {
			args: []string{"--listen.service-address=127.0.0.1:443", "--cluster.domain=edge.example", "--upstream.servers=https://kubernetes.default.svc.edge.example"},
			want: []string{"upstream.servers:", "own listener"},
		},
		"a service address outside the pod":   {args: []string{"--listen.service-address=0.0.0.0:443"}, want: []string{"listen.service-address:", "outside the pod"}},
		"two listeners at the service's port": {args: []string{"--listen.service-address=127.0.0.1:10268"}, want: []string{"listen.service-address:", "a port of its own"}},
		"a bad cluster domain":                {args: []string{"--cluster.domain=.local"}, want: []string{"cluster.domain:", "not a DNS domain"}},
		"a server that is the sidecar itself": {args: []string{"--upstream.servers=https://127.0.0.1:10268"}, want: []string{"upstream.servers:", "own listener"}},
		"an unknown field of a server": {
			args: []string{"--upstream.servers=https://a,https://b:6443;ca=/x"},
			want: []string{`upstream.servers: entry 2: https://b:6443: there is no field "ca"; allowed are url, tls-server-name and ca-file`, "flag --upstream.servers"},
		},
		"a bad field of a server": {
			args: []string{"--upstream.servers=https://a;tls-server-name=a b"},
			want: []string{`upstream.servers: entry 1: https://a:443: tls-server-name: "a b" is not a name`},
		},
		"a CA file of a server that is relative": {
			args: []string{"--upstream.servers=https://a;ca-file=ca.crt"},
			want: []string{`upstream.servers: entry 1: https://a:443: ca-file: "ca.crt" is not an absolute path`},
		},
		"a field given twice":               {args: []string{"--upstream.servers=https://a;ca-file=/a;ca-file=/b"}, want: []string{"entry 1: https://a:443: ca-file: is given twice"}},
		"a server given twice, differently": {args: []string{"--upstream.servers=https://a,https://A:443;ca-file=/b"}, want: []string{"entry 2: https://a:443: is given before with another"}},
		"a bad URL with a field":            {args: []string{"--upstream.servers=http://a;ca-file=/a"}, want: []string{`entry 1: url: "http://a" is not https`}},
		"a mapping with an unknown field": {
			file: "upstream:\n  servers:\n  - url: https://a\n    caFile: /x\n",
			want: []string{`upstream.servers: entry 1: https://a:443: there is no field "cafile"`, "rockpool.yaml"},
		},
		"a mapping without a URL":    {file: "upstream:\n  servers:\n  - https://a\n  - ca-file: /x\n", want: []string{"upstream.servers: entry 2: an entry has no url"}},
		"a mapping with a comma":     {file: "upstream:\n  servers:\n  - url: https://a,https://b\n", want: []string{"upstream.servers: entry 1: url: must not contain ','"}},
		"a mapping of another list":  {file: "cache:\n  agents:\n  - name: kubelet\n", want: []string{"cache.agents: entry 1: has keys below it"}},
		"an unknown mode":            {args: []string{"--upstream.mode=random"}, want: []string{`upstream.mode: "random" is unknown; allowed are priority, round-robin`}},
		"a threshold of zero":        {args: []string{"--upstream.failure-threshold=0"}, want: []string{`upstream.failure-threshold: "0" is not a whole number from 1 to 10`}},
		"a threshold that is a time": {args: []string{"--upstream.success-threshold=2s"}, want: []string{`upstream.success-threshold: "2s" is not a whole number`}},
		"an invalid server name":     {args: []string{"--upstream.tls-server-name=a b"}, want: []string{"upstream.tls-server-name:", `"a b"`}},

		"a version of a client":    {args: []string{"--cache.agents=kubectl/v1"}, want: []string{"cache.agents:", `"kubectl/v1"`, "before its first slash"}},
		"a kind for a resource":    {args: []string{"--cache.memory-only=Secret,configmaps"}, want: []string{"cache.memory-only:", `"Secret"`, "plural"}},
		"a size in thousandths":    {args: []string{"--cache.max-size=256m"}, want: []string{"cache.max-size:", "milli"}},
		"a size that is too small": {args: []string{"--cache.max-size=1Mi"}, want: []string{"out of range", "4Mi"}},
		"a size beyond all disks":  {args: []string{"--cache.max-size=100Ei"}, want: []string{"out of range"}},
		"a switch with a number":   {args: []string{"--offline.events=1"}, want: []string{"offline.events:", `"1" is unknown; allowed are true, false`}},
		"too much patience":        {args: []string{"--offline.write-patience=31s"}, want: []string{"offline.write-patience:", `"31s" is out of range`, "from 0s to 30s"}},
		"no Events at all":         {args: []string{"--offline.events-max-count=0"}, want: []string{"offline.events-max-count:", `"0"`, "1 to 10000"}},
		"half an Event":            {args: []string{"--offline.events-max-count=0.5"}, want: []string{"offline.events-max-count:", `"0.5"`}},
		"an interval of zero":      {args: []string{"--upstream.probe-interval=0s"}, want: []string{"out of range", "100ms"}},
		"a relative path":          {args: []string{"--cache.directory=cache"}, want: []string{"cache.directory:", "absolute"}},
		"keys on the disk of the cache": {
			args: []string{"--private.directory=/var/lib/rockpool/private"}, want: []string{"private.directory:", "inside cache.directory"},
		},
		"a mirror that is its own source": {
			args: []string{"--account.mirror=/var/run/secrets/kubernetes.io/serviceaccount"}, want: []string{"account.mirror:", "inside account.source"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, test.file, test.env, test.args...)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in\n%v", want, err)
				}
			}
			if test.lack != "" && strings.Contains(err.Error(), test.lack) {
				t.Errorf("%q must not be in\n%v", test.lack, err)
			}
		})
	}
}

func TestUpstreamServers(t *testing.T) {
	named := func(name string, list ...Server) []Server {
		for i := range list {
			list[i].TLSServerName = name
		}
		return list
	}
	inCluster := func(host string) Server {
		s := hosts(host)[0]
		s.InCluster = true
		return s
	}
	tests := map[string]struct {
		servers    []Server
		name       string // upstream.tls-server-name
		host, port string
		want       []Server
		fail       string
	}{
		"the in-cluster address comes last":           {hosts("a:6443"), "", "10.96.0.1", "443", append(hosts("a:6443"), inCluster("10.96.0.1:443")), ""},
		"the in-cluster address alone is enough":      {nil, "", "10.96.0.1", "443", []Server{inCluster("10.96.0.1:443")}, ""},
		"an IPv6 address is bracketed":                {nil, "", "fd00::1", "443", []Server{inCluster("[fd00::1]:443")}, ""},
		"an IPv6 address may have brackets already":   {nil, "", "[fd00::1]", "443", []Server{inCluster("[fd00::1]:443")}, ""},
		"a configured in-cluster address stays there": {hosts("10.96.0.1:443", "a:6443"), "", "10.96.0.1", "443", hosts("10.96.0.1:443", "a:6443"), ""},
		"outside a cluster the configured is enough":  {hosts("a:6443"), "", "", "", hosts("a:6443"), ""},
		"half an in-cluster address does not count":   {hosts("a:6443"), "", "10.96.0.1", "", hosts("a:6443"), ""},
		"no server at all is an error":                {nil, "", "", "", nil, "upstream.servers is empty"},
		"an invalid in-cluster port is an error":      {nil, "", "10.96.0.1", "x", nil, "KUBERNETES_SERVICE_PORT"},
		"an in-cluster address at the own listener":   {nil, "", "127.0.0.1", "10268", nil, "own listener"},
		"the name is for servers without their own": {append(hosts("a:1"), named("b.example", hosts("b:1")...)...), "kubernetes", "10.96.0.1", "443",
			append(named("kubernetes", hosts("a:1")...), named("b.example", hosts("b:1")...)[0], inCluster("10.96.0.1:443")), ""},
		"the name is not for the in-cluster address": {hosts("10.96.0.1:443", "a:1"), "kubernetes", "10.96.0.1", "443",
			append(hosts("10.96.0.1:443"), named("kubernetes", hosts("a:1")...)...), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := defaults()
			c.Upstream.Servers, c.Upstream.TLSServerName = test.servers, test.name
			before := slices.Clone(test.servers)
			env := map[string]string{"KUBERNETES_SERVICE_HOST": test.host, "KUBERNETES_SERVICE_PORT": test.port}
			got, err := c.UpstreamServers(func(name string) string { return env[name] })
			if test.fail != "" {
				if err == nil || !strings.Contains(err.Error(), test.fail) {
					t.Fatalf("want an error with %q, got %v", test.fail, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, test.servers); diff != "" {
				t.Errorf("the settings have changed: %s", diff)
			}
		})
	}
}

func FuzzServers(f *testing.F) {
	for _, v := range []string{"https://a", "https://a:1;tls-server-name=b;ca-file=/c, https://[::1]", "a;;,;=,https://a;x", "https://me:hunter2@a;ca-file=/"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		list, err := servers(v)
		if err != nil {
			return
		}
		// Writing the accepted list gives an equal list.
		var written []string
		for _, s := range list {
			e := s.URL.String()
			if s.TLSServerName != "" {
				e += ";tls-server-name=" + s.TLSServerName
			}
			if s.CAFile != "" {
				e += ";ca-file=" + s.CAFile
			}
			written = append(written, e)
		}
		again, err := servers(strings.Join(written, ","))
		if err != nil || !cmp.Equal(list, again) {
			t.Errorf("%q: %+v becomes %+v, %v", v, list, again, err)
		}
	})
}

func TestEveryKeyHasOneNameAndAnExplanation(t *testing.T) {
	seen := map[string]bool{}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	for _, k := range Keys() {
		if seen[k.Env()] {
			t.Errorf("%s twice", k.Env())
		}
		seen[k.Env()] = true
		f := flags.Lookup(k.Flag())
		if f == nil || f.DefValue != k.Default || !strings.Contains(f.Usage, k.Env()) || !strings.HasSuffix(k.Usage, ".") {
			t.Errorf("%s: flag %+v", k.Name, f)
		}
	}
	if got := (Key{Name: "upstream.tls-server-name"}).Env(); got != "ROCKPOOL_UPSTREAM_TLS_SERVER_NAME" {
		t.Error(got)
	}
}
