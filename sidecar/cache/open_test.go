package cache

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/store"
	"rockpool.dev/tests/authority"
)

// In a rolling update the new pod starts while the old pod runs, so it takes another slot.
func TestANewSlotIsSeededFromAnotherPodOfItsCluster(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Logger: zap.NewNop()}
	first, second := authority.New(t), authority.New(t)
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
	putList := func(c *Disk, resourceVersion string) {
		t.Helper()
		snapshot := store.NewSnapshot(scope)
		err := c.db.Update(t.Context(), func(tx *store.Tx) error {
			return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", Envelope: "{}", ResourceVersion: resourceVersion})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantLists := func(c *Disk, want ...string) {
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
	wantLists(old)
	putList(old, "10")
	fresh := open(first)
	wantLists(fresh, "10")
	putList(fresh, "20")
	wantLists(old, "10")

	putList(old, "30")
	fresh.Close()
	wantLists(open(first), "20") // the slot's file, not another copy
	wantLists(open(second))
}

// A service account that was deleted and created again may have another owner.
func TestACacheIsEmptyForAnotherAccountOfTheSameName(t *testing.T) {
	o := Options{Directory: t.TempDir(), MaxSize: 1 << 20, Account: t.TempDir(), Logger: zap.NewNop()}
	ca := authority.New(t)
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
		kept bool // whether the fact of the previous step is still there
	}{{"one", false}, {"one", true}, {"another", false}} {
		c := open(step.uid)
		value, _, err := c.db.Fact(t.Context(), "of")
		if err != nil || (value != nil) != step.kept {
			t.Errorf("account %s: the fact is %q, %v", step.uid, value, err)
		}
		if err := c.db.PutFact(t.Context(), "of", []byte(step.uid)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
