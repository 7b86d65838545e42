package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/tests/authority"
	"rockpool.dev/tests/eventually"
)

// Service accounts of two clusters have the same names, and a node may move from one cluster to
// the other. Until the cache is bound to its cluster, it answers no request.
func TestACacheAnswersNoRequestUntilItIsBoundToItsCluster(t *testing.T) {
	first, second := authority.New(t), authority.New(t)
	o := cache.Options{Directory: t.TempDir(), MaxSize: 1 << 20, Logger: zap.NewNop()}
	var loaded bool // whether the latest run has loaded the fact of the first cluster
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
			}, func(context.Context) {})
		}()
		return s, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	mount := func(name string, content []byte) {
		t.Helper()
		if err := os.MkdirAll(o.Account, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.Account, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	waitForToken := func(s *sidecar) {
		t.Helper()
		eventually.True(t, "the pod's own token", func() bool {
			token, err := s.podToken()
			return err == nil && token == "token"
		})
	}

	s, stop := start()
	mount(account.CAFile, first)
	mount(account.TokenFile, []byte("token"))
	waitForToken(s)
	if err := s.disk.Store().PutFact(t.Context(), "of", []byte("the first cluster")); err != nil {
		t.Fatal(err)
	}
	stop()

	s, stop = start()
	mount(account.TokenFile, []byte("token"))
	if token, err := s.podToken(); err == nil {
		t.Errorf("the token is %q before the CA certificate is there", token)
	}
	mount(account.CAFile, second)
	waitForToken(s)
	if value, _, err := s.disk.Store().Fact(t.Context(), "of"); err != nil || value != nil {
		t.Errorf("in the second cluster the fact is %q, %v", value, err)
	}
	stop()
	if loaded {
		t.Error("the second cluster has loaded the fact of the first")
	}
}
