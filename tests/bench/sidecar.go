package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/freeport"
)

// sidecar is a running rockpool-sidecar, an ordinary process on this machine.
type sidecar struct {
	cmd            *exec.Cmd
	directory      string
	address        string
	metricsAddress string  // empty: it serves none
	asked          float64 // bytes that it has allocated to answer allocated
	started        time.Time
	ready          time.Duration // from its start to the first TLS handshake
	exited         chan struct{}
}

type sidecarOptions struct {
	name     string   // of its directory; sidecars with the same name use the same cache
	record   bool     // false: its cache directory does not exist
	upstream string   // host:port; empty: the API server itself
	metrics  bool     // it serves metrics, for allocated
	settings []string // more flags
}

// startSidecar starts a sidecar and returns after the first TLS handshake.
func (s *stage) startSidecar(ctx context.Context, o sidecarOptions) (*sidecar, error) {
	c := &sidecar{directory: filepath.Join(s.directory, o.name), exited: make(chan struct{})}
	if o.upstream == "" {
		o.upstream = s.plane.Address()
	}
	directories := []string{c.path("mirror"), c.path("private")}
	if o.record {
		directories = append(directories, c.path("cache"))
	}
	for _, d := range directories {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if c.address, err = freeport.Address(); err != nil {
		return nil, err
	}
	if o.metrics {
		if c.metricsAddress, err = freeport.Address(); err != nil {
			return nil, err
		}
	}
	logFile, err := os.Create(c.path("log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	c.cmd = exec.Command(s.binary, "run", "--listen.address", c.address, "--metrics.address", c.metricsAddress,
		"--upstream.servers", "https://"+o.upstream, "--account.source", s.account, "--account.mirror", c.path("mirror"),
		"--private.directory", c.path("private"), "--cache.directory", c.path("cache"))
	c.cmd.Args = append(c.cmd.Args, o.settings...)
	// A default, because --sidecar may name an older one, which ignores defaults that it does not know.
	c.cmd.Env = append(environment(), "ROCKPOOL_DEFAULT_NODE_NAME="+filterNode)
	c.cmd.Stdout, c.cmd.Stderr = logFile, logFile
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.started = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // the reason is in its log
		close(c.exited)
	}()
	err = wait.PollUntilContextTimeout(ctx, time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		select {
		case <-c.exited:
			return false, errors.New("the sidecar has ended")
		default:
		}
		return c.handshake() == nil, nil
	})
	c.ready = time.Since(c.started)
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("sidecar %s: %w\n%s", o.name, err, c.log())
	}
	return c, nil
}

// environment is the environment of this process without variables that configure a sidecar.
func environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KUBERNETES_SERVICE_") && !strings.HasPrefix(v, "ROCKPOOL_") {
			env = append(env, v)
		}
	}
	return env
}

func (c *sidecar) path(name string) string { return filepath.Join(c.directory, name) }

// ca is the certificate that clients of the sidecar trust.
func (c *sidecar) ca() ([]byte, error) { return os.ReadFile(filepath.Join(c.path("mirror"), "ca.crt")) }

func (c *sidecar) handshake() error {
	pem, err := c.ca()
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", c.address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *sidecar) pid() int { return c.cmd.Process.Pid }

// restless is the CPU time that an idle program may use between two looks of settled: it collects
// garbage, and its timers run.
const restless = 2 * time.Millisecond

// settled waits until a program is idle, since a sidecar records after it has answered, and returns
// the CPU time that it has used, with that of its children.
func settled(ctx context.Context, pid int) (cpu time.Duration, err error) {
	calm := 0
	last, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	err = wait.PollUntilContextTimeout(ctx, 40*time.Millisecond, time.Minute, false, func(context.Context) (bool, error) {
		if cpu, err = cpuOf(pid); err != nil {
			return false, err
		}
		calm++
		if cpu > last+restless {
			calm = 0
		}
		last = cpu
		return calm >= 4, nil // longer than the recorder collects a group
	})
	return cpu, err
}

// allocated returns the bytes that the sidecar has allocated since its start, without those of the
// question itself.
func (c *sidecar) allocated(ctx context.Context) (float64, error) {
	before, err := c.metric(ctx, "go_memstats_alloc_bytes_total")
	if err != nil {
		return 0, err
	}
	after, err := c.metric(ctx, "go_memstats_alloc_bytes_total")
	c.asked += 2 * (after - before) // both questions
	return after - c.asked, err
}

// metric returns the value of a metric without labels.
func (c *sidecar) metric(ctx context.Context, name string) (float64, error) {
	lines, err := c.metrics(ctx, name+" ")
	if err != nil {
		return 0, err
	}
	if len(lines) != 1 {
		return 0, fmt.Errorf("the sidecar has %d metrics %s, want one", len(lines), name)
	}
	return strconv.ParseFloat(strings.TrimPrefix(lines[0], name+" "), 64)
}

// metrics returns the lines of the metrics whose names begin so.
func (c *sidecar) metrics(ctx context.Context, prefix string) (found []string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.metricsAddress+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), prefix) {
			found = append(found, lines.Text())
		}
	}
	return found, lines.Err()
}

// sql queries the sidecar's cache.
func (c *sidecar) sql(ctx context.Context, query string) (string, error) {
	out, err := exec.CommandContext(ctx, "sqlite3", "-readonly", filepath.Join(c.path("cache"), "0", "rockpool.db"), query).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sqlite3 %s: %w: %s", query, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func (c *sidecar) log() string {
	text, _ := os.ReadFile(c.path("log")) // for an error message
	return string(text)
}

// stop stops the sidecar. It may be called more than once.
func (c *sidecar) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	<-c.exited
}
