package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rockpool.dev/store"
)

// recordGreeting opens a cache with one ConfigMap in a directory, and keeps it open.
func recordGreeting(t *testing.T, dir, version string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir, store.Options{Now: func() time.Time { return time.Now().Add(-90 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	scope := store.Scope{Principal: "system:serviceaccount:shop:web", Version: "v1", Resource: "configmaps", Representation: "object", Namespace: "shop", MediaType: "application/json"}
	list := store.NewSnapshot(scope, store.Evidence{Asked: db.Next(), Told: db.Next(), Read: store.Latest})
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		payload := fmt.Sprintf(`{"metadata":{"name":"greeting","namespace":"shop","resourceVersion":%q},"data":{"value":"hello"}}`, version)
		o := store.Object{Namespace: "shop", Name: "greeting", UID: "u", ResourceVersion: version, Encoding: store.JSONBare, Payload: []byte(payload)}
		if err := list.Add(tx, o); err != nil {
			return err
		}
		return list.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", ResourceVersion: "20"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cacheCommands runs a command, and returns what it prints and its exit status.
func cacheCommands(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	var b bytes.Buffer
	cmd := command(new(func(context.Context) error))
	cmd.SetArgs(append([]string{"cache"}, args...))
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err := cmd.ExecuteContext(t.Context())
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		if status = exit.status; exit.err != nil {
			fmt.Fprintln(&b, exit.err)
		}
	case err != nil:
		status = 1
		fmt.Fprintln(&b, err)
	}
	return b.String(), status
}

func TestTheCacheIsReadByHandWhileItIsInUse(t *testing.T) {
	workload := t.TempDir()
	recordGreeting(t, filepath.Join(workload, "0"), "7")
	other := t.TempDir()
	recordGreeting(t, other, "9")
	t.Setenv("ROCKPOOL_CACHE_DIRECTORY", workload)
	for name, c := range map[string]struct {
		args   string
		status int
		want   []string
	}{
		"collections": {"ls", 0, []string{
			"RESOURCE    NAMESPACE  SELECTOR  FORM  STATE     OBJECTS  BYTES  VERSION  AGE    ACCOUNT\n",
			"configmaps  shop       -         json  complete  1        98     20       1h30m  system:serviceaccount:shop:web\n",
			"0 documents",
		}},
		"collections as JSON":          {"ls -o json", 0, []string{`"resource":"configmaps"`, `"state":"complete","objects":1`, `"resourceVersion":"20"`}},
		"objects":                      {"ls ConfigMap", 0, []string{"NAMESPACE  NAME      VERSION  BYTES  AGE    ANSWER\n", "shop       greeting  7        ", "1h30m  200\n"}},
		"objects as JSON":              {"ls configmaps -o json", 0, []string{`"name":"greeting"`, `"answer":"200"`}},
		"an object":                    {"get configmaps greeting -n shop", 0, []string{"apiVersion: v1\ndata:\n  value: hello\nkind: ConfigMap\n"}},
		"a missing object":             {"get configmaps farewell", 1, []string{"no such object is recorded"}},
		"an unknown type":              {"get pods", 1, []string{`nothing is recorded of "pods"; recorded are: configmaps`}},
		"an unknown format":            {"get pods -o xml", 1, []string{`--output: "xml" is not yaml or json`}},
		"all objects":                  {"export -o json", 0, []string{`{"apiVersion":"v1","data":{"value":"hello"},"kind":"ConfigMap"`}},
		"no damage":                    {"verify", 0, []string{"ok: 1 objects"}},
		"free pages":                   {"vacuum", 0, []string{" bytes before, "}},
		"another cache":                {"diff --with=" + other, 1, []string{"~ configmaps shop/greeting (7 → 9)\n"}},
		"the same cache":               {"diff --with=" + filepath.Join(workload, "0"), 0, []string{""}},
		"another cache that is not":    {"diff --with=" + workload, 2, []string{"--with: ", "not recorded"}},
		"a directory without a cache":  {"ls --directory=" + t.TempDir(), 1, []string{"--directory: no cache in "}},
		"a directory of a single file": {"ls --directory=" + other, 0, []string{"configmaps"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, status := cacheCommands(t, strings.Fields(c.args)...)
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
		})
	}
	recordGreeting(t, filepath.Join(workload, "1"), "7")
	if out, status := cacheCommands(t, "ls"); status != 1 || !strings.Contains(out, "name one of them: ") {
		t.Errorf("two slots: %d %s", status, out)
	}
}

func TestTheCacheIsComparedWithTheAPIServerAsThePod(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/configmaps") {
			fmt.Fprint(w, `{"kind":"PartialObjectMetadataList","metadata":{},"items":[{"metadata":{"namespace":"shop","name":"new","resourceVersion":"21"}}]}`)
		}
	}))
	defer server.Close()
	account, cache := t.TempDir(), t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.WriteFile(filepath.Join(account, "token"), []byte("the-token\n"), 0o600), os.WriteFile(filepath.Join(account, "ca.crt"), ca, 0o600)); err != nil {
		t.Fatal(err)
	}
	recordGreeting(t, cache, "7")
	t.Setenv("ROCKPOOL_CACHE_DIRECTORY", cache)
	t.Setenv("ROCKPOOL_ACCOUNT_SOURCE", account)
	t.Setenv("ROCKPOOL_UPSTREAM_SERVERS", server.URL)
	out, status := cacheCommands(t, "diff")
	if want := "- configmaps shop/greeting (7)\n+ configmaps shop/new (21)\n"; status != 1 || out != want {
		t.Errorf("exit status %d:\n%s", status, out)
	}
}
