package e2e

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cacheDirectory creates the pod's cache directory on the node, as the prepare container would.
func (s *site) cacheDirectory() string {
	s.t.Helper()
	path := filepath.Join(s.Root, "var/lib/rockpool", s.namespace, "default/pod.web")
	if err := os.MkdirAll(path, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.toSidecar(path)
	return path
}

// toSidecar changes the owner of files to the sidecar's user. If the pod runner is not root, that
// is the present user.
func (s *site) toSidecar(paths ...string) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	for _, path := range paths {
		if err := os.Chown(path, 65532, 65532); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestACacheThatCannotBeOpenedDoesNotStopThePod(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, s *site, directory string)
		says  []string
	}{
		"files where slots should be": {func(t *testing.T, _ *site, directory string) {
			for n := range 64 {
				if err := os.WriteFile(filepath.Join(directory, strconv.Itoa(n)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"/var/lib/rockpool/0: not a directory"}},
		"a directory where the database should be": {func(t *testing.T, s *site, directory string) {
			if err := os.MkdirAll(filepath.Join(directory, "0/rockpool.db"), 0o700); err != nil {
				t.Fatal(err)
			}
			s.toSidecar(filepath.Join(directory, "0"), filepath.Join(directory, "0/rockpool.db"))
		}, []string{"/var/lib/rockpool/0/rockpool.db"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			tt.spoil(t, s, s.cacheDirectory())
			p := s.pod()
			p.sees("synced")
			for _, text := range append(tt.says, "cannot open the cache; requests pass through") {
				p.sidecarSays(text)
			}
			if n := p.restarts("rockpool-sidecar"); n != 0 {
				t.Errorf("the sidecar was restarted %d times", n)
			}
			if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusOK {
				t.Errorf("online: %+v", r)
			}
			s.Link.Cut()
			if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusServiceUnavailable || !strings.Contains(r.status(t).Message, "the cache could not be opened") {
				t.Errorf("offline: %+v", r)
			}
			s.configMap("meanwhile", "in the cloud")
			s.Link.Restore()
			p.sees("added", "meanwhile")

			// The sidecar tries again while it runs.
			for n := range 64 {
				if err := os.RemoveAll(filepath.Join(s.cacheDirectory(), strconv.Itoa(n))); err != nil {
					t.Fatal(err)
				}
			}
			p.sidecarSays("cache is open")
			s.configMap("recorded", "by the informer's old watch")
			p.sees("added", "recorded")
			s.until("the informer's collection is listed and recorded", func() bool {
				return s.sql("SELECT count(*) FROM object o JOIN collection c ON c.id = o.collection_id WHERE o.name = 'recorded' AND c.state = 'complete'") != "0"
			})
			p.offline()
			if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusOK || !strings.Contains(r.Body, "old watch") {
				t.Errorf("offline, with the cache opened late: %+v", r)
			}
		})
	}
}

func TestASlotOfAnotherUserIsSkipped(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs files of another user, which only root can make")
	}
	s := newSite(t)
	directory := s.cacheDirectory()
	if err := os.Mkdir(filepath.Join(directory, "0"), 0o700); err != nil { // root's
		t.Fatal(err)
	}
	p := s.pod()
	p.sees("synced")
	p.sidecarSays(`"cache is open","path":"/var/lib/rockpool/1/rockpool.db"`)
}

func TestADatabaseOfAnotherProgramIsMovedAside(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	slot := filepath.Join(s.cacheDirectory(), "0")
	database := filepath.Join(slot, "rockpool.db")
	if err := os.Mkdir(slot, 0o700); err != nil {
		t.Fatal(err)
	}
	sqlite(t, database, "CREATE TABLE treasure(x); INSERT INTO treasure VALUES ('gold')")
	s.toSidecar(slot, database)
	p := s.pod()
	p.sees("synced")
	p.sidecarSays("/var/lib/rockpool/0/rockpool.db: ")
	p.sidecarSays("database belongs to another program")
	p.offline()
	p.restart("app")
	p.sees("synced")
	if got := sqlite(t, database+".foreign", "SELECT x FROM treasure"); got != "gold" {
		t.Errorf("the other program's database has %q", got)
	}
}

func sqlite(t *testing.T, path, query string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sqlite3", path, query).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s: %v %s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// restarts is the number of restarts of a container.
func (p *testPod) restarts(container string) int {
	p.site.t.Helper()
	status, err := p.Status(container)
	if err != nil {
		p.site.t.Fatal(err)
	}
	return status.RestartCount
}

func TestADamagedDatabaseIsReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	s.until("the list is recorded", func() bool { return s.sql("SELECT count(*) FROM object WHERE name = 'greeting'") == "1" })
	p.remove()
	path, err := s.Database()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"from the first byte":   bytes.Repeat([]byte("not a database. "), len(content)/16),
		"behind the first page": append(content[:4096:4096], bytes.Repeat([]byte("not a page, now."), len(content)/16-256)...),
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			p := s.pod()
			defer p.remove()
			p.sees("present", "greeting", "hello")
			p.sees("synced")
			p.sidecarSays("/var/lib/rockpool/0/rockpool.db: ")
			p.sidecarSays("database is corrupt")
			s.Link.Cut()
			defer s.Link.Restore()
			p.restart("app")
			p.sees("present", "greeting", "hello")
			if n := p.restarts("rockpool-sidecar"); n != 0 {
				t.Errorf("the sidecar was restarted %d times", n)
			}
			if kept, err := os.ReadFile(path + ".corrupt"); err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("the damaged file has not been moved aside: %v", err)
			}
		})
	}
}

// remove stops and deletes the pod, so that another pod can have its name.
func (p *testPod) remove() {
	p.site.t.Helper()
	if err := p.Stop(); err != nil {
		p.site.t.Fatal(err)
	}
	p.site.deletePod("web")
}
