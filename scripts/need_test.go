package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a directory of programs that stands for $PATH.
func machine(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bash", "sed", "dirname", "mktemp", "tail", "env", "rm", "cat"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A machine that lacks sqlite3 only, for the demo.
func without(more map[string]string) map[string]string {
	all := map[string]string{"uname": "echo Linux", "go": "", "gcc": "", "make": "", "id": "echo 0"}
	for name, script := range more {
		all[name] = script
	}
	return all
}

const apt = `[ "$1" = update ] || echo "$@" >"$(dirname "$0")/installed"`

func TestWhatAMachineLacksIsInstalledOrNamed(t *testing.T) {
	for name, c := range map[string]struct {
		programs  map[string]string
		args      []string
		installed string
		says      string // on standard error; empty: the script must succeed
	}{
		"root on Debian installs": {
			programs: without(map[string]string{"apt-get": apt}), args: []string{"demo"},
			installed: "install -y --no-install-recommends sqlite3\n",
		},
		"a user with sudo installs": {
			programs:  without(map[string]string{"apt-get": apt, "id": "echo 1000", "sudo": `[ "$1" = -n ] || "$@"`}),
			args:      []string{"demo"},
			installed: "install -y --no-install-recommends sqlite3\n",
		},
		"a user without sudo is told what to type": {
			programs: without(map[string]string{"apt-get": apt, "id": "echo 1000"}), args: []string{"demo"},
			says: "As root, type: apt-get update && apt-get install -y --no-install-recommends sqlite3",
		},
		"a user without a terminal whose sudo asks is told what to type": {
			programs: without(map[string]string{"apt-get": apt, "id": "echo 1000", "sudo": "exit 1"}), args: []string{"demo"},
			says: "As root, type: apt-get update && apt-get install",
		},
		"another distribution is told what it needs": {
			programs: without(nil), args: []string{"demo"}, says: "Install by hand what provides: sqlite3",
		},
		"a list installs nothing": {
			programs: without(map[string]string{"apt-get": apt}), args: []string{"--list", "demo"},
			says: "To install it, type: sudo apt-get update && sudo apt-get install -y --no-install-recommends sqlite3",
		},
		"an installation that fails says so": {
			programs: without(map[string]string{"apt-get": "echo E: no such package; exit 100"}), args: []string{"demo"},
			says: "E: no such package\nThe installation failed",
		},
		"Go is named with its version and where it is": {
			programs: map[string]string{"uname": "echo Linux", "gcc": "", "make": "", "sqlite3": "", "id": "echo 0"}, args: []string{"demo"},
			says: "or newer: unpack https://go.dev/dl/",
		},
		"the tests need more than the demo": {
			programs: without(map[string]string{"sqlite3": "", "git": "", "openssl": "", "gnutls-cli": "", "tc": "", "chromium": "", "apt-get": apt}), args: []string{"test"},
			installed: "install -y --no-install-recommends curl\n",
		},
		"nothing is missing": {
			programs: without(map[string]string{"sqlite3": "", "apt-get": "exit 1"}), args: []string{"demo"},
		},
		"a system that is no Linux cannot run it": {
			programs: without(map[string]string{"uname": "echo Darwin"}), args: []string{"demo"}, says: "missing: Linux",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := machine(t, c.programs)
			cmd := exec.Command("bash", append([]string{"need.sh"}, c.args...)...)
			cmd.Env = []string{"PATH=" + dir, "SSL_CERT_FILE=need.sh"}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			err := cmd.Run()
			if (err != nil) != (c.says != "") || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("error %v, message %q; want %q", err, stderr.String(), c.says)
			}
			installed, _ := os.ReadFile(filepath.Join(dir, "installed"))
			if string(installed) != c.installed {
				t.Errorf("installed %q, want %q", installed, c.installed)
			}
		})
	}
}
