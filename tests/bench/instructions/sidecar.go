package instructions

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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

const (
	// startTimeout bounds the start. Under valgrind on a busy machine it takes 10 s.
	startTimeout = 2 * time.Minute
	// stopTimeout bounds the end.
	stopTimeout = time.Minute
	// pollInterval is the time between two looks.
	pollInterval = 50 * time.Millisecond
)

// sidecar is a rockpool-sidecar under valgrind.
type sidecar struct {
	directory string
	api       *standIn
	address   string
	metrics   string // address
	client    *http.Client
	cmd       *exec.Cmd
	exited    chan error // receives the result of Wait, once
}

func (s *sidecar) path(name string) string { return filepath.Join(s.directory, name) }

// log is what valgrind and the sidecar have printed, for an error message.
func (s *sidecar) log() string {
	text, _ := os.ReadFile(s.path("log"))
	return string(text)
}

// start returns when the sidecar serves, and can verify tokens without the API server.
func (s *sidecar) start(ctx context.Context, valgrind, binary, account string) (err error) {
	for _, name := range []string{"mirror", "private", "cache"} {
		if err := os.Mkdir(s.path(name), 0o700); err != nil {
			return err
		}
	}
	if s.address, err = freeport.Address(); err != nil {
		return err
	}
	if s.metrics, err = freeport.Address(); err != nil {
		return err
	}
	logFile, err := os.Create(s.path("log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	s.cmd = exec.Command(valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file="+s.path("counts"), "--log-file="+s.path("valgrind"),
		binary, "run", "--listen.address", s.address, "--metrics.address", s.metrics, "--upstream.servers", "https://"+s.api.address,
		"--account.source", account, "--account.mirror", s.path("mirror"), "--private.directory", s.path("private"), "--cache.directory", s.path("cache"))
	s.cmd.Env = []string{"GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "PATH=" + os.Getenv("PATH"), "HOME=" + s.directory}
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
	// Nothing is sent before the sidecar is ready: the number of handshakes would be left to
	// chance.
	err = wait.PollUntilContextTimeout(ctx, pollInterval, startTimeout, true, func(context.Context) (bool, error) {
		select {
		case err := <-s.exited:
			s.exited <- err
			return false, errors.New("the sidecar has ended")
		default:
		}
		return s.api.keys.Load() > 0 && strings.Contains(s.log(), `"msg":"ready"`), nil
	})
	if err == nil {
		err = s.connect()
	}
	if err != nil {
		s.kill()
		return fmt.Errorf("start the sidecar under valgrind: %w\n%s", err, s.log())
	}
	return nil
}

// connect makes the client.
func (s *sidecar) connect() error {
	pem, err := os.ReadFile(filepath.Join(s.path("mirror"), "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s.client = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	return nil
}

// get reads the ConfigMap and reports whether the cache has answered.
func (s *sidecar) get(ctx context.Context) (cached bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.address+object, nil)
	if err != nil {
		return false, err
	}
	r.Header.Set("Authorization", "Bearer "+s.api.token)
	r.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != strings.TrimSpace(configMap)) {
		err = fmt.Errorf("GET %s: %s: %q, want the ConfigMap", object, resp.Status, body)
	}
	return resp.Header.Get("Cache-Status") != "", err
}

// gets sends GETs, one after the other, with a pause before each.
func (s *sidecar) gets(ctx context.Context, n int, pause time.Duration, cached bool) error {
	for range n {
		time.Sleep(pause)
		switch from, err := s.get(ctx); {
		case err != nil:
			return err
		case from != cached:
			return fmt.Errorf("GET %s: answered by the cache: %v, want %v", object, from, cached)
		}
	}
	return nil
}

// commits is the metric of groups that the recorder of the disk has written.
const commits = `rockpool_record_commits_total{cache="disk"} `

// groups is how many groups the recorder has written.
func (s *sidecar) groups(ctx context.Context) (n int64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	_, after, ok := strings.Cut(string(text), "\n"+commits)
	if !ok {
		return 0, fmt.Errorf("the metrics have no %s", commits)
	}
	value, _, _ := strings.Cut(after, "\n")
	groups, err := strconv.ParseFloat(value, 64)
	return int64(groups), err
}

// linkDown cuts the link, and returns when the cache answers at once.
func (s *sidecar) linkDown(ctx context.Context) error {
	if short := s.api.gets[1].Load(); short < s.api.gets[2].Load() {
		return fmt.Errorf("only %d GETs went over HTTP/1.1 connections: the machine is too busy to count the usual way of a GET", short)
	}
	if err := s.api.close(); err != nil {
		return err
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (cached bool, _ error) {
		cached, last = s.get(ctx)
		return cached && last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for an answer of the cache: %w: %w", err, last)
	}
	// For a second the sidecar tries to send each request. How many come in that second is left to
	// the machine.
	err = wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(context.Context) (bool, error) {
		return strings.Contains(s.log(), `"to":"offline"`), nil
	})
	if err != nil {
		return fmt.Errorf("wait for the link to be offline: %w", err)
	}
	return nil
}

// stop stops the sidecar and returns what valgrind has counted.
func (s *sidecar) stop() (instructions int64, err error) {
	s.client.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case err = <-s.exited:
		s.exited <- err
	case <-time.After(stopTimeout):
		err = errors.New("the sidecar does not end")
	}
	if err != nil {
		return 0, fmt.Errorf("stop the sidecar under valgrind: %w\n%s", err, s.log())
	}
	text, err := os.ReadFile(s.path("counts"))
	if err != nil {
		return 0, err
	}
	return total(string(text))
}

// total is the number of instructions in a file of Cachegrind, which ends with the totals of the
// events that it names.
// https://valgrind.org/docs/manual/cg-manual.html#cg-manual.impl-details.file-format
func total(file string) (int64, error) {
	i := strings.LastIndex(file, "\nsummary: ")
	if i < 0 {
		return 0, errors.New("the file of cachegrind has no summary")
	}
	value, _, _ := strings.Cut(strings.TrimSpace(file[i+len("\nsummary: "):]), " ")
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the summary of cachegrind: %w", err)
	}
	return n, nil
}

// kill ends the sidecar, if it still runs.
func (s *sidecar) kill() {
	_ = s.cmd.Process.Kill() // fails if it has ended
	err := <-s.exited
	s.exited <- err
}
