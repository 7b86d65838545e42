package e2enode

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rockpoolUser is the user of the sidecar, in the image and in the injected pod.
const rockpoolUser = 65532

func TestOnlyTheSidecarCanReadTheNodesDiskAndNoSecretIsThere(t *testing.T) {
	s := newSite(t, "disk")
	s.kubectl("apply", "-f", "testdata/secrets.yaml")
	p := s.pod("vault")
	p.sees("app", "present", "greeting")
	p.sees("app", "present", "hush", base64.StdEncoding.EncodeToString([]byte(secretValue)))
	p.sees("app", "synced")
	p.recorded()

	secrets := map[string]string{
		"the value of a Secret":            secretValue,
		"the value of a Secret, in base64": base64.StdEncoding.EncodeToString([]byte(secretValue)),
		"the pod's token":                  strings.TrimSpace(p.file("app", accountPath+"token")),
		"a private key":                    "PRIVATE KEY-----",
	}
	looked := false
	root := filepath.Join("/var/lib/rockpool", s.namespace)
	s.try(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %s gives access to others", path, info.Mode())
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		// Workloads share the directories of namespace and service account, so no pod may own them.
		want := uint32(rockpoolUser)
		if depth := len(strings.Split(relative, "/")); relative == "." || depth < 2 {
			want = 0
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != want {
			t.Errorf("%s: owned by %d, want %d", path, owner, want)
		}
		if e.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked = looked || bytes.Contains(content, []byte("greeting"))
		for what, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s: has %s", path, what)
			}
		}
		return nil
	}))
	if !looked {
		t.Error("the files do not even have the ConfigMap, so this test shows nothing")
	}
}

func TestTheSidecarRunsWithItsDeclaredPrivilegesOnly(t *testing.T) {
	s := newSite(t, "rights")
	s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app=agent")
	p := s.pod("agent")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid("rockpool-sidecar")))
	s.try(err)
	got := map[string]string{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		got[name] = strings.Join(strings.Fields(value), " ")
	}
	want := map[string]string{
		"Uid":        "65532 65532 65532 65532",
		"Gid":        "65532 65532 65532 65532",
		"CapBnd":     "0000000000000000",
		"CapEff":     "0000000000000000",
		"NoNewPrivs": "1",
		"Seccomp":    "2", // a filter, see proc(5)
	}
	for name := range got {
		if _, asked := want[name]; !asked {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the sidecar's process (-want +got):\n%s", diff)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.pid("rockpool-sidecar")))
	s.try(err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[4] == "/" && !strings.HasPrefix(f[5], "ro") {
			t.Errorf("the root of the sidecar is writable: %s", line)
		}
	}
}
