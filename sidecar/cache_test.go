package main

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/cert"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/store"
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

// In a rolling update the new pod starts beside the old one, and in another slot.
func TestANewSlotBeginsWithWhatTheOtherPodsOfItsClusterHave(t *testing.T) {
	cfg := config.Config{}
	cfg.Cache.Directory, cfg.Cache.MaxSize = t.TempDir(), 1<<20
	first, second := authority(t), authority(t)
	open := func(ca []byte) *cache {
		t.Helper()
		cfg.Account.Source = t.TempDir()
		if err := os.WriteFile(filepath.Join(cfg.Account.Source, account.CAFile), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		c := openDisk(t.Context(), cfg, zap.NewNop())
		if c.db == nil {
			t.Fatal("the cache is not open")
		}
		t.Cleanup(func() { c.close(zap.NewNop()) })
		return c
	}
	scope := store.Scope{Principal: "p", Version: "v1", Resource: "configmaps", Representation: "object", MediaType: "application/json"}
	list := func(c *cache, resourceVersion string) {
		t.Helper()
		snapshot := store.NewSnapshot(scope)
		err := c.db.Update(t.Context(), func(tx *store.Tx) error {
			return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: "{}", ResourceVersion: resourceVersion})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(c *cache, want ...string) {
		t.Helper()
		all, err := c.db.Collections(t.Context(), scope.Principal, "", "v1", "configmaps")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, found := range all {
			got = append(got, found.ResourceVersion)
		}
		if !slices.Equal(got, want) {
			t.Errorf("slot %s has %v, want %v", filepath.Base(c.slot.Path), got, want)
		}
	}

	old := open(first)
	has(old)
	list(old, "10")
	fresh := open(first)
	has(fresh, "10")
	list(fresh, "20")
	has(old, "10")

	list(old, "30")
	fresh.close(zap.NewNop())
	has(open(first), "20") // its own again, and not anew the other's
	has(open(second))
}

// A service account of one cluster has the name of one in another, and a node may move from
// one to the other: before it is known whose the cache is, nobody is answered from it.
func TestACallerIsNotKnownBeforeTheClusterIs(t *testing.T) {
	first, second := authority(t), authority(t)
	cfg := config.Config{}
	cfg.Cache.Directory, cfg.Cache.MaxSize = t.TempDir(), 1<<20
	var recalled bool // facts of the first cluster, in a later run
	start := func() (s *sidecar, stop func()) {
		cfg.Account.Source = filepath.Join(t.TempDir(), "late")
		c := openDisk(t.Context(), cfg, zap.NewNop())
		if c.db == nil {
			t.Fatal("the cache is not open")
		}
		s = &sidecar{disk: c, mirror: account.New(account.Options{Source: cfg.Account.Source, Mirror: t.TempDir()})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		recalled = false
		go func() {
			done <- c.follow(ctx, cfg, func(ctx context.Context) {
				value, _, err := c.db.Fact(ctx, "of")
				recalled = err == nil && value != nil
			}, zap.NewNop())
		}()
		return s, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			c.close(zap.NewNop())
		}
	}
	comes := func(name string, content []byte) {
		t.Helper()
		if err := os.MkdirAll(cfg.Account.Source, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cfg.Account.Source, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := func(s *sidecar) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
			token, err := s.own()
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
	if err := s.disk.db.PutFact(t.Context(), "of", []byte("the first cluster")); err != nil {
		t.Fatal(err)
	}
	stop()

	s, stop = start()
	comes(account.TokenFile, []byte("token"))
	if token, err := s.own(); err == nil {
		t.Errorf("the token is %q while the cluster is not known", token)
	}
	comes(account.CAFile, second)
	known(s)
	if value, _, err := s.disk.db.Fact(t.Context(), "of"); err != nil || value != nil {
		t.Errorf("the second cluster finds %q, %v", value, err)
	}
	stop()
	if recalled {
		t.Error("facts of the first cluster were taken for the second one's")
	}
}

// A service account that was deleted and made anew under its name may be somebody else's.
func TestACacheIsNotForAnotherAccountOfTheSameName(t *testing.T) {
	cfg := config.Config{}
	cfg.Cache.Directory, cfg.Cache.MaxSize, cfg.Account.Source = t.TempDir(), 1<<20, t.TempDir()
	ca := authority(t)
	open := func(uid string) *cache {
		t.Helper()
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"system:serviceaccount:a:b","kubernetes.io":{"serviceaccount":{"uid":"` + uid + `"}}}`))
		for name, content := range map[string][]byte{account.CAFile: ca, account.TokenFile: []byte("eyJhbGciOiJSUzI1NiJ9." + claims + ".x\n")} {
			if err := os.WriteFile(filepath.Join(cfg.Account.Source, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := openDisk(t.Context(), cfg, zap.NewNop())
		if c.db == nil || !c.bound.Load() {
			t.Fatal("the cache is not open, or it is not known whose it is")
		}
		return c
	}
	for _, step := range []struct {
		uid  string
		left bool
	}{{"one", false}, {"one", true}, {"another", false}} {
		c := open(step.uid)
		value, _, err := c.db.Fact(t.Context(), "of")
		if err != nil || (value != nil) != step.left {
			t.Errorf("account %s finds %q, %v", step.uid, value, err)
		}
		if err := c.db.PutFact(t.Context(), "of", []byte(step.uid)); err != nil {
			t.Fatal(err)
		}
		c.close(zap.NewNop())
	}
}
