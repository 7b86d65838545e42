package cache

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/zap"
	"k8s.io/client-go/util/cert"

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

// In a rolling update the new pod starts while the old one still runs, so it takes another slot.
func TestANewSlotIsSeededByAnotherPodOfItsCluster(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Logger: zap.NewNop()}
	first, second := authority(t), authority(t)
	open := func(ca []byte) *Disk {
		t.Helper()
		o.Account = t.TempDir()
		if err := os.WriteFile(filepath.Join(o.Account, account.CAFile), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		c := OpenDisk(t.Context(), o)
		if c.db == nil {
			t.Fatal("the cache is not open")
		}
		t.Cleanup(c.Close)
		return c
	}
	scope := store.Scope{Principal: "p", Version: "v1", Resource: "configmaps", Representation: "object", MediaType: "application/json"}
	list := func(c *Disk, resourceVersion string) {
		t.Helper()
		snapshot := store.NewSnapshot(scope)
		err := c.db.Update(t.Context(), func(tx *store.Tx) error {
			return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: "{}", ResourceVersion: resourceVersion})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(c *Disk, want ...string) {
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
	fresh.Close()
	has(open(first), "20") // its own file, not another copy
	has(open(second))
}

// A service account that was deleted and created again may be somebody else's.
func TestACacheIsNotForAnotherAccountOfTheSameName(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.NewNop()}
	ca := authority(t)
	open := func(uid string) *Disk {
		t.Helper()
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"system:serviceaccount:a:b","kubernetes.io":{"serviceaccount":{"uid":"` + uid + `"}}}`))
		for name, content := range map[string][]byte{account.CAFile: ca, account.TokenFile: []byte("eyJhbGciOiJSUzI1NiJ9." + claims + ".x\n")} {
			if err := os.WriteFile(filepath.Join(o.Account, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := OpenDisk(t.Context(), o)
		if c.db == nil || !c.Bound() {
			t.Fatal("the cache is not open, or not bound")
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
		c.Close()
	}
}
