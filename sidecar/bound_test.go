package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/cert"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/pod/account"
)

// authority is the certificate of a cluster's CA.
func authority(t *testing.T) []byte {
	t.Helper()
	certPEM, _, err := cert.GenerateSelfSignedCertKey("kubernetes", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM
}

// Service accounts of two clusters have the same names, and a node may move from one cluster to
// the other. Until the cache is bound, it answers nobody.
func TestNobodyIsAnsweredFromACacheThatMayBeAnotherClusters(t *testing.T) {
	first, second := authority(t), authority(t)
	o := cache.Options{Directory: t.TempDir(), MaxSize: 1 << 20, Logger: zap.NewNop()}
	var loaded bool // facts of the first cluster, in a later run
	start := func() (s *sidecar, stop func()) {
		o.Account = filepath.Join(t.TempDir(), "late")
		c := cache.OpenDisk(t.Context(), o)
		if c.Store() == nil {
			t.Fatal("the cache is not open")
		}
		s = &sidecar{disk: c, mirror: account.New(account.Options{Source: o.Account, Mirror: t.TempDir()})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		loaded = false
		go func() {
			done <- c.Follow(ctx, func(ctx context.Context) {
				value, _, err := c.Store().Fact(ctx, "of")
				loaded = err == nil && value != nil
			})
		}()
		return s, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	comes := func(name string, content []byte) {
		t.Helper()
		if err := os.MkdirAll(o.Account, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.Account, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := func(s *sidecar) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
			token, err := s.podToken()
			return err == nil && token == "token", nil
		})
		if err != nil {
			t.Fatal("the pod's own token is never known")
		}
	}

	s, stop := start()
	comes(account.CAFile, first)
	comes(account.TokenFile, []byte("token"))
	known(s)
	if err := s.disk.Store().PutFact(t.Context(), "of", []byte("the first cluster")); err != nil {
		t.Fatal(err)
	}
	stop()

	s, stop = start()
	comes(account.TokenFile, []byte("token"))
	if token, err := s.podToken(); err == nil {
		t.Errorf("the token is %q while the cluster is not known", token)
	}
	comes(account.CAFile, second)
	known(s)
	if value, _, err := s.disk.Store().Fact(t.Context(), "of"); err != nil || value != nil {
		t.Errorf("the second cluster finds %q, %v", value, err)
	}
	stop()
	if loaded {
		t.Error("facts of the first cluster were taken for the second one's")
	}
}
