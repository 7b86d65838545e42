package e2enode

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheJanitorRemovesTheCacheOfADeletedWorkloadOnly(t *testing.T) {
	s := newSite(t, "janitor")
	s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app in (db, agent)")
	gone, stays := s.pod("db"), s.pod("agent")
	gone.recorded()
	stays.recorded()
	s.kubectl("delete", "statefulset", "db")
	s.kubectl("wait", "--for=delete", "pod/"+gone.Name, "--timeout=60s")
	gone.age(60 * 24 * time.Hour)
	stays.age(60 * 24 * time.Hour) // old, but in use

	s.admin("apply", "-k", "../../manifests/overlays/janitor")
	s.t.Cleanup(func() { s.admin("delete", "-k", "../../manifests/overlays/janitor", "--timeout=60s") })
	s.until("the cache is removed", func(context.Context) error {
		if slots, err := gone.slots(); err != nil || len(slots) > 0 {
			return errors.Join(err, errors.New("it is there"))
		}
		return nil
	})
	s.admin("-n", "rockpool-janitor", "rollout", "status", "daemonset/rockpool-janitor", "--timeout=60s")
	if slots, err := stays.slots(); err != nil || len(slots) != 1 {
		t.Errorf("slots of the running workload: %v, %v", slots, err)
	}
	stays.recorded()
	s.configMap("hello again")
	stays.sees("app", "updated", "greeting")
}

// age makes the caches of a workload look as if they had not been written for some time.
func (p *pod) age(by time.Duration) {
	p.site.t.Helper()
	slots, err := p.slots()
	p.site.try(err)
	then := time.Now().Add(-by)
	for _, slot := range slots {
		p.site.try(filepath.WalkDir(slot, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chtimes(path, then, then))
		}))
	}
}
